//! Each check of the smoke call passes on an edge that works and fails on one whose subject is broken.

#[path = "faulty_edge/edge.rs"]
mod edge;
#[path = "support/loopback.rs"]
mod loopback;
#[path = "support/plans.rs"]
mod plans;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use edge::{Edge, EdgeConfig};
use loopback::Block;
use plans::one_call;
use sipedge::plan::{Endpoint, VerifyCall};
use sipedge::spec::Transport;
use sipedge::verify::{Addresses, Bench, Check, Report, report, run};
use sipedge_proxy::config::Refuse;

/// When the runs say that they started.
const STARTED: &str = "2026-11-20T12:00:00Z";

/// The smoke call on an edge with these faults.
fn smoke(faults: &[&str], refuse: Refuse) -> Report {
    let block = Block::take();
    let _edge = start(block, block.callee(), faults, refuse);
    let plan = one_call(block.ingress(), block.caller(), block.callee(), refuse);
    run(&plan, &addresses(block), Transport::Udp, &block, STARTED)
}

fn start(block: Block, callee: SocketAddr, faults: &[&str], refuse: Refuse) -> Edge {
    let config = EdgeConfig {
        silent: refuse == Refuse::Silence,
        faults: faults.iter().map(ToString::to_string).collect(),
        ..block.edge(callee)
    };
    Edge::start(config).expect("the edge's addresses are free")
}

fn addresses(block: Block) -> Addresses {
    Addresses { ingress: block.ingress(), egress: vec![block.address(3)] }
}

/// The checks that failed after being tried.
fn failed(report: &Report) -> Vec<&Check> {
    report.calls[0].checks.iter().filter(|check| check.tried && !check.passed).collect()
}

/// Asserts that the fault makes exactly `ids` fail, and that the first of them names a cause with `word` in it.
#[track_caller]
fn breaks(fault: &str, ids: &[&str], word: &str) {
    let began = Instant::now();
    let report = smoke(&[fault], Refuse::Answer);
    let text = report::terminal(&report);
    assert!(!report.passed, "{fault} went unnoticed:\n{text}");
    let failed = failed(&report);
    assert_eq!(failed.iter().map(|check| check.id.as_str()).collect::<Vec<_>>(), ids, "{fault}:\n{text}");
    let first = failed[0];
    assert!(first.expected.is_some() && first.came.is_some(), "{fault}: {first:?}");
    assert!(first.cause.as_deref().is_some_and(|cause| cause.contains(word)), "{fault}: no {word:?} in {first:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{fault}: took {:?}", began.elapsed());
}

#[test]
fn every_check_passes_on_an_edge_without_fault() {
    let report = smoke(&[], Refuse::Answer);
    let text = report::terminal(&report);
    assert!(report.passed, "{text}");
    assert!(report.calls[0].checks.iter().all(|check| check.tried && check.cause.is_none()), "{text}");
    assert!(report.took_ms < 1_500.0, "took {} ms\n{text}", report.took_ms);
}

#[test]
fn every_check_passes_on_an_edge_that_refuses_in_silence() {
    let report = smoke(&[], Refuse::Silence);
    assert!(report.passed, "{}", report::terminal(&report));
}

#[test]
fn every_check_passes_when_one_carrier_is_source_and_destination() {
    let block = Block::take();
    let _edge = start(block, block.caller(), &[], Refuse::Answer);
    let mut plan = one_call(block.ingress(), block.caller(), block.caller(), Refuse::Answer);
    plan.verify.calls[0].callee = vec![plan.verify.calls[0].caller.clone()];
    let report = run(&plan, &addresses(block), Transport::Udp, &block, STARTED);
    assert!(report.passed, "{}", report::terminal(&report));
    assert!(report.calls[0].checks.iter().any(|check| check.id == "same-carrier"));
}

