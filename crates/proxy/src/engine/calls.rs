//! The calls that limits count, each from its INVITE to its end.

use sipedge_sip::{Time, TimerWheel};

use super::index::Index;

/// Calls that a limit counts: in set-up and in progress. Trunks without a limit on calls have no entry here.
///
/// A call leaves when its set-up fails, when its BYE has been answered, or when `timers.call_ms` have gone by: behind a load balancer the
/// BYE may pass by another instance.
#[derive(Debug)]
pub(super) struct Calls {
    index: Index,
    entries: Vec<Call>,
    free: Vec<u32>,
    timers: TimerWheel,
    legs: usize,
}

/// A counted call. INVITEs that share Call-ID and tag, as those of a forking peer do, are its legs and count one each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    key: u128,
    from: Option<u32>,
    to: Option<u32>,
    /// INVITEs that have not ended. 0: the entry is free.
    pub(super) legs: u32,
}

impl Call {
    /// The trunks that it may be counted for: from where it came, and where it went.
    pub(super) fn trunks(&self) -> impl Iterator<Item = usize> {
        [self.from, self.to].into_iter().flatten().map(|trunk| trunk as usize)
    }
}

impl Calls {
    pub(super) fn new(now: Time) -> Self {
        Self { index: Index::default(), entries: Vec::new(), free: Vec::new(), timers: TimerWheel::new(now), legs: 0 }
    }

    /// Counts one INVITE of the call `key`.
    pub(super) fn add_leg(&mut self, key: u128, from: usize, to: usize, until: Time) {
        self.legs += 1;
        let (from, to) = (u32::try_from(from).ok(), u32::try_from(to).ok());
        let known = self.find(key).and_then(|slot| self.entries.get_mut(slot as usize));
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
        let entries = &self.entries;
        self.index.insert(key, slot, |slot| has(entries, slot, key));
        self.timers.set(slot, until);
    }

    /// One INVITE of the call `key` has ended. The leg that is not counted any more.
    pub(super) fn end_leg(&mut self, key: u128) -> Option<Call> {
        let slot = self.find(key)?;
        let call = self.entries.get_mut(slot as usize)?;
        let ended = Call { legs: 1, ..*call };
        call.legs -= 1;
        self.legs -= 1;
        if call.legs == 0 {
            self.index.remove(key, slot);
            self.timers.cancel(slot);
            self.free.push(slot);
        }
        Some(ended)
    }

    /// The next call whose time is over, with all its legs.
    pub(super) fn poll(&mut self, now: Time) -> Option<Call> {
        let slot = self.timers.poll(now)?;
        self.remove(slot)
    }

    /// The trunks of a new configuration have other indices: `counted` says which, `None` for those that no limit counts any more. A
    /// call that no trunk counts any more leaves.
    pub(super) fn renumber(&mut self, counted: impl Fn(usize) -> Option<usize>) {
        let moved = |trunk: Option<u32>| counted(trunk? as usize).and_then(|trunk| u32::try_from(trunk).ok());
        for slot in 0..self.entries.len() as u32 {
            let Some(call) = self.entries.get_mut(slot as usize).filter(|call| call.legs > 0) else { continue };
            (call.from, call.to) = (moved(call.from), moved(call.to));
            if call.trunks().next().is_none() {
                self.timers.cancel(slot);
                self.remove(slot);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    pub(super) fn len(&self) -> usize {
        self.legs
    }

    fn find(&self, key: u128) -> Option<u32> {
        self.index.find(key, |slot| has(&self.entries, slot, key))
    }

    fn remove(&mut self, slot: u32) -> Option<Call> {
        let entry = self.entries.get_mut(slot as usize)?;
        let call = *entry;
        entry.legs = 0;
        // INVITEs of the same key may have gone to another trunk since: then the key is that call's.
        self.index.remove(call.key, slot);
        self.free.push(slot);
        self.legs -= call.legs as usize;
        Some(call)
    }
}

fn has(entries: &[Call], slot: u32, key: u128) -> bool {
    entries.get(slot as usize).is_some_and(|call| call.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_keep_the_trunks_that_count_them_and_leave_when_none_does() {
        let at = |seconds: u64| Time::from_micros(1_000_000 * seconds);
        let mut calls = Calls::new(at(0));
        for (key, from, to) in [(1, 0, 1), (2, 1, 2), (3, 0, 2), (3, 0, 2)] {
            calls.add_leg(key, from, to, at(10));
        }
        // Trunk 0 is at 4 now, 1 is at 0, 2 is gone or has no limit.
        calls.renumber(|trunk| [Some(4), Some(0), None].get(trunk).copied().flatten());
        let trunks = |call: Call| call.trunks().collect::<Vec<_>>();
        assert_eq!(calls.end_leg(1).map(trunks), Some(vec![4, 0]));
        assert_eq!(calls.end_leg(2).map(trunks), Some(vec![0]));
        calls.renumber(|_| None);
        assert_eq!((calls.len(), calls.poll_timeout()), (0, None));
        assert!(calls.end_leg(3).is_none() && calls.poll(at(20)).is_none());

        calls.add_leg(5, 0, 1, at(30));
        assert_eq!(calls.end_leg(5).map(trunks), Some(vec![0, 1]), "a slot is used again");
    }

    #[test]
    fn the_time_of_an_older_call_does_not_end_the_newer_one_of_its_key() {
        let at = |seconds: u64| Time::from_micros(1_000_000 * seconds);
        let mut calls = Calls::new(at(0));
        calls.add_leg(1, 0, 1, at(10));
        calls.add_leg(1, 0, 2, at(20));
        assert_eq!(calls.poll(at(11)).map(|call| call.trunks().collect::<Vec<_>>()), Some(vec![0, 1]));
        assert_eq!(calls.end_leg(1).map(|call| call.trunks().collect::<Vec<_>>()), Some(vec![0, 2]));
        assert_eq!(calls.len(), 0);
    }
}
