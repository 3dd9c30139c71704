//! One shard: a thread that moves datagrams between its sockets and its engine.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use sipedge_sip::Time;
use tokio::sync::mpsc::UnboundedSender;

use super::clock::Clock;
use super::inbox::{Datagrams, Inbox, Order};
use super::numbers::{NetCounters, Numbers};
use super::outgoing::Outgoing;
use super::resolver::Report;
use super::streams::Outlet;
use super::sys::{BATCH, Received, Udp};
use super::tap::{Direction, Tap};
use crate::engine::{Arrival, Engine, Port, Transport, shard_of};

/// Longest sleep: a shard that has nothing to do shows this often that it is alive, and reads the kernel's drop counts.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// One thread's loop: sockets → engine → sockets. It allocates nothing per message once its buffers have grown.
#[derive(Debug)]
pub(super) struct Shard {
    index: usize,
    clock: Clock,
    engine: Engine,
    epoll: Epoll,
    /// Ingress, and egress when its port is another one.
    lines: Vec<Line>,
    inboxes: Arc<[Inbox]>,
    published: Arc<[Published]>,
    reports: UnboundedSender<Report>,
    outlet: Outlet,
    unanswered: Arc<AtomicUsize>,
    tap: Arc<Tap>,
    net: NetCounters,
    receive_buffer_bytes: u64,
    drops_read: Time,
    backlog: Backlog,
    buffers: Buffers,
}

/// What other threads see of a shard.
#[derive(Debug, Default)]
pub(super) struct Published {
    numbers: Mutex<Numbers>,
    /// Moment of its last turn, in microseconds since the Unix epoch.
    last_turn: AtomicU64,
    /// The same of the turn that the numbers are of: one whose numbers found no room is not in them.
    numbers_of: AtomicU64,
}

/// What a shard needs from outside.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) clock: Clock,
    pub(super) inboxes: Arc<[Inbox]>,
    pub(super) published: Arc<[Published]>,
    pub(super) reports: UnboundedSender<Report>,
    pub(super) outlet: Outlet,
    /// Names asked for and not answered yet.
    pub(super) unanswered: Arc<AtomicUsize>,
    /// For those who watch.
    pub(super) tap: Arc<Tap>,
}

/// One socket with its way out.
#[derive(Debug)]
struct Line {
    port: Port,
    socket: Udp,
    outgoing: Outgoing,
    /// The kernel tells when there is room again.
    waits_for_room: bool,
    drops: u32,
}

/// Whether datagrams arrive faster than they are dealt with.
#[derive(Debug, Default)]
struct Backlog {
    /// In this turn a batch was full: there is probably more.
    has_more: bool,
    /// Turns in a row in which it was so.
    turns: u32,
    /// So many of 256 new calls are refused.
    behind: u8,
}

struct Buffers {
    received: Received,
    /// Shard of each received datagram.
    owners: [usize; BATCH],
    /// Datagrams of the batch by shard.
    foreign: Vec<usize>,
    handed: Datagrams,
    orders: Vec<Order>,
}

