//! The messages that the edge writes itself: responses, CANCEL and ACK, and what it adds to those that it sends on.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use sipedge_sip::Span;
use sipedge_sip::message::{Edits, Element, HeaderName, Message, Method};
use sipedge_sip::uri::parse_ipv4;
use sipedge_sip::via::{Via, ViaParameters};

use super::flow::{Arrival, Transport};
use super::head::Head;
use super::incoming::Incoming;
use super::{branch, setup::Setup};

/// A final or provisional response of our own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    /// A header of its own, with its line end.
    pub(super) header: Option<ExtraHeader>,
}

/// The header that explains an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum ExtraHeader {
    /// Retry-After, in seconds.
    RetryAfter(u32),
    /// Allow, of a 405.
    Allow,
    /// What a 200 to OPTIONS says of the edge (RFC 3261 §11.2).
    Capabilities,
    /// Unsupported, of a 420: what this header of the request has asked for.
    Unsupported(HeaderName),
}

impl Answer {
    pub(super) const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason, header: None }
    }

    pub(super) const fn with(self, header: ExtraHeader) -> Self {
        Self { header: Some(header), ..self }
    }
}

/// What the topmost Via of an incoming request lacks, and what its sender has no right to say (RFC 3261 §18.2.1, RFC 3581 §4).
#[derive(Debug, Clone, Copy)]
pub(super) struct ViaStamp {
    source: SocketAddr,
    /// The header line that it stands in.
    line: Span,
    /// Places in the message, in their order, and what goes there.
    parts: [Option<(Span, Part)>; 2],
}

/// One parameter of a [`ViaStamp`].
#[derive(Debug, Clone, Copy)]
enum Part {
    /// The value of `rport`.
    Port,
    /// The value of `received`.
    Address,
    /// `received` and its value.
    Received,
}

impl ViaStamp {
    pub(super) fn new(
        via: &Via<'_>,
        parameters: &ViaParameters<'_>,
        element: &Element<'_>,
        source: SocketAddr,
    ) -> Self {
        let place = |span: Option<Span>| span.map(|span| span.shifted(element.span.start));
        let rport = place(parameters.rport).map(|span| (span, Part::Port));
        let is_source = match source.ip() {
            IpAddr::V4(ip) => parse_ipv4(via.host) == Some(ip),
            // Without brackets, too.
            IpAddr::V6(_) => std::str::from_utf8(via.host).ok().and_then(|host| host.parse().ok()) == Some(source.ip()),
        };
        let received = match place(parameters.received) {
            // Whatever the sender has written there: it is the receiver's to say.
            Some(span) => Some((span, Part::Address)),
            None if rport.is_some() || !is_source => {
                Some((Span { start: element.span.end, end: element.span.end }, Part::Received))
            }
            None => None,
        };
        let mut parts = [rport, received];
        if let [Some((port, _)), Some((address, _))] = parts
            && port.start > address.start
        {
            parts.reverse();
        }
        Self { source, line: element.line(), parts }
    }

    fn apply(&self, edits: &mut Edits) {
        for (span, part) in self.parts.into_iter().flatten() {
            edits.replace(span, |out| self.write(part, out));
        }
    }

    /// Appends the header line that holds the Via, with what it lacks.
    fn write_line(&self, message: &Message<'_>, out: &mut Vec<u8>) {
        let mut at = self.line.start;
        for (span, part) in self.parts.into_iter().flatten() {
            out.extend_from_slice(Span { start: at, end: span.start }.of(message.bytes()));
            self.write(part, out);
            at = span.end;
        }
        out.extend_from_slice(Span { start: at, end: self.line.end }.of(message.bytes()));
    }

    fn write(&self, part: Part, out: &mut Vec<u8>) {
        match part {
            Part::Port => write_number("=", self.source.port(), out),
            Part::Address => write_address("=", self.source.ip(), out),
            Part::Received => write_address(";received=", self.source.ip(), out),
        }
    }
}

/// Where the response to a request goes (RFC 3261 §18.2.2, RFC 3581 §4): to the source, by its port when `rport` asks for it, else by
/// the port of sent-by.
///
/// Over a stream it is where a new connection goes when the request's own is gone: there the port of sent-by is the one that listens.
pub(super) fn response_address(via: &Via<'_>, parameters: &ViaParameters<'_>, arrival: &Arrival) -> SocketAddr {
    match parameters.rport {
        Some(_) if !arrival.transport.is_reliable() => arrival.source,
        _ => SocketAddr::new(arrival.source.ip(), via.port.unwrap_or(arrival.transport.default_port())),
    }
}

