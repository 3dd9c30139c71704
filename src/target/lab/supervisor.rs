//! The process that owns a lab: it builds the network, serves instances and clients, and takes everything down again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{AccessFlags, Pid, access, dup2_stdout, setsid};
use tokio::io::{AsyncBufReadExt, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::Instant;

use super::client::user_data;
use super::group::{DrainTimes, Group, Move, Seen, Version};
use super::imds::{Metadata, Service};
use super::instance::Instance;
use super::machine::{PARAMETERS, Program};
use super::network::{Layout, Network};
use super::protocol::{Request, Response, Started};
use super::resolver::Zone;
use super::state::{self, Process};
use super::{InstanceId, LabError, LabStatus, Machine, VPC_NAMESPACE, sys, userns};
use crate::deploy::{RefreshStatus, now_unix_ms};
use crate::plan::{Plan, Scaling, Topology};

/// The appliance's binary, when it is not beside this one.
const PROXY_VARIABLE: &str = "SIPEDGE_PROXY";
/// Its name beside this one.
const PROXY_NAME: &str = "sipedge-proxy";
/// How long instances may take to end when the lab is destroyed.
const DESTROY_GRACE: Duration = Duration::from_secs(1);
/// How long the kernel may take to end killed processes: it frees their memory first.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// How often the supervisor looks whether its folder is still there.
const FOLDER_CHECK: Duration = Duration::from_secs(1);
/// How often it looks whether killed processes that are not its children are gone.
const GONE_CHECK: Duration = Duration::from_millis(5);
/// Looks at the table of flows, [`GONE_CHECK`] apart, until a packet that was sent has opened its flow: usually it has at the first.
const PIN_LOOKS: u32 = 100;
/// What opens a flow without being a message (RFC 5626 §3.5.1).
const KEEP_ALIVE: &[u8] = b"\r\n\r\n";

/// The process that owns a lab: what `sipedge lab supervise FOLDER` (hidden) runs. Must be called before the process has a second thread.
///
/// Says on standard output, in one line of JSON, that the network stands or why it does not. Ends in order on SIGTERM, on SIGINT, when
/// a client asks for it, and when its folder is removed.
pub fn supervise(folder: &Path) -> Result<(), LabError> {
    // A second subscriber is refused; then the program has set up its own, which is as good.
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).try_init();
    // Refused when this process leads a session already, which is the aim.
    let _ = setsid();
    umask(Mode::from_bits_truncate(0o077));
    let result = prepare(folder).and_then(|(folder, plan, program, layout)| {
        userns::leave()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| LabError::kernel("start the event loop", error))?;
        LocalSet::new().block_on(&runtime, run(folder, plan, program, layout))
    });
    if let Err(error) = &result {
        announce(&Started::Failed(error.clone()));
    }
    result
}

/// What the tasks of the supervisor share. They all run on its one thread.
pub(super) struct Supervisor {
    pub(super) folder: PathBuf,
    pub(super) plan: Plan,
    pub(super) program: Program,
    pub(super) network: Network,
    pub(super) instances: RefCell<Vec<Instance>>,
    pub(super) group: RefCell<Group>,
    /// When the lab began.
    pub(super) began: Instant,
    /// Number of the last instance.
    pub(super) last: Cell<u32>,
    /// The targets that the rules have.
    pub(super) targets: RefCell<Vec<Ipv4Addr>>,
    /// Marked as changed whenever an instance's state is.
    pub(super) changed: watch::Sender<()>,
    metadata: Service,
    ending: Notify,
}

/// The appliance's program: named by the environment, or beside this one.
///
/// # Errors
/// [`LabError::NoProxy`].
pub fn proxy_program() -> Result<PathBuf, LabError> {
    let proxy = match std::env::var_os(PROXY_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => {
            let own =
                std::env::current_exe().map_err(|error| LabError::io("find", "/proc/self/exe".as_ref(), error))?;
            own.with_file_name(PROXY_NAME)
        }
    };
    let can_be_run = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let found = fs::canonicalize(&proxy).ok().filter(can_be_run);
    found.ok_or(LabError::NoProxy { tried: proxy })
}

