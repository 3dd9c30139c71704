//! Choice, signs and marks by hand; probes with an engine on virtual time.

mod calls;
mod checks;
mod choice;
mod probes;
mod signs;

use std::time::Duration;

use super::*;
use crate::config::{self, Config, Failover, Probe, Select};
use crate::engine::tests as bench;
use crate::engine::{Place, Query, call_hash};

const NOW: Time = Time::from_micros(1_800_000_000_000_000);

/// The destinations of one trunk, as one engine knows them.
struct Lot {
    setup: Setup,
    names: Names,
    destinations: Destinations,
    outbox: Outbox,
    now: Time,
}

impl Lot {
    fn new(select: Select, targets: &[(&str, u16, u16)]) -> Self {
        let setup = setup(trunk(select, targets));
        let mut names = Names::default();
        for query in setup.queries() {
            names.add_destination(query, NOW);
        }
        let mut destinations = Destinations::default();
        destinations.refresh(NOW, &setup, &names);
        Self { setup, names, destinations, outbox: Outbox::default(), now: NOW }
    }

    /// Name servers give these servers: priority, weight, last number of the address.
    fn resolve(&mut self, host: &str, servers: &[(u32, u16, u8)]) {
        let query = Query { host: host.into(), port: None, transport: None, secure: false };
        let servers: Vec<Server> = servers
            .iter()
            .map(|(priority, weight, last)| Server { priority: *priority, weight: *weight, ..server(*last) })
            .collect();
        self.names.handle_resolved(self.now, &query, &servers, Duration::from_secs(60));
        self.destinations.refresh(self.now, &self.setup, &self.names);
    }

    /// Another configuration is in force.
    fn reload(&mut self, select: Select, targets: &[(&str, u16, u16)]) {
        self.setup = setup(trunk(select, targets));
        self.names.release_destinations();
        for query in self.setup.queries() {
            self.names.add_destination(query, self.now);
        }
        self.destinations.refresh(self.now, &self.setup, &self.names);
    }

    fn choose(&mut self, call: &str, tried: &[u8]) -> Choice {
        let tried = |candidate: &Candidate| tried.iter().any(|last| candidate.server.address == server(*last).address);
        self.destinations.choose(self.now, &self.setup, &self.names, 1, call_hash(call.as_bytes()), tried)
    }

    /// The last number of the address that a call takes first.
    fn first(&mut self, call: &str) -> u8 {
        taken(self.choose(call, &[])).unwrap_or_else(|| panic!("nothing for {call}"))
    }

    /// The addresses that a call tries, one after the other, until everything is exhausted.
    fn tries(&mut self, call: &str) -> Vec<u8> {
        let mut tried = Vec::new();
        loop {
            match self.choose(call, &tried) {
                Choice::Take(candidate) => tried.push(last_of(&candidate)),
                Choice::Exhausted => return tried,
                Choice::Unavailable => panic!("unavailable after {tried:?}"),
            }
            assert!(tried.len() < 100, "no end: {tried:?}");
        }
    }

    /// How many of 10,000 calls each address gets.
    fn shares(&mut self) -> [u32; 256] {
        let mut shares = [0; 256];
        for call in calls() {
            shares[usize::from(self.first(&call))] += 1;
        }
        shares
    }

    fn answer(&mut self, last: u8, code: u16, retry_after: Option<u32>) {
        let Server { transport, address, .. } = server(last);
        self.destinations.note_answer(self.now, transport, address, code, retry_after, &mut self.outbox);
    }

    fn silence(&mut self, last: u8) {
        let Server { transport, address, .. } = server(last);
        self.destinations.note_silence(self.now, transport, address, &mut self.outbox);
    }

    fn failure(&mut self, last: u8) {
        let Server { transport, address, .. } = server(last);
        self.destinations.note_failure(self.now, transport, address, &mut self.outbox);
    }

    fn told(&mut self, last: u8, health: Health) {
        let Server { transport, address, .. } = server(last);
        self.destinations.handle_bulletin(self.now, &Bulletin { transport, address, health });
    }

    fn mark(&mut self, last: u8, mark: Mark) -> bool {
        let Server { transport, address, .. } = server(last);
        self.destinations.mark(transport, address, mark)
    }

    fn status(&self, last: u8) -> DestinationStatus {
        let list = self.destinations.list(&self.setup, &self.names);
        list.into_iter().find(|one| one.address == server(last).address).unwrap()
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.destinations.poll_timeout().filter(|at| *at <= until) {
            self.now = at;
            self.destinations.expire(at);
        }
        self.now = until;
    }
}

fn trunk(select: Select, targets: &[(&str, u16, u16)]) -> config::Trunk {
    let target = |(uri, priority, weight): &(&str, u16, u16)| config::Target {
        uri: (*uri).into(),
        priority: *priority,
        weight: *weight,
    };
    config::Trunk { targets: targets.iter().map(target).collect(), select, ..config::Trunk::new("destination") }
}

fn configuration(trunk: config::Trunk) -> Config {
    let mut config = bench::config();
    config.trunks[1] = trunk;
    config
}

fn place() -> Place {
    Place {
        ingress: "10.0.1.10:5060".parse().unwrap(),
        egress: "10.0.1.10:5080".parse().unwrap(),
        advertised: "203.0.113.10".into(),
        shards: 1,
    }
}

fn setup(trunk: config::Trunk) -> Setup {
    Setup::new(configuration(trunk), &place(), &bench::keys(&[1])).unwrap()
}

fn server(last: u8) -> Server {
    bench::server(&format!("198.51.100.{last}:5060"))
}

fn last_of(candidate: &Candidate) -> u8 {
    match candidate.server.address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(ip) => panic!("{ip}"),
    }
}

fn taken(choice: Choice) -> Option<u8> {
    match choice {
        Choice::Take(candidate) => Some(last_of(&candidate)),
        Choice::Exhausted | Choice::Unavailable => None,
    }
}

fn calls() -> impl Iterator<Item = String> {
    (0..10_000).map(|number| format!("{number}@192.0.2.1"))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Of `count` calls, as many as `share` says, within five standard deviations: wrong by chance once in a million draws.
fn is_share(got: u32, count: u32, share: f64) -> bool {
    let (count, got) = (f64::from(count), f64::from(got));
    (got - count * share).abs() <= 5.0 * (count * share * (1.0 - share)).sqrt()
}
