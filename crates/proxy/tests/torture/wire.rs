//! The messages' bytes: how the files spell them, what a message consists of, and what the edge's changes are, undone.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where the messages are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture")
}

/// A datagram to send.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) bytes: Vec<u8>,
    /// Bytes that are the message; what follows is not part of it.
    pub(crate) framed: usize,
}

impl Sample {
    /// Reads `NAME.sip`. Its marks are those of RFC 4475 §2: a line end is CR LF, `<hex>00</hex>` are bytes, `<repeat count=N>…</repeat>`
    /// repeats; besides, `<end/>` ends the message before the datagram ends, and `{port}` is where responses arrive.
    pub(crate) fn read(name: &str, port: u16) -> Self {
        let path = folder().join(name).with_extension("sip");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let text = text.replace("{port}", &port.to_string());
        let (mut bytes, mut framed, mut rest) = (Vec::new(), None, text.as_str());
        let marked = |rest: &str, end: &str| {
            let (inner, rest) = rest.split_once(end).unwrap_or_else(|| panic!("{name}: {end} is missing"));
            (inner.to_owned(), rest.len())
        };
        while !rest.is_empty() {
            let after = if let Some(hex) = rest.strip_prefix("<hex>") {
                let (digits, left) = marked(hex, "</hex>");
                let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
                bytes.extend(pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()));
                left
            } else if let Some(repeat) = rest.strip_prefix("<repeat count=") {
                let (inner, left) = marked(repeat, "</repeat>");
                let (count, word) = inner.split_once('>').unwrap();
                bytes.extend(word.repeat(count.parse().unwrap()).bytes());
                left
            } else if let Some(after) = rest.strip_prefix("<end/>") {
                framed = Some(bytes.len());
                after.len()
            } else {
                match rest.as_bytes()[0] {
                    b'\n' => bytes.extend(b"\r\n"),
                    other => bytes.push(other),
                }
                rest.len() - 1
            };
            rest = &rest[rest.len() - after..];
        }
        let framed = framed.unwrap_or(bytes.len());
        Self { bytes, framed }
    }

    /// The same message as an INVITE, to somebody.
    pub(crate) fn into_invite(mut self) -> Self {
        let message = Parts::of(&self.bytes);
        let line = text(&self.bytes[..message.start_end]);
        let (method, rest) = line.split_once(' ').unwrap();
        let rest = match rest.strip_prefix("sip:") {
            // An edge calls nobody without a user part.
            Some(host) if !host.contains('@') => format!("sip:bob@{host}"),
            _ => rest.to_owned(),
        };
        let start = format!("INVITE {rest}");
        let cseq = message.one("cseq").expect("CSeq").line.clone();
        let line = text(&self.bytes[cseq.clone()]);
        let line = line.strip_suffix(&format!("{method}\r\n")).expect("the method in CSeq").to_owned() + "INVITE\r\n";
        self.splice(cseq, line.as_bytes());
        self.splice(0..message.start_end, start.as_bytes());
        self
    }

    /// The same message with each `from`, which it has once, replaced.
    pub(crate) fn change(mut self, changes: &[(&str, &str)]) -> Self {
        for (from, to) in changes {
            let places = find_all(&self.bytes, from.as_bytes());
            assert_eq!(places.len(), 1, "{from:?} in:\n{}", self.bytes.escape_ascii());
            self.splice(places[0]..places[0] + from.len(), to.as_bytes());
        }
        self
    }

    /// The message as a peer may expect it: without the Route headers, which the edge takes out of a request from outside a dialog, and
    /// without what follows the message.
    pub(crate) fn as_forwarded(&self) -> Vec<u8> {
        let message = Parts::of(&self.bytes);
        let mut bytes = self.bytes[..self.framed].to_vec();
        for route in message.all("route").rev() {
            bytes.drain(route.line.clone());
        }
        bytes
    }

    fn splice(&mut self, place: Range<usize>, with: &[u8]) {
        if place.start < self.framed {
            self.framed = self.framed + with.len() - place.len();
        }
        self.bytes.splice(place, with.iter().copied());
    }
}

/// Where the lines of a message are.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Offset of the start line's CR LF.
    pub(crate) start_end: usize,
    pub(crate) headers: Vec<HeaderLine>,
}

/// A header with its folds.
#[derive(Debug)]
pub(crate) struct HeaderLine {
    /// In lower case and long form.
    pub(crate) name: String,
    /// All of it, line end included.
    pub(crate) line: Range<usize>,
    /// What stands behind the colon, without white space around it.
    pub(crate) value: Range<usize>,
}

