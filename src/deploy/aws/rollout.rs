//! Versions on AWS: the part of a deploy that brings a new one, `sipedge refresh`, `sipedge rollback`, and waiting for instances.

use std::time::{Duration, Instant};

use sipedge_aws::Aws;

use super::super::error::{Cause, DeployError};
use super::super::fleet::{Fleet, Group, Lifecycle, Preferences};
use super::super::journal::{Command, Step};
use super::super::progress::{Event, Progress};
use super::super::refresh::{Back, LeadOptions, MachineClock, go_back, lead, turn_back};
use super::super::rollout::{RefreshOptions, live, turned_back};
use super::super::runner::Runner;
use super::super::state::{State, StateError};
use super::super::take_over;
use super::{AwsFleet, Options, Report, account, connect, guard, verified_call};
use crate::interrupt;
use crate::plan::{Plan, RefreshPlan};
use crate::spec::Transport;
use crate::target::aws::Outputs;

/// What a refresh or a rollback ends in.
#[derive(Debug)]
pub struct Rolled {
    /// The plan of the version that is live.
    pub plan: Plan,
    /// The version.
    pub version: u64,
    /// The instances.
    pub group: Group,
    /// The verified call; it passed. None when none was asked for.
    pub report: Option<Report>,
}

/// Replaces all instances of the topology of `state` by new ones, and places the verified call.
///
/// # Errors
/// [`DeployError::Refused`] when nothing was begun: nothing is deployed, the account cannot be asked or is another, there is no such
/// version, or the call cannot pass. [`DeployError::Step`] when the new version was not found good.
pub fn refresh(
    state: &State,
    refresh: &RefreshOptions,
    options: Options,
    progress: &mut dyn Progress,
) -> Result<Rolled, DeployError> {
    interrupt::take_over();
    let lock = take_over(state, progress)?;
    let (live_plan, outputs, aws) = standing_of_the_same_account(state).map_err(refused)?;
    let fleet = AwsFleet::new(&aws, &live_plan, &outputs);
    let version = wanted(refresh, &fleet).map_err(refused)?;
    let plan = state.plan_of(version)?.unwrap_or_else(|| live_plan.clone());
    guard::can_verify(&plan, options).map_err(refused)?;
    let steps = [Step::Refresh, Step::SmokeCall, Step::Bake, Step::Ready, Step::VerifiedCall];
    let mut runner = Runner::begin(state, Command::Refresh, &steps, progress)?;
    bring(&fleet, version, false, &plan, options, &mut runner)?;
    let (group, report) = prove(&plan, &fleet, options, &mut runner)?;
    if report.is_some() {
        state.found_good(version)?;
    }
    runner.end()?;
    drop(lock);
    Ok(Rolled { plan, version, group, report })
}

/// Goes back to the version that was live before, and places the verified call. A refresh that is in progress is turned back.
///
/// What goes back is what instances start from: image and configuration. Load balancer, network and names stay as the last deploy left
/// them, and the next deploy brings the spec's version again.
///
/// # Errors
/// [`DeployError::Refused`] when nothing was begun: nothing is deployed, the account cannot be asked or is another, there is no version to
/// go back to. [`DeployError::Step`] when that version is not back, or its call does not pass.
pub fn rollback(state: &State, options: Options, progress: &mut dyn Progress) -> Result<Rolled, DeployError> {
    interrupt::take_over();
    let lock = take_over(state, progress)?;
    let (live_plan, outputs, aws) = standing_of_the_same_account(state).map_err(refused)?;
    let fleet = AwsFleet::new(&aws, &live_plan, &outputs);
    let cut_off = state.journal()?.cut_off_rollback();
    let before = fleet.group().map_err(refused)?.version;
    let in_progress = fleet.refresh_in_progress().map_err(refused)?.is_some();
    let (aim, note) = match cut_off {
        Some(version) => (version, None),
        None if in_progress => (before, None),
        None => version_before(state, &fleet).map_err(refused)?,
    };
    let steps = [Step::Rollback, Step::Ready, Step::VerifiedCall];
    let mut runner = Runner::begin(state, Command::Rollback, &steps, progress)?;
    runner.aim_at(aim)?;
    if let Some(text) = note {
        runner.progress.event(&Event::Note { text: &text });
    }
    let lead_options = leading(&live_plan.refresh, options, &runner);
    let preferences = preferences(&live_plan.refresh, true);
    let turned = match cut_off {
        // What is in progress may be the way back itself.
        Some(_) => Ok(None),
        None => turn_back(&fleet, &preferences, &lead_options, &MachineClock::default(), &mut runner),
    };
    let version = match turned.map_err(|cause| runner.failed(cause))? {
        Some(Back::Version(version)) => version,
        Some(Back::Not(reason)) => return Err(runner.failed(Cause::NotAsExpected(reason))),
        None => {
            if is_needed(&fleet, aim).map_err(|cause| runner.failed(cause))? {
                go_back(&fleet, aim, &preferences, &lead_options, &MachineClock::default(), &mut runner)
                    .map_err(|cause| runner.failed(cause))?;
            }
            aim
        }
    };
    let plan = state.plan_of(version)?.unwrap_or(live_plan);
    live(state, &plan)?;
    let fleet = AwsFleet::new(&aws, &plan, &outputs);
    let (group, report) = prove(&plan, &fleet, options, &mut runner)?;
    if report.is_some() {
        state.found_good(version)?;
    }
    runner.end()?;
    drop(lock);
    Ok(Rolled { plan, version, group, report })
}

