//! Calls from INVITE to BYE: what goes on, with which edits, and what comes back.

use super::*;

#[test]
fn an_invite_goes_on_with_six_edits_and_nothing_else() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    assert_eq!((invite.port, invite.to.as_str()), (Port::Egress, CALLEE));
    assert_eq!(invite.start(), "INVITE sip:+1555@callee.example SIP/2.0");
    let lines: Vec<&str> = invite.text.lines().collect();
    assert!(lines[1].starts_with(&format!("Via: SIP/2.0/UDP {EDGE};rport;branch=z9hG4bK")), "{lines:#?}");
    assert_eq!(lines[2], "Max-Breadth: 60");
    assert!(lines[3].starts_with("Record-Route: <sip:") && lines[3].ends_with(&format!("@{EDGE};lr>")), "{lines:#?}");
    assert_eq!(lines[4], "Via: SIP/2.0/UDP 192.0.2.1:5060;rport=5060;branch=z9hG4bKone;received=192.0.2.1");
    assert_eq!(lines[5], "Max-Forwards: 69");
    assert!(invite.text.ends_with("X-Odd: \u{fffd} kept\r\nContent-Length: 4\r\n\r\nbody"));
}

#[test]
fn a_call_from_invite_to_bye() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    assert_eq!(bench.engine.gauges().pending_transactions, 2);
    let ringing = Bench::one(bench.answer(&invite, "180 Ringing"));
    assert_eq!((ringing.port, ringing.to.as_str()), (Port::Ingress, CALLER));
    assert_eq!(ringing.text.matches("Via:").count(), 1);
    let ok = Bench::one(bench.answer(&invite, "200 OK"));
    let route = ok.line("record-route").replace("Record-Route", "Route") + "\n";
    let ack = request("ACK", "sip:b@198.51.100.1", "z9hG4bKtwo", ";tag=callee", &route);
    let ack = Bench::one(bench.receive(Port::Ingress, CALLER, &ack));
    assert_eq!((ack.port, ack.to.as_str()), (Port::Egress, CALLEE));
    assert!(!ack.text.contains("Route:"));
    let bye = request("BYE", "sip:b@198.51.100.1", "z9hG4bKthree", ";tag=callee", &route);
    let bye = Bench::one(bench.receive(Port::Ingress, CALLER, &bye));
    let ok = Bench::one(bench.answer(&bye, "200 OK"));
    assert_eq!(ok.to, CALLER);
    assert_eq!((bench.engine.gauges().pending_transactions, bench.engine.gauges().transactions), (0, 4));
    let counters = bench.engine.counters();
    assert_eq!((counters.calls_started, counters.calls_answered, counters.calls_failed), (1, 1, 0));
    assert!(bench.pass(40_000).is_empty());
    assert_eq!(bench.engine.gauges(), Gauges::default());
}

#[test]
fn a_refusal_is_acknowledged_here_and_passed_once() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    let sent = bench.answer(&invite, "486 Busy Here");
    assert_eq!(sent.len(), 2);
    assert!(sent[0].text.starts_with("ACK sip:+1555@callee.example SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.10"));
    assert_eq!(sent[0].line("to"), "To: <sip:+1555@edge>;tag=callee");
    assert_eq!(sent[0].line("via"), invite.line("via"));
    assert_eq!(sent[1].start(), "SIP/2.0 486 Busy Here");
    assert_eq!(Bench::one(bench.answer(&invite, "486 Busy Here")), sent[0]);
    assert_eq!(Bench::one(bench.pass(600)), sent[1]);
    assert!(
        bench
            .receive(Port::Ingress, CALLER, &request("ACK", "sip:+1555@edge", "z9hG4bKone", ";tag=callee", ""))
            .is_empty()
    );
    assert!(bench.pass(40_000).is_empty());
    assert_eq!(bench.engine.gauges(), Gauges::default());
}

#[test]
fn a_503_from_beyond_is_a_500_here() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    assert_eq!(bench.answer(&invite, "503 Service Unavailable")[1].start(), "SIP/2.0 500 Server Internal Error");
}

