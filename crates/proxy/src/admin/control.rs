//! The control endpoint: what an operator on the machine may ask and order, over HTTP on a Unix socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use nix::unistd::geteuid;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::report::{Calls, Destination, Drain, Effective, MarkRequest, Refusal, Reload, Status, address_of, mark_of};
use super::serving::{self, Bounds};
use super::watch::watch;
use super::{Admin, ControlSocket, Readiness};
use crate::engine::{Control, Transport};

/// An operator and a few scripts. A reload may wait for the metadata service, and for the reloads before it.
const BOUNDS: Bounds = Bounds { name: "control", connections: 16, time: Duration::from_secs(60) };

/// Bytes of a request's body. The longest that means anything has about 120.
const MAX_BODY: usize = 4 << 10;

/// What a client gets: a document, or why not.
type Answer<T> = Result<Json<T>, Refused>;

/// A document as a response.
#[derive(Debug)]
pub(super) struct Json<T>(T);

/// A status code with a [`Refusal`].
#[derive(Debug)]
pub(super) struct Refused(StatusCode, Refusal);

/// Answers root and the user of this process until it is dropped.
pub async fn serve_control(socket: ControlSocket, admin: Arc<Admin>) {
    let own = geteuid().as_raw();
    admin.has_control.store(true, Ordering::Relaxed);
    let pages = Router::new()
        .route("/status", get(status))
        .route("/destinations", get(destinations))
        .route("/destinations/mark", post(mark))
        .route("/reload", post(reload))
        .route("/drain", post(drain))
        .route("/config", get(config))
        .route("/watch", post(watch))
        .fallback(not_there)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(admin);
    let nobody = Router::new().fallback(forbidden);
    let pages = |stream: &UnixStream| {
        let user = stream.peer_cred().ok().map(|peer| peer.uid());
        if user.is_some_and(|user| may_control(user, own)) {
            return pages.clone();
        }
        tracing::warn!(user, "control: refused: neither root nor the user of this process");
        nobody.clone()
    };
    serving::answer(&socket.listener, BOUNDS, pages).await;
}

/// Whether the user `user` may control a proxy of the user `own`.
fn may_control(user: u32, own: u32) -> bool {
    const ROOT: u32 = 0;
    user == ROOT || user == own
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<Status> {
    let proxy = &admin.proxy;
    let (numbers, history, setup, place) = (proxy.numbers(), admin.history(), proxy.setup(), proxy.place());
    let (readiness, waits_for) = match admin.readiness() {
        Readiness::Waiting(reason) => ("waiting", Some(reason.to_owned())),
        Readiness::Ready => ("ready", None),
        Readiness::Draining => ("draining", None),
    };
    let started_at = proxy.started_at_secs();
    Json(Status {
        edge: setup.config.edge.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at,
        uptime_s: proxy.now().as_secs().saturating_sub(started_at),
        readiness: readiness.to_owned(),
        trouble: proxy.health().err().or(waits_for),
        ingress: place.ingress,
        egress: place.egress,
        advertised: place.advertised.clone(),
        shards: proxy.shards(),
        transactions: numbers.gauges.transactions,
        pending_transactions: numbers.gauges.pending_transactions,
        calls: Calls {
            started: numbers.counters.calls_started,
            answered: numbers.counters.calls_answered,
            failed: numbers.counters.calls_failed,
            counted: numbers.gauges.counted_calls,
        },
        watchers: proxy.watchers(),
        drain: drain_of(&admin),
        configuration: history.in_force,
        reloads: history.reloads,
        secrets: admin.kept_secrets(),
    })
}

async fn destinations(State(admin): State<Arc<Admin>>) -> Answer<Vec<Destination>> {
    admin.destinations().await.map(Json).ok_or_else(no_answer)
}

async fn mark(State(admin): State<Arc<Admin>>, body: Result<Bytes, BytesRejection>) -> Answer<Vec<Destination>> {
    let body = body.map_err(|error| refused(error.status(), format!("the request's body: {error}")))?;
    let bad = |text: String| refused(StatusCode::BAD_REQUEST, text);
    let request: MarkRequest = serde_json::from_slice(&body).map_err(|error| {
        bad(format!(
            "the request's body: {error}; it is {{\"address\": \"192.0.2.1:5060\", \"transport\": \"udp\", \"mark\": \"down\"}}"
        ))
    })?;
    let transport = Transport::of_parameter(request.transport.as_bytes())
        .ok_or_else(|| bad(format!("transport {:?}: one of udp, tcp, tls", request.transport)))?;
    let mark = mark_of(&request.mark)
        .ok_or_else(|| bad(format!("mark {:?}: one of in-service, draining, down", request.mark)))?;
    let address = address_of(&request.address, transport).ok_or_else(|| {
        bad(format!("address {:?}: an IP address, with or without a port, such as 192.0.2.1:5060", request.address))
    })?;
    let is_meant =
        |destination: &Destination| destination.address == address && destination.transport == transport.parameter();
    let known = admin.destinations().await.ok_or_else(no_answer)?;
    if !known.iter().any(is_meant) {
        let error = format!("{transport} {address} is no destination of this edge");
        return Err(Refused(StatusCode::NOT_FOUND, Refusal { error, known, ..Refusal::default() }));
    }
    admin.proxy.control(Control::Mark { transport, address, mark });
    if !admin.proxy.settled().await {
        return Err(no_answer());
    }
    tracing::info!(%transport, %address, mark = request.mark, "destination marked by the operator");
    let marked = admin.destinations().await.ok_or_else(no_answer)?;
    Ok(Json(marked.into_iter().filter(is_meant).collect()))
}

async fn reload(State(admin): State<Arc<Admin>>) -> Answer<Reload> {
    let (reply, done) = oneshot::channel();
    let gone =
        |_| refused(StatusCode::CONFLICT, "this instance is ending: it takes up no configuration any more".to_owned());
    admin.reloads.send(reply).await.map_err(|_| gone(()))?;
    let reload = done.await.map_err(|_| gone(()))?;
    if reload.reasons.is_empty() {
        return Ok(Json(reload));
    }
    let error = format!("reload refused; configuration {} of before stays in force", reload.configuration.hash);
    Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, Refusal { error, reasons: reload.reasons, known: Vec::new() }))
}

