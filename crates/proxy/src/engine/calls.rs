//! The calls that limits count, each from its INVITE to its end.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use sipedge_sip::{Time, TimerWheel};

use super::transactions::BranchHasher;

/// Calls that a limit counts: in set-up and in progress. Trunks without a limit on calls have no entry here.
///
/// A call leaves when its set-up fails, when its BYE has been answered, or when `timers.call_ms` have gone by: behind a load balancer the
/// BYE may pass by another instance.
#[derive(Debug)]
pub(super) struct Calls {
    index: HashMap<u128, u32, BuildHasherDefault<BranchHasher>>,
    entries: Vec<Call>,
    free: Vec<u32>,
    timers: TimerWheel,
    legs: usize,
}

/// A counted call. INVITEs that share Call-ID and tag, as those of a forking peer do, are its legs and count one each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    key: u128,
    pub(super) from: usize,
    pub(super) to: usize,
    /// INVITEs that have not ended.
    pub(super) legs: u32,
}

impl Calls {
    pub(super) fn new(now: Time) -> Self {
        Self { index: HashMap::default(), entries: Vec::new(), free: Vec::new(), timers: TimerWheel::new(now), legs: 0 }
    }

    /// Counts one INVITE of the call `key`.
    pub(super) fn add_leg(&mut self, key: u128, from: usize, to: usize, until: Time) {
        self.legs += 1;
        let known = self.index.get(&key).and_then(|slot| self.entries.get_mut(*slot as usize));
        if let Some(call) = known.filter(|call| (call.from, call.to) == (from, to)) {
            call.legs += 1;
            return;
        }
        let call = Call { key, from, to, legs: 1 };
        let slot = self.free.pop().unwrap_or(self.entries.len() as u32);
        match self.entries.get_mut(slot as usize) {
            Some(entry) => *entry = call,
            None => self.entries.push(call),
        }
        self.index.insert(key, slot);
        self.timers.set(slot, until);
    }

    /// One INVITE of the call `key` has ended. The leg that is not counted any more.
    pub(super) fn end_leg(&mut self, key: u128) -> Option<Call> {
        let slot = *self.index.get(&key)?;
        let call = self.entries.get_mut(slot as usize)?;
        let ended = Call { legs: 1, ..*call };
        call.legs -= 1;
        self.legs -= 1;
        if call.legs == 0 {
            self.index.remove(&key);
            self.timers.cancel(slot);
            self.free.push(slot);
        }
        Some(ended)
    }

    /// The next call whose time is over, with all its legs.
    pub(super) fn poll(&mut self, now: Time) -> Option<Call> {
        let slot = self.timers.poll(now)?;
        let call = *self.entries.get(slot as usize)?;
        self.index.remove(&call.key);
        self.free.push(slot);
        self.legs -= call.legs as usize;
        Some(call)
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    pub(super) fn len(&self) -> usize {
        self.legs
    }
}