/// What can be found out before the process leaves the machine's network.
fn prepare(folder: &Path) -> Result<(PathBuf, Plan, Program, Layout), LabError> {
    let folder = fs::canonicalize(folder).map_err(|error| LabError::io("open the folder", folder, error))?;
    let path = folder.join(state::PLAN);
    let text = fs::read(&path).map_err(|error| LabError::io("read", &path, error))?;
    let plan: Plan = serde_json::from_slice(&text).map_err(|error| LabError::io("understand", &path, error))?;
    let layout = Layout::of(&plan)?;
    let program = match state::machine(&folder)? {
        Some(machine) => Program::Machine(machine),
        None => Program::Appliance(proxy_program()?),
    };
    std::env::set_current_dir(&folder).map_err(|error| LabError::io("enter", &folder, error))?;
    Ok((folder, plan, program, layout))
}

async fn run(folder: PathBuf, plan: Plan, program: Program, layout: Layout) -> Result<(), LabError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| LabError::kernel("await SIGTERM", error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| LabError::kernel("await SIGINT", error))?;
    let network = Network::build(layout).await?;
    let zone = Rc::new(Zone::of(&plan.carriers));
    for address in network.resolver_addresses() {
        spawn_local(Rc::clone(&zone).serve(Zone::listen(address).await?));
    }
    let metadata = Service::listen().await?;
    // The path is relative because the folder's may be longer than a socket's may be.
    let control = UnixListener::bind(state::SOCKET);
    let private = |control| fs::set_permissions(state::SOCKET, fs::Permissions::from_mode(0o600)).map(|()| control);
    let control =
        control.and_then(private).map_err(|error| LabError::io("listen on", &folder.join(state::SOCKET), error))?;
    let socket = inode(Path::new(state::SOCKET));

    let first = first_version(&plan, program.machine())?;
    let supervisor = Rc::new(Supervisor {
        folder,
        group: RefCell::new(Group::new(plan.scaling, first)),
        began: Instant::now(),
        plan,
        program,
        network,
        instances: RefCell::default(),
        last: Cell::new(0),
        targets: RefCell::default(),
        changed: watch::Sender::new(()),
        metadata: Service::default(),
        ending: Notify::new(),
    });
    spawn_local(serve_metadata(Rc::clone(&supervisor), metadata));
    spawn_local(serve_control(Rc::clone(&supervisor), control));
    let own = Process::now(Pid::this().as_raw()).ok_or_else(|| LabError::kernel("read /proc", "own entry missing"))?;
    own.write(&supervisor.folder)?;
    if announce(&Started::Ready) {
        let mut look = tokio::time::interval(FOLDER_CHECK);
        let folder_gone = async {
            while inode(Path::new(state::SOCKET)) == socket {
                look.tick().await;
            }
        };
        tokio::select! {
            _ = terminate.recv() => tracing::info!("ending: SIGTERM"),
            _ = interrupt.recv() => tracing::info!("ending: SIGINT"),
            () = supervisor.ending.notified() => tracing::info!("ending: a client asked for it"),
            () = folder_gone => tracing::info!("ending: the folder was removed"),
        }
    }
    supervisor.end().await;
    Ok(())
}

/// What instances boot from before there is another version.
fn first_version(plan: &Plan, machine: Option<&Machine>) -> Result<Version, LabError> {
    let drain = DrainTimes { accept_ms: plan.proxy.drain.accept_ms, grace_ms: plan.proxy.drain.grace_ms };
    Ok(Version { number: 1, created_unix_ms: now_unix_ms(), user_data: user_data(plan, machine)?, drain })
}

