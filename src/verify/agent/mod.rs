//! Strict SIP user agents over UDP, TCP and TLS, built on rsip: an implementation of RFC 3261 that shares no code with the edge that it checks.
//!
//! Strict means: a request follows its route set and nothing else (§12.2.1.1), a response goes where Via says (§18.2.2, RFC 3581), the
//! remote target is the peer's Contact, requests with an unknown tag or an old CSeq are refused (§12.2.2), and what gets no answer is sent
//! again by timers T1 and T2 (§17, §13.3.1.4). An edge that a forgiving user agent gets along with loses calls here, as it does with carriers.
//!
//! One [`Agent`] owns one socket and is caller and callee at the same time; dialogs are told apart by Call-ID and local tag.
//! Most tests need only [`Call`]:
//!
//! ```no_run
//! # use sipedge::verify::agent::*;
//! # async fn example(caller: Agent, callee: Agent, edge: std::net::SocketAddr) -> Result<(), AgentError> {
//! let call = Call::place(&caller, &[callee], &Invite::new(edge, "+15550100")).await?;
//! // Whatever has to happen in mid-call happens here.
//! call.hang_up(End::Callee).await
//! # }
//! ```

mod call;
mod dialog;
mod digest;
mod message;
mod streams;
mod transaction;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rsip::{Method, Request, Response, SipMessage};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub use call::{Call, Dialling, End, Expected, Invite, Ringing, RingingCall};
pub(crate) use dialog::FORGED_SUBJECT;
pub use dialog::{Dialog, RouteForgery};
pub use digest::{Challenge, Credentials};
pub(crate) use message::{Via, route_host, start_line, value, values};
pub use streams::Streams;

use super::trace::{Side, Trace, TracedMessage};
use crate::spec::Transport;
use message::{cseq, tag};
use streams::Links;
use transaction::{ClientEntry, InviteEvent, ServerEntry, ServerKey, ServerTransaction};

/// Largest UDP payload.
const DATAGRAM_BYTES: usize = 65_535;

/// The next hop of a message, or the one that it came from: how, and which address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hop {
    /// How.
    pub transport: Transport,
    /// Address and port.
    pub address: SocketAddr,
}

impl Hop {
    /// By UDP.
    pub fn udp(address: SocketAddr) -> Self {
        Self { transport: Transport::Udp, address }
    }
}

/// A user agent on one UDP socket, and on TCP at the same address if it is [given it](Agent::add_streams). Clones are the same user agent; it ends with the last of them and of its dialogs.
#[derive(Debug, Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

/// Timers and names of a user agent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// T1, the first retransmission interval (RFC 3261 §17.1.1.1: 500 ms).
    pub t1: Duration,
    /// T2, the longest retransmission interval of non-INVITE requests and of responses (500 ms to 4 s).
    pub t2: Duration,
    /// How long each wait lasts before it ends in [`AgentError::Missing`].
    pub patience: Duration,
    /// Addresses of the host names that may stand in Contact and Route; the names in lower case.
    pub names: BTreeMap<String, IpAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            // Two retransmissions of an INVITE fit (500 ms, 1.5 s); the paths that are tried here take single milliseconds.
            patience: Duration::from_secs(2),
            names: BTreeMap::new(),
        }
    }
}

/// A message with where it came from and when.
#[derive(Debug, Clone)]
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// Its source address.
    pub source: SocketAddr,
    /// How it came.
    pub transport: Transport,
    /// When it was read from the socket.
    pub at: Instant,
}

/// Why a user agent could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The deadline came first.
    #[error("{what} did not come within {} ms", waited.as_millis())]
    Missing {
        /// What was waited for.
        what: String,
        /// For how long.
        waited: Duration,
    },
    /// Something else came.
    #[error("{what} did not come, but {came}")]
    Instead {
        /// What was waited for.
        what: String,
        /// What came: a start line.
        came: String,
        /// The status code, when it was a response.
        code: Option<u16>,
    },
    /// The message could not be sent.
    #[error("{what} could not be sent to {to}: {error}")]
    Send {
        /// Start line.
        what: String,
        /// Where it should have gone.
        to: SocketAddr,
        /// The system's reason.
        error: std::io::Error,
    },
    /// A route, Contact or Via names a host that nobody knows.
    #[error("the host {host} of {uri} cannot be resolved")]
    Unresolved {
        /// The name.
        host: String,
        /// Where it stands.
        uri: String,
    },
    /// A header that RFC 3261 demands is absent.
    #[error("the message has no {name}")]
    MissingHeader {
        /// Its name.
        name: &'static str,
    },
    /// A header that RFC 3261 demands cannot be read.
    #[error("the {what} cannot be read: {text:?}")]
    Malformed {
        /// Header or part.
        what: &'static str,
        /// Its text.
        text: String,
    },
}

