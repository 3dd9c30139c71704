//! Peers that hold a connection without using it: half a message, nothing at all, a handshake without an end.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use process::certificates::{Authority, dns};
use process::stream::{Line, start, tcp_config, wait_for};
use process::{DEADLINE, address};
use sipedge_proxy::config::{SecretRef, TlsListener};
use sipedge_proxy::net::TlsMaterial;

#[test]
fn a_message_that_does_not_get_whole_in_time_ends_the_connection() {
    let mut config = tcp_config(address(130), address(131), "sip:192.0.2.1");
    config.streams.message_ms = 400;
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let mut peer = Line::connect(address(131), edge);
    assert!(peer.options("first").contains("200"));
    // It goes on byte by byte, which does not help.
    let mut dripping = peer.stream.try_clone().unwrap();
    let request = peer.request("OPTIONS", &format!("sip:{edge}"), "dripping");
    let began = Instant::now();
    let sender = std::thread::spawn(move || {
        for byte in request.as_bytes() {
            if dripping.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    peer.expect_end();
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    let numbers = wait_for(&proxy, "one slow sender", |numbers| numbers.streams.slow_senders == 1);
    assert_eq!(numbers.streams.messages_received, 1);
    sender.join().unwrap();
    assert!(Line::connect(address(131), edge).options("next").contains("200"));
}

#[test]
fn whoever_connects_and_says_nothing_loses_the_connection_soon() {
    let mut config = tcp_config(address(132), address(133), "sip:192.0.2.1");
    config.streams.connect_ms = 300;
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let mut talking = Line::connect(address(133), edge);
    talking.send("\r\n\r\n");
    assert_eq!(talking.bytes(2), b"\r\n");
    let began = Instant::now();
    Line::connect(address(133), edge).expect_end();
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    wait_for(&proxy, "one closed", |numbers| numbers.streams.idle_closed == 1);
    assert!(talking.options("still").contains("200"), "whoever has spoken keeps it");
}

#[test]
fn a_connection_without_traffic_is_closed_after_the_idle_time() {
    let mut config = tcp_config(address(134), address(135), "sip:192.0.2.1");
    config.streams.idle_ms = 500;
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let mut peer = Line::connect(address(135), edge);
    for round in 0..4 {
        assert!(peer.options(&format!("round{round}")).contains("200"));
        std::thread::sleep(Duration::from_millis(200));
    }
    peer.expect_end();
    wait_for(&proxy, "one closed", |numbers| numbers.streams.idle_closed == 1);
}

#[test]
fn a_tls_handshake_without_end_is_cut_off() {
    let mut config = tcp_config(address(136), address(137), "sip:192.0.2.1");
    config.streams.connect_ms = 300;
    let reference = SecretRef::File("edge.pem".into());
    let tls = TlsListener { port: 5061, certificate: reference.clone(), client_roots: None, require_client: false };
    config.listen.tls = Some(tls);
    let mut material = TlsMaterial::default();
    material.insert(reference, Authority::new("roots").issue(&[dns("edge.example")]).into());
    let (proxy, edge) = start(config, &material);
    let mut silent = Line::connect(address(137), SocketAddr::new(edge.ip(), 5061));
    silent.expect_end();
    wait_for(&proxy, "one handshake failed", |numbers| numbers.streams.handshake_failures == 1);
    let mut other = TcpStream::connect_timeout(&SocketAddr::new(edge.ip(), 5061), DEADLINE).unwrap();
    other.write_all(b"OPTIONS sip:edge.example SIP/2.0\r\n\r\n").unwrap();
    wait_for(&proxy, "SIP in the clear is no handshake", |numbers| numbers.streams.handshake_failures == 2);
}
