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
    /// Bounds of TCP and TLS connections.
    #[serde(default)]
    pub streams: Streams,
    /// How an instance leaves.
    pub drain: Drain,
    /// What the instance does in its autoscaling group. Absent: it is in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<Cloud>,
    /// The built-in answerer, which can be called from outside every trunk by who knows its password. Absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answerer: Option<Answerer>,
}

impl Config {
    /// Every secret that it names, to have it named otherwise.
    pub fn secret_references_mut(&mut self) -> impl Iterator<Item = &mut SecretRef> {
        let listener = self.listen.tls.iter_mut();
        let listener = listener.flat_map(|tls| std::iter::once(&mut tls.certificate).chain(&mut tls.client_roots));
        let trunks = self.trunks.iter_mut().filter_map(|trunk| trunk.tls.as_mut());
        let trunks = trunks.flat_map(|tls| tls.certificate.iter_mut().chain(&mut tls.roots));
        let answerer = self.answerer.iter_mut().map(|answerer| &mut answerer.password);
        std::iter::once(&mut self.secrets.token_keys).chain(answerer).chain(listener).chain(trunks)
    }
}

/// The built-in answerer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answerer {
    /// User part of the URI that it is called by, and user name of its credentials: letters, digits, `-`, `_` and `.`, 64 at most.
    pub user: String,
    /// Its password, 16 to 128 printable characters in one line.
    pub password: SecretRef,
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
    /// Whether SIP over TCP is spoken: accepted on `ingress_port`.
    #[serde(default)]
    pub tcp: bool,
    /// SIP over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsListener>,
}

impl Listen {
    /// UDP alone, at an address that is not known yet, one shard.
    pub fn udp(ingress_port: u16, egress_port: u16) -> Self {
        Self { address: None, ingress_port, egress_port, shards: 1, tcp: false, tls: None }
    }
}

/// SIP over TLS (RFC 3261 §26.2, RFC 5922).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsListener {
    /// TCP port, usually 5061.
    pub port: u16,
    /// The edge's certificate, its chain and its private key, in one PEM document. Read again on every reload.
    pub certificate: SecretRef,
    /// Roots of client certificates, in PEM. Absent: none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_roots: Option<SecretRef>,
    /// Whether a peer without a client certificate is turned away.
    #[serde(default)]
    pub require_client: bool,
}

/// Bounds of TCP and TLS connections, and when they are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Streams {
    /// Connections at the same time, both directions together.
    pub connections: u32,
    /// Connections that one source address may have open.
    pub connections_per_source: u32,
    /// A connection on which nothing was received or sent for this long is closed.
    pub idle_ms: u32,
    /// Time for a connection to be established, TLS included.
    pub connect_ms: u32,
    /// Time for a message that has begun to arrive to be there whole.
    pub message_ms: u32,
    /// Bytes that wait to be sent, over all connections.
    pub bytes_in_flight: u64,
    /// Requests longer than this go by TCP where the URI leaves the transport open, and by UDP when TCP is refused
    /// (RFC 3261 §18.1.1; 1,300 there). Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above_bytes: Option<u32>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            // A carrier has a handful; a thousand are a PBX park of its own. Each costs some 20 KiB with TLS.
            connections: 2_000,
            connections_per_source: 100,
            // The NLB forgets a TCP flow after 350 s (AWS: "Network Load Balancers", idle timeout).
            idle_ms: 340_000,
            // As long as a request waits for its first response: failover would come too late after that.
            connect_ms: 4_000,
            message_ms: 10_000,
            bytes_in_flight: 16 << 20,
            above_bytes: None,
        }
    }
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
    /// Seconds between two looks at the secrets, certificates among them: those that have changed are taken up whole, or refused whole.
    /// 0: they are looked at on a reload alone.
    #[serde(default)]
    pub poll_s: u32,
    /// Where SSM Parameter Store is, as `https://HOST[:PORT]`: a VPC endpoint without private DNS. Plain HTTP is for loopback and
    /// link-local addresses alone. Absent: where the region has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

impl Secrets {
    /// Secrets that are read at the start and on a reload alone.
    pub fn new(token_keys: SecretRef) -> Self {
        Self { token_keys, poll_s: 0, endpoint: None }
    }
}

