use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cloud::{Alarms, Aws, Count, Dns, Refresh};
use super::values::{Duration, Target, Transport};

/// The format that this build reads.
pub const VERSION: u32 = 1;

/// A SIP edge: who calls, where the calls go, and on what it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "sipedge.yaml")]
pub struct Spec {
    /// Format of this file. This build reads version 1.
    #[schemars(range(min = 1), example = 1)]
    pub version: u32,
    /// Name of the edge: 1 to 32 characters of a-z, 0-9 and hyphen, the first a letter. AWS resources bear it.
    #[schemars(with = "String", extend("format" = "edge-name", "pattern" = "^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$"), example = &"my-edge")]
    pub name: String,
    /// The AWS account and region.
    #[schemars(example = serde_json::json!({"region": "us-east-1"}))]
    pub aws: Aws,
    /// The peers, by name: carriers, PBXes, customers.
    #[schemars(
        extend("minProperties" = 1, "propertyNames" = {"format": "trunk-name", "pattern": "^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$"}),
        example = serde_json::json!({})
    )]
    pub trunks: BTreeMap<String, Trunk>,
    /// Which trunk's calls go to which trunk.
    #[schemars(length(min = 1), example = serde_json::json!([]))]
    pub routes: Vec<Route>,
    /// Where SIP is received.
    #[serde(default)]
    pub listen: Listen,
    /// Where requests of the edge leave.
    #[serde(default)]
    pub egress: Egress,
    /// What a request from an unknown source gets: `answer` (403 Forbidden) or `silence` (nothing).
    #[serde(default)]
    #[schemars(extend("x-reason" = "a misconfigured carrier sees 403 and not a timeout; silence hides the edge from scanners"))]
    pub refuse: Refuse,
    /// How long the edge waits.
    #[serde(default)]
    pub timers: Timers,
    /// How many instances the load-balanced topology has. A single-ec2 edge has one.
    #[serde(default)]
    pub scaling: Scaling,
    /// The network load balancer of the load-balanced topology.
    #[serde(default)]
    pub load_balancer: LoadBalancer,
    /// How an instance leaves.
    #[serde(default)]
    pub drain: Drain,
    /// How instances are replaced by those of a new version.
    #[serde(default)]
    pub refresh: Refresh,
    /// Who is told when something is wrong.
    #[serde(default)]
    pub alarms: Alarms,
    /// Names for the ingress addresses. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Dns")]
    pub dns: Option<Dns>,
    /// The smoke call.
    #[serde(default)]
    pub verify: Verify,
    /// Certificates for TLS, by name. What is in them stays out of every plan: `deploy` puts them where the secrets are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("propertyNames" = {"format": "trunk-name", "pattern": "^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$"}))]
    pub certificates: BTreeMap<String, Certificate>,
}

/// A peer: where its calls come from, and where calls to it go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({}))]
pub struct Trunk {
    /// A carrier whose signalling ranges sipedge knows: `twilio`, `telnyx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1))]
    pub carrier: Option<String>,
    /// Host name that calls to this trunk go to; it becomes the host of the Request-URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "host-name"))]
    pub domain: Option<String>,
    /// How calls to `domain` go: `udp`, `tcp` or `tls`. Short for `;transport=` at a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Transport")]
    pub transport: Option<Transport>,
    /// Source ranges, by hand; they replace the carrier's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(min = 1), extend("items" = {"type": "string", "format": "cidr", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$", "examples": ["192.0.2.0/24"]}))]
    pub from: Option<Vec<IpNet>>,
    /// Whether `from` may let in more addresses than a carrier has, even all: the edge then takes calls from anybody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open_to_the_world: bool,
    /// Where calls to this trunk go, by hand, in place of `domain`: each a SIP URI, or a map of `uri`, `priority` and `weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<PoolTarget>", length(min = 1))]
    pub targets: Option<Vec<PoolTarget>>,
    /// Which target a call takes among those of the best priority: by `weight`, by `call-id`, by turns (`round-robin`), or `all` at once.
    #[serde(default)]
    #[schemars(extend("x-reason" = "shares as the weights say, and every instance takes the same target for one call"))]
    pub select: Select,
    /// When a call in set-up goes on to the next destination.
    #[serde(default)]
    pub failover: Failover,
    /// OPTIONS to each destination, to see whether it is there: `true`, `false`, or a map of figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Probe")]
    pub probe: Option<Probe>,
    /// Certificates for TLS to this trunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TrunkTls")]
    pub tls: Option<TrunkTls>,
    /// What this trunk's word is taken for. What it is not trusted for is removed from its messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Trust>")]
    pub trust: Option<Vec<Trust>>,
    /// Admission limits of each instance, for calls from this trunk and for calls to it.
    #[serde(default)]
    pub limits: Limits,
}

