//! A plain Debian 12 host: a container in which systemd runs, with a network of its own that leads to one other namespace, the carrier's.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::support::{program, repository, skip};
use crate::tools::{self, Done};

/// The host's address, the carriers', and the instance metadata's, which the carrier's namespace plays too.
pub const HOST: &str = "10.77.0.2";
pub const CALLER: &str = "10.77.0.10";
pub const CALLEE: &str = "10.77.0.20";
pub const METADATA: &str = "169.254.169.254";

/// Longest time until systemd runs.
const BOOT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

/// What systemd needs of a container to be one: nspawn, and the right to make it.
const PROGRAMS: [(&str, &str); 3] =
    [("systemd-nspawn", "systemd-container"), ("nsenter", "util-linux"), ("ip", "iproute2")];

pub struct Host {
    /// Its root file system, as this machine sees it.
    pub root: PathBuf,
    container: Child,
    /// The container's first process.
    leader: i32,
    /// Holds the carrier's namespace.
    carrier: Child,
    _folder: tempfile::TempDir,
}

impl Host {
    /// Boots one; none, and `test` is skipped, where that cannot be.
    pub fn boot(test: &str) -> Option<Self> {
        if let Some((name, package)) = PROGRAMS.into_iter().find(|(name, _)| program(name).is_none()) {
            skip(test, &format!("{name} is missing (Debian package {package}); tests/setup installs it"));
            return None;
        }
        let archive = tools::test_tools().join("debian-host.tar");
        if !archive.is_file() {
            skip(test, "there is no root file system of Debian: run tests/setup");
            return None;
        }
        if !nix::unistd::geteuid().is_root() {
            skip(test, "a container that runs systemd can be made by root alone");
            return None;
        }
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let root = folder.path().join("root");
        fs::create_dir(&root).expect("a folder");
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--numeric-owner", "--same-permissions", "--file"]).arg(&archive);
        tools::run(tar.arg("--directory").arg(&root)).expect("the root file system is unpacked");
        // There is no network to fetch the lists of packages anew, which Ansible does when they are older than an hour.
        let lists = ["var/lib/apt/lists", "var/lib/apt/periodic/update-success-stamp"].map(|name| root.join(name));
        for there in lists.iter().filter(|place| place.exists()) {
            File::open(there).and_then(|file| file.set_modified(SystemTime::now())).expect("a time can be set");
        }

        let log = folder.path().join("console.log");
        let mut nspawn = Command::new("systemd-nspawn");
        nspawn.args(["--quiet", "--register=no", "--keep-unit", "--private-network", "--link-journal=no", "--boot"]);
        nspawn.args(["--console=pipe", "--machine=edge", "--directory"]).arg(&root).stdin(Stdio::null());
        nspawn
            .stdout(File::create(&log).expect("a file"))
            .stderr(File::create(folder.path().join("errors.log")).expect("a file"));
        let mut container = nspawn.spawn().expect("systemd-nspawn starts");
        let leader = wait(&log, || first_child(container.id()));
        assert!(container.try_wait().expect("it can be asked").is_none(), "systemd-nspawn ended: {}", text(&log));
        let carrier = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn().expect("unshare starts");
        let host = Self { root, container, leader, carrier, _folder: folder };
        let own = fs::read_link("/proc/self/ns/net").expect("readable");
        let there = format!("/proc/{}/ns/net", host.carrier.id());
        wait(&log, || fs::read_link(&there).ok().filter(|other| *other != own));
        wait(&log, || {
            let state = host.run(&["systemctl", "is-system-running"]).said;
            ["running", "degraded"].contains(&state.trim()).then_some(())
        });
        host.join();
        Some(host)
    }

