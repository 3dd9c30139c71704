//! The built-in answerer: a user agent of the instance itself, which whoever knows its password may call from anywhere. A call to it
//! proves that the edge is reached, that it runs and with which configuration, and that calls go through it both ways.
//!
//! It has a socket of its own on the private address and speaks with the engines alone, as the self-call's user agents do: they challenge
//! the caller, send the call on and bring the answers back. So whatever a call needs of the edge is in its path, and a call to the
//! answerer that succeeds says something about other calls. It sends and takes no media.

mod agent;
mod message;
mod sdp;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::admin;
use crate::config::Config;
use crate::engine::Answerer;
use crate::net::{Proxy, StartError};
use agent::{Agent, Identity, Timers};

/// The answerer of a running proxy. Dropping it ends its calls.
#[derive(Debug)]
pub struct Service {
    proxy: Arc<Proxy>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    /// As the engines had it last.
    answerer: Arc<Answerer>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    /// An answerer that nobody can call yet.
    pub fn new(proxy: Arc<Proxy>) -> Self {
        Self { proxy, running: Mutex::default() }
    }

    /// Does what the configuration in force says: it answers to its user and password from now on, or not any more. Calls that are up
    /// stay. To be called inside a tokio runtime.
    pub fn follow(&self, config: &Config, password: Option<String>) -> Result<(), StartError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(settings), Some(password)) = (&config.answerer, password) else {
            self.proxy.set_answerer(None);
            return Ok(());
        };
        let (user, address) = (settings.user.clone(), SocketAddr::new(self.proxy.place().ingress.ip(), 0));
        let answerer = match &mut *running {
            // What was used stays used.
            Some(running) => {
                running.answerer = Arc::new(running.answerer.renewed(user, password));
                Arc::clone(&running.answerer)
            }
            None => {
                let failed = |source| StartError::Bind { protocol: "UDP", role: "answerer", address, source };
                let socket = bind(address).map_err(failed)?;
                let address = socket.local_addr().map_err(failed)?;
                let answerer = Arc::new(Answerer::new(address, user, password));
                let task = tokio::spawn(serve(socket, address, Arc::clone(&self.proxy)));
                *running = Some(Running { answerer: Arc::clone(&answerer), task });
                answerer
            }
        };
        tracing::info!(user = settings.user, address = %answerer.address(), "the answerer can be called");
        self.proxy.set_answerer(Some(answerer));
        Ok(())
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Receives, and sends what the user agent has to say, until it is aborted.
async fn serve(socket: UdpSocket, address: SocketAddr, proxy: Arc<Proxy>) {
    let place = proxy.place().clone();
    let mut agent = Agent::new(address, place.advertised.clone());
    let began = Instant::now();
    let mut buffer = vec![0; MOST_BYTES];
    let mut out = Vec::new();
    loop {
        let wait = agent.poll_timeout().map_or(IDLE, |due| due.saturating_sub(began.elapsed()));
        let received = timeout(wait, socket.recv_from(&mut buffer)).await;
        let setup = proxy.setup();
        let timers = Timers {
            t1: Duration::from_millis(setup.config.timers.t1_ms.into()),
            t2: Duration::from_millis(setup.config.timers.t2_ms.into()),
        };
        match received {
            // The engines send from these alone; whoever else reaches this socket is on this machine and has no business here.
            Ok(Ok((length, source))) if source == place.egress || source == place.ingress => {
                let identity = || Identity { instance: place.ingress.ip(), configuration: admin::hash(&setup.config) };
                let bytes = buffer.get(..length).unwrap_or_default();
                agent.handle_message(began.elapsed(), bytes, &timers, identity, &mut out);
                send(&socket, source, &mut out).await;
            }
            Ok(_) | Err(_) => {}
        }
        agent.handle_timeout(began.elapsed(), &timers, &mut out);
        send(&socket, place.ingress, &mut out).await;
    }
}

/// Sends responses where their request came from, requests to the ingress socket.
async fn send(socket: &UdpSocket, to: SocketAddr, out: &mut Vec<Vec<u8>>) {
    for message in out.drain(..) {
        if let Err(error) = socket.send_to(&message, to).await {
            tracing::debug!("answerer: cannot send to {to}: {error}");
        }
    }
}

/// Bytes of the longest message: what the engine sends on.
const MOST_BYTES: usize = 65_535;
/// How long to wait for a message when nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);
