use std::ops::Range;

use super::Message;
use crate::span::Span;

/// Changes to a message, written out in one copy. Its memory is used again after [`Edits::clear`].
#[derive(Debug, Default)]
pub struct Edits {
    edits: Vec<Edit>,
    text: Vec<u8>,
}

impl Edits {
    /// Forgets all changes.
    pub fn clear(&mut self) {
        self.edits.clear();
        self.text.clear();
    }

    /// Takes `span` out.
    pub fn remove(&mut self, span: Span) {
        self.replace(span, |_| {});
    }

    /// Puts what `write` appends at `offset`. Insertions at one offset keep their order.
    pub fn insert(&mut self, offset: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.replace(Span { start: offset, end: offset }, write);
    }

    /// Puts what `write` appends in the place of `span`.
    pub fn replace(&mut self, span: Span, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        write(&mut self.text);
        let edit = Edit { span, text: start..self.text.len() };
        // Edits arrive nearly sorted: the search runs from the end.
        let at = self.edits.iter().rposition(|other| other.span.start <= span.start).map_or(0, |before| before + 1);
        self.edits.insert(at, edit);
    }

    /// Appends the changed message to `out`. Where two removals overlap, each byte goes once.
    pub fn write(&self, message: &Message<'_>, out: &mut Vec<u8>) {
        self.write_bytes(message.bytes(), out);
    }

    pub(super) fn write_bytes(&self, bytes: &[u8], out: &mut Vec<u8>) {
        out.reserve(bytes.len() + self.text.len());
        let mut at = 0_usize;
        for edit in &self.edits {
            let Range { start, end } = edit.span.range();
            out.extend_from_slice(bytes.get(at..start).unwrap_or_default());
            out.extend_from_slice(self.text.get(edit.text.clone()).unwrap_or_default());
            at = at.max(end);
        }
        out.extend_from_slice(bytes.get(at..).unwrap_or_default());
    }
}

#[derive(Debug)]
struct Edit {
    span: Span,
    text: Range<usize>,
}
