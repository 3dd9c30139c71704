//! VPC, zones, load balancer; what is defaulted, and where the lab differs.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use sipedge_proxy::config::{Advertise, SecretRef};

use super::{FlowTimeouts, HealthCheck, Listener, Network, Plan, Protocol, Spreading, TargetKind, Topology, Zone};
use crate::spec::{ADMIN_PORT, Duration, LAST_ZONE, Spec, Spreading as SpecSpreading};

/// The VPC: the edge is alone in it, so any private range will do.
const VPC: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16);

/// The lab's Elastic IPs, from the documentation range that stands in for AWS's addresses (RFC 5737).
const LAB_INGRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
const LAB_NAT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 20));
const LAB_SINGLE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 30));

/// Milliseconds between health checks: 30 s is the NLB's default.
const AWS_CHECK_MS: u32 = 30_000;

/// In the lab a check costs nothing, and a deploy should take seconds.
const LAB_CHECK_MS: u32 = 200;

/// Idle timeouts in seconds: connection tracking of an instance's network interface before a reply; UDP through an NLB; NAT gateway; TCP
/// through either (Amazon EC2, Elastic Load Balancing and VPC user guides, 2026-11).
const FLOW_TIMEOUTS: FlowTimeouts = FlowTimeouts { unreplied_s: 30, replied_s: 120, nat_s: 350, tcp_s: 350 };

/// New calls are taken for this long by an instance that leaves. A carrier's flow is busy all day: new calls come on it until the target
/// is deregistered, three minutes of delay and the two that deregistering takes in practice (`cloud::DEREGISTERING_S`).
const AWS_ACCEPT: Duration = Duration::from_secs(300);

/// Longer calls go on through the other instances; what is in progress on this one has 15 minutes.
const AWS_GRACE: Duration = Duration::from_secs(15 * 60);

/// Five of the lab's health checks.
const LAB_ACCEPT: Duration = Duration::from_secs(1);

/// Longer than any transaction of a test.
const LAB_GRACE: Duration = Duration::from_secs(30);

/// The network of `spec` as `topology` on `target`.
pub(super) fn network(spec: &Spec, topology: Topology, target: TargetKind) -> Network {
    let named = spec.zones();
    let count = if topology == Topology::SingleEc2 { 1 } else { named.len() };
    let zones = named.into_iter().take(count).map(zone).collect();
    let (ingress_addresses, egress_addresses) = match (target, topology) {
        (TargetKind::Aws, _) => (Vec::new(), Vec::new()),
        (TargetKind::Lab, Topology::SingleEc2) => (vec![LAB_SINGLE], vec![LAB_SINGLE]),
        (TargetKind::Lab, Topology::LoadBalanced) => (vec![LAB_INGRESS], vec![LAB_NAT]),
    };
    let (interval_ms, healthy, unhealthy) = match target {
        TargetKind::Aws => (AWS_CHECK_MS, 2, 2),
        TargetKind::Lab => (LAB_CHECK_MS, 1, 2),
    };
    Network {
        vpc: VPC,
        zones,
        ingress_addresses,
        egress_addresses,
        listeners: listeners(spec),
        spreading: match spec.load_balancer.spreading {
            SpecSpreading::SourceIp => Spreading::SourceIp,
            SpecSpreading::FiveTuple => Spreading::FiveTuple,
        },
        health_check: HealthCheck { port: ADMIN_PORT, path: "/readyz".into(), interval_ms, healthy, unhealthy },
        flow_timeouts: FLOW_TIMEOUTS,
    }
}

/// Where `spec` listens.
fn listeners(spec: &Spec) -> Vec<Listener> {
    let protocol = if spec.listen.tcp { Protocol::TcpUdp } else { Protocol::Udp };
    let tls = spec.listen.tls.iter().map(|tls| Listener { port: tls.port, protocol: Protocol::Tcp });
    std::iter::once(Listener { port: spec.listen.port, protocol }).chain(tls).collect()
}

