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

use agents::baresip::{Answers, Baresip};
use agents::linphone::Linphone;
use agents::{DEADLINE, Over, Phone, Running, Setting, address, missing};
use process::certificates::{Authority, ip};
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
    both_hang_up(1, "baresip_calls_baresip_over_udp", baresip, Over::Udp, baresip, Over::Udp);
}

#[test]
fn baresip_calls_baresip_over_tcp() {
    both_hang_up(2, "baresip_calls_baresip_over_tcp", baresip, Over::Tcp, baresip, Over::Tcp);
}

#[test]
fn baresip_calls_baresip_over_tls() {
    both_hang_up(3, "baresip_calls_baresip_over_tls", baresip, Over::Tls, baresip, Over::Tls);
}

#[test]
fn baresip_calls_baresip_from_tls_to_udp() {
    both_hang_up(4, "baresip_calls_baresip_from_tls_to_udp", baresip, Over::Tls, baresip, Over::Udp);
}

#[test]
fn baresip_calls_baresip_from_udp_to_tls() {
    both_hang_up(5, "baresip_calls_baresip_from_udp_to_tls", baresip, Over::Udp, baresip, Over::Tls);
}

#[test]
fn linphone_calls_baresip_over_udp() {
    both_hang_up(6, "linphone_calls_baresip_over_udp", linphone, Over::Udp, baresip, Over::Udp);
}

#[test]
fn linphone_calls_baresip_over_tcp() {
    both_hang_up(7, "linphone_calls_baresip_over_tcp", linphone, Over::Tcp, baresip, Over::Tcp);
}

#[test]
fn linphone_calls_baresip_over_tls() {
    both_hang_up(8, "linphone_calls_baresip_over_tls", linphone, Over::Tls, baresip, Over::Tls);
}

#[test]
fn baresip_calls_linphone_over_udp() {
    both_hang_up(9, "baresip_calls_linphone_over_udp", baresip, Over::Udp, linphone, Over::Udp);
}

#[test]
fn baresip_calls_linphone_over_tcp() {
    both_hang_up(10, "baresip_calls_linphone_over_tcp", baresip, Over::Tcp, linphone, Over::Tcp);
}

#[test]
fn baresip_holds_and_resumes() {
    let test = "baresip_holds_and_resumes";
    if missing(test, &[BARESIP]) {
        return;
    }
    let edge = Edge::start(11, Over::Tcp);
    let mut caller = Baresip::start(&edge.caller(), Answers::AtOnce);
    let mut callee = Baresip::start(&edge.callee(), Answers::AtOnce);
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
    edge.counts(&[("calls_started", 1), ("calls_answered", 1), ("acks_forwarded", 5), ("requests_in_dialog", 5)]);
    edge.no_faults(&[&caller, &callee]);
}

#[test]
fn baresip_gives_up_a_call_that_rings() {
    let test = "baresip_gives_up_a_call_that_rings";
    if missing(test, &[BARESIP]) {
        return;
    }
    let edge = Edge::start(12, Over::Udp);
    let mut caller = Baresip::start(&edge.caller(), Answers::AtOnce);
    let mut callee = Baresip::start(&edge.callee(), Answers::WhenTold);
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
    let mut caller = Baresip::start(&edge.caller(), Answers::AtOnce);
    let mut callee = Baresip::start(&edge.callee(), Answers::WhenTold);
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
        let uri = format!("sip:{}:{}", edge.ip, over.port());
        let roots = edge.folder.path().join("roots.pem");
        let mut arguments = ["-vvv", "-s", &uri, "-E", over.parameter()].map(OsStr::new).to_vec();
        if over == Over::Tls {
            arguments.extend([OsStr::new("--tls-ca-cert"), roots.as_os_str()]);
        }
        let mut sipsak = Running::start("sipsak", &arguments, &[]);
        let status = sipsak.finish();
        assert!(status.success(), "over {over:?}: {status}:\n{}", sipsak.written());
        assert!(sipsak.written().contains("SIP/2.0 200 "), "over {over:?}:\n{}", sipsak.written());
        edge.counts(&[("options_answered", edge.options_before + number as u64 + 1)]);
    }
}

type Start = fn(&Setting<'_>) -> Box<dyn Phone>;

fn baresip(setting: &Setting<'_>) -> Box<dyn Phone> {
    Box::new(Baresip::start(setting, Answers::AtOnce))
}

fn linphone(setting: &Setting<'_>) -> Box<dyn Phone> {
    Box::new(Linphone::start(setting))
}

/// Two calls through one edge: the caller ends the first, the callee the second.
fn both_hang_up(number: u8, test: &str, caller: Start, inbound: Over, callee: Start, outbound: Over) {
    let programs: &[(&str, &str)] = if test.contains("linphone") { &[BARESIP, LINPHONE] } else { &[BARESIP] };
    if missing(test, programs) {
        return;
    }
    let edge = Edge::start(number, outbound);
    let mut caller = caller(&edge.caller());
    let mut callee = callee(&edge.callee());
    for (calls, caller_hangs_up) in [(1, true), (2, false)] {
        caller.dial(&edge.number(inbound));
        caller.established();
        callee.established();
        edge.counts(&[("calls_answered", calls), ("acks_forwarded", calls), ("requests_in_dialog", calls - 1)]);
        std::thread::sleep(HELD);
        if caller_hangs_up {
            caller.hang_up();
            callee.closed();
            caller.closed();
        } else {
            callee.hang_up();
            caller.closed();
            callee.closed();
        }
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
        std::fs::write(folder.path().join("edge.pem"), authority.issue(&[ip(edge)])).unwrap();
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

    /// Waits until the counters have these values.
    fn counts(&self, wanted: &[(&str, u64)]) {
        let deadline = Instant::now() + DEADLINE;
        for (name, value) in wanted {
            loop {
                let is = metric(self.ip, &format!("sipedge_{name}_total"));
                if is == *value {
                    break;
                }
                assert!(
                    is < *value && Instant::now() < deadline,
                    "{name} is {is}, not {value}:\n{}\n{}",
                    get(self.ip, "/metrics").unwrap().1,
                    self.process.log()
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn no_faults(&self, phones: &[&dyn Phone]) {
        for name in FAULTS {
            let count = metric(self.ip, &format!("sipedge_{name}_total"));
            let said: Vec<String> = phones.iter().map(|phone| phone.said()).collect();
            assert_eq!(count, 0, "{name}\n{}\n{}", self.process.log(), said.join("\n"));
        }
    }
}
