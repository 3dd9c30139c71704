//! What the edge refuses, seen from outside: SIP and other datagrams over the lab's network to an instance that booted as on AWS.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where a test would")]

#[path = "support/project.rs"]
mod support;

/// The user agents' sockets and messages, as the proxy's own tests have them.
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared with tests that use more of it")]
#[path = "../crates/proxy/tests/process/sip.rs"]
mod sip;
#[path = "support/stage.rs"]
mod stage;

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use sip::{Agent, Message};
use stage::{SILENCE, Stage, assert_silent, in_dialog};
use support::DEADLINE;

/// The longest UDP payload over IPv4 (RFC 768, RFC 791): 65,535 less the headers of IP and UDP.
const LONGEST_DATAGRAM: usize = 65_507;

#[test]
fn an_unknown_source_gets_403() {
    let Some(stage) = Stage::start("an_unknown_source_gets_403", "", "answer") else { return };
    for (method, line) in [("INVITE", "403"), ("OPTIONS", "403"), ("REGISTER", "403"), ("CANCEL", "403")] {
        let answer = stage.ask(&stage.stranger, &stage.request(&stage.stranger, method, method));
        assert!(answer.first_line().starts_with(&format!("SIP/2.0 {line}")), "{method}: {}", answer.text);
    }
    let bye = in_dialog("BYE", &stage.stranger, &stage.callee, "stranger", "tag", &[]);
    assert_eq!(stage.ask(&stage.stranger, &bye).first_line(), "SIP/2.0 403 Forbidden");
    stage.wait_for_count("refused_source", 5);
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn an_unknown_source_gets_nothing_under_silence() {
    let Some(stage) = Stage::start("an_unknown_source_gets_nothing", "", "silence") else { return };
    for method in ["INVITE", "OPTIONS", "REGISTER", "CANCEL", "ACK"] {
        stage.stranger.send(&stage.request(&stage.stranger, method, method), stage.edge);
    }
    for method in ["BYE", "ACK", "INVITE"] {
        let request = in_dialog(method, &stage.stranger, &stage.callee, "stranger", "tag", &[]);
        stage.stranger.send(&request, stage.edge);
    }
    stage.wait_for_count("refused_source", 6);
    assert_silent(&stage.stranger);
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn calls_over_the_rate_get_503_with_retry_after() {
    let limits = ", limits: { cps: 4 }";
    let Some(stage) = Stage::start("calls_over_the_rate", limits, "answer") else { return };
    let ids: Vec<String> = (0..10).map(|number| format!("rate-{number}")).collect();
    for id in &ids {
        stage.caller.send(&stage.request(&stage.caller, "INVITE", id), stage.edge);
    }
    // A burst of one second's worth passes, and at most one more in the time that sending takes.
    let (mut passed, mut refused) = (Vec::new(), Vec::new());
    while passed.len() + refused.len() < ids.len() {
        match stage.caller.next(DEADLINE) {
            Some(answer) if answer.first_line().starts_with("SIP/2.0 503") => {
                assert_eq!(answer.header("Retry-After"), "1", "{}", answer.text);
                refused.push(answer.header("Call-ID").to_owned());
            }
            Some(answer) if answer.first_line().starts_with("SIP/2.0 100") => {
                passed.push(answer.header("Call-ID").to_owned());
            }
            other => panic!("{other:?} after {passed:?} passed and {refused:?} were refused"),
        }
    }
    assert!((4..=5).contains(&passed.len()), "{passed:?} passed");
    stage.wait_for_count("refused_cps", refused.len() as u64);
    let invites: Vec<Message> = passed.iter().map(|_| stage.callee.expect("INVITE")).collect();
    for invite in invites {
        assert!(passed.iter().any(|id| id == invite.header("Call-ID")), "it went through: {}", invite.text);
        stage.callee.respond(&invite, "486 Busy Here");
        stage.callee.expect("ACK");
    }
    // What Retry-After says.
    std::thread::sleep(Duration::from_secs(1));
    while stage.caller.next(Duration::ZERO).is_some() {}
    stage.set_up("after-the-rate").hang_up(&stage);
    stage.end();
}

#[test]
fn calls_over_the_limit_get_503_and_those_that_are_up_go_on() {
    let limits = ", limits: { calls: 2 }";
    let Some(stage) = Stage::start("calls_over_the_limit", limits, "answer") else { return };
    let (mut first, mut second) = (stage.set_up("limit-1"), stage.set_up("limit-2"));
    let refused = |id: &str| {
        let answer = stage.ask(&stage.caller, &stage.request(&stage.caller, "INVITE", id));
        assert!(answer.first_line().starts_with("SIP/2.0 503"), "{}", answer.text);
        assert!(answer.header("Retry-After").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{}", answer.text);
    };
    refused("limit-3");
    stage.wait_for_count("refused_calls", 1);
    first.reinvite(&stage);
    second.reinvite(&stage);
    refused("limit-4");
    first.hang_up(&stage);
    let third = stage.set_up("limit-5");
    refused("limit-6");
    third.hang_up(&stage);
    second.hang_up(&stage);
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn in_a_dialog_a_request_without_token_is_refused() {
    let Some(stage) = Stage::start("in_a_dialog_a_request_without_token", "", "answer") else { return };
    let call = stage.set_up("no-token");
    let (own, token) = (call.routes[0].clone(), call.token());
    let edge = format!("<sip:{};lr>", stage.edge);
    for routes in [vec![], vec![own.replace(&format!("{token}@"), "")], vec![own.replace(token, "")], vec![edge]] {
        call.is_refused(&stage, &routes);
    }
    // A route to elsewhere is none of the edge's: nobody may use it to get there.
    call.is_refused(&stage, &[format!("<sip:{};lr>", stage.callee.address)]);
    call.hang_up(&stage);
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn in_a_dialog_a_forged_token_is_refused() {
    let Some(stage) = Stage::start("in_a_dialog_a_forged_token", "", "answer") else { return };
    let call = stage.set_up("forged");
    let (own, token) = (call.routes[0].clone(), call.token());
    let altered = [0, 1, 4, 8, 12, token.len() / 2, token.len() - 1].map(|at| {
        let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{}{other}{}", &token[..at], &token[at + 1..])
    });
    let others = ["A".repeat(token.len()), token[..token.len() / 2].to_owned(), format!("{token}A"), "%00".to_owned()];
    for forged in altered.iter().chain(&others) {
        call.is_refused(&stage, &[own.replace(token, forged)]);
    }
    call.hang_up(&stage);
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn in_a_dialog_another_calls_token_is_refused() {
    let Some(stage) = Stage::start("in_a_dialog_another_calls_token", "", "answer") else { return };
    let (call, other) = (stage.set_up("own"), stage.set_up("other"));
    call.is_refused(&stage, &other.routes);
    call.is_refused(&stage, &[call.routes[0].clone(), other.routes[0].clone()]);
    other.is_refused(&stage, &call.routes);
    call.hang_up(&stage);
    other.hang_up(&stage);
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn a_token_of_a_withdrawn_key_is_refused_and_of_an_old_one_that_is_still_valid_passes() {
    let Some(mut stage) = Stage::start("a_token_of_a_withdrawn_key", "", "answer") else { return };
    let file = stage.project.state("single-ec2").join("lab/secrets/token-keys.json");
    let before: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let old = before["tokens"][0].clone();
    let new = json!({ "id": old["id"].as_u64().unwrap() + 1, "key": "5e".repeat(32) });
    let write = |tokens: Value| {
        let keys = json!({ "branch": before["branch"], "tokens": tokens });
        fs::write(&file, serde_json::to_vec(&keys).unwrap()).unwrap();
    };
    let call = stage.set_up("rotated");

    write(json!([new]));
    stage.replace_instance();
    let refused = stage.ask(&stage.caller, &call.request(&stage.caller, "BYE", 50, &call.routes));
    assert_eq!(refused.first_line(), "SIP/2.0 403 Forbidden", "{}", refused.text);
    stage.wait_for_count("refused_token", 1);
    stage.set_up("of-the-new-key").hang_up(&stage);

    write(json!([new, old]));
    stage.replace_instance();
    call.hang_up(&stage);
    stage.set_up("of-the-new-key-again").hang_up(&stage);
    stage.end();
}

#[test]
fn max_forwards_0_gets_483() {
    let Some(stage) = Stage::start("max_forwards_0_gets_483", "", "answer") else { return };
    let call = stage.set_up("hops-call");
    let none_left = |request: String| request.replace("Max-Forwards: 70", "Max-Forwards: 0");
    let requests = [
        stage.request(&stage.caller, "INVITE", "hops"),
        call.request(&stage.caller, "INVITE", 20, &call.routes),
        call.request(&stage.caller, "BYE", 21, &call.routes),
    ];
    for request in requests {
        let answer = stage.ask(&stage.caller, &none_left(request));
        assert_eq!(answer.first_line(), "SIP/2.0 483 Too Many Hops");
    }
    stage.wait_for_count("refused_max_forwards", 3);
    assert_eq!(stage.callee.next(SILENCE).map(|message| message.text), None, "it went through");
    call.hang_up(&stage);
    stage.end();
}

#[test]
fn methods_that_the_edge_does_not_serve_get_405_and_options_200() {
    let Some(stage) = Stage::start("methods_that_the_edge_does_not_serve", "", "answer") else { return };
    for method in ["REGISTER", "PUBLISH"] {
        let answer = stage.ask(&stage.caller, &stage.request(&stage.caller, method, method));
        assert_eq!(answer.first_line(), "SIP/2.0 405 Method Not Allowed", "{method}");
        let allow: Vec<&str> = answer.header("Allow").split(',').map(str::trim).collect();
        assert!(["INVITE", "ACK", "CANCEL", "BYE", "OPTIONS"].iter().all(|served| allow.contains(served)), "{allow:?}");
        // Some are served within a dialog.
        let never = ["REGISTER", "SUBSCRIBE", "PUBLISH", "FOO"];
        assert!(never.iter().all(|method| !allow.contains(method)), "{allow:?}");
    }
    stage.wait_for_count("refused_method", 2);
    let answer = stage.ask(&stage.caller, &stage.request(&stage.caller, "OPTIONS", "options"));
    assert_eq!(answer.first_line(), "SIP/2.0 200 OK");
    assert!(answer.header("Allow").contains("INVITE"), "{}", answer.text);
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn ack_is_never_answered() {
    let Some(stage) = Stage::start("ack_is_never_answered", "", "answer") else { return };
    for agent in [&stage.caller, &stage.stranger] {
        let plain = stage.request(agent, "ACK", "stray");
        let requests = [
            plain.clone(),
            plain.replace("Max-Forwards: 70", "Max-Forwards: 0"),
            plain.replace("ACK sip:", "ACK sips:"),
            plain.replace("CSeq: 1 ACK\r\n", ""),
            plain.replace("From:", "X-From:"),
            in_dialog("ACK", agent, &stage.callee, "stray", "tag", &[]),
            in_dialog("ACK", agent, &stage.callee, "stray", "tag", &["<sip:token@203.0.113.10;lr>".to_owned()]),
            in_dialog("ACK", agent, &stage.callee, "stray", "tag", &["<sip:x@".to_owned()]),
        ];
        for request in requests {
            agent.send(&request, stage.edge);
        }
        assert_silent(agent);
    }
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn datagrams_that_are_no_sip_get_no_answer_and_are_counted() {
    let Some(stage) = Stage::start("datagrams_that_are_no_sip", "", "answer") else { return };
    let datagrams: [Vec<u8>; 10] = [
        vec![],
        b"\r\n".to_vec(),
        b"\r\n\r\n".to_vec(),
        vec![0],
        b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n".to_vec(),
        b"INVITE".to_vec(),
        (0..=255).collect(),
        vec![0xff; 1_400],
        vec![b'A'; LONGEST_DATAGRAM],
        vec![b'\n'; LONGEST_DATAGRAM],
    ];
    for agent in [&stage.stranger, &stage.caller] {
        for datagram in &datagrams {
            agent.socket.send_to(datagram, stage.edge).unwrap();
        }
        assert_silent(agent);
    }
    stage.wait_for_count("not_sip", 2 * datagrams.len() as u64);
    // RFC 5389 §6: a binding request with its magic cookie and a transaction id. Those whom the edge knows are answered.
    let stun = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    stage.stranger.socket.send_to(&stun, stage.edge).unwrap();
    assert_silent(&stage.stranger);
    stage.caller.socket.send_to(&stun, stage.edge).unwrap();
    stage.wait_for_count("stun_answered", 1);
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn responses_that_nobody_waits_for_go_nowhere() {
    let Some(stage) = Stage::start("responses_that_nobody_waits_for", "", "answer") else { return };
    let victim = stage.callee.address;
    for agent in [&stage.stranger, &stage.caller] {
        for via in ["SIP/2.0/UDP 203.0.113.10:5060;branch=z9hG4bKforged;rport", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx"]
        {
            let response = format!(
                "SIP/2.0 200 OK\r\nVia: {via}\r\nVia: SIP/2.0/UDP {victim};branch=z9hG4bKvictim;rport\r\nFrom: <sip:a@b>;tag=1\r\n\
                 To: <sip:c@d>;tag=2\r\nCall-ID: reflected\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
            );
            agent.send(&response, stage.edge);
        }
        assert_silent(agent);
    }
    stage.wait_for_count("stray_responses", 4);
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn a_datagram_of_64_kb_ends_in_a_refusal_and_no_harm() {
    let Some(stage) = Stage::start("a_datagram_of_64_kb", "", "answer") else { return };
    for (agent, code) in [(&stage.stranger, "403"), (&stage.caller, "513")] {
        let invite = padded(&stage.request(agent, "INVITE", &format!("huge-{code}")), LONGEST_DATAGRAM);
        let answer = stage.ask(agent, &invite);
        assert!(answer.first_line().starts_with(&format!("SIP/2.0 {code}")), "{}", answer.first_line());
    }
    stage.nothing_went_through();
    // Room for what the edge adds: it passes whole.
    let large = padded(&stage.request(&stage.caller, "INVITE", "large"), LONGEST_DATAGRAM - 1_100);
    stage.caller.send(&large, stage.edge);
    let arrived = stage.callee.expect("INVITE");
    assert!(arrived.text.len() > large.len(), "{} of {} bytes arrived", arrived.text.len(), large.len());
    assert_eq!(arrived.header("Subject").len(), subject(&large), "the subject is as it was sent");
    stage.callee.respond(&arrived, "486 Busy Here");
    stage.callee.expect("ACK");
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn a_known_source_that_leaves_out_a_header_gets_400() {
    let Some(stage) = Stage::start("a_known_source_that_leaves_out_a_header", "", "answer") else { return };
    for (number, name) in ["From", "To", "Call-ID", "CSeq"].into_iter().enumerate() {
        let without = |agent: &Agent| {
            let request = stage.request(agent, "INVITE", &format!("lacks-{number}"));
            let lines = request.split_inclusive("\r\n").filter(|line| !line.starts_with(&format!("{name}:")));
            lines.collect::<String>()
        };
        stage.caller.send(&without(&stage.caller), stage.edge);
        stage.caller.expect("SIP/2.0 400");
        stage.stranger.send(&without(&stage.stranger), stage.edge);
    }
    // Without a Via there is nowhere to answer to.
    let request = stage.request(&stage.caller, "INVITE", "lacks-via");
    let lines = request.split_inclusive("\r\n").filter(|line| !line.starts_with("Via:"));
    stage.caller.send(&lines.collect::<String>(), stage.edge);
    stage.wait_for_count("malformed", 9);
    assert_silent(&stage.caller);
    assert_silent(&stage.stranger);
    stage.nothing_went_through();
    stage.end();
}

#[test]
fn a_message_whose_length_is_not_certain_is_never_sent_on() {
    let Some(stage) = Stage::start("a_message_whose_length_is_not_certain", "", "answer") else { return };
    let request = stage.request(&stage.caller, "INVITE", "lengths");
    let lengths = [
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nl: 0\r\n",
        "Content-Length: 0, 5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: five\r\n",
        "Content-Length: 99999999999999999999\r\n",
    ];
    for length in lengths {
        let message = request.replace("Content-Length: 0\r\n", length) + "v=0\r\n";
        stage.stranger.send(&message, stage.edge);
        stage.caller.send(&message, stage.edge);
        // Those who are known are told.
        stage.caller.expect("SIP/2.0 400");
    }
    stage.wait_for_count("malformed", 2 * lengths.len() as u64);
    assert_silent(&stage.stranger);
    // A body that did not arrive whole is no other matter (RFC 3261 §18.3).
    for agent in [&stage.stranger, &stage.caller] {
        let cut =
            stage.request(agent, "INVITE", "cut").replace("Content-Length: 0\r\n", "Content-Length: 6\r\n") + "v=0\r\n";
        agent.send(&cut, stage.edge);
    }
    stage.caller.expect("SIP/2.0 400");
    assert_silent(&stage.stranger);
    stage.nothing_went_through();
    stage.end();
}

/// The request with a Subject that makes it `length` bytes long.
fn padded(request: &str, length: usize) -> String {
    let missing = length - request.len() - "Subject: \r\n".len();
    request.replace("Content-Length:", &format!("Subject: {}\r\nContent-Length:", "s".repeat(missing)))
}

/// Length of a request's Subject.
fn subject(request: &str) -> usize {
    let lines = request.lines().find_map(|line| line.strip_prefix("Subject: "));
    lines.map_or(0, str::len)
}
