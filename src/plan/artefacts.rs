//! The files of a plan: text by templates, data by serde.

use std::collections::BTreeMap;

use askama::Template;
use ipnet::Ipv4Net;
use serde::Serialize;

use super::hand_off::{Addresses, hand_off};
use super::{
    AwsPlan, DnsPlan, EgressPlan, Listener, Plan, PlanError, Spreading, TargetKind, Topology, TrackingPlan,
    USER_DATA_LIMIT, VpcPlan,
};
use crate::spec::SHORTEST_PREFIX;

/// Under which the operators' ranges stand beside the carriers'. No carrier's name has a capital.
const OPERATORS: &str = "Operators";

#[derive(Template)]
#[template(path = "user-data.yaml", escape = "none")]
struct UserData<'a> {
    name: &'a str,
    topology: Topology,
    target: TargetKind,
    version: u32,
    config: &'a str,
}

/// The user-data of each instance: what it is, as comments, and the configuration.
pub(crate) fn user_data(plan: &Plan) -> Result<String, PlanError> {
    let config = config_yaml(plan)?;
    let template = UserData {
        name: &plan.name,
        topology: plan.topology,
        target: plan.target,
        version: plan.proxy.version,
        config: config.trim_end(),
    };
    let text = template.render().map_err(|error| fault("user-data.tftpl", &error))? + "\n";
    if text.len() > USER_DATA_LIMIT {
        return Err(PlanError::UserDataTooLarge { bytes: text.len() });
    }
    Ok(text)
}

/// All files by name.
pub(super) fn all(plan: &Plan, aws: &AwsPlan) -> Result<BTreeMap<String, String>, PlanError> {
    Ok(BTreeMap::from([
        ("proxy.yaml".to_owned(), config_yaml(plan)?),
        ("user-data.tftpl".to_owned(), plan.user_data.clone()),
        (format!("{}.auto.tfvars.json", plan.topology), variables(plan, aws)?),
        ("hand-off.md".to_owned(), hand_off(plan, &Addresses::of(plan))?),
    ]))
}

fn config_yaml(plan: &Plan) -> Result<String, PlanError> {
    serde_yaml::to_string(&plan.proxy).map_err(|error| fault("proxy.yaml", &error))
}

pub(super) fn fault(artefact: &'static str, error: &dyn std::error::Error) -> PlanError {
    PlanError::Artefact { artefact, reason: error.to_string() }
}

/// Input variables of the Terraform root module `terraform/TOPOLOGY`, in alphabetical order.
#[derive(Serialize)]
struct Variables<'a> {
    admin_port: u16,
    alarms: AlarmVariables<'a>,
    carrier_ranges: BTreeMap<&'a str, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deregistration_delay_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<&'a DnsPlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<EgressPlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    existing_vpc: Option<&'a VpcPlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check: Option<HealthCheckVariables<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_id: Option<&'a str>,
    ingress_port: u16,
    instance_type: &'a str,
    listeners: &'a [Listener],
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    open_to_the_world: bool,
    parameter_prefix: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_subnets: Option<BTreeMap<&'a str, Ipv4Net>>,
    profile: &'a str,
    public_subnets: BTreeMap<&'a str, Ipv4Net>,
    ready_hook_timeout_s: u32,
    region: &'a str,
    rules_quota: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    scaling: Option<ScalingVariables>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spreading: Option<&'static str>,
    tags: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_tracking: Option<TrackingPlan>,
    termination_hook_timeout_s: u32,
    udp_stream_timeout_s: u32,
    udp_timeout_s: u32,
    user_data_template: &'static str,
    volume_gib: u32,
    vpc_cidr: Ipv4Net,
    warmup_s: u32,
    zones: Vec<&'a str>,
}

#[derive(Serialize)]
struct HealthCheckVariables<'a> {
    healthy: u32,
    interval_s: u32,
    path: &'a str,
    port: u16,
    unhealthy: u32,
}

#[derive(Serialize)]
struct AlarmVariables<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    chatbot: Option<ChatbotVariables<'a>>,
    cpu_percent: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    desired: Option<u32>,
    notify: Vec<NotifyVariables<'a>>,
}

#[derive(Serialize)]
struct ChatbotVariables<'a> {
    slack_channel_id: &'a str,
    slack_workspace_id: &'a str,
}

