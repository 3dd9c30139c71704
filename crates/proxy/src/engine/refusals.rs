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
    entries: Box<[Option<Refusal>]>,
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
        let refusal = self.entries.get(place(branch)).copied().flatten()?;
        (refusal.branch == branch && now < refusal.until).then_some(refusal.answer)
    }

    /// Remembers a refusal for `lifetime`.
    pub(super) fn insert(&mut self, now: Time, branch: u128, answer: Answer, lifetime: Duration) {
        if let Some(entry) = self.entries.get_mut(place(branch)) {
            *entry = Some(Refusal { branch, until: now + lifetime, answer });
        }
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self { entries: vec![None; SIZE].into_boxed_slice() }
    }
}

/// Branches are keyed hashes: any of their bits spread them.
fn place(branch: u128) -> usize {
    branch as usize % SIZE
}

/// Refusals that are remembered: half a second's worth, until the first retransmission, at 8,000 refusals per second.
const SIZE: usize = 4_096;
