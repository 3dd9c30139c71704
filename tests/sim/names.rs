//! What the name servers say: servers of the destinations' names, which change, and addresses of the hosts in Contacts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use sipedge_proxy::engine::{Query, Server, Transport};

use crate::plan::{MS, SECOND};
use crate::profile::{Callee, Profile};
use crate::rng::Rng;
use crate::wire::ip_of;

#[derive(Debug, Default)]
pub struct Names {
    zone: BTreeMap<String, Vec<Server>>,
    /// They answer with nothing, as long as they are dead.
    is_dead: bool,
    is_slow: bool,
}

/// What happens to the name servers.
#[derive(Debug, Clone)]
pub enum NameEvent {
    /// They say nothing, or something again.
    Dead(bool),
    /// They answer late, or in time again.
    Slow(bool),
    /// A name has some of its servers, seen from the first bits.
    Change(usize, u64),
}

impl Names {
    pub fn new(profile: &Profile) -> Self {
        let mut names = Self::default();
        for target in 0..profile.targets.len() {
            names.change(profile, target, u64::MAX);
        }
        names
    }

    pub fn happen(&mut self, profile: &Profile, event: &NameEvent) {
        match *event {
            NameEvent::Dead(is_dead) => self.is_dead = is_dead,
            NameEvent::Slow(is_slow) => self.is_slow = is_slow,
            NameEvent::Change(target, bits) => self.change(profile, target, bits),
        }
    }

    fn change(&mut self, profile: &Profile, target: usize, bits: u64) {
        let Some(name) = profile.targets.get(target).and_then(|target| target.name.clone()) else { return };
        let of_target = profile.callees.iter().filter(|callee| callee.target == target);
        let some = of_target.enumerate().filter(|(place, _)| bits >> place & 1 == 1);
        let servers: Vec<Server> = some.map(|(_, callee): (_, &Callee)| callee.server).collect();
        self.zone.insert(name, servers);
    }

    /// Servers and time to live of a name.
    pub fn answer(&self, query: &Query, rng: &mut Rng) -> (Vec<Server>, Duration) {
        let ttl = Duration::from_secs(*rng.pick(&[5, 10, 60]));
        if self.is_dead {
            return (Vec::new(), ttl);
        }
        if let Some(ip) = ip_of(&query.host) {
            let transport = query.transport.unwrap_or(Transport::Udp);
            let address = SocketAddr::new(ip, query.port.unwrap_or(transport.default_port()));
            return (vec![Server { priority: 0, weight: 1, transport, address }], ttl);
        }
        (self.zone.get(&query.host).cloned().unwrap_or_default(), ttl)
    }

    pub fn delay(&self, rng: &mut Rng) -> u64 {
        if self.is_slow { rng.range(1_000, 9_000) * MS } else { rng.range(1, 80) * MS }
    }
}

/// Faults of the name servers over the first half minute.
pub fn faults(profile: &Profile, rng: &mut Rng) -> Vec<(u64, NameEvent)> {
    let mut events = Vec::new();
    for _ in 0..profile.dns_faults {
        let at = rng.range(0, 30) * SECOND;
        let back = at + rng.range(1, 20) * SECOND;
        match rng.range(0, 3) {
            0 => events.extend([(at, NameEvent::Dead(true)), (back, NameEvent::Dead(false))]),
            1 => events.extend([(at, NameEvent::Slow(true)), (back, NameEvent::Slow(false))]),
            _ => {
                let target = rng.range(0, profile.targets.len() as u64) as usize;
                events.push((at, NameEvent::Change(target, rng.next())));
                events.push((back, NameEvent::Change(target, u64::MAX)));
            }
        }
    }
    events
}
