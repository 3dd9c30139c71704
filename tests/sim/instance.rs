//! One instance of the edge: its engines, one per shard, and what their driver does with what they want.

use std::sync::Arc;

use sipedge_proxy::engine::{Arrival, Bulletin, Engine, Gauges, Port, Query, Receipt, Setup, Shared, Transport};
use sipedge_sip::Time;

use crate::edge::Version;
use crate::profile::Profile;

pub struct Instance {
    pub setup: Arc<Setup>,
    pub version: Version,
    pub shared: Arc<Shared>,
    /// None while it is down.
    pub shards: Vec<Engine>,
    pub life: u32,
    pub in_service: bool,
    /// It stands still until then.
    pub stalled: u64,
}

/// Something that reaches one shard.
pub enum Input {
    Message(Arrival, Vec<u8>),
    Bulletin(Bulletin),
    Resolved(Query),
    Failed(Receipt),
    Setup(Arc<Setup>, Arc<Shared>, Version),
}

/// A message that a shard wants sent.
pub struct Wanted {
    pub transport: Transport,
    pub port: Port,
    pub to: std::net::SocketAddr,
    pub connection: Option<u64>,
    pub receipt: Option<Receipt>,
    pub bytes: Vec<u8>,
}

impl Instance {
    pub fn new(profile: &Profile, index: usize) -> Self {
        let version = Version::default();
        let setup = crate::edge::setup(profile, &version, index);
        let shared = Arc::new(Shared::new(&setup));
        Self { setup, version, shared, shards: Vec::new(), life: 0, in_service: true, stalled: 0 }
    }

    pub fn is_up(&self) -> bool {
        !self.shards.is_empty()
    }

    pub fn start(&mut self, shards: usize, now: Time) {
        self.shared = Arc::new(Shared::new(&self.setup));
        self.shards = (0..shards).map(|_| Engine::new(self.setup.clone(), self.shared.clone(), now)).collect();
        if let Some(first) = self.shards.first_mut() {
            first.probe_from(0, shards);
        }
        self.life += 1;
        self.stalled = 0;
    }

    /// When a shard has to be woken, and which.
    pub fn poll_timeout(&self) -> Option<(Time, usize)> {
        self.shards.iter().enumerate().filter_map(|(shard, engine)| Some((engine.poll_timeout()?, shard))).min()
    }

    pub fn gauges(&self) -> Gauges {
        let mut sum = Gauges::default();
        self.shards.iter().for_each(|engine| sum.add(&engine.gauges()));
        sum
    }

    pub fn has_work(&self) -> bool {
        let gauges = self.gauges();
        gauges.transactions + gauges.pending_transactions + gauges.message_bytes + gauges.counted_calls > 0
    }
}
