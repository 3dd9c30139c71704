//! `/healthz`, `/readyz` and `/metrics`, and what a client may do to them.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use process::sip::Agent;
use process::{ADMIN, DEADLINE, INGRESS, Process, address, config, get, metric, wait_for_readyz};

fn ready(number: u8) -> (Process, tempfile::TempDir) {
    let config = config(address(number), address(201), "198.51.100.7:5060".parse().unwrap());
    let (mut process, folder) = Process::run(&config);
    wait_for_readyz(address(number), 200, &mut process);
    (process, folder)
}

#[test]
fn pages_tell_health_readiness_and_metrics() {
    let (_process, _folder) = ready(30);
    let edge = address(30);
    assert_eq!(get(edge, "/healthz"), Some((200, "alive\n".into())));
    assert_eq!(get(edge, "/readyz"), Some((200, "ready\n".into())));
    assert_eq!(get(edge, "/").unwrap().0, 404);
    assert_eq!(metric(edge, "sipedge_ready"), 1);
    assert_eq!(metric(edge, "sipedge_draining"), 0);
    assert_eq!(metric(edge, "sipedge_shards"), 2);
    assert_eq!(metric(edge, "sipedge_net_kernel_drops_total"), 0);
    assert!(metric(edge, "sipedge_net_receive_buffer_bytes") >= 4 * (128 << 10), "two shards with two sockets each");
    assert!(metric(edge, "sipedge_start_time_seconds") > 1_700_000_000);
    let version = concat!("sipedge_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    assert_eq!(metric(edge, version), 1);
}

#[test]
fn datagrams_show_in_the_metrics_within_a_second_or_so() {
    let (_process, _folder) = ready(31);
    let edge = address(31);
    let before = metric(edge, "sipedge_messages_received_total");
    let peer = Agent::bind(address(201), 0);
    for _ in 0..10 {
        peer.socket.send_to(b"\r\n\r\n", (edge, INGRESS)).unwrap();
    }
    let deadline = Instant::now() + DEADLINE;
    while metric(edge, "sipedge_messages_received_total") < before + 10 {
        assert!(Instant::now() < deadline, "{} of 10", metric(edge, "sipedge_messages_received_total") - before);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_can_be_changed_by_http() {
    let (_process, _folder) = ready(32);
    let mut stream = TcpStream::connect((address(32), ADMIN)).unwrap();
    stream.write_all(b"POST /readyz HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[test]
fn a_head_without_end_is_refused() {
    let (_process, _folder) = ready(33);
    let mut stream = TcpStream::connect((address(33), ADMIN)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut written = 0;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nX-Long: ").unwrap();
    while written < 1 << 20 {
        match stream.write(&[b'x'; 4096]) {
            Ok(count) => written += count,
            Err(_) => break,
        }
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(get(address(33), "/healthz").unwrap().0, 200);
}

/// More silent clients than there are places: they lose theirs by the clock, and a health check gets through.
#[test]
fn silent_clients_do_not_keep_the_health_check_out() {
    let (_process, _folder) = ready(34);
    let silent: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect((address(34), ADMIN)).unwrap()).collect();
    let began = Instant::now();
    assert_eq!(get(address(34), "/readyz").unwrap().0, 200);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    drop(silent);
}
