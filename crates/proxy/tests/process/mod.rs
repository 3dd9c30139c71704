//! What the tests of the running proxy share: its process, an instance metadata service, HTTP, and addresses of their own.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

pub mod aws;
pub mod certificates;
pub mod control;
pub mod digest;
pub mod dns;
pub mod imds;
pub mod load;
pub mod named;
pub mod sip;
pub mod stream;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sipedge_proxy::config::{
    Admin, Advertise, Answerer, Budgets, Config, Dns, Drain, Listen, Refuse, Route, SecretRef, Secrets, Streams,
    Target, Timers, Trunk, VERSION,
};
use sipedge_proxy::engine::{TokenKey, TokenKeys};
use tempfile::TempDir;

/// Longest wait for anything that has to happen.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub const INGRESS: u16 = 5060;
pub const EGRESS: u16 = 5080;
pub const ADMIN: u16 = 8080;

/// A loopback address for one purpose of one test: `number` is unique over all tests of this folder.
pub fn address(number: u8) -> IpAddr {
    let process = std::process::id();
    // The process id keeps two runs of the tests on one machine apart.
    Ipv4Addr::new(127, 64 + (process % 128) as u8, (process / 128 % 256) as u8, number).into()
}

/// A carrier bridge whose caller and callee are single addresses.
pub fn config(edge: IpAddr, caller: IpAddr, callee: SocketAddr) -> Config {
    Config {
        version: VERSION,
        edge: "test".into(),
        listen: Listen { address: Some(edge), shards: 2, ..Listen::udp(INGRESS, EGRESS) },
        advertise: Advertise::Listen,
        admin: Admin { port: ADMIN },
        dns: Dns { servers: vec!["127.0.0.1:53".parse().unwrap()] },
        secrets: Secrets::new(SecretRef::File("token-keys.json".into())),
        trunks: vec![
            Trunk { from: vec![caller.into()], ..Trunk::new("source") },
            Trunk { targets: vec![Target::new(format!("sip:{callee}"))], ..Trunk::new("destination") },
        ],
        routes: vec![Route { from: "source".into(), to: "destination".into() }],
        refuse: Refuse::Answer,
        // 64 × T1, for which finished transactions stay, is 640 ms instead of 32 s.
        timers: Timers { t1_ms: 10, t2_ms: 80, t4_ms: 100, response_ms: 5_000, invite_ms: 30_000, call_ms: 7_200_000 },
        budgets: Budgets { transactions: 10_000, message_bytes: 64 << 20, counted_calls: 10_000 },
        streams: Streams::default(),
        drain: Drain { accept_ms: 0, grace_ms: 10_000, retry_after_s: 7 },
        cloud: None,
        answerer: None,
    }
}

pub fn keys() -> TokenKeys {
    TokenKeys { branch: "0b".repeat(32), tokens: vec![TokenKey { id: 1, key: "1c".repeat(32) }] }
}

/// `config` with an answerer, whose password [`folder`] writes.
pub fn with_answerer(config: Config) -> Config {
    let password = SecretRef::File("answerer".into());
    Config { answerer: Some(Answerer { user: digest::USER.into(), password }), ..config }
}

/// A folder with the configuration, the keys and the answerer's password in it.
pub fn folder(config: &Config) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("answerer"), format!("{}\n", digest::PASSWORD)).unwrap();
    std::fs::write(folder.path().join("config.yaml"), serde_yaml::to_string(config).unwrap()).unwrap();
    std::fs::write(folder.path().join("token-keys.json"), serde_json::to_string(&keys()).unwrap()).unwrap();
    folder
}

pub fn user_data(config: &Config) -> String {
    format!("#sipedge-user-data 1\n{}", serde_yaml::to_string(config).unwrap())
}

/// A `sipedge-proxy` process; killed when it is dropped.
pub struct Process {
    child: Child,
    log: Arc<(Mutex<String>, Condvar)>,
}

impl Process {
    pub fn start<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Self {
        Self::start_with(arguments, [])
    }

    /// With variables of the environment; none of those that name AWS endpoints is taken from this process's.
    pub fn start_with<I: AsRef<std::ffi::OsStr>>(
        arguments: impl IntoIterator<Item = I>,
        variables: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sipedge-proxy"));
        for name in ["", "_SSM", "_AUTO_SCALING", "_EC2"] {
            command.env_remove(format!("AWS_ENDPOINT_URL{name}"));
        }
        let mut child = command
            .args(arguments)
            .envs(variables)
            // The metadata service is asked directly, whatever proxies the environment names.
            .env("http_proxy", "http://127.0.0.1:9")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let (stderr, shared) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = shared.0.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
                shared.1.notify_all();
            }
        });
        Self { child, log }
    }

    /// `sipedge-proxy run` on `config`. The folder has to outlive the process.
    pub fn run(config: &Config) -> (Self, TempDir) {
        let folder = folder(config);
        (Self::run_in(folder.path()), folder)
    }

    /// `sipedge-proxy run` on the configuration, the keys and the control endpoint of a folder.
    pub fn run_in(folder: &Path) -> Self {
        let [config, control] = ["config.yaml", control::SOCKET].map(|name| folder.join(name).into_os_string());
        let (secrets, option) = (folder.into(), OsString::from);
        Self::start([
            option("run"),
            option("--config"),
            config,
            option("--secrets"),
            secrets,
            option("--control"),
            control,
        ])
    }

    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }

    /// Waits until the log has `text`.
    pub fn wait_for_log(&self, text: &str) {
        let (log, condition) = (&self.log.0, &self.log.1);
        let (log, waited) =
            condition.wait_timeout_while(log.lock().unwrap(), DEADLINE, |log| !log.contains(text)).unwrap();
        assert!(!waited.timed_out(), "no {text:?} in the log within {DEADLINE:?}:\n{log}");
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {DEADLINE:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end with `code`, and returns the log's last line.
    pub fn wait_for_failure(&mut self, code: i32) -> String {
        let status = self.wait();
        // The reader thread may still be at the last line.
        self.wait_for_log("sipedge-proxy: ");
        assert_eq!(status.code(), Some(code), "{}", self.log());
        let log = self.log();
        log.lines().find(|line| line.starts_with("sipedge-proxy: ")).unwrap().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `GET path`: status code and body. `None`: nobody listens.
pub fn get(address: IpAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((address, ADMIN)).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Waits until `GET /readyz` gives `status`, and returns the body.
pub fn wait_for_readyz(address: IpAddr, status: u16, process: &mut Process) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = get(address, "/readyz");
        if let Some((code, body)) = &answer
            && *code == status
        {
            return body.clone();
        }
        let problem = if !process.is_running() {
            "the process has ended"
        } else if Instant::now() > deadline {
            "deadline"
        } else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        panic!("/readyz did not give {status} ({problem}), but {answer:?}:\n{}", process.log());
    }
}

/// One metric's value.
pub fn metric(address: IpAddr, name: &str) -> u64 {
    let (_, page) = get(address, "/metrics").unwrap();
    let line = page.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in:\n{page}")).rsplit(' ').next().unwrap().parse().unwrap()
}
