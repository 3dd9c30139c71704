//! An engine on a bench, and the messages that its peers send: for the tests of this folder and for the fuzz targets.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

pub mod carriers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sipedge_proxy::config::{
    Admin, Advertise, Budgets, Config, Dns, Drain, Limits, Listen, Refuse, Route, SecretRef, Secrets, Streams, Target,
    Timers, Trunk, VERSION,
};
use sipedge_proxy::engine::{
    Arrival, Connection, Control, Engine, Gauges, Place, Port, Query, Receipt, Setup, Shared, TokenKey, TokenKeys,
    Transport,
};
use sipedge_sip::Time;
use sipedge_sip::message::{HeaderName, Layout, Message};

pub const CALLER: &str = "192.0.2.1:5060";
pub const CALLEE: &str = "198.51.100.1:5060";
pub const STRANGER: &str = "203.0.113.200:5060";
pub const EDGE: &str = "203.0.113.10:5060";
pub const EDGE_TLS: &str = "203.0.113.10:5061";

/// One thing that the engine sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub transport: Transport,
    pub port: Port,
    pub to: SocketAddr,
    pub connection: Option<Connection>,
    pub receipt: Option<Receipt>,
    pub bytes: Vec<u8>,
}

pub struct Bench {
    pub engine: Engine,
    pub now: Time,
    pub budgets: Budgets,
    /// What the engine has asked the name servers for.
    pub asked: Vec<Query>,
    setup: Arc<Setup>,
    shared: Arc<Shared>,
}

/// A configuration as an engine takes it.
pub fn setup(config: Config) -> Arc<Setup> {
    let place = Place {
        ingress: address("10.0.1.10:5060"),
        egress: address("10.0.1.10:5080"),
        advertised: "203.0.113.10".into(),
        shards: 1,
    };
    let keys = TokenKeys { branch: "b".repeat(64), tokens: vec![TokenKey { id: 1, key: "1".repeat(64) }] };
    Arc::new(Setup::new(config, &place, &keys).expect("a good configuration"))
}

impl Bench {
    pub fn new(config: Config) -> Self {
        Self::start(config, false)
    }

    /// The same, and it probes destinations where the configuration says so.
    pub fn probing(config: Config) -> Self {
        Self::start(config, true)
    }

    fn start(config: Config, probes: bool) -> Self {
        let budgets = config.budgets.clone();
        let setup = setup(config);
        let shared = Arc::new(Shared::new(&setup));
        let now = Time::from_micros(1_800_000_000_000_000);
        let mut engine = Engine::new(setup.clone(), shared.clone(), now);
        if probes {
            engine.probe_from(0, 1);
        }
        engine.handle_control(now, Control::Open);
        let mut bench = Self { engine, now, budgets, asked: Vec::new(), setup, shared };
        bench.take();
        bench
    }

    /// A new configuration; what the engine sends. The budgets stay.
    pub fn reload(&mut self, config: Config) -> Vec<Sent> {
        let setup = setup(Config { budgets: self.budgets.clone(), ..config });
        self.shared = Arc::new(self.shared.renewed(&self.setup, &setup));
        self.setup = setup;
        self.engine.handle_setup(self.now, self.setup.clone(), self.shared.clone());
        self.take()
    }

    /// The clock jumps, and nobody has looked meanwhile; what the engine sends.
    pub fn jump(&mut self, time: Duration) -> Vec<Sent> {
        self.now = self.now + time;
        self.engine.handle_timeout(self.now);
        self.take()
    }

    /// A datagram arrives; what the engine sends.
    pub fn receive(&mut self, port: Port, from: &str, bytes: &[u8]) -> Vec<Sent> {
        self.engine.handle_message(self.now, &Arrival::datagram(port, address(from)), bytes);
        self.take()
    }

    /// Time passes; what the engine sends meanwhile.
    pub fn pass(&mut self, time: Duration) -> Vec<Sent> {
        let until = self.now + time;
        let mut sent = Vec::new();
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            let next = self.engine.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "handle_timeout left work that was due");
            sent.extend(self.take());
        }
        self.now = until;
        sent
    }

    pub fn take(&mut self) -> Vec<Sent> {
        let outbox = self.engine.outbox();
        let sent = outbox.transmits().map(|one| Sent {
            transport: one.hop.transport,
            port: one.hop.port,
            to: one.hop.to,
            connection: one.hop.connection,
            receipt: one.receipt,
            bytes: one.bytes.to_vec(),
        });
        let sent = sent.collect();
        self.asked.extend(outbox.resolves().iter().cloned());
        self.engine.clear_outbox();
        sent
    }

    /// The tables are within their budgets, and the fifth on top that calls in progress may use.
    pub fn check_budgets(&self) {
        let Gauges { transactions, message_bytes, counted_calls, .. } = self.engine.gauges();
        let most = u64::from(self.budgets.transactions) * 5 / 4;
        assert!(transactions <= most, "{transactions} transactions of {most}");
        let most = self.budgets.message_bytes * 5 / 4;
        assert!(message_bytes <= most, "{message_bytes} bytes of messages of {most}");
        let most = u64::from(self.budgets.counted_calls);
        assert!(counted_calls <= most, "{counted_calls} counted calls of {most}");
    }

    /// Sets a call up; its Route, and everything that was sent.
    pub fn call(&mut self, number: usize) -> (String, Vec<Sent>) {
        let mut all = self.receive(Port::Ingress, CALLER, request("INVITE", number, "invite", "", "").as_bytes());
        let invite = all.last().map(|sent| sent.bytes.clone()).unwrap_or_default();
        for status in ["180 Ringing", "200 OK"] {
            all.extend(self.receive(Port::Egress, CALLEE, &response(&invite, status)));
        }
        let ok = String::from_utf8_lossy(&all.last().expect("a 200").bytes).into_owned();
        let line = ok.lines().find(|line| line.starts_with("Record-Route: ")).expect("a Record-Route in the 200");
        let route = line.replacen("Record-Route", "Route", 1) + "\r\n";
        all.extend(self.receive(
            Port::Ingress,
            CALLER,
            request("ACK", number, "ack", ";tag=callee", &route).as_bytes(),
        ));
        (route, all)
    }

    /// Ends a call by the caller's BYE; everything that was sent: the BYE and its 200.
    pub fn bye(&mut self, number: usize, route: &str) -> Vec<Sent> {
        let bye = request("BYE", number, "bye", ";tag=callee", route);
        let mut all = self.receive(Port::Ingress, CALLER, bye.as_bytes());
        let bye = all.last().map(|sent| sent.bytes.clone()).unwrap_or_default();
        all.extend(self.receive(Port::Egress, CALLEE, &response(&bye, "200 OK")));
        all
    }
}

