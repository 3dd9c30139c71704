//! Via (RFC 3261 §20.42, RFC 3581).

use crate::Span;
use crate::uri::{parameter, parameter_length, split_host_port, trim};

/// One Via value, its parts still as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via<'a> {
    /// Transport: `UDP`, `TCP`, `TLS`, …
    pub transport: &'a [u8],
    /// Host of sent-by.
    pub host: &'a [u8],
    /// Port of sent-by, when it is given.
    pub port: Option<u16>,
    /// Everything from the first semicolon on.
    pub parameters: &'a [u8],
}

impl<'a> Via<'a> {
    /// Takes a Via value apart; `None` when it is not `SIP/2.0/TRANSPORT host[:port][;parameters]`.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        Self::parse_any_version(text).and_then(|(via, version)| (version == b"2.0").then_some(via))
    }

    /// The same for a Via of any version of SIP, and the version: who speaks another one is told so by its Via (RFC 3261 §21.5.6).
    pub fn parse_any_version(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (before, parameters) = text.split_at_checked(memchr::memchr(b';', text).unwrap_or(text.len()))?;
        // White space is allowed around the slashes: SIP / 2.0 / UDP (RFC 4475 §3.1.1.1).
        let name_end = memchr::memchr(b'/', before)?;
        let version = before.get(name_end + 1..)?;
        let version_end = memchr::memchr(b'/', version)?;
        let rest = trim(version.get(version_end + 1..)?);
        let transport_end = rest.iter().position(|byte| byte.is_ascii_whitespace())?;
        let (transport, sent_by) = rest.split_at_checked(transport_end)?;
        let is_sip = trim(before.get(..name_end)?).eq_ignore_ascii_case(b"SIP");
        let version = trim(version.get(..version_end)?);
        let (host, port) = split_host_port(sent_by)?;
        (is_sip && !transport.is_empty()).then_some((Self { transport, host, port, parameters }, version))
    }

    /// The branch parameter.
    pub fn branch(&self) -> Option<&'a [u8]> {
        parameter(self.parameters, b"branch").filter(|branch| !branch.is_empty())
    }

    /// `rport`: `Some(b"")` when the sender asks for it, its value once it has been filled in.
    pub fn rport(&self) -> Option<&'a [u8]> {
        parameter(self.parameters, b"rport")
    }

    /// `received`.
    pub fn received(&self) -> Option<&'a [u8]> {
        parameter(self.parameters, b"received")
    }

    /// Whether the sender offers its connection for requests the other way: `alias` (RFC 5923 §5).
    pub fn has_alias(&self) -> bool {
        parameter(self.parameters, b"alias").is_some()
    }

    /// Where a parameter's value stands within `text`, which this Via was parsed from, its equals sign included; behind the name when
    /// there is none: the place for `=VALUE`. `None` without such a parameter.
    pub fn value_span(text: &[u8], name: &[u8]) -> Option<Span> {
        let mut at = memchr::memchr(b';', text)?;
        loop {
            let rest = text.get(at + 1..)?;
            let length = parameter_length(rest);
            let whole = Span::new(0, length).trimmed(rest);
            let one = whole.of(rest);
            let found = trim(one.get(..memchr::memchr(b'=', one).unwrap_or(one.len()))?);
            if found.eq_ignore_ascii_case(name) {
                let base = u32::try_from(at).ok()? + 1 + whole.start;
                return Some(Span::new(found.len(), one.len()).shifted(base));
            }
            at += 1 + length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_via() {
        let text = b"SIP / 2.0 /  UDP  192.0.2.1 : 5061 ;branch=z9hG4bKx; rport ;ttl=1";
        let via = Via::parse(text).unwrap();
        assert_eq!((via.transport, via.host, via.port), (b"UDP".as_slice(), b"192.0.2.1".as_slice(), Some(5061)));
        assert_eq!(via.branch(), Some(b"z9hG4bKx".as_slice()));
        assert_eq!(via.rport(), Some(b"".as_slice()));
        assert!(!via.has_alias());
        assert!(Via::parse(b"SIP/2.0/TLS a;branch=z9hG4bKalias; Alias").unwrap().has_alias());
        let value = Via::value_span(text, b"rport").unwrap();
        assert!(value.is_empty() && text.get(..value.start as usize).unwrap().ends_with(b"rport"));
        let text = b"SIP/2.0/UDP a;x=\";rport=1\"; RPORT = 5 ;received=192.0.2.1";
        let value = |name: &[u8]| Via::value_span(text, name).map(|span| span.of(text));
        assert_eq!(value(b"rport"), Some(b" = 5".as_slice()));
        assert_eq!(value(b"received"), Some(b"=192.0.2.1".as_slice()));
        assert_eq!(value(b"alias"), None);
        assert_eq!(Via::value_span(b"SIP/2.0/UDP a;", b"rport"), None);
    }

    #[test]
    fn what_is_no_via() {
        for text in
            ["", "SIP/2.0/UDP", "SIP/2.0/UDP ", "SIP/3.0/UDP a", "HTTP/1.1 a", "SIP/2.0/UDP a:x", "SIP/2.0/UDP ;a"]
        {
            assert_eq!(Via::parse(text.as_bytes()), None, "{text}");
        }
    }
}