#[test]
fn cancel_goes_out_after_a_provisional_response_with_the_branch_of_the_invite() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    let cancel = request("CANCEL", "sip:+1555@edge", "z9hG4bKone", "", "");
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &cancel)).start(), "SIP/2.0 200 OK");
    let sent = bench.answer(&invite, "180 Ringing");
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[1].start(), "CANCEL sip:+1555@callee.example SIP/2.0");
    assert_eq!(sent[1].line("via"), invite.line("via"));
    assert!(bench.answer(&sent[1], "200 OK").is_empty());
    assert_eq!(bench.answer(&invite, "487 Request Terminated")[1].to, CALLER);
}

#[test]
fn cancel_goes_out_with_the_branch_of_the_invite_from_another_instance() {
    let invite = Bench::new(config()).invite("z9hG4bKone");
    let mut other = Bench::new(config());
    let cancel = request("CANCEL", "sip:+1555@edge;transport=udp", "z9hG4bKone", "", "");
    let cancel = Bench::one(other.receive(Port::Ingress, CALLER, &cancel));
    assert_eq!((cancel.to.as_str(), cancel.line("via")), (CALLEE, invite.line("via")));
    assert_eq!(Bench::one(other.answer(&cancel, "200 OK")).to, CALLER);
}

#[test]
fn a_shard_owns_a_call_by_its_call_id() {
    let long = request("INVITE", "sip:a@b", "z9hG4bK1", "", "").replace('\n', "\r\n");
    let compact = request("BYE", "sip:a@b", "z9hG4bK2", "", "").replace("Call-ID: ", "i :\t").replace('\n', "\r\n");
    for shards in 1..7 {
        assert_eq!(shard_of(long.as_bytes(), shards), shard_of(compact.as_bytes(), shards));
    }
    let folded = long.replace("Call-ID: ", "Call-ID:\r\n ");
    assert_eq!(shard_of(long.as_bytes(), 5), shard_of(folded.as_bytes(), 5));
    assert_eq!(shard_of(b"nothing\r\n\r\n", 4), None);
}

#[test]
fn a_response_with_our_via_alone_ends_here_and_ends_nothing() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    let response = response(&invite, "486 Busy Here");
    let (ours, theirs) = (invite.line("via"), "Via: SIP/2.0/UDP 192.0.2.1");
    let stripped: String = response.split_inclusive('\n').filter(|line| !line.starts_with(theirs)).collect();
    assert!(stripped.contains(ours));
    assert!(bench.receive(Port::Egress, CALLEE, &stripped).is_empty());
    assert_eq!(bench.receive(Port::Egress, CALLEE, &response).len(), 2);
}

#[test]
fn an_invite_with_as_many_headers_as_there_may_be_is_cancelled_and_acknowledged_like_any() {
    let mut bench = Bench::new(config());
    let full = request("INVITE", "sip:+1555@edge", "z9hG4bKone", "", &"X: y\n".repeat(512 - 9));
    let invite = bench.receive(Port::Ingress, CALLER, &full).remove(1);
    assert_eq!(bench.answer(&invite, "180 Ringing").len(), 1);
    let cancel = request("CANCEL", "sip:+1555@edge", "z9hG4bKone", "", "");
    let sent = bench.receive(Port::Ingress, CALLER, &cancel);
    assert_eq!(sent[1].start(), "CANCEL sip:+1555@callee.example SIP/2.0");
    let sent = bench.answer(&invite, "487 Request Terminated");
    assert!(sent[0].start().starts_with("ACK "));
}

#[test]
fn nobody_else_cancels_a_call_or_stops_a_refusal() {
    let mut bench = Bench::new(Config { refuse: Refuse::Silence, ..config() });
    let invite = bench.invite("z9hG4bKone");
    bench.answer(&invite, "180 Ringing");
    let cancel = request("CANCEL", "sip:+1555@edge", "z9hG4bKone", "", "");
    assert!(bench.receive(Port::Ingress, "203.0.113.99:5060", &cancel).is_empty());
    bench.answer(&invite, "486 Busy Here");
    let ack = request("ACK", "sip:+1555@edge", "z9hG4bKone", ";tag=callee", "");
    assert!(bench.receive(Port::Ingress, "203.0.113.99:5060", &ack).is_empty());
    assert_eq!(Bench::one(bench.pass(600)).start(), "SIP/2.0 486 Busy Here");
    // Another address of the caller's carrier is as good as the first.
    assert!(bench.receive(Port::Ingress, "192.0.2.2:5060", &ack).is_empty());
    assert!(bench.pass(40_000).is_empty());
}
