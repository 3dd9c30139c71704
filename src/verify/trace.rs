//! Every message that a user agent sent or received, for the ladder.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The messages of one run, shared by its user agents. Clones write to the same trace.
#[derive(Debug, Clone)]
pub struct Trace {
    began: Instant,
    messages: Arc<Mutex<Vec<TracedMessage>>>,
}

/// One message as a user agent saw it.
#[derive(Debug, Clone)]
pub struct TracedMessage {
    /// Since the trace began.
    pub at: Duration,
    /// Source address.
    pub from: SocketAddr,
    /// Destination address.
    pub to: SocketAddr,
    /// Address of the user agent that sent or received it.
    pub agent: SocketAddr,
    /// Whether the user agent sent it.
    pub sent: bool,
    /// The part that the user agent plays in this dialog.
    pub side: Side,
    /// Call-ID, empty when the message has none that can be read.
    pub call_id: String,
    /// Request line or status line; for what could not be sent or read, the reason.
    pub start_line: String,
    /// The whole message.
    pub raw: String,
}

/// The part that a user agent plays in a dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// It sent the first INVITE.
    Caller,
    /// It got the first INVITE.
    Callee,
}

impl Trace {
    /// A trace that begins now.
    pub fn new() -> Self {
        Self { began: Instant::now(), messages: Arc::default() }
    }

    /// All messages of the call with this Call-ID, in the order they were seen.
    pub fn of(&self, call_id: &str) -> Vec<TracedMessage> {
        let mut messages = self.all();
        messages.retain(|message| message.call_id == call_id);
        messages
    }

    /// All messages, in the order they were seen.
    pub fn all(&self) -> Vec<TracedMessage> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What a message brings about is sent before the message itself is written down.
        messages.sort_by_key(|message| message.at);
        messages
    }

    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn push(&self, message: TracedMessage) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}
