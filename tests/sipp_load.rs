//! 1,000 calls at 100 per second from carrier to carrier, by SIPp: none fails, and no message is sent twice.

#[path = "support/edge.rs"]
mod edge;
#[path = "support/project.rs"]
mod support;

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use edge::{Edge, SIX_LINES, sum};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sipedge::plan::Endpoint;
use support::{Running, eventually, program, repository, skip};

const CALLS: u64 = 1_000;
const CALLS_PER_SECOND: u64 = 100;

/// Longest wait for a message of a call: more than a call lasts, and time for several retransmissions.
const RECEIVE_TIMEOUT_MS: &str = "8000";

/// SIPp's socket buffers. Its default of 64 KiB holds a tenth of a second of this load, and a machine that is busy stops it for longer.
const BUFFER_BYTES: &str = "1048576";

/// Two peers with ranges by hand, each a network of its own.
const TWO_CARRIERS: &str = "\
version: 1
name: twilio-bridge
aws: { region: us-east-1, profile: default }
trunks:
  carrier: { from: [198.51.100.0/28] }
  pbx: { from: [192.0.2.16/29], targets: [\"sip:192.0.2.18:5062\"] }
routes:
  - { from: carrier, to: pbx }
";

#[test]
fn load_balanced() {
    carries_the_load("load_balanced", SIX_LINES, "load-balanced");
}

#[test]
fn single_ec2() {
    carries_the_load("single_ec2", SIX_LINES, "single-ec2");
}

#[test]
fn load_balanced_between_two_carriers() {
    carries_the_load("load_balanced_between_two_carriers", TWO_CARRIERS, "load-balanced");
}

fn carries_the_load(test: &str, spec: &str, topology: &str) {
    // One load at a time: what is measured is the edge, not how the tests share the machine.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if program("sipp").is_none() {
        return skip(test, "sipp is not installed (Debian package sip-tester)");
    }
    let Some(edge) = Edge::deploy(test, spec, topology) else { return };
    let route = edge.route().clone();
    let callees: Vec<Sipp> = route.callee.iter().map(|place| Sipp::start(&edge, "callee", place, &[])).collect();
    for (callee, place) in callees.iter().zip(&route.callee) {
        callee.await_socket(place.address);
    }
    let (calls, rate) = (CALLS.to_string(), CALLS_PER_SECOND.to_string());
    let ingress = edge.ingress().to_string();
    let arguments = ["-m", &calls, "-r", &rate, "-s", &route.number, &ingress];
    let caller = Sipp::start(&edge, "caller", &route.caller, &arguments).finish();
    let called: Vec<Statistics> = callees.into_iter().map(Sipp::stop).collect();

    let counts = edge.counts_with("calls_answered", CALLS);
    println!("{test}: {}; {}", caller.set_up_delay(), cpu_pressure());
    for (id, counts) in &counts {
        println!("{test}: {id} carried {} calls", counts["calls_answered"]);
    }
    for name in ["calls_started", "calls_answered", "acks_forwarded", "requests_in_dialog"] {
        assert_eq!(sum(&counts, name), CALLS, "{name}: {counts:#?}");
    }
    for name in [
        "calls_failed",
        "retransmissions_absorbed",
        "retransmissions_sent",
        "timeouts",
        "stray_responses",
        "net_kernel_drops",
        "net_send_errors",
        "net_send_queue_drops",
        "net_hand_over_drops",
    ] {
        assert_eq!(sum(&counts, name), 0, "{name}: {counts:#?}");
    }
    caller.assert_clean(CALLS);
    let arrived = called.iter().map(|statistics| statistics.number("SuccessfulCall(C)")).sum::<u64>();
    assert_eq!(arrived, CALLS, "calls at all callees");
    for statistics in &called {
        statistics.assert_clean(statistics.number("TotalCallCreated"));
    }
    edge.destroy();
}

/// How much the machine was short of processors in the last ten seconds. A process that is stopped for half a second (T1) sends
/// again, or is sent again, whatever the edge does.
fn cpu_pressure() -> String {
    let pressure = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let share = pressure.split_whitespace().find_map(|word| word.strip_prefix("avg10="));
    format!("some process waited for a processor {} % of the time", share.unwrap_or("(unknown)"))
}

/// SIPp in a carrier's network, started by `sipedge lab exec`.
struct Sipp {
    running: Running,
    name: String,
    files: PathBuf,
}

impl Sipp {
    /// Runs a scenario of `tests/sipp` at an address.
    fn start(edge: &Edge, scenario: &str, place: &Endpoint, arguments: &[&str]) -> Self {
        let name = format!("{scenario}-{}", place.address.ip());
        let files = edge.project.folder().to_owned();
        let file = repository().join(format!("tests/sipp/{scenario}.xml"));
        let mut command = edge.project.command(&["lab", "exec", &place.namespace, "--", "sipp", "-sf"]);
        command.arg(file);
        // Bound to the address: without it SIPp listens on all, and answers from another than the one that was called.
        command.args(["-bind_local", "-i", &place.address.ip().to_string(), "-p", &place.address.port().to_string()]);
        // Without it a call that misses a message waits for ever.
        command
            .args(["-recv_timeout", RECEIVE_TIMEOUT_MS, "-buff_size", BUFFER_BYTES, "-nostdin", "-trace_stat", "-stf"])
            .arg(statistics_file(&files, &name));
        command.args(["-trace_err", "-error_file"]).arg(files.join(format!("{name}-errors.log")));
        command.args(["-trace_rtt", "-rtt_freq", "1"]).args(arguments).env("TERM", "dumb");
        Self { running: Running::start(command), name, files }
    }

    /// Waits until it listens.
    fn await_socket(&self, address: SocketAddr) {
        let IpAddr::V4(ip) = address.ip() else { panic!("{address} is not IPv4") };
        // As /proc/net/udp writes it: the address in the machine's byte order, the port as a number.
        let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port());
        let table = format!("/proc/{}/net/udp", self.running.pid());
        eventually(&format!("SIPp listens on {address}"), || {
            fs::read_to_string(&table).unwrap_or_default().contains(&wanted)
        });
    }

    /// Waits until it has placed its calls.
    fn finish(self) -> Statistics {
        let Self { running, name, files } = self;
        let pid = running.pid();
        let ran = running.finish();
        let errors = fs::read_to_string(files.join(format!("{name}-errors.log"))).unwrap_or_default();
        let (code, screens) = (ran.code, [ran.stdout, ran.stderr].concat());
        assert_eq!(code, 0, "{name} ended with {code}; {}\n{screens}\n{errors}", cpu_pressure());
        let text = fs::read_to_string(statistics_file(&files, &name)).expect("SIPp's statistics");
        let mut lines = text.lines();
        let titles = lines.next().unwrap_or_default().split(';');
        // One line per minute and one at the end; (C) is the sum.
        let values = lines.next_back().unwrap_or_default().split(';');
        let values = titles.zip(values).map(|(title, value)| (title.to_owned(), value.to_owned())).collect();
        let scenario = name.split('-').next().unwrap_or_default();
        let times = fs::read_to_string(files.join(format!("{scenario}_{pid}_rtt.csv"))).unwrap_or_default();
        Statistics { name, values, errors, times }
    }

    /// Lets it end once no call is up.
    fn stop(self) -> Statistics {
        let pid = Pid::from_raw(i32::try_from(self.running.pid()).expect("a process id"));
        kill(pid, Signal::SIGUSR1).expect("SIPp runs");
        self.finish()
    }
}