/// Says how the start went; false when nobody listens. Then lets go of standard output.
fn announce(started: &Started) -> bool {
    let Ok(mut line) = serde_json::to_vec(started) else { return false };
    line.push(b'\n');
    let mut out = std::io::stdout();
    let heard = out.write_all(&line).and_then(|()| out.flush()).is_ok();
    let released = fs::OpenOptions::new().write(true).open("/dev/null").is_ok_and(|null| dup2_stdout(null).is_ok());
    heard && released
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}

async fn serve_metadata(supervisor: Rc<Supervisor>, listener: tokio::net::TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let supervisor = Rc::clone(&supervisor);
                spawn_local(async move {
                    let lookup = |source| supervisor.metadata_of(source);
                    let parameter = |name: &str| supervisor.parameter(name);
                    if let Err(error) = supervisor.metadata.serve(stream, lookup, parameter).await {
                        tracing::warn!(%client, %error, "metadata connection failed");
                    }
                });
            }
            Err(error) => tracing::warn!(%error, "cannot accept a metadata connection"),
        }
    }
}

async fn serve_control(supervisor: Rc<Supervisor>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let supervisor = Rc::clone(&supervisor);
                spawn_local(async move {
                    if let Err(error) = supervisor.serve_client(stream).await {
                        tracing::warn!(%error, "control connection failed");
                    }
                });
            }
            Err(error) => tracing::warn!(%error, "cannot accept a control connection"),
        }
    }
}

