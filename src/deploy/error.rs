//! Why a deploy ended early, and what the user does about it.

use super::certificates::CertificateError;
use super::journal::{Command, Step};
use super::refresh::{Back, RefreshFailure, Trouble};
use super::rotation::RotationError;
use super::state::{Recorded, State, StateError};
#[cfg(feature = "aws")]
use sipedge_aws::AwsError;

use crate::plan::{PlanError, TargetKind};
use crate::target::aws::terraform::TerraformError;
use crate::target::lab::{Lab, LabError};
use crate::verify::Report;

/// Why a deploy or destroy ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeployError {
    /// The state could not be locked, read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// A step failed.
    #[error(transparent)]
    Step(Box<StepFailure>),
    /// It cannot be done with what is deployed; nothing was begun.
    #[error(transparent)]
    Refused(Box<Cause>),
}

impl From<StepFailure> for DeployError {
    fn from(failure: StepFailure) -> Self {
        Self::Step(Box::new(failure))
    }
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("step {} failed: {cause}", step.name())]
pub struct StepFailure {
    /// The step.
    pub step: Step,
    /// Why.
    #[source]
    pub cause: Cause,
    /// What stands nevertheless.
    pub stands: Vec<String>,
    /// What does not.
    pub missing: Vec<String>,
    /// Commands that lead on, each with what it does; for the spec in its usual place.
    pub next: Vec<(String, String)>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The spec cannot be planned for this topology.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file of the state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The token keys cannot be used.
    #[error(transparent)]
    TokenKeys(#[from] RotationError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The lab did not do what was asked.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Terraform did not do what was asked.
    #[error(transparent)]
    Terraform(#[from] TerraformError),
    /// AWS did not do what was asked.
    #[cfg(feature = "aws")]
    #[error(transparent)]
    Aws(#[from] Box<sipedge_aws::AwsError>),
    /// There is no image to start instances from.
    #[error("{0}")]
    NoImage(String),
    /// Nobody has published the image that instances are to start from.
    #[error(
        "there is no published {flavour} image of sipedge {version} in this account and region ({region}): publish one, or name an image in \
         aws.image"
    )]
    NotPublished {
        /// The wanted version of sipedge.
        version: &'static str,
        /// What the image is to be made of.
        flavour: crate::image::Flavour,
        /// The region that was asked.
        region: String,
    },
    /// The person who was asked said no.
    #[error("nothing was changed: the answer was not `yes`")]
    Declined,
    /// These credentials are those of another account.
    #[error(
        "this edge stands in the account {deployed}, and these credentials are those of {here}: nothing was changed. Sign in to {deployed} \
         (aws.profile in the spec, or AWS_PROFILE), or give the edge another name"
    )]
    OtherAccount {
        /// The account of the deploy.
        deployed: String,
        /// That of the credentials.
        here: String,
    },
    /// The state has resources, and the account has none of them.
    #[error(
        "the state names {count} resource{}, and the account {account} has none of them in {region}: these credentials are others than the \
         deploy's, or the resources were removed by hand. Nothing was changed, and the state is kept. Sign in as the deploy did; if they were \
         removed by hand, have the state forget them",
        if *count == 1 { "" } else { "s" }
    )]
    NotInAccount {
        /// How many the state names.
        count: usize,
        /// The account of the credentials.
        account: String,
        /// The region that was asked.
        region: String,
        /// The command that has the state forget what is not there.
        forget: String,
    },
    /// The verified call of this spec cannot be placed on AWS.
    #[error("the verified call would not pass: {0}")]
    NoVerifiedCall(&'static str),
    /// Not all instances got ready in time.
    #[error("{0}")]
    NotReady(String),
    /// The target is not as it has to be for this step.
    #[error("{0}")]
    NotAsExpected(String),
    /// `--instances` is out of the group's bounds.
    #[error("--instances {wanted} is not within 1 and scaling.max, which is {max} for this topology")]
    Instances {
        /// What was asked for.
        wanted: u32,
        /// The most that there may be.
        max: u32,
    },
    /// A refresh did not bring its version.
    #[error(transparent)]
    Refresh(Box<RefreshFailure>),
    /// A refresh could not be awaited.
    #[error(transparent)]
    Trouble(Box<Trouble>),
    /// There is no version to go back to.
    #[error(
        "there is nothing to go back to: {edge} {topology} has no version that was found good before version {version}"
    )]
    NoVersionBefore {
        /// Name of the edge.
        edge: String,
        /// The topology.
        topology: crate::plan::Topology,
        /// The version that is live.
        version: u64,
    },
    /// There is no such version.
    #[error("{edge} {topology} has no version {version}")]
    NoSuchVersion {
        /// Name of the edge.
        edge: String,
        /// The topology.
        topology: crate::plan::Topology,
        /// The version that was asked for.
        version: u64,
    },
    /// Nothing runs that could be changed.
    #[error("{edge} {topology} does not run: there is nothing that could be changed")]
    NotRunning {
        /// Name of the edge.
        edge: String,
        /// The topology.
        topology: crate::plan::Topology,
    },
    /// The infrastructure has no address to call.
    #[error("the infrastructure has no ingress address to place a call to")]
    NoIngress,
    /// The smoke call did not pass.
    #[error("the verified call did not pass")]
    Verification(Box<Report>),
}

/// Whether this is about the machine, which cannot have a lab as it is, and not about one lab.
pub fn lab_unavailable(error: &LabError) -> bool {
    matches!(
        error,
        LabError::UserNamespaces { .. }
            | LabError::NoProxy { .. }
            | LabError::ProgramMissing { .. }
            | LabError::FirmwareMissing { .. }
    )
}

