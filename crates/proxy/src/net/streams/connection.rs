//! One connection: what it reads goes to the shards, what waits for it is written.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use sipedge_sip::framing::{Frame, Framer, FramingError, MAX_BODY};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::super::numbers::Tally;
use super::super::tap::Direction;
use super::alias;
use super::hub::{Hub, Standing};
use super::link::Link;
use super::outlet::Parcel;
use crate::config::Streams;
use crate::engine::{Arrival, Port, Transport, shard_of};

/// Bytes read at a time: most messages whole. Each connection has a buffer of this size.
const READ_BUFFER: usize = 8 << 10;

/// Pause before a message is offered again to a shard whose inbox is full: about what a busy shard needs to empty it. Meanwhile nothing is
/// read, and TCP slows the peer down.
const BACK_PRESSURE: Duration = Duration::from_millis(2);

/// Data that the peer's host has not acknowledged for this long breaks the connection (TCP_USER_TIMEOUT): four or five retransmissions,
/// and soon enough for another destination to be tried before the caller gives up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// A connection is probed after this long without traffic: so often that neither a NAT nor a load balancer (350 s) forgets it.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Time for the last bytes of an orderly end.
const CLOSING: Duration = Duration::from_secs(1);

/// Sets what holds for every connection. A socket that refuses is of no use for long: the first read or write will tell.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    let probes = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(Duration::from_secs(1)).with_retries(5);
    socket.set_tcp_keepalive(&probes)
}

/// A connection that is established.
#[derive(Debug)]
pub(super) struct Session {
    hub: Rc<Hub>,
    standing: Standing,
    arrival: Arrival,
    limits: Streams,
    /// When something has to have arrived, on a connection that the peer opened.
    first_byte: Option<Instant>,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The peer closed it.
    Closed,
    /// The network or TLS says that it is broken.
    Broken,
    /// Nobody knows where the next message begins.
    Framing(FramingError),
    /// A message that had begun was not there in time.
    SlowSender,
    /// The peer takes nothing.
    SlowReceiver,
    /// Nothing came or went.
    Idle,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the peer"),
            Self::Broken => f.write_str("broken"),
            Self::Framing(error) => error.fmt(f),
            Self::SlowSender => f.write_str("a message that had begun was not there in time"),
            Self::SlowReceiver => f.write_str("the peer takes nothing"),
            Self::Idle => f.write_str("idle"),
        }
    }
}

impl Session {
    /// A connection that the peer opened: it has to say something soon.
    pub(super) fn accepted(hub: Rc<Hub>, standing: Standing, transport: Transport) -> Self {
        let mut session = Self::opened(hub, standing, transport);
        session.arrival.port = Port::Ingress;
        session.first_byte = Some(Instant::now() + millis(session.limits.connect_ms));
        session
    }

    /// A connection that the edge opened.
    pub(super) fn opened(hub: Rc<Hub>, standing: Standing, transport: Transport) -> Self {
        let link = standing.link();
        let arrival = Arrival { transport, port: Port::Egress, source: link.peer, connection: Some(link.id) };
        let limits = hub.rules().setup.config.streams.clone();
        Self { hub, standing, arrival, limits, first_byte: None }
    }

