use sipedge_sip::message::{CSeq, Element, Message, Method, Request};
use sipedge_sip::uri::NameAddr;
use sipedge_sip::via::Via;

use super::token::Call;

/// What every request has (RFC 3261 §8.1.1), taken apart once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) request: Request<'a>,
    pub(super) via: Via<'a>,
    pub(super) via_element: Element<'a>,
    pub(super) cseq: CSeq<'a>,
    pub(super) call_id: &'a [u8],
    /// Empty when there is none (RFC 2543).
    pub(super) from_tag: &'a [u8],
    /// Empty outside a dialog.
    pub(super) to_tag: &'a [u8],
}

impl<'a> Head<'a> {
    /// `None` when one of them is missing or broken, or CSeq names another method.
    pub(super) fn of(message: &Message<'a>) -> Option<Self> {
        let request = message.request()?;
        let (via, via_element) = message.top_via()?;
        let cseq = message.cseq()?;
        let tag = |value: NameAddr<'a>| value.tag().unwrap_or_default();
        let head = Self {
            request,
            via,
            via_element,
            cseq,
            call_id: message.call_id()?,
            from_tag: message.from().map(tag)?,
            to_tag: message.to().map(tag)?,
        };
        (cseq.method == request.method).then_some(head)
    }

    pub(super) fn method(&self) -> Method<'a> {
        self.request.method
    }

    /// What a route token is bound to.
    pub(super) fn call(&self) -> Call<'a> {
        Call { call_id: self.call_id, from_tag: self.from_tag, to_tag: self.to_tag }
    }
}
