use std::ops::Range;

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
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: u32::try_from(start).unwrap_or(u32::MAX), end: u32::try_from(end).unwrap_or(u32::MAX) }
    }

    /// The bytes of this span; none when it does not lie within `bytes`.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }

    /// As a range of `usize`.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Whether it has no bytes.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// This span of a slice that itself begins at `base`.
    pub fn shifted(self, base: u32) -> Self {
        Self { start: self.start.saturating_add(base), end: self.end.saturating_add(base) }
    }

    /// Without the linear white space (space, tab, folded line ends) at both ends.
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

/// A number of digits alone: no sign, which `parse` would take.
pub(crate) fn digits<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Linear white space; line ends count, since inside a header value they can only be folds.
pub(crate) fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