#[derive(Serialize)]
struct NotifyVariables<'a> {
    endpoint: &'a str,
    protocol: &'static str,
}

#[derive(Serialize)]
struct ScalingVariables {
    max: u32,
    min: u32,
}

/// Connection tracking of the instances' network interfaces, seconds: the longest that EC2 takes, so that a callee may ring for a
/// minute without a packet (Amazon EC2 User Guide, "Connection tracking", idle timeouts).
const UDP_TIMEOUT_S: u32 = 60;
const UDP_STREAM_TIMEOUT_S: u32 = 180;

fn variables(plan: &Plan, aws: &AwsPlan) -> Result<String, PlanError> {
    let balanced = plan.topology == Topology::LoadBalanced;
    let check = &plan.network.health_check;
    let zones = &plan.network.zones;
    let ranges = || plan.carriers.iter().flat_map(|carrier| carrier.ranges.iter().map(|range| range.used));
    let operators: Vec<String> = plan.verify.operators.iter().map(ToString::to_string).collect();
    let operators = (!operators.is_empty()).then_some((OPERATORS, operators));
    let variables = Variables {
        admin_port: check.port,
        alarms: AlarmVariables {
            chatbot: aws.alarms.slack.as_ref().map(|slack| ChatbotVariables {
                slack_channel_id: &slack.channel,
                slack_workspace_id: &slack.workspace,
            }),
            cpu_percent: aws.alarms.cpu_percent,
            desired: aws.alarms.desired,
            notify: (aws.alarms.email.iter().map(|endpoint| NotifyVariables { endpoint, protocol: "email" }))
                .chain(aws.alarms.https.iter().map(|endpoint| NotifyVariables { endpoint, protocol: "https" }))
                .collect(),
        },
        carrier_ranges: plan
            .carriers
            .iter()
            .map(|carrier| (carrier.name.as_str(), carrier.ranges.iter().map(|range| range.used.to_string()).collect()))
            .chain(operators)
            .collect(),
        deregistration_delay_s: aws.deregistration_delay_s,
        dns: aws.dns.as_ref(),
        egress: aws.egress,
        egress_port: balanced.then_some(plan.proxy.listen.egress_port),
        existing_vpc: aws.vpc.as_ref(),
        health_check: balanced.then_some(HealthCheckVariables {
            healthy: check.healthy,
            interval_s: check.interval_ms.div_ceil(1_000),
            path: &check.path,
            port: check.port,
            unhealthy: check.unhealthy,
        }),
        image_id: aws.image.as_deref(),
        ingress_port: plan.proxy.listen.ingress_port,
        instance_type: &aws.instance_type,
        listeners: &plan.network.listeners,
        name: &plan.name,
        // The check of the spec lets a shorter range pass only where the trunk says so.
        open_to_the_world: ranges().any(|range| range.prefix_len() < SHORTEST_PREFIX),
        parameter_prefix: &aws.parameter_prefix,
        private_subnets: balanced.then(|| zones.iter().map(|zone| (zone.name.as_str(), zone.private_subnet)).collect()),
        profile: &aws.profile,
        public_subnets: zones.iter().map(|zone| (zone.name.as_str(), zone.public_subnet)).collect(),
        ready_hook_timeout_s: aws.ready_hook_timeout_s,
        region: &aws.region,
        rules_quota: aws.rules_quota,
        scaling: balanced.then_some(ScalingVariables { max: plan.scaling.max, min: plan.scaling.min }),
        spreading: balanced.then_some(match plan.network.spreading {
            Spreading::SourceIp => "source-ip",
            Spreading::FiveTuple => "five-tuple",
        }),
        tags: &aws.tags,
        target_tracking: aws.tracking,
        termination_hook_timeout_s: aws.termination_hook_timeout_s,
        udp_stream_timeout_s: UDP_STREAM_TIMEOUT_S,
        udp_timeout_s: UDP_TIMEOUT_S,
        user_data_template: "user-data.tftpl",
        volume_gib: aws.volume_gib,
        vpc_cidr: plan.network.vpc,
        warmup_s: plan.refresh.warmup_s,
        zones: zones.iter().map(|zone| zone.name.as_str()).collect(),
    };
    let json = serde_json::to_string_pretty(&variables).map_err(|error| fault("auto.tfvars.json", &error))?;
    Ok(json + "\n")
}
