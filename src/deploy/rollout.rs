//! Versions in the lab: `sipedge refresh`, `sipedge rollback`, and the part of `sipedge deploy` that brings a new one.

use std::time::Duration;

use super::error::{Cause, DeployError};
use super::fleet::{Fleet, Lifecycle, Preferences, RefreshStatus};
use super::journal::{Command, Step};
use super::progress::{Event, Progress};
use super::refresh::{Back, LeadOptions, MachineClock, go_back, lead, turn_back};
use super::runner::Runner;
use super::state::{State, write_json};
use super::{ARTEFACT_MODE, Deployed, clear_stale_artefacts, place_call, take_over, write_artefacts};
use crate::plan::Plan;
use crate::target::lab::{GroupStatus, InstanceStatus, Lab, LabError, LabFleet, LabStatus};

/// What a refresh may be told.
#[derive(Debug, Clone, Default)]
pub struct RefreshOptions {
    /// The version to bring; the live one when it is left out, to all instances whatever they run.
    pub version: Option<u64>,
}

/// Replaces all instances of the lab of `state` by new ones, and places the verified call.
pub fn refresh(state: &State, options: &RefreshOptions, progress: &mut dyn Progress) -> Result<Deployed, DeployError> {
    let lock = take_over(state, progress)?;
    let (lab, live_plan, group) = running(state)?;
    let in_progress = group.refresh.filter(|refresh| !refresh.status.is_final()).map(|refresh| refresh.version);
    let version = options.version.or(in_progress).unwrap_or(group.version);
    let plan = match state.plan_of(version)? {
        Some(plan) => plan,
        None if version == group.version => live_plan,
        None => {
            let (edge, topology) = (state.edge().to_owned(), state.topology());
            return Err(refused(Cause::NoSuchVersion { edge, topology, version }));
        }
    };
    let steps = [Step::Refresh, Step::SmokeCall, Step::Bake, Step::VerifiedCall];
    let mut runner = Runner::begin(state, Command::Refresh, &steps, progress)?;
    bring(&lab, version, false, &plan, &mut runner)?;
    let (status, report) = runner.step(Step::VerifiedCall, |_| place_call(&plan, &lab))?;
    state.found_good(version)?;
    runner.end()?;
    drop(lock);
    Ok(Deployed { plan, status, report })
}

/// Goes back to the version that was live before, and places the verified call. A refresh that is in progress is turned back.
pub fn rollback(state: &State, progress: &mut dyn Progress) -> Result<Deployed, DeployError> {
    let lock = take_over(state, progress)?;
    let (lab, live_plan, group) = running(state)?;
    let steps = [Step::Rollback, Step::VerifiedCall];
    let in_progress = group.refresh.is_some_and(|refresh| !refresh.status.is_final());
    let cut_off = state.journal()?.cut_off_rollback();
    let aim = match cut_off {
        Some(version) => version,
        None if in_progress => group.version,
        None => before(state, group.version).map_err(refused)?,
    };
    let mut runner = Runner::begin(state, Command::Rollback, &steps, progress)?;
    runner.aim_at(aim)?;
    // Of a rollback that was cut off, what is in progress may be the way back itself.
    let turned = if in_progress && cut_off.is_none() {
        let (preferences, options) = settings(&live_plan, true, &runner);
        let fleet = LabFleet::new(&lab, &live_plan);
        turn_back(&fleet, &preferences, &options, &MachineClock::default(), &mut runner)
    } else {
        Ok(None)
    };
    let (version, plan) = match turned.map_err(|cause| runner.failed(cause))? {
        Some(Back::Version(version)) => (version, state.plan_of(version)?.unwrap_or(live_plan)),
        Some(Back::Not(reason)) => return Err(runner.failed(LabError::Group(reason).into())),
        None => {
            let plan = state.plan_of(aim)?.unwrap_or(live_plan);
            let status = lab.status().map_err(|error| runner.failed(error.into()))?;
            if is_needed(&status, aim) {
                return_to(&lab, aim, &plan, &mut runner)?;
            }
            (aim, plan)
        }
    };
    let (status, report) = runner.step(Step::VerifiedCall, |_| place_call(&plan, &lab))?;
    state.found_good(version)?;
    runner.end()?;
    drop(lock);
    Ok(Deployed { plan, status, report })
}

/// The version that was found good before `version`, and whose plan is known.
fn before(state: &State, version: u64) -> Result<u64, Cause> {
    let before = state.versions()?.before(version);
    let plan = before.map(|version| state.plan_of(version)).transpose()?.flatten();
    before.filter(|_| plan.is_some()).ok_or_else(|| {
        let (edge, topology) = (state.edge().to_owned(), state.topology());
        Cause::NoVersionBefore { edge, topology, version }
    })
}

