//! The answerer's user agent on virtual time.

use super::*;

const TIMERS: Timers = Timers { t1: Duration::from_millis(500), t2: Duration::from_secs(4) };

struct Bench {
    agent: Agent,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        let address = "10.0.1.10:40000".parse().expect("address");
        Self { agent: Agent::new(address, "203.0.113.10".into()), now: Duration::ZERO }
    }

    fn receive(&mut self, text: &str) -> Vec<String> {
        let identity = || Identity { instance: "10.0.1.10".parse().expect("address"), configuration: "c0ffee".into() };
        let mut out = Vec::new();
        self.agent.handle_message(self.now, text.replace('\n', "\r\n").as_bytes(), &TIMERS, identity, &mut out);
        self.agent.handle_timeout(self.now, &TIMERS, &mut out);
        texts(out)
    }

    /// What is sent until `to`.
    fn pass(&mut self, to: Duration) -> Vec<(Duration, String)> {
        let mut sent = Vec::new();
        while let Some(due) = self.agent.poll_timeout().filter(|due| *due <= to) {
            self.now = due;
            let mut out = Vec::new();
            self.agent.handle_timeout(due, &TIMERS, &mut out);
            sent.extend(texts(out).into_iter().map(|text| (due, text)));
        }
        self.now = to;
        sent
    }

    /// A call whose 200 was acknowledged, by its To with tag.
    fn call(&mut self, id: &str, user: &str) -> (String, Vec<String>) {
        let sent = self.receive(&invite(id, user));
        assert_eq!(starts(&sent), ["SIP/2.0 180 Ringing", "SIP/2.0 200 OK"]);
        let to = line(&sent[1], "To: ").to_owned();
        let after = self.receive(&within(id, "ACK", 1, &to, ""));
        (to, after)
    }
}

fn texts(out: Vec<Vec<u8>>) -> Vec<String> {
    out.into_iter().map(|message| String::from_utf8(message).expect("text")).collect()
}

fn starts(sent: &[String]) -> Vec<&str> {
    sent.iter().map(|text| text.lines().next().unwrap_or_default()).collect()
}

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn invite(id: &str, user: &str) -> String {
    format!(
        "INVITE sip:{user}@203.0.113.10 SIP/2.0\nX-Sipedge-Flow: udp ingress 192.0.2.9:4000 - 00\n\
         Record-Route: <sip:token@203.0.113.10:5060;lr>\nVia: SIP/2.0/UDP 203.0.113.10:5060;rport;branch=z9hG4bKedge{id}\n\
         Via: SIP/2.0/UDP 10.9.9.9:4000;branch=z9hG4bK{id};received=192.0.2.9;rport=4000\nMax-Forwards: 69\n\
         From: \"Op\" <sip:op@example>;tag=from\nTo: <sip:{user}@203.0.113.10>\nCall-ID: {id}\nCSeq: 1 INVITE\n\
         Contact: <sip:op@10.9.9.9:4000>\nContent-Length: 0\n\n"
    )
}

fn within(id: &str, method: &str, number: u32, to: &str, more: &str) -> String {
    format!(
        "{method} sip:10.0.1.10:40000 SIP/2.0\nVia: SIP/2.0/UDP 203.0.113.10:5060;rport;branch=z9hG4bK{id}{method}{number}\n{more}\
         From: \"Op\" <sip:op@example>;tag=from\nTo: {to}\nCall-ID: {id}\nCSeq: {number} {method}\nContent-Length: 0\n\n"
    )
}

#[test]
fn a_call_is_answered_names_the_instance_and_ends_by_the_callers_bye() {
    let mut bench = Bench::new();
    let sent = bench.receive(&invite("a", "verify"));
    assert_eq!(starts(&sent), ["SIP/2.0 180 Ringing", "SIP/2.0 200 OK"]);
    for text in &sent {
        assert_eq!(line(text, "X-Sipedge-Instance: "), "10.0.1.10");
        assert_eq!(line(text, "X-Sipedge-Configuration: "), "c0ffee");
        assert_eq!(line(text, "Record-Route: "), "<sip:token@203.0.113.10:5060;lr>");
        assert_eq!(text.lines().filter(|line| line.starts_with("Via: ")).count(), 2);
    }
    let (head, body) = sent[1].split_once("\r\n\r\n").expect("a body");
    assert_eq!(line(head, "Content-Length: "), body.len().to_string());
    assert!(body.contains("m=audio 9 RTP/AVP 0\r\na=inactive\r\n"), "{body}");
    let to = line(&sent[1], "To: ").to_owned();
    assert!(bench.receive(&within("a", "ACK", 1, &to, "")).is_empty());
    let again = bench.receive(&within("a", "INVITE", 2, &to, "Contact: <sip:op@10.9.9.9:4001>\n"));
    assert_eq!(starts(&again), ["SIP/2.0 200 OK"]);
    assert!(bench.receive(&within("a", "ACK", 2, &to, "")).is_empty());
    assert_eq!(starts(&bench.receive(&within("a", "OPTIONS", 3, &to, ""))), ["SIP/2.0 200 OK"]);
    assert_eq!(starts(&bench.receive(&within("a", "UPDATE", 4, &to, ""))), ["SIP/2.0 405 Method Not Allowed"]);
    assert_eq!(
        starts(&bench.receive(&within("a", "BYE", 3, &to, ""))),
        ["SIP/2.0 500 Server Internal Error"],
        "an old CSeq"
    );
    assert_eq!(starts(&bench.receive(&within("a", "BYE", 5, &to, ""))), ["SIP/2.0 200 OK"]);
    assert_eq!(bench.agent.calls.len(), 0);
    assert_eq!(bench.agent.poll_timeout(), None);
}

