//! CANCEL: hop by hop where the edge knows the INVITE; where it does not, such as at another instance, to whoever may have it (RFC 3261
//! §9, §16.10, §16.11).

use std::time::Duration;

use sipedge_proxy::config::{Advertise, Select};

use crate::process::{self, Process};
use crate::stage::{Message, Received, Stage, loopback};

#[test]
fn a_cancel_reaches_every_branch_that_rings() {
    let stage = Stage::start(3, |config| config.trunks[1].select = Select::All);
    let caller = &stage.caller;
    let invite = stage.invite();
    stage.call(&invite);
    let arrived: Vec<Received> = stage.callees.iter().map(|callee| callee.expect("INVITE")).collect();
    let rings = |place: usize| {
        let callee = &stage.callees[place];
        callee.respond(&arrived[place], "180 Ringing");
        caller.expect_that("180 of this callee", |it| it.code() == 180 && it.to_tag() == Some(&callee.tag));
    };
    rings(0);
    rings(1);
    let cancel = invite.cancel().and("Reason", "SIP;cause=200;text=\"x\"");
    stage.call(&cancel);
    caller.expect_that("200 to the CANCEL", |it| it.answers(&cancel));
    // The third one has not answered: it is cancelled once it has (§9.1).
    for (place, callee) in stage.callees.iter().enumerate() {
        if place == 2 {
            assert!(!callee.seen().iter().any(|start| start.starts_with("CANCEL")), "{:?}", callee.seen());
            callee.respond(&arrived[2], "180 Ringing");
        }
        let cancel = callee.expect("CANCEL");
        assert_eq!(cancel.branch(), arrived[place].branch());
        assert_eq!(cancel.headers("Reason"), ["SIP;cause=200;text=\"x\""], "why is passed on (RFC 3326)");
        callee.respond(&cancel, "200 OK");
        callee.respond(&arrived[place], "487 Request Terminated");
        callee.expect("ACK");
    }
    let answer = caller.expect_that("final response", |it| it.answers(&invite) && it.code() >= 200);
    assert_eq!(answer.code(), 487);
}

#[test]
fn a_cancel_has_what_its_branch_was_sent() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite =
        stage.invite().and("Require", "100rel").and("Supported", "timer").with_body("application/sdp", "v=0\r\n");
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "180 Ringing");
    caller.expect("180");
    stage.call(&invite.cancel());
    let cancel = callee.expect("CANCEL");
    assert_eq!(cancel.uri(), arrived.uri());
    for name in ["Call-ID", "To", "From"] {
        assert_eq!(cancel.headers(name), arrived.headers(name), "{}", cancel.text());
    }
    assert_eq!(cancel.header("CSeq"), "1 CANCEL");
    assert_eq!(cancel.headers("Via"), [arrived.elements("Via")[0]]);
    assert!(!cancel.has("Require") && !cancel.has("Proxy-Require"), "{}", cancel.text());
    assert_eq!((cancel.header("Content-Length"), cancel.body.len()), ("0", 0));
}

/// A stage and another instance of its edge, which advertises the same address.
fn two_instances(callees: usize) -> (Stage, Other) {
    let mut other = None;
    let stage = Stage::start(callees, |config| {
        let first = config.listen.address.unwrap();
        config.advertise = Advertise::Host(first.to_string());
        let mut config = config.clone();
        config.listen.address = Some(loopback());
        other = Some(config);
    });
    let config = other.unwrap();
    let (mut process, folder) = Process::run(&config);
    let ip = config.listen.address.unwrap();
    process::wait_for_readyz(ip, 200, &mut process);
    let other = Other { edge: (ip, config.listen.ingress_port).into(), _process: process, _folder: folder };
    (stage, other)
}