/// Notes the edits that every forwarded request gets: the stamp on the Via it came with, our own Via, Max-Forwards less one.
pub(super) fn edit_forwarded(
    edits: &mut Edits,
    message: &Message<'_>,
    stamp: &ViaStamp,
    branch: (u128, u32),
    transport: Transport,
    setup: &Setup,
) {
    let first = message.first_header();
    edits.insert(first, |out| {
        out.extend_from_slice(b"Via: SIP/2.0/");
        out.extend_from_slice(transport.via().as_bytes());
        out.push(b' ');
        out.extend_from_slice(setup.sent_by(transport).as_bytes());
        out.extend_from_slice(b";rport;branch=");
        branch::write(branch.0, branch.1, out);
        out.extend_from_slice(b"\r\n");
    });
    stamp.apply(edits);
    note_length(edits, message, transport);
    match message.header(HeaderName::MaxForwards) {
        Some(header) => {
            let left = message.max_forwards().flatten().unwrap_or_default().saturating_sub(1);
            edits.replace(header.span, |out| write_number("", left, out));
        }
        // RFC 3261 §16.6 step 3.
        None => edits.insert(first, |out| out.extend_from_slice(b"Max-Forwards: 70\r\n")),
    }
}

/// Notes Content-Length where a message that goes by a stream has none (RFC 3261 §16.6 step 9, §18.3).
pub(super) fn note_length(edits: &mut Edits, message: &Message<'_>, transport: Transport) {
    if transport.is_reliable() && message.header(HeaderName::ContentLength).is_none() {
        let body = message.body();
        edits.insert(message.first_header(), |out| {
            write_number("Content-Length: ", body.end.saturating_sub(body.start), out);
            out.extend_from_slice(b"\r\n");
        });
    }
}

/// Appends our answer to a request.
pub(super) fn answer(
    message: &Message<'_>,
    head: &Head<'_>,
    stamp: &ViaStamp,
    answer: Answer,
    tag: u128,
    out: &mut Vec<u8>,
) {
    answer_with(message, head, stamp, answer, tag, &[], out);
}