#[test]
fn same_carrier_fails_when_requests_leave_by_the_ingress_socket() {
    let block = Block::take();
    let _edge = start(block, block.caller(), &["egress-by-ingress"], Refuse::Answer);
    let mut plan = one_call(block.ingress(), block.caller(), block.caller(), Refuse::Answer);
    plan.verify.calls[0].callee = vec![plan.verify.calls[0].caller.clone()];
    let report = run(&plan, &addresses(block), Transport::Udp, &block, STARTED);
    let failed: Vec<_> = failed(&report).into_iter().filter(|check| check.id == "same-carrier").collect();
    assert_eq!(failed.len(), 1, "{}", report::terminal(&report));
    assert!(failed[0].cause.as_deref().is_some_and(|cause| cause.contains("ingress socket")), "{failed:?}");
}

#[test]
fn every_route_is_called_at_whichever_address_the_edge_chooses() {
    let block = Block::take();
    let _edge = start(block, block.callee(), &[], Refuse::Answer);
    let mut plan = one_call(block.ingress(), block.caller(), block.callee(), Refuse::Answer);
    let other = Endpoint {
        namespace: "destination".to_owned(),
        address: SocketAddr::new(block.address(21), 5060),
        transport: Transport::Udp,
    };
    plan.verify.calls[0].callee.insert(0, other);
    plan.verify.calls.push(VerifyCall { to: "again".to_owned(), ..plan.verify.calls[0].clone() });
    let report = run(&plan, &addresses(block), Transport::Udp, &block, STARTED);
    assert!(report.passed, "{}", report::terminal(&report));
    assert_eq!(report.calls.iter().map(|call| call.to.as_str()).collect::<Vec<_>>(), ["destination", "again"]);
}

#[test]
fn calls_go_one_after_another_when_a_trunk_admits_one() {
    let block = Block::take();
    let _edge = start(block, block.callee(), &[], Refuse::Answer);
    let mut plan = one_call(block.ingress(), block.caller(), block.callee(), Refuse::Answer);
    plan.proxy.trunks[0].limits.calls = Some(1);
    plan.proxy.trunks[1].limits.cps = Some(3);
    let report = run(&plan, &addresses(block), Transport::Udp, &block, STARTED);
    assert!(report.passed, "{}", report::terminal(&report));
    assert!(report.took_ms >= 1_000.0, "five calls at three per second took {} ms", report.took_ms);
}

#[test]
fn an_edge_that_is_not_there_fails_every_check_in_bounded_time() {
    let block = Block::take();
    let plan = one_call(block.ingress(), block.caller(), block.callee(), Refuse::Answer);
    let report = run(&plan, &addresses(block), Transport::Udp, &block, STARTED);
    let text = report::terminal(&report);
    assert!(!report.passed && report.calls[0].checks.iter().all(|check| !check.passed), "{text}");
    assert!(text.contains("no instance is healthy"), "{text}");
    assert!(report.took_ms < 10_000.0, "{text}");
}

#[test]
fn user_agents_without_sockets_are_reported() {
    struct NoSockets;
    impl Bench for NoSockets {
        fn udp_socket(&self, _: &str, _: SocketAddr) -> io::Result<UdpSocket> {
            Err(io::Error::other("no such namespace"))
        }
    }
    let block = Block::take();
    let plan = one_call(block.ingress(), block.caller(), block.callee(), Refuse::Answer);
    let report = run(&plan, &addresses(block), Transport::Udp, &NoSockets, STARTED);
    assert!(!report.passed);
    assert!(report::terminal(&report).contains("in the namespace source: no such namespace"));
}

#[test]
fn a_plan_without_routes_does_not_pass() {
    let block = Block::take();
    let mut plan = one_call(block.ingress(), block.caller(), block.callee(), Refuse::Answer);
    plan.verify.calls.clear();
    let report = run(&plan, &addresses(block), Transport::Udp, &block, STARTED);
    assert!(!report.passed && report::terminal(&report).contains("no route"));
}

#[test]
fn reached_fails_when_the_caller_is_refused() {
    breaks("refuses-all", &["reached", "bye-from-callee", "cancel"], "from`");
}

#[test]
fn reached_fails_when_there_is_no_route() {
    breaks("refuses-with-404", &["reached", "bye-from-callee", "cancel"], "no route");
}