impl Shard {
    /// A shard whose sockets are bound; `egress` is absent when both roles have one port.
    pub(super) fn new(
        index: usize,
        engine: Engine,
        ingress: Udp,
        egress: Option<Udp>,
        surroundings: Surroundings,
    ) -> nix::Result<Self> {
        let Surroundings { clock, inboxes, published, reports, outlet, unanswered, tap } = surroundings;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let lines: Vec<Line> = std::iter::once((Port::Ingress, ingress))
            .chain(egress.map(|socket| (Port::Egress, socket)))
            .map(|(port, socket)| Line { port, socket, outgoing: Outgoing::default(), waits_for_room: false, drops: 0 })
            .collect();
        for (number, line) in lines.iter().enumerate() {
            epoll.add(&line.socket, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        }
        if let Some(inbox) = inboxes.get(index) {
            epoll.add(inbox, EpollEvent::new(EpollFlags::EPOLLIN, INBOX))?;
        }
        let receive_buffer_bytes = lines.iter().map(|line| line.socket.receive_buffer()).sum();
        let buffers = Buffers {
            received: Received::new(),
            owners: [index; BATCH],
            foreign: vec![0; inboxes.len()],
            handed: Datagrams::default(),
            orders: Vec::new(),
        };
        let mut shard = Self {
            index,
            clock,
            engine,
            epoll,
            lines,
            inboxes,
            published,
            reports,
            outlet,
            unanswered,
            tap,
            net: NetCounters::default(),
            receive_buffer_bytes,
            drops_read: Time::default(),
            backlog: Backlog::default(),
            buffers,
        };
        // The engine's first questions go out before the thread starts, so that whoever started it can wait for the answers.
        let now = shard.clock.now();
        shard.time_out(now);
        shard.flush();
        shard.publish(now);
        Ok(shard)
    }

    /// Turns until it is stopped. An error of epoll itself ends it: the caller sees that the thread is gone.
    pub(super) fn run(mut self) -> nix::Result<()> {
        let mut now = self.clock.now();
        let mut next = self.engine.poll_timeout();
        let mut events = [EpollEvent::empty(); 3];
        loop {
            self.publish(now);
            let ready = match self.epoll.wait(&mut events, sleep(now, next)) {
                Ok(count) => events.get(..count).unwrap_or_default(),
                Err(Errno::EINTR) => &[],
                Err(error) => return Err(error),
            };
            now = self.clock.now();
            self.engine.set_behind(self.backlog.turn());
            // Orders first: they were given before the datagrams that wait now were received.
            if ready.iter().any(|event| event.data() == INBOX) && self.empty_inbox(now) {
                return Ok(());
            }
            for event in ready.iter().filter(|event| event.data() != INBOX) {
                let number = event.data() as usize;
                if event.events().contains(EpollFlags::EPOLLOUT) {
                    self.resume(number);
                }
                if event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR) {
                    self.receive(now, number);
                }
            }
            next = self.time_out(now);
        }
    }

