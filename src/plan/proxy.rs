//! The configuration of each instance.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use sipedge_proxy::config::{
    self, Admin, Advertise, Budgets, Config, Dns, Drain, Limits, Listen, Refuse, Route, SecretRef, Secrets, Streams,
    Timers, TlsListener, Trunk, VERSION,
};

use super::carriers::{used_address, used_ranges};
use super::cloud::{named, parameter_prefix, resource_name};
use super::network::drain;
use super::{Carrier, Certificate, ELASTIC_IP_ALLOCATION, INGRESS_ADDRESS, LAB_ROOTS, TargetKind, Topology};
use crate::spec::{
    ADMIN_PORT, Probe, ProbeFigures, Refuse as SpecRefuse, Select, Spec, Target, Trunk as SpecTrunk, Trust,
};

/// Amazon's resolver at its link-local address, valid in every VPC (Amazon VPC User Guide, "DNS attributes for your VPC").
const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 253)), 53);

/// File with the token keys in the lab's secrets folder.
const TOKEN_KEYS_FILE: &str = "token-keys.json";

/// User of the answerer: whoever finds it in a packet knows what it is.
const ANSWERER_USER: &str = "sipedge-verify";

/// File with the answerer's password in the lab's secrets folder.
pub(crate) const ANSWERER_FILE: &str = "answerer";

/// A call has two transactions for its INVITE, up to a minute, and two for its BYE, 32 s: 188 transaction seconds. 200,000 carry a
/// thousand calls per second, over thirty times what a t3.small does, and at well under 1 KiB each they fit its 2 GiB beside the messages.
const TRANSACTIONS: u32 = 200_000;

/// Messages kept for retransmission: with 200,000 transactions 2.6 KB each, twice the usual INVITE.
const MESSAGE_BYTES: u64 = 512 * 1024 * 1024;

/// Calls that limits count: what 25 calls per second of 1 h each come to, at some 100 bytes each.
const COUNTED_CALLS: u32 = 100_000;

/// Seconds after which a caller that got 503 from a leaving instance may come back: it reaches another one at once.
const RETRY_AFTER_S: u32 = 5;

/// Seconds between two looks of an instance at its secrets. Ten instances with three parameters ask half a time per second; Parameter Store
/// answers 40 times (AWS General Reference, "Systems Manager endpoints and quotas").
const SECRETS_POLL_S: u32 = 60;

/// In the lab they are files, and nobody wants to wait.
const LAB_SECRETS_POLL_S: u32 = 1;

/// Milliseconds between two looks of an instance at whether its group terminates it: the drain begins so much later at most.
const LIFECYCLE_POLL_MS: u32 = 5_000;

/// The lab's time runs faster.
const LAB_LIFECYCLE_POLL_MS: u32 = 200;

/// The group's hooks, as `terraform/` names them.
const READY_HOOK: &str = "ready";
const DRAIN_HOOK: &str = "drain";

