//! Which of several refusals the caller gets (RFC 3261 §16.7 steps 5 to 10).

use sipedge_proxy::config::{Config, Select};

use crate::stage::{Message, Peer, Received, Stage};

fn forks(config: &mut Config) {
    config.trunks[1].select = Select::All;
}

/// Forks a call to all callees and returns it with what arrived.
fn fork(stage: &Stage) -> (Message, Vec<Received>) {
    let invite = stage.invite();
    stage.call(&invite);
    let id = invite.header("Call-ID").to_owned();
    let arrived = |callee: &Peer| {
        callee.expect_that("INVITE of this call", |it| it.method() == "INVITE" && it.header("Call-ID") == id)
    };
    let arrived = stage.callees.iter().map(arrived).collect();
    (invite, arrived)
}

/// Each callee of a new call answers in turn; returns the final response that the caller gets.
fn outcome(stage: &Stage, statuses: &[&str]) -> Received {
    let (invite, arrived) = fork(stage);
    for ((callee, request), status) in stage.callees.iter().zip(&arrived).zip(statuses) {
        callee.respond(request, status);
        callee.expect_that("ACK of this refusal", |it| it.method() == "ACK" && it.branch() == request.branch());
    }
    let answer = stage.caller.expect_that("final response", |it| it.answers(&invite) && it.code() >= 200);
    stage.call(&invite.ack(&answer));
    answer
}

#[test]
fn the_best_refusal_goes_up_when_all_branches_have_ended() {
    let stage = Stage::start(3, forks);
    let answer = outcome(&stage, &["500 Server Internal Error", "486 Busy Here", "503 Service Unavailable"]);
    assert_eq!(answer.code(), 486);
    assert_eq!(answer.to_tag(), Some(stage.callees[1].tag.as_str()), "it is that callee's own response");
    stage.sync(answer.header("Call-ID"));
    let finals =
        stage.caller.seen().into_iter().filter(|start| start.starts_with("SIP/2.0 ") && !start.contains(" 100 "));
    assert_eq!(
        finals.collect::<Vec<_>>(),
        ["SIP/2.0 486 Busy Here", "SIP/2.0 200 OK"],
        "one final response (and OPTIONS)"
    );
}

#[test]
fn the_lowest_class_is_best() {
    let stage = Stage::start(3, forks);
    let answer = outcome(&stage, &["500 Server Internal Error", "404 Not Found", "302 Moved Temporarily"]);
    assert_eq!(answer.code(), 302);
    let answer = outcome(&stage, &["404 Not Found", "502 Bad Gateway", "500 Server Internal Error"]);
    assert_eq!(answer.code(), 404);
    // Of a 503 the caller's side would think that the edge is overloaded; any other 5xx is better, and alone it is a 500 (step 6).
    let answer = outcome(&stage, &["503 Service Unavailable", "502 Bad Gateway", "503 Service Unavailable"]);
    assert_eq!(answer.code(), 502);
    let answer = outcome(&stage, &["503 Service Unavailable", "503 Service Unavailable", "503 Service Unavailable"]);
    assert_eq!(answer.code(), 500);
}

#[test]
fn of_4xx_one_that_says_how_to_try_again() {
    let stage = Stage::start(3, forks);
    for status in
        ["401 Unauthorized", "407 Proxy Authentication Required", "415 Unsupported Media Type", "420 Bad Extension"]
    {
        assert_eq!(outcome(&stage, &["404 Not Found", status, "486 Busy Here"]).start, format!("SIP/2.0 {status}"));
    }
    let answer = outcome(&stage, &["404 Not Found", "403 Forbidden", "484 Address Incomplete"]);
    assert_eq!(answer.code(), 484);
}

#[test]
fn a_603_is_better_than_anything() {
    let stage = Stage::start(3, forks);
    let answer = outcome(&stage, &["302 Moved Temporarily", "404 Not Found", "603 Decline"]);
    assert_eq!(answer.code(), 603);
    let answer = outcome(&stage, &["603 Decline", "302 Moved Temporarily", "487 Request Terminated"]);
    assert_eq!(answer.code(), 603);
}

