//! The choice among destinations.
//!
//! Targets by priority; among those of one priority by `select`; among the servers of a target by SRV's priority and weight (RFC
//! 2782). The draw is weighted rendezvous hashing: each candidate draws a number from the hash of the call and of itself, and the least
//! number wins. So the call alone decides, every instance takes the same, the order of further tries is fixed too, and a candidate that
//! goes or comes moves no calls but its own.

use sipedge_sip::Time;

use super::super::flow::{Server, Transport};
use super::super::names::Names;
use super::super::setup::{Lookup, Setup, Target, Trunk};
use super::{Destinations, Mark, servers};
use crate::config::Select;

/// A destination that a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Candidate {
    /// Place of the target in its trunk's list.
    pub(in crate::engine) target: usize,
    pub(in crate::engine) server: Server,
}

/// What there is for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Choice {
    Take(Candidate),
    /// Every destination that is in service has been tried.
    Exhausted,
    /// None is in service, or no name of theirs has an address.
    Unavailable,
}

/// The order of candidates: the least is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Candidates of one group may be taken at the same time.
    group: Group,
    /// Among the targets of the group; the place in the list settles a draw.
    target: (u64, usize),
    /// Among the servers of the target.
    priority: u32,
    has_no_weight: bool,
    server: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    is_avoided: bool,
    priority: u16,
    has_no_weight: bool,
}

/// A call that looks for a destination.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    now: Time,
    hash: u64,
    trunk: &'a Trunk,
    names: &'a Names,
}

impl Destinations {
    /// The best destination of `trunk` for the call with this hash that has not been tried yet.
    pub(in crate::engine) fn choose(
        &mut self,
        now: Time,
        setup: &Setup,
        names: &Names,
        trunk: usize,
        call: u64,
        tried: impl Fn(&Candidate) -> bool,
    ) -> Choice {
        let Some(trunk) = setup.trunks.get(trunk) else { return Choice::Unavailable };
        let call = Call { now, hash: call, trunk, names };
        let mut best: Option<(Rank, Candidate)> = None;
        let mut was_tried = false;
        for (place, target) in trunk.targets.iter().enumerate() {
            let found = self.best_server(&call, place, target, |candidate| {
                let is_tried = tried(candidate);
                was_tried |= is_tried;
                is_tried
            });
            if let Some(found) = found
                && best.is_none_or(|(least, _)| found.0 < least)
            {
                best = Some(found);
            }
        }
        match best {
            Some((_, candidate)) => {
                if trunk.select == Select::RoundRobin {
                    self.take_turn(&candidate.server);
                }
                Choice::Take(candidate)
            }
            None if was_tried => Choice::Exhausted,
            None => Choice::Unavailable,
        }
    }

    /// Puts into `set` the destinations that the call with this hash forks to (RFC 3261 §16.6): of each target of the best priority that
    /// is in service its best server, in the order of [`Destinations::choose`]. A target's other servers are for when that one fails
    /// (RFC 3263 §4.3), not for forking. Empty: none is in service.
    pub(in crate::engine) fn set(
        &self,
        now: Time,
        setup: &Setup,
        names: &Names,
        trunk: usize,
        call: u64,
        set: &mut Vec<Candidate>,
    ) {
        set.clear();
        let Some(trunk) = setup.trunks.get(trunk) else { return };
        let call = Call { now, hash: call, trunk, names };
        let mut best: Option<Group> = None;
        for (place, target) in trunk.targets.iter().enumerate() {
            let Some((rank, candidate)) = self.best_server(&call, place, target, |_| false) else { continue };
            if best.is_none_or(|best| rank.group < best) {
                best = Some(rank.group);
                set.clear();
            }
            // Two names of one server are one destination: it gets the request once.
            let is_there = |other: &Candidate| {
                (other.server.transport, other.server.address) == (candidate.server.transport, candidate.server.address)
            };
            if best == Some(rank.group) && !set.iter().any(is_there) {
                set.push(candidate);
            }
        }
        set.sort_unstable_by_key(|candidate| {
            let target = trunk.targets.get(candidate.target);
            target.map(|target| (self.draw_of_target(&call, target), candidate.target))
        });
    }

