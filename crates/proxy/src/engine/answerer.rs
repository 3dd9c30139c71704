//! The built-in answerer: who may call it, and the way to it and back.
//!
//! It is a user agent of this process on a socket of its own (`crate::answerer`). The engine challenges an INVITE to its user from
//! outside every trunk, and sends it on when the credentials are right, as it sends on any call: so a call to it proves what calls need.

use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use sipedge_sip::Time;
use sipedge_sip::digest::{Algorithm, Credentials};
use sipedge_sip::message::{HeaderName, Method};
use sipedge_sip::uri::Uri;

use super::admission::FORBIDDEN;
use super::flow::{Arrival, Connection, Hop, Server, Transport};
use super::incoming::Incoming;
use super::keys::Key;
use super::relay::{Onward, Way};
use super::routes::Path;
use super::strangers;
use super::token::{Token, fingerprint};
use super::write::{self, Answer};
use super::{Engine, Gate, Port};

/// What is behind the user's name when the caller asks the answerer to hang up by itself, as soon as the call is up.
pub const HANG_UP: &str = "+hangup";

/// The header by which the engine tells the answerer the way back to its caller, and the answerer gives it back with its requests. From
/// anybody else it is removed.
pub const FLOW_HEADER: &str = "X-Sipedge-Flow";

/// The answerer as the engines of an instance know it. They share what is known of nonces that were used.
pub struct Answerer {
    address: SocketAddr,
    user: String,
    password: String,
    used: Arc<Mutex<Vec<Used>>>,
}

/// A nonce that a call was opened with, and the count that came with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Used {
    nonce: u128,
    count: u32,
    /// The request that it came with: the same one may come again.
    request: u128,
    /// Until then it could be used again.
    until: u64,
}

impl Answerer {
    /// The user agent at `address`, which is called as `user` by who knows `password`.
    pub fn new(address: SocketAddr, user: String, password: String) -> Self {
        Self { address, user, password, used: Arc::default() }
    }

    /// The same user agent from now on: called as `user` by who knows `password`. What was used stays used.
    pub fn renewed(&self, user: String, password: String) -> Self {
        Self { address: self.address, user, password, used: Arc::clone(&self.used) }
    }

    /// Its socket.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a Request-URI names it.
    fn is_called_by(&self, uri: &Uri<'_>) -> bool {
        let Some(user) = uri.user else { return false };
        let behind = user.strip_prefix(self.user.as_bytes());
        behind.is_some_and(|behind| behind.is_empty() || behind == HANG_UP.as_bytes())
    }

    /// What the credentials of a request are worth.
    fn judge(&self, now: Time, request: &Incoming<'_>, key: &Key, realm: &str) -> Judgement {
        let headers = || request.message.headers(HeaderName::Authorization).take(MOST_CREDENTIALS);
        let mut given = headers().filter_map(|header| Credentials::parse(header.text));
        let Some(credentials) = given.find(|given| *given.realm == *realm.as_bytes()) else {
            return if headers().next().is_some() { Judgement::Foreign } else { Judgement::None };
        };
        let line = &request.head.request;
        // The two need not be written alike (RFC 7616 §3.4.6), but have to lead to the same.
        let is_same = match (Uri::parse(&credentials.uri), line.parsed_uri()) {
            (Some(theirs), Some(ours)) => {
                theirs.user == ours.user && theirs.host.eq_ignore_ascii_case(ours.host) && theirs.port == ours.port
            }
            _ => false,
        };
        let Some(nonce) = Nonce::parse(&credentials.nonce).filter(|nonce| nonce.is_ours(key, request.source.ip()))
        else {
            // Another key's, another source's, or somebody's invention: all that can be said is that a new one is needed.
            return Judgement::Foreign;
        };
        let is_right = *credentials.username == *self.user.as_bytes()
            && is_same
            && credentials.prove(line.method.name(), self.password.as_bytes());
        if !is_right {
            return Judgement::Wrong;
        }
        let count = credentials.count.map_or(0, |count| count.number);
        let head = &request.head;
        let of_request = [&request.branch.to_be_bytes(), head.call_id, head.from_tag, &head.cseq.number.to_be_bytes()];
        match nonce.is_fresh(now) && self.use_up(now, &nonce, count, key.hash(of_request)) {
            true => Judgement::Right,
            false => Judgement::Stale,
        }
    }

