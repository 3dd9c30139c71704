//! What the answerer takes for a proof, and what not: wrong, replayed, stale and foreign credentials.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;

use process::digest::{Challenge, PASSWORD, USER, ack, challenged, with};
use process::sip::{Agent, Message};
use process::{Process, address, config, metric, wait_for_readyz, with_answerer};

struct Stage {
    _process: Process,
    _folder: tempfile::TempDir,
    edge: SocketAddr,
    caller: Agent,
    number: u32,
}

impl Stage {
    fn new(number: u8) -> Self {
        let [edge, caller, carrier] = [0, 1, 2].map(|place| address(number + place));
        let config = with_answerer(config(edge, carrier, SocketAddr::new(carrier, 5060)));
        let (mut process, folder) = Process::run(&config);
        wait_for_readyz(edge, 200, &mut process);
        let (edge, caller) = (SocketAddr::new(edge, process::INGRESS), Agent::bind(caller, 0));
        Self { _process: process, _folder: folder, edge, caller, number: 1 }
    }

    fn uri(&self) -> String {
        format!("sip:{USER}@{}", self.edge)
    }

    /// Sends an INVITE with this header line, in a transaction of its own, and returns its final response.
    fn invite(&mut self, call_id: &str, header: &str) -> Message {
        self.number += 1;
        let invite = with(&self.caller.request("INVITE", &self.uri(), call_id), header, self.number);
        self.caller.send(&invite, self.edge);
        loop {
            let message = self.caller.expect("SIP/2.0 ");
            let is_its = message.header("CSeq") == format!("{} INVITE", self.number);
            match message.first_line().split(' ').nth(1) {
                Some(code) if is_its && code.starts_with('2') => {
                    self.caller.send(&self.caller.in_dialog("ACK", self.number, &message), self.edge);
                    return message;
                }
                Some(code) if is_its && !code.starts_with('1') => {
                    self.caller.send(&ack(&invite, &message), self.edge);
                    return message;
                }
                _ => {}
            }
        }
    }

    fn refused(&self) -> u64 {
        metric(self.edge.ip(), "sipedge_answerer_refused_total")
    }
}

fn is_refused(message: &Message) -> bool {
    message.first_line().starts_with("SIP/2.0 401")
}

#[test]
fn wrong_credentials_are_challenged_again_and_counted() {
    let mut stage = Stage::new(213);
    let (_, challenges) = challenged(&stage.caller, stage.edge, USER, "first");
    let challenge = &challenges[0];
    let uri = stage.uri();
    let elsewhere = Challenge { realm: "elsewhere".into(), ..challenge.clone() };
    let invented = Challenge { nonce: "0".repeat(56), ..challenge.clone() };
    let short = Challenge { nonce: "0".into(), ..challenge.clone() };
    let wrong = [
        challenge.answer("INVITE", &uri, USER, "not-the-password", 1),
        challenge.answer("INVITE", &uri, "admin", PASSWORD, 1),
        challenge.answer("REGISTER", &uri, USER, PASSWORD, 1),
        challenge.answer("INVITE", &format!("sip:{USER}+hangup@{}", stage.edge), USER, PASSWORD, 1),
        challenge.answer("INVITE", "sip:somebody@else.example", USER, PASSWORD, 1),
        elsewhere.answer("INVITE", &uri, USER, PASSWORD, 1),
        invented.answer("INVITE", &uri, USER, PASSWORD, 1),
        short.answer("INVITE", &uri, USER, PASSWORD, 1),
    ];
    for (number, header) in wrong.iter().enumerate() {
        let refusal = stage.invite(&format!("wrong-{number}"), header);
        assert!(is_refused(&refusal), "{header}: {}", refusal.text);
        assert!(Challenge::all(&refusal).iter().all(|challenge| !challenge.stale), "an oracle: {}", refusal.text);
        assert!(!refusal.text.contains("X-Sipedge"), "{}", refusal.text);
    }
    assert_eq!(stage.refused(), wrong.len() as u64);
    assert_eq!(metric(stage.edge.ip(), "sipedge_answerer_calls_total"), 0);
    let right = challenge.answer("INVITE", &uri, USER, PASSWORD, 1);
    let ok = stage.invite("right", &right);
    assert!(ok.first_line().starts_with("SIP/2.0 200"), "{}", ok.text);
    assert_eq!(metric(stage.edge.ip(), "sipedge_answerer_calls_total"), 1);
}

