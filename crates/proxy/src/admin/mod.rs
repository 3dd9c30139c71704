//! What an instance shows and takes besides SIP: `/healthz`, `/readyz` and `/metrics` over HTTP on the private address, read only; and
//! the control endpoint on a Unix socket.

pub mod client;
mod control;
pub mod report;
mod serving;
pub mod show;
mod socket;
mod trouble;
mod watch;
pub mod watched;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::Config;
use crate::net::Proxy;
use crate::observe::{self, Process};
use crate::secrets::TokenKeys;
use report::{Configuration, Destination, Reload, Reloads, TokenKeyStatus};
use serving::Bounds;

pub use control::serve_control;
pub use socket::{ControlSocket, DEFAULT_SOCKET, SocketError};
pub(crate) use trouble::{USUAL_PORT, serve_trouble};

/// Health checks and scrapers need a handful of connections. The NLB's health check gives up after 10 s at most.
const BOUNDS: Bounds = Bounds { name: "admin", connections: 64, time: Duration::from_secs(5) };

/// How old the list of destinations may be that a metrics page shows: whoever asks more often costs the shards nothing.
const DESTINATIONS_AGE: Duration = Duration::from_secs(1);

/// Reloads that may wait for the one that is under way: more than the control endpoint has connections.
const WAITING_RELOADS: usize = 32;

/// What the pages and the control endpoint show, and where they leave what they are asked for.
#[derive(Debug)]
pub struct Admin {
    proxy: Arc<Proxy>,
    /// Folder of the secrets.
    secrets: String,
    readiness: Mutex<Readiness>,
    history: Mutex<History>,
    kept_secrets: Mutex<report::Secrets>,
    reloads: mpsc::Sender<ReloadRequest>,
    leave: Notify,
    has_control: AtomicBool,
    destinations: tokio::sync::Mutex<Option<(Instant, Vec<Destination>)>>,
}

/// Somebody wants a reload and waits for what it comes to.
pub type ReloadRequest = oneshot::Sender<Reload>;

/// Whether a load balancer should send calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet; what it waits for.
    Waiting(&'static str),
    /// Yes.
    Ready,
    /// Not any more.
    Draining,
}

#[derive(Debug, Clone)]
struct History {
    in_force: Configuration,
    reloads: Reloads,
}

