//! The proxy as a state machine (RFC 3261 §16): admit → route → relay. No I/O, no clock.
//!
//! The driver hands in what happened and then sends what lies in the [`Outbox`]:
//!
//! ```text
//! handle_message | handle_failure | handle_resolved | handle_bulletin | handle_timeout | handle_setup | handle_control
//!     →  outbox()  →  clear_outbox()  →  poll_timeout()
//! ```

mod admission;
mod answerer;
mod branch;
mod calls;
mod cancel;
mod context;
mod destinations;
mod flow;
mod head;
mod incoming;
mod index;
mod keys;
mod limits;
mod loops;
mod names;
mod numbers;
mod outbox;
mod pool;
mod reach;
mod refusals;
mod relay;
mod reload;
mod request;
mod response;
mod routes;
mod setup;
mod sources;
mod strangers;
mod timeout;
mod token;
mod transactions;
mod trust;
mod waiting;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sipedge_sip::Time;
use sipedge_sip::message::{Edits, Layout, Malformed, Message};
use sipedge_sip::stun::binding_response;

pub use answerer::{Answerer, FLOW_HEADER, HANG_UP};
pub use destinations::{DestinationStatus, Mark};
pub use flow::{Arrival, Connection, Hop, Query, Receipt, Server, TlsPeer, Transport};
pub use keys::{TokenKey, TokenKeys};
pub use limits::Shared;
pub use numbers::{Counters, Gauges};
pub use outbox::{Bulletin, Event, Health, Outbox, Transmit};
pub use setup::{Place, Setup, SetupError};
pub(crate) use token::{TOKEN_LETTERS, TOKEN_SIGNATURE_LETTERS};

use calls::Calls;
use destinations::{Candidate, Destinations};
use names::{Change, Names};
use refusals::Refusals;
use strangers::Strangers;
use transactions::Transactions;
use waiting::Waiting;

/// One shard of the proxy: its transactions, its timers, its counters.
#[derive(Debug)]
pub struct Engine {
    setup: Arc<Setup>,
    shared: Arc<Shared>,
    gate: Gate,
    behind: u8,
    transactions: Transactions,
    calls: Calls,
    names: Names,
    destinations: Destinations,
    refusals: Refusals,
    strangers: Strangers,
    answerer: Option<Arc<Answerer>>,
    waiting: Waiting,
    outbox: Outbox,
    counters: Counters,
    /// The latest moment that the driver has given.
    latest: Time,
    /// Memory of the message that is being read, used again for each.
    layout: Layout,
    /// The same for a kept message that is read meanwhile.
    spare_layout: Layout,
    edits: Edits,
    /// Memory for a message that is made to be kept.
    scratch: Vec<u8>,
    /// Memory for the destinations that a request forks to.
    fork: Vec<Candidate>,
}

impl Engine {
    /// An engine that answers nobody until it gets [`Control::Open`] or [`Control::SelfCall`].
    pub fn new(setup: Arc<Setup>, shared: Arc<Shared>, now: Time) -> Self {
        let mut names = Names::default();
        for query in setup.queries() {
            names.add_destination(query, now);
        }
        let transactions = Transactions::new(now, limits::with_reserve(setup.message_bytes));
        let mut engine = Self {
            setup,
            shared,
            gate: Gate::Closed,
            behind: 0,
            transactions,
            calls: Calls::new(now),
            names,
            destinations: Destinations::default(),
            refusals: Refusals::default(),
            strangers: Strangers::default(),
            answerer: None,
            waiting: Waiting::default(),
            outbox: Outbox::default(),
            counters: Counters::default(),
            latest: now,
            layout: Layout::default(),
            spare_layout: Layout::default(),
            edits: Edits::default(),
            scratch: Vec::new(),
            fork: Vec::new(),
        };
        engine.destinations.refresh(now, &engine.setup, &engine.names);
        engine.ask_names(now);
        engine
    }

    /// A message arrived: a datagram, or what was framed of a stream.
    pub fn handle_message(&mut self, now: Time, arrival: &Arrival, bytes: &[u8]) {
        let now = self.not_back(now);
        self.counters.messages_received += 1;
        if !self.gate.admits(arrival.source) {
            self.counters.dropped_closed += 1;
            return;
        }
        let mut layout = std::mem::take(&mut self.layout);
        match Message::read(bytes, &mut layout) {
            Ok(message) => match message.status() {
                Some(code) => self.handle_response(now, &message, code),
                None => self.handle_request(now, arrival, &message),
            },
            Err(Malformed::StartLine) if self.answer_stun(arrival, bytes) => {}
            Err(error) => self.refuse_malformed(arrival, bytes, error, &mut layout),
        }
        self.layout = layout;
    }

