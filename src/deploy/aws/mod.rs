//! Deploy and destroy on AWS. Terraform makes the resources; what it does badly or should not see, the replacement of instances and the
//! secrets, sipedge does through the SDK.

mod connections;
mod destroy;
mod fleet;
mod guard;
mod proxies;
mod rollout;
mod secrets;
mod status;
mod undo;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use sipedge_aws::Aws;

pub use connections::{Connections, connect};
pub use destroy::destroy;
pub use fleet::AwsFleet;
pub use rollout::{Rolled, refresh, rollback, verify_call};
pub use secrets::AwsSecrets;
pub use status::{AwsStatus, status};

use super::error::{Cause, DeployError};
use super::fleet::Group;
use super::journal::{Command, Step, now_unix_ms};
use super::progress::{Event, Progress};
use super::rollout::live;
use super::runner::Runner;
use super::state::{State, write_json, write_whole};
use super::{ARTEFACT_MODE, clear_stale_artefacts, notes, take_over, write_artefacts};
use crate::image::{Flavour, published};
use crate::plan::{self, Addresses, AwsPlan, Plan, TargetKind};
use crate::spec::{Loaded, Transport};
use crate::target::aws::terraform::{Changes, Phase, ResourceEvent, Terraform, interrupt};
use crate::target::aws::{Outputs, prepare, prepare_elsewhere, preview};
use crate::verify::Report;

/// What a deploy to AWS may be told beside the spec.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether the deploy ends in a verified call. Without it the status says so.
    pub verify: bool,
}

/// What a deploy to AWS ends in.
#[derive(Debug)]
pub struct Deployed {
    /// What was deployed.
    pub plan: Plan,
    /// What Terraform changed.
    pub changes: Changes,
    /// Addresses and names.
    pub outputs: Outputs,
    /// The instances.
    pub group: Group,
    /// The verified call; it passed. None when none was asked for.
    pub report: Option<Report>,
    /// The sheet for the carriers.
    pub hand_off: PathBuf,
}

/// Asked with the changes as text before anything in the account changes; `true` goes on.
pub type Ask<'a> = dyn FnMut(&str) -> bool + 'a;

