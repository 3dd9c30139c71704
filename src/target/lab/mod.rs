//! The topologies on this machine: network namespaces joined by veth, NLB and NAT gateway as nf_tables rules, instance metadata, a
//! resolver, and one process per instance, kept by a supervisor. The process is the appliance, or a machine that boots an image of it.
//!
//! [`Lab`] is the client: it starts a supervisor, finds a running one by its folder, and talks to it over a Unix socket.
//!
//! The supervisor is one process with one thread. It lives in the `vpc` namespace, which is the Internet, the NLB and the NAT gateway
//! in one connection-tracking table; every instance, every carrier and a stranger have a namespace of their own, with one veth to
//! `vpc`. The instances are a group as in EC2 Auto Scaling: what they boot from has numbered versions, and a refresh replaces them.
//! Nothing is mounted or named outside of it: when it ends, the kernel takes everything back.

mod client;
mod conntrack;
mod dhcp;
mod error;
mod exec;
mod fleet;
mod group;
mod http;
mod imds;
mod instance;
mod machine;
mod netlink;
mod network;
mod nft;
mod power;
mod protocol;
mod resolver;
mod state;
mod supervisor;
#[expect(
    unsafe_code,
    reason = "no crate wraps these safely: pre_exec, taps, file descriptors that arrive over a socket"
)]
mod sys;
mod userns;

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::deploy::Lifecycle;

pub use client::Lab;
pub use error::LabError;
pub use exec::exec;
pub use fleet::LabFleet;
pub use group::{DrainTimes, GroupStatus, VersionStatus};
pub use machine::Machine;
pub use supervisor::{proxy_program, supervise};
pub use userns::user_namespaces_forbidden;

/// Namespace of the router: Internet gateway, NLB and NAT gateway, metadata and resolver.
pub const VPC_NAMESPACE: &str = "vpc";

/// Namespace that belongs to no carrier: the rest of the Internet.
pub const STRANGER_NAMESPACE: &str = "stranger";

/// Address of the stranger, from the benchmarking range (RFC 2544), which no carrier and no documentation uses.
pub const STRANGER_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Name of an instance, `i-1`, `i-2`, …; also its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId(pub String);

impl std::fmt::Display for InstanceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a lab is doing now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabStatus {
    /// Process id of the supervisor.
    pub supervisor_pid: i32,
    /// The instances, in the order they were started. Those that a refresh has replaced are not among them.
    pub instances: Vec<InstanceStatus>,
    /// The group that they belong to.
    pub group: GroupStatus,
    /// Ingress addresses.
    pub ingress_addresses: Vec<IpAddr>,
    /// Addresses that new flows of the edge come from.
    pub egress_addresses: Vec<IpAddr>,
    /// The namespaces that `exec` and `udp_socket` know.
    pub namespaces: Vec<String>,
}

/// What one instance is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub id: InstanceId,
    /// Private address.
    pub address: IpAddr,
    /// Availability zone.
    pub zone: String,
    /// The version that it has booted from.
    pub version: u64,
    /// Where it is in its life.
    pub lifecycle: Lifecycle,
    /// Process id, while it runs.
    pub pid: Option<i32>,
    /// Exit code, once it has ended by itself or by a signal (128 + number).
    pub exit_code: Option<i32>,
    /// Whether the load balancer counts it as a target (single-ec2: whether it holds the Elastic IP).
    pub registered: bool,
    /// Whether its health check passes.
    pub healthy: bool,
    /// Milliseconds from its start until it first answered that it is ready.
    pub ready_after_ms: Option<u64>,
}
