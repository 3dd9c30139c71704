//! `sipedge status`.

use std::io::{self, IsTerminal};
use std::time::Duration;

use serde_json::{Value, json};
use sipedge::deploy::{self, Project, TopologyStatus};
use sipedge::plan::TargetKind;

#[cfg(feature = "aws")]
use super::aws as on_aws;
use super::edge::{deployed_project, nothing_deployed};
use super::exit::{self, Exit, Failure};
#[cfg(not(feature = "aws"))]
use super::no_aws as on_aws;
use super::{Global, Status, Target};

/// Time between two pictures of `--watch` in the lab.
const EVERY: Duration = Duration::from_secs(1);
/// The same where an account is asked: describe calls are throttled per account, and instances take minutes there.
const EVERY_ON_AWS: Duration = Duration::from_secs(5);
/// Clears a terminal and goes to its upper left corner (ECMA-48, ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) fn status(global: &Global, args: &Status) -> Result<Exit, Failure> {
    let project = deployed_project(global)?;
    let mut connections = on_aws::Connections::default();
    if !args.watch {
        let found = look(&project, global.target, &mut connections)?;
        let shown = if global.json { format!("{:#}", as_json(&project, &found)) } else { as_text(&found) };
        exit::print(&shown)?;
        return Ok(exit_of(&found));
    }
    // Until a signal ends it, its reader goes away, or nothing runs any more.
    let clear = if !global.json && io::stdout().is_terminal() { CLEAR } else { "" };
    loop {
        let found = look(&project, global.target, &mut connections)?;
        let shown = if global.json { as_json(&project, &found).to_string() } else { as_text(&found) };
        let is_read = exit::print_to_reader(&format!("{clear}{shown}"))?;
        let exit = exit_of(&found);
        if exit == Exit::NothingDeployed || !is_read {
            return Ok(exit);
        }
        std::thread::sleep(if found.aws.texts.is_empty() { EVERY } else { EVERY_ON_AWS });
    }
}

/// What stands, on either target.
struct Found {
    lab: Vec<TopologyStatus>,
    aws: on_aws::Status,
}

fn look(project: &Project, target: Option<Target>, connections: &mut on_aws::Connections) -> Result<Found, Failure> {
    let in_lab = if target == Some(Target::Aws) { Vec::new() } else { project.present() };
    let on_aws = if target == Some(Target::Lab) { Vec::new() } else { project.present_on(TargetKind::Aws) };
    if in_lab.is_empty() && on_aws.is_empty() {
        return Err(nothing_deployed(project, None, target));
    }
    let lab = in_lab.into_iter().map(|topology| deploy::status(&project.state(topology))).collect();
    Ok(Found { lab, aws: on_aws::status(project, &on_aws, connections)? })
}

fn as_json(project: &Project, found: &Found) -> Value {
    let topologies: Vec<Value> =
        found.lab.iter().map(|status| json!(status)).chain(found.aws.data.iter().cloned()).collect();
    json!({ "edge": project.edge(), "topologies": topologies })
}

fn as_text(found: &Found) -> String {
    let texts: Vec<String> =
        found.lab.iter().map(TopologyStatus::render).chain(found.aws.texts.iter().cloned()).collect();
    texts.join("\n")
}

fn exit_of(found: &Found) -> Exit {
    let damaged = found.aws.damaged || found.lab.iter().any(|status| !status.damages.is_empty());
    let running = found.aws.running || found.lab.iter().any(|status| status.running);
    match () {
        () if damaged => Exit::StateDamaged,
        () if running => Exit::Done,
        // What is there nobody knows, which is not that nothing is.
        () if found.aws.unreachable => Exit::TargetNotAvailable,
        () => Exit::NothingDeployed,
    }
}
