//! The smoke call: strict user agents at the carriers call each other through the edge, and each behaviour that a call needs is a
//! check with its own line. Nothing here shares code with the edge.
//!
//! [`run`] tries every route of the plan and returns a [`Report`]; [`report`] renders it. [`agent`] has the user agents for tests that
//! need other calls.

pub mod agent;
mod caller;
mod cause;
mod checks;
mod operator;
mod pace;
pub mod report;
mod sheet;
mod tls;
pub mod trace;
pub mod twilio;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sipedge_proxy::config::{self, Advertise, Refuse, SecretRef};
use tokio::task::JoinSet;

use crate::plan::{Endpoint, INGRESS_ADDRESS, LAB_PEERS, Plan, VerifyCall};
use crate::spec::Transport;
use crate::target::lab::{self, Lab, STRANGER_NAMESPACE};
use agent::{Agent, Credentials, Settings, Streams};
use checks::Scene;
use operator::{Machine, OperatorScene};
use pace::Pace;
use sheet::{Failure, Sheet};
use trace::Trace;

pub use caller::run_caller;
pub use report::{CallReport, Check, LadderMessage, Report};

/// Address of the user agent that no trunk admits, in the namespace [`STRANGER_NAMESPACE`]: [`lab::STRANGER_ADDRESS`] with the
/// port of SIP.
pub const STRANGER_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(lab::STRANGER_ADDRESS), 5060);

/// Address of the operator's user agent in the same namespace.
pub const OPERATOR_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(lab::STRANGER_ADDRESS), 5070);

/// Why an operator's call in the lab may find no password.
const NOT_THE_LAB_S: &str = "the lab's secrets folder is not that of this plan: deploy it again";

/// Shortest wait for what should come: an INVITE is sent again after 500 ms and 1.5 s meanwhile.
const PATIENCE_MIN: Duration = Duration::from_secs(2);

/// Longest wait for what should come, so that a failing run ends within ten seconds.
const PATIENCE_MAX: Duration = Duration::from_secs(4);

/// Connections that a user agent may open: one to the edge, and others when that one is closed.
const CONNECTIONS: usize = 4;

/// Where user agents get their sockets.
pub trait Bench {
    /// A UDP socket bound to `address` inside `namespace`.
    fn udp_socket(&self, namespace: &str, address: SocketAddr) -> std::io::Result<UdpSocket>;

    /// A TCP socket bound to `address` inside `namespace`, neither listening nor connected.
    fn tcp_socket(&self, namespace: &str, address: SocketAddr) -> std::io::Result<OwnedFd> {
        Err(std::io::Error::other(format!("no TCP at {address} in {namespace} here")))
    }

    /// What the edge's file of this name contains: its certificate, in PEM, to compare with what it shows.
    fn secret(&self, name: &str) -> std::io::Result<Vec<u8>> {
        Err(std::io::Error::other(format!("no {name} here")))
    }
}

impl Bench for Lab {
    fn udp_socket(&self, namespace: &str, address: SocketAddr) -> std::io::Result<UdpSocket> {
        Lab::udp_socket(self, namespace, address).map_err(std::io::Error::other)
    }

    fn tcp_socket(&self, namespace: &str, address: SocketAddr) -> std::io::Result<OwnedFd> {
        Lab::tcp_socket(self, namespace, address).map_err(std::io::Error::other)
    }

    fn secret(&self, name: &str) -> std::io::Result<Vec<u8>> {
        std::fs::read(self.folder().join("secrets").join(name))
    }
}

/// The edge's addresses as the carriers see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Where calls are sent to, and what Via and Record-Route must name.
    pub ingress: SocketAddr,
    /// Where the edge's requests come from: what the destination carrier whitelists.
    pub egress: Vec<IpAddr>,
}

impl Addresses {
    /// With the port at which `plan` takes calls by `transport`. None when it takes none.
    pub fn by(&self, transport: Transport, plan: &Plan) -> Option<Self> {
        let listen = &plan.proxy.listen;
        let port = match transport {
            Transport::Udp => Some(listen.ingress_port),
            Transport::Tcp => listen.tcp.then_some(listen.ingress_port),
            Transport::Tls => listen.tls.as_ref().map(|tls| tls.port),
        };
        Some(Self { ingress: SocketAddr::new(self.ingress.ip(), port?), egress: self.egress.clone() })
    }
}

