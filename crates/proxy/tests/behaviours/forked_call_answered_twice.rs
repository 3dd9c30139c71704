//! A forked call that two callees answer: both answers reach the caller, who ends one of the dialogs (RFC 3261 §16.7, §13.2.2.4).

use sipedge_proxy::config::Select;

use crate::stage::{Dialog, Stage};

/// Both callees answer at the same time: the CANCEL of the second one comes too late.
#[test]
fn both_answers_reach_the_caller() {
    let stage = Stage::start(2, |config| config.trunks[1].select = Select::All);
    let (caller, [first, second]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = [first, second].map(|callee| callee.expect("INVITE"));
    assert_ne!(arrived[0].branch(), arrived[1].branch(), "each branch is a transaction of its own");
    first.respond(&arrived[0], "200 OK");
    let first_ok = caller.expect_that("200 of the first callee", |it| it.to_tag() == Some(&first.tag));
    second.respond(&arrived[1], "200 OK");
    let second_ok = caller.expect_that("200 of the second callee", |it| it.to_tag() == Some(&second.tag));

    // Each 200 makes a dialog that works; the caller keeps the first.
    for (callee, ok) in [(first, first_ok), (second, second_ok)] {
        let mut dialog = Dialog::of_caller(&invite, &ok);
        caller.send_by_route(&dialog.ack(caller));
        callee.expect("ACK");
        let bye = dialog.request(caller, "BYE");
        caller.send_by_route(&bye);
        let bye = callee.expect("BYE");
        callee.respond(&bye, "200 OK");
        caller.expect_that("200 to the BYE", |it| it.header("CSeq") == bye.header("CSeq"));
    }
}

#[test]
fn the_other_branches_are_cancelled() {
    let stage = Stage::start(3, |config| config.trunks[1].select = Select::All);
    let caller = &stage.caller;
    stage.call(&stage.invite());
    let invites: Vec<_> = stage.callees.iter().map(|callee| callee.expect("INVITE")).collect();
    for (callee, invite) in stage.callees.iter().zip(&invites).take(2) {
        callee.respond(invite, "180 Ringing");
        caller.expect_that("180", |it| it.code() == 180 && it.to_tag() == Some(&callee.tag));
    }
    stage.callees[0].respond(&invites[0], "200 OK");
    caller.expect("200 OK");

    let [answered, ringing, silent] = stage.callees();
    let cancel = ringing.expect("CANCEL");
    assert_eq!(cancel.branch(), invites[1].branch());
    assert!(cancel.header("Reason").contains("cause=200"), "{}", cancel.text());
    ringing.respond(&cancel, "200 OK");
    ringing.respond(&invites[1], "487 Request Terminated");
    ringing.expect("ACK");

    // A branch that has said nothing gets its CANCEL after its first sign of life, not before (RFC 3261 §9.1).
    assert!(!silent.seen().iter().any(|start| start.starts_with("CANCEL")), "{:?}", silent.seen());
    silent.respond(&invites[2], "100 Trying");
    silent.expect("CANCEL");
    silent.respond(&invites[2], "487 Request Terminated");
    silent.expect("ACK");

    assert!(!answered.seen().iter().any(|start| start.starts_with("CANCEL")), "{:?}", answered.seen());
    assert!(!caller.seen().iter().any(|start| start.contains(" 487 ")), "{:?}", caller.seen());
}
