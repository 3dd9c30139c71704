//! What a plan says of the AWS account: its own types, and how they follow from the spec.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sipedge_proxy::config::Drain;

use super::{Defaulted, Scaling, TargetKind, Topology};
use crate::spec::{Count, Duration, NamedTopology, Refresh, Spec};

/// Seconds that deregistering takes in practice beyond its delay: so much earlier than the instance refuses calls the delay ends, and the
/// terminating lifecycle hook waits so much longer than the instance.
const DEREGISTERING_S: u32 = 120;

/// Longest deregistration delay that a target group takes, in seconds (Elastic Load Balancing, "Target groups for your Network Load
/// Balancers").
const DEREGISTRATION_MAX_S: u32 = 3_600;

/// Seconds until an instance that has not called itself is given up: booting takes half a minute, and a parameter or a domain that is
/// not there yet is asked for again.
const READY_HOOK_S: u32 = 300;

/// Seconds until a Network Load Balancer sends calls to an instance that is in service: registering takes minutes in
/// practice, then come two health checks of 30 s (Elastic Load Balancing, "Target health status": initial).
const REGISTERING_S: u32 = 240;

/// GiB of the root volume: the image has under 1, capture files and logs have the rest.
const VOLUME_GIB: u32 = 8;

/// The part of the largest group, in percent, at which an alarm tells that it can hardly grow: 8 of 10.
const DESIRED_ALARM_PERCENT: u32 = 80;

/// What the plan needs of the AWS account. Names that AWS resources bear are in [`AwsPlan::resource_name`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsPlan {
    /// Region.
    pub region: String,
    /// Profile of the AWS configuration files.
    pub profile: String,
    /// `sipedge-EDGE-TOPOLOGY`: name of autoscaling group, launch template, role, dashboard and topic, and what alarms begin with.
    pub resource_name: String,
    /// What SSM parameters begin with: `/sipedge/EDGE/TOPOLOGY`.
    pub parameter_prefix: String,
    /// EC2 instance type.
    pub instance_type: String,
    /// Image; absent: the newest that sipedge has made in the account.
    pub image: Option<String>,
    /// Where Terraform's state is kept; absent: a file in the project's folder.
    pub state: Option<StatePlan>,
    /// The VPC, when it is there already.
    pub vpc: Option<VpcPlan>,
    /// NAT gateways; absent for single-ec2, which has none.
    pub egress: Option<EgressPlan>,
    /// When the group grows and shrinks; absent for single-ec2, which does not.
    pub tracking: Option<TrackingPlan>,
    /// Alarms and who is told.
    pub alarms: AlarmsPlan,
    /// Names, when the spec has them and they stand for this topology.
    pub dns: Option<DnsPlan>,
    /// Inbound rules that the account admits in one security group.
    pub rules_quota: u32,
    /// Tags that everything bears.
    pub tags: BTreeMap<String, String>,
    /// Deregistration delay of the target groups, in seconds; absent for single-ec2.
    pub deregistration_delay_s: Option<u32>,
    /// Timeout of the launching lifecycle hook, in seconds.
    pub ready_hook_timeout_s: u32,
    /// Timeout of the terminating lifecycle hook, in seconds.
    pub termination_hook_timeout_s: u32,
    /// Size of the root volume, in GiB.
    pub volume_gib: u32,
}

/// Terraform's state in S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePlan {
    /// Bucket.
    pub bucket: String,
    /// Key: prefix, edge, topology.
    pub key: String,
    /// Region of the bucket.
    pub region: String,
}

/// A VPC that is there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcPlan {
    /// Its id.
    pub id: String,
    /// Public subnet of each zone of the plan.
    pub public_subnet_ids: BTreeMap<String, String>,
    /// Private subnet of each zone of the plan; empty for single-ec2.
    pub private_subnet_ids: BTreeMap<String, String>,
}

/// The way out of a load-balanced edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressPlan {
    /// One NAT gateway, or one per zone.
    pub gateways: Count,
    /// Elastic IPs of each, 1 to 8.
    pub addresses: u32,
}

/// What the group is scaled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackingPlan {
    /// Percent of CPU, averaged over the instances.
    pub cpu_percent: u32,
    /// Bytes per second that one instance receives, averaged over the instances.
    pub network_in_bytes: u64,
}

/// Alarms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmsPlan {
    /// Mail addresses that are told.
    pub email: Vec<String>,
    /// HTTPS addresses that are told.
    pub https: Vec<String>,
    /// Slack workspace and channel that are told.
    pub slack: Option<SlackPlan>,
    /// Percent of CPU above which an alarm goes off.
    pub cpu_percent: u32,
    /// Desired capacity from which on an alarm tells that the group can hardly grow; absent where that would be its usual size.
    pub desired: Option<u32>,
}

