//! Sockets, threads and names: the only place with I/O on the SIP side.
//!
//! Each shard is one thread with its own sockets (SO_REUSEPORT), its own [`Engine`] and nothing shared while it handles a message. A
//! datagram that arrives on a shard that does not own its call is handed over in batches. One thread has all connections of TCP and TLS,
//! and one control thread resolves names and logs.

mod clock;
mod inbox;
mod numbers;
mod outgoing;
mod reload;
mod resolver;
mod shard;
mod streams;
#[expect(unsafe_code, reason = "system calls in batches; each use says why it is sound")]
mod sys;
mod tap;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sipedge_sip::Time;
use tokio::sync::mpsc;

use crate::config::{Config, Listen};
use crate::engine::{Control, Engine, Place, Setup, SetupError, Shared, TokenKeys, Transport};
use clock::Clock;
use inbox::{Inbox, Order};
use reload::Current;
use resolver::{Desk, Report};
use shard::{Published, Shard, Surroundings};
use streams::{Listeners, Rules, Streams, Tls};
use sys::Udp;
use tap::Tap;

pub use numbers::{NetCounters, Numbers, StreamCounters, StreamGauges};
pub use reload::{ReloadError, Reloaded};
pub use streams::{TlsError, TlsMaterial, tls_references};
pub use tap::{Direction, Filter, MAX_WATCHERS, Seen, TooMany, Watch};

/// A shard that has not turned its loop for this long is stuck. It turns at least once a second.
const STUCK: Duration = Duration::from_secs(5);

