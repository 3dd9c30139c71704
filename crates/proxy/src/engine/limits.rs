//! The counts that limits on rates and calls act on, shared by the shards of an instance.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sipedge_sip::Time;

use super::setup::Setup;

/// A budget with what is kept on top of it for calls that are up, which new calls cannot take.
pub(super) fn with_reserve(budget: u64) -> u64 {
    budget + budget / RESERVE
}

/// One part in so many of a budget is added for requests within dialogs, and for what calls in set-up come to need.
const RESERVE: u64 = 4;

/// What the shards of one instance share: the counts that limits act on, as atomics. Trunks without limits have none.
#[derive(Debug)]
pub struct Shared {
    trunks: Vec<TrunkLimits>,
}

impl Shared {
    /// Nothing counted yet.
    pub fn new(setup: &Setup) -> Self {
        let limits = |trunk: &crate::config::Trunk| TrunkLimits {
            rate: trunk.limits.cps.map(Rate::new),
            calls: trunk.limits.calls.map(|most| Calls { most, now: AtomicU32::new(0) }),
        };
        Self { trunks: setup.config.trunks.iter().map(limits).collect() }
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
            calls.now.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct TrunkLimits {
    rate: Option<Rate>,
    calls: Option<Calls>,
}

#[derive(Debug)]
struct Calls {
    most: u32,
    now: AtomicU32,
}

/// Calls per second by the generic cell rate algorithm: one number says when the next call is due if they came evenly.
#[derive(Debug)]
struct Rate {
    interval: u64,
    due: AtomicU64,
}

impl Rate {
    fn new(cps: u32) -> Self {
        Self { interval: SECOND.checked_div(u64::from(cps)).unwrap_or(u64::MAX), due: AtomicU64::new(0) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_at_once_then_one_per_interval() {
        let rate = Rate::new(4);
        let at = |ms: u64| Time::from_micros(9_000_000 + ms * 1_000);
        let taken = |ms: u64| (0..10).filter(|_| rate.take(at(ms))).count();
        assert_eq!(taken(0), 4);
        assert_eq!(taken(249), 0);
        assert_eq!(taken(250), 1);
        assert_eq!(taken(1_000), 3);
        assert_eq!(taken(60_000), 4);
        assert!(!Rate::new(0).take(at(0)), "no call per second is none at all");
    }
}
