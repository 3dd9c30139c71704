//! The engine driven by hand: one caller, one callee, one edge on two ports.

mod admission;
mod branches;
mod calls;
mod forks;
mod in_dialog;
mod timers;

use super::*;
use crate::config::*;

pub(super) const CALLER: &str = "192.0.2.1:5060";
const CALLEE: &str = "198.51.100.1:5060";
const EDGE: &str = "203.0.113.10:5060";

struct Bench {
    engine: Engine,
    now: Time,
}

#[derive(Debug, Clone, PartialEq)]
struct Sent {
    port: Port,
    to: String,
    text: String,
}

impl Sent {
    fn line(&self, name: &str) -> &str {
        let line = self.text.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    fn start(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }
}

pub(super) fn config() -> Config {
    Config {
        version: 1,
        edge: "test".into(),
        listen: Listen::udp(5060, 5080),
        advertise: Advertise::Host("203.0.113.10".into()),
        admin: Admin { port: 8080 },
        dns: Dns { servers: vec![] },
        secrets: Secrets::new(SecretRef::File("keys".into())),
        trunks: vec![
            Trunk { from: vec!["192.0.2.0/30".parse().unwrap()], ..Trunk::new("source") },
            Trunk { targets: vec![Target::new("sip:callee.example")], ..Trunk::new("destination") },
        ],
        routes: vec![Route { from: "source".into(), to: "destination".into() }],
        refuse: Refuse::Answer,
        timers: Timers { t1_ms: 500, t2_ms: 4000, t4_ms: 5000, response_ms: 5000, invite_ms: 30000, call_ms: 60000 },
        budgets: Budgets { transactions: 1000, message_bytes: 1 << 20, counted_calls: 100 },
        streams: Streams::default(),
        drain: Drain { accept_ms: 1000, grace_ms: 5000, retry_after_s: 10 },
        cloud: None,
        answerer: None,
    }
}

pub(super) fn server(address: &str) -> Server {
    Server { priority: 0, weight: 1, transport: Transport::Udp, address: address.parse().unwrap() }
}

pub(super) fn keys(ids: &[u8]) -> TokenKeys {
    let key = |id: &u8| TokenKey { id: *id, key: format!("{id:02x}").repeat(32) };
    TokenKeys { branch: "b".repeat(64), tokens: ids.iter().map(key).collect() }
}

fn setup(config: Config, keys: &TokenKeys) -> Arc<Setup> {
    let place = Place {
        ingress: "10.0.1.10:5060".parse().unwrap(),
        egress: "10.0.1.10:5080".parse().unwrap(),
        advertised: "203.0.113.10".into(),
        shards: 1,
    };
    Arc::new(Setup::new(config, &place, keys).unwrap())
}

impl Bench {
    fn new(config: Config) -> Self {
        Self::with_keys(config, &keys(&[1]))
    }

    fn with_keys(config: Config, keys: &TokenKeys) -> Self {
        let setup = setup(config, keys);
        let shared = Arc::new(Shared::new(&setup));
        let now = Time::from_micros(1_800_000_000_000_000);
        let mut engine = Engine::new(setup, shared, now);
        engine.handle_control(now, Control::Open);
        let queries = engine.outbox().resolves().to_vec();
        engine.clear_outbox();
        for query in queries {
            engine.handle_resolved(now, &query, &[server("198.51.100.1:5060")], Duration::from_secs(60));
        }
        engine.clear_outbox();
        Self { engine, now }
    }

    fn sent(&mut self) -> Vec<Sent> {
        let sent = self.engine.outbox().transmits();
        let sent = sent
            .map(|transmit| Sent {
                port: transmit.hop.port,
                to: transmit.hop.to.to_string(),
                text: String::from_utf8_lossy(transmit.bytes).into_owned(),
            })
            .collect();
        self.engine.clear_outbox();
        sent
    }

    fn receive(&mut self, port: Port, from: &str, text: &str) -> Vec<Sent> {
        let arrival = Arrival::datagram(port, from.parse().unwrap());
        self.engine.handle_message(self.now, &arrival, text.replace('\n', "\r\n").as_bytes());
        self.sent()
    }

    fn pass(&mut self, ms: u64) -> Vec<Sent> {
        let until = self.now + Duration::from_millis(ms);
        let mut sent = Vec::new();
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= until) {
            self.now = at;
            self.engine.handle_timeout(at);
            sent.extend(self.sent());
        }
        self.now = until;
        sent
    }

    fn one(sent: Vec<Sent>) -> Sent {
        assert_eq!(sent.len(), 1, "{sent:#?}");
        sent.into_iter().next().unwrap()
    }

    /// An INVITE sent on, and the 100 that the caller got.
    fn invite(&mut self, branch: &str) -> Sent {
        let mut sent =
            self.receive(Port::Ingress, CALLER, &request("INVITE", "sip:+1555@edge;transport=udp", branch, "", ""));
        assert_eq!(sent.len(), 2, "{sent:#?}");
        assert_eq!(sent[0].start(), "SIP/2.0 100 Trying");
        sent.remove(1)
    }

    /// The response that the callee sends to what it got, as the caller gets it.
    fn answer(&mut self, request: &Sent, status: &str) -> Vec<Sent> {
        let response = response(request, status);
        self.receive(Port::Egress, CALLEE, &response)
    }

    /// A call that is up, and its route.
    fn call(&mut self) -> String {
        let invite = self.invite("z9hG4bKcall");
        let ok = Self::one(self.answer(&invite, "200 OK"));
        ok.line("record-route").replace("Record-Route", "Route").to_owned() + "\n"
    }
}

pub(super) fn request(method: &str, uri: &str, branch: &str, to_tag: &str, extra: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport;branch={branch}\n{extra}Max-Forwards: 70\nFrom: <sip:a@b>;tag=caller\n\
         To: <sip:+1555@edge>{to_tag}\nCall-ID: call@1\nCSeq: 1 {method}\nContact: <sip:a@192.0.2.1>\nX-Odd: \u{fffd} kept\nContent-Length: 4\n\nbody"
    )
}

fn response(request: &Sent, status: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\n");
    for line in request.text.lines() {
        let name = line.split(':').next().unwrap_or_default();
        if ["Via", "Record-Route", "From", "Call-ID", "CSeq"].contains(&name) {
            text += &format!("{line}\n");
        }
        if name == "To" {
            text += &format!("{line}{}\n", if line.contains("tag=") { "" } else { ";tag=callee" });
        }
    }
    text + "Content-Length: 0\n\n"
}