#[test]
fn request_uri_rewritten_fails_on_a_wrong_domain() {
    breaks("wrong-domain", &["request-uri-rewritten"], "domain");
}

#[test]
fn request_uri_rewritten_fails_on_a_changed_number() {
    breaks("changes-number", &["request-uri-rewritten"], "number");
}

#[test]
fn forwarded_from_fails_when_requests_leave_by_the_ingress_socket() {
    let ids = ["forwarded-from", "ack-end-to-end", "bye-from-callee"];
    breaks("egress-by-ingress", &ids, "ingress socket");
}

#[test]
fn via_reply_path_and_what_depends_on_it_fail_without_rport() {
    let ids = ["via-reply-path", "provisional", "answered", "bye-from-callee", "cancel"];
    breaks("no-rport", &ids, "rport");
}

#[test]
fn via_reply_path_and_ack_fail_without_advertised_address() {
    let ids = ["via-reply-path", "ack-end-to-end", "bye-from-callee"];
    breaks("no-advertise", &ids, "advertise");
}

#[test]
fn provisional_fails_without_100() {
    breaks("drops-100", &["provisional"], "100");
}

#[test]
fn provisional_fails_without_180() {
    breaks("drops-180", &["provisional", "cancel"], "relay");
}

#[test]
fn answered_fails_without_200() {
    breaks("drops-200", &["answered", "bye-from-callee"], "relay");
}

#[test]
fn answered_fails_when_the_response_leaves_by_another_socket() {
    breaks("reply-by-egress", &["answered"], "firewall");
}

#[test]
fn set_up_delay_fails_on_a_slow_edge() {
    breaks("slow", &["set-up-delay"], "overloaded");
}

#[test]
fn ack_end_to_end_fails_when_the_ack_is_lost() {
    breaks("drops-ack", &["ack-end-to-end", "bye-from-callee"], "ACK");
}

#[test]
fn ack_end_to_end_fails_without_record_route() {
    breaks("no-record-route", &["ack-end-to-end", "bye-from-callee"], "Record-Route");
}

#[test]
fn reinvite_fails_when_it_is_lost() {
    breaks("drops-reinvite", &["reinvite"], "within a dialog");
}

#[test]
fn forged_refused_fails_when_the_token_is_not_checked() {
    breaks("token-not-checked", &["forged-refused"], "open relay");
}

#[test]
fn forged_refused_fails_when_the_token_is_not_bound_to_its_call() {
    breaks("token-not-bound", &["forged-refused"], "open relay");
}

#[test]
fn forged_refused_fails_when_there_is_no_token() {
    breaks("no-token", &["forged-refused"], "signs nothing");
}

#[test]
fn bye_from_caller_fails_when_it_is_lost() {
    breaks("drops-bye-from-caller", &["bye-from-caller"], "the caller");
}

#[test]
fn bye_from_callee_fails_when_it_is_lost() {
    breaks("drops-bye-from-callee", &["bye-from-callee"], "the callee");
}

#[test]
fn cancel_fails_when_it_is_not_sent_on() {
    breaks("drops-cancel", &["cancel"], "does not send CANCEL on");
}

#[test]
fn cancel_fails_without_487() {
    breaks("drops-487", &["cancel"], "relay");
}

#[test]
fn max_forwards_fails_when_it_is_ignored() {
    breaks("ignores-max-forwards", &["max-forwards"], "Max-Forwards");
}

#[test]
fn stranger_refused_fails_on_an_open_list() {
    breaks("open-list", &["stranger-refused"], "narrow");
}

#[test]
fn stranger_refused_fails_in_silence_on_an_open_list() {
    let report = smoke(&["open-list"], Refuse::Silence);
    assert_eq!(failed(&report).iter().map(|check| check.id.as_str()).collect::<Vec<_>>(), ["stranger-refused"]);
}

#[test]
fn forged_refused_fails_in_silence_when_the_token_is_not_checked() {
    let report = smoke(&["token-not-checked"], Refuse::Silence);
    assert_eq!(failed(&report).iter().map(|check| check.id.as_str()).collect::<Vec<_>>(), ["forged-refused"]);
}
