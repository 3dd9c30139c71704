//! Via (RFC 3261 §20.42, RFC 3581).

use crate::Span;
use crate::uri::{parameter, split_host_port, trim};

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
        let (before, parameters) = text.split_at_checked(memchr::memchr(b';', text).unwrap_or(text.len()))?;
        // White space is allowed around the slashes: SIP / 2.0 / UDP (RFC 4475 §3.1.1.1).
        let name_end = memchr::memchr(b'/', before)?;
        let version = before.get(name_end + 1..)?;
        let version_end = memchr::memchr(b'/', version)?;
        let rest = trim(version.get(version_end + 1..)?);
        let transport_end = rest.iter().position(|byte| byte.is_ascii_whitespace())?;
        let (transport, sent_by) = rest.split_at_checked(transport_end)?;
        let is_sip =
            trim(before.get(..name_end)?).eq_ignore_ascii_case(b"SIP") && trim(version.get(..version_end)?) == b"2.0";
        let (host, port) = split_host_port(sent_by)?;
        (is_sip && !transport.is_empty()).then_some(Self { transport, host, port, parameters })
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

    /// Where `rport` without a value ends within `text`, the value that this Via was parsed from: the place for `=PORT`.
    pub fn rport_end(text: &[u8]) -> Option<Span> {
        let mut at = memchr::memchr(b';', text)?;
        loop {
            let rest = text.get(at + 1..)?;
            let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
            let one = rest.get(..end)?;
            if trim(one).eq_ignore_ascii_case(b"rport") {
                let span = Span::new(0, end).trimmed(rest).shifted(u32::try_from(at).ok()? + 1);
                return Some(Span { start: span.end, end: span.end });
            }
            at += 1 + end;
            if at >= text.len() {
                return None;
            }
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
        let end = Via::rport_end(text).unwrap();
        assert!(text.get(..end.start as usize).unwrap().ends_with(b"rport"));
        assert_eq!(Via::rport_end(b"SIP/2.0/UDP a;rport=5"), None);
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
