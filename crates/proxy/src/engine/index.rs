//! Finding a table's entries by keys that are keyed hashes already.

/// Where a table has the entry of a key. The table holds the keys; here is 8 bytes for each, in cells of which at most three in four are
/// taken.
///
/// Linear probing, and what is removed leaves no mark (Knuth, The Art of Computer Programming 3, 6.4, algorithm R): its size follows from
/// the most entries that there have been at the same time, not from how many have come and gone. Keys are keyed hashes: their own bits
/// spread them, and no peer can choose keys that fall together.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// A power of two of them, or none.
    cells: Vec<Cell>,
    taken: usize,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    /// Of the key's hash.
    tag: u32,
    /// Place in the table.
    slot: u32,
}

impl Index {
    /// The slot of `key`: the one for which `is_its` says so, of those that may be.
    pub(super) fn find(&self, key: u128, is_its: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = tag(key);
        let taken = self.places(tag).map_while(|place| self.taken(place));
        taken.filter(|cell| cell.tag == tag).map(|cell| cell.slot).find(|slot| is_its(*slot))
    }

    /// `slot` has the entry of `key` from now on, instead of the one for which `is_its` says so.
    pub(super) fn insert(&mut self, key: u128, slot: u32, is_its: impl Fn(u32) -> bool) {
        if (self.taken + 1) * 4 > self.cells.len() * 3 {
            self.grow();
        }
        let tag = tag(key);
        let takes = |place: &usize| self.taken(*place).is_none_or(|cell| cell.tag == tag && is_its(cell.slot));
        let place = self.places(tag).find(takes);
        if let Some(cell) = place.and_then(|place| self.cells.get_mut(place)) {
            self.taken += usize::from(cell.slot == NONE);
            *cell = Cell { tag, slot };
        }
    }

    /// `slot` has the entry of `key` no longer, if it had it.
    pub(super) fn remove(&mut self, key: u128, slot: u32) {
        let mut taken = self.places(tag(key)).map_while(|place| Some((place, self.taken(place)?)));
        let Some((mut gap, _)) = taken.find(|(_, cell)| cell.slot == slot) else { return };
        self.taken -= 1;
        let mask = self.cells.len() - 1;
        let mut place = gap;
        loop {
            place = (place + 1) & mask;
            // One cell in four is free, so this ends.
            let Some(cell) = self.taken(place) else { break };
            // It may not move before the place where the search for it begins.
            let is_past = |from: usize| place.wrapping_sub(from) & mask;
            if is_past(cell.tag as usize) >= is_past(gap) {
                self.put(gap, cell);
                gap = place;
            }
        }
        self.put(gap, FREE);
    }

    /// The places where a key with this tag may be, the likeliest first.
    fn places(&self, tag: u32) -> impl Iterator<Item = usize> + use<> {
        let count = self.cells.len();
        (0..count).map(move |step| (tag as usize + step) & (count - 1))
    }

    fn taken(&self, place: usize) -> Option<Cell> {
        self.cells.get(place).copied().filter(|cell| cell.slot != NONE)
    }

    fn put(&mut self, place: usize, cell: Cell) {
        if let Some(at) = self.cells.get_mut(place) {
            *at = cell;
        }
    }

    fn grow(&mut self) {
        let count = (self.cells.len() * 2).max(FEWEST);
        let before = std::mem::replace(&mut self.cells, vec![FREE; count]);
        for cell in before.into_iter().filter(|cell| cell.slot != NONE) {
            let free = self.places(cell.tag).find(|place| self.taken(*place).is_none());
            if let Some(place) = free {
                self.put(place, cell);
            }
        }
    }
}

fn tag(key: u128) -> u32 {
    (key ^ (key >> 32) ^ (key >> 64) ^ (key >> 96)) as u32
}

/// No slot.
const NONE: u32 = u32::MAX;
const FREE: Cell = Cell { tag: 0, slot: NONE };
/// Cells of the smallest index that has any.
const FEWEST: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map: few keys, so that they collide, and some that differ beyond their tag.
        #[test]
        fn finds_what_a_map_finds(steps in prop::collection::vec((any::<bool>(), 0..40_u128), 0..400)) {
            let key = |number: u128| (number % 10) | ((number / 10) << 70) | ((number / 10) << 6);
            let (mut index, mut map) = (Index::default(), BTreeMap::new());
            let mut keys = Vec::new();
            for (inserts, number) in steps {
                let key = key(number);
                if inserts {
                    keys.push(key);
                    let slot = keys.len() as u32 - 1;
                    index.insert(key, slot, |slot| keys[slot as usize] == key);
                    map.insert(key, slot);
                } else if let Some(slot) = map.remove(&key) {
                    index.remove(key, slot);
                    index.remove(key, slot);
                }
                prop_assert_eq!(index.taken, map.len());
                for (key, slot) in &map {
                    prop_assert_eq!(index.find(*key, |slot| keys[slot as usize] == *key), Some(*slot));
                }
                prop_assert_eq!(index.find(key, |slot| keys[slot as usize] == key), map.get(&key).copied());
            }
        }
    }

    #[test]
    fn what_comes_and_goes_takes_no_room() {
        let mut index = Index::default();
        let key = |number: u32| u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        for number in 0..100_000_u32 {
            index.insert(key(number), number, |slot| slot == number);
            if number >= 90 {
                index.remove(key(number - 90), number - 90);
            }
        }
        assert_eq!((index.taken, index.cells.len()), (90, 128));
    }
}