    /// Takes note that a nonce was used by `request`. `false`: another one has used it with this count, or there is no room to know.
    fn use_up(&self, now: Time, nonce: &Nonce, count: u32, request: u128) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|used| used.until >= now.as_secs());
        let until = u64::from(nonce.issued) + NONCE_LIFE_S;
        let new = Used { nonce: nonce.mac, count, request, until };
        if let Some(before) = used.iter().find(|used| used.nonce == new.nonce && used.count == new.count) {
            // Sent again for want of an answer, or of one that has arrived (RFC 3261 §17.1).
            return before.request == request;
        }
        let has_room = used.len() < MOST_USED;
        if has_room {
            used.push(new);
        }
        has_room
    }
}

impl fmt::Debug for Answerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answerer").field("address", &self.address).field("user", &self.user).finish_non_exhaustive()
    }
}

/// What credentials are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    /// There are none.
    None,
    /// They answer no challenge that this source has got: whoever sends them may have forged the source.
    Foreign,
    /// They answer a challenge that this source has got, and their sender does not know the password.
    Wrong,
    /// Their sender knows the password; the nonce is too old, or was used before.
    Stale,
    /// Their sender knows the password, and says so for the first time.
    Right,
}

/// What a challenge is made of, so that any instance with the key knows it again and none has to remember it:
///
/// ```text
/// seconds since the epoch, 8 hex digits | of the transaction, 16 | MAC over both and the source's address, 32
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Nonce {
    issued: u32,
    /// Keeps two challenges of one second apart.
    salt: u64,
    mac: u128,
}

impl Nonce {
    fn new(now: Time, key: &Key, request: &Incoming<'_>) -> Self {
        let (issued, salt) = (now.as_secs() as u32, request.branch as u64);
        Self { issued, salt, mac: Self::mac(key, issued, salt, request.source.ip()) }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() == NONCE_DIGITS)?;
        // A sign would be taken for a digit.
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (issued, rest) = text.split_at_checked(8)?;
        let (salt, mac) = rest.split_at_checked(16)?;
        Some(Self {
            issued: u32::from_str_radix(issued, 16).ok()?,
            salt: u64::from_str_radix(salt, 16).ok()?,
            mac: u128::from_str_radix(mac, 16).ok()?,
        })
    }

    fn is_ours(&self, key: &Key, source: IpAddr) -> bool {
        // Compared as numbers: at once, whatever differs.
        self.mac == Self::mac(key, self.issued, self.salt, source)
    }

    /// Whether it may still be used. The clocks of two instances may differ a little.
    fn is_fresh(&self, now: Time) -> bool {
        let (now, issued) = (now.as_secs(), u64::from(self.issued));
        now <= issued + NONCE_LIFE_S && issued <= now + CLOCK_SKEW_S
    }

    fn mac(key: &Key, issued: u32, salt: u64, source: IpAddr) -> u128 {
        let (v4, v6);
        let source: &[u8] = match source.to_canonical() {
            IpAddr::V4(ip) => {
                v4 = ip.octets();
                &v4
            }
            IpAddr::V6(ip) => {
                v6 = ip.octets();
                &v6
            }
        };
        key.hash([NONCE_PURPOSE, &issued.to_be_bytes(), &salt.to_be_bytes(), source])
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{:016x}{:032x}", self.issued, self.salt, self.mac)
    }
}

impl Engine {
    /// The answerer of this instance from now on; `None`: it has none.
    pub fn handle_answerer(&mut self, answerer: Option<Arc<Answerer>>) {
        self.answerer = answerer;
    }