    /// STUN of a known source is answered (RFC 5626 §8), where keep-alives are datagrams. Whether it was that.
    fn answer_stun(&mut self, arrival: &Arrival, bytes: &[u8]) -> bool {
        let may_ask = arrival.transport == Transport::Udp && self.setup.trunk_of(arrival.source.ip()).is_some();
        let mut answer = Vec::new();
        let is_stun = may_ask && binding_response(bytes, arrival.source, &mut answer);
        if is_stun {
            self.counters.stun_answered += 1;
            self.outbox.transmit(&arrival.back(arrival.source), None, |out| out.extend_from_slice(&answer));
        }
        is_stun
    }

    /// The answer to a [`Query`]: its servers; empty when the name servers gave none or did not answer.
    pub fn handle_resolved(&mut self, now: Time, query: &Query, servers: &[Server], ttl: Duration) {
        let now = self.not_back(now);
        match self.names.handle_resolved(now, query, servers, ttl) {
            Change::None => {}
            Change::Servers(servers) => {
                self.destinations.refresh(now, &self.setup, &self.names);
                self.outbox.event(Event::Resolved { host: query.host.clone(), servers });
            }
            Change::Failed => self.outbox.event(Event::Unresolved { host: query.host.clone() }),
        }
        self.release_waiting(now, Some(query));
    }

    /// A stream could not deliver the message of this receipt: no connection, TLS refused, or the connection broke before an answer.
    pub fn handle_failure(&mut self, now: Time, receipt: Receipt) {
        let now = self.not_back(now);
        self.transport_failed(now, receipt, false);
    }

    /// The message of this receipt was not sent: this instance has no room for it, or for its connection.
    pub fn handle_no_room(&mut self, now: Time, receipt: Receipt) {
        let now = self.not_back(now);
        self.transport_failed(now, receipt, true);
    }

    /// Another shard has found something out.
    pub fn handle_bulletin(&mut self, now: Time, bulletin: &Bulletin) {
        let now = self.not_back(now);
        self.destinations.handle_bulletin(now, bulletin);
    }

    /// A new configuration, checked, is in force from now on. Transactions, counts and what is known of destinations stay.
    pub fn handle_setup(&mut self, now: Time, setup: Arc<Setup>, shared: Arc<Shared>) {
        let now = self.not_back(now);
        self.names.release_destinations();
        for query in setup.queries() {
            self.names.add_destination(query, now);
        }
        let renumbering = limits::Renumbering::new(&self.setup, &setup);
        self.calls.renumber(|trunk| renumbering.counted(trunk));
        self.transactions.most_bytes = limits::with_reserve(setup.message_bytes);
        self.setup = setup;
        self.shared = shared;
        self.destinations.refresh(now, &self.setup, &self.names);
        self.ask_names(now);
    }

    /// This engine, `shard` of `shards`, probes the destinations for all of the instance, as long as it is open and does not leave.
    /// Call it before [`Control::Open`].
    pub fn probe_from(&mut self, shard: usize, shards: usize) {
        self.destinations.probe_from(shard, shards);
    }

    /// What is known of every destination of the configuration, for the control endpoint.
    pub fn destinations(&self) -> Vec<DestinationStatus> {
        self.destinations.list(&self.setup, &self.names)
    }

