use super::HeaderName;
use super::header::Name;
use crate::scan::{digits, find, is_white};
use crate::span::Span;

/// Most header lines of a message. RFC 3261 has no bound; real messages have some 15 to 40.
pub const MAX_HEADERS: usize = 512;
/// What a message may have gained on its way through a proxy that reads it again: Via, Record-Route, Max-Forwards, and some.
const ADDED_HEADERS: usize = 8;

/// Where the parts of a message lie. Kept by the reader and used again for the next message, so that reading allocates nothing.
#[derive(Debug)]
pub struct Layout {
    pub(super) start: StartLine,
    pub(super) first_header: u32,
    /// The lines with a name that is one of [`HeaderName`], in their order.
    known: Vec<Line>,
    /// The others.
    others: Vec<Line>,
    /// One bit for each name that is there.
    there: u32,
    /// One bit for each name that is there more than once.
    repeated: u32,
    /// Offset after the empty line.
    pub(super) body: u32,
    /// Offset after the body.
    pub(super) end: u32,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            start: StartLine::Status { code: 0, text: Span::default() },
            first_header: 0,
            known: Vec::new(),
            others: Vec::new(),
            there: 0,
            repeated: 0,
            body: 0,
            end: 0,
        }
    }
}

impl Layout {
    /// Lines among which all of this name are.
    #[inline]
    pub(super) fn of(&self, name: HeaderName) -> std::slice::Iter<'_, Line> {
        let lines = match name {
            HeaderName::Other => &self.others,
            _ => &self.known,
        };
        if self.there & name.bit() == 0 { Default::default() } else { lines.iter() }
    }

    /// Whether there are two lines of this name or more.
    #[inline]
    pub(super) fn is_repeated(&self, name: HeaderName) -> bool {
        self.repeated & name.bit() != 0
    }

    fn clear(&mut self) {
        self.known.clear();
        self.others.clear();
        self.there = 0;
        self.repeated = 0;
    }

    #[inline]
    fn push(&mut self, line: Line) {
        let bit = line.name.bit();
        self.repeated |= self.there & bit;
        self.there |= bit;
        match line.name {
            HeaderName::Other => self.others.push(line),
            _ => self.known.push(line),
        }
    }

    fn count(&self) -> usize {
        self.known.len() + self.others.len()
    }

    pub(super) fn read(&mut self, bytes: &[u8], body: Body) -> Result<(), Malformed> {
        self.clear();
        if u32::try_from(bytes.len()).is_err() {
            return Err(Malformed::NoEndOfHeaders);
        }
        let (line_end, next) = line_at(bytes, 0).ok_or(Malformed::StartLine)?;
        self.start = StartLine::parse(bytes, line_end)?;
        self.first_header = Span::new(next, next).start;
        // A fold of the start line is none (§7.3.1): a header put after the start line would swallow it.
        if matches!(bytes.get(next), Some(b' ' | b'\t')) {
            return Err(Malformed::StartLine);
        }
        let most_headers = match body {
            Body::Whole => MAX_HEADERS,
            Body::MayBeCut => MAX_HEADERS + ADDED_HEADERS,
        };
        let mut at = next;
        let mut content_length = ContentLength::default();
        loop {
            let line = match Line::read_plain(bytes, &mut at) {
                Some(line) => line,
                None => match Line::read(bytes, &mut at)? {
                    Some(line) => line,
                    None => break,
                },
            };
            if self.count() == most_headers {
                return Err(Malformed::TooManyHeaders);
            }
            if line.name == HeaderName::ContentLength {
                content_length.take(bytes, &line)?;
            }
            self.push(line);
        }
        let rest = bytes.len().saturating_sub(at);
        let length = match (content_length.0.unwrap_or(rest), body) {
            (length, Body::Whole) if length > rest => {
                return Err(Malformed::Truncated { announced: length, arrived: rest });
            }
            (length, _) => length.min(rest),
        };
        let body = Span::new(at, at + length);
        (self.body, self.end) = (body.start, body.end);
        Ok(())
    }

    /// See [`super::Message::read_refused`].
    pub(super) fn read_refused(&mut self, bytes: &[u8]) -> Option<()> {
        self.clear();
        let (line_end, mut at) = line_at(bytes, 0)?;
        self.start = StartLine::of_refused(bytes, line_end)?;
        while matches!(bytes.get(at), Some(b' ' | b'\t')) {
            (_, at) = line_at(bytes, at)?;
        }
        self.first_header = Span::new(at, at).start;
        while self.count() < MAX_HEADERS
            && let Ok(Some(line)) = Line::read(bytes, &mut at)
        {
            self.push(line);
        }
        let body = Span::new(at, at);
        (self.body, self.end) = (body.start, body.end);
        Some(())
    }
}

