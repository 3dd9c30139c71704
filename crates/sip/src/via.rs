//! Via (RFC 3261 §20.42, RFC 3581).

use crate::Span;
use crate::scan::find;
use crate::uri::{is_plain_value, parameter, parameter_length, split_host_port, trim};

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
        let (before, parameters) = text.split_at_checked(find(b';', text).unwrap_or(text.len()))?;
        let (is_sip, version, rest) = match before.strip_prefix(b"SIP/2.0/") {
            Some(rest) => (true, b"2.0".as_slice(), trim(rest)),
            // White space is allowed around the slashes: SIP / 2.0 / UDP (RFC 4475 §3.1.1.1).
            None => {
                let name_end = find(b'/', before)?;
                let version = before.get(name_end + 1..)?;
                let version_end = find(b'/', version)?;
                let is_sip = trim(before.get(..name_end)?).eq_ignore_ascii_case(b"SIP");
                (is_sip, trim(version.get(..version_end)?), trim(version.get(version_end + 1..)?))
            }
        };
        let transport_end = rest.iter().position(|byte| byte.is_ascii_whitespace())?;
        let (transport, sent_by) = rest.split_at_checked(transport_end)?;
        let (host, port) = split_host_port(sent_by)?;
        (is_sip && !transport.is_empty()).then_some((Self { transport, host, port, parameters }, version))
    }

    /// The branch parameter.
    pub fn branch(&self) -> Option<&'a [u8]> {
        Self::branch_in(self.parameters)
    }

    /// The branch parameter among the parameters of a Via: everything from the first semicolon on.
    pub fn branch_in(parameters: &'a [u8]) -> Option<&'a [u8]> {
        // As this edge writes it, and nearly every peer gives it back.
        let usual = parameters.strip_prefix(b";rport;branch=").filter(|rest| is_plain_value(rest));
        usual.or_else(|| parameter(parameters, b"branch")).filter(|branch| !branch.is_empty())
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
}

/// What the receiver of a request looks for among the parameters of its Via, found in one pass; of each the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ViaParameters<'a> {
    /// The value of `branch`; `None` when it is empty, too.
    pub branch: Option<&'a [u8]>,
    /// Where the value of `rport` stands within the Via, its equals sign included; behind the name when there is none: the place for
    /// `=VALUE`.
    pub rport: Option<Span>,
    /// The same of `received`.
    pub received: Option<Span>,
}

impl<'a> ViaParameters<'a> {
    /// Those of a Via.
    pub fn of(via: &'a [u8]) -> Self {
        let mut found = Self::default();
        let mut branch = None;
        let mut at = find(b';', via).map_or(via.len(), |at| at + 1);
        while let Some(rest) = via.get(at..).filter(|rest| !rest.is_empty()) {
            let length = parameter_length(rest);
            let whole = Span::new(0, length).trimmed(rest);
            let one = whole.of(rest);
            let wanted = match one.first() {
                Some(b'b' | b'B') => b"branch".as_slice(),
                Some(b'r' | b'R') if matches!(one.get(1), Some(b'p' | b'P')) => b"rport",
                Some(b'r' | b'R') => b"received",
                _ => b"",
            };
            let (name, value) = match one.get(wanted.len()) {
                None | Some(b'=') => one.split_at_checked(wanted.len()).unwrap_or((one, Default::default())),
                // Another one, or white space before the equals sign.
                Some(_) => one.split_at_checked(find(b'=', one).unwrap_or(one.len())).unwrap_or_default(),
            };
            let name = trim(name);
            if !wanted.is_empty() && name.eq_ignore_ascii_case(wanted) {
                let place = Span::new(name.len(), one.len()).shifted(whole.start + at as u32);
                match wanted {
                    b"branch" => _ = branch.get_or_insert(trim(value.get(1..).unwrap_or_default())),
                    b"rport" => _ = found.rport.get_or_insert(place),
                    _ => _ = found.received.get_or_insert(place),
                }
            }
            at += length + 1;
        }
        Self { branch: branch.filter(|branch| !branch.is_empty()), ..found }
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
        let found = ViaParameters::of(text);
        let value = found.rport.unwrap();
        assert!(value.is_empty() && text.get(..value.start as usize).unwrap().ends_with(b"rport"));
        assert_eq!((found.branch, found.received), (Some(b"z9hG4bKx".as_slice()), None));
        let text =
            b"SIP/2.0/UDP a;x=\";rport=1\"; RPORT = 5 ;received=192.0.2.1;rport=6;Branch = y ;branch=z; b=1;received";
        let found = ViaParameters::of(text);
        let value = |span: Option<Span>| span.map(|span| span.of(text));
        assert_eq!(value(found.rport), Some(b" = 5".as_slice()));
        assert_eq!(value(found.received), Some(b"=192.0.2.1".as_slice()));
        assert_eq!(found.branch, Some(b"y".as_slice()));
        for text in ["SIP/2.0/UDP a;", "SIP/2.0/UDP a", "", ";", "a;rports=1;;=rport;branch=", "a;branch;branch=1"] {
            assert_eq!(ViaParameters::of(text.as_bytes()), ViaParameters::default(), "{text}");
        }
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
