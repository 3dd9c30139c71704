//! The other end of the control endpoint: one request, one answer.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::report::Refusal;
use super::socket::Within;

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
    let name = || socket.display().to_string();
    let broken = |what: String| ClientError::Broken { socket: name(), what };
    let unreachable = |source| ClientError::Unreachable { socket: name(), source };
    let within = Within::new(socket).map_err(unreachable)?;
    let stream = UnixStream::connect(&within.path).await.map_err(unreachable)?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder().method(method).uri(path).header(header::HOST, "sipedge-proxy");
        let request = request.body(Body::from(body)).map_err(io::Error::other)?;
        // The connection moves while the answer is waited for; it ends with it.
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), MAX_ANSWER).await?;
        connection.abort();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, body.to_vec()))
    };
    match timeout(ANSWER, exchange).await {
        Ok(Ok((StatusCode::OK, body))) => Ok(body),
        Ok(Ok((status, body))) => match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => Err(ClientError::Refused { refusal: Box::new(refusal) }),
            Err(_) => Err(broken(format!("it answered {status}"))),
        },
        Ok(Err(error)) => Err(broken(error.to_string())),
        Err(_) => Err(broken(format!("nothing came within {} s", ANSWER.as_secs()))),
    }
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
