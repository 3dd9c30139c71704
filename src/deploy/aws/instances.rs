//! Instances of the newest version, and ready.

use std::time::{Duration, Instant};

use super::super::error::Cause;
use super::super::fleet::{Fleet, Group, Lifecycle, Preferences, RefreshStatus};
use super::super::journal::Step;
use super::super::progress::{Event, Progress};
use super::{AwsFleet, Options, account};
use crate::plan::Plan;
use crate::target::aws::Outputs;

/// Replaces the instances that are not of the newest version.
pub(super) fn refresh(
    plan: &Plan,
    outputs: &Outputs,
    _options: Options,
    fleet: &AwsFleet<'_>,
    progress: &mut dyn Progress,
) -> Result<((), String), Cause> {
    let version = outputs.launch_template_version;
    let group = fleet.group()?;
    let old = group.instances.iter().filter(|instance| instance.version != version).count();
    if group.version == version && old == 0 {
        return Ok(((), format!("not needed: the group and its instances are of version {version}")));
    }
    let preferences = Preferences {
        min_healthy_percent: plan.refresh.min_healthy_percent,
        max_healthy_percent: plan.refresh.max_healthy_percent,
        checkpoints: plan.refresh.checkpoints.clone(),
        checkpoint_delay_s: plan.refresh.checkpoint_delay_s,
        bake_s: plan.refresh.bake_s,
        warmup_s: plan.refresh.warmup_s,
        skip_matching: plan.refresh.skip_matching,
    };
    let id = match fleet.refresh_in_progress()? {
        Some(running) => running.id,
        None => fleet.start_refresh(version, &preferences)?,
    };
    let deadline = Duration::from_secs(plan.refresh.timeout_s.into());
    let begun = Instant::now();
    loop {
        let now = fleet.refresh(&id)?;
        let done = usize::try_from(now.percent).unwrap_or(0);
        progress.event(&Event::Counted { step: Step::Refresh, done, of: 100 });
        if now.status == RefreshStatus::Successful {
            return Ok(((), format!("{old} instances replaced by version {version}")));
        }
        if now.status.is_final() {
            let reason = now.reason.unwrap_or_else(|| "AWS gives no reason".to_owned());
            return Err(Cause::NotAsExpected(format!("the instance refresh ended as {:?}: {reason}", now.status)));
        }
        if begun.elapsed() > deadline {
            return Err(Cause::NotAsExpected(format!(
                "the instance refresh took longer than {} s",
                deadline.as_secs()
            )));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Waits until as many instances as the group wants are in service and healthy.
pub(super) fn wait_ready(
    plan: &Plan,
    fleet: &AwsFleet<'_>,
    progress: &mut dyn Progress,
) -> Result<(Group, String), Cause> {
    let check = &plan.network.health_check;
    let checks = Duration::from_millis(u64::from(check.interval_ms) * u64::from(check.healthy));
    let deadline = Duration::from_secs(account(plan)?.ready_hook_timeout_s.into()) + checks + LAUNCH;
    let begun = Instant::now();
    let mut said = None;
    loop {
        let group = fleet.group()?;
        let wanted = usize::try_from(group.desired).unwrap_or(usize::MAX);
        let ready = group.instances.iter().filter(|instance| instance.healthy).count();
        if said != Some(ready) {
            progress.event(&Event::Counted { step: Step::Ready, done: ready.min(wanted), of: wanted });
            said = Some(ready);
        }
        if wanted > 0 && ready >= wanted {
            let names: Vec<&str> =
                group.instances.iter().filter(|one| one.healthy).map(|one| one.id.as_str()).collect();
            let detail = format!("{} healthy", names.join(", "));
            return Ok((group, detail));
        }
        if begun.elapsed() > deadline {
            return Err(Cause::NotAsExpected(not_ready(&group, deadline)));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// From the request for an instance to the start of its system: 16.5 s on average, a minute when AWS is busy.
const LAUNCH: Duration = Duration::from_secs(90);

/// Time between two looks: describe calls are throttled per account, at a few each second.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

fn not_ready(group: &Group, deadline: Duration) -> String {
    let mut text = format!("not all instances are healthy after {} s:", deadline.as_secs());
    for instance in &group.instances {
        let state = match (instance.lifecycle, instance.healthy) {
            (_, true) => "healthy",
            (Lifecycle::Pending, _) => {
                "has not told that it is ready: it could not place a call through itself, or does not boot"
            }
            (Lifecycle::InService, _) => "in service, and the load balancer's health check does not pass",
            (Lifecycle::Terminating | Lifecycle::Terminated, _) => "is being terminated",
            (Lifecycle::Other, _) => "is neither starting nor in service",
        };
        text.push_str(&format!("\n  {} in {}: {state}", instance.id, instance.zone));
    }
    if group.instances.is_empty() {
        text.push_str("\n  the group has no instance: its activity history says why (`aws autoscaling describe-scaling-activities`)");
    }
    text.push_str("\n  look inside with `aws ssm start-session --target i-…`, then `journalctl -u sipedge-proxy`");
    text
}
