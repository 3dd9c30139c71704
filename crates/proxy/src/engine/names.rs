//! Host names that requests go to, and when each has to be resolved again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use sipedge_sip::Time;

/// Addresses of host names, asked for ahead of the calls and refreshed before they are needed again. The last good answer stays when
/// the name servers are away.
#[derive(Debug, Default)]
pub(super) struct Names {
    entries: BTreeMap<String, Name>,
    /// When the next name has to be asked for.
    next: Option<Time>,
}

#[derive(Debug)]
struct Name {
    addresses: Vec<IpAddr>,
    ask_at: Time,
    /// Whether the name servers have said anything yet.
    answered: bool,
    /// Destinations of the configuration stay; names that a dialog's remote target brought go when their answer is old.
    stays: bool,
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Addresses(usize),
    Failed,
}

impl Names {
    /// A destination of the configuration: asked for at once.
    pub(super) fn add_destination(&mut self, host: &str, now: Time) {
        self.add(host.to_ascii_lowercase(), now, true);
    }

    /// The addresses of `host`, sorted; empty when it has none. `None`: not known yet, and being asked for.
    pub(super) fn addresses(&mut self, host: &[u8], now: Time) -> Option<&[IpAddr]> {
        let host = std::str::from_utf8(host).ok().filter(|host| host.len() <= LONGEST_NAME);
        let Some(host) = host else { return Some(&[]) };
        // Names are compared in lower case; the usual one is in lower case already.
        let lower;
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            lower.as_str()
        } else {
            host
        };
        if !self.entries.contains_key(host) {
            if self.entries.len() >= MOST_NAMES {
                return Some(&[]);
            }
            self.add(host.to_owned(), now, false);
        }
        self.entries.get(host).filter(|name| name.answered || name.stays).map(|name| name.addresses.as_slice())
    }

    /// The name servers have answered.
    pub(super) fn handle_resolved(&mut self, now: Time, host: &str, addresses: &[IpAddr], ttl: Duration) -> Change {
        let Some(name) = self.entries.get_mut(&host.to_ascii_lowercase()) else { return Change::None };
        name.answered = true;
        let mut sorted = addresses.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let change = if sorted.is_empty() {
            name.ask_at = now + RETRY;
            Change::Failed
        } else {
            name.ask_at = now + ttl.clamp(SHORTEST_TTL, LONGEST_TTL);
            if sorted == name.addresses { Change::None } else { Change::Addresses(sorted.len()) }
        };
        if let Change::Addresses(_) = change {
            name.addresses = sorted;
        }
        // What only a message named is not worth a line in the log.
        let change = if name.stays { change } else { Change::None };
        self.next = self.entries.values().map(|name| name.ask_at).min();
        change
    }

    /// Calls `ask` for each name that has to be asked for now. A name that no destination has is forgotten instead, once it was answered.
    pub(super) fn poll(&mut self, now: Time, mut ask: impl FnMut(&str)) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        self.entries.retain(|_, name| name.stays || !name.answered || name.ask_at > now);
        for (host, name) in &mut self.entries {
            if name.ask_at <= now {
                ask(host);
                name.ask_at = now + RETRY;
            }
        }
        self.next = self.entries.values().map(|name| name.ask_at).min();
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.next
    }

    fn add(&mut self, host: String, now: Time, stays: bool) {
        self.entries.insert(host, Name { addresses: Vec::new(), ask_at: now, answered: false, stays });
        self.next = Some(now);
    }
}

/// Names of remote targets that are not addresses are rare; more than these are not resolved.
const MOST_NAMES: usize = 1_024;
/// RFC 1035 §2.3.4.
const LONGEST_NAME: usize = 253;
/// After a failure, and when no answer has come.
const RETRY: Duration = Duration::from_secs(5);
/// A TTL of 0 must not make a query per call.
const SHORTEST_TTL: Duration = Duration::from_secs(5);
/// Carriers move with notice, but not with that much.
const LONGEST_TTL: Duration = Duration::from_secs(3_600);
