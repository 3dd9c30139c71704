//! 1,000 calls at 100 per second from carrier to carrier, by SIPp: none fails, and no message is sent twice.

#[path = "support/edge.rs"]
mod edge;
#[path = "support/sipp.rs"]
mod sipp;
#[path = "support/project.rs"]
mod support;

use std::sync::{Mutex, PoisonError};

use edge::{Edge, SIX_LINES, sum};
use sipp::{Sipp, Statistics, cpu_pressure};
use support::{program, skip};

const CALLS: u64 = 1_000;
const CALLS_PER_SECOND: u64 = 100;
/// How long a call is up.
const TALK_MS: &str = "1000";

/// Two peers with ranges by hand, each a network of its own.
const TWO_CARRIERS: &str = "\
version: 1
name: twilio-bridge
aws: { region: us-east-1, profile: default }
trunks:
  carrier: { from: [198.51.100.0/28] }
  pbx: { from: [192.0.2.16/29], targets: [\"sip:192.0.2.18:5062\"] }
routes:
  - { from: carrier, to: pbx }
";

#[test]
fn load_balanced() {
    carries_the_load("load_balanced", SIX_LINES, "load-balanced");
}

#[test]
fn single_ec2() {
    carries_the_load("single_ec2", SIX_LINES, "single-ec2");
}

#[test]
fn load_balanced_between_two_carriers() {
    carries_the_load("load_balanced_between_two_carriers", TWO_CARRIERS, "load-balanced");
}

fn carries_the_load(test: &str, spec: &str, topology: &str) {
    // One load at a time: what is measured is the edge, not how the tests share the machine.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if program("sipp").is_none() {
        return skip(test, "sipp is not installed (Debian package sip-tester)");
    }
    let Some(edge) = Edge::deploy(test, spec, topology) else { return };
    let route = edge.route().clone();
    let callees: Vec<Sipp> = route.callee.iter().map(|place| Sipp::start(&edge, "callee", place, &[])).collect();
    for (callee, place) in callees.iter().zip(&route.callee) {
        callee.await_socket(place.address);
    }
    let (calls, rate) = (CALLS.to_string(), CALLS_PER_SECOND.to_string());
    let ingress = edge.ingress().to_string();
    let arguments = ["-m", &calls, "-r", &rate, "-d", TALK_MS, "-s", &route.number, &ingress];
    let caller = Sipp::start(&edge, "caller", &route.caller, &arguments).finish();
    let called: Vec<Statistics> = callees.into_iter().map(Sipp::stop).collect();

    let counts = edge.counts_with("calls_answered", CALLS);
    println!("{test}: {}; {}", caller.set_up_delay(CALLS), cpu_pressure());
    for (id, counts) in &counts {
        println!("{test}: {id} carried {} calls", counts["calls_answered"]);
    }
    for name in ["calls_started", "calls_answered", "acks_forwarded", "requests_in_dialog"] {
        assert_eq!(sum(&counts, name), CALLS, "{name}: {counts:#?}");
    }
    for name in [
        "calls_failed",
        "retransmissions_absorbed",
        "retransmissions_sent",
        "timeouts",
        "stray_responses",
        "net_kernel_drops",
        "net_send_errors",
        "net_send_queue_drops",
        "net_hand_over_drops",
    ] {
        assert_eq!(sum(&counts, name), 0, "{name}: {counts:#?}");
    }
    caller.assert_clean(CALLS);
    let arrived = called.iter().map(|statistics| statistics.number("SuccessfulCall(C)")).sum::<u64>();
    assert_eq!(arrived, CALLS, "calls at all callees");
    for statistics in &called {
        statistics.assert_clean(statistics.number("TotalCallCreated"));
    }
    edge.destroy();
}
