//! What a distribution's start-up does before the first service: file systems, drivers, kernel settings.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};

/// The drivers that the image's maker put in, one path a line, each after those that it needs.
const DRIVERS: &str = "/lib/modules/order";

/// Kernel settings, each with its reason.
const SETTINGS: [(&str, &str); 6] = [
    // A burst of SIP that comes while a shard is busy waits in the socket's buffer; the proxy asks for as much as it is allowed.
    ("net/core/rmem_max", "16777216"),
    ("net/core/wmem_max", "16777216"),
    // Datagrams between the interface and the sockets: the kernel's 1000 are lost within a millisecond of a burst.
    ("net/core/netdev_max_backlog", "16384"),
    // The proxy binds its egress port itself; ports of outgoing TCP connections keep off the SIP range.
    ("net/ipv4/ip_local_port_range", "16384 65535"),
    // A machine that hangs in a panic is not replaced until a health check notices: it starts again instead.
    ("kernel/panic", "10"),
    // The kernel's messages would break up the log on the console.
    ("kernel/printk", "3 4 1 3"),
];

/// Why the machine cannot be made ready for the proxy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SystemError {
    /// A file system cannot be mounted.
    #[error("cannot mount {kind} on {place}: {source}")]
    Mount {
        /// The file system.
        kind: &'static str,
        /// Where.
        place: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// A folder or file cannot be made or read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Mounts what programs expect of Linux.
pub(crate) fn mount_all() -> Result<(), SystemError> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let wanted = [
        ("proc", "/proc", quiet, None),
        ("sysfs", "/sys", quiet, None),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("mode=0755")),
        ("tmpfs", "/run", quiet, Some("mode=0755,size=16m")),
    ];
    for (kind, place, flags, options) in wanted {
        make_folder(Path::new(place))?;
        match mount(Some(kind), place, Some(kind), flags, options) {
            // The kernel has mounted devtmpfs itself where it was configured to.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(source) => return Err(SystemError::Mount { kind, place, source }),
        }
    }
    for folder in ["/run/sipedge", "/etc/sipedge/secrets"] {
        make_folder(Path::new(folder))?;
    }
    Ok(())
}

/// Loads the image's drivers in their order. One that does not load is said and left: the machine may have no such device.
pub(crate) fn load_drivers() -> Result<(), SystemError> {
    let path = Path::new(DRIVERS);
    let list = fs::read_to_string(path).map_err(|source| SystemError::File { path: path.to_owned(), source })?;
    for driver in list.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let loaded = File::open(driver).and_then(|file| {
            match finit_module(&file, CString::default().as_c_str(), ModuleInitFlags::empty()) {
                Ok(()) | Err(Errno::EEXIST) => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
        if let Err(error) = loaded {
            tracing::warn!(driver, %error, "driver not loaded");
        }
    }
    Ok(())
}

/// Applies the kernel settings. One that the kernel does not know is said and left: calls go through without it.
pub(crate) fn apply_settings() {
    for (setting, value) in SETTINGS {
        if let Err(error) = fs::write(format!("/proc/sys/{setting}"), value) {
            tracing::warn!(setting, value, %error, "kernel setting not applied");
        }
    }
}

fn make_folder(path: &Path) -> Result<(), SystemError> {
    fs::create_dir_all(path).map_err(|source| SystemError::File { path: path.to_owned(), source })
}
