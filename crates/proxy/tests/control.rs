//! The control endpoint: its routes, who may use it, bad input, and its socket.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use process::control::{SOCKET, ask, get};
use process::sip::Agent;
use process::{INGRESS, Process, address, config, folder, metric, wait_for_readyz};
use serde_json::{Value, json};
use sipedge_proxy::config::{Config, Target};
use tempfile::TempDir;

fn ready(number: u8, change: impl FnOnce(&mut Config)) -> (Process, TempDir) {
    let mut config = config(address(number), address(201), "198.51.100.7:5060".parse().unwrap());
    change(&mut config);
    let (mut process, folder) = Process::run(&config);
    wait_for_readyz(address(number), 200, &mut process);
    (process, folder)
}

#[test]
fn status_says_how_it_is() {
    let (process, folder) = ready(130, |_| {});
    let status = get(folder.path(), "/status");
    let edge = address(130);
    for (name, expected) in [
        ("edge", json!("test")),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("pid", json!(process.id())),
        ("readiness", json!("ready")),
        ("ingress", json!(format!("{edge}:5060"))),
        ("egress", json!(format!("{edge}:5080"))),
        ("advertised", json!(edge.to_string())),
        ("shards", json!(2)),
        ("pending_transactions", json!(0)),
        ("calls", json!({ "started": 0, "answered": 0, "failed": 0, "counted": 0 })),
        ("reloads", json!({ "done": 0, "refused": 0 })),
        ("trouble", Value::Null),
        ("drain", Value::Null),
    ] {
        assert_eq!(status[name], expected, "{name} in {status:#}");
    }
    assert_eq!(status["configuration"]["origin"], json!(folder.path().join("config.yaml").display().to_string()));
    assert_eq!(status["configuration"]["hash"].as_str().unwrap().len(), 16);
    assert_eq!(metric(edge, "sipedge_control"), 1);
    let hash = status["configuration"]["hash"].as_str().unwrap();
    assert_eq!(metric(edge, &format!("sipedge_configuration_info{{hash=\"{hash}\"}}")), 1);
}

