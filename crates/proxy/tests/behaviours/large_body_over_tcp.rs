//! Calls over TCP on both sides (RFC 3261 §18).

use std::time::Duration;

use sipedge_proxy::config::Target;

use crate::peer::{Listener, Peer};
use crate::stage::{Stage, T1, loopback};

/// More than twenty times T1: over UDP five copies would have come by then.
const LONG: Duration = Duration::from_millis(500);

/// An edge between a caller and a callee on TCP.
fn stage() -> (Stage, Peer, Listener) {
    let listener = Listener::bind(loopback());
    let stage = Stage::start(0, |config| {
        config.listen.tcp = true;
        config.trunks[1].targets = vec![Target::new(format!("sip:{};transport=tcp", listener.address))];
    });
    let caller = Peer::connect(stage.caller.address.ip(), stage.edge);
    (stage, caller, listener)
}

#[test]
fn a_body_of_60_kb_arrives_unchanged() {
    let (stage, caller, listener) = stage();
    let body: Vec<u8> = (0..60_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    caller.send(&caller.request("INVITE", &stage.uri("bob")).with_body("x/y", body.clone()), stage.edge);
    let callee = listener.accept();
    let arrived = callee.expect("INVITE");
    assert!(arrived.body == body, "{} bytes arrived", arrived.body.len());
    assert!(
        arrived.elements("Via")[0].starts_with(&format!("SIP/2.0/TCP {};", stage.edge)),
        "{}",
        arrived.header("Via")
    );
    let answer = callee.response(&arrived, "200 OK").with_body("x/y", body.clone());
    callee.reply(&arrived, &answer);
    let ok = caller.expect("200 OK");
    assert!(ok.body == body, "{} bytes came back", ok.body.len());
}

#[test]
fn a_refusal_over_tcp_is_acknowledged_on_the_same_connection() {
    let (stage, caller, listener) = stage();
    let invite = caller.request("INVITE", &stage.uri("bob"));
    caller.send(&invite, stage.edge);
    let callee = listener.accept();
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "486 Busy Here");
    let ack = callee.expect("ACK");
    assert_eq!((ack.branch(), ack.uri()), (arrived.branch(), arrived.uri()));
    let refusal = caller.expect("486");
    caller.send(&invite.ack(&refusal), stage.edge);
}

#[test]
fn over_tcp_nothing_is_sent_twice() {
    assert!(LONG > 20 * T1);
    let (stage, caller, listener) = stage();
    let invite = caller.request("INVITE", &stage.uri("bob"));
    caller.send(&invite, stage.edge);
    let callee = listener.accept();
    let arrived = callee.expect("INVITE");
    callee.expect_nothing("anything", LONG);
    assert_eq!(callee.copies(&arrived), 0, "no Timer A");
    callee.respond(&arrived, "486 Busy Here");
    callee.expect("ACK");
    let refusal = caller.expect("486");
    caller.expect_nothing("anything", LONG);
    assert_eq!(caller.copies(&refusal), 0, "no Timer G");
    caller.send(&invite.ack(&refusal), stage.edge);
    let message = caller.request("MESSAGE", &stage.uri("bob"));
    caller.send(&message, stage.edge);
    let arrived = callee.expect("MESSAGE");
    callee.expect_nothing("anything", LONG);
    assert_eq!(callee.copies(&arrived), 0, "no Timer E");
    callee.respond(&arrived, "200 OK");
    let ok = caller.expect("200 OK");
    // Timers J and K are nothing: a copy is a new request.
    assert_eq!(caller.copies(&ok), 0);
}
