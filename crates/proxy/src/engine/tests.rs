//! The engine driven by hand: one caller, one callee, one edge on two ports.

use super::*;
use crate::config::*;

const CALLER: &str = "192.0.2.1:5060";
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

fn config() -> Config {
    Config {
        version: 1,
        edge: "test".into(),
        listen: Listen { address: None, ingress_port: 5060, egress_port: 5080, shards: 1 },
        advertise: Advertise::Host("203.0.113.10".into()),
        admin: Admin { port: 8080 },
        dns: Dns { servers: vec![] },
        secrets: Secrets { token_keys: SecretRef::File("keys".into()) },
        trunks: vec![
            Trunk {
                name: "source".into(),
                from: vec!["192.0.2.0/30".parse().unwrap()],
                targets: vec![],
                limits: Limits::default(),
            },
            Trunk {
                name: "destination".into(),
                from: vec![],
                targets: vec!["sip:callee.example".into()],
                limits: Limits::default(),
            },
        ],
        routes: vec![Route { from: "source".into(), to: "destination".into() }],
        refuse: Refuse::Answer,
        timers: Timers { t1_ms: 500, t2_ms: 4000, t4_ms: 5000, response_ms: 5000, invite_ms: 30000, call_ms: 60000 },
        budgets: Budgets { transactions: 1000, message_bytes: 1 << 20, counted_calls: 100 },
        drain: Drain { accept_ms: 1000, grace_ms: 5000, retry_after_s: 10 },
    }
}

fn keys(ids: &[u8]) -> TokenKeys {
    let key = |id: &u8| TokenKey { id: *id, key: format!("{id:02x}").repeat(32) };
    TokenKeys { branch: "b".repeat(64), tokens: ids.iter().map(key).collect() }
}

impl Bench {
    fn new(config: Config) -> Self {
        Self::with_keys(config, &keys(&[1]))
    }

    fn with_keys(config: Config, keys: &TokenKeys) -> Self {
        let place = Place {
            ingress: "10.0.1.10:5060".parse().unwrap(),
            egress: "10.0.1.10:5080".parse().unwrap(),
            advertised: "203.0.113.10".into(),
            shards: 1,
        };
        let setup = Arc::new(Setup::new(config, &place, keys).unwrap());
        let shared = Arc::new(Shared::new(&setup));
        let now = Time::from_micros(1_800_000_000_000_000);
        let mut engine = Engine::new(setup, shared, now);
        engine.handle_control(now, Control::Open);
        assert_eq!(engine.outbox().resolves().len(), 1);
        engine.clear_outbox();
        engine.handle_resolved(now, "callee.example", &["198.51.100.1".parse().unwrap()], Duration::from_secs(60));
        engine.clear_outbox();
        Self { engine, now }
    }

    fn sent(&mut self) -> Vec<Sent> {
        let sent = self.engine.outbox().transmits();
        let sent = sent
            .map(|transmit| Sent {
                port: transmit.port,
                to: transmit.to.to_string(),
                text: String::from_utf8_lossy(transmit.bytes).into_owned(),
            })
            .collect();
        self.engine.clear_outbox();
        sent
    }

