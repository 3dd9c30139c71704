//! A peer whose host has gone without a word: data that nobody acknowledges breaks the connection within seconds.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::time::{Duration, Instant};

use process::address;
use process::sip::Agent;
use process::stream::{Line, listen, start, tcp_config, wait_for};
use sipedge_proxy::net::TlsMaterial;
use socket2::{SockFilter, SockRef};

#[test]
fn a_request_to_a_peer_that_is_gone_is_reported() {
    let callee = listen(address(140));
    let target = format!("sip:{};transport=tcp", callee.local_addr().unwrap());
    let mut config = tcp_config(address(138), address(139), &target);
    // The caller must hear of it by the connection, and not by Timer B.
    (config.timers.t1_ms, config.timers.t2_ms) = (500, 4_000);
    config.timers.response_ms = 60_000;
    config.timers.invite_ms = 60_000;
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let caller = Agent::bind(address(139), 0);
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "before"), edge);
    let mut line = Line::accept(&callee);
    let invite = line.expect("INVITE");
    line.respond(&invite, "486 Busy Here");
    caller.expect("486");
    line.expect("ACK");
    // From now on the callee's host drops every packet of this connection, without an answer, and accepts no other.
    let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    SockRef::from(&line.stream).attach_filter(&[drop_all]).unwrap();
    drop(callee);

    let began = Instant::now();
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "after"), edge);
    let answer = loop {
        let message = caller.expect("SIP/2.0");
        if message.header("Call-ID") == "after" && !message.first_line().contains(" 100 ") {
            break message;
        }
    };
    assert!(answer.first_line().starts_with("SIP/2.0 4") || answer.first_line().starts_with("SIP/2.0 5"), "{answer:?}");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(15), "{took:?}");
    let numbers = wait_for(&proxy, "a broken connection", |numbers| numbers.streams.broken == 1);
    assert!(numbers.streams.failures_reported >= 1, "{numbers:?}");
}
