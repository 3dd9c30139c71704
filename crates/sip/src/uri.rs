//! SIP URIs and the name-addr form of From, To, Route and Record-Route (RFC 3261 §19.1, §20.10, §25.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::scan::{digits, find, find2, is_white};

/// A SIP or SIPS URI, its parts still as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'a> {
    /// Whether the scheme is `sips`.
    pub secure: bool,
    /// User part (and password), when there is one.
    pub user: Option<&'a [u8]>,
    /// Host: a name, an IPv4 address, or an IPv6 address with its brackets.
    pub host: &'a [u8],
    /// Port, when it is given.
    pub port: Option<u16>,
    /// Everything from the first semicolon on, up to the headers: `;lr;transport=udp`.
    pub parameters: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Takes a URI apart; `None` when its scheme is another one, or it has no host.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let colon = find(b':', text)?;
        let (scheme, rest) = text.split_at_checked(colon)?;
        let secure = scheme.eq_ignore_ascii_case(b"sips");
        if !secure && !scheme.eq_ignore_ascii_case(b"sip") {
            return None;
        }
        let rest = rest.get(1..)?;
        // User parts may hold ';' and '?', so the '@' decides; after the host it may only stand in headers, escaped.
        let (user, rest) = match find(b'@', rest) {
            Some(at) => (Some(rest.get(..at)?), rest.get(at + 1..)?),
            None => (None, rest),
        };
        let rest = rest.get(..find(b'?', rest).unwrap_or(rest.len()))?;
        let (host_port, parameters) = rest.split_at_checked(find(b';', rest).unwrap_or(rest.len()))?;
        let (host, port) = split_host_port(host_port)?;
        Some(Self { secure, user, host, port, parameters })
    }

    /// The host as an address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        parse_ip(self.host)
    }

    /// The value of a parameter: `Some(b"")` when it stands without one.
    pub fn parameter(&self, name: &[u8]) -> Option<&'a [u8]> {
        parameter(self.parameters, name)
    }

    /// The `transport` parameter as it is written: `udp`, `TCP`, `tls`, … (RFC 3261 §19.1.1: case does not matter).
    pub fn transport(&self) -> Option<&'a [u8]> {
        self.parameter(b"transport").filter(|transport| !transport.is_empty())
    }

    /// The `maddr` parameter: the host to send to instead of the URI's own.
    pub fn maddr(&self) -> Option<&'a [u8]> {
        self.parameter(b"maddr").filter(|host| !host.is_empty())
    }

    /// Whether it names a loose router: `lr`, with or without a value (RFC 3261 §16.12; some write `lr=on`).
    pub fn is_loose(&self) -> bool {
        self.parameter(b"lr").is_some()
    }
}

/// `"Name" <sip:user@host>;tag=1` or `sip:user@host;tag=1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The URI as written.
    pub uri: &'a [u8],
    /// The header's parameters: everything from the first semicolon on.
    pub parameters: &'a [u8],
}

impl<'a> NameAddr<'a> {
    /// Finds URI and parameters; `None` when a bracket or a quote is left open, or there is no URI.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let text = match text.first()? {
            b'"' => text.get(quoted_length(text)?..)?,
            _ => text,
        };
        let (uri, parameters) = match find(b'<', text) {
            Some(open) => {
                let inner = text.get(open + 1..)?;
                let close = find(b'>', inner)?;
                let after = inner.get(close + 1..)?;
                (inner.get(..close)?, after.get(find(b';', after).unwrap_or(after.len())..)?)
            }
            // Without brackets every parameter is the header's (RFC 3261 §20.10).
            None => text.split_at_checked(find(b';', text).unwrap_or(text.len()))?,
        };
        let uri = trim(uri);
        (!uri.is_empty()).then_some(Self { uri, parameters })
    }

    /// The `tag` parameter, when it is there and not empty.
    pub fn tag(&self) -> Option<&'a [u8]> {
        // Nearly always it is the only one.
        let usual = self.parameters.strip_prefix(b";tag=").filter(|rest| is_plain_value(rest));
        usual.or_else(|| parameter(self.parameters, b"tag")).filter(|tag| !tag.is_empty())
    }
}

