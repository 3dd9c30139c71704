//! A small SIP edge that can be told to be wrong: the proof that each check of the smoke call can fail.
//!
//! It shares nothing with the proxy. It keeps no transactions: requests and responses pass through, and branches and route tokens are
//! hashes, so that CANCEL and ACK find the branch of their INVITE. That is enough for paths that lose nothing.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use rsip::headers::{self, UntypedHeader};
use rsip::{Header, Headers, Method, Request, Response, SipMessage, Uri};

/// What can be wrong with it.
pub(crate) const FAULTS: [&str; 24] = [
    "no-advertise",
    "no-rport",
    "wrong-domain",
    "changes-number",
    "open-list",
    "refuses-all",
    "refuses-with-404",
    "token-not-checked",
    "token-not-bound",
    "no-token",
    "no-record-route",
    "egress-by-ingress",
    "reply-by-egress",
    "ignores-max-forwards",
    "slow",
    "drops-100",
    "drops-180",
    "drops-200",
    "drops-ack",
    "drops-reinvite",
    "drops-bye-from-caller",
    "drops-bye-from-callee",
    "drops-cancel",
    "drops-487",
];

/// Delay of the fault `slow`.
pub(crate) const SLOWNESS: Duration = Duration::from_millis(400);

/// How the edge is set up.
#[derive(Debug, Clone)]
pub(crate) struct EdgeConfig {
    /// Where requests arrive.
    pub(crate) ingress: SocketAddr,
    /// Where requests leave from; may equal `ingress`.
    pub(crate) egress: SocketAddr,
    /// Host that Via and Record-Route carry.
    pub(crate) advertised: String,
    /// Host that they carry with the fault `no-advertise`.
    pub(crate) private: String,
    /// Who may call whom.
    pub(crate) routes: Vec<EdgeRoute>,
    /// Whether strangers get nothing instead of 403.
    pub(crate) silent: bool,
    /// Key of branches and tokens.
    pub(crate) secret: u64,
    /// Of [`FAULTS`].
    pub(crate) faults: BTreeSet<String>,
}

/// Calls from these sources go to this destination.
#[derive(Debug, Clone)]
pub(crate) struct EdgeRoute {
    /// Sources.
    pub(crate) allow: Vec<IpNet>,
    /// Destination.
    pub(crate) callee: SocketAddr,
    /// Host of the Request-URI there.
    pub(crate) domain: String,
}

