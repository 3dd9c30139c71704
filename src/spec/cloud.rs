//! What the spec says of AWS: the account, the network that is there already, refreshes, alarms, names.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Duration;

/// The AWS account and region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aws {
    /// Region, such as `us-east-1`.
    #[schemars(with = "String", extend("format" = "aws-region", "pattern" = "^[a-z]{2}(-[a-z]+)+-[0-9]$"), example = &"us-east-1")]
    pub region: String,
    /// Profile of the AWS configuration files.
    #[serde(default = "default_profile")]
    #[schemars(length(min = 1), extend("x-reason" = "the profile that AWS's own tools take when none is named"))]
    pub profile: String,
    /// Availability zones, such as `us-east-1a`. single-ec2 takes the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(min = 1, max = 6), extend("items" = {"type": "string", "format": "aws-zone", "examples": ["us-east-1a"]}))]
    pub zones: Option<Vec<String>>,
    /// EC2 instance type of the instances; `sipedge` knows those of its table.
    #[serde(default = "default_instance_type")]
    #[schemars(length(min = 1), extend("x-reason" = "2 vCPU and 2 GiB carry 150-200 calls and 20-30 calls per second"))]
    pub instance_type: String,
    /// Image of the instances. Absent: the newest that sipedge has made in this account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "image-id", "pattern" = "^ami-([0-9a-f]{8}|[0-9a-f]{17})$"))]
    pub image: Option<String>,
    /// A VPC that is there already. Absent: the edge gets one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ExistingVpc")]
    pub vpc: Option<ExistingVpc>,
    /// S3 bucket for Terraform's state. Absent: the state is a file in the project's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StateBucket")]
    pub state: Option<StateBucket>,
    /// Inbound rules that the account admits in one security group. Each source range needs one for each transport.
    #[serde(default = "default_rules")]
    #[schemars(range(min = 1, max = 1_000), extend("x-reason" = "AWS's quota until it is raised (Amazon VPC quotas, inbound rules for each security group)"))]
    pub rules_quota: u32,
    /// Tags that everything bears, beside those of sipedge.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "propertyNames" = {"format": "tag-key"},
        "additionalProperties" = {"type": "string", "format": "tag-value", "examples": ["sip"]}
    ))]
    pub tags: BTreeMap<String, String>,
}

/// A VPC that is there already, with a subnet of each kind in each zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExistingVpc {
    /// Its id.
    #[schemars(with = "String", extend("format" = "vpc-id", "pattern" = "^vpc-([0-9a-f]{8}|[0-9a-f]{17})$"), example = &"vpc-0123456789abcdef0")]
    pub id: String,
    /// By zone: the subnet with a route to an Internet gateway, for the load balancer and the instance of single-ec2.
    #[schemars(
        extend("minProperties" = 1, "propertyNames" = {"format": "aws-zone"}, "additionalProperties" = {"type": "string", "format": "subnet-id", "examples": ["subnet-0123456789abcdef0"]}),
        example = serde_json::json!({})
    )]
    pub public_subnets: BTreeMap<String, String>,
    /// By zone: the subnet for instances behind the load balancer. Its default route leads to a NAT gateway that is there.
    #[schemars(
        extend("minProperties" = 1, "propertyNames" = {"format": "aws-zone"}, "additionalProperties" = {"type": "string", "format": "subnet-id", "examples": ["subnet-0123456789abcdef0"]}),
        example = serde_json::json!({})
    )]
    pub private_subnets: BTreeMap<String, String>,
}

/// Where Terraform's state is kept, with a lock file beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateBucket {
    /// Name of the bucket, which has to be there, best with versions kept.
    #[schemars(with = "String", extend("format" = "bucket-name"), example = &"example-terraform-state")]
    pub bucket: String,
    /// What the key begins with; edge and topology follow.
    #[serde(default = "default_prefix")]
    #[schemars(with = "String", extend("format" = "key-prefix", "x-reason" = "tells it from the states of other tools in one bucket"))]
    pub prefix: String,
    /// Region of the bucket. Absent: the edge's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "aws-region", "pattern" = "^[a-z]{2}(-[a-z]+)+-[0-9]$"))]
    pub region: Option<String>,
}

/// One for all zones, or one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = &"per-zone")]
pub enum Count {
    /// One, in the first zone.
    One,
    /// One in each zone.
    PerZone,
}