impl Parts {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let line_end = |at: usize| find_all(&bytes[at..], b"\r\n").first().map(|end| at + end);
        let start_end = line_end(0).expect("a start line");
        let mut headers = Vec::new();
        let mut at = start_end + 2;
        while let Some(mut end) = line_end(at).filter(|end| *end > at) {
            while matches!(bytes.get(end + 2), Some(b' ' | b'\t')) {
                end = line_end(end + 2).expect("the end of a fold");
            }
            let line = &bytes[at..end];
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let short = text(&line[..colon]).trim().to_lowercase();
            let long = match short.as_str() {
                "v" => "via",
                "f" => "from",
                "t" => "to",
                "i" => "call-id",
                "l" => "content-length",
                other => other,
            };
            let behind = line.get(colon + 1..).unwrap_or_default();
            let start = end - behind.trim_ascii_start().len();
            let value = start..start + bytes[start..end].trim_ascii_end().len();
            headers.push(HeaderLine { name: long.to_owned(), line: at..end + 2, value });
            at = end + 2;
        }
        Self { start_end, headers }
    }

    pub(crate) fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &HeaderLine> {
        self.headers.iter().filter(move |header| header.name == name)
    }

    pub(crate) fn one(&self, name: &str) -> Option<&HeaderLine> {
        self.all(name).next()
    }
}

/// Where a request belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Outside a dialog.
    New,
    /// Within a dialog that the edge has recorded its route in.
    InDialog,
}

/// Who is who, for undoing what the edge does.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Host and port that the edge writes into Via and Record-Route.
    pub(crate) sent_by: String,
    /// Where the request came from.
    pub(crate) source: SocketAddr,
    /// Host and port that the Request-URI gets.
    pub(crate) callee: String,
}

impl Places {
    /// Takes back what a proxy must change in a request (RFC 3261 §16.6) and nothing else: its own Via, Max-Forwards, Max-Breadth where
    /// there was none, the stamp on the topmost Via, and, in a request from outside a dialog, its Record-Route and the Request-URI's host. What is left has to be
    /// [`Sample::as_forwarded`].
    pub(crate) fn undo(&self, arrived: &[u8], sent: &[u8], scope: Scope) -> Result<Vec<u8>, String> {
        let (message, before) = (Parts::of(arrived), Parts::of(sent));
        let mut edits: Vec<(Range<usize>, Vec<u8>)> = Vec::new();

        let mut start = text(&sent[..before.start_end]);
        if scope == Scope::New {
            let uri = request_uri(&start)?;
            start = start.replacen(&uri, &self.with_our_host(&uri), 1);
        }
        let got = text(&arrived[..message.start_end]);
        if got != start {
            return Err(format!("the start line is {got:?} instead of {start:?}"));
        }
        edits.push((0..message.start_end, sent[..before.start_end].to_vec()));

        let mut vias = message.all("via");
        let own = vias.next().ok_or("there is no Via")?;
        let own_text = text(&arrived[own.value.clone()]);
        let prefix = format!("SIP/2.0/UDP {};", self.sent_by);
        if !own_text.starts_with(&prefix) || !own_text.contains(";rport") || !own_text.contains("branch=z9hG4bK") {
            return Err(format!("the topmost Via is not the edge's, but {own_text:?}"));
        }
        edits.push((own.line.clone(), Vec::new()));

        let recorded = format!("@{};lr>", self.sent_by);
        let own_routes: Vec<_> = message
            .all("record-route")
            .filter(|route| text(&arrived[route.value.clone()]).ends_with(&recorded))
            .collect();
        let opens_dialog = scope == Scope::New && !sent.starts_with(b"MESSAGE ");
        match (opens_dialog, &own_routes[..]) {
            (true, [route]) => edits.push((route.line.clone(), Vec::new())),
            (false, []) => {}
            _ => return Err(format!("the edge's Record-Route is there {} times", own_routes.len())),
        }

        let left = message.one("max-forwards").ok_or("there is no Max-Forwards")?;
        let number = |bytes: &[u8]| text(bytes).parse::<u32>().map_err(|error| format!("Max-Forwards: {error}"));
        let got = number(&arrived[left.value.clone()])?;
        let wanted = match before.one("max-forwards") {
            Some(header) => {
                edits.push((left.value.clone(), sent[header.value.clone()].to_vec()));
                number(&sent[header.value.clone()])? - 1
            }
            None => {
                edits.push((left.line.clone(), Vec::new()));
                70
            }
        };
        if got != wanted {
            return Err(format!("Max-Forwards is {got} instead of {wanted}"));
        }

        // RFC 5393 §5.3.3: one that is missing is added, and one branch gets what came.
        match (message.one("max-breadth"), before.one("max-breadth")) {
            (Some(added), None) if &arrived[added.value.clone()] == b"60" => {
                edits.push((added.line.clone(), Vec::new()))
            }
            (Some(_), Some(_)) => {}
            (added, _) => {
                return Err(format!("Max-Breadth: {:?}", added.map(|added| text(&arrived[added.value.clone()]))));
            }
        }

        let via = vias.next().ok_or("the sender's Via is gone")?;
        let sent_via = before.one("via").ok_or("there was no Via")?;
        let line = self.without_stamp(&arrived[via.line.clone()], &sent[sent_via.line.clone()])?;
        edits.push((via.line.clone(), line));

        edits.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
        let mut bytes = arrived.to_vec();
        for (place, with) in edits {
            bytes.splice(place, with);
        }
        Ok(bytes)
    }

