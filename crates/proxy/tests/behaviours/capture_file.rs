//! What `sipedge-proxy capture` writes, as tshark reads it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sipedge_proxy::config::{SecretRef, TlsListener};

use crate::process::certificates::{Authority, ip};
use crate::process::sip::Agent;
use crate::process::stream::Line;
use crate::process::{self, EGRESS, INGRESS};
use crate::stage::{Stage, loopback};
use crate::watching::{Watching, edge_with};

/// Whether tshark is missing; then the test says that it is skipped, which is a failure in CI.
fn skipped(test: &str) -> bool {
    let is_there = Command::new("tshark").arg("--version").output().is_ok();
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(is_there || !in_ci, "{test} would be skipped, and in CI nothing is: there is no tshark: run tests/setup");
    if !is_there {
        eprintln!("skipped: {test}: there is no tshark: run tests/setup");
    }
    !is_there
}

/// These fields of every packet, parted by `|`; nothing is looked up, and no user's settings count.
fn dissected(file: &Path, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-T", "fields", "-E", "separator=|"]);
    command.args(fields.iter().flat_map(|field| ["-e", field])).env("HOME", file.parent().unwrap());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_call_over_udp_tcp_and_tls_is_dissected_as_sip_message_by_message() {
    if skipped("a_call_over_udp_tcp_and_tls_is_dissected_as_sip_message_by_message") {
        return;
    }
    let (edge, caller) = (loopback(), loopback());
    let callee = Agent::bind(loopback(), 5060);
    let mut config = process::config(edge, caller, callee.address);
    let certificate = SecretRef::File("edge.pem".into());
    config.listen.tcp = true;
    config.listen.tls = Some(TlsListener { port: 5061, certificate, client_roots: None, require_client: false });
    let authority = Authority::new("roots");
    let (_process, folder) = edge_with(&config, &[("edge.pem", authority.issue(&[ip(edge)]))]);

    let file = folder.path().join("call.pcapng");
    let name = file.to_str().unwrap();
    let capturing = Watching::start(folder.path(), &["capture", name, "--count", "9", "--json"]);
    crate::watch_limits::wait_for_watchers(folder.path(), 1);

    let mut tls = Line::connect_tls(caller, (edge, 5061).into(), authority.client(None), &edge.to_string()).unwrap();
    tls.send(&tls.request("INVITE", &format!("sip:+1555@{edge}"), "over-tls"));
    let invite = callee.expect("INVITE");
    callee.respond(&invite, "200 OK");
    let ok = tls.expect("200 OK");
    tls.send(&tls.in_dialog("ACK", 1, &ok));
    callee.expect("ACK");
    let mut tcp = Line::connect(caller, (edge, INGRESS).into());
    assert_eq!(tcp.options("over-tcp"), "SIP/2.0 200 OK");

    let report = capturing.event();
    let (status, _, error) = capturing.finish();
    assert_eq!((status.code(), error), (Some(0), vec![]));
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(
        (&report["messages"], &report["lost"], &report["ended"], &report["bytes"]),
        (&9.into(), &0.into(), &"count".into(), &metadata.len().into())
    );

    let seen = dissected(
        &file,
        &[
            "ip.src",
            "udp.srcport",
            "ip.dst",
            "udp.dstport",
            "sip.Method",
            "sip.Status-Code",
            "frame.packet_flags_direction",
            "frame.comment",
        ],
    );
    let (tls_peer, tcp_peer) = (tls.local.port(), tcp.local.port());
    let callee = callee.address.ip();
    let over_tls = |method: &str, code: &str| {
        [
            format!("{caller}|{tls_peer}|{edge}|5061|{method}|{code}|0x00000001|TLS"),
            format!("{edge}|5061|{caller}|{tls_peer}|{method}|{code}|0x00000002|TLS"),
        ]
    };
    let over_udp = |method: &str, code: &str| {
        [
            format!("{callee}|5060|{edge}|{EGRESS}|{method}|{code}|0x00000001|UDP"),
            format!("{edge}|{EGRESS}|{callee}|5060|{method}|{code}|0x00000002|UDP"),
        ]
    };
    let mut expected = vec![
        over_tls("INVITE", "")[0].clone(),
        over_tls("", "100")[1].clone(),
        over_udp("INVITE", "")[1].clone(),
        over_udp("", "200")[0].clone(),
        over_tls("", "200")[1].clone(),
        over_tls("ACK", "")[0].clone(),
        over_udp("ACK", "")[1].clone(),
        format!("{caller}|{tcp_peer}|{edge}|{INGRESS}|OPTIONS||0x00000001|TCP"),
        format!("{edge}|{INGRESS}|{caller}|{tcp_peer}||200|0x00000002|TCP"),
    ];
    // The thread of the connections and that of the datagrams are two: what they send at the same time has no order.
    let (mut sorted, mut whole) = (seen.clone(), expected.clone());
    sorted.sort();
    whole.sort();
    assert_eq!(sorted, whole);
    let place = |lines: &[String], line: &String| lines.iter().position(|other| other == line);
    expected.retain(|line| !line.contains("|100|"));
    assert!(expected.is_sorted_by_key(|line| place(&seen, line)), "{seen:#?}");

    let checks = dissected(&file, &["ip.checksum.status", "udp.checksum.status", "_ws.malformed", "sip.Call-ID"]);
    assert!(checks.iter().all(|line| line.contains("||over-t")), "{checks:#?}");
}

#[test]
fn a_file_that_is_there_stays_as_it_is() {
    let stage = Stage::start(1, |_| {});
    let file = stage.folder().join("mine");
    fs::write(&file, "mine").unwrap();
    let (status, _, error) = Watching::start(stage.folder(), &["capture", file.to_str().unwrap()]).finish();
    let expected = format!(
        "sipedge-proxy: {}: File exists (os error 17); it stays as it is: name another file, or remove it",
        file.display()
    );
    assert_eq!((status.code(), error), (Some(11), vec![expected]));
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn the_size_is_a_bound_and_ctrl_c_leaves_a_whole_file() {
    let stage = Stage::start(1, |_| {});
    let start = |name: &str, more: &[&str]| {
        let file = stage.folder().join(name);
        let capturing = Watching::start(stage.folder(), &[&["capture", file.to_str().unwrap()], more].concat());
        crate::watch_limits::wait_for_watchers(stage.folder(), 1);
        (file, capturing)
    };
    let large = stage.caller.request("OPTIONS", &format!("sip:{}", stage.edge)).with_body("x/y", vec![b'x'; 60_000]);
    let (file, capturing) = start("bounded", &["--max-mb", "1", "--method", "OPTIONS"]);
    for number in 0..20 {
        let options = large.clone().with("Call-ID", &format!("size-{number}"));
        stage.call(&options.clone().with("Via", &format!("{}{number}", options.header("Via").replace(";rport", ""))));
        stage.caller.expect("200 OK");
    }
    let (status, _, error) = capturing.finish();
    assert_eq!(status.code(), Some(0));
    assert!(error[0].ends_with("; the file has the size that it may have (--max-mb)"), "{error:?}");
    let length = fs::metadata(&file).unwrap().len();
    assert!((900_000..=1_000_000).contains(&length), "{length} bytes");

    let (file, capturing) = start("interrupted", &[]);
    stage.call(&stage.caller.request("OPTIONS", &format!("sip:{}", stage.edge)));
    stage.caller.expect("200 OK");
    // Both messages are in the file before Ctrl-C: packets are written as they come.
    let deadline = std::time::Instant::now() + crate::stage::DEADLINE;
    let count = || fs::read(&file).unwrap_or_default().windows(8).filter(|bytes| bytes == b"Call-ID:").count();
    while count() < 2 {
        assert!(std::time::Instant::now() < deadline, "{} of 2 messages in the file", count());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    capturing.interrupt();
    let (status, _, error) = capturing.finish();
    let length = fs::metadata(&file).unwrap().len();
    let expected = format!("{}: 2 messages, {length} bytes; interrupted", file.display());
    assert_eq!((status.code(), error), (Some(0), vec![expected]));
}
