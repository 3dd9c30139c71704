//! The topologies in an AWS account. Terraform owns the resources; this is how sipedge runs it and reads what it says.

mod outputs;
mod preview;
pub mod terraform;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use outputs::Outputs;
pub use preview::{meaning, preview};
#[cfg(feature = "aws")]
pub use sipedge_aws::AwsError;

use crate::deploy::State;
use crate::plan::Plan;
use terraform::{Backend, Changes, Folder, Modules, Program, Terraform, TerraformError};

/// Terraform for the topology of `state` on AWS, with the modules and the plan's files written. `image`: what instances start from, when
/// the spec does not name it.
///
/// # Errors
/// No Terraform, or one that is too old; the folder cannot be written.
pub fn prepare(plan: &Plan, state: &State, image: Option<&str>) -> Result<Terraform, TerraformError> {
    // Relative to the root module's folder, so that a project that is moved takes its state along.
    let local = Path::new("../..").join(state.terraform_state_file().file_name().unwrap_or_default());
    write(plan, image, &state.terraform_folder(), backend(plan, local))
}

/// [`prepare`] in a folder of its own, for a look at what an apply would change. The folder goes with the returned value.
///
/// # Errors
/// As there.
pub fn prepare_elsewhere(plan: &Plan, state: &State, image: &str) -> Result<Look, TerraformError> {
    let folder = tempfile::Builder::new().prefix("sipedge-plan-").tempdir();
    let folder = folder.map_err(|error| TerraformError::io("create a folder in", &std::env::temp_dir(), error))?;
    let terraform = write(plan, Some(image), folder.path(), backend(plan, state.terraform_state_file()))?;
    Ok(Look { terraform, _folder: folder })
}

/// Terraform in a folder that goes when this goes.
#[derive(Debug)]
pub struct Look {
    terraform: Terraform,
    _folder: tempfile::TempDir,
}

impl Look {
    /// What an apply would change. The state is read and not locked, so that a deploy may go on beside it.
    ///
    /// # Errors
    /// Whatever AWS or the modules refuse.
    pub fn changes(&self) -> Result<Changes, TerraformError> {
        self.terraform.init(&mut |_| {})?;
        self.terraform.look()
    }
}

fn write(plan: &Plan, image: Option<&str>, root: &Path, backend: Backend) -> Result<Terraform, TerraformError> {
    let program = Program::find()?;
    program.check(matches!(backend, Backend::S3 { .. }))?;
    let folder = Folder::new(root, plan.topology.as_str());
    let variables = format!("{}.auto.tfvars.json", plan.topology);
    let mut files: BTreeMap<String, String> = plan
        .artefacts
        .iter()
        .filter(|(name, _)| **name == variables || *name == USER_DATA)
        .map(|(name, content)| (name.clone(), content.clone()))
        .collect();
    if let Some(image) = image {
        files.insert(IMAGE_VARIABLES.to_owned(), format!("{:#}\n", serde_json::json!({ "image_id": image })));
    }
    folder.write(&Modules::embedded(), &files, &backend)?;
    Ok(Terraform::new(program, folder))
}

/// Where Terraform's state of this topology is; `local`: when the spec names no bucket.
fn backend(plan: &Plan, local: PathBuf) -> Backend {
    match plan.aws.as_ref().and_then(|aws| Some((aws, aws.state.as_ref()?))) {
        Some((aws, place)) => Backend::S3 {
            bucket: place.bucket.clone(),
            key: place.key.clone(),
            region: place.region.clone(),
            // The profile `default` is what is taken anyway; left unnamed, credentials of the environment come before it.
            profile: (aws.profile != DEFAULT_PROFILE).then(|| aws.profile.clone()),
        },
        None => Backend::Local { path: local },
    }
}

/// The template that Terraform renders each instance's user-data from.
const USER_DATA: &str = "user-data.tftpl";
/// Variables that are found in the account and not in the spec.
const IMAGE_VARIABLES: &str = "image.auto.tfvars.json";
/// The profile that AWS's own tools take when none is named.
const DEFAULT_PROFILE: &str = "default";