/// The configuration of each instance of `spec`.
pub(super) fn config(spec: &Spec, topology: Topology, target: TargetKind, carriers: &[Carrier]) -> Config {
    let single = topology == Topology::SingleEc2;
    let (accept, grace) = drain(spec, topology, target);
    let place = Secrecy::new(spec, topology, target);
    Config {
        version: VERSION,
        edge: spec.name.clone(),
        listen: Listen {
            address: None,
            ingress_port: spec.listen.port,
            egress_port: if single { spec.listen.port } else { spec.egress.port },
            shards: 0,
            tcp: spec.listen.tcp,
            tls: spec.listen.tls.as_ref().map(|tls| TlsListener {
                port: tls.port,
                certificate: place.certificate(&tls.certificate),
                client_roots: match (&tls.client_roots, target) {
                    (Some(roots), _) => Some(place.certificate(roots)),
                    (None, TargetKind::Lab) => Some(SecretRef::File(LAB_ROOTS.into())),
                    (None, TargetKind::Aws) => None,
                },
                require_client: tls.require_client,
            }),
        },
        advertise: match (topology, target, advertised_name(spec)) {
            (Topology::SingleEc2, TargetKind::Lab, _) => Advertise::Metadata,
            (Topology::LoadBalanced, TargetKind::Aws, Some(name)) => Advertise::Host(name),
            _ => Advertise::Host(INGRESS_ADDRESS.into()),
        },
        admin: Admin { port: ADMIN_PORT },
        dns: Dns { servers: vec![RESOLVER] },
        secrets: Secrets {
            token_keys: place.token_keys(),
            poll_s: match target {
                TargetKind::Lab => LAB_SECRETS_POLL_S,
                TargetKind::Aws => SECRETS_POLL_S,
            },
            endpoint: None,
        },
        trunks: trunks(spec, &place, carriers),
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
        streams: Streams { above_bytes: spec.listen.tcp_above, ..Streams::default() },
        drain: Drain { accept_ms: accept.as_millis(), grace_ms: grace.as_millis(), retry_after_s: RETRY_AFTER_S },
        answerer: spec.verify.answerer.then(|| config::Answerer {
            user: ANSWERER_USER.into(),
            password: match target {
                TargetKind::Lab => SecretRef::File(ANSWERER_FILE.into()),
                TargetKind::Aws => SecretRef::Ssm(format!("/sipedge/{}/{topology}/answerer", spec.name)),
            },
        }),
        cloud: Some(cloud(spec, topology, target)),
    }
}

/// What each instance does in its group.
fn cloud(spec: &Spec, topology: Topology, target: TargetKind) -> config::Cloud {
    let region = spec.aws.region.clone();
    match target {
        // The lab's group has no hooks, and moves the Elastic IP itself.
        TargetKind::Lab => config::Cloud {
            region,
            group: None,
            ready_hook: None,
            drain_hook: None,
            elastic_ip: None,
            lifecycle_poll_ms: LAB_LIFECYCLE_POLL_MS,
        },
        TargetKind::Aws => config::Cloud {
            region,
            group: Some(resource_name(&spec.name, topology)),
            ready_hook: Some(READY_HOOK.into()),
            drain_hook: Some(DRAIN_HOOK.into()),
            elastic_ip: (topology == Topology::SingleEc2).then(|| ELASTIC_IP_ALLOCATION.into()),
            lifecycle_poll_ms: LIFECYCLE_POLL_MS,
        },
    }
}

/// The name that peers are told in place of the ingress address: `load_balancer.advertise`, else that of `dns`.
pub(super) fn advertised_name(spec: &Spec) -> Option<String> {
    let of_dns = spec.dns.as_ref().filter(|dns| named(dns.topology) == Topology::LoadBalanced).map(|dns| &dns.name);
    spec.load_balancer.advertise.as_ref().or(of_dns).map(|name| name.to_ascii_lowercase())
}

/// Where the secrets of a topology are.
struct Secrecy {
    target: TargetKind,
    prefix: String,
}

impl Secrecy {
    fn new(spec: &Spec, topology: Topology, target: TargetKind) -> Self {
        Self { target, prefix: parameter_prefix(&spec.name, topology) }
    }

    /// Where the certificate of this name is.
    fn certificate(&self, name: &str) -> SecretRef {
        match self.target {
            TargetKind::Lab => SecretRef::File(format!("certificate-{name}.pem")),
            TargetKind::Aws => SecretRef::Ssm(format!("{}/certificates/{name}", self.prefix)),
        }
    }

    fn token_keys(&self) -> SecretRef {
        match self.target {
            TargetKind::Lab => SecretRef::File(TOKEN_KEYS_FILE.into()),
            TargetKind::Aws => SecretRef::Ssm(format!("{}/token-keys", self.prefix)),
        }
    }
}

