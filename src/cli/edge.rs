//! Commands on what is deployed: deploy, verify, destroy.

use std::net::IpAddr;

use serde_json::{Value, json};
use sipedge::deploy::{self, Cause, DeployError, Destroyed, Options, Project, State, StateError, Trouble, write_whole};
use sipedge::plan::{self, Plan, TargetKind, Topology};
use sipedge::spec::{Spec, Transport};
use sipedge::target::lab::Lab;
use sipedge::verify::twilio::{self, Account, Pace};
use sipedge::verify::{self, Addresses, Report, report};

#[cfg(feature = "aws")]
use super::aws as on_aws;
use super::exit::{self, Exit, Failure};
#[cfg(not(feature = "aws"))]
use super::no_aws as on_aws;
use super::{CarrierName, Deploy, Destroy, Global, Reports, Target, TopologyName, VerifyCall, Via};

pub(super) fn deploy(global: &Global, args: &Deploy) -> Result<Exit, Failure> {
    let topology: Topology = args.topology.into();
    if global.target != Some(Target::Lab) {
        return on_aws::deploy(global, args);
    }
    if args.no_verify {
        return Err(Failure::new(Exit::Usage, "--no-verify is for AWS: in the lab the call can always be placed"));
    }
    if args.build_image {
        return Err(Failure::new(
            Exit::Usage,
            "--build-image is for AWS: the lab's instances run the proxy of this machine",
        ));
    }
    let loaded = global.load_spec()?;
    let state = project(global, &loaded.spec.name)?.state(topology);
    let options = Options { instances: args.instances, machine: None };
    let mut progress = deploy::for_output(global.json);
    let deployed = deploy::deploy(&loaded, &state, &options, progress.as_mut())
        .map_err(|error| reported(error, &args.reports, global.json))?;
    show_report(&deployed.report, &args.reports, global.json, true)?;
    if !global.json {
        let ingress: Vec<String> = deployed.status.ingress_addresses.iter().map(ToString::to_string).collect();
        exit::print(&format!(
            "{} {} is up: {} instances behind {}",
            deployed.plan.name,
            topology,
            deployed.status.instances.len(),
            ingress.join(", ")
        ))?;
    }
    Ok(Exit::Done)
}

pub(super) fn verify_call(global: &Global, args: &VerifyCall) -> Result<Exit, Failure> {
    if args.carrier == Some(CarrierName::Twilio) {
        return twilios_call(global, args);
    }
    if global.target == Some(Target::Aws) {
        return match args.ingress {
            None => on_aws::verify_call(global, args),
            Some(ingress) => operators_call(global, args, ingress),
        };
    }
    let state = one_deployed(global, args.topology)?;
    let plan = state.plan().map_err(|error| damaged_plan(error, &state))?;
    let lab = Lab::attach(&state.lab_folder())?;
    let (Some(mut plan), Some(lab)) = (plan, lab) else {
        return Err(not_running(&state));
    };
    match args.via {
        None => {}
        Some(Via::Carriers) => plan.proxy.answerer = None,
        Some(Via::Operator) if plan.proxy.answerer.is_some() => plan.verify.calls.clear(),
        Some(Via::Operator) => return Err(no_answerer(&plan)),
    }
    let addresses = deploy::addresses(&plan, &lab.status()?)
        .ok_or_else(|| Failure::new(Exit::StepFailed, "the lab has no ingress address to place a call to"))?;
    let transport = args.transport.into();
    let Some(addresses) = addresses.by(transport, &plan) else {
        return Err(not_spoken(state.edge(), state.topology(), transport));
    };
    let report = verify::run(&plan, &addresses, transport, &lab, &deploy::rfc3339(deploy::now_unix_ms()));
    show_report(&report, &args.reports, global.json, false)?;
    Ok(if report.passed { Exit::Done } else { Exit::VerificationFailed })
}

