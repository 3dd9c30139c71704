use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use sipedge_proxy::config::{Config, SecretRef};

use super::{AwsPlan, Cost, RefreshPlan, Whitelist};
use crate::spec::{Defaulted, Transport};

/// Everything that a target needs to create one topology of one edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the edge.
    pub name: String,
    /// How it is built.
    pub topology: Topology,
    /// Where it is built.
    pub target: TargetKind,
    /// The configuration of each instance, before the target fills in [`INGRESS_ADDRESS`](super::INGRESS_ADDRESS).
    pub proxy: Config,
    /// The user-data of each instance, a template with [`INGRESS_ADDRESS`](super::INGRESS_ADDRESS) where the configuration has it. At most 16 KiB.
    pub user_data: String,
    /// Network and load balancing.
    pub network: Network,
    /// How many instances.
    pub scaling: Scaling,
    /// How instances are replaced by those of a new version.
    #[serde(default)]
    pub refresh: RefreshPlan,
    /// The AWS account; absent in the lab.
    #[serde(default)]
    pub aws: Option<AwsPlan>,
    /// What it costs; absent in the lab.
    #[serde(default)]
    pub cost: Option<Cost>,
    /// What the peers have to let in.
    #[serde(default)]
    pub whitelist: Vec<Whitelist>,
    /// The peers, with their domains and, in the lab, the documentation ranges that stand in for theirs.
    pub carriers: Vec<Carrier>,
    /// What the smoke call expects.
    pub verify: VerifyPlan,
    /// Certificates that `deploy` puts where the configuration says they are.
    pub certificates: Vec<Certificate>,
    /// Files by name (`user-data.tftpl`, `load-balanced.auto.tfvars.json`, `hand-off.md`, …), as `deploy` writes them.
    pub artefacts: BTreeMap<String, String>,
    /// Settings that the spec left out.
    pub defaults: Vec<Defaulted>,
    /// What the reader should know, such as a carrier's data being old.
    pub warnings: Vec<String>,
}

/// The two ways to build an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// One instance, one Elastic IP for traffic in and out.
    SingleEc2,
    /// NLB in, NAT gateway out, an autoscaling group over three zones.
    LoadBalanced,
}

impl Topology {
    /// As the command line writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SingleEc2 => "single-ec2",
            Self::LoadBalanced => "load-balanced",
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The two places to build it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// An AWS account.
    Aws,
    /// This machine.
    Lab,
}

impl TargetKind {
    /// As the command line writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Lab => "lab",
        }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Network and load balancing, in AWS's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The VPC's range.
    pub vpc: Ipv4Net,
    /// One subnet pair per availability zone; single-ec2 has one zone.
    pub zones: Vec<Zone>,
    /// Ingress Elastic IPs (single-ec2: the instance's). Empty when only AWS will know them.
    pub ingress_addresses: Vec<IpAddr>,
    /// Egress Elastic IPs (single-ec2: the same as ingress). Empty when only AWS will know them.
    pub egress_addresses: Vec<IpAddr>,
    /// Where the NLB listens (single-ec2: what the security group lets in).
    pub listeners: Vec<Listener>,
    /// How the NLB spreads flows.
    pub spreading: Spreading,
    /// Health check of the NLB's target group.
    pub health_check: HealthCheck,
    /// Idle timeouts of tracked flows.
    pub flow_timeouts: FlowTimeouts,
}

/// One availability zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its name, such as `us-east-1a`.
    pub name: String,
    /// Public subnet: NLB node, NAT gateway, or the single instance.
    pub public_subnet: Ipv4Net,
    /// Private subnet: instances behind the NLB.
    pub private_subnet: Ipv4Net,
}

/// One listener of the NLB, with a target group of the same protocol and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Port, also that of the targets.
    pub port: u16,
    /// What it takes.
    pub protocol: Protocol,
}