/// Places the operator's call through what stands, and changes nothing but the record that it passed. That is written when the call can
/// have gone through one version alone: nobody changes what stands, and no refresh is in progress.
///
/// # Errors
/// Nothing is deployed; the account cannot be asked; the state cannot be written. A call that does not pass is no error.
pub fn verify_call(state: &State, transport: Transport) -> Result<Report, Cause> {
    let (plan, outputs) = standing(state)?;
    let aws = connect(account(&plan)?)?;
    let fleet = AwsFleet::new(&aws, &plan, &outputs);
    let before = fleet.group()?.version;
    let report = fleet.operators_call(transport)?;
    if !report.passed {
        return Ok(report);
    }
    let lock = match state.lock() {
        Err(StateError::Locked { .. }) => return Ok(report),
        lock => lock?,
    };
    let group = fleet.group()?;
    if group.version == before && !has_others(&group, before) && fleet.refresh_in_progress()?.is_none() {
        state.found_good(before)?;
    }
    drop(lock);
    Ok(report)
}

/// Whether instances have to be replaced for `version` to be live, or somebody has begun with that.
pub(super) fn is_needed(fleet: &AwsFleet<'_>, version: u64) -> Result<bool, Cause> {
    let group = fleet.group()?;
    Ok(group.version != version || has_others(&group, version) || fleet.refresh_in_progress()?.is_some())
}

/// Whether an instance that is not leaving is of another version.
fn has_others(group: &Group, version: u64) -> bool {
    let leaves = |lifecycle| matches!(lifecycle, Lifecycle::Terminating | Lifecycle::Terminated);
    group.instances.iter().any(|instance| instance.version != version && !leaves(instance.lifecycle))
}

/// Leads a refresh to `version`, whose plan is `plan`; then that is the plan that is deployed.
pub(super) fn bring(
    fleet: &AwsFleet<'_>,
    version: u64,
    skip_matching: bool,
    plan: &Plan,
    options: Options,
    runner: &mut Runner<'_>,
) -> Result<(), DeployError> {
    let lead_options = leading(&plan.refresh, options, runner);
    let preferences = preferences(&plan.refresh, skip_matching);
    match lead(fleet, version, &preferences, &lead_options, &MachineClock::default(), runner) {
        Ok(_) => Ok(live(runner.state, plan)?),
        Err(cause) => {
            turned_back(runner.state, &cause)?;
            Err(runner.failed(cause))
        }
    }
}

/// Waits until the instances are ready, and places the verified call.
pub(super) fn prove(
    plan: &Plan,
    fleet: &AwsFleet<'_>,
    options: Options,
    runner: &mut Runner<'_>,
) -> Result<(Group, Option<Report>), DeployError> {
    let group = runner.step(Step::Ready, |progress| wait_ready(plan, fleet, progress))?;
    let report = runner.step(Step::VerifiedCall, |progress| verified_call(options, fleet, progress))?;
    Ok((group, report))
}

/// Looks in a row that may fail while instances are waited for: a describe call that is throttled says nothing of them.
const FORGIVEN: u32 = 4;

/// From the request for an instance to the start of its system: 16.5 s on average, a minute when AWS is busy.
const LAUNCH: Duration = Duration::from_secs(90);

/// The version that a refresh is to bring: the one that is named, that of a refresh in progress, or the live one.
fn wanted(refresh: &RefreshOptions, fleet: &AwsFleet<'_>) -> Result<u64, Cause> {
    if let Some(version) = refresh.version {
        let there = fleet.versions()?;
        if there.contains(&version) {
            return Ok(version);
        }
        let list: Vec<String> = there.iter().map(u64::to_string).collect();
        let text = format!("there is no version {version} of the launch template; there are {}", list.join(", "));
        return Err(Cause::NotAsExpected(text));
    }
    match fleet.refresh_in_progress()? {
        Some(running) => Ok(running.version),
        None => Ok(fleet.group()?.version),
    }
}

