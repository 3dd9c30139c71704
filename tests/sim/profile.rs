//! What kind of world a seed makes: which faults, how many calls, which destinations.

use std::net::SocketAddr;

use sipedge_proxy::config::{Limits, Refuse, Select};
use sipedge_proxy::engine::{Server, Transport};

use crate::plan::MS;
use crate::rng::Rng;

/// Address of the load balancer, which the edge advertises.
pub const EDGE: &str = "203.0.113.10:5060";
/// The same for TLS.
pub const EDGE_TLS_PORT: u16 = 5061;
/// Address of the NAT gateway.
pub const NAT: &str = "203.0.113.20";

#[derive(Debug)]
pub struct Profile {
    pub calls: u64,
    pub callers: Vec<SocketAddr>,
    pub callees: Vec<Callee>,
    /// Targets of the trunk that is called, in the order of the configuration.
    pub targets: Vec<TargetPlan>,
    pub select: Select,
    pub failover: Vec<u16>,
    pub attempts: u8,
    pub probes: bool,
    /// Some callers use TCP or TLS.
    pub streams: bool,
    /// Percent of the Contacts that are host names.
    pub named_contacts: u64,
    pub shards: usize,
    /// The load balancer keeps a source address with one instance; otherwise each of its ports has its own.
    pub by_address: bool,
    /// How long a message takes from the shard that received it to the shard that owns its call.
    pub hand_over: u64,
    pub loses: u64,
    pub doubles: u64,
    pub delay: (u64, u64),
    pub faults: u64,
    pub crashes: bool,
    /// Destinations that die and come back.
    pub deaths: u64,
    /// Connections that break or fall silent.
    pub breaks: u64,
    /// Changes of what the name servers say.
    pub dns_faults: u64,
    /// Instances that stand still for a while.
    pub stalls: u64,
    pub reloads: u64,
    pub rotates: bool,
    /// Percent of the inputs that bear a moment before that of the last one.
    pub backward: u64,
    pub strangers: u64,
    pub limits: Limits,
    pub refuse: Refuse,
}

/// A user agent that is called.
#[derive(Debug, Clone)]
pub struct Callee {
    pub address: SocketAddr,
    /// Place of the target that leads to it.
    pub target: usize,
    pub server: Server,
}

#[derive(Debug, Clone)]
pub struct TargetPlan {
    pub uri: String,
    /// What the Request-URI gets.
    pub host_port: String,
    /// The name, when it is one.
    pub name: Option<String>,
    pub priority: u16,
    pub weight: u16,
}

impl Profile {
    /// Of eight seeds one is clean, one has a good network with bad peers, two have a bad network, two dying instances, two both.
    pub fn random(seed: u64, rng: &mut Rng) -> Self {
        let (bad, crashes) = (seed % 4 == 1 || seed % 4 == 3, seed % 4 >= 2);
        let is_clean = seed.is_multiple_of(8);
        let troubles = |rng: &mut Rng, most: u64| if is_clean || rng.chance(50) { 0 } else { rng.range(1, most + 1) };
        // The carrier that calls may be the one that is called.
        let called = if rng.chance(25) { "192.0.2" } else { "198.51.100" };
        let callers = rng.range(1, 4);
        let callers = (1..=callers).map(|host| format!("192.0.2.{host}:5060").parse().expect("an address")).collect();
        let streams = rng.chance(40);
        let (callees, targets) = destinations(rng, called, streams);
        let limits = match rng.range(0, 5) {
            0 => Limits { cps: None, calls: Some(1_000) },
            1 if !is_clean => Limits { cps: Some(1), calls: None },
            2 if !is_clean => Limits { cps: Some(3), calls: Some(3) },
            _ => Limits::default(),
        };
        let slowest = rng.range(30, 1_200) * MS;
        let mut failover: Vec<u16> = [503, 500, 480, 404].into_iter().filter(|_| rng.chance(40)).collect();
        if rng.chance(60) && !failover.contains(&503) {
            failover.push(503);
        }
        let select = *rng.pick(&[Select::Weight, Select::Weight, Select::RoundRobin, Select::CallId, Select::All]);
        Self {
            calls: rng.range(3, 10),
            callers,
            callees,
            targets,
            select,
            failover,
            attempts: rng.range(1, 5) as u8,
            probes: rng.chance(35),
            streams,
            named_contacts: if rng.chance(30) { 50 } else { 0 },
            shards: *rng.pick(&[1, 1, 2, 3]),
            by_address: rng.chance(50),
            hand_over: rng.range(0, 5) * MS,
            loses: if bad { rng.range(0, 25) } else { 0 },
            doubles: if bad { rng.range(0, 20) } else { 0 },
            delay: if bad { (5 * MS, slowest) } else { (20 * MS, 20 * MS) },
            faults: rng.range(0, 3),
            crashes,
            deaths: troubles(rng, 4),
            breaks: troubles(rng, 5),
            dns_faults: troubles(rng, 4),
            stalls: troubles(rng, 2),
            reloads: if rng.chance(40) { rng.range(1, 4) } else { 0 },
            rotates: rng.chance(30),
            backward: if rng.chance(15) { rng.range(1, 30) } else { 0 },
            strangers: rng.range(0, 30),
            limits,
            refuse: if rng.chance(50) { Refuse::Answer } else { Refuse::Silence },
        }
    }