    /// A stranger's INVITE or OPTIONS to the answerer is challenged, and goes on with the right credentials. `false`: it is none.
    pub(super) fn route_to_answerer(&mut self, now: Time, request: &Incoming<'_>) -> bool {
        let method = request.head.method();
        let Some(answerer) = self.answerer.clone().filter(|_| matches!(method, Method::Invite | Method::Options))
        else {
            return false;
        };
        if !request.head.uri.is_some_and(|uri| answerer.is_called_by(&uri)) {
            return false;
        }
        if strangers::is_scanner(&request.message) {
            self.counters.dropped_scanner += 1;
            return true;
        }
        if self.strangers.is_guesser(now, request.source.ip()) {
            // Right credentials are not looked at either: who guesses learns nothing.
            self.counters.dropped_offender += 1;
            return true;
        }
        if method == Method::Invite && self.refuse_again(now, request) {
            return true;
        }
        let setup = self.setup.clone();
        match answerer.judge(now, request, &setup.branch_key, &setup.advertised) {
            Judgement::Right => self.strangers.forgive(request.source.ip()),
            Judgement::None => {
                self.challenge(now, request, false);
                return true;
            }
            Judgement::Foreign => {
                self.counters.answerer_refused += 1;
                self.challenge(now, request, false);
                return true;
            }
            Judgement::Wrong => {
                self.counters.answerer_refused += 1;
                match self.strangers.has_guessed(now, request.source.ip()) {
                    true => self.counters.dropped_offender += 1,
                    false => self.challenge(now, request, false),
                }
                return true;
            }
            Judgement::Stale => {
                self.challenge(now, request, true);
                return true;
            }
        }
        if method == Method::Options {
            self.answer_options(request);
        } else if self.may_forward(request) {
            self.call_answerer(now, request, &answerer);
        }
        true
    }

    /// An INVITE whose sender has proved who it is goes to the answerer.
    fn call_answerer(&mut self, now: Time, request: &Incoming<'_>, answerer: &Answerer) {
        if matches!(self.gate, Gate::Draining { refuse_from } if refuse_from <= now) {
            self.counters.refused_draining += 1;
            return self.refuse_for_now(now, request, self.unavailable());
        }
        if self.is_too_late_for(request) {
            return self.refuse_behind(now, request);
        }
        if !self.has_room(request, self.setup.transactions as u64, self.setup.message_bytes) {
            self.counters.refused_budget += 1;
            return self.refuse_for_now(now, request, self.unavailable());
        }
        self.counters.answerer_calls += 1;
        self.counters.calls_started += 1;
        let token = Token { from: party(), to: party(), issued: now.as_secs() as u32 };
        let flow = flow(&request.arrival, request.head.call_id, &self.setup.branch_key);
        let onward = Onward {
            way: Way::Hop(self.datagram_to(answerer.address)),
            path: None,
            record_route: Some(token),
            counted: None,
            toward: party(),
            flow: Some(&flow),
        };
        self.relay(now, request, &onward);
    }

    /// 401 with a new nonce (RFC 7616 §3.3), the better algorithm on top (RFC 8760 §2.4), as long as strangers have not had too many.
    fn challenge(&mut self, now: Time, request: &Incoming<'_>, stale: bool) {
        if !self.strangers.may_challenge(now) {
            self.counters.dropped_strangers += 1;
            return;
        }
        self.counters.answerer_challenged += 1;
        let nonce = Nonce::new(now, &self.setup.branch_key, request);
        let realm = &self.setup.advertised;
        let mut lines = Vec::with_capacity(CHALLENGE_BYTES);
        for algorithm in [Algorithm::Sha256, Algorithm::Md5] {
            let stale = if stale { ", stale=true" } else { "" };
            // Writing to a Vec cannot fail.
            let _ = write!(
                lines,
                "WWW-Authenticate: Digest realm=\"{realm}\", nonce=\"{nonce}\", qop=\"auth\", algorithm={}{stale}\r\n",
                algorithm.name()
            );
        }
        self.outbox.transmit(&request.back(), None, |out| {
            write::answer_with(
                &request.message,
                &request.head,
                &request.stamp,
                UNAUTHORIZED,
                request.branch,
                &lines,
                out,
            );
        });
    }

