//! Long requests go by TCP where the destination leaves it open, and by UDP where TCP is refused (RFC 3261 §18.1.1).

use crate::peer::{Listener, Peer};
use crate::stage::{Message, Stage};

/// An edge that takes TCP for requests over 1,300 bytes.
fn stage() -> Stage {
    Stage::start(1, |config| {
        config.listen.tcp = true;
        config.streams.above_bytes = Some(1_300);
    })
}

fn long(invite: Message) -> Message {
    invite.with_body("text/plain", "x".repeat(1_400))
}

#[test]
fn a_request_over_1300_bytes_goes_by_tcp() {
    let stage = stage();
    let listener = Listener::bind(stage.callees[0].address.ip());
    stage.call(&long(stage.invite()));
    let callee = listener.accept();
    let arrived = callee.expect("INVITE");
    assert!(arrived.elements("Via")[0].starts_with("SIP/2.0/TCP "), "{}", arrived.text());
    callee.respond(&arrived, "486 Busy Here");
    callee.expect("ACK");
    stage.caller.expect("486");
    // A short one goes by UDP.
    stage.call(&stage.invite());
    let arrived = stage.callees[0].expect("INVITE");
    assert!(arrived.elements("Via")[0].starts_with("SIP/2.0/UDP "), "{}", arrived.text());
}

#[test]
fn content_length_is_added_for_tcp() {
    let stage = stage();
    let listener = Listener::bind(stage.callees[0].address.ip());
    stage.call(&long(stage.invite()).without("Content-Length"));
    let callee = listener.accept();
    let arrived = callee.expect("INVITE");
    assert_eq!((arrived.headers("Content-Length"), arrived.body.len()), (vec!["1400"], 1_400));

    // And in a response that came by UDP.
    let caller = Peer::connect(stage.caller.address.ip(), stage.edge);
    caller.send(&caller.request("INVITE", &stage.uri("bob")), stage.edge);
    let callee = &stage.callees[0];
    let arrived = callee.expect("INVITE");
    let answer = callee.response(&arrived, "200 OK").with_body("text/plain", "answer").without("Content-Length");
    callee.reply(&arrived, &answer);
    let ok = caller.expect("200 OK");
    assert_eq!((ok.headers("Content-Length"), &*ok.body), (vec!["6"], &b"answer"[..]));
}

#[test]
fn every_udp_port_takes_tcp_as_well() {
    let stage = stage();
    let caller = Peer::connect(stage.caller.address.ip(), stage.edge);
    caller.send(&caller.request("OPTIONS", &format!("sip:{}", stage.edge)), stage.edge);
    caller.expect("200 OK");
}

#[test]
fn what_came_by_tcp_is_sent_again_over_udp() {
    let stage = stage();
    let caller = Peer::connect(stage.caller.address.ip(), stage.edge);
    caller.send(&caller.request("INVITE", &stage.uri("bob")), stage.edge);
    let arrived = stage.callees[0].expect("INVITE");
    stage.callees[0].expect_copy(&arrived);
    stage.callees[0].respond(&arrived, "200 OK");
    caller.expect("200 OK");
}

#[test]
fn where_tcp_is_refused_it_goes_by_udp() {
    let stage = stage();
    let invite = long(stage.invite());
    stage.call(&invite);
    let arrived = stage.callees[0].expect("INVITE");
    assert!(arrived.elements("Via")[0].starts_with("SIP/2.0/UDP "), "{}", arrived.text());
    assert_eq!(arrived.body, invite.body);
    stage.callees[0].respond(&arrived, "200 OK");
    stage.caller.expect("200 OK");
}
