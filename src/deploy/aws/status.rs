//! What stands in the account, as `sipedge status` tells it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use serde::Serialize;

use super::super::error::Cause;
use super::super::fleet::{Fleet, Group, Member, ProxyAnswer, Refresh};
use super::super::journal::Run;
use super::super::state::{Damage, State};
use super::super::status::{duration, render_run};
use super::proxies::Proxies;
use super::{AwsFleet, Connections, account};
use crate::plan::{Plan, Topology};
use crate::target::aws::Outputs;

/// One topology's part of the report.
#[derive(Debug, Clone, Serialize)]
pub struct AwsStatus {
    /// Name of the edge.
    pub edge: String,
    /// The topology.
    pub topology: Topology,
    /// Always `aws`.
    pub target: &'static str,
    /// Whether the account has its group.
    pub running: bool,
    /// Whether a call has passed since the last deploy, refresh or rollback.
    pub verified: bool,
    /// Where calls come in.
    pub ingress_addresses: Vec<IpAddr>,
    /// Where calls go out from.
    pub egress_addresses: Vec<IpAddr>,
    /// Port of the ingress addresses.
    pub ingress_port: Option<u16>,
    /// The group and its instances, when the account could be asked.
    pub group: Option<Group>,
    /// Seconds since the instances' proxies were asked how they are.
    pub proxies_age_s: Option<u64>,
    /// The newest launch template version that Terraform has made.
    pub newest_version: Option<u64>,
    /// A refresh that is in progress.
    pub refresh: Option<Refresh>,
    /// Alarms that are in alarm.
    pub alarms: Vec<String>,
    /// Why it is not known what is in the account.
    pub unknown: Option<String>,
    /// Whether the account did not answer. What it lacks, it has answered.
    pub unreachable: bool,
    /// The last deploy or destroy.
    pub last_run: Option<Run>,
    /// Parts of the state that cannot be used.
    pub damages: Vec<Damage>,
}

/// Looks at one topology. Changes nothing. A connection is made once, for as long as `connections` are kept.
pub fn status(state: &State, connections: &mut Connections) -> AwsStatus {
    let plan = state.plan().ok().flatten();
    let outputs = state.outputs().ok().flatten();
    let journal = state.journal().unwrap_or_default();
    let mut status = AwsStatus {
        edge: state.edge().to_owned(),
        topology: state.topology(),
        target: "aws",
        running: false,
        verified: false,
        ingress_addresses: outputs.iter().flat_map(|outputs| outputs.ingress_addresses.clone()).collect(),
        egress_addresses: outputs.iter().flat_map(|outputs| outputs.egress_addresses.clone()).collect(),
        ingress_port: plan.as_ref().map(|plan| plan.proxy.listen.ingress_port),
        group: None,
        proxies_age_s: None,
        newest_version: outputs.as_ref().map(|outputs| outputs.launch_template_version),
        refresh: None,
        alarms: Vec::new(),
        unknown: None,
        unreachable: false,
        last_run: journal.last().cloned(),
        damages: state.damages(),
    };
    let (Some(plan), Some(outputs)) = (plan, outputs) else { return status };
    if let Err(cause) = ask(&plan, &outputs, state, connections, &mut status) {
        status.unreachable = matches!(cause, Cause::Aws(_));
        status.unknown = Some(cause.to_string());
        connections.forget();
    }
    status
}

fn ask(
    plan: &Plan,
    outputs: &Outputs,
    state: &State,
    connections: &mut Connections,
    status: &mut AwsStatus,
) -> Result<(), Cause> {
    let kept = connections.take_proxies(&outputs.group_name);
    let aws = connections.to(account(plan)?)?;
    let fleet = AwsFleet::new(aws, plan, outputs);
    let group = fleet.group()?;
    status.running = true;
    status.verified = is_verified(group.version, state);
    status.group = Some(group);
    status.refresh = fleet.refresh_in_progress()?;
    status.alarms = fleet.alarms()?;
    if let Some(group) = &mut status.group {
        let proxies = Proxies::of(group, kept, plan, aws);
        proxies.complete(group);
        status.proxies_age_s = Some(proxies.age_s());
        connections.keep_proxies(&outputs.group_name, proxies);
    }
    Ok(())
}

/// Whether a call has passed through the live version since the last deploy, refresh or rollback began that came to change something.
fn is_verified(version: u64, state: &State) -> bool {
    let since = state.journal().ok().and_then(|journal| journal.changed_unix_ms()).unwrap_or_default();
    let last = state.versions().ok().and_then(|versions| versions.verified.last().copied());
    last.is_some_and(|good| good.version == version && good.verified_unix_ms >= since)
}

