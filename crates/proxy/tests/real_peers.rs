//! User agents that others wrote, calling through the running proxy: baresip, Linphone's telephone for the terminal, sipsak.
//!
//! They take their routes, Contacts, connections and certificates their own way, none of which is known to the proxy's own tests.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

#[allow(dead_code, unreachable_pub, reason = "as in the module `process`")]
mod agents;
mod process;

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use Kind::{Baresip, Linphone};
use agents::baresip::Answers;
use agents::{DEADLINE, Over, Phone, Running, Setting, address, baresip, linphone, missing};
use process::certificates::{Authority, dns, ip};
use process::{Process, config, folder, get, metric, wait_for_readyz};
use sipedge_proxy::config::{SecretRef, Target, Timers, TlsListener, TrunkTls};
use tempfile::TempDir;

/// How long a call is up.
const HELD: Duration = Duration::from_secs(1);

const BARESIP: (&str, &str) = ("baresip", "baresip-core");
const LINPHONE: (&str, &str) = ("linphonec", "linphone-cli");
const SIPSAK: (&str, &str) = ("sipsak", "sipsak");

/// What may not have happened when calls went well.
const FAULTS: [&str; 12] = [
    "calls_failed",
    "refused_source",
    "refused_token",
    "refused_other",
    "malformed",
    "loops",
    "timeouts",
    "stray_responses",
    "transport_failures",
    "unresolved_destination",
    "net_send_errors",
    "stream_handshake_failures",
];

#[test]
fn baresip_calls_baresip_over_udp() {
    calls(1, "baresip_calls_baresip_over_udp", (Baresip, Over::Udp), (Baresip, Over::Udp), BOTH);
}

#[test]
fn baresip_calls_baresip_over_tcp() {
    calls(2, "baresip_calls_baresip_over_tcp", (Baresip, Over::Tcp), (Baresip, Over::Tcp), BOTH);
}

#[test]
fn baresip_calls_baresip_over_tls() {
    calls(3, "baresip_calls_baresip_over_tls", (Baresip, Over::Tls), (Baresip, Over::Tls), BOTH);
}

#[test]
fn baresip_calls_baresip_from_tls_to_udp() {
    calls(4, "baresip_calls_baresip_from_tls_to_udp", (Baresip, Over::Tls), (Baresip, Over::Udp), BOTH);
}

#[test]
fn baresip_calls_baresip_from_udp_to_tls() {
    calls(5, "baresip_calls_baresip_from_udp_to_tls", (Baresip, Over::Udp), (Baresip, Over::Tls), BOTH);
}

#[test]
fn linphone_calls_baresip_over_udp() {
    calls(6, "linphone_calls_baresip_over_udp", (Linphone, Over::Udp), (Baresip, Over::Udp), BOTH);
}

#[test]
fn linphone_calls_baresip_over_tcp() {
    calls(7, "linphone_calls_baresip_over_tcp", (Linphone, Over::Tcp), (Baresip, Over::Tcp), BOTH);
}

/// Linphone has no certificate here, and its Contact becomes the address that its connection comes from. Over TLS that is nobody whom the
/// edge may send requests to (RFC 5923), so that only the caller can end the call.
#[test]
fn linphone_calls_baresip_over_tls() {
    calls(8, "linphone_calls_baresip_over_tls", (Linphone, Over::Tls), (Baresip, Over::Tls), &[Ends::Caller]);
}

#[test]
fn baresip_calls_linphone_over_udp() {
    calls(9, "baresip_calls_linphone_over_udp", (Baresip, Over::Udp), (Linphone, Over::Udp), BOTH);
}

#[test]
fn baresip_calls_linphone_over_tcp() {
    calls(10, "baresip_calls_linphone_over_tcp", (Baresip, Over::Tcp), (Linphone, Over::Tcp), BOTH);
}

#[test]
fn baresip_holds_and_resumes() {
    let test = "baresip_holds_and_resumes";
    if missing(test, &[BARESIP]) {
        return;
    }
    let edge = Edge::start(11, Over::Tcp);
    let mut caller = baresip::Baresip::start(&edge.caller(), Answers::AtOnce);
    let mut callee = baresip::Baresip::start(&edge.callee(), Answers::AtOnce);
    caller.dial(&edge.number(Over::Udp));
    caller.established();
    callee.established();
    // A side that gets a re-INVITE says so by the offer in it; the one that sends it by the answer.
    for (number, hold) in [true, false, true, false].into_iter().enumerate() {
        let (asks, asked) = if number < 2 { (&mut caller, &mut callee) } else { (&mut callee, &mut caller) };
        asks.hold(hold);
        assert_eq!(asked.event("CALL_REMOTE_SDP"), "offer");
        assert_eq!(asks.event("CALL_REMOTE_SDP"), "answer");
    }
    caller.hang_up();
    callee.closed();
    edge.at_least("acks_forwarded", 5);
    edge.counts(&[("calls_started", 1), ("calls_answered", 1), ("requests_in_dialog", 5)]);
    edge.no_faults(&[&caller, &callee]);
}

