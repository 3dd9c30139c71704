//! The counts that limits on rates and calls act on, shared by the shards of an instance, and what outlives a configuration.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ipnet::IpNet;
use sipedge_sip::Time;

use super::setup::{self, Lookup, Setup};
use crate::config;

/// A budget with what is kept on top of it for calls that are up, which new calls cannot take.
pub(super) fn with_reserve(budget: u64) -> u64 {
    budget + budget / RESERVE
}

/// One part in so many of a budget is added for requests within dialogs, and for what calls in set-up come to need.
const RESERVE: u64 = 4;

/// What the shards of one instance share: the counts that limits act on, as atomics. Trunks without limits have none.
///
/// While a new configuration is taken up, some shards act on its limits and some on those of before; both count with the same numbers.
#[derive(Debug)]
pub struct Shared {
    trunks: Vec<TrunkLimits>,
    /// Addresses of peers that no trunk has any more, the newest last: calls with them may still be in progress.
    former_peers: Vec<IpNet>,
}

impl Shared {
    /// Nothing counted yet.
    pub fn new(setup: &Setup) -> Self {
        Self { trunks: limits(&[], setup), former_peers: Vec::new() }
    }

    /// The same when `next` follows `setup`: what was counted for a trunk goes on under its name, against the new limits. A trunk that
    /// had no such limit, or was not there, begins with nothing.
    #[must_use]
    pub fn renewed(&self, setup: &Setup, next: &Setup) -> Self {
        let mut former_peers: Vec<IpNet> = self.former_peers.clone();
        former_peers.extend(peers(setup));
        let mut gone: HashSet<IpNet> = former_peers.iter().copied().collect();
        for peer in peers(next) {
            gone.remove(&peer);
        }
        former_peers.retain(|peer| gone.contains(peer));
        let too_many = former_peers.len().saturating_sub(MOST_FORMER_PEERS);
        former_peers.drain(..too_many);
        Self { trunks: limits(&self.trunks, next), former_peers }
    }

    /// Whether a trunk of an earlier configuration had this address.
    pub(super) fn was_peer(&self, ip: IpAddr) -> bool {
        self.former_peers.iter().any(|peer| peer.contains(&ip))
    }

    /// Takes one call from the trunk's rate. Whether there was one.
    pub(super) fn take_rate(&self, trunk: usize, now: Time) -> bool {
        self.trunks.get(trunk).and_then(|limits| limits.rate.as_ref()).is_none_or(|rate| rate.take(now))
    }

    /// Gives a call of the trunk's rate back, which could not be used.
    pub(super) fn give_rate(&self, trunk: usize) {
        if let Some(rate) = self.trunks.get(trunk).and_then(|limits| limits.rate.as_ref()) {
            rate.due.fetch_sub(rate.interval, Ordering::Relaxed);
        }
    }