impl Agent {
    /// A user agent on `socket`, which writes down what it sends and receives in `trace`. To be called inside a tokio runtime.
    pub fn new(socket: UdpSocket, settings: Settings, trace: &Trace) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let receiver = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
        let inner = Inner {
            socket,
            address,
            settings,
            trace: trace.clone(),
            state: Mutex::default(),
            reader: OnceLock::new(),
            links: OnceLock::new(),
            started: Instant::now(),
        };
        let agent = Self { inner: Arc::new(inner) };
        let reader = tokio::spawn(read(receiver, Arc::downgrade(&agent.inner)));
        let _ = agent.inner.reader.set(reader.abort_handle());
        Ok(agent)
    }

    /// Lets it speak TCP and TLS too. To be called inside a tokio runtime, once.
    pub fn add_streams(&self, streams: Streams) -> std::io::Result<()> {
        let links = Links::new(streams, self.downgrade())?;
        let _ = self.inner.links.set(links);
        Ok(())
    }

    /// The socket's address.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Timers and names.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Where a URI leads: its host is an IP literal, or a name of [`Settings::names`].
    fn resolve(&self, uri: &rsip::Uri) -> Result<Hop, AgentError> {
        let (host, port) = message::host_port(uri);
        let address = host.parse().ok().or_else(|| self.inner.settings.names.get(&host.to_ascii_lowercase()).copied());
        match address {
            Some(address) => Ok(Hop { transport: message::transport(uri), address: SocketAddr::new(address, port) }),
            None => Err(AgentError::Unresolved { host, uri: uri.to_string() }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    /// Sends `raw`, and writes it down whether or not that worked.
    fn transmit(&self, raw: &str, to: Hop, side: Side) -> Result<(), AgentError> {
        let (at, start_line) = (self.inner.trace.now(), start_line(raw));
        let call_id = call_id_of(raw);
        let sent = match (to.transport, self.inner.links.get()) {
            (Transport::Udp, _) => self.inner.socket.send_to(raw.as_bytes(), to.address).map(|_| ()),
            (_, Some(links)) => links.send(self.downgrade(), to, raw.as_bytes().to_vec()),
            (_, None) => Err(std::io::Error::other("the user agent speaks UDP alone")),
        };
        let to = to.address;
        let noted = match &sent {
            Ok(()) => start_line.clone(),
            Err(error) => format!("{start_line} (not sent: {error})"),
        };
        let from = self.inner.address;
        let raw = digest::without_proof(raw);
        self.inner.trace.push(TracedMessage {
            at,
            from,
            to,
            agent: from,
            sent: true,
            side,
            call_id,
            start_line: noted,
            raw,
        });
        sent.map_err(|error| AgentError::Send { what: start_line, to, error })
    }

    /// Writes down what happened to a connection.
    fn note(&self, hop: Hop, what: &str) {
        self.inner.trace.push(TracedMessage {
            at: self.inner.trace.now(),
            from: hop.address,
            to: self.inner.address,
            agent: self.inner.address,
            sent: false,
            side: Side::Caller,
            call_id: String::new(),
            start_line: what.to_owned(),
            raw: String::new(),
        });
    }

    fn handle(&self, from: Hop, datagram: &[u8]) {
        let Hop { transport, address: source } = from;
        let at = Instant::now();
        let traced_at = self.inner.trace.now();
        let raw = String::from_utf8_lossy(datagram).into_owned();
        let parsed = SipMessage::try_from(datagram);
        let (side, note) = match parsed {
            Ok(SipMessage::Response(response)) => {
                self.handle_response(Received { message: response, source, transport, at })
            }
            Ok(SipMessage::Request(request)) => {
                match self.handle_request(Received { message: request, source, transport, at }) {
                    Ok(side) => (side, None),
                    Err(error) => (Side::Callee, Some(format!("refused: {error}"))),
                }
            }
            Err(error) => (Side::Callee, Some(format!("cannot be read: {error}"))),
        };
        let mut first_line = start_line(&raw);
        if let Some(note) = note {
            first_line = format!("{first_line} ({note})");
        }
        let message = TracedMessage {
            at: traced_at,
            from: source,
            to: self.inner.address,
            agent: self.inner.address,
            sent: false,
            side,
            call_id: call_id_of(&raw),
            start_line: first_line,
            raw,
        };
        self.inner.trace.push(message);
    }

    /// Hands a response to its transaction (§17.1.3). What belongs to none, or was not meant for this hop, is dropped.
    fn handle_response(&self, received: Received<Response>) -> (Side, Option<String>) {
        let found = (|| {
            let headers = &received.message.headers;
            let branch = Via::top(headers)?.branch;
            let (_, method) = cseq(headers)?;
            Ok::<_, AgentError>((branch, method, values(headers, "Via").len()))
        })();
        let (branch, method, vias) = match found {
            Ok(found) => found,
            Err(error) => return (Side::Caller, Some(format!("dropped: {error}"))),
        };
        let mut state = self.state();
        let Some(entry) = state.clients.get_mut(&(branch, method.to_string())) else {
            return (Side::Caller, Some("dropped: no such transaction".to_owned()));
        };
        let side = entry.side();
        if vias != 1 {
            return (side, Some("dropped: more than one Via (RFC 3261 §8.1.3.3)".to_owned()));
        }
        if let Some(mismatch) = entry.mismatch(&received.message) {
            return (side, Some(format!("dropped: {mismatch}")));
        }
        let again = entry.handle(received);
        drop(state);
        if let Some((ack, to)) = again {
            // What cannot be sent is in the trace.
            let _ = self.transmit(&ack, to, side);
        }
        (side, None)
    }

    /// Hands a request to its transaction, dialog or expectation, or refuses it. Returns the part played in its dialog.
    fn handle_request(&self, received: Received<Request>) -> Result<Side, AgentError> {
        let request = &received.message;
        let via = Via::top(&request.headers)?;
        let key = ServerKey::new(&via, request.method);
        let call_id = value(&request.headers, "Call-ID")?;
        let (number, _) = cseq(&request.headers)?;
        let from_tag = tag(&value(&request.headers, "From")?).unwrap_or_default();
        let to_tag = tag(&value(&request.headers, "To")?);

        let mut state = self.state();
        if let Some(entry) = state.servers.get(&key) {
            let (side, response) = (entry.side, entry.last.clone());
            drop(state);
            if let Some((response, to)) = response {
                self.transmit(&response, to, side)?;
            }
            return Ok(side);
        }
        let invite_key = ServerKey::new(&via, Method::Invite);
        match request.method {
            Method::Ack => {
                if let Some(entry) = state.servers.get_mut(&invite_key).filter(|entry| entry.final_code >= 300) {
                    entry.stop();
                    entry.tell(InviteEvent::Acked);
                    return Ok(entry.side);
                }
            }
            Method::Cancel => {
                let found = state.servers.get(&invite_key).map(|entry| {
                    entry.tell(InviteEvent::Cancelled);
                    entry.side
                });
                drop(state);
                let side = found.unwrap_or(Side::Callee);
                ServerTransaction::open(self, received, side, None)?.reply(if found.is_some() { 200 } else { 481 })?;
                return Ok(side);
            }
            _ => {}
        }
        if let Some(to_tag) = to_tag {
            let ack = request.method == Method::Ack;
            let verdict = match state.dialogs.get_mut(&(call_id, to_tag)) {
                Some(entry) if entry.remote_tag != from_tag || entry.requests.is_closed() => Err((entry.side, 481)),
                Some(entry) if !ack && entry.remote_number.is_some_and(|last| number <= last) => Err((entry.side, 500)),
                Some(entry) => {
                    if !ack {
                        entry.remote_number = Some(number);
                    }
                    Ok((entry.side, entry.requests.clone()))
                }
                None => Err((Side::Callee, 481)),
            };
            drop(state);
            return match verdict {
                Ok((side, requests)) => {
                    let transaction = ServerTransaction::open(self, received, side, None)?;
                    let _ = requests.send(transaction);
                    Ok(side)
                }
                Err((side, code)) => {
                    if !ack {
                        ServerTransaction::open(self, received, side, None)?.reply(code)?;
                    }
                    Ok(side)
                }
            };
        }
        if request.method == Method::Ack {
            return Ok(Side::Callee);
        }
        let expected = match request.method {
            Method::Invite => {
                let merged = !state.invites.insert((call_id.clone(), from_tag, number));
                // §8.2.2.2: the same request by another path.
                if merged { Err(482) } else { state.expected.get(&call_id).cloned().ok_or(480) }
            }
            Method::Options => Err(200),
            _ => Err(481),
        };
        drop(state);
        match expected {
            Ok(expected) => {
                let (events, invite_events) = mpsc::unbounded_channel();
                let transaction = ServerTransaction::open(self, received, Side::Callee, Some(events))?;
                let _ = expected.send(Ringing::new(transaction, invite_events)?);
            }
            Err(code) => ServerTransaction::open(self, received, Side::Callee, None)?.reply(code)?,
        }
        Ok(Side::Callee)
    }
}

#[derive(Debug)]
struct Inner {
    socket: UdpSocket,
    address: SocketAddr,
    settings: Settings,
    trace: Trace,
    state: Mutex<State>,
    reader: OnceLock<AbortHandle>,
    links: OnceLock<Links>,
    started: Instant,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.get() {
            reader.abort();
        }
        tracing::trace!(address = %self.address, lived_ms = self.started.elapsed().as_millis(), "user agent ends");
    }
}

#[derive(Debug, Default)]
struct State {
    /// By branch and method (§17.1.3).
    clients: HashMap<(String, String), ClientEntry>,
    /// By branch, sent-by and method (§17.2.3).
    servers: HashMap<ServerKey, ServerEntry>,
    /// By Call-ID and local tag.
    dialogs: HashMap<(String, String), DialogEntry>,
    /// Who waits for the first INVITE of a Call-ID.
    expected: HashMap<String, mpsc::UnboundedSender<Ringing>>,
    /// Call-ID, From tag and CSeq number of the INVITEs outside of dialogs that were seen.
    invites: HashSet<(String, String, u32)>,
}

#[derive(Debug)]
struct DialogEntry {
    side: Side,
    remote_tag: String,
    remote_number: Option<u32>,
    requests: mpsc::UnboundedSender<ServerTransaction>,
}

async fn read(socket: tokio::net::UdpSocket, inner: Weak<Inner>) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, source)) => {
                let Some(inner) = inner.upgrade() else { return };
                Agent { inner }.handle(Hop::udp(source), buffer.get(..length).unwrap_or_default());
            }
            // An ICMP error of an earlier datagram; the socket goes on. Yield, so that an error that stays cannot starve the others.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// The Call-ID as it stands in the text, since even a message that rsip cannot read belongs in its call's ladder.
fn call_id_of(raw: &str) -> String {
    raw.lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("Call-ID") || name.trim().eq_ignore_ascii_case("i"))
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// A string that was never used before, for tags, branches and Call-IDs.
fn unique() -> String {
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

/// An error that names the response which came in place of what was wanted.
fn instead(what: &str, response: &Received<Response>) -> AgentError {
    let status = &response.message.status_code;
    AgentError::Instead { what: what.to_owned(), came: status.to_string(), code: Some(status.code()) }
}

/// Waits for the next item of `receiver` for as long as the agent's patience.
async fn wait<T>(
    receiver: &mut mpsc::UnboundedReceiver<T>,
    patience: Duration,
    what: impl FnOnce() -> String,
) -> Result<T, AgentError> {
    match tokio::time::timeout(patience, receiver.recv()).await {
        Ok(Some(item)) => Ok(item),
        Ok(None) | Err(_) => Err(AgentError::Missing { what: what(), waited: patience }),
    }
}
