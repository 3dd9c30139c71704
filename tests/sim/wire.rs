//! SIP messages for the user agents: a strict reader and a plain writer of their own, so that the edge's parser is checked from outside.
//! Bytes are held as characters of Latin-1, so that nothing is lost that is not UTF-8.

use std::net::{IpAddr, SocketAddr};

use sipedge_proxy::engine::Transport;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msg {
    pub start: String,
    /// Name and value, as written; a fold stays in its value.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Msg {
    /// Reads a message and refuses whatever RFC 3261 §25.1 does not allow in one.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let end = find(bytes, b"\r\n\r\n").ok_or("the headers have no end")?;
        let head: String = bytes[..end].iter().map(|byte| char::from(*byte)).collect();
        let mut headers: Vec<(String, String)> = Vec::new();
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        for line in lines {
            if line.contains(['\r', '\n', '\0']) {
                return Err(format!("a bare CR, LF or NUL in {line:?}"));
            }
            if line.starts_with([' ', '\t']) {
                let last = headers.last_mut().ok_or("a fold without a header")?;
                last.1.push_str("\r\n");
                last.1.push_str(line);
                continue;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in {line:?}"))?;
            if name.is_empty()
                || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte))
            {
                return Err(format!("{name:?} is no header name"));
            }
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let msg = Self { start, headers, body: bytes[end + 4..].to_vec() };
        msg.check()?;
        Ok(msg)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let mut bytes: Vec<u8> = text.chars().map(|letter| letter as u8).collect();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn check(&self) -> Result<(), String> {
        for name in ["From", "To", "Call-ID", "CSeq", "Content-Length"] {
            let count = self.values(name).count();
            if count != 1 {
                return Err(format!("{count} {name} headers"));
            }
        }
        if self.get("Content-Length").parse() != Ok(self.body.len()) {
            return Err(format!(
                "Content-Length {} with {} bytes of body",
                self.get("Content-Length"),
                self.body.len()
            ));
        }
        let (number, method) = self.get("CSeq").split_once(' ').ok_or("CSeq without a method")?;
        number.parse::<u32>().map_err(|_| "CSeq without a number")?;
        if self.is_request() {
            let parts: Vec<&str> = self.start.split(' ').collect();
            let [start_method, uri, "SIP/2.0"] = parts[..] else { return Err(format!("start line {:?}", self.start)) };
            if start_method != method {
                return Err(format!("CSeq names {method}, the start line {start_method}"));
            }
            if !uri.starts_with("sip:") {
                return Err(format!("Request-URI {uri}"));
            }
            if self.values("Max-Forwards").count() != 1 || self.get("Max-Forwards").parse::<u8>().is_err() {
                return Err("Max-Forwards".to_owned());
            }
        } else if self.code() < 100 || self.code() > 699 || self.start.as_bytes().get(11) != Some(&b' ') {
            return Err(format!("status line {:?}", self.start));
        }
        let vias = self.list("Via");
        if vias.is_empty() {
            return Err("no Via".to_owned());
        }
        for via in &vias {
            if transport_of(via).is_none() {
                return Err(format!("Via {via:?}"));
            }
            sent_by(via).parse::<SocketAddr>().map_err(|_| format!("sent-by of Via {via:?}"))?;
            if !parameter(via, "branch").is_some_and(|branch| branch.starts_with("z9hG4bK") && branch.len() > 8) {
                return Err(format!("no branch in Via {via:?}"));
            }
        }
        if self.tag("From").is_empty() {
            return Err("From without a tag".to_owned());
        }
        if !self.is_request() && self.code() > 100 && self.tag("To").is_empty() {
            return Err(format!("To without a tag in {}", self.start));
        }
        for name in ["Route", "Record-Route", "Contact"] {
            for element in self.list(name) {
                address(&element).ok_or_else(|| format!("{name} {element:?}"))?;
            }
        }
        Ok(())
    }

    pub fn is_request(&self) -> bool {
        !self.start.starts_with("SIP/2.0 ")
    }

    pub fn method(&self) -> &str {
        let cseq = self.get("CSeq");
        cseq.split_once(' ').map_or("", |(_, method)| method)
    }

    pub fn number(&self) -> u32 {
        self.get("CSeq").split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
    }

    pub fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// Status code; 0 of a request.
    pub fn code(&self) -> u16 {
        self.start.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_default()
    }

    /// Values of all headers of this name, long or compact.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(other, _)| is_name(other, name)).map(|(_, value)| value.as_str())
    }

    pub fn get(&self, name: &str) -> &str {
        self.headers.iter().find(|(other, _)| is_name(other, name)).map_or("", |(_, value)| value)
    }

    /// Elements of a comma-separated header over all its lines.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.values(name).flat_map(|value| value.split(',')).map(|element| element.trim().to_owned()).collect()
    }

    pub fn tag(&self, name: &str) -> &str {
        let value = self.get(name);
        let after = value.rfind('>').map_or(value, |close| &value[close..]);
        parameter(after, "tag").unwrap_or_default()
    }

    pub fn top_via(&self) -> String {
        self.list("Via").into_iter().next().unwrap_or_default()
    }

    pub fn branch(&self) -> String {
        parameter(&self.top_via(), "branch").unwrap_or_default().to_owned()
    }

    /// What names a transaction upstream: branch and sent-by of the topmost Via.
    pub fn transaction(&self) -> String {
        let via = self.top_via();
        format!("{} {}", parameter(&via, "branch").unwrap_or_default(), sent_by(&via))
    }

    /// Index of the call, which the agents write into the Call-ID.
    pub fn call(&self) -> Option<usize> {
        self.get("Call-ID").strip_prefix("call-")?.split('-').next()?.parse().ok()
    }
}

