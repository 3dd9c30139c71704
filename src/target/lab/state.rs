//! What a lab leaves in its folder, and how to tell from it whether a supervisor is alive.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};

use super::{InstanceId, LabError, Machine, machine};
use crate::files;

/// The supervisor's process: [`Process`] as JSON.
pub(super) const STATE: &str = "lab.json";
/// The control socket.
pub(super) const SOCKET: &str = "control.sock";
/// The plan, as the supervisor reads it.
pub(super) const PLAN: &str = "plan.json";
/// What instances are when they are machines: [`super::Machine`] as JSON.
pub(super) const MACHINE: &str = "machine.json";
/// What the metadata service serves as user-data to instances of the first version; read at each boot.
pub(super) const USER_DATA: &str = "user-data";
/// The same of later versions: a file for each, by its number.
pub(super) const VERSIONS: &str = "versions";
/// Secrets of the instances, written by the deploy step.
pub(super) const SECRETS: &str = "secrets";
/// Logs of the instances.
pub(super) const LOGS: &str = "logs";
/// Log of the supervisor.
pub(super) const SUPERVISOR_LOG: &str = "supervisor.log";
/// Longest path of a Unix socket that every system takes (unix(7): 108 with the ending zero).
const MAX_SOCKET_PATH: usize = 100;
/// How much of a log's end is read to show its last lines.
const TAIL_BYTES: u64 = 64 << 10;

/// A process, told from a later one with the same id by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Clock ticks since boot (proc_pid_stat(5), field 22).
    pub(super) start: u64,
}

impl Process {
    /// The process with this id now; none when there is none, or when it has ended and only waits to be reaped.
    pub(super) fn now(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold spaces and parentheses; the state follows the last one.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        // Field 22 is the 19th after the state, field 3.
        let start = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start })
    }

    pub(super) fn is_alive(self) -> bool {
        Self::now(self.pid) == Some(self)
    }

    /// Writes the state file, whole.
    pub(super) fn write(self, folder: &Path) -> Result<(), LabError> {
        let path = folder.join(STATE);
        let text = serde_json::to_vec(&self).map_err(|error| LabError::io("write", &path, error))?;
        write_private(&path, &text)
    }

    /// The supervisor that the state file names, when it is alive. A missing or damaged file names none.
    pub(super) fn read_alive(folder: &Path) -> Option<Self> {
        let text = fs::read(folder.join(STATE)).ok()?;
        let process: Self = serde_json::from_slice(&text).ok()?;
        process.is_alive().then_some(process)
    }
}

/// Keeps other processes from starting or destroying the lab of this folder, while it lives.
pub(super) fn lock(folder: &Path) -> Result<Flock<fs::File>, LabError> {
    let file = fs::File::open(folder).map_err(|error| LabError::io("open", folder, error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| LabError::Busy { folder: folder.to_owned() })
}

/// Connects to the control socket, however long its path.
pub(super) fn connect(folder: &Path) -> std::io::Result<UnixStream> {
    let path = folder.join(SOCKET);
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return UnixStream::connect(path);
    }
    let open = fs::File::open(folder)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd()))
}

/// The process that listens on the other end of a control socket (unix(7), SO_PEERCRED); none when it has ended.
pub(super) fn listener(socket: &UnixStream) -> Option<Process> {
    Process::now(getsockopt(socket, sockopt::PeerCredentials).ok()?.pid())
}

/// Creates a folder, and those above it, for this user alone.
pub(super) fn create_folder(path: &Path) -> Result<(), LabError> {
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|error| LabError::io("create the folder", path, error))
}

/// Writes a file, whole, that only this user can read.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), LabError> {
    files::write_whole(path, bytes, 0o600).map_err(|error| LabError::io("write", path, error))
}

/// Removes what an earlier lab left, but for the secrets.
pub(super) fn clean(folder: &Path) -> Result<(), LabError> {
    for name in [STATE, SOCKET, PLAN, MACHINE, USER_DATA, VERSIONS, SUPERVISOR_LOG, LOGS] {
        let path = folder.join(name);
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LabError::io("remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The user-data of a version.
pub(super) fn user_data_path(folder: &Path, version: u64) -> PathBuf {
    match version {
        ..=1 => folder.join(USER_DATA),
        _ => folder.join(VERSIONS).join(version.to_string()),
    }
}

/// The log of an instance.
pub(super) fn log_path(folder: &Path, id: &InstanceId) -> PathBuf {
    folder.join(LOGS).join(format!("{id}.log"))
}

/// Folder of an instance's machine.
pub(super) fn machine_folder(folder: &Path, id: &InstanceId) -> PathBuf {
    folder.join(LOGS).join(format!("{id}.machine"))
}

/// What the instances of this lab are; none when they are processes.
pub(super) fn machine(folder: &Path) -> Result<Option<Machine>, LabError> {
    let path = folder.join(MACHINE);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| LabError::io("understand", &path, error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LabError::io("read", &path, error)),
    }
}

/// Socket of an instance's control endpoint.
pub(super) fn control_path(folder: &Path, id: &InstanceId) -> PathBuf {
    folder.join(LOGS).join(format!("{id}.control"))
}

/// The last lines of a file; none when it cannot be read.
pub(super) fn tail(path: &Path, lines: usize) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        Ok(end)
    };
    let end = read().unwrap_or_default();
    let text = machine::plain(&String::from_utf8_lossy(&end));
    let all: Vec<&str> = text.lines().collect();
    all.iter().skip(all.len().saturating_sub(lines)).map(|line| (*line).to_owned()).collect()
}