/// The value of a parameter in `;name=value;name` text; `Some(b"")` when it stands without a value.
pub(crate) fn parameter<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = match text {
        [b';', rest @ ..] => rest,
        _ => text.get(find(b';', text)? + 1..)?,
    };
    loop {
        // Behind white space the name begins somewhere else.
        let may_be_it = match (rest.first(), name.first()) {
            (Some(first), Some(wanted)) => first.eq_ignore_ascii_case(wanted) || is_white(*first),
            _ => false,
        };
        let length = parameter_length(rest);
        if may_be_it {
            let one = rest.get(..length)?;
            let (found, value) = match one.get(name.len()) {
                Some(b'=') => (one.get(..name.len())?, one.get(name.len() + 1..)?),
                None => (one, Default::default()),
                Some(_) => match find(b'=', one) {
                    Some(equals) => (one.get(..equals)?, one.get(equals + 1..)?),
                    None => (one, Default::default()),
                },
            };
            if trim(found).eq_ignore_ascii_case(name) {
                return Some(trim(value));
            }
        }
        rest = rest.get(length + 1..)?;
    }
}

/// Whether this is the rest of one parameter's value as nearly all are written: no quote, no white space, and no semicolon.
#[inline]
pub(crate) fn is_plain_value(text: &[u8]) -> bool {
    text.iter().fold(true, |all, byte| all & (*byte > b' ' && *byte != b';' && *byte != b'"'))
}

/// Splits `host:port`; the port of an IPv6 address stands after its bracket.
pub(crate) fn split_host_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    // Nearly all are a name or an IPv4 address, and at most a port.
    let plain = text.iter().position(|byte| !is_plain_host(*byte)).unwrap_or(text.len());
    match text.split_at_checked(plain)? {
        (host @ [_, ..], []) => return Some((host, None)),
        (host @ [_, ..], [b':', port @ ..]) => {
            if let Some(port) = digits(port) {
                return Some((host, Some(port)));
            }
        }
        _ => {}
    }
    let text = trim(text);
    let host_end =
        if text.first() == Some(&b'[') { find(b']', text)? + 1 } else { find(b':', text).unwrap_or(text.len()) };
    let (host, rest) = text.split_at_checked(host_end)?;
    let host = trim(host);
    let rest = trim(rest);
    let port = match rest.strip_prefix(b":") {
        Some(port) => Some(digits(trim(port))?),
        None if rest.is_empty() => None,
        None => return None,
    };
    let is_host = !host.is_empty()
        && host
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'[' | b']' | b':'));
    is_host.then_some((host, port))
}

/// An IPv4 address, or an IPv6 address in brackets.
pub fn parse_ip(host: &[u8]) -> Option<IpAddr> {
    match host.strip_prefix(b"[") {
        Some(rest) => {
            let text = std::str::from_utf8(rest.strip_suffix(b"]")?).ok()?;
            text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        None => parse_ipv4(host).map(IpAddr::V4),
    }
}

/// As the standard library reads it, which costs four times as much: four numbers without leading zeros.
pub fn parse_ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut address = 0_u32;
    let (mut number, mut digits, mut dots) = (0_u32, 0, 0);
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            number = number * 10 + u32::from(digit);
            digits += 1;
            // A leading zero could mean octal digits.
            if number > 255 || (digits > 1 && number < 10) {
                return None;
            }
        } else if *byte == b'.' && digits > 0 && dots < 3 {
            address = address << 8 | number;
            (number, digits, dots) = (0, 0, dots + 1);
        } else {
            return None;
        }
    }
    (digits > 0 && dots == 3).then(|| Ipv4Addr::from(address << 8 | number))
}

