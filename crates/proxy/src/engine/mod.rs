//! The proxy as a state machine (RFC 3261 §16): admit → route → relay. No I/O, no clock.
//!
//! The driver hands in what happened and then sends what lies in the [`Outbox`]:
//!
//! ```text
//! handle_datagram | handle_resolved | handle_timeout | handle_control  →  outbox()  →  clear_outbox()  →  poll_timeout()
//! ```

mod outbox;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sipedge_sip::Time;

use crate::config::Config;

pub use outbox::{Event, Outbox, Resolve, Transmit};

/// One shard of the proxy: its transactions, its timers, its counters.
#[derive(Debug)]
pub struct Engine {
    outbox: Outbox,
    counters: Counters,
}

impl Engine {
    /// An engine that answers nobody until it gets [`Control::Open`] or [`Control::SelfCall`].
    pub fn new(setup: Arc<Setup>, shared: Arc<Shared>, now: Time) -> Self {
        let _ = (setup, shared, now);
        Self { outbox: Outbox::default(), counters: Counters::default() }
    }

    /// A datagram arrived on `port` from `source`.
    pub fn handle_datagram(&mut self, now: Time, port: Port, source: SocketAddr, datagram: &[u8]) {
        let _ = (now, port, source, datagram);
    }

    /// The answer to a [`Resolve`]: the addresses of `host`; empty when the name servers gave none or did not answer.
    pub fn handle_resolved(&mut self, now: Time, host: &str, addresses: &[IpAddr], ttl: Duration) {
        let _ = (now, host, addresses, ttl);
    }

    /// The moment of [`Engine::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
    }

    /// The operator or the boot sequence wants something.
    pub fn handle_control(&mut self, now: Time, control: Control) {
        let _ = (now, control);
    }

    /// When [`Engine::handle_timeout`] has to be called next, if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// What has to be sent, resolved and reported now.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The outbox has been dealt with; its buffers are used again.
    pub fn clear_outbox(&mut self) {
        self.outbox.clear();
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the tables hold now.
    pub fn gauges(&self) -> Gauges {
        Gauges::default()
    }
}

/// The shard (0 to `shards` - 1) that owns a datagram: by its Call-ID, found without parsing. Without one: 0.
pub fn shard_of(datagram: &[u8], shards: usize) -> usize {
    let _ = datagram;
    0 % shards.max(1)
}

/// The socket a message came in by or leaves from. With one port for both roles it is always [`Port::Ingress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Port {
    /// Requests arrive here; their responses leave from here.
    Ingress,
    /// Requests of the edge leave from here; their responses arrive here.
    Egress,
}

/// A checked configuration with everything that only the instance knows.
#[derive(Debug)]
pub struct Setup {
    /// The configuration, as checked.
    pub config: Config,
}

/// What only the instance knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Private address and port of the ingress socket.
    pub ingress: SocketAddr,
    /// Private address and port of the egress socket.
    pub egress: SocketAddr,
    /// Address or host name that Via and Record-Route carry.
    pub advertised: String,
}

/// The secrets that make branches and route tokens. The document in the secrets folder or parameter is this as JSON.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKeys {
    /// Key of the branches, 64 hex digits. The same on all instances; not rotated with the token keys.
    pub branch: String,
    /// Keys of route tokens, at most two; the first signs, all of them verify.
    pub tokens: Vec<TokenKey>,
}

/// One key of route tokens.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// Key id, 0 to 255, carried in each token.
    pub id: u8,
    /// 64 hex digits.
    pub key: String,
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKeys(…)")
    }
}

/// A configuration that cannot be used, all reasons at once.
#[derive(Debug, thiserror::Error)]
#[error("{}", reasons.join("; "))]
pub struct SetupError {
    /// Each: the setting, what is wrong, what would be right.
    pub reasons: Vec<String>,
}

impl Setup {
    /// Checks `config` and `keys` and builds the lookup tables of all shards.
    pub fn new(config: Config, place: &Place, keys: &TokenKeys) -> Result<Self, SetupError> {
        let _ = (place, keys);
        Ok(Self { config })
    }
}

/// What the shards of one instance share: the counts that limits act on, as atomics.
#[derive(Debug)]
pub struct Shared {}

impl Shared {
    /// Nothing counted yet.
    pub fn new(setup: &Setup) -> Self {
        let _ = setup;
        Self {}
    }
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

macro_rules! numbers {
    ($(#[$outer:meta])* $name:ident { $($(#[doc = $help:literal])+ $field:ident,)+ }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $help])+ pub $field: u64,)+
        }

        impl $name {
            /// Name, help text and value of each, for `/metrics`.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), concat!($($help),+), self.$field)),+].into_iter()
            }

            /// Adds another shard's numbers.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)+
            }
        }
    };
}

numbers! {
    /// What has happened since the start.
    Counters {
        /// Datagrams received.
        datagrams_received,
    }
}

numbers! {
    /// What the tables hold.
    Gauges {
        /// Server and client transactions.
        transactions,
        /// Bytes of messages kept for retransmission.
        message_bytes,
        /// Calls that limits count.
        counted_calls,
    }
}
