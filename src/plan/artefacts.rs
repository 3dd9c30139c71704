//! The files of a plan: text by templates, data by serde.

use std::collections::BTreeMap;
use std::net::IpAddr;

use askama::Template;
use ipnet::Ipv4Net;
use serde::Serialize;
use sipedge_proxy::config::SecretRef;

use super::{
    EGRESS_ADDRESS, INGRESS_ADDRESS, Listener, Plan, PlanError, Spreading, TargetKind, Topology, USER_DATA_LIMIT,
};
use crate::spec::Spec;
use sipedge_proxy::config::Advertise;

/// EC2 instance type: 2 vCPU and 2 GiB carry 150-200 calls and 20-30 calls per second today.
const INSTANCE_TYPE: &str = "t3.small";

/// Seconds between the end of the deregistration delay and that of the terminating lifecycle hook: what deregistering takes in practice.
const HOOK_MARGIN_S: u32 = 120;

/// Longest deregistration delay that a target group takes, in seconds.
const DEREGISTRATION_MAX_S: u32 = 3_600;

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
pub(super) fn user_data(plan: &Plan) -> Result<String, PlanError> {
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
pub(super) fn all(spec: &Spec, plan: &Plan) -> Result<BTreeMap<String, String>, PlanError> {
    Ok(BTreeMap::from([
        ("proxy.yaml".to_owned(), config_yaml(plan)?),
        ("user-data.tftpl".to_owned(), plan.user_data.clone()),
        (format!("{}.auto.tfvars.json", plan.topology), variables(spec, plan)?),
        ("hand-off.md".to_owned(), hand_off(spec, plan)?),
    ]))
}

fn config_yaml(plan: &Plan) -> Result<String, PlanError> {
    serde_yaml::to_string(&plan.proxy).map_err(|error| fault("proxy.yaml", &error))
}

fn fault(artefact: &'static str, error: &dyn std::error::Error) -> PlanError {
    PlanError::Artefact { artefact, reason: error.to_string() }
}

/// Input variables of the Terraform root module `terraform/TOPOLOGY`, in alphabetical order.
#[derive(Serialize)]
struct Variables<'a> {
    admin_port: u16,
    carrier_ranges: BTreeMap<&'a str, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deregistration_delay_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check: Option<HealthCheckVariables<'a>>,
    ingress_port: u16,
    instance_type: &'static str,
    listeners: &'a [Listener],
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_subnets: Option<BTreeMap<&'a str, Ipv4Net>>,
    profile: &'a str,
    public_subnets: BTreeMap<&'a str, Ipv4Net>,
    region: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scaling: Option<ScalingVariables>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spreading: Option<&'static str>,
    tags: BTreeMap<&'static str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    termination_hook_timeout_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_keys_parameter: Option<&'a str>,
    udp_stream_timeout_s: u32,
    udp_timeout_s: u32,
    user_data_template: &'static str,
    vpc_cidr: Ipv4Net,
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
struct ScalingVariables {
    max: u32,
    min: u32,
}

/// Connection tracking of the instances' network interfaces, seconds: the longest that EC2 takes, so that a callee may ring for a
/// minute without a packet (Amazon EC2 User Guide, "Connection tracking", idle timeouts).
const UDP_TIMEOUT_S: u32 = 60;
const UDP_STREAM_TIMEOUT_S: u32 = 180;

fn variables(spec: &Spec, plan: &Plan) -> Result<String, PlanError> {
    let balanced = plan.topology == Topology::LoadBalanced;
    let check = &plan.network.health_check;
    let zones = &plan.network.zones;
    let delay = plan.proxy.drain.grace_ms.div_ceil(1_000).min(DEREGISTRATION_MAX_S);
    let operators: Vec<String> = plan.verify.operators.iter().map(ToString::to_string).collect();
    let operators = (!operators.is_empty()).then_some((OPERATORS, operators));
    let variables = Variables {
        admin_port: check.port,
        carrier_ranges: plan
            .carriers
            .iter()
            .map(|carrier| (carrier.name.as_str(), carrier.ranges.iter().map(|range| range.used.to_string()).collect()))
            .chain(operators)
            .collect(),
        deregistration_delay_s: balanced.then_some(delay),
        egress_port: balanced.then_some(plan.proxy.listen.egress_port),
        health_check: balanced.then_some(HealthCheckVariables {
            healthy: check.healthy,
            interval_s: check.interval_ms.div_ceil(1_000),
            path: &check.path,
            port: check.port,
            unhealthy: check.unhealthy,
        }),
        ingress_port: plan.proxy.listen.ingress_port,
        instance_type: INSTANCE_TYPE,
        listeners: &plan.network.listeners,
        name: &plan.name,
        private_subnets: balanced.then(|| zones.iter().map(|zone| (zone.name.as_str(), zone.private_subnet)).collect()),
        profile: &spec.aws.profile,
        public_subnets: zones.iter().map(|zone| (zone.name.as_str(), zone.public_subnet)).collect(),
        region: &spec.aws.region,
        scaling: balanced.then_some(ScalingVariables { max: plan.scaling.max, min: plan.scaling.min }),
        spreading: balanced.then_some(match plan.network.spreading {
            Spreading::SourceIp => "source-ip",
            Spreading::FiveTuple => "five-tuple",
        }),
        tags: BTreeMap::from([("sipedge:edge", plan.name.as_str()), ("sipedge:topology", plan.topology.as_str())]),
        termination_hook_timeout_s: balanced.then_some(delay + HOOK_MARGIN_S),
        token_keys_parameter: match &plan.proxy.secrets.token_keys {
            SecretRef::Ssm(name) => Some(name),
            SecretRef::File(_) => None,
        },
        udp_stream_timeout_s: UDP_STREAM_TIMEOUT_S,
        udp_timeout_s: UDP_TIMEOUT_S,
        user_data_template: "user-data.tftpl",
        vpc_cidr: plan.network.vpc,
        zones: zones.iter().map(|zone| zone.name.as_str()).collect(),
    };
    let json = serde_json::to_string_pretty(&variables).map_err(|error| fault("auto.tfvars.json", &error))?;
    Ok(json + "\n")
}

#[derive(Template)]
#[template(path = "hand-off.md", escape = "none")]
struct HandOff<'a> {
    name: &'a str,
    topology: Topology,
    lab: bool,
    single: bool,
    pending: bool,
    ingress: String,
    egress: String,
    ingress_variable: &'static str,
    egress_variable: &'static str,
    host: String,
    port_suffix: String,
    transports: String,
    tls_port: Option<u16>,
    admit: String,
    called: &'static str,
    sources: Vec<Side>,
    destinations: Vec<Side>,
}