/// Places the calls of `plan.verify` and returns what came of each check. The callers speak `transport`, to the port of
/// `addresses.ingress`; calls arrive as the targets say. `started` is the time of day as RFC 3339 has it.
///
/// Takes under 1.5 s when all is well, unless the plan's limits make the calls go one after another, and about 10 s at worst. Must
/// not be called inside a tokio runtime, since it brings its own.
pub fn run(plan: &Plan, addresses: &Addresses, transport: Transport, bench: &dyn Bench, started: &str) -> Report {
    let began = std::time::Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let calls = match runtime {
        Ok(runtime) => runtime.block_on(place_all(plan, addresses, transport, bench)),
        Err(error) => plan.verify.calls.iter().map(|call| not_tried(call, addresses, &error)).collect(),
    };
    report_of(plan, calls, began.elapsed(), started)
}

/// Calls the answerer of `plan`'s edge from this machine, with its password, and returns what came of each check. `transport` to the port
/// of `addresses.ingress`. `started` is the time of day as RFC 3339 has it.
///
/// Takes under a second beside the way to the edge, and about 10 s at worst. Must not be called inside a tokio runtime.
pub fn run_operator(plan: &Plan, addresses: &Addresses, transport: Transport, password: &str, started: &str) -> Report {
    operators_call(plan, addresses, transport, password, started, true)
}

/// The main part of [`run_operator`] alone: one answered call, from another port, without the trials of what has to be refused. For who
/// wants to know which instance answers, and has no reason to try a wrong password often.
pub fn run_operator_briefly(
    plan: &Plan,
    addresses: &Addresses,
    transport: Transport,
    password: &str,
    started: &str,
) -> Report {
    operators_call(plan, addresses, transport, password, started, false)
}

fn operators_call(
    plan: &Plan,
    addresses: &Addresses,
    transport: Transport,
    password: &str,
    started: &str,
    whole: bool,
) -> Report {
    let began = std::time::Instant::now();
    let place = async || {
        let user = plan.proxy.answerer.as_ref().map(|answerer| answerer.user.clone()).ok_or_else(|| {
            std::io::Error::other("this edge has no answerer: its spec says `verify.answerer: false`")
        })?;
        let credentials = Credentials { user, password: password.to_owned() };
        let here = operator::address_towards(addresses.ingress)?;
        let mut stage = Stage {
            bench: &Machine,
            settings: Settings { patience: patience(plan), names: names(plan, addresses), ..Settings::default() },
            trace: Trace::new(),
            agents: BTreeMap::new(),
            transport,
            streams: transport != Transport::Udp,
        };
        let place = Endpoint { namespace: String::new(), address: free_port(here)?, transport: Transport::Udp };
        let tls = (transport == Transport::Tls).then(|| tls::public(&tls_name(plan, addresses))).transpose()?;
        let scene = stage.operator(plan, addresses, &place, credentials, tls.as_ref())?;
        Ok(if whole { scene.play().await } else { scene.play_briefly().await })
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let call = runtime.and_then(|runtime| runtime.block_on(place())).unwrap_or_else(|error: std::io::Error| {
        operator::not_tried(addresses, &error, "this machine cannot call: see what came")
    });
    report_of(plan, vec![call], began.elapsed(), started)
}

fn report_of(plan: &Plan, calls: Vec<CallReport>, took: Duration, started: &str) -> Report {
    Report {
        edge: plan.name.clone(),
        topology: plan.topology,
        target: plan.target,
        started: started.to_owned(),
        took_ms: report::milliseconds(took),
        passed: !calls.is_empty() && calls.iter().all(|call| call.passed),
        calls,
    }
}

/// An address at `ip` with a port that is free for UDP and for TCP.
fn free_port(ip: IpAddr) -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((ip, 0))?;
    listener.local_addr()
}

async fn place_all(plan: &Plan, addresses: &Addresses, transport: Transport, bench: &dyn Bench) -> Vec<CallReport> {
    let pace = Arc::new(Pace::new(plan));
    let settings = Settings { patience: patience(plan), names: names(plan, addresses), ..Settings::default() };
    let mut stage = Stage {
        bench,
        settings,
        trace: Trace::new(),
        agents: BTreeMap::new(),
        transport,
        streams: transport != Transport::Udp || arrives_by_stream(plan),
    };
    let mut tasks = JoinSet::new();
    let mut scenes = Vec::new();
    let mut reports: BTreeMap<usize, CallReport> = BTreeMap::new();
    for (index, call) in plan.verify.calls.iter().enumerate() {
        match stage.scene(plan, addresses, call, pace.clone()) {
            Ok(scene) => scenes.push((index, scene)),
            Err(error) => {
                reports.insert(index, not_tried(call, addresses, &error));
            }
        }
    }
    for (_, scene) in &scenes {
        scene.open_flows().await;
    }
    for (index, scene) in scenes {
        tasks.spawn(async move { (index, scene.play().await) });
    }
    let operator = plan.proxy.answerer.as_ref().map(|answerer| stage.operator_in_the_lab(plan, addresses, answerer));
    let operator = async {
        match operator {
            None => None,
            Some(Ok(scene)) => Some(scene.play().await),
            Some(Err(error)) => Some(operator::not_tried(addresses, &error, NOT_THE_LAB_S)),
        }
    };
    let finished = async {
        while let Some(finished) = tasks.join_next().await {
            if let Ok((index, report)) = finished {
                reports.insert(index, report);
            }
        }
    };
    let (operator, ()) = tokio::join!(operator, finished);
    // A scene that is not there ended in a panic: it counts as not tried.
    let lost = std::io::Error::other("the call's task ended before its time");
    plan.verify
        .calls
        .iter()
        .enumerate()
        .map(|(index, call)| reports.remove(&index).unwrap_or_else(|| not_tried(call, addresses, &lost)))
        .chain(operator)
        .collect()
}

