//! SIP messages as a strict user agent writes and reads them, and dialogs.

#![allow(dead_code, reason = "each behaviour uses its part of this module")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::peer::Peer;

/// A message: what it begins with, its header lines in their order, its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Request line or status line.
    pub(crate) start: String,
    /// Names as they are written, and values without the white space around them.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Reads a message whose head is text. Folded lines are joined.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no end of the headers in {:?}", bytes.escape_ascii().to_string()));
        let head = String::from_utf8_lossy(&bytes[..end]).replace("\r\n ", " ").replace("\r\n\t", " ");
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines.map(|line| line.split_once(':').unwrap_or((line, "")));
        let headers = headers.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
        Self { start, headers, body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        [text.as_bytes(), &self.body].concat()
    }

    /// The method of a request.
    pub(crate) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The Request-URI.
    pub(crate) fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The status code of a response.
    pub(crate) fn code(&self) -> u16 {
        let code = self.start.strip_prefix("SIP/2.0 ").and_then(|rest| rest.split(' ').next()).map(str::parse);
        code.unwrap_or_else(|| panic!("{} is no status line", self.start)).unwrap()
    }

    /// The values of all lines of this name, long or compact.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|(key, _)| long(key).eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of the first line of this name.
    pub(crate) fn header(&self, name: &str) -> &str {
        let first = self.headers(name).first().copied();
        first.unwrap_or_else(|| panic!("no {name} in:\n{}", self.text()))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.headers(name).is_empty()
    }

    /// The elements of all lines of this name, which commas part.
    pub(crate) fn elements(&self, name: &str) -> Vec<&str> {
        self.headers(name).into_iter().flat_map(elements).collect()
    }

    /// The branch of the topmost Via.
    pub(crate) fn branch(&self) -> &str {
        let via = self.elements("Via")[0];
        parameter(via, "branch").unwrap_or_else(|| panic!("no branch in {via}"))
    }

    /// Whether it is a response, of any code, to this request.
    pub(crate) fn answers(&self, request: &Message) -> bool {
        let same = |name| self.header(name) == request.header(name);
        self.start.starts_with("SIP/2.0 ") && same("Call-ID") && same("CSeq") && self.branch() == request.branch()
    }

    pub(crate) fn to_tag(&self) -> Option<&str> {
        parameter(self.header("To"), "tag")
    }

    /// The number in CSeq.
    pub(crate) fn cseq(&self) -> u32 {
        self.header("CSeq").split(' ').next().unwrap().parse().unwrap()
    }

    /// The message with one line of this name, in place of those that it has, or before Content-Length.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        let at = self.headers.iter().position(|(key, _)| long(key).eq_ignore_ascii_case(name));
        self = self.without(name);
        let at = at.unwrap_or_else(|| self.before_content_length());
        self.headers.insert(at, (name.to_owned(), value.to_owned()));
        self
    }

    /// The message with a further line, before Content-Length.
    pub(crate) fn and(mut self, name: &str, value: &str) -> Self {
        let at = self.before_content_length();
        self.headers.insert(at, (name.to_owned(), value.to_owned()));
        self
    }

    /// The message with a further Via below those that it has: it has passed another proxy first.
    pub(crate) fn with_via_below(mut self, via: &str) -> Self {
        let last = self.headers.iter().rposition(|(key, _)| long(key).eq_ignore_ascii_case("Via"));
        self.headers.insert(last.map_or(0, |last| last + 1), ("Via".to_owned(), via.to_owned()));
        self
    }

    /// The request with another Request-URI.
    pub(crate) fn to(mut self, uri: &str) -> Self {
        self.start = format!("{} {uri} SIP/2.0", self.method());
        self
    }

    /// The request as a proxy at this address sends it on to `uri`.
    pub(crate) fn forwarded_by(&self, proxy: SocketAddr, uri: &str) -> Self {
        let left = self.header("Max-Forwards").parse::<u32>().unwrap() - 1;
        let mut message = self.clone().to(uri).with("Max-Forwards", &left.to_string());
        let via = format!("SIP/2.0/UDP {proxy};branch={};rport", unique("z9hG4bK-proxy-"));
        message.headers.insert(0, ("Via".to_owned(), via));
        message
    }

    /// The response as a proxy sends it back: without the topmost Via.
    pub(crate) fn without_top_via(&self) -> Self {
        let mut message = self.clone();
        let top = message.headers.iter().position(|(key, _)| long(key).eq_ignore_ascii_case("Via"));
        message.headers.remove(top.unwrap());
        message
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| !long(key).eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn with_body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.with("Content-Type", kind).with("Content-Length", &length)
    }

    /// The ACK of a refusal of this request (RFC 3261 §17.1.1.3).
    pub(crate) fn ack(&self, refusal: &Message) -> Self {
        self.companion("ACK", refusal.header("To"))
    }

    /// The CANCEL of this request (RFC 3261 §9.1).
    pub(crate) fn cancel(&self) -> Self {
        self.companion("CANCEL", self.header("To"))
    }

    fn companion(&self, method: &str, to: &str) -> Self {
        let mut headers = vec![("Via".to_owned(), self.elements("Via")[0].to_owned())];
        let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
        self.headers("Route").into_iter().for_each(|route| add("Route", route));
        add("Max-Forwards", "70");
        add("From", self.header("From"));
        add("To", to);
        add("Call-ID", self.header("Call-ID"));
        add("CSeq", &format!("{} {method}", self.cseq()));
        add("Content-Length", "0");
        Self { start: format!("{method} {} SIP/2.0", self.uri()), headers, body: Vec::new() }
    }

    /// A response to this request with what it has to copy (RFC 3261 §8.2.6.2, §12.1.1), and `tag` in To where there is none.
    pub(crate) fn response(&self, status: &str, tag: &str) -> Self {
        let mut headers = Vec::new();
        let mut copy = |name: &str| {
            headers.extend(self.headers(name).into_iter().map(|value| (name.to_owned(), value.to_owned())));
        };
        ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"].into_iter().for_each(&mut copy);
        if self.to_tag().is_none() && !status.starts_with("100") {
            let to = headers.iter_mut().find(|(name, _)| name == "To").unwrap();
            to.1 = format!("{};tag={tag}", to.1);
        }
        headers.push(("Content-Length".to_owned(), "0".to_owned()));
        Self { start: format!("SIP/2.0 {status}"), headers, body: Vec::new() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn before_content_length(&self) -> usize {
        let length = self.headers.iter().position(|(key, _)| long(key).eq_ignore_ascii_case("Content-Length"));
        length.unwrap_or(self.headers.len())
    }
}

/// One side of a dialog (RFC 3261 §12).
#[derive(Debug, Clone)]
pub(crate) struct Dialog {
    pub(crate) call_id: String,
    /// This side's From.
    pub(crate) local: String,
    /// This side's To.
    pub(crate) remote: String,
    /// Number of the last request of this side.
    pub(crate) cseq: u32,
    /// In the order of the Route of this side's requests.
    pub(crate) routes: Vec<String>,
    /// The other side's Contact.
    pub(crate) target: String,
}

impl Dialog {
    /// What a response to its INVITE makes at the caller.
    pub(crate) fn of_caller(invite: &Message, response: &Message) -> Self {
        Self {
            call_id: invite.header("Call-ID").to_owned(),
            local: invite.header("From").to_owned(),
            remote: response.header("To").to_owned(),
            cseq: invite.cseq(),
            routes: response.elements("Record-Route").into_iter().rev().map(str::to_owned).collect(),
            target: uri_of(response.header("Contact")).to_owned(),
        }
    }

    /// What its response to an INVITE makes at the callee.
    pub(crate) fn of_callee(invite: &Message, response: &Message) -> Self {
        Self {
            call_id: invite.header("Call-ID").to_owned(),
            local: response.header("To").to_owned(),
            remote: invite.header("From").to_owned(),
            // The first request of this side has a number of its own choice (RFC 3261 §12.2.1.1).
            cseq: 100,
            routes: invite.elements("Record-Route").into_iter().map(str::to_owned).collect(),
            target: uri_of(invite.header("Contact")).to_owned(),
        }
    }

    /// The next request of this side.
    pub(crate) fn request(&mut self, from: &Peer, method: &str) -> Message {
        self.cseq += 1;
        self.message(from, method, self.cseq)
    }

    /// The ACK of the 2xx to this side's last INVITE: a transaction of its own.
    pub(crate) fn ack(&self, from: &Peer) -> Message {
        self.message(from, "ACK", self.cseq)
    }

    fn message(&self, from: &Peer, method: &str, cseq: u32) -> Message {
        let mut message = from.request(method, &self.target);
        let at = message.headers.iter().position(|(name, _)| name == "Max-Forwards").unwrap();
        let routes = self.routes.iter().map(|route| ("Route".to_owned(), route.clone()));
        message.headers.splice(at..at, routes);
        let message = message.with("From", &self.local).with("To", &self.remote).with("Call-ID", &self.call_id);
        message.with("CSeq", &format!("{cseq} {method}"))
    }
}

/// A word that no other message of this process has.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A parameter of a header's value, outside the brackets of its URI.
pub(crate) fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let behind = value.rsplit_once('>').map_or(value, |(_, behind)| behind);
    let parameters = behind.split(';').skip(1).map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
    parameters
        .map(|(key, value)| (key.trim(), value.trim()))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|it| it.1)
}

