//! The steps of deploy and destroy. Each step may be run again at any time, and is journaled: a run that was cut off is continued by
//! the next one, and a step that fails says what stands, what does not, and what to type.

#[cfg(feature = "aws")]
pub mod aws;
mod certificates;
mod destroy;
mod error;
mod fleet;
mod journal;
mod lab_authority;
mod progress;
mod refresh;
mod rollout;
pub mod rotation;
mod runner;
mod secrets;
mod state;
mod status;
mod versions;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use lab_authority::LabAuthority;
use runner::Runner;
use sipedge_proxy::config::SecretRef;

pub use certificates::CertificateError;
pub use destroy::{Destroyed, destroy};
pub use error::{Cause, DeployError, StepFailure, lab_unavailable};
pub use fleet::{
    Fleet, Group, Lifecycle, Member, Preferences, ProxyAnswer, ProxyState, Refresh, RefreshStatus, SmokeCall,
};
pub use journal::{Command, Journal, Outcome, RefreshRecord, Run, Step, StepRecord, now_unix_ms, rfc3339};
pub use progress::{Event, Progress, for_output};
pub use refresh::{
    Back, Clock, LeadOptions, Led, MachineClock, RefreshFailure, Steps, Trouble, go_back, lead, turn_back,
};
pub use rollout::{RefreshOptions, refresh, rollback};
pub use secrets::{FileStore, SecretStore, StoreError, TokenKey, TokenKeys};
pub use state::{Damage, Project, State, StateError, StateLock, TOPOLOGIES, write_json, write_whole};
pub use status::{TopologyStatus, status};
pub use versions::{Verified, Versions};

use crate::plan::{self, LAB_PEERS, LAB_ROOTS, Plan, TargetKind};
use crate::spec::{Loaded, Spec, stale_carriers};
use crate::target::lab::{InstanceId, InstanceStatus, Lab, LabFleet, LabStatus, Machine};
use crate::verify::{Addresses, Report};

/// What a deploy may be told beside the spec.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Instances to start with instead of `scaling.min`.
    pub instances: Option<u32>,
    /// What instances are, when they are machines that boot an image.
    pub machine: Option<Machine>,
}

/// What a deploy ends in.
#[derive(Debug)]
pub struct Deployed {
    /// What was deployed.
    pub plan: Plan,
    /// What stands.
    pub status: LabStatus,
    /// The verified call; it passed.
    pub report: Report,
}

