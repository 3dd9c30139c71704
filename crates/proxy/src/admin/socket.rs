use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Where the control endpoint is unless the command line says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/sipedge/control.sock";

/// Longest path of a Unix socket on Linux, in bytes (unix(7): 108, the last of them zero).
const LONGEST_PATH: usize = 107;

/// Mode of the socket: its owner alone may connect, and root.
const MODE: u32 = 0o600;

/// Mode of a folder made for it.
const FOLDER_MODE: u32 = 0o755;

/// The control endpoint's socket. Its file goes when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file that is ours.
    file: (u64, u64),
}

/// Why there is no control endpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another process answers there.
    #[error("{path}: another process listens there: give this one its own by --control")]
    Live {
        /// The socket.
        path: String,
    },
    /// Something else has the name.
    #[error("{path}: is there, and no socket: remove it, or name another one by --control")]
    NoSocket {
        /// The file.
        path: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}; name another place by --control")]
    Io {
        /// What was to be made.
        path: String,
        /// Its answer.
        source: io::Error,
    },
}

impl ControlSocket {
    /// Binds it, with its folder if that is missing. The socket of a process that has ended is replaced, one that answers is not.
    ///
    /// Has to be called in a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let name = || path.display().to_string();
        let failed = |source| SocketError::Io { path: name(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(failed)?;
        }
        let within = Within::new(path).map_err(failed)?;
        let listener = match StdListener::bind(&within.path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
                    return Err(SocketError::NoSocket { path: name() });
                }
                // Only a socket that nobody listens on refuses; one that is busy or not ours does not.
                match StdStream::connect(&within.path) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        fs::remove_file(path).map_err(failed)?;
                        StdListener::bind(&within.path).map_err(failed)?
                    }
                    _ => return Err(SocketError::Live { path: name() }),
                }
            }
            bound => bound.map_err(failed)?,
        };
        // Whoever connects before this line is judged by the credentials of the connection.
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
        let file = fs::symlink_metadata(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), file: (file.dev(), file.ino()) })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A path as the system calls for Unix sockets take it: one that is too long for them goes by a descriptor of its folder.
pub(super) struct Within {
    pub(super) path: PathBuf,
    _folder: Option<File>,
}

impl Within {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let short = || Self { path: path.to_owned(), _folder: None };
        if path.as_os_str().as_bytes().len() <= LONGEST_PATH {
            return Ok(short());
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(short()) };
        let folder = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}