#[test]
fn a_refusal_waits_for_the_other_branches() {
    let stage = Stage::start(2, forks);
    let (invite, arrived) = fork(&stage);
    let (caller, [busy, ringing]) = (&stage.caller, stage.callees());
    busy.respond(&arrived[0], "486 Busy Here");
    busy.expect("ACK");
    ringing.respond(&arrived[1], "180 Ringing");
    caller.expect("180");
    assert!(!caller.seen().iter().any(|start| start.contains("486")), "{:?}", caller.seen());
    ringing.respond(&arrived[1], "480 Temporarily Unavailable");
    let answer = caller.expect_that("final response", |it| it.answers(&invite) && it.code() >= 200);
    assert_eq!(answer.code(), 486, "the first of two that are equally good");
}

#[test]
fn a_603_cancels_the_other_branches() {
    let stage = Stage::start(2, forks);
    let (_, arrived) = fork(&stage);
    let (caller, [declining, ringing]) = (&stage.caller, stage.callees());
    ringing.respond(&arrived[1], "180 Ringing");
    caller.expect("180");
    declining.respond(&arrived[0], "603 Decline");
    let cancel = ringing.expect("CANCEL");
    assert!(!caller.seen().iter().any(|start| start.contains("603")), "it waits for the other branch (step 5)");
    ringing.respond(&cancel, "200 OK");
    ringing.respond(&arrived[1], "487 Request Terminated");
    ringing.expect("ACK");
    caller.expect("603");
}

#[test]
fn after_a_603_no_branch_is_begun() {
    let stage = Stage::start(3, |config| {
        forks(config);
        config.trunks[1].targets[2].priority = 2;
    });
    let (caller, [declining, failing, spare]) = (&stage.caller, stage.callees());
    stage.call(&stage.invite());
    let arrived = [declining, failing].map(|callee| callee.expect("INVITE"));
    declining.respond(&arrived[0], "603 Decline");
    declining.expect("ACK");
    // Without the 603 this would have opened the branch to the spare one.
    failing.respond(&arrived[1], "503 Service Unavailable");
    caller.expect("603");
    assert_eq!(spare.seen(), [""; 0]);

    stage.call(&stage.invite());
    for callee in [declining, failing] {
        let request = callee.expect("INVITE");
        callee.respond(&request, "503 Service Unavailable");
    }
    spare.expect("INVITE");
}

#[test]
fn a_real_refusal_is_better_than_silence() {
    let stage = Stage::start(2, forks);
    let (invite, arrived) = fork(&stage);
    // The second callee says nothing for 64 × T1: our own 408 for it would be no worse a 4xx than the first one's 404.
    stage.callees[0].respond(&arrived[0], "500 Server Internal Error");
    let answer = stage.caller.expect_that("final response", |it| it.answers(&invite) && it.code() >= 200);
    assert_eq!(answer.code(), 500);
    assert_eq!(answer.to_tag(), Some(stage.callees[0].tag.as_str()));
}

#[test]
fn a_late_refusal_of_a_lost_branch_is_acknowledged() {
    let stage = Stage::start(2, forks);
    let (_, arrived) = fork(&stage);
    let (caller, [answering, ringing]) = (&stage.caller, stage.callees());
    ringing.respond(&arrived[1], "180 Ringing");
    caller.expect("180");
    answering.respond(&arrived[0], "200 OK");
    caller.expect("200 OK");
    let cancel = ringing.expect("CANCEL");
    ringing.respond(&cancel, "200 OK");
    let refusal = ringing.respond(&arrived[1], "487 Request Terminated");
    let ack = ringing.expect("ACK");
    // Its ACK is lost: the refusal comes again, and so does the ACK.
    ringing.reply(&arrived[1], &refusal);
    ringing.expect_copy(&ack);
    assert!(!caller.seen().iter().any(|start| start.contains("487")), "{:?}", caller.seen());
}
