//! `sipedge lab`: what happens to an edge on AWS, done to a lab by hand.

use std::time::Duration;

use serde_json::json;
use sipedge::target::lab::{self, InstanceId};

use super::edge::{not_running, one_deployed, require_lab};
use super::exit::{self, Exit, Failure};
use super::{Global, Lab, LabAction};

pub(super) fn run(global: &Global, args: Lab) -> Result<Exit, Failure> {
    if let LabAction::Supervise { folder } = &args.action {
        lab::supervise(folder)?;
        return Ok(Exit::Done);
    }
    require_lab(global.target, "sipedge lab --target lab")?;
    let (folder, gone) = match args.folder {
        Some(folder) => {
            let message = format!("no lab runs in {}", folder.display());
            (folder, Failure::new(Exit::NothingDeployed, message))
        }
        None => {
            let state = one_deployed(global, args.topology)?;
            (state.lab_folder(), not_running(&state))
        }
    };
    // Asked before `exec` too, since a lab that is gone is more likely than a failure to enter it.
    let Some(lab) = lab::Lab::attach(&folder)? else { return Err(gone) };
    if let LabAction::Exec { namespace, command } = &args.action {
        return Err(lab::exec(&folder, namespace, command).into());
    }
    let changed = match args.action {
        LabAction::Instances => return instances(global, &lab),
        LabAction::Add => {
            let id = lab.add_instance()?;
            lab.wait_healthy(&id, HEALTHY_DEADLINE)?;
            format!("{} is healthy", id.0)
        }
        LabAction::Kill { instance } => {
            lab.kill_instance(&InstanceId(instance.clone()))?;
            format!("{instance} is killed")
        }
        LabAction::Remove { instance } => {
            lab.deregister(&InstanceId(instance.clone()))?;
            format!("{instance} is out of the load balancer")
        }
        LabAction::Register { instance } => {
            lab.register(&InstanceId(instance.clone()))?;
            format!("{instance} is back in the load balancer")
        }
        LabAction::Flush => {
            lab.flush_flows()?;
            "all flows are forgotten".to_owned()
        }
        LabAction::Exec { .. } | LabAction::Supervise { .. } => return Ok(Exit::Done),
    };
    if global.json { instances(global, &lab) } else { exit::print(&changed).map(|()| Exit::Done) }
}

/// How long a new instance may take until it is healthy; a boot takes less than a second, and health checks follow.
const HEALTHY_DEADLINE: Duration = Duration::from_secs(30);

fn instances(global: &Global, lab: &lab::Lab) -> Result<Exit, Failure> {
    let status = lab.status()?;
    if global.json {
        exit::print_json(&json!({ "instances": status.instances }))?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for instance in &status.instances {
        let process = instance.pid.map_or_else(|| "ended".to_owned(), |pid| pid.to_string());
        let registered = if instance.registered { "registered" } else { "taken out" };
        let health = if instance.healthy { "healthy" } else { "unhealthy" };
        text.push_str(&format!(
            "{:<8} {:<16} {process:<9} {registered:<12} {health}\n",
            instance.id.0, instance.address
        ));
    }
    if text.is_empty() {
        text.push_str("no instances\n");
    }
    exit::print(&text)?;
    Ok(Exit::Done)
}