#[test]
fn a_proof_is_good_once_for_its_count_and_for_its_source_alone() {
    let mut stage = Stage::new(216);
    let (_, challenges) = challenged(&stage.caller, stage.edge, USER, "first");
    let uri = stage.uri();
    let first = challenges[0].answer("INVITE", &uri, USER, PASSWORD, 1);
    assert!(stage.invite("once", &first).first_line().starts_with("SIP/2.0 200"));
    // Another call, and with two shards some of these belong to the other one.
    for number in 0..8 {
        let replayed = stage.invite(&format!("replayed-{number}"), &first);
        assert!(is_refused(&replayed), "{}", replayed.text);
        assert!(Challenge::all(&replayed)[0].stale, "whoever made it has a new nonce to use: {}", replayed.text);
    }
    let second = challenges[0].answer("INVITE", &uri, USER, PASSWORD, 2);
    assert!(stage.invite("counted-up", &second).first_line().starts_with("SIP/2.0 200"));
    let other = Agent::bind(address(212), 0);
    let third = challenges[0].answer("INVITE", &uri, USER, PASSWORD, 3);
    let own = std::mem::replace(&mut stage.caller, other);
    assert!(is_refused(&stage.invite("another-source", &third)), "the nonce was another source's");
    stage.caller = own;
    assert!(stage.invite("its-own", &third).first_line().starts_with("SIP/2.0 200"), "and is not used up by that");
}

#[test]
fn a_broken_authorization_is_as_good_as_none() {
    let mut stage = Stage::new(219);
    let (_, challenges) = challenged(&stage.caller, stage.edge, USER, "first");
    let uri = stage.uri();
    let sound = challenges[0].answer("INVITE", &uri, USER, PASSWORD, 1);
    let value = sound.strip_prefix("Authorization: ").unwrap().trim_end().to_owned();
    let broken = [
        "Authorization:\r\n".to_owned(),
        "Authorization: Digest\r\n".to_owned(),
        "Authorization: Basic c2lwZWRnZTpw\r\n".to_owned(),
        format!("Authorization: {}\r\n", &value[..value.len() / 2]),
        format!("Authorization: {value}, nonce=\"twice\"\r\n"),
        format!("Authorization: {}\r\n", value.replace("qop=auth", "qop=auth-int")),
        format!("Authorization: {}\r\n", value.replace("SHA-256", "SHA-512-256")),
        format!("Authorization: {}\r\n", value.replace("nc=00000001", "nc=99999999999")),
        format!("Authorization: {value}, opaque=\"{}\"\r\n", "x".repeat(4_000)),
        format!("Authorization: Digest {}\r\n", "=,\"\\".repeat(300)),
        "Authorization: Digest \u{fffd}=\"\u{fffd}\"\r\n".to_owned(),
        "Authorization: Basic x\r\n".repeat(4) + &sound,
    ];
    for (number, header) in broken.iter().enumerate() {
        let refusal = stage.invite(&format!("broken-{number}"), header);
        assert!(is_refused(&refusal), "{header}: {}", refusal.text);
    }
    let folded = format!("Authorization: {}\r\n", value.replace(", nonce=", ",\r\n nonce="));
    assert!(stage.invite("folded", &folded).first_line().starts_with("SIP/2.0 200"), "a fold is white space");
}

#[test]
fn a_request_that_is_sent_again_is_no_replay() {
    let stage = Stage::new(222);
    let (_, challenges) = challenged(&stage.caller, stage.edge, USER, "first");
    let uri = stage.uri();
    let proof = challenges[0].answer("OPTIONS", &uri, USER, PASSWORD, 1);
    let options = |call_id: &str, number: u32| {
        stage.caller.send(&with(&stage.caller.request("OPTIONS", &uri, call_id), &proof, number), stage.edge);
        stage.caller.expect("SIP/2.0 ")
    };
    for time in ["the first time", "again", "and again"] {
        let answer = options("one", 2);
        assert!(answer.first_line().starts_with("SIP/2.0 200"), "{time}: {}", answer.text);
    }
    assert!(is_refused(&options("one", 3)), "another request");
    assert!(is_refused(&options("two", 2)), "another call");
}
