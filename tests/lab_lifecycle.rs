//! A lab starts, is found again, and is gone without a trace, however it ends.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use sipedge::plan::Topology;
use sipedge::target::lab::{InstanceId, Lab, LabError};
use support::{DEADLINE, EGRESS_PORT, INGRESS, SOURCE, TestLab, echo, eventually, is_alive, plan, use_stand_in, user_data};

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
    let mut test = TestLab::start(&balanced(), 2);
    let folder = test.folder.clone();
    let mut visitor = exec(&folder, SOURCE, &["sleep", "1000"]).spawn().expect("exec");
    let status = test.status().expect("status");
    let pids: Vec<i32> = status.instances.iter().filter_map(|instance| instance.pid).chain([status.supervisor_pid]).collect();
    assert_eq!(pids.len(), 3);
    // The visitor is inside once it shows another network namespace than this process.
    let own = fs::read_link("/proc/self/ns/net").expect("own namespace");
    eventually("the command runs in the namespace", || {
        fs::read_link(format!("/proc/{}/ns/net", visitor.id())).is_ok_and(|link| link != own)
    });
    test.take().destroy().expect("destroy");
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?}");
    assert!(!folder.exists());
    assert!(!visitor.wait().expect("wait").success(), "what ran in the lab's namespaces ended with it");
    assert!(Lab::attach(&folder).expect("attach").is_none());
}

#[test]
fn a_lab_is_found_again_and_not_started_twice() {
    let lab = TestLab::start(&balanced(), 1);
    let again = Lab::attach(&lab.folder).expect("attach").expect("it is up");
    assert_eq!(again.status().expect("status"), lab.status().expect("status"));
    let pid = lab.status().expect("status").supervisor_pid;
    let second = Lab::start(&balanced(), &lab.folder).expect_err("it is up");
    assert_eq!(second, LabError::AlreadyRunning { folder: lab.folder.clone(), pid });
}

#[test]
fn a_damaged_state_file_does_not_lose_a_running_lab() {
    let mut test = TestLab::start(&balanced(), 1);
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
    let mut test = TestLab::start(&balanced(), 2);
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
    let mut test = TestLab::start(&balanced(), 1);
    let status = test.status().expect("status");
    end(status.supervisor_pid, Signal::SIGTERM);
    assert!(!is_alive(status.instances[0].pid.expect("it ran")));
    drop(test.take());
    assert!(Lab::attach(&test.folder).expect("attach").is_none());
}

#[test]
fn a_removed_folder_ends_the_lab() {
    let mut test = TestLab::start(&balanced(), 1);
    let pid = test.status().expect("status").supervisor_pid;
    fs::remove_dir_all(&test.folder).expect("remove");
    eventually("the supervisor ends", || !is_alive(pid));
    drop(test.take());
}

#[test]
fn destroy_works_when_the_socket_is_lost() {
    let mut test = TestLab::start(&balanced(), 1);
    let pid = test.status().expect("status").supervisor_pid;
    fs::remove_file(test.folder.join("control.sock")).expect("remove");
    let lab = test.take();
    lab.destroy().expect("destroy");
    assert!(!is_alive(pid));
    assert!(!test.folder.exists());
}

#[test]
fn terminate_gives_grace_and_then_kills() {
    let lab = TestLab::start(&balanced(), 1);
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
    let lab = TestLab::start(&failing, 0);
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
    let lab = TestLab::start(&balanced(), 1);
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
    use std::os::unix::fs::PermissionsExt;
    use_stand_in();
    let above = tempfile::tempdir().expect("a folder");
    // Deeper than a socket's path may be long.
    let folder = above.path().join("a-folder-with-a-long-name".repeat(6)).join("lab");
    let before = Instant::now();
    let lab = Lab::start(&balanced(), &folder).expect("start");
    println!("the network stood after {:?}", before.elapsed());
    let mode = |name: &str| fs::metadata(folder.join(name)).expect("metadata").permissions().mode() & 0o777;
    assert_eq!((mode("secrets"), mode("control.sock"), mode("plan.json"), mode("lab.json")), (0o700, 0o600, 0o600, 0o600));
    lab.destroy().expect("destroy");
    assert!(!folder.exists());
}

#[test]
fn a_plan_that_cannot_be_built_leaves_nothing() {
    use_stand_in();
    let above = tempfile::tempdir().expect("a folder");
    let folder = above.path().join("lab");
    let mut overlapping = balanced();
    overlapping.carriers[1].ranges = overlapping.carriers[0].ranges.clone();
    let error = Lab::start(&overlapping, &folder).expect_err("two carriers with one range");
    assert_eq!(error, LabError::Plan("range 192.0.2.0/26 of destination-carrier overlaps 192.0.2.0/26 of source-carrier".to_owned()));
    assert!(!folder.exists());
}

