//! A SIP message as it lies in the datagram: one pass finds the lines and the few headers that a proxy needs; everything else stays
//! bytes. Changes are an edit list ([`Edits`]) that is written out in one copy.

mod edit;
mod header;
mod layout;
mod method;

pub use edit::Edits;
pub use header::HeaderName;
use layout::Body;
pub(crate) use layout::announced_body;
pub use layout::{Layout, MAX_HEADERS, Malformed};
pub use method::Method;

use crate::scan::{digits, find, is_white};
use crate::span::Span;
use crate::uri::{NameAddr, Uri, trim};
use crate::via::Via;

/// A datagram together with its [`Layout`].
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    layout: &'a Layout,
}

impl<'a> Message<'a> {
    /// Finds the parts of `datagram`; `layout` is overwritten and its memory used again.
    ///
    /// Only the frame is judged: start line, header lines, the end of the headers, Content-Length. A header that nobody asks for may
    /// be broken and is passed on as it came (RFC 4475 §3.1.2.4 and others).
    pub fn read(datagram: &'a [u8], layout: &'a mut Layout) -> Result<Self, Malformed> {
        layout.read(datagram, Body::Whole)?;
        Ok(Self { bytes: datagram, layout })
    }

    /// The same for a message of our own: its body may have been cut off although its Content-Length still announces it, and it may
    /// have a few headers more than one that arrives.
    pub fn read_without_body(bytes: &'a [u8], layout: &'a mut Layout) -> Result<Self, Malformed> {
        layout.read(bytes, Body::MayBeCut)?;
        Ok(Self { bytes, layout })
    }

    /// What there is of a request that [`Message::read`] has refused, so that it can be answered: its method, and the headers that can
    /// be told apart. Its Request-URI may be anything; it has no body. `None` for what begins like a response or like nothing of SIP.
    pub fn read_refused(bytes: &'a [u8], layout: &'a mut Layout) -> Option<Self> {
        layout.read_refused(bytes)?;
        Some(Self { bytes, layout })
    }

    /// The message's bytes, without what follows the body.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes.get(..self.layout.end as usize).unwrap_or_default()
    }

    /// Method and Request-URI of a request.
    pub fn request(&self) -> Option<Request<'a>> {
        match self.layout.start {
            layout::StartLine::Request { method, uri } => {
                Some(Request { method: Method::of(method.of(self.bytes)), uri: self.value(uri) })
            }
            layout::StartLine::Status { .. } => None,
        }
    }

    /// Status code (100 to 699) of a response.
    pub fn status(&self) -> Option<u16> {
        match self.layout.start {
            layout::StartLine::Status { code, .. } => Some(code),
            layout::StartLine::Request { .. } => None,
        }
    }

    /// Place of status code and reason phrase of a response: `200 OK`.
    pub fn status_span(&self) -> Option<Span> {
        match self.layout.start {
            layout::StartLine::Status { text, .. } => Some(text),
            layout::StartLine::Request { .. } => None,
        }
    }

    /// The first header of this name.
    pub fn header(&self, name: HeaderName) -> Option<Header<'a>> {
        self.layout.of(name).find(|line| line.name == name).map(|line| Header::at(self.bytes, line))
    }

    /// Whether there are two headers of this name or more.
    pub fn is_repeated(&self, name: HeaderName) -> bool {
        self.layout.is_repeated(name)
    }

    /// All headers of this name, in their order.
    pub fn headers(&self, name: HeaderName) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let bytes = self.bytes;
        self.layout.of(name).filter(move |line| line.name == name).map(move |line| Header::at(bytes, line))
    }

    /// Offset of the line after the start line: where a header goes that has to be first.
    pub fn first_header(&self) -> u32 {
        self.layout.first_header
    }

    /// Place of the empty line after the headers and the body: cut it to keep the headers alone.
    pub fn body(&self) -> Span {
        Span { start: self.layout.body, end: self.layout.end }
    }

    /// The value of Call-ID.
    pub fn call_id(&self) -> Option<&'a [u8]> {
        self.header(HeaderName::CallId).map(|header| header.text).filter(|text| !text.is_empty())
    }

    /// Number and method of CSeq.
    pub fn cseq(&self) -> Option<CSeq<'a>> {
        CSeq::parse(self.header(HeaderName::CSeq)?.text)
    }

    /// From.
    pub fn from(&self) -> Option<NameAddr<'a>> {
        NameAddr::parse(self.header(HeaderName::From)?.text)
    }

    /// To.
    pub fn to(&self) -> Option<NameAddr<'a>> {
        NameAddr::parse(self.header(HeaderName::To)?.text)
    }

    /// The place of the topmost Via, whatever stands there.
    pub fn top_via_element(&self) -> Option<Element<'a>> {
        self.headers(HeaderName::Via).find_map(Header::first_element)
    }

    /// The topmost Via, and its place in the message (without the comma that may follow it).
    pub fn top_via(&self) -> Option<(Via<'a>, Element<'a>)> {
        let element = self.top_via_element()?;
        Some((Via::parse(element.text)?, element))
    }

    /// Max-Forwards: `None` when it is absent, `Some(None)` when it is not a number from 0 to 255.
    pub fn max_forwards(&self) -> Option<Option<u8>> {
        let header = self.header(HeaderName::MaxForwards)?;
        Some(digits(header.text))
    }

    /// Max-Breadth (RFC 5393 §5.3.3): `None` when it is absent, `Some(None)` when it is not a number below 2^32.
    pub fn max_breadth(&self) -> Option<Option<u32>> {
        let header = self.header(HeaderName::MaxBreadth)?;
        Some(digits(header.text))
    }

    /// Retry-After in seconds, without its comment and parameters (RFC 3261 §20.33); `None` when it is absent or not a number. What is
    /// past 2^32 is cut to that.
    pub fn retry_after(&self) -> Option<u32> {
        let text = self.header(HeaderName::RetryAfter)?.text;
        let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        let (number, rest) = text.split_at_checked(end)?;
        let ends = rest.first().is_none_or(|byte| is_white(*byte) || matches!(byte, b'(' | b';'));
        (ends && !number.is_empty()).then(|| digits(number).unwrap_or(u32::MAX))
    }

    /// Whether Privacy asks for this kind of privacy: `id`, `header`, … (RFC 3323 §4.2, RFC 3325 §9.3). Case does not matter.
    pub fn privacy_has(&self, kind: &[u8]) -> bool {
        // The values are parted by semicolons; some write commas, or the header twice.
        self.headers(HeaderName::Privacy)
            .flat_map(|header| header.text.split(|byte| matches!(byte, b';' | b',')))
            .any(|value| trim(value).eq_ignore_ascii_case(kind))
    }

    /// The elements of a comma-separated header over all its lines (RFC 3261 §7.3.1).
    pub fn elements(&self, name: HeaderName) -> impl Iterator<Item = Element<'a>> + use<'a> {
        self.headers(name).flat_map(Header::elements)
    }

    fn value(&self, span: Span) -> Header<'a> {
        Header { text: span.of(self.bytes), span, line: span }
    }
}

