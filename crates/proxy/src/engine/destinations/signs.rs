//! What a destination shows without being asked: answers, silence, broken connections.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use sipedge_sip::Time;

use super::super::flow::Transport;
use super::super::outbox::Outbox;
use super::{Address, Destinations};

/// That a destination gets new calls only when there is no other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avoided {
    pub(super) until: Time,
    /// Whether any answer ends it. One that has asked for it is left alone all the same.
    pub(super) ends_with_answer: bool,
}

/// Why the health of a destination has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Requests in a row without any answer.
    Silent(u8),
    TransportFailed,
    /// 503 with Retry-After, in seconds as taken.
    RetryAfter(u64),
    Answers,
    TimeIsOver,
    ProbesUnanswered(u8),
    /// Probes in a row that failed, and the code of the last.
    ProbesRefused(u8, u16),
    ProbesAnswered(u8),
    NotProbed,
    Told,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(count) => write!(f, "{count} in a row without any answer"),
            Self::TransportFailed => f.write_str("no connection, or it broke"),
            Self::RetryAfter(seconds) => write!(f, "503 with Retry-After, taken as {seconds} s"),
            Self::Answers => f.write_str("it answers"),
            Self::TimeIsOver => f.write_str("the time for which it was avoided is over"),
            Self::ProbesUnanswered(1) => f.write_str("a probe without an answer"),
            Self::ProbesUnanswered(count) => write!(f, "{count} probes in a row without an answer"),
            Self::ProbesRefused(1, code) => write!(f, "a probe answered {code}"),
            Self::ProbesRefused(count, code) => write!(f, "{count} probes in a row failed, the last with {code}"),
            Self::ProbesAnswered(1) => f.write_str("a probe answered"),
            Self::ProbesAnswered(count) => write!(f, "{count} probes in a row answered"),
            Self::NotProbed => f.write_str("it is not probed any more"),
            Self::Told => f.write_str("another shard has found it out"),
        }
    }
}

impl Destinations {
    /// A response has come from there; `retry_after` in seconds as its header says. Addresses that are no destination of the
    /// configuration are not noted, here and below.
    pub(in crate::engine) fn note_answer(
        &mut self,
        now: Time,
        transport: Transport,
        address: SocketAddr,
        code: u16,
        retry_after: Option<u32>,
        outbox: &mut Outbox,
    ) {
        let address = self.known_as(transport, address);
        let Some(state) = self.states.get_mut(&address) else { return };
        state.silences = 0;
        if let (503, Some(seconds)) = (code, retry_after) {
            self.heed(now, address, seconds, outbox);
        } else if state.avoided.is_some_and(|avoided| avoided.ends_with_answer) {
            state.avoided = None;
            state.change(now, Reason::Answers);
            state.announce(address, Some(Reason::Answers), outbox);
            self.recount();
        }
    }

    /// Nothing at all came back for a request that was sent there.
    pub(in crate::engine) fn note_silence(
        &mut self,
        now: Time,
        transport: Transport,
        address: SocketAddr,
        outbox: &mut Outbox,
    ) {
        let address = self.known_as(transport, address);
        let Some(state) = self.states.get_mut(&address) else { return };
        state.silences = state.silences.saturating_add(1);
        let silences = state.silences;
        if silences >= SILENCES {
            let avoided = Avoided { until: now + AVOID_SILENT, ends_with_answer: true };
            self.avoid(now, address, avoided, Reason::Silent(silences), outbox);
        }
    }

    /// A message could not be delivered there: no connection, TLS refused, or the connection broke before an answer.
    pub(in crate::engine) fn note_failure(
        &mut self,
        now: Time,
        transport: Transport,
        address: SocketAddr,
        outbox: &mut Outbox,
    ) {
        let avoided = Avoided { until: now + AVOID_FAILED, ends_with_answer: true };
        self.avoid(now, (transport, address), avoided, Reason::TransportFailed, outbox);
    }

    /// It has asked for so many seconds without new requests (RFC 3261 §21.5.4).
    pub(super) fn heed(&mut self, now: Time, address: Address, seconds: u32, outbox: &mut Outbox) {
        let wait = Duration::from_secs(seconds.into()).min(LONGEST_RETRY_AFTER);
        if wait > Duration::ZERO {
            let avoided = Avoided { until: now + wait, ends_with_answer: false };
            self.avoid(now, address, avoided, Reason::RetryAfter(wait.as_secs()), outbox);
        }
    }

    /// What it is known by: a request that is too large for UDP goes to the same server by TCP (RFC 3261 §18.1.1). That TCP is refused there
    /// says nothing of UDP, but whether anybody answers does.
    fn known_as(&self, transport: Transport, address: SocketAddr) -> Address {
        let is_other = transport == Transport::Tcp && !self.states.contains_key(&(transport, address));
        (if is_other { Transport::Udp } else { transport }, address)
    }

    fn avoid(&mut self, now: Time, address: Address, avoided: Avoided, reason: Reason, outbox: &mut Outbox) {
        let Some(state) = self.states.get_mut(&address).filter(|state| !state.is_down) else { return };
        let before = state.avoided.map(|before| before.until).filter(|until| *until > now);
        // Where nothing else is left it gets calls all the same; each of them may fail, and none of them is news.
        if before.is_some_and(|before| avoided.until < before + NEWS) {
            return;
        }
        state.avoided = Some(avoided);
        state.change(now, reason);
        state.announce(address, before.is_none().then_some(reason), outbox);
        self.expiries.insert((avoided.until, address));
        self.probe_at_once(now, address);
        self.recount();
    }
}

/// Requests in a row, over all calls of a shard, that nothing came back for. One may be a lost datagram's fault or the request's own
/// (each has already been sent several times); three in a row with no answer to any other in between are the destination's.
const SILENCES: u8 = 3;
/// How long a silent destination is avoided. As long as the usual probe interval: after that either the probes know more, or one call
/// finds out, at the price of its failover.
const AVOID_SILENT: Duration = Duration::from_secs(30);
/// How long after a transport failure. A restart takes some seconds, and another try costs a call at most `streams.connect_ms`.
const AVOID_FAILED: Duration = Duration::from_secs(10);
/// Retry-After that is believed. Who needs longer says so again; a slip of some zeros must not take a carrier out for a day.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// What is avoided already is put off only by so much at least, so that a flood of refusals makes one bulletin per second.
const NEWS: Duration = Duration::from_secs(1);