    /// Takes one of the trunk's concurrent calls. Whether there was one.
    pub(super) fn take_call(&self, trunk: usize) -> bool {
        let Some(calls) = self.trunks.get(trunk).and_then(|limits| limits.calls.as_ref()) else { return true };
        let more = |now: u32| (now < calls.most).then_some(now + 1);
        calls.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives so many concurrent calls back.
    pub(super) fn give_calls(&self, trunk: usize, count: u32) {
        if let Some(calls) = self.trunks.get(trunk).and_then(|limits| limits.calls.as_ref()) {
            // Below nothing it would wrap around, and the trunk would be refused for ever.
            let less = |now: u32| Some(now.saturating_sub(count));
            let _ = calls.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

/// The limits of a configuration, with the counts that `before` has for the same names.
fn limits(before: &[TrunkLimits], setup: &Setup) -> Vec<TrunkLimits> {
    let before: BTreeMap<&str, &TrunkLimits> = before.iter().map(|limits| (limits.trunk.as_str(), limits)).collect();
    let limits = |trunk: &config::Trunk| {
        let before = before.get(trunk.name.as_str());
        let due = before.and_then(|limits| limits.rate.as_ref()).map(|rate| Arc::clone(&rate.due));
        let now = before.and_then(|limits| limits.calls.as_ref()).map(|calls| Arc::clone(&calls.now));
        TrunkLimits {
            trunk: trunk.name.clone(),
            rate: trunk.limits.cps.map(|cps| Rate::new(cps, due.unwrap_or_default())),
            calls: trunk.limits.calls.map(|most| Calls { most, now: now.unwrap_or_default() }),
        }
    };
    setup.config.trunks.iter().map(limits).collect()
}

/// The addresses that a configuration gives its trunks: sources, and targets that are addresses.
fn peers(setup: &Setup) -> impl Iterator<Item = IpNet> {
    let sources = setup.config.trunks.iter().flat_map(|trunk| &trunk.from).map(IpNet::trunc);
    let targets = setup.trunks.iter().flat_map(|trunk| &trunk.targets).filter_map(|target| match &target.lookup {
        Lookup::Address(server) => Some(IpNet::from(server.address.ip())),
        Lookup::Name(_) => None,
    });
    sources.chain(targets)
}

/// Where the trunks of one configuration are in the next one: by their names.
#[derive(Debug)]
pub(super) struct Renumbering {
    trunks: Vec<Moved>,
}

#[derive(Debug, Clone, Copy)]
struct Moved {
    to: Option<usize>,
    /// Whether a limit counts its calls, before and after.
    counts: bool,
}

impl Renumbering {
    /// From `old` to `new`.
    pub(super) fn new(old: &Setup, new: &Setup) -> Self {
        let places: BTreeMap<&str, usize> =
            new.trunks.iter().enumerate().map(|(place, trunk)| (trunk.name.as_str(), place)).collect();
        let moved = |trunk: &setup::Trunk| {
            let to = places.get(trunk.name.as_str()).copied();
            let counts_after = to.and_then(|to| new.trunks.get(to)).is_some_and(|trunk| trunk.counts_calls);
            Moved { to, counts: trunk.counts_calls && counts_after }
        };
        Self { trunks: old.trunks.iter().map(moved).collect() }
    }

    /// The place of the trunk that was at `trunk`. `None`: it is gone.
    pub(super) fn trunk(&self, trunk: usize) -> Option<usize> {
        self.trunks.get(trunk)?.to
    }

    /// The same for a trunk whose calls a limit goes on counting; `None` for all others.
    pub(super) fn counted(&self, trunk: usize) -> Option<usize> {
        self.trunk(trunk).filter(|_| self.trunks.get(trunk).is_some_and(|moved| moved.counts))
    }
}

#[derive(Debug)]
struct TrunkLimits {
    trunk: String,
    rate: Option<Rate>,
    calls: Option<Calls>,
}

#[derive(Debug)]
struct Calls {
    most: u32,
    now: Arc<AtomicU32>,
}

/// Calls per second by the generic cell rate algorithm: one number says when the next call is due if they came evenly.
#[derive(Debug)]
struct Rate {
    interval: u64,
    due: Arc<AtomicU64>,
}

impl Rate {
    fn new(cps: u32, due: Arc<AtomicU64>) -> Self {
        Self { interval: SECOND.checked_div(u64::from(cps)).unwrap_or(u64::MAX), due }
    }

    fn take(&self, now: Time) -> bool {
        let now = now.as_micros();
        let next = |due: u64| {
            let next = due.max(now).saturating_add(self.interval);
            // A burst of one second's worth passes.
            (next <= now.saturating_add(SECOND)).then_some(next)
        };
        self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

const SECOND: u64 = 1_000_000;

/// Former peers that are remembered: a carrier's whole list of ranges changes now and then, each some hundreds at most.
const MOST_FORMER_PEERS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Place, tests};

    #[test]
    fn a_second_s_worth_at_once_then_one_per_interval() {
        let rate = Rate::new(4, Arc::default());
        let at = |ms: u64| Time::from_micros(9_000_000 + ms * 1_000);
        let taken = |ms: u64| (0..10).filter(|_| rate.take(at(ms))).count();
        assert_eq!(taken(0), 4);
        assert_eq!(taken(249), 0);
        assert_eq!(taken(250), 1);
        assert_eq!(taken(1_000), 3);
        assert_eq!(taken(60_000), 4);
        assert!(!Rate::new(0, Arc::default()).take(at(0)), "no call per second is none at all");
    }

    fn setup(trunks: &[(&str, Option<u32>, Option<u32>)]) -> Setup {
        let mut config = tests::config();
        config.trunks = trunks
            .iter()
            .map(|(name, cps, calls)| config::Trunk {
                targets: vec![config::Target::new("sip:192.0.2.9")],
                limits: config::Limits { cps: *cps, calls: *calls },
                ..config::Trunk::new(*name)
            })
            .collect();
        config.routes = vec![config::Route { from: trunks[0].0.into(), to: trunks[0].0.into() }];
        built(config)
    }

    fn built(config: config::Config) -> Setup {
        let place = Place {
            ingress: "10.0.1.10:5060".parse().unwrap(),
            egress: "10.0.1.10:5080".parse().unwrap(),
            advertised: "203.0.113.10".into(),
            shards: 1,
        };
        Setup::new(config, &place, &tests::keys(&[1])).unwrap()
    }

    #[test]
    fn counts_follow_the_name_and_limits_the_configuration() {
        let now = Time::from_micros(9_000_000);
        let before = setup(&[("a", Some(2), Some(3)), ("b", None, Some(1))]);
        let first = Shared::new(&before);
        assert!(first.take_call(0) && first.take_call(0) && first.take_call(1) && !first.take_call(1));
        assert!(first.take_rate(0, now) && first.take_rate(0, now));

        let after = setup(&[("c", None, Some(1)), ("b", None, Some(2)), ("a", Some(2), Some(2))]);
        let second = first.renewed(&before, &after);
        assert!(!second.take_call(2), "two calls of `a` are up, and two is its limit now");
        assert!(!second.take_rate(2, now), "the burst of `a` is used up");
        assert!(second.take_call(1) && !second.take_call(1), "one more of `b`");
        assert!(second.take_call(0), "`c` is new");

        // A shard that has not got the new configuration yet counts with the same numbers.
        first.give_calls(0, 1);
        assert!(second.take_call(2));
        second.give_calls(2, 5);
        assert!(first.take_call(0), "never below nothing");

        let renumbering = Renumbering::new(&before, &after);
        assert_eq!((renumbering.trunk(0), renumbering.trunk(1), renumbering.trunk(2)), (Some(2), Some(1), None));
        let none = setup(&[("b", None, None), ("a", None, Some(9))]);
        let renumbering = Renumbering::new(&before, &none);
        assert_eq!((renumbering.counted(0), renumbering.counted(1)), (Some(1), None), "`b` has no limit any more");
        let third = second.renewed(&after, &none).renewed(&none, &after);
        assert!(third.take_call(1) && third.take_call(1), "without a limit its count was let go");
    }

    #[test]
    fn peers_that_went_are_remembered_until_they_come_back() {
        let with = |targets: &[String]| {
            let mut setup = setup(&[("a", None, None)]).config;
            setup.trunks[0].targets = targets.iter().map(config::Target::new).collect();
            built(setup)
        };
        let ip = |number: usize| IpAddr::from([10, 0, (number / 256) as u8, (number % 256) as u8]);
        let target = |number: usize| format!("sip:{}", ip(number));
        let (mut current, mut shared) = (with(&[target(1)]), Shared::new(&with(&[target(1)])));
        let mut take_up = |next: Setup| {
            shared = shared.renewed(&current, &next);
            current = next;
            (1..6).map(|number| shared.was_peer(ip(number))).collect::<Vec<_>>()
        };
        assert_eq!(take_up(with(&[target(2)])), [true, false, false, false, false]);
        assert_eq!(take_up(with(&[target(1), target(3)])), [false, true, false, false, false]);
        let many: Vec<String> = (4..4 + MOST_FORMER_PEERS).map(target).collect();
        assert_eq!(take_up(with(&many)), [true, true, true, false, false]);
        assert_eq!(take_up(with(&[target(3)])), [false, false, false, true, true], "the oldest are forgotten");
    }
}
