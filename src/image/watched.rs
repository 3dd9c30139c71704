//! Running a program that may hang: it is ended when it has said nothing for too long.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
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

/// Bytes of output that are written at once.
const OUTPUT_BYTES: usize = 1 << 20;

/// Time between two looks at one that was told to end.
const LOOK: Duration = Duration::from_millis(50);

/// What is noticed of a program.
enum Heard {
    /// Words on its standard error.
    Said(Vec<u8>),
    /// Some of its output.
    Wrote,
    /// Its output cannot be kept.
    Unwritten(io::Error),
}

/// Runs a program to its end; or ends it and all that it has started when it wrote nothing for `quiet`, or when its output cannot be written
/// to `output`. mmdebstrap that writes its archive itself hangs when the disk is full: it stops reading what it waits for to end.
///
/// # Errors
/// [`ImageError::ProgramMissing`], [`ImageError::Program`] with its last lines, [`ImageError::Silent`], [`ImageError::NoSpace`] and
/// [`ImageError::File`] for the output.
pub(super) fn run(
    command: &mut Command,
    package: &'static str,
    quiet: Duration,
    output: Option<&Path>,
) -> Result<(), ImageError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source: io::Error| ImageError::File { what: "run", path: PathBuf::from(&program), source };
    let kept = output.map(|path| File::create(path).map_err(ImageError::file("create", path))).transpose()?;
    let stdout = if kept.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ImageError::ProgramMissing { program: program.clone(), package },
        _ => failed(source),
    })?;
    let mut said = Vec::new();
    let (parts, heard) = mpsc::channel();
    // Either thread ends with the last process that can write there; nobody waits for it.
    if let (Some(from), Some(kept)) = (child.stdout.take(), kept) {
        let parts = parts.clone();
        std::thread::spawn(move || keep(from, kept, &parts));
    }
    if let Some(mut errors) = child.stderr.take() {
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = errors.read(&mut buffer) {
                if parts.send(Heard::Said(buffer.get(..length).unwrap_or_default().to_vec())).is_err() {
                    return;
                }
            }
        });
    }
    let status: ExitStatus = loop {
        match heard.recv_timeout(quiet) {
            Ok(Heard::Said(part)) => said.extend(part),
            Ok(Heard::Wrote) => {}
            Ok(Heard::Unwritten(source)) => {
                end(&mut child);
                return Err(ImageError::file("write", output.unwrap_or(Path::new("")))(source));
            }
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

/// Copies a program's output to a file, and tells of it.
fn keep(mut from: impl Read, mut to: File, parts: &mpsc::Sender<Heard>) {
    let mut buffer = vec![0; OUTPUT_BYTES];
    let ended = loop {
        match from.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(length) => {
                if let Err(error) = to.write_all(buffer.get(..length).unwrap_or_default()) {
                    break Err(error);
                }
                if parts.send(Heard::Wrote).is_err() {
                    return;
                }
            }
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = ended.and_then(|()| to.sync_all()) {
        // Nobody listens any more where the program was ended.
        let _ = parts.send(Heard::Unwritten(error));
    }
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
        let error = run(&mut shell(&script), "none", Duration::from_secs(1), None).expect_err("it hangs").to_string();
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
        run(&mut shell("for i in 1 2 3; do echo $i >&2; sleep 0.1; done"), "none", quiet, None).expect("it ends well");
        let error = run(&mut shell("echo broken >&2; exit 3"), "none", quiet, None).expect_err("it fails").to_string();
        assert!(error.contains("exit status: 3") && error.contains("broken"), "{error}");
        let error = run(&mut Command::new("no-such-program"), "a-package", quiet, None).expect_err("it is missing");
        assert!(error.to_string().contains("apt-get install a-package"), "{error}");
    }

    #[test]
    fn output_is_kept_and_one_whose_output_does_not_fit_is_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("output");
        let quiet = Duration::from_secs(60);
        run(&mut shell("echo first; sleep 0.1; echo second"), "none", quiet, Some(&place)).expect("it ends well");
        assert_eq!(fs::read_to_string(&place).expect("kept"), "first\nsecond\n");
        // What it has started goes on writing, and would wait for ever for somebody who reads.
        let script = "trap '' PIPE; (trap '' PIPE; while :; do echo more; done) & wait";
        let begun = Instant::now();
        let error = run(&mut shell(script), "none", quiet, Some(Path::new("/dev/full"))).expect_err("it is full");
        assert!(matches!(error, ImageError::NoSpace { .. }), "{error}");
        assert!(begun.elapsed() < quiet, "it was waited for");
    }
}
