//! The 200 to an INVITE comes again, or the INVITE does after it (RFC 6026 §7).

use crate::stage::{Dialog, Stage, without_retransmissions};

#[test]
fn each_copy_of_the_200_is_passed_on() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    let answer = callee.respond(&arrived, "200 OK");
    let ok = caller.expect("200 OK");
    callee.reply(&arrived, &answer);
    caller.expect_copy(&ok);
    caller.send_by_route(&Dialog::of_caller(&invite, &ok).ack(caller));
    callee.expect("ACK");
    // That ACK has changed nothing: another 200 means that it was lost.
    for _ in 0..2 {
        callee.reply(&arrived, &answer);
        caller.expect_copy(&ok);
    }
    assert_eq!(caller.copies(&ok), 0, "the edge repeats no 200 of itself");
}

#[test]
fn a_copy_of_the_invite_after_the_200_is_absorbed() {
    let stage = Stage::start(1, without_retransmissions);
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "200 OK");
    let ok = caller.expect("200 OK");
    stage.call(&invite);
    stage.sync(invite.header("Call-ID"));
    stage.wait_for_metric("sipedge_retransmissions_absorbed_total", 1);
    assert_eq!(caller.copies(&ok), 0, "the callee repeats its 200 itself");
    assert_eq!(callee.seen(), [arrived.start.as_str()]);
    assert_eq!(callee.copies(&arrived), 0);
}