/// A place that calls to a trunk go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = &"sip:pbx.example.com")]
pub enum PoolTarget {
    /// A SIP URI, of priority 1 and weight 1.
    Uri(Target),
    /// A SIP URI with its place in the pool.
    Placed(PlacedTarget),
}

/// A target with its place in the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacedTarget {
    /// `sip:HOST` or `sip:HOST:PORT`, with `;transport=udp`, `tcp` or `tls` or without.
    pub uri: Target,
    /// Lower ones first; the next only when none of the lower ones is left.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100), extend("x-reason" = "one rank unless the spec has more"))]
    pub priority: u16,
    /// Share of the calls among targets of one priority. 0: only when the others are down.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000), extend("x-reason" = "equal shares"))]
    pub weight: u16,
}

/// Which target a call takes among those of the best priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// By weight.
    #[default]
    Weight,
    /// By a hash of the Call-ID: a target that comes or goes moves its own share of the calls alone.
    CallId,
    /// By turns.
    RoundRobin,
    /// All at the same time; the first that answers gets the call (RFC 3261 §16.6).
    All,
}

/// When a call in set-up goes on to the next destination. It always does when nothing answers or the transport fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Failover {
    /// Response codes on which it does, 400 to 599. What the callee decides, such as 486, may not be among them.
    #[schemars(
        extend("items" = {"type": "integer", "minimum": 400, "maximum": 599, "examples": [503]}, "x-reason" = "503 asks for another server (RFC 3263 §4.3); other codes are an answer")
    )]
    pub codes: Vec<u16>,
    /// Destinations that one call tries at most.
    #[schemars(range(min = 1, max = 10), extend("x-reason" = "three that are silent for 5 s each are as long as a caller waits"))]
    pub attempts: u8,
}

/// OPTIONS to each destination of a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = true)]
pub enum Probe {
    /// `true`: with the usual figures; `false`: none.
    Switch(bool),
    /// With these figures.
    Figures(ProbeFigures),
}

/// How destinations are probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeFigures {
    /// Time between two probes of one destination, varied by 10 % so that instances do not probe in step.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1h", "x-reason" = "a destination that is gone is noticed within a minute, and one OPTIONS in 30 s per instance is no load"))]
    pub interval: Duration,
    /// Time for the answer.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "32s", "x-reason" = "an OPTIONS is sent four times within it (RFC 3261 §17.1.2.2)"))]
    pub timeout: Duration,
    /// Failures in a row that mark a destination down.
    #[schemars(range(min = 1, max = 100), extend("x-reason" = "one lost packet is no failure"))]
    pub down_after: u8,
    /// Successes in a row that mark it up.
    #[schemars(range(min = 1, max = 100), extend("x-reason" = "a server that has just started is left alone for an interval"))]
    pub up_after: u8,
    /// Codes that count as success. Absent: every final response but 408 and 5xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<u16>", length(min = 1), extend("items" = {"type": "integer", "minimum": 200, "maximum": 699, "examples": [200]}))]
    pub codes: Option<Vec<u16>>,
}

/// Certificates for TLS to a trunk, each by its name under `certificates`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrunkTls {
    /// The edge's client certificate, for a trunk that asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1))]
    pub certificate: Option<String>,
    /// Roots that the trunk's certificate has to come from, in place of the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1))]
    pub roots: Option<String>,
}

/// What a trunk's word may be taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = &"identity")]
pub enum Trust {
    /// P-Asserted-Identity (RFC 3325).
    Identity,
    /// The `X-` headers by which an edge and its PBX tell flows apart, such as `X-Store-Domain`.
    InternalHeaders,
}

/// A PEM file on the machine that deploys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({"file": "edge.pem"}))]
pub struct Certificate {
    /// The file, relative to this one: certificate, chain and private key, or roots alone.
    #[schemars(length(min = 1), example = &"edge.pem")]
    pub file: String,
}

/// Admission limits. Absent: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// New calls per second and instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 100_000))]
    pub cps: Option<u32>,
    /// Calls in set-up or in progress at the same time, per instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 100_000))]
    pub calls: Option<u32>,
}

/// Calls from one trunk go to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({"from": "source", "to": "destination"}))]
pub struct Route {
    /// Trunk that calls come from.
    #[schemars(length(min = 1), example = &"source")]
    pub from: String,
    /// Trunk that they go to.
    #[schemars(length(min = 1), example = &"destination")]
    pub to: String,
}