/// A channel of Slack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlackPlan {
    /// Workspace id.
    pub workspace: String,
    /// Channel id.
    pub channel: String,
}

/// Names in Route 53.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsPlan {
    /// Hosted zone, with its final dot.
    pub zone: String,
    /// The edge's name in it, without a final dot.
    pub name: String,
    /// Whether there are SRV records.
    pub srv: bool,
}

/// How a refresh goes about its work, on either target (RefreshPreferences of StartInstanceRefresh, and when sipedge gives up).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshPlan {
    /// Percent of the desired capacity that has to be in service at every moment, 0 to 100.
    pub min_healthy_percent: u32,
    /// Percent that may be there at most, 100 to 200.
    pub max_healthy_percent: u32,
    /// Percents of replaced instances at which the refresh waits; rising, the last is 100.
    pub checkpoints: Vec<u32>,
    /// Seconds that it waits at each.
    pub checkpoint_delay_s: u32,
    /// Seconds of watching after the last replacement.
    pub bake_s: u32,
    /// Seconds that a new instance is in service before it counts.
    pub warmup_s: u32,
    /// Whether instances that are of the version already stay.
    pub skip_matching: bool,
    /// Seconds after which it is rolled back.
    pub timeout_s: u32,
}

impl Default for RefreshPlan {
    fn default() -> Self {
        defaults(Topology::LoadBalanced, TargetKind::Aws)
    }
}

/// The figures of a refresh where the spec says nothing.
fn defaults(topology: Topology, target: TargetKind) -> RefreshPlan {
    let single = topology == Topology::SingleEc2;
    let lab = target == TargetKind::Lab;
    RefreshPlan {
        min_healthy_percent: 100,
        // A group of one doubles for the time of its refresh.
        max_healthy_percent: if single { 200 } else { 150 },
        checkpoints: if single { vec![100] } else { vec![10, 100] },
        checkpoint_delay_s: if lab { 1 } else { 120 },
        bake_s: if lab { 1 } else { 300 },
        warmup_s: match (target, topology) {
            (TargetKind::Lab, _) => 0,
            (TargetKind::Aws, Topology::SingleEc2) => 30,
            (TargetKind::Aws, Topology::LoadBalanced) => REGISTERING_S,
        },
        skip_matching: true,
        timeout_s: if lab { 180 } else { 7_200 },
    }
}

/// The refresh of `spec` as `topology` on `target`. A single instance is replaced by a second one whatever the spec says.
pub(super) fn refresh(spec: &Spec, topology: Topology, target: TargetKind) -> RefreshPlan {
    let usual = defaults(topology, target);
    let Refresh { min_healthy, max_healthy, checkpoints, checkpoint_delay, bake, timeout, warmup } = &spec.refresh;
    let seconds = |said: &Option<Duration>, usual: u32| said.map_or(usual, Duration::as_secs_up);
    let single = topology == Topology::SingleEc2;
    RefreshPlan {
        min_healthy_percent: min_healthy.filter(|_| !single).unwrap_or(usual.min_healthy_percent),
        max_healthy_percent: max_healthy.filter(|_| !single).unwrap_or(usual.max_healthy_percent),
        checkpoints: checkpoints.clone().filter(|_| !single).unwrap_or(usual.checkpoints),
        checkpoint_delay_s: seconds(checkpoint_delay, usual.checkpoint_delay_s),
        bake_s: seconds(bake, usual.bake_s),
        warmup_s: seconds(warmup, usual.warmup_s),
        skip_matching: usual.skip_matching,
        timeout_s: seconds(timeout, usual.timeout_s),
    }
}

/// What `refresh` has that the spec leaves out, each with its reason.
pub(super) fn refresh_defaults(spec: &Spec, topology: Topology, refresh: &RefreshPlan) -> Vec<Defaulted> {
    let single = topology == Topology::SingleEc2;
    let said = &spec.refresh;
    let span = |seconds: u32| Duration::from_secs(seconds).to_string();
    let list: Vec<String> = refresh.checkpoints.iter().map(u32::to_string).collect();
    let first = if single {
        "the only instance is called before the old one is gone"
    } else {
        "the first instance, or a tenth of them, is called before the others follow"
    };
    let beside = if single {
        "the new instance is up and has called itself before the Elastic IP moves"
    } else {
        "new instances are ready before old ones leave, half as many at a time"
    };
    [
        (
            "min_healthy",
            said.min_healthy.is_some() && !single,
            refresh.min_healthy_percent.to_string(),
            "no capacity is lost while instances are replaced",
        ),
        ("max_healthy", said.max_healthy.is_some() && !single, refresh.max_healthy_percent.to_string(), beside),
        ("checkpoints", said.checkpoints.is_some() && !single, format!("[{}]", list.join(", ")), first),
        (
            "checkpoint_delay",
            said.checkpoint_delay.is_some(),
            span(refresh.checkpoint_delay_s),
            "the smoke call ends within it, and two periods of an alarm",
        ),
        ("bake", said.bake.is_some(), span(refresh.bake_s), "an alarm that the new version causes goes off within it"),
        ("timeout", said.timeout.is_some(), span(refresh.timeout_s), "several rounds of starting and draining"),
        (
            "warmup",
            said.warmup.is_some(),
            span(refresh.warmup_s),
            if single {
                "it has called itself before it counts"
            } else {
                "the load balancer takes up to minutes to register it, and two health checks 30 s apart to send it calls"
            },
        ),
    ]
    .into_iter()
    .filter(|(_, said, ..)| !said)
    .map(|(setting, _, value, reason)| Defaulted {
        setting: format!("refresh.{setting}"),
        value,
        reason: reason.into(),
    })
    .collect()
}

