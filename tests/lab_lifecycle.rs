//! A lab starts, is found again, and is gone without a trace, however it ends.

#[path = "support/lab.rs"]
mod lab;
#[path = "support/project.rs"]
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::{
    EGRESS_PORT, INGRESS, PROXY_VARIABLE, SOURCE, STAND_IN, TestLab, echo, plan, this_test, use_stand_in, user_data,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use sipedge::plan::Topology;
use sipedge::target::lab::{InstanceId, Lab, LabError};
use support::{BINARY_VARIABLE, DEADLINE, eventually, is_alive, program, sipedge, skip, user_namespaces_forbidden};

/// An unprivileged user and group, `nobody` on every Linux system.
const NOBODY: &str = "65534";

fn balanced() -> sipedge::plan::Plan {
    plan(Topology::LoadBalanced)
}

fn end(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("signal");
    eventually("the process ends", || !is_alive(pid));
}

#[test]
fn destroy_leaves_no_process_and_no_folder() {
    let Some(mut test) = TestLab::start(&balanced(), 2) else { return };
    let folder = test.folder.clone();
    let mut visitor =
        exec(&folder, SOURCE, &["sleep", "1000"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("exec");
    let status = test.status().expect("status");
    let pids: Vec<i32> =
        status.instances.iter().filter_map(|instance| instance.pid).chain([status.supervisor_pid]).collect();
    assert_eq!(pids.len(), 3);
    await_inside(visitor.id());
    test.take().destroy().expect("destroy");
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?}");
    assert!(!folder.exists());
    eventually("what ran in the lab's namespaces ends with it", || visitor.try_wait().expect("wait").is_some());
    assert!(Lab::attach(&folder).expect("attach").is_none());
}

#[test]
fn a_lab_is_found_again_and_not_started_twice() {
    let Some(lab) = TestLab::start(&balanced(), 1) else { return };
    let again = Lab::attach(&lab.folder).expect("attach").expect("it is up");
    assert_eq!(again.status().expect("status"), lab.status().expect("status"));
    let pid = lab.status().expect("status").supervisor_pid;
    let second = Lab::start(&balanced(), &lab.folder).expect_err("it is up");
    assert_eq!(second, LabError::AlreadyRunning { folder: lab.folder.clone(), pid });
}

#[test]
fn a_damaged_state_file_does_not_lose_a_running_lab() {
    let Some(mut test) = TestLab::start(&balanced(), 1) else { return };
    let pid = test.status().expect("status").supervisor_pid;
    fs::write(test.folder.join("lab.json"), "{\"pid\": ").expect("damage");
    drop(test.take());
    let found = Lab::attach(&test.folder).expect("attach").expect("it is up");
    found.destroy().expect("destroy");
    assert!(!is_alive(pid));
    assert!(!test.folder.exists());
}

#[test]
fn a_folder_whose_supervisor_was_killed_is_used_again() {
    let Some(mut test) = TestLab::start(&balanced(), 2) else { return };
    let status = test.status().expect("status");
    fs::write(test.folder.join("secrets/token-keys.json"), "kept").expect("a secret");
    end(status.supervisor_pid, Signal::SIGKILL);
    for instance in &status.instances {
        let pid = instance.pid.expect("it ran");
        eventually("an instance dies with its supervisor", || !is_alive(pid));
    }
    let error = test.status().expect_err("nobody answers");
    assert!(matches!(error, LabError::NotRunning { .. }), "{error}");
    drop(test.take());
    assert!(Lab::attach(&test.folder).expect("attach").is_none());

    fs::write(test.folder.join("lab.json"), "\0damaged").expect("damage");
    let lab = Lab::start(&balanced(), &test.folder).expect("start again");
    assert_eq!(lab.status().expect("status").instances, []);
    assert_eq!(fs::read_to_string(test.folder.join("secrets/token-keys.json")).expect("secret"), "kept");
    lab.destroy().expect("destroy");
}

#[test]
fn sigterm_ends_the_lab_in_order() {
    let Some(mut test) = TestLab::start(&balanced(), 1) else { return };
    let status = test.status().expect("status");
    end(status.supervisor_pid, Signal::SIGTERM);
    assert!(!is_alive(status.instances[0].pid.expect("it ran")));
    drop(test.take());
    assert!(Lab::attach(&test.folder).expect("attach").is_none());
}

#[test]
fn a_removed_folder_ends_the_lab() {
    let Some(mut test) = TestLab::start(&balanced(), 1) else { return };
    let pid = test.status().expect("status").supervisor_pid;
    fs::remove_dir_all(&test.folder).expect("remove");
    eventually("the supervisor ends", || !is_alive(pid));
    drop(test.take());
}

#[test]
fn destroy_works_when_the_socket_is_lost() {
    let Some(mut test) = TestLab::start(&balanced(), 1) else { return };
    let pid = test.status().expect("status").supervisor_pid;
    fs::remove_file(test.folder.join("control.sock")).expect("remove");
    let lab = test.take();
    lab.destroy().expect("destroy");
    assert!(!is_alive(pid));
    assert!(!test.folder.exists());
}

#[test]
fn terminate_gives_grace_and_then_kills() {
    let Some(lab) = TestLab::start(&balanced(), 1) else { return };
    let polite = InstanceId("i-1".to_owned());
    assert_eq!(lab.terminate_instance(&polite, DEADLINE).expect("terminate"), Some(0));
    // What is written there reaches the next boot.
    fs::write(lab.folder.join("user-data"), user_data(EGRESS_PORT, "stubborn")).expect("user-data");
    let stubborn = lab.add_instance().expect("add");
    lab.wait_healthy(&stubborn, DEADLINE).expect("healthy");
    let grace = Duration::from_millis(100);
    assert_eq!(lab.terminate_instance(&stubborn, grace).expect("terminate"), Some(137));
    let state = lab.status().expect("status");
    assert_eq!(state.instances.len(), 2);
    assert!(state.instances.iter().all(|instance| instance.pid.is_none() && !instance.registered));
}

#[test]
fn an_instance_that_never_gets_ready_shows_its_log() {
    let mut failing = balanced();
    failing.user_data = user_data(EGRESS_PORT, "fail");
    let Some(lab) = TestLab::start(&failing, 0) else { return };
    let id = lab.add_instance().expect("add");
    let error = lab.wait_healthy(&id, DEADLINE).expect_err("it fails");
    let text = error.to_string();
    assert!(text.contains("exit code 3") && text.contains("the configuration is wrong"), "{text}");
    assert_eq!(lab.log(&id, 1).expect("log"), ["the configuration is wrong"]);
    let first = lab.log(&id, 9).expect("log").remove(0);
    assert!(first.contains("'boot', '--secrets'") && first.contains("/secrets"), "{first}");

    fs::write(lab.folder.join("user-data"), user_data(EGRESS_PORT, "serve")).expect("user-data");
    let slow = lab.add_instance().expect("add");
    let error = lab.wait_healthy(&slow, Duration::ZERO).expect_err("not yet");
    assert!(error.to_string().contains("did not pass within 0 s"), "{error}");
}

#[test]
fn a_command_runs_inside_a_carriers_namespace() {
    let Some(lab) = TestLab::start(&balanced(), 1) else { return };
    let script = format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(5)\n\
         s.sendto(b'hello', ('{INGRESS}', 5060))\nprint(s.recv(100).decode())\n\
         t = socket.socket()\nt.settimeout(0.2)\nprint(t.connect_ex(('169.254.169.254', 80)) != 0)"
    );
    let output = exec(&lab.folder, SOURCE, &["/usr/bin/python3", "-c", &script]).output().expect("exec");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.first().is_some_and(|line| line.starts_with("i-1 5060 192.0.2.1:")), "{output:?}");
    assert_eq!(lines.get(1), Some(&"True"), "the metadata service is for instances alone");

    let code = exec(&lab.folder, SOURCE, &["sh", "-c", "exit 7"]).status().expect("exec").code();
    assert_eq!(code, Some(7), "the command's exit code is the program's");
    let missing = exec(&lab.folder, "nowhere", &["true"]).output().expect("exec");
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(text.contains("no namespace nowhere; there are: vpc, source-carrier"), "{text}");
}

