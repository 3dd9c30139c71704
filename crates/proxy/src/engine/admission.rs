//! Who may send what, how much of it, and what the others get (RFC 3261 §16.3, limits and budgets).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sipedge_sip::Time;
use sipedge_sip::message::{HeaderName, Layout, Malformed, Message, Method};
use sipedge_sip::via::{Via, ViaParameters};

use super::flow::Arrival;
use super::head::Head;
use super::incoming::Incoming;
use super::pool::Pool;
use super::relay::ADDED;
use super::setup::Lookup;
use super::strangers::Verdict;
use super::token::{Direction, Token};
use super::write::{self, Answer, ExtraHeader, ViaStamp};
use super::{Engine, Gate, Shared, loops, strangers};
use crate::config::Refuse;

/// Who sent a request from outside a dialog.
pub(super) enum Sender {
    Trunk(usize),
    SelfCall { callee: SocketAddr },
    Stranger,
}

impl Engine {
    /// Who has sent a request.
    pub(super) fn sender(&self, request: &Incoming<'_>) -> Sender {
        match self.gate {
            Gate::SelfCall { caller, callee } if request.source == caller => Sender::SelfCall { callee },
            _ => request.trunk.map_or(Sender::Stranger, Sender::Trunk),
        }
    }

    /// Syntax, scheme, Max-Forwards, loops and Proxy-Require, in the order of RFC 3261 §16.3.
    pub(super) fn may_forward(&mut self, request: &Incoming<'_>) -> bool {
        let head = &request.head;
        let message = &request.message;
        // ACK and CANCEL take the way of their INVITE, and carry no Proxy-Require (RFC 3261 §8.2.2.3).
        let is_companion = matches!(head.method(), Method::Ack | Method::Cancel);
        // RFC 3261 §16.3 step 3: OPTIONS may be answered where Max-Forwards ends it. From outside a dialog it goes no further anyway.
        let ends_here = head.method() == Method::Options && head.to_tag.is_empty();
        let (hops, breadth) = (message.max_forwards(), loops::breadth(message));
        let refusal = if head.uri.is_none() {
            if is_sip(head.request.uri.text) { BAD_URI } else { UNSUPPORTED_SCHEME }
        } else if hops == Some(None) {
            BAD_MAX_FORWARDS
        } else if breadth.is_none() {
            BAD_MAX_BREADTH
        } else if hops == Some(Some(0)) && !ends_here {
            TOO_MANY_HOPS
        } else if !is_companion && loops::is_loop(request, &self.setup) {
            self.counters.loops += 1;
            LOOP
        } else if breadth == Some(0) {
            TOO_BROAD
        } else if message.bytes().len() > LARGEST_REQUEST {
            TOO_LARGE
        } else if message.header(HeaderName::ProxyRequire).is_some() && !is_companion {
            BAD_EXTENSION
        } else {
            return true;
        };
        self.reject(request, refusal);
        false
    }

    /// Draining, budgets, rates and limits of a new call. `Ok`: the key of the call when a limit counts it.
    pub(super) fn admit_call(
        &mut self,
        now: Time,
        request: &Incoming<'_>,
        from: usize,
        to: usize,
    ) -> Result<Option<u128>, ()> {
        let setup = self.setup.clone();
        if matches!(self.gate, Gate::Draining { refuse_from } if refuse_from <= now) {
            self.counters.refused_draining += 1;
            self.refuse_for_now(now, request, self.unavailable());
            return Err(());
        }
        if self.is_too_late_for(request) {
            self.refuse_behind(now, request);
            return Err(());
        }
        let counts = |trunk: usize| setup.trunks.get(trunk).is_some_and(|trunk| trunk.counts_calls);
        let is_counted = counts(from) || counts(to);
        let is_full = !self.has_room(request, setup.transactions as u64, setup.message_bytes)
            || (is_counted && self.calls.len() >= setup.counted_calls);
        if is_full {
            self.counters.refused_budget += 1;
            self.refuse_for_now(now, request, self.unavailable());
            return Err(());
        }
        // Calls before rates, and what was taken is given back: a trunk that is refused uses up nothing of the other's.
        if !self.take_both(from, to, Shared::take_call, |shared, trunk| shared.give_calls(trunk, 1)) {
            self.counters.refused_calls += 1;
            self.refuse_for_now(now, request, self.unavailable());
            return Err(());
        }
        if !self.take_both(from, to, |shared, trunk| shared.take_rate(trunk, now), Shared::give_rate) {
            self.shared.give_calls(from, 1);
            self.shared.give_calls(to, 1);
            self.counters.refused_cps += 1;
            self.refuse_for_now(now, request, UNAVAILABLE.with(ExtraHeader::RetryAfter(RATE_RETRY_AFTER_S)));
            return Err(());
        }
        if !is_counted {
            return Ok(None);
        }
        let head = &request.head;
        let key = setup.branch_key.hash([head.call_id, head.from_tag]);
        let longest = Duration::from_millis(u64::from(setup.config.timers.call_ms));
        self.calls.add_leg(key, from, to, now + longest);
        Ok(Some(key))
    }

