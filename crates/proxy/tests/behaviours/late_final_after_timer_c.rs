//! Final responses that come too late, or never (RFC 3261 §16.8, §9.1; RFC 4320 §4.2).

use sipedge_proxy::config::Config;

use crate::stage::{Dialog, Stage};

/// Timer C is 600 ms; 64 × T1 is 3.2 s, for which a branch that was given up is still listened to.
fn impatient(config: &mut Config) {
    config.timers.t1_ms = 50;
    config.timers.response_ms = 600;
    config.timers.invite_ms = 600;
}

#[test]
fn a_200_after_our_own_408_reaches_the_caller() {
    let stage = Stage::start(1, impatient);
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "180 Ringing");
    caller.expect("180");
    // Timer C: the branch is cancelled; the callee answers that, and nothing else.
    let cancel = callee.expect("CANCEL");
    callee.respond(&cancel, "200 OK");
    caller.expect_that("408", |it| it.answers(&invite) && it.code() == 408);
    callee.respond(&arrived, "200 OK");
    let ok = caller.expect_that("200 to the INVITE", |it| it.answers(&invite) && it.code() == 200);
    caller.send_by_route(&Dialog::of_caller(&invite, &ok).ack(caller));
    callee.expect("ACK");
}

#[test]
fn a_refusal_after_our_own_408_ends_at_the_edge() {
    let stage = Stage::start(1, impatient);
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "180 Ringing");
    callee.expect("CANCEL");
    caller.expect_that("408", |it| it.answers(&invite) && it.code() == 408);
    callee.respond(&arrived, "487 Request Terminated");
    callee.expect("ACK");
    assert!(!caller.seen().iter().any(|start| start.contains("487")), "{:?}", caller.seen());
}

#[test]
fn each_18x_starts_timer_c_again() {
    let stage = Stage::start(1, |config| {
        impatient(config);
        config.timers.invite_ms = 1_500;
    });
    let (caller, [callee]) = (&stage.caller, stage.callees());
    stage.call(&stage.invite());
    let arrived = callee.expect("INVITE");
    // Together twice Timer C.
    for _ in 0..6 {
        callee.respond(&arrived, "180 Ringing");
        callee.expect_nothing("CANCEL", std::time::Duration::from_millis(500));
    }
    callee.expect("CANCEL");
    caller.expect("180");
}

#[test]
fn a_cancelled_branch_without_final_response_ends() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "180 Ringing");
    caller.expect("180");
    let cancel = invite.cancel();
    stage.call(&cancel);
    caller.expect_that("200 to the CANCEL", |it| it.answers(&cancel));
    let arrived = callee.expect("CANCEL");
    callee.respond(&arrived, "200 OK");
    // 64 × T1 later.
    let answer = caller.expect_that("final response", |it| it.answers(&invite) && it.code() >= 200);
    assert_eq!(answer.code(), 487);
}

#[test]
fn a_bye_without_answer_gets_no_408() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let (mut of_caller, _) = stage.answered_call();
    let silent = of_caller.request(caller, "BYE");
    caller.send_by_route(&silent);
    callee.expect("BYE");
    stage.wait_for_metric("sipedge_timeouts_total", 1);
    // Nor is a 408 from beyond passed on.
    let refused = of_caller.request(caller, "BYE");
    caller.send_by_route(&refused);
    let arrived = callee.expect_that("second BYE", |it| it.cseq() == refused.cseq());
    callee.respond(&arrived, "408 Request Timeout");
    stage.sync(&of_caller.call_id);
    assert!(!caller.seen().iter().any(|start| start.contains("408")), "{:?}", caller.seen());
}

#[test]
fn a_late_answer_to_a_bye_is_dropped() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let (mut of_caller, _) = stage.answered_call();
    let bye = of_caller.request(caller, "BYE");
    caller.send_by_route(&bye);
    let arrived = callee.expect("BYE");
    stage.wait_for_metric("sipedge_timeouts_total", 1);
    let before = stage.metric("sipedge_stray_responses_total");
    callee.respond(&arrived, "200 OK");
    stage.wait_for_metric("sipedge_stray_responses_total", before + 1);
    let passed = caller.take_that_now(|it| it.answers(&bye) && it.code() >= 200);
    assert!(passed.is_none(), "a late answer was passed on: {passed:?}");
}
