//! The client of a lab.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::machine::plan_for_machines;
use super::protocol::{Request, Response, Started};
use super::state::{self, Process};
use super::{DrainTimes, InstanceId, LabError, LabStatus, Machine, sys};
use crate::deploy::{Preferences, Refresh};
use crate::plan::{INGRESS_ADDRESS, Plan};

/// The `sipedge` binary, for programs that are not it, such as tests.
const BINARY_VARIABLE: &str = "SIPEDGE_BIN";
/// Its name.
const BINARY_NAME: &str = "sipedge";
/// How long the network may take to stand: it takes a tenth of a second on an idle machine.
const START_WITHIN: Duration = Duration::from_secs(20);
/// How long the supervisor may take to answer what it does at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a lab may take to end by itself (its instances' grace is 1 s), and after SIGKILL.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How long a supervisor may take to end after it has said that it failed.
const ENDING_WITHIN: Duration = Duration::from_secs(1);
/// How often to look whether the supervisor is gone.
const GONE_CHECK: Duration = Duration::from_millis(2);
/// Lines of the supervisor's log that an error shows.
const LOG_LINES: usize = 20;

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
    /// None when its state file is damaged.
    supervisor: Option<Process>,
}

impl Lab {
    /// Starts a supervisor with its state in `folder` and returns when the network stands: no instance yet.
    ///
    /// Writes the plan there first, and the user-data (`user-data` in the folder; each boot reads it anew). A folder whose supervisor is
    /// gone is cleaned and used again; one that is damaged too; `secrets/` in it stays.
    ///
    /// # Errors
    /// [`LabError::AlreadyRunning`] when a lab is up there, [`LabError::UserNamespaces`] when this machine forbids them,
    /// [`LabError::NoProxy`] before `sipedge-proxy` is built, and what the kernel refuses.
    pub fn start(plan: &Plan, folder: &Path) -> Result<Self, LabError> {
        Self::start_with(plan, folder, None)
    }

    /// As [`Lab::start`], with instances that are machines where there is a `machine`.
    ///
    /// # Errors
    /// Those of [`Lab::start`], and what a machine needs and this host has not.
    pub fn start_with(plan: &Plan, folder: &Path, machine: Option<&Machine>) -> Result<Self, LabError> {
        machine.map_or(Ok(()), Machine::check)?;
        let existed = folder.exists();
        state::create_folder(folder)?;
        let lock = state::lock(folder)?;
        if let Some(lab) = Self::attach(folder)? {
            let pid = lab.supervisor.map(|process| process.pid).or_else(|| Some(lab.status().ok()?.supervisor_pid));
            return Err(LabError::AlreadyRunning { folder: folder.to_owned(), pid: pid.unwrap_or_default() });
        }
        state::clean(folder)?;
        let started = Self::launch(plan, folder, machine);
        if started.is_err() {
            // What stood before may stay, such as secrets; the error has the log.
            state::clean(folder)?;
            if !existed {
                fs::remove_dir_all(folder).map_err(|error| LabError::io("remove", folder, error))?;
            }
        }
        drop(lock);
        started
    }

    /// The lab of `folder`, when its supervisor is alive. None when there is no folder, no lab in it, or only what a lab left that was
    /// cut off or damaged; [`Lab::start`] cleans that.
    pub fn attach(folder: &Path) -> Result<Option<Self>, LabError> {
        let folder = folder.to_owned();
        if let Some(process) = Process::read_alive(&folder) {
            return Ok(Some(Self { folder, supervisor: Some(process) }));
        }
        // Before it has written its state, and with a damaged state file, the socket still tells: nobody listens on a dead supervisor's.
        let Ok(socket) = state::connect(&folder) else { return Ok(None) };
        Ok(Some(Self { folder, supervisor: state::listener(&socket) }))
    }

