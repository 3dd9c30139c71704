//! Max-Breadth: how many branches a request may have at a time, over all proxies on its way (RFC 5393 §5).

use sipedge_proxy::config::{Config, Select};

use crate::stage::{Dialog, Message, Stage};

fn forks(config: &mut Config) {
    config.trunks[1].select = Select::All;
}

/// The values that the callees of a forked call get.
fn shares(stage: &Stage, invite: &Message) -> Vec<u32> {
    stage.call(invite);
    let arrived = |callee: &crate::stage::Peer| {
        let id = invite.header("Call-ID");
        let request = callee.expect_that("INVITE", |it| it.method() == "INVITE" && it.header("Call-ID") == id);
        let [breadth] = request.headers("Max-Breadth")[..] else { panic!("not one Max-Breadth: {}", request.text()) };
        breadth.parse().unwrap()
    };
    stage.callees.iter().map(arrived).collect()
}

#[test]
fn a_request_without_max_breadth_gets_60() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    assert_eq!(arrived.headers("Max-Breadth"), ["60"]);
    callee.respond(&arrived, "200 OK");
    let ok = caller.expect("200 OK");
    let mut dialog = Dialog::of_caller(&invite, &ok);
    caller.send_by_route(&dialog.ack(caller));
    assert_eq!(callee.expect("ACK").headers("Max-Breadth"), ["60"]);
    for method in ["INFO", "BYE"] {
        caller.send_by_route(&dialog.request(caller, method));
        assert_eq!(callee.expect(method).headers("Max-Breadth"), ["60"]);
    }
}

#[test]
fn a_max_breadth_over_60_becomes_60() {
    let stage = Stage::start(1, |_| {});
    assert_eq!(shares(&stage, &stage.invite().and("Max-Breadth", "61")), [60]);
    assert_eq!(shares(&stage, &stage.invite().and("Max-Breadth", "4294967295")), [60]);
}

#[test]
fn one_branch_keeps_what_came() {
    let stage = Stage::start(1, forks);
    for breadth in [1, 2, 59, 60] {
        assert_eq!(shares(&stage, &stage.invite().and("Max-Breadth", &breadth.to_string())), [breadth]);
    }
}

#[test]
fn parallel_branches_share_what_came() {
    let stage = Stage::start(3, forks);
    for (breadth, share) in [("3", [1, 1, 1]), ("7", [2, 2, 3]), ("8", [2, 3, 3]), ("60", [20, 20, 20])] {
        let mut got = shares(&stage, &stage.invite().and("Max-Breadth", breadth));
        got.sort_unstable();
        assert_eq!(got, share, "of {breadth}");
    }
    let mut got = shares(&stage, &stage.invite());
    got.sort_unstable();
    assert_eq!(got, [20, 20, 20], "of none");
}

/// The branches that have no room wait for their turn; what the first ones answer is as if they had been there from the beginning.
#[test]
fn a_breadth_of_1_is_tried_one_after_the_other() {
    for status in ["486 Busy Here", "404 Not Found", "503 Service Unavailable"] {
        let stage = Stage::start(4, |config| {
            forks(config);
            // The last one is of another priority.
            config.trunks[1].targets[3].priority = 2;
            config.trunks[1].failover.attempts = 2;
        });
        let invite = stage.invite().and("Max-Breadth", "1");
        stage.call(&invite);
        let mut tried: Vec<usize> = Vec::new();
        while tried.len() < 3 {
            let is_next = |place: &usize| !tried.contains(place) && !stage.callees[*place].seen().is_empty();
            let found: Vec<usize> = (0..3).filter(is_next).collect();
            assert!(found.len() < 2, "two branches at a time");
            let Some(place) = found.first() else {
                let refused = stage.caller.take_that_now(|it| it.answers(&invite) && it.code() >= 200);
                assert!(refused.is_none(), "{status}: {tried:?} and no further: {}", refused.unwrap().start);
                continue;
            };
            tried.push(*place);
            let callee = &stage.callees[*place];
            let arrived = callee.expect("INVITE");
            assert_eq!(arrived.headers("Max-Breadth"), ["1"], "what the branch before had is free again");
            callee.respond(&arrived, status);
            callee.expect("ACK");
        }
        let answer = stage.caller.expect_that("final response", |it| it.answers(&invite) && it.code() >= 200);
        let code = status[..3].parse::<u16>().unwrap();
        assert_eq!(answer.code(), if code == 503 { 500 } else { code });
        assert_eq!(stage.callees[3].seen(), [""; 0], "{status}");
    }
}

/// A 603 ends it as it ends branches in parallel.
#[test]
fn a_603_ends_what_is_tried_one_after_the_other() {
    let stage = Stage::start(2, forks);
    let invite = stage.invite().and("Max-Breadth", "1");
    stage.call(&invite);
    let taken = loop {
        if let Some(callee) = stage.callees.iter().find(|callee| !callee.seen().is_empty()) {
            break callee;
        }
    };
    let arrived = taken.expect("INVITE");
    taken.respond(&arrived, "603 Decline");
    stage.caller.expect("603");
    assert_eq!(stage.callees.iter().filter(|callee| !callee.seen().is_empty()).count(), 1);
}

/// A large request goes by TCP; where that is refused it goes by UDP, in a branch that has what the first one had.
#[test]
fn what_falls_back_to_udp_keeps_what_came() {
    let stage = Stage::start(1, |config| {
        config.listen.tcp = true;
        config.streams.above_bytes = Some(1_300);
    });
    let large = |invite: Message| invite.with_body("application/sdp", "a".repeat(1_500));
    assert_eq!(shares(&stage, &large(stage.invite())), [60]);
    assert_eq!(shares(&stage, &large(stage.invite().and("Max-Breadth", "5"))), [5]);
    stage.wait_for_metric("sipedge_transport_failures_total", 2);
}

#[test]
fn a_breadth_of_0_gets_440() {
    let stage = Stage::start(1, |_| {});
    stage.call(&stage.invite().and("Max-Breadth", "0"));
    stage.caller.expect("440");
    assert_eq!(stage.callees[0].seen(), [""; 0]);
}