/// A running proxy. Dropping it ends it at once.
#[derive(Debug)]
pub struct Proxy {
    place: Place,
    clock: Clock,
    current: Mutex<Current>,
    draining_since: Mutex<Option<(Instant, Time)>>,
    inboxes: Arc<[Inbox]>,
    published: Arc<[Published]>,
    unanswered: Arc<AtomicUsize>,
    shards: Vec<JoinHandle<nix::Result<()>>>,
    streams: Streams,
    tap: Arc<Tap>,
    desk: Option<JoinHandle<()>>,
    /// To the control thread. It ends with the last shard, so this must not keep it.
    reports: mpsc::WeakUnboundedSender<Report>,
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration or the keys cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Certificates, keys or roots cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A socket could not be bound.
    #[error("cannot bind {protocol} {address} ({role}): {source}{}", bind_hint(source, *address))]
    Bind {
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// `ingress`, `egress` or `tls`.
        role: &'static str,
        /// What was to be bound.
        address: SocketAddr,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The operating system refused a thread or a file descriptor.
    #[error("cannot start a shard: {0}")]
    Resources(#[from] io::Error),
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is in progress any more.
    Finished,
    /// `drain.grace_ms` is over; this many transactions were still in progress.
    GraceOver(u64),
}

impl Proxy {
    /// Binds all sockets, starts `place.shards` threads and returns. The engines answer nobody until [`Control::Open`].
    pub fn start(config: Config, place: Place, keys: &TokenKeys, tls: &TlsMaterial) -> Result<Self, StartError> {
        let count = place.shards.max(1);
        let servers = config.dns.servers.clone();
        let transports = spoken(&config.listen);
        let setup = Arc::new(Setup::new(config, &place, keys)?);
        let shared = Arc::new(Shared::new(&setup));
        let tls = Tls::new(&setup.config, tls)?;

        let mut ingress = bind_all("ingress", place.ingress, count)?.into_iter();
        let separate = place.egress != place.ingress;
        let mut egress = if separate { bind_all("egress", place.egress, count)? } else { Vec::new() }.into_iter();

        let listeners = listeners(&setup.config.listen, place.ingress)?;

        let clock = Clock::start();
        let tap = Arc::new(Tap::new(clock));
        let inboxes = (0..count).map(|_| Inbox::new()).collect::<nix::Result<Arc<[_]>>>().map_err(io::Error::from)?;
        let published: Arc<[Published]> = (0..count).map(|_| Published::default()).collect();
        let unanswered = Arc::new(AtomicUsize::new(0));
        let (reports, reported) = mpsc::unbounded_channel();

        let rules = Rules { setup: Arc::clone(&setup), tls };
        let (streams, outlet) =
            Streams::start(rules, place.ingress, listeners, Arc::clone(&inboxes), Arc::clone(&tap))?;

        let mut proxy = Self {
            place,
            clock,
            current: Mutex::new(Current { setup: Arc::clone(&setup), shared: Arc::clone(&shared) }),
            draining_since: Mutex::new(None),
            inboxes: Arc::clone(&inboxes),
            published: Arc::clone(&published),
            unanswered: Arc::clone(&unanswered),
            shards: Vec::with_capacity(count),
            streams,
            tap: Arc::clone(&tap),
            desk: None,
            reports: reports.downgrade(),
        };
        // From here on an error drops `proxy`, which ends the threads that run already.
        for (index, ingress) in ingress.by_ref().enumerate() {
            let mut engine = Engine::new(Arc::clone(&setup), Arc::clone(&shared), clock.now());
            if index == 0 {
                engine.probe_from(index, count);
            }
            let surroundings = Surroundings {
                clock,
                inboxes: Arc::clone(&inboxes),
                published: Arc::clone(&published),
                reports: reports.clone(),
                outlet: outlet.clone(),
                unanswered: Arc::clone(&unanswered),
                tap: Arc::clone(&tap),
            };
            let shard = Shard::new(index, engine, ingress, egress.next(), surroundings).map_err(io::Error::from)?;
            let thread = thread::Builder::new().name(format!("sip-{index}"));
            proxy.shards.push(thread.spawn(move || shard.run())?);
        }
        let ipv4 = proxy.place.ingress.is_ipv4();
        let desk = Desk { servers, ipv4, transports, inboxes, reports: reported, unanswered };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        proxy.desk = Some(thread::Builder::new().name("control".into()).spawn(move || runtime.block_on(desk.run()))?);
        Ok(proxy)
    }

    /// Gives an order to all shards.
    pub fn control(&self, control: Control) {
        for inbox in self.inboxes.iter() {
            inbox.order(Order::Control(control));
        }
    }

    /// Everything counted, summed over the shards. At most a second old.
    pub fn numbers(&self) -> Numbers {
        let mut sum = Numbers::default();
        for published in self.published.iter() {
            sum.add(&published.numbers());
        }
        sum.streams = self.streams.counters();
        sum.stream_gauges = self.streams.gauges();
        sum
    }

    /// Shows the messages that pass and that `filter` admits, until the watch is dropped.
    pub fn watch(&self, filter: Filter) -> Result<Watch, TooMany> {
        self.tap.watch(filter)
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.tap.watchers()
    }

    /// Addresses, as given to [`Proxy::start`].
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.inboxes.len()
    }

    /// When it was started, in seconds since the Unix epoch.
    pub fn started_at_secs(&self) -> u64 {
        self.clock.started_at_secs()
    }

    /// Questions to the name servers that are not answered yet.
    pub fn names_unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// `Err`: a thread has ended, or a shard has not turned its loop for 5 seconds; the text says which.
    pub fn health(&self) -> Result<(), String> {
        if let Some(index) = self.dead_shard() {
            return Err(format!("shard {index} has ended"));
        }
        if self.streams_ended() {
            return Err("the thread of the connections has ended".to_owned());
        }
        let now = self.clock.now();
        match self.published.iter().position(|published| now.since(published.last_turn()) > STUCK) {
            Some(index) => Err(format!("shard {index} has not turned its loop for {} s", STUCK.as_secs())),
            None => Ok(()),
        }
    }

    /// A shard whose thread has ended: it panicked, or epoll failed. It never does while nobody stops it.
    pub fn dead_shard(&self) -> Option<usize> {
        self.shards.iter().position(JoinHandle::is_finished)
    }

    /// Whether the thread of TCP and TLS has ended: it panicked. It never does while nobody stops it.
    pub fn streams_ended(&self) -> bool {
        self.streams.has_ended()
    }

    /// Begins to leave; see [`Proxy::drained`]. A second call changes nothing.
    pub fn drain(&self) {
        let mut since = self.draining_since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_none() {
            *since = Some((Instant::now(), self.clock.now()));
            self.control(Control::Drain);
        }
    }

    /// Whether it has begun to leave.
    pub fn is_draining(&self) -> bool {
        self.draining_for().is_some()
    }

    /// How long it has been leaving. `None`: it has not begun to.
    pub fn draining_for(&self) -> Option<Duration> {
        let since = *self.draining_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|(since, _)| since.elapsed())
    }

