//! Where calls go: the servers of each trunk's targets, what is known of their health, and the choice among them.

use std::collections::HashMap;
use std::net::SocketAddr;

use sipedge_sip::Time;

use super::Engine;
use super::flow::{Server, Transport};
use super::names::Names;
use super::outbox::{Bulletin, Health};
use super::setup::{Lookup, Setup};
use super::transactions::Key;

/// What this engine knows of destinations. Each is a server, known by transport and address.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    known: HashMap<(Transport, SocketAddr), Health>,
    marks: HashMap<(Transport, SocketAddr), Mark>,
}

/// The operator's word on a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Its health decides.
    InService,
    /// It gets no new calls; its calls in progress go on.
    Draining,
    /// It counts as down, whatever it answers.
    Down,
}

/// One line of what the control endpoint shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationStatus {
    /// Trunk that it belongs to.
    pub trunk: String,
    /// The target's URI, as in the configuration.
    pub target: String,
    /// How it is reached.
    pub transport: Transport,
    /// Where it is.
    pub address: SocketAddr,
    /// What is known of it.
    pub health: Health,
    /// The operator's word.
    pub mark: Mark,
}

/// A destination that a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Place of the target in its trunk's list.
    pub(super) target: usize,
    pub(super) server: Server,
}

/// What there is for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Take(Candidate),
    /// Every destination that is known has been tried.
    Exhausted,
    /// None is in service, or no name of theirs has an address.
    Unavailable,
}

impl Destinations {
    /// The best destination of `trunk` for the call with this hash that has not been tried yet.
    pub(super) fn choose(
        &mut self,
        _now: Time,
        setup: &Setup,
        names: &Names,
        trunk: usize,
        call: u64,
        tried: impl Fn(&Candidate) -> bool,
    ) -> Choice {
        let mut candidates: Vec<Candidate> = Vec::new();
        let targets = setup.trunks.get(trunk).map(|trunk| trunk.targets.as_slice()).unwrap_or_default();
        for (target, settings) in targets.iter().enumerate() {
            let servers = match &settings.lookup {
                Lookup::Address(server) => std::slice::from_ref(server),
                Lookup::Name(query) => names.known(query),
            };
            candidates.extend(servers.iter().map(|server| Candidate { target, server: *server }));
        }
        if candidates.is_empty() {
            return Choice::Unavailable;
        }
        candidates.retain(|candidate| !tried(candidate));
        let place = call % candidates.len().max(1) as u64;
        candidates.get(place as usize).map_or(Choice::Exhausted, |candidate| Choice::Take(*candidate))
    }

    /// How many servers the targets of `trunk` have.
    pub(super) fn count(&self, setup: &Setup, names: &Names, trunk: usize) -> usize {
        let targets = setup.trunks.get(trunk).map(|trunk| trunk.targets.as_slice()).unwrap_or_default();
        let servers = |target: &super::setup::Target| match &target.lookup {
            Lookup::Address(_) => 1,
            Lookup::Name(query) => names.known(query).len(),
        };
        targets.iter().map(servers).sum()
    }

    /// Whether this is a probe that is under way.
    pub(super) fn is_probe(&self, _key: Key) -> bool {
        false
    }

    /// Another shard has found something out.
    pub(super) fn handle_bulletin(&mut self, _now: Time, bulletin: &Bulletin) {
        self.known.insert((bulletin.transport, bulletin.address), bulletin.health);
    }

    /// The operator's word.
    pub(super) fn mark(&mut self, transport: Transport, address: SocketAddr, mark: Mark) {
        match mark {
            Mark::InService => self.marks.remove(&(transport, address)),
            _ => self.marks.insert((transport, address), mark),
        };
    }

    /// Every destination of the configuration that is known by now.
    pub(super) fn list(&self, setup: &Setup, names: &Names) -> Vec<DestinationStatus> {
        let mut list = Vec::new();
        for trunk in &setup.trunks {
            for target in &trunk.targets {
                let servers = match &target.lookup {
                    Lookup::Address(server) => std::slice::from_ref(server),
                    Lookup::Name(query) => names.known(query),
                };
                for server in servers {
                    let key = (server.transport, server.address);
                    list.push(DestinationStatus {
                        trunk: trunk.name.clone(),
                        target: target.uri.clone(),
                        transport: server.transport,
                        address: server.address,
                        health: self.known.get(&key).copied().unwrap_or(Health::Up),
                        mark: self.marks.get(&key).copied().unwrap_or(Mark::InService),
                    });
                }
            }
        }
        list
    }
}

impl Engine {
    /// A final response has come from a server.
    pub(super) fn note_answer(
        &mut self,
        _now: Time,
        _transport: Transport,
        _address: SocketAddr,
        _code: u16,
        _retry_after: Option<u32>,
    ) {
    }
    /// A server has not answered.
    pub(super) fn note_silence(&mut self, _now: Time, _transport: Transport, _address: SocketAddr) {}
    /// A server could not be reached.
    pub(super) fn note_failure(&mut self, _now: Time, _transport: Transport, _address: SocketAddr) {}
    /// A probe was answered.
    pub(super) fn probe_answered(&mut self, _now: Time, _key: Key, _code: u16) {}
    /// A probe was not answered.
    pub(super) fn probe_timed_out(&mut self, _now: Time, _key: Key) {}
}
