//! What passes, for whoever watches: each message as it is received, and as it is given to the kernel or to its connection.
//!
//! While nobody watches, all that this costs is a look at one flag for each batch. A watcher has a bounded queue, and what finds it full
//! is left out and counted: a message never waits for a watcher.

mod filter;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use sipedge_sip::Time;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::clock::Clock;
use crate::engine::Transport;

pub use filter::Filter;

/// Watchers at a time. Each costs the shards a copy of every message that it wants.
pub const MAX_WATCHERS: usize = 4;

/// Messages that may wait for one watcher: some 200 ms at 10,000 messages per second.
const MAX_MESSAGES: usize = 2_048;

/// Bytes that may wait for one watcher: as much as a shard's sockets may hold.
const MAX_BYTES: usize = 4 << 20;

/// Which way a message goes, as the edge sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A peer sent it.
    In,
    /// The edge sends it.
    Out,
}

/// A message that has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Time,
    /// Which way.
    pub direction: Direction,
    /// Over what.
    pub transport: Transport,
    /// Who sent it.
    pub source: SocketAddr,
    /// Whom it was sent to.
    pub destination: SocketAddr,
    /// The message, secrets and all; over TLS as it was before encryption or after decryption.
    pub bytes: Vec<u8>,
}

/// There are [`MAX_WATCHERS`] already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_WATCHERS} watch already, and there may be no more at a time: end one of them")]
pub struct TooMany;

/// Where messages pass.
#[derive(Debug)]
pub(super) struct Tap {
    clock: Clock,
    /// Whether there is any watcher.
    is_watched: AtomicBool,
    watchers: ArcSwap<Vec<Arc<Watcher>>>,
    /// Held while watchers come or go.
    changing: Mutex<()>,
}

#[derive(Debug)]
struct Watcher {
    filter: Filter,
    queue: Sender<Seen>,
    waiting_bytes: AtomicUsize,
    left_out: AtomicU64,
}

/// A watcher's end. It watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    tap: Arc<Tap>,
    watcher: Arc<Watcher>,
    messages: Receiver<Seen>,
}

impl Tap {
    /// One that nobody watches.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, is_watched: AtomicBool::new(false), watchers: ArcSwap::default(), changing: Mutex::default() }
    }

    /// Whether [`Tap::show`] would show a message to anybody.
    pub(super) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    /// How many watch.
    pub(super) fn watchers(&self) -> usize {
        self.watchers.load().len()
    }

    /// Shows a message to those who want it. Keep-alives are none.
    #[cold]
    pub(super) fn show(
        &self,
        direction: Direction,
        transport: Transport,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
    ) {
        if is_keep_alive(bytes) {
            return;
        }
        let at = self.clock.now();
        for watcher in self.watchers.load().iter().filter(|watcher| watcher.filter.admits(bytes)) {
            watcher.offer(bytes, |bytes| Seen { at, direction, transport, source, destination, bytes });
        }
    }

    /// Begins to show what `filter` admits.
    pub(super) fn watch(self: &Arc<Self>, filter: Filter) -> Result<Watch, TooMany> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watchers = Vec::clone(&self.watchers.load());
        if watchers.len() >= MAX_WATCHERS {
            return Err(TooMany);
        }
        let (queue, messages) = channel(MAX_MESSAGES);
        let (waiting_bytes, left_out) = (AtomicUsize::new(0), AtomicU64::new(0));
        let watcher = Arc::new(Watcher { filter, queue, waiting_bytes, left_out });
        watchers.push(Arc::clone(&watcher));
        self.watchers.store(Arc::new(watchers));
        self.is_watched.store(true, Ordering::Relaxed);
        Ok(Watch { tap: Arc::clone(self), watcher, messages })
    }

    fn forget(&self, watcher: &Arc<Watcher>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watchers = Vec::clone(&self.watchers.load());
        watchers.retain(|other| !Arc::ptr_eq(other, watcher));
        self.is_watched.store(!watchers.is_empty(), Ordering::Relaxed);
        self.watchers.store(Arc::new(watchers));
    }
}

