//! An ACK that does not belong to the refusal: only the one with the branch of its INVITE ends the refusal's repetitions (RFC 3261
//! §17.1.1.3, §17.2.3).

use std::time::{Duration, Instant};

use crate::stage::{DEADLINE, Stage, without_retransmissions};

#[test]
fn the_refusal_goes_on() {
    // The refusal is repeated for 64 × T1, 3.2 s.
    let stage = Stage::start(1, |config| config.timers.t1_ms = 50);
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "486 Busy Here");
    let busy = caller.expect("486");

    let wrong = invite.ack(&busy);
    let via = wrong.header("Via").replace(invite.branch(), "z9hG4bK-of-another-call");
    stage.call(&wrong.with("Via", &via));
    stage.sync(invite.header("Call-ID"));
    let before = caller.copies(&busy);
    let deadline = Instant::now() + DEADLINE;
    while caller.copies(&busy) == before {
        assert!(Instant::now() < deadline, "the refusal is not repeated after an ACK of another branch");
    }

    stage.call(&invite.ack(&busy));
    stage.sync(invite.header("Call-ID"));
    let before = caller.copies(&busy);
    // Nothing tells that a repetition is left out but time: two of the longest intervals (T2).
    caller.expect_nothing("CANCEL", Duration::from_millis(2 * 160));
    assert_eq!(caller.copies(&busy), before, "the right ACK ends the repetitions");
    assert!(!callee.seen().iter().any(|start| start.contains("of-another")), "{:?}", callee.seen());
}

#[test]
fn an_invite_copy_gets_the_refusal_again() {
    let stage = Stage::start(1, without_retransmissions);
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "486 Busy Here");
    let busy = caller.expect("486");
    for _ in 0..2 {
        stage.call(&invite);
        caller.expect_copy(&busy);
    }
    assert_eq!(callee.copies(&arrived), 0, "the copies of the INVITE end at the edge");

    // After the ACK nothing comes again (RFC 3261 §17.2.1, Confirmed).
    stage.call(&invite.ack(&busy));
    stage.call(&invite);
    stage.sync(invite.header("Call-ID"));
    assert_eq!(caller.copies(&busy), 0);
    assert_eq!(callee.copies(&arrived), 0);
}

#[test]
fn the_same_branch_from_another_sent_by_is_another_call() {
    let stage = Stage::start(1, without_retransmissions);
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let first = stage.invite();
    let via = first.header("Via").replace(&caller.address.to_string(), "pbx.example");
    let second = first.clone().with("Via", &via).to(&stage.uri("carol"));
    stage.call(&first);
    let to_bob = callee.expect("INVITE sip:bob@");
    stage.call(&second);
    let to_carol = callee.expect("INVITE sip:carol@");
    assert_ne!(to_bob.branch(), to_carol.branch());
    callee.respond(&to_carol, "486 Busy Here");
    let refusal = caller.expect("486");
    assert!(refusal.header("Via").contains("pbx.example"), "{}", refusal.text());
    callee.respond(&to_bob, "480 Temporarily Unavailable");
    let refusal = caller.expect("480");
    assert!(refusal.header("Via").contains(&caller.address.to_string()), "{}", refusal.text());
}
