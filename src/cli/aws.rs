//! Commands on an edge in an AWS account.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::{Value, json};
pub(super) use sipedge::deploy::aws::Connections;
use sipedge::deploy::aws::{self, AwsSecrets, Options, Rolled};
use sipedge::deploy::{self, Destroyed, Project, RefreshOptions, State, TOPOLOGIES};
use sipedge::plan::{self, Plan, TargetKind, Topology};
use sipedge::target::aws::preview;

use super::edge::{deployed_project, nothing_deployed, project, reported, show_report};
use super::exit::{self, Exit, Failure};
use super::image::bring;
use super::secrets::{rotate_in, status_of};
use super::{
    Deploy, Destroy, Global, Refresh, Reports, Rollback, RotateSecrets, SecretsStatus, TopologyName, VerifyCall, Via,
};

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

pub(super) fn deploy(global: &Global, args: &Deploy) -> Result<Exit, Failure> {
    let topology: Topology = args.topology.into();
    if args.instances.is_some() {
        let message =
            "--instances is for the lab: on AWS the group keeps between scaling.min and scaling.max by its load";
        return Err(Failure::new(Exit::Usage, message));
    }
    can_ask(global, args.yes, &format!("sipedge deploy {topology} --yes"))?;
    let loaded = global.load_spec()?;
    let state = project(global, &loaded.spec.name)?.state_on(TargetKind::Aws, topology);
    if args.build_image && loaded.spec.aws.image.is_none() {
        let exit = bring::bring(global, &loaded.spec.aws)?;
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    let mut progress = deploy::for_output(global.json);
    let mut ask = |changes: &str| args.yes || agreed(changes, "Make these changes? (yes/no) ", "yes");
    let options = Options { verify: !args.no_verify };
    let deployed = aws::deploy(&loaded, &state, options, &mut ask, progress.as_mut())
        .map_err(|error| reported(error, &args.reports, global.json))?;
    if let Some(report) = &deployed.report {
        show_report(report, &args.reports, global.json, true)?;
    }
    if global.json {
        // One line, as the steps before it.
        exit::print(
            &json!({
                "event": "deployed",
                "edge": deployed.plan.name,
                "topology": topology,
                "verified": deployed.report.is_some(),
                "outputs": deployed.outputs,
                "group": deployed.group,
                "hand_off": deployed.hand_off.display().to_string(),
            })
            .to_string(),
        )?;
        return Ok(Exit::Done);
    }
    let ingress: Vec<String> =
        aws::ingress(&deployed.plan, &deployed.outputs).iter().map(ToString::to_string).collect();
    let verified = if deployed.report.is_some() { "" } else { "; not verified: no call was placed" };
    exit::print(&format!(
        "{} {topology} is up on AWS: {} instances behind {}{verified}\nWhat the carriers have to know: {}",
        deployed.plan.name,
        deployed.group.instances.len(),
        ingress.join(", "),
        deployed.hand_off.display()
    ))?;
    Ok(Exit::Done)
}

pub(super) fn destroy(global: &Global, args: &Destroy) -> Result<Exit, Failure> {
    let project = deployed_project(global)?;
    let loaded = global.load_spec().ok();
    // Terraform's state may be in S3, where another machine has put it: then the spec alone says where, and the state what stands.
    let remote = loaded.as_ref().filter(|loaded| loaded.spec.aws.state.is_some());
    let may_be =
        |topology: Topology| remote.is_some_and(|loaded| plan::plan(loaded, topology, TargetKind::Aws).is_ok());
    let there: Vec<Topology> = match (args.topology.map(Topology::from), project.present_on(TargetKind::Aws)) {
        (Some(topology), present) if present.contains(&topology) || may_be(topology) => vec![topology],
        (Some(_), _) => Vec::new(),
        (None, present) if present.is_empty() => TOPOLOGIES.into_iter().filter(|topology| may_be(*topology)).collect(),
        (None, present) => present,
    };
    let mut removed = Vec::new();
    if !there.is_empty() {
        can_ask(global, args.yes, "sipedge destroy --target aws --yes")?;
        let names: Vec<&str> = there.iter().map(|topology| topology.as_str()).collect();
        let what = format!(
            "Everything of {} ({}) is removed from the account, and calls in progress end. Its addresses are given back and do not come again.\n",
            project.edge(),
            names.join(" and ")
        );
        let question = format!("Type the edge's name ({}) to go on: ", project.edge());
        if !args.yes && !agreed(&what, &question, project.edge()) {
            return Err(Failure::new(Exit::Usage, "nothing was removed: the answer was not the edge's name"));
        }
        let mut progress = deploy::for_output(global.json);
        for topology in there {
            let state = project.state_on(TargetKind::Aws, topology);
            match aws::destroy(loaded.as_ref(), &state, progress.as_mut())? {
                Destroyed::Removed => removed.push(topology.as_str()),
                Destroyed::NothingThere => {}
            }
        }
    }
    if global.json {
        exit::print(&json!({ "event": "destroyed", "edge": project.edge(), "topologies": removed }).to_string())?;
    } else if removed.is_empty() {
        exit::print(&format!("{}: there is nothing on AWS to destroy", project.edge()))?;
    } else {
        exit::print(&format!("{}: {} destroyed", project.edge(), removed.join(" and ")))?;
    }
    Ok(Exit::Done)
}

pub(super) fn refresh(global: &Global, args: &Refresh) -> Result<Exit, Failure> {
    let state = one_on_aws(global, args.topology)?;
    let mut progress = deploy::for_output(global.json);
    let wanted = RefreshOptions { version: args.version };
    let done = aws::refresh(&state, &wanted, Options { verify: !args.no_verify }, progress.as_mut())
        .map_err(|error| reported(error, &args.reports, global.json))?;
    rolled(global, &args.reports, &done, "refreshed")
}

pub(super) fn rollback(global: &Global, args: &Rollback) -> Result<Exit, Failure> {
    let state = one_on_aws(global, args.topology)?;
    let mut progress = deploy::for_output(global.json);
    let done = aws::rollback(&state, Options { verify: !args.no_verify }, progress.as_mut())
        .map_err(|error| reported(error, &args.reports, global.json))?;
    rolled(global, &args.reports, &done, "rolled back")
}

/// The operator's call to what was deployed from here, with the password from Parameter Store.
pub(super) fn verify_call(global: &Global, args: &VerifyCall) -> Result<Exit, Failure> {
    if args.via == Some(Via::Carriers) {
        let message = "on AWS nobody stands at the carriers' addresses who could call from there";
        return Err(Failure::new(Exit::Usage, message)
            .next("sipedge verify call --target aws --via operator", "calls from this machine"));
    }
    let state = one_on_aws(global, args.topology)?;
    let report = aws::verify_call(&state, args.transport.into())?;
    show_report(&report, &args.reports, global.json, false)?;
    Ok(if report.passed { Exit::Done } else { Exit::VerificationFailed })
}

pub(super) fn rotate_secrets(global: &Global, args: &RotateSecrets) -> Result<Exit, Failure> {
    let state = one_on_aws(global, args.topology)?;
    let lock = state.lock()?;
    let (store, reach) = AwsSecrets::of(&state)?;
    let done = rotate_in(&store, &reach, &state, global, args);
    drop(lock);
    done
}

pub(super) fn secrets_status(global: &Global, args: &SecretsStatus) -> Result<Exit, Failure> {
    let state = one_on_aws(global, args.topology)?;
    status_of(&AwsSecrets::of(&state)?.0, &state, global)
}

fn rolled(global: &Global, files: &Reports, done: &Rolled, what: &str) -> Result<Exit, Failure> {
    if let Some(report) = &done.report {
        show_report(report, files, global.json, true)?;
    }
    let (edge, topology, version) = (&done.plan.name, done.plan.topology, done.version);
    if global.json {
        let verified = done.report.is_some();
        let line = json!({
            "event": what.replace(' ', "-"), "edge": edge, "topology": topology, "version": version,
            "verified": verified, "group": done.group,
        });
        exit::print(&line.to_string())?;
    } else {
        let verified = if done.report.is_some() { "" } else { "; not verified: no call was placed" };
        exit::print(&format!("{edge} {topology} on AWS is {what}: version {version} is live{verified}"))?;
    }
    Ok(Exit::Done)
}

/// The state of the topology on AWS that is named, or of the only one that there is.
fn one_on_aws(global: &Global, named: Option<TopologyName>) -> Result<State, Failure> {
    let project = deployed_project(global)?;
    let present = project.present_on(TargetKind::Aws);
    match (named.map(Topology::from), present.as_slice()) {
        (Some(topology), _) if present.contains(&topology) => Ok(project.state_on(TargetKind::Aws, topology)),
        (None, [topology]) => Ok(project.state_on(TargetKind::Aws, *topology)),
        (named, [] | [_]) | (named @ Some(_), _) => Err(nothing_deployed(&project, named, global.target)),
        (None, _) => {
            Err(Failure::new(Exit::Usage, "both topologies are on AWS: say which, single-ec2 or load-balanced"))
        }
    }
}

pub(super) fn status(
    project: &Project,
    topologies: &[Topology],
    connections: &mut Connections,
) -> Result<Status, Failure> {
    let states = topologies.iter().map(|topology| project.state_on(TargetKind::Aws, *topology));
    let found: Vec<_> = states.map(|state| aws::status(&state, connections)).collect();
    Ok(Status {
        texts: found.iter().map(aws::AwsStatus::render).collect(),
        data: found.iter().map(|status| json!(status)).collect(),
        running: found.iter().any(|status| status.running),
        damaged: found.iter().any(|status| !status.damages.is_empty()),
        unreachable: found.iter().any(|status| status.unreachable),
    })
}

/// What Terraform would change, or why that cannot be told.
pub(super) fn look(plan: &Plan, state: &State) -> Look {
    match aws::look(plan, state) {
        Ok(changes) => Look {
            text: format!("Account: {}\n{}\n", changes.summary(), indented(&preview(&changes))),
            data: Some(json!(changes)),
        },
        Err(cause) => Look {
            text: format!("Account\n  what would change cannot be told: {cause}\n\n"),
            data: Some(json!({ "unknown": cause.to_string() })),
        },
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Somebody has to agree to what changes in an account.
pub(super) fn can_ask(global: &Global, yes: bool, instead: &str) -> Result<(), Failure> {
    if yes || (!global.json && std::io::stdin().is_terminal()) {
        return Ok(());
    }
    let why = if global.json { "with --json nobody is asked" } else { "nobody can be asked here" };
    Err(Failure::new(Exit::Usage, format!("{why}, and this changes an AWS account: --yes says that it may"))
        .next(instead, "does it without asking"))
}

/// Shows what is about to happen and waits for the word.
pub(super) fn agreed(text: &str, question: &str, word: &str) -> bool {
    let mut err = std::io::stderr().lock();
    // Without a reader there is no answer either.
    let _ = write!(err, "{text}\n{question}").and_then(|()| err.flush());
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim() == word
}
