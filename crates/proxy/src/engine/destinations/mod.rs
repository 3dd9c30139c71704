//! Where calls go: the servers of each trunk's targets, what is known of their health, and the choice among them.
//!
//! A destination is one server (RFC 3263 §4) of a target, known by transport and address. Three things decide whether it gets new
//! calls: what it did to earlier messages ([`signs`]), what it answers to OPTIONS ([`probe`]), and the operator's word ([`Mark`]).

mod choice;
mod probe;
mod signs;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sipedge_sip::Time;

use super::flow::{Server, Transport};
use super::names::Names;
use super::outbox::{Bulletin, Event, Health, Outbox};
use super::setup::{Lookup, Setup, Target};
use probe::{Prober, Watch};
use signs::{Avoided, Reason};

pub(super) use choice::{Candidate, Choice};

/// What this engine knows of destinations. Only servers of the configuration's targets are among them, so it is bounded by the
/// configuration and by what name servers say of its names.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    states: BTreeMap<Address, State>,
    /// When each avoided destination is avoided no longer.
    expiries: BTreeSet<(Time, Address)>,
    /// Round robin: how many calls have taken a destination.
    turn: u64,
    prober: Prober,
    tally: Tally,
}

/// The operator's word on a destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mark {
    /// Its health decides.
    #[default]
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
    /// When its health has last changed; `None`: not since it is known.
    pub since: Option<Time>,
    /// Why its health has last changed, one short sentence; empty: it has not.
    pub reason: String,
    /// Requests and probes in a row that came to nothing, as far as the engine that was asked has seen.
    pub failures: u32,
}

/// How many destinations there are, by what becomes of new calls to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) avoided: u64,
    /// Those that the operator has marked, whatever their health.
    pub(super) marked: u64,
}

/// What a destination is known by.
type Address = (Transport, SocketAddr);

/// What is known of one destination.
#[derive(Debug, Default)]
struct State {
    /// The trunk and the target's URI that it was first found by.
    trunk: String,
    target: String,
    /// Whether a name or a target of the configuration leads to it now, and if not, since when.
    is_listed: bool,
    gone: Option<Time>,
    /// The places of the trunk and the target whose `probe` applies to it.
    probed_by: Option<(usize, usize)>,
    is_down: bool,
    /// Not while it is down.
    avoided: Option<Avoided>,
    mark: Mark,
    /// Requests in a row that nothing came back for.
    silences: u8,
    since: Option<Time>,
    reason: Option<Reason>,
    /// Round robin: the last turn in which it was taken.
    turn: u64,
    watch: Option<Watch>,
}

impl State {
    fn health(&self) -> Health {
        match &self.avoided {
            _ if self.is_down => Health::Down,
            Some(avoided) => Health::AvoidUntil(avoided.until),
            None => Health::Up,
        }
    }

    fn change(&mut self, now: Time, reason: Reason) {
        self.since = Some(now);
        self.reason = Some(reason);
    }

    /// Tells the other shards, and with a reason the operator.
    fn announce(&self, (transport, address): Address, reason: Option<Reason>, outbox: &mut Outbox) {
        let health = self.health();
        outbox.bulletin(Bulletin { transport, address, health });
        if let Some(reason) = reason {
            let (trunk, reason) = (self.trunk.clone(), reason.to_string());
            outbox.event(Event::Destination { trunk, transport, address, health, reason });
        }
    }
}

impl Destinations {
    /// The configuration or the servers of one of its names have changed: new destinations are known from now on, and those that the
    /// configuration has dropped are forgotten. Health and marks of the others stay.
    pub(super) fn refresh(&mut self, now: Time, setup: &Setup, names: &Names) {
        for state in self.states.values_mut() {
            state.is_listed = false;
            state.probed_by = None;
        }
        for (place, trunk) in setup.trunks.iter().enumerate() {
            for (target_place, target) in trunk.targets.iter().enumerate() {
                for server in servers(target, names) {
                    let state = self.states.entry((server.transport, server.address)).or_default();
                    if !state.is_listed {
                        state.is_listed = true;
                        state.gone = None;
                        state.trunk.clone_from(&trunk.name);
                        state.target.clone_from(&target.uri);
                    }
                    if trunk.probe.is_some() {
                        state.probed_by.get_or_insert((place, target_place));
                    }
                }
            }
        }
        let is_configured = |state: &State| {
            let mut trunks = setup.trunks.iter().filter(|trunk| trunk.name == state.trunk);
            trunks.any(|trunk| trunk.targets.iter().any(|target| target.uri == state.target))
        };
        self.states.retain(|_, state| {
            let gone = *state.gone.get_or_insert(now);
            if state.is_listed {
                state.gone = None;
            }
            state.is_listed || (now.since(gone) < KEPT_WITHOUT_NAME && is_configured(state))
        });
        if self.states.values().filter(|state| !state.is_listed).count() > MOST_WITHOUT_NAME {
            self.states.retain(|_, state| state.is_listed);
        }
        for state in self.states.values_mut().filter(|state| state.is_down && state.is_listed) {
            if state.probed_by.is_none() {
                // Nobody would ever find out that it is back.
                state.is_down = false;
                state.change(now, Reason::NotProbed);
            }
        }
        self.watch(now, setup);
        self.recount();
    }

