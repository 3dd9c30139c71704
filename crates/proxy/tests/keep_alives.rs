//! Keep-alives of RFC 5626: CRLF over connections, STUN over datagrams.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::io::Write;
use std::time::Duration;

use process::address;
use process::sip::Agent;
use process::stream::{Line, start, tcp_config, wait_for};
use sipedge_proxy::net::TlsMaterial;

#[test]
fn two_crlf_between_messages_are_answered_by_one() {
    let (proxy, edge) = start(tcp_config(address(111), address(112), "sip:192.0.2.1"), &TlsMaterial::default());
    let mut peer = Line::connect(address(112), edge);
    peer.send("\r\n\r\n");
    assert_eq!(peer.bytes(2), b"\r\n");
    assert!(peer.options("between").contains("200"));
    for half in ["\r\n", "\r\n"] {
        peer.send(half);
    }
    assert_eq!(peer.bytes(2), b"\r\n");
    // A single CRLF is the answer to a question that nobody asked: nothing comes back before the next answer.
    peer.send("\r\n");
    assert!(peer.options("after").contains("200"));
    assert_eq!(proxy.numbers().streams.framing_errors, 0);
}

/// Somebody who asks and never reads loses the connection.
#[test]
fn answers_that_nobody_reads_do_not_pile_up() {
    let mut config = tcp_config(address(113), address(114), "sip:192.0.2.1");
    config.streams.message_ms = 500;
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let mut peer = Line::connect(address(114), edge);
    peer.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let pings = b"\r\n\r\n".repeat(16_384);
    let mut written = 0;
    while written < 256 << 20 && proxy.numbers().streams.slow_receivers == 0 {
        match peer.stream.write(&pings) {
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    wait_for(&proxy, "the connection is closed", |numbers| numbers.streams.slow_receivers == 1);
    let mut other = Line::connect(address(114), edge);
    assert!(other.options("another").contains("200"));
}

const BINDING_REQUEST: &[u8] = b"\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl";

#[test]
fn stun_of_a_known_source_is_answered_with_its_address() {
    let (proxy, edge) = start(tcp_config(address(115), address(116), "sip:192.0.2.1"), &TlsMaterial::default());
    let stranger = Agent::bind(address(117), 0);
    stranger.socket.send_to(BINDING_REQUEST, edge).unwrap();
    wait_for(&proxy, "the stranger's request", |numbers| numbers.counters.not_sip == 1);
    let peer = Agent::bind(address(116), 0);
    peer.socket.send_to(BINDING_REQUEST, edge).unwrap();
    peer.socket.set_read_timeout(Some(process::DEADLINE)).unwrap();
    let mut buffer = [0; 128];
    let (length, from) = peer.socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from, edge);
    let answer = &buffer[..length];
    assert_eq!(answer[..2], [0x01, 0x01], "a success response");
    assert_eq!(answer[4..20], BINDING_REQUEST[4..20], "magic cookie and transaction");
    // XOR-MAPPED-ADDRESS: type, length 8, family IPv4, then port and address masked by the magic cookie.
    assert_eq!(answer[20..26], [0, 0x20, 0, 8, 0, 1]);
    let port = u16::from_be_bytes([answer[26], answer[27]]) ^ 0x2112;
    let ip: Vec<u8> = answer[28..32].iter().zip([0x21, 0x12, 0xa4, 0x42]).map(|(byte, mask)| byte ^ mask).collect();
    assert_eq!((port, <[u8; 4]>::try_from(ip).unwrap().into()), (peer.address.port(), address(116)));
    let numbers = wait_for(&proxy, "one answer", |numbers| numbers.counters.stun_answered == 1);
    assert_eq!((numbers.counters.not_sip, numbers.net.datagrams_sent), (1, 1), "the stranger got nothing");
}