/// Brings the topology of `state` to what the spec says, in the lab, and places the verified call.
///
/// What runs already and is as planned is kept, and verified again.
pub fn deploy(
    loaded: &Loaded,
    state: &State,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Deployed, DeployError> {
    let lock = take_over(state, progress)?;
    let mut runner = Runner::begin(state, Command::Deploy, &Step::DEPLOY, progress)?;

    let plan = runner.step(Step::Plan, |progress| {
        let plan = plan::plan(loaded, state.topology(), TargetKind::Lab)?;
        for note in notes(&plan, &loaded.spec, SystemTime::now()) {
            progress.event(&Event::Note { text: &note });
        }
        let wanted = wanted_instances(&plan, options)?;
        let detail = format!("{} as {}, {wanted} of at most {}", plan.name, plan.topology, plan.scaling.max);
        Ok((plan, detail))
    })?;

    runner.step(Step::Artefacts, |_| {
        let folder = state.artefacts_folder();
        write_artefacts(&plan, &folder)?;
        clear_stale_artefacts(&plan, &folder)?;
        Ok(((), format!("{} in {}", counted(plan.artefacts.len(), "file"), folder.display())))
    })?;

    let secrets = runner.step(Step::Secrets, |progress| {
        let certificates = certificates::read(&plan, &state.spec_folder(), SystemTime::now())?;
        for warning in certificates.iter().filter_map(|certificate| certificate.warning.as_ref()) {
            progress.event(&Event::Note { text: warning });
        }
        let withdrawn = match state.token_keys()? {
            Some(_) => rotation::finish_if_due(&rotation::state_secrets(state))?,
            None => None,
        };
        let (keys, new) = match state.token_keys()? {
            Some(keys) => (keys, false),
            None => {
                let file = state.token_keys_file();
                let keys = TokenKeys::generate().map_err(StateError::io("make token keys for", &file))?;
                write_json(&file, &keys, SECRET_MODE)?;
                (keys, true)
            }
        };
        let mut detail = format!("token keys {}", if new { "made" } else { "kept" });
        if let Some(id) = withdrawn {
            detail.push_str(&format!(", key {id} withdrawn"));
        }
        if !certificates.is_empty() {
            detail.push_str(&format!(", {} checked", counted(certificates.len(), "certificate")));
        }
        Ok((Secrets { keys, new, certificates }, detail))
    })?;

    let infrastructure = runner.step(Step::Infrastructure, |progress| {
        stand_infrastructure(&plan, state, &secrets, options.machine.as_ref(), progress)
    })?;
    if infrastructure.new {
        runner.journal.infrastructure_since_unix_ms = Some(now_unix_ms());
    }
    let (lab, version) = (infrastructure.lab, infrastructure.version);
    if infrastructure.refresh {
        runner.expect_refresh_after(Step::Infrastructure);
        rollout::bring(&lab, version, true, &plan, &mut runner)?;
    }

    let never_ready = runner.last_unfinished == Some(Step::Ready);
    let instances = runner.step(Step::Instances, |progress| {
        start_instances(&plan, wanted_instances(&plan, options)?, never_ready, &lab, progress)
    })?;
    runner.step(Step::Ready, |progress| wait_ready(&instances, ready_within(options), &lab, progress))?;
    let called = runner.step(Step::VerifiedCall, |_| place_call(&plan, &lab));
    let (status, report) = called.map_err(|failure| undo(failure, version, &lab, &mut runner))?;
    state.found_good(version)?;
    runner.end()?;
    drop(lock);
    Ok(Deployed { plan, status, report })
}

/// After a verified call that did not pass: the version that was found good last comes back, if it is another.
fn undo(failure: DeployError, version: u64, lab: &Lab, runner: &mut Runner<'_>) -> DeployError {
    let DeployError::Step(mut failed) = failure else { return failure };
    let good = runner.state.versions().ok().and_then(|versions| versions.last()).filter(|good| *good != version);
    let plan = good.and_then(|good| runner.state.plan_of(good).ok().flatten());
    let (Some(good), Some(plan)) = (good, plan) else { return DeployError::Step(failed) };
    match rollout::return_to(lab, good, &plan, runner) {
        Ok(()) => failed.stands.push(format!("version {good}, which is live again")),
        Err(error) => failed.missing.push(format!("version {good}, which did not come back: {error}")),
    }
    DeployError::Step(failed)
}

/// Where the verified call goes to and comes from.
pub fn addresses(plan: &Plan, status: &LabStatus) -> Option<Addresses> {
    let ingress = *status.ingress_addresses.first()?;
    Some(Addresses {
        ingress: (ingress, plan.proxy.listen.ingress_port).into(),
        egress: status.egress_addresses.clone(),
    })
}

/// Writes the plan's files into `folder`. Other files there stay as they are.
pub fn write_artefacts(plan: &Plan, folder: &Path) -> Result<(), StateError> {
    for (name, content) in &plan.artefacts {
        write_whole(&folder.join(name), content.as_bytes(), ARTEFACT_MODE)?;
    }
    Ok(())
}

/// How long instances may take from their start until the load balancer calls them healthy. In the lab a boot takes less than a second
/// and two health checks follow; thirty seconds leave room for a machine that is busy building.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long an instance that never got ready may take to end. It has no calls that could be waited for.
const UNREADY_GRACE: Duration = Duration::from_secs(1);
/// The version that a new lab has.
const FIRST_VERSION: u64 = 1;
/// Secrets are for their owner alone.
const SECRET_MODE: u32 = 0o600;
/// Artefacts may be read by everybody: secrets are not in them.
const ARTEFACT_MODE: u32 = 0o644;

struct Secrets {
    keys: TokenKeys,
    /// Whether the keys were made by this deploy.
    new: bool,
    certificates: Vec<certificates::Checked>,
}

struct Infrastructure {
    lab: Lab,
    new: bool,
    /// The version that instances of the plan boot from.
    version: u64,
    /// Whether instances have to be replaced for it.
    refresh: bool,
}

/// Takes the lock and clears damaged parts away, so that what follows finds a state that is whole or absent.
fn take_over(state: &State, progress: &mut dyn Progress) -> Result<StateLock, StateError> {
    let tell = |damage: &Damage, progress: &mut dyn Progress| {
        progress.event(&Event::Note { text: &format!("the state was damaged: {damage}; removed") });
    };
    for damage in state.damages().iter().filter(|damage| damage.blocks_lock(state)) {
        state.take_away(damage)?;
        tell(damage, progress);
    }
    let lock = state.lock()?;
    for damage in state.damages() {
        state.take_away(&damage)?;
        tell(&damage, progress);
    }
    Ok(lock)
}

/// What a reader of the deploy should know before anything is built.
fn notes(plan: &Plan, spec: &Spec, now: SystemTime) -> Vec<String> {
    plan.warnings.iter().cloned().chain(stale_carriers(spec, now)).collect()
}

/// Removes the files of an earlier plan from a folder that is sipedge's own.
fn clear_stale_artefacts(plan: &Plan, folder: &Path) -> Result<(), StateError> {
    for entry in std::fs::read_dir(folder).map_err(StateError::io("read", folder))? {
        let entry = entry.map_err(StateError::io("read", folder))?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && !entry.file_name().to_str().is_some_and(|name| plan.artefacts.contains_key(name)) {
            let path = entry.path();
            std::fs::remove_file(&path).map_err(StateError::io("remove", &path))?;
        }
    }
    Ok(())
}

fn wanted_instances(plan: &Plan, options: &Options) -> Result<u32, Cause> {
    match options.instances {
        None => Ok(plan.scaling.min),
        Some(wanted) if (1..=plan.scaling.max).contains(&wanted) => Ok(wanted),
        Some(wanted) => Err(Cause::Instances { wanted, max: plan.scaling.max }),
    }
}

fn stand_infrastructure(
    plan: &Plan,
    state: &State,
    secrets: &Secrets,
    machine: Option<&Machine>,
    progress: &mut dyn Progress,
) -> Result<(Infrastructure, String), Cause> {
    let folder = state.lab_folder();
    let (running, answers) = match Lab::attach(&folder)? {
        None => (None, Ok(())),
        Some(lab) => {
            let answers = lab.status().map(|_| ());
            (Some(lab), answers)
        }
    };
    let reason = match (&running, state.plan()?) {
        (None, _) => None,
        (Some(_), _) if answers.is_err() => Some("it does not answer"),
        (Some(_), _) if secrets.new => Some("its token keys are lost"),
        (Some(_), Some(deployed)) if same_infrastructure(&deployed, plan) => None,
        (Some(_), Some(_)) => Some("the plan has changed its network or its carriers"),
        (Some(_), None) => Some("the plan it was built from is lost"),
    };
    let mut replaced = false;
    let kept = match (running, reason) {
        (Some(lab), Some(reason)) => {
            let text = format!("the running lab is replaced, and calls in progress end: {reason}");
            progress.event(&Event::Note { text: &text });
            lab.destroy()?;
            replaced = true;
            None
        }
        (running, _) => running,
    };
    let new = kept.is_none();
    let (lab, version, refresh) = match kept {
        Some(lab) => {
            lab.set_size(plan.scaling.min, plan.scaling.max)?;
            let version = lab.put_version(plan)?;
            let status = lab.status()?;
            rollout::note_of_other(&status, version, progress);
            (lab, version, rollout::is_needed(&status, version))
        }
        None => {
            state.forget_versions()?;
            // Written while no lab stands: a lab that is found alive is always that of plan.json.
            write_json(&state.plan_file(), plan, ARTEFACT_MODE)?;
            (Lab::start_with(plan, &folder, machine)?, FIRST_VERSION, false)
        }
    };
    state.keep_plan_of(version, plan)?;
    if !refresh {
        // Otherwise when the refresh has succeeded: plan.json is the plan of what is live.
        write_json(&state.plan_file(), plan, ARTEFACT_MODE)?;
    }
    // The lab hands its `secrets` folder to each instance that boots. A kept lab has none when its deploy was cut off here.
    let folder = lab.folder().join("secrets");
    let token_keys = folder.join("token-keys.json");
    // They differ when a deploy or a rotation was cut off, or when an old key was withdrawn just now.
    let has_them = std::fs::read(&token_keys)
        .is_ok_and(|text| serde_json::from_slice::<TokenKeys>(&text).is_ok_and(|keys| keys == secrets.keys));
    if !has_them {
        write_json(&token_keys, &secrets.keys, SECRET_MODE)?;
    }
    let answerer = folder.join(plan::ANSWERER_FILE);
    if plan.proxy.answerer.is_some() && (new || !answerer.exists()) {
        let password = secrets::answerer_password().map_err(StateError::io("make a password for", &answerer))?;
        write_whole(&answerer, password.as_bytes(), SECRET_MODE)?;
    }
    let clients = plan.proxy.listen.tls.as_ref().and_then(|tls| tls.client_roots.as_ref());
    let peers = folder.join(LAB_PEERS);
    if clients == Some(&SecretRef::File(LAB_ROOTS.into())) && (new || !peers.exists()) {
        let authority = LabAuthority::new(plan)
            .map_err(|error| StateError::io("make certificates for", &peers)(std::io::Error::other(error)))?;
        write_whole(&folder.join(LAB_ROOTS), authority.roots.as_bytes(), SECRET_MODE)?;
        write_whole(&peers, authority.peers.as_bytes(), SECRET_MODE)?;
    }
    for name in certificates::write(&secrets.certificates, &folder, SECRET_MODE)?.iter().filter(|_| !new) {
        let text = format!("{name} is new: an instance that runs takes it when it reads its configuration again");
        progress.event(&Event::Note { text: &text });
    }
    let what = match (new, replaced, refresh) {
        (false, _, true) => format!("kept, with version {version} for its instances"),
        (false, _, false) => "kept as it is".to_owned(),
        (true, true, _) => "replaced".to_owned(),
        (true, false, _) => "created".to_owned(),
    };
    let detail = format!(
        "{what}: {} and {}",
        counted(plan.network.zones.len(), "zone"),
        counted(plan.carriers.len(), "carrier")
    );
    Ok((Infrastructure { lab, new, version, refresh }, detail))
}

/// Whether a lab that was built from one plan can have instances of the other. Sizes and the smoke call are changed on a running lab,
/// and what instances boot from by a refresh.
fn same_infrastructure(deployed: &Plan, planned: &Plan) -> bool {
    deployed.network == planned.network && deployed.carriers == planned.carriers
}

fn start_instances(
    plan: &Plan,
    wanted: u32,
    never_ready: bool,
    lab: &Lab,
    progress: &mut dyn Progress,
) -> Result<(Vec<InstanceId>, String), Cause> {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let max = usize::try_from(plan.scaling.max).unwrap_or(usize::MAX);
    let status = lab.status()?;
    for ended in status.instances.iter().filter(|instance| instance.pid.is_none() && instance.registered) {
        progress.event(&Event::Note { text: &format!("{} has ended by itself: it is replaced", ended.id.0) });
        lab.terminate_instance(&ended.id, UNREADY_GRACE)?;
    }
    let mut running = in_service(&status);
    if never_ready {
        for instance in running.extract_if(.., |instance| !instance.healthy) {
            progress.event(&Event::Note { text: &format!("{} never got ready: it is replaced", instance.id.0) });
            lab.terminate_instance(&instance.id, UNREADY_GRACE)?;
        }
    }
    let kept = running.len();
    let grace = Duration::from_millis(plan.proxy.drain.grace_ms.into());
    for surplus in running.split_off(max.min(kept)) {
        progress.event(&Event::Note { text: &format!("{} is more than scaling.max: it is drained", surplus.id.0) });
        lab.terminate_instance(&surplus.id, grace)?;
    }
    let mut instances: Vec<InstanceId> = running.into_iter().map(|instance| instance.id).collect();
    while instances.len() < wanted {
        instances.push(lab.add_instance()?);
        progress.event(&Event::Counted { step: Step::Instances, done: instances.len(), of: wanted });
    }
    let detail = format!("{} kept, {} started", kept.min(max), instances.len() - kept.min(max));
    Ok((instances, detail))
}

fn ready_within(options: &Options) -> Duration {
    options.machine.as_ref().map_or(READY_DEADLINE, Machine::ready_within)
}

fn wait_ready(
    instances: &[InstanceId],
    within: Duration,
    lab: &Lab,
    progress: &mut dyn Progress,
) -> Result<((), String), Cause> {
    let begun = Instant::now();
    for (index, instance) in instances.iter().enumerate() {
        lab.wait_healthy(instance, within.saturating_sub(begun.elapsed()))?;
        progress.event(&Event::Counted { step: Step::Ready, done: index + 1, of: instances.len() });
    }
    let names: Vec<&str> = instances.iter().map(|instance| instance.0.as_str()).collect();
    Ok(((), format!("{} healthy", names.join(", "))))
}

fn place_call(plan: &Plan, lab: &Lab) -> Result<((LabStatus, Report), String), Cause> {
    let status = lab.status()?;
    let addresses = addresses(plan, &status).ok_or(Cause::NoIngress)?;
    let report = LabFleet::new(lab, plan).verified_call()?;
    if !report.passed {
        return Err(Cause::Verification(Box::new(report)));
    }
    Ok(((status, report), format!("through {}", addresses.ingress)))
}

fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn in_service(status: &LabStatus) -> Vec<InstanceStatus> {
    status.instances.iter().filter(|instance| instance.pid.is_some() && instance.registered).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Topology;

    fn example() -> (Loaded, Plan) {
        let loaded = Spec::parse("sipedge.yaml", &crate::spec::init_text("edge")).expect("the example is sound");
        let plan = plan::plan(&loaded, Topology::SingleEc2, TargetKind::Lab).expect("it can be planned");
        (loaded, plan)
    }

    #[test]
    fn only_a_deploy_clears_the_files_of_an_earlier_plan() {
        let (_, plan) = example();
        let folder = tempfile::tempdir().expect("folder");
        let stale = folder.path().join("earlier.tf");
        std::fs::write(&stale, "").expect("write");
        write_artefacts(&plan, folder.path()).expect("write");
        assert!(stale.exists());
        clear_stale_artefacts(&plan, folder.path()).expect("clear");
        assert!(!stale.exists());
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), plan.artefacts.len());
    }

    #[test]
    fn old_addresses_of_a_carrier_are_a_note() {
        let (loaded, plan) = example();
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(100 * 365 * 86_400);
        assert!(notes(&plan, &loaded.spec, far).iter().any(|note| note.contains("compare them with")));
        let before = notes(&plan, &loaded.spec, SystemTime::UNIX_EPOCH);
        assert!(!before.iter().any(|note| note.contains("compare them with")), "{before:?}");
    }
}