/// The certificates that `spec` names, with where they go.
pub(super) fn certificates(spec: &Spec, topology: Topology, target: TargetKind) -> Vec<Certificate> {
    let place = Secrecy::new(spec, topology, target);
    let mut shown: Vec<&String> = spec.listen.tls.iter().map(|tls| &tls.certificate).collect();
    let of_trunks = spec.trunks.values().filter_map(|trunk| trunk.tls.as_ref());
    shown.extend(of_trunks.clone().filter_map(|tls| tls.certificate.as_ref()));
    let roots = spec.listen.tls.iter().filter_map(|tls| tls.client_roots.as_ref());
    let roots: Vec<&String> = roots.chain(of_trunks.filter_map(|tls| tls.roots.as_ref())).collect();
    spec.certificates
        .iter()
        .filter(|(name, _)| shown.contains(name) || roots.contains(name))
        .map(|(name, settings)| Certificate {
            name: name.clone(),
            file: settings.file.clone(),
            place: place.certificate(name),
            has_key: shown.contains(&name),
        })
        .collect()
}

/// The trunks. A range belongs to one trunk alone: to the one that routes lead from, if trunks share it.
fn trunks(spec: &Spec, place: &Secrecy, carriers: &[Carrier]) -> Vec<Trunk> {
    let mut claimed: Vec<IpNet> = Vec::new();
    let (sources, others): (Vec<_>, Vec<_>) = spec.trunks.iter().partition(|(name, _)| spec.is_source(name));
    let mut trunks: Vec<Trunk> = Vec::new();
    for (name, trunk) in sources.into_iter().chain(others) {
        let mut from = used_ranges(carriers, &trunk.ranges());
        from.retain(|range| !claimed.contains(range));
        claimed.extend(&from);
        let trust = trunk.trusted_for();
        let known = Trunk {
            from,
            trust: config::Trust {
                identity: trust.contains(&Trust::Identity),
                internal_headers: trust.contains(&Trust::InternalHeaders),
            },
            limits: Limits { cps: trunk.limits.cps, calls: trunk.limits.calls },
            ..Trunk::new(name.clone())
        };
        trunks.push(if spec.is_destination(name) { destination(place, carriers, trunk, known) } else { known });
    }
    trunks.sort_by(|a, b| a.name.cmp(&b.name));
    trunks
}

/// `known` with what calls to the trunk need.
fn destination(place: &Secrecy, carriers: &[Carrier], trunk: &SpecTrunk, known: Trunk) -> Trunk {
    let secret = |name: &String| place.certificate(name);
    Trunk {
        targets: trunk
            .destinations()
            .into_iter()
            .map(|placed| config::Target {
                uri: used_target(carriers, &placed.uri).to_string(),
                priority: placed.priority,
                weight: placed.weight,
            })
            .collect(),
        select: match trunk.select {
            Select::Weight => config::Select::Weight,
            Select::CallId => config::Select::CallId,
            Select::RoundRobin => config::Select::RoundRobin,
            Select::All => config::Select::All,
        },
        failover: config::Failover { codes: trunk.failover.codes.clone(), attempts: trunk.failover.attempts },
        probe: probe(trunk, place.target).map(|figures| config::Probe {
            interval_ms: figures.interval.as_millis(),
            timeout_ms: figures.timeout.as_millis(),
            down_after: figures.down_after,
            up_after: figures.up_after,
            codes: figures.codes.unwrap_or_default(),
            ..config::Probe::default()
        }),
        tls: trunk.tls.as_ref().map(|tls| config::TrunkTls {
            certificate: tls.certificate.as_ref().map(secret),
            roots: tls.roots.as_ref().map(secret),
        }),
        ..known
    }
}

/// How the destinations of `trunk` are probed, if they are.
///
/// Left to itself, a pool is probed, since there is another target that can take its calls. Not so in the lab: nobody stands at its
/// carriers' addresses between verified calls.
pub(super) fn probe(trunk: &SpecTrunk, target: TargetKind) -> Option<ProbeFigures> {
    match &trunk.probe {
        Some(Probe::Figures(figures)) => Some(figures.clone()),
        Some(Probe::Switch(true)) => Some(ProbeFigures::default()),
        Some(Probe::Switch(false)) => None,
        None => (target == TargetKind::Aws && trunk.destinations().len() > 1).then(ProbeFigures::default),
    }
}

/// `target` with its address, if it has one, as this plan uses it.
pub(super) fn used_target(carriers: &[Carrier], target: &Target) -> Target {
    match target.address() {
        Some(address) => Target { host: used_address(carriers, address).to_string(), ..target.clone() },
        None => target.clone(),
    }
}
