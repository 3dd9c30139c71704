//! A lab without a deploy: plans written by hand, and a stand-in for the appliance.

#![allow(dead_code, reason = "each test file uses its part of this module")]

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Once;

use nix::sys::socket::{Backlog, SockaddrStorage, connect, listen, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use sipedge::plan::{
    Carrier, CarrierDomain, CarrierRange, FlowTimeouts, HealthCheck, Listener, Network, Plan, Protocol, Scaling,
    Spreading, TargetKind, Topology, VerifyPlan, Zone,
};
use sipedge::target::lab::{InstanceId, Lab, LabStatus};
use sipedge_proxy::config;

use crate::support::{BINARY_VARIABLE, DEADLINE, eventually, lab_forbidden, program, skip};

/// Carrier of the plan's source trunk.
pub(crate) const SOURCE: &str = "source-carrier";
/// Carrier of the plan's destination trunk.
pub(crate) const DESTINATION: &str = "destination-carrier";
pub(crate) const INGRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub(crate) const EGRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
pub(crate) const INGRESS_PORT: u16 = 5060;
pub(crate) const EGRESS_PORT: u16 = 5080;
pub(crate) const TLS_PORT: u16 = 5061;
/// The program that stands in for the appliance, and the variable that names it.
pub(crate) const STAND_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/instance.py");
pub(crate) const PROXY_VARIABLE: &str = "SIPEDGE_PROXY";
const ADMIN_PORT: u16 = 8080;
/// How long a connection may take to be set up: through the lab it takes less than a millisecond, and a SYN is sent again after 1 s.
const SETUP_MS: i64 = 3_000;

/// A lab in a folder of its own, destroyed at the end of the test.
pub(crate) struct TestLab {
    lab: Option<Lab>,
    pub(crate) folder: PathBuf,
    _above: tempfile::TempDir,
}

impl std::ops::Deref for TestLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab.as_ref().expect("the lab is up")
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if let Some(lab) = self.lab.take() {
            lab.destroy().expect("destroy");
        }
    }
}

impl TestLab {
    /// Starts a lab with `count` healthy instances; none when this machine cannot have one.
    pub(crate) fn start(plan: &Plan, count: usize) -> Option<Self> {
        if !use_stand_in() {
            return None;
        }
        let above = tempfile::tempdir().expect("a folder");
        let folder = above.path().join("lab");
        let lab = Lab::start(plan, &folder).expect("start");
        let lab = Self { lab: Some(lab), folder, _above: above };
        let ids: Vec<InstanceId> = (0..count).map(|_| lab.add_instance().expect("add")).collect();
        for id in ids {
            lab.wait_healthy(&id, DEADLINE).expect("healthy");
        }
        Some(lab)
    }

    /// Hands the lab to the test, which ends it.
    pub(crate) fn take(&mut self) -> Lab {
        self.lab.take().expect("the lab is up")
    }

    /// The body of `GET path` from an instance, which must answer 200.
    pub(crate) fn get(&self, id: &str, path: &str) -> String {
        let (status, body) = self.http_get(&InstanceId(id.to_owned()), path).expect("GET");
        assert_eq!(status, 200, "GET {path} from {id}: {body}");
        body
    }

    /// Status code of `GET path` from an instance.
    pub(crate) fn code(&self, id: &str, path: &str) -> u16 {
        self.http_get(&InstanceId(id.to_owned()), path).expect("GET").0
    }

    /// A UDP socket in a namespace, with a receive timeout.
    pub(crate) fn socket(&self, namespace: &str, address: Ipv4Addr, port: u16) -> UdpSocket {
        let socket = self.udp_socket(namespace, SocketAddr::new(address.into(), port)).expect("socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
        socket
    }

    /// A TCP connection from a namespace to the edge, from a port that the kernel chooses.
    pub(crate) fn connect(&self, namespace: &str, from: Ipv4Addr, to: (Ipv4Addr, u16)) -> std::io::Result<TcpStream> {
        let socket = self.tcp_socket(namespace, SocketAddr::new(from.into(), 0)).expect("socket");
        // Before the connection, so that one that is refused by silence ends.
        setsockopt(&socket, sockopt::SendTimeout, &TimeVal::milliseconds(SETUP_MS)).expect("timeout");
        connect(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from(to)))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("timeout");
        Ok(stream)
    }

