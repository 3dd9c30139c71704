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

/// RFC 3261 §16.9 speaks of the request that was not delivered. A report that has waited, while its transaction ended and a copy of the
/// INVITE opened another under the same branch, is about the first alone.
#[test]
fn a_late_report_of_a_failure_is_not_about_the_next_transaction_of_its_branch() {
    let mut bench = bench(&[(FIRST, Transport::Tcp)]);
    let invite = |bench: &mut Bench| {
        let text = request("INVITE", "sip:+1555@edge", "z9hG4bKone", "", "");
        let arrival = Arrival::datagram(Port::Ingress, CALLER.parse().unwrap());
        bench.engine.handle_message(bench.now, &arrival, text.replace('\n', "\r\n").as_bytes());
        let receipt = bench.engine.outbox().transmits().find_map(|transmit| transmit.receipt).unwrap();
        (receipt, bench.sent().remove(1))
    };
    let (early, first) = invite(&mut bench);
    assert_eq!(bench.answer(&first, "486 Busy Here").last().unwrap().start(), "SIP/2.0 486 Busy Here");
    bench.receive(Port::Ingress, CALLER, &request("ACK", "sip:+1555@edge", "z9hG4bKone", ";tag=callee", ""));
    bench.pass(6_000);
    let (late, second) = invite(&mut bench);
    assert_eq!(first.line("via"), second.line("via"), "the copy opens the same branch");
    bench.engine.handle_failure(bench.now, early);
    assert_eq!(bench.sent(), [], "the second INVITE was delivered");
    bench.engine.handle_failure(bench.now, late);
    assert_eq!(Bench::one(bench.sent()).start(), "SIP/2.0 500 Server Internal Error");
}
