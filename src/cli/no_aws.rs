//! What a build without the feature `aws` says where the account is needed.

use std::path::Path;

use serde_json::Value;
use sipedge::deploy::{Project, State};
use sipedge::image::Flavour;
use sipedge::plan::{Plan, Topology};

use super::exit::{Exit, Failure};
use super::image::PruneImages;
use super::image::list::InAccount;
use super::{Deploy, Destroy, Global, Refresh, Rollback, RotateSecrets, SecretsStatus, VerifyCall};

/// What the account says of a plan.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) text: String,
    pub(super) data: Option<Value>,
}

/// What the account says of what stands.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) texts: Vec<String>,
    pub(super) data: Vec<Value>,
    pub(super) running: bool,
    pub(super) damaged: bool,
    /// Whether an account did not answer.
    pub(super) unreachable: bool,
}

pub(super) fn deploy(_global: &Global, args: &Deploy) -> Result<Exit, Failure> {
    let topology: Topology = args.topology.into();
    Err(no_support()
        .next(format!("sipedge deploy {topology} --target lab"), "builds it on this machine, without an account"))
}

pub(super) fn destroy(_global: &Global, _args: &Destroy) -> Result<Exit, Failure> {
    Err(no_support())
}

pub(super) fn refresh(_global: &Global, _args: &Refresh) -> Result<Exit, Failure> {
    Err(no_support())
}

pub(super) fn rollback(_global: &Global, _args: &Rollback) -> Result<Exit, Failure> {
    Err(no_support())
}

pub(super) fn rotate_secrets(_global: &Global, _args: &RotateSecrets) -> Result<Exit, Failure> {
    Err(no_support())
}

pub(super) fn secrets_status(_global: &Global, _args: &SecretsStatus) -> Result<Exit, Failure> {
    Err(no_support())
}

pub(super) fn verify_call(_global: &Global, args: &VerifyCall) -> Result<Exit, Failure> {
    let topology = args.topology.map_or(Topology::LoadBalanced, Topology::from);
    Err(no_support().next(
        format!("sipedge verify call --target aws --topology {topology} --ingress ADDRESS"),
        "calls an address that is known, with the password in SIPEDGE_ANSWERER_PASSWORD",
    ))
}

pub(super) fn publish_image(_global: &Global, _cache: &Path, _flavour: Flavour) -> Result<Exit, Failure> {
    Err(no_support())
}

pub(super) fn published_images(_global: &Global) -> Result<InAccount, Failure> {
    Err(no_support().next("sipedge image list --local", "shows the images on this machine"))
}

pub(super) fn prune_images(_global: &Global, _args: &PruneImages) -> Result<Exit, Failure> {
    Err(no_support())
}

/// Connections to accounts: there are none.
#[derive(Debug, Default)]
pub(super) struct Connections(());

pub(super) fn status(
    _project: &Project,
    topologies: &[Topology],
    _connections: &mut Connections,
) -> Result<Status, Failure> {
    let text = |topology: &Topology| format!("{topology} on AWS: {NO_SUPPORT}\n");
    Ok(Status {
        texts: topologies.iter().map(text).collect(),
        data: Vec::new(),
        running: false,
        damaged: false,
        unreachable: !topologies.is_empty(),
    })
}

pub(super) fn look(_plan: &Plan, _state: &State) -> Look {
    Look { text: format!("Account\n  not asked: {NO_SUPPORT}\n\n"), data: None }
}

const NO_SUPPORT: &str = "this build has no AWS support; build with `--features aws`";

fn no_support() -> Failure {
    Failure::new(Exit::TargetNotAvailable, NO_SUPPORT)
        .next("cargo build --release --features aws", "builds sipedge with it, in some minutes")
}