async fn drain(State(admin): State<Arc<Admin>>) -> Answer<Drain> {
    // A second one changes nothing: the permit is used up by then, and whoever waits for it has gone.
    if !admin.proxy.is_draining() {
        admin.proxy.drain();
        admin.leave.notify_one();
    }
    drain_of(&admin).map(Json).ok_or_else(no_answer)
}

async fn config(State(admin): State<Arc<Admin>>) -> Answer<Effective> {
    let config = serde_json::to_value(&admin.proxy.setup().config).map_err(|error| {
        refused(StatusCode::INTERNAL_SERVER_ERROR, format!("the configuration has no JSON: {error}"))
    })?;
    Ok(Json(Effective { in_force: admin.history().in_force, secrets: admin.secrets.clone(), config }))
}

async fn not_there(uri: Uri) -> Refused {
    let pages = "GET /status, /destinations, /config; POST /destinations/mark, /reload, /drain, /watch";
    refused(StatusCode::NOT_FOUND, format!("{}: there is no such page; there are {pages}", uri.path()))
}

async fn not_so(method: Method, uri: Uri) -> Refused {
    let other = if method == Method::POST { "GET" } else { "POST" };
    refused(StatusCode::METHOD_NOT_ALLOWED, format!("{method} {}: this one takes {other}", uri.path()))
}

async fn forbidden() -> Refused {
    let error = "only root and the user that the proxy runs as may control it";
    refused(StatusCode::FORBIDDEN, error.to_owned())
}

fn drain_of(admin: &Admin) -> Option<Drain> {
    let settings = &admin.proxy.setup().config.drain;
    Some(Drain {
        pending_transactions: admin.proxy.numbers().gauges.pending_transactions,
        since_ms: admin.proxy.draining_for()?.as_millis().try_into().unwrap_or(u64::MAX),
        accept_ms: settings.accept_ms,
        grace_ms: settings.grace_ms,
    })
}

fn no_answer() -> Refused {
    let error = "a shard has not answered within a second; /healthz says whether it is stuck";
    refused(StatusCode::SERVICE_UNAVAILABLE, error.to_owned())
}

pub(super) fn refused(status: StatusCode, error: String) -> Refused {
    Refused(status, Refusal { error, ..Refusal::default() })
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_own_user_may_control_and_nobody_else() {
        assert!(may_control(0, 990) && may_control(990, 990) && may_control(0, 0));
        assert!(!may_control(1000, 990) && !may_control(1000, 0));
    }
}