    fn receive(&mut self, port: Port, from: &str, text: &str) -> Vec<Sent> {
        self.engine.handle_datagram(self.now, port, from.parse().unwrap(), text.replace('\n', "\r\n").as_bytes());
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

fn request(method: &str, uri: &str, branch: &str, to_tag: &str, extra: &str) -> String {
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

#[test]
fn an_invite_goes_on_with_five_edits_and_nothing_else() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    assert_eq!((invite.port, invite.to.as_str()), (Port::Egress, CALLEE));
    assert_eq!(invite.start(), "INVITE sip:+1555@callee.example SIP/2.0");
    let lines: Vec<&str> = invite.text.lines().collect();
    assert!(lines[1].starts_with(&format!("Via: SIP/2.0/UDP {EDGE};rport;branch=z9hG4bK")), "{lines:#?}");
    assert!(lines[2].starts_with("Record-Route: <sip:") && lines[2].ends_with(&format!("@{EDGE};lr>")), "{lines:#?}");
    assert_eq!(lines[3], "Via: SIP/2.0/UDP 192.0.2.1:5060;rport=5060;branch=z9hG4bKone;received=192.0.2.1");
    assert_eq!(lines[4], "Max-Forwards: 69");
    assert!(invite.text.ends_with("X-Odd: \u{fffd} kept\r\nContent-Length: 4\r\n\r\nbody"));
}

#[test]
fn a_call_from_invite_to_bye() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    assert_eq!(bench.engine.gauges().pending_transactions, 2);
    let ringing = Bench::one(bench.answer(&invite, "180 Ringing"));
    assert_eq!((ringing.port, ringing.to.as_str()), (Port::Ingress, CALLER));
    assert_eq!(ringing.text.matches("Via:").count(), 1);
    let ok = Bench::one(bench.answer(&invite, "200 OK"));
    let route = ok.line("record-route").replace("Record-Route", "Route") + "\n";
    let ack = request("ACK", "sip:b@198.51.100.1", "z9hG4bKtwo", ";tag=callee", &route);
    let ack = Bench::one(bench.receive(Port::Ingress, CALLER, &ack));
    assert_eq!((ack.port, ack.to.as_str()), (Port::Egress, CALLEE));
    assert!(!ack.text.contains("Route:"));
    let bye = request("BYE", "sip:b@198.51.100.1", "z9hG4bKthree", ";tag=callee", &route);
    let bye = Bench::one(bench.receive(Port::Ingress, CALLER, &bye));
    let ok = Bench::one(bench.answer(&bye, "200 OK"));
    assert_eq!(ok.to, CALLER);
    assert_eq!((bench.engine.gauges().pending_transactions, bench.engine.gauges().transactions), (0, 4));
    let counters = bench.engine.counters();
    assert_eq!((counters.calls_started, counters.calls_answered, counters.calls_failed), (1, 1, 0));
    assert!(bench.pass(40_000).is_empty());
    assert_eq!(bench.engine.gauges(), Gauges::default());
}

#[test]
fn the_callee_hangs_up_by_another_instance() {
    let route = Bench::new(config()).call();
    let mut other = Bench::new(config());
    let bye = request("BYE", "sip:a@192.0.2.1", "z9hG4bKx", ";tag=caller", &route)
        .replace("tag=caller\nTo", "tag=callee\nTo");
    let bye = Bench::one(other.receive(Port::Ingress, CALLEE, &bye));
    assert_eq!((bye.port, bye.to.as_str()), (Port::Egress, CALLER));
}

#[test]
fn retransmissions_end_here() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    let again = request("INVITE", "sip:+1555@edge;transport=udp", "z9hG4bKone", "", "");
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &again)).start(), "SIP/2.0 100 Trying");
    let resent = Bench::one(bench.pass(500));
    assert_eq!(resent, invite);
    bench.answer(&invite, "183 Session Progress");
    assert!(bench.pass(2_000).is_empty());
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &again)).start(), "SIP/2.0 183 Session Progress");
}

#[test]
fn a_refusal_is_acknowledged_here_and_passed_once() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    let sent = bench.answer(&invite, "486 Busy Here");
    assert_eq!(sent.len(), 2);
    assert!(sent[0].text.starts_with("ACK sip:+1555@callee.example SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.10"));
    assert_eq!(sent[0].line("to"), "To: <sip:+1555@edge>;tag=callee");
    assert_eq!(sent[0].line("via"), invite.line("via"));
    assert_eq!(sent[1].start(), "SIP/2.0 486 Busy Here");
    assert_eq!(Bench::one(bench.answer(&invite, "486 Busy Here")), sent[0]);
    assert_eq!(Bench::one(bench.pass(600)), sent[1]);
    assert!(
        bench
            .receive(Port::Ingress, CALLER, &request("ACK", "sip:+1555@edge", "z9hG4bKone", ";tag=callee", ""))
            .is_empty()
    );
    assert!(bench.pass(40_000).is_empty());
    assert_eq!(bench.engine.gauges(), Gauges::default());
}

#[test]
fn a_503_from_beyond_is_a_500_here() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    assert_eq!(bench.answer(&invite, "503 Service Unavailable")[1].start(), "SIP/2.0 500 Server Internal Error");
}

