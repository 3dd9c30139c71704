//! Which destination a call may take: what a shard knows of each, and what it has to make of that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use sipedge_proxy::engine::{Health, Transport};

use super::{Life, Step};

type Address = (Transport, SocketAddr);

/// What one shard knows.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The servers that calls may take, each with the priority of its target and whether that has a weight.
    pub servers: BTreeMap<Address, (u16, bool)>,
    /// Those that the configuration has dropped: nothing is kept of them.
    gone: BTreeSet<Address>,
    down: BTreeSet<Address>,
    /// Until when, in microseconds of the simulation.
    avoided: BTreeMap<Address, u64>,
}

/// What each shard knows now, and what it knew before the step that is judged.
#[derive(Debug, Default)]
pub struct Choice {
    now: BTreeMap<(Life, usize), Seen>,
    before: BTreeMap<(Life, usize), Seen>,
}

impl Choice {
    pub fn seen(&mut self, life: Life, shard: usize) -> &mut Seen {
        self.now.entry((life, shard)).or_default()
    }

    /// A step begins.
    pub fn begin(&mut self, life: Life, shard: usize) {
        let seen = self.now.entry((life, shard)).or_default().clone();
        self.before.insert((life, shard), seen);
    }

    /// A branch of a new call is opened: nobody who is out of service gets it, and nobody before those who are better.
    pub(super) fn opened(
        &self,
        step: &Step<'_>,
        to: Address,
        tried: &[SocketAddr],
        forks: bool,
        call: usize,
    ) -> Result<(), String> {
        let key = (step.life, step.shard);
        let (Some(now), Some(before)) = (self.now.get(&key), self.before.get(&key)) else { return Ok(()) };
        // Within one step the order of what was found out and what was sent is not known.
        match (now.judge(step.now, to, tried, forks), before.judge(step.now, to, tried, forks)) {
            (Err(reason), Err(_)) => Err(format!("call {call} goes to {to:?}: {reason}")),
            _ => Ok(()),
        }
    }
}

impl Seen {
    pub fn learn(&mut self, transport: Transport, address: SocketAddr, health: Health, epoch: u64) {
        let address = (transport, address);
        if self.gone.contains(&address) {
            return;
        }
        match health {
            Health::Up => {
                self.down.remove(&address);
                self.avoided.remove(&address);
            }
            Health::Down => {
                self.down.insert(address);
                self.avoided.remove(&address);
            }
            Health::AvoidUntil(until) => {
                if !self.down.contains(&address) {
                    self.avoided.insert(address, until.as_micros().saturating_sub(epoch));
                }
            }
        }
    }

    /// Another shard has heard it: that ends what is avoided, and not what is down.
    pub fn is_heard(&mut self, transport: Transport, address: SocketAddr) {
        self.avoided.remove(&(transport, address));
    }

    /// Servers of another configuration, and those that it has dropped.
    pub fn configure(&mut self, servers: BTreeMap<Address, (u16, bool)>, gone: BTreeSet<Address>) {
        self.servers = servers;
        self.down.retain(|address| !gone.contains(address));
        self.avoided.retain(|address, _| !gone.contains(address));
        self.gone = gone;
    }

    fn rank(&self, now: u64, address: &Address) -> Option<(bool, u16, bool)> {
        let (priority, has_weight) = *self.servers.get(address)?;
        let is_avoided = self.avoided.get(address).is_some_and(|until| *until > now);
        (!self.down.contains(address)).then_some((is_avoided, priority, !has_weight))
    }

    fn judge(&self, now: u64, to: Address, tried: &[SocketAddr], forks: bool) -> Result<(), String> {
        if !self.servers.contains_key(&to) {
            return Err(format!("it is none of {:?}", self.servers.keys().collect::<Vec<_>>()));
        }
        let Some(rank) = self.rank(now, &to) else { return Err("it is down".to_owned()) };
        let others = self.servers.keys().filter(|other| !tried.contains(&other.1));
        let best = others.filter_map(|other| Some((self.rank(now, other)?, *other))).min();
        match best {
            // A fork takes all of the best; those of a target that were not taken come after that.
            Some((best, other)) if best < rank && !forks => Err(format!("{other:?} ranks {best:?}, it {rank:?}")),
            _ => Ok(()),
        }
    }
}