#[test]
fn baresip_gives_up_a_call_that_rings() {
    let test = "baresip_gives_up_a_call_that_rings";
    if missing(test, &[BARESIP]) {
        return;
    }
    let edge = Edge::start(12, Over::Udp);
    let mut caller = baresip::Baresip::start(&edge.caller(), Answers::AtOnce);
    let mut callee = baresip::Baresip::start(&edge.callee(), Answers::WhenTold);
    caller.dial(&edge.number(Over::Tls));
    caller.event("CALL_RINGING");
    caller.hang_up();
    callee.closed();
    edge.counts(&[("calls_started", 1), ("cancels_forwarded", 1), ("calls_failed", 1), ("calls_answered", 0)]);
}

#[test]
fn baresip_turns_a_call_down() {
    let test = "baresip_turns_a_call_down";
    if missing(test, &[BARESIP]) {
        return;
    }
    let edge = Edge::start(13, Over::Tls);
    let mut caller = baresip::Baresip::start(&edge.caller(), Answers::AtOnce);
    let mut callee = baresip::Baresip::start(&edge.callee(), Answers::WhenTold);
    caller.dial(&edge.number(Over::Tcp));
    caller.event("CALL_RINGING");
    callee.hang_up();
    let reason = caller.event("CALL_CLOSED");
    assert!(reason.starts_with("486") || reason.starts_with("603"), "{reason:?}:\n{}", callee.said());
    edge.counts(&[("calls_started", 1), ("calls_failed", 1), ("calls_answered", 0), ("cancels_forwarded", 0)]);
}

#[test]
fn sipsak_gets_its_options_answered() {
    let test = "sipsak_gets_its_options_answered";
    if missing(test, &[SIPSAK]) {
        return;
    }
    let edge = Edge::start(14, Over::Udp);
    for (number, over) in [Over::Udp, Over::Tcp, Over::Tls].into_iter().enumerate() {
        let (uri, port) = (format!("sip:{}", edge.ip), over.port().to_string());
        let roots = edge.folder.path().join("roots.pem");
        let mut arguments = ["-vvv", "-s", &uri, "-r", &port, "-E", over.parameter()].map(OsStr::new).to_vec();
        if over == Over::Tls {
            arguments.extend([OsStr::new("--tls-ca-cert"), roots.as_os_str()]);
        }
        let mut sipsak = Running::start("sipsak", &arguments, &[]);
        let (is_answered, status) = (sipsak.wait_for("SIP/2.0 200 "), sipsak.finish());
        assert!(is_answered && status.success(), "over {over:?}: {status}:\n{}", sipsak.written());
        edge.at_least("options_answered", edge.options_before + number as u64 + 1);
    }
}

/// A kind of telephone.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Baresip,
    Linphone,
}

impl Kind {
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Baresip => BARESIP,
            Linphone => LINPHONE,
        }
    }

    fn start(self, setting: &Setting<'_>) -> Box<dyn Phone> {
        match self {
            Baresip => Box::new(baresip::Baresip::start(setting, Answers::AtOnce)),
            Linphone => Box::new(linphone::Linphone::start(setting)),
        }
    }
}

/// Who ends a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Caller,
    Callee,
}

const BOTH: &[Ends] = &[Ends::Caller, Ends::Callee];