#[test]
fn start_is_quick_and_the_folder_is_private() {
    if !use_stand_in() {
        return;
    }
    let above = tempfile::tempdir().expect("a folder");
    // Deeper than a socket's path may be long.
    let folder = above.path().join("a-folder-with-a-long-name".repeat(6)).join("lab");
    let before = Instant::now();
    let lab = Lab::start(&balanced(), &folder).expect("start");
    println!("the network stood after {:?}", before.elapsed());
    let mode = |name: &str| fs::metadata(folder.join(name)).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(
        (mode("secrets"), mode("control.sock"), mode("plan.json"), mode("lab.json")),
        (0o700, 0o600, 0o600, 0o600)
    );
    lab.destroy().expect("destroy");
    assert!(!folder.exists());
}

#[test]
fn a_plan_that_cannot_be_built_leaves_nothing() {
    if !use_stand_in() {
        return;
    }
    let above = tempfile::tempdir().expect("a folder");
    let folder = above.path().join("lab");
    let mut overlapping = balanced();
    overlapping.carriers[1].ranges = overlapping.carriers[0].ranges.clone();
    let error = Lab::start(&overlapping, &folder).expect_err("two carriers with one range");
    assert_eq!(
        error,
        LabError::Plan("range 192.0.2.0/26 of destination-carrier overlaps 192.0.2.0/26 of source-carrier".to_owned())
    );
    assert!(!folder.exists());
}