/// The operator's call from this machine to an edge on AWS.
fn operators_call(global: &Global, args: &VerifyCall, ingress: IpAddr) -> Result<Exit, Failure> {
    if args.via == Some(Via::Carriers) {
        let message = "on AWS nobody stands at the carriers' addresses who could call from there";
        return Err(Failure::new(Exit::Usage, message)
            .next("sipedge verify call --target aws --via operator", "calls from this machine"));
    }
    let loaded = global.load_spec()?;
    let topology = args.topology.map_or(Topology::LoadBalanced, Topology::from);
    let plan = plan::plan(&loaded, topology, TargetKind::Aws)?;
    if plan.proxy.answerer.is_none() {
        return Err(no_answerer(&plan));
    }
    let Some(password) = std::env::var(PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty()) else {
        let message = format!("the answerer's password is missing: set {PASSWORD_VARIABLE}");
        return Err(Failure::new(Exit::Usage, message));
    };
    let transport = args.transport.into();
    let addresses = Addresses { ingress: (ingress, 0).into(), egress: Vec::new() };
    let Some(addresses) = addresses.by(transport, &plan) else {
        return Err(not_spoken(&plan.name, topology, transport));
    };
    let report = verify::run_operator(&plan, &addresses, transport, &password, &deploy::rfc3339(deploy::now_unix_ms()));
    show_report(&report, &args.reports, global.json, false)?;
    Ok(if report.passed { Exit::Done } else { Exit::VerificationFailed })
}

/// A call that Twilio places by its API.
fn twilios_call(global: &Global, args: &VerifyCall) -> Result<Exit, Failure> {
    let account = Account::from_environment(|name| std::env::var(name).ok());
    let account = account.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let loaded = global.load_spec()?;
    let topology = args.topology.map_or(Topology::LoadBalanced, Topology::from);
    let plan = plan::plan(&loaded, topology, global.target.unwrap_or(Target::Aws).into())?;
    let report = twilio::run(&plan, &account, Pace::default(), &deploy::rfc3339(deploy::now_unix_ms()));
    show_report(&report, &args.reports, global.json, false)?;
    Ok(if report.passed { Exit::Done } else { Exit::VerificationFailed })
}

/// Names the answerer's password where sipedge cannot read it from SSM itself.
const PASSWORD_VARIABLE: &str = "SIPEDGE_ANSWERER_PASSWORD";

fn no_answerer(plan: &Plan) -> Failure {
    let message = format!("{} has no answerer: its spec says `verify.answerer: false`", plan.name);
    Failure::new(Exit::Usage, message)
}

fn not_spoken(edge: &str, topology: Topology, transport: Transport) -> Failure {
    let setting = if transport == Transport::Tls { "listen.tls" } else { "listen.tcp" };
    let message = format!("{edge} {topology} takes no calls by {transport}: its spec has not set `{setting}`");
    Failure::new(Exit::Usage, message)
}

pub(super) fn destroy(global: &Global, args: &Destroy) -> Result<Exit, Failure> {
    if global.target == Some(Target::Aws) {
        return on_aws::destroy(global, args);
    }
    let project = deployed_project(global)?;
    let topologies = match args.topology {
        Some(topology) => vec![topology.into()],
        None => project.present(),
    };
    let mut progress = deploy::for_output(global.json);
    let mut removed = Vec::new();
    for topology in topologies {
        match deploy::destroy(&project.state(topology), progress.as_mut())? {
            Destroyed::Removed => removed.push(topology.as_str()),
            Destroyed::NothingThere => {}
        }
    }
    if global.json {
        // One line, as the steps before it.
        exit::print(&json!({ "event": "destroyed", "edge": project.edge(), "topologies": removed }).to_string())?;
    } else if removed.is_empty() {
        exit::print(&format!("{}: there is nothing to destroy", project.edge()))?;
    } else {
        exit::print(&format!("{}: {} destroyed", project.edge(), removed.join(" and ")))?;
    }
    Ok(Exit::Done)
}

