//! The user agent behind the answerer, as a state machine: no I/O, and time is an argument.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sipedge_sip::message::{Layout, Message, Method};

use super::message::{Request, response};
use super::sdp;
use crate::engine::{FLOW_HEADER, HANG_UP};

/// Calls at the same time, those that are being hung up among them.
pub(super) const MOST_CALLS: usize = 10;

/// How long a call may last: a smoke call takes a second, and a person who listens to the silence hears enough in a minute.
pub(super) const LONGEST_CALL: Duration = Duration::from_secs(60);

/// The answerer's calls.
#[derive(Debug)]
pub(super) struct Agent {
    address: SocketAddr,
    /// The host that its session descriptions name.
    host: String,
    calls: Vec<Call>,
    random: RandomState,
    tags: u64,
}

/// What a call tells about the instance that it has reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Its private address.
    pub(super) instance: IpAddr,
    /// Hash of the configuration in force.
    pub(super) configuration: String,
}

/// RFC 3261 Table 4.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timers {
    pub(super) t1: Duration,
    pub(super) t2: Duration,
}

#[derive(Debug)]
struct Call {
    call_id: Vec<u8>,
    caller_tag: Vec<u8>,
    own_tag: String,
    /// To of our requests.
    caller: Vec<u8>,
    /// From of our requests.
    own: Vec<u8>,
    /// URI of the caller's Contact.
    target: Vec<u8>,
    routes: Vec<Vec<u8>>,
    flow: Vec<u8>,
    /// Whether the caller has asked to be hung up on.
    hangs_up: bool,
    /// CSeq number of the caller's last request, and of the INVITE among them that was last.
    number: u32,
    invite: u32,
    /// When it is hung up at the latest.
    until: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The 2xx goes again until its ACK comes (RFC 3261 §13.3.1.4).
    Answered(Repeated),
    Up,
    /// BYE goes again until it is answered (§17.1.2).
    HangingUp(Repeated),
}

#[derive(Debug)]
struct Repeated {
    message: Vec<u8>,
    next: Duration,
    interval: Duration,
    end: Duration,
}

impl Repeated {
    fn new(now: Duration, message: Vec<u8>, timers: &Timers) -> Self {
        Self { message, next: now + timers.t1, interval: timers.t1, end: now + timers.t1 * 64 }
    }

    /// Sends it again when that is due.
    fn poll(&mut self, now: Duration, timers: &Timers, out: &mut Vec<Vec<u8>>) {
        if self.next <= now {
            self.interval = (self.interval * 2).min(timers.t2);
            self.next = now + self.interval;
            out.push(self.message.clone());
        }
    }
}

impl Agent {
    /// A user agent at `address` without calls.
    pub(super) fn new(address: SocketAddr, host: String) -> Self {
        Self { address, host, calls: Vec::new(), random: RandomState::new(), tags: 0 }
    }

    /// A datagram of the engine. What has to go back to where it came from is appended to `out`.
    pub(super) fn handle_message(
        &mut self,
        now: Duration,
        bytes: &[u8],
        timers: &Timers,
        identity: impl Fn() -> Identity,
        out: &mut Vec<Vec<u8>>,
    ) {
        let mut layout = Layout::default();
        let Ok(message) = Message::read(bytes, &mut layout) else { return };
        if let Some(code) = message.status() {
            self.handle_response(&message, code);
            return;
        }
        let (Some(request), Some(method)) = (Request::of(message), message.request().map(|line| line.method)) else {
            return;
        };
        let found = self.calls.iter().position(|call| {
            call.call_id == request.call_id
                && call.caller_tag == request.from_tag
                && request.to_tag.is_none_or(|tag| tag == call.own_tag.as_bytes())
        });
        match (method, request.to_tag, found) {
            (Method::Invite, None, None) => self.open(now, &request, timers, &identity(), out),
            // Our 200 has got lost on its way to the engine.
            (Method::Invite, None, Some(at)) => {
                if let Some(Call { state: State::Answered(ok), .. }) = self.calls.get(at) {
                    out.push(ok.message.clone());
                }
            }
            (Method::Ack, ..) => self.acknowledged(now, found, &request, timers),
            // It has been answered by the time that its caller thinks better of it: BYE ends it.
            (Method::Cancel, _, Some(_)) => out.push(response(&request, "200 OK", &self.tag(), "", "")),
            (_, Some(_), Some(at)) => self.within(now, at, method, &request, timers, &identity(), out),
            _ => out.push(response(&request, NO_CALL, &self.tag(), "", "")),
        }
    }