#[test]
fn cancel_goes_out_after_a_provisional_response_with_the_branch_of_the_invite() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    let cancel = request("CANCEL", "sip:+1555@edge", "z9hG4bKone", "", "");
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &cancel)).start(), "SIP/2.0 200 OK");
    let sent = bench.answer(&invite, "180 Ringing");
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[1].start(), "CANCEL sip:+1555@callee.example SIP/2.0");
    assert_eq!(sent[1].line("via"), invite.line("via"));
    assert!(bench.answer(&sent[1], "200 OK").is_empty());
    assert_eq!(bench.answer(&invite, "487 Request Terminated")[1].to, CALLER);
}

#[test]
fn cancel_goes_out_with_the_branch_of_the_invite_from_another_instance() {
    let invite = Bench::new(config()).invite("z9hG4bKone");
    let mut other = Bench::new(config());
    let cancel = request("CANCEL", "sip:+1555@edge", "z9hG4bKone", "", "");
    let cancel = Bench::one(other.receive(Port::Ingress, CALLER, &cancel));
    assert_eq!((cancel.to.as_str(), cancel.line("via")), (CALLEE, invite.line("via")));
    assert_eq!(Bench::one(other.answer(&cancel, "200 OK")).to, CALLER);
}

#[test]
fn silence_is_a_408_and_ringing_without_end_is_cancelled() {
    let mut bench = Bench::new(config());
    bench.invite("z9hG4bKone");
    let sent = bench.pass(5_000);
    assert_eq!(sent.last().unwrap().start(), "SIP/2.0 408 Request Timeout");
    assert_eq!(sent.last().unwrap().text.matches("Via:").count(), 1);
    assert!(sent.last().unwrap().line("to").contains(";tag="));

    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    bench.answer(&invite, "180 Ringing");
    let sent = bench.pass(30_000);
    assert!(Bench::one(sent).text.starts_with("CANCEL "));
    let sent = bench.pass(5_000);
    assert_eq!(sent.iter().filter(|sent| sent.start() == "SIP/2.0 408 Request Timeout").count(), 1);
    assert_eq!(bench.engine.counters().calls_failed, 1);
}

#[test]
fn strangers_get_403_or_nothing() {
    let invite = request("INVITE", "sip:+1555@edge", "z9hG4bKone", "", "");
    let mut bench = Bench::new(config());
    let refused = Bench::one(bench.receive(Port::Ingress, "203.0.113.99:40000", &invite));
    assert_eq!((refused.start(), refused.to.as_str()), ("SIP/2.0 403 Forbidden", "203.0.113.99:40000"));
    let mut bench = Bench::new(Config { refuse: Refuse::Silence, ..config() });
    assert!(bench.receive(Port::Ingress, "203.0.113.99:40000", &invite).is_empty());
    assert_eq!(bench.engine.counters().refused_source, 1);
}

#[test]
fn in_dialog_requests_need_the_token_of_their_call() {
    let route = Bench::new(config()).call();
    let bye = |route: &str| request("BYE", "sip:b@198.51.100.1", "z9hG4bKx", ";tag=callee", route);
    let refused = |bench: &mut Bench, text: &str, status: &str| {
        let answer = Bench::one(bench.receive(Port::Ingress, CALLER, text));
        assert!(answer.start().starts_with(status), "{answer:?}");
    };
    let mut bench = Bench::new(config());
    refused(&mut bench, &bye(""), "SIP/2.0 404");
    refused(&mut bench, &bye("Route: <sip:203.0.113.10;lr>\n"), "SIP/2.0 403");
    refused(&mut bench, &bye(&route.replace("sip:A", "sip:B")), "SIP/2.0 403");
    refused(&mut bench, &bye(&route).replace("call@1", "call@2"), "SIP/2.0 403");
    refused(&mut Bench::with_keys(config(), &keys(&[2])), &bye(&route), "SIP/2.0 403");
    assert_eq!(bench.engine.counters().refused_token, 4);
    // Signed by the key before last week's rotation: still good.
    assert_eq!(
        Bench::one(Bench::with_keys(config(), &keys(&[2, 1])).receive(Port::Ingress, CALLER, &bye(&route))).to,
        CALLEE
    );
    // A forged ACK is dropped in silence.
    let ack = request("ACK", "sip:b@198.51.100.1", "z9hG4bKx", ";tag=callee", &route.replace("sip:A", "sip:B"));
    assert!(bench.receive(Port::Ingress, CALLER, &ack).is_empty());
}

