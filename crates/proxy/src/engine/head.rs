//! What the engine reads of every message before it decides anything (RFC 3261 §8.1.1).

use sipedge_sip::message::{CSeq, Element, HeaderName, Message, Method, Request};
use sipedge_sip::uri::{NameAddr, Uri};
use sipedge_sip::via::{Via, ViaParameters};

use super::token::Call;

/// What every request has (RFC 3261 §8.1.1), taken apart once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) request: Request<'a>,
    /// The Request-URI taken apart, if it is a SIP or SIPS URI that can be.
    pub(super) uri: Option<Uri<'a>>,
    pub(super) via: Via<'a>,
    pub(super) via_element: Element<'a>,
    pub(super) via_parameters: ViaParameters<'a>,
    pub(super) cseq: CSeq<'a>,
    pub(super) call_id: &'a [u8],
    /// Empty when there is none (RFC 2543).
    pub(super) from_tag: &'a [u8],
    /// Empty outside a dialog.
    pub(super) to_tag: &'a [u8],
}

impl<'a> Head<'a> {
    /// `None` when one of them is missing, broken or there twice, or CSeq names another method.
    pub(super) fn of(message: &Message<'a>) -> Option<Self> {
        // Of two, the next element may read the other one (RFC 4475 §3.3.8): a token would be checked against a call that is not meant.
        if SINGLE.iter().any(|name| message.is_repeated(*name)) {
            return None;
        }
        let request = message.request()?;
        let (via, via_element) = message.top_via()?;
        // What follows in its line is read when the response comes back (RFC 4475 §3.1.2.1); the lines below are other hops' business.
        if !via_element.is_last() {
            let top = message.header(HeaderName::Via)?;
            if top.elements().any(|element| Via::parse(element.text).is_none()) {
                return None;
            }
        }
        let cseq = message.cseq()?;
        let tag = |value: NameAddr<'a>| value.tag().unwrap_or_default();
        let head = Self {
            request,
            uri: request.parsed_uri(),
            via,
            via_element,
            via_parameters: ViaParameters::of(via_element.text),
            cseq,
            call_id: message.call_id()?,
            from_tag: message.from().map(tag)?,
            to_tag: message.to().map(tag)?,
        };
        (cseq.method == request.method).then_some(head)
    }

    /// Whether there is everything that the answer to a request is made of (RFC 3261 §8.2.6.2), broken or not.
    pub(super) fn is_there(message: &Message<'_>) -> bool {
        let needed = [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];
        needed.into_iter().all(|name| message.header(name).is_some())
    }

    pub(super) fn method(&self) -> Method<'a> {
        self.request.method
    }

    /// What a route token is bound to.
    pub(super) fn call(&self) -> Call<'a> {
        Call { call_id: self.call_id, from_tag: self.from_tag, to_tag: self.to_tag }
    }
}

/// Headers that a message has once.
const SINGLE: [HeaderName; 5] =
    [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq, HeaderName::MaxForwards];