/// The place of one secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Where calls to this trunk go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// Which target a call takes among those of the best priority.
    #[serde(default)]
    pub select: Select,
    /// When a call in set-up goes on to the next destination.
    #[serde(default)]
    pub failover: Failover,
    /// OPTIONS to each destination, to see whether it is there. Absent: none are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Certificates for TLS to this trunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TrunkTls>,
    /// What this trunk's word is taken for.
    #[serde(default)]
    pub trust: Trust,
    /// Admission limits, for calls from this trunk and for calls to it.
    #[serde(default)]
    pub limits: Limits,
}

impl Trunk {
    /// A trunk from which nothing comes and to which nothing goes.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            from: Vec::new(),
            targets: Vec::new(),
            select: Select::default(),
            failover: Failover::default(),
            probe: None,
            tls: None,
            trust: Trust::default(),
            limits: Limits::default(),
        }
    }
}

/// Where calls to a trunk go. A host name may stand for several servers (RFC 3263); each is a destination of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A SIP URI without a user part, such as `sip:example.pstn.example` or `sip:192.0.2.1:5070;transport=tcp`.
    pub uri: String,
    /// Lower ones first; the next only when none of the lower ones is left.
    #[serde(default = "one")]
    pub priority: u16,
    /// Share of the calls among targets of one priority. 0: only when the others are down.
    #[serde(default = "one")]
    pub weight: u16,
}

impl Target {
    /// A target of the usual priority and weight.
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), priority: one(), weight: one() }
    }
}

/// How one of several targets is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// By weight; the Call-ID decides, so that every instance takes the same target for one call.
    #[default]
    Weight,
    /// By the Call-ID alone; a target that goes or comes moves only its own share of the calls.
    CallId,
    /// One after the other, each shard for itself.
    RoundRobin,
    /// All of the best priority at the same time (RFC 3261 §16.6, parallel forking): the first that answers gets the call.
    All,
}

/// When a call in set-up goes on to the next destination: always when nothing answers or the transport fails, and on these codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Failover {
    /// Final response codes, 400 to 599. What the callee has decided, such as 486 or 603, may not be among them.
    pub codes: Vec<u16>,
    /// Destinations that one call tries at most.
    pub attempts: u8,
}

impl Default for Failover {
    fn default() -> Self {
        // RFC 3263 §4.3: a 503 means another server should be tried. Three tries at 5 s each are as long as a caller waits.
        Self { codes: vec![503], attempts: 3 }
    }
}

/// OPTIONS to each destination of a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// Time between two probes of one destination.
    pub interval_ms: u32,
    /// Percent of the interval by which it is varied at random, so that instances do not probe in step.
    pub jitter_percent: u8,
    /// Time for the answer.
    pub timeout_ms: u32,
    /// Failures in a row that mark a destination down.
    pub down_after: u8,
    /// Successes in a row that mark it up.
    pub up_after: u8,
    /// Codes that count as success. Empty: every final response but 408 and 5xx.
    pub codes: Vec<u16>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            interval_ms: 30_000,
            jitter_percent: 10,
            timeout_ms: 4_000,
            down_after: 2,
            up_after: 2,
            codes: Vec::new(),
        }
    }
}

/// Certificates for TLS to one trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrunkTls {
    /// The edge's client certificate for this trunk, its chain and its private key, in one PEM document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SecretRef>,
    /// Roots that this trunk's certificate has to come from, in PEM. Absent: the public ones (Mozilla's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<SecretRef>,
}

/// What a trunk's word is taken for. What it is not trusted for is removed from its requests and responses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// P-Asserted-Identity (RFC 3325).
    pub identity: bool,
    /// The `X-` headers by which an edge and its PBX tell flows apart, such as `X-Store-Domain`.
    pub internal_headers: bool,
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

/// The instance in its autoscaling group (EC2 Auto Scaling, "Amazon EC2 Auto Scaling lifecycle hooks"). `boot` alone acts on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cloud {
    /// Region, such as `us-east-1`.
    pub region: String,
    /// Name of the group; the hooks need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The launching hook, which the instance completes once it is ready. Absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_hook: Option<String>,
    /// The terminating hook, which the instance completes once it is drained. Absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_hook: Option<String>,
    /// Allocation of the Elastic IP that the instance associates with itself once it has called itself (single-ec2). In a user-data
    /// template: `${elastic_ip_allocation}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elastic_ip: Option<String>,
    /// Milliseconds between two looks at `autoscaling/target-lifecycle-state` in the metadata: the drain begins when it is `Terminated`.
    /// 0: nobody looks.
    pub lifecycle_poll_ms: u32,
}

fn one() -> u16 {
    1
}