impl Admin {
    /// Of a proxy that has just started with the configuration from `origin`; and where the control endpoint's wishes for a reload
    /// arrive. `secrets`: the folder of its secrets.
    pub fn new(proxy: Arc<Proxy>, origin: String, secrets: String) -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (reloads, requests) = mpsc::channel(WAITING_RELOADS);
        let in_force = Configuration { origin, hash: hash(&proxy.setup().config), since: unix_now() };
        let admin = Self {
            proxy,
            secrets,
            readiness: Mutex::new(Readiness::Waiting("starting")),
            history: Mutex::new(History { in_force, reloads: Reloads::default() }),
            kept_secrets: Mutex::default(),
            reloads,
            leave: Notify::new(),
            has_control: AtomicBool::new(false),
            destinations: tokio::sync::Mutex::default(),
        };
        (admin, requests)
    }

    /// Changes what `/readyz` says.
    pub fn set(&self, readiness: Readiness) {
        *self.readiness.lock().unwrap_or_else(PoisonError::into_inner) = readiness;
    }

    /// Keeps what a reload came to, and returns it whole: what is in force after it.
    pub fn reloaded(&self, trigger: &str, result: Result<(Vec<String>, Vec<String>), Vec<report::Reason>>) -> Reload {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let at = unix_now();
        let (changed, consequences, reasons) = match result {
            Ok((changed, consequences)) => {
                history.reloads.done += 1;
                history.in_force.hash = hash(&self.proxy.setup().config);
                history.in_force.since = at;
                (changed, consequences, Vec::new())
            }
            Err(reasons) => {
                history.reloads.refused += 1;
                (Vec::new(), Vec::new(), reasons)
            }
        };
        let configuration = history.in_force.clone();
        let reload = Reload { at, trigger: trigger.to_owned(), reasons, changed, consequences, configuration };
        history.reloads.last = Some(reload.clone());
        reload
    }

    /// The secrets that are in force from now on were just read.
    pub fn secrets_in_force(&self, keys: &TokenKeys) {
        let now = unix_now();
        let mut kept = self.kept_secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |id| kept.token_keys.iter().find(|known| known.id == id).map_or(now, |known| known.since);
        let of = |(place, key): (usize, &crate::secrets::TokenKey)| TokenKeyStatus {
            id: key.id,
            signs: place == 0,
            since: key.made.unwrap_or_else(|| since(key.id)),
            signs_since: key.signs_since,
            signed_until: key.signed_until,
        };
        let token_keys = keys.tokens.iter().enumerate().map(of).collect();
        (kept.token_keys, kept.looked_at, kept.trouble) = (token_keys, now, None);
    }

    /// The secrets were read, and are those in force. `is_whole`: with nothing wrong about any of them.
    pub fn looked_at_secrets(&self, is_whole: bool) {
        let mut kept = self.kept_secrets.lock().unwrap_or_else(PoisonError::into_inner);
        kept.looked_at = unix_now();
        kept.trouble = kept.trouble.take().filter(|_| !is_whole);
    }

    /// Secrets that had changed were taken up.
    pub fn changed_secrets(&self) {
        self.kept_secrets.lock().unwrap_or_else(PoisonError::into_inner).changes += 1;
    }

    /// The secrets could not be read. Whether that is news.
    pub fn missed_secrets(&self, why: String) -> bool {
        let mut kept = self.kept_secrets.lock().unwrap_or_else(PoisonError::into_inner);
        kept.missed += 1;
        kept.trouble.replace(why) != kept.trouble
    }

    /// Secrets that had changed cannot be used. Whether that is news: the same ones are counted once.
    pub fn refused_secrets(&self, why: String) -> bool {
        let mut kept = self.kept_secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = kept.trouble.replace(why) != kept.trouble;
        kept.refused += u64::from(is_news);
        is_news
    }

    /// What the secrets in force are, but for the secrets.
    fn kept_secrets(&self) -> report::Secrets {
        let kept = self.kept_secrets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        report::Secrets { poll_s: self.proxy.setup().config.secrets.poll_s, ..kept }
    }

    /// Returns when the control endpoint wants this instance to leave.
    pub async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    fn readiness(&self) -> Readiness {
        *self.readiness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> History {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The destinations as they are now. `None`: the first shard has not answered within a second.
    async fn destinations(&self) -> Option<Vec<Destination>> {
        let statuses = self.proxy.destinations().await?;
        let now = self.proxy.now();
        // Two targets of a trunk may lead to the same server.
        let distinct: BTreeSet<Destination> = statuses.iter().map(|status| Destination::new(status, now)).collect();
        Some(distinct.into_iter().collect())
    }

    /// The destinations as they were within the last second; none when the first shard does not answer.
    async fn recent_destinations(&self) -> Vec<Destination> {
        let mut kept = self.destinations.lock().await;
        if let Some((at, destinations)) = &*kept
            && at.elapsed() < DESTINATIONS_AGE
        {
            return destinations.clone();
        }
        let destinations = self.destinations().await.unwrap_or_default();
        *kept = Some((Instant::now(), destinations.clone()));
        destinations
    }
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let pages = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin);
    serving::answer(&listener, BOUNDS, |_| pages.clone()).await;
}

async fn healthz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    match admin.proxy.health() {
        Ok(()) => (StatusCode::OK, "alive\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    if let Err(reason) = admin.proxy.health() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n"));
    }
    match admin.readiness() {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::Waiting(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n".to_owned()),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let history = admin.history();
    let process = Process {
        started_at: admin.proxy.started_at_secs(),
        ready: admin.readiness() == Readiness::Ready,
        draining: admin.readiness() == Readiness::Draining,
        control: admin.has_control.load(Ordering::Relaxed),
        in_force: history.in_force,
        reloads: history.reloads.done,
        reloads_refused: history.reloads.refused,
        secrets: admin.kept_secrets(),
    };
    let text = observe::metrics(&process, &admin.proxy.numbers(), &admin.recent_destinations().await);
    // The content type of Prometheus's text format.
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// What tells two configurations apart: the first 16 hex digits of BLAKE3 over all settings.
pub(crate) fn hash(config: &Config) -> String {
    // A configuration that was read from text can be written as text.
    let settings = serde_json::to_vec(config).unwrap_or_default();
    blake3::hash(&settings).to_hex().chars().take(16).collect()
}

/// Seconds since the Unix epoch.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