/// The start line of a request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Method.
    pub method: Method<'a>,
    /// Request-URI, text and place.
    pub uri: Header<'a>,
}

impl<'a> Request<'a> {
    /// The Request-URI taken apart; `None` when it is not a SIP or SIPS URI that can be.
    pub fn parsed_uri(&self) -> Option<Uri<'a>> {
        Uri::parse(self.uri.text)
    }
}

/// A header's value and its places.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// Value without white space at its ends; folds are still in it.
    pub text: &'a [u8],
    /// Place of `text` in the message.
    pub span: Span,
    /// Place of the whole header, name and line end included.
    pub line: Span,
}

impl<'a> Header<'a> {
    fn at(bytes: &'a [u8], line: &layout::Line) -> Self {
        let span = line.value(bytes);
        Self { text: span.of(bytes), span, line: line.line }
    }

    /// The first of [`Header::elements`].
    pub fn first_element(self) -> Option<Element<'a>> {
        // Nearly every header is one element.
        if !self.text.is_empty() && find(b',', self.text).is_none() {
            return Some(Element { text: self.text, span: self.span, header: self, is_first: true, next: None });
        }
        self.elements().next()
    }

    /// The comma-separated elements of this header; commas within quotes and angle brackets do not separate.
    pub fn elements(self) -> impl Iterator<Item = Element<'a>> {
        let mut rest = 0_usize;
        let mut first = true;
        std::iter::from_fn(move || {
            let text = self.text.get(rest..)?;
            if text.is_empty() {
                rest = usize::MAX;
                return None;
            }
            let length = element_length(text);
            let base = self.span.start + rest as u32;
            let whole = Span::new(0, length);
            let trimmed = whole.trimmed(text);
            // Commas and white space at the end separate nothing.
            let after = text.get(length + 1..).unwrap_or_default();
            let has_next = after.iter().any(|byte| *byte != b',' && !is_white(*byte));
            rest = if has_next { rest + length + 1 } else { self.text.len() };
            let element = Element {
                text: trimmed.of(text),
                span: trimmed.shifted(base),
                header: self,
                is_first: first,
                next: has_next.then_some(self.span.start + rest as u32),
            };
            first = false;
            Some(element)
        })
    }
}

/// One element of a comma-separated header.
#[derive(Debug, Clone, Copy)]
pub struct Element<'a> {
    /// The element without white space at its ends.
    pub text: &'a [u8],
    /// Its place in the message.
    pub span: Span,
    header: Header<'a>,
    is_first: bool,
    /// Offset after the comma, when another element follows in this header.
    next: Option<u32>,
}

impl Element<'_> {
    /// What to remove so that this element is gone, with its comma, or with its whole header when it is the last one there. The
    /// elements before it in its header have to be removed as well: only the first ones of a list ever are.
    pub fn removal(&self) -> Span {
        match self.next {
            Some(next) if self.is_first => Span { start: self.header.span.start, end: next },
            Some(next) => Span { start: self.span.start, end: next },
            None => self.header.line,
        }
    }

    /// Whether no element follows in its header.
    pub fn is_last(&self) -> bool {
        self.next.is_none()
    }

    /// Place of the whole header that this element stands in.
    pub fn line(&self) -> Span {
        self.header.line
    }
}

/// Number and method of CSeq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Sequence number, below 2^31 (RFC 3261 §8.1.1.5).
    pub number: u32,
    /// Method.
    pub method: Method<'a>,
}

impl<'a> CSeq<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
        let (number, rest) = text.split_at_checked(end)?;
        let number: u32 = digits(number)?;
        let method = trim(rest);
        if !rest.first().is_some_and(|byte| is_white(*byte)) || method.is_empty() || number > i32::MAX as u32 {
            return None;
        }
        Some(Self { number, method: Method::of(method) })
    }
}

/// Bytes up to the next comma that separates elements.
#[inline]
fn element_length(text: &[u8]) -> usize {
    match find(b',', text) {
        None => text.len(),
        Some(_) => length_with_quotes(text),
    }
}

fn length_with_quotes(text: &[u8]) -> usize {
    let (mut quoted, mut escaped, mut bracket) = (false, false, false);
    for (offset, byte) in text.iter().enumerate() {
        if escaped {
            escaped = false;
            continue;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' if !bracket => quoted = !quoted,
            b'<' if !quoted => bracket = true,
            b'>' if !quoted => bracket = false,
            b',' if !quoted && !bracket => return offset,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests;
