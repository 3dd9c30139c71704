use crate::Time;
use std::time::Duration;

/// Timers for entries of a table: at most one per entry, set, moved and cancelled in constant time.
///
/// A hierarchical timing wheel (Varghese and Lauck): four levels of 64 slots with a tick of one millisecond, so that a timer may be
/// some 4 h 30 min away without being moved on the way; what is set further away is moved once more. Entries are named by their index in the caller's table, and the links
/// are kept in a vector beside it: no allocation once that has grown to the table's size.
#[derive(Debug)]
pub struct TimerWheel {
    /// Tick up to which everything has fired.
    now: u64,
    slots: [[u32; SLOTS]; LEVELS],
    /// One bit per slot that is not empty.
    occupied: [u64; LEVELS],
    nodes: Vec<Node>,
    /// First of the entries that are due, linked like a slot.
    due: u32,
    set: usize,
}

impl TimerWheel {
    /// An empty wheel that starts at `now`.
    pub fn new(now: Time) -> Self {
        Self {
            now: now.as_millis(),
            slots: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            nodes: Vec::new(),
            due: NONE,
            set: 0,
        }
    }

    /// Sets the timer of `entry`, instead of the one it has.
    pub fn set(&mut self, entry: u32, at: Time) {
        self.cancel(entry);
        let index = entry as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, Node::default());
        }
        // Rounded up: a timer never fires early.
        let tick = at.as_micros().div_ceil(1_000);
        self.set += 1;
        self.link(entry, tick);
    }

    /// Cancels the timer of `entry`, when it has one.
    pub fn cancel(&mut self, entry: u32) {
        let Some(node) = self.nodes.get(entry as usize).copied() else { return };
        if node.place == NOWHERE {
            return;
        }
        self.unlink(entry, node);
        self.set -= 1;
    }

    /// The next entry whose time has come, its timer taken off; call until there is none.
    pub fn poll(&mut self, now: Time) -> Option<u32> {
        if self.due == NONE {
            self.advance(now.as_millis());
        }
        let entry = self.due;
        if entry == NONE {
            return None;
        }
        self.cancel(entry);
        Some(entry)
    }

    /// When [`TimerWheel::poll`] has to be called next. It may be earlier than the next timer, never later.
    pub fn next(&self) -> Option<Time> {
        if self.due != NONE {
            return Some(millis(self.now));
        }
        if self.set == 0 {
            return None;
        }
        let mut next: Option<u64> = None;
        for (level, occupied) in self.occupied.iter().enumerate() {
            if *occupied == 0 {
                continue;
            }
            let shift = level as u32 * SLOT_BITS;
            let position = (self.now >> shift) & SLOT_MASK;
            // The first occupied slot at or after the one that follows the current position, going round.
            let ahead = u64::from(occupied.rotate_right((position as u32 + 1) % 64).trailing_zeros()) + 1;
            let tick = ((self.now >> shift) + ahead) << shift;
            next = Some(next.map_or(tick, |other: u64| other.min(tick)));
        }
        next.map(millis)
    }

    /// How many timers are set.
    pub fn len(&self) -> usize {
        self.set
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.set == 0
    }

    fn advance(&mut self, to: u64) {
        while self.now < to {
            let Some(next) = self.next().map(Time::as_millis) else {
                self.now = to;
                return;
            };
            if next > to {
                // Nothing fires or changes level before `to`, so no slot between is occupied.
                self.now = to;
                return;
            }
            self.now = next;
            for level in (1..LEVELS).rev() {
                let shift = level as u32 * SLOT_BITS;
                if self.now & ((1 << shift) - 1) == 0 {
                    self.take_slot(level, ((self.now >> shift) & SLOT_MASK) as usize);
                }
            }
            self.take_slot(0, (self.now & SLOT_MASK) as usize);
            if self.due != NONE {
                return;
            }
        }
    }

    /// Links every entry of a slot again: lower, or among those that are due.
    fn take_slot(&mut self, level: usize, slot: usize) {
        while let Some(entry) = self.slots.get(level).and_then(|slots| slots.get(slot)).copied() {
            let Some(node) = self.nodes.get(entry as usize).copied() else { return };
            self.unlink(entry, node);
            self.link(entry, node.tick());
        }
    }

    fn link(&mut self, entry: u32, tick: u64) {
        let delta = tick.saturating_sub(self.now);
        let place = if delta == 0 {
            DUE
        } else {
            // The level is the highest digit in which the tick differs from now.
            let tick = tick.min(self.now + MAX_DELTA);
            let level = ((63 - (self.now ^ tick).leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1);
            (level * SLOTS as u32) as u16 | ((tick >> (level * SLOT_BITS)) & SLOT_MASK) as u16
        };
        let head = std::mem::replace(self.head(place), entry);
        if let Some(occupied) = self.occupied.get_mut(usize::from(place) / SLOTS) {
            *occupied |= 1 << (usize::from(place) % SLOTS);
        }
        if let Some(node) = self.nodes.get_mut(head as usize) {
            node.previous = entry;
        }
        if let Some(node) = self.nodes.get_mut(entry as usize) {
            *node = Node::new(head, place, tick);
        }
    }

    fn unlink(&mut self, entry: u32, node: Node) {
        if let Some(previous) = self.nodes.get_mut(node.previous as usize) {
            previous.next = node.next;
        } else {
            *self.head(node.place) = node.next;
            if node.next == NONE
                && let Some(occupied) = self.occupied.get_mut(usize::from(node.place) / SLOTS)
            {
                *occupied &= !(1 << (usize::from(node.place) % SLOTS));
            }
        }
        if let Some(next) = self.nodes.get_mut(node.next as usize) {
            next.previous = node.previous;
        }
        if let Some(own) = self.nodes.get_mut(entry as usize) {
            *own = Node::default();
        }
    }

    fn head(&mut self, place: u16) -> &mut u32 {
        let slots = self.slots.as_flattened_mut();
        slots.get_mut(usize::from(place)).unwrap_or(&mut self.due)
    }
}