    /// Another shard has found something out.
    pub(super) fn handle_bulletin(&mut self, now: Time, bulletin: &Bulletin) {
        let address = (bulletin.transport, bulletin.address);
        let Some(state) = self.states.get_mut(&address) else { return };
        let before = state.health();
        match bulletin.health {
            Health::Up => {
                // Only probes tell up from down. Another shard's word, that it has been heard again, may cross theirs.
                state.is_down &= self.prober.is_this();
                state.silences = 0;
                state.avoided = None;
            }
            Health::Down => {
                state.is_down = true;
                state.avoided = None;
            }
            Health::AvoidUntil(until) if !state.is_down => {
                state.avoided = Some(Avoided { until, ends_with_answer: false });
                self.expiries.insert((until, address));
            }
            Health::AvoidUntil(_) => {}
        }
        if state.health() == before {
            return;
        }
        state.change(now, Reason::Told);
        if let Health::AvoidUntil(_) = bulletin.health {
            self.probe_at_once(now, address);
        }
        self.recount();
    }

    /// Whether this is, or was a while ago, the address of a destination.
    pub(super) fn knows(&self, ip: IpAddr) -> bool {
        self.states.keys().any(|(_, address)| address.ip() == ip)
    }

    /// The operator's word. Whether there is such a destination.
    pub(super) fn mark(&mut self, transport: Transport, address: SocketAddr, mark: Mark) -> bool {
        let Some(state) = self.states.get_mut(&(transport, address)) else { return false };
        state.mark = mark;
        self.recount();
        true
    }

    /// Every destination of the configuration that is known by now.
    pub(super) fn list(&self, setup: &Setup, names: &Names) -> Vec<DestinationStatus> {
        let targets = setup.trunks.iter().flat_map(|trunk| trunk.targets.iter().map(move |target| (trunk, target)));
        let each =
            targets.flat_map(|(trunk, target)| servers(target, names).iter().map(move |one| (trunk, target, one)));
        let unknown = State::default();
        each.map(|(trunk, target, server)| {
            let state = self.states.get(&(server.transport, server.address)).unwrap_or(&unknown);
            let probes = state.watch.as_ref().map_or(0, Watch::failures);
            DestinationStatus {
                trunk: trunk.name.clone(),
                target: target.uri.clone(),
                transport: server.transport,
                address: server.address,
                health: state.health(),
                mark: state.mark,
                since: state.since,
                reason: state.reason.map(|reason| reason.to_string()).unwrap_or_default(),
                failures: u32::from(state.silences.max(probes)),
            }
        })
        .collect()
    }

    /// How many there are of each kind. Only the engine that probes says so: the sum over an instance's shards is then right.
    pub(super) fn tally(&self) -> Tally {
        if self.prober.is_this() { self.tally } else { Tally::default() }
    }

    /// When something is due: a probe, the end of the wait for one, or of the time for which a destination is avoided.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let expiry = self.expiries.first().map(|(at, _)| *at);
        [expiry, self.prober.next()].into_iter().flatten().min()
    }

    /// Destinations whose time is over are not avoided any longer.
    fn expire(&mut self, now: Time) {
        let mut has_changed = false;
        while let Some((at, address)) = self.expiries.first().copied().filter(|(at, _)| *at <= now) {
            self.expiries.remove(&(at, address));
            // It may have been put off meanwhile.
            let state = self.states.get_mut(&address);
            if let Some(state) = state.filter(|state| state.avoided.is_some_and(|avoided| avoided.until <= now)) {
                state.avoided = None;
                state.change(now, Reason::TimeIsOver);
                has_changed = true;
            }
        }
        if has_changed {
            self.recount();
        }
    }

    fn recount(&mut self) {
        self.tally = Tally::default();
        for state in self.states.values().filter(|state| state.is_listed) {
            match (state.mark, state.health()) {
                (Mark::Draining | Mark::Down, _) => self.tally.marked += 1,
                (Mark::InService, Health::Up) => self.tally.up += 1,
                (Mark::InService, Health::Down) => self.tally.down += 1,
                (Mark::InService, Health::AvoidUntil(_)) => self.tally.avoided += 1,
            }
        }
    }
}

/// The servers of a target, as far as they are known.
fn servers<'a>(target: &'a Target, names: &'a Names) -> &'a [Server] {
    match &target.lookup {
        Lookup::Address(server) => std::slice::from_ref(server),
        Lookup::Name(query) => names.known(query),
    }
}

/// What is known of a server is kept for so long after its name has ceased to lead to it: name servers that give some of many servers
/// at a time bring it back, and the operator's mark has to be there then.
const KEPT_WITHOUT_NAME: Duration = Duration::from_secs(3_600);
/// Servers that are kept so; a name that goes through more of them in an hour has new ones each time.
const MOST_WITHOUT_NAME: usize = 1_024;

#[cfg(test)]
mod tests;
