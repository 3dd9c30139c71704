//! The proxy as a state machine (RFC 3261 §16): admit → route → relay. No I/O, no clock.
//!
//! The driver hands in what happened and then sends what lies in the [`Outbox`]:
//!
//! ```text
//! handle_datagram | handle_resolved | handle_timeout | handle_control  →  outbox()  →  clear_outbox()  →  poll_timeout()
//! ```

mod admission;
mod branch;
mod calls;
mod head;
mod incoming;
mod keys;
mod limits;
mod names;
mod numbers;
mod outbox;
mod pool;
mod refusals;
mod relay;
mod request;
mod response;
mod setup;
mod timeout;
mod token;
mod transactions;
mod write;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sipedge_sip::Time;
use sipedge_sip::message::{Edits, Layout, Malformed, Message};

pub use keys::{TokenKey, TokenKeys};
pub use limits::Shared;
pub use numbers::{Counters, Gauges};
pub use outbox::{Event, Outbox, Resolve, Transmit};
pub use setup::{Place, Setup, SetupError};

use calls::Calls;
use names::{Change, Names};
use refusals::Refusals;
use transactions::Transactions;

/// One shard of the proxy: its transactions, its timers, its counters.
#[derive(Debug)]
pub struct Engine {
    setup: Arc<Setup>,
    shared: Arc<Shared>,
    gate: Gate,
    transactions: Transactions,
    calls: Calls,
    names: Names,
    refusals: Refusals,
    outbox: Outbox,
    counters: Counters,
    /// Memory of the message that is being read, used again for each.
    layout: Layout,
    /// The same for a kept message that is read meanwhile.
    spare_layout: Layout,
    edits: Edits,
}

impl Engine {
    /// An engine that answers nobody until it gets [`Control::Open`] or [`Control::SelfCall`].
    pub fn new(setup: Arc<Setup>, shared: Arc<Shared>, now: Time) -> Self {
        let mut names = Names::default();
        for target in setup.trunks.iter().filter_map(|trunk| trunk.target.as_ref()) {
            if target.ip.is_none() {
                names.add_destination(&target.host, now);
            }
        }
        let transactions = Transactions::new(now, limits::with_reserve(setup.message_bytes));
        let mut engine = Self {
            setup,
            shared,
            gate: Gate::Closed,
            transactions,
            calls: Calls::new(now),
            names,
            refusals: Refusals::default(),
            outbox: Outbox::default(),
            counters: Counters::default(),
            layout: Layout::default(),
            spare_layout: Layout::default(),
            edits: Edits::default(),
        };
        engine.ask_names(now);
        engine
    }

    /// A datagram arrived on `port` from `source`.
    pub fn handle_datagram(&mut self, now: Time, port: Port, source: SocketAddr, datagram: &[u8]) {
        self.counters.datagrams_received += 1;
        if !self.gate.admits(source) {
            self.counters.dropped_closed += 1;
            return;
        }
        let mut layout = std::mem::take(&mut self.layout);
        match Message::read(datagram, &mut layout) {
            Ok(message) => match message.status() {
                Some(code) => self.handle_response(now, &message, code),
                None => self.handle_request(now, port, source, &message),
            },
            Err(Malformed::StartLine) => self.counters.not_sip += 1,
            Err(error) => {
                self.counters.malformed += 1;
                // RFC 3261 §18.3: a request whose body did not arrive whole is answered 400.
                if let (Malformed::Truncated { .. }, Ok(message)) =
                    (error, Message::read_without_body(datagram, &mut layout))
                {
                    self.answer_malformed(port, source, &message);
                }
            }
        }
        self.layout = layout;
    }

    /// The answer to a [`Resolve`]: the addresses of `host`; empty when the name servers gave none or did not answer.
    pub fn handle_resolved(&mut self, now: Time, host: &str, addresses: &[IpAddr], ttl: Duration) {
        match self.names.handle_resolved(now, host, addresses, ttl) {
            Change::None => {}
            Change::Addresses(addresses) => self.outbox.event(Event::Resolved { host: host.to_owned(), addresses }),
            Change::Failed => self.outbox.event(Event::Unresolved { host: host.to_owned() }),
        }
    }

    /// The moment of [`Engine::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(entry) = self.transactions.timers.poll(now) {
            self.transaction_timeout(now, transactions::Id(entry));
        }
        while let Some(call) = self.calls.poll(now) {
            self.give_call(call);
        }
        self.ask_names(now);
    }

    /// The operator or the boot sequence wants something.
    pub fn handle_control(&mut self, now: Time, control: Control) {
        self.gate = match control {
            Control::SelfCall { caller, callee } => Gate::SelfCall { caller, callee },
            Control::Open => {
                // The test call is nobody's traffic.
                self.counters = Counters::default();
                Gate::Open
            }
            Control::Drain => {
                let accept = Duration::from_millis(u64::from(self.setup.config.drain.accept_ms));
                Gate::Draining { refuse_from: now + accept }
            }
        };
    }

    /// When [`Engine::handle_timeout`] has to be called next, if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        let timers = [self.transactions.timers.next(), self.calls.poll_timeout(), self.names.poll_timeout()];
        timers.into_iter().flatten().min()
    }

    /// What has to be sent, resolved and reported now.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The outbox has been dealt with; its buffers are used again.
    pub fn clear_outbox(&mut self) {
        self.counters.datagrams_sent += self.outbox.transmits().len() as u64;
        self.outbox.clear();
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the tables hold now.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            transactions: self.transactions.len() as u64,
            pending_transactions: self.transactions.pending() as u64,
            message_bytes: self.transactions.pool.held(),
            counted_calls: self.calls.len() as u64,
        }
    }

    fn ask_names(&mut self, now: Time) {
        let outbox = &mut self.outbox;
        self.names.poll(now, |host| outbox.resolve(host));
    }

    fn give_call(&self, call: calls::Call) {
        for trunk in [call.from, call.to] {
            self.shared.give_calls(trunk, call.legs);
        }
    }
}

/// The shard (0 to `shards` - 1) that owns a datagram: by its Call-ID, found without parsing. `None` when it has none: then it belongs
/// to no call, and whichever shard received it may deal with it.
pub fn shard_of(datagram: &[u8], shards: usize) -> Option<usize> {
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
