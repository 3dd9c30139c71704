//! From instance metadata, or a file, to a running and tried proxy; and its life until it ends.
//!
//! ```text
//! metadata → configuration → secrets → checks → sockets → admin → names → self-call → open → Elastic IP → ready → ready hook
//!   ⟲ reload, changed secrets → SIGTERM, or the group terminates the instance → drain → drain hook → end
//! ```
//!
//! Nothing answers SIP before the self-call has succeeded.

mod document;
mod doors;
mod member;
mod persist;
mod reload;
mod secrets;
mod self_call;
mod signals;
mod source;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::admin::{self, Admin, ControlSocket, Readiness};
use crate::answerer;
use crate::cloud::{CloudError, Endpoints, Patience};
use crate::config::Config;
use crate::engine::{Control, Place};
use crate::net::{Drained, Proxy, StartError};
use member::Member;
use reload::Reloader;
use secrets::Vault;
use signals::Signals;
use source::{Document, Loaded, Source, UNKNOWN};

pub use crate::cloud::{METADATA_URL, Metadata, MetadataError};
pub use document::{
    DocumentError, Instance, Position, Reason, USER_DATA_MARKER, check, check_report, parse, parse_user_data, place,
    summary,
};
pub use doors::Doors;
pub use persist::{boot_persistently, persist};
pub use secrets::SecretsError;
pub use self_call::{SelfCallError, self_call};

/// How long [`boot`] and [`run`] wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Instance metadata and user-data. 60 s: the network of a new instance may take that long.
    pub metadata: Duration,
    /// Parameters of SSM Parameter Store. 60 s: so long may it take until a role that was just made may read them.
    pub secrets: Duration,
    /// The first answers of the name servers; then the instance gets ready without them, and asks on.
    pub names: Duration,
    /// The self-call, tries included.
    pub self_call: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { metadata: seconds(60), secrets: seconds(60), names: seconds(5), self_call: seconds(30) }
    }
}

/// Why a proxy did not get ready, or did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// Something that should not happen.
    #[error("{0}")]
    Internal(String),
    /// An argument makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file named on the command line cannot be read.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The configuration is refused.
    #[error("{0}")]
    Document(#[from] DocumentError),
    /// The configuration does not fit the instance or the keys.
    #[error("{0}")]
    Refused(String),
    /// No metadata.
    #[error("{0}")]
    Metadata(#[from] MetadataError),
    /// No user-data.
    #[error(
        "instance metadata: no user-data: the instance was launched without; launch it with the user-data of `sipedge plan`"
    )]
    NoUserData,
    /// The configuration advertises a public address that does not exist.
    #[error(
        "instance metadata: no public-ipv4, but the configuration says `advertise: metadata`: associate an Elastic IP, or \
         advertise the load balancer's address by `advertise: !host`"
    )]
    NoPublicAddress,
    /// No keys.
    #[error("{0}")]
    Secrets(#[from] SecretsError),
    /// SIP sockets or threads.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The admin port.
    #[error("cannot bind TCP {address} (admin): {source}")]
    Admin {
        /// What was to be bound.
        address: SocketAddr,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The self-call.
    #[error("{0}; the instance does not get ready")]
    SelfCall(#[from] SelfCallError),
    /// AWS did not do what makes the instance ready.
    #[error("{0}; the instance does not get ready")]
    Cloud(#[from] CloudError),
}

impl BootError {
    /// The exit code that says the kind of failure; see docs/proxy.md.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Internal(_) | Self::Start(StartError::Resources(_)) => 1,
            Self::Usage(_) => 2,
            Self::File { .. } | Self::Document(_) | Self::Refused(_) | Self::Start(StartError::Setup(_)) => 3,
            Self::Metadata(_) | Self::NoUserData | Self::NoPublicAddress => 4,
            Self::Secrets(_) | Self::Start(StartError::Tls(_)) => 5,
            Self::Start(_) | Self::Admin { .. } => 6,
            Self::SelfCall(_) => 7,
            Self::Cloud(_) => 10,
        }
    }
}

/// What surrounds the proxy on its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Folder of the secrets that the configuration names.
    pub secrets: PathBuf,
    /// Socket of the control endpoint.
    pub control: PathBuf,
    /// How long what is waited for.
    pub deadlines: Deadlines,
    /// Endpoints of AWS that stand in for the regional ones.
    pub endpoints: Endpoints,
}

