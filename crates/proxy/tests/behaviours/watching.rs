//! `sipedge-proxy watch` and `capture` as processes, and what they print as it comes.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use serde_json::Value;
use sipedge_proxy::config::Config;
use tempfile::TempDir;

use crate::process::control::SOCKET;
use crate::process::{self, Process};
use crate::stage::DEADLINE;

/// A command that runs until it ends by itself; killed when it is dropped.
pub(crate) struct Watching {
    child: Child,
    out: Receiver<String>,
    error: Receiver<String>,
}

impl Watching {
    /// Starts a command on the proxy of a folder.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sipedge-proxy"));
        command.args(arguments).arg("--control").arg(folder.join(SOCKET));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, error) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, out, error }
    }

    /// `watch` with these arguments, once it watches.
    pub(crate) fn watch(folder: &Path, arguments: &[&str]) -> Self {
        let watching = Self::start(folder, &[&["watch"], arguments].concat());
        assert_eq!(watching.error_line(), "watching test; Ctrl-C ends it");
        watching
    }

    /// `watch --json` with these arguments, once it watches.
    pub(crate) fn watch_json(folder: &Path, arguments: &[&str]) -> Self {
        let watching = Self::start(folder, &[&["watch", "--json"], arguments].concat());
        assert_eq!(watching.event(), serde_json::json!({"event": "begin", "edge": "test"}));
        watching
    }

    /// The next line of standard output.
    pub(crate) fn line(&self) -> String {
        next(&self.out, "standard output")
    }

    /// The next line of standard error.
    pub(crate) fn error_line(&self) -> String {
        next(&self.error, "standard error")
    }

    /// The next line of standard output, as JSON.
    pub(crate) fn event(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Waits until it has ended by itself; everything that it has printed since the last look.
    pub(crate) fn finish(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let all = |lines: &Receiver<String>| {
            let deadline = Instant::now() + DEADLINE;
            let mut all = Vec::new();
            loop {
                match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(line) => all.push(line),
                    Err(RecvTimeoutError::Disconnected) => return all,
                    Err(RecvTimeoutError::Timeout) => {
                        panic!("it has not ended within {DEADLINE:?}, but printed {all:#?}")
                    }
                }
            }
        };
        let (out, error) = (all(&self.out), all(&self.error));
        (self.child.wait().unwrap(), out, error)
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        let id = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An edge with `files` among its secrets, once it is ready.
pub(crate) fn edge_with(config: &Config, files: &[(&str, String)]) -> (Process, TempDir) {
    let folder = process::folder(config);
    for (name, contents) in files {
        std::fs::write(folder.path().join(name), contents).unwrap();
    }
    let mut process = Process::run_in(folder.path());
    process::wait_for_readyz(config.listen.address.unwrap(), 200, &mut process);
    (process, folder)
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn next(lines: &Receiver<String>, what: &str) -> String {
    lines.recv_timeout(DEADLINE).unwrap_or_else(|error| panic!("no further line on {what}: {error}"))
}
