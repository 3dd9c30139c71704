//! Load on an edge whose instances are replaced: calls at 50 per second, 200 of them up at any moment.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::net::SocketAddr;

use crate::answerer::{Answered, Answerer};
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
/// Calls that are held.
const HELD: u64 = 50;
/// Sockets that SIPp may have: one for each call that is up, and room.
const SOCKETS: &str = "1000";
/// Calls that are up when the load is what it is to be.
const UP: u64 = 2 * RATE * TALK_MS / 1_000;

/// Two callers and their callees.
pub struct Load {
    callers: Vec<Sipp>,
    callees: Vec<Answerer>,
    /// Calls of each caller.
    calls: u64,
}

impl Load {
    /// Calls by the way of `route`: one caller has all its calls on one flow, the other one a flow for each. Returns when 200 are up.
    pub fn start(edge: &Edge, route: &VerifyCall) -> Self {
        let socket = |place: &Endpoint| edge.lab.udp_socket(&place.namespace, place.address).expect("a socket");
        let callees: Vec<Answerer> = route.callee.iter().map(|place| Answerer::start(socket(place))).collect();
        let (calls, rate, talk) = (CALLS.to_string(), RATE.to_string(), TALK_MS.to_string());
        let ingress = edge.ingress().to_string();
        let common = ["-m", &calls, "-r", &rate, "-d", &talk, "-s", &route.number, &ingress];
        let beside = SocketAddr::new(another(edge, route), route.caller.address.port());
        let places = [
            (route.caller.clone(), vec!["-t", "u1"]),
            (Endpoint { address: beside, ..route.caller.clone() }, vec!["-t", "un", "-max_socket", SOCKETS]),
        ];
        let callers = places
            .iter()
            .map(|(place, flows)| Sipp::start(edge, "caller", place, &[flows.as_slice(), &common].concat()))
            .collect();
        eventually("200 calls are up", || answered(edge) >= UP);
        Self { callers, callees, calls: CALLS }
    }

    /// Fifty calls that are set up, and stay up for so long. Returns when they are up.
    pub fn hold(edge: &Edge, route: &VerifyCall, talk_ms: u64) -> Self {
        let socket = |place: &Endpoint| edge.lab.udp_socket(&place.namespace, place.address).expect("a socket");
        let callees: Vec<Answerer> = route.callee.iter().map(|place| Answerer::start(socket(place))).collect();
        let (calls, talk, ingress) = (HELD.to_string(), talk_ms.to_string(), edge.ingress().to_string());
        let arguments = ["-m", &calls, "-r", &calls, "-d", &talk, "-s", &route.number, &ingress, "-t", "u1"];
        let callers = vec![Sipp::start(edge, "caller", &route.caller, &arguments)];
        eventually("the calls are up", || answered(edge) >= HELD);
        Self { callers, callees, calls: HELD }
    }

    /// Waits until all calls are over: every one of them was set up, and ended by its BYE and the 200 to it.
    pub fn assert_no_call_was_lost(self, test: &str) {
        let Self { callers, callees, calls } = self;
        let count = callers.len() as u64;
        let callers: Vec<Statistics> = callers.into_iter().map(Sipp::finish).collect();
        let answered: Vec<Answered> = callees.into_iter().flat_map(Answerer::stop).collect();
        for caller in &callers {
            println!(
                "{test}: {}; sent again: {}; {}",
                caller.set_up_delay(calls),
                caller.number("Retransmissions(C)"),
                cpu_pressure()
            );
            caller.assert_none_lost(calls);
        }
        assert!(answered.len() as u64 >= count * calls, "{} calls arrived", answered.len());
        let lost: Vec<&Answered> = answered.iter().filter(|call| !call.acknowledged || !call.ended).collect();
        assert!(lost.is_empty(), "calls that were not acknowledged or had no BYE: {lost:#?}");
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
