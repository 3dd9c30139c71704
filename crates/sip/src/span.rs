use std::ops::Range;

use crate::scan::is_white;

/// A place in a message: byte offsets, start included, end excluded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

impl Span {
    /// The span from `start` to `end`. Offsets past 4 GiB, which no SIP message has, are cut.
    #[inline]
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: start.min(u32::MAX as usize) as u32, end: end.min(u32::MAX as usize) as u32 }
    }

    /// The bytes of this span; none when it does not lie within `bytes`.
    #[inline]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }

    /// As a range of `usize`.
    #[inline]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// This span of a slice that itself begins at `base`.
    #[inline]
    pub fn shifted(self, base: u32) -> Self {
        Self { start: self.start.saturating_add(base), end: self.end.saturating_add(base) }
    }

    /// Without the linear white space (space, tab, folded line ends) at both ends.
    #[inline]
    pub fn trimmed(self, bytes: &[u8]) -> Self {
        let (mut start, mut end) = (self.start, self.end);
        while start < end && bytes.get(start as usize).is_some_and(|byte| is_white(*byte)) {
            start += 1;
        }
        while end > start && bytes.get(end as usize - 1).is_some_and(|byte| is_white(*byte)) {
            end -= 1;
        }
        Self { start, end }
    }
}