#[test]
fn the_machines_network_stays_as_it_was() {
    let links = || {
        fs::read_to_string("/proc/self/net/dev")
            .expect("links")
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
            .collect::<Vec<_>>()
    };
    let before = links();
    let Some(lab) = TestLab::start(&balanced(), 1) else { return };
    assert_eq!(links(), before);
    drop(lab);
    assert_eq!(links(), before);
}

/// The command that runs one test of this file again as an unprivileged user; none, and this test is skipped, when this user cannot
/// become another or that one could not do it. The folder holds copies of what it runs, since that user may not be able to read where
/// they stand.
fn as_nobody(test: &str) -> Option<(Vec<String>, tempfile::TempDir)> {
    if !geteuid().is_root() {
        skip(&this_test(), "it needs root to become another user");
        return None;
    }
    if let Some(missing) = ["setpriv", "unshare", "python3"].into_iter().find(|name| program(name).is_none()) {
        skip(&this_test(), &format!("it needs {missing}"));
        return None;
    }
    if let Some(reason) = user_namespaces_forbidden() {
        skip(&this_test(), &reason);
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("let others read it");
    let copy = |path: &Path, name: &str| {
        let to = folder.path().join(name);
        fs::copy(path, &to).expect("copy");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("let others run it");
        to.display().to_string()
    };
    let own = copy(&std::env::current_exe().expect("own path"), "test");
    let variables = [
        format!("{BINARY_VARIABLE}={}", copy(sipedge(), "sipedge")),
        format!("{PROXY_VARIABLE}={}", copy(STAND_IN.as_ref(), "instance.py")),
    ];
    let setpriv = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "env"].map(str::to_owned);
    let arguments = [own.as_str(), "--exact", test, "--nocapture", "--ignored"].map(str::to_owned);
    Some((setpriv.into_iter().chain(variables).chain(arguments).collect(), folder))
}

