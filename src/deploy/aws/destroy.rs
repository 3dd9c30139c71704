//! Removing a topology from an account, whole or half made.

use super::super::destroy::Destroyed;
use super::super::error::{Cause, DeployError};
use super::super::journal::{Command, Step};
use super::super::progress::{Event, Progress};
use super::super::runner::Runner;
use super::super::state::State;
use super::super::take_over;
use super::{account, connect, counted, guard, secrets};
use crate::interrupt;
use crate::plan::{self, Plan, TargetKind};
use crate::spec::Loaded;
use crate::target::aws::prepare;

/// Removes every resource of the topology from the account, then its secrets, then its state.
///
/// The instances are terminated by the group, which Terraform scales to zero; the secrets go after them, so that an instance that
/// restarts meanwhile still finds its keys; the state goes last, since it alone knows what stands. `loaded`: the spec, where it can be
/// read; it takes the place of a deployed plan that is lost, and says where the state is when it is in S3 and nothing is on this machine.
///
/// # Errors
/// [`DeployError::Step`] with what is left, and the way on. Nothing is removed with the credentials of another account.
pub fn destroy(loaded: Option<&Loaded>, state: &State, progress: &mut dyn Progress) -> Result<Destroyed, DeployError> {
    let known = state.exists();
    if !known && loaded.is_none_or(|loaded| loaded.spec.aws.state.is_none()) {
        return Ok(Destroyed::NothingThere);
    }
    interrupt::take_over();
    let lock = take_over(state, progress)?;
    let mut runner = Runner::begin(state, Command::Destroy, &Step::DESTROY_AWS, progress)?;
    let journal = runner.journal.clone();
    let begun = runner.step(Step::Init, |progress| {
        let plan = plan_of(loaded, state)?;
        let aws = connect(account(&plan)?)?;
        let identity = aws.identity()?;
        guard::same_account(state, &journal, &identity)?;
        // The modules want an image; a destroy makes no instance from it.
        let terraform = prepare(&plan, state, Some(NO_IMAGE))?;
        terraform.init(&mut |text| progress.event(&Event::Note { text }))?;
        let detail = format!(
            "{} {}, account {} in {}",
            terraform.program().name(),
            terraform.program().version(),
            identity.account,
            aws.region()
        );
        Ok(((plan, aws, terraform, identity), detail))
    });
    let (plan, aws, terraform, identity) = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            if !known {
                // Nothing was on this machine, and nothing is learnt.
                state.remove(lock)?;
            }
            return Err(failure);
        }
    };
    let changes = runner.step(Step::TerraformPlan, |_| {
        let changes = terraform.plan(true, &mut |_| {})?;
        let detail = changes.summary();
        Ok((changes, detail))
    })?;
    let removed = runner.step(Step::Apply, |progress| {
        if changes.resources.is_empty() {
            terraform.forget_plan()?;
            // Terraform asks the account for each resource, and plans nothing for one that is not there.
            let count = terraform.resources()?.len();
            if count > 0 {
                let forget = format!("{} apply -refresh-only", terraform.by_hand());
                let (account, region) = (identity.account.clone(), aws.region().to_owned());
                return Err(Cause::NotInAccount { count, account, region, forget });
            }
            return Ok((0, "no resource was left".to_owned()));
        }
        let applied = terraform.apply(&mut counted(Step::Apply, changes.steps(), progress))?;
        let left = terraform.resources()?;
        if !left.is_empty() {
            return Err(Cause::NotAsExpected(format!("these are left in the account: {}", left.join(", "))));
        }
        Ok((applied.removed, format!("{} resources destroyed", applied.removed)))
    })?;
    let secrets = runner.step(Step::Remove, |progress| {
        let count = secrets::remove(&plan, &aws)?;
        progress.event(&Event::Note { text: &format!("{count} secrets are removed from SSM Parameter Store") });
        Ok((count, format!("{} is next", state.folder().display())))
    })?;
    state.remove(lock)?;
    let nothing = !known && removed == 0 && secrets == 0;
    Ok(if nothing { Destroyed::NothingThere } else { Destroyed::Removed })
}

/// Stands for an image where none is started.
const NO_IMAGE: &str = "ami-00000000000000000";

/// The deployed plan; when there is none that can be read, that of the spec.
fn plan_of(loaded: Option<&Loaded>, state: &State) -> Result<Plan, Cause> {
    match (state.plan(), loaded) {
        (Ok(Some(plan)), _) => Ok(plan),
        (_, Some(loaded)) => Ok(plan::plan(loaded, state.topology(), TargetKind::Aws)?),
        (Err(error), None) => Err(error.into()),
        (Ok(None), None) => Err(Cause::NotAsExpected(
            "neither the deployed plan nor the spec can be read, and one of them has to say which account and region it is".to_owned(),
        )),
    }
}