impl Supervisor {
    async fn serve_client(self: &Rc<Self>, stream: UnixStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            let (response, descriptors) = match serde_json::from_str(&line) {
                Ok(request) => self.answer(request).await.unwrap_or_else(|error| (Response::Failed(error), Vec::new())),
                Err(error) => (Response::Failed(LabError::Protocol(error.to_string())), Vec::new()),
            };
            let mut bytes = serde_json::to_vec(&response)?;
            bytes.push(b'\n');
            send(stream.get_ref(), &bytes, &descriptors).await?;
            line.clear();
        }
        Ok(())
    }

    async fn answer(self: &Rc<Self>, request: Request) -> Result<(Response, Vec<OwnedFd>), LabError> {
        let response = match request {
            Request::Status => Response::Status(self.status()),
            Request::AddInstance => Response::Added(self.add_instance().await?),
            Request::KillInstance { id } => {
                self.kill_instance(&id).await?;
                Response::Done
            }
            Request::PressPowerButton { id } => {
                self.press_power_button(&id).await?;
                Response::Done
            }
            Request::TerminateInstance { id, grace_ms } => {
                let exit_code = self.terminate_instance(&id, Duration::from_millis(grace_ms)).await?;
                Response::Ended { exit_code }
            }
            Request::SetRegistered { id, registered } => {
                self.set_registered(&id, registered)?;
                Response::Done
            }
            Request::WaitHealthy { id, deadline_ms } => {
                self.wait_healthy(&id, Duration::from_millis(deadline_ms)).await?;
                Response::Done
            }
            Request::FlushFlows => {
                self.network.forget_flows(None)?;
                Response::Done
            }
            Request::EndFlows { id } => {
                self.end_flows(&id)?;
                Response::Done
            }
            Request::UdpSocket { namespace, address } => {
                let bound = self.inside(&namespace, || UdpSocket::bind(address))?;
                let socket =
                    bound.map_err(|error| LabError::kernel(format!("bind {address} in {namespace}"), error))?;
                return Ok((Response::Descriptors { count: 1 }, vec![socket.into()]));
            }
            Request::TcpSocket { namespace, address } => {
                let bound = self.inside(&namespace, || sys::tcp_socket(address))?;
                let socket =
                    bound.map_err(|error| LabError::kernel(format!("bind TCP {address} in {namespace}"), error))?;
                return Ok((Response::Descriptors { count: 1 }, vec![socket]));
            }
            Request::Namespace { name } => {
                let failed = |error: std::io::Error| LabError::kernel(format!("open the namespace {name}"), error);
                let network = self.inside(&name, sys::current_namespace)?.map_err(failed)?;
                let user = fs::File::open("/proc/self/ns/user").map_err(failed)?;
                return Ok((Response::Descriptors { count: 2 }, vec![network, user.into()]));
            }
            Request::HttpGet { id, path } => {
                let (status, body) = self.http_get(&id, &path).await?;
                Response::Http { status, body }
            }
            Request::Pin { namespace, source, edge, to } => {
                Response::Target(self.pin(&namespace, (source, edge), &to).await?)
            }
            Request::SetSize { min, max } => {
                self.group.borrow_mut().size = Scaling { min, max };
                Response::Done
            }
            Request::PutVersion { user_data, drain } => Response::Version(self.put_version(&user_data, drain)?),
            Request::StartRefresh { version, preferences } => {
                let seen = self.seen();
                let id = self.group.borrow_mut().start(version, preferences, &seen)?;
                tracing::info!(refresh = id, version, "refresh begins");
                spawn_local(Rc::clone(self).lead_refresh(id.clone()));
                Response::Started { id }
            }
            Request::Refresh { id } => {
                let (now, seen) = (self.began.elapsed(), self.seen());
                Response::Refresh(self.group.borrow_mut().run(&id)?.status(now, &seen))
            }
            Request::RollBack { id } => {
                let seen = self.seen();
                self.group.borrow_mut().run(&id)?.roll_back("a client asked for it".to_owned(), &seen)?;
                self.changed.send_replace(());
                Response::Done
            }
            Request::Cancel { id } => {
                self.group.borrow_mut().run(&id)?.cancel()?;
                self.changed.send_replace(());
                Response::Done
            }
            Request::Destroy => {
                self.ending.notify_one();
                Response::Done
            }
        };
        Ok((response, Vec::new()))
    }

    fn status(&self) -> LabStatus {
        LabStatus {
            supervisor_pid: Pid::this().as_raw(),
            instances: self.instances.borrow().iter().map(Instance::status).collect(),
            group: self.group.borrow().status(self.began.elapsed(), &self.seen()),
            ingress_addresses: self.plan.network.ingress_addresses.clone(),
            egress_addresses: self.plan.network.egress_addresses.clone(),
            namespaces: self.namespaces(),
        }
    }

    /// The instances that are there, as the group sees them.
    fn seen(&self) -> Vec<Seen> {
        self.instances.borrow().iter().filter_map(Instance::seen).collect()
    }

    /// A version with this content: the newest, if it has it, or a new one.
    fn put_version(&self, user_data: &str, drain: DrainTimes) -> Result<u64, LabError> {
        let mut group = self.group.borrow_mut();
        let (number, new) = group.put(user_data, drain, now_unix_ms());
        if let Some(new) = new {
            let path = state::user_data_path(&self.folder, number);
            state::create_folder(&self.folder.join(state::VERSIONS))?;
            state::write_private(&path, new.user_data.as_bytes())?;
            tracing::info!(version = number, "a new version");
        }
        Ok(number)
    }

    /// Does what a refresh wants done, until it is over.
    async fn lead_refresh(self: Rc<Self>, id: String) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let (now, seen) = (self.began.elapsed(), self.seen());
            let Ok(next) = self.group.borrow_mut().run(&id).map(|run| run.next(now, &seen)) else { return };
            match next {
                Move::Launch(version) => {
                    let launched = self.launch(version).await;
                    let seen = self.seen();
                    let mut group = self.group.borrow_mut();
                    let Ok(run) = group.run(&id) else { return };
                    match launched {
                        Ok(instance) => run.has_launched(instance, version),
                        Err(error) => {
                            tracing::error!(refresh = id, %error, "cannot boot an instance");
                            run.has_not_launched(error.to_string(), &seen);
                        }
                    }
                }
                Move::Retire(instance) => self.retire(&instance, true),
                Move::Discard(instance) => self.retire(&instance, false),
                Move::Wait(until) => {
                    let until = until.map(|moment| self.began + moment);
                    tokio::select! {
                        _ = changed.changed() => {}
                        () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                    }
                }
                Move::End => break,
            }
        }
        let mut group = self.group.borrow_mut();
        let Ok(run) = group.run(&id) else { return };
        let (status, version) = (run.status, run.version);
        if status == RefreshStatus::Successful {
            group.live = version;
        }
        drop(group);
        tracing::info!(refresh = id, ?status, "refresh is over");
        self.changed.send_replace(());
    }

    /// Has the UDP flow from `source` to `edge` go to one of the instances `to`; to which it goes then. None when none of them is a
    /// target.
    async fn pin(
        &self,
        namespace: &str,
        (source, edge): (SocketAddr, SocketAddr),
        to: &[InstanceId],
    ) -> Result<Option<InstanceId>, LabError> {
        let (SocketAddr::V4(from), SocketAddr::V4(at)) = (source, edge) else { return Ok(None) };
        let bound = self.inside(namespace, || UdpSocket::bind(source))?;
        let failed = |error: std::io::Error| LabError::kernel(format!("bind {source} in {namespace}"), error);
        let socket = bound.map_err(failed)?;
        let wanted = |address: &Ipv4Addr| {
            self.instances.borrow().iter().any(|it| it.place.address == *address && to.contains(&it.id))
        };
        let targets: Vec<Ipv4Addr> = self.targets.borrow().iter().copied().filter(wanted).collect();
        if targets.is_empty() {
            return Ok(None);
        }
        // As if the load balancer had nobody else for as long as it takes to open a flow; those that are open stay where they are.
        self.network.forget_flow(from, at)?;
        let opened = self.network.set_targets(&targets);
        let address = match opened {
            Ok(()) => self.open_flow(&socket, (from, at)).await,
            Err(error) => Err(error),
        };
        // Whatever came of it: the load balancer has its targets again.
        self.network.set_targets(&self.targets.borrow())?;
        let address = address?;
        let instances = self.instances.borrow();
        let found = instances.iter().find(|it| it.namespace.is_some() && Some(it.place.address) == address);
        Ok(found.map(|instance| instance.id.clone()))
    }

    /// Sends a keep-alive from `socket`, and says to which target the load balancer has given the flow.
    async fn open_flow(
        &self,
        socket: &UdpSocket,
        (from, at): (SocketAddrV4, SocketAddrV4),
    ) -> Result<Option<Ipv4Addr>, LabError> {
        let sent = socket.send_to(KEEP_ALIVE, at);
        sent.map_err(|error| LabError::kernel(format!("send from {from} to {at}"), error))?;
        for _ in 0..PIN_LOOKS {
            if let Some(address) = self.network.target_of(from, at)? {
                return Ok(Some(address));
            }
            tokio::time::sleep(GONE_CHECK).await;
        }
        Ok(None)
    }

    fn namespaces(&self) -> Vec<String> {
        let mut names = vec![VPC_NAMESPACE.to_owned()];
        names.extend(self.network.internet().iter().map(|namespace| namespace.name.clone()));
        let instances = self.instances.borrow();
        names.extend(instances.iter().filter_map(|instance| Some(instance.namespace.as_ref()?.name.clone())));
        names
    }

    /// Runs `work` in a namespace of the lab.
    fn inside<T>(&self, name: &str, work: impl FnOnce() -> T) -> Result<T, LabError> {
        let instances = self.instances.borrow();
        let mut all =
            self.network.internet().iter().chain(instances.iter().filter_map(|instance| instance.namespace.as_ref()));
        let descriptor: BorrowedFd<'_> = match all.find(|namespace| namespace.name == name) {
            Some(namespace) => namespace.descriptor.as_fd(),
            None if name == VPC_NAMESPACE => self.network.vpc(),
            None => return Err(LabError::NoSuchNamespace { name: name.to_owned(), known: self.namespaces() }),
        };
        sys::inside(descriptor, self.network.vpc(), work)
            .map_err(|error| LabError::kernel(format!("enter the namespace {name}"), error))
    }

    fn metadata_of(&self, source: Ipv4Addr) -> Option<Metadata> {
        let instances = self.instances.borrow();
        let instance =
            instances.iter().find(|instance| instance.place.address == source && instance.namespace.is_some())?;
        let path = state::user_data_path(&self.folder, instance.version);
        // Read anew, so that what is written there reaches the next boot.
        let user_data = fs::read_to_string(&path)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "cannot read the user-data"))
            .ok();
        let public_address = match self.plan.topology {
            Topology::SingleEc2 => self.plan.network.ingress_addresses.first().copied(),
            Topology::LoadBalanced => None,
        };
        Some(Metadata {
            instance: instance.id.0.clone(),
            private_address: source,
            public_address: public_address.filter(IpAddr::is_ipv4),
            zone: instance.place.zone.clone(),
            lifecycle: instance.lifecycle,
            user_data,
        })
    }

    /// What the lab's SSM Parameter Store has: the secrets of its folder.
    fn parameter(&self, name: &str) -> Option<String> {
        let name = name.strip_prefix(PARAMETERS)?;
        // One part, so that it leads nowhere else.
        let file = Path::new(name).file_name().filter(|file| *file == name)?;
        fs::read_to_string(self.folder.join(state::SECRETS).join(file)).ok()
    }

    /// Ends everything, in order. What is left ends with this process.
    async fn end(self: &Rc<Self>) {
        let ids: Vec<InstanceId> = self.instances.borrow().iter().map(|instance| instance.id.clone()).collect();
        let ends = ids.into_iter().map(|id| {
            let supervisor = Rc::clone(self);
            spawn_local(async move {
                // An instance that is gone already is what is wanted. A machine takes longer than that to end itself.
                let _ = match supervisor.program.machine() {
                    Some(_) => supervisor.kill_instance(&id).await,
                    None => supervisor.terminate_instance(&id, DESTROY_GRACE).await.map(drop),
                };
            })
        });
        for end in ends.collect::<Vec<_>>() {
            let _ = end.await;
        }
        let internet = self.network.internet().iter().map(|namespace| namespace.descriptor.as_fd());
        self.end_visitors(&internet.chain([self.network.vpc()]).collect::<Vec<_>>()).await;
        for name in [state::SOCKET, state::STATE] {
            // The folder may be gone, which is why we end.
            let _ = fs::remove_file(name);
        }
    }

    /// Kills the processes that are left in these namespaces, such as those that `exec` put there, and waits until they are gone.
    pub(super) async fn end_visitors(&self, namespaces: &[BorrowedFd<'_>]) {
        // While a namespace is open here, its number is nobody else's.
        let own: BTreeSet<u64> = namespaces.iter().copied().filter_map(number).collect();
        let visitors = || {
            let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
            let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
            let inside =
                |pid: &i32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|found| own.contains(&found.ino()));
            pids.filter(|pid| *pid != Pid::this().as_raw()).filter(inside).filter_map(Process::now).collect::<Vec<_>>()
        };
        let gone = async {
            loop {
                let left = visitors();
                if left.is_empty() {
                    return;
                }
                for process in left {
                    // It may have ended since it was listed.
                    let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
                }
                tokio::time::sleep(GONE_CHECK).await;
            }
        };
        if tokio::time::timeout(KILL_WAIT, gone).await.is_err() {
            tracing::warn!("processes in the lab's namespaces did not end");
        }
    }
}

/// Number of a namespace, as `/proc/PID/ns/net` shows it.
fn number(namespace: BorrowedFd<'_>) -> Option<u64> {
    fs::metadata(format!("/proc/self/fd/{}", namespace.as_raw_fd())).ok().map(|metadata| metadata.ino())
}

async fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> std::io::Result<()> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        stream.writable().await?;
        // The descriptors go with the first byte.
        let descriptors = if sent == 0 { descriptors } else { &[] };
        match stream.try_io(Interest::WRITABLE, || sys::send_with_descriptors(stream.as_fd(), rest, descriptors)) {
            Ok(length) => sent += length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