    /// Whether any destination of `trunk` is in service.
    pub(in crate::engine) fn has_any(&self, now: Time, setup: &Setup, names: &Names, trunk: usize) -> bool {
        let Some(trunk) = setup.trunks.get(trunk) else { return false };
        let call = Call { now, hash: 0, trunk, names };
        let mut targets = trunk.targets.iter().enumerate();
        targets.any(|(place, target)| self.best_server(&call, place, target, |_| false).is_some())
    }

    /// How many servers the targets of `trunk` have, in service or not.
    pub(in crate::engine) fn servers(setup: &Setup, names: &Names, trunk: usize) -> usize {
        let targets = setup.trunks.get(trunk).map(|trunk| trunk.targets.as_slice()).unwrap_or_default();
        let servers = |target: &Target| match &target.lookup {
            Lookup::Address(_) => 1,
            Lookup::Name(query) => names.known(query).len(),
        };
        targets.iter().map(servers).sum()
    }

    /// The best server of a target that is in service and not tried, with its rank.
    fn best_server(
        &self,
        call: &Call<'_>,
        place: usize,
        target: &Target,
        mut tried: impl FnMut(&Candidate) -> bool,
    ) -> Option<(Rank, Candidate)> {
        let servers = servers(target, call.names);
        let draw_of_target = self.draw_of_target(call, target);
        let mut best: Option<(Rank, Candidate)> = None;
        for server in servers {
            let candidate = Candidate { target: place, server: *server };
            if tried(&candidate) {
                continue;
            }
            let Some(is_avoided) = self.is_avoided(call.now, server) else { continue };
            let rank = Rank {
                group: Group { is_avoided, priority: target.priority, has_no_weight: target.weight == 0 },
                target: (draw_of_target, place),
                priority: server.priority,
                has_no_weight: server.weight == 0,
                server: match call.trunk.select {
                    _ if servers.len() == 1 => 0,
                    Select::RoundRobin => self.turn_of(server),
                    _ => draw(call.hash, hash_of(server), server.weight),
                },
            };
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, candidate));
            }
        }
        best
    }

    fn draw_of_target(&self, call: &Call<'_>, target: &Target) -> u64 {
        match call.trunk.select {
            // Most trunks have one.
            _ if call.trunk.targets.len() == 1 => 0,
            Select::RoundRobin => {
                let servers = servers(target, call.names).iter();
                servers.map(|server| self.turn_of(server)).max().unwrap_or_default()
            }
            Select::CallId => draw(call.hash, target.hash, 1),
            Select::Weight | Select::All => draw(call.hash, target.hash, target.weight),
        }
    }

    /// `None`: it gets no new calls. Whether it gets them only when there is no other.
    fn is_avoided(&self, now: Time, server: &Server) -> Option<bool> {
        let Some(state) = self.states.get(&(server.transport, server.address)) else { return Some(false) };
        let is_in_service = state.mark == Mark::InService && !state.is_down;
        is_in_service.then(|| state.avoided.is_some_and(|avoided| avoided.until > now))
    }

    fn turn_of(&self, server: &Server) -> u64 {
        self.states.get(&(server.transport, server.address)).map_or(0, |state| state.turn)
    }

    fn take_turn(&mut self, server: &Server) {
        self.turn += 1;
        if let Some(state) = self.states.get_mut(&(server.transport, server.address)) {
            state.turn = self.turn;
        }
    }
}

/// The number that a candidate draws for a call, the least of all wins: exponentially distributed with its weight as the rate, so that
/// it wins in proportion to its weight. Weight 0 draws like 1.
fn draw(call: u64, candidate: u64, weight: u16) -> u64 {
    let bits = mixed(call ^ mixed(candidate)) >> 11;
    // 53 bits, in the middle of their step: never 0, never 1.
    let uniform = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
    // The bits of floats that are not negative are in the order of the floats.
    (-uniform.ln() / f64::from(weight.max(1))).to_bits()
}

/// What a server draws with: its transport and address, the same on every instance.
fn hash_of(server: &Server) -> u64 {
    let address = match server.address.ip() {
        std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()),
        std::net::IpAddr::V6(ip) => mixed((ip.to_bits() >> 64) as u64) ^ ip.to_bits() as u64,
    };
    let transport = match server.transport {
        Transport::Udp => 1,
        Transport::Tcp => 2,
        Transport::Tls => 3,
    };
    mixed(address) ^ (u64::from(server.address.port()) << 8 | transport)
}

/// Every bit of the result depends on every bit of `bits` (the finalizer of SplitMix64).
fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}
