//! What the hub knows of a connection: what waits for it, and what went out on it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::outlet::{Parcel, Ticket};
use crate::engine::Connection;

/// Bytes that may wait for one connection: some 4,000 messages. A peer that is that far behind has stopped to read.
const MAX_BYTES: usize = 4 << 20;

/// Messages and keep-alives that may wait for one connection: those at which reading stops, and what a dozen shards with full inboxes
/// answer after that.
const MAX_PARCELS: usize = 8_192;

/// Nothing more is read from a connection for which so much waits: a peer that does not take its answers gets to ask no more.
const CONGESTED_PARCELS: usize = 1_024;
const CONGESTED_BYTES: usize = MAX_BYTES / 4;

/// Bytes that are written at once, when so many wait: a TLS record.
const BATCH: usize = 16 << 10;

/// Requests that are reported when the connection breaks after they were written: as many as may be unanswered on a busy trunk. A
/// request that was answered long ago means nothing to its engine any more.
const MAX_SENT: usize = 256;

/// A connection as others see it. It lives on one thread.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: Connection,
    pub(super) peer: SocketAddr,
    /// The edge's end, once there is a connection.
    pub(super) local: Cell<Option<SocketAddr>>,
    /// SIP domains that the peer's certificate bears, when it opened the connection and has shown one.
    pub(super) identities: RefCell<Vec<String>>,
    /// The address by which the peer lets this connection be used for requests to it (RFC 5923).
    pub(super) alias: Cell<Option<SocketAddr>>,
    last_active: Cell<Instant>,
    queue: RefCell<VecDeque<Parcel>>,
    queued_bytes: Cell<usize>,
    sent: RefCell<VecDeque<Ticket>>,
    filled: Notify,
    drained: Notify,
}

impl Link {
    pub(super) fn new(id: Connection, peer: SocketAddr) -> Self {
        Self {
            id,
            peer,
            local: Cell::default(),
            identities: RefCell::default(),
            alias: Cell::default(),
            last_active: Cell::new(Instant::now()),
            queue: RefCell::default(),
            queued_bytes: Cell::default(),
            sent: RefCell::default(),
            filled: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Puts a parcel behind those that wait; gives it back when too much waits already.
    pub(super) fn push(&self, parcel: Parcel) -> Result<(), Parcel> {
        let mut queue = self.queue.borrow_mut();
        let bytes = self.queued_bytes.get() + parcel.bytes.len();
        if queue.len() >= MAX_PARCELS || bytes > MAX_BYTES {
            return Err(parcel);
        }
        self.queued_bytes.set(bytes);
        queue.push_back(parcel);
        self.filled.notify_one();
        Ok(())
    }

    /// Fills `batch` with what is to be written next, as soon as there is something; the number of parcels. A request counts as sent
    /// from now on, even if it is written in part only. `each` sees one parcel after the other.
    pub(super) async fn next(&self, batch: &mut Vec<u8>, each: impl Fn(&[u8])) -> u64 {
        batch.clear();
        loop {
            let mut count = 0;
            while batch.len() < BATCH
                && let Some(parcel) = self.take()
            {
                each(&parcel.bytes);
                batch.extend_from_slice(&parcel.bytes);
                count += 1;
            }
            if count > 0 {
                return count;
            }
            self.filled.notified().await;
        }
    }

    /// Waits while too much waits to be written.
    pub(super) async fn uncongested(&self) {
        while self.is_congested() {
            self.drained.notified().await;
        }
    }

    /// Something was received or written.
    pub(super) fn touch(&self) {
        self.last_active.set(Instant::now());
    }

    pub(super) fn last_active(&self) -> Instant {
        self.last_active.get()
    }

    /// Everything that has to be reported now that the connection has ended: what waits, and the requests that were written last.
    pub(super) fn undelivered(&self) -> Vec<Ticket> {
        self.queued_bytes.set(0);
        let sent = std::mem::take(&mut *self.sent.borrow_mut());
        let queued = std::mem::take(&mut *self.queue.borrow_mut());
        sent.into_iter().chain(queued.into_iter().filter_map(|parcel| parcel.ticket)).collect()
    }

    fn is_congested(&self) -> bool {
        self.queue.borrow().len() >= CONGESTED_PARCELS || self.queued_bytes.get() >= CONGESTED_BYTES
    }

    fn take(&self) -> Option<Parcel> {
        let parcel = self.queue.borrow_mut().pop_front()?;
        self.queued_bytes.set(self.queued_bytes.get().saturating_sub(parcel.bytes.len()));
        if !self.is_congested() {
            self.drained.notify_one();
        }
        if let Some(ticket) = parcel.ticket.filter(Ticket::is_request) {
            let mut sent = self.sent.borrow_mut();
            if sent.len() >= MAX_SENT {
                sent.pop_front();
            }
            sent.push_back(ticket);
        }
        Some(parcel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_bounded_in_bytes_and_in_number() {
        let link = || Link::new(Connection(1), "127.0.0.1:5060".parse().unwrap());
        let large = link();
        let fitting = (0..).take_while(|_| large.push(Parcel::own(&[0; 65_536])).is_ok()).count();
        assert_eq!(fitting, MAX_BYTES / 65_536);
        assert!(large.take().is_some());
        assert!(large.push(Parcel::own(&[0; 65_536])).is_ok(), "what was taken has made room");
        let small = link();
        assert_eq!((0..).take_while(|_| small.push(Parcel::own(b"\r\n")).is_ok()).count(), MAX_PARCELS);
    }
}