/// The user agents of a run: one per namespace and address, however many parts it plays.
struct Stage<'a> {
    bench: &'a dyn Bench,
    settings: Settings,
    trace: Trace,
    agents: BTreeMap<(String, SocketAddr), Agent>,
    /// What the callers speak.
    transport: Transport,
    /// Whether anybody speaks TCP.
    streams: bool,
}

impl Stage<'_> {
    fn scene(
        &mut self,
        plan: &Plan,
        addresses: &Addresses,
        call: &VerifyCall,
        pace: Arc<Pace>,
    ) -> std::io::Result<Scene> {
        if call.callee.is_empty() {
            return Err(std::io::Error::other(format!("the plan has no address where calls to {} arrive", call.to)));
        }
        if call.callee.iter().any(|endpoint| endpoint.transport == Transport::Tls) {
            let what = format!("calls to {} arrive by TLS, and the lab has no certificate of theirs", call.to);
            return Err(std::io::Error::other(what));
        }
        let tls = match &plan.proxy.listen.tls {
            Some(tls) if self.transport == Transport::Tls => Some(self.tls(plan, addresses, &tls.certificate)?),
            _ => None,
        };
        let caller = self.agent(&call.caller, tls.as_ref())?;
        let callees =
            call.callee.iter().map(|endpoint| self.agent(endpoint, tls.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let source = plan.proxy.trunks.iter().find(|trunk| trunk.name == call.from);
        let admitted = |agent: &&Agent| {
            source.is_some_and(|trunk| trunk.from.iter().any(|range| range.contains(&agent.address().ip())))
        };
        let both = callees.iter().filter(admitted).cloned().collect();
        let stranger =
            Endpoint { namespace: STRANGER_NAMESPACE.to_owned(), address: STRANGER_ADDRESS, transport: Transport::Udp };
        let stranger = self.agent(&stranger, tls.as_ref())?;
        Ok(Scene {
            call: call.clone(),
            addresses: addresses.clone(),
            transport: self.transport,
            names: self.settings.names.clone(),
            silent: plan.proxy.refuse == Refuse::Silence,
            max_setup: Duration::from_millis(plan.verify.max_setup_ms.into()),
            caller,
            callees,
            both,
            stranger,
            trace: self.trace.clone(),
            pace,
            sheet: Sheet::default(),
        })
    }

    /// The operator's call from outside every carrier, with the password that the lab's instances read.
    fn operator_in_the_lab(
        &mut self,
        plan: &Plan,
        addresses: &Addresses,
        answerer: &config::Answerer,
    ) -> std::io::Result<OperatorScene> {
        let SecretRef::File(name) = &answerer.password else {
            return Err(std::io::Error::other("the answerer's password is not in the lab"));
        };
        let password = String::from_utf8_lossy(&self.bench.secret(name)?).trim_end().to_owned();
        let credentials = Credentials { user: answerer.user.clone(), password };
        let tls = match &plan.proxy.listen.tls {
            Some(tls) if self.transport == Transport::Tls => Some(self.tls(plan, addresses, &tls.certificate)?),
            _ => None,
        };
        // Strangers get no connection from an edge that is silent, and their datagrams are what it is reached by there.
        let is_silent = plan.proxy.refuse == Refuse::Silence;
        let addresses = match Addresses::by(addresses, Transport::Udp, plan) {
            Some(by_udp) if is_silent && self.transport != Transport::Udp => by_udp,
            _ => addresses.clone(),
        };
        let place =
            Endpoint { namespace: STRANGER_NAMESPACE.to_owned(), address: OPERATOR_ADDRESS, transport: Transport::Udp };
        let transport = if is_silent { Transport::Udp } else { self.transport };
        self.operator(plan, &addresses, &place, credentials, tls.as_ref())
            .map(|scene| OperatorScene { transport, ..scene })
    }

    fn operator(
        &mut self,
        plan: &Plan,
        addresses: &Addresses,
        place: &Endpoint,
        credentials: Credentials,
        tls: Option<&Tls>,
    ) -> std::io::Result<OperatorScene> {
        Ok(OperatorScene {
            addresses: addresses.clone(),
            transport: self.transport,
            credentials,
            silent: plan.proxy.refuse == Refuse::Silence,
            max_setup: Duration::from_millis(plan.verify.max_setup_ms.into()),
            agent: self.agent(place, tls)?,
            trace: self.trace.clone(),
            sheet: Sheet::default(),
            through: OnceLock::new(),
        })
    }

    /// How the user agents know the edge by TLS.
    fn tls(&self, plan: &Plan, addresses: &Addresses, certificate: &SecretRef) -> std::io::Result<Tls> {
        let SecretRef::File(name) = certificate else {
            return Err(std::io::Error::other("the edge's certificate is not in the lab"));
        };
        let host = tls_name(plan, addresses);
        // Absent where the spec has roots of its own: then the user agents have nothing to show.
        let own = self.bench.secret(LAB_PEERS).ok();
        tls::client(&self.bench.secret(name)?, own.as_deref(), &host)
    }

    fn agent(&mut self, endpoint: &Endpoint, tls: Option<&Tls>) -> std::io::Result<Agent> {
        let key = (endpoint.namespace.clone(), endpoint.address);
        if let Some(agent) = self.agents.get(&key) {
            return Ok(agent.clone());
        }
        let Endpoint { namespace, address, .. } = endpoint;
        let place =
            |error| std::io::Error::other(format!("no socket on {address} in the namespace {namespace}: {error}"));
        let socket = self.bench.udp_socket(namespace, *address).map_err(place)?;
        let agent = Agent::new(socket, self.settings.clone(), &self.trace).map_err(place)?;
        if self.streams {
            let any = SocketAddr::new(address.ip(), 0);
            let spare = || self.bench.tcp_socket(namespace, any);
            let spare =
                std::iter::repeat_with(spare).take(CONNECTIONS).collect::<Result<Vec<_>, _>>().map_err(place)?;
            let listener = self.bench.tcp_socket(namespace, *address).map_err(place)?;
            agent.add_streams(Streams { listener, spare, tls: tls.cloned() }).map_err(place)?;
        }
        self.agents.insert(key, agent.clone());
        Ok(agent)
    }
}

/// What peers know the edge as by TLS.
fn tls_name(plan: &Plan, addresses: &Addresses) -> String {
    match &plan.proxy.advertise {
        Advertise::Host(host) if host != INGRESS_ADDRESS => host.clone(),
        _ => addresses.ingress.ip().to_string(),
    }
}

/// The name that the edge has by TLS, and how it proves it.
type Tls = (ServerName<'static>, Arc<ClientConfig>);

/// Whether a callee of the plan is reached by a connection.
fn arrives_by_stream(plan: &Plan) -> bool {
    plan.verify.calls.iter().flat_map(|call| &call.callee).any(|endpoint| endpoint.transport != Transport::Udp)
}

/// How long each wait lasts: longer than the set-up delay that the plan allows.
fn patience(plan: &Plan) -> Duration {
    let setup = Duration::from_millis(plan.verify.max_setup_ms.into());
    (setup + Duration::from_millis(500)).clamp(PATIENCE_MIN, PATIENCE_MAX)
}

/// The host names that the user agents may meet: the carriers' domains, and the one that the edge advertises.
fn names(plan: &Plan, addresses: &Addresses) -> BTreeMap<String, IpAddr> {
    let domains = plan.carriers.iter().flat_map(|carrier| &carrier.domains);
    let mut names: BTreeMap<String, IpAddr> =
        domains.filter_map(|domain| Some((domain.name.to_ascii_lowercase(), *domain.addresses.first()?))).collect();
    if let Advertise::Host(host) = &plan.proxy.advertise
        && host != INGRESS_ADDRESS
        && host.parse::<IpAddr>().is_err()
    {
        names.insert(host.to_ascii_lowercase(), addresses.ingress.ip());
    }
    names
}

/// The report of a call whose user agents could not be started.
fn not_tried(call: &VerifyCall, addresses: &Addresses, error: &std::io::Error) -> CallReport {
    let sheet = Sheet::default();
    sheet.fail(
        checks::REACHED,
        Duration::ZERO,
        Failure::new(
            "user agents at both carriers",
            error.to_string(),
            "the lab's namespaces or addresses are not those of this plan: deploy it again",
        ),
    );
    CallReport::new(call, addresses, checks::conclude(&sheet, false), Vec::new())
}