#[test]
fn limits_refuse_new_calls_and_spare_those_that_are_up() {
    let mut limited = config();
    limited.trunks[0].limits = Limits { cps: None, calls: Some(1) };
    let mut bench = Bench::new(limited);
    let route = bench.call();
    let second = request("INVITE", "sip:+1555@edge", "z9hG4bKtwo", "", "").replace("call@1", "call@2");
    let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &second));
    assert!(refused.start().starts_with("SIP/2.0 503") && refused.text.contains("Retry-After: 10"));
    let bye = request("BYE", "sip:b@198.51.100.1", "z9hG4bKthree", ";tag=callee", &route);
    let bye = Bench::one(bench.receive(Port::Ingress, CALLER, &bye));
    assert_eq!(bye.to, CALLEE);
    bench.answer(&bye, "200 OK");
    let third = second.replace("z9hG4bKtwo", "z9hG4bKfour");
    assert_eq!(bench.receive(Port::Ingress, CALLER, &third).len(), 2);

    let mut limited = config();
    limited.trunks[0].limits = Limits { cps: Some(1), calls: None };
    let mut bench = Bench::new(limited);
    bench.invite("z9hG4bKone");
    let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &second));
    assert!(refused.start().starts_with("SIP/2.0 503") && refused.text.contains("Retry-After: 1\r\n"));
    bench.pass(1_000);
    let again = second.replace("z9hG4bKtwo", "z9hG4bKthree");
    assert_eq!(bench.receive(Port::Ingress, CALLER, &again).len(), 2);
}

#[test]
fn what_the_edge_answers_itself() {
    let mut bench = Bench::new(config());
    let cases = [
        (request("INVITE", "sip:+1555@edge", "z9hG4bK1", "", "").replace("Forwards: 70", "Forwards: 0"), "SIP/2.0 483"),
        (request("INVITE", "sip:+1555@edge", "z9hG4bK2", "", "").replace("Forwards: 70", "Forwards: x"), "SIP/2.0 400"),
        (request("INVITE", "tel:+1555", "z9hG4bK3", "", ""), "SIP/2.0 416"),
        (request("INVITE", "sip:edge", "z9hG4bK4", "", ""), "SIP/2.0 404"),
        (request("INVITE", "sip:+1555@edge", "z9hG4bK5", "", "Proxy-Require: foo\n"), "SIP/2.0 420"),
        (request("OPTIONS", "sip:203.0.113.10", "z9hG4bK6", "", ""), "SIP/2.0 200"),
        (request("REGISTER", "sip:203.0.113.10", "z9hG4bK7", "", ""), "SIP/2.0 405"),
        (request("FOO", "sip:203.0.113.10", "z9hG4bK8", "", ""), "SIP/2.0 405"),
        (request("INVITE", "sip:+1555@edge", "z9hG4bK9", "", "").replace("1 INVITE", "1 BYE"), "SIP/2.0 400"),
    ];
    for (text, status) in cases {
        let answer = Bench::one(bench.receive(Port::Ingress, CALLER, &text));
        assert!(answer.start().starts_with(status), "{text}\n{answer:?}");
    }
    for text in ["", "\n\n", "\n\n\n\n", "GET / HTTP/1.0\n\n", "ACK sip:a@b SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1\n\n"] {
        assert!(bench.receive(Port::Ingress, CALLER, text).is_empty(), "{text:?}");
    }
}