/// A header name, long or compact.
pub fn is_name(written: &str, name: &str) -> bool {
    let compact = match name {
        "Via" => "v",
        "From" => "f",
        "To" => "t",
        "Call-ID" => "i",
        "Contact" => "m",
        "Content-Length" => "l",
        _ => "",
    };
    written.eq_ignore_ascii_case(name) || (!compact.is_empty() && written.eq_ignore_ascii_case(compact))
}

/// The value of `;name=value`; empty when it stands without one.
pub fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(';').skip(1).find_map(|one| {
        let (found, value) = one.split_once('=').unwrap_or((one, ""));
        (found.trim() == name).then_some(value.trim())
    })
}

/// The transport that a Via names.
pub fn transport_of(via: &str) -> Option<Transport> {
    let (protocol, _) = via.strip_prefix("SIP/2.0/")?.split_once(' ')?;
    TRANSPORTS.into_iter().find(|transport| transport.via() == protocol)
}

pub fn sent_by(via: &str) -> &str {
    via.split_once(' ').map_or("", |(_, rest)| rest.split(';').next().unwrap_or_default())
}

/// Address and port of `<sip:user@ip:port;…>` or `sip:ip:port`; a host name is one that [`name_of`] has made.
pub fn address(text: &str) -> Option<SocketAddr> {
    let host = uri_of(text).strip_prefix("sip:")?;
    let host = host.split_once('@').map_or(host, |(_, host)| host).split(';').next()?;
    let (name, port) = host.split_once(':').unwrap_or((host, "5060"));
    let ip = ip_of(name).or_else(|| name.parse().ok())?;
    Some(SocketAddr::new(ip, port.parse().ok()?))
}

/// How a URI is reached.
pub fn hop(text: &str) -> Option<(Transport, SocketAddr)> {
    let named = parameter(uri_of(text), "transport");
    let transport =
        named.map_or(Some(Transport::Udp), |named| TRANSPORTS.into_iter().find(|it| it.parameter() == named))?;
    let is_tls =
        transport == Transport::Tls && !uri_of(text).rsplit('@').next()?.trim_start_matches("sip:").contains(':');
    let mut address = address(text)?;
    if is_tls {
        address.set_port(transport.default_port());
    }
    Some((transport, address))
}

/// The host name of an address.
pub fn name_of(ip: IpAddr) -> String {
    format!("h{}.example", ip.to_string().replace('.', "-"))
}

/// The address of a host name that [`name_of`] has made.
pub fn ip_of(name: &str) -> Option<IpAddr> {
    name.strip_prefix('h')?.strip_suffix(".example")?.replace('-', ".").parse().ok()
}

const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

/// The URI within angle brackets.
pub fn uri_of(text: &str) -> &str {
    text.split_once('<').map_or(text, |(_, rest)| rest.split('>').next().unwrap_or_default())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