    /// Does what is due; requests of the answerer are appended to `out`.
    pub(super) fn handle_timeout(&mut self, now: Duration, timers: &Timers, out: &mut Vec<Vec<u8>>) {
        let address = self.address;
        for call in &mut self.calls {
            let gives_up = matches!(&call.state, State::Answered(ok) if ok.end <= now);
            if !matches!(call.state, State::HangingUp(_)) && (gives_up || call.until <= now) {
                call.hang_up(now, address, timers);
            }
            if let State::Answered(repeated) | State::HangingUp(repeated) = &mut call.state {
                repeated.poll(now, timers, out);
            }
        }
        self.calls.retain(|call| !matches!(&call.state, State::HangingUp(bye) if bye.end <= now));
    }

    /// When [`Agent::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let due = |call: &Call| match &call.state {
            State::Answered(repeated) => call.until.min(repeated.next).min(repeated.end),
            State::Up => call.until,
            State::HangingUp(repeated) => repeated.next.min(repeated.end),
        };
        self.calls.iter().map(due).min()
    }

    /// An INVITE that opens a call.
    fn open(
        &mut self,
        now: Duration,
        request: &Request<'_>,
        timers: &Timers,
        identity: &Identity,
        out: &mut Vec<Vec<u8>>,
    ) {
        let tag = self.tag();
        let mut refuse = |status: &str| out.push(response(request, status, &tag, "", ""));
        let (Some(target), Some(flow)) = (request.contact(), request.flow()) else {
            return refuse("400 Bad Contact");
        };
        if self.calls.len() >= MOST_CALLS {
            return refuse("486 Busy Here");
        }
        if let Some(required) = request.message.header(sipedge_sip::message::HeaderName::Require) {
            let more = format!("Unsupported: {}\r\n", String::from_utf8_lossy(required.text));
            return out.push(response(request, "420 Bad Extension", &tag, &more, ""));
        }
        let body = match self.describe(request) {
            Ok(body) => body,
            Err(status) => return refuse(status),
        };
        let headers = self.headers(identity);
        out.push(response(request, "180 Ringing", &tag, &headers, ""));
        let ok = response(request, "200 OK", &tag, &format!("{headers}{SDP}"), &body);
        out.push(ok.clone());
        let called = request.message.request().and_then(|line| line.parsed_uri()).and_then(|uri| uri.user);
        let own = [request.to, b";tag=", tag.as_bytes()].concat();
        self.calls.push(Call {
            call_id: request.call_id.to_vec(),
            caller_tag: request.from_tag.to_vec(),
            caller: request.from.to_vec(),
            own,
            own_tag: tag,
            target: target.to_vec(),
            routes: request.routes(),
            flow: flow.to_vec(),
            hangs_up: called.is_some_and(|user| user.ends_with(HANG_UP.as_bytes())),
            number: request.number,
            invite: request.number,
            until: now + LONGEST_CALL,
            state: State::Answered(Repeated::new(now, ok, timers)),
        });
    }

    /// A request within a call.
    #[allow(clippy::too_many_arguments, reason = "the place of a call, what came, and the surroundings")]
    fn within(
        &mut self,
        now: Duration,
        at: usize,
        method: Method<'_>,
        request: &Request<'_>,
        timers: &Timers,
        identity: &Identity,
        out: &mut Vec<Vec<u8>>,
    ) {
        let headers = self.headers(identity);
        let body = self.describe(request);
        let Some(call) = self.calls.get_mut(at) else { return };
        let mut answer = |status: &str, more: &str, body: &str| {
            out.push(response(request, status, "", more, body));
        };
        if request.number < call.number {
            // §12.2.2.
            return answer("500 Server Internal Error", "", "");
        }
        let is_new = request.number > call.number;
        call.number = request.number;
        match method {
            Method::Bye => {
                answer("200 OK", "", "");
                self.calls.swap_remove(at);
            }
            _ if matches!(call.state, State::HangingUp(_)) => answer(NO_CALL, "", ""),
            Method::Invite => {
                let body = match body {
                    Ok(body) => body,
                    Err(status) => return answer(status, "", ""),
                };
                if is_new && let Some(target) = request.contact() {
                    call.target = target.to_vec();
                }
                call.invite = request.number;
                let ok = response(request, "200 OK", "", &format!("{headers}{SDP}"), &body);
                out.push(ok.clone());
                call.state = State::Answered(Repeated::new(now, ok, timers));
            }
            Method::Options => answer("200 OK", ALLOW, ""),
            _ => answer("405 Method Not Allowed", ALLOW, ""),
        }
    }

    fn acknowledged(&mut self, now: Duration, found: Option<usize>, request: &Request<'_>, timers: &Timers) {
        let address = self.address;
        let Some(call) = found.and_then(|at| self.calls.get_mut(at)) else { return };
        if !matches!(call.state, State::Answered(_)) || request.number != call.invite {
            return;
        }
        call.state = State::Up;
        if call.hangs_up {
            call.hang_up(now, address, timers);
        }
    }

    fn handle_response(&mut self, message: &Message<'_>, code: u16) {
        let is_bye = message.cseq().is_some_and(|cseq| cseq.method == Method::Bye);
        let (Some(call_id), true) = (message.call_id(), is_bye && code >= 200) else { return };
        let own_tag = message.from().and_then(|from| from.tag()).unwrap_or_default();
        self.calls.retain(|call| {
            let is_its = call.call_id == call_id && call.own_tag.as_bytes() == own_tag;
            !(is_its && matches!(call.state, State::HangingUp(_)))
        });
    }

    /// The session description that answers a request, or why there is none.
    fn describe(&self, request: &Request<'_>) -> Result<String, &'static str> {
        match request.body() {
            None => Ok(sdp::offer(&self.host)),
            Some((_, false)) => Err("415 Unsupported Media Type"),
            Some((body, true)) => sdp::answer(body, &self.host).ok_or("488 Not Acceptable Here"),
        }
    }

    /// What a response says of the answerer and of the instance. Only who has proved to know the password gets one.
    fn headers(&self, identity: &Identity) -> String {
        let Identity { instance, configuration } = identity;
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "Contact: <sip:{}>\r\n{ALLOW}Supported:\r\nServer: sipedge/{version}\r\nX-Sipedge-Instance: {instance}\r\n\
             X-Sipedge-Configuration: {configuration}\r\n",
            self.address
        )
    }

    fn tag(&mut self) -> String {
        self.tags += 1;
        format!("{:016x}", self.random.hash_one(self.tags))
    }
}