struct Other {
    edge: std::net::SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

/// Sends an INVITE by the first instance and lets its callee ring; the place of that callee, and what it got.
fn ringing(stage: &Stage, invite: &Message) -> (usize, Received) {
    stage.call(invite);
    let place = loop {
        if let Some(place) = stage.callees.iter().position(|callee| !callee.seen().is_empty()) {
            break place;
        }
    };
    let arrived = stage.callees[place].expect("INVITE");
    stage.callees[place].respond(&arrived, "180 Ringing");
    stage.caller.expect("180");
    (place, arrived)
}

#[test]
fn a_cancel_without_its_invite_goes_where_the_invite_went() {
    let (stage, other) = two_instances(3);
    let caller = &stage.caller;
    let invite = stage.invite();
    let (place, arrived) = ringing(&stage, &invite);
    let callee = &stage.callees[place];
    let cancel = invite.cancel();
    caller.send(&cancel, other.edge);
    let got = callee.expect("CANCEL");
    assert_eq!(got.branch(), arrived.branch(), "the callee knows it by the branch of the INVITE");
    // The other callees, who know nothing of it, are silent: that keeps nobody waiting.
    callee.respond(&got, "200 OK");
    let answer = caller.expect_that("answer to the CANCEL", |it| it.answers(&cancel) && it.code() >= 200);
    assert_eq!(answer.code(), 200);
    callee.respond(&arrived, "487 Request Terminated");
    callee.expect("ACK");
    caller.expect("487");

    // A copy of the CANCEL goes nowhere else.
    caller.send(&cancel, other.edge);
    caller.expect_copy(&answer);
}

/// The INVITE's callee refuses the CANCEL, and so do the others: the caller hears of it.
#[test]
fn a_refusal_of_a_cancel_without_its_invite_comes_back() {
    let stage = Stage::start(2, |_| {});
    let cancel = stage.invite().cancel();
    stage.call(&cancel);
    let mut refused = 0;
    let answer = loop {
        for callee in &stage.callees {
            if let Some(got) = callee.take_now("CANCEL") {
                callee.respond(&got, "481 Call/Transaction Does Not Exist");
                refused += 1;
            }
        }
        if let Some(answer) = stage.caller.take_now("SIP/2.0") {
            break answer;
        }
    };
    assert_eq!(answer.code(), 481, "after {refused} refusals");
    assert!(answer.answers(&cancel));
}

#[test]
fn a_cancel_without_its_invite_gets_no_100() {
    let (stage, other) = two_instances(1);
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    ringing(&stage, &invite);
    caller.expect("100");
    let before = caller.seen().len();
    let cancel = invite.cancel();
    caller.send(&cancel, other.edge);
    let got = callee.expect("CANCEL");
    // A request of another method would get a 100 when its sender's Timer E has grown to T2, after 140 ms here.
    caller.expect_nothing("SIP/2.0 100", Duration::from_millis(400));
    callee.respond(&got, "200 OK");
    caller.expect_that("200 to the CANCEL", |it| it.answers(&cancel) && it.code() == 200);
    assert_eq!(caller.seen().len(), before + 1, "{:?}", caller.seen());
}

#[test]
fn a_cancel_with_max_forwards_0_goes_nowhere() {
    let stage = Stage::start(1, |_| {});
    let cancel = stage.invite().cancel();
    stage.call(&cancel.clone().with("Max-Forwards", "0"));
    let answer = stage.caller.expect_that("refusal", |it| it.answers(&cancel));
    assert_eq!(answer.code(), 483);
    assert_eq!(stage.callees[0].seen(), [""; 0]);
}

#[test]
fn a_cancel_of_a_reinvite_follows_its_route() {
    let (stage, other) = two_instances(2);
    let caller = &stage.caller;
    let (place, mut of_caller) = {
        let invite = stage.invite();
        let (place, arrived) = ringing(&stage, &invite);
        stage.callees[place].respond(&arrived, "200 OK");
        let ok = caller.expect("200 OK");
        let dialog = crate::stage::Dialog::of_caller(&invite, &ok);
        caller.send_by_route(&dialog.ack(caller));
        stage.callees[place].expect("ACK");
        (place, dialog)
    };
    let callee = &stage.callees[place];
    let reinvite = of_caller.request(caller, "INVITE");
    caller.send_by_route(&reinvite);
    let arrived = callee.expect("INVITE");
    let cancel = reinvite.cancel();
    assert!(cancel.has("Route"));
    // The way to the edge leads to the other instance now.
    caller.send(&cancel, other.edge);
    let got = callee.expect("CANCEL");
    assert_eq!((got.uri(), got.branch()), (arrived.uri(), arrived.branch()));
    callee.respond(&got, "200 OK");
    caller.expect_that("200 to the CANCEL", |it| it.answers(&cancel) && it.code() == 200);
    for (other, callee) in stage.callees.iter().enumerate() {
        assert!(other == place || callee.seen().is_empty(), "{:?}", callee.seen());
    }
}
