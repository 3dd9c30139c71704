//! What an engine hands its driver: datagrams, questions for the resolver, events.

use std::net::SocketAddr;
use std::ops::Range;

use super::Port;

/// What an engine wants done. Buffers are kept and used again.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    transmits: Vec<Queued>,
    resolves: Vec<Resolve>,
    events: Vec<Event>,
}

impl Outbox {
    /// Datagrams to send, in this order.
    pub fn transmits(&self) -> impl ExactSizeIterator<Item = Transmit<'_>> {
        self.transmits.iter().map(|queued| Transmit {
            port: queued.port,
            to: queued.to,
            bytes: self.bytes.get(queued.range.clone()).unwrap_or_default(),
        })
    }

    /// Host names to resolve.
    pub fn resolves(&self) -> &[Resolve] {
        &self.resolves
    }

    /// What an operator would want in the log.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Queues the datagram that `write` appends.
    pub(super) fn transmit(&mut self, port: Port, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.transmits.push(Queued { port, to, range: start..self.bytes.len() });
    }

    /// The datagram that was queued last, for keeping.
    pub(super) fn last(&self) -> &[u8] {
        let last = self.transmits.last();
        last.and_then(|queued| self.bytes.get(queued.range.clone())).unwrap_or_default()
    }

    pub(super) fn resolve(&mut self, host: &str) {
        self.resolves.push(Resolve { host: host.to_owned() });
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.transmits.clear();
        self.resolves.clear();
        self.events.clear();
    }
}

/// One datagram to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// The socket that it leaves from.
    pub port: Port,
    /// Its destination.
    pub to: SocketAddr,
    /// The message.
    pub bytes: &'a [u8],
}

/// A host name whose addresses are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// The name, as in the configuration.
    pub host: String,
}

/// Something that an operator would want in the log. Never one per message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A destination's addresses changed.
    Resolved {
        /// The name.
        host: String,
        /// How many addresses it has now.
        addresses: usize,
    },
    /// A destination has no address; the last good ones, if any, stay in use.
    Unresolved {
        /// The name.
        host: String,
    },
}

#[derive(Debug)]
struct Queued {
    port: Port,
    to: SocketAddr,
    range: Range<usize>,
}