#[test]
fn before_it_is_open_only_the_self_call_passes() {
    let mut bench = Bench::new(config());
    let (caller, callee) = ("10.0.1.10:40000", "10.0.1.10:40001");
    let order = Control::SelfCall { caller: caller.parse().unwrap(), callee: callee.parse().unwrap() };
    bench.engine.handle_control(bench.now, order);
    let invite = request("INVITE", "sip:self@edge", "z9hG4bKone", "", "");
    assert!(bench.receive(Port::Ingress, CALLER, &invite).is_empty());
    let sent = bench.receive(Port::Ingress, caller, &invite);
    assert_eq!((sent[1].to.as_str(), sent[1].start()), (callee, "INVITE sip:self@edge SIP/2.0"));
    assert_eq!(bench.engine.counters().dropped_closed, 1);
    bench.engine.handle_control(bench.now, Control::Open);
    assert_eq!(*bench.engine.counters(), Counters::default());
}

#[test]
fn draining_answers_options_with_503_at_once_and_calls_later() {
    let mut bench = Bench::new(config());
    bench.engine.handle_control(bench.now, Control::Drain);
    let options = request("OPTIONS", "sip:203.0.113.10", "z9hG4bK6", "", "");
    assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &options)).start().starts_with("SIP/2.0 503"));
    let route = bench.call();
    bench.pass(1_000);
    let late = request("INVITE", "sip:+1555@edge", "z9hG4bKlate", "", "").replace("call@1", "call@2");
    assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &late)).start().starts_with("SIP/2.0 503"));
    let bye = request("BYE", "sip:b@198.51.100.1", "z9hG4bKbye", ";tag=callee", &route);
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &bye)).to, CALLEE);
}

#[test]
fn a_shard_owns_a_call_by_its_call_id() {
    let long = request("INVITE", "sip:a@b", "z9hG4bK1", "", "").replace('\n', "\r\n");
    let compact = request("BYE", "sip:a@b", "z9hG4bK2", "", "").replace("Call-ID: ", "i :\t").replace('\n', "\r\n");
    for shards in 1..7 {
        assert_eq!(shard_of(long.as_bytes(), shards), shard_of(compact.as_bytes(), shards));
    }
    let folded = long.replace("Call-ID: ", "Call-ID:\r\n ");
    assert_eq!(shard_of(long.as_bytes(), 5), shard_of(folded.as_bytes(), 5));
    assert_eq!(shard_of(b"nothing\r\n\r\n", 4), None);
}

#[test]
fn a_copy_of_a_refused_invite_is_refused_even_when_there_is_room_again() {
    let mut limited = config();
    limited.trunks[0].limits = Limits { cps: Some(1), calls: None };
    let mut bench = Bench::new(limited);
    bench.invite("z9hG4bKone");
    let second = request("INVITE", "sip:+1555@edge", "z9hG4bKtwo", "", "").replace("call@1", "call@2");
    let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &second));
    assert!(refused.start().starts_with("SIP/2.0 503"));
    bench.pass(2_000);
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &second)), refused);
    let anew = second.replace("z9hG4bKtwo", "z9hG4bKthree");
    assert_eq!(bench.receive(Port::Ingress, CALLER, &anew).len(), 2);
}

#[test]
fn a_response_with_our_via_alone_ends_here_and_ends_nothing() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    let response = response(&invite, "486 Busy Here");
    let (ours, theirs) = (invite.line("via"), "Via: SIP/2.0/UDP 192.0.2.1");
    let stripped: String = response.split_inclusive('\n').filter(|line| !line.starts_with(theirs)).collect();
    assert!(stripped.contains(ours));
    assert!(bench.receive(Port::Egress, CALLEE, &stripped).is_empty());
    assert_eq!(bench.receive(Port::Egress, CALLEE, &response).len(), 2);
}

#[test]
fn an_invite_with_as_many_headers_as_there_may_be_is_cancelled_and_acknowledged_like_any() {
    let mut bench = Bench::new(config());
    let full = request("INVITE", "sip:+1555@edge", "z9hG4bKone", "", &"X: y\n".repeat(512 - 9));
    let invite = bench.receive(Port::Ingress, CALLER, &full).remove(1);
    assert_eq!(bench.answer(&invite, "180 Ringing").len(), 1);
    let cancel = request("CANCEL", "sip:+1555@edge", "z9hG4bKone", "", "");
    let sent = bench.receive(Port::Ingress, CALLER, &cancel);
    assert_eq!(sent[1].start(), "CANCEL sip:+1555@callee.example SIP/2.0");
    let sent = bench.answer(&invite, "487 Request Terminated");
    assert!(sent[0].start().starts_with("ACK "));
}

