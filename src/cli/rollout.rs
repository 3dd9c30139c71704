//! Commands on the versions of what is deployed: refresh, rollback.

use sipedge::deploy::{self, Deployed, RefreshOptions};

#[cfg(feature = "aws")]
use super::aws as on_aws;
use super::edge::{one_deployed, reported, show_report};
use super::exit::{self, Exit, Failure};
#[cfg(not(feature = "aws"))]
use super::no_aws as on_aws;
use super::{Global, Refresh, Reports, Rollback, Target};

pub(super) fn refresh(global: &Global, args: &Refresh) -> Result<Exit, Failure> {
    if global.target == Some(Target::Aws) {
        return on_aws::refresh(global, args);
    }
    let state = one_deployed(global, args.topology)?;
    let options = RefreshOptions { version: args.version };
    let mut progress = deploy::for_output(global.json);
    let done = deploy::refresh(&state, &options, progress.as_mut())
        .map_err(|error| reported(error, &args.reports, global.json))?;
    told(global, &args.reports, &done, "is refreshed")
}

pub(super) fn rollback(global: &Global, args: &Rollback) -> Result<Exit, Failure> {
    if global.target == Some(Target::Aws) {
        return on_aws::rollback(global, args);
    }
    let state = one_deployed(global, args.topology)?;
    let mut progress = deploy::for_output(global.json);
    let done =
        deploy::rollback(&state, progress.as_mut()).map_err(|error| reported(error, &args.reports, global.json))?;
    told(global, &args.reports, &done, "is rolled back")
}

fn told(global: &Global, files: &Reports, done: &Deployed, what: &str) -> Result<Exit, Failure> {
    show_report(&done.report, files, global.json, true)?;
    if !global.json {
        let (plan, version) = (&done.plan, done.status.group.version);
        exit::print(&format!("{} {} {what}: version {version} is live", plan.name, plan.topology))?;
    }
    Ok(Exit::Done)
}
