//! Host names that requests go to, and when each has to be resolved again.

use std::collections::BTreeMap;
use std::time::Duration;

use sipedge_sip::Time;

use super::flow::{Query, Server};

/// Servers of host names, asked for ahead of the calls and refreshed before they are needed again. The last good answer stays when
/// the name servers are away.
#[derive(Debug, Default)]
pub(super) struct Names {
    entries: BTreeMap<Query, Name>,
    /// When the next name has to be asked for.
    next: Option<Time>,
}

#[derive(Debug)]
struct Name {
    servers: Vec<Server>,
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
    Servers(usize),
    Failed,
}

impl Names {
    /// A destination of the configuration: asked for at once.
    pub(super) fn add_destination(&mut self, query: &Query, now: Time) {
        match self.entries.get_mut(query) {
            Some(name) => name.stays = true,
            None => self.add(query.clone(), now, true),
        }
    }

    /// Destinations of a configuration that is not in force any more are forgotten like any other name.
    pub(super) fn release_destinations(&mut self) {
        for name in self.entries.values_mut() {
            name.stays = false;
        }
    }

    /// The servers that `query` leads to, sorted; empty when there is none. `None`: not known yet, and being asked for.
    pub(super) fn servers(&mut self, query: &Query, now: Time) -> Option<&[Server]> {
        if query.host.len() > LONGEST_NAME {
            return Some(&[]);
        }
        if !self.entries.contains_key(query) {
            if self.entries.len() >= MOST_NAMES {
                return Some(&[]);
            }
            self.add(query.clone(), now, false);
        }
        self.entries.get(query).filter(|name| name.answered || name.stays).map(|name| name.servers.as_slice())
    }

    /// The servers as far as they are known, without asking for more.
    pub(super) fn known(&self, query: &Query) -> &[Server] {
        self.entries.get(query).map(|name| name.servers.as_slice()).unwrap_or_default()
    }

    /// The name servers have answered.
    pub(super) fn handle_resolved(&mut self, now: Time, query: &Query, servers: &[Server], ttl: Duration) -> Change {
        let Some(name) = self.entries.get_mut(query) else { return Change::None };
        name.answered = true;
        let mut sorted = servers.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.truncate(MOST_SERVERS);
        let change = if sorted.is_empty() {
            name.ask_at = now + RETRY;
            Change::Failed
        } else {
            name.ask_at = now + ttl.clamp(SHORTEST_TTL, LONGEST_TTL);
            if sorted == name.servers { Change::None } else { Change::Servers(sorted.len()) }
        };
        if let Change::Servers(_) = change {
            name.servers = sorted;
        }
        // What only a message named is not worth a line in the log.
        let change = if name.stays { change } else { Change::None };
        self.next = self.entries.values().map(|name| name.ask_at).min();
        change
    }

    /// Calls `ask` for each name that has to be asked for now. A name that no destination has is forgotten instead, once it was answered.
    pub(super) fn poll(&mut self, now: Time, mut ask: impl FnMut(&Query)) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        self.entries.retain(|_, name| name.stays || !name.answered || name.ask_at > now);
        for (query, name) in &mut self.entries {
            if name.ask_at <= now {
                ask(query);
                name.ask_at = now + RETRY;
            }
        }
        self.next = self.entries.values().map(|name| name.ask_at).min();
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.next
    }

    fn add(&mut self, query: Query, now: Time, stays: bool) {
        self.entries.insert(query, Name { servers: Vec::new(), ask_at: now, answered: false, stays });
        self.next = Some(now);
    }
}

/// Names of remote targets that are not addresses are rare; more than these are not resolved.
const MOST_NAMES: usize = 1_024;
/// Servers of one name that are used: more than any carrier has.
const MOST_SERVERS: usize = 32;
/// RFC 1035 §2.3.4.
const LONGEST_NAME: usize = 253;
/// After a failure, and when no answer has come.
const RETRY: Duration = Duration::from_secs(5);
/// A TTL of 0 must not make a query per call.
const SHORTEST_TTL: Duration = Duration::from_secs(5);
/// Carriers move with notice, but not with that much.
const LONGEST_TTL: Duration = Duration::from_secs(3_600);
