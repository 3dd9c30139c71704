use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Time for the request's head to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a request's head; hyper's smallest buffer. No client here sends more than a few hundred.
const MAX_HEAD: usize = 8 << 10;

/// Headers of a request.
const MAX_HEADERS: usize = 32;

/// Pause after a failed accept: out of file descriptors, most likely, and trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much of its attention a listener gives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Its name in the log.
    pub(super) name: &'static str,
    /// Connections at a time; more wait in the listen queue.
    pub(super) connections: usize,
    /// Time for a connection, which carries one request; see [`Allowance`].
    pub(super) time: Duration,
}

/// The time that a connection has. An answer that goes on for long may lengthen it.
#[derive(Debug, Clone)]
pub(super) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    fn new(time: Duration) -> Self {
        let allowance = Self(Arc::default());
        allowance.set(time);
        allowance
    }

    /// The connection may take this long, counted from its beginning.
    pub(super) fn set(&self, time: Duration) {
        self.0.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Waits for the end of a connection, or of its time.
    async fn limit(&self, connection: impl Future) {
        let began = Instant::now();
        let mut connection = pin!(connection);
        loop {
            let deadline = began + self.time();
            if timeout_at(deadline, &mut connection).await.is_ok() || deadline >= began + self.time() {
                return;
            }
        }
    }
}

/// Where connections come from.
pub(super) trait Accept: Send {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(TcpListener::accept(self).await?.0)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

/// Answers until it is dropped: one request per connection, by the pages that `pages` gives for it.
pub(super) async fn answer<L: Accept>(listener: &L, bounds: Bounds, pages: impl Fn(&L::Stream) -> Router) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!("{}: {error}", bounds.name);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let allowance = Allowance::new(bounds.time);
        let service = TowerToHyperService::new(pages(&stream).layer(Extension(allowance.clone())));
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_HEADERS)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever went wrong concerns that client alone.
            allowance.limit(connection).await;
            drop(place);
        });
    }
}