    /// Both ends of the wire, and who is at the other one.
    fn join(&self) {
        let carrier = self.carrier.id().to_string();
        let add = ["link", "add", "edge0", "type", "veth", "peer", "name", "carrier0", "netns"];
        self.ip(self.leader, &[&add[..], &[&carrier]].concat());
        self.ip(self.leader, &["address", "add", &format!("{HOST}/24"), "dev", "edge0"]);
        self.ip(self.leader, &["link", "set", "edge0", "up"]);
        let carrier = self.carrier.id().cast_signed();
        for address in ["10.77.0.1/24", "10.77.0.10/24", "10.77.0.20/24", "169.254.169.254/32"] {
            self.ip(carrier, &["address", "add", address, "dev", "carrier0"]);
        }
        self.ip(carrier, &["link", "set", "carrier0", "up"]);
        self.ip(carrier, &["link", "set", "lo", "up"]);
        self.ip(self.leader, &["route", "add", "default", "via", "10.77.0.1"]);
    }

    fn ip(&self, process: i32, arguments: &[&str]) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{process}/ns/net")).arg("ip").args(arguments);
        tools::run(&mut command).expect("the network is set");
    }

    /// Runs a playbook of `ansible/` on it; what it said.
    pub fn playbook(&self, name: &str, variables: &serde_json::Value) -> Option<Done> {
        let ansible = tools::python_tool("ansible-playbook")?;
        let folder = repository().join("ansible");
        let mut command = Command::new(ansible);
        command.args(["--inventory", "edge,", "--connection", "community.docker.nsenter", "--extra-vars"]);
        command
            .arg(format!("ansible_nsenter_pid={} ansible_become=false", self.leader))
            .arg("--extra-vars")
            .arg(variables.to_string());
        command.arg(folder.join(name)).env("ANSIBLE_CONFIG", folder.join("ansible.cfg")).env("LC_ALL", "C.UTF-8");
        Some(tools::run(&mut command))
    }

    /// Runs a program in the container.
    pub fn run(&self, arguments: &[&str]) -> Done {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.leader.to_string());
        command
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"])
            .args(arguments);
        tools::run(&mut command)
    }

    /// Calls `what` in the host's network.
    pub fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        in_network(self.leader, what)
    }

    /// Calls `what` in the carrier's network.
    pub fn outside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        in_network(self.carrier.id().cast_signed(), what)
    }

    /// All files but those that change by themselves, with what they are and what is in them.
    pub fn tree(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        look(&self.root, &self.root, &mut found);
        found
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.carrier.kill();
        let _ = self.carrier.wait();
        // To nspawn: the container is told to power off, and is killed when it takes longer.
        let _ = kill(Pid::from_raw(self.container.id().cast_signed()), Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            if self.container.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _ = kill(Pid::from_raw(self.leader), Signal::SIGKILL);
        let _ = self.container.kill();
        let _ = self.container.wait();
    }
}

/// Folders whose content is of the moment, of the package manager's own books, or made anew: what they hold is no trace of an edge.
const PASSING: [&str; 13] = [
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "var/tmp",
    "var/log",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/lib/systemd",
    "root/.ansible",
    "etc/ld.so.cache",
];

fn look(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).expect("below it").display().to_string();
        // Backups that useradd and its like leave of the files that they change.
        let backup = ["etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-"];
        if PASSING.contains(&name.as_str()) || backup.contains(&name.as_str()) || name.ends_with("__pycache__") {
            continue;
        }
        let Ok(status) = fs::symlink_metadata(&path) else { continue };
        let kind = status.file_type();
        let mut line = format!("{:o} {}:{}", status.mode(), status.uid(), status.gid());
        let target = fs::read_link(&path).unwrap_or_default();
        if kind.is_symlink() {
            let _ = write!(line, " -> {}", target.display());
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            let _ = write!(line, " {:x}", Sha256::digest(&bytes));
        } else if kind.is_socket() {
            continue;
        }
        if kind.is_dir() {
            look(root, &path, found);
        }
        found.insert(name, line);
    }
}

fn in_network<T: Send>(process: i32, what: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{process}/ns/net")).expect("the namespace is there");
    // A thread of its own, which ends in it.
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("the thread may enter it");
            what()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn first_child(process: u32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn wait<T>(log: &Path, mut what: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = what() {
            return value;
        }
        assert!(begun.elapsed() < BOOT, "the container does not run within {BOOT:?}; its console:\n{}", text(log));
        std::thread::sleep(LOOK);
    }
}

fn text(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}
