//! The four transactions of RFC 3261 §17 over any transport, with RFC 6026 (Accepted) and RFC 4320 (non-INVITE).
//!
//! Each is a small machine with the same verbs: `handle_request` or `handle_response` say what to do with a message, `handle_timeout`
//! says what the passing of time asks for, `poll_timeout` says when to ask next. None of them holds a message.
//!
//! A machine that is over says so in one way only: `poll_timeout` gives a time, and `handle_timeout` says `Ended` (or, for a non-INVITE
//! client, `TimedOut`) at that time. Where a reliable transport makes a timer zero, and after a failure, that time is now.
//!
//! Client machines are told by `handle_failure` that their request could not be delivered. Server machines have no such verb: when a
//! response cannot be delivered by any of the ways of §18.2.2, a server transaction stays in its state and goes on to absorb copies of
//! its request (RFC 6026 §8.8, which takes the place of RFC 3261 §17.2.4); each state has its end in time all the same.

mod invite_client;
mod invite_server;
mod non_invite_client;
mod non_invite_server;

use std::num::NonZeroU32;
use std::time::Duration;

pub use invite_client::InviteClient;
pub use invite_server::InviteServer;
pub use non_invite_client::NonInviteClient;
pub use non_invite_server::NonInviteServer;

use crate::Time;

/// Whether the transport delivers what it is given, which decides what a transaction sends again and what it waits for (RFC 3261 §17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// UDP: requests and responses are sent again, and copies of them are awaited for a while after the end.
    Unreliable,
    /// TCP, TLS: Timers A, E and G are not set; D, I, J and K are zero.
    Reliable,
}

impl Delivery {
    /// A retransmission, where there is one: Timers A, E, G.
    fn resend(self, now: Time, interval: Duration) -> Option<Backoff> {
        match self {
            Self::Unreliable => Some(Backoff::new(now, interval)),
            Self::Reliable => None,
        }
    }

    /// The end of a wait for copies that only an unreliable transport makes: Timers D, I, J, K.
    fn wait(self, now: Time, interval: Duration) -> Time {
        match self {
            Self::Unreliable => now + interval,
            Self::Reliable => now,
        }
    }
}

/// The intervals of RFC 3261 Table 4, and a proxy's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Round-trip estimate.
    pub t1: Duration,
    /// Longest retransmission interval of non-INVITE requests and INVITE responses.
    pub t2: Duration,
    /// Longest stay of a message in the network.
    pub t4: Duration,
    /// How long an INVITE waits for its first response (at most 64 × T1, Timer B).
    pub response: Duration,
    /// How long an INVITE waits for its final response after a provisional one (Timer C).
    pub invite: Duration,
}

impl Timers {
    /// 64 × T1: Timers B, D, F, H, J, L and M.
    pub fn lifetime(&self) -> Duration {
        self.t1.saturating_mul(64)
    }
}

impl Default for Timers {
    /// RFC 3261 Table 4; first response within 5 s, final one within 30 s.
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            response: Duration::from_secs(5),
            invite: Duration::from_secs(30),
        }
    }
}

/// What a client transaction makes of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientReaction {
    /// Hand it to the transaction user.
    Pass,
    /// Send the ACK (again, when the response is a retransmission) and hand the response on only if `first`.
    Acknowledge {
        /// Whether this is the final response itself, not a retransmission of it.
        first: bool,
    },
    /// Nothing: a retransmission, or too late.
    Absorb,
}

/// What a client transaction wants when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientExpiry {
    /// Nothing yet.
    Wait,
    /// Send the request again.
    Retransmit,
    /// No final response came: treat it as a 408 (RFC 3261 §16.8, §17.1.1.2). A non-INVITE transaction has ended; that of an INVITE
    /// goes on for a while, in case the peer still answers.
    TimedOut,
    /// Timer C: a provisional response came, a final one did not; send CANCEL.
    Cancel,
    /// The transaction has ended.
    Ended,
}

/// What a server transaction makes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerReaction {
    /// Send the last response again, when there is one.
    Repeat,
    /// Nothing.
    Absorb,
}

/// What a server transaction wants when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerExpiry {
    /// Nothing yet.
    Wait,
    /// Send the last response again.
    Repeat,
    /// Send 100 Trying: a non-INVITE request has waited until its sender's Timer E reached T2 (RFC 4320 §4.1).
    Trying,
    /// The transaction has ended.
    Ended,
}

/// A retransmission that backs off: each interval twice the last.
///
/// Packed, so that no machine takes more than three words: a proxy holds a hundred thousand of them.
#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed(4))]
struct Backoff {
    at: Time,
    /// Microseconds.
    interval: NonZeroU32,
}

impl Backoff {
    fn new(now: Time, interval: Duration) -> Self {
        let micros = u32::try_from(interval.as_micros()).unwrap_or(u32::MAX);
        Self { at: now + interval, interval: NonZeroU32::new(micros).unwrap_or(NonZeroU32::MIN) }
    }

    fn at(self) -> Time {
        self.at
    }

    fn next(&mut self, now: Time, cap: Duration) {
        let interval = Duration::from_micros(u64::from(self.interval.get()));
        *self = Self::new(now, interval.saturating_mul(2).min(cap));
    }
}

/// The earlier of a retransmission, where there is one, and an end.
fn earlier(resend: Option<Backoff>, end: Time) -> Time {
    resend.map_or(end, |resend| resend.at().min(end))
}

/// What delivers messages that are sent again in this way, or not at all.
fn delivery_of(resend: Option<Backoff>) -> Delivery {
    if resend.is_some() { Delivery::Unreliable } else { Delivery::Reliable }
}

const _: () = assert!(
    size_of::<InviteClient>() <= 24
        && size_of::<InviteServer>() <= 24
        && size_of::<NonInviteClient>() <= 24
        && size_of::<NonInviteServer>() <= 24
);

#[cfg(test)]
mod tests;