/// The zone `name`: a /24 for what has a public address, a /20 for instances. Both go by the zone's letter (the check of the spec
/// admits `a` to `o`) and not by its place in the list: another order, or a zone less, moves no subnet.
fn zone(name: String) -> Zone {
    let letter = name.bytes().last().map_or(0, |letter| letter.saturating_sub(b'a')).min(LAST_ZONE as u8 - b'a');
    let subnet = |third, prefix| Ipv4Net::new(Ipv4Addr::new(10, 0, third, 0), prefix).unwrap_or(VPC);
    Zone { name, public_subnet: subnet(letter, 24), private_subnet: subnet(16 * (letter + 1), 20) }
}

/// How long an instance that leaves takes new calls, and how long it stays.
pub(super) fn drain(spec: &Spec, topology: Topology, target: TargetKind) -> (Duration, Duration) {
    let accept = match (topology, target) {
        (Topology::SingleEc2, _) => Duration::from_secs(0),
        (Topology::LoadBalanced, TargetKind::Aws) => AWS_ACCEPT,
        (Topology::LoadBalanced, TargetKind::Lab) => LAB_ACCEPT,
    };
    let grace = if target == TargetKind::Aws { AWS_GRACE } else { LAB_GRACE };
    // A default gives way to what the spec says: an instance never ends while it takes calls.
    match (spec.drain.accept, spec.drain.grace) {
        (Some(accept), Some(grace)) => (accept, grace),
        (Some(accept), None) => (accept, grace.max(accept)),
        (None, Some(grace)) => (accept.min(grace), grace),
        (None, None) => (accept, grace),
    }
}

/// Where the lab differs from AWS, each as one sentence. Empty for a plan on AWS.
pub fn lab_differences(plan: &Plan) -> Vec<String> {
    if plan.target == TargetKind::Aws {
        return Vec::new();
    }
    let balanced = plan.topology == Topology::LoadBalanced;
    let mut differences = vec![
        "documentation ranges (RFC 5737) stand in for the carriers' and for the edge's Elastic IPs; nothing leaves this machine".to_owned(),
        "secrets are files in the lab's folder, on AWS they are in SSM Parameter Store".to_owned(),
    ];
    if balanced {
        let check = &plan.network.health_check;
        differences.push(format!(
            "a health check every {} ms, healthy after {}, on AWS every {} s, healthy after 2: a deploy takes seconds",
            check.interval_ms,
            check.healthy,
            AWS_CHECK_MS / 1_000
        ));
        differences.push(
            "one ingress address and one egress address; on AWS the load balancer has one per zone, of which the first is \
             advertised unless the spec has a name, and each NAT gateway has `egress.addresses`"
                .to_owned(),
        );
        differences.push("the group keeps its size and there are no alarms; on AWS it follows the load".to_owned());
    }
    let (accept, grace) =
        (Duration::from_millis(plan.proxy.drain.accept_ms), Duration::from_millis(plan.proxy.drain.grace_ms));
    let defaulted = |setting: &str| plan.defaults.iter().any(|default| default.setting == setting);
    if balanced && defaulted("drain.accept") {
        differences.push(format!("an instance that leaves takes new calls for {accept}, on AWS for {AWS_ACCEPT}"));
    }
    if defaulted("drain.grace") {
        differences.push(format!("an instance that leaves stays for at most {grace}, on AWS for {AWS_GRACE}"));
    }
    if defaulted("refresh.checkpoint_delay") && defaulted("refresh.bake") {
        differences
            .push("a refresh waits for seconds at its checkpoints and at its end, on AWS for minutes".to_owned());
    }
    let tls = plan.proxy.listen.tls.as_ref().and_then(|tls| tls.client_roots.as_ref());
    if tls == Some(&SecretRef::File(super::LAB_ROOTS.into())) {
        differences.push(
            "clients are asked for a certificate, which the lab's callers have from the lab's own authority".to_owned(),
        );
    }
    if plan.defaults.iter().any(|default| default.setting.ends_with(".probe") && default.reason.contains("lab")) {
        differences.push("pools are not probed unless the spec says so; on AWS they are".to_owned());
    }
    if balanced
        && plan.proxy.advertise == Advertise::Host(super::INGRESS_ADDRESS.into())
        && !defaulted("load_balancer.advertise")
    {
        differences.push(
            "the ingress address is advertised in place of the spec's DNS name: the lab has no public DNS".to_owned(),
        );
    }
    differences
}
