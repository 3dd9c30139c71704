//! Why the lab did not do what was asked.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::InstanceId;

/// Why the lab did not do what was asked. It crosses the control socket, so causes are text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LabError {
    /// A lab is running in the folder; attach to it or destroy it.
    #[error("a lab is already running in {} (supervisor {pid}); destroy it first", folder.display())]
    AlreadyRunning {
        /// Its folder.
        folder: PathBuf,
        /// Its supervisor's process id.
        pid: i32,
    },
    /// Another process is starting or destroying a lab in the folder.
    #[error("another sipedge is starting or destroying the lab in {}; wait for it to end and try again", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// The supervisor is gone, or went while it was asked.
    #[error("no lab answers in {}: {reason}; deploy again to clean up and start a new one", folder.display())]
    NotRunning {
        /// The folder.
        folder: PathBuf,
        /// What the socket said.
        reason: String,
    },
    /// User namespaces are not available, and this is not root.
    #[error(
        "cannot create a user namespace ({reason}): {setting}. Change that, or run as root, which needs no user namespace"
    )]
    UserNamespaces {
        /// What the kernel said.
        reason: String,
        /// The setting that forbids it.
        setting: String,
    },
    /// The appliance's binary is missing, or is no program.
    #[error("no sipedge-proxy that can be run at {}; build it with `cargo build --release`, which puts both programs into one folder, or name it in SIPEDGE_PROXY", tried.display())]
    NoProxy {
        /// Where it was looked for.
        tried: PathBuf,
    },
    /// The `sipedge` binary, which runs the supervisor, is missing.
    #[error("no sipedge at {}; build it with `cargo build --release`, or name it in SIPEDGE_BIN", tried.display())]
    NoSipedge {
        /// Where it was looked for.
        tried: PathBuf,
    },
    /// A program that instances need is missing.
    #[error("`{program}` is not installed; on Debian: apt-get install {package}")]
    ProgramMissing {
        /// The program.
        program: String,
        /// The Debian package that has it.
        package: String,
    },
    /// Firmware for machines is not installed.
    #[error("no UEFI firmware for QEMU among {searched}; on Debian: apt-get install ovmf")]
    FirmwareMissing {
        /// The files that were looked for.
        searched: String,
    },
    /// The plan asks for what the lab cannot build.
    #[error("the lab cannot build this plan: {0}")]
    Plan(String),
    /// The kernel refused a step of building the network.
    #[error("the kernel refused to {what}: {reason}")]
    Kernel {
        /// The step, as a verb phrase.
        what: String,
        /// Its error.
        reason: String,
    },
    /// A file or socket operation failed.
    #[error("cannot {what} {}: {reason}", path.display())]
    Io {
        /// The operation, as a verb.
        what: String,
        /// On what.
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// The supervisor ended before the network stood.
    #[error("the supervisor ended before the network stood ({status}){}", tail(log))]
    SupervisorEnded {
        /// How it ended.
        status: String,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// There is no such instance.
    #[error("there is no instance {id}; there are: {}", list(known))]
    NoSuchInstance {
        /// The name that was asked for.
        id: InstanceId,
        /// Those that exist.
        known: Vec<String>,
    },
    /// There is no such namespace.
    #[error("there is no namespace {name}; there are: {}", list(known))]
    NoSuchNamespace {
        /// The name that was asked for.
        name: String,
        /// Those that exist.
        known: Vec<String>,
    },
    /// The instance has been killed or terminated.
    #[error("instance {id} is gone: {reason}")]
    InstanceGone {
        /// The instance.
        id: InstanceId,
        /// How it went.
        reason: String,
    },
    /// The instance did not become healthy.
    #[error("instance {id} is not healthy: {reason}{}", tail(log))]
    NotHealthy {
        /// The instance.
        id: InstanceId,
        /// Its process ended, or the deadline passed.
        reason: String,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// An instance's admin port did not answer.
    #[error("GET {path} from {id} failed: {reason}")]
    Http {
        /// The instance.
        id: InstanceId,
        /// The path.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// The group refuses a refresh, or knows none of that name.
    #[error("{0}")]
    Group(String),
    /// The topology has no such thing.
    #[error("{0}")]
    Topology(String),
    /// Client and supervisor are of different builds.
    #[error(
        "the supervisor answered what this build does not understand ({0}); destroy the lab with the build that started it"
    )]
    Protocol(String),
}

impl LabError {
    /// A failed operation on a path.
    pub(super) fn io(what: &str, path: &Path, error: impl Display) -> Self {
        Self::Io { what: what.to_owned(), path: path.to_owned(), reason: error.to_string() }
    }

    /// A step that the kernel refused.
    pub(super) fn kernel(what: impl Into<String>, error: impl Display) -> Self {
        Self::Kernel { what: what.into(), reason: error.to_string() }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn tail(log: &[String]) -> String {
    if log.is_empty() {
        "; its log is empty".to_owned()
    } else {
        format!("; its log ends with:\n  {}", log.join("\n  "))
    }
}