    fn receive(&mut self, now: Time, number: usize) {
        let Some(line) = self.lines.get(number) else { return };
        let port = line.port;
        let Buffers { received, owners, foreign, .. } = &mut self.buffers;
        match received.receive(&line.socket) {
            Ok(0) => return,
            Ok(count) => self.backlog.note(count),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return,
            Err(_) => {
                self.net.receive_errors += 1;
                return;
            }
        }
        let shards = foreign.len();
        let mut any_foreign = false;
        let (is_watched, local) = (self.tap.is_watched(), line.socket.local());
        for (datagram, place) in received.datagrams().zip(owners.iter_mut()) {
            *place = self.index;
            let Some((source, bytes)) = datagram else {
                self.net.datagrams_truncated += 1;
                continue;
            };
            if is_watched {
                self.tap.show(Direction::In, Transport::Udp, source, local, bytes);
            }
            let owner = shard_of(bytes, shards).unwrap_or(self.index);
            match foreign.get_mut(owner) {
                Some(count) if owner != self.index => {
                    *place = owner;
                    *count += 1;
                    any_foreign = true;
                }
                _ => self.engine.handle_message(now, &Arrival::datagram(port, source), bytes),
            }
        }
        if any_foreign {
            for (shard, count) in foreign.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
                let Some(inbox) = self.inboxes.get(shard) else { continue };
                let theirs = received.datagrams().zip(owners.iter()).filter(|(_, owner)| **owner == shard);
                let theirs = theirs.filter_map(|(datagram, _)| datagram);
                let left_out = inbox.put(theirs.map(|(from, bytes)| (Arrival::datagram(port, from), bytes)));
                self.net.handed_over += *count as u64 - left_out;
                self.net.hand_over_drops += left_out;
                *count = 0;
            }
        }
        self.flush();
    }

    /// `true`: the shard has to end.
    fn empty_inbox(&mut self, now: Time) -> bool {
        let mut handed = std::mem::take(&mut self.buffers.handed);
        let mut orders = std::mem::take(&mut self.buffers.orders);
        let stop = self.inboxes.get(self.index).is_some_and(|inbox| inbox.take(&mut handed, &mut orders));
        for order in orders.drain(..) {
            match order {
                Order::Control(control) => self.engine.handle_control(now, control),
                Order::Resolved { query, servers, ttl } => self.engine.handle_resolved(now, &query, &servers, ttl),
                Order::Bulletin(bulletin) => self.engine.handle_bulletin(now, &bulletin),
                Order::Failed(receipt) => self.engine.handle_failure(now, receipt),
                Order::NoRoom(receipt) => self.engine.handle_no_room(now, receipt),
                Order::Setup(setup, shared) => self.engine.handle_setup(now, setup, shared),
                Order::Answerer(answerer) => self.engine.handle_answerer(answerer),
                // Neither waits; whoever asked may have gone.
                Order::Confirm(reply) => drop(reply.send(())),
                Order::Destinations(reply) => drop(reply.send(self.engine.destinations())),
            }
        }
        for (index, (arrival, bytes)) in handed.iter().enumerate() {
            self.engine.handle_message(now, &arrival, bytes);
            if index % BATCH == BATCH - 1 {
                self.backlog.note(BATCH);
                self.flush();
            }
        }
        handed.clear();
        self.buffers.handed = handed;
        self.buffers.orders = orders;
        self.flush();
        stop
    }

    /// Deals with the timers that are due. When the next one is.
    fn time_out(&mut self, now: Time) -> Option<Time> {
        let next = self.engine.poll_timeout();
        if next.is_none_or(|at| at > now) {
            return next;
        }
        self.engine.handle_timeout(now);
        self.flush();
        self.engine.poll_timeout()
    }

    /// Sends what the engine wants sent, and passes on what it wants to know and to say.
    fn flush(&mut self) {
        let outbox = self.engine.outbox();
        if outbox.transmits().len() > 0 {
            if self.tap.is_watched() {
                self.show_sent();
            }
            let one_port = self.lines.len() == 1;
            for (number, line) in self.lines.iter_mut().enumerate() {
                let datagrams = outbox.transmits().filter(|transmit| transmit.hop.transport == Transport::Udp);
                let own = datagrams.filter(|transmit| one_port || transmit.hop.port == line.port);
                let datagrams = own.map(|transmit| -> (SocketAddr, &[u8]) { (transmit.hop.to, transmit.bytes) });
                line.outgoing.send(&line.socket, &mut self.net, datagrams);
                line.watch(&self.epoll, number);
            }
            for transmit in outbox.transmits().filter(|transmit| transmit.hop.transport.is_reliable()) {
                self.outlet.send(self.index, &transmit);
            }
        }
        for resolve in outbox.resolves() {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            // The receiver lives as long as the proxy; at its end nobody needs the answer.
            let _ = self.reports.send(Report::Resolve(resolve.clone()));
        }
        for bulletin in outbox.bulletins() {
            let others = self.inboxes.iter().enumerate().filter(|(index, _)| *index != self.index);
            for (_, inbox) in others {
                inbox.order(Order::Bulletin(bulletin.clone()));
            }
        }
        for event in outbox.events() {
            let _ = self.reports.send(Report::Event(event.clone()));
        }
        self.engine.clear_outbox();
    }

    /// Shows the datagrams that are about to be sent. What goes by a connection is shown there.
    #[cold]
    fn show_sent(&self) {
        let datagrams = self.engine.outbox().transmits().filter(|transmit| transmit.hop.transport == Transport::Udp);
        for transmit in datagrams {
            let own = self.lines.iter().find(|line| self.lines.len() == 1 || transmit.hop.port == line.port);
            let Some(line) = own else { continue };
            self.tap.show(Direction::Out, Transport::Udp, line.socket.local(), transmit.hop.to, transmit.bytes);
        }
    }

    fn resume(&mut self, number: usize) {
        if let Some(line) = self.lines.get_mut(number) {
            line.outgoing.resume(&line.socket, &mut self.net);
            line.watch(&self.epoll, number);
        }
    }

    fn publish(&mut self, now: Time) {
        let Some(published) = self.published.get(self.index) else { return };
        published.last_turn.store(now.as_micros(), Ordering::Relaxed);
        if now.since(self.drops_read) >= LONGEST_SLEEP {
            self.drops_read = now;
            for line in &mut self.lines {
                let drops = line.socket.drops();
                self.net.kernel_drops += u64::from(drops.wrapping_sub(line.drops));
                line.drops = drops;
            }
        }
        // Never wait for a reader: the next turn publishes again, and the loop turns at least once a second.
        let mut numbers = match published.numbers.try_lock() {
            Ok(numbers) => numbers,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // Field by field: they are written once, and what a shard has nothing of is left alone.
        numbers.counters = *self.engine.counters();
        numbers.gauges = self.engine.gauges();
        numbers.net = self.net;
        (numbers.receive_buffer_bytes, numbers.shards) = (self.receive_buffer_bytes, 1);
        drop(numbers);
        published.numbers_of.store(now.as_micros(), Ordering::Release);
    }
}