    /// `Some` once the drain is over: `drain.accept_ms` has passed and nothing is in progress, or `drain.grace_ms` has passed.
    pub fn drained(&self) -> Option<Drained> {
        let (since, begun) = (*self.draining_since.lock().unwrap_or_else(PoisonError::into_inner))?;
        let elapsed = since.elapsed();
        // A call that came in just before is not in numbers of before.
        let counted = self.published.iter().all(|published| published.numbers_of() > begun);
        let drain = &self.setup().config.drain;
        let in_progress = self.numbers().gauges.pending_transactions;
        if elapsed >= Duration::from_millis(drain.accept_ms.into()) && counted && in_progress == 0 {
            return Some(Drained::Finished);
        }
        (elapsed >= Duration::from_millis(drain.grace_ms.into())).then_some(Drained::GraceOver(in_progress))
    }

    /// Ends all threads and waits for them.
    pub fn join(mut self) {
        self.end();
    }

    fn end(&mut self) {
        for inbox in self.inboxes.iter() {
            inbox.stop();
        }
        for (index, shard) in self.shards.drain(..).enumerate() {
            match shard.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("shard {index} ended: {error}"),
                Err(_) => tracing::error!("shard {index} panicked"),
            }
        }
        self.streams.end();
        // It ends by itself, since the shards were the last to hold its channel.
        if let Some(desk) = self.desk.take() {
            let _ = desk.join();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

/// Shards of an instance on this machine.
pub fn shards(listen: &Listen) -> usize {
    match listen.shards {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        shards => usize::from(shards),
    }
}

/// The transports that the edge speaks both ways: a peer that it reaches by one has to be able to answer by it.
fn spoken(listen: &Listen) -> Vec<Transport> {
    let streams = [(listen.tcp, Transport::Tcp), (listen.tls.is_some(), Transport::Tls)];
    let streams = streams.into_iter().filter(|(is_spoken, _)| *is_spoken);
    std::iter::once(Transport::Udp).chain(streams.map(|(_, transport)| transport)).collect()
}

/// Sockets for the stream transports of `listen`.
fn listeners(listen: &Listen, ingress: SocketAddr) -> Result<Listeners, StartError> {
    let tcp = listen.tcp.then_some((Transport::Tcp, "ingress", ingress.port()));
    let tls = listen.tls.as_ref().map(|tls| (Transport::Tls, "tls", tls.port));
    let bind = |(transport, role, port)| {
        let address = SocketAddr::new(ingress.ip(), port);
        let listener = TcpListener::bind(address);
        let listener = listener.map_err(|source| StartError::Bind { protocol: "TCP", role, address, source })?;
        Ok((transport, listener))
    };
    tcp.into_iter().chain(tls).map(bind).collect()
}

fn bind_all(role: &'static str, address: SocketAddr, count: usize) -> Result<Vec<Udp>, StartError> {
    let failed = |source| StartError::Bind { protocol: "UDP", role, address, source };
    // SO_REUSEPORT would let a second proxy of the same user share the port and take half of the calls: without it the bind fails.
    drop(Udp::bind(address, false).map_err(failed)?);
    (0..count).map(|_| Udp::bind(address, true).map_err(failed)).collect()
}

fn bind_hint(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("; another process has port {}: end it or change the port", address.port()),
        io::ErrorKind::AddrNotAvailable => format!("; {} is no address of this machine", address.ip()),
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE".into(),
        _ => String::new(),
    }
}