/// The version to go back to, and what has to be said of it: the last one that was found good, else the one before in the launch template.
fn version_before(state: &State, fleet: &AwsFleet<'_>) -> Result<(u64, Option<String>), Cause> {
    let live = fleet.group()?.version;
    let there = fleet.versions()?;
    if let Some(version) = state.versions()?.before(live).filter(|version| there.contains(version)) {
        return Ok((version, None));
    }
    let Some(version) = there.into_iter().filter(|version| *version < live).max() else {
        let (edge, topology) = (state.edge().to_owned(), state.topology());
        return Err(Cause::NoVersionBefore { edge, topology, version: live });
    };
    let text = format!("no version before version {live} was found good by a call: going back to version {version}");
    Ok((version, Some(text)))
}

fn refused(cause: Cause) -> DeployError {
    DeployError::Refused(Box::new(cause))
}

/// [`standing`], and the account; refused when these are not its credentials.
fn standing_of_the_same_account(state: &State) -> Result<(Plan, Outputs, Aws), Cause> {
    let (plan, outputs) = standing(state)?;
    let aws = connect(account(&plan)?)?;
    guard::same_account(state, &state.journal()?, &aws.identity()?)?;
    Ok((plan, outputs, aws))
}

/// The plan and the outputs of what stands.
fn standing(state: &State) -> Result<(Plan, Outputs), Cause> {
    let gone = || Cause::NotRunning { edge: state.edge().to_owned(), topology: state.topology() };
    Ok((state.plan()?.ok_or_else(gone)?, state.outputs()?.ok_or_else(gone)?))
}

/// How a refresh goes about its work.
pub(super) fn preferences(refresh: &RefreshPlan, skip_matching: bool) -> Preferences {
    Preferences {
        min_healthy_percent: refresh.min_healthy_percent,
        max_healthy_percent: refresh.max_healthy_percent,
        checkpoints: refresh.checkpoints.clone(),
        checkpoint_delay_s: refresh.checkpoint_delay_s,
        bake_s: refresh.bake_s,
        warmup_s: refresh.warmup_s,
        skip_matching: skip_matching && refresh.skip_matching,
    }
}

pub(super) fn leading(refresh: &RefreshPlan, options: Options, runner: &Runner<'_>) -> LeadOptions {
    LeadOptions {
        timeout: Duration::from_secs(refresh.timeout_s.into()),
        smoke_call: options.verify,
        known: runner.journal.refresh.clone(),
    }
}

/// Waits until as many instances as the group wants are in service and healthy.
fn wait_ready(plan: &Plan, fleet: &AwsFleet<'_>, progress: &mut dyn Progress) -> Result<(Group, String), Cause> {
    let check = &plan.network.health_check;
    let checks = Duration::from_millis(u64::from(check.interval_ms) * u64::from(check.healthy));
    let deadline = Duration::from_secs(account(plan)?.ready_hook_timeout_s.into()) + checks + LAUNCH;
    let begun = Instant::now();
    let mut said = None;
    let mut failed = 0;
    loop {
        let group = match fleet.group() {
            Ok(group) => group,
            Err(_) if failed < FORGIVEN => {
                failed += 1;
                std::thread::sleep(fleet.pause());
                continue;
            }
            Err(cause) => return Err(cause),
        };
        failed = 0;
        let wanted = usize::try_from(group.desired).unwrap_or(usize::MAX);
        let ready: Vec<&str> =
            group.instances.iter().filter(|instance| instance.healthy).map(|instance| instance.id.as_str()).collect();
        if said != Some(ready.len()) {
            progress.event(&Event::Counted { step: Step::Ready, done: ready.len().min(wanted), of: wanted });
            said = Some(ready.len());
        }
        if wanted > 0 && ready.len() >= wanted {
            let detail = format!("{} healthy", ready.join(", "));
            return Ok((group, detail));
        }
        if begun.elapsed() > deadline {
            return Err(Cause::NotReady(not_ready(&group, deadline)));
        }
        std::thread::sleep(fleet.pause());
    }
}

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
        text.push_str(
            "\n  the group has no instance: its activity history says why (`aws autoscaling describe-scaling-activities`)",
        );
    }
    text.push_str("\n  look inside with `aws ssm start-session --target i-…`, then `journalctl -u sipedge-proxy`");
    text
}
