//! The ACK of a 200 is lost, or comes twice: it is the caller's and the callee's affair, and the edge keeps nothing for it (RFC 3261
//! §13.2.2.4, §16.11).

use crate::stage::{Dialog, Stage};

#[test]
fn the_200_comes_again_until_the_ack_arrives() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    let answer = callee.respond(&arrived, "200 OK");
    let ok = caller.expect("200 OK");
    let dialog = Dialog::of_caller(&invite, &ok);

    // The first ACK is lost on its way to the edge: the callee goes on answering.
    for _ in 0..3 {
        callee.reply(&arrived, &answer);
        caller.expect_copy(&ok);
    }
    assert_eq!(callee.seen(), [arrived.start.as_str()], "the edge acknowledges no 2xx");

    caller.send_by_route(&dialog.ack(caller));
    let ack = callee.expect("ACK");
    assert_eq!(ack.header("CSeq"), "1 ACK");
    assert_ne!(ack.branch(), arrived.branch(), "it is a transaction of its own");
}

#[test]
fn an_ack_that_comes_again_goes_the_same_way() {
    let stage = Stage::start(3, |_| {});
    let caller = &stage.caller;
    let invite = stage.invite();
    stage.call(&invite);
    // Weights choose one of three.
    let arrived = loop {
        let taken = stage.callees.iter().find(|callee| !callee.seen().is_empty());
        if let Some(callee) = taken {
            break (callee, callee.expect("INVITE"));
        }
    };
    let (callee, arrived) = arrived;
    let answer = callee.respond(&arrived, "200 OK");
    let ok = caller.expect("200 OK");
    let ack = Dialog::of_caller(&invite, &ok).ack(caller);
    caller.send_by_route(&ack);
    let first = callee.expect("ACK");
    // The callee has not seen it, and the caller answers each copy of the 200 with the same ACK.
    for _ in 0..3 {
        callee.reply(&arrived, &answer);
        caller.expect_copy(&ok);
        caller.send_by_route(&ack);
        // The same bytes, branch included.
        callee.expect_copy(&first);
    }
    let reached = stage.callees.iter().filter(|callee| !callee.seen().is_empty()).count();
    assert_eq!(reached, 1, "only one callee has heard of the call");
}