/// Where SIP is received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// UDP port on which requests arrive, and TCP port unless `tcp` is false.
    #[schemars(range(min = 1, max = 65_535), extend("x-reason" = "SIP's registered port (RFC 3261 §19.1.2)"))]
    pub port: u16,
    /// Whether SIP over TCP is taken on the same port.
    #[schemars(extend("x-reason" = "a SIP server takes UDP and TCP (RFC 3261 §18); a large INVITE may need it"))]
    pub tcp: bool,
    /// Requests of more bytes than this go by TCP where the target leaves the transport open, and by UDP when TCP is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 500, max = 65_535))]
    pub tcp_above: Option<u32>,
    /// SIP over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TlsListen")]
    pub tls: Option<TlsListen>,
}

/// SIP over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsListen {
    /// TCP port.
    #[serde(default = "tls_port")]
    #[schemars(range(min = 1, max = 65_535), extend("x-reason" = "the registered port of SIP over TLS (RFC 3261 §19.1.2)"))]
    pub port: u16,
    /// The edge's certificate, by its name under `certificates`.
    #[schemars(length(min = 1), example = &"edge")]
    pub certificate: String,
    /// Roots that clients' certificates have to come from, by their name under `certificates`. Absent: none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1))]
    pub client_roots: Option<String>,
    /// Whether a client without a certificate is turned away.
    #[serde(default)]
    #[schemars(extend("x-reason" = "carriers are known by their addresses; few show a certificate"))]
    pub require_client: bool,
}

/// Where requests of the edge leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// UDP port from which every request of the edge leaves in the load-balanced topology. A single-ec2 edge has one port for both.
    #[schemars(
        range(min = 1, max = 65_535),
        extend("x-reason" = "not the ingress port: behind NLB and NAT gateway one port for both loses calls when a carrier is both source and destination")
    )]
    pub port: u16,
    /// NAT gateways of the load-balanced topology: `one`, or one `per-zone`.
    #[schemars(extend("x-reason" = "carriers admit the addresses of one; without its zone no new call goes out until it is moved"))]
    pub gateways: Count,
    /// Elastic IPs of each NAT gateway: every one adds 55,000 flows to each carrier address.
    #[schemars(range(min = 1, max = 8), extend("x-reason" = "one is enough for 55,000 flows to each carrier address, and carriers admit one"))]
    pub addresses: u32,
}

/// What a request from an unknown source gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Refuse {
    /// 403 Forbidden.
    #[default]
    Answer,
    /// Nothing.
    Silence,
}

/// How long the edge waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timers {
    /// For the first response to a request that it sent on; then 408.
    #[schemars(extend("x-minimum" = "500ms", "x-maximum" = "60s", "x-reason" = "a carrier answers 100 Trying within milliseconds; 5 s leave time for three retransmissions"))]
    pub response: Duration,
    /// For the final response to an INVITE after a provisional one; then CANCEL and 408.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "10m", "x-reason" = "five rings, about when carriers give up"))]
    pub invite: Duration,
    /// T1, the estimate of the round-trip time.
    #[schemars(extend("x-minimum" = "50ms", "x-maximum" = "10s", "x-reason" = "RFC 3261 §17, Table 4"))]
    pub t1: Duration,
    /// T2, the longest retransmission interval.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "60s", "x-reason" = "RFC 3261 §17, Table 4"))]
    pub t2: Duration,
    /// T4, how long a message may stay in the network.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "60s", "x-reason" = "RFC 3261 §17, Table 4"))]
    pub t4: Duration,
    /// How long a call that a limit counts is counted when its BYE is never seen.
    #[schemars(extend("x-minimum" = "1m", "x-maximum" = "48h", "x-reason" = "Twilio ends a call after 4 h unless told otherwise"))]
    pub call: Duration,
}

/// How many instances the load-balanced topology has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scaling {
    /// Fewest instances; a deploy starts with as many.
    #[schemars(range(min = 1, max = 100), extend("x-reason" = "one instance may be lost or replaced while the other takes the calls"))]
    pub min: u32,
    /// Most instances.
    #[schemars(range(min = 1, max = 100), extend("x-reason" = "bounds the cost; at 20-30 CPS per t3.small ten carry 200-300 CPS"))]
    pub max: u32,
    /// Percent of CPU, averaged over the instances, that the group is scaled to.
    #[schemars(range(min = 10, max = 95), extend("x-reason" = "leaves room for the calls that come while an instance starts"))]
    pub cpu: u32,
    /// Megabytes per second that one instance receives, averaged over the instances, that the group is scaled to.
    #[schemars(range(min = 1, max = 10_000), extend("x-reason" = "50,000 messages of 1 KB per second: more than CPU lets an instance of two cores handle"))]
    pub network_in: u32,
}