impl AwsStatus {
    /// As text.
    pub fn render(&self) -> String {
        let verified = if self.verified { "verified by a call" } else { "not verified by a call" };
        let mut text = match (&self.group, &self.unknown) {
            (Some(_), _) => format!("{} {} on AWS: up, {verified}\n", self.edge, self.topology),
            (None, Some(reason)) => {
                format!("{} {} on AWS: cannot be asked: {reason}\n", self.edge, self.topology)
            }
            (None, None) => format!("{} {} on AWS: not finished\n", self.edge, self.topology),
        };
        let port = self.ingress_port.map(|port| format!(":{port}")).unwrap_or_default();
        let list = |addresses: &[IpAddr], port: &str| {
            addresses.iter().map(|address| format!("{address}{port}")).collect::<Vec<_>>().join(", ")
        };
        // Writing to a String cannot fail.
        if !self.ingress_addresses.is_empty() {
            let _ = writeln!(text, "  calls come in at  {}", list(&self.ingress_addresses, &port));
            let _ = writeln!(text, "  calls go out from {}", list(&self.egress_addresses, ""));
        }
        if let Some(group) = &self.group {
            let newest = self.newest_version.unwrap_or(group.version);
            let _ = writeln!(
                text,
                "  {} of {} to {} instances, version {}{}",
                group.instances.len(),
                group.min,
                group.max,
                group.version,
                if newest > group.version { format!(" (newest: {newest})") } else { String::new() }
            );
            render_instances(&group.instances, self.proxies_age_s, &mut text);
        }
        if let Some(refresh) = &self.refresh {
            let _ = writeln!(
                text,
                "  refresh to version {}: {} % ({:?})",
                refresh.version, refresh.percent, refresh.status
            );
        }
        if !self.alarms.is_empty() {
            let _ = writeln!(text, "  in alarm: {}", self.alarms.join(", "));
        }
        if let Some(run) = &self.last_run {
            let _ = writeln!(text, "  last {}", render_run(run));
        }
        for damage in &self.damages {
            let _ = writeln!(text, "  damaged: {damage}");
        }
        text
    }
}

/// A table of the instances, and below it what is not known of them.
fn render_instances(instances: &[Member], age_s: Option<u64>, text: &mut String) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "  {:<20} {:<16} {:<14} {:<8} {:<12} {:<10} {:<18} {:<6} in progress",
        "instance", "address", "zone", "version", "life", "health", "proxy", "calls"
    );
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut known = Vec::new();
    for instance in instances {
        let address = instance.address.map(|address| address.to_string()).unwrap_or_default();
        let health = if instance.healthy { "healthy" } else { "unhealthy" };
        let life = format!("{:?}", instance.lifecycle).to_lowercase();
        let dash = || "-".to_owned();
        let (mut proxy, mut calls) = (dash(), dash());
        match &instance.proxy {
            Some(ProxyAnswer::Known(state)) => {
                let since = state.draining_s.map(|seconds| format!(" for {}", duration(seconds)));
                proxy = format!("{}{}", state.state, since.unwrap_or_default());
                calls = state.calls.map_or_else(dash, |calls| calls.to_string());
                known.push((&instance.id, state));
            }
            Some(ProxyAnswer::Unknown { unknown: reason }) => unknown.entry(reason).or_default().push(&instance.id),
            None => {}
        }
        let in_progress = instance.in_progress.map_or_else(dash, |count| count.to_string());
        let _ = writeln!(
            text,
            "  {:<20} {address:<16} {:<14} {:<8} {life:<12} {health:<10} {proxy:<18} {calls:<6} {in_progress}",
            instance.id, instance.zone, instance.version
        );
    }
    if !known.is_empty() {
        let age = age_s.filter(|seconds| *seconds > 0).map(|seconds| format!(", {} ago", duration(seconds)));
        let all = if known.iter().any(|(_, state)| state.calls.is_some()) {
            "calls: those of trunks with limits.calls"
        } else {
            "calls are counted on trunks with limits.calls, and no trunk has it"
        };
        let _ = writeln!(text, "  {all}; in progress: requests without a final response{}", age.unwrap_or_default());
    }
    for (id, state) in known {
        if let Some(trouble) = &state.trouble {
            let _ = writeln!(text, "  {id}: {trouble}");
        }
    }
    for (reason, ids) in unknown {
        let _ = writeln!(text, "  proxy and calls of {} are not known: {reason}", ids.join(", "));
    }
}
