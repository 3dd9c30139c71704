//! What kind of world a seed makes: which faults, how many calls, which configuration.

use std::net::SocketAddr;

use sipedge_proxy::config::{
    Admin, Advertise, Budgets, Config, Dns, Drain, Limits, Listen, Refuse, Route, SecretRef, Secrets, Streams, Target,
    Timers, Trunk, VERSION,
};
use sipedge_proxy::engine::{TokenKey, TokenKeys};

use crate::plan::MS;
use crate::rng::Rng;

/// Address of the load balancer, which the edge advertises.
pub const EDGE: &str = "203.0.113.10:5060";
/// Address of the NAT gateway.
pub const NAT: &str = "203.0.113.20";
pub const TARGET_NAME: &str = "callee.example";

#[derive(Debug)]
pub struct Profile {
    pub calls: u64,
    pub callers: Vec<SocketAddr>,
    pub callees: Vec<SocketAddr>,
    /// Calls go to a host name, not to an address.
    pub by_name: bool,
    /// The load balancer keeps a source address with one instance; otherwise each of its ports has its own.
    pub by_address: bool,
    pub loses: u64,
    pub doubles: u64,
    pub delay: (u64, u64),
    pub faults: u64,
    pub crashes: bool,
    pub strangers: u64,
    pub limits: Limits,
    pub refuse: Refuse,
}

impl Profile {
    /// Of four seeds one has a clean network, one a bad network, one dying instances, one both.
    pub fn random(seed: u64, rng: &mut Rng) -> Self {
        let (bad, crashes) = (seed % 4 == 1 || seed % 4 == 3, seed % 4 >= 2);
        let is_clean = !bad && !crashes;
        // The carrier that calls may be the one that is called.
        let called = if rng.chance(25) { "192.0.2" } else { "198.51.100" };
        let agents = |prefix: &str, from: u64, count: u64| -> Vec<SocketAddr> {
            (from..from + count).map(|host| format!("{prefix}.{host}:5060").parse().expect("an address")).collect()
        };
        let by_name = rng.chance(60);
        let callees = agents(called, 4, if by_name { rng.range(1, 4) } else { 1 });
        let limits = match rng.range(0, 4) {
            0 => Limits { cps: None, calls: Some(1_000) },
            1 if !is_clean => Limits { cps: Some(1), calls: None },
            2 if !is_clean => Limits { cps: Some(3), calls: Some(3) },
            _ => Limits::default(),
        };
        let slowest = rng.range(30, 1_200) * MS;
        Self {
            calls: rng.range(3, 10),
            callers: agents("192.0.2", 1, rng.range(1, 4)),
            callees,
            by_name,
            by_address: rng.chance(50),
            loses: if bad { rng.range(0, 25) } else { 0 },
            doubles: if bad { rng.range(0, 20) } else { 0 },
            delay: if bad { (5 * MS, slowest) } else { (20 * MS, 20 * MS) },
            faults: rng.range(0, 3),
            crashes,
            strangers: rng.range(0, 30),
            limits,
            refuse: if rng.chance(50) { Refuse::Answer } else { Refuse::Silence },
        }
    }

    /// Nothing is lost, nothing dies, nothing is limited: every call becomes what was wanted.
    pub fn is_clean(&self) -> bool {
        self.delay.0 == self.delay.1 && !self.crashes
    }

    /// Instances die, but the network is good: what is up stays up.
    pub fn only_crashes(&self) -> bool {
        self.delay.0 == self.delay.1 && self.crashes
    }

    pub fn target_host(&self) -> String {
        if self.by_name { TARGET_NAME.to_owned() } else { self.callees[0].to_string() }
    }
}

pub fn config(profile: &Profile) -> Config {
    let callers = "192.0.2.0/24".parse().expect("a range");
    Config {
        version: VERSION,
        edge: "simulated".into(),
        listen: Listen::udp(5060, 5080),
        advertise: Advertise::Host("203.0.113.10".into()),
        admin: Admin { port: 8080 },
        dns: Dns { servers: vec![] },
        secrets: Secrets { token_keys: SecretRef::File("keys".into()) },
        trunks: vec![
            Trunk { from: vec![callers], limits: profile.limits, ..Trunk::new("source") },
            Trunk { targets: vec![Target::new(format!("sip:{}", profile.target_host()))], ..Trunk::new("destination") },
        ],
        routes: vec![Route { from: "source".into(), to: "destination".into() }],
        refuse: profile.refuse,
        timers: Timers {
            t1_ms: 500,
            t2_ms: 4_000,
            t4_ms: 5_000,
            response_ms: 5_000,
            invite_ms: 30_000,
            call_ms: 60_000,
        },
        budgets: Budgets { transactions: 10_000, message_bytes: 16 << 20, counted_calls: 1_000 },
        streams: Streams::default(),
        drain: Drain { accept_ms: 1_000, grace_ms: 5_000, retry_after_s: 10 },
    }
}

pub fn keys() -> TokenKeys {
    TokenKeys { branch: "b".repeat(64), tokens: vec![TokenKey { id: 1, key: "1".repeat(64) }] }
}
