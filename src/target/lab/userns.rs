//! Leaving the machine's network: the user namespace (not as root) and the first network namespace.

use std::fs;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, getegid, geteuid};

use super::LabError;

/// Settings that forbid user namespaces: file below `/proc/sys`, value that forbids, what to write about it.
const SETTINGS: [(&str, &str, &str); 3] = [
    (
        "user/max_user_namespaces",
        "0",
        "/proc/sys/user/max_user_namespaces is 0 (`sysctl user.max_user_namespaces=10000`)",
    ),
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "kernel.unprivileged_userns_clone is 0 (`sysctl kernel.unprivileged_userns_clone=1`)",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns is 1 (`sysctl kernel.apparmor_restrict_unprivileged_userns=0`)",
    ),
];

/// Puts this process into a network namespace of its own: as root directly, else inside a user namespace in which it is root.
///
/// The process must have one thread (user_namespaces(7)).
pub(super) fn leave() -> Result<(), LabError> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => return Ok(()),
            // Root without CAP_SYS_ADMIN, as in a container: a user namespace may still be allowed.
            Err(Errno::EPERM) => {}
            Err(error) => return Err(LabError::kernel("create a network namespace", error)),
        }
    }
    enter_user_namespace(uid, gid).map_err(|reason| LabError::UserNamespaces { reason, setting: forbidding_setting() })
}

fn enter_user_namespace(uid: Uid, gid: Gid) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| format!("unshare: {error}"))?;
    let maps = [
        // A group map may be written without privilege only once setgroups is off (user_namespaces(7)).
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ];
    for (file, text) in maps {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| format!("writing {file}: {error}"))?;
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("network namespace inside it: {error}"))
}

/// The setting of this machine that forbids a lab to this user, if one does.
pub fn user_namespaces_forbidden() -> Option<String> {
    if geteuid().is_root() { None } else { setting_that_forbids() }
}

fn forbidding_setting() -> String {
    setting_that_forbids().unwrap_or_else(|| {
        "no setting of the kernel says so, so a seccomp filter or the container around this process does".to_owned()
    })
}

fn setting_that_forbids() -> Option<String> {
    let forbids =
        |file: &str, value: &str| fs::read_to_string(format!("/proc/sys/{file}")).is_ok_and(|is| is.trim() == value);
    SETTINGS.iter().find(|(file, value, _)| forbids(file, value)).map(|(_, _, text)| (*text).to_owned())
}