impl Watcher {
    /// Puts a message behind those that wait, or counts it where there is no room.
    fn offer(&self, bytes: &[u8], seen: impl FnOnce(Vec<u8>) -> Seen) {
        // Made before the check, so that two shards at a time cannot both take the last room.
        let waiting = self.waiting_bytes.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        let place = if waiting <= MAX_BYTES { self.queue.try_reserve().ok() } else { None };
        match place {
            Some(place) => place.send(seen(bytes.to_vec())),
            None => {
                self.waiting_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Watch {
    /// The next message; `None` after [`Watch::stop`], when all that was seen before has been taken.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Seen>> {
        let next = self.messages.poll_recv(context);
        if let Poll::Ready(Some(seen)) = &next {
            self.watcher.waiting_bytes.fetch_sub(seen.bytes.len(), Ordering::Relaxed);
        }
        next
    }

    /// Messages that found no room, so far.
    pub fn left_out(&self) -> u64 {
        self.watcher.left_out.load(Ordering::Relaxed)
    }

    /// Nothing that passes from now on is seen.
    pub fn stop(&mut self) {
        self.tap.forget(&self.watcher);
        self.messages.close();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tap.forget(&self.watcher);
    }
}

/// What keeps a NAT binding or a connection alive (RFC 5626 §3.5): line ends, or STUN by its first bits and its magic cookie.
fn is_keep_alive(bytes: &[u8]) -> bool {
    let is_stun = bytes.first().is_some_and(|first| *first < 4) && bytes.get(4..8) == Some(&[0x21, 0x12, 0xa4, 0x42]);
    is_stun || bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const OPTIONS: &[u8] = b"OPTIONS sip:a.example SIP/2.0\r\n\r\n";

    fn tap() -> Arc<Tap> {
        Arc::new(Tap::new(Clock::start()))
    }

    fn show(tap: &Tap, bytes: &[u8]) {
        let address = |last: u8| SocketAddr::from(([192, 0, 2, last], 5060));
        tap.show(Direction::In, Transport::Udp, address(1), address(2), bytes);
    }

    /// What waits for a watcher.
    fn waiting(watch: &mut Watch) -> Vec<Seen> {
        let mut context = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        while let Poll::Ready(Some(seen)) = watch.poll_next(&mut context) {
            all.push(seen);
        }
        all
    }

    #[test]
    fn each_watcher_sees_what_passes_while_it_watches() {
        let tap = tap();
        show(&tap, OPTIONS);
        assert!(!tap.is_watched());
        let mut first = tap.watch(Filter::default()).unwrap();
        show(&tap, OPTIONS);
        let mut second = tap.watch(Filter::default()).unwrap();
        show(&tap, b"\r\n\r\n");
        show(&tap, b"\0\x01\0\0\x21\x12\xa4\x42............");
        show(&tap, b"no SIP");
        assert_eq!(
            waiting(&mut first).iter().map(|seen| seen.bytes.as_slice()).collect::<Vec<_>>(),
            [OPTIONS, b"no SIP"]
        );
        assert_eq!(waiting(&mut second).len(), 1);
        first.stop();
        show(&tap, OPTIONS);
        assert!(waiting(&mut first).is_empty() && waiting(&mut second).len() == 1);
        assert!(tap.is_watched());
        drop((first, second));
        assert!(!tap.is_watched());
    }

    #[test]
    fn a_watcher_that_takes_nothing_costs_bounded_memory_and_knows_what_it_missed() {
        let tap = tap();
        let mut small = tap.watch(Filter::default()).unwrap();
        for _ in 0..MAX_MESSAGES + 3 {
            show(&tap, OPTIONS);
        }
        assert_eq!((waiting(&mut small).len(), small.left_out()), (MAX_MESSAGES, 3));
        let large = vec![b'x'; 60_000];
        let fitting = MAX_BYTES / large.len();
        for _ in 0..fitting + 5 {
            show(&tap, &large);
        }
        assert_eq!((waiting(&mut small).len(), small.left_out()), (fitting, 8));
        show(&tap, &large);
        assert_eq!((waiting(&mut small).len(), small.left_out()), (1, 8), "what was taken has made room");
    }

    #[test]
    fn there_are_a_few_watchers_at_a_time_and_one_that_ends_makes_room() {
        let tap = tap();
        let mut watches: Vec<Watch> = (0..MAX_WATCHERS).map(|_| tap.watch(Filter::default()).unwrap()).collect();
        assert_eq!(tap.watch(Filter::default()).unwrap_err(), TooMany);
        watches.pop();
        assert_eq!(tap.watchers(), MAX_WATCHERS - 1);
        watches.push(tap.watch(Filter::default()).unwrap());
        assert_eq!(tap.watch(Filter::default()).unwrap_err(), TooMany);
    }
}