    /// Whether this new call is one of those that are refused while this shard is behind.
    pub(super) fn is_too_late_for(&self, request: &Incoming<'_>) -> bool {
        // The branch is a keyed hash: its bits choose as well as dice, and copies of one INVITE alike.
        (request.branch as u8) < self.behind
    }

    /// 503 until this shard has caught up.
    pub(super) fn refuse_behind(&mut self, now: Time, request: &Incoming<'_>) {
        self.counters.refused_behind += 1;
        self.refuse_for_now(now, request, UNAVAILABLE.with(ExtraHeader::RetryAfter(BEHIND_RETRY_AFTER_S)));
    }

    /// Draining, budgets and rates of a request that opens no call.
    pub(super) fn admit_request(
        &mut self,
        now: Time,
        request: &Incoming<'_>,
        from: usize,
        to: usize,
    ) -> Result<(), ()> {
        if matches!(self.gate, Gate::Draining { refuse_from } if refuse_from <= now) {
            self.counters.refused_draining += 1;
            self.answer(request, self.unavailable());
            return Err(());
        }
        if !self.take_both(from, to, |shared, trunk| shared.take_rate(trunk, now), Shared::give_rate) {
            self.counters.refused_cps += 1;
            self.answer(request, UNAVAILABLE.with(ExtraHeader::RetryAfter(RATE_RETRY_AFTER_S)));
            return Err(());
        }
        Ok(())
    }

    /// Takes of both trunks or of none.
    fn take_both(
        &self,
        from: usize,
        to: usize,
        take: impl Fn(&Shared, usize) -> bool,
        give: impl Fn(&Shared, usize),
    ) -> bool {
        let has_from = take(&self.shared, from);
        let has_both = has_from && take(&self.shared, to);
        if has_from && !has_both {
            give(&self.shared, from);
        }
        has_both
    }

    /// Whether the two transactions of a request and their messages fit into so much.
    pub(super) fn has_room(&self, request: &Incoming<'_>, transactions: u64, message_bytes: u64) -> bool {
        let message = 2 * Pool::cost(request.message.bytes().len() + ADDED);
        self.transactions.len() as u64 + 2 <= transactions && self.transactions.pool.held() + message <= message_bytes
    }

    /// The key of the counted call that a BYE ends, once it is answered.
    pub(super) fn counted_call(&self, request: &Incoming<'_>, token: &Token, direction: Direction) -> Option<u128> {
        let counts = |fingerprint: u16| {
            self.setup.trunks.iter().any(|trunk| trunk.counts_calls && trunk.fingerprint == fingerprint)
        };
        let head = &request.head;
        let caller = if direction == Direction::FromCaller { head.from_tag } else { head.to_tag };
        let is_counted = head.method() == Method::Bye && (counts(token.from) || counts(token.to));
        is_counted.then(|| self.setup.branch_key.hash([head.call_id, caller]))
    }

    /// Answers a request of somebody whom we know; an ACK is never answered.
    pub(super) fn reject(&mut self, request: &Incoming<'_>, answer: Answer) {
        if request.head.method() == Method::Ack {
            self.counters.stray_acks += 1;
            return;
        }
        match answer.code {
            483 => self.counters.refused_max_forwards += 1,
            _ => self.counters.refused_other += 1,
        }
        self.answer(request, answer);
    }

    /// Refuses a request; a stranger gets what the configuration says, and that is counted. Within a dialog a destination is none.
    pub(super) fn refuse(&mut self, now: Time, request: &Incoming<'_>, sender: &Sender, answer: Answer) {
        let is_ack = request.head.method() == Method::Ack;
        let is_of_dialog = !request.head.to_tag.is_empty();
        let is_peer = is_of_dialog && self.destination_at(request.source.ip()).is_some();
        if !matches!(sender, Sender::Stranger) || is_peer {
            match is_ack {
                true => {}
                // A token may have come before its key: its copies are refused alike.
                false if answer.code == FORBIDDEN.code => self.refuse_for_now(now, request, answer),
                false => self.answer(request, answer),
            }
            return;
        }
        self.counters.refused_source += 1;
        if strangers::is_scanner(&request.message) {
            self.counters.dropped_scanner += 1;
            return;
        }
        if is_ack || self.setup.config.refuse == Refuse::Silence {
            return;
        }
        match self.strangers.refuse(now, request.source.ip()) {
            Verdict::Answer => self.answer(request, FORBIDDEN),
            Verdict::Offender => self.counters.dropped_offender += 1,
            Verdict::TooMany => self.counters.dropped_strangers += 1,
        }
    }

