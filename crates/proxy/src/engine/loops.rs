//! Loops and breadth: what keeps a request from going round for ever, or from multiplying (RFC 5393).

use sipedge_sip::message::{Edits, HeaderName, Message};

use super::incoming::Incoming;
use super::setup::Setup;
use super::{branch, write};

/// A digest of all that the route of a request is chosen by, the second part of the branch (RFC 5393 §4.2.1). A request that comes back
/// with the same digest would go round again; one that comes back changed is a spiral, which is legal (RFC 3261 §16.3 step 4).
///
/// ACK and CANCEL give the digest of their INVITE. Proxy-Require is left out, since a CANCEL has none and a request that asks for
/// anything goes nowhere.
pub(super) fn digest(request: &Incoming<'_>, setup: &Setup) -> u32 {
    let head = &request.head;
    let trunk = request.trunk.and_then(|trunk| setup.trunks.get(trunk)).map(|trunk| trunk.fingerprint);
    let mut hash = Digest::default();
    hash.add(head.request.uri.text);
    for route in request.message.headers(HeaderName::Route) {
        hash.add(route.text);
    }
    for part in [head.call_id, head.from_tag, head.to_tag] {
        hash.add(part);
    }
    hash.add(&head.cseq.number.to_be_bytes());
    hash.add(&trunk.unwrap_or_default().to_be_bytes());
    hash.value()
}

/// Whether the request has been here before and would take the same way again.
pub(super) fn is_loop(request: &Incoming<'_>, setup: &Setup) -> bool {
    let mut own_digest = None;
    for (place, header) in request.message.headers(HeaderName::Via).enumerate() {
        for element in header.elements().skip(usize::from(place == 0)) {
            if let Some(other) = setup.own_branch(element.text).and_then(branch::digest_of)
                && *own_digest.get_or_insert_with(|| digest(request, setup)) == other
            {
                return true;
            }
        }
    }
    false
}

/// How many branches a request may have at a time (RFC 5393 §5.3): what Max-Breadth allows, and this edge. `None`: not a number.
pub(super) fn breadth(message: &Message<'_>) -> Option<u32> {
    match message.max_breadth() {
        None => Some(MAX_BREADTH),
        Some(breadth) => breadth.map(|breadth| breadth.min(MAX_BREADTH)),
    }
}

/// Notes the Max-Breadth of one branch.
pub(super) fn note_breadth(message: &Message<'_>, breadth: u32, edits: &mut Edits) {
    match message.header(HeaderName::MaxBreadth) {
        Some(header) => edits.replace(header.span, |out| write::write_number("", breadth, out)),
        None => edits.insert(message.first_header(), |out| {
            write::write_number("Max-Breadth: ", breadth, out);
            out.extend_from_slice(b"\r\n");
        }),
    }
}

/// The value that RFC 5393 §5.3.3 recommends.
const MAX_BREADTH: u32 = 60;

/// A hash by multiplication, eight bytes at a time: who makes his own requests look like loops harms nobody else.
#[derive(Default)]
struct Digest(u64);

impl Digest {
    fn add(&mut self, part: &[u8]) {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let last = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        // The length keeps parts apart.
        self.mix(last ^ (part.len() as u64) << 56);
    }

    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn value(&self) -> u32 {
        (self.0 ^ self.0 >> 32) as u32
    }
}
