//! The values of a spec that have a form of their own, and what is said when they do not have it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time as the spec writes it: a whole number and its unit, `500ms`, `5s`, `2m`, `4h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(u32);

/// Where calls go: `sip:HOST`, `sip:HOST:PORT`, with `;transport=udp`, `tcp` or `tls` or without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Host name in lower case, or IPv4 address.
    pub host: String,
    /// Port, when the URI has one.
    pub port: Option<u16>,
    /// Transport, when the URI has one. Without it DNS decides (RFC 3263 §4.1), and for an address it is UDP.
    pub transport: Option<Transport>,
}

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// As a URI parameter and the spec write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Its port where none is named (RFC 3261 §19.1.2).
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a value does not have its form, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {help}")]
pub struct Fault {
    /// What is wrong.
    pub reason: String,
    /// What to write instead.
    pub help: String,
}

impl Fault {
    pub(super) fn new(reason: impl Into<String>, help: impl Into<String>) -> Self {
        Self { reason: reason.into(), help: help.into() }
    }
}

impl Duration {
    /// `millis` milliseconds.
    pub const fn from_millis(millis: u32) -> Self {
        Self(millis)
    }

    /// `secs` seconds; at most 49 days.
    pub const fn from_secs(secs: u32) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// In milliseconds.
    pub const fn as_millis(self) -> u32 {
        self.0
    }

    /// In seconds, a part of a second counted as a whole one.
    pub const fn as_secs_up(self) -> u32 {
        self.0.div_ceil(1_000)
    }
}

/// Units from long to short, in milliseconds.
const UNITS: [(&str, u32); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let (unit, millis) = UNITS.iter().find(|(_, millis)| self.0.is_multiple_of(*millis)).unwrap_or(&("ms", 1));
        write!(f, "{}{unit}", self.0 / millis)
    }
}

impl FromStr for Duration {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let form = "write a whole number and its unit: 500ms, 5s, 2m or 4h";
        if number.is_empty() {
            return Err(Fault::new(format!("`{text}` is no duration"), form));
        }
        if unit.is_empty() {
            return Err(Fault::new(
                format!("`{text}` has no unit"),
                format!("write {text}s for seconds, {text}ms for milliseconds"),
            ));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(Fault::new(format!("`{unit}` is no unit of time"), form));
        };
        number
            .parse::<u32>()
            .ok()
            .and_then(|number| number.checked_mul(*factor))
            .map(Self)
            .ok_or_else(|| Fault::new(format!("`{text}` is longer than a timer can run"), "write at most 1000h"))
    }
}

impl FromStr for Target {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let lower = text.to_ascii_lowercase();
        let Some((scheme, rest)) =
            lower.split_once(':').filter(|(scheme, _)| matches!(*scheme, "sip" | "sips" | "tel"))
        else {
            return Err(Fault::new(format!("`{text}` is no SIP URI"), format!("write sip:{text}")));
        };
        match scheme {
            "sips" => {
                let place = rest.split(';').next().unwrap_or_default();
                return Err(Fault::new(
                    "a sips: URI promises TLS on every hop to the callee's phone, which nobody behind the next hop has to keep",
                    format!("write sip:{place};transport=tls for TLS to the next hop"),
                ));
            }
            "tel" => {
                return Err(Fault::new(
                    "a tel: URI names a number and no place to send calls to",
                    "write sip:HOST or sip:HOST:PORT",
                ));
            }
            _ => {}
        }
        let (place, parameters) = rest.split_once(';').unwrap_or((rest, ""));
        let mut transport = None;
        for parameter in parameters.split(';').filter(|parameter| !parameter.is_empty()) {
            let Some(name) = parameter.strip_prefix("transport=") else {
                return Err(Fault::new(
                    format!("the URI parameter `{parameter}` has no meaning here"),
                    format!("write sip:{place}"),
                ));
            };
            let known = Transport::ALL.into_iter().find(|known| known.as_str() == name);
            let Some(known) = known else {
                return Err(Fault::new(
                    format!("the transport `{name}` is not there"),
                    format!("write sip:{place};transport=tcp, or udp or tls"),
                ));
            };
            if transport.replace(known).is_some() {
                return Err(Fault::new("the URI has two transports", format!("write sip:{place};transport={name}")));
            }
        }
        if let Some((user, host)) = place.rsplit_once('@') {
            let reason = format!("the user part `{user}` would be lost: the called number comes from the call");
            return Err(Fault::new(reason, format!("write sip:{host}")));
        }
        if place.starts_with('[') || place.parse::<Ipv6Addr>().is_ok() {
            return Err(Fault::new(
                "targets with an IPv6 address are not there yet",
                "write an IPv4 address or a host name",
            ));
        }
        let (host, port) = match place.split_once(':') {
            None => (place, None),
            Some((host, port)) => match port.parse::<u16>() {
                Ok(port) if port > 0 => (host, Some(port)),
                _ => {
                    return Err(Fault::new(
                        format!("`{port}` is no port"),
                        format!("write a port of 1 to 65535, or sip:{host}"),
                    ));
                }
            },
        };
        if host.parse::<Ipv4Addr>().is_err() {
            host_name(host)?;
        }
        Ok(Self { host: host.into(), port, transport })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sip:{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        self.transport.map_or(Ok(()), |transport| write!(f, ";transport={transport}"))
    }
}