fn statistics_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.csv"))
}

/// What SIPp has counted.
struct Statistics {
    name: String,
    values: HashMap<String, String>,
    errors: String,
    /// A line per measured time: when, how many milliseconds, which of the scenario's times.
    times: String,
}

impl Statistics {
    #[track_caller]
    fn number(&self, title: &str) -> u64 {
        let value = self.values.get(title).unwrap_or_else(|| panic!("{}: no {title} in {:?}", self.name, self.values));
        value.parse().unwrap_or_else(|error| panic!("{}: {title} is {value}: {error}", self.name))
    }

    /// All calls successful, and nothing that was not expected.
    #[track_caller]
    fn assert_clean(&self, calls: u64) {
        assert_eq!(self.number("SuccessfulCall(C)"), calls, "{}: successful\n{}", self.name, self.errors);
        let bad = [
            "FailedCall(C)",
            "Retransmissions(C)",
            "FailedUnexpectedMessage(C)",
            "OutOfCallMsgs(C)",
            "DeadCallMsgs(C)",
            "Warnings(C)",
            "FatalErrors(C)",
        ];
        for title in bad {
            assert_eq!(self.number(title), 0, "{}: {title}\n{}", self.name, self.errors);
        }
    }

    /// INVITE to 200 of calls that are answered at once: what the edge and the network add. SIPp's clock has steps of 4 ms.
    #[track_caller]
    fn set_up_delay(&self) -> String {
        let of_set_up = |line: &str| {
            let mut fields = line.split(';').skip(1);
            let time = fields.next()?.trim().parse::<f64>().ok()?;
            (fields.next()?.trim() == "1").then_some(time)
        };
        let mut times: Vec<f64> = self.times.lines().filter_map(of_set_up).collect();
        assert_eq!(times.len() as u64, CALLS, "{}: measured set-up delays", self.name);
        times.sort_by(f64::total_cmp);
        let part = |percent: usize| times[(times.len() - 1) * percent / 100];
        format!(
            "set-up delay of {CALLS} calls at {CALLS_PER_SECOND} per second: median {:.1} ms, 99 % within {:.1} ms, longest {:.1} ms",
            part(50),
            part(99),
            part(100)
        )
    }
}