/// The network load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoadBalancer {
    /// How it chooses the instance of a new flow: `source-ip` or `five-tuple`.
    #[schemars(extend("x-reason" = "messages of one carrier address reach one instance, so retransmissions and CANCEL find their transaction"))]
    pub spreading: Spreading,
    /// Its ingress addresses: one `per-zone`, or `one` in the only zone.
    #[schemars(extend("x-reason" = "it has one Elastic IP in each zone; instances in a zone without one get no calls"))]
    pub addresses: Count,
    /// DNS name to advertise in Via and Record-Route in place of the ingress address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "host-name"))]
    pub advertise: Option<String>,
}

/// How the load balancer chooses the instance of a new flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spreading {
    /// By source address.
    #[default]
    SourceIp,
    /// By protocol, addresses and ports.
    FiveTuple,
}

/// How an instance leaves. What is absent follows from topology and target; `sipedge plan` prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// New calls are still taken for this long, since the load balancer goes on sending them. On AWS the deregistration delay is 2 minutes
    /// shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration", extend("x-minimum" = "0s", "x-maximum" = "10m"))]
    pub accept: Option<Duration>,
    /// The process ends after this long even if transactions are in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration", extend("x-minimum" = "1s", "x-maximum" = "1h"))]
    pub grace: Option<Duration>,
}

/// The smoke call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Verify {
    /// The number that it calls.
    #[schemars(
        with = "String",
        extend("format" = "number", "pattern" = "^[+]?[0-9]{3,15}$", "x-reason" = "555-01xx is reserved for examples and reaches nobody")
    )]
    pub number: String,
    /// Longest set-up delay (INVITE sent to 200 received) that passes.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "60s", "x-reason" = "a caller takes more for a fault"))]
    pub max_setup: Duration,
    /// Whether instances have the built-in answerer: a user agent of the edge itself that `sipedge verify call --via operator` calls with
    /// a password, from outside every trunk.
    #[schemars(extend("x-reason" = "a call to it proves ingress, configuration and readiness without a carrier"))]
    pub answerer: bool,
    /// From where operators may call the answerer: on AWS the security group admits these ranges beside the trunks'.
    #[schemars(
        with = "Vec<String>",
        extend("items" = {"type": "string", "format": "cidr", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$", "examples": ["192.0.2.7/32"]}, "x-reason" = "nobody but you knows from where you call")
    )]
    pub operators: Vec<IpNet>,
}

impl Default for Listen {
    fn default() -> Self {
        Self { port: 5060, tcp: true, tcp_above: None, tls: None }
    }
}

fn tls_port() -> u16 {
    5061
}

fn one() -> u16 {
    1
}

impl PoolTarget {
    /// It with its place in the pool.
    pub fn placed(&self) -> PlacedTarget {
        match self {
            Self::Uri(uri) => PlacedTarget::new(uri.clone()),
            Self::Placed(placed) => placed.clone(),
        }
    }

    /// Its URI.
    pub fn uri(&self) -> &Target {
        match self {
            Self::Uri(uri) => uri,
            Self::Placed(placed) => &placed.uri,
        }
    }
}

impl PlacedTarget {
    /// `uri` with the usual priority and weight.
    pub fn new(uri: Target) -> Self {
        Self { uri, priority: one(), weight: one() }
    }
}

impl Default for Failover {
    fn default() -> Self {
        Self { codes: vec![503], attempts: 3 }
    }
}

impl Default for ProbeFigures {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(4),
            down_after: 2,
            up_after: 2,
            codes: None,
        }
    }
}

impl Default for Egress {
    fn default() -> Self {
        Self { port: 5080, gateways: Count::One, addresses: 1 }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            response: Duration::from_secs(5),
            invite: Duration::from_secs(30),
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            call: Duration::from_secs(4 * 3_600),
        }
    }
}

impl Default for Scaling {
    fn default() -> Self {
        Self { min: 2, max: 10, cpu: 70, network_in: 50 }
    }
}

impl Default for LoadBalancer {
    fn default() -> Self {
        Self { spreading: Spreading::default(), addresses: Count::PerZone, advertise: None }
    }
}

impl Default for Verify {
    fn default() -> Self {
        Self { number: "+12025550143".into(), max_setup: Duration::from_secs(2), answerer: true, operators: Vec::new() }
    }
}
