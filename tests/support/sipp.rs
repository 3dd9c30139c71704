//! SIPp in the networks of an edge in the lab: load with strict accounts.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sipedge::plan::Endpoint;

use crate::edge::Edge;
use crate::support::{Running, eventually, repository};

/// Longest wait for a message of a call: more than a call lasts, and time for several retransmissions.
const RECEIVE_TIMEOUT_MS: &str = "8000";

/// SIPp's socket buffers. Its default of 64 KiB holds a tenth of a second of this load, and a machine that is busy stops it for longer.
const BUFFER_BYTES: &str = "1048576";

/// How much the machine was short of processors in the last ten seconds. A process that is stopped for half a second (T1) sends
/// again, or is sent again, whatever the edge does.
pub fn cpu_pressure() -> String {
    let pressure = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let share = pressure.split_whitespace().find_map(|word| word.strip_prefix("avg10="));
    format!("some process waited for a processor {} % of the time", share.unwrap_or("(unknown)"))
}

/// SIPp in a carrier's network, started by `sipedge lab exec`.
pub struct Sipp {
    running: Running,
    name: String,
    files: PathBuf,
}

impl Sipp {
    /// Runs a scenario of `tests/sipp` at an address.
    pub fn start(edge: &Edge, scenario: &str, place: &Endpoint, arguments: &[&str]) -> Self {
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
    pub fn await_socket(&self, address: SocketAddr) {
        let IpAddr::V4(ip) = address.ip() else { panic!("{address} is not IPv4") };
        // As /proc/net/udp writes it: the address in the machine's byte order, the port as a number.
        let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port());
        let table = format!("/proc/{}/net/udp", self.running.pid());
        eventually(&format!("SIPp listens on {address}"), || {
            fs::read_to_string(&table).unwrap_or_default().contains(&wanted)
        });
    }

    /// Waits until it has placed its calls.
    pub fn finish(self) -> Statistics {
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
    pub fn stop(self) -> Statistics {
        let pid = Pid::from_raw(i32::try_from(self.running.pid()).expect("a process id"));
        kill(pid, Signal::SIGUSR1).expect("SIPp runs");
        self.finish()
    }
}

fn statistics_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.csv"))
}

/// What SIPp has counted.
pub struct Statistics {
    name: String,
    values: HashMap<String, String>,
    errors: String,
    /// A line per measured time: when, how many milliseconds, which of the scenario's times.
    times: String,
}

impl Statistics {
    #[track_caller]
    pub fn number(&self, title: &str) -> u64 {
        let value = self.values.get(title).unwrap_or_else(|| panic!("{}: no {title} in {:?}", self.name, self.values));
        value.parse().unwrap_or_else(|error| panic!("{}: {title} is {value}: {error}", self.name))
    }

    /// All calls successful, and nothing that was not expected.
    #[track_caller]
    pub fn assert_clean(&self, calls: u64) {
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

    /// All calls successful, whatever had to be sent again meanwhile.
    #[track_caller]
    pub fn assert_none_lost(&self, calls: u64) {
        assert_eq!(self.number("SuccessfulCall(C)"), calls, "{}: successful\n{}", self.name, self.errors);
        assert_eq!(self.number("FailedCall(C)"), 0, "{}: failed\n{}", self.name, self.errors);
    }

    /// INVITE to 200 of calls that are answered at once: what the edge and the network add. SIPp's clock has steps of 4 ms.
    #[track_caller]
    pub fn set_up_delay(&self, calls: u64) -> String {
        let of_set_up = |line: &str| {
            let mut fields = line.split(';').skip(1);
            let time = fields.next()?.trim().parse::<f64>().ok()?;
            (fields.next()?.trim() == "1").then_some(time)
        };
        let mut times: Vec<f64> = self.times.lines().filter_map(of_set_up).collect();
        assert_eq!(times.len() as u64, calls, "{}: measured set-up delays", self.name);
        times.sort_by(f64::total_cmp);
        let part = |percent: usize| times[(times.len() - 1) * percent / 100];
        format!(
            "set-up delay of {calls} calls: median {:.1} ms, 99 % within {:.1} ms, longest {:.1} ms",
            part(50),
            part(99),
            part(100)
        )
    }
}
