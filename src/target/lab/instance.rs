//! Instances: boot, health checks, load balancer membership, end.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::group::{DrainTimes, Seen};
use super::machine::Program;
use super::network::{Namespace, Place};
use super::supervisor::Supervisor;
use super::{InstanceId, InstanceStatus, LabError, Machine, dhcp, http, power, state, sys};
use crate::deploy::Lifecycle;
use crate::plan::Topology;

/// How long a target may take to answer a health check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an instance's admin port may take to answer a client's request.
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the kernel may take to end a killed process.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// How long an instance that leaves may take to see that in its metadata, at which it looks every second or more often.
const NOTICE: Duration = Duration::from_millis(1_500);
/// Time between two looks whether it has.
const NOTICE_LOOK: Duration = Duration::from_millis(50);
/// Lines of an instance's log that an error shows.
const LOG_LINES: usize = 20;
/// Variables of the supervisor's environment that instances get.
const PASSED_ON: [&str; 2] = ["PATH", "RUST_LOG"];
/// States of `autoscaling/target-lifecycle-state`.
const IN_SERVICE: &str = "InService";
const TERMINATED: &str = "Terminated";

/// One instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) place: Place,
    pub(super) pid: Option<i32>,
    pub(super) exit_code: Option<i32>,
    pub(super) registered: bool,
    pub(super) healthy: bool,
    pub(super) lifecycle: &'static str,
    /// The version that it boots from.
    pub(super) version: u64,
    /// When it was booted, and since when it is healthy: since the lab began.
    pub(super) launched: Duration,
    pub(super) healthy_since: Option<Duration>,
    /// How long after that it first answered that it is ready.
    pub(super) ready_after: Option<Duration>,
    /// Whether it has ever been healthy.
    pub(super) served: bool,
    /// Its machine: none once it was killed or terminated.
    pub(super) namespace: Option<Namespace>,
}