    /// Nothing is lost, nobody dies, nothing is limited: every call becomes what was wanted.
    pub fn is_clean(&self) -> bool {
        let troubles = self.deaths + self.breaks + self.dns_faults + self.stalls;
        self.is_quiet() && troubles == 0 && self.limits.cps.is_none()
    }

    /// Nothing is lost and no instance dies; what peers and name servers do is another matter.
    pub fn is_quiet(&self) -> bool {
        self.delay.0 == self.delay.1 && !self.crashes
    }

    /// Instances die, but the network and the peers are good: what is up stays up.
    pub fn only_crashes(&self) -> bool {
        self.delay.0 == self.delay.1 && self.crashes && self.deaths + self.breaks + self.dns_faults + self.stalls == 0
    }
}

/// One to four user agents, behind addresses or names.
fn destinations(rng: &mut Rng, network: &str, streams: bool) -> (Vec<Callee>, Vec<TargetPlan>) {
    let count = if rng.chance(35) { 1 } else { rng.range(2, 5) };
    let mut targets: Vec<TargetPlan> = Vec::new();
    let mut callees = Vec::new();
    for host in 0..count {
        let address: SocketAddr = format!("{network}.{}:5060", 4 + host).parse().expect("an address");
        let transport = match streams {
            true => *rng.pick(&[Transport::Udp, Transport::Tcp, Transport::Tcp, Transport::Tls]),
            false => Transport::Udp,
        };
        let shares = targets.last().is_some_and(|last| last.name.is_some()) && rng.chance(60);
        if !shares {
            let (priority, weight) = (rng.range(0, 2) as u16, *rng.pick(&[1, 1, 2, 5, 0]));
            let suffix = if transport == Transport::Udp { "" } else { transport_suffix(transport) };
            let name = rng.chance(40).then(|| format!("callee{}.example", targets.len()));
            // A name's servers have transports of their own.
            let host_port = name.clone().unwrap_or_else(|| format!("{address}{suffix}"));
            targets.push(TargetPlan { uri: format!("sip:{host_port}"), host_port, name, priority, weight });
        }
        let server = Server { priority: rng.range(0, 2) as u32, weight: rng.range(0, 4) as u16, transport, address };
        callees.push(Callee { address, target: targets.len() - 1, server });
    }
    (callees, targets)
}

pub fn transport_suffix(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "",
        Transport::Tcp => ";transport=tcp",
        Transport::Tls => ";transport=tls",
    }
}

/// The address of this edge for a transport, as peers know it.
pub fn edge(transport: Transport) -> SocketAddr {
    let mut edge: SocketAddr = EDGE.parse().expect("an address");
    if transport == Transport::Tls {
        edge.set_port(EDGE_TLS_PORT);
    }
    edge
}