/// Content-Length of a message that is whole up to the empty line behind its headers; `None` when it has none. Judged as
/// [`super::Message::read`] judges it.
pub(crate) fn announced_body(head: &[u8]) -> Result<Option<usize>, Malformed> {
    let (_, mut at) = line_at(head, 0).ok_or(Malformed::StartLine)?;
    let mut content_length = ContentLength::default();
    while let Some(line) = Line::read(head, &mut at)? {
        content_length.take(head, &line)?;
    }
    Ok(content_length.0)
}

/// The one value of all Content-Length headers so far.
#[derive(Debug, Default)]
struct ContentLength(Option<usize>);

impl ContentLength {
    fn take(&mut self, bytes: &[u8], line: &Line) -> Result<(), Malformed> {
        if line.name == HeaderName::ContentLength {
            let length = digits(line.value.of(bytes)).ok_or(Malformed::ContentLength)?;
            // Two that differ are how one message is smuggled in another.
            if self.0.is_some_and(|other| other != length) {
                return Err(Malformed::ContentLength);
            }
            self.0 = Some(length);
        }
        Ok(())
    }
}

/// What the reader knows of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// It has to be there as Content-Length says.
    Whole,
    /// It may have been cut off on purpose: the message is one that we have sent ourselves.
    MayBeCut,
}

/// Why a datagram is not a SIP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The first line is neither a request line nor a status line.
    #[error("the first line is neither a request line nor a status line of SIP/2.0")]
    StartLine,
    /// A request line of another version than 2.0 (RFC 3261 §7.1).
    #[error("the request line has another version than SIP/2.0")]
    Version,
    /// The empty line after the headers is missing.
    #[error("the headers have no end")]
    NoEndOfHeaders,
    /// More than [`MAX_HEADERS`] header lines.
    #[error("more than {MAX_HEADERS} header lines")]
    TooManyHeaders,
    /// Content-Length is not a number, or there are two that differ.
    #[error("Content-Length is not a number, or there are two that differ")]
    ContentLength,
    /// The datagram ends before the body does (RFC 3261 §18.3).
    #[error("Content-Length announces {announced} bytes and {arrived} arrived")]
    Truncated {
        /// Content-Length.
        announced: usize,
        /// Bytes after the headers.
        arrived: usize,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum StartLine {
    Request { method: Span, uri: Span },
    Status { code: u16, text: Span },
}

impl StartLine {
    // Apart from the loop over the lines, which has no register to spare.
    #[inline(never)]
    fn parse(bytes: &[u8], end: usize) -> Result<Self, Malformed> {
        let line = bytes.get(..end).unwrap_or_default();
        match strip_version(line) {
            Some(rest) => Self::status(rest, end).ok_or(Malformed::StartLine),
            None => match Self::request(line).ok_or(Malformed::StartLine)? {
                (request, version) if version.eq_ignore_ascii_case(VERSION) => Ok(request),
                (_, version) if is_version(version) => Err(Malformed::Version),
                _ => Err(Malformed::StartLine),
            },
        }
    }

    /// `rest` is what stands behind the version.
    fn status(rest: &[u8], end: usize) -> Option<Self> {
        let code: u16 = digits(rest.strip_prefix(b" ")?.get(..3)?)?;
        let is_code = (100..700).contains(&code) && matches!(rest.get(4), None | Some(b' '));
        is_code.then_some(Self::Status { code, text: Span::new(VERSION.len() + 1, end) })
    }

    /// Method and Request-URI, and what stands where the version should.
    fn request(line: &[u8]) -> Option<(Self, &[u8])> {
        let method_end = find(b' ', line)?;
        let uri_end = match line.strip_suffix(b" SIP/2.0") {
            Some(before) => before.len(),
            None => memchr::memrchr(b' ', line)?,
        };
        let method = line.get(..method_end)?;
        let uri = line.get(method_end + 1..uri_end)?;
        let version = line.get(uri_end + 1..)?;
        let is_request =
            !method.is_empty() && method.iter().all(|byte| is_token(*byte)) && !uri.is_empty() && !has_white(uri);
        let request = Self::Request { method: Span::new(0, method_end), uri: Span::new(method_end + 1, uri_end) };
        is_request.then_some((request, version))
    }

    /// The method is the first word, if it can be one; all the rest is the Request-URI.
    fn of_refused(bytes: &[u8], end: usize) -> Option<Self> {
        let line = bytes.get(..end)?;
        let method_end = line.iter().position(|byte| is_white(*byte))?;
        let method = line.get(..method_end)?;
        let is_method = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
        let uri = Span::new(method_end, end).trimmed(bytes);
        is_method.then(|| Self::Request { method: Span::new(0, method_end), uri })
    }
}

/// One header, folds included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) name: HeaderName,
    pub(super) value: Span,
    pub(super) line: Span,
}