/// Calls from 192.0.2.0/30 go to 198.51.100.1. Small budgets, so that floods meet them.
pub fn config() -> Config {
    Config {
        version: VERSION,
        edge: "bench".into(),
        listen: Listen::udp(5060, 5080),
        advertise: Advertise::Host("203.0.113.10".into()),
        admin: Admin { port: 8080 },
        dns: Dns { servers: vec![] },
        secrets: Secrets::new(SecretRef::File("keys".into())),
        trunks: vec![
            Trunk {
                from: vec!["192.0.2.0/30".parse().expect("a range")],
                limits: Limits { cps: None, calls: Some(100_000) },
                ..Trunk::new("source")
            },
            Trunk { targets: vec![Target::new("sip:198.51.100.1")], ..Trunk::new("destination") },
        ],
        routes: vec![Route { from: "source".into(), to: "destination".into() }],
        refuse: Refuse::Answer,
        timers: Timers {
            t1_ms: 500,
            t2_ms: 4_000,
            t4_ms: 5_000,
            response_ms: 5_000,
            invite_ms: 30_000,
            call_ms: 60_000,
        },
        budgets: Budgets { transactions: 400, message_bytes: 1 << 20, counted_calls: 300 },
        streams: Streams::default(),
        drain: Drain { accept_ms: 1_000, grace_ms: 5_000, retry_after_s: 10 },
        cloud: None,
        answerer: None,
    }
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// A request of the caller in call `number`; `branch` tells its transactions apart.
pub fn request(method: &str, number: usize, branch: &str, to_tag: &str, extra: &str) -> String {
    let uri = if to_tag.is_empty() { "sip:+1555@203.0.113.10" } else { "sip:callee@198.51.100.1" };
    format!(
        "{method} {uri} SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK{branch}{number}\r\n\
         {extra}Max-Forwards: 70\r\n\
         From: <sip:caller@192.0.2.1>;tag=caller\r\n\
         To: <sip:+1555@203.0.113.10>{to_tag}\r\n\
         Call-ID: call{number}@bench\r\n\
         CSeq: 1 {method}\r\n\
         Contact: <sip:caller@192.0.2.1>\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: 4\r\n\r\nbody"
    )
}

/// The called side's response to a request as it arrived there.
pub fn response(request: &[u8], status: &str) -> Vec<u8> {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for line in String::from_utf8_lossy(request).lines() {
        let name = line.split(':').next().unwrap_or_default();
        let tag = if name == "To" && !line.contains("tag=") { ";tag=callee" } else { "" };
        if ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"].contains(&name) {
            text += &format!("{line}{tag}\r\n");
        }
    }
    text += "Contact: <sip:callee@198.51.100.1>\r\nContent-Length: 0\r\n\r\n";
    text.into_bytes()
}

/// Panics unless this is a message that a peer can take: it is framed and whole, and begins with a Via; a request with the edge's. Or it is
/// the answer to a keep-alive by STUN: a Binding response that is as long as it says (RFC 5389 §6).
pub fn check_well_formed(sent: &Sent) {
    if let [0x01, 0x01 | 0x11, high, low, 0x21, 0x12, 0xa4, 0x42, rest @ ..] = sent.bytes.as_slice() {
        assert_eq!(usize::from(u16::from_be_bytes([*high, *low])) + 12, rest.len(), "{:x?}", sent.bytes);
        return;
    }
    let mut layout = Layout::default();
    let text = String::from_utf8_lossy(&sent.bytes);
    let message = Message::read_without_body(&sent.bytes, &mut layout);
    let message = message.unwrap_or_else(|reason| panic!("an output cannot be read, {reason}:\n{text}"));
    assert_eq!(message.bytes().len(), sent.bytes.len(), "bytes after the body:\n{text}");
    let announced = message.header(HeaderName::ContentLength).and_then(|header| std::str::from_utf8(header.text).ok());
    let body = message.body().of(&sent.bytes).len();
    assert!(
        announced.is_none_or(|length| length.parse() == Ok(body)),
        "Content-Length {announced:?} of {body}:\n{text}"
    );
    let via = message.header(HeaderName::Via).unwrap_or_else(|| panic!("no Via:\n{text}"));
    assert!(sent.receipt.is_none() || sent.transport.is_reliable(), "a receipt for a datagram:\n{text}");
    if message.request().is_some() {
        let edge = if sent.transport == Transport::Tls { EDGE_TLS } else { EDGE };
        let prefix = format!("SIP/2.0/{} {edge};rport;branch=z9hG4bK", sent.transport.via());
        assert!(via.text.starts_with(prefix.as_bytes()), "the topmost Via is not the edge's:\n{text}");
        assert_eq!(sent.port, Port::Egress, "{text}");
    }
}