    /// A request of the answerer within a call: back to its caller by the flow that the INVITE came by, which passes the caller's NAT,
    /// and the load balancer. `false`: it is not the answerer's.
    pub(super) fn route_from_answerer(&mut self, now: Time, request: &Incoming<'_>, path: &Path<'_>) -> bool {
        if !self.is_answerer(request.source) || request.arrival.transport != Transport::Udp {
            return false;
        }
        let given = request.message.headers(HeaderName::Internal).find_map(|header| {
            let line = header.line.of(request.message.bytes());
            let is_flow = line.get(..FLOW_HEADER.len())?.eq_ignore_ascii_case(FLOW_HEADER.as_bytes());
            is_flow.then_some(header.text)
        });
        let hop = given.and_then(|given| way_back(given, request.head.call_id, &self.setup.branch_key));
        let Some(hop) = hop.filter(|_| is_its(&path.token)) else {
            self.reject(request, FORBIDDEN);
            return true;
        };
        let onward = Onward {
            way: Way::Hop(hop),
            path: Some(*path),
            record_route: None,
            counted: None,
            toward: party(),
            flow: None,
        };
        if request.head.method() == Method::Ack {
            self.send_ack(request, &onward);
        } else {
            self.counters.requests_in_dialog += 1;
            self.relay(now, request, &onward);
        }
        true
    }

    /// Whether requests within a call with this token may be sent to this server: it is the answerer, and the call is with it.
    pub(super) fn leads_to_answerer(&self, server: &Server, token: &Token) -> bool {
        is_its(token) && server.transport == Transport::Udp && self.is_answerer(server.address)
    }

    fn is_answerer(&self, address: SocketAddr) -> bool {
        self.answerer.as_ref().is_some_and(|answerer| answerer.address == address)
    }
}

/// The value of [`FLOW_HEADER`]: how the INVITE of a call came, signed, so that nobody makes the edge send elsewhere.
fn flow(arrival: &Arrival, call_id: &[u8], key: &Key) -> Vec<u8> {
    let port = if arrival.port == Port::Ingress { "ingress" } else { "egress" };
    let connection = arrival.connection.map_or_else(|| "-".to_owned(), |Connection(number)| number.to_string());
    let fields = format!("{} {port} {} {connection}", arrival.transport, arrival.source);
    let mac = key.hash([FLOW_PURPOSE, fields.as_bytes(), call_id]);
    format!("{fields} {mac:032x}").into_bytes()
}

/// The way that [`flow`] has written down for this call.
fn way_back(text: &[u8], call_id: &[u8], key: &Key) -> Option<Hop> {
    let (fields, mac) = std::str::from_utf8(text).ok()?.rsplit_once(' ')?;
    if u128::from_str_radix(mac, 16).ok()? != key.hash([FLOW_PURPOSE, fields.as_bytes(), call_id]) {
        return None;
    }
    let mut fields = fields.split(' ');
    let transport = Transport::of_parameter(fields.next()?.as_bytes())?;
    let port = if fields.next()? == "ingress" { Port::Ingress } else { Port::Egress };
    let to = fields.next()?.parse().ok()?;
    let connection = match fields.next()? {
        "-" => None,
        number => Some(Connection(number.parse().ok()?)),
    };
    // Whoever called the answerer is no trunk's: should its connection be gone, a new one counts as a stranger's.
    Some(Hop { transport, port, to, connection, peer: None, to_stranger: true })
}

/// Whether this is the token of a call with the answerer. Whoever knows its password has one, and with it may reach nobody else.
pub(super) fn is_its(token: &Token) -> bool {
    token.from == party() || token.to == party()
}

/// What tokens carry in place of trunks. A trunk whose name looks like it is refused.
pub(super) fn party() -> u16 {
    fingerprint(b"the answerer")
}

const UNAUTHORIZED: Answer = Answer::new(401, "Unauthorized");
/// Keep the MACs of nonces, flows, branches and tags apart, which have the same key.
const NONCE_PURPOSE: &[u8] = b"answerer nonce";
const FLOW_PURPOSE: &[u8] = b"answerer flow";
/// Hex digits of a nonce.
const NONCE_DIGITS: usize = 8 + 16 + 32;
/// Seconds that a nonce is good for: a user agent answers a challenge at once, and again by timer B at the latest.
const NONCE_LIFE_S: u64 = 32;
/// Seconds that another instance's clock may be ahead. AWS keeps them within milliseconds of each other.
const CLOCK_SKEW_S: u64 = 5;
/// Authorization headers that are looked at: a user agent sends one for each realm, or for each algorithm.
const MOST_CREDENTIALS: usize = 4;
/// Uses of nonces that are remembered, by whoever knows the password, at 32 bytes each. Past it there is no call until one is too old.
const MOST_USED: usize = 1_024;
/// Bytes of two challenges with a realm of usual length.
const CHALLENGE_BYTES: usize = 384;

