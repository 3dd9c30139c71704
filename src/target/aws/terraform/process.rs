//! One run of Terraform: its output line by line, bounded; its end; and that it never outlives what started it unnoticed.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;

use super::folder::{Folder, name_holder};
use super::{Program, TerraformError};
use crate::interrupt;

/// Room for what Terraform says without sipedge, in bytes: some three thousand lines. The most that a user may have (`fs.pipe-max-size`).
const PIPE_BYTES: i32 = 1024 * 1024;
/// Longest line that is kept whole, in bytes. A plan's line has one resource's name and action, a diagnostic a few KiB.
const LINE_BYTES: usize = 256 * 1024;
/// Lines of each output that are kept for an error.
const TAIL_LINES: usize = 60;
/// Largest answer that is read whole, in bytes: `show -json` of a plan of some sixty resources is about 300 KiB.
const ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Variables of the caller's environment that would have Terraform do something else than sipedge says.
const NOT_PASSED_ON: [&str; 10] = [
    "TF_DATA_DIR",
    "TF_WORKSPACE",
    "TF_CLI_ARGS",
    "TF_CLI_ARGS_init",
    "TF_CLI_ARGS_plan",
    "TF_CLI_ARGS_apply",
    "TF_CLI_ARGS_show",
    "TF_CLI_ARGS_output",
    "TF_CLI_ARGS_destroy",
    "TF_REATTACH_PROVIDERS",
];

/// A run that has not begun.
#[derive(Debug)]
pub(super) struct Child {
    command: Command,
    folder: Folder,
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) success: bool,
    /// Whether somebody ended it by force, without leaving it time to write its state.
    pub(super) killed: bool,
    /// In words: `exit code 1`, `signal 9`.
    pub(super) how: String,
    /// The last lines of both outputs, standard error's after the others.
    pub(super) tail: Vec<String>,
    /// Whether somebody has asked this process to end meanwhile.
    pub(super) interrupted: bool,
}

impl Child {
    pub(super) fn new(program: &Program, folder: &Folder, arguments: Vec<OsString>) -> Self {
        let mut command = Command::new(program.path());
        command.args(arguments).current_dir(folder.root_module());
        for name in NOT_PASSED_ON {
            command.env_remove(name);
        }
        command.env("TF_IN_AUTOMATION", "1").env("TF_INPUT", "0").env("CHECKPOINT_DISABLE", "1");
        // A group of its own: Ctrl-C reaches sipedge alone, which asks Terraform once to end. Two interrupts make Terraform drop its state.
        command.process_group(0);
        // When sipedge is killed, Terraform goes on with what was agreed to, and the next run waits for it: one that is asked to end drops the
        // requests that are under way, and what AWS makes of those is in no state.
        Self { command, folder: folder.clone() }
    }

    pub(super) fn set(&mut self, variable: &str, value: impl AsRef<OsStr>) {
        self.command.env(variable, value);
    }

    /// Runs it; `on_line` gets each line of standard output.
    pub(super) fn run(self, on_line: &mut dyn FnMut(&str)) -> Result<Ended, TerraformError> {
        self.go(|stdout, sender| lines(stdout, &sender, Source::Output), on_line).map(|(ended, ())| ended)
    }

    /// Runs it and returns its whole standard output.
    pub(super) fn read_all(self) -> Result<(Ended, Vec<u8>), TerraformError> {
        let read = |stdout: PipeReader, _: Sender<(Source, String)>| {
            let mut bytes = Vec::new();
            let mut limited = stdout.take(ANSWER_BYTES);
            // What could not be read is missed by the parser, which says so.
            let _ = limited.read_to_end(&mut bytes);
            let _ = std::io::copy(limited.get_mut(), &mut std::io::sink());
            bytes
        };
        self.go(read, &mut |_| {})
    }

