//! INVITEs that were refused not long ago (RFC 3261 §8.2.7).

use std::time::Duration;

use sipedge_sip::Time;

use super::write::Answer;

/// INVITEs that were refused for want of room, so that their retransmissions are refused alike (RFC 3261 §8.2.7): a copy that arrives
/// when there is room again must not open a call that its caller has given up.
///
/// A table of fixed size in which a newer refusal takes the place of an older one: a flood of refusals costs no memory, only the
/// certainty of this.
#[derive(Debug)]
pub(super) struct Refusals {
    sets: Box<[[Option<Refusal>; WAYS]]>,
}

#[derive(Debug, Clone, Copy)]
struct Refusal {
    branch: u128,
    until: Time,
    answer: Answer,
}

impl Refusals {
    /// What the request with this branch was refused with, not long ago.
    pub(super) fn find(&self, now: Time, branch: u128) -> Option<Answer> {
        let set = self.sets.get(place(branch))?;
        let refusal = set.iter().flatten().find(|refusal| refusal.branch == branch)?;
        (now < refusal.until).then_some(refusal.answer)
    }

    /// Remembers a refusal for `lifetime`.
    pub(super) fn insert(&mut self, now: Time, branch: u128, answer: Answer, lifetime: Duration) {
        let Some(set) = self.sets.get_mut(place(branch)) else { return };
        let oldest = set.iter_mut().min_by_key(|entry| entry.map(|refusal| refusal.until));
        if let Some(entry) = oldest {
            *entry = Some(Refusal { branch, until: now + lifetime, answer });
        }
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self { sets: vec![[None; WAYS]; SETS].into_boxed_slice() }
    }
}

/// Branches are keyed hashes: any of their bits spread them.
fn place(branch: u128) -> usize {
    branch as usize % SETS
}

/// Together 4,096 refusals: half a second's worth, until the first retransmission, at 8,000 refusals per second.
const SETS: usize = 512;
/// Refusals whose branches share a place.
const WAYS: usize = 8;
