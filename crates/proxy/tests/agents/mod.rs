//! User agents that others wrote, each a process of its own with a folder and a loopback address of its own.

pub mod baresip;
pub mod linphone;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Longest wait for anything that an agent has to do. They start slowly where many of them share a processor.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How a hop is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Udp,
    Tcp,
    Tls,
}

impl Over {
    pub fn port(self) -> u16 {
        if self == Self::Tls { 5061 } else { 5060 }
    }

    /// `sip:user@ip:port;transport=…`; without `user`, the host alone.
    pub fn uri(self, user: Option<&str>, ip: IpAddr) -> String {
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        format!("sip:{user}{ip}:{};transport={}", self.port(), self.parameter())
    }

    pub fn parameter(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// A telephone. Each method that waits panics with what the agent has said when the deadline passes.
pub trait Phone {
    /// Opens a call.
    fn dial(&mut self, uri: &str);
    /// Waits until a call is up: for a caller, until the 200 is there; for a callee, until it has answered.
    fn established(&mut self);
    /// Ends the call that is up, or gives up the one that rings.
    fn hang_up(&mut self);
    /// Waits until the call has ended.
    fn closed(&mut self);
    /// All that it has said.
    fn said(&self) -> String;
}

/// What a phone needs to know.
pub struct Setting<'a> {
    pub ip: IpAddr,
    pub user: &'a str,
    /// Its certificate and key, in PEM.
    pub certificate: &'a str,
    /// Whom it trusts, in PEM.
    pub roots: &'a str,
}

/// A loopback address for one role in one test. Other than those of the other tests' `address`, so that more than 255 fit.
pub fn address(test: u8, role: u8) -> IpAddr {
    let process = std::process::id();
    // The process id keeps two runs of the tests on one machine apart.
    Ipv4Addr::new(127, 192 + (process % 32) as u8, (process / 32 % 256) as u8, test * 8 + role).into()
}

/// The first program of that name on PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether one of these Debian packages' programs is missing; then the test says that it is skipped, which is a failure in CI.
pub fn missing(test: &str, programs: &[(&str, &str)]) -> bool {
    let missing = programs.iter().find(|(name, _)| program(name).is_none());
    if let Some((name, package)) = missing {
        let reason = format!("{name} is not installed (Debian package {package})");
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "{test} would be skipped, and in CI nothing is: {reason}");
        eprintln!("skipped: {test}: {reason}");
    }
    missing.is_some()
}

/// A running program and what it has written; killed when it is dropped.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<(Mutex<String>, Condvar)>,
    /// How much of the output has been waited for.
    seen: usize,
}

impl Running {
    pub fn start(program: &str, arguments: &[&OsStr], variables: &[(&str, &OsStr)]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        let output = Arc::new((Mutex::new(String::new()), Condvar::new()));
        follow(child.stdout.take().unwrap(), &output);
        follow(child.stderr.take().unwrap(), &output);
        let input = child.stdin.take();
        Self { child, input, output, seen: 0 }
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").and_then(|()| input.flush()).unwrap();
    }

    /// Waits until it has written `text`, after what was waited for before; whether it has.
    pub fn wait_for(&mut self, text: &str) -> bool {
        let (output, condition) = (&self.output.0, &self.output.1);
        let seen = self.seen;
        let (output, waited) = condition
            .wait_timeout_while(output.lock().unwrap(), DEADLINE, |output| !output[seen..].contains(text))
            .unwrap();
        if let Some(at) = output[seen..].find(text).filter(|_| !waited.timed_out()) {
            self.seen += at + text.len();
        }
        !waited.timed_out()
    }

    /// Waits for its end.
    pub fn finish(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {DEADLINE:?}:\n{}", self.written());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn written(&self) -> String {
        self.output.0.lock().unwrap().clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects what is written, in a thread that ends with the program.
fn follow(mut from: impl Read + Send + 'static, to: &Arc<(Mutex<String>, Condvar)>) {
    let to = Arc::clone(to);
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            to.0.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            to.1.notify_all();
        }
    });
}