    /// The state folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Instances, load balancer, addresses.
    pub fn status(&self) -> Result<LabStatus, LabError> {
        match self.ask(&Request::Status, ANSWER_WITHIN)? {
            Response::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Boots one more instance. Returns at once; [`Lab::wait_healthy`] waits for it, [`Lab::status`] tells.
    pub fn add_instance(&self) -> Result<InstanceId, LabError> {
        match self.ask(&Request::AddInstance, ANSWER_WITHIN)? {
            Response::Added(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until an instance is healthy.
    ///
    /// # Errors
    /// [`LabError::NotHealthy`] with the last lines of its log when its process has ended or `deadline` has passed.
    pub fn wait_healthy(&self, id: &InstanceId, deadline: Duration) -> Result<(), LabError> {
        let request = Request::WaitHealthy { id: id.clone(), deadline_ms: milliseconds(deadline) };
        self.ask_done(&request, ANSWER_WITHIN + deadline)
    }

    /// Kills an instance's processes (SIGKILL), takes it out of the load balancer and forgets its flows.
    pub fn kill_instance(&self, id: &InstanceId) -> Result<(), LabError> {
        self.ask_done(&Request::KillInstance { id: id.clone() }, ANSWER_WITHIN)
    }

    /// Tells an instance to end itself, as EC2 does when it stops one, and returns at once: a machine by its power button (ACPI), the
    /// appliance as a process by SIGTERM. [`Lab::status`] tells when it has.
    ///
    /// # Errors
    /// [`LabError::Io`] when the machine's monitor does not answer.
    pub fn press_power_button(&self, id: &InstanceId) -> Result<(), LabError> {
        self.ask_done(&Request::PressPowerButton { id: id.clone() }, ANSWER_WITHIN)
    }

    /// Ends an instance as AWS does: out of the load balancer, told to end itself, and SIGKILL after `grace`. Returns its exit code, 128 and the
    /// signal's number when a signal ended it.
    pub fn terminate_instance(&self, id: &InstanceId, grace: Duration) -> Result<Option<i32>, LabError> {
        let request = Request::TerminateInstance { id: id.clone(), grace_ms: milliseconds(grace) };
        match self.ask(&request, ANSWER_WITHIN + grace)? {
            Response::Ended { exit_code } => Ok(exit_code),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes an instance out of the load balancer: no new flows; existing ones go on.
    pub fn deregister(&self, id: &InstanceId) -> Result<(), LabError> {
        self.ask_done(&Request::SetRegistered { id: id.clone(), registered: false }, ANSWER_WITHIN)
    }

    /// Puts an instance back; it gets flows once it is healthy.
    pub fn register(&self, id: &InstanceId) -> Result<(), LabError> {
        self.ask_done(&Request::SetRegistered { id: id.clone(), registered: true }, ANSWER_WITHIN)
    }

    /// Forgets every tracked flow, as if all had idled out.
    pub fn flush_flows(&self) -> Result<(), LabError> {
        self.ask_done(&Request::FlushFlows, ANSWER_WITHIN)
    }

    /// Ends the load balancer's flows to an instance, as it does at the end of the deregistration delay: the next packet of each is that
    /// of a new flow. Flows that the instance opened through the NAT gateway go on.
    pub fn end_flows(&self, id: &InstanceId) -> Result<(), LabError> {
        self.ask_done(&Request::EndFlows { id: id.clone() }, ANSWER_WITHIN)
    }

    /// A UDP socket bound to `address` inside `namespace`.
    pub fn udp_socket(&self, namespace: &str, address: SocketAddr) -> Result<UdpSocket, LabError> {
        let request = Request::UdpSocket { namespace: namespace.to_owned(), address };
        self.ask_descriptors::<1>(&request).map(|[socket]| socket.into())
    }

    /// A TCP socket bound to `address` inside `namespace`, neither listening nor connected. Port 0: the kernel chooses one.
    pub fn tcp_socket(&self, namespace: &str, address: SocketAddr) -> Result<OwnedFd, LabError> {
        let request = Request::TcpSocket { namespace: namespace.to_owned(), address };
        self.ask_descriptors::<1>(&request).map(|[socket]| socket)
    }

    /// `GET path` from an instance's admin port: status code and body.
    pub fn http_get(&self, id: &InstanceId, path: &str) -> Result<(u16, String), LabError> {
        match self.ask(&Request::HttpGet { id: id.clone(), path: path.to_owned() }, ANSWER_WITHIN)? {
            Response::Http { status, body } => Ok((status, body)),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the UDP flow from `source`, an address of `namespace`, to the edge's address `edge` go to one of the instances `to`, until it
    /// idles out; to which it goes. None when none of them is a target of the load balancer.
    pub fn pin(
        &self,
        namespace: &str,
        source: SocketAddr,
        edge: SocketAddr,
        to: &[InstanceId],
    ) -> Result<Option<InstanceId>, LabError> {
        let request = Request::Pin { namespace: namespace.to_owned(), source, edge, to: to.to_vec() };
        match self.ask(&request, ANSWER_WITHIN)? {
            Response::Target(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Sets the size of the group.
    pub fn set_size(&self, min: u32, max: u32) -> Result<(), LabError> {
        self.ask_done(&Request::SetSize { min, max }, ANSWER_WITHIN)
    }

    /// Makes a version of what instances of `plan` boot from, unless the newest is the same; its number.
    pub fn put_version(&self, plan: &Plan) -> Result<u64, LabError> {
        let drain = DrainTimes { accept_ms: plan.proxy.drain.accept_ms, grace_ms: plan.proxy.drain.grace_ms };
        let user_data = user_data(plan, state::machine(&self.folder)?.as_ref())?;
        match self.ask(&Request::PutVersion { user_data, drain }, ANSWER_WITHIN)? {
            Response::Version(number) => Ok(number),
            other => Err(unexpected(&other)),
        }
    }

    /// Begins to replace instances by those of `version`; the refresh's id. Returns at once.
    ///
    /// # Errors
    /// [`LabError::Group`] when there is a refresh in progress, no such version, or preferences that AWS refuses.
    pub fn start_refresh(&self, version: u64, preferences: &Preferences) -> Result<String, LabError> {
        match self.ask(&Request::StartRefresh { version, preferences: preferences.clone() }, ANSWER_WITHIN)? {
            Response::Started { id } => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// A refresh by its id.
    pub fn refresh(&self, id: &str) -> Result<Refresh, LabError> {
        match self.ask(&Request::Refresh { id: id.to_owned() }, ANSWER_WITHIN)? {
            Response::Refresh(refresh) => Ok(refresh),
            other => Err(unexpected(&other)),
        }
    }

    /// Turns a refresh that is in progress back. Returns at once.
    pub fn roll_back(&self, id: &str) -> Result<(), LabError> {
        self.ask_done(&Request::RollBack { id: id.to_owned() }, ANSWER_WITHIN)
    }

    /// Ends a refresh that is in progress; what is replaced stays.
    pub fn cancel_refresh(&self, id: &str) -> Result<(), LabError> {
        self.ask_done(&Request::Cancel { id: id.to_owned() }, ANSWER_WITHIN)
    }

    /// The last lines of an instance's log.
    pub fn log(&self, id: &InstanceId, lines: usize) -> Result<Vec<String>, LabError> {
        let status = self.status()?;
        if !status.instances.iter().any(|instance| instance.id == *id) {
            let known = status.instances.into_iter().map(|instance| instance.id.0).collect();
            return Err(LabError::NoSuchInstance { id: id.clone(), known });
        }
        Ok(state::tail(&state::log_path(&self.folder, id), lines))
    }

    /// Ends all processes, namespaces and the supervisor, waits until they are gone, and removes the folder.
    pub fn destroy(self) -> Result<(), LabError> {
        let lock = state::lock(&self.folder)?;
        let supervisor = self.supervisor.or_else(|| Process::now(self.status().ok()?.supervisor_pid));
        let asked = self.ask_done(&Request::Destroy, ANSWER_WITHIN);
        match supervisor {
            None => {
                // Nobody listens any more: it has ended between the look and the question.
                if let Err(error) = asked
                    && state::connect(&self.folder).is_ok()
                {
                    return Err(error);
                }
            }
            Some(process) => {
                if asked.is_err() {
                    signal(process, Signal::SIGTERM);
                }
                if !gone_within(process, END_WITHIN) {
                    // Its instances die with it, and the kernel takes the network back.
                    signal(process, Signal::SIGKILL);
                    if !gone_within(process, END_WITHIN) {
                        return Err(LabError::kernel("end the supervisor", format!("process {} stays", process.pid)));
                    }
                }
            }
        }
        let removed = fs::remove_dir_all(&self.folder).map_err(|error| LabError::io("remove", &self.folder, error));
        drop(lock);
        removed
    }

    /// Asks for `N` descriptors of the namespace `name`: the network namespace, then the supervisor's user namespace.
    pub(super) fn namespace(&self, name: &str) -> Result<[OwnedFd; 2], LabError> {
        self.ask_descriptors(&Request::Namespace { name: name.to_owned() })
    }

    fn launch(plan: &Plan, folder: &Path, machine: Option<&Machine>) -> Result<Self, LabError> {
        for name in [state::LOGS, state::SECRETS] {
            state::create_folder(&folder.join(name))?;
        }
        let path = folder.join(state::PLAN);
        let json = serde_json::to_vec_pretty(plan).map_err(|error| LabError::io("write", &path, error))?;
        state::write_private(&path, &json)?;
        if let Some(machine) = machine {
            let path = folder.join(state::MACHINE);
            let json = serde_json::to_vec_pretty(machine).map_err(|error| LabError::io("write", &path, error))?;
            state::write_private(&path, &json)?;
        }
        state::write_private(&folder.join(state::USER_DATA), user_data(plan, machine)?.as_bytes())?;
        let path = folder.join(state::SUPERVISOR_LOG);
        let log = fs::File::create(&path).map_err(|error| LabError::io("write", &path, error))?;

        let binary = binary()?;
        let mut command = Command::new(&binary);
        command.args(["lab", "supervise"]).arg(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|error| LabError::io("run", &binary, error))?;
        let line = child.stdout.take().and_then(|mut out| first_line(&mut out));
        match line.and_then(|line| serde_json::from_str(&line).ok()) {
            Some(Started::Ready) => {}
            Some(Started::Failed(error)) => {
                ended_status(child);
                return Err(error);
            }
            None => {
                let status = ended_status(child);
                return Err(LabError::SupervisorEnded { status, log: state::tail(&path, LOG_LINES) });
            }
        }
        let supervisor = i32::try_from(child.id()).ok().and_then(Process::now);
        Ok(Self { folder: folder.to_owned(), supervisor })
    }

    fn ask_done(&self, request: &Request, within: Duration) -> Result<(), LabError> {
        match self.ask(request, within)? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn ask_descriptors<const N: usize>(&self, request: &Request) -> Result<[OwnedFd; N], LabError> {
        let (response, descriptors) = self.exchange(request, ANSWER_WITHIN)?;
        <[OwnedFd; N]>::try_from(descriptors).map_err(|_| unexpected(&response))
    }

    fn ask(&self, request: &Request, within: Duration) -> Result<Response, LabError> {
        self.exchange(request, within).map(|(response, _)| response)
    }

    fn exchange(&self, request: &Request, within: Duration) -> Result<(Response, Vec<OwnedFd>), LabError> {
        let failed = |reason: String| LabError::NotRunning { folder: self.folder.clone(), reason };
        let talk = || -> std::io::Result<(Vec<u8>, Vec<OwnedFd>)> {
            let mut socket = state::connect(&self.folder)?;
            socket.set_read_timeout(Some(within))?;
            socket.set_write_timeout(Some(within))?;
            let mut line = serde_json::to_vec(request)?;
            line.push(b'\n');
            socket.write_all(&line)?;
            let (mut answer, mut descriptors) = (Vec::new(), Vec::new());
            let mut buffer = vec![0; 64 << 10];
            while answer.last() != Some(&b'\n') {
                let (length, received) = sys::receive_with_descriptors(&socket, &mut buffer)?;
                if length == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
                descriptors.extend(received);
            }
            Ok((answer, descriptors))
        };
        let (answer, descriptors) = talk().map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => failed(format!("no answer within {} s", within.as_secs_f32())),
            _ => failed(error.to_string()),
        })?;
        match serde_json::from_slice(&answer) {
            Ok(Response::Failed(error)) => Err(error),
            Ok(response) => Ok((response, descriptors)),
            Err(error) => Err(LabError::Protocol(error.to_string())),
        }
    }
}

/// The user-data of `plan` with the address that only the target knows.
pub(super) fn user_data(plan: &Plan, machine: Option<&Machine>) -> Result<String, LabError> {
    let for_machines = machine.map(|_| plan_for_machines(plan)).transpose()?;
    let plan = for_machines.as_ref().unwrap_or(plan);
    let first = plan.network.ingress_addresses.first();
    let first = first.ok_or_else(|| LabError::Plan("it has no ingress address".to_owned()))?;
    Ok(plan.user_data.replace(INGRESS_ADDRESS, &first.to_string()))
}

fn unexpected(response: &Response) -> LabError {
    LabError::Protocol(format!("{response:?}"))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The `sipedge` binary: named by the environment, this program, or, for a test, where cargo puts it.
fn binary() -> Result<PathBuf, LabError> {
    let found = |path: PathBuf| if path.is_file() { Ok(path) } else { Err(LabError::NoSipedge { tried: path }) };
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        return found(path.into());
    }
    let own = std::env::current_exe().map_err(|error| LabError::io("find", "/proc/self/exe".as_ref(), error))?;
    if own.file_name().is_some_and(|name| name == BINARY_NAME) {
        return Ok(own);
    }
    // A test binary stands in target/PROFILE/deps, the program in target/PROFILE.
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| folder.file_name().is_none_or(|name| name != "deps" && name != "examples"));
    found(folder.unwrap_or(Path::new("/")).join(BINARY_NAME))
}

/// The first line that the supervisor says; none when it ends or says nothing in time.
fn first_line(out: &mut ChildStdout) -> Option<String> {
    let until = Instant::now() + START_WITHIN;
    let mut line = Vec::new();
    loop {
        let left = PollTimeout::try_from(until.checked_duration_since(Instant::now())?).ok()?;
        match poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) => return None,
            Err(Errno::EINTR) => continue,
            Err(_) => return None,
            Ok(_) => {}
        }
        let mut buffer = [0; 4096];
        let length = out.read(&mut buffer).ok().filter(|length| *length > 0)?;
        line.extend_from_slice(buffer.get(..length)?);
        if let Some((b'\n', text)) = line.split_last() {
            return String::from_utf8(text.to_vec()).ok();
        }
    }
}

/// Ends a supervisor that did not get ready, and says how it ended.
fn ended_status(mut child: Child) -> String {
    // It ends by itself once it has said why it failed; if it is stuck, nothing that it made outlives it.
    let waited = gone_within_child(&mut child);
    if !waited {
        let _ = child.kill();
    }
    let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    if waited { status } else { format!("not ready within {} s, {status}", START_WITHIN.as_secs()) }
}

fn gone_within_child(child: &mut Child) -> bool {
    i32::try_from(child.id()).ok().and_then(Process::now).is_none_or(|process| gone_within(process, ENDING_WITHIN))
}

fn signal(process: Process, signal: Signal) {
    if process.is_alive() {
        // It may end between the look and the signal; then there is nothing to do.
        let _ = kill(Pid::from_raw(process.pid), signal);
    }
}

/// Waits until a process is gone, and reaps it when it is a child of this one.
fn gone_within(process: Process, within: Duration) -> bool {
    let until = Instant::now() + within;
    while process.is_alive() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(GONE_CHECK);
    }
    let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
    true
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_lab_that_has_not_written_its_state_is_known_by_its_socket() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Lab::attach(folder.path()).expect("looked").is_none());
        let listener = UnixListener::bind(folder.path().join(state::SOCKET)).expect("bound");
        let lab = Lab::attach(folder.path()).expect("looked").expect("somebody listens");
        assert_eq!(lab.supervisor, Process::now(Pid::this().as_raw()), "who is waited for when it is destroyed");
        drop(listener);
        assert!(Lab::attach(folder.path()).expect("looked").is_none(), "a socket that nobody serves is no lab");
    }
}
