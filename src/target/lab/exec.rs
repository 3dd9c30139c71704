//! Running a program inside one of the lab's namespaces.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use nix::unistd::execvp;

use super::{Lab, LabError};

/// Replaces this process by `command`, run inside `namespace` of the lab in `folder`. Returns only on error.
///
/// Must be called before the process has a second thread.
pub fn exec(folder: &Path, namespace: &str, command: &[String]) -> LabError {
    match run(folder, namespace, command) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn run(folder: &Path, namespace: &str, command: &[String]) -> Result<std::convert::Infallible, LabError> {
    let Some(program) = command.first() else {
        return Err(LabError::Topology("there is no command to run; write it after `--`".to_owned()));
    };
    let lab = Lab::attach(folder)?.ok_or_else(|| LabError::NotRunning {
        folder: folder.to_owned(),
        reason: "no supervisor is alive there".to_owned(),
    })?;
    let [network, user] = lab.namespace(namespace)?;
    let failed = |error: &dyn std::fmt::Display| LabError::kernel(format!("enter the namespace {namespace}"), error);
    let own = File::open("/proc/self/ns/user").map_err(|error| failed(&error))?;
    let same = fstat(&own).and_then(|own| Ok(own.st_ino == fstat(&user)?.st_ino)).map_err(|error| failed(&error))?;
    // A process cannot enter the user namespace in which it is (setns(2)).
    if !same {
        setns(user.as_fd(), CloneFlags::CLONE_NEWUSER).map_err(|error| failed(&error))?;
    }
    setns(network.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|error| failed(&error))?;
    let words: Result<Vec<CString>, _> = command.iter().map(|word| CString::new(word.as_str())).collect();
    let words = words.map_err(|error| LabError::io("run", program.as_ref(), error))?;
    let file = words.first().cloned().unwrap_or_default();
    execvp(&file, &words).map_err(|error| LabError::io("run", program.as_ref(), error))
}
