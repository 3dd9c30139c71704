//! The other end of the control endpoint: one request, one answer.

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::report::Refusal;
use super::socket::Within;
use super::watched::WatchRequest;

/// Time for an answer: longer than the longest that the proxy takes, which is a reload.
const ANSWER: Duration = Duration::from_secs(65);

/// Longest answer that is read, in bytes: thousands of destinations.
const MAX_ANSWER: usize = 16 << 20;

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens.
    #[error("{socket}: {}", in_words(source))]
    Unreachable {
        /// The socket.
        socket: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Somebody listens who is no proxy of this kind, or stopped in the middle.
    #[error("{socket}: no answer of a sipedge-proxy: {what}")]
    Broken {
        /// The socket.
        socket: String,
        /// What came instead.
        what: String,
    },
    /// The proxy said no.
    #[error("{}", text(refusal))]
    Refused {
        /// Its reasons.
        refusal: Box<Refusal>,
    },
}

impl ClientError {
    /// The exit code that says the kind of failure; see docs/proxy.md.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => 8,
            Self::Refused { .. } => 9,
        }
    }

    /// The same for machines.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused { refusal } => (**refusal).clone(),
            other => Refusal { error: other.to_string(), ..Refusal::default() },
        }
    }
}

/// Asks the proxy at `socket`, and returns the document that it answers.
pub async fn ask(socket: &Path, method: Method, path: &str, body: String) -> Result<Vec<u8>, ClientError> {
    let exchange = async {
        let (response, connection) = send(socket, method, path, body).await?;
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), MAX_ANSWER).await;
        connection.abort();
        Ok((status, body.map_err(|error| broken(socket, error.to_string()))?))
    };
    match in_time(socket, exchange).await? {
        (StatusCode::OK, body) => Ok(body.into()),
        (status, body) => Err(refusal(socket, status, &body)),
    }
}

/// Watches the messages that pass the proxy at `socket`. `line` gets each line of the answer, without its end, and says whether to go on.
/// `Ok`: it said no, or the proxy has ended the answer.
pub async fn watch(
    socket: &Path,
    request: &WatchRequest,
    mut line: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), ClientError> {
    let request = serde_json::to_string(request).map_err(|error| broken(socket, error.to_string()))?;
    let (response, _connection) = in_time(socket, send(socket, Method::POST, "/watch", request)).await?;
    let status = response.status();
    let mut body = response.into_body();
    if status != StatusCode::OK {
        let body = in_time(socket, async { Ok(to_bytes(Body::new(body), MAX_ANSWER).await) }).await?;
        return Err(refusal(socket, status, &body.unwrap_or_default()));
    }
    let mut text: Vec<u8> = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|_| broken(socket, "it has ended, or has broken the connection".to_owned()))?;
        text.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        let whole = memchr::memrchr(b'\n', &text).map_or(0, |end| end + 1);
        for one in text.get(..whole).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            if line(one.trim_ascii_end()).is_break() {
                return Ok(());
            }
        }
        text.drain(..whole);
    }
    Ok(())
}

/// Sends a request. The connection moves on a task of its own, which ends with it.
async fn send(
    socket: &Path,
    method: Method,
    path: &str,
    body: String,
) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), ClientError> {
    let unreachable = |source| ClientError::Unreachable { socket: socket.display().to_string(), source };
    let within = Within::new(socket).map_err(unreachable)?;
    let stream = UnixStream::connect(&within.path).await.map_err(unreachable)?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder().method(method).uri(path).header(header::HOST, "sipedge-proxy");
        let request = request.body(Body::from(body)).map_err(io::Error::other)?;
        let connection = tokio::spawn(connection);
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((sender.send_request(request).await?, connection))
    };
    exchange.await.map_err(|error| broken(socket, error.to_string()))
}

async fn in_time<T>(socket: &Path, answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    let late = |_| broken(socket, format!("nothing came within {} s", ANSWER.as_secs()));
    timeout(ANSWER, answer).await.map_err(late)?
}

fn refusal(socket: &Path, status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => ClientError::Refused { refusal: Box::new(refusal) },
        Err(_) => broken(socket, format!("it answered {status}")),
    }
}

fn broken(socket: &Path, what: String) -> ClientError {
    ClientError::Broken { socket: socket.display().to_string(), what }
}

fn in_words(error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "is sipedge-proxy running? With --control it may have another socket",
        io::ErrorKind::ConnectionRefused => "the proxy that made this socket has ended; is another one running?",
        io::ErrorKind::PermissionDenied => "only root and the user that the proxy runs as may control it",
        _ => return error.to_string(),
    };
    format!("{error}; {hint}")
}

fn text(refusal: &Refusal) -> String {
    let mut lines = vec![refusal.error.clone()];
    lines.extend(refusal.reasons.iter().map(|reason| format!("  {reason}")));
    if !refusal.known.is_empty() {
        lines.push("There are:".to_owned());
        lines.extend(super::show::destinations(&refusal.known).lines().map(|line| format!("  {line}")));
    }
    lines.join("\n")
}
