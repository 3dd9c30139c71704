//! What the control endpoint answers: JSON that its clients read back.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::engine::{DestinationStatus, Health, Mark, Transport};
use sipedge_sip::Time;

/// `GET /status`. Moments are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the edge.
    pub edge: String,
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_at: u64,
    /// Seconds since then.
    pub uptime_s: u64,
    /// `waiting`, `ready` or `draining`, as `/readyz` has it.
    pub readiness: String,
    /// What it waits for, or what is wrong with its shards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Where requests arrive.
    pub ingress: SocketAddr,
    /// Where the edge's own requests leave.
    pub egress: SocketAddr,
    /// What peers are told.
    pub advertised: String,
    /// Threads that handle SIP.
    pub shards: usize,
    /// Transactions in all tables.
    pub transactions: u64,
    /// Those of them that wait for a final response.
    pub pending_transactions: u64,
    /// Calls since the start, and those that limits count now.
    pub calls: Calls,
    /// How many watch the messages that pass.
    #[serde(default)]
    pub watchers: usize,
    /// The drain, once it has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// The configuration in force.
    pub configuration: Configuration,
    /// What reloads came to.
    pub reloads: Reloads,
    /// The secrets in force.
    #[serde(default)]
    pub secrets: Secrets,
}

/// Calls of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// INVITEs sent on to open a call.
    pub started: u64,
    /// Calls that were answered.
    pub answered: u64,
    /// Calls that ended before an answer.
    pub failed: u64,
    /// Calls in set-up or in progress on trunks that limit them. An edge keeps no state of other calls.
    pub counted: u64,
}

/// A drain that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Transactions that wait for a final response.
    pub pending_transactions: u64,
    /// Milliseconds since it began.
    pub since_ms: u64,
    /// New calls are taken until so many have passed.
    pub accept_ms: u32,
    /// The process ends at the latest when so many have passed.
    pub grace_ms: u32,
}

/// A configuration in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// File name, or `user-data`.
    pub origin: String,
    /// Of its contents: the first 16 hex digits of BLAKE3 over the settings, whatever the document's layout. Two instances with the same
    /// settings have the same.
    pub hash: String,
    /// When it was taken up.
    pub since: u64,
}

/// What reloads came to since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloads {
    /// Configurations taken up.
    pub done: u64,
    /// Configurations refused.
    pub refused: u64,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Reload>,
}

/// `POST /reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// When it ended.
    pub at: u64,
    /// `SIGHUP` or `control`.
    pub trigger: String,
    /// Why the configuration was refused; empty: it was taken up.
    pub reasons: Vec<Reason>,
    /// Sections of the configuration that are not what they were.
    pub changed: Vec<String>,
    /// What becomes of calls in progress, where that may surprise.
    pub consequences: Vec<String>,
    /// What is in force now.
    pub configuration: Configuration,
}

/// The secrets of an instance: all but the secrets. Moments are seconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Seconds between two looks at where they are kept. 0: they are looked at on a reload alone.
    pub poll_s: u32,
    /// When they were last read and understood.
    pub looked_at: u64,
    /// Changes that were taken up since the start, reloads apart.
    pub changes: u64,
    /// Changes that were refused since the start, reloads apart; those of before stayed in force.
    pub refused: u64,
    /// Looks since the start at which they could not be read.
    pub missed: u64,
    /// What was wrong at the last look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The keys of route tokens.
    pub token_keys: Vec<TokenKeyStatus>,
}

/// One key of the route tokens: all but the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKeyStatus {
    /// Number by which a token names it.
    pub id: u8,
    /// Whether it signs new tokens. All of them verify.
    pub signs: bool,
    /// When it was made; where that is unknown, when this instance first had it.
    pub since: u64,
    /// Since when it signs, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs_since: Option<u64>,
    /// Until when it signed, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_until: Option<u64>,
}

/// One reason why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// File name, or `user-data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line, from 1, where the text itself cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The setting, what is wrong, what would be right.
    pub text: String,
}

impl Reason {
    /// A reason that stands for itself.
    pub fn new(text: impl Into<String>) -> Self {
        Self { file: None, line: None, column: None, text: text.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.text)
    }
}