/// Calls through one edge, one after the other, each ended by one of these.
fn calls(number: u8, test: &str, caller: (Kind, Over), callee: (Kind, Over), ended_by: &[Ends]) {
    let ((caller, inbound), (callee, outbound)) = (caller, callee);
    if missing(test, &[caller.program(), callee.program()]) {
        return;
    }
    let edge = Edge::start(number, outbound);
    let mut caller = caller.start(&edge.caller());
    let mut callee = callee.start(&edge.callee());
    for (calls, ends) in (1..).zip(ended_by) {
        caller.dial(&edge.number(inbound));
        caller.established();
        callee.established();
        edge.at_least("acks_forwarded", calls);
        edge.counts(&[("calls_answered", calls), ("requests_in_dialog", calls - 1)]);
        std::thread::sleep(HELD);
        match ends {
            Ends::Caller => caller.hang_up(),
            Ends::Callee => callee.hang_up(),
        }
        caller.closed();
        callee.closed();
        edge.counts(&[("calls_started", calls), ("requests_in_dialog", calls)]);
    }
    edge.no_faults(&[&*caller, &*callee]);
}

/// A proxy that runs, between a caller and a callee who have certificates of one authority.
struct Edge {
    process: Process,
    folder: TempDir,
    ip: IpAddr,
    caller: IpAddr,
    callee: IpAddr,
    roots: String,
    certificates: [String; 2],
    /// The self-call's.
    options_before: u64,
}

impl Edge {
    fn start(test: u8, outbound: Over) -> Self {
        let [edge, caller, callee] = [1, 2, 3].map(|role| address(test, role));
        let mut config = config(edge, caller, SocketAddr::new(callee, outbound.port()));
        // The agents bind the sockets on which they listen, but not the connections that they open, nor does sipsak bind anything.
        config.trunks[0].from.push(IpAddr::from(Ipv4Addr::LOCALHOST).into());
        config.trunks[1].targets = vec![Target::new(outbound.uri(None, callee))];
        let file = |name: &str| SecretRef::File(name.to_owned());
        for trunk in &mut config.trunks {
            trunk.tls = Some(TrunkTls { certificate: None, roots: Some(file("roots.pem")) });
        }
        config.listen.tcp = true;
        config.listen.tls = Some(TlsListener {
            port: Over::Tls.port(),
            certificate: file("edge.pem"),
            client_roots: None,
            require_client: false,
        });
        // Processes that start, on a machine that is busy, answer later than the tests' own peers.
        config.timers = Timers { t1_ms: 500, t2_ms: 4_000, t4_ms: 5_000, response_ms: 20_000, ..config.timers };
        let authority = Authority::new("roots");
        let folder = folder(&config);
        std::fs::write(folder.path().join("roots.pem"), authority.pem()).unwrap();
        std::fs::write(folder.path().join("edge.pem"), authority.issue(&[ip(edge), dns(&edge.to_string())])).unwrap();
        let mut process = Process::run_in(folder.path());
        wait_for_readyz(edge, 200, &mut process);
        let options_before = metric(edge, "sipedge_options_answered_total");
        let certificates = [caller, callee].map(|address| authority.issue(&[ip(address)]));
        Self { process, folder, ip: edge, caller, callee, roots: authority.pem(), certificates, options_before }
    }

    fn caller(&self) -> Setting<'_> {
        self.setting(0, self.caller, "alice")
    }

    fn callee(&self) -> Setting<'_> {
        self.setting(1, self.callee, "bob")
    }

    fn setting<'a>(&'a self, certificate: usize, ip: IpAddr, user: &'a str) -> Setting<'a> {
        Setting { ip, user, certificate: &self.certificates[certificate], roots: &self.roots }
    }

    /// What the caller dials.
    fn number(&self, inbound: Over) -> String {
        inbound.uri(Some("bob"), self.ip)
    }

    /// Waits until the counters have these values; none may be higher.
    fn counts(&self, wanted: &[(&str, u64)]) {
        for (name, value) in wanted {
            let is = self.at_least(name, *value);
            assert_eq!(is, *value, "{name}:\n{}", self.process.log());
        }
    }

    /// Waits until a counter has this value, or more: an agent that waits too long repeats itself, and an ACK goes through each time.
    fn at_least(&self, name: &str, value: u64) -> u64 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let is = self.counter(name);
            if is >= value {
                return is;
            }
            let page = || get(self.ip, "/metrics").unwrap().1;
            assert!(Instant::now() < deadline, "{name} is {is}, not {value}:\n{}\n{}", page(), self.process.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn counter(&self, name: &str) -> u64 {
        metric(self.ip, &format!("sipedge_{name}_total"))
    }

    fn no_faults(&self, phones: &[&dyn Phone]) {
        for name in FAULTS {
            let said = || phones.iter().map(|phone| phone.said()).collect::<Vec<_>>().join("\n");
            assert_eq!(self.counter(name), 0, "{name}:\n{}\n{}", self.process.log(), said());
        }
    }
}
