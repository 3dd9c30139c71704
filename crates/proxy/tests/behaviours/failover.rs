//! A call in set-up goes on to the next destination when one fails, and never when the callee has decided (RFC 3263 §4.3).

use std::time::{Duration, Instant};

use sipedge_proxy::config::{Config, Probe, Target};

use crate::stage::{DEADLINE, Dialog, Message, Peer, Stage};

/// The callees are tried in their order.
fn in_order(config: &mut Config) {
    for (place, target) in config.trunks[1].targets.iter_mut().enumerate() {
        target.priority = place as u16 + 1;
    }
}

fn final_response(stage: &Stage, invite: &Message) -> crate::stage::Received {
    stage.caller.expect_that("final response", |it| it.answers(invite) && it.code() >= 200)
}

#[test]
fn a_486_or_603_never_fails_over() {
    let stage = Stage::start(2, |config| {
        in_order(config);
        config.trunks[1].failover.codes = vec![404, 480, 500, 503];
    });
    let [first, second] = stage.callees();
    for status in ["486 Busy Here", "603 Decline", "600 Busy Everywhere", "401 Unauthorized", "302 Moved Temporarily"] {
        let invite = stage.invite();
        stage.call(&invite);
        let arrived = first.expect("INVITE");
        first.respond(&arrived, status);
        let answer = final_response(&stage, &invite);
        assert_eq!(answer.start, format!("SIP/2.0 {status}"));
        stage.call(&invite.ack(&answer));
    }
    assert_eq!(second.seen(), [""; 0]);
}

#[test]
fn a_code_that_the_configuration_names_fails_over() {
    let stage = Stage::start(2, |config| {
        in_order(config);
        config.trunks[1].failover.codes = vec![404, 503];
    });
    let (caller, [first, second]) = (&stage.caller, stage.callees());
    for status in ["404 Not Found", "503 Service Unavailable"] {
        let invite = stage.invite();
        stage.call(&invite);
        let to_first = first.expect("INVITE");
        first.respond(&to_first, status);
        first.expect("ACK");
        let to_second = second.expect("INVITE");
        assert_ne!(to_second.branch(), to_first.branch(), "another destination is another transaction");
        assert!(to_second.uri().contains(&second.address.to_string()), "{}", to_second.uri());
        second.respond(&to_second, "200 OK");
        let ok = final_response(&stage, &invite);
        assert_eq!(ok.to_tag(), Some(second.tag.as_str()));
        caller.send_by_route(&Dialog::of_caller(&invite, &ok).ack(caller));
        second.expect("ACK");
    }
    // A code that is not named ends the call.
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = first.expect("INVITE");
    first.respond(&arrived, "500 Server Internal Error");
    assert_eq!(final_response(&stage, &invite).code(), 500);
    let calls = second.seen().iter().filter(|start| start.starts_with("INVITE")).count();
    assert_eq!(calls, 2, "{:?}", second.seen());
}