    /// The moment of [`Engine::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time) {
        let now = self.not_back(now);
        // What is given up here by a stream is over at once: its transaction's timer is due now.
        self.release_waiting(now, None);
        while let Some(entry) = self.transactions.timers.poll(now) {
            self.transaction_timeout(now, transactions::Id::of(entry));
        }
        while let Some(call) = self.calls.poll(now) {
            self.give_call(call);
        }
        self.poll_destinations(now);
        self.ask_names(now);
    }

    /// The operator or the boot sequence wants something.
    pub fn handle_control(&mut self, now: Time, control: Control) {
        let now = self.not_back(now);
        self.gate = match control {
            Control::SelfCall { caller, callee } => Gate::SelfCall { caller, callee },
            Control::Open => {
                // The test call is nobody's traffic.
                self.counters = Counters::default();
                self.destinations.start_probes(now, &self.setup);
                Gate::Open
            }
            Control::Drain => {
                for key in self.destinations.stop_probes() {
                    if let Some(probe) = self.transactions.client(key) {
                        self.transactions.remove(probe);
                    }
                }
                let accept = Duration::from_millis(u64::from(self.setup.config.drain.accept_ms));
                Gate::Draining { refuse_from: now + accept }
            }
            Control::Mark { transport, address, mark } => {
                // Others than those of the configuration cannot be marked.
                self.destinations.mark(transport, address, mark);
                self.gate
            }
        };
    }

    /// How far the driver is behind with what arrives: so many of 256 new calls get 503 from now on. A call costs several messages more, a
    /// refusal only its ACK, and what waits behind it are the messages of calls in progress.
    pub fn set_behind(&mut self, behind: u8) {
        self.behind = behind;
    }

    /// When [`Engine::handle_timeout`] has to be called next, if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        let mut next = self.transactions.timers.next();
        let others = [
            self.calls.poll_timeout(),
            self.names.poll_timeout(),
            self.waiting.poll_timeout(),
            self.destinations.poll_timeout(),
        ];
        for other in others {
            next = earlier(next, other);
        }
        next
    }

    /// What has to be sent, resolved and reported now.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The outbox has been dealt with; its buffers are used again.
    pub fn clear_outbox(&mut self) {
        self.counters.messages_sent += self.outbox.transmits().len() as u64;
        self.outbox.clear();
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the tables hold now.
    pub fn gauges(&self) -> Gauges {
        let destinations = self.destinations.tally();
        Gauges {
            transactions: self.transactions.len() as u64,
            pending_transactions: self.transactions.pending() as u64,
            message_bytes: self.transactions.pool.held(),
            counted_calls: self.calls.len() as u64,
            destinations_up: destinations.up,
            destinations_down: destinations.down,
            destinations_avoided: destinations.avoided,
            destinations_marked: destinations.marked,
        }
    }

    /// The moment, or the latest one if that is later: [`Time`] never goes back, and a timer that was set before the last moment that the
    /// wheel has dealt with would be due for ever.
    fn not_back(&mut self, now: Time) -> Time {
        self.latest = self.latest.max(now);
        self.latest
    }

    fn ask_names(&mut self, now: Time) {
        let outbox = &mut self.outbox;
        self.names.poll(now, |query| outbox.resolve(query));
    }

    fn give_call(&self, call: calls::Call) {
        for trunk in call.trunks() {
            self.shared.give_calls(trunk, call.legs);
        }
    }
}

/// The shard (0 to `shards` - 1) that owns a datagram: by its Call-ID, found without parsing. `None` when it has none: then it belongs
/// to no call, and whichever shard received it may deal with it.
pub fn shard_of(datagram: &[u8], shards: usize) -> Option<usize> {
    if shards <= 1 {
        return Some(0);
    }
    let mut at = 0;
    loop {
        at += memchr::memchr(b'\n', datagram.get(at..)?)? + 1;
        let line = datagram.get(at..)?;
        let name_length = match line.first()? {
            b'i' | b'I' => 1,
            b'c' | b'C' if line.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"call-id")) => 7,
            _ => continue,
        };
        let value = line.get(name_length..)?.trim_ascii_start();
        // White space before the value may be a fold: a Call-ID is one word wherever it begins.
        if let Some(value) = value.strip_prefix(b":") {
            let call_id = value.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap_or_default();
            return Some((call_hash(call_id) % shards.max(1) as u64) as usize);
        }
    }
}

/// FNV-1a of a Call-ID: cheap, the same everywhere, and an attacker gains nothing by steering it that any flood would not give.
fn call_hash(call_id: &[u8]) -> u64 {
    call_id.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The earlier of two moments that may be.
fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The socket a message came in by or leaves from. With one port for both roles it is always [`Port::Ingress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Port {
    /// Requests arrive here; their responses leave from here.
    Ingress,
    /// Requests of the edge leave from here; their responses arrive here.
    Egress,
}

/// Orders to an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Admit the instance's own test call and nothing else: `caller` is admitted, its calls go to `callee`.
    SelfCall {
        /// Socket of the calling user agent.
        caller: SocketAddr,
        /// Socket of the called user agent.
        callee: SocketAddr,
    },
    /// Answer the world.
    Open,
    /// Leave: OPTIONS gets 503; new calls get 503 after `drain.accept_ms`.
    Drain,
    /// The operator's word on a destination.
    Mark {
        /// How it is reached.
        transport: Transport,
        /// Where it is.
        address: SocketAddr,
        /// What it is to be.
        mark: Mark,
    },
}

/// Whom the engine listens to.
#[derive(Debug, Clone, Copy)]
enum Gate {
    Closed,
    SelfCall { caller: SocketAddr, callee: SocketAddr },
    Open,
    Draining { refuse_from: Time },
}

impl Gate {
    fn admits(&self, source: SocketAddr) -> bool {
        match *self {
            Self::Closed => false,
            Self::SelfCall { caller, callee } => source == caller || source == callee,
            Self::Open | Self::Draining { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests;
