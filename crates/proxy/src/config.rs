//! The proxy's configuration: the one type that the CLI renders and the proxy reads.
//!
//! It is written by a machine (`sipedge plan`) and read by one (`sipedge-proxy`), so durations are integers with their unit in the
//! name, and every setting stands in the file. Secrets are only named here ([`Secrets`]), never contained.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The format that this build reads and writes.
pub const VERSION: u32 = 1;

/// Everything one instance has to know before it may answer SIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Format version, [`VERSION`].
    pub version: u32,
    /// Name of the edge, as in the spec.
    pub edge: String,
    /// Where SIP is received and sent.
    pub listen: Listen,
    /// What Via and Record-Route say.
    pub advertise: Advertise,
    /// Health and metrics over HTTP.
    pub admin: Admin,
    /// Name servers for the destinations' domains.
    pub dns: Dns,
    /// Where the secrets are.
    pub secrets: Secrets,
    /// Peers: who may send, and where calls go.
    pub trunks: Vec<Trunk>,
    /// Which trunk's calls go to which trunk.
    pub routes: Vec<Route>,
    /// What an unknown source gets.
    pub refuse: Refuse,
    /// Transaction timers.
    pub timers: Timers,
    /// Upper bounds of the tables.
    pub budgets: Budgets,
    /// How an instance leaves.
    pub drain: Drain,
}

/// SIP listeners. With one port for both roles set `egress_port` equal to `ingress_port`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The private address. `run` needs it; `boot` takes it from the instance metadata, whatever stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// UDP port on which requests arrive and from which their responses leave.
    pub ingress_port: u16,
    /// UDP port from which every request of the edge leaves, and on which its responses arrive.
    pub egress_port: u16,
    /// Threads, each with its own sockets and tables. 0: one per core.
    pub shards: u16,
}

/// The address that peers are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advertise {
    /// The instance's public address from its metadata (single-ec2: the Elastic IP).
    Metadata,
    /// The private address that SIP listens on.
    Listen,
    /// This address or host name (load-balanced: the load balancer's). In a user-data template: `${ingress_address}`.
    Host(String),
}

/// HTTP on the private address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// TCP port of `/healthz`, `/readyz` and `/metrics`.
    pub port: u16,
}

/// Name resolution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Name servers, asked in this order.
    pub servers: Vec<SocketAddr>,
}

/// Where the secrets are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The keys of route tokens and branches.
    pub token_keys: SecretRef,
}

/// The place of one secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretRef {
    /// A file of this name in the instance's secrets folder.
    File(String),
    /// A SecureString parameter of SSM Parameter Store.
    Ssm(String),
}

/// A peer: a carrier, a PBX, a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// Name, unique in the configuration.
    pub name: String,
    /// Sources from which this trunk may open calls; the longest prefix over all trunks wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<IpNet>,
    /// Where calls to this trunk go: SIP URIs such as `sip:example.pstn.example:5060`. In this version the first is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Admission limits, for calls from this trunk and for calls to it.
    #[serde(default)]
    pub limits: Limits,
}

/// Admission limits of one instance for one trunk. Absent: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// New calls per second; a burst of one second's worth is let through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cps: Option<u32>,
    /// Calls in set-up or in progress at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
}

/// Calls from one trunk go to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Name of the trunk that calls come from.
    pub from: String,
    /// Name of the trunk that they go to.
    pub to: String,
}

/// What a request from an unknown source gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refuse {
    /// 403 Forbidden.
    Answer,
    /// Nothing.
    Silence,
}

/// Transaction timers in milliseconds (RFC 3261 §17, Table 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timers {
    /// T1, the round-trip estimate.
    pub t1_ms: u32,
    /// T2, the longest retransmission interval of non-INVITE requests and INVITE responses.
    pub t2_ms: u32,
    /// T4, how long a message may stay in the network.
    pub t4_ms: u32,
    /// How long to wait for the first response to a request that we sent on; then 408.
    pub response_ms: u32,
    /// How long to wait for the final response to an INVITE after a provisional one; then CANCEL and 408.
    pub invite_ms: u32,
    /// How long a call that a limit counts is counted when its BYE is never seen.
    pub call_ms: u32,
}

/// Upper bounds. Past them new calls get 503 while calls in progress go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Transactions in all tables of the instance together.
    pub transactions: u32,
    /// Bytes of messages kept for retransmission, in all tables of the instance together.
    pub message_bytes: u64,
    /// Calls that limits count.
    pub counted_calls: u32,
}

/// How an instance leaves after SIGTERM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// New calls are still taken for this long, since a load balancer goes on sending them; then they get 503.
    pub accept_ms: u32,
    /// The process ends after this long even if transactions are still in progress.
    pub grace_ms: u32,
    /// Retry-After of the 503, in seconds.
    pub retry_after_s: u32,
}