    /// A TCP listener in a namespace.
    pub(crate) fn listen(&self, namespace: &str, address: Ipv4Addr, port: u16) -> TcpListener {
        let socket = self.tcp_socket(namespace, SocketAddr::new(address.into(), port)).expect("socket");
        listen(&socket, Backlog::new(8).expect("backlog")).expect("listen");
        TcpListener::from(socket)
    }
}

/// Sends a line by a connection and awaits its echo; an error when the connection is gone.
pub(crate) fn echo_line(stream: &TcpStream, text: &str) -> std::io::Result<Echo> {
    let mut writer = stream;
    writer.write_all(format!("{text}\n").as_bytes())?;
    let mut line = String::new();
    // A line at a time is in flight, so the buffer never takes the next one along.
    if BufReader::new(stream).read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    assert_eq!(words[3], text, "echo of another line");
    let (port, source) = (words[1].parse().expect("port"), words[2].parse().expect("source"));
    Ok(Echo { instance: words[0].to_owned(), port, source, from: stream.peer_addr()? })
}

/// One echo through the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Echo {
    pub(crate) instance: String,
    pub(crate) port: u16,
    /// The source that the instance saw.
    pub(crate) source: SocketAddr,
    /// Where the echo came from.
    pub(crate) from: SocketAddr,
}

/// Sends `text` to the ingress address and awaits its echo.
pub(crate) fn echo(socket: &UdpSocket, text: &str) -> Echo {
    socket.send_to(text.as_bytes(), (INGRESS, INGRESS_PORT)).expect("send");
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("an echo within the deadline");
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let words: Vec<&str> = answer.split(' ').collect();
    assert_eq!(words[3], text, "echo of another datagram");
    let (port, source) = (words[1].parse().expect("port"), words[2].parse().expect("source"));
    Echo { instance: words[0].to_owned(), port, source, from }
}

/// Awaits a datagram: its text and source.
pub(crate) fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram within the deadline");
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

/// Awaits a status that satisfies `condition`.
pub(crate) fn await_status(lab: &Lab, what: &str, condition: impl Fn(&LabStatus) -> bool) {
    eventually(what, || condition(&lab.status().expect("status")));
}

/// Has this test's supervisors boot `instance.py` in place of `sipedge-proxy`, unless the environment says which already. False, and
/// the test is skipped, when this machine cannot have a lab with it.
#[must_use]
pub(crate) fn use_stand_in() -> bool {
    static ONCE: Once = Once::new();
    let missing = || program("python3").is_none().then(|| "it needs python3".to_owned());
    if let Some(reason) = lab_forbidden().or_else(missing) {
        skip(&this_test(), &reason);
        return false;
    }
    ONCE.call_once(|| {
        for (name, path) in [(PROXY_VARIABLE, STAND_IN), (BINARY_VARIABLE, env!("CARGO_BIN_EXE_sipedge"))] {
            if std::env::var_os(name).is_none() {
                set_variable(name, Path::new(path));
            }
        }
    });
    true
}

/// Name of the test that calls this: the test harness gives each a thread of that name.
pub(crate) fn this_test() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

#[expect(
    unsafe_code,
    reason = "std's set_var: the test's threads read the environment through std alone, which locks it"
)]
fn set_variable(name: &str, value: &Path) {
    // SAFETY: no thread of a test binary reads the environment other than through std.
    unsafe { std::env::set_var(name, value) };
}