/// What the group and all that belongs to it is called.
pub(super) fn resource_name(edge: &str, topology: Topology) -> String {
    format!("sipedge-{edge}-{topology}")
}

/// What the SSM parameters of an edge begin with.
pub(super) fn parameter_prefix(name: &str, topology: Topology) -> String {
    format!("/sipedge/{name}/{topology}")
}

/// What `spec` as `topology` needs of the account; `drain`: how its instances leave.
pub(super) fn aws(spec: &Spec, topology: Topology, zones: &[String], scaling: Scaling, drain: &Drain) -> AwsPlan {
    let balanced = topology == Topology::LoadBalanced;
    let seconds = |ms: u32| ms.div_ceil(1_000);
    let delay = seconds(drain.accept_ms).saturating_sub(DEREGISTERING_S).min(DEREGISTRATION_MAX_S);
    let desired = (scaling.max * DESIRED_ALARM_PERCENT).div_ceil(100);
    let subnets = |all: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        all.iter().filter(|(zone, _)| zones.contains(zone)).map(|(zone, id)| (zone.clone(), id.clone())).collect()
    };
    let mut tags = spec.aws.tags.clone();
    tags.insert("sipedge:edge".into(), spec.name.clone());
    tags.insert("sipedge:topology".into(), topology.to_string());
    AwsPlan {
        region: spec.aws.region.clone(),
        profile: spec.aws.profile.clone(),
        resource_name: resource_name(&spec.name, topology),
        parameter_prefix: parameter_prefix(&spec.name, topology),
        instance_type: spec.aws.instance_type.clone(),
        image: spec.aws.image.clone(),
        state: spec.aws.state.as_ref().map(|state| StatePlan {
            bucket: state.bucket.clone(),
            key: format!("{}/{}/{topology}.tfstate", state.prefix, spec.name),
            region: state.region.clone().unwrap_or_else(|| spec.aws.region.clone()),
        }),
        vpc: spec.aws.vpc.as_ref().map(|vpc| VpcPlan {
            id: vpc.id.clone(),
            public_subnet_ids: subnets(&vpc.public_subnets),
            private_subnet_ids: if balanced { subnets(&vpc.private_subnets) } else { BTreeMap::new() },
        }),
        egress: balanced.then_some(EgressPlan { gateways: spec.egress.gateways, addresses: spec.egress.addresses }),
        tracking: balanced.then_some(TrackingPlan {
            cpu_percent: spec.scaling.cpu,
            network_in_bytes: u64::from(spec.scaling.network_in) * 1_000_000,
        }),
        alarms: AlarmsPlan {
            email: spec.alarms.email.clone(),
            https: spec.alarms.https.clone(),
            slack: spec
                .alarms
                .slack
                .as_ref()
                .map(|slack| SlackPlan { workspace: slack.workspace.clone(), channel: slack.channel.clone() }),
            cpu_percent: spec.alarms.cpu,
            desired: Some(desired).filter(|desired| balanced && *desired > scaling.min),
        },
        dns: spec.dns.as_ref().filter(|dns| named(dns.topology) == topology).map(|dns| DnsPlan {
            zone: dns.zone.to_ascii_lowercase() + ".",
            name: dns.name.to_ascii_lowercase(),
            srv: dns.srv,
        }),
        rules_quota: spec.aws.rules_quota,
        tags,
        deregistration_delay_s: balanced.then_some(delay),
        ready_hook_timeout_s: READY_HOOK_S,
        termination_hook_timeout_s: seconds(drain.grace_ms) + DEREGISTERING_S,
        volume_gib: VOLUME_GIB,
    }
}

/// The topology that the spec names.
pub(super) fn named(topology: NamedTopology) -> Topology {
    match topology {
        NamedTopology::SingleEc2 => Topology::SingleEc2,
        NamedTopology::LoadBalanced => Topology::LoadBalanced,
    }
}
