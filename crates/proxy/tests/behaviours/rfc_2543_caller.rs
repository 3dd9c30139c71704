//! A caller that knows RFC 2543 alone: no branch, no From tag, no Max-Forwards (RFC 3261 §16.11, §17.2.3).

use std::time::Duration;

use crate::stage::{Dialog, Message, Stage};

/// The message as such a caller writes it.
fn old(stage: &Stage, message: Message) -> Message {
    let via = format!("SIP/2.0/UDP {}", stage.caller.address);
    message.with("Via", &via).without("Max-Forwards")
}

fn old_invite(stage: &Stage) -> Message {
    let invite = stage.invite();
    let from = invite.header("From").split(";tag").next().unwrap().to_owned();
    old(stage, invite).with("From", &from)
}

#[test]
fn an_rfc_2543_caller_makes_a_call() {
    let stage = Stage::start(1, |_| {});
    let (caller, callee) = (&stage.caller, &stage.callees[0]);
    let invite = old_invite(&stage);
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    assert!(arrived.branch().starts_with("z9hG4bK"), "{}", arrived.text());
    let answer = callee.respond(&arrived, "200 OK");
    let ok = caller.expect("200 OK");
    assert_eq!(ok.headers("Via").len(), 1, "{}", ok.text());
    let (mut of_caller, mut of_callee) = (Dialog::of_caller(&invite, &ok), Dialog::of_callee(&arrived, &answer));
    caller.send_by_route(&old(&stage, of_caller.ack(caller)));
    callee.expect("ACK");
    callee.send_by_route(&of_callee.request(callee, "INFO"));
    let info = caller.expect("INFO");
    caller.respond(&info, "200 OK");
    callee.expect("200 OK");
    // Without a To tag an INVITE could be a call of its own: it does not go where the called side likes.
    let elsewhere = of_callee.request(callee, "INVITE").to("sip:+1900@127.0.0.1:9");
    callee.send_by_route(&elsewhere);
    assert_eq!(callee.expect_that("refusal", |it| it.answers(&elsewhere)).code(), 403);
    let bye = old(&stage, of_caller.request(caller, "BYE"));
    caller.send_by_route(&bye);
    let arrived = callee.expect("BYE");
    callee.respond(&arrived, "200 OK");
    let ok = caller.expect_that("200 to the BYE", |it| it.header("CSeq") == bye.header("CSeq"));
    caller.send_by_route(&bye);
    caller.expect_copy(&ok);
    assert_eq!(callee.copies(&arrived), 0, "a copy is known without a branch");
}

#[test]
fn the_ack_of_an_rfc_2543_caller_ends_its_refusal() {
    let stage = Stage::start(1, |_| {});
    let (caller, callee) = (&stage.caller, &stage.callees[0]);
    let invite = old_invite(&stage);
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "486 Busy Here");
    let refusal = caller.expect("486");
    caller.expect_copy(&refusal);
    stage.call(&old(&stage, invite.ack(&refusal)));
    // What comes by the same socket later is answered later: the ACK has been dealt with then.
    let options = caller.request("OPTIONS", &format!("sip:{}", stage.edge));
    stage.call(&options.with("Call-ID", invite.header("Call-ID")));
    caller.expect("200 OK");
    let before = caller.copies(&refusal);
    // Timer G would send it six times more within 64 × T1.
    caller.expect_nothing("486", Duration::from_millis(400));
    assert_eq!(caller.copies(&refusal), before, "the ACK was not taken for this INVITE's");
    callee.expect("ACK");
    assert_eq!(callee.seen(), ["INVITE", "ACK"].map(|method| format!("{method} {} SIP/2.0", arrived.uri())));
}