impl Target {
    /// The address, when the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The transport that calls to it take when DNS says nothing else.
    pub fn usual_transport(&self) -> Transport {
        self.transport.unwrap_or(Transport::Udp)
    }

    /// The port that calls to it take when DNS says nothing else.
    pub fn usual_port(&self) -> u16 {
        self.port.unwrap_or(self.usual_transport().default_port())
    }
}

macro_rules! text_form {
    ($type:ident, $format:literal, $pattern:literal, $example:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "format": $format, "pattern": $pattern, "examples": [$example]})
            }
        }
    };
}

text_form!(Duration, "duration", "^[0-9]+(ms|s|m|h)$", "5s");
text_form!(Target, "sip-uri", "^[sS][iI][pP]:", "sip:pbx.example.com");

/// Checks `text` against a format that the schema names. Unknown formats pass.
pub(crate) fn check_format(format: &str, text: &str) -> Result<(), Fault> {
    match format {
        "duration" => text.parse::<Duration>().map(|_| ()),
        "sip-uri" => text.parse::<Target>().map(|_| ()),
        "cidr" => cidr(text),
        "host-name" => host_name(text),
        "edge-name" => name(text).and_then(|()| edge_name(text)),
        "trunk-name" => name(text),
        "aws-region" => region(text),
        "aws-zone" => zone(text),
        "number" => number(text),
        other => super::cloud_values::check_format(other, text),
    }
}

/// A host name in lower or upper case (RFC 1123 §2.1), with at least one letter in its last label.
pub(crate) fn host_name(text: &str) -> Result<(), Fault> {
    let example = "write a host name such as example.pstn.twilio.com";
    if text.is_empty() {
        return Err(Fault::new("the host name is empty", example));
    }
    if let Some((scheme, host)) =
        text.split_once(':').filter(|(scheme, _)| matches!(*scheme, "sip" | "sips" | "http" | "https"))
    {
        let reason = format!("a host name has no scheme (`{scheme}:`)");
        return Err(Fault::new(reason, format!("write {}", host.trim_start_matches('/'))));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(Fault::new(
            format!("`{text}` is an address and no host name"),
            format!("write targets: [\"sip:{text}\"]"),
        ));
    }
    if let Some((host, port)) = text.split_once(':') {
        let reason = format!("a host name has no port (`:{port}`)");
        return Err(Fault::new(reason, format!("write targets: [\"sip:{host}:{port}\"]")));
    }
    if text.len() > 253 {
        return Err(Fault::new(format!("the host name has {} characters; DNS allows 253", text.len()), example));
    }
    for label in text.split('.') {
        if label.is_empty() {
            return Err(Fault::new(format!("`{text}` has an empty label (two dots, or a dot at an end)"), example));
        }
        if label.len() > 63 {
            return Err(Fault::new(
                format!("the label `{label}` has {} characters; DNS allows 63", label.len()),
                example,
            ));
        }
        if let Some(bad) = label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            return Err(Fault::new(format!("`{text}` is no host name: it contains {bad:?}"), example));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(Fault::new(format!("the label `{label}` begins or ends with a hyphen"), example));
        }
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    if !last.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        return Err(Fault::new(format!("`{text}` is neither a host name nor an address"), example));
    }
    Ok(())
}

fn cidr(text: &str) -> Result<(), Fault> {
    if text.parse::<IpNet>().is_ok() {
        return Ok(());
    }
    let example = "write a range such as 192.0.2.0/24, a single address as 192.0.2.7/32";
    if let Ok(address) = text.parse::<IpAddr>() {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        return Err(Fault::new(
            format!("`{text}` has no prefix length"),
            format!("write {text}/{bits} for this address alone"),
        ));
    }
    match text.split_once('/') {
        Some((address, prefix)) if address.parse::<IpAddr>().is_ok() => {
            Err(Fault::new(format!("`/{prefix}` is no prefix length of {address}"), "write 0 to 32 for IPv4"))
        }
        _ => Err(Fault::new(format!("`{text}` is no address range"), example)),
    }
}

fn name(text: &str) -> Result<(), Fault> {
    let suggestion = name_like(text);
    let help = match suggestion.is_empty() {
        true => "write 1 to 32 characters of a-z, 0-9 and hyphen, the first a letter".into(),
        false => format!("write {suggestion}"),
    };
    if text.is_empty() {
        return Err(Fault::new("the name is empty", help));
    }
    if text.len() > 32 {
        let reason =
            format!("`{text}` has {} characters; a name has at most 32, as AWS allows for a load balancer", text.len());
        return Err(Fault::new(reason, help));
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit() && *c != '-') {
        return Err(Fault::new(format!("`{text}` contains {bad:?}; names have a-z, 0-9 and hyphen alone"), help));
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(Fault::new(format!("`{text}` does not begin with a letter"), help));
    }
    if text.ends_with('-') {
        return Err(Fault::new(format!("`{text}` ends with a hyphen, which AWS refuses"), help));
    }
    Ok(())
}