/// A trunk as the sheet names it.
struct Side {
    trunk: String,
    title: String,
    whitelist: String,
    origination: String,
    twiml: bool,
    ranges: String,
    data: String,
    targets: Vec<String>,
    example: String,
    notes: Vec<String>,
}

fn hand_off(spec: &Spec, plan: &Plan) -> Result<String, PlanError> {
    let single = plan.topology == Topology::SingleEc2;
    let listed = |addresses: &[IpAddr], pending: &str| match addresses {
        [] => format!("`{pending}`"),
        known => known.iter().map(|address| format!("`{address}`")).collect::<Vec<_>>().join(", "),
    };
    let ingress = listed(&plan.network.ingress_addresses, INGRESS_ADDRESS);
    let egress = listed(&plan.network.egress_addresses, if single { INGRESS_ADDRESS } else { EGRESS_ADDRESS });
    let host = match (&plan.proxy.advertise, plan.network.ingress_addresses.first()) {
        (Advertise::Host(name), _) if name != INGRESS_ADDRESS => name.clone(),
        (_, Some(address)) => address.to_string(),
        (_, None) => INGRESS_ADDRESS.to_owned(),
    };
    let port = plan.proxy.listen.ingress_port;
    let sides = |filter: &dyn Fn(&str) -> bool| {
        spec.trunks.keys().filter(|name| filter(name)).map(|name| side(spec, plan, name)).collect()
    };
    let sheet = HandOff {
        name: &plan.name,
        topology: plan.topology,
        lab: plan.target == TargetKind::Lab,
        single,
        pending: plan.network.ingress_addresses.is_empty(),
        admit: match (single, plan.proxy.listen.tls.as_ref()) {
            (true, None) => format!("{ingress}, port {port}"),
            (true, Some(tls)) => format!("{ingress}, ports {port} and {} (TLS)", tls.port),
            (false, _) => format!("both {ingress} and {egress}"),
        },
        ingress,
        egress,
        ingress_variable: INGRESS_ADDRESS,
        egress_variable: EGRESS_ADDRESS,
        host,
        // A URI without a port means 5060 for an address, but SRV first for a name.
        port_suffix: format!(":{port}"),
        transports: format!("{}, port {port}", if plan.proxy.listen.tcp { "UDP or TCP" } else { "UDP" }),
        tls_port: plan.proxy.listen.tls.as_ref().map(|tls| tls.port),
        called: "{{To}}",
        sources: sides(&|name| spec.is_source(name)),
        destinations: sides(&|name| spec.is_destination(name)),
    };
    let text = sheet.render().map_err(|error| fault("hand-off.md", &error))?;
    Ok(text + "\n")
}

fn side(spec: &Spec, plan: &Plan, name: &str) -> Side {
    let data = spec.trunks.get(name).and_then(|trunk| trunk.data());
    let ranges: Vec<String> = plan
        .carriers
        .iter()
        .filter(|carrier| carrier.trunks.iter().any(|trunk| trunk == name))
        .flat_map(|carrier| carrier.ranges.iter().map(|range| range.used.to_string()))
        .collect();
    let mut pool: Vec<_> = plan
        .proxy
        .trunks
        .iter()
        .filter(|trunk| trunk.name == name)
        .flat_map(|trunk| trunk.targets.iter().map(|target| (target.priority, target.uri.clone())))
        .collect();
    pool.sort_by_key(|(priority, _)| *priority);
    let targets: Vec<String> = pool.into_iter().map(|(_, uri)| uri).collect();
    let first = targets.first().cloned().unwrap_or_default();
    Side {
        trunk: name.to_owned(),
        title: data.map_or(name, |data| &data.title).to_owned(),
        whitelist: data.map(|data| data.whitelist.clone()).unwrap_or_default(),
        origination: data.map(|data| data.origination.clone()).unwrap_or_default(),
        twiml: data.is_some_and(|data| data.name == "twilio"),
        ranges: ranges.join(", "),
        data: data.map(|data| format!("(As of {}: {})", data.as_of, data.source)).unwrap_or_default(),
        example: first.replacen("sip:", &format!("sip:{}@", spec.verify.number), 1),
        targets,
        notes: data.map(|data| data.notes.clone()).unwrap_or_default(),
    }
}