/// An edge that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Edge {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Edge {
    /// Binds the sockets and starts one thread for each.
    pub(crate) fn start(config: EdgeConfig) -> io::Result<Self> {
        if let Some(unknown) = config.faults.iter().find(|fault| !FAULTS.contains(&fault.as_str())) {
            return Err(io::Error::other(format!("no such fault: {unknown}; known: {}", FAULTS.join(", "))));
        }
        let ingress = UdpSocket::bind(config.ingress)?;
        let egress =
            if config.egress == config.ingress { ingress.try_clone()? } else { UdpSocket::bind(config.egress)? };
        let shared = Arc::new(Shared { config, ingress, egress, ended: AtomicBool::new(false) });
        let both = [&shared.ingress, &shared.egress];
        let sockets = both.iter().take(if shared.config.egress == shared.config.ingress { 1 } else { 2 });
        let sockets = sockets.map(|socket| socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
        let threads = sockets
            .into_iter()
            .map(|socket| {
                let shared = shared.clone();
                std::thread::spawn(move || shared.serve(&socket))
            })
            .collect();
        Ok(Self { shared, threads })
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for socket in [&self.shared.ingress, &self.shared.egress] {
            // An empty datagram to itself wakes the thread.
            if let Ok(address) = socket.local_addr() {
                let _ = socket.send_to(&[], address);
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Shared {
    config: EdgeConfig,
    ingress: UdpSocket,
    egress: UdpSocket,
    ended: AtomicBool,
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut buffer = [0; 65_535];
        while let Ok((length, source)) = socket.recv_from(&mut buffer) {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            let _ = match SipMessage::try_from(buffer.get(..length).unwrap_or_default()) {
                Ok(SipMessage::Request(request)) => self.handle_request(request, source),
                Ok(SipMessage::Response(response)) => self.handle_response(response),
                Err(_) => None,
            };
        }
    }

    fn has(&self, fault: &str) -> bool {
        self.config.faults.contains(fault)
    }

    /// `None` when the request ends here.
    fn handle_request(&self, mut request: Request, source: SocketAddr) -> Option<()> {
        stamp(&mut request.headers, source)?;
        let in_dialog = first(&request.headers, "To")?.contains(";tag=");
        let hops: u8 = first(&request.headers, "Max-Forwards")?.parse().ok()?;
        if hops == 0 && request.method != Method::Ack && !self.has("ignores-max-forwards") {
            return self.answer(&request, "483 Too Many Hops");
        }
        let routed = first(&request.headers, "Route").is_some();
        let to = if routed { self.follow_route(&mut request)? } else { self.admit(&mut request, source, in_dialog)? };
        let from_callee = self.config.routes.iter().any(|route| route.callee == source);
        let dropped = match request.method {
            Method::Ack => routed && self.has("drops-ack"),
            Method::Bye if from_callee => self.has("drops-bye-from-callee"),
            Method::Bye => self.has("drops-bye-from-caller"),
            Method::Invite => in_dialog && self.has("drops-reinvite"),
            Method::Cancel => self.has("drops-cancel"),
            _ => false,
        };
        (!dropped).then(|| self.forward(request, to, hops.saturating_sub(1)))?
    }

    /// In a dialog: the Route must be one that this edge issued for this call. Returns the next hop.
    fn follow_route(&self, request: &mut Request) -> Option<SocketAddr> {
        let route = uri_of(&first(&request.headers, "Route")?)?;
        let token = self.token(&first(&request.headers, "Call-ID")?);
        let valid = route.user() == Some(token.as_str()) || self.has("token-not-checked") || self.has("no-token");
        if !valid {
            if request.method != Method::Ack {
                self.answer(request, "403 Forbidden");
            }
            return None;
        }
        remove_first(&mut request.headers, |header| matches!(header, Header::Route(_)));
        match first(&request.headers, "Route") {
            Some(next) => address_of(&uri_of(&next)?),
            None => address_of(&request.uri),
        }
    }

    /// Outside of a dialog: the source must be known. Returns the destination.
    fn admit(&self, request: &mut Request, source: SocketAddr, in_dialog: bool) -> Option<SocketAddr> {
        let known = |route: &&EdgeRoute| route.allow.iter().any(|range| range.contains(&source.ip()));
        let opened = self.has("open-list").then(|| self.config.routes.first()).flatten();
        let found = self.config.routes.iter().find(known).or(opened).filter(|_| !self.has("refuses-all"));
        let Some(route) = found else {
            if !self.config.silent && request.method != Method::Ack {
                self.answer(request, "403 Forbidden");
            }
            return None;
        };
        match request.method {
            Method::Invite if self.has("refuses-with-404") => return self.answer(request, "404 Not Found").and(None),
            Method::Invite if !in_dialog => {
                if !self.has("drops-100") {
                    self.answer(request, "100 Trying");
                }
                if self.has("slow") {
                    std::thread::sleep(SLOWNESS);
                }
            }
            Method::Cancel => {
                self.answer(request, "200 OK");
            }
            // The ACK of a non-2xx follows its INVITE.
            Method::Ack => {}
            Method::Options => return self.answer(request, "200 OK").and(None),
            _ => return self.answer(request, "481 Call/Transaction Does Not Exist").and(None),
        }
        let user = if self.has("changes-number") { "000" } else { request.uri.user()? };
        let host = if self.has("wrong-domain") { "wrong.example" } else { &route.domain };
        request.uri = Uri::try_from(format!("sip:{user}@{host}")).ok()?;
        Some(route.callee)
    }

    fn forward(&self, mut request: Request, to: SocketAddr, hops: u8) -> Option<()> {
        let host = if self.has("no-advertise") { &self.config.private } else { &self.config.advertised };
        let call_id = first(&request.headers, "Call-ID")?;
        let branch = self.hash(&[parameter(&first(&request.headers, "Via")?, "branch")?.as_str(), call_id.as_str()]);
        let rport = if self.has("no-rport") { "" } else { ";rport" };
        let via = format!("SIP/2.0/UDP {host}:{};branch=z9hG4bK{branch}{rport}", self.config.ingress.port());
        let mut headers = vec![Header::Via(headers::Via::new(via))];
        if request.method == Method::Invite && !self.has("no-record-route") {
            let user = if self.has("no-token") { String::new() } else { format!("{}@", self.token(&call_id)) };
            let route = format!("<sip:{user}{host}:{};lr>", self.config.ingress.port());
            headers.push(Header::RecordRoute(headers::RecordRoute::new(route)));
        }
        headers.extend(request.headers.iter().map(|header| match header {
            Header::MaxForwards(_) => Header::MaxForwards(headers::MaxForwards::new(hops.to_string())),
            other => other.clone(),
        }));
        request.headers = headers.into();
        let socket = if self.has("egress-by-ingress") { &self.ingress } else { &self.egress };
        socket.send_to(request.to_string().as_bytes(), to).ok().map(|_| ())
    }

    fn handle_response(&self, mut response: Response) -> Option<()> {
        let cseq = first(&response.headers, "CSeq")?;
        let code = response.status_code.code();
        let dropped = match code {
            100 => true,
            // The edge has answered CANCEL by itself.
            _ if cseq.ends_with("CANCEL") => true,
            180 => self.has("drops-180"),
            200 => self.has("drops-200") && cseq.ends_with("INVITE"),
            487 => self.has("drops-487"),
            _ => false,
        };
        if dropped {
            return None;
        }
        remove_first(&mut response.headers, |header| matches!(header, Header::Via(_)));
        self.send_back(&response.headers, &response.to_string())
    }

    fn answer(&self, request: &Request, status: &str) -> Option<()> {
        let kept = ["Via", "From", "Call-ID", "CSeq"];
        let mut text = format!("SIP/2.0 {status}\r\n");
        for header in request.headers.iter().map(ToString::to_string) {
            let name = header.split(':').next().unwrap_or_default();
            if kept.contains(&name) {
                text.push_str(&format!("{header}\r\n"));
            }
        }
        let to = first(&request.headers, "To")?;
        let tag = if to.contains(";tag=") || status.starts_with("100") { "" } else { ";tag=edge" };
        text.push_str(&format!("To: {to}{tag}\r\nContent-Length: 0\r\n\r\n"));
        self.send_back(&request.headers, &text)
    }

    /// Sends a response where its top Via says.
    fn send_back(&self, headers: &Headers, text: &str) -> Option<()> {
        let via = first(headers, "Via")?;
        let host: IpAddr = parameter(&via, "received")?.parse().ok()?;
        let port: u16 = parameter(&via, "rport")?.parse().ok()?;
        let socket = if self.has("reply-by-egress") { &self.egress } else { &self.ingress };
        socket.send_to(text.as_bytes(), (host, port)).ok().map(|_| ())
    }

    fn token(&self, call_id: &str) -> String {
        self.hash(&["token", if self.has("token-not-bound") { "any" } else { call_id }])
    }

    fn hash(&self, parts: &[&str]) -> String {
        let mut hasher = DefaultHasher::new();
        self.config.secret.hash(&mut hasher);
        parts.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

/// The value of the first header of this name.
fn first(headers: &Headers, name: &str) -> Option<String> {
    headers.iter().find_map(|header| {
        let text = header.to_string();
        let (found, value) = text.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// The value of a Via parameter.
fn parameter(via: &str, name: &str) -> Option<String> {
    via.split(';').skip(1).find_map(|parameter| Some(parameter.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// Fills in `received` and `rport` of the top Via.
fn stamp(headers: &mut Headers, source: SocketAddr) -> Option<()> {
    let via = headers.iter_mut().find_map(|header| if let Header::Via(via) = header { Some(via) } else { None })?;
    let text = via.value().replacen(";rport", "", 1);
    *via = headers::Via::new(format!("{text};received={};rport={}", source.ip(), source.port()));
    Some(())
}

fn remove_first(headers: &mut Headers, matches: impl Fn(&Header) -> bool) {
    let mut removed = false;
    headers.retain(|header| {
        let remove = !removed && matches(header);
        removed |= remove;
        !remove
    });
}

fn uri_of(route: &str) -> Option<Uri> {
    Uri::try_from(route.split_once('<')?.1.split_once('>')?.0).ok()
}

fn address_of(uri: &Uri) -> Option<SocketAddr> {
    let host: IpAddr = uri.host().to_string().parse().ok()?;
    Some(SocketAddr::new(host, uri.port().map_or(5060, |port| *port.value())))
}
