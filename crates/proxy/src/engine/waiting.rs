//! Requests that wait for the name of their remote target to be resolved.

use sipedge_sip::Time;

use super::Engine;
use super::admission::UNRESOLVED;
use super::flow::Query;
use super::transactions::{Id, Key};

/// Requests whose next hop is being asked for. Each has a server transaction that holds it.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<Held>);

#[derive(Debug)]
struct Held {
    query: Query,
    server: Id,
    /// Tells that the transaction is still the same one.
    key: Key,
    until: Time,
}

impl Waiting {
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MOST_WAITING
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.0.iter().map(|held| held.until).min()
    }

    /// The next one that waits for `query`, or whose time is over.
    fn take(&mut self, now: Time, query: Option<&Query>) -> Option<(Id, Key)> {
        let is_due = |held: &Held| Some(&held.query) == query || held.until <= now;
        let at = self.0.iter().position(is_due)?;
        let held = self.0.remove(at);
        Some((held.server, held.key))
    }
}

impl Engine {
    /// Keeps a request until its name is resolved, or `timers.response_ms` have gone by.
    pub(super) fn hold(&mut self, now: Time, query: Query, server: Id) {
        let Some(key) = self.transactions.key(server) else { return };
        self.waiting.0.push(Held { query, server, key, until: now + self.setup.timers.response });
    }

    /// Sends on what waited for this name, and gives up what has waited too long.
    pub(super) fn release_waiting(&mut self, now: Time, query: Option<&Query>) {
        while let Some((server, key)) = self.waiting.take(now, query) {
            let is_there = self.transactions.key(server) == Some(key) && self.transactions.server(key) == Some(server);
            let waits = self.transactions.context(server).is_some_and(|context| !context.decided);
            if is_there && waits && !self.open_next(now, server) {
                self.conclude(now, server, UNRESOLVED);
            }
        }
    }
}

/// Requests that may wait. Remote targets that are names are rare, and answers come within milliseconds.
const MOST_WAITING: usize = 256;
