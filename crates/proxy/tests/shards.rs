//! Two shards: a call belongs to one, wherever its datagrams arrive; nothing is lost, and the order in a dialog is kept.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use process::sip::Agent;
use process::{DEADLINE, EGRESS, INGRESS, address, config, keys};
use sipedge_proxy::engine::{Control, Place};
use sipedge_proxy::net::{Numbers, Proxy, TlsMaterial};

/// Calls of the test. Each is six datagrams or more; the buffers hold all of them.
const CALLS: usize = 400;

/// Callers. The kernel chooses the receiving shard by address and port, so some arrive at either.
const CALLERS: usize = 8;

fn start(edge: u8, caller: std::net::IpAddr, callee: SocketAddr) -> (Proxy, SocketAddr) {
    let config = config(address(edge), caller, callee);
    let ingress = SocketAddr::new(address(edge), INGRESS);
    let egress = SocketAddr::new(address(edge), EGRESS);
    let place = Place { ingress, egress, advertised: address(edge).to_string(), shards: 2 };
    let proxy = Proxy::start(config, place, &keys(), &TlsMaterial::default()).unwrap();
    (proxy, ingress)
}

fn wait_for(proxy: &Proxy, what: &str, reached: impl Fn(&Numbers) -> bool) -> Numbers {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let numbers = proxy.numbers();
        if reached(&numbers) {
            return numbers;
        }
        assert!(Instant::now() < deadline, "{what}: {numbers:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn calls_over_both_shards_all_succeed_in_order() {
    let callers: Vec<Agent> = (0..CALLERS).map(|_| Agent::bind(address(71), 0)).collect();
    let callee = Agent::bind(address(72), 0);
    let (proxy, edge) = start(70, address(71), callee.address);
    proxy.control(Control::Open);

    let answering = std::thread::spawn(move || {
        let (mut calls, mut acknowledged) = (0, 0);
        while acknowledged < CALLS {
            let message =
                callee.next(DEADLINE).unwrap_or_else(|| panic!("{calls} calls and {acknowledged} ACKs arrived"));
            if message.first_line().starts_with("INVITE") {
                calls += 1;
                // Back to back: whoever handles one of them elsewhere swaps them.
                for status in ["180 Ringing", "183 Session Progress", "200 OK"] {
                    callee.respond(&message, status);
                }
            } else if message.first_line().starts_with("ACK") {
                acknowledged += 1;
            }
        }
        calls
    });
    let mut seen: HashMap<String, Vec<String>> = HashMap::new();
    for (number, chunk) in (0..CALLS).collect::<Vec<_>>().chunks(CALLERS).enumerate() {
        for (call, caller) in chunk.iter().zip(&callers) {
            caller.send(&caller.request("INVITE", &format!("sip:{call}@{edge}"), &format!("call-{call}")), edge);
        }
        for (call, caller) in chunk.iter().zip(&callers) {
            loop {
                let message =
                    caller.next(DEADLINE).unwrap_or_else(|| panic!("call {call} of round {number}: {seen:?}"));
                let id = message.header("Call-ID").to_owned();
                seen.entry(id.clone()).or_default().push(message.first_line()["SIP/2.0 ".len()..][..3].to_owned());
                if message.first_line().contains("200 OK") && id == format!("call-{call}") {
                    caller.acknowledge(&message, edge);
                    break;
                }
            }
        }
    }
    assert_eq!(answering.join().unwrap(), CALLS, "no INVITE twice, none missing");
    assert_eq!(seen.len(), CALLS);
    for (call, statuses) in &seen {
        assert_eq!(statuses, &["100", "180", "183", "200"], "{call}");
    }
    let numbers = wait_for(&proxy, "tables empty", |numbers| numbers.gauges.transactions == 0);
    assert!(numbers.net.handed_over > 0, "{:?}", numbers.net);
    assert_eq!((numbers.net.hand_over_drops, numbers.net.kernel_drops, numbers.net.send_errors), (0, 0, 0));
    proxy.join();
}

#[test]
fn whatever_arrives_is_taken() {
    let peer = Agent::bind(address(74), 0);
    let (proxy, edge) = start(73, address(74), "198.51.100.7:5060".parse().unwrap());
    proxy.control(Control::Open);
    let longest = vec![b'x'; 65_507];
    for bytes in [&b""[..], b"\r\n\r\n", b"\0\x01\0\0\x21\x12\xa4\x42", b"GET / HTTP/1.1\r\n\r\n", &longest] {
        peer.socket.send_to(bytes, edge).unwrap();
    }
    let numbers = wait_for(&proxy, "five datagrams", |numbers| numbers.counters.messages_received >= 5);
    assert_eq!(numbers.counters.messages_received, 5);
    assert_eq!(proxy.health(), Ok(()));
    assert_eq!(proxy.dead_shard(), None);
}

#[test]
fn before_it_is_opened_nobody_is_answered() {
    let peer = Agent::bind(address(76), 0);
    let (proxy, edge) = start(75, address(76), "198.51.100.7:5060".parse().unwrap());
    peer.send(&peer.request("OPTIONS", &format!("sip:{edge}"), "closed"), edge);
    wait_for(&proxy, "one datagram", |numbers| numbers.counters.messages_received == 1);
    assert_eq!(proxy.numbers().net.datagrams_sent, 0);
    proxy.control(Control::Open);
    peer.send(&peer.request("OPTIONS", &format!("sip:{edge}"), "open"), edge);
    assert_eq!(peer.expect("SIP/2.0").header("Call-ID"), "open");
}
