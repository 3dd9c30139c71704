//! Loops and breadth: what keeps a request from going round for ever, or from multiplying (RFC 5393).

use sipedge_sip::message::{Edits, HeaderName, Message};
use sipedge_sip::via::Via;

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
    let mut hash = Fnv::new();
    hash.add(head.request.uri.text);
    for route in request.message.headers(HeaderName::Route) {
        hash.add(route.text);
    }
    for part in [head.call_id, head.from_tag, head.to_tag] {
        hash.add(part);
    }
    hash.add(&head.cseq.number.to_be_bytes());
    hash.add(&trunk.unwrap_or_default().to_be_bytes());
    hash.0
}

/// Whether the request has been here before and would take the same way again.
pub(super) fn is_loop(request: &Incoming<'_>, setup: &Setup) -> bool {
    let mut own = request
        .message
        .elements(HeaderName::Via)
        .skip(1)
        .filter_map(|element| Via::parse(element.text))
        .filter(|via| setup.is_our_via(via))
        .filter_map(|via| branch::digest_of(&via))
        .peekable();
    if own.peek().is_none() {
        return false;
    }
    let digest = digest(request, setup);
    own.any(|other| other == digest)
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

/// FNV-1a: who makes his own requests look like loops harms nobody else.
struct Fnv(u32);

impl Fnv {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn add(&mut self, part: &[u8]) {
        // A byte that no part holds keeps them apart.
        for byte in part.iter().chain(b"\0") {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}
