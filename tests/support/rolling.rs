//! Load on an edge whose instances are replaced: calls at 50 per second, 200 of them up at any moment.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::net::SocketAddr;

use crate::edge::Edge;
use crate::sipp::{Sipp, Statistics, cpu_pressure};
use crate::support::{Ran, eventually};
use sipedge::plan::{Endpoint, VerifyCall};

/// Calls per second of each of the two callers.
const RATE: u64 = 25;
/// How long a call is up: with both callers, 200 calls are.
const TALK_MS: u64 = 4_000;
/// Calls of each caller: fourteen seconds of them. A replacement of all instances takes four, beside other tests a multiple.
const CALLS: u64 = 350;
/// Calls that are up when the load is what it is to be.
const UP: u64 = 2 * RATE * TALK_MS / 1_000;

/// Two callers and their callees.
pub struct Load {
    callers: Vec<Sipp>,
    callees: Vec<Sipp>,
}

impl Load {
    /// Calls by the way of `route`: one caller has all its calls on one flow, the other one a flow for each. Returns when 200 are up.
    pub fn start(edge: &Edge, route: &VerifyCall) -> Self {
        let callees: Vec<Sipp> = route.callee.iter().map(|place| Sipp::start(edge, "callee", place, &[])).collect();
        for (callee, place) in callees.iter().zip(&route.callee) {
            callee.await_socket(place.address);
        }
        let (calls, rate, talk) = (CALLS.to_string(), RATE.to_string(), TALK_MS.to_string());
        let ingress = edge.ingress().to_string();
        let common = ["-m", &calls, "-r", &rate, "-d", &talk, "-s", &route.number, &ingress];
        let beside = SocketAddr::new(another(edge, route), route.caller.address.port());
        let places = [
            (route.caller.clone(), &["-t", "u1"]),
            (Endpoint { address: beside, ..route.caller.clone() }, &["-t", "un"]),
        ];
        let callers = places
            .iter()
            .map(|(place, flows)| Sipp::start(edge, "caller", place, &[flows.as_slice(), &common].concat()))
            .collect();
        eventually("200 calls are up", || answered(edge) >= UP);
        Self { callers, callees }
    }

    /// Waits until all calls are over: every one of them was set up, and ended by its BYE and the 200 to it.
    pub fn assert_no_call_was_lost(self, test: &str) {
        let callers: Vec<Statistics> = self.callers.into_iter().map(Sipp::finish).collect();
        let callees: Vec<Statistics> = self.callees.into_iter().map(Sipp::stop).collect();
        for caller in &callers {
            println!(
                "{test}: {}; sent again: {}; {}",
                caller.set_up_delay(CALLS),
                caller.number("Retransmissions(C)"),
                cpu_pressure()
            );
            caller.assert_none_lost(CALLS);
        }
        let arrived: u64 = callees.iter().map(|callee| callee.number("SuccessfulCall(C)")).sum();
        let failed: u64 = callees.iter().map(|callee| callee.number("FailedCall(C)")).sum();
        assert!(arrived >= 2 * CALLS, "{arrived} calls ended at the callees");
        assert_eq!(failed, 0, "calls that failed at the callees");
    }
}

/// Fails unless a command said that instances left while the load went on: otherwise the test has shown nothing.
pub fn assert_calls_went_on(ran: &Ran) {
    let lines = ran.json_lines();
    let busy = lines.iter().any(|line| line["event"] == "instance" && line["in_progress"].as_u64().is_some());
    assert!(busy, "{}", ran.stdout);
}

/// Calls that the instances have answered.
fn answered(edge: &Edge) -> u64 {
    edge.instances().iter().map(|id| edge.counts(id)["calls_answered"]).sum()
}

/// An address of the source that neither the caller nor a callee has.
fn another(edge: &Edge, route: &VerifyCall) -> std::net::IpAddr {
    let trunk = edge.plan.proxy.trunks.iter().find(|trunk| trunk.name == route.from).expect("the source trunk");
    let taken = |address: &std::net::IpAddr| {
        *address == route.caller.address.ip() || route.callee.iter().any(|callee| callee.address.ip() == *address)
    };
    let mut hosts = trunk.from.iter().flat_map(|range| range.hosts()).filter(|address| !taken(address));
    hosts.next().expect("another address")
}
