//! A BYE that overtakes the ACK of its call.

use crate::stage::{Dialog, Stage};

#[test]
fn a_bye_that_overtakes_the_ack_is_passed() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "200 OK");
    let ok = caller.expect("200 OK");
    let mut dialog = Dialog::of_caller(&invite, &ok);
    let ack = dialog.ack(caller);
    let bye = dialog.request(caller, "BYE");
    caller.send_by_route(&bye);
    let arrived = callee.expect("BYE");
    callee.respond(&arrived, "200 OK");
    caller.expect_that("200 to the BYE", |it| it.answers(&bye));
    caller.send_by_route(&ack);
    callee.expect("ACK");
}