    /// Reads and writes until the connection ends.
    pub(super) async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        self.link().touch();
        let end = tokio::select! {
            end = self.read(&mut reader) => end,
            end = self.write(&mut writer) => end,
        };
        if let Some(counter) = self.counter(end) {
            Tally::count(counter);
        }
        tracing::debug!(peer = %self.arrival.source, transport = %self.arrival.transport, "connection ended: {end}");
        // From here on nobody finds it; what it still held is reported.
        drop(self);
        let _ = timeout(CLOSING, writer.shutdown()).await;
    }

    async fn read(&self, reader: &mut (impl AsyncRead + Unpin)) -> End {
        let mut framer = Framer::new(MAX_BODY);
        let mut buffer = vec![0; READ_BUFFER];
        let mut first_byte = self.first_byte;
        // Since when the peer owes the rest of a message.
        let mut owed: Option<Instant> = None;
        loop {
            let idle = self.link().last_active() + millis(self.limits.idle_ms);
            let rest = owed.map(|since| since + millis(self.limits.message_ms));
            let deadline = [first_byte, rest].into_iter().flatten().fold(idle, Instant::min);
            let count = match timeout_at(deadline, reader.read(&mut buffer)).await {
                Ok(Ok(0)) => return End::Closed,
                Ok(Ok(count)) => count,
                // Many peers end TLS without the farewell that it wants.
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return End::Closed,
                Ok(Err(_)) => return End::Broken,
                Err(_) if rest.is_some_and(|rest| rest <= deadline) => return End::SlowSender,
                // Something may have been written meanwhile.
                Err(_)
                    if first_byte.is_none() && self.link().last_active() + millis(self.limits.idle_ms) > deadline =>
                {
                    continue;
                }
                Err(_) => return End::Idle,
            };
            first_byte = None;
            self.link().touch();
            let mut received = buffer.get(..count).unwrap_or_default();
            let mut any_message = false;
            loop {
                match framer.next(&mut received) {
                    Ok(Some(Frame::Message(message))) => {
                        any_message = true;
                        self.deliver(message).await;
                    }
                    Ok(Some(Frame::Ping)) => {
                        self.link().uncongested().await;
                        // There is room, since there is no congestion.
                        let _ = self.link().push(Parcel::own(b"\r\n"));
                    }
                    Ok(Some(Frame::Pong)) => {}
                    Ok(None) => break,
                    Err(error) => return End::Framing(error),
                }
            }
            if !framer.is_within_message() {
                owed = None;
            } else if any_message || owed.is_none() {
                owed = Some(Instant::now());
            }
        }
    }

    async fn write(&self, writer: &mut (impl AsyncWrite + Unpin)) -> End {
        let mut batch = Vec::new();
        loop {
            let count = self.link().next(&mut batch, |bytes| self.show(Direction::Out, bytes)).await;
            let written = timeout(millis(self.limits.message_ms), async {
                writer.write_all(&batch).await?;
                writer.flush().await
            });
            match written.await {
                Ok(Ok(())) => self.link().touch(),
                Ok(Err(_)) => return End::Broken,
                Err(_) => return End::SlowReceiver,
            }
            Tally::add(&self.hub.tally.messages_sent, count);
        }
    }

    /// Hands a message to the shard that owns its call; waits while that has no room, or the peer does not take its answers.
    async fn deliver(&self, message: &[u8]) {
        self.link().uncongested().await;
        Tally::count(&self.hub.tally.messages_received);
        self.show(Direction::In, message);
        alias::note(&self.hub, self.link(), message);
        let shards = self.hub.inboxes.len();
        let owner = shard_of(message, shards).unwrap_or_default();
        let Some(inbox) = self.hub.inboxes.get(owner) else { return };
        while !inbox.offer(self.arrival, message) {
            Tally::count(&self.hub.tally.held_back);
            sleep(BACK_PRESSURE).await;
        }
    }

    /// Shows a message to those who watch.
    fn show(&self, direction: Direction, message: &[u8]) {
        let Arrival { transport, source: peer, .. } = self.arrival;
        let tap = &self.hub.tap;
        // A connection without an address of its own is one that has just broken.
        let Some(local) = self.link().local.get().filter(|_| tap.is_watched()) else { return };
        match direction {
            Direction::In => tap.show(direction, transport, peer, local, message),
            Direction::Out => tap.show(direction, transport, local, peer, message),
        }
    }

    fn link(&self) -> &Link {
        self.standing.link()
    }

    fn counter(&self, end: End) -> Option<&AtomicU64> {
        let tally = &self.hub.tally;
        match end {
            End::Closed => None,
            End::Broken => Some(&tally.broken),
            End::Framing(_) => Some(&tally.framing_errors),
            End::SlowSender => Some(&tally.slow_senders),
            End::SlowReceiver => Some(&tally.slow_receivers),
            End::Idle => Some(&tally.idle_closed),
        }
    }
}

pub(super) fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}