impl Line {
    /// A header as nearly all are, at `at`, which is moved to the next: without a fold, and its colon directly behind the name. `None`: it
    /// is another one, or the end.
    #[inline]
    fn read_plain(bytes: &[u8], at: &mut usize) -> Option<Self> {
        let start = *at;
        let rest = bytes.get(start..)?;
        let (line, after) = rest.split_at_checked(find(b'\n', rest)?)?;
        // A line that begins with white space continues the one before it (RFC 3261 §7.3.1).
        if matches!(after, [_, b' ' | b'\t', ..]) {
            return None;
        }
        let name = Name::begins(rest);
        let text = match line {
            [text @ .., b'\r'] => text,
            text => text,
        };
        let end = start + text.len();
        // No offset is past 4 GiB: see `Layout::read`.
        let span = |start: usize, end: usize| Span { start: start as u32, end: end as u32 };
        let next = start + line.len() + 1;
        let (name, value) = match name {
            Name::Known(name, length) => match text.get(length + 1..)? {
                [b' ', first, .., last] if *first > b' ' && *last > b' ' => (name, span(start + length + 2, end)),
                _ => (name, span(start + length + 1, end).trimmed(bytes)),
            },
            Name::Other if !text.is_empty() => (HeaderName::Other, Span::default()),
            _ => return None,
        };
        *at = next;
        Some(Self { name, value, line: span(start, next) })
    }

    /// The place of its value. Nobody but who looks for a name that is not known here wants that of the others, so it is found when
    /// it is asked for.
    pub(super) fn value(&self, bytes: &[u8]) -> Span {
        match self.name {
            HeaderName::Other => {
                let (start, mut end) = (self.line.start as usize, self.line.end as usize);
                for byte in [b'\n', b'\r'] {
                    end -= usize::from(end > start && bytes.get(end - 1) == Some(&byte));
                }
                Self::parse(bytes, start, end, self.line.end as usize).value
            }
            _ => self.value,
        }
    }

    /// The header that begins at `at`, which is moved to the next; `None` at the empty line, behind which `at` is then.
    fn read(bytes: &[u8], at: &mut usize) -> Result<Option<Self>, Malformed> {
        let start = *at;
        let (mut end, mut next) = line_at(bytes, start).ok_or(Malformed::NoEndOfHeaders)?;
        if end == start {
            *at = next;
            return Ok(None);
        }
        while matches!(bytes.get(next), Some(b' ' | b'\t')) {
            (end, next) = line_at(bytes, next).ok_or(Malformed::NoEndOfHeaders)?;
        }
        *at = next;
        Ok(Some(Self::parse(bytes, start, end, next)))
    }

    /// A line without a colon is nobody's header: passed on as it came.
    fn parse(bytes: &[u8], start: usize, end: usize, next: usize) -> Self {
        let text = bytes.get(start..end).unwrap_or_default();
        let line = Span::new(start, next);
        let Some(colon) = find(b':', text) else {
            return Self { name: HeaderName::Other, value: Span::new(start, end), line };
        };
        let name = Span::new(start, start + colon).trimmed(bytes);
        let value = Span::new(start + colon + 1, end).trimmed(bytes);
        Self { name: HeaderName::of(name.of(bytes)), value, line }
    }
}

/// End of the line that begins at `at`, without its CR LF, and the start of the next. A bare LF ends a line too: a peer that took it
/// for one would otherwise see headers that we did not.
fn line_at(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    let lf = find(b'\n', rest)?;
    let has_cr = lf > 0 && rest.get(lf - 1) == Some(&b'\r');
    Some((at + lf - usize::from(has_cr), at + lf + 1))
}

fn strip_version(line: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = line.strip_prefix(VERSION) {
        return Some(rest);
    }
    let (version, rest) = line.split_at_checked(VERSION.len())?;
    version.eq_ignore_ascii_case(VERSION).then_some(rest)
}

/// `SIP-Version` of RFC 3261 §25.1.
fn is_version(text: &[u8]) -> bool {
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let Some((name, numbers)) = text.split_at_checked(4) else { return false };
    let mut numbers = numbers.splitn(2, |byte| *byte == b'.');
    name.eq_ignore_ascii_case(b"SIP/") && numbers.next().is_some_and(is_number) && numbers.next().is_some_and(is_number)
}

/// First all bytes at once, whether there is any that could be one.
fn has_white(text: &[u8]) -> bool {
    text.iter().fold(false, |any, byte| any | (*byte <= b' ')) && text.iter().any(|byte| is_white(*byte))
}

/// `token` of RFC 3261 §25.1.
#[inline]
fn is_token(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)) == Some(&true)
}

const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0;
    while byte < token.len() {
        let is_mark = matches!(byte as u8, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        #[allow(clippy::indexing_slicing, reason = "evaluated when this is compiled")]
        {
            token[byte] = is_mark || (byte as u8).is_ascii_alphanumeric();
        }
        byte += 1;
    }
    token
};

const VERSION: &[u8] = b"SIP/2.0";
