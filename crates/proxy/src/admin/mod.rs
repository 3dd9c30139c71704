//! `/healthz`, `/readyz` and `/metrics` over HTTP on the private address. Read only; nothing here can change the proxy.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::net::Proxy;
use crate::observe;

/// Connections at a time. Health checks and scrapers need a handful; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 64;

/// Time for a connection, which carries one request. The NLB's health check gives up after 10 s at most.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for the request's head to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a request's head; hyper's smallest buffer. No client here sends more than a few hundred.
const MAX_HEAD: usize = 8 << 10;

/// Headers of a request.
const MAX_HEADERS: usize = 32;

/// What the pages show.
#[derive(Debug)]
pub struct Admin {
    proxy: Arc<Proxy>,
    readiness: Mutex<Readiness>,
}

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

impl Admin {
    /// Pages of a proxy that has just started.
    pub fn new(proxy: Arc<Proxy>) -> Self {
        Self { proxy, readiness: Mutex::new(Readiness::Waiting("starting")) }
    }

    /// Changes what `/readyz` says.
    pub fn set(&self, readiness: Readiness) {
        *self.readiness.lock().unwrap_or_else(PoisonError::into_inner) = readiness;
    }

    fn readiness(&self) -> Readiness {
        *self.readiness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would only burn the processor.
                tracing::warn!("admin: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_HEADERS)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever went wrong concerns that client alone.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
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
    let text = observe::metrics(
        &admin.proxy.numbers(),
        admin.proxy.started_at_secs(),
        admin.readiness() == Readiness::Ready,
        admin.readiness() == Readiness::Draining,
    );
    // The content type of Prometheus's text format.
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
