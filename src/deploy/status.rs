//! What is deployed now, as `sipedge status` tells it.

use std::fmt::Write;

use serde::Serialize;

use super::fleet::{Fleet, Group, Lifecycle, Refresh};
use super::journal::{Outcome, Run, now_unix_ms};
use super::state::{Damage, State};
use super::versions::Verified;
use crate::plan::{TargetKind, Topology};
use crate::target::lab::{Lab, LabFleet, LabStatus};

/// One topology's part of the report.
#[derive(Debug, Clone, Serialize)]
pub struct TopologyStatus {
    /// Name of the edge.
    pub edge: String,
    /// The topology.
    pub topology: Topology,
    /// Where it is deployed; absent when that is not known.
    pub target: Option<TargetKind>,
    /// Whether it runs.
    pub running: bool,
    /// Since when the infrastructure stands, in seconds.
    pub age_s: Option<u64>,
    /// UDP port of the ingress addresses.
    pub ingress_port: Option<u16>,
    /// Instances and addresses, while it runs.
    pub lab: Option<LabStatus>,
    /// The group, with what each instance has in progress, while it runs.
    pub group: Option<Group>,
    /// The refresh that is in progress, or else the last one.
    pub refresh: Option<Refresh>,
    /// Versions that were found good, the live one last.
    pub verified: Vec<Verified>,
    /// The last deploy or destroy.
    pub last_run: Option<Run>,
    /// Parts of the state that cannot be used.
    pub damages: Vec<Damage>,
}

/// Looks at one topology. Changes nothing.
pub fn status(state: &State) -> TopologyStatus {
    let mut damages = state.damages();
    let plan = state.plan().ok().flatten();
    let journal = state.journal().unwrap_or_default();
    let lab_folder = state.lab_folder();
    let lab = match Lab::attach(&lab_folder).and_then(|lab| lab.map(|lab| lab.status()).transpose()) {
        Ok(lab) => lab,
        Err(error) => {
            if !damages.iter().any(|damage| damage.path == lab_folder) {
                damages.push(Damage { path: lab_folder.clone(), what: error.to_string() });
            }
            None
        }
    };
    let group = lab.as_ref().zip(plan.as_ref()).and_then(|(_, plan)| {
        let lab = Lab::attach(&lab_folder).ok().flatten()?;
        LabFleet::new(&lab, plan).group().ok()
    });
    let since = journal.infrastructure_since_unix_ms.filter(|_| lab.is_some());
    TopologyStatus {
        edge: state.edge().to_owned(),
        topology: state.topology(),
        target: plan.as_ref().map(|plan| plan.target),
        running: lab.is_some(),
        age_s: since.map(|since| now_unix_ms().saturating_sub(since) / 1000),
        ingress_port: plan.as_ref().map(|plan| plan.proxy.listen.ingress_port),
        refresh: lab.as_ref().and_then(|lab| lab.group.refresh.clone()),
        lab,
        group,
        verified: state.versions().unwrap_or_default().verified,
        last_run: journal.last().cloned(),
        damages,
    }
}

impl TopologyStatus {
    /// As text.
    pub fn render(&self) -> String {
        let mut text = format!("{} {}: ", self.edge, self.topology);
        match (&self.lab, self.age_s) {
            (Some(_), Some(age)) => text.push_str(&format!("up for {}\n", duration(age))),
            (Some(_), None) => text.push_str("up\n"),
            (None, _) => text.push_str("down: no process of it runs\n"),
        }
        if let Some(lab) = &self.lab {
            self.render_lab(lab, &mut text);
        }
        if let Some(run) = &self.last_run {
            text.push_str(&format!("  last {}\n", render_run(run)));
        }
        for damage in &self.damages {
            text.push_str(&format!("  damaged: {damage}\n"));
        }
        text
    }

    fn render_lab(&self, lab: &LabStatus, text: &mut String) {
        let port = self.ingress_port.map(|port| format!(":{port}")).unwrap_or_default();
        let ingress: Vec<String> = lab.ingress_addresses.iter().map(|address| format!("{address}{port}")).collect();
        let egress: Vec<String> = lab.egress_addresses.iter().map(ToString::to_string).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  calls come in at  {}", ingress.join(", "));
        let _ = writeln!(text, "  calls go out from {}", egress.join(", "));
        let before = self.verified.iter().rev().map(|verified| verified.version).find(|it| *it < lab.group.version);
        let before = before.map(|version| format!(", before it version {version}")).unwrap_or_default();
        let _ = writeln!(text, "  live is version {}{before}", lab.group.version);
        if let Some(refresh) = &self.refresh {
            let waits = if refresh.at_checkpoint { ", at a checkpoint" } else { "" };
            let reason = refresh.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let (status, percent) = (refresh.status.as_str(), refresh.percent);
            let Refresh { id, version, .. } = refresh;
            let _ = writeln!(text, "  {id} to version {version}: {status}, {percent} % replaced{waits}{reason}");
        }
        let _ = writeln!(
            text,
            "  {:<8} {:<16} {:<12} {:<9} {:<8} {:<12} {:<10} in progress",
            "instance", "address", "zone", "process", "version", "state", "health"
        );
        for instance in &lab.instances {
            let process = match (instance.pid, instance.exit_code) {
                (Some(pid), _) => pid.to_string(),
                (None, Some(code)) => format!("exit {code}"),
                (None, None) => "ended".to_owned(),
            };
            let state = match instance.lifecycle {
                Lifecycle::InService if !instance.registered => "taken out",
                Lifecycle::Terminating => "draining",
                lifecycle => lifecycle.as_str(),
            };
            let health = if instance.healthy { "healthy" } else { "unhealthy" };
            let members = self.group.iter().flat_map(|group| &group.instances);
            let busy = members.into_iter().find(|member| member.id == instance.id.0).and_then(|it| it.in_progress);
            let busy = busy.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let _ = writeln!(
                text,
                "  {:<8} {:<16} {:<12} {process:<9} {:<8} {state:<12} {health:<10} {busy}",
                instance.id.0, instance.address, instance.zone, instance.version
            );
        }
    }
}

pub(super) fn render_run(run: &Run) -> String {
    let command = run.command.name();
    let ago = duration(now_unix_ms().saturating_sub(run.started_unix_ms) / 1000);
    let step = run.unfinished_step().map_or("its start", |step| step.name());
    match (run.outcome, run.ended_unix_ms) {
        (Some(Outcome::Done), Some(ended)) => {
            let took = ended.saturating_sub(run.started_unix_ms);
            format!("{command}: done in {}.{:03} s, {ago} ago", took / 1000, took % 1000)
        }
        (Some(Outcome::Done), None) => format!("{command}: done, {ago} ago"),
        (Some(Outcome::Failed), _) => {
            let detail = run.steps.last().and_then(|record| record.detail.lines().next()).unwrap_or_default();
            format!("{command}: failed in step {step}, {ago} ago: {detail}")
        }
        (None, _) if std::path::Path::new("/proc").join(run.pid.to_string()).exists() => {
            format!("{command}: in step {step} (process {}), begun {ago} ago", run.pid)
        }
        (None, _) => format!("{command}: cut off in step {step}, {ago} ago"),
    }
}

pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(3), "3 s");
        assert_eq!(duration(180), "3 min");
        assert_eq!(duration(7200), "2 h");
        assert_eq!(duration(200_000), "2 days");
    }
}