#[test]
fn a_late_copy_of_a_refused_invite_is_a_transaction_of_its_own_to_its_end() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    bench.answer(&invite, "486 Busy Here");
    bench.receive(Port::Ingress, CALLER, &request("ACK", "sip:+1555@edge", "z9hG4bKone", ";tag=callee", ""));
    bench.pass(6_000);
    let again = bench.invite("z9hG4bKone");
    assert_eq!(again.line("via"), invite.line("via"));
    assert_eq!(bench.answer(&again, "180 Ringing").len(), 1);
    // The first client transaction ends meanwhile, by Timer D.
    assert!(bench.pass(27_000).is_empty());
    assert_eq!(Bench::one(bench.answer(&again, "200 OK")).start(), "SIP/2.0 200 OK");
}

#[test]
fn an_ack_of_a_2xx_may_bear_the_branch_of_its_invite() {
    let mut bench = Bench::new(config());
    let route = bench.call();
    let ack = request("ACK", "sip:b@198.51.100.1", "z9hG4bKcall", ";tag=callee", &route);
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &ack)).to, CALLEE);
}

#[test]
fn nobody_else_cancels_a_call_or_stops_a_refusal() {
    let mut bench = Bench::new(Config { refuse: Refuse::Silence, ..config() });
    let invite = bench.invite("z9hG4bKone");
    bench.answer(&invite, "180 Ringing");
    let cancel = request("CANCEL", "sip:+1555@edge", "z9hG4bKone", "", "");
    assert!(bench.receive(Port::Ingress, "203.0.113.99:5060", &cancel).is_empty());
    bench.answer(&invite, "486 Busy Here");
    let ack = request("ACK", "sip:+1555@edge", "z9hG4bKone", ";tag=callee", "");
    assert!(bench.receive(Port::Ingress, "203.0.113.99:5060", &ack).is_empty());
    assert_eq!(Bench::one(bench.pass(600)).start(), "SIP/2.0 486 Busy Here");
    // Another address of the caller's carrier is as good as the first.
    assert!(bench.receive(Port::Ingress, "192.0.2.2:5060", &ack).is_empty());
    assert!(bench.pass(40_000).is_empty());
}

#[test]
fn a_header_that_is_there_twice_is_refused() {
    let route = Bench::new(config()).call();
    let mut bench = Bench::new(config());
    let bye = request("BYE", "sip:b@198.51.100.1", "z9hG4bKx", ";tag=callee", &route);
    for twice in ["Call-ID: victim@1\n", "From: <sip:a@b>;tag=x\n", "To: <sip:a@b>;tag=x\n", "Max-Forwards: 9\n"] {
        let text = bye.replace("CSeq:", &format!("{twice}CSeq:"));
        assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &text)).start().starts_with("SIP/2.0 400"), "{twice}");
    }
}

#[test]
fn a_remote_target_inside_is_refused() {
    let route = Bench::new(config()).call();
    for inside in ["127.0.0.1", "10.0.1.77", "169.254.169.254", "224.0.0.1", "255.255.255.255", "0.0.0.0", "[::1]"] {
        let mut bench = Bench::new(config());
        let bye = request("BYE", &format!("sip:b@{inside}"), "z9hG4bKx", ";tag=callee", &route);
        let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &bye));
        assert!(refused.start().starts_with("SIP/2.0 403"), "{inside}: {refused:?}");
    }
}

