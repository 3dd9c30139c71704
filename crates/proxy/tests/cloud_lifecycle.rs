//! An instance in its autoscaling group: Elastic IP and launching hook once it has called itself, drain and terminating hook when the
//! group terminates it.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use process::aws::{ALLOCATION, Aws, GROUP, Keys, REGION, State, metadata};
use process::control::SOCKET;
use process::imds::{self, Imds, LIFECYCLE};
use process::sip::Agent;
use process::{DEADLINE, INGRESS, Process, address, config, folder, get, user_data, wait_for_readyz};
use sipedge_proxy::config::{Cloud, Config, SecretRef};

const FAR: &str = "2126-01-01T00:00:00Z";

struct Stage {
    process: Process,
    imds: Imds,
    aws: Aws,
    caller: Agent,
    callee: Agent,
    number: u8,
    _folder: tempfile::TempDir,
}

/// `first`: the first of three addresses.
fn stage(first: u8, aws: State, change: impl FnOnce(&mut Config)) -> Stage {
    stage_with(first, aws, change, &[])
}

fn stage_with(first: u8, aws: State, change: impl FnOnce(&mut Config), more: &[&str]) -> Stage {
    let caller = Agent::bind(address(first + 1), 0);
    let callee = Agent::bind(address(first + 2), 0);
    let mut config = config(address(first), caller.address.ip(), callee.address);
    config.listen.address = None;
    config.cloud = Some(Cloud {
        region: REGION.into(),
        group: Some(GROUP.into()),
        ready_hook: Some("ready".into()),
        drain_hook: Some("drain".into()),
        elastic_ip: Some(ALLOCATION.into()),
        lifecycle_poll_ms: 20,
    });
    change(&mut config);
    let folder = folder(&config);
    let user_data = Some(user_data(&config).into_bytes());
    let state = imds::State { private: Some(address(first)), user_data, ..imds::State::default() };
    let imds = Imds::start(metadata(&Keys::new(1), FAR, state));
    let aws = Aws::start(State { keys: vec![Keys::new(1)], ..aws });
    let (url, control) = (imds.url(), folder.path().join(SOCKET));
    let arguments: [std::ffi::OsString; 7] = [
        "boot".into(),
        "--metadata".into(),
        url.into(),
        "--secrets".into(),
        folder.path().into(),
        "--control".into(),
        control.into(),
    ];
    let arguments = arguments.into_iter().chain(more.iter().map(Into::into));
    let process = Process::start_with(arguments, [("AWS_ENDPOINT_URL", aws.url())]);
    Stage { process, imds, aws, caller, callee, number: first, _folder: folder }
}

impl Stage {
    fn wait_for_readyz(&mut self, status: u16) -> String {
        wait_for_readyz(address(self.number), status, &mut self.process)
    }

    /// The group decides to terminate the instance.
    fn terminate(&self) {
        self.aws.change(|state| state.waiting.insert("drain"));
        self.imds.change(|state| drop(state.paths.insert(LIFECYCLE.into(), "Terminated".into())));
    }

    /// The group decides to terminate the instance, and does not wait at its hook yet.
    fn terminate_later(&self) {
        self.imds.change(|state| drop(state.paths.insert(LIFECYCLE.into(), "Terminated".into())));
    }

    fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so() {
            assert!(
                Instant::now() < deadline,
                "not within {DEADLINE:?}: {what}: {:#?}\n{}",
                self.aws.log(),
                self.process.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn count(&self, line: &str) -> usize {
        self.aws.log().iter().filter(|it| *it == line).count()
    }

    fn ends_well(&mut self) {
        assert_eq!(self.process.wait().code(), Some(0), "{}", self.process.log());
        assert!(!self.process.log().contains("planted"), "{}", self.process.log());
    }
}

fn launching() -> State {
    State { waiting: ["ready"].into(), holder: Some("i-of-before".into()), ..State::default() }
}

#[test]
fn the_address_comes_first_then_ready_then_the_hook() {
    let mut stage = stage(170, State { denied: ["ec2:AssociateAddress"].into(), ..launching() }, |_| {});
    stage.aws.wait_for("AssociateAddress denied");
    let (status, body) = get(address(170), "/readyz").unwrap();
    assert_eq!((status, body.as_str()), (503, "not ready: associating the Elastic IP\n"));
    stage.aws.change(|state| (state.denied.clear(), state.throttled = 1).0);
    stage.wait_for_readyz(200);
    stage.aws.wait_for("CompleteLifecycleAction");
    let log = stage.aws.log();
    let done: Vec<&str> = log.iter().filter(|line| !line.ends_with("denied")).map(String::as_str).collect();
    let throttled = done.iter().position(|line| line.ends_with(" throttled")).unwrap();
    let (before, after) = (&done[..throttled], &done[throttled + 1..]);
    let expected = [
        "RecordLifecycleActionHeartbeat ready",
        "AssociateAddress takes=true",
        "CompleteLifecycleAction ready CONTINUE",
    ];
    assert_eq!([before, after].concat(), expected);
    stage.process.signal(Signal::SIGTERM);
    stage.ends_well();
    assert_eq!(stage.aws.log().len(), log.len(), "nobody terminates the instance: no hook is completed");
}

#[test]
fn an_instance_that_is_not_being_launched_takes_no_address_away() {
    let mut stage = stage(173, State { waiting: [].into(), ..launching() }, |_| {});
    stage.aws.wait_for("AssociateAddress takes=false");
    stage.process.wait_for_log("the Elastic IP belongs to another instance, and this one is not known to be launched");
    assert_eq!(get(address(173), "/readyz").unwrap().0, 503);
    assert_eq!(stage.aws.change(|state| state.holder.clone()).unwrap(), "i-of-before");
    // It may leave all the same.
    stage.terminate();
    stage.aws.wait_for("CompleteLifecycleAction drain CONTINUE");
    stage.ends_well();
}

#[test]
fn behind_a_load_balancer_there_is_no_address_and_the_hook_is_completed_once_ready() {
    let mut stage =
        stage(176, State { denied: ["autoscaling:CompleteLifecycleAction"].into(), ..launching() }, |config| {
            config.cloud.as_mut().unwrap().elastic_ip = None;
        });
    // A hook that cannot be completed keeps nobody from serving.
    stage.wait_for_readyz(200);
    stage
        .process
        .wait_for_log("may not do autoscaling:CompleteLifecycleAction on sipedge-test-single-ec2, hook \"ready\"");
    stage.aws.change(|state| state.denied.clear());
    stage.aws.wait_for("CompleteLifecycleAction ready CONTINUE");
    assert!(stage.aws.log().iter().all(|line| line.starts_with("CompleteLifecycleAction")), "{:?}", stage.aws.log());
}

#[test]
fn an_address_that_cannot_be_had_ends_the_boot() {
    let mut stage = stage(179, launching(), |config| {
        config.cloud.as_mut().unwrap().elastic_ip = Some("eipalloc-0123456789abcdef9".into());
    });
    assert_eq!(
        stage.process.wait_for_failure(10),
        "sipedge-proxy: ec2:AssociateAddress on eipalloc-0123456789abcdef9: refused: 400 InvalidAllocationID.NotFound: The allocation ID \
         does not exist (request id request-1); the instance does not get ready"
    );
}

#[test]
fn the_group_s_word_drains_and_the_hook_is_completed_after_the_last_call() {
    let mut stage = stage(182, launching(), |_| {});
    stage.wait_for_readyz(200);
    stage.aws.wait_for("CompleteLifecycleAction ready");
    let edge = (address(182), INGRESS).into();
    stage.caller.send(&stage.caller.request("INVITE", &format!("sip:42@{edge}"), "lifecycle-1"), edge);
    let invite = stage.callee.expect("INVITE");
    stage.callee.respond(&invite, "180 Ringing");
    stage.caller.expect("180 Ringing");

    stage.terminate();
    assert_eq!(stage.wait_for_readyz(503), "not ready: draining\n");
    stage.aws.wait_for("RecordLifecycleActionHeartbeat drain");
    // The machine's shutdown, while it drains already, is no haste.
    stage.process.signal(Signal::SIGTERM);
    stage.process.wait_for_log("draining already");
    assert!(stage.process.is_running());
    let is_completed = |stage: &Stage| stage.aws.log().iter().any(|line| line.contains("Action drain CONTINUE"));
    assert!(!is_completed(&stage), "{:?}", stage.aws.log());

    stage.callee.respond(&invite, "200 OK");
    let ok = stage.caller.expect("200 OK");
    stage.caller.acknowledge(&ok, edge);
    stage.callee.expect("ACK");
    stage.ends_well();
    assert!(is_completed(&stage), "{:?}", stage.aws.log());
    stage.process.wait_for_log("drained: nothing is in progress");
}

#[test]
fn a_drain_by_signal_completes_the_hook_if_the_group_terminates_meanwhile() {
    let mut stage = stage(185, launching(), |config| config.drain.accept_ms = 1_500);
    stage.wait_for_readyz(200);
    stage.process.signal(Signal::SIGTERM);
    stage.wait_for_readyz(503);
    stage.terminate();
    stage.ends_well();
    let log = stage.aws.log();
    assert!(log.iter().any(|line| line == "CompleteLifecycleAction drain CONTINUE"), "{log:?}");
}

#[test]
fn without_hooks_and_address_nobody_is_called_and_the_group_s_word_is_heard() {
    let mut stage = stage(188, launching(), |config| {
        let cloud = config.cloud.as_mut().unwrap();
        (cloud.group, cloud.ready_hook, cloud.drain_hook, cloud.elastic_ip) = (None, None, None, None);
    });
    stage.wait_for_readyz(200);
    // Without the state in the metadata the instance is in no group, and goes on.
    stage.imds.change(|state| drop(state.paths.remove(LIFECYCLE)));
    let deadline = Instant::now() + DEADLINE;
    let asked = |stage: &Stage| stage.imds.log().iter().filter(|line| line.ends_with(LIFECYCLE)).count();
    let before = asked(&stage);
    while asked(&stage) < before + 3 {
        assert!(Instant::now() < deadline, "the state is not looked at");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(stage.process.is_running());
    stage.terminate();
    stage.ends_well();
    assert_eq!(stage.aws.log(), Vec::<String>::new());
}

#[test]
fn while_it_is_not_known_whether_it_is_launched_no_address_is_taken_away_and_it_is_asked_again() {
    let denied = ["autoscaling:RecordLifecycleActionHeartbeat"].into();
    let mut stage = stage(191, State { denied, ..launching() }, |_| {});
    stage.aws.wait_for("AssociateAddress takes=false");
    stage.process.wait_for_log("so this instance is not known to be launched, and takes an address from nobody");
    assert_eq!(stage.aws.change(|state| state.holder.clone()).unwrap(), "i-of-before");
    stage.aws.change(|state| state.denied.clear());
    stage.aws.wait_for("AssociateAddress takes=true");
    stage.wait_for_readyz(200);
    stage.aws.wait_for("CompleteLifecycleAction ready CONTINUE");
}

#[test]
fn a_group_that_comes_to_its_ready_hook_later_finds_it_completed() {
    let mut stage = stage(194, State { waiting: [].into(), ..launching() }, |config| {
        config.cloud.as_mut().unwrap().elastic_ip = None;
    });
    stage.wait_for_readyz(200);
    stage.aws.wait_for("CompleteLifecycleAction ready CONTINUE");
    stage.aws.change(|state| state.waiting.insert("ready"));
    stage.wait_until("the hook is completed", || stage.aws.change(|state| state.waiting.is_empty()));
}

#[test]
fn a_group_that_comes_to_its_drain_hook_later_finds_it_completed() {
    let mut stage = stage(197, launching(), |_| {});
    stage.wait_for_readyz(200);
    stage.terminate_later();
    stage.aws.wait_for("CompleteLifecycleAction drain CONTINUE");
    assert!(stage.process.is_running());
    stage.aws.change(|state| state.waiting.insert("drain"));
    stage.ends_well();
    assert!(stage.aws.change(|state| state.waiting.is_empty()), "{:?}", stage.aws.log());
}

#[test]
fn a_drain_hook_that_never_comes_is_waited_for_until_a_signal() {
    let mut stage = stage(200, launching(), |_| {});
    stage.wait_for_readyz(200);
    stage.terminate_later();
    stage.aws.wait_for("CompleteLifecycleAction drain CONTINUE");
    stage.process.signal(Signal::SIGTERM);
    stage.ends_well();
    stage.process.wait_for_log("told to end before the group's hook was completed");
}

#[test]
fn a_drain_hook_that_has_been_seen_and_is_over_is_not_waited_for() {
    let mut stage = stage(203, launching(), |_| {});
    stage.wait_for_readyz(200);
    stage.aws.wait_for("CompleteLifecycleAction ready");
    let edge = (address(203), INGRESS).into();
    stage.caller.send(&stage.caller.request("INVITE", &format!("sip:42@{edge}"), "lifecycle-2"), edge);
    let invite = stage.callee.expect("INVITE");
    stage.terminate();
    stage.aws.wait_for("RecordLifecycleActionHeartbeat drain");
    // Its time is over, or somebody else has completed it.
    stage.aws.change(|state| state.waiting.clear());
    stage.callee.respond(&invite, "200 OK");
    let ok = stage.caller.expect("200 OK");
    stage.caller.acknowledge(&ok, edge);
    stage.callee.expect("ACK");
    stage.ends_well();
    assert_eq!(stage.count("CompleteLifecycleAction drain CONTINUE"), 1, "{:?}", stage.aws.log());
}

#[test]
fn an_address_that_has_gone_is_taken_again_if_it_is_nobody_s() {
    let mut stage = stage(206, launching(), |_| {});
    // What the configuration advertises, and so the Elastic IP.
    let public = |stage: &Stage, public| stage.imds.change(|state| state.public = public);
    public(&stage, Some(address(206)));
    stage.wait_for_readyz(200);
    let looks = |stage: &Stage| stage.imds.log().iter().filter(|line| line.ends_with("public-ipv4")).count();
    stage.wait_until("the address is looked at", || looks(&stage) >= 2);
    public(&stage, None);
    stage.aws.change(|state| state.holder = None);
    stage.aws.wait_for("AssociateAddress takes=false");
    stage.process.wait_for_log("the Elastic IP is not here any more: it belonged to nobody and is associated again");
    assert_eq!(stage.aws.change(|state| state.holder.take()).as_deref(), Some(process::aws::INSTANCE));
    stage.aws.change(|state| state.holder = Some("i-that-came-after".into()));
    stage.process.wait_for_log("it belongs to another instance and stays there");
    assert_eq!(stage.aws.change(|state| state.holder.clone()).unwrap(), "i-that-came-after");
    assert_eq!(stage.count("AssociateAddress takes=true"), 1, "{:?}", stage.aws.log());
    // An instance that leaves keeps nothing.
    stage.terminate();
    stage.ends_well();
}

/// An instance whose token keys are in SSM, which it may not read.
fn kept_waiting(first: u8, poll_ms: u32, deadline: &str) -> Stage {
    let denied = ["ssm:GetParameter"].into();
    let change = |config: &mut Config| {
        config.secrets.token_keys = SecretRef::Ssm("/sipedge/test/single-ec2/token-keys".into());
        config.cloud.as_mut().unwrap().lifecycle_poll_ms = poll_ms;
    };
    stage_with(first, State { denied, ..State::default() }, change, &["--secrets-deadline", deadline])
}

#[test]
fn an_instance_that_is_terminated_while_its_boot_fails_completes_its_hook() {
    let mut stage = kept_waiting(209, 600_000, "3");
    stage.wait_until("its state is looked at", || stage.imds.log().iter().any(|line| line.ends_with(LIFECYCLE)));
    stage.aws.wait_for("GetParameter denied");
    stage.terminate();
    let line = stage.process.wait_for_failure(5);
    assert!(line.contains("may not do ssm:GetParameter"), "{line}");
    assert_eq!(stage.count("CompleteLifecycleAction drain CONTINUE"), 1, "{:?}", stage.aws.log());
}

#[test]
fn an_instance_that_is_terminated_before_it_has_its_secrets_does_not_wait_for_them() {
    let mut stage = kept_waiting(212, 20, "60");
    stage.aws.wait_for("GetParameter denied");
    stage.terminate();
    stage.ends_well();
    assert_eq!(stage.count("CompleteLifecycleAction drain CONTINUE"), 1, "{:?}", stage.aws.log());
    stage.process.wait_for_log("told to end before it was ready");
}

#[test]
fn metadata_that_fails_again_and_again_is_told() {
    let mut stage = stage(215, launching(), |_| {});
    stage.wait_for_readyz(200);
    // Others may get some of them.
    stage.imds.change(|state| state.trouble.extend((0..6).map(|_| imds::Trouble::Status(403))));
    stage.process.wait_for_log("the state of this instance in its group cannot be read, so it would not drain");
    assert!(stage.process.is_running());
}