/// Leads a refresh of `lab` to `version`, whose plan is `plan`; then that is the plan that is deployed.
pub(super) fn bring(
    lab: &Lab,
    version: u64,
    skip_matching: bool,
    plan: &Plan,
    runner: &mut Runner<'_>,
) -> Result<(), DeployError> {
    let (preferences, mut options) = settings(plan, skip_matching, runner);
    let fleet = LabFleet::new(lab, plan);
    // Without an instance there is nothing that the call could go through before the others follow.
    options.smoke_call = fleet.group().map_err(|cause| runner.failed(cause))?.desired > 0;
    match lead(&fleet, version, &preferences, &options, &MachineClock::default(), runner) {
        Ok(_) => Ok(live(runner.state, plan)?),
        Err(cause) => {
            turned_back(runner.state, &cause)?;
            Err(runner.failed(cause))
        }
    }
}

/// Goes back to `version`, which was found good earlier and whose plan is `plan`.
pub(super) fn return_to(lab: &Lab, version: u64, plan: &Plan, runner: &mut Runner<'_>) -> Result<(), DeployError> {
    let (preferences, options) = settings(plan, true, runner);
    let fleet = LabFleet::new(lab, plan);
    go_back(&fleet, version, &preferences, &options, &MachineClock::default(), runner)
        .map_err(|cause| runner.failed(cause))?;
    Ok(live(runner.state, plan)?)
}

/// Whether instances have to be replaced for `version` to be live, or somebody has begun with that.
pub(super) fn is_needed(status: &LabStatus, version: u64) -> bool {
    let group = &status.group;
    let stays = |it: &InstanceStatus| it.pid.is_some() && it.lifecycle != Lifecycle::Terminating;
    let others = status.instances.iter().any(|it| stays(it) && it.version != version);
    let in_progress = group.refresh.as_ref().is_some_and(|refresh| !refresh.status.is_final());
    group.version != version || others || in_progress
}

/// Whether a refresh brings a version that is not `version`, or has not found its way back yet.
pub(super) fn note_of_other(status: &LabStatus, version: u64, progress: &mut dyn Progress) {
    let refresh = status.group.refresh.as_ref();
    if let Some(failed) = refresh.filter(|it| it.version == version && it.status == RefreshStatus::RollbackSuccessful) {
        let reason = failed.reason.as_deref().unwrap_or("no reason is known");
        let text = format!("version {version} was rolled back last time ({reason}): it is tried again");
        progress.event(&Event::Note { text: &text });
    }
}

/// After a refresh that was turned back: the files are those of the plan of before again.
pub(super) fn turned_back(state: &State, cause: &Cause) -> Result<(), super::StateError> {
    if let Cause::Refresh(failure) = cause
        && let Back::Version(_) = failure.back
        && let Some(before) = state.plan()?
    {
        write_artefacts(&before, &state.artefacts_folder())?;
        clear_stale_artefacts(&before, &state.artefacts_folder())?;
    }
    Ok(())
}

/// The plan of what is live, and its files.
pub(super) fn live(state: &State, plan: &Plan) -> Result<(), super::StateError> {
    write_json(&state.plan_file(), plan, ARTEFACT_MODE)?;
    write_artefacts(plan, &state.artefacts_folder())?;
    clear_stale_artefacts(plan, &state.artefacts_folder())
}

/// The lab that runs, the plan of what is live, and the group.
fn running(state: &State) -> Result<(Lab, Plan, GroupStatus), DeployError> {
    let gone = || refused(Cause::NotRunning { edge: state.edge().to_owned(), topology: state.topology() });
    let lab = Lab::attach(&state.lab_folder()).map_err(|error| refused(error.into()))?.ok_or_else(gone)?;
    let plan = state.plan()?.ok_or_else(gone)?;
    let group = lab.status().map_err(|error| refused(error.into()))?.group;
    Ok((lab, plan, group))
}

fn refused(cause: Cause) -> DeployError {
    DeployError::Refused(Box::new(cause))
}

/// How a refresh of `plan` goes about its work.
fn settings(plan: &Plan, skip_matching: bool, runner: &Runner<'_>) -> (Preferences, LeadOptions) {
    let figures = &plan.refresh;
    let preferences = Preferences {
        min_healthy_percent: figures.min_healthy_percent,
        max_healthy_percent: figures.max_healthy_percent,
        checkpoints: figures.checkpoints.clone(),
        checkpoint_delay_s: figures.checkpoint_delay_s,
        bake_s: figures.bake_s,
        warmup_s: figures.warmup_s,
        skip_matching,
    };
    let known = runner.journal.refresh.clone();
    (preferences, LeadOptions { timeout: Duration::from_secs(figures.timeout_s.into()), smoke_call: true, known })
}