/// An entry's timer: 16 bytes, since there is one for each entry that there ever was at the same time.
#[derive(Debug, Clone, Copy)]
struct Node {
    previous: u32,
    next: u32,
    /// The tick's lower 32 bits, and the 16 above them: enough for 8,900 years.
    tick: u32,
    tick_above: u16,
    /// The slot that it is linked in, counted through all levels; else [`DUE`] or [`NOWHERE`].
    place: u16,
}

impl Node {
    fn new(next: u32, place: u16, tick: u64) -> Self {
        let tick = tick.min(LAST_TICK);
        Self { previous: NONE, next, tick: tick as u32, tick_above: (tick >> 32) as u16, place }
    }

    fn tick(self) -> u64 {
        u64::from(self.tick_above) << 32 | u64::from(self.tick)
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new(NONE, NOWHERE, 0)
    }
}

fn millis(tick: u64) -> Time {
    Time::from_micros(tick * 1_000)
}

const _: () = assert!(Duration::from_millis(MAX_DELTA).as_secs() > 4 * 3_600);

/// Its time has come.
const DUE: u16 = u16::MAX - 1;
/// It has no timer.
const NOWHERE: u16 = u16::MAX;
const LAST_TICK: u64 = (1 << 48) - 1;
/// No entry.
const NONE: u32 = u32::MAX;
/// Slots of a level: as many as a word has bits, so that the next occupied one is found by counting zeros.
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
const SLOT_MASK: u64 = 63;
/// Four levels reach 64^4 ms = 4 h 39 min, more than the longest SIP timer.
const LEVELS: usize = 4;
/// The furthest tick that lands in the highest level without going round to the current slot.
const MAX_DELTA: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - (1 << (SLOT_BITS * (LEVELS as u32 - 1)));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1_000)
    }

    #[test]
    fn fires_in_its_millisecond_and_only_once() {
        let mut wheel = TimerWheel::new(at(1_000));
        wheel.set(3, at(1_500));
        assert_eq!(wheel.poll(at(1_499)), None);
        assert_eq!(wheel.poll(at(1_500)), Some(3));
        assert_eq!(wheel.poll(at(9_000)), None);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_timer_in_the_past_fires_at_once() {
        let mut wheel = TimerWheel::new(at(1_000));
        wheel.set(0, at(5));
        assert_eq!(wheel.next(), Some(at(1_000)));
        assert_eq!(wheel.poll(at(1_000)), Some(0));
    }

    proptest! {
        /// Against a sorted list: whatever is set, moved and cancelled, what fires is exactly what is due, never early, and
        /// `next` is never later than the next timer.
        #[test]
        fn fires_what_a_sorted_list_would(
            // Small ones, and what the clock says: more than 32 bits.
            start in prop_oneof![0_u64..10_000_000, 1_790_000_000_000_u64..1_800_000_000_000],
            steps in proptest::collection::vec((0_u32..40, 0_u64..17_000_000, 0_u64..300_000, any::<bool>()), 1..200),
        ) {
            let mut now = start;
            let mut wheel = TimerWheel::new(at(now));
            let mut model = std::collections::BTreeMap::new();
            for (entry, after, pass, cancel) in steps {
                if cancel {
                    wheel.cancel(entry);
                    model.remove(&entry);
                } else {
                    let after = after.min(MAX_DELTA);
                    wheel.set(entry, at(now + after));
                    model.insert(entry, now + after);
                }
                prop_assert_eq!(wheel.len(), model.len());
                if let Some(first) = model.values().min() {
                    prop_assert!(wheel.next().unwrap() <= at(*first));
                }
                now += pass;
                let mut fired = Vec::new();
                while let Some(entry) = wheel.poll(at(now)) {
                    fired.push(entry);
                }
                fired.sort_unstable();
                let due: Vec<u32> = model.iter().filter(|(_, tick)| **tick <= now).map(|(entry, _)| *entry).collect();
                model.retain(|_, tick| *tick > now);
                prop_assert_eq!(fired, due);
            }
        }
    }
}
