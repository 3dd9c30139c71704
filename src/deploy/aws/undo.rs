//! The way back after a deploy whose version was brought and then not found good.

use super::super::error::{Cause, DeployError};
use super::super::refresh::{MachineClock, go_back};
use super::super::rollout::live;
use super::super::runner::Runner;
use super::{AwsFleet, Options, rollout};
use crate::plan::Plan;

/// After a verified call that did not pass, or instances that did not get ready: the version that was found good last comes back, if it is
/// another. What else went wrong says nothing of the version.
pub(super) fn undo(failure: DeployError, version: u64, fleet: &AwsFleet<'_>, runner: &mut Runner<'_>) -> DeployError {
    let DeployError::Step(mut failed) = failure else { return failure };
    if !says_the_version_is_bad(&failed.cause) {
        return DeployError::Step(failed);
    }
    let good = runner.state.versions().ok().and_then(|versions| versions.last()).filter(|good| *good != version);
    let plan = good.and_then(|good| runner.state.plan_of(good).ok().flatten());
    let (Some(good), Some(plan)) = (good, plan) else { return DeployError::Step(failed) };
    match return_to(fleet, good, &plan, runner) {
        Ok(()) => failed.stands.push(format!("version {good}, which is live again")),
        Err(error) => failed.missing.push(format!("version {good}, which did not come back: {error}")),
    }
    DeployError::Step(failed)
}

fn says_the_version_is_bad(cause: &Cause) -> bool {
    matches!(cause, Cause::Verification(_) | Cause::NotReady(_))
}

/// Goes back to `version`, which was found good earlier and whose plan is `plan`.
fn return_to(fleet: &AwsFleet<'_>, version: u64, plan: &Plan, runner: &mut Runner<'_>) -> Result<(), Cause> {
    let options = rollout::leading(&plan.refresh, Options { verify: false }, runner);
    let preferences = rollout::preferences(&plan.refresh, true);
    go_back(fleet, version, &preferences, &options, &MachineClock::default(), runner)?;
    Ok(live(runner.state, plan)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_version_did_brings_the_one_before_back() {
        assert!(says_the_version_is_bad(&Cause::NotReady("i-1 is not healthy".to_owned())));
        for other in [Cause::Declined, Cause::NotAsExpected("the group is gone".to_owned()), Cause::NoIngress] {
            assert!(!says_the_version_is_bad(&other), "{other}");
        }
    }
}
