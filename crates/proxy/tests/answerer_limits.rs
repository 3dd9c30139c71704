//! What the answerer costs at most: ten calls, and a bounded number of challenges to one source and to all of them.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;
use std::time::Duration;

use process::digest::{PASSWORD, USER, ack, challenged, with};
use process::sip::Agent;
use process::{Process, address, config, metric, wait_for_readyz, with_answerer};

fn stage(number: u8) -> (Process, tempfile::TempDir, SocketAddr, Agent) {
    let [edge, caller, carrier] = [0, 1, 2].map(|place| address(number + place));
    let config = with_answerer(config(edge, carrier, SocketAddr::new(carrier, 5060)));
    let (mut process, folder) = Process::run(&config);
    wait_for_readyz(edge, 200, &mut process);
    (process, folder, SocketAddr::new(edge, process::INGRESS), Agent::bind(caller, 0))
}

#[test]
fn the_eleventh_call_is_busy() {
    let (_process, _folder, edge, caller) = stage(222);
    let uri = format!("sip:{USER}@{edge}");
    let answer = |number: u32| {
        let (invite, challenges) = challenged(&caller, edge, USER, &format!("call-{number}"));
        let invite = with(&invite, &challenges[0].answer("INVITE", &uri, USER, PASSWORD, 1), 2);
        caller.send(&invite, edge);
        loop {
            let message = caller.expect("SIP/2.0 ");
            let is_its = message.header("Call-ID") == format!("call-{number}");
            let code = message.first_line().split(' ').nth(1).unwrap().to_owned();
            if is_its && code.starts_with('2') {
                caller.send(&caller.in_dialog("ACK", 2, &message), edge);
                return (code, message);
            }
            if is_its && code.as_str() > "300" && message.header("CSeq") == "2 INVITE" {
                caller.send(&ack(&invite, &message), edge);
                return (code, message);
            }
        }
    };
    let calls: Vec<_> = (0..10).map(answer).collect();
    assert!(calls.iter().all(|(code, _)| code == "200"));
    assert_eq!(answer(10).0, "486");
    caller.send(&caller.in_dialog("BYE", 3, &calls[4].1), edge);
    while !caller.expect("SIP/2.0 200").header("CSeq").ends_with("BYE") {}
    assert_eq!(answer(11).0, "200", "one has ended");
}

#[test]
fn a_source_that_guesses_is_silenced_and_right_credentials_do_not_tell() {
    let (_process, _folder, edge, caller) = stage(225);
    let uri = format!("sip:{USER}@{edge}");
    let (_, challenges) = challenged(&caller, edge, USER, "first");
    let mut answered = 0;
    // One Call-ID belongs to one shard, and each counts for itself.
    for number in 2..80 {
        let invite = caller.request("INVITE", &uri, "guessed");
        let guess = challenges[0].answer("INVITE", &uri, USER, &format!("guess-number-{number}"), number);
        caller.send(&with(&invite, &guess, number), edge);
        answered += usize::from(caller.next(Duration::from_millis(60)).is_some());
    }
    assert!((20..=31).contains(&answered), "{answered} of 78 guesses were answered");
    let invite = caller.request("INVITE", &uri, "guessed");
    caller.send(&with(&invite, &challenges[0].answer("INVITE", &uri, USER, PASSWORD, 1), 90), edge);
    assert!(caller.next(Duration::from_millis(300)).is_none(), "the right one tells nothing either");
    assert!(metric(edge.ip(), "sipedge_dropped_offender_total") >= 40);
    // Somebody else is not concerned.
    let other = Agent::bind(address(221), 0);
    challenged(&other, edge, USER, "guessed");
}

#[test]
fn whoever_proves_who_it_is_is_never_silenced() {
    let (_process, _folder, edge, caller) = stage(228);
    let uri = format!("sip:{USER}@{edge}");
    for number in 0..40 {
        let (invite, challenges) = challenged(&caller, edge, USER, &format!("again-{number}"));
        let invite = with(&invite, &challenges[0].answer("INVITE", &uri, USER, PASSWORD, 1), 2);
        caller.send(&invite, edge);
        let ok = caller.expect("SIP/2.0 200");
        caller.send(&caller.in_dialog("ACK", 2, &ok), edge);
        caller.send(&caller.in_dialog("BYE", 3, &ok), edge);
        while !caller.expect("SIP/2.0 200").header("CSeq").ends_with("BYE") {}
        // All strangers together get twenty challenges per second and shard.
        std::thread::sleep(Duration::from_millis(60));
    }
}

#[test]
fn a_flood_of_calls_to_the_answerer_leaves_nothing_behind() {
    let (_process, _folder, edge, _) = stage(231);
    let flood: Vec<Agent> = (0..4).map(|_| Agent::bind(address(232), 0)).collect();
    let uri = format!("sip:{USER}@{edge}");
    let began = std::time::Instant::now();
    for number in 0..5_000 {
        let agent = &flood[number % flood.len()];
        agent.send(&agent.request("INVITE", &uri, &format!("flood-{number}")), edge);
    }
    let deadline = std::time::Instant::now() + process::DEADLINE;
    while metric(edge.ip(), "sipedge_messages_received_total") < 4_000 {
        assert!(std::time::Instant::now() < deadline, "the flood was not received");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The self-call's transactions are there for a while; a challenge needs no state.
    assert!(metric(edge.ip(), "sipedge_transactions") < 20);
    let challenged = metric(edge.ip(), "sipedge_answerer_challenged_total");
    // At once, and in each second that has begun.
    let most = 2 * 20 * (2 + began.elapsed().as_secs());
    assert!(challenged <= most, "{challenged}: all strangers together get twenty per second and shard, so {most}");
}

#[test]
fn what_anybody_could_send_in_its_place_silences_no_operator() {
    let (_process, _folder, edge, operator) = stage(234);
    let uri = format!("sip:{USER}@{edge}");
    // One Call-ID belongs to one shard, and each counts for itself.
    let refused = operator.request("INVITE", &format!("sip:+15550100@{edge}"), "forged");
    let invite = operator.request("INVITE", &uri, "forged");
    let invented = "Authorization: Digest username=\"x\", realm=\"x\", nonce=\"x\", uri=\"x\", response=\"x\"\r\n";
    for number in 0..60 {
        operator.send(&with(&refused, "", 100 + number), edge);
        operator.send(&with(&invite, "", 200 + number), edge);
        operator.send(&with(&invite, invented, 300 + number), edge);
    }
    let deadline = std::time::Instant::now() + process::DEADLINE;
    while metric(edge.ip(), "sipedge_answerer_refused_total") < 60 {
        assert!(std::time::Instant::now() < deadline, "the forged requests were not received");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(metric(edge.ip(), "sipedge_dropped_offender_total") >= 20, "strangers are silenced");
    // All strangers together have had their twenty challenges of this second.
    std::thread::sleep(Duration::from_millis(1_100));
    while operator.next(Duration::from_millis(1)).is_some() {}
    let (invite, challenges) = challenged(&operator, edge, USER, "forged");
    operator.send(&with(&invite, &challenges[0].answer("INVITE", &uri, USER, PASSWORD, 1), 2), edge);
    operator.expect("SIP/2.0 200");
}