    /// The trunk whose calls go to this address: its word within a dialog is a peer's, though it may open no call.
    pub(super) fn destination_at(&self, ip: IpAddr) -> Option<usize> {
        let is_there = |lookup: &Lookup| match lookup {
            Lookup::Address(server) => server.address.ip() == ip,
            Lookup::Name(query) => self.names.known(query).iter().any(|server| server.address.ip() == ip),
        };
        self.setup.trunks.iter().position(|trunk| trunk.targets.iter().any(|target| is_there(&target.lookup)))
    }

    /// Refuses a request as it was refused not long ago (RFC 3261 §8.2.7), whatever has changed meanwhile. Whether it was.
    pub(super) fn refuse_again(&mut self, now: Time, request: &Incoming<'_>) -> bool {
        let Some(answer) = self.refusals.find(now, request.branch) else { return false };
        self.counters.retransmissions_absorbed += 1;
        self.answer(request, answer);
        true
    }

    /// Refuses a request for what may be otherwise soon, such as a want of room; its retransmissions are refused alike.
    pub(super) fn refuse_for_now(&mut self, now: Time, request: &Incoming<'_>, answer: Answer) {
        if request.head.method() == Method::Invite {
            self.refusals.insert(now, request.branch, answer, self.setup.timers.lifetime());
        }
        self.answer(request, answer);
    }

    /// Answers without a transaction: the same request gets the same answer again (RFC 3261 §8.2.7).
    pub(super) fn answer(&mut self, request: &Incoming<'_>, answer: Answer) {
        self.outbox.transmit(&request.back(), None, |out| {
            write::answer(&request.message, &request.head, &request.stamp, answer, request.branch, out);
        });
    }

    /// A message whose frame cannot be read: a trunk's request is answered as far as that can be told, nobody else hears of it.
    pub(super) fn refuse_malformed(&mut self, arrival: &Arrival, bytes: &[u8], error: Malformed, layout: &mut Layout) {
        let is_known = self.setup.trunk_of(arrival.source.ip()).is_some();
        let request = Message::read_refused(bytes, layout).filter(|_| is_known);
        // Without a request line it takes more than a Via to make a request.
        let request = request.filter(|request| error != Malformed::StartLine || Head::is_there(request));
        match (error, request) {
            (Malformed::StartLine, None) => self.counters.not_sip += 1,
            _ => self.counters.malformed += 1,
        }
        if let Some(request) = request {
            let answer = if error == Malformed::Version { VERSION_NOT_SUPPORTED } else { BAD_REQUEST };
            self.answer_malformed(arrival, &request, answer);
        }
    }

    /// Answers a trunk whose request lacks what every request has; nothing to anybody else, and nothing without a Via to answer by.
    pub(super) fn answer_malformed(&mut self, arrival: &Arrival, message: &Message<'_>, answer: Answer) {
        let source = arrival.source;
        let of_start_line = message.request().map(|request| request.method);
        let of_cseq = message.cseq().map(|cseq| cseq.method);
        let is_ack = [of_start_line, of_cseq].contains(&Some(Method::Ack));
        let is_known = self.setup.trunk_of(source.ip()).is_some();
        let top = message.elements(HeaderName::Via).next().filter(|_| is_known && !is_ack);
        let top = top.and_then(|element| Some((Via::parse_any_version(element.text)?.0, element)));
        if let Some((via, element)) = top {
            let parameters = ViaParameters::of(element.text);
            let respond_to = write::response_address(&via, &parameters, arrival);
            let stamp = ViaStamp::new(&via, &parameters, &element, source);
            // A copy of the request gets the same tag.
            let tag = self.setup.branch_key.hash([element.text, message.call_id().unwrap_or_default()]);
            self.outbox.transmit(&arrival.back(respond_to), None, |out| {
                write::answer_malformed(message, &stamp, answer, tag, out);
            });
        }
    }

    /// 503 that asks to try again when this instance may have gone or have room.
    pub(super) fn unavailable(&self) -> Answer {
        UNAVAILABLE.with(ExtraHeader::RetryAfter(self.setup.config.drain.retry_after_s))
    }
}