/// One line of `GET /destinations`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Destination {
    /// Trunk that it belongs to.
    pub trunk: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Where it is.
    pub address: SocketAddr,
    /// `up`, `down`, or `avoided`: up, but not to be called for a while.
    pub health: String,
    /// How long it is avoided yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avoided_ms: Option<u64>,
    /// The operator's word: `in-service`, `draining` or `down`.
    pub mark: String,
    /// Whether it gets new calls.
    pub takes_calls: bool,
    /// The target's URI, as in the configuration.
    pub target: String,
    /// Seconds since its health last changed; absent: it has not since it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_s: Option<u64>,
    /// Why it did, in one short sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Destination {
    /// A destination as it is at `now`.
    pub fn new(status: &DestinationStatus, now: Time) -> Self {
        let avoided = match status.health {
            Health::AvoidUntil(until) if until > now => {
                Some(until.since(now).as_millis().try_into().unwrap_or(u64::MAX))
            }
            _ => None,
        };
        let health = match status.health {
            Health::Down => "down",
            _ if avoided.is_some() => "avoided",
            _ => "up",
        };
        Self {
            trunk: status.trunk.clone(),
            transport: status.transport.to_string(),
            address: status.address,
            health: health.to_owned(),
            avoided_ms: avoided,
            mark: mark_name(status.mark).to_owned(),
            takes_calls: health == "up" && status.mark == Mark::InService,
            target: status.target.clone(),
            changed_s: status.since.map(|since| now.since(since).as_secs()),
            reason: status.reason.clone(),
        }
    }
}

/// `POST /destinations/mark`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRequest {
    /// `address:port`, or an address: then the transport's default port.
    pub address: String,
    /// `udp`, `tcp` or `tls`.
    #[serde(default = "udp")]
    pub transport: String,
    /// `in-service`, `draining` or `down`.
    pub mark: String,
}

/// `GET /config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// What it is, and since when.
    #[serde(flatten)]
    pub in_force: Configuration,
    /// Where the secrets that it names are. None is in this document.
    pub secrets: String,
    /// Every setting, defaults included.
    pub config: serde_json::Value,
}

/// The body of every answer that is not 200.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What was refused, in one sentence.
    pub error: String,
    /// Why, where there is more than one reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// The destinations that there are, when another one was named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<Destination>,
}

/// The operator's word by its name.
pub fn mark_name(mark: Mark) -> &'static str {
    match mark {
        Mark::InService => "in-service",
        Mark::Draining => "draining",
        Mark::Down => "down",
    }
}

/// The operator's word of this name.
pub fn mark_of(name: &str) -> Option<Mark> {
    [Mark::InService, Mark::Draining, Mark::Down].into_iter().find(|mark| mark_name(*mark) == name)
}

/// `address:port`, or an address with the transport's default port.
pub fn address_of(text: &str, transport: Transport) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    text.parse().ok().or_else(|| Some(SocketAddr::new(bare.parse().ok()?, transport.default_port())))
}

fn udp() -> String {
    Transport::Udp.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_the_port_out() {
        for (text, transport, address) in [
            ("192.0.2.1", Transport::Udp, "192.0.2.1:5060"),
            ("192.0.2.1", Transport::Tls, "192.0.2.1:5061"),
            ("192.0.2.1:5070", Transport::Tls, "192.0.2.1:5070"),
            ("2001:db8::1", Transport::Tcp, "[2001:db8::1]:5060"),
            ("[2001:db8::1]", Transport::Tcp, "[2001:db8::1]:5060"),
            ("[2001:db8::1]:5070", Transport::Tcp, "[2001:db8::1]:5070"),
        ] {
            assert_eq!(address_of(text, transport), Some(address.parse().unwrap()), "{text}");
        }
        for text in ["", "callee.example", "192.0.2.1:", "192.0.2.1:70000", "[192.0.2.1"] {
            assert_eq!(address_of(text, Transport::Udp), None, "{text}");
        }
    }

    #[test]
    fn an_avoided_destination_is_up_again_when_its_time_is_over() {
        let at = |ms: u64| Time::from_micros(ms * 1_000);
        let mut status = DestinationStatus {
            trunk: "carrier".into(),
            target: "sip:192.0.2.1".into(),
            transport: Transport::Udp,
            address: "192.0.2.1:5060".parse().unwrap(),
            health: Health::AvoidUntil(at(5_000)),
            mark: Mark::InService,
            since: Some(at(1_000)),
            reason: "it was silent".into(),
            failures: 0,
        };
        let seen_at_3 = Destination::new(&status, at(3_000));
        assert_eq!((seen_at_3.changed_s, seen_at_3.reason.as_str()), (Some(2), "it was silent"));
        let seen = |status: &DestinationStatus, now| {
            let destination = Destination::new(status, at(now));
            (destination.health, destination.avoided_ms, destination.takes_calls)
        };
        assert_eq!(seen(&status, 3_000), ("avoided".into(), Some(2_000), false));
        assert_eq!(seen(&status, 5_000), ("up".into(), None, true));
        status.mark = Mark::Draining;
        assert_eq!(seen(&status, 5_000), ("up".into(), None, false));
        status.health = Health::Down;
        status.mark = Mark::InService;
        assert_eq!(seen(&status, 5_000), ("down".into(), None, false));
    }
}
