//! Datagrams that did not arrive whole (RFC 3261 §18.3).

use crate::stage::{Stage, without_retransmissions};

#[test]
fn a_response_that_did_not_arrive_whole_is_dropped() {
    let stage = Stage::start(1, without_retransmissions);
    let callee = &stage.callees[0];
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    let cut = callee.response(&arrived, "486 Busy Here").with("Content-Length", "10");
    let malformed = stage.metric("sipedge_malformed_total");
    callee.reply(&arrived, &cut);
    stage.wait_for_metric("sipedge_malformed_total", malformed + 1);
    // It has decided nothing, nor was it acknowledged.
    callee.respond(&arrived, "200 OK");
    stage.caller.expect_that("200", |it| it.answers(&invite) && it.code() == 200);
    assert_eq!(stage.caller.seen(), ["SIP/2.0 100 Trying", "SIP/2.0 200 OK"]);
    assert!(!callee.seen().iter().any(|start| start.starts_with("ACK")), "{:?}", callee.seen());
}