/// The URI of a value such as `"Bob" <sip:bob@192.0.2.1>;tag=1`.
pub(crate) fn uri_of(value: &str) -> &str {
    match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
        None => value.split(';').next().unwrap_or_default(),
    }
}

/// The address that a URI with an IP address names.
pub(crate) fn address_of(uri: &str) -> SocketAddr {
    let host = uri.split_once(':').unwrap().1;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = host.split([';', '?']).next().unwrap_or_default();
    let address = host.parse().or_else(|_| format!("{host}:5060").parse());
    address.unwrap_or_else(|_| panic!("{uri} names no address"))
}

/// Parts a list at its commas, but those in quotes or brackets.
fn elements(value: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut depth) = (Vec::new(), 0, false, 0);
    for (at, letter) in value.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            '<' if !quoted => depth += 1,
            '>' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(value[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(value[start..].trim());
    parts
}

/// The long form of a header's name (RFC 3261 §7.3.3).
fn long(name: &str) -> &str {
    match name {
        "v" | "V" => "Via",
        "f" | "F" => "From",
        "t" | "T" => "To",
        "i" | "I" => "Call-ID",
        "m" | "M" => "Contact",
        "l" | "L" => "Content-Length",
        "c" | "C" => "Content-Type",
        other => other,
    }
}
