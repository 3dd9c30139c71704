//! Retransmissions, silence, and what comes too late.

use super::*;

#[test]
fn retransmissions_end_here() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    let again = request("INVITE", "sip:+1555@edge;transport=udp", "z9hG4bKone", "", "");
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &again)).start(), "SIP/2.0 100 Trying");
    let resent = Bench::one(bench.pass(500));
    assert_eq!(resent, invite);
    bench.answer(&invite, "183 Session Progress");
    assert!(bench.pass(2_000).is_empty());
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &again)).start(), "SIP/2.0 183 Session Progress");
}

#[test]
fn silence_is_a_408_and_ringing_without_end_is_cancelled() {
    let mut bench = Bench::new(config());
    bench.invite("z9hG4bKone");
    let sent = bench.pass(5_000);
    assert_eq!(sent.last().unwrap().start(), "SIP/2.0 408 Request Timeout");
    assert_eq!(sent.last().unwrap().text.matches("Via:").count(), 1);
    assert!(sent.last().unwrap().line("to").contains(";tag="));

    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    bench.answer(&invite, "180 Ringing");
    let sent = bench.pass(30_000);
    assert!(Bench::one(sent).text.starts_with("CANCEL "));
    let sent = bench.pass(5_000);
    assert_eq!(sent.iter().filter(|sent| sent.start() == "SIP/2.0 408 Request Timeout").count(), 1);
    assert_eq!(bench.engine.counters().calls_failed, 1);
}

#[test]
fn a_late_copy_of_a_refused_invite_is_a_transaction_of_its_own_to_its_end() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    bench.answer(&invite, "486 Busy Here");
    bench.receive(Port::Ingress, CALLER, &request("ACK", "sip:+1555@edge", "z9hG4bKone", ";tag=callee", ""));
    bench.pass(6_000);
    let again = bench.invite("z9hG4bKone");
    assert_eq!(again.line("via"), invite.line("via"));
    assert_eq!(bench.answer(&again, "180 Ringing").len(), 1);
    // The first client transaction ends meanwhile, by Timer D.
    assert!(bench.pass(27_000).is_empty());
    assert_eq!(Bench::one(bench.answer(&again, "200 OK")).start(), "SIP/2.0 200 OK");
}

#[test]
fn a_callee_that_rings_too_late_is_cancelled() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    assert_eq!(bench.pass(5_000).last().unwrap().start(), "SIP/2.0 408 Request Timeout");
    let cancel = Bench::one(bench.answer(&invite, "180 Ringing"));
    assert!(cancel.text.starts_with("CANCEL ") && cancel.to == CALLEE);
    assert!(Bench::one(bench.answer(&invite, "487 Request Terminated")).text.starts_with("ACK "));
    bench.pass(80_000);
    assert_eq!(bench.engine.gauges(), Gauges::default());
}

#[test]
fn a_moment_before_the_last_one_does_no_harm() {
    let mut bench = Bench::new(config());
    bench.pass(10_000);
    bench.engine.handle_timeout(bench.now);
    let latest = bench.now;
    bench.now = latest - Duration::from_secs(3);
    bench.invite("z9hG4bKone");
    bench.engine.handle_timeout(bench.now);
    assert!(bench.sent().is_empty(), "no timer is due");
    assert!(bench.engine.poll_timeout().is_some_and(|next| next > latest));
}