#[test]
fn an_unprivileged_user_can_do_all_this() {
    if !geteuid().is_root() {
        return unprivileged_line();
    }
    let Some((words, _folder)) = as_nobody("unprivileged_line") else { return };
    let output = Command::new(&words[0]).args(&words[1..]).output().expect("run");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
#[ignore = "run as an unprivileged user by an_unprivileged_user_can_do_all_this"]
fn unprivileged_line() {
    assert!(!geteuid().is_root());
    let Some(mut test) = TestLab::start(&balanced(), 2) else { return };
    let status = test.status().expect("status");
    echo(&test.socket(SOURCE, "192.0.2.1".parse().expect("address"), 5060), "hello");
    let output = exec(&test.folder, SOURCE, &["cat", "/proc/net/fib_trie"]).output().expect("exec");
    assert!(String::from_utf8_lossy(&output.stdout).contains("192.0.2.1"), "{output:?}");
    let mut visitor = exec(&test.folder, "i-1", &["sleep", "1000"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("exec");
    await_inside(visitor.id());
    test.kill_instance(&InstanceId("i-1".to_owned())).expect("kill");
    eventually("what ran on the instance ends with it", || visitor.try_wait().expect("wait").is_some());
    test.take().destroy().expect("destroy");
    assert!(!is_alive(status.supervisor_pid));
}

#[test]
fn forbidden_user_namespaces_are_named() {
    let Some((words, _folder)) = as_nobody("forbidden_line") else { return };
    // Root of a user namespace of its own may set its limit, which leaves the machine's alone. The shell is that root once its ids are
    // mapped and it has executed a program.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "sh", "-c", "read _ && exec sh -c \"$@\"", "sh", forbid, "sh"]).args(words);
    let mut child =
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare");
    let own = fs::read_link("/proc/self/ns/user").expect("own namespace");
    let proc = format!("/proc/{}", child.id());
    eventually("the shell has a user namespace", || {
        fs::read_link(format!("{proc}/ns/user")).is_ok_and(|link| link != own)
    });
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("{proc}/{map}"), "0 0 65536").expect("map the ids");
    }
    child.stdin.take().expect("stdin").write_all(b"\n").expect("go on");
    let output = child.wait_with_output().expect("run");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
#[ignore = "run where user namespaces are forbidden by forbidden_user_namespaces_are_named"]
fn forbidden_line() {
    let above = tempfile::tempdir().expect("a folder");
    let folder = above.path().join("lab");
    let error = Lab::start(&balanced(), &folder).expect_err("it is forbidden").to_string();
    assert!(error.contains("/proc/sys/user/max_user_namespaces is 0"), "{error}");
    assert!(error.contains("run as root"), "{error}");
    assert!(!folder.exists());
}

#[test]
fn a_missing_appliance_is_named_with_the_way_to_build_it() {
    let Some((_above, folder)) = prepared_folder() else { return };
    let mut child = supervise(&folder).env(PROXY_VARIABLE, "/nowhere/sipedge-proxy").spawn().expect("supervise");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
    assert!(line.contains("NoProxy") && line.contains("/nowhere/sipedge-proxy"), "{line}");
    assert!(!child.wait().expect("wait").success());
    let error = LabError::NoProxy { tried: "/nowhere/sipedge-proxy".into() }.to_string();
    assert!(error.contains("cargo build --release"), "{error}");
}

#[test]
fn a_supervisor_whose_starter_is_gone_ends() {
    let Some((_above, folder)) = prepared_folder() else { return };
    let mut child = supervise(&folder).spawn().expect("supervise");
    drop(child.stdout.take());
    assert!(child.wait().expect("wait").success(), "it ends in order");
    assert!(Lab::attach(&folder).expect("attach").is_none());
    let lab = Lab::start(&balanced(), &folder).expect("start again");
    lab.destroy().expect("destroy");
}

/// A folder as `start` leaves it to the supervisor; none when this machine cannot have a lab.
fn prepared_folder() -> Option<(tempfile::TempDir, PathBuf)> {
    if !use_stand_in() {
        return None;
    }
    let above = tempfile::tempdir().expect("a folder");
    let folder = above.path().join("lab");
    fs::create_dir(&folder).expect("folder");
    fs::write(folder.join("plan.json"), serde_json::to_vec(&balanced()).expect("JSON")).expect("plan");
    Some((above, folder))
}

fn supervise(folder: &Path) -> Command {
    let mut supervise = Command::new(sipedge());
    supervise.args(["lab", "supervise"]).arg(folder).process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
    supervise
}

/// Waits until a process is in another network namespace than this one.
fn await_inside(pid: u32) {
    let own = fs::read_link("/proc/self/ns/net").expect("own namespace");
    eventually("the command runs in the namespace", || {
        fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|link| link != own)
    });
}

fn exec(folder: &Path, namespace: &str, command: &[&str]) -> Command {
    let mut exec = Command::new(sipedge());
    exec.args(["lab", "--folder"]).arg(folder).args(["exec", namespace, "--"]).args(command);
    exec
}