    fn go<T: Send + 'static>(
        mut self,
        read: impl FnOnce(PipeReader, Sender<(Source, String)>) -> T + Send + 'static,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<(Ended, T), TerraformError> {
        let path = self.command.get_program().to_owned();
        let io = |doing, error| TerraformError::io(doing, path.as_ref(), error);
        // Terraform shares this lock through its standard input for as long as it lives, also when sipedge is killed.
        let lock = self.folder.claim(&mut |_| {})?;
        let shared = lock.try_clone().map_err(|error| io("give a lock to", error))?;
        self.command.stdin(Stdio::from(shared));
        let (stdout, stdout_end, stdout_kept) = lasting_pipe().map_err(|error| io("make a pipe for", error))?;
        let (stderr, stderr_end, stderr_kept) = lasting_pipe().map_err(|error| io("make a pipe for", error))?;
        self.command.stdout(stdout_end).stderr(stderr_end);
        let mut child = self.command.spawn().map_err(|error| io("run", error))?;
        drop((stdout_kept, stderr_kept));
        // Without it the next run only waits longer for what this one has left.
        let _ = name_holder(&lock, child.id());
        // The command holds the lock too, and the ends to which Terraform writes.
        drop(self.command);
        let watched = interrupt::watch_child(child.id());
        let (sender, lines_of_both) = channel();
        let errors = sender.clone();
        let reading_errors = std::thread::spawn(move || lines(stderr, &errors, Source::Error));
        let reading = std::thread::spawn(move || read(stdout, sender));
        let tail = follow(&lines_of_both, on_line);
        let status = child.wait().map_err(|error| io("wait for", error))?;
        let gone = || io("read from", std::io::Error::other("its output broke off"));
        reading_errors.join().map_err(|_| gone())?;
        let result = reading.join().map_err(|_| gone())?;
        let killed = status.signal() == Some(Signal::SIGKILL as i32);
        let interrupted = watched.was_interrupted();
        let ended = Ended { success: status.success(), killed, how: how(status), tail, interrupted };
        Ok((ended, result))
    }
}

/// A pipe of which the child that is spawned next inherits the end to read from as well, and that end: to be dropped after the spawn.
///
/// When sipedge is killed, Terraform goes on, and a Go program that writes to a pipe without a reader is killed by SIGPIPE before it has
/// written its state. What it says until its end fits into the pipe.
fn lasting_pipe() -> std::io::Result<(PipeReader, PipeWriter, PipeReader)> {
    let (reader, writer) = std::io::pipe()?;
    let kept = reader.try_clone()?;
    // Where that is not granted, the usual 64 KiB hold what a single-ec2 says.
    let _ = fcntl(&kept, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    fcntl(&kept, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok((reader, writer, kept))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Output,
    Error,
}

/// The last lines of standard output, then those of standard error: which came first is chance.
fn follow(lines: &Receiver<(Source, String)>, on_line: &mut dyn FnMut(&str)) -> Vec<String> {
    let (mut output, mut errors) = (VecDeque::new(), VecDeque::new());
    // Ends when both readers have closed their ends, which they do when Terraform has closed its own.
    for (source, line) in lines {
        let tail = match source {
            Source::Output => {
                on_line(&line);
                &mut output
            }
            Source::Error => &mut errors,
        };
        if tail.len() >= TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    output.append(&mut errors);
    output.into()
}

fn lines(from: impl Read, to: &Sender<(Source, String)>, source: Source) {
    let mut from = BufReader::new(from);
    let limit = u64::try_from(LINE_BYTES).unwrap_or(u64::MAX);
    loop {
        let mut line = Vec::new();
        match (&mut from).take(limit).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        if to.send((source, text.trim_end().to_owned())).is_err() {
            return;
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_an_error_stands_together_and_last() {
        let (sender, lines) = channel();
        for (source, text) in [(Source::Error, "Error: a"), (Source::Output, "Initializing..."), (Source::Error, "b")] {
            sender.send((source, text.to_owned())).expect("it is read");
        }
        drop(sender);
        let mut told = Vec::new();
        assert_eq!(follow(&lines, &mut |line| told.push(line.to_owned())), ["Initializing...", "Error: a", "b"]);
        assert_eq!(told, ["Initializing..."]);
    }
}