/// A letter, a digit, or what else stands in names and IPv4 addresses.
#[inline]
fn is_plain_host(byte: u8) -> bool {
    PLAIN_HOST.get(usize::from(byte)) == Some(&true)
}

const PLAIN_HOST: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < plain.len() {
        let is_mark = byte == b'-' as usize || byte == b'.' as usize || byte == b'_' as usize;
        #[allow(clippy::indexing_slicing, reason = "evaluated when this is compiled")]
        {
            plain[byte] = is_mark || (byte as u8).is_ascii_alphanumeric();
        }
        byte += 1;
    }
    plain
};

#[inline]
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_white(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_white(*last)
    {
        text = rest;
    }
    text
}

/// Bytes up to the next semicolon outside quotes.
#[inline]
pub(crate) fn parameter_length(text: &[u8]) -> usize {
    match find2([b';', b'"'], text) {
        None => text.len(),
        Some(at) if text.get(at) == Some(&b';') => at,
        Some(_) => length_with_quotes(text),
    }
}

fn length_with_quotes(text: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (offset, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return offset,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of a quoted string, both quotes included; `None` when it has no end.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (offset, byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(offset + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_addresses_are_those_of_the_standard_library() {
        let texts = "0.0.0.0 255.255.255.255 1.2.3.4 01.2.3.4 1.2.3.04 1.2.3.00 256.1.1.1 1.2.3 1.2.3.4.5 1..2.3 .1.2.3 1.2.3. 1.2.3.4x \
                     1.2.3.+4 1.2.3.1000 a.b.c.d 10.0.0.10 100.99.9.0";
        for text in texts.split(' ').chain(["", " 1.2.3.4", "1.2.3.4 "]) {
            assert_eq!(parse_ipv4(text.as_bytes()), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn parts_of_a_uri() {
        let uri = Uri::parse(b"sip:+1555;npdi=yes:pw@Host.Example:5070;transport=udp;lr?subject=x").unwrap();
        assert_eq!(uri.user, Some(b"+1555;npdi=yes:pw".as_slice()));
        assert_eq!((uri.host, uri.port), (b"Host.Example".as_slice(), Some(5070)));
        assert_eq!(uri.parameter(b"LR"), Some(b"".as_slice()));
        assert_eq!(uri.parameter(b"transport"), Some(b"udp".as_slice()));
        assert_eq!(uri.parameter(b"maddr"), None);
        assert_eq!(Uri::parse(b"sip:[2001:db8::1]:5061").unwrap().ip(), Some("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn parameters_that_decide_the_way() {
        let uri = Uri::parse(b"sip:a@b;Transport=TLS;maddr=192.0.2.1;lr=on").unwrap();
        assert_eq!((uri.transport(), uri.maddr()), (Some(b"TLS".as_slice()), Some(b"192.0.2.1".as_slice())));
        assert!(uri.is_loose());
        let uri = Uri::parse(b"sip:a;lr@b;lrx;transport=;maddr").unwrap();
        assert_eq!((uri.transport(), uri.maddr(), uri.is_loose()), (None, None, false));
    }

    #[test]
    fn what_is_no_sip_uri() {
        for text in ["tel:+1555", "sip:", "sip:user@", "sip:a@b:99999", "sip:a@[::1", "sip:a@b c", "http://x", ""] {
            assert_eq!(Uri::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn tags_are_found_behind_quotes_and_brackets() {
        let tag = |text: &'static str| NameAddr::parse(text.as_bytes()).and_then(|value| value.tag());
        assert_eq!(tag("\"a <;tag=no> \\\" b\" <sip:a@b;tag=no>;x=1; TAG = yes"), Some(b"yes".as_slice()));
        assert_eq!(tag("sip:a@b;tag=yes"), Some(b"yes".as_slice()));
        assert_eq!(tag("<sip:a@b>;tag="), None);
        assert_eq!(tag("\"open <sip:a@b>;tag=1"), None);
        assert_eq!(tag("<sip:a@b;tag=1"), None);
    }
}