#[cfg(feature = "aws")]
impl From<sipedge_aws::AwsError> for Cause {
    fn from(error: sipedge_aws::AwsError) -> Self {
        Self::Aws(Box::new(error))
    }
}

/// AWS's code for a refresh that has no version to go back to (AutoScaling API Reference, RollbackInstanceRefresh).
#[cfg(feature = "aws")]
const IRREVERSIBLE: &str = "IrreversibleInstanceRefresh";

impl Cause {
    /// Whether the same request may be granted later: AWS asks for fewer calls, or has a bad minute. What it does not allow stays so.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            #[cfg(feature = "aws")]
            Self::Aws(error) => match &**error {
                AwsError::Throttled { .. } | AwsError::Unreachable { .. } | AwsError::NoRefreshInProgress { .. } => {
                    true
                }
                AwsError::Service { code, .. } => code != IRREVERSIBLE,
                _ => false,
            },
            Self::Lab(_) => true,
            _ => false,
        }
    }
}

impl StepFailure {
    /// Asks the target what stands, for the message.
    pub(super) fn new(step: Step, cause: Cause, state: &State) -> Self {
        if state.target() == TargetKind::Aws {
            return Self::on_aws(step, cause, state);
        }
        let mut stands = Vec::new();
        let mut missing = Vec::new();
        if step > Step::Artefacts {
            stands.push(format!("the plan's files in {}", state.artefacts_folder().display()));
        }
        match Lab::attach(&state.lab_folder()).ok().flatten().and_then(|lab| lab.status().ok()) {
            Some(status) => {
                stands.push(format!("the lab's network (supervisor: process {})", status.supervisor_pid));
                for instance in &status.instances {
                    let name = format!("instance {} at {}", instance.id.0, instance.address);
                    match (instance.pid, instance.healthy) {
                        (Some(_), true) => stands.push(format!("{name}, healthy")),
                        (Some(_), false) => missing.push(format!("{name}: runs, but is not healthy")),
                        (None, _) => missing.push(format!(
                            "{name}: has ended{}",
                            instance.exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default()
                        )),
                    }
                }
                if status.instances.is_empty() {
                    missing.push("the instances".to_owned());
                }
            }
            None => missing.push("the lab and its instances".to_owned()),
        }
        match &cause {
            Cause::Refresh(failure) => match &failure.back {
                Back::Version(version) => stands.push(format!("version {version}, which is live again")),
                Back::Not(reason) => missing.push(format!("the version of before: {reason}")),
            },
            _ if step == Step::Remove => {}
            _ => missing.push("the verified call".to_owned()),
        }
        let next = next_commands(step, state);
        Self { step, cause, stands, missing, next }
    }

    /// What stands on AWS is in Terraform's state.
    fn on_aws(step: Step, cause: Cause, state: &State) -> Self {
        let topology = state.topology();
        let mut stands = Vec::new();
        let mut missing = Vec::new();
        if step > Step::Artefacts {
            stands.push(format!("the plan's files in {}", state.artefacts_folder().display()));
        }
        match state.recorded() {
            Recorded::Here(0) => missing.push("every resource: nothing of it is in the account".to_owned()),
            Recorded::Here(count) => {
                let plural = if count == 1 { "" } else { "s" };
                stands.push(format!("{count} resource{plural} in the account, which Terraform's state names"));
            }
            Recorded::Unreadable => {
                stands.push(format!("what {} names, which cannot be read", state.terraform_state_file().display()));
            }
            Recorded::Elsewhere => stands.push("what Terraform's state in S3 names".to_owned()),
        }
        if let Cause::Refresh(failure) = &cause {
            match &failure.back {
                Back::Version(version) => stands.push(format!("version {version}, which is live again")),
                Back::Not(reason) => missing.push(format!("the version of before: {reason}")),
            }
        }
        let removing = state.journal().ok().and_then(|journal| Some(journal.last()?.command)) == Some(Command::Destroy);
        let mut next = match &cause {
            Cause::Terraform(error) => error.next(),
            Cause::NotInAccount { forget, .. } => {
                vec![(
                    forget.clone(),
                    "only if they were removed by hand: the state forgets what is not there".to_owned(),
                )]
            }
            Cause::NotPublished { flavour, .. } => {
                let mut next: Vec<(String, String)> = crate::image::way_to_published(*flavour).into();
                let command = format!("sipedge deploy {topology} --build-image");
                next.push((command, "does all three of them, and then deploys".to_owned()));
                next
            }
            _ => Vec::new(),
        };
        if removing {
            let command = format!("sipedge destroy {topology} --target aws");
            next.push((command, "goes on with the removal of what is left".to_owned()));
            return Self { step, cause, stands, missing, next };
        }
        missing.push("the verified call".to_owned());
        let command = format!("sipedge deploy {topology} --target aws");
        next.push((command, "goes on from what stands, once the cause is gone".to_owned()));
        if step > Step::TerraformPlan {
            next.push((format!("sipedge destroy {topology} --target aws"), "removes what stands".to_owned()));
        }
        Self { step, cause, stands, missing, next }
    }
}

fn next_commands(step: Step, state: &State) -> Vec<(String, String)> {
    let topology = state.topology();
    let mut next = Vec::new();
    if step == Step::Remove {
        next.push((format!("sipedge destroy {topology}"), "goes on with the removal".to_owned()));
        return next;
    }
    if step == Step::VerifiedCall {
        let command = format!("sipedge verify call --topology {topology}");
        next.push((command, "places the call again, with nothing else changed".to_owned()));
    }
    let command = format!("sipedge deploy {topology} --target lab");
    next.push((command, "goes on from what stands, once the cause is gone".to_owned()));
    next.push((format!("sipedge destroy {topology}"), "removes what stands".to_owned()));
    next
}