/// Protocol of a listener. UDP and TCP on one port are one listener (Elastic Load Balancing, "Listeners for your Network Load
/// Balancers"); TLS is TCP, since it ends on the instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// UDP alone.
    #[serde(rename = "UDP")]
    Udp,
    /// TCP alone.
    #[serde(rename = "TCP")]
    Tcp,
    /// Both.
    #[serde(rename = "TCP_UDP")]
    TcpUdp,
}

/// How the NLB chooses the target of a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spreading {
    /// Source-IP stickiness.
    SourceIp,
    /// Hash of protocol, addresses and ports.
    FiveTuple,
}

/// HTTP health check of a target group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// TCP port, the proxy's admin port.
    pub port: u16,
    /// Path, `/readyz`.
    pub path: String,
    /// Milliseconds between checks.
    pub interval_ms: u32,
    /// Successes in a row that make a target healthy.
    pub healthy: u32,
    /// Failures in a row that make a target unhealthy.
    pub unhealthy: u32,
}

/// Idle timeouts of flows, in seconds; of UDP flows unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTimeouts {
    /// A flow that has seen packets in one direction only.
    pub unreplied_s: u32,
    /// A flow through the NLB.
    pub replied_s: u32,
    /// A flow through the NAT gateway.
    pub nat_s: u32,
    /// An established TCP connection, through either.
    pub tcp_s: u32,
}

/// Size of the autoscaling group; single-ec2: 1 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// Fewest instances; a deploy starts with as many.
    pub min: u32,
    /// Most instances.
    pub max: u32,
}

/// A peer's network. Trunks that name the same carrier data share one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carrier {
    /// The carrier data's name (`twilio`), or the trunk's name when its addresses are written by hand. In the lab: its namespace.
    pub name: String,
    /// Trunks of the spec that reach it.
    pub trunks: Vec<String>,
    /// Its signalling ranges, each with the range that the proxy's configuration has (on AWS the same; in the lab its stand-in).
    pub ranges: Vec<CarrierRange>,
    /// Its domains, and in the lab their addresses (within `ranges`).
    pub domains: Vec<CarrierDomain>,
}

/// One signalling range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierRange {
    /// As the carrier publishes it, or as the spec says it.
    pub real: IpNet,
    /// As used by this plan.
    pub used: IpNet,
}

/// A certificate, or roots: where it is before a deploy and where after. What is in it stands in no plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its name in the spec.
    pub name: String,
    /// The PEM file, as the spec names it: relative to the spec.
    pub file: String,
    /// Where instances find it.
    pub place: SecretRef,
    /// Whether it has to have a private key: it is shown to peers. Otherwise it is roots.
    pub has_key: bool,
}

/// A domain that the edge sends calls to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierDomain {
    /// Host name.
    pub name: String,
    /// In the lab: what the resolver answers. On AWS: empty.
    pub addresses: Vec<IpAddr>,
}

/// What the smoke call is made of. One per route of the spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyPlan {
    /// The calls, one per route.
    pub calls: Vec<VerifyCall>,
    /// Longest set-up delay (INVITE sent to 200 received by the caller) that passes, in milliseconds.
    pub max_setup_ms: u32,
    /// From where operators may call the answerer, beside the trunks' ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<ipnet::IpNet>,
}

/// One smoke call: from a source trunk's carrier, through the edge, to a destination trunk's carrier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyCall {
    /// Source trunk.
    pub from: String,
    /// Destination trunk.
    pub to: String,
    /// Namespace ([`Carrier::name`]) and address of the caller.
    pub caller: Endpoint,
    /// Namespace and addresses of the called side; the edge may choose any of the addresses.
    pub callee: Vec<Endpoint>,
    /// Host (and port, when the target has one) that the Request-URI must have at the destination: one of these, each of a target.
    pub request_uri_hosts: Vec<String>,
    /// User part of the called number.
    pub number: String,
}

/// A user agent's place in the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Network namespace of the lab.
    pub namespace: String,
    /// Socket address.
    pub address: std::net::SocketAddr,
    /// How calls arrive there; a caller chooses for itself.
    pub transport: Transport,
}
