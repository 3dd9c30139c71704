//! The configurations of the simulated edge: one for each reload, one set of keys for each step of a rotation.

use std::sync::Arc;

use sipedge_proxy::config::{
    Admin, Advertise, Budgets, Config, Dns, Drain, Failover, Listen, Probe, Route, SecretRef, Secrets, Streams, Target,
    Timers, TlsListener, Trunk, VERSION,
};
use sipedge_proxy::engine::{Place, Setup, TokenKey, TokenKeys};

use crate::profile::{EDGE_TLS_PORT, Profile, edge};
use sipedge_proxy::engine::Transport;

/// What a reload may change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Version {
    /// Trunks in the other order.
    pub turned: bool,
    /// Place of a target that is left out.
    pub without: Option<usize>,
    /// Step of the rotation: old key, old and new, new and old, new.
    pub keys: u8,
}

/// Interval and patience of probes, in milliseconds.
pub const PROBE_MS: (u32, u32) = (4_000, 2_000);

pub fn setup(profile: &Profile, version: &Version, index: usize) -> Arc<Setup> {
    let ip = format!("10.0.{index}.10");
    let place = Place {
        ingress: format!("{ip}:5060").parse().expect("an address"),
        egress: format!("{ip}:5080").parse().expect("an address"),
        advertised: edge(Transport::Udp).ip().to_string(),
        shards: profile.shards,
    };
    Arc::new(Setup::new(config(profile, version), &place, &keys(version.keys)).expect("a good configuration"))
}

fn config(profile: &Profile, version: &Version) -> Config {
    let callers = "192.0.2.0/24".parse().expect("a range");
    let targets = profile.targets.iter().enumerate().filter(|(place, _)| Some(*place) != version.without);
    let targets = targets
        .map(|(_, target)| Target { uri: target.uri.clone(), priority: target.priority, weight: target.weight })
        .collect();
    let mut trunks = vec![
        Trunk { from: vec![callers], limits: profile.limits, ..Trunk::new("source") },
        Trunk {
            targets,
            select: profile.select,
            failover: Failover { codes: profile.failover.clone(), attempts: profile.attempts },
            probe: profile.probes.then(|| Probe {
                interval_ms: PROBE_MS.0,
                timeout_ms: PROBE_MS.1,
                ..Probe::default()
            }),
            ..Trunk::new("destination")
        },
    ];
    if version.turned {
        trunks.reverse();
    }
    let certificate = SecretRef::File("certificate".into());
    let tls = TlsListener { port: EDGE_TLS_PORT, certificate, client_roots: None, require_client: false };
    Config {
        version: VERSION,
        edge: "simulated".into(),
        listen: Listen { tcp: true, tls: Some(tls), ..Listen::udp(5060, 5080) },
        advertise: Advertise::Host("203.0.113.10".into()),
        admin: Admin { port: 8080 },
        dns: Dns { servers: vec![] },
        secrets: Secrets::new(SecretRef::File("keys".into())),
        trunks,
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
        cloud: None,
        answerer: None,
    }
}

fn keys(step: u8) -> TokenKeys {
    let key = |id: u8| TokenKey { id, key: id.to_string().repeat(64) };
    let tokens = match step {
        0 => vec![key(1)],
        1 => vec![key(1), key(2)],
        2 => vec![key(2), key(1)],
        _ => vec![key(2)],
    };
    TokenKeys { branch: "b".repeat(64), tokens }
}
