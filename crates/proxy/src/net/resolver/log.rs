//! What the log says of destinations: once, although every shard reports it, and with the name servers' reason.

use std::collections::HashMap;

use super::lookup::{Answer, Flaw};
use crate::engine::Event;

/// Names and destinations whose last log line is remembered, and hosts whose flaw is; past them some lines come twice.
const MOST_LOGGED: usize = 1_024;

/// Writes the log, and remembers what it said last of each name and destination.
#[derive(Debug, Default)]
pub(super) struct Log {
    last: HashMap<String, Event>,
    /// What was wrong with the last answer for a host.
    flaws: HashMap<String, Flaw>,
}

impl Log {
    /// An answer is about to be given to the shards, whose events will be about it.
    pub(super) fn note(&mut self, host: &str, answer: &Answer) {
        if let Some(Event::Unresolved { .. }) = self.last.get(host)
            && !answer.servers.is_empty()
        {
            self.last.remove(host);
            tracing::info!(host, servers = answer.servers.len(), "name servers know the destination again");
        }
        match &answer.flaw {
            Some(flaw) => {
                if self.flaws.len() >= MOST_LOGGED {
                    self.flaws.clear();
                }
                self.flaws.insert(host.to_owned(), flaw.clone());
            }
            None => {
                self.flaws.remove(host);
            }
        }
    }

    /// Writes `event`, unless it says what the last line about the same subject said.
    pub(super) fn write(&mut self, event: Event) {
        let subject = match &event {
            Event::Resolved { host, .. } | Event::Unresolved { host } => host.clone(),
            Event::Destination { transport, address, .. } => format!("{transport}:{address}"),
        };
        if self.last.get(&subject) == Some(&event) {
            return;
        }
        match &event {
            Event::Destination { trunk, transport, address, health, reason } => {
                tracing::warn!(trunk, %transport, %address, ?health, reason, "destination's health changed");
            }
            Event::Resolved { host, servers } => match self.flaws.get(host) {
                Some(Flaw::Way(unanswered) | Flaw::Address(unanswered)) => {
                    tracing::warn!(host, servers, %unanswered, "destination resolved, but not in all its parts");
                }
                _ => tracing::info!(host, servers, "destination resolved"),
            },
            Event::Unresolved { host } => match self.flaws.get(host) {
                Some(Flaw::Way(unanswered) | Flaw::Address(unanswered)) => {
                    tracing::warn!(host, %unanswered, "destination not resolved: name servers did not answer; the last good answer, if there is one, stays in use");
                }
                Some(Flaw::Nothing(why)) => tracing::warn!(host, "destination has no server: {why}"),
                None => tracing::warn!(host, "destination has no server"),
            },
        }
        if self.last.len() >= MOST_LOGGED {
            self.last.clear();
        }
        self.last.insert(subject, event);
    }
}