/// Brings the topology of `state` to what the spec says, on AWS, and places the verified call. When that does not pass, the version that
/// was found good last comes back.
///
/// # Errors
/// [`DeployError::Refused`] when somebody said no; [`DeployError::Step`] with what stands, what does not, and the way on.
pub fn deploy(
    loaded: &Loaded,
    state: &State,
    options: Options,
    ask: &mut Ask<'_>,
    progress: &mut dyn Progress,
) -> Result<Deployed, DeployError> {
    interrupt::take_over();
    let lock = take_over(state, progress)?;
    let mut runner = Runner::begin(state, Command::Deploy, &Step::DEPLOY_AWS, progress)?;

    let plan = runner.step(Step::Plan, |progress| {
        let plan = plan::plan(loaded, state.topology(), TargetKind::Aws)?;
        plan::reachable(state.plan()?.as_ref(), &plan)?;
        guard::can_verify(&plan, options)?;
        for note in notes(&plan, &loaded.spec, SystemTime::now()) {
            progress.event(&Event::Note { text: &note });
        }
        let detail =
            format!("{} as {}, {} to {} instances", plan.name, plan.topology, plan.scaling.min, plan.scaling.max);
        Ok((plan, detail))
    })?;
    runner.step(Step::Artefacts, |_| {
        let folder = state.artefacts_folder();
        write_artefacts(&plan, &folder)?;
        clear_stale_artefacts(&plan, &folder)?;
        Ok(((), format!("{} files in {}", plan.artefacts.len(), folder.display())))
    })?;
    let journal = runner.journal.clone();
    let (aws, identity, image) = runner.step(Step::Image, |_| {
        let aws = connect(account(&plan)?)?;
        let identity = aws.identity()?;
        guard::same_account(state, &journal, &identity)?;
        let image = find_image(account(&plan)?, &aws)?;
        let detail = format!("{image}, account {} ({}) in {}", identity.account, identity.arn, aws.region());
        Ok(((aws, identity, image), detail))
    })?;
    runner.journal.account = Some(identity.account);
    let terraform = runner.step(Step::Init, |progress| {
        let terraform = prepare(&plan, state, Some(&image))?;
        terraform.init(&mut |text| progress.event(&Event::Note { text }))?;
        let detail = format!("{} {}", terraform.program().name(), terraform.program().version());
        Ok((terraform, detail))
    })?;
    let changes = runner.step(Step::TerraformPlan, |_| {
        let changes = terraform.plan(false, &mut |_| {})?;
        let detail = changes.summary();
        Ok((changes, detail))
    })?;
    // Between two steps: nothing else writes to the terminal.
    let text = question(&plan, &changes, state, &aws).map_err(|cause| runner.failed(cause))?;
    if text.is_some_and(|text| !ask(&text)) {
        terraform.forget_plan().map_err(|error| runner.failed(error.into()))?;
        return Err(runner.refused(Cause::Declined));
    }
    runner.step(Step::Secrets, |progress| secrets::bring(&plan, state, &aws, progress))?;
    let outputs = runner.step(Step::Apply, |progress| apply(&plan, &changes, state, &terraform, progress))?;
    if runner.journal.infrastructure_since_unix_ms.is_none() {
        runner.journal.infrastructure_since_unix_ms = Some(now_unix_ms());
    }
    let version = outputs.launch_template_version;
    state.keep_plan_of(version, &plan)?;
    let fleet = AwsFleet::new(&aws, &plan, &outputs);
    if rollout::is_needed(&fleet, version).map_err(|cause| runner.failed(cause))? {
        runner.expect_refresh_after(Step::Apply);
        rollout::bring(&fleet, version, true, &plan, options, &mut runner)?;
    } else {
        live(state, &plan)?;
    }
    let (group, report) = match rollout::prove(&plan, &fleet, options, &mut runner) {
        Ok(proved) => proved,
        Err(failure) => return Err(undo::undo(failure, version, &fleet, &mut runner)),
    };
    if report.is_some() {
        state.found_good(version)?;
    }
    let hand_off = runner.step(Step::HandOff, |_| write_hand_off(&plan, &outputs, state))?;
    runner.end()?;
    drop(lock);
    Ok(Deployed { plan, changes, outputs, group, report, hand_off })
}

/// What Terraform would change for `plan`, where the account can be asked: a look that changes nothing and leaves nothing.
///
/// # Errors
/// No credentials, no Terraform, no network; what the account refuses to show.
pub fn look(plan: &Plan, state: &State) -> Result<Changes, Cause> {
    interrupt::take_over();
    let account = account(plan)?;
    let aws = connect(account)?;
    aws.identity()?;
    let image = find_image(account, &aws)?;
    Ok(prepare_elsewhere(plan, state, &image)?.changes()?)
}

/// Where calls come in, as one types it.
pub fn ingress(plan: &Plan, outputs: &Outputs) -> Vec<SocketAddr> {
    let port = plan.proxy.listen.ingress_port;
    outputs.ingress_addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()
}

/// What has to be agreed to; none when nothing changes.
fn question(plan: &Plan, changes: &Changes, state: &State, aws: &Aws) -> Result<Option<String>, Cause> {
    if !changes.is_empty() {
        return Ok(Some(preview(changes)));
    }
    let Some(outputs) = state.outputs()? else { return Ok(None) };
    let version = outputs.launch_template_version;
    let needed = rollout::is_needed(&AwsFleet::new(aws, plan, &outputs), version)?;
    Ok(needed.then(|| format!("{}Instances are replaced until all are of version {version}.\n", preview(changes))))
}

/// What instances start from unless the spec names an image: what people can look into by a session. A micro image has to be named.
pub const IMAGE_FLAVOUR: Flavour = Flavour::Debian;

/// The plan's part on the account, which a plan for AWS has.
pub(super) fn account(plan: &Plan) -> Result<&AwsPlan, Cause> {
    plan.aws.as_ref().ok_or_else(|| Cause::NotAsExpected("this is no plan for AWS".to_owned()))
}