/// The late answer of the first destination is an answer: the second one is cancelled.
#[test]
fn silence_fails_over_and_a_late_200_is_passed_on() {
    let stage = Stage::start(2, |config| {
        in_order(config);
        config.timers.response_ms = 600;
    });
    let (caller, [silent, ringing]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let to_silent = silent.expect("INVITE");
    let to_ringing = ringing.expect("INVITE");
    ringing.respond(&to_ringing, "180 Ringing");
    caller.expect("180");
    silent.respond(&to_silent, "200 OK");
    let ok = final_response(&stage, &invite);
    assert_eq!(ok.to_tag(), Some(silent.tag.as_str()));
    let cancel = ringing.expect("CANCEL");
    ringing.respond(&cancel, "200 OK");
    ringing.respond(&to_ringing, "487 Request Terminated");
    ringing.expect("ACK");
    caller.send_by_route(&Dialog::of_caller(&invite, &ok).ack(caller));
    silent.expect("ACK");
}

/// A destination that rings after it was given up is cancelled: nobody is left ringing.
#[test]
fn a_late_180_of_an_abandoned_branch_is_cancelled() {
    let stage = Stage::start(2, |config| {
        in_order(config);
        config.timers.response_ms = 600;
    });
    let [silent, answering] = stage.callees();
    stage.call(&stage.invite());
    let to_silent = silent.expect("INVITE");
    let to_answering = answering.expect("INVITE");
    answering.respond(&to_answering, "180 Ringing");
    stage.caller.expect("180");
    silent.respond(&to_silent, "180 Ringing");
    let cancel = silent.expect("CANCEL");
    assert_eq!(cancel.branch(), to_silent.branch());
    silent.respond(&to_silent, "487 Request Terminated");
    silent.expect("ACK");
    assert!(!answering.seen().iter().any(|start| start.starts_with("CANCEL")), "{:?}", answering.seen());
}

#[test]
fn lower_priorities_first_and_shares_by_weight() {
    let stage = Stage::start(4, |config| {
        let targets = &mut config.trunks[1].targets;
        targets[0].weight = 3;
        targets[1].weight = 1;
        targets[2].weight = 0;
        targets[3].priority = 2;
    });
    const CALLS: usize = 120;
    for _ in 0..CALLS {
        // One at a time, so that no datagram is lost in a full buffer.
        let message = stage.caller.request("MESSAGE", &stage.uri("bob"));
        stage.call(&message);
        let deadline = Instant::now() + DEADLINE;
        let taken = |callee: &&Peer| callee.take_now("MESSAGE").map(|it| callee.respond(&it, "200 OK")).is_some();
        while !stage.callees.iter().any(|callee| taken(&callee)) {
            assert!(Instant::now() < deadline, "{} went nowhere", message.start);
        }
        stage.caller.expect_that("200", |it| it.answers(&message) && it.code() == 200);
    }
    let counts: Vec<usize> = stage.callees.iter().map(|callee| callee.seen().len()).collect();
    // Of 120, three quarters are 90; five standard deviations (4.7) to either side.
    assert!((66..=114).contains(&counts[0]), "{counts:?}");
    assert_eq!(counts[0] + counts[1], CALLS, "{counts:?}: weight 0 and the next priority are for when the others fail");
}

#[test]
fn a_destination_that_says_retry_after_is_avoided() {
    let stage = Stage::start(2, |config| {
        in_order(config);
        config.listen.shards = 1;
    });
    let [first, second] = stage.callees();
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = first.expect("INVITE");
    let refusal = first.response(&arrived, "503 Service Unavailable").and("Retry-After", "60");
    first.reply(&arrived, &refusal);
    let arrived = second.expect("INVITE");
    second.respond(&arrived, "486 Busy Here");
    let answer = final_response(&stage, &invite);
    assert_eq!(answer.code(), 486, "the 503 of one destination is not the call's");
    stage.wait_for_metric("sipedge_destinations_avoided", 1);

    // The next calls leave it alone, until there is no other.
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = second.expect("INVITE");
    assert_eq!(first.seen().iter().filter(|start| start.starts_with("INVITE")).count(), 1, "{:?}", first.seen());
    second.respond(&arrived, "503 Service Unavailable");
    let arrived = first.expect("INVITE");
    first.respond(&arrived, "480 Temporarily Unavailable");
    assert_eq!(final_response(&stage, &invite).code(), 480);
}

#[test]
fn with_no_destination_left_the_caller_gets_503_and_retry_after() {
    let stage = Stage::start(2, |config| {
        config.listen.shards = 1;
        // The callees answer no OPTIONS.
        let probe = Probe { interval_ms: 1_000, jitter_percent: 0, timeout_ms: 100, down_after: 1, ..Probe::default() };
        config.trunks[1].probe = Some(probe);
    });
    stage.wait_for_metric("sipedge_destinations_down", 2);
    let invite = stage.invite();
    stage.call(&invite);
    let answer = final_response(&stage, &invite);
    assert_eq!(answer.code(), 503);
    assert_eq!(answer.header("Retry-After"), "7");
    for callee in &stage.callees {
        assert!(callee.seen().iter().all(|start| start.starts_with("OPTIONS")), "{:?}", callee.seen());
    }

    // One that answers its probes gets calls again.
    let up = &stage.callees[0];
    let deadline = Instant::now() + DEADLINE;
    while stage.metric("sipedge_destinations_down") > 1 {
        assert!(Instant::now() < deadline, "a destination that answers its probes is still down");
        if let Some(probe) = up.take_now("OPTIONS") {
            up.respond(&probe, "200 OK");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    stage.call(&stage.invite());
    up.expect("INVITE");
}

#[test]
fn the_same_target_twice_is_tried_once() {
    let stage = Stage::start(1, |config| {
        let targets = &mut config.trunks[1].targets;
        // 5060 is the port of a URI without one.
        let ip = targets[0].uri.strip_suffix(":5060").unwrap().to_owned();
        targets.push(Target::new(ip));
    });
    let [callee] = stage.callees();
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "503 Service Unavailable");
    assert_eq!(final_response(&stage, &invite).code(), 500);
    let calls = callee.seen().iter().filter(|start| start.starts_with("INVITE")).count();
    assert_eq!(calls, 1, "{:?}", callee.seen());
}

#[test]
fn a_request_in_a_dialog_has_one_target() {
    let stage = Stage::start(2, in_order);
    let (caller, [callee, other]) = (&stage.caller, stage.callees());
    let (mut of_caller, _) = stage.answered_call();
    let reinvite = of_caller.request(caller, "INVITE");
    caller.send_by_route(&reinvite);
    let arrived = callee.expect("INVITE");
    assert_eq!(arrived.uri(), of_caller.target);
    callee.respond(&arrived, "503 Service Unavailable");
    // A 503 from beyond is a 500 here (RFC 3261 §16.7 step 6).
    let answer = final_response(&stage, &reinvite);
    assert_eq!(answer.code(), 500);
    assert_eq!(other.seen(), [""; 0]);
}