/// The same with further header lines.
pub(super) fn answer_with(
    message: &Message<'_>,
    head: &Head<'_>,
    stamp: &ViaStamp,
    answer: Answer,
    tag: u128,
    more: &[u8],
    out: &mut Vec<u8>,
) {
    write_status(answer, out);
    write_vias(message, stamp, out);
    write_dialog(message, answer.code, head.to_tag.is_empty().then_some(tag), out);
    if let Some(header) = answer.header {
        write_extra(header, message, out);
    }
    out.extend_from_slice(more);
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// Appends our answer to a request that lacks something: what there is of Via, From, To, Call-ID and CSeq goes back as it came.
pub(super) fn answer_malformed(message: &Message<'_>, stamp: &ViaStamp, answer: Answer, tag: u128, out: &mut Vec<u8>) {
    write_status(answer, out);
    write_vias(message, stamp, out);
    // Behind a To that cannot be read a tag would be part of whatever is broken.
    let wants_tag = message.to().is_some_and(|to| to.tag().is_none());
    write_dialog(message, answer.code, wants_tag.then_some(tag), out);
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// Appends our answer to a request from a message that has its Via, From, To, Call-ID and CSeq: the request as it went out, whose first Via
/// is ours and goes, or a response to it.
pub(super) fn answer_kept(forwarded: &Message<'_>, own_vias: usize, answer: Answer, tag: u128, out: &mut Vec<u8>) {
    write_status(answer, out);
    for header in forwarded.headers(HeaderName::Via).skip(own_vias) {
        out.extend_from_slice(header.line.of(forwarded.bytes()));
    }
    let has_tag = forwarded.to().and_then(|to| to.tag()).is_some();
    write_dialog(forwarded, answer.code, (!has_tag).then_some(tag), out);
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// Appends the CANCEL of an INVITE that we sent (RFC 3261 §9.1), or the ACK of the refusal that came to it (§17.1.1.3): the INVITE's
/// Request-URI, topmost Via, Route, From, Call-ID and CSeq number.
pub(super) fn companion(invite: &Message<'_>, parts: &Companion<'_>, out: &mut Vec<u8>) {
    let bytes = invite.bytes();
    let Companion { method, to, more } = *parts;
    out.extend_from_slice(method.name());
    out.push(b' ');
    out.extend_from_slice(invite.request().map(|request| request.uri.text).unwrap_or_default());
    out.extend_from_slice(b" SIP/2.0\r\n");
    if let Some(via) = invite.header(HeaderName::Via) {
        out.extend_from_slice(via.line.of(bytes));
    }
    for route in invite.headers(HeaderName::Route) {
        out.extend_from_slice(route.line.of(bytes));
    }
    out.extend_from_slice(b"Max-Forwards: 70\r\n");
    if let Some(from) = invite.header(HeaderName::From) {
        out.extend_from_slice(from.line.of(bytes));
    }
    out.extend_from_slice(to);
    if let Some(call_id) = invite.header(HeaderName::CallId) {
        out.extend_from_slice(call_id.line.of(bytes));
    }
    write_number("CSeq: ", invite.cseq().map(|cseq| cseq.number).unwrap_or_default(), out);
    out.push(b' ');
    out.extend_from_slice(method.name());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(more);
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// Appends of an INVITE what [`companion`] and [`answer_forwarded`] make others from.
pub(super) fn extract(invite: &Message<'_>, out: &mut Vec<u8>) {
    let bytes = invite.bytes();
    out.extend_from_slice(bytes.get(..invite.first_header() as usize).unwrap_or_default());
    for name in [HeaderName::Via, HeaderName::Route] {
        invite.headers(name).for_each(|header| out.extend_from_slice(header.line.of(bytes)));
    }
    for name in [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
        invite.header(name).into_iter().for_each(|header| out.extend_from_slice(header.line.of(bytes)));
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the same of an INVITE without Route that has just been sent on, without reading it again: its first two lines are the start line
/// and our own Via, all others are those of the request as it came.
pub(super) fn extract_sent(request: &Incoming<'_>, sent: &[u8], out: &mut Vec<u8>) {
    let line_end = |from: usize| memchr::memchr(b'\n', sent.get(from..)?).map(|at| from + at + 1);
    let two_lines = line_end(0).and_then(line_end).unwrap_or_default();
    out.extend_from_slice(sent.get(..two_lines).unwrap_or_default());
    write_vias(&request.message, &request.stamp, out);
    for name in [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
        let header = request.message.header(name);
        header.into_iter().for_each(|header| out.extend_from_slice(header.line.of(request.message.bytes())));
    }
    out.extend_from_slice(b"\r\n");
}

/// What a CANCEL or an ACK has that its INVITE has not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Companion<'a> {
    pub(super) method: Method<'a>,
    /// The To line of the INVITE or of the refusal.
    pub(super) to: &'a [u8],
    /// Further header lines.
    pub(super) more: &'a [u8],
}

/// Appends `prefix` and a number. (Not by `write!`, which costs ten times as much; so the ones below.)
pub(super) fn write_number(prefix: &str, number: impl Into<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(prefix.as_bytes());
    let mut digits = [0; LONGEST_NUMBER];
    let mut rest = number.into();
    let mut first = digits.len();
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        first = place;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

/// Appends `prefix` and an address.
fn write_address(prefix: &str, address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            let mut text = [0; 4 * 4];
            let mut length = 0;
            let mut put = |byte: u8| {
                if let Some(place) = text.get_mut(length) {
                    *place = byte;
                    length += 1;
                }
            };
            for octet in address.octets() {
                if octet > 99 {
                    put(b'0' + octet / 100);
                }
                if octet > 9 {
                    put(b'0' + octet / 10 % 10);
                }
                put(b'0' + octet % 10);
                put(b'.');
            }
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(text.get(..length - 1).unwrap_or_default());
        }
        IpAddr::V6(address) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{prefix}{address}");
        }
    }
}

/// The Via lines of a request as its response has them.
fn write_vias(message: &Message<'_>, stamp: &ViaStamp, out: &mut Vec<u8>) {
    for header in message.headers(HeaderName::Via) {
        if header.line == stamp.line {
            stamp.write_line(message, out);
        } else {
            out.extend_from_slice(header.line.of(message.bytes()));
        }
    }
}

fn write_status(answer: Answer, out: &mut Vec<u8>) {
    write_number("SIP/2.0 ", answer.code, out);
    out.push(b' ');
    out.extend_from_slice(answer.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// From, To, Call-ID and CSeq; `tag` is added to To, except in a 100 (RFC 3261 §8.2.6.2).
fn write_dialog(message: &Message<'_>, code: u16, tag: Option<u128>, out: &mut Vec<u8>) {
    let bytes = message.bytes();
    for name in [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
        let Some(header) = message.header(name) else { continue };
        match tag {
            Some(tag) if name == HeaderName::To && code != 100 => {
                out.extend_from_slice(Span { start: header.line.start, end: header.span.end }.of(bytes));
                out.extend_from_slice(b";tag=");
                branch::write_hex(&(tag as u64).to_be_bytes(), out);
                out.extend_from_slice(b"\r\n");
            }
            _ => out.extend_from_slice(header.line.of(bytes)),
        }
    }
    // RFC 3261 §8.2.6.1.
    if code == 100
        && let Some(timestamp) = message.header(HeaderName::Timestamp)
    {
        out.extend_from_slice(timestamp.line.of(bytes));
    }
}

fn write_extra(header: ExtraHeader, message: &Message<'_>, out: &mut Vec<u8>) {
    match header {
        ExtraHeader::RetryAfter(seconds) => {
            write_number("Retry-After: ", seconds, out);
            out.extend_from_slice(b"\r\n");
        }
        ExtraHeader::Allow => out.extend_from_slice(ALLOW),
        ExtraHeader::Capabilities => {
            out.extend_from_slice(ALLOW);
            out.extend_from_slice(
                b"Accept: application/sdp\r\nAccept-Encoding: identity\r\nAccept-Language: en\r\nSupported:\r\n",
            );
        }
        ExtraHeader::Unsupported(name) => {
            for asked in message.headers(name) {
                out.extend_from_slice(b"Unsupported: ");
                out.extend_from_slice(asked.text);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// Digits of the longest number, 2^64 - 1.
const LONGEST_NUMBER: usize = 20;
/// What the edge takes from outside a dialog, or answers itself.
const ALLOW: &[u8] = b"Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n";