/// The image that instances start from: the one that the spec names, or the newest published one of this version of sipedge.
///
/// # Errors
/// There is none, or not the one that is named.
pub fn find_image(account: &AwsPlan, aws: &Aws) -> Result<String, Cause> {
    let place = format!("account and region ({})", account.region);
    match &account.image {
        Some(id) => match aws.image(id)? {
            Some(image) if image.state == "available" => Ok(image.id),
            Some(image) => Err(Cause::NoImage(format!(
                "the image {id} that aws.image names is {}, not available: wait for it, or name another one",
                image.state
            ))),
            None => Err(Cause::NoImage(format!(
                "the image {id} that aws.image names is not in this {place}: images stay in the region in which they were made"
            ))),
        },
        None => {
            let version = env!("CARGO_PKG_VERSION");
            let found = published::newest(aws, version, IMAGE_FLAVOUR)?;
            found.map(|image| image.id).ok_or_else(|| Cause::NotPublished {
                version,
                flavour: IMAGE_FLAVOUR,
                region: account.region.clone(),
            })
        }
    }
}

/// Makes exactly what was shown.
fn apply(
    plan: &Plan,
    changes: &Changes,
    state: &State,
    terraform: &Terraform,
    progress: &mut dyn Progress,
) -> Result<(Outputs, String), Cause> {
    let new = state.outputs()?.is_none();
    if new {
        // Until the first apply is done, the plan tells status and destroy what is being made.
        write_json(&state.plan_file(), plan, ARTEFACT_MODE)?;
    }
    let detail = if changes.is_empty() {
        terraform.forget_plan()?;
        "nothing to change".to_owned()
    } else {
        let applied = terraform.apply(&mut counted(Step::Apply, changes.steps(), progress))?;
        format!("{} created, {} changed, {} destroyed", applied.added, applied.changed, applied.removed)
    };
    let strange = |reason| Cause::NotAsExpected(format!("Terraform's outputs are not those of this build: {reason}"));
    let outputs = Outputs::read(&terraform.outputs()?).map_err(strange)?;
    write_json(&state.outputs_file(), &outputs, ARTEFACT_MODE)?;
    Ok((outputs, detail))
}

/// Tells of each resource, and how many are done.
pub(super) fn counted<'a>(step: Step, of: usize, progress: &'a mut dyn Progress) -> impl FnMut(&ResourceEvent) + 'a {
    let mut done = 0;
    move |resource| {
        progress.event(&Event::Resource { step, resource });
        if resource.phase == Phase::Done && resource.action != "read" {
            done += 1;
            progress.event(&Event::Counted { step, done, of });
        }
    }
}

fn verified_call(
    options: Options,
    fleet: &AwsFleet<'_>,
    progress: &mut dyn Progress,
) -> Result<(Option<Report>, String), Cause> {
    if !options.verify {
        let text = "no call was placed (--no-verify): that calls pass is not proved";
        progress.event(&Event::Note { text });
        return Ok((None, NOT_VERIFIED.to_owned()));
    }
    // Through whichever instance: all are of the version.
    let report = fleet.operators_call(Transport::Udp)?;
    if !report.passed {
        return Err(Cause::Verification(Box::new(report)));
    }
    Ok((Some(report), "passed".to_owned()))
}

/// What the journal says of a deploy that placed no call.
const NOT_VERIFIED: &str = "not verified: no call was placed (--no-verify)";

fn write_hand_off(plan: &Plan, outputs: &Outputs, state: &State) -> Result<(PathBuf, String), Cause> {
    let addresses = Addresses { ingress: outputs.ingress_addresses.clone(), egress: outputs.egress_addresses.clone() };
    let sheet = plan::hand_off(plan, &addresses)?;
    let path = state.folder().join(HAND_OFF);
    write_whole(&path, sheet.as_bytes(), ARTEFACT_MODE)?;
    let detail = path.display().to_string();
    Ok((path, detail))
}

/// The sheet for the carriers with the real addresses; the one among the artefacts has their places.
const HAND_OFF: &str = "hand-off.md";

/// Tags of what sipedge itself makes: those of Terraform's resources.
pub(super) fn tags(account: &AwsPlan) -> BTreeMap<String, String> {
    account.tags.clone()
}
