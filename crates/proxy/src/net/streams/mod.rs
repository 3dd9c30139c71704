//! TCP and TLS: one thread that accepts and opens connections, cuts what arrives into messages for the shards, and sends what the
//! shards give it (RFC 3261 §18).
//!
//! ```text
//! connection → Framer → Inbox of the shard that owns the call
//! shard → Outlet → hub: the connection of the request, one that stands to the peer, or a new one → connection
//! ```
//!
//! What could not be delivered is reported to the shard that sent it, by its receipt.

mod alias;
mod certificates;
mod connection;
mod hub;
mod limits;
mod link;
mod names;
mod outlet;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::inbox::Inbox;
use super::numbers::{StreamCounters, StreamGauges, Tally};
use super::tap::Tap;
use crate::engine::{Setup, Transport};
use hub::Hub;
use outlet::Budget;

pub(super) use certificates::Tls;
pub use certificates::{TlsError, TlsMaterial, tls_references};
pub(super) use outlet::Outlet;

/// The thread of all connections.
#[derive(Debug)]
pub(super) struct Streams {
    rules: Arc<ArcSwap<Rules>>,
    tally: Arc<Tally>,
    budget: Arc<Budget>,
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a reload exchanges. Connections that stand go on; everything that is new follows the new rules.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) setup: Arc<Setup>,
    pub(super) tls: Tls,
}

/// Sockets that accept connections.
pub(super) type Listeners = Vec<(Transport, TcpListener)>;

impl Streams {
    /// Starts the thread; connections are opened from `local`. The outlet is what the shards send by; each has a clone.
    pub(super) fn start(
        rules: Rules,
        local: SocketAddr,
        listeners: Listeners,
        inboxes: Arc<[Inbox]>,
        tap: Arc<Tap>,
    ) -> io::Result<(Self, Outlet)> {
        let budget = Arc::new(Budget::new(rules.setup.config.streams.bytes_in_flight));
        let rules = Arc::new(ArcSwap::from_pointee(rules));
        let tally = Arc::new(Tally::default());
        let (sender, sendings) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let outlet = Outlet::new(sender, Arc::clone(&budget), Arc::clone(&inboxes), Arc::clone(&tally));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listeners = {
            let _in_runtime = runtime.enter();
            let into_tokio = |(transport, listener): (Transport, TcpListener)| {
                listener.set_nonblocking(true)?;
                Ok((transport, tokio::net::TcpListener::from_std(listener)?))
            };
            listeners.into_iter().map(into_tokio).collect::<io::Result<Vec<_>>>()?
        };
        let (shared_rules, shared_tally) = (Arc::clone(&rules), Arc::clone(&tally));
        let thread = thread::Builder::new().name("streams".into()).spawn(move || {
            let hub = Rc::new(Hub::new(local.ip(), shared_rules, inboxes, shared_tally, tap));
            LocalSet::new().block_on(&runtime, hub.run(listeners, sendings, stopped));
        })?;
        Ok((Self { rules, tally, budget, stop: Some(stop), thread: Some(thread) }, outlet))
    }

    /// From now on these rules hold, for every connection that is not yet established.
    pub(super) fn reload(&self, rules: Rules) {
        self.budget.set_most(rules.setup.config.streams.bytes_in_flight);
        self.rules.store(Arc::new(rules));
    }

    /// Whether the thread has ended, which it never does by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub(super) fn counters(&self) -> StreamCounters {
        self.tally.counters()
    }

    pub(super) fn gauges(&self) -> StreamGauges {
        StreamGauges {
            connections_in: self.tally.connections_in.load(Ordering::Relaxed),
            connections_out: self.tally.connections_out.load(Ordering::Relaxed),
            bytes_waiting: self.budget.waiting(),
        }
    }

    /// Closes every connection and waits for the thread.
    pub(super) fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the connections panicked");
        }
    }
}