pub(super) const TRYING: Answer = Answer::new(100, "Trying");
pub(super) const OK: Answer = Answer::new(200, "OK");
pub(super) const BAD_REQUEST: Answer = Answer::new(400, "Bad Request");
pub(super) const BAD_ROUTE: Answer = Answer::new(400, "Bad Route");
/// It begins like a SIP URI, and cannot be read as one.
const BAD_URI: Answer = Answer::new(400, "Bad Request-URI");
/// RFC 5393 §5.3.3.
const BAD_MAX_BREADTH: Answer = Answer::new(400, "Bad Max-Breadth");
const BAD_MAX_FORWARDS: Answer = Answer::new(400, "Bad Max-Forwards");
pub(super) const FORBIDDEN: Answer = Answer::new(403, "Forbidden");
/// A remote target that no peer of this edge can have.
pub(super) const FORBIDDEN_TARGET: Answer = Answer::new(403, "Forbidden Remote Target");
pub(super) const NO_ROUTE: Answer = Answer::new(403, "No Route For This Trunk");
pub(super) const NOT_FOUND: Answer = Answer::new(404, "Not Found");
/// What Kamailio's default configuration answers too, and what ends the dialog at the peer (RFC 5057 §5.1).
pub(super) const NO_SUCH_DIALOG: Answer = Answer::new(404, "No Such Dialog Here");
pub(super) const METHOD_NOT_ALLOWED: Answer = Answer::new(405, "Method Not Allowed").with(ExtraHeader::Allow);
pub(super) const TIMEOUT: Answer = Answer::new(408, "Request Timeout");
pub(super) const UNSUPPORTED_SCHEME: Answer = Answer::new(416, "Unsupported URI Scheme");
/// RFC 3261 §16.3 step 5.
const BAD_EXTENSION: Answer =
    Answer::new(420, "Bad Extension").with(ExtraHeader::Unsupported(HeaderName::ProxyRequire));
/// RFC 3261 §8.2.2.3: of a request that ends here.
pub(super) const NOT_SUPPORTED: Answer =
    Answer::new(420, "Bad Extension").with(ExtraHeader::Unsupported(HeaderName::Require));
/// RFC 5393 §5.3.3: not even one branch is left to it.
const TOO_BROAD: Answer = Answer::new(440, "Max-Breadth Exceeded");
const LOOP: Answer = Answer::new(482, "Loop Detected");
const TOO_MANY_HOPS: Answer = Answer::new(483, "Too Many Hops");
/// RFC 3261 §16.10: the caller has hung up, and no branch has said so.
pub(super) const REQUEST_TERMINATED: Answer = Answer::new(487, "Request Terminated");
/// RFC 3261 §16.9, §16.7 step 6: a transport failure counts as a 503, and a 503 from beyond is a 500 here.
pub(super) const SERVER_ERROR: Answer = Answer::new(500, "Server Internal Error");
/// RFC 3263 §4.3.
pub(super) const UNRESOLVED: Answer = Answer::new(503, "Destination Not Resolved");
const UNAVAILABLE: Answer = Answer::new(503, "Service Unavailable");
/// RFC 3261 §21.5.6.
const VERSION_NOT_SUPPORTED: Answer = Answer::new(505, "Version Not Supported");
/// RFC 3261 §21.5.7. Sent on, it would fit no datagram, and the caller would take the silence for the destination's.
pub(super) const TOO_LARGE: Answer = Answer::new(513, "Message Too Large");

/// Bytes of the largest request that is sent on: the longest UDP payload over IPv4 (65,507) less what the edge adds at most, which is
/// three host names of 255 bytes (Via, Record-Route, Request-URI) and the text around them.
const LARGEST_REQUEST: usize = 65_507 - 1_024;

/// Whether a URI has the scheme of one that this edge can read, in brackets or not (RFC 4475 §3.1.2.7).
fn is_sip(uri: &[u8]) -> bool {
    let uri = uri.strip_prefix(b"<").unwrap_or(uri);
    let scheme = uri.split(|byte| *byte == b':').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"sip") || scheme.eq_ignore_ascii_case(b"sips")
}

/// Seconds until a shard that was behind may be asked again: it has caught up within milliseconds, and a peer that stays away for longer
/// takes calls away that there is time for.
const BEHIND_RETRY_AFTER_S: u32 = 1;
/// Seconds until a trunk over its calls per second may try again: by then its second is over.
const RATE_RETRY_AFTER_S: u32 = 1;