/// How long to wait for what arrives: until the next timer is due, if there is one.
fn sleep(now: Time, next: Option<Time>) -> EpollTimeout {
    let until_timer = next.map_or(LONGEST_SLEEP, |at| at.since(now).min(LONGEST_SLEEP));
    // Rounded up: a wake-up before the timer is due would only turn the loop once more.
    let millis = until_timer.as_micros().div_ceil(1_000);
    EpollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX))
}

impl Backlog {
    /// So many datagrams were taken at once.
    fn note(&mut self, count: usize) {
        self.has_more |= count >= BATCH;
    }

    /// Once per turn: how far the shard is behind, more with each turn that leaves something over, less with each that does not.
    fn turn(&mut self) -> u8 {
        if std::mem::take(&mut self.has_more) {
            self.turns = self.turns.saturating_add(1);
            if self.turns >= PATIENCE {
                self.behind = self.behind.saturating_add(MORE);
            }
        } else {
            self.turns = 0;
            self.behind -= self.behind.div_ceil(LESS);
        }
        self.behind
    }
}

impl Published {
    pub(super) fn numbers(&self) -> Numbers {
        *self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The beginning of the turn that the numbers are of, or of one before.
    pub(super) fn numbers_of(&self) -> Time {
        Time::from_micros(self.numbers_of.load(Ordering::Acquire))
    }

    pub(super) fn last_turn(&self) -> Time {
        Time::from_micros(self.last_turn.load(Ordering::Relaxed))
    }
}

impl Line {
    /// Asks the kernel to tell when there is room, if and only if something waits for it.
    fn watch(&mut self, epoll: &Epoll, number: usize) {
        let waits = !self.outgoing.is_empty();
        if waits != self.waits_for_room {
            let room = if waits { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN | room, number as u64);
            if epoll.modify(&self.socket, &mut event).is_ok() {
                self.waits_for_room = waits;
            }
        }
    }
}

/// Turns in a row that each take a full batch, until new calls are refused: 2,048 datagrams, half of what a receive buffer holds. A
/// queue that empties now and then is a burst and does no harm, one that does not is overload (RFC 8289 §4). Turns and not time: after
/// the machine has stood still for a moment there is a queue, and time to deal with it.
const PATIENCE: u32 = 32;
/// By how many of 256 new calls the refused ones become more in each further turn: all are refused after 1,024 datagrams more.
const MORE: u8 = 16;
/// What part of them is admitted again in each turn that leaves nothing over: a share that is too high costs calls, and one too low only
/// a longer queue for a moment.
const LESS: u8 = 16;

/// Token of the inbox among the epoll events; the lines have 0 and 1.
const INBOX: u64 = 2;

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_stays_behind_refuses_more_and_more_and_less_and_less_once_it_has_caught_up() {
        let mut backlog = Backlog::default();
        let mut turn = |count: usize| {
            backlog.note(count);
            backlog.note(1);
            backlog.turn()
        };
        assert!(
            (0..1_000).all(|number| turn(if number % 15 == 0 { BATCH - 1 } else { BATCH }) == 0),
            "bursts that end"
        );
        turn(0);
        assert!((1..PATIENCE).all(|_| turn(BATCH) == 0));
        let rising: Vec<u8> = (0..16).map(|_| turn(BATCH)).collect();
        assert!(rising.is_sorted() && rising[0] == MORE && rising[15] == u8::MAX, "{rising:?}");
        let falling: Vec<u8> = (0..64).map(|_| turn(BATCH - 1)).collect();
        assert!(falling.iter().rev().is_sorted() && falling[0] > 200 && falling[63] == 0, "{falling:?}");
    }
}
