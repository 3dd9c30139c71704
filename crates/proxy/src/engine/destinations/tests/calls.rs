//! What calls through the engine find out about destinations, and where the next ones go.

use std::sync::Arc;

use super::*;
use crate::engine::{Arrival, Control, Engine, Port, Shared};

struct Edge {
    engine: Engine,
    now: Time,
    calls: u32,
}

/// An INVITE that the edge has sent.
struct Invite {
    last: u8,
    to: SocketAddr,
    text: String,
}

impl Edge {
    fn new(trunk: config::Trunk) -> Self {
        let setup = Arc::new(setup(trunk));
        let shared = Arc::new(Shared::new(&setup));
        let mut engine = Engine::new(setup, shared, NOW);
        engine.handle_control(NOW, Control::Open);
        Self { engine, now: NOW, calls: 0 }
    }

    /// Another call; where its INVITE goes.
    fn call(&mut self) -> Invite {
        self.calls += 1;
        let branch = format!("z9hG4bK{}", self.calls);
        let text = bench::request("INVITE", "sip:+1555@edge", &branch, "", "").replace('\n', "\r\n");
        let text = text.replace("call@1", &format!("call@{}", self.calls));
        let caller = Arrival::datagram(Port::Ingress, bench::CALLER.parse().unwrap());
        self.engine.handle_message(self.now, &caller, text.as_bytes());
        self.invites().pop().unwrap()
    }

    fn invites(&mut self) -> Vec<Invite> {
        let invite = |to: SocketAddr, text: String| {
            let last = last_of(&Candidate { target: 0, server: bench::server(&to.to_string()) });
            text.starts_with("INVITE ").then_some(Invite { last, to, text })
        };
        let sent = self.engine.outbox().transmits();
        let sent = sent.filter_map(|one| invite(one.hop.to, String::from_utf8_lossy(one.bytes).into_owned())).collect();
        self.engine.clear_outbox();
        sent
    }

    /// The destination's response; INVITEs that the edge sends then.
    fn answer(&mut self, invite: &Invite, status: &str) -> Vec<Invite> {
        let from = Arrival::datagram(Port::Egress, invite.to);
        self.engine.handle_message(self.now, &from, probes::response(&invite.text, status).as_bytes());
        self.invites()
    }

    /// Time passes; INVITEs that the edge sends to other destinations than this.
    fn pass(&mut self, time: Duration, but: u8) -> Vec<Invite> {
        let until = self.now + time;
        let mut sent = Vec::new();
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= until) {
            self.now = at;
            self.engine.handle_timeout(at);
            sent.extend(self.invites().into_iter().filter(|invite| invite.last != but));
        }
        self.now = until;
        sent
    }
}

fn two(attempts: u8) -> config::Trunk {
    let failover = Failover { attempts, ..Failover::default() };
    config::Trunk { failover, ..trunk(Select::Weight, &[("sip:198.51.100.1", 1, 1), ("sip:198.51.100.2", 2, 1)]) }
}

#[test]
fn three_calls_without_an_answer_send_the_fourth_elsewhere() {
    let mut edge = Edge::new(two(1));
    for _ in 0..3 {
        assert_eq!(edge.call().last, 1);
        edge.pass(secs(6), 1);
    }
    let fourth = edge.call();
    assert_eq!(fourth.last, 2);
    edge.answer(&fourth, "486 Busy Here");
    edge.pass(secs(31), 0);
    assert_eq!(edge.call().last, 1, "after half a minute one call tries it again");
}

#[test]
fn any_response_to_any_call_shows_that_somebody_is_there() {
    for status in ["100 Trying", "180 Ringing", "404 Not Found"] {
        let mut edge = Edge::new(two(1));
        for round in 0..6 {
            let silent = edge.call();
            assert_eq!(silent.last, 1, "round {round} with {status}");
            if round % 2 == 1 {
                let other = edge.call();
                edge.pass(secs(4), 0);
                edge.answer(&other, status);
            }
            edge.pass(secs(6), 0);
        }
    }
}

#[test]
fn a_call_fails_over_and_the_next_one_goes_there_at_once() {
    let mut edge = Edge::new(two(3));
    let first = edge.call();
    let second = edge.answer(&first, "503 Service Unavailable\r\nRetry-After: 60");
    assert_eq!(second.iter().map(|invite| invite.last).collect::<Vec<_>>(), [2]);
    edge.answer(&second[0], "486 Busy Here");
    assert_eq!(edge.call().last, 2);
}

#[test]
fn a_call_that_nobody_answers_goes_on_to_the_next() {
    let mut edge = Edge::new(two(3));
    assert_eq!(edge.call().last, 1);
    let mut next: Vec<u8> = edge.pass(secs(60), 1).iter().map(|invite| invite.last).collect();
    next.dedup();
    assert_eq!(next, [2]);
}

#[test]
fn turns_are_taken_call_by_call() {
    let targets = [("sip:198.51.100.1", 1, 1), ("sip:198.51.100.2", 1, 1)];
    let mut edge = Edge::new(trunk(Select::RoundRobin, &targets));
    let taken: Vec<u8> = (0..6).map(|_| edge.call().last).collect();
    assert_eq!(taken, [1, 2, 1, 2, 1, 2]);
}

#[test]
fn a_call_forks_to_the_targets_of_the_best_priority_and_no_further() {
    let targets = [("sip:198.51.100.1", 1, 1), ("sip:198.51.100.2", 1, 1), ("sip:198.51.100.3", 2, 1)];
    let mut edge = Edge::new(trunk(Select::All, &targets));
    let text = bench::request("INVITE", "sip:+1555@edge", "z9hG4bKfork", "", "").replace('\n', "\r\n");
    let caller = Arrival::datagram(Port::Ingress, bench::CALLER.parse().unwrap());
    edge.engine.handle_message(edge.now, &caller, text.as_bytes());
    let mut forked: Vec<u8> = edge.invites().iter().map(|invite| invite.last).collect();
    forked.sort_unstable();
    assert_eq!(forked, [1, 2]);
}
