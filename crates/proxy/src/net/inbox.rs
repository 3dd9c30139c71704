use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::UnboundedSender;

use crate::engine::{Answerer, Arrival, Bulletin, Control, DestinationStatus, Query, Receipt, Server, Setup, Shared};

/// Datagrams that may wait for one shard. At 10,000 messages per second a shard may be held up for 400 ms.
const MAX_DATAGRAMS: usize = 4_096;

/// Bytes that may wait for one shard: as much as its sockets' receive buffer.
const MAX_BYTES: usize = 4 << 20;

/// Messages of connections wait outside while so many wait already: a connection can be read later, a datagram cannot. A shard takes so
/// many within some milliseconds; more would only be answers that come at once and that nobody has room for.
const MAX_BESIDE_STREAMS: usize = 256;

/// What waits for a shard: datagrams that arrived on other shards' sockets, and orders.
///
/// The owner takes everything at once by exchanging buffers, so that the lock is held for the length of a copy.
#[derive(Debug)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    wake: EventFd,
}

#[derive(Debug, Default)]
struct Waiting {
    datagrams: Datagrams,
    orders: Vec<Order>,
    stop: bool,
}

/// An order to a shard. Rare, so it may allocate.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// For the engine.
    Control(Control),
    /// The answer of the name servers.
    Resolved { query: Query, servers: Vec<Server>, ttl: Duration },
    /// What another shard has found out.
    Bulletin(Bulletin),
    /// A stream could not deliver this.
    Failed(Receipt),
    /// This was not sent: there is no room for it, or for its connection.
    NoRoom(Receipt),
    /// A new configuration.
    Setup(Arc<Setup>, Arc<Shared>),
    /// Whom calls to the answerer go to.
    Answerer(Option<Arc<Answerer>>),
    /// Says when everything that was ordered before is done.
    Confirm(UnboundedSender<()>),
    /// Asks what is known of the destinations.
    Destinations(UnboundedSender<Vec<DestinationStatus>>),
}

/// Datagrams in one buffer, which keeps its capacity.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    arrival: Arrival,
    start: usize,
    end: usize,
}

impl Inbox {
    /// An empty inbox.
    pub(super) fn new() -> nix::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { waiting: Mutex::default(), wake })
    }

    /// Hands over as many of `datagrams` as there is room for and returns how many were left out.
    pub(super) fn put<'a>(&self, datagrams: impl Iterator<Item = (Arrival, &'a [u8])>) -> u64 {
        let mut left_out = 0;
        let mut waiting = self.lock();
        let was_empty = waiting.datagrams.entries.is_empty();
        for (arrival, bytes) in datagrams {
            if !waiting.datagrams.push(arrival, bytes) {
                left_out += 1;
            }
        }
        drop(waiting);
        if was_empty {
            self.wake();
        }
        left_out
    }

    /// Hands over a message of a connection; `false`: there is no room now, it has to be offered again.
    pub(super) fn offer(&self, arrival: Arrival, bytes: &[u8]) -> bool {
        let mut waiting = self.lock();
        let before = waiting.datagrams.entries.len();
        let taken = before < MAX_BESIDE_STREAMS && waiting.datagrams.push(arrival, bytes);
        drop(waiting);
        if taken && before == 0 {
            self.wake();
        }
        taken
    }

    /// Gives an order.
    pub(super) fn order(&self, order: Order) {
        self.lock().orders.push(order);
        self.wake();
    }

    /// Ends the shard.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake();
    }

    /// Takes everything into the given buffers, which have to be empty. `true`: the shard has to end.
    pub(super) fn take(&self, datagrams: &mut Datagrams, orders: &mut Vec<Order>) -> bool {
        // First the signal, then the contents: whatever comes in between signals again.
        let _ = self.wake.read();
        let mut waiting = self.lock();
        std::mem::swap(&mut waiting.datagrams, datagrams);
        std::mem::swap(&mut waiting.orders, orders);
        waiting.stop
    }

    fn wake(&self) {
        // It fails only when the counter is at its end, and then it is signalled anyway.
        let _ = self.wake.write(1);
    }

    /// A shard that panicked left at worst a datagram unwritten; the others go on.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Datagrams {
    /// The datagrams, in the order in which they were put.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Arrival, &[u8])> {
        self.entries.iter().map(|entry| (entry.arrival, self.bytes.get(entry.start..entry.end).unwrap_or_default()))
    }

    /// Forgets them and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    fn push(&mut self, arrival: Arrival, bytes: &[u8]) -> bool {
        if self.entries.len() >= MAX_DATAGRAMS || self.bytes.len() + bytes.len() > MAX_BYTES {
            return false;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.entries.push(Entry { arrival, start, end: self.bytes.len() });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Port;

    fn from(port: Port) -> Arrival {
        Arrival::datagram(port, "127.0.0.1:5060".parse().unwrap())
    }

    #[test]
    fn what_was_put_is_taken_in_order() {
        let inbox = Inbox::new().unwrap();
        assert_eq!(inbox.put([(from(Port::Ingress), &b"one"[..]), (from(Port::Egress), b"")].into_iter()), 0);
        assert_eq!(inbox.put([(from(Port::Ingress), &b"two"[..])].into_iter()), 0);
        inbox.order(Order::Control(Control::Open));
        let (mut datagrams, mut orders) = (Datagrams::default(), Vec::new());
        assert!(!inbox.take(&mut datagrams, &mut orders));
        let taken: Vec<_> = datagrams.iter().map(|(arrival, bytes)| (arrival.port, bytes.to_vec())).collect();
        assert_eq!(taken, [(Port::Ingress, b"one".to_vec()), (Port::Egress, vec![]), (Port::Ingress, b"two".to_vec())]);
        assert!(matches!(orders[..], [Order::Control(Control::Open)]));
    }

    #[test]
    fn past_its_bounds_datagrams_are_left_out_and_counted() {
        let inbox = Inbox::new().unwrap();
        let many = std::iter::repeat_n((from(Port::Ingress), &b"x"[..]), MAX_DATAGRAMS + 3);
        assert_eq!(inbox.put(many), 3);
        let (mut datagrams, mut orders) = (Datagrams::default(), Vec::new());
        assert!(!inbox.offer(from(Port::Ingress), b"x"), "a full inbox takes nothing from connections either");
        inbox.take(&mut datagrams, &mut orders);
        let offered = (0..).take_while(|_| inbox.offer(from(Port::Ingress), b"x")).count();
        assert_eq!(offered, MAX_BESIDE_STREAMS);
        assert_eq!(inbox.put([(from(Port::Ingress), &b"x"[..])].into_iter()), 0, "a datagram has room still");
        datagrams.clear();
        inbox.take(&mut datagrams, &mut orders);
        let large = vec![0; 60_000];
        let fitting = MAX_BYTES / large.len();
        assert_eq!(inbox.put(std::iter::repeat_n((from(Port::Ingress), &large[..]), fitting + 5)), 5);
    }
}
