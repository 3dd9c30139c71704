//! Messages over TCP are found however the stream is cut.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::io::Write;
use std::time::Duration;

use process::address;
use process::sip::Agent;
use process::stream::{self, Line, listen, start, tcp_config, wait_for};
use sipedge_proxy::net::TlsMaterial;

#[test]
fn two_messages_in_one_segment_are_two() {
    let (proxy, edge) = start(tcp_config(address(100), address(101), "sip:192.0.2.1"), &TlsMaterial::default());
    let mut peer = Line::connect(address(101), edge);
    let uri = format!("sip:{edge}");
    let both = peer.request("OPTIONS", &uri, "one") + &peer.request("OPTIONS", &uri, "two");
    peer.send(&both);
    // Their calls belong to different shards, perhaps: either may be answered first.
    let mut answered = [(); 2].map(|()| peer.expect("200").header("Call-ID").to_owned());
    answered.sort();
    assert_eq!(answered, ["one", "two"]);
    let numbers = wait_for(&proxy, "two messages each way", |numbers| numbers.streams.messages_sent == 2);
    assert_eq!((numbers.streams.messages_received, numbers.streams.accepted), (2, 1));
    assert_eq!(numbers.stream_gauges.connections_in, 1);
    drop(peer);
    wait_for(&proxy, "the connection is gone", |numbers| numbers.stream_gauges.connections_in == 0);
}

#[test]
fn one_message_in_ten_segments_is_one() {
    let (_proxy, edge) = start(tcp_config(address(102), address(103), "sip:192.0.2.1"), &TlsMaterial::default());
    let mut peer = Line::connect(address(103), edge);
    peer.stream.set_nodelay(true).unwrap();
    let request = peer.request("OPTIONS", &format!("sip:{edge}"), "pieces");
    let pieces = request.as_bytes().chunks(request.len().div_ceil(10));
    for piece in pieces {
        peer.send(std::str::from_utf8(piece).unwrap());
        // So that the kernel does not join them again.
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    assert_eq!(peer.expect("200").header("Call-ID"), "pieces");
}

#[test]
fn a_call_goes_from_tcp_to_tcp_with_a_body_of_60_kilobytes() {
    let callee = listen(address(106));
    let target = format!("sip:{};transport=tcp", callee.local_addr().unwrap());
    let (_proxy, edge) = start(tcp_config(address(104), address(105), &target), &TlsMaterial::default());
    let mut caller = Line::connect(address(105), edge);
    let body = "v".repeat(60_000);
    let invite = caller.request("INVITE", &format!("sip:1@{edge}"), "large");
    caller.send(&(invite.replace("Content-Length: 0", "Content-Length: 60000") + &body));
    let mut callee = Line::accept(&callee);
    let invite = callee.expect("INVITE");
    assert!(invite.text.ends_with(&body));
    callee.respond(&invite, "200 OK");
    assert_eq!(caller.expect("200").header("Call-ID"), "large");
}

/// More than any queue of the edge holds: it reads no faster than it can work, and loses nothing.
#[test]
fn a_flood_of_requests_on_one_connection_is_answered_whole() {
    const REQUESTS: usize = 40_000;
    let (proxy, edge) = start(tcp_config(address(217), address(218), "sip:192.0.2.1"), &TlsMaterial::default());
    let mut peer = Line::connect(address(218), edge);
    let mut writing = peer.stream.try_clone().unwrap();
    let (local, uri) = (peer.local, format!("sip:{edge}"));
    let writer = std::thread::spawn(move || {
        for number in 0..REQUESTS {
            let request = stream::request("TCP", local, "OPTIONS", &uri, &format!("flood{number}"));
            writing.write_all(request.as_bytes()).unwrap();
        }
    });
    // First nothing is taken, until the edge takes nothing any more either.
    let mut before = 0;
    wait_for(&proxy, "the edge stops to read", |numbers| {
        std::thread::sleep(Duration::from_millis(100));
        let received = numbers.streams.messages_received;
        std::mem::replace(&mut before, received) == received && received > 0
    });
    assert!(before < REQUESTS as u64, "the buffers hold all {before} answers: this shows nothing");
    for number in 0..REQUESTS {
        let answer = peer.next().unwrap_or_else(|| panic!("the end after {number} answers"));
        assert!(answer.first_line().contains("200"), "{answer:?}");
    }
    writer.join().unwrap();
    let numbers = proxy.numbers();
    assert_eq!((numbers.streams.messages_received, numbers.streams.no_room), (REQUESTS as u64, 0));
}

#[test]
fn what_cannot_be_framed_ends_the_connection() {
    let (proxy, edge) = start(tcp_config(address(107), address(108), "sip:192.0.2.1"), &TlsMaterial::default());
    let mut peer = Line::connect(address(108), edge);
    let request = peer.request("OPTIONS", &format!("sip:{edge}"), "endless");
    peer.send(&request.replace("Content-Length: 0\r\n", ""));
    peer.expect_end();
    let numbers = wait_for(&proxy, "a framing error", |numbers| numbers.streams.framing_errors == 1);
    assert_eq!(numbers.streams.messages_received, 0);
    // It is one peer's fault alone.
    assert!(Line::connect(address(108), edge).options("next").contains("200"));
}

#[test]
fn without_a_setting_there_is_no_tcp() {
    let mut config = tcp_config(address(109), address(110), "sip:192.0.2.1");
    config.listen.tcp = false;
    let (_proxy, edge) = start(config, &TlsMaterial::default());
    let refused = std::net::TcpStream::connect(edge).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let peer = Agent::bind(address(110), 0);
    peer.send(&peer.request("OPTIONS", &format!("sip:{edge}"), "udp"), edge);
    peer.expect("200");
}