/// Boots an EC2 instance, or one of the lab, from its metadata; returns when it has ended as it was told to.
pub async fn boot(metadata: String, surroundings: Surroundings) -> Result<(), BootError> {
    boot_with(metadata, surroundings, &mut UNKNOWN.clone()).await
}

/// As [`boot`]; `health` becomes that of the instance and its configuration as they get known.
async fn boot_with(metadata: String, surroundings: Surroundings, health: &mut SocketAddr) -> Result<(), BootError> {
    let mut signals = Signals::new()?;
    let deadline = surroundings.deadlines.metadata;
    let document = Document::UserData { metadata: metadata.clone(), deadline };
    let source = surroundings.source(document, Some(metadata.clone()));
    let begun = tokio::select! {
        begun = source.document.begin(health) => begun?,
        () = signals.terminated() => return ended_early(),
    };
    // Made before anything is waited for that may fail: an instance that is terminated meanwhile keeps its group waiting for nothing.
    let member = tokio::select! {
        member = membership(&source, &begun.config, &metadata, deadline) => member,
        () = signals.terminated() => return ended_early(),
    };
    let (member, failure) = match member {
        Ok(member) => (member.map(Arc::new), None),
        Err(error) => (None, Some(error)),
    };
    let loaded = tokio::select! {
        mut loaded = source.finish(begun) => {
            loaded.errors.extend(failure);
            Some(loaded)
        }
        () = signals.terminated() => None,
        () = terminated(member.as_deref()) => None,
    };
    live(source, loaded, member, surroundings, signals).await
}

/// The instance in its group, if the configuration says that it is in one.
async fn membership(
    source: &Source,
    config: &Config,
    metadata: &str,
    deadline: Duration,
) -> Result<Option<Member>, BootError> {
    let Some(settings) = config.cloud.clone() else { return Ok(None) };
    // There is a metadata service, so there is a cloud.
    let cloud = source.vault.cloud(config).await?.ok_or_else(no_cloud)?;
    Ok(Some(Member::new(settings, metadata, cloud, deadline).await?))
}

/// Runs a configuration file; returns when the proxy has ended as it was told to.
pub async fn run(file: PathBuf, surroundings: Surroundings) -> Result<(), BootError> {
    let signals = Signals::new()?;
    let source = surroundings.source(Document::File(file), None);
    let loaded = source.load().await?;
    if loaded.config.cloud.is_some() {
        tracing::warn!("cloud: `run` knows no instance: neither an Elastic IP nor lifecycle hooks; `boot` does");
    }
    live(source, Some(loaded), None, surroundings, signals).await
}

impl Surroundings {
    fn source(&self, document: Document, metadata: Option<String>) -> Source {
        let vault = Vault::new(self.secrets.clone(), metadata, self.endpoints.clone());
        let patience = Patience { after: self.deadlines.secrets, denied_may_pass: true };
        Source { document, vault, patience }
    }
}

/// Reads a configuration file.
pub fn read(file: &Path) -> Result<Config, BootError> {
    let origin = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|source| BootError::File { file: origin.clone(), source })?;
    Ok(parse(&text, &origin)?)
}

