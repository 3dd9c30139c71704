//! What the answerer reads from messages, and the messages that it writes.

use std::io::Write as _;

use sipedge_sip::message::{HeaderName, Message};
use sipedge_sip::uri::NameAddr;

use crate::engine::FLOW_HEADER;

/// What the answerer needs of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) message: Message<'a>,
    pub(super) call_id: &'a [u8],
    pub(super) number: u32,
    /// From, and its tag.
    pub(super) from: &'a [u8],
    pub(super) from_tag: &'a [u8],
    /// To, and its tag; none outside a dialog.
    pub(super) to: &'a [u8],
    pub(super) to_tag: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// `None`: it lacks what every request has. The engine sends none of those on.
    pub(super) fn of(message: Message<'a>) -> Option<Self> {
        Some(Self {
            message,
            call_id: message.call_id()?,
            number: message.cseq()?.number,
            from: message.header(HeaderName::From)?.text,
            from_tag: message.from()?.tag().unwrap_or_default(),
            to: message.header(HeaderName::To)?.text,
            to_tag: message.to()?.tag(),
        })
    }

    /// The URI of the first Contact.
    pub(super) fn contact(&self) -> Option<&'a [u8]> {
        let value = other(&self.message, "Contact", "m")?;
        Some(NameAddr::parse(value)?.uri).filter(|uri| !uri.is_empty() && !uri.iter().any(u8::is_ascii_whitespace))
    }

    /// The routes that the edge has recorded, in their order.
    pub(super) fn routes(&self) -> Vec<Vec<u8>> {
        self.message.elements(HeaderName::RecordRoute).map(|route| route.text.to_vec()).collect()
    }

    /// What the engine says of the way back.
    pub(super) fn flow(&self) -> Option<&'a [u8]> {
        self.message.headers(HeaderName::Internal).find_map(|header| {
            let name = header.line.of(self.message.bytes()).get(..FLOW_HEADER.len())?;
            name.eq_ignore_ascii_case(FLOW_HEADER.as_bytes()).then_some(header.text)
        })
    }

    /// The body, and whether it is SDP; `None` without one.
    pub(super) fn body(&self) -> Option<(&'a [u8], bool)> {
        let whole = self.message.body().of(self.message.bytes());
        let body = whole.strip_prefix(b"\r\n").or_else(|| whole.strip_prefix(b"\n")).unwrap_or(whole);
        let kind = other(&self.message, "Content-Type", "c").unwrap_or_default();
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
        (!body.is_empty()).then(|| (body, kind.trim_ascii().eq_ignore_ascii_case(b"application/sdp")))
    }
}

/// Writes a response to `request`. `tag` goes into To when it has none; `more` are whole header lines.
pub(super) fn response(request: &Request<'_>, status: &str, tag: &str, more: &str, body: &str) -> Vec<u8> {
    let message = &request.message;
    let mut out = Vec::with_capacity(message.bytes().len() + 512);
    out.extend_from_slice(b"SIP/2.0 ");
    out.extend_from_slice(status.as_bytes());
    out.extend_from_slice(b"\r\n");
    let names = [
        HeaderName::Via,
        HeaderName::RecordRoute,
        HeaderName::From,
        HeaderName::To,
        HeaderName::CallId,
        HeaderName::CSeq,
    ];
    for header in names.into_iter().flat_map(|name| message.headers(name).map(move |header| (name, header))) {
        let (name, header) = header;
        out.extend_from_slice(header.line.of(message.bytes()).trim_ascii_end());
        if name == HeaderName::To && request.to_tag.is_none() {
            out.extend_from_slice(b";tag=");
            out.extend_from_slice(tag.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(more.as_bytes());
    // Writing to a Vec cannot fail.
    let _ = write!(out, "Content-Length: {}\r\n\r\n{body}", body.len());
    out
}

/// The first element of a header that the engine has no name for.
fn other<'a>(message: &Message<'a>, long: &str, compact: &str) -> Option<&'a [u8]> {
    let bytes = message.bytes();
    message.headers(HeaderName::Other).find_map(|header| {
        let name = header.line.of(bytes).split(|byte| *byte == b':').next()?.trim_ascii();
        let is_it = name.eq_ignore_ascii_case(long.as_bytes()) || name.eq_ignore_ascii_case(compact.as_bytes());
        header.elements().next().filter(|_| is_it).map(|element| element.text)
    })
}
