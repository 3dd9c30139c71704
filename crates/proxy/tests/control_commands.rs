//! `sipedge-proxy status`, `destinations`, `mark`, `reload`, `drain` and `config`: what they print, and their exit codes.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::fs;
use std::path::Path;
use std::process::Command;

use process::control::SOCKET;
use process::{Process, address, config, wait_for_readyz};
use serde_json::Value;
use sipedge_proxy::config::Config;
use tempfile::TempDir;

struct Ran {
    code: Option<i32>,
    out: String,
    error: String,
}

fn run(folder: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sipedge-proxy"));
    let output = command.args(arguments).arg("--control").arg(folder.join(SOCKET)).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
}

impl Ran {
    fn succeeded(self) -> String {
        assert_eq!((self.code, self.error.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.error);
        self.error
    }
}

fn ready(number: u8) -> (Process, TempDir, Config) {
    let config = config(address(number), address(201), "198.51.100.7:5060".parse().unwrap());
    let (mut process, folder) = Process::run(&config);
    wait_for_readyz(address(number), 200, &mut process);
    (process, folder, config)
}

#[test]
fn status_is_one_line_for_each_concern() {
    let (process, folder, _) = ready(145);
    let out = run(folder.path(), &["status"]).succeeded();
    let edge = address(145);
    for line in [
        "edge           test\n".to_owned(),
        "state          ready\n".to_owned(),
        format!("process        sipedge-proxy {}, pid {}, up for ", env!("CARGO_PKG_VERSION"), process.id()),
        format!("addresses      requests arrive at {edge}:5060, leave from {edge}:5080; advertises {edge}\n"),
        "calls          0 started, 0 answered, 0 failed; 0 counted by limits now\n".to_owned(),
        "on 2 shards\n".to_owned(),
        format!("configuration  {} (", folder.path().join("config.yaml").display()),
        "reloads        0 taken up, 0 refused\n".to_owned(),
        "token keys     1 signs, ".to_owned(),
        "secrets        looked at on a reload alone, the last time ".to_owned(),
    ] {
        assert!(out.contains(&line), "no {line:?} in:\n{out}");
    }
    assert_eq!(out.lines().count(), 10, "{out}");
    let json: Value = serde_json::from_str(&run(folder.path(), &["status", "--json"]).succeeded()).unwrap();
    assert_eq!((&json["edge"], &json["readiness"]), (&"test".into(), &"ready".into()));
}

#[test]
fn destinations_are_a_table_and_marks_say_what_they_do() {
    let (_process, folder, _) = ready(146);
    let table = |health: &str, mark: &str, calls: &str| {
        let width = mark.len().max("MARK".len());
        format!(
            "TRUNK        TRANSPORT  ADDRESS            HEALTH  {:<width$}  CALLS  TARGET                 LAST CHANGE\n\
             destination  udp        198.51.100.7:5060  {health:<6}  {mark:<width$}  {calls:<5}  sip:198.51.100.7:5060\n",
            "MARK"
        )
    };
    assert_eq!(run(folder.path(), &["destinations"]).succeeded(), table("up", "in-service", "taken"));
    for (mark, calls, effect) in [
        ("down", "none", "it counts as down, whatever it answers\n"),
        ("draining", "none", "it gets no new calls; its calls in progress go on\n"),
        ("in-service", "taken", "its health decides\n"),
    ] {
        let out = run(folder.path(), &["mark", "198.51.100.7", mark]).succeeded();
        assert_eq!(out, format!("{}{effect}", table("up", mark, calls)));
    }
    let error = run(folder.path(), &["mark", "198.51.100.7:5061", "down", "--transport", "tls"]).failed(9);
    let expected = "sipedge-proxy: tls 198.51.100.7:5061 is no destination of this edge\nThere are:\n  TRUNK ";
    assert!(error.starts_with(expected) && error.contains("  destination  udp "), "{error}");

    let refused = run(folder.path(), &["mark", "callee.example", "down", "--json"]);
    let json: Value = serde_json::from_str(&refused.out).unwrap();
    assert!(json["error"].as_str().unwrap().starts_with("address \"callee.example\": an IP address"), "{json}");
    refused.failed(9);
    run(folder.path(), &["mark", "198.51.100.7", "gone"]).failed(2);
}

#[test]
fn a_reload_says_what_changed_or_every_reason() {
    let (_process, folder, mut config) = ready(147);
    let file = folder.path().join("config.yaml");
    let write = |config: &Config| fs::write(&file, serde_yaml::to_string(config).unwrap()).unwrap();
    let in_force = |out: &str, changed: &str| {
        let hash = out.split(['(', ')']).nth(1).unwrap().to_owned();
        assert_eq!(out.lines().next().unwrap(), format!("in force: {} ({hash}); {changed}", file.display()));
        hash
    };
    let first = in_force(&run(folder.path(), &["reload"]).succeeded(), "nothing has changed");
    config.timers.invite_ms = 60_000;
    config.trunks[1].name = "other".into();
    config.routes[0].to = "other".into();
    write(&config);
    let out = run(folder.path(), &["reload"]).succeeded();
    let second = in_force(&out, "changed: routes, timers, trunks");
    assert_ne!(first, second);
    assert_eq!(
        out.lines().nth(1),
        Some("note: trunk destination: gone: its calls in progress go on, uncounted"),
        "{out}"
    );

    config.timers.t1_ms = 0;
    config.drain.accept_ms = 20_000;
    write(&config);
    let file = file.display();
    let refused = run(folder.path(), &["reload", "--json"]);
    let json: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(json["reasons"].as_array().unwrap().len(), 2, "{json}");
    assert_eq!(
        refused.failed(9),
        format!(
            "sipedge-proxy: reload refused; configuration {second} of before stays in force\n  \
             {file}: drain.grace_ms: 10000: less than accept_ms (20000): the process would end while it still takes calls\n  \
             {file}: timers.t1_ms: must be at least 1 (RFC 3261 recommends 500)\n"
        )
    );
    let status = run(folder.path(), &["status"]).succeeded();
    assert!(status.contains("reloads        2 taken up, 1 refused; the last (control) "), "{status}");
    assert!(status.contains(&format!("               {file}: timers.t1_ms: must be at least 1")), "{status}");
}

#[test]
fn the_printed_configuration_can_be_run() {
    let (_process, folder, settings) = ready(148);
    let out = run(folder.path(), &["config"]).succeeded();
    let (head, yaml) = out.split_once('\n').unwrap();
    assert!(head.starts_with(&format!("# {} (", folder.path().join("config.yaml").display())), "{head}");
    assert!(
        head.ends_with(&format!("), with all defaults. The secrets that it names are in {}.", folder.path().display())),
        "{head}"
    );
    assert_eq!(serde_yaml::from_str::<Config>(yaml).unwrap(), settings);
    assert!(!out.contains(&process::keys().branch), "{out}");
}

#[test]
fn a_drain_says_what_it_waits_for() {
    let (mut process, folder, _) = ready(149);
    let out = run(folder.path(), &["drain"]).succeeded();
    assert_eq!(
        out,
        "0 transactions in progress; new calls get 503; the process ends when none is left, in 10 s at the latest\n"
    );
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    let error = run(folder.path(), &["status"]).failed(8);
    assert!(error.contains("No such file or directory (os error 2); is sipedge-proxy running?"), "{error}");
}

#[test]
fn without_a_proxy_the_error_says_where_was_looked() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(SOCKET);
    let file = folder.path().join("capture.pcapng");
    for command in [
        &["status"][..],
        &["destinations"],
        &["mark", "192.0.2.1", "down"],
        &["reload"],
        &["drain"],
        &["config"],
        &["watch"],
        &["capture", file.to_str().unwrap()],
    ] {
        let error = run(folder.path(), command).failed(8);
        assert!(
            error.starts_with(&format!("sipedge-proxy: {}: No such file", socket.display())),
            "{command:?}: {error}"
        );
    }
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let ran = run(folder.path(), &["status", "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(json["error"].as_str().unwrap().contains("the proxy that made this socket has ended"), "{json}");
    ran.failed(8);
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in ["status", "destinations", "mark", "reload", "drain", "config", "watch", "capture"] {
        let output = Command::new(env!("CARGO_BIN_EXE_sipedge-proxy")).args([command, "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let example = help.split("Example").nth(1).unwrap_or_else(|| panic!("{command}: no example in:\n{help}"));
        assert!(example.contains(&format!("\n  sipedge-proxy {command}")), "{command}: {help}");
        assert!(help.contains("--control <PATH>") && help.contains("/run/sipedge/control.sock"), "{command}: {help}");
    }
}