fn edge_name(text: &str) -> Result<(), Fault> {
    if text.starts_with("internal-") {
        return Err(Fault::new(
            "AWS refuses a load balancer whose name begins with `internal-`",
            "choose another name",
        ));
    }
    Ok(())
}

/// The nearest valid name to `text`; empty when nothing of it can stay.
fn name_like(text: &str) -> String {
    let mapped: String =
        text.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let start = mapped.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let cut: String = start.chars().take(32).collect();
    cut.trim_end_matches('-').to_owned()
}

fn region(text: &str) -> Result<(), Fault> {
    let help = "write a region such as us-east-1";
    let parts: Vec<&str> = text.split('-').collect();
    if let Some(region) = text.strip_suffix(|c: char| c.is_ascii_lowercase())
        && region.ends_with(|c: char| c.is_ascii_digit())
    {
        return Err(Fault::new(format!("`{text}` is an availability zone and no region"), format!("write {region}")));
    }
    let sound = match parts.as_slice() {
        [area, middle @ .., number] => {
            area.len() == 2
                && !middle.is_empty()
                && number.len() == 1
                && number.bytes().all(|byte| byte.is_ascii_digit())
                && area.bytes().chain(middle.iter().flat_map(|part| part.bytes())).all(|byte| byte.is_ascii_lowercase())
                && middle.iter().all(|part| !part.is_empty())
        }
        _ => false,
    };
    if sound { Ok(()) } else { Err(Fault::new(format!("`{text}` is no AWS region"), help)) }
}

/// Last letter of a zone for which a VPC of sixteen /20 has one beside that of the public subnets. No region has a zone beyond `f`.
pub(crate) const LAST_ZONE: char = 'o';

fn zone(text: &str) -> Result<(), Fault> {
    match text.strip_suffix(|c: char| ('a'..=LAST_ZONE).contains(&c)) {
        Some(rest) if region(rest).is_ok() => Ok(()),
        _ => Err(Fault::new(
            format!("`{text}` is no availability zone"),
            "write the region and a letter, such as us-east-1a",
        )),
    }
}

fn number(text: &str) -> Result<(), Fault> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if (3..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    Err(Fault::new(
        format!("`{text}` is no telephone number"),
        "write 3 to 15 digits, with a + in front for E.164, such as \"+12025550143\"",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_the_same() {
        for text in ["0s", "500ms", "5s", "90s", "2m", "4h", "1500ms"] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
        assert_eq!("60s".parse::<Duration>().unwrap().to_string(), "1m");
        for text in ["", "5", "s", "5 s", "-5s", "1.5s", "5d", "99999999999s", "9999h"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }

    #[test]
    fn targets_keep_host_port_and_transport() {
        let read = |text: &str| text.parse::<Target>().unwrap();
        assert_eq!(read("sip:a.example"), Target { host: "a.example".into(), port: None, transport: None });
        assert_eq!(read("SIP:A.example:5062;transport=UDP").to_string(), "sip:a.example:5062;transport=udp");
        for (text, port) in [("sip:a.example", 5060), ("sip:a.example;transport=tls", 5061), ("sip:a.example:7", 7)] {
            assert_eq!((read(text).to_string(), read(text).usual_port()), (text.to_owned(), port));
        }
        for text in [
            "a.example",
            "sips:a.example",
            "sip:[2001:db8::1]",
            "sip:bob@a.example",
            "sip:a.example:0",
            "sip:a.example;lr",
            "sip:a.example;transport=sctp",
            "sip:a.example;transport=tcp;transport=tls",
            "sip:",
            "sip:a_b",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_suggested_name_is_a_valid_one() {
        for text in ["Twilio_Bridge", "1st-edge", "twilio bridge!", "a-very-long-name-for-an-edge-that-does-not-fit"] {
            assert!(name(text).is_err());
            assert_eq!(name(&name_like(text)), Ok(()), "{text}");
        }
    }

    #[test]
    fn regions_zones_hosts_numbers() {
        for (format, good, bad) in [
            (
                "aws-region",
                vec!["us-east-1", "us-gov-west-1", "ap-southeast-2"],
                vec!["us-east-1a", "useast1", "US-EAST-1", "us--1", ""],
            ),
            ("aws-zone", vec!["us-east-1a"], vec!["us-east-1", "us-east-1p", "a", ""]),
            (
                "host-name",
                vec!["a.example", "x1", "A-b.example"],
                vec!["", "a..b", "-a.b", "192.0.2.1", "sip:a.b", "a.b:5060", "a b", "1.2"],
            ),
            ("cidr", vec!["192.0.2.0/24", "2001:db8::/32"], vec!["192.0.2.1", "192.0.2.0/33", "x", ""]),
            ("number", vec!["+12025550143", "100"], vec!["", "+", "12", "+1 202", "1234567890123456"]),
        ] {
            for text in good {
                assert_eq!(check_format(format, text), Ok(()), "{format} {text}");
            }
            for text in bad {
                assert!(check_format(format, text).is_err(), "{format} {text}");
            }
        }
    }
}
