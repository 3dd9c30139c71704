//! How responses find their way when a connection is there, and when it is gone (RFC 3261 §18.2.2).

use crate::peer::{Listener, Peer};
use crate::stage::Stage;

#[test]
fn a_response_goes_back_by_its_connection() {
    let stage = Stage::start(1, |config| config.listen.tcp = true);
    let callee = &stage.callees[0];
    let callers = [(); 2].map(|()| Peer::connect(stage.caller.address.ip(), stage.edge));
    let arrived = callers.each_ref().map(|caller| {
        let invite = caller.request("INVITE", &stage.uri("bob"));
        caller.send(&invite, stage.edge);
        callee.expect_that("its INVITE", |it| it.header("Call-ID") == invite.header("Call-ID"))
    });
    for (caller, invite) in callers.iter().zip(&arrived).rev() {
        callee.respond(invite, "200 OK");
        assert_eq!(caller.expect("200 OK").header("Call-ID"), invite.header("Call-ID"));
    }
    for caller in &callers {
        assert_eq!(caller.seen(), ["SIP/2.0 100 Trying", "SIP/2.0 200 OK"]);
    }
}

#[test]
fn a_response_opens_a_connection_to_sent_by() {
    let stage = Stage::start(1, |config| config.listen.tcp = true);
    let callee = &stage.callees[0];
    let listener = Listener::bind(stage.caller.address.ip());
    let caller = Peer::connect(stage.caller.address.ip(), stage.edge);
    // Behind the name is nobody: `received` leads back.
    let via = "SIP/2.0/TCP pbx.example:5060;branch=z9hG4bKgone";
    let invite = caller.request("INVITE", &stage.uri("bob")).with("Via", via);
    caller.send(&invite, stage.edge);
    let arrived = callee.expect("INVITE");
    caller.expect("100");
    drop(caller);
    // What is written into a connection before its end is known is lost.
    stage.wait_for_metric_down("sipedge_stream_connections_in", 0);
    callee.respond(&arrived, "200 OK");
    let ok = listener.accept().expect("200 OK");
    assert_eq!(ok.branch(), "z9hG4bKgone");
}