#[test]
fn it_hangs_up_when_it_is_asked_to_by_the_route_and_the_flow_of_the_call() {
    let mut bench = Bench::new();
    let (to, after) = bench.call("a", "verify+hangup");
    assert_eq!(starts(&after), ["BYE sip:op@10.9.9.9:4000 SIP/2.0"]);
    assert_eq!(line(&after[0], "Route: "), "<sip:token@203.0.113.10:5060;lr>");
    assert_eq!(line(&after[0], "X-Sipedge-Flow: "), "udp ingress 192.0.2.9:4000 - 00");
    assert_eq!(line(&after[0], "From: "), to);
    assert_eq!(line(&after[0], "To: "), "\"Op\" <sip:op@example>;tag=from");
    let repeated = bench.pass(Duration::from_millis(1_600));
    assert_eq!(repeated.iter().map(|(at, _)| at.as_millis()).collect::<Vec<_>>(), [500, 1_500]);
    assert!(repeated.iter().all(|(_, text)| *text == after[0]), "the same request");
    let ok = format!(
        "SIP/2.0 200 OK\nVia: {}\nFrom: {to}\nTo: <sip:op@example>;tag=from\nCall-ID: a\nCSeq: 1 BYE\nContent-Length: 0\n\n",
        line(&after[0], "Via: ")
    );
    assert!(bench.receive(&ok).is_empty());
    assert_eq!(bench.agent.calls.len(), 0);
}

#[test]
fn the_answer_goes_again_until_it_is_acknowledged_and_ends_in_bye() {
    let mut bench = Bench::new();
    bench.receive(&invite("a", "verify"));
    let sent = bench.pass(Duration::from_secs(31));
    assert!(sent.iter().all(|(_, text)| text.starts_with("SIP/2.0 200 ")));
    let at: Vec<u128> = sent.iter().map(|(at, _)| at.as_millis()).take(5).collect();
    assert_eq!(at, [500, 1_500, 3_500, 7_500, 11_500]);
    let sent = bench.pass(Duration::from_secs(40));
    assert!(sent.iter().any(|(at, text)| at.as_secs() == 32 && text.starts_with("BYE ")), "{sent:?}");
    bench.pass(Duration::from_secs(70));
    assert_eq!(bench.agent.calls.len(), 0, "a BYE that nobody answers is given up");
}

#[test]
fn a_call_lasts_a_minute_at_most() {
    let mut bench = Bench::new();
    let (_, after) = bench.call("a", "verify");
    assert!(after.is_empty());
    assert!(bench.pass(Duration::from_secs(59)).is_empty());
    let sent = bench.pass(Duration::from_secs(60));
    assert_eq!(sent.len(), 1);
    assert!(sent[0].1.starts_with("BYE "));
    bench.pass(LONGEST_CALL + Duration::from_secs(33));
    assert_eq!(bench.agent.calls.len(), 0);
}

#[test]
fn the_eleventh_call_is_busy_and_another_one_has_room_when_one_has_ended() {
    let mut bench = Bench::new();
    let to: Vec<String> = (0..MOST_CALLS).map(|number| bench.call(&format!("c{number}"), "verify").0).collect();
    assert_eq!(starts(&bench.receive(&invite("one-more", "verify"))), ["SIP/2.0 486 Busy Here"]);
    for number in 0..1_000 {
        bench.receive(&invite(&format!("flood{number}"), "verify"));
    }
    assert_eq!(bench.agent.calls.len(), MOST_CALLS);
    assert_eq!(starts(&bench.receive(&within("c3", "BYE", 2, &to[3], ""))), ["SIP/2.0 200 OK"]);
    bench.call("one-more", "verify");
}

#[test]
fn what_belongs_to_no_call_changes_nothing() {
    let mut bench = Bench::new();
    let (to, _) = bench.call("a", "verify");
    let refused = ["SIP/2.0 481 Call/Transaction Does Not Exist"];
    assert_eq!(starts(&bench.receive(&within("other", "BYE", 2, &to, ""))), refused);
    assert_eq!(starts(&bench.receive(&within("a", "BYE", 2, "<sip:x@y>;tag=other", ""))), refused);
    assert!(bench.receive(&within("other", "ACK", 1, &to, "")).is_empty(), "an ACK is never answered");
    assert!(bench.receive("no SIP\n\n").is_empty());
    assert!(bench.receive("BYE sip:a@b SIP/2.0\n\n").is_empty(), "without From, To, Call-ID and CSeq");
    assert_eq!(bench.agent.calls.len(), 1);
}

#[test]
fn what_it_cannot_do_is_refused() {
    let mut bench = Bench::new();
    let with = |more: &str, body: &str| {
        let text = invite("a", "verify").replace("Content-Length: 0\n\n", "");
        format!("{text}{more}Content-Length: {}\n\n{body}", body.len())
    };
    for (text, status) in [
        (with("Require: 100rel\n", ""), "SIP/2.0 420 Bad Extension"),
        (with("Content-Type: text/plain\n", "hello"), "SIP/2.0 415 Unsupported Media Type"),
        (with("Content-Type: application/sdp\n", "m=image 9 udptl t38"), "SIP/2.0 488 Not Acceptable Here"),
        (invite("a", "verify").replace("Contact: <sip:op@10.9.9.9:4000>\n", ""), "SIP/2.0 400 Bad Contact"),
    ] {
        assert_eq!(starts(&bench.receive(&text)), [status]);
    }
    assert_eq!(bench.agent.calls.len(), 0);
}