    /// The topmost Via as it was before `received` and `rport` (RFC 3261 §18.2.1, RFC 3581 §4): this source differs from every sent-by.
    pub(crate) fn without_stamp(&self, stamped: &[u8], sent: &[u8]) -> Result<Vec<u8>, String> {
        let mut line = stamped.to_vec();
        let received = format!(";received={}", self.source.ip());
        let [at] = find_all(stamped, received.as_bytes())[..] else {
            return Err(format!("{received} is not once in {:?}", text(stamped)));
        };
        line.drain(at..at + received.len());
        let first = text(sent).split(',').next().unwrap_or_default().to_owned();
        if let Some((_, theirs)) = first.split_once(";received=") {
            let theirs = theirs.split([';', '\r']).next().unwrap_or_default();
            line.splice(at..at, format!(";received={theirs}").bytes());
        }
        let (filled, asked) = (format!("rport={}", self.source.port()), "rport");
        if !find_all(sent, asked.as_bytes()).is_empty() && find_all(sent, filled.as_bytes()).is_empty() {
            let [at] = find_all(&line, filled.as_bytes())[..] else {
                return Err(format!("{filled} is not once in {:?}", text(stamped)));
            };
            line.drain(at + asked.len()..at + filled.len());
        }
        Ok(line)
    }

    /// The Request-URI that this edge makes of one: another host, no headers, and no parameter that is about the old host.
    fn with_our_host(&self, uri: &str) -> String {
        let (user, rest) = uri.split_once('@').unwrap_or((uri, ""));
        let rest = rest.split('?').next().unwrap_or_default();
        let parameters: String = rest.split(';').skip(1).map(|parameter| format!(";{parameter}")).collect();
        format!("{user}@{}{parameters}", self.callee)
    }
}

/// `sample` with another Request-URI, and with these headers in place of its own From, To, Call-ID and Route.
pub(crate) fn in_dialog(sample: &Sample, uri: &str, headers: &str) -> Sample {
    let message = Parts::of(&sample.bytes);
    let start = text(&sample.bytes[..message.start_end]);
    let start = start.replacen(&request_uri(&start).unwrap(), uri, 1);
    let mut bytes = format!("{start}\r\n{headers}").into_bytes();
    for header in &message.headers {
        if !["from", "to", "call-id", "route"].contains(&header.name.as_str()) {
            bytes.extend_from_slice(&sample.bytes[header.line.clone()]);
        }
    }
    let body = message.headers.last().unwrap().line.end;
    bytes.extend_from_slice(&sample.bytes[body..sample.framed]);
    // The same message from outside a dialog may have been here before: this one is no copy of it.
    let cookie = b"branch=z9hG4bK";
    if let Some(at) = find_all(&bytes, cookie).first().map(|at| at + cookie.len())
        && !matches!(bytes[at], b';' | b',' | b'\r')
    {
        bytes.insert(at, b'd');
    }
    Sample { framed: bytes.len(), bytes }
}

/// A response to a request that arrived at the called side: its own header lines of `from`, the rest as given. `rest` starts with the
/// header after the status line.
pub(crate) fn response(request: &[u8], status: &[u8], rest: &[u8]) -> Vec<u8> {
    let message = Parts::of(request);
    let mut bytes = [status, b"\r\n"].concat();
    for name in ["via", "record-route", "from", "to", "call-id", "cseq"] {
        for header in message.all(name) {
            let line = &request[header.line.clone()];
            let (value, end) = line.split_at(line.len() - 2);
            bytes.extend_from_slice(value);
            if name == "to" {
                bytes.extend_from_slice(b";tag=callee");
            }
            bytes.extend_from_slice(end);
        }
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// A message without its topmost Via line, which is a line of its own when the edge has written it.
pub(crate) fn without_top_via(message: &[u8]) -> Vec<u8> {
    let line = Parts::of(message).one("via").expect("a Via").line.clone();
    [&message[..line.start], &message[line.end..]].concat()
}

/// Compares two messages, and says where they part.
pub(crate) fn compare(what: &str, got: &[u8], wanted: &[u8]) -> Result<(), String> {
    if got == wanted {
        return Ok(());
    }
    let at = got.iter().zip(wanted).position(|(a, b)| a != b).unwrap_or(got.len().min(wanted.len()));
    let around = |bytes: &[u8]| {
        let place = at.saturating_sub(60)..bytes.len().min(at + 60);
        let mut text = String::new();
        let _ = write!(text, "…{}…", bytes[place].escape_ascii());
        text
    };
    Err(format!("{what} differs at byte {at}:\n  got    {}\n  wanted {}", around(got), around(wanted)))
}

pub(crate) fn find_all(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    bytes.windows(what.len()).enumerate().filter(|(_, window)| *window == what).map(|(at, _)| at).collect()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn request_uri(start: &str) -> Result<String, String> {
    start.split(' ').nth(1).map(str::to_owned).ok_or(format!("{start:?} is no request line"))
}