#[test]
fn the_machines_network_stays_as_it_was() {
    let links = || fs::read_to_string("/proc/self/net/dev").expect("links").lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect::<Vec<_>>();
    let before = links();
    let lab = TestLab::start(&balanced(), 1);
    assert_eq!(links(), before);
    drop(lab);
    assert_eq!(links(), before);
}

/// Runs one test of this file again as an unprivileged user, inside the wrapper when there is one.
fn as_nobody(test: &str, wrapper: &[&str]) -> Option<std::process::Output> {
    if !geteuid().is_root() {
        println!("skipped: needs root to become another user");
        return None;
    }
    let own = std::env::current_exe().expect("own path");
    let mut words: Vec<&str> = wrapper.to_vec();
    words.extend(["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    words.extend([own.to_str().expect("UTF-8 path"), "--exact", test, "--nocapture", "--ignored"]);
    let (program, arguments) = words.split_first().expect("a program");
    Some(Command::new(program).args(arguments).output().expect("run"))
}

#[test]
fn an_unprivileged_user_can_do_all_this() {
    let Some(output) = as_nobody("unprivileged_line", &[]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[test]
#[ignore = "run as an unprivileged user by an_unprivileged_user_can_do_all_this"]
fn unprivileged_line() {
    assert!(!geteuid().is_root());
    let mut test = TestLab::start(&balanced(), 2);
    let status = test.status().expect("status");
    echo(&test.socket(SOURCE, "192.0.2.1".parse().expect("address"), 5060), "hello");
    let output = exec(&test.folder, SOURCE, &["cat", "/proc/net/fib_trie"]).output().expect("exec");
    assert!(String::from_utf8_lossy(&output.stdout).contains("192.0.2.1"), "{output:?}");
    let mut visitor = exec(&test.folder, "i-1", &["sleep", "1000"]).spawn().expect("exec");
    test.kill_instance(&InstanceId("i-1".to_owned())).expect("kill");
    test.take().destroy().expect("destroy");
    assert!(!is_alive(status.supervisor_pid));
    visitor.kill().expect("a visitor of a killed instance is the visitor's business");
    visitor.wait().expect("wait");
}

#[test]
fn forbidden_user_namespaces_are_named() {
    // Root of a user namespace of its own may set its limit, which leaves the machine's alone.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let wrapper = ["unshare", "--user", "--map-users", "0,0,65536", "--map-groups", "0,0,65536", "--setuid", "0", "sh", "-c", forbid, "sh"];
    let Some(output) = as_nobody("forbidden_line", &wrapper) else { return };
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
#[ignore = "run where user namespaces are forbidden by forbidden_user_namespaces_are_named"]
fn forbidden_line() {
    use_stand_in();
    let above = tempfile::tempdir().expect("a folder");
    let folder = above.path().join("lab");
    let error = Lab::start(&balanced(), &folder).expect_err("it is forbidden").to_string();
    assert!(error.contains("/proc/sys/user/max_user_namespaces is 0"), "{error}");
    assert!(error.contains("run as root"), "{error}");
    assert!(!folder.exists());
}

fn exec(folder: &std::path::Path, namespace: &str, command: &[&str]) -> Command {
    let mut exec = Command::new(env!("CARGO_BIN_EXE_sipedge"));
    exec.args(["lab", "exec"]).arg(folder).args([namespace, "--"]).args(command);
    exec
}

#[test]
fn a_missing_appliance_is_named_with_the_way_to_build_it() {
    use_stand_in();
    let above = tempfile::tempdir().expect("a folder");
    // A supervisor of its own, since the environment of this process is the other tests' too.
    let folder = above.path().join("lab");
    let lab = Lab::start(&balanced(), &folder).expect("start");
    let plan = fs::read(folder.join("plan.json")).expect("plan");
    lab.destroy().expect("destroy");
    fs::create_dir(&folder).expect("folder");
    fs::write(folder.join("plan.json"), plan).expect("plan");
    let mut supervise = Command::new(env!("CARGO_BIN_EXE_sipedge"));
    supervise.args(["lab", "supervise"]).arg(&folder).env("SIPEDGE_PROXY", "/nowhere/sipedge-proxy").stdout(Stdio::piped());
    let mut child = supervise.process_group(0).stderr(Stdio::null()).spawn().expect("supervise");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
    assert!(line.contains("no-proxy") || line.contains("NoProxy"), "{line}");
    assert!(!child.wait().expect("wait").success());
    let error = LabError::NoProxy { tried: "/nowhere/sipedge-proxy".into() }.to_string();
    assert!(error.contains("cargo build -p sipedge-proxy"), "{error}");
}
