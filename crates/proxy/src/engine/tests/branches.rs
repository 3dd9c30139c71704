//! Several destinations: who is tried, and what becomes of those who answer late.

use super::*;

/// A bench whose destination has these servers, the first one first.
fn bench(servers: &[(&str, Transport)]) -> Bench {
    let mut bench = Bench::new(config());
    let query = Query { host: "callee.example".into(), port: None, transport: None, secure: false };
    let servers: Vec<Server> = (0..)
        .zip(servers)
        .map(|(priority, (address, transport))| Server { priority, transport: *transport, ..server(address) })
        .collect();
    bench.engine.handle_resolved(bench.now, &query, &servers, Duration::from_secs(60));
    bench.engine.clear_outbox();
    bench
}

/// Where the INVITEs among these went.
fn invited(sent: &[Sent]) -> Vec<&str> {
    sent.iter().filter(|one| one.start().starts_with("INVITE ")).map(|one| one.to.as_str()).collect()
}

const FIRST: &str = "198.51.100.1:5060";
const SECOND: &str = "198.51.100.2:5060";
const THIRD: &str = "198.51.100.3:5060";

#[test]
fn who_has_refused_over_tcp_is_not_tried_again() {
    let mut bench = bench(&[(FIRST, Transport::Tcp), (SECOND, Transport::Tcp), (THIRD, Transport::Tcp)]);
    let first = bench.invite("z9hG4bKone");
    assert_eq!(first.to, FIRST);
    let sent = bench.answer(&first, "503 Service Unavailable");
    assert_eq!(invited(&sent), [SECOND]);
    let second = sent.into_iter().find(|one| one.start().starts_with("INVITE ")).unwrap();
    // Over a reliable transport a refused branch has ended by now.
    bench.pass(1);
    let sent = bench.answer(&second, "503 Service Unavailable");
    assert_eq!(invited(&sent), [THIRD]);
}

#[test]
fn a_refusal_after_silence_is_better_than_a_408_of_our_own() {
    let mut bench = bench(&[(FIRST, Transport::Udp), (SECOND, Transport::Udp)]);
    let first = bench.invite("z9hG4bKone");
    assert_eq!(invited(&bench.pass(5_000)).last(), Some(&SECOND));
    assert_eq!(Bench::one(bench.answer(&first, "404 Not Found")).start(), "ACK sip:+1555@callee.example SIP/2.0");
    let sent = bench.pass(5_000);
    assert_eq!(sent.last().unwrap().start(), "SIP/2.0 404 Not Found");
}

#[test]
fn an_answer_after_silence_ends_what_was_tried_meanwhile() {
    let mut bench = bench(&[(FIRST, Transport::Udp), (SECOND, Transport::Udp), (THIRD, Transport::Udp)]);
    let first = bench.invite("z9hG4bKone");
    let sent = bench.pass(5_000);
    let second = sent.into_iter().rfind(|one| one.to == SECOND).unwrap();
    bench.answer(&second, "180 Ringing");
    let sent = bench.answer(&first, "200 OK");
    let starts: Vec<&str> = sent.iter().map(Sent::start).collect();
    assert_eq!(starts, ["CANCEL sip:+1555@callee.example SIP/2.0", "SIP/2.0 200 OK"]);
    assert_eq!(sent[0].to, SECOND);
    assert!(invited(&bench.pass(40_000)).is_empty());
}