/// From the configuration to the end. `loaded`: `None` where the end came before it was read.
async fn live(
    source: Source,
    loaded: Option<Loaded>,
    member: Option<Arc<Member>>,
    surroundings: Surroundings,
    mut signals: Signals,
) -> Result<(), BootError> {
    let mut tasks = JoinSet::new();
    let ended = match loaded {
        Some(loaded) => work(source, loaded, member.as_ref(), surroundings, &mut tasks, &mut signals).await,
        None => ended_early(),
    };
    if let Some(member) = &member {
        let leave = async {
            if ended.is_err() {
                // Whoever starts it again need not: an instance that could not get ready may be on its way out.
                member.notice().await;
            }
            member.leave().await;
        };
        tokio::select! {
            () = leave => {}
            () = signals.terminated() => tracing::warn!("told to end before the group's hook was completed"),
        }
    }
    // The socket's file goes with its task.
    tasks.shutdown().await;
    ended
}

/// From the start of the proxy to its end.
async fn work(
    source: Source,
    loaded: Loaded,
    member: Option<&Arc<Member>>,
    surroundings: Surroundings,
    tasks: &mut JoinSet<()>,
    signals: &mut Signals,
) -> Result<(), BootError> {
    let began = Instant::now();
    let (config, place, secrets) = loaded.whole()?;
    let deadlines = surroundings.deadlines;
    let edge = config.edge.clone();
    allow_descriptors(&config);
    let address = SocketAddr::new(place.ingress.ip(), config.admin.port);
    let listener = TcpListener::bind(address).await.map_err(|source| BootError::Admin { address, source })?;
    let proxy = Arc::new(Proxy::start(config, place, &secrets.keys.for_engine(), &secrets.tls)?);
    let answerer = Arc::new(answerer::Service::new(Arc::clone(&proxy)));
    answerer.follow(&proxy.setup().config, secrets.password.clone())?;
    let (admin, requests) = Admin::new(Arc::clone(&proxy), source.origin(), source.vault.folder.display().to_string());
    let admin = Arc::new(admin);
    admin.secrets_in_force(&secrets.keys);
    if let Some(error) = &secrets.no_password {
        reload::tell(&admin, std::slice::from_ref(error), reload::WITHOUT_PASSWORD);
    }
    let in_force = secrets.digest;
    drop(secrets);
    tasks.spawn(admin::serve(listener, Arc::clone(&admin)));
    match ControlSocket::bind(&surroundings.control) {
        Ok(socket) => drop(tasks.spawn(admin::serve_control(socket, Arc::clone(&admin)))),
        // Calls matter more than the door for whoever looks after them.
        Err(error) => tracing::warn!("no control endpoint: {error}"),
    }
    if let Some(hang_up) = signals.take_hang_up() {
        let reloader = Reloader::new(source, in_force, Arc::clone(&proxy), Arc::clone(&admin), answerer);
        tasks.spawn(reloader.run(hang_up, requests));
    }
    let known = member.map(Arc::as_ref);
    tokio::select! {
        ready = get_ready(&proxy, &admin, known, deadlines) => {
            let self_call = ready?;
            let Place { ingress, egress, advertised, shards } = proxy.place();
            tracing::info!(
                edge, %ingress, %egress, advertised, shards, self_call_ms = self_call.as_secs_f64() * 1e3,
                ready_ms = began.elapsed().as_secs_f64() * 1e3, "ready"
            );
            if let Some(member) = member.cloned() {
                let address = advertised.parse().ok();
                tasks.spawn(async move {
                    // What is advertised as an address is the Elastic IP, where there is one.
                    let keep = async { if let Some(address) = address { member.keep_address(address).await } };
                    tokio::join!(member.arrive(), keep);
                });
            }
            serve_until_told(&proxy, &admin, known, signals).await
        }
        () = signals.terminated() => ended_early(),
        () = admin.told_to_leave() => ended_early(),
        () = terminated(known) => ended_early(),
    }
}

/// Raises this process's limit of file descriptors to what its connections and sockets may take, as far as it is allowed to.
fn allow_descriptors(config: &Config) {
    let needed = u64::from(config.streams.connections) + OTHER_DESCRIPTORS;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft >= needed {
        return;
    }
    let granted = needed.min(hard);
    if setrlimit(Resource::RLIMIT_NOFILE, granted, hard).is_err() || granted < needed {
        tracing::warn!(
            "streams.connections: {} need {needed} file descriptors, this process may have {hard}: raise its limit \
             (LimitNOFILE), or lower the setting",
            config.streams.connections
        );
    }
}

