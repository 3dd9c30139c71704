//! The shards' way to the connections, bounded in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::UnboundedSender;

use super::super::inbox::{Inbox, Order};
use super::super::numbers::Tally;
use crate::engine::{Hop, Receipt, Transmit};

/// Bytes that a waiting message is counted with on top of its own: what its bookkeeping takes. It bounds the number of messages too.
const OVERHEAD: u64 = 256;

/// What every response begins with, and no request (RFC 3261 §7.2).
const RESPONSE: &[u8] = b"SIP/2.0 ";

/// Where a shard puts messages for streams.
#[derive(Debug, Clone)]
pub(in crate::net) struct Outlet {
    sender: UnboundedSender<Sending>,
    budget: Arc<Budget>,
    failures: Failures,
}

/// A message on its way to a connection.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) hop: Hop,
    pub(super) parcel: Parcel,
}

/// Bytes to be written, and whom to tell when they cannot be.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) bytes: Box<[u8]>,
    pub(super) ticket: Option<Ticket>,
    _charge: Option<Charge>,
}

/// Whom to tell that a message was not delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    shard: usize,
    receipt: Receipt,
}

/// The way back of what was not delivered.
#[derive(Debug, Clone)]
pub(super) struct Failures {
    inboxes: Arc<[Inbox]>,
    tally: Arc<Tally>,
}

impl Outlet {
    pub(super) fn new(
        sender: UnboundedSender<Sending>,
        budget: Arc<Budget>,
        inboxes: Arc<[Inbox]>,
        tally: Arc<Tally>,
    ) -> Self {
        Self { sender, budget, failures: Failures { inboxes, tally } }
    }

    /// Sends a message of `shard`; it gets [`Order::NoRoom`] or [`Order::Failed`] when the message is not delivered.
    pub(in crate::net) fn send(&self, shard: usize, transmit: &Transmit<'_>) {
        let ticket = transmit.receipt.map(|receipt| Ticket { shard, receipt });
        let Some(charge) = Budget::charge(&self.budget, transmit.bytes.len() as u64 + OVERHEAD) else {
            Tally::count(&self.failures.tally.no_room);
            self.failures.report_no_room(ticket);
            return;
        };
        let parcel = Parcel { bytes: transmit.bytes.into(), ticket, _charge: Some(charge) };
        // Without a receiver the proxy is ending: nobody waits for the message.
        let _ = self.sender.send(Sending { hop: transmit.hop.clone(), parcel });
    }
}

impl Parcel {
    /// A few bytes of the connection's own.
    pub(super) fn own(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), ticket: None, _charge: None }
    }

    /// Whether it is a response, by its start line.
    pub(super) fn is_response(&self) -> bool {
        self.bytes.get(..RESPONSE.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESPONSE))
    }
}

impl Ticket {
    /// Whether the message is a request: one that was written is lost all the same when no answer can come any more.
    pub(super) fn is_request(&self) -> bool {
        self.receipt.is_request()
    }
}

impl Failures {
    pub(super) fn new(inboxes: Arc<[Inbox]>, tally: Arc<Tally>) -> Self {
        Self { inboxes, tally }
    }

    /// Tells the shard of `ticket`, if there is one, that its message was not delivered.
    pub(super) fn report(&self, ticket: Option<Ticket>) {
        self.tell(ticket, Order::Failed);
    }

    /// The same, when it is this instance that has no room.
    pub(super) fn report_no_room(&self, ticket: Option<Ticket>) {
        self.tell(ticket, Order::NoRoom);
    }

    fn tell(&self, ticket: Option<Ticket>, order: impl FnOnce(Receipt) -> Order) {
        let Some(Ticket { shard, receipt }) = ticket else { return };
        Tally::count(&self.tally.failures_reported);
        if let Some(inbox) = self.inboxes.get(shard) {
            inbox.order(order(receipt));
        }
    }
}

/// Bytes that may wait to be written, over all connections.
#[derive(Debug)]
pub(super) struct Budget {
    waiting: AtomicU64,
    most: AtomicU64,
}

impl Budget {
    pub(super) fn new(most: u64) -> Self {
        Self { waiting: AtomicU64::new(0), most: AtomicU64::new(most) }
    }

    pub(super) fn set_most(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    fn charge(budget: &Arc<Self>, bytes: u64) -> Option<Charge> {
        let before = budget.waiting.fetch_add(bytes, Ordering::Relaxed);
        // Made before the check, so that it is given back either way.
        let charge = Charge { budget: Arc::clone(budget), bytes };
        (before + bytes <= budget.most.load(Ordering::Relaxed)).then_some(charge)
    }
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_told_from_requests() {
        assert!(Parcel::own(b"SIP/2.0 200 OK\r\n").is_response());
        for other in [&b"OPTIONS sip:a.example SIP/2.0\r\n"[..], b"\r\n", b"SIP/2", b""] {
            assert!(!Parcel::own(other).is_response());
        }
    }

    #[test]
    fn the_budget_holds_what_it_may_and_gets_back_what_was_taken() {
        let budget = Arc::new(Budget::new(1_000));
        let first = Budget::charge(&budget, 600).unwrap();
        assert!(Budget::charge(&budget, 401).is_none(), "more than is left");
        assert_eq!(budget.waiting(), 600, "what was refused is not held");
        let second = Budget::charge(&budget, 400).unwrap();
        drop((first, second));
        assert_eq!(budget.waiting(), 0);
    }
}
