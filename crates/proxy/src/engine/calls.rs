use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use sipedge_sip::{Time, TimerWheel};

use super::transactions::BranchHasher;

/// Calls that a limit counts: in set-up and in progress. Trunks without a limit on calls have no entry here.
///
/// A call leaves when its set-up fails, when its BYE passes, or when `timers.call_ms` have gone by: behind a load balancer the BYE may
/// pass by another instance.
#[derive(Debug)]
pub(super) struct Calls {
    index: HashMap<u128, u32, BuildHasherDefault<BranchHasher>>,
    entries: Vec<Call>,
    free: Vec<u32>,
    timers: TimerWheel,
}

/// The trunks of a counted call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    key: u128,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Calls {
    pub(super) fn new(now: Time) -> Self {
        Self { index: HashMap::default(), entries: Vec::new(), free: Vec::new(), timers: TimerWheel::new(now) }
    }

    pub(super) fn contains(&self, key: u128) -> bool {
        self.index.contains_key(&key)
    }

    pub(super) fn insert(&mut self, key: u128, from: usize, to: usize, until: Time) {
        let call = Call { key, from, to };
        let slot = self.free.pop().unwrap_or(self.entries.len() as u32);
        match self.entries.get_mut(slot as usize) {
            Some(entry) => *entry = call,
            None => self.entries.push(call),
        }
        self.index.insert(key, slot);
        self.timers.set(slot, until);
    }

    /// The call has ended.
    pub(super) fn remove(&mut self, key: u128) -> Option<Call> {
        let slot = self.index.remove(&key)?;
        self.timers.cancel(slot);
        self.free.push(slot);
        self.entries.get(slot as usize).copied()
    }

    /// The next call whose time is over.
    pub(super) fn poll(&mut self, now: Time) -> Option<Call> {
        let slot = self.timers.poll(now)?;
        let key = self.entries.get(slot as usize)?.key;
        self.remove(key)
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}