impl Call {
    /// BYE, at once and again until it is answered.
    fn hang_up(&mut self, now: Duration, address: SocketAddr, timers: &Timers) {
        let mut bye = Vec::with_capacity(1_024);
        let branch = RandomState::new().hash_one(&self.call_id);
        let mut add = |parts: &[&[u8]]| parts.iter().for_each(|part| bye.extend_from_slice(part));
        add(&[b"BYE ", &self.target, b" SIP/2.0\r\n"]);
        add(&[format!("Via: SIP/2.0/UDP {address};branch=z9hG4bK{branch:016x};rport\r\n").as_bytes()]);
        for route in &self.routes {
            add(&[b"Route: ", route, b"\r\n"]);
        }
        add(&[FLOW_HEADER.as_bytes(), b": ", &self.flow, b"\r\nMax-Forwards: 70\r\nFrom: ", &self.own]);
        add(&[b"\r\nTo: ", &self.caller, b"\r\nCall-ID: ", &self.call_id]);
        add(&[b"\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n"]);
        let mut repeated = Repeated::new(now, bye, timers);
        // The first time it is sent by who asks what is due.
        (repeated.next, repeated.interval) = (now, timers.t1 / 2);
        self.state = State::HangingUp(repeated);
    }
}

const NO_CALL: &str = "481 Call/Transaction Does Not Exist";
const ALLOW: &str = "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n";
const SDP: &str = "Content-Type: application/sdp\r\n";

#[cfg(test)]
mod tests;
