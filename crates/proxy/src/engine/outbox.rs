//! What an engine hands its driver: messages, questions for the resolver, news for the other shards, events.

use std::net::SocketAddr;
use std::ops::Range;

use sipedge_sip::Time;

use super::flow::{Hop, Query, Receipt, Transport};

/// What an engine wants done. Buffers are kept and used again.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    transmits: Vec<Queued>,
    resolves: Vec<Query>,
    bulletins: Vec<Bulletin>,
    events: Vec<Event>,
}

impl Outbox {
    /// Messages to send, in this order.
    pub fn transmits(&self) -> impl ExactSizeIterator<Item = Transmit<'_>> + Clone {
        self.transmits.iter().map(|queued| Transmit {
            hop: &queued.hop,
            receipt: queued.receipt,
            bytes: self.bytes.get(queued.range.clone()).unwrap_or_default(),
        })
    }

    /// Host names to resolve; [`Engine::handle_resolved`](super::Engine::handle_resolved) takes the answer.
    pub fn resolves(&self) -> &[Query] {
        &self.resolves
    }

    /// What the other shards of this instance have to know; [`Engine::handle_bulletin`](super::Engine::handle_bulletin) takes it.
    pub fn bulletins(&self) -> &[Bulletin] {
        &self.bulletins
    }

    /// What an operator would want in the log.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Queues the message that `write` appends; over a stream `receipt` comes back when it could not be delivered.
    pub(super) fn transmit(&mut self, hop: &Hop, receipt: Option<Receipt>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.transmits.push(Queued { hop: hop.clone(), receipt, range: start..self.bytes.len() });
    }

    /// The message that was queued last, for keeping.
    pub(super) fn last(&self) -> &[u8] {
        let last = self.transmits.last();
        last.and_then(|queued| self.bytes.get(queued.range.clone())).unwrap_or_default()
    }

    pub(super) fn resolve(&mut self, query: &Query) {
        self.resolves.push(query.clone());
    }

    pub(super) fn bulletin(&mut self, bulletin: Bulletin) {
        self.bulletins.push(bulletin);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.transmits.clear();
        self.resolves.clear();
        self.bulletins.clear();
        self.events.clear();
    }
}

/// One message to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// Where it goes, and how.
    pub hop: &'a Hop,
    /// What to give to [`Engine::handle_failure`](super::Engine::handle_failure) when a stream could not deliver it.
    pub receipt: Option<Receipt>,
    /// The message.
    pub bytes: &'a [u8],
}

/// What one shard has found out and all have to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bulletin {
    /// How the destination is reached.
    pub transport: Transport,
    /// Where it is.
    pub address: SocketAddr,
    /// What became of it.
    pub health: Health,
}

/// What is known of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Up,
    /// It gets no new calls until it answers again.
    Down,
    /// It gets no new calls before this moment unless there is no other: it asked for that (503 with Retry-After), or was silent.
    AvoidUntil(Time),
}

/// Something that an operator would want in the log. Never one per message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The servers of a destination's name changed.
    Resolved {
        /// The name.
        host: String,
        /// How many servers it has now.
        servers: usize,
    },
    /// A destination's name has no server; the last good ones, if any, stay in use.
    Unresolved {
        /// The name.
        host: String,
    },
    /// A destination's health has changed.
    Destination {
        /// The trunk.
        trunk: String,
        /// How it is reached.
        transport: Transport,
        /// Where it is.
        address: SocketAddr,
        /// What became of it.
        health: Health,
        /// Why: one short sentence.
        reason: String,
    },
}

#[derive(Debug)]
struct Queued {
    hop: Hop,
    receipt: Option<Receipt>,
    range: Range<usize>,
}
