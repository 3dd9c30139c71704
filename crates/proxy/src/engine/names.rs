use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use sipedge_sip::Time;

/// Addresses of host names, asked for ahead of the calls and refreshed before they are needed again. The last good answer stays when
/// the name servers are away.
#[derive(Debug, Default)]
pub(super) struct Names {
    entries: BTreeMap<String, Name>,
}

#[derive(Debug)]
struct Name {
    addresses: Vec<IpAddr>,
    ask_at: Time,
    /// Destinations of the configuration stay; names that a dialog's remote target brought go when they are not refreshed.
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
        self.entries.insert(host.to_ascii_lowercase(), Name { addresses: Vec::new(), ask_at: now, stays: true });
    }

    /// The addresses that are known of `host`, sorted; none when there are none yet. A name that is asked for the first time will be
    /// resolved, so that the peer's retransmission finds it.
    pub(super) fn addresses(&mut self, host: &[u8], now: Time) -> &[IpAddr] {
        let Ok(host) = std::str::from_utf8(host) else { return &[] };
        // Names are compared in lower case; the usual one is in lower case already.
        let lower;
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            lower.as_str()
        } else {
            host
        };
        if !self.entries.contains_key(host) && self.entries.len() < MOST_NAMES {
            self.entries.insert(host.to_owned(), Name { addresses: Vec::new(), ask_at: now, stays: false });
        }
        self.entries.get(host).map_or(&[], |name| &name.addresses)
    }

    /// The name servers have answered.
    pub(super) fn handle_resolved(&mut self, now: Time, host: &str, addresses: &[IpAddr], ttl: Duration) -> Change {
        let host = host.to_ascii_lowercase();
        let Some(name) = self.entries.get_mut(&host) else { return Change::None };
        if addresses.is_empty() {
            name.ask_at = now + RETRY;
            if !name.stays {
                self.entries.remove(&host);
            }
            return Change::Failed;
        }
        name.ask_at = now + ttl.clamp(SHORTEST_TTL, LONGEST_TTL);
        let mut sorted = addresses.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted == name.addresses {
            return Change::None;
        }
        name.addresses = sorted;
        Change::Addresses(name.addresses.len())
    }

    /// Calls `ask` for each name that has to be asked for now. A name that no destination has is asked for once and then forgotten.
    pub(super) fn poll(&mut self, now: Time, mut ask: impl FnMut(&str)) {
        self.entries.retain(|_, name| name.stays || name.ask_at > now || name.addresses.is_empty());
        for (host, name) in &mut self.entries {
            if name.ask_at <= now {
                ask(host);
                name.ask_at = now + RETRY;
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.entries.values().map(|name| name.ask_at).min()
    }
}

/// Names of remote targets that are not addresses are rare; more than these are not resolved.
const MOST_NAMES: usize = 1_024;
/// After a failure, and when no answer has come.
const RETRY: Duration = Duration::from_secs(5);
/// A TTL of 0 must not make a query per call.
const SHORTEST_TTL: Duration = Duration::from_secs(5);
/// Carriers move with notice, but not with that much.
const LONGEST_TTL: Duration = Duration::from_secs(3_600);