/// The state of the topology that is named, or of the only one that there is.
pub(super) fn one_deployed(global: &Global, named: Option<TopologyName>) -> Result<State, Failure> {
    let project = deployed_project(global)?;
    let present = project.present();
    match (named.map(Topology::from), present.as_slice()) {
        (Some(topology), _) if present.contains(&topology) => Ok(project.state(topology)),
        (Some(topology), _) => Err(nothing_deployed(&project, Some(topology), None)),
        (None, [topology]) => Ok(project.state(*topology)),
        (None, []) => Err(nothing_deployed(&project, None, None)),
        (None, _) => {
            let names: Vec<&str> = present.iter().map(|topology| topology.as_str()).collect();
            let message = format!("more than one topology is deployed: say --topology {}", names.join(" or "));
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// Refuses AWS for what is of the lab alone.
pub(super) fn require_lab(target: Option<Target>, instead: &str) -> Result<(), Failure> {
    match target {
        Some(Target::Aws) => Err(Failure::new(Exit::TargetNotAvailable, "this is not there for the target aws")
            .next(instead, "does it on this machine, without an AWS account")),
        Some(Target::Lab) | None => Ok(()),
    }
}

/// The failure of a command that needs what is not there.
pub(super) fn not_running(state: &State) -> Failure {
    let topology = state.topology();
    let message = format!("{} {topology} was deployed, but no process of it runs", state.edge());
    Failure::new(Exit::NothingDeployed, message)
        .next(format!("sipedge deploy {topology} --target lab"), "builds it again")
        .next(format!("sipedge destroy {topology}"), "removes what is left of it")
}

/// The failure of a command that needs the plan of what is deployed. A deploy makes a damaged one anew.
fn damaged_plan(error: StateError, state: &State) -> Failure {
    let StateError::Damaged(_) = &error else { return error.into() };
    let topology = state.topology();
    Failure::new(Exit::StateDamaged, error.to_string())
        .next(format!("sipedge deploy {topology} --target lab"), "makes what is damaged anew")
        .next(format!("sipedge destroy {topology}"), "removes everything of it")
}

/// Files of reports are for everybody.
const REPORT_MODE: u32 = 0o644;

/// The edge that the spec names. What is deployed can be seen and removed even if the rest of the spec has mistakes by now.
pub(super) fn deployed_project(global: &Global) -> Result<Project, Failure> {
    let name = match Spec::edge_name(&global.spec, global.environment.as_deref()) {
        Some(name) => name,
        None => global.load_spec()?.spec.name,
    };
    project(global, &name)
}

pub(super) fn project(global: &Global, edge: &str) -> Result<Project, Failure> {
    Project::new(&global.spec, edge)
        .map_err(|error| Failure::new(Exit::Unexpected, format!("cannot find the folder of the spec: {error}")))
}

pub(super) fn nothing_deployed(project: &Project, topology: Option<Topology>, target: Option<Target>) -> Failure {
    if target == Some(Target::Aws) {
        let name = topology.unwrap_or(Topology::SingleEc2);
        return Failure::new(Exit::NothingDeployed, format!("{} is not deployed on AWS from here", project.edge()))
            .next(format!("sipedge deploy {name}"), "shows what it would make, and asks");
    }
    let what = topology.map(|topology| format!(" {topology}")).unwrap_or_default();
    let name = topology.unwrap_or(Topology::LoadBalanced);
    Failure::new(Exit::NothingDeployed, format!("{}{what} is not deployed", project.edge()))
        .next(format!("sipedge deploy {name} --target lab"), "deploys it on this machine")
}

/// The failure of a run. The report of its call comes before the error, which says what to do about it.
pub(super) fn reported(error: DeployError, files: &Reports, json: bool) -> Failure {
    let report = match &error {
        DeployError::Step(failed) => match &failed.cause {
            Cause::Verification(report) => Some(report),
            Cause::Refresh(failure) => match &failure.why {
                Trouble::SmokeCall { report, .. } => Some(report),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    let written = report.map_or(Ok(()), |report| show_report(report, files, json, true));
    written.err().unwrap_or_else(|| error.into())
}

/// Prints the report and writes its files. As the last line of a deploy's JSON lines it has to be one line.
pub(super) fn show_report(report: &Report, files: &Reports, json: bool, one_line: bool) -> Result<(), Failure> {
    if !json {
        exit::print(&report::terminal(report))?;
    } else if one_line {
        let value: Value = serde_json::from_str(&report::json(report)).unwrap_or(Value::Null);
        exit::print(&json!({ "event": "report", "report": value }).to_string())?;
    } else {
        exit::print(&report::json(report))?;
    }
    if let Some(path) = &files.junit {
        write_whole(path, report::junit(report).as_bytes(), REPORT_MODE)?;
    }
    if let Some(path) = &files.html {
        let page = report::html(report)
            .map_err(|error| Failure::new(Exit::Unexpected, format!("the page cannot be rendered: {error}")))?;
        write_whole(path, page.as_bytes(), REPORT_MODE)?;
    }
    Ok(())
}