#[test]
fn destinations_are_listed_and_marked() {
    let (process, folder) = ready(131, |config| {
        let tcp = Target::new("sip:198.51.100.8;transport=tcp");
        config.trunks[1].targets.push(tcp);
    });
    let line = |destination: &Value| {
        let text = |name: &str| destination[name].as_str().unwrap().to_owned();
        let takes_calls = destination["takes_calls"].as_bool().unwrap();
        (text("trunk"), text("transport"), text("address"), text("health"), text("mark"), takes_calls)
    };
    let list = |document: &Value| document.as_array().unwrap().iter().map(line).collect::<Vec<_>>();
    let destination = |transport: &str, address: &str, mark: &str| {
        let text = str::to_owned;
        (text("destination"), text(transport), text(address), text("up"), text(mark), mark == "in-service")
    };
    let both = |mark: &str| {
        vec![destination("tcp", "198.51.100.8:5060", mark), destination("udp", "198.51.100.7:5060", "in-service")]
    };
    assert_eq!(list(&get(folder.path(), "/destinations")), both("in-service"));

    let mark = |body: Value| ask(folder.path(), "POST", "/destinations/mark", &body.to_string());
    for word in ["down", "draining", "in-service"] {
        let (status, marked) = mark(json!({ "address": "198.51.100.8", "transport": "tcp", "mark": word }));
        assert_eq!((status, list(&marked)), (200, vec![destination("tcp", "198.51.100.8:5060", word)]));
        assert_eq!(list(&get(folder.path(), "/destinations")), both(word));
    }
    process.wait_for_log("destination marked by the operator");

    let (status, marked) = mark(json!({ "address": "198.51.100.7:5060", "mark": "down" }));
    assert_eq!((status, &marked[0]["transport"]), (200, &json!("udp")));
    // The metrics page may be a second old.
    let sample = "sipedge_destination_up{trunk=\"destination\",transport=\"udp\",address=\"198.51.100.7:5060\"}";
    let deadline = Instant::now() + process::DEADLINE;
    while metric(address(131), sample) != 0 {
        assert!(Instant::now() < deadline, "the mark does not show in the metrics");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(metric(address(131), &sample.replace("udp", "tcp").replace(".7:", ".8:")), 1);

    let (status, refusal) = mark(json!({ "address": "198.51.100.8", "transport": "udp", "mark": "down" }));
    assert_eq!(status, 404);
    assert_eq!(refusal["error"], "udp 198.51.100.8:5060 is no destination of this edge");
    assert_eq!(refusal["known"].as_array().unwrap().len(), 2, "{refusal}");
}

#[test]
fn the_effective_configuration_has_every_default_and_no_secret() {
    let (_process, folder) = ready(132, |_| {});
    let effective = get(folder.path(), "/config");
    assert_eq!(effective["secrets"], json!(folder.path().display().to_string()));
    assert_eq!(effective["config"]["secrets"]["token_keys"], json!({ "file": "token-keys.json" }));
    assert_eq!(effective["config"]["streams"]["connections"], json!(2_000), "a default");
    let config: Config = serde_json::from_value(effective["config"].clone()).unwrap();
    let written = fs::read_to_string(folder.path().join("config.yaml")).unwrap();
    assert_eq!(config, serde_yaml::from_str(&written).unwrap());
    let text = effective.to_string();
    for secret in [process::keys().branch, process::keys().tokens.remove(0).key] {
        assert!(!text.contains(&secret), "{text}");
    }
}

#[test]
fn bad_requests_are_answered_and_harm_nothing() {
    let (_process, folder) = ready(133, |_| {});
    let error = |method: &str, path: &str, body: &str| {
        let (status, refusal) = ask(folder.path(), method, path, body);
        (status, refusal["error"].as_str().unwrap_or_else(|| panic!("{refusal}")).to_owned())
    };
    let pages = "there is no such page; there are GET /status, /destinations, /config; POST /destinations/mark, /reload, /drain, /watch";
    assert_eq!(error("GET", "/nothing", ""), (404, format!("/nothing: {pages}")));
    assert_eq!(error("GET", "/reload", ""), (405, "GET /reload: this one takes POST".into()));
    assert_eq!(error("POST", "/status", ""), (405, "POST /status: this one takes GET".into()));
    let mark = |body: &str| error("POST", "/destinations/mark", body);
    assert_eq!(mark("{}").0, 400);
    assert!(mark("{}").1.starts_with("the request's body: missing field `address`"), "{:?}", mark("{}"));
    assert_eq!(mark("\0\u{1}").0, 400);
    assert_eq!(mark(r#"{"address": "1.2.3.4", "mark": "down", "extra": 1}"#).0, 400);
    for (body, message) in [
        (
            r#"{"address": "callee.example", "mark": "down"}"#,
            "address \"callee.example\": an IP address, with or without a port, such as 192.0.2.1:5060",
        ),
        (r#"{"address": "1.2.3.4", "mark": "gone"}"#, "mark \"gone\": one of in-service, draining, down"),
        (r#"{"address": "1.2.3.4", "transport": "sctp", "mark": "down"}"#, "transport \"sctp\": one of udp, tcp, tls"),
    ] {
        assert_eq!(mark(body), (400, message.to_owned()));
    }
    let long = format!(r#"{{"address": "{}", "mark": "down"}}"#, "1".repeat(5_000));
    assert_eq!(mark(&long).0, 413);

    let mut stream = UnixStream::connect(folder.path().join(SOCKET)).unwrap();
    stream.set_read_timeout(Some(process::DEADLINE)).unwrap();
    let _ = stream.write_all(format!("GET /status HTTP/1.1\r\nX-Long: {}", "x".repeat(100_000)).as_bytes());
    let mut left = String::new();
    let _ = std::io::Read::read_to_string(&mut stream, &mut left);
    assert!(!left.starts_with("HTTP/1.1 200"), "{left}");
    get(folder.path(), "/status");
}

/// More silent clients than there are places: they lose theirs by the clock.
#[test]
fn silent_clients_do_not_keep_the_operator_out() {
    let (_process, folder) = ready(134, |_| {});
    let silent: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(folder.path().join(SOCKET)).unwrap()).collect();
    let began = Instant::now();
    get(folder.path(), "/status");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn drain_is_what_sigterm_does() {
    let (mut process, folder) = ready(135, |config| config.drain.accept_ms = 1_000);
    let caller = Agent::bind(address(201), 0);
    let (status, drain) = ask(folder.path(), "POST", "/drain", "");
    assert_eq!((status, &drain["accept_ms"], &drain["grace_ms"]), (200, &json!(1_000), &json!(10_000)));
    assert_eq!(wait_for_readyz(address(135), 503, &mut process), "not ready: draining\n");
    let (status, again) = ask(folder.path(), "POST", "/drain", "");
    assert!(status == 200 && again["since_ms"].as_u64() >= drain["since_ms"].as_u64(), "{again}");
    assert_eq!(get(folder.path(), "/status")["readiness"], "draining");
    caller
        .send(&caller.request("OPTIONS", &format!("sip:{}", address(135)), "leaving"), (address(135), INGRESS).into());
    caller.expect("SIP/2.0 503");
    // Whoever stops the service after it asks for nothing more.
    process.signal(Signal::SIGTERM);
    process.wait_for_log("draining already; a second signal ends at once");
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    assert!(process.log().contains("drained: nothing is in progress"), "{}", process.log());
    assert!(!folder.path().join(SOCKET).exists(), "the socket goes with the process");
}

#[test]
fn the_socket_is_for_its_owner_alone() {
    let (_process, folder) = ready(136, |_| {});
    let mode = fs::metadata(folder.path().join(SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

/// Needs root, to be somebody else; the rule itself has a test beside it.
#[test]
fn somebody_else_is_refused_even_where_the_socket_is_open_to_all() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    const NOBODY: u32 = 65_534;
    let (process, folder) = ready(137, |_| {});
    let program = folder.path().join("sipedge-proxy");
    fs::copy(env!("CARGO_BIN_EXE_sipedge-proxy"), &program).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path().join(SOCKET);
    let ask = || {
        let output = Command::new(&program).args(["status", "--control"]).arg(&socket).uid(NOBODY).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = ask();
    assert_eq!(code, Some(8), "{error}");
    assert!(
        error.contains("Permission denied (os error 13); only root and the user that the proxy runs as"),
        "{error}"
    );

    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let (code, error) = ask();
    assert_eq!(code, Some(9), "{error}");
    assert_eq!(error, "sipedge-proxy: only root and the user that the proxy runs as may control it\n");
    process.wait_for_log("control: refused: neither root nor the user of this process");
    get(folder.path(), "/status");
}

#[test]
fn the_socket_of_a_process_that_was_killed_is_replaced() {
    let (process, folder) = ready(138, |_| {});
    process.signal(Signal::SIGKILL);
    drop(process);
    let socket = folder.path().join(SOCKET);
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket(), "it was left behind");
    let mut process = Process::run_in(folder.path());
    wait_for_readyz(address(138), 200, &mut process);
    assert_eq!(get(folder.path(), "/status")["pid"], json!(process.id()));
}

/// Starts a proxy whose control endpoint cannot be had: it serves calls, and says what is wrong.
fn without_control(number: u8, folder: &Path) -> (Process, TempDir) {
    let settings = config(address(number), address(201), "198.51.100.7:5060".parse().unwrap());
    let own = self::folder(&settings);
    fs::rename(own.path().join("config.yaml"), folder.join("config.yaml")).unwrap();
    fs::rename(own.path().join("token-keys.json"), folder.join("token-keys.json")).unwrap();
    let mut process = Process::run_in(folder);
    wait_for_readyz(address(number), 200, &mut process);
    assert_eq!(metric(address(number), "sipedge_control"), 0);
    (process, own)
}

#[test]
fn a_socket_that_answers_is_left_alone() {
    let (first, folder) = ready(139, |_| {});
    let (second, _own) = without_control(140, folder.path());
    second.wait_for_log("control.sock: another process listens there: give this one its own by --control");
    drop(second);
    assert_eq!(get(folder.path(), "/status")["pid"], json!(first.id()));
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(SOCKET), "precious").unwrap();
    let (process, _own) = without_control(141, folder.path());
    process.wait_for_log("control.sock: is there, and no socket: remove it, or name another one by --control");
    assert_eq!(fs::read_to_string(folder.path().join(SOCKET)).unwrap(), "precious");
}

#[test]
fn missing_folders_are_made_and_long_paths_are_no_obstacle() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("a-folder-with-a-name".repeat(8)).join("and-another-one".repeat(4));
    let settings = config(address(129), address(201), "198.51.100.7:5060".parse().unwrap());
    let own = self::folder(&settings);
    let socket = folder.join(SOCKET);
    let path = |name: &str| own.path().join(name).display().to_string();
    let arguments = ["run", "--config", &path("config.yaml"), "--secrets", &path(""), "--control"].map(str::to_owned);
    let mut process = Process::start(arguments.into_iter().chain([socket.display().to_string()]));
    wait_for_readyz(address(129), 200, &mut process);
    assert!(socket.as_os_str().len() > 200);
    let output = Command::new(env!("CARGO_BIN_EXE_sipedge-proxy"))
        .args(["status", "--json", "--control"])
        .arg(&socket)
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["pid"], json!(process.id()));
}

/// A client that goes in the middle of a reload does not take the reload with it.
#[test]
fn a_reload_whose_client_has_gone_is_done_all_the_same() {
    let (process, folder) = ready(128, |_| {});
    let mut stream = UnixStream::connect(folder.path().join(SOCKET)).unwrap();
    stream.write_all(b"POST /reload HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").unwrap();
    drop(stream);
    process.wait_for_log("configuration reloaded");
    assert_eq!(get(folder.path(), "/status")["reloads"]["done"], json!(1));
}

/// A server that is no proxy of this kind, and one that never says anything useful.
#[test]
fn a_client_is_told_when_somebody_else_answers() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(SOCKET);
    let listener = UnixListener::bind(&socket).unwrap();
    let answers =
        ["HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", ""];
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    for expected in ["it answered 500 Internal Server Error", "its answer is of another version", "connection closed"] {
        let output = Command::new(env!("CARGO_BIN_EXE_sipedge-proxy"))
            .args(["status", "--control"])
            .arg(&socket)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(8), "{error}");
        assert!(error.contains("no answer of a sipedge-proxy: ") && error.contains(expected), "{expected:?}: {error}");
    }
}
