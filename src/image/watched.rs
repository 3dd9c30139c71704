//! Running a program that may hang: it is ended when it has said nothing for too long.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ImageError, tail};

/// How long a program may say nothing. mmdebstrap, apt and Ansible write a line every minute at the most on a machine that does nothing else.
pub(super) const QUIET: Duration = Duration::from_secs(900);

/// How long one that was told to end may take to tidy up.
const TIDY: Duration = Duration::from_secs(10);

/// Time between two looks at one that was told to end.
const LOOK: Duration = Duration::from_millis(50);

/// Runs a program to its end, or ends it and all that it has started when its standard error was silent for `quiet`.
///
/// # Errors
/// [`ImageError::ProgramMissing`], [`ImageError::Program`] with its last lines, [`ImageError::Silent`].
pub(super) fn run(command: &mut Command, package: &'static str, quiet: Duration) -> Result<(), ImageError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source: io::Error| ImageError::File { what: "run", path: PathBuf::from(&program), source };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ImageError::ProgramMissing { program: program.clone(), package },
        _ => failed(source),
    })?;
    let mut said = Vec::new();
    let (parts, heard) = mpsc::channel();
    if let Some(mut errors) = child.stderr.take() {
        // Ends with the last process that can write there; nobody waits for it.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = errors.read(&mut buffer) {
                if parts.send(buffer.get(..length).unwrap_or_default().to_vec()).is_err() {
                    return;
                }
            }
        });
    }
    let status: ExitStatus = loop {
        match heard.recv_timeout(quiet) {
            Ok(part) => said.extend(part),
            Err(RecvTimeoutError::Disconnected) => break child.wait().map_err(failed)?,
            Err(RecvTimeoutError::Timeout) => {
                end(&mut child);
                let tail = tail(&String::from_utf8_lossy(&said));
                return Err(ImageError::Silent { program, minutes: quiet.as_secs() / 60, tail });
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    Err(ImageError::Program { program, status: status.to_string(), tail: tail(&String::from_utf8_lossy(&said)) })
}

/// Ends a program, and whatever it has started and left.
fn end(child: &mut Child) {
    let mut all = vec![Pid::from_raw(child.id().cast_signed())];
    let mut next = 0;
    while let Some(parent) = all.get(next).copied() {
        all.extend(children(parent));
        next += 1;
    }
    // Who has ended already needs no signal.
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
    let begun = Instant::now();
    while begun.elapsed() < TIDY && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(LOOK);
    }
    for process in all.into_iter().rev() {
        let _ = kill(process, Signal::SIGKILL);
    }
    let _ = child.wait();
}

fn children(parent: Pid) -> Vec<Pid> {
    let listed = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|id| id.parse().ok()).map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn one_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("pid");
        let script = format!("echo unpacking >&2; sleep 600 & echo $! > {}; wait", place.display());
        let error = run(&mut shell(&script), "none", Duration::from_secs(1)).expect_err("it hangs").to_string();
        assert!(error.contains("sh has said nothing for") && error.contains("unpacking"), "{error}");
        let pid: i32 = fs::read_to_string(place).expect("written").trim().parse().expect("a number");
        let begun = Instant::now();
        let runs = || {
            let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !status.is_empty() && !status.contains(") Z ")
        };
        while runs() {
            assert!(begun.elapsed() < TIDY, "{pid} still runs");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn one_that_goes_on_saying_something_is_left_alone() {
        let quiet = Duration::from_secs(5);
        run(&mut shell("for i in 1 2 3; do echo $i >&2; sleep 0.1; done"), "none", quiet).expect("it ends well");
        let error = run(&mut shell("echo broken >&2; exit 3"), "none", quiet).expect_err("it fails").to_string();
        assert!(error.contains("exit status: 3") && error.contains("broken"), "{error}");
        let error = run(&mut Command::new("no-such-program"), "a-package", quiet).expect_err("it is missing");
        assert!(error.to_string().contains("apt-get install a-package"), "{error}");
    }
}