/// How instances are replaced by those of a new version. What is absent follows from topology and target; `sipedge plan` prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Refresh {
    /// Percent of the instances that have to be in service at every moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 100))]
    pub min_healthy: Option<u32>,
    /// Percent of the instances that there may be at most. Above 100: new ones are launched before old ones leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 100, max = 200))]
    pub max_healthy: Option<u32>,
    /// Percents of replaced instances at which the refresh waits, rising, the last 100. At the first the smoke call is placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<u32>", length(min = 1, max = 10), extend("items" = {"type": "integer", "minimum": 1, "maximum": 100, "examples": [100]}))]
    pub checkpoints: Option<Vec<u32>>,
    /// How long it waits at each checkpoint: the smoke call has to end within it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration", extend("x-minimum" = "0s", "x-maximum" = "48h"))]
    pub checkpoint_delay: Option<Duration>,
    /// How long alarms are watched after the last instance, before the old version is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration", extend("x-minimum" = "0s", "x-maximum" = "48h"))]
    pub bake: Option<Duration>,
    /// After this long the refresh is rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration", extend("x-minimum" = "10s", "x-maximum" = "48h"))]
    pub timeout: Option<Duration>,
    /// How long a new instance is in service before it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration", extend("x-minimum" = "0s", "x-maximum" = "1h"))]
    pub warmup: Option<Duration>,
}

/// Who is told when something is wrong. The alarms are there in any case: one that goes off rolls a refresh back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Alarms {
    /// Mail addresses. AWS asks each for its consent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("items" = {"type": "string", "format": "email", "examples": ["noc@example.com"]}))]
    pub email: Vec<String>,
    /// HTTPS addresses that take notifications of SNS, such as an integration of PagerDuty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("items" = {"type": "string", "format": "https-url", "examples": ["https://events.pagerduty.com/integration/KEY/enqueue"]}))]
    pub https: Vec<String>,
    /// A channel of Slack, in a workspace that the account's Amazon Q Developer in chat applications is allowed to write to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Slack")]
    pub slack: Option<Slack>,
    /// Percent of CPU, averaged over the instances, above which an alarm goes off.
    #[schemars(range(min = 1, max = 100), extend("x-reason" = "scaling out begins at 70 %; more means that it does not suffice"))]
    pub cpu: u32,
}

/// A channel of Slack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// Id of the workspace, such as `T07EXAMPLE1`.
    #[schemars(with = "String", extend("format" = "slack-workspace", "pattern" = "^[TE][0-9A-Z]{6,14}$"), example = &"T07EXAMPLE1")]
    pub workspace: String,
    /// Id of the channel, such as `C07EXAMPLE1`.
    #[schemars(with = "String", extend("format" = "slack-channel", "pattern" = "^[CG][0-9A-Z]{6,14}$"), example = &"C07EXAMPLE1")]
    pub channel: String,
}

/// Names in a hosted zone of Route 53.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// The public hosted zone, which has to be there.
    #[schemars(with = "String", extend("format" = "host-name"), example = &"example.com")]
    pub zone: String,
    /// The edge's name in it: A records with the ingress addresses. It is advertised in place of the ingress address.
    #[schemars(with = "String", extend("format" = "host-name"), example = &"sip.example.com")]
    pub name: String,
    /// Whether there are SRV records too, for each transport that the edge takes (RFC 3263).
    #[serde(default = "yes")]
    #[schemars(extend("x-reason" = "a peer that asks for SRV first learns ports and transports from it"))]
    pub srv: bool,
    /// The topology that the name stands for.
    #[serde(default = "load_balanced")]
    #[schemars(extend("x-reason" = "both topologies may be up at once, and a name leads to one of them"))]
    pub topology: NamedTopology,
}

/// A topology, as the spec names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = &"load-balanced")]
pub enum NamedTopology {
    /// One instance.
    SingleEc2,
    /// A group behind a load balancer.
    LoadBalanced,
}

impl Count {
    /// As the spec writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::PerZone => "per-zone",
        }
    }
}

impl Default for Alarms {
    fn default() -> Self {
        Self { email: Vec::new(), https: Vec::new(), slack: None, cpu: 80 }
    }
}

fn default_profile() -> String {
    "default".into()
}

fn default_instance_type() -> String {
    "t3.small".into()
}

fn default_rules() -> u32 {
    60
}

fn default_prefix() -> String {
    "sipedge".into()
}

fn yes() -> bool {
    true
}

fn load_balanced() -> NamedTopology {
    NamedTopology::LoadBalanced
}
