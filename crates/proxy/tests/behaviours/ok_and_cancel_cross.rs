//! The callee answers while the caller hangs up: whichever message reaches the edge first, the call is up, and the caller has to end it
//! by BYE (RFC 3261 §9.1, §16.10).

use crate::stage::{Dialog, Message, Peer, Received, Stage};

#[test]
fn the_200_is_passed_and_the_cancel_ends_nothing() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let (invite, arrived) = ringing(&stage);
    let cancel = invite.cancel();
    stage.call(&cancel);
    caller.expect_that("200 to the CANCEL", |it| it.answers(&cancel));
    // The 200 was on its way when the CANCEL came.
    let cancel = callee.expect("CANCEL");
    callee.respond(&arrived, "200 OK");
    callee.respond(&cancel, "200 OK");
    let ok = caller.expect_that("200 to the INVITE", |it| it.answers(&invite) && it.code() == 200);
    talk_and_hang_up(caller, callee, &invite, &ok);
    assert!(!caller.seen().iter().any(|start| start.contains("487")), "{:?}", caller.seen());
}

#[test]
fn a_cancel_after_the_200_is_answered_and_goes_nowhere() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let (invite, arrived) = ringing(&stage);
    callee.respond(&arrived, "200 OK");
    let ok = caller.expect_that("200 to the INVITE", |it| it.answers(&invite) && it.code() == 200);
    let cancel = invite.cancel();
    stage.call(&cancel);
    caller.expect_that("200 to the CANCEL", |it| it.answers(&cancel));
    talk_and_hang_up(caller, callee, &invite, &ok);
    assert!(!callee.seen().iter().any(|start| start.starts_with("CANCEL")), "{:?}", callee.seen());
}

fn ringing(stage: &Stage) -> (Message, Received) {
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = stage.callees[0].expect("INVITE");
    stage.callees[0].respond(&arrived, "180 Ringing");
    stage.caller.expect("180");
    (invite, arrived)
}

fn talk_and_hang_up(caller: &Peer, callee: &Peer, invite: &Message, ok: &Message) {
    let mut dialog = Dialog::of_caller(invite, ok);
    caller.send_by_route(&dialog.ack(caller));
    callee.expect("ACK");
    let bye = dialog.request(caller, "BYE");
    caller.send_by_route(&bye);
    let arrived = callee.expect("BYE");
    callee.respond(&arrived, "200 OK");
    caller.expect_that("200 to the BYE", |it| it.answers(&bye));
}