/// Names, self-call, open, Elastic IP. Returns how long the self-call took.
async fn get_ready(
    proxy: &Proxy,
    admin: &Admin,
    member: Option<&Member>,
    deadlines: Deadlines,
) -> Result<Duration, BootError> {
    admin.set(Readiness::Waiting("waiting for the name servers"));
    let names = Instant::now();
    while proxy.names_unanswered() > 0 {
        if names.elapsed() >= deadlines.names {
            tracing::warn!("name servers have not answered for {} names; going on", proxy.names_unanswered());
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    admin.set(Readiness::Waiting("placing a call through itself"));
    let took = self_call(proxy, deadlines.self_call).await?;
    // What comes with the address is answered from its first message on.
    proxy.control(Control::Open);
    if let Some(member) = member {
        admin.set(Readiness::Waiting("associating the Elastic IP"));
        member.take_address().await?;
    }
    admin.set(Readiness::Ready);
    Ok(took)
}

/// Returns when the group terminates this instance, if it is in one.
async fn terminated(member: Option<&Member>) {
    match member {
        Some(member) => member.terminated().await,
        None => std::future::pending().await,
    }
}

/// Keeps the group waiting while it terminates this instance; never returns.
async fn hold(member: Option<&Member>) {
    match member {
        Some(member) => member.hold().await,
        None => std::future::pending().await,
    }
}

async fn serve_until_told(
    proxy: &Proxy,
    admin: &Admin,
    member: Option<&Member>,
    signals: &mut Signals,
) -> Result<(), BootError> {
    let by_signal = tokio::select! {
        () = signals.terminated() => true,
        () = admin.told_to_leave() => false,
        () = terminated(member) => false,
        error = shard_ended(proxy) => return Err(error),
    };
    admin.set(Readiness::Draining);
    proxy.drain();
    tracing::info!(
        transactions = proxy.numbers().gauges.pending_transactions,
        "draining; a second signal ends at once"
    );
    let told_again = async {
        if !by_signal {
            // Whoever drains by the control endpoint, or terminates the instance, and then stops the service has not asked for haste.
            signals.terminated().await;
            tracing::info!("draining already; a second signal ends at once");
        }
        signals.terminated().await;
    };
    tokio::select! {
        drained = drained(proxy) => match drained {
            Drained::Finished => tracing::info!("drained: nothing is in progress"),
            Drained::GraceOver(transactions) => tracing::warn!(transactions, "grace period over with transactions in progress"),
        },
        () = told_again => tracing::warn!("second signal: ending at once"),
        () = hold(member) => {}
        error = shard_ended(proxy) => return Err(error),
    }
    Ok(())
}

async fn drained(proxy: &Proxy) -> Drained {
    loop {
        match proxy.drained() {
            Some(drained) => return drained,
            None => tokio::time::sleep(POLL).await,
        }
    }
}

/// A thread never ends by itself. Should one do so, the process ends too, and whoever started it starts a whole one.
async fn shard_ended(proxy: &Proxy) -> BootError {
    loop {
        if let Some(shard) = proxy.dead_shard() {
            return BootError::Internal(format!("shard {shard} has ended; the log before this line has the cause"));
        }
        if proxy.streams_ended() {
            let text = "the thread of the connections has ended; the log before this line has the cause";
            return BootError::Internal(text.to_owned());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn no_cloud() -> BootError {
    BootError::Internal("an instance with metadata and without a cloud".into())
}

fn ended_early() -> Result<(), BootError> {
    tracing::info!("told to end before it was ready");
    Ok(())
}

/// File descriptors besides those of connections: sockets and events of 64 shards, name queries, the admin pages' connections, logs.
const OTHER_DESCRIPTORS: u64 = 1_024;

/// How often the state of the shards is looked at while waiting for it to change.
const POLL: Duration = Duration::from_millis(20);