#[test]
fn a_remote_target_with_a_name_is_asked_for_and_found_by_the_retransmission() {
    let route = Bench::new(config()).call();
    let mut bench = Bench::new(config());
    let bye = request("BYE", "sip:b@PBX.example:5070", "z9hG4bKx", ";tag=callee", &route);
    bench.engine.handle_datagram(
        bench.now,
        Port::Ingress,
        CALLER.parse().unwrap(),
        bye.replace('\n', "\r\n").as_bytes(),
    );
    bench.engine.handle_timeout(bench.now);
    assert_eq!(bench.engine.outbox().resolves(), [Resolve { host: "pbx.example".into() }]);
    bench.engine.clear_outbox();
    bench.engine.handle_resolved(bench.now, "pbx.example", &["198.51.100.9".parse().unwrap()], Duration::from_secs(60));
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &bye)).to, "198.51.100.9:5070");

    let nowhere = request("BYE", "sip:b@nowhere.example", "z9hG4bKy", ";tag=callee", &route);
    assert!(bench.receive(Port::Ingress, CALLER, &nowhere).is_empty());
    bench.engine.handle_resolved(bench.now, "nowhere.example", &[], Duration::ZERO);
    assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &nowhere)).start().starts_with("SIP/2.0 503"));
}

#[test]
fn a_body_that_did_not_arrive_whole_is_a_400_for_those_whom_we_know() {
    let mut bench = Bench::new(config());
    let cut = request("INVITE", "sip:+1555@edge", "z9hG4bKone", "", "").replace("Length: 4", "Length: 400");
    assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &cut)).start().starts_with("SIP/2.0 400"));
    assert!(bench.receive(Port::Ingress, "203.0.113.99:5060", &cut).is_empty());
}

#[test]
fn a_callee_that_rings_too_late_is_cancelled() {
    let mut bench = Bench::new(config());
    let invite = bench.invite("z9hG4bKone");
    assert_eq!(bench.pass(5_000).last().unwrap().start(), "SIP/2.0 408 Request Timeout");
    let cancel = Bench::one(bench.answer(&invite, "180 Ringing"));
    assert!(cancel.text.starts_with("CANCEL ") && cancel.to == CALLEE);
    assert!(Bench::one(bench.answer(&invite, "487 Request Terminated")).text.starts_with("ACK "));
    bench.pass(80_000);
    assert_eq!(bench.engine.gauges(), Gauges::default());
}

#[test]
fn legs_of_one_call_count_one_each_and_a_refused_bye_ends_none() {
    let mut limited = config();
    limited.trunks[0].limits = Limits { cps: None, calls: Some(2) };
    let mut bench = Bench::new(limited);
    let route = bench.call();
    let leg = |branch: &str| request("INVITE", "sip:+1555@edge", branch, "", "");
    let second = bench.receive(Port::Ingress, CALLER, &leg("z9hG4bKtwo")).remove(1);
    assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &leg("z9hG4bKthree"))).start().starts_with("SIP/2.0 503"));
    bench.answer(&second, "486 Busy Here");
    assert_eq!(bench.engine.gauges().counted_calls, 1);
    let bye = |branch: &str| request("BYE", "sip:b@198.51.100.1", branch, ";tag=callee", &route);
    let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &bye("z9hG4bKfour")));
    bench.answer(&refused, "481 Call/Transaction Does Not Exist");
    assert_eq!(bench.engine.gauges().counted_calls, 1);
    let bye = Bench::one(bench.receive(Port::Ingress, CALLER, &bye("z9hG4bKfive")));
    bench.answer(&bye, "200 OK");
    assert_eq!(bench.engine.gauges().counted_calls, 0);
}

#[test]
fn a_trunk_over_its_calls_leaves_the_rate_of_the_destination_alone() {
    let mut limited = config();
    limited.trunks[0].limits = Limits { cps: None, calls: Some(1) };
    limited.trunks[1].limits = Limits { cps: Some(2), calls: None };
    let mut bench = Bench::new(limited);
    let invite = |number: u32| {
        let text = request("INVITE", "sip:+1555@edge", &format!("z9hG4bK{number}"), "", "");
        text.replace("call@1", &format!("call@{number}"))
    };
    let first = bench.receive(Port::Ingress, CALLER, &invite(1)).remove(1);
    for number in 2..9 {
        assert_eq!(bench.receive(Port::Ingress, CALLER, &invite(number)).len(), 1);
    }
    bench.answer(&first, "486 Busy Here");
    assert_eq!(bench.receive(Port::Ingress, CALLER, &invite(9)).len(), 2);
    assert_eq!(bench.engine.counters().refused_cps, 0);
}
