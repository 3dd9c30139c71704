//! A new configuration for a running proxy, and questions to its shards.

use std::fmt::Display;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sipedge_sip::Time;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Proxy;
use super::inbox::Order;
use super::resolver::Report;
use super::streams::{Rules, Tls, TlsMaterial};
use crate::config::Config;
use crate::engine::{Answerer, DestinationStatus, Place, Setup, Shared, TokenKeys};

/// Time for a shard to answer. Its loop turns in less than a millisecond, under load in a few.
const ANSWER: Duration = Duration::from_secs(1);

/// What all shards act on.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) setup: Arc<Setup>,
    pub(super) shared: Arc<Shared>,
}

/// A configuration that was taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// What becomes of calls in progress, where that may surprise; one sentence each.
    pub consequences: Vec<String>,
}

/// Why a configuration was not taken up. The one of before is in force, whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The instance is leaving.
    #[error("this instance is draining: it ends with the configuration that it has")]
    Draining,
    /// It cannot be used, or not without a restart.
    #[error("{}", reasons.join("; "))]
    Refused {
        /// Each: the setting, what is wrong, what would be right.
        reasons: Vec<String>,
    },
}

impl Proxy {
    /// Takes up a new configuration on all shards, each between two messages, or none of it. Transactions, connections, what is known of
    /// destinations and what limits have counted stay.
    pub fn reload(
        &self,
        config: Config,
        place: &Place,
        keys: &TokenKeys,
        tls: &TlsMaterial,
    ) -> Result<Reloaded, ReloadError> {
        if self.is_draining() {
            return Err(ReloadError::Draining);
        }
        self.take_up(config, place, keys, tls)
    }

    /// Takes up other secrets, with the configuration that is in force, as [`Proxy::reload`] does. While the instance is leaving too: a
    /// load balancer still sends it requests within calls that others have set up with the new key.
    pub fn renew(&self, keys: &TokenKeys, tls: &TlsMaterial) -> Result<Reloaded, ReloadError> {
        self.take_up(self.setup().config.clone(), &self.place, keys, tls)
    }

    fn take_up(
        &self,
        config: Config,
        place: &Place,
        keys: &TokenKeys,
        tls: &TlsMaterial,
    ) -> Result<Reloaded, ReloadError> {
        // Held until all orders are given: two reloads reach every shard in the same order.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reasons = self.restarts(&current.setup, &config, place);
        let tls = Tls::new(&config, tls).map_err(|error| reasons.push(error.to_string()));
        let setup = match Setup::new(config, place, keys) {
            Ok(setup) => {
                reasons.extend(current.setup.obstacles(&setup));
                Arc::new(setup)
            }
            Err(error) => {
                reasons.extend(error.reasons);
                return Err(ReloadError::Refused { reasons });
            }
        };
        let Ok(tls) = tls else { return Err(ReloadError::Refused { reasons }) };
        if !reasons.is_empty() {
            return Err(ReloadError::Refused { reasons });
        }
        let consequences = current.setup.consequences(&setup);
        let shared = Arc::new(current.shared.renewed(&current.setup, &setup));
        if current.setup.config.dns != setup.config.dns
            && let Some(reports) = self.reports.upgrade()
        {
            let _ = reports.send(Report::NameServers(setup.config.dns.servers.clone()));
        }
        // Before any shard names a new trunk's certificates.
        self.streams.reload(Rules { setup: Arc::clone(&setup), tls });
        for inbox in self.inboxes.iter() {
            inbox.order(Order::Setup(Arc::clone(&setup), Arc::clone(&shared)));
        }
        *current = Current { setup, shared };
        Ok(Reloaded { consequences })
    }

    /// The answerer that calls to it go to from now on; `None`: there is none.
    pub fn set_answerer(&self, answerer: Option<Arc<Answerer>>) {
        for inbox in self.inboxes.iter() {
            inbox.order(Order::Answerer(answerer.clone()));
        }
    }

    /// What of `config` takes a restart, each with its reason.
    pub fn needs_restart(&self, config: &Config, place: &Place) -> Vec<String> {
        self.restarts(&self.setup(), config, place)
    }

    /// The configuration in force.
    pub fn setup(&self) -> Arc<Setup> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner).setup)
    }

    /// Waits until every shard has carried out the orders that were given before. `false`: one has not within a second.
    pub async fn settled(&self) -> bool {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        for inbox in self.inboxes.iter() {
            inbox.order(Order::Confirm(sender.clone()));
        }
        drop(sender);
        let all = async {
            let mut confirmed = 0;
            while receiver.recv().await.is_some() {
                confirmed += 1;
            }
            confirmed
        };
        timeout(ANSWER, all).await.is_ok_and(|confirmed| confirmed == self.inboxes.len())
    }

    /// Every destination that is known, as the first shard sees it. `None`: it has not answered within a second.
    pub async fn destinations(&self) -> Option<Vec<DestinationStatus>> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        self.inboxes.first()?.order(Order::Destinations(sender));
        timeout(ANSWER, receiver.recv()).await.ok().flatten()
    }

    /// The clock that a destination's [`Health`](crate::engine::Health) refers to.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    fn restarts(&self, setup: &Setup, config: &Config, place: &Place) -> Vec<String> {
        let mut reasons = Vec::new();
        let mut keep = |setting: &str, now: &dyn Display, next: &dyn Display, why: &str| {
            let (now, next) = (now.to_string(), next.to_string());
            if now != next {
                reasons.push(format!("{setting}: {now} now, {next} in the new one: {why}; a restart takes it up"));
            }
        };
        let (old, new) = (&setup.config.listen, &config.listen);
        let bound = "its sockets are bound";
        keep("listen.address", &self.place.ingress.ip(), &place.ingress.ip(), bound);
        keep("listen.ingress_port", &self.place.ingress.port(), &place.ingress.port(), bound);
        keep("listen.egress_port", &self.place.egress.port(), &place.egress.port(), bound);
        keep("listen.shards", &self.place.shards, &place.shards, "each is a thread with calls of its own");
        keep("listen.tcp", &old.tcp, &new.tcp, bound);
        let port = |listen: &crate::config::Listen| {
            listen.tls.as_ref().map_or("none".to_owned(), |tls| format!("port {}", tls.port))
        };
        keep("listen.tls", &port(old), &port(new), bound);
        keep("admin.port", &setup.config.admin.port, &config.admin.port, bound);
        let advertised = "calls in progress come back to it";
        keep("advertise", &self.place.advertised, &place.advertised, advertised);
        reasons
    }
}