impl Instance {
    pub(super) fn status(&self) -> InstanceStatus {
        InstanceStatus {
            id: self.id.clone(),
            address: self.place.address.into(),
            zone: self.place.zone.clone(),
            version: self.version,
            lifecycle: match (&self.namespace, self.lifecycle, self.served) {
                (None, ..) => Lifecycle::Terminated,
                (Some(_), TERMINATED, _) => Lifecycle::Terminating,
                (Some(_), _, false) => Lifecycle::Pending,
                (Some(_), _, true) => Lifecycle::InService,
            },
            pid: self.pid,
            exit_code: self.exit_code,
            registered: self.registered,
            healthy: self.healthy,
            ready_after_ms: self.ready_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl Instance {
    /// As the group sees it; none when it is gone.
    pub(super) fn seen(&self) -> Option<Seen> {
        self.namespace.as_ref()?;
        Some(Seen {
            id: self.id.clone(),
            version: self.version,
            alive: self.pid.is_some(),
            launched: self.launched,
            healthy_since: self.healthy_since,
            leaving: self.lifecycle == TERMINATED,
        })
    }
}

impl Supervisor {
    /// Boots one more instance for a client.
    pub(super) async fn add_instance(self: &Rc<Self>) -> Result<InstanceId, LabError> {
        if self.plan.topology == Topology::SingleEc2
            && let Some(other) = self.instances.borrow().iter().find(|instance| instance.namespace.is_some())
        {
            let text = format!("single-ec2 has one instance, and {} is there; kill or terminate it first", other.id);
            return Err(LabError::Topology(text));
        }
        let version = self.group.borrow().live;
        self.launch(version).await
    }

    /// Boots one more instance, of this version.
    pub(super) async fn launch(self: &Rc<Self>, version: u64) -> Result<InstanceId, LabError> {
        let number = self.last.get() + 1;
        self.last.set(number);
        let id = InstanceId(format!("i-{number}"));
        let place = self.network.place(number)?;
        let namespace = match &self.program {
            Program::Appliance(_) => self.network.attach_instance(number, &place).await?,
            Program::Machine(_) => {
                let namespace = self.network.attach_machine(number, &place).await?;
                // It ends with the link.
                spawn_local(dhcp::serve(dhcp::listen(&namespace.name)?, self.network.lease(&place)?));
                namespace
            }
        };
        // Known before it boots: the first thing it does is to ask for its metadata.
        self.instances.borrow_mut().push(Instance {
            id: id.clone(),
            place,
            pid: None,
            exit_code: None,
            // single-ec2: whether it holds the Elastic IP, which is decided below.
            registered: self.plan.topology == Topology::LoadBalanced,
            healthy: false,
            lifecycle: IN_SERVICE,
            version,
            launched: self.began.elapsed(),
            healthy_since: None,
            ready_after: None,
            served: false,
            namespace: Some(namespace),
        });
        let mut child = match self.spawn(&id) {
            Ok(child) => child,
            Err(error) => {
                let removed = self.with(&id, |instance| instance.namespace.take())?;
                self.instances.borrow_mut().retain(|instance| instance.id != id);
                if let Some(namespace) = removed {
                    self.network.detach(namespace).await;
                }
                return Err(error);
            }
        };
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        self.with(&id, |instance| instance.pid = pid)?;
        self.update_targets()?;
        tracing::info!(instance = %id, ?pid, "booted");

        let supervisor = Rc::clone(self);
        let reaped = id.clone();
        spawn_local(async move {
            let code = child.wait().await.ok().and_then(exit_code);
            tracing::info!(instance = %reaped, ?code, "process ended");
            // The instance stays in the list for ever.
            let _ = supervisor.with(&reaped, |instance| (instance.pid, instance.exit_code) = (None, code));
            supervisor.changed.send_replace(());
        });
        spawn_local(Rc::clone(self).check_health(id.clone()));
        Ok(id)
    }

    /// Kills an instance's processes, takes it out of the load balancer and forgets its flows.
    pub(super) async fn kill_instance(&self, id: &InstanceId) -> Result<(), LabError> {
        let address = self.leave(id)?;
        self.signal(id, Signal::SIGKILL);
        self.ended(id, KILL_WAIT).await;
        self.remove(id).await?;
        self.network.forget_flows(Some(address))
    }

    /// Ends an instance as AWS does; returns its exit code.
    pub(super) async fn terminate_instance(&self, id: &InstanceId, grace: Duration) -> Result<Option<i32>, LabError> {
        let address = self.leave(id)?;
        self.tell_to_end(id).await;
        self.drain(id, address, self.drain_times(id).deregistration(), grace).await?;
        self.with(id, |instance| instance.exit_code)
    }

    /// Tells an instance to end itself, as EC2 does when it stops one.
    pub(super) async fn press_power_button(&self, id: &InstanceId) -> Result<(), LabError> {
        self.present(id)?;
        match &self.program {
            Program::Appliance(_) => self.signal(id, Signal::SIGTERM),
            Program::Machine(_) => {
                let folder = state::machine_folder(Path::new(""), id);
                power::press(&folder)
                    .await
                    .map_err(|error| LabError::io("press the power button of", &folder, error))?;
            }
        }
        Ok(())
    }

    async fn tell_to_end(&self, id: &InstanceId) {
        // One that cannot be told loses its power when its time is over.
        if let Err(error) = self.press_power_button(id).await {
            tracing::warn!(instance = %id, %error, "cannot be told to end");
        }
    }

    /// Begins to end an instance of the group: with a drain, or at once when it never served. It is gone from the list when it has ended.
    pub(super) fn retire(self: &Rc<Self>, id: &InstanceId, drain: bool) {
        tracing::info!(instance = %id, drain, "leaves");
        // At once, so that what is decided next knows that it leaves.
        let left = self.leave(id);
        let (supervisor, id) = (Rc::clone(self), id.clone());
        spawn_local(async move {
            let ended = match left {
                Ok(address) if drain => {
                    let times = supervisor.drain_times(&id);
                    let (delay, grace) = (times.deregistration(), times.grace());
                    // The instance sees in its metadata that it leaves; one that did not is told to end itself.
                    let told = async {
                        if !supervisor.drains_by_itself(&id).await {
                            supervisor.tell_to_end(&id).await;
                        }
                    };
                    tokio::join!(told, supervisor.drain(&id, address, delay, grace + NOTICE)).1
                }
                Ok(address) => supervisor.drain(&id, address, Duration::ZERO, Duration::ZERO).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::error!(instance = %id, %error, "cannot be ended as it should");
            }
            supervisor.instances.borrow_mut().retain(|instance| instance.id != id);
            supervisor.changed.send_replace(());
        });
    }

    /// Whether an instance has ended its readiness by itself before long.
    async fn drains_by_itself(&self, id: &InstanceId) -> bool {
        let until = self.began.elapsed() + NOTICE;
        while self.began.elapsed() < until {
            match self.http_get(id, &self.plan.network.health_check.path).await {
                Ok((503, _)) => return true,
                Ok(_) => tokio::time::sleep(NOTICE_LOOK).await,
                // It has ended, or cannot be asked.
                Err(_) => return false,
            }
        }
        false
    }

    /// How long an instance's version takes to leave.
    fn drain_times(&self, id: &InstanceId) -> DrainTimes {
        let version = self.with(id, |instance| instance.version).unwrap_or_default();
        let times = self.group.borrow().version(version).map(|version| version.drain);
        times.unwrap_or(DrainTimes { accept_ms: 0, grace_ms: 0 })
    }

    /// What a target group and a terminating lifecycle hook do with an instance that has been taken out: it gets what comes on its flows
    /// until the deregistration `delay` ends, and it ends when it has drained, or after its `grace`.
    async fn drain(
        &self,
        id: &InstanceId,
        address: std::net::Ipv4Addr,
        delay: Duration,
        grace: Duration,
    ) -> Result<(), LabError> {
        if !self.ended(id, delay.min(grace)).await {
            // A target group for UDP ends a target's flows with the delay (AWS, TargetGroupAttribute,
            // `deregistration_delay.connection_termination.enabled`): what comes next on them goes to another target.
            self.network.forget_ingress_flows(address)?;
            if !self.ended(id, grace.saturating_sub(delay)).await {
                self.signal(id, Signal::SIGKILL);
                self.ended(id, KILL_WAIT).await;
            }
        }
        self.remove(id).await?;
        self.network.forget_flows(Some(address))
    }

    /// Puts an instance behind the load balancer, or takes it out.
    pub(super) fn set_registered(&self, id: &InstanceId, registered: bool) -> Result<(), LabError> {
        if self.plan.topology == Topology::SingleEc2 {
            let text = "single-ec2 has no load balancer: its instance holds the Elastic IP".to_owned();
            return Err(LabError::Topology(text));
        }
        self.present(id)?;
        self.with(id, |instance| instance.registered = registered)?;
        self.update_targets()
    }

    /// Forgets the load balancer's flows to an instance.
    pub(super) fn end_flows(&self, id: &InstanceId) -> Result<(), LabError> {
        self.present(id)?;
        let address = self.with(id, |instance| instance.place.address)?;
        self.network.forget_ingress_flows(address)
    }

    /// Waits until an instance is healthy, has ended, or the deadline has passed.
    pub(super) async fn wait_healthy(&self, id: &InstanceId, deadline: Duration) -> Result<(), LabError> {
        let mut changed = self.changed.subscribe();
        let not_healthy = |reason: String| LabError::NotHealthy {
            id: id.clone(),
            reason,
            log: state::tail(&state::log_path(&self.folder, id), LOG_LINES),
        };
        let wait = async {
            loop {
                let status = self.with(id, |instance| instance.status())?;
                match status.exit_code {
                    Some(code) => return Err(not_healthy(format!("its process ended with exit code {code}"))),
                    None if status.healthy => return Ok(()),
                    // An error means that the sender is gone, and with it this supervisor.
                    None => _ = changed.changed().await,
                }
            }
        };
        let check = &self.plan.network.health_check;
        let late = || format!("GET :{}{} did not pass within {} s", check.port, check.path, deadline.as_secs_f32());
        timeout(deadline, wait).await.unwrap_or_else(|_| Err(not_healthy(late())))
    }

    /// `GET path` from an instance's admin port.
    pub(super) async fn http_get(&self, id: &InstanceId, path: &str) -> Result<(u16, String), LabError> {
        self.present(id)?;
        let address = self.with(id, |instance| instance.place.address)?;
        let address = SocketAddr::new(IpAddr::V4(address), self.plan.proxy.admin.port);
        let failed = |reason: String| LabError::Http { id: id.clone(), path: path.to_owned(), reason };
        match timeout(HTTP_TIMEOUT, http::get(address, path)).await {
            Ok(answer) => answer.map_err(|error| failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer from {address} within {} s", HTTP_TIMEOUT.as_secs()))),
        }
    }

    /// Starts the instance's program in its namespace: the appliance, or the machine that boots it.
    fn spawn(&self, id: &InstanceId) -> Result<Child, LabError> {
        let path = state::log_path(&self.folder, id);
        let failed = |error: std::io::Error| LabError::io("write", &path, error);
        let log = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        let instances = self.instances.borrow();
        let instance = instances.iter().find(|instance| instance.id == *id);
        let Some((instance, namespace)) = instance.and_then(|it| Some((it, it.namespace.as_ref()?))) else {
            return Err(self.unknown(id));
        };
        let mut command = match &self.program {
            Program::Appliance(program) => self.appliance(program, id),
            Program::Machine(machine) => {
                let folder = state::machine_folder(&self.folder, id);
                state::create_folder(&folder)?;
                let mut command = machine.command(&folder, &path, instance.place.hardware())?;
                command.args(["-qmp", &power::option(&state::machine_folder(Path::new(""), id))]);
                command
            }
        };
        let input = match namespace.tap() {
            None => Stdio::null(),
            Some(tap) => tap.map_err(|error| LabError::kernel("hand over the network card", error))?.into(),
        };
        command
            .current_dir(&self.folder)
            .stdin(input)
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // A group of its own, so that signals reach what it has started.
            .process_group(0);
        sys::die_with_parent(&mut command);
        let spawned = sys::inside(namespace.descriptor.as_fd(), self.network.vpc(), || command.spawn());
        spawned.and_then(|spawned| spawned).map_err(|error| match &self.program {
            Program::Appliance(program) => LabError::io("run", program, error),
            Program::Machine(_) => Machine::not_started(&error),
        })
    }

    /// The command of an instance that is a process.
    fn appliance(&self, program: &Path, id: &InstanceId) -> Command {
        let mut command = Command::new(program);
        command
            .args(["boot", "--secrets"])
            .arg(self.folder.join(state::SECRETS))
            .arg("--control")
            .arg(state::control_path(&self.folder, id))
            .env_clear()
            .envs(PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
    }

    /// The load balancer's health checks of one instance, until it is gone.
    async fn check_health(self: Rc<Self>, id: InstanceId) {
        let check = &self.plan.network.health_check;
        let Ok(address) = self.with(&id, |instance| instance.place.address) else { return };
        let address = SocketAddr::new(IpAddr::V4(address), check.port);
        let mut ticks = interval(Duration::from_millis(u64::from(check.interval_ms.max(1))));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut passed, mut failed) = (0u32, 0u32);
        loop {
            ticks.tick().await;
            let answer = timeout(CHECK_TIMEOUT, http::get(address, &check.path)).await;
            // What a target group takes as success unless told otherwise.
            let success = matches!(answer, Ok(Ok((200..=399, _))));
            (passed, failed) = if success { (passed.saturating_add(1), 0) } else { (0, failed.saturating_add(1)) };
            let now = self.began.elapsed();
            let verdict = self.with(&id, |instance| {
                instance.namespace.as_ref()?;
                let was = instance.healthy;
                // An instance that leaves is no target any more, whatever it answers.
                let may_be = instance.lifecycle == IN_SERVICE;
                instance.healthy =
                    may_be && if was { failed < check.unhealthy } else { success && passed >= check.healthy };
                instance.served |= instance.healthy;
                if success {
                    instance.ready_after.get_or_insert(now.saturating_sub(instance.launched));
                }
                if instance.healthy != was {
                    instance.healthy_since = instance.healthy.then_some(now);
                }
                Some(instance.healthy != was)
            });
            match verdict {
                Ok(Some(false)) => {}
                Ok(Some(true)) => {
                    tracing::info!(instance = %id, healthy = success, "health changed");
                    if let Err(error) = self.update_targets() {
                        tracing::error!(%error, "cannot change the targets");
                    }
                }
                // It was killed or terminated.
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Brings the rules in line with the instances, in one transaction, and tells those who wait.
    fn update_targets(&self) -> Result<(), LabError> {
        let single = self.plan.topology == Topology::SingleEc2;
        let mut instances = self.instances.borrow_mut();
        if single {
            move_elastic_ip(&mut instances);
        }
        let present = instances.iter().filter(|instance| instance.namespace.is_some());
        // An Elastic IP belongs to its instance, healthy or not.
        let serving = present.filter(|instance| instance.registered && (single || instance.healthy));
        let targets: Vec<_> = serving.map(|instance| instance.place.address).collect();
        drop(instances);
        if *self.targets.borrow() != targets {
            self.network.set_targets(&targets)?;
            let before = self.targets.replace(targets);
            if single {
                // An Elastic IP is translated packet by packet: its flows go wherever it has moved to, or nowhere.
                for target in before {
                    self.network.forget_flows(Some(target))?;
                }
            }
        }
        self.changed.send_replace(());
        Ok(())
    }

    /// Takes an instance that is present out of the load balancer, for good.
    fn leave(&self, id: &InstanceId) -> Result<std::net::Ipv4Addr, LabError> {
        self.present(id)?;
        let address = self.with(id, |instance| {
            (instance.registered, instance.healthy, instance.lifecycle) = (false, false, TERMINATED);
            instance.healthy_since = None;
            instance.place.address
        })?;
        self.update_targets()?;
        Ok(address)
    }

    /// Takes an instance's machine away.
    async fn remove(&self, id: &InstanceId) -> Result<(), LabError> {
        if let Some(namespace) = self.with(id, |instance| instance.namespace.take())? {
            self.end_visitors(&[namespace.descriptor.as_fd()]).await;
            self.network.detach(namespace).await;
        }
        self.update_targets()
    }

    fn signal(&self, id: &InstanceId, signal: Signal) {
        // The process id is there until the process is reaped, on this thread, so it is no one else's.
        if let Ok(Some(pid)) = self.with(id, |instance| instance.pid) {
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }

    /// Waits until an instance's process has ended; false when it has not in time.
    async fn ended(&self, id: &InstanceId, within: Duration) -> bool {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while self.with(id, |instance| instance.pid).is_ok_and(|pid| pid.is_some())
                && changed.changed().await.is_ok()
            {}
        };
        timeout(within, wait).await.is_ok()
    }

    fn present(&self, id: &InstanceId) -> Result<(), LabError> {
        if self.with(id, |instance| instance.namespace.is_some())? {
            return Ok(());
        }
        Err(LabError::InstanceGone { id: id.clone(), reason: "it was killed or terminated".to_owned() })
    }

    fn with<T>(&self, id: &InstanceId, work: impl FnOnce(&mut Instance) -> T) -> Result<T, LabError> {
        let found = self.instances.borrow_mut().iter_mut().find(|instance| instance.id == *id).map(work);
        found.ok_or_else(|| self.unknown(id))
    }

    fn unknown(&self, id: &InstanceId) -> LabError {
        let known = self.instances.borrow().iter().map(|instance| instance.id.0.clone()).collect();
        LabError::NoSuchInstance { id: id.clone(), known }
    }
}

/// single-ec2: the newest instance that is healthy takes the Elastic IP to itself, as it does on AWS once it has called itself; before
/// any is, it stays where it is, or with the newest.
fn move_elastic_ip(instances: &mut [Instance]) {
    let can_hold = |instance: &&Instance| instance.namespace.is_some() && instance.lifecycle == IN_SERVICE;
    let newest = |wanted: fn(&Instance) -> bool| {
        instances.iter().filter(can_hold).rev().find(|instance| wanted(instance)).map(|instance| instance.id.clone())
    };
    let holder =
        newest(|it| it.healthy).or_else(|| newest(|instance| instance.registered)).or_else(|| newest(|_| true));
    for instance in instances {
        instance.registered = holder.as_ref() == Some(&instance.id);
    }
}

/// The exit code, or 128 and the number of the signal.
fn exit_code(status: ExitStatus) -> Option<i32> {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal))
}
