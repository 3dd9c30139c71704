//! The configuration of each instance.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use sipedge_proxy::config::{
    Admin, Advertise, Budgets, Config, Dns, Drain, Limits, Listen, Refuse, Route, SecretRef, Secrets, Streams,
    Target as ProxyTarget, Timers, Trunk, VERSION,
};

use super::carriers::{used_address, used_ranges};
use super::network::{ADMIN_PORT, drain};
use super::{Carrier, INGRESS_ADDRESS, TargetKind, Topology};
use crate::spec::{Refuse as SpecRefuse, Spec, Target};

/// Amazon's resolver at its link-local address, valid in every VPC (Amazon VPC User Guide, "DNS attributes for your VPC").
const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 253)), 53);

/// File with the token keys in the lab's secrets folder.
const TOKEN_KEYS_FILE: &str = "token-keys.json";

/// A call has two transactions for its INVITE, up to a minute, and two for its BYE, 32 s: 188 transaction seconds. 200,000 carry a
/// thousand calls per second, over thirty times what a t3.small does, and at well under 1 KiB each they fit its 2 GiB beside the messages.
const TRANSACTIONS: u32 = 200_000;

/// Messages kept for retransmission: with 200,000 transactions 2.6 KB each, twice the usual INVITE.
const MESSAGE_BYTES: u64 = 512 * 1024 * 1024;

/// Calls that limits count: what 25 calls per second of 1 h each come to, at some 100 bytes each.
const COUNTED_CALLS: u32 = 100_000;

/// Seconds after which a caller that got 503 from a leaving instance may come back: it reaches another one at once.
const RETRY_AFTER_S: u32 = 5;

/// The configuration of each instance of `spec`.
pub(super) fn config(spec: &Spec, topology: Topology, target: TargetKind, carriers: &[Carrier]) -> Config {
    let single = topology == Topology::SingleEc2;
    let (accept, grace) = drain(spec, topology, target);
    Config {
        version: VERSION,
        edge: spec.name.clone(),
        listen: Listen {
            address: None,
            ingress_port: spec.listen.port,
            egress_port: if single { spec.listen.port } else { spec.egress.port },
            shards: 0,
            tcp: false,
            tls: None,
        },
        advertise: match (topology, target, &spec.load_balancer.advertise) {
            (Topology::SingleEc2, ..) => Advertise::Metadata,
            (Topology::LoadBalanced, TargetKind::Aws, Some(name)) => Advertise::Host(name.to_ascii_lowercase()),
            (Topology::LoadBalanced, ..) => Advertise::Host(INGRESS_ADDRESS.into()),
        },
        admin: Admin { port: ADMIN_PORT },
        dns: Dns { servers: vec![RESOLVER] },
        secrets: Secrets {
            token_keys: match target {
                TargetKind::Lab => SecretRef::File(TOKEN_KEYS_FILE.into()),
                TargetKind::Aws => SecretRef::Ssm(format!("/sipedge/{}/token-keys", spec.name)),
            },
        },
        trunks: trunks(spec, carriers),
        routes: spec.routes.iter().map(|route| Route { from: route.from.clone(), to: route.to.clone() }).collect(),
        refuse: match spec.refuse {
            SpecRefuse::Answer => Refuse::Answer,
            SpecRefuse::Silence => Refuse::Silence,
        },
        timers: Timers {
            t1_ms: spec.timers.t1.as_millis(),
            t2_ms: spec.timers.t2.as_millis(),
            t4_ms: spec.timers.t4.as_millis(),
            response_ms: spec.timers.response.as_millis(),
            invite_ms: spec.timers.invite.as_millis(),
            call_ms: spec.timers.call.as_millis(),
        },
        budgets: Budgets { transactions: TRANSACTIONS, message_bytes: MESSAGE_BYTES, counted_calls: COUNTED_CALLS },
        streams: Streams::default(),
        drain: Drain { accept_ms: accept.as_millis(), grace_ms: grace.as_millis(), retry_after_s: RETRY_AFTER_S },
    }
}

/// The trunks. A range belongs to one trunk alone: to the one that routes lead from, if trunks share it.
fn trunks(spec: &Spec, carriers: &[Carrier]) -> Vec<Trunk> {
    let mut claimed: Vec<IpNet> = Vec::new();
    let (sources, others): (Vec<_>, Vec<_>) = spec.trunks.iter().partition(|(name, _)| spec.is_source(name));
    let mut trunks: Vec<Trunk> = Vec::new();
    for (name, trunk) in sources.into_iter().chain(others) {
        let mut from = used_ranges(carriers, &trunk.ranges());
        from.retain(|range| !claimed.contains(range));
        claimed.extend(&from);
        trunks.push(Trunk {
            from,
            targets: match spec.is_destination(name) {
                true => {
                    let used = |target| ProxyTarget::new(used_target(carriers, target).to_string());
                    trunk.destinations().iter().map(used).collect()
                }
                false => Vec::new(),
            },
            limits: Limits { cps: trunk.limits.cps, calls: trunk.limits.calls },
            ..Trunk::new(name.clone())
        });
    }
    trunks.sort_by(|a, b| a.name.cmp(&b.name));
    trunks
}

/// `target` with its address, if it has one, as this plan uses it.
pub(super) fn used_target(carriers: &[Carrier], target: &Target) -> Target {
    match target.address() {
        Some(address) => Target { host: used_address(carriers, address).to_string(), port: target.port },
        None => target.clone(),
    }
}