/// A plan of the kind, with user-data for the stand-in.
pub(crate) fn plan(topology: Topology) -> Plan {
    let single = topology == Topology::SingleEc2;
    let egress_port = if single { INGRESS_PORT } else { EGRESS_PORT };
    let zones = if single { 1 } else { 3 };
    Plan {
        name: "test".to_owned(),
        topology,
        target: TargetKind::Lab,
        proxy: proxy(egress_port),
        user_data: user_data(egress_port, "serve"),
        network: Network {
            vpc: "10.0.0.0/16".parse().expect("range"),
            zones: (0..zones).map(zone).collect(),
            ingress_addresses: vec![INGRESS.into()],
            egress_addresses: vec![if single { INGRESS.into() } else { EGRESS.into() }],
            listeners: vec![
                Listener { port: INGRESS_PORT, protocol: Protocol::TcpUdp },
                Listener { port: TLS_PORT, protocol: Protocol::Tcp },
            ],
            spreading: Spreading::SourceIp,
            health_check: HealthCheck {
                port: ADMIN_PORT,
                path: "/readyz".to_owned(),
                interval_ms: 20,
                healthy: 2,
                unhealthy: 2,
            },
            flow_timeouts: FlowTimeouts { unreplied_s: 30, replied_s: 120, nat_s: 350, tcp_s: 350 },
        },
        scaling: Scaling { min: 1, max: 3 },
        carriers: vec![
            carrier(SOURCE, "192.0.2.0/26", "source.test", Ipv4Addr::new(192, 0, 2, 1)),
            carrier(DESTINATION, "198.51.100.0/30", "destination.test", Ipv4Addr::new(198, 51, 100, 3)),
        ],
        verify: VerifyPlan { calls: Vec::new(), max_setup_ms: 1000, operators: Vec::new() },
        certificates: Vec::new(),
        artefacts: Default::default(),
        defaults: Vec::new(),
        warnings: Vec::new(),
    }
}

/// User-data for the stand-in.
pub(crate) fn user_data(egress_port: u16, behave: &str) -> String {
    let advertised = sipedge::plan::INGRESS_ADDRESS;
    format!(
        r#"{{"ingress": {INGRESS_PORT}, "egress": {egress_port}, "tls": {TLS_PORT}, "admin": {ADMIN_PORT}, "behave": "{behave}", "advertise": "{advertised}"}}"#
    )
}

fn zone(index: u8) -> Zone {
    let subnet = |third: u8| format!("10.0.{third}.0/24").parse().expect("range");
    let letter = char::from(b'a' + index);
    Zone { name: format!("us-east-1{letter}"), public_subnet: subnet(index), private_subnet: subnet(100 + index) }
}

fn carrier(name: &str, range: &str, domain: &str, address: Ipv4Addr) -> Carrier {
    let range: ipnet::IpNet = range.parse().expect("range");
    Carrier {
        name: name.to_owned(),
        trunks: vec![name.to_owned()],
        ranges: vec![CarrierRange { real: range, used: range }],
        domains: vec![CarrierDomain { name: domain.to_owned(), addresses: vec![IpAddr::V4(address)] }],
    }
}

fn proxy(egress_port: u16) -> config::Config {
    config::Config {
        version: config::VERSION,
        edge: "test".to_owned(),
        listen: config::Listen::udp(INGRESS_PORT, egress_port),
        advertise: config::Advertise::Metadata,
        admin: config::Admin { port: ADMIN_PORT },
        dns: config::Dns { servers: Vec::new() },
        secrets: config::Secrets::new(config::SecretRef::File("token-keys.json".to_owned())),
        trunks: Vec::new(),
        routes: Vec::new(),
        refuse: config::Refuse::Answer,
        timers: config::Timers {
            t1_ms: 500,
            t2_ms: 4000,
            t4_ms: 5000,
            response_ms: 5000,
            invite_ms: 30000,
            call_ms: 3_600_000,
        },
        budgets: config::Budgets { transactions: 1000, message_bytes: 1 << 20, counted_calls: 1000 },
        streams: config::Streams::default(),
        drain: config::Drain { accept_ms: 0, grace_ms: 0, retry_after_s: 1 },
        cloud: None,
        answerer: None,
    }
}
