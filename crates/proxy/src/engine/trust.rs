//! Headers that are only taken from those whose word counts (RFC 3325 §5, §7), and only given to them.

use sipedge_sip::message::{Edits, HeaderName, Message};

use crate::config::Trust;

/// Notes the removal of what `from` may not say, and of what `to` may not hear.
pub(super) fn note(message: &Message<'_>, from: Trust, to: Trust, edits: &mut Edits) {
    let mut remove = |name: HeaderName| {
        for header in message.headers(name) {
            edits.remove(header.line);
        }
    };
    // RFC 3325 §7: `id` keeps the asserted identity within the trust domain.
    if !from.identity || (!to.identity && message.privacy_has(b"id")) {
        remove(HeaderName::PAssertedIdentity);
    }
    if !from.identity {
        remove(HeaderName::PPreferredIdentity);
    }
    if !from.internal_headers {
        remove(HeaderName::Internal);
    }
}

/// Whether there is anything in a message that trust is about.
pub(super) fn concerns(message: &Message<'_>) -> bool {
    [HeaderName::PAssertedIdentity, HeaderName::PPreferredIdentity, HeaderName::Internal]
        .into_iter()
        .any(|name| message.header(name).is_some())
}