#[cfg(test)]
mod tests {
    use sipedge_sip::message::{Layout, Message};

    use super::*;

    fn key(digit: &str) -> Key {
        Key::from_hex(&digit.repeat(64)).expect("a key")
    }

    #[test]
    fn a_flow_is_read_back_for_its_own_call_and_key_alone() {
        let udp = Arrival::datagram(Port::Ingress, "203.0.113.9:40000".parse().expect("address"));
        let tls = Arrival { transport: Transport::Tls, connection: Some(Connection(7)), ..udp };
        for arrival in [udp, tls] {
            let text = flow(&arrival, b"call@1", &key("a"));
            let back = Hop { to_stranger: true, ..arrival.back(arrival.source) };
            assert_eq!(way_back(&text, b"call@1", &key("a")), Some(back));
            assert_eq!(way_back(&text, b"call@2", &key("a")), None, "another call's");
            assert_eq!(way_back(&text, b"call@1", &key("b")), None, "another key's");
            let elsewhere = String::from_utf8(text).expect("text").replace("203.0.113.9", "203.0.113.8");
            assert_eq!(way_back(elsewhere.as_bytes(), b"call@1", &key("a")), None, "altered");
        }
        assert_eq!(way_back(b"", b"call@1", &key("a")), None);
    }

    #[test]
    fn what_was_used_is_forgotten_when_it_could_not_be_used_any_more_and_never_fills_memory() {
        let answerer = Answerer::new("10.0.0.1:4000".parse().expect("address"), "u".into(), "p".into());
        let at = |seconds: u64| Time::from_micros(seconds * 1_000_000);
        let nonce = |mac: u128, issued: u32| Nonce { issued, salt: 0, mac };
        assert!(answerer.use_up(at(1_000), &nonce(1, 1_000), 1, 7));
        assert!(!answerer.use_up(at(1_000), &nonce(1, 1_000), 1, 8), "used before");
        assert!(answerer.use_up(at(1_000), &nonce(1, 1_000), 1, 7), "the same request again");
        assert!(answerer.use_up(at(1_000), &nonce(1, 1_000), 2, 8), "the client has raised the count");
        let renewed = answerer.renewed("u".into(), "q".into());
        assert!(!renewed.use_up(at(1_000), &nonce(1, 1_000), 1, 9), "used before the password has changed");
        for mac in 2..10_000 {
            answerer.use_up(at(1_000), &nonce(mac, 1_000), 1, 7);
        }
        let held = |answerer: &Answerer| answerer.used.lock().expect("unpoisoned").len();
        assert_eq!(held(&answerer), MOST_USED);
        assert!(!answerer.use_up(at(1_000), &nonce(20_000, 1_000), 1, 7), "no room to know");
        assert!(answerer.use_up(at(1_000), &nonce(1, 1_000), 1, 7), "the same request needs no room");
        let later = 1_000 + NONCE_LIFE_S + 1;
        assert!(answerer.use_up(at(later), &nonce(1, later as u32), 1, 7));
        assert_eq!(held(&answerer), 1);
    }

    #[test]
    fn a_password_is_in_no_debug_text() {
        let answerer = Answerer::new("10.0.0.1:4000".parse().expect("address"), "user".into(), "planted".into());
        assert!(!format!("{answerer:?}").contains("planted"));
    }

    #[test]
    fn a_message_without_a_flow_has_no_way_back() {
        let mut layout = Layout::default();
        let text = b"BYE sip:a@b SIP/2.0\r\nX-Sipedge-Flow: udp ingress x - 0\r\n\r\n";
        let message = Message::read(text, &mut layout).expect("sound");
        assert_eq!(message.headers(HeaderName::Internal).count(), 1, "removed for whoever is not trusted");
        assert_eq!(way_back(b"udp ingress x - 0", b"", &key("a")), None);
    }
}
