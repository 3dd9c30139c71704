//! `sipedge-proxy boot`: from instance metadata to ready, and one clear line with an exit code for each way to fail.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket;
use process::imds::{Imds, State, Trouble};
use process::sip::Agent;
use process::{ADMIN, EGRESS, INGRESS, Process, address, config, folder, get, user_data, wait_for_readyz};
use sipedge_proxy::config::{Advertise, Config, SecretRef, Target};

/// The configuration that an instance gets: without its address.
fn instance(number: u8) -> Config {
    let mut config = config(address(number), address(200), "198.51.100.7:5060".parse().unwrap());
    config.listen.address = None;
    config
}

fn state(number: u8, config: &Config) -> State {
    State { private: Some(address(number)), user_data: Some(user_data(config).into_bytes()), ..State::default() }
}

fn boot(imds: &Imds, secrets: &Path, deadline: &str) -> Process {
    let url = imds.url();
    let control = secrets.join("control.sock");
    let (secrets, control) = (secrets.to_str().unwrap(), control.to_str().unwrap());
    let service = ["--secrets", secrets, "--control", control, "--metadata-deadline", deadline];
    Process::start(["boot", "--metadata", &url].into_iter().chain(service))
}

/// Boots and returns the line of the failure.
fn failure(state: State, config: &Config, code: i32) -> String {
    let folder = folder(config);
    boot(&Imds::start(state), folder.path(), "1").wait_for_failure(code)
}

#[test]
fn metadata_that_comes_late_is_waited_for() {
    let config = instance(10);
    let folder = folder(&config);
    let trouble = [Trouble::Status(503), Trouble::Close, Trouble::Silence, Trouble::Status(500), Trouble::Status(429)];
    let state = State { trouble: trouble.into(), token_uses: Some(1), ..state(10, &config) };
    let imds = Imds::start(state);
    let mut process = boot(&imds, folder.path(), "60");
    assert_eq!(wait_for_readyz(address(10), 200, &mut process), "ready\n");
    let log = imds.log();
    assert!(log[..6].iter().all(|request| request == "PUT /latest/api/token"), "{log:?}");
    assert_eq!(
        log.iter().filter(|request| request.starts_with("PUT")).count(),
        7,
        "a forgotten token is renewed: {log:?}"
    );
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
}

#[test]
fn one_port_serves_both_roles() {
    let mut config = config(address(23), address(200), "198.51.100.7:5060".parse().unwrap());
    config.listen.egress_port = INGRESS;
    let (mut process, _folder) = Process::run(&config);
    wait_for_readyz(address(23), 200, &mut process);
    let egress = Agent::bind(address(23), EGRESS);
    assert_eq!(egress.address.port(), EGRESS, "no other port is taken");
}

#[test]
fn metadata_that_never_comes_is_an_error_after_the_deadline() {
    let config = instance(11);
    let trouble = (0..100).map(|_| Trouble::Status(503)).collect();
    let line = failure(State { trouble, ..state(11, &config) }, &config, 4);
    assert!(line.starts_with("sipedge-proxy: instance metadata: http://127.0.0.1:"), "{line}");
    assert!(line.ends_with("/latest/api/token: no answer within 1 s: 503 Service Unavailable"), "{line}");
}

#[test]
fn a_service_that_refuses_is_not_asked_again() {
    let config = instance(12);
    let line = failure(State { trouble: [Trouble::Status(403)].into(), ..state(12, &config) }, &config, 4);
    assert!(
        line.ends_with("403 Forbidden; the instance's metadata options have to enable the HTTP endpoint"),
        "{line}"
    );
}

#[test]
fn user_data_that_cannot_be_used_is_refused_precisely() {
    let config = instance(13);
    let good = user_data(&config);
    let routes = good.lines().position(|line| line == "routes:").unwrap() + 1;
    let unknown = format!("user-data:{routes}:1: unknown field `rout`");
    let cases = [
        (
            None,
            4,
            "instance metadata: no user-data: the instance was launched without; launch it with the user-data of `sipedge plan`",
        ),
        (
            Some(good.lines().skip(1).collect::<Vec<_>>().join("\n").into_bytes()),
            3,
            "user-data:1:1: the first line has to be `#sipedge-user-data 1`, but is `version: 1`",
        ),
        (
            Some(good.replace("#sipedge-user-data 1", "#sipedge-user-data 9").into_bytes()),
            3,
            "user-data:1:1: user-data format \"9\": this build reads format 1 (first line `#sipedge-user-data 1`)",
        ),
        (
            Some(b"\x1f\x8b\x08".to_vec()),
            3,
            "user-data:1:1: is not UTF-8 text: write it as `sipedge plan` renders it, neither compressed nor encoded",
        ),
        (Some(good.replace("routes:", "rout:").into_bytes()), 3, unknown.as_str()),
    ];
    for (user_data, code, message) in cases {
        let line = failure(State { user_data, ..state(13, &config) }, &config, code);
        assert!(line.starts_with(&format!("sipedge-proxy: {message}")), "{line}");
    }
}

#[test]
fn without_a_public_address_there_is_nothing_to_advertise() {
    let mut config = instance(14);
    config.advertise = Advertise::Metadata;
    let line = failure(state(14, &config), &config, 4);
    assert_eq!(
        line,
        "sipedge-proxy: instance metadata: no public-ipv4, but the configuration says `advertise: metadata`: associate an \
         Elastic IP, or advertise the load balancer's address by `advertise: !host`"
    );
}

#[test]
fn a_public_address_that_is_associated_late_is_waited_for() {
    let mut config = instance(15);
    config.advertise = Advertise::Metadata;
    let folder = folder(&config);
    let imds = Imds::start(state(15, &config));
    let mut process = boot(&imds, folder.path(), "60");
    let asked = || imds.log().iter().filter(|request| request.ends_with("public-ipv4")).count() > 1;
    let deadline = std::time::Instant::now() + process::DEADLINE;
    while !asked() {
        assert!(std::time::Instant::now() < deadline, "public-ipv4 is asked for once only");
        std::thread::sleep(Duration::from_millis(5));
    }
    imds.change(|state| state.public = Some("203.0.113.9".parse().unwrap()));
    wait_for_readyz(address(15), 200, &mut process);
    process.wait_for_log("203.0.113.9");
}

#[test]
fn secrets_that_are_missing_or_malformed_are_named_and_not_shown() {
    let mut config = instance(16);
    let secrets = tempfile::tempdir().unwrap();
    let imds = Imds::start(state(16, &config));
    let line = boot(&imds, secrets.path(), "5").wait_for_failure(5);
    assert!(line.contains("/token-keys.json: No such file or directory"), "{line}");

    std::fs::write(secrets.path().join("token-keys.json"), "{\"branch\":\n 12345}").unwrap();
    let line = boot(&imds, secrets.path(), "5").wait_for_failure(5);
    assert!(line.contains("/token-keys.json:2:"), "{line}");
    assert!(!line.contains("12345"), "{line}");

    config.secrets.token_keys = SecretRef::Ssm("/sipedge/test/token-keys".into());
    config.listen.address = Some(address(16));
    let (mut process, _folder) = Process::run(&config);
    assert_eq!(
        process.wait_for_failure(5),
        "sipedge-proxy: secrets.token_keys: !ssm \"/sipedge/test/token-keys\": `run` knows no instance whose role could read it; \
         use `boot` on an instance, or `!file`"
    );
}

#[test]
fn ports_that_are_taken_are_named() {
    let config = instance(17);
    let taken = Agent::bind(address(17), EGRESS);
    let line = failure(state(17, &config), &config, 6);
    let (ip, port) = (address(17), EGRESS);
    assert!(
        line.starts_with(&format!("sipedge-proxy: cannot bind UDP {ip}:{port} (egress): Address already in use")),
        "{line}"
    );
    drop(taken);

    let taken = std::net::TcpListener::bind((ip, ADMIN)).unwrap();
    let line = failure(state(17, &config), &config, 6);
    assert!(
        line.starts_with(&format!("sipedge-proxy: cannot bind TCP {ip}:{ADMIN} (admin): Address already in use")),
        "{line}"
    );
    drop(taken);
}

#[test]
fn a_second_proxy_on_the_same_ports_does_not_start() {
    let mut config = config(address(18), address(200), "198.51.100.7:5060".parse().unwrap());
    let (mut first, _folder) = Process::run(&config);
    wait_for_readyz(address(18), 200, &mut first);
    config.admin.port += 1;
    let (mut second, _folder) = Process::run(&config);
    let line = second.wait_for_failure(6);
    assert!(line.contains(&format!("cannot bind UDP {}:{INGRESS} (ingress)", address(18))), "{line}");
}

/// A carrier that calls from before the boot until the instance is ready gets no answer before.
#[test]
fn nothing_answers_sip_before_ready() {
    let caller = Agent::bind(address(200), 0);
    let config = instance(19);
    let folder = folder(&config);
    let imds =
        Imds::start(State { trouble: [Trouble::Status(503), Trouble::Status(503)].into(), ..state(19, &config) });
    let mut process = boot(&imds, folder.path(), "60");
    let edge: std::net::SocketAddr = (address(19), INGRESS).into();
    let mut tries = 0;
    let answer = loop {
        tries += 1;
        assert!(tries < 10_000 && process.is_running(), "no answer at all:\n{}", process.log());
        let options = caller.request("OPTIONS", &format!("sip:{}", address(19)), &format!("early-{tries}"));
        let _ = caller.socket.send_to(options.as_bytes(), edge);
        if let Some(answer) = caller.next(Duration::from_millis(2)) {
            break answer;
        }
    };
    assert!(tries > 10, "the first tries came before the boot");
    assert!(answer.first_line().starts_with("SIP/2.0 "), "{answer:?}");
    // The engine was opened just before: ready follows at once.
    wait_for_readyz(address(19), 200, &mut process);
    let self_call = process.log();
    assert!(self_call.contains("ready") && self_call.contains("self_call_ms="), "{self_call}");
}

/// A socket of the same user takes all datagrams away from the ingress port: bound while the instance waits for a name server that
/// says nothing, and before it calls itself.
#[test]
fn an_instance_that_cannot_call_itself_does_not_get_ready() {
    let silent = Agent::bind(address(201), 0);
    let mut config = instance(20);
    config.trunks[1].targets = vec![Target::new("sip:pstn.example")];
    config.dns.servers = vec![silent.address];
    let folder = folder(&config);
    let imds = Imds::start(state(20, &config));
    let (url, secrets) = (imds.url(), folder.path().to_str().unwrap());
    let control = format!("{secrets}/control.sock");
    let service = ["--secrets", secrets, "--control", &control, "--self-call-deadline", "2"];
    let mut process = Process::start(["boot", "--metadata", &url].into_iter().chain(service));
    let body = wait_for_readyz(address(20), 503, &mut process);
    assert_eq!(body, "not ready: waiting for the name servers\n");
    let thief = steal((address(20), INGRESS).into(), 2);

    process.wait_for_log("self-call: shard 0");
    assert_eq!(get(address(20), "/readyz"), Some((503, "not ready: placing a call through itself\n".into())));
    assert_eq!(get(address(20), "/healthz"), Some((200, "alive\n".into())));
    let line = process.wait_for_failure(7);
    assert_eq!(
        line,
        "sipedge-proxy: self-call: shard 0: the INVITE at the called side did not arrive within 1 s; the instance does not get ready"
    );
    drop(thief);
}

/// A socket that gets everything that arrives at a port which `others` sockets of this user share already.
fn steal(address: std::net::SocketAddr, others: u32) -> std::os::fd::OwnedFd {
    let (family, flags) = (socket::AddressFamily::Inet, socket::SockFlag::SOCK_CLOEXEC);
    let fd = socket::socket(family, socket::SockType::Datagram, flags, None).unwrap();
    socket::setsockopt(&fd, socket::sockopt::ReusePort, &true).unwrap();
    socket::bind(fd.as_raw_fd(), &socket::SockaddrStorage::from(address)).unwrap();
    // The program of one instruction chooses the socket by its place in the order of binding.
    let mut choose = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: others };
    let program = libc::sock_fprog { len: 1, filter: &raw mut choose };
    socket::setsockopt(&fd, socket::sockopt::AttachReusePortCbpf, &program).unwrap();
    fd
}

#[test]
fn sigterm_before_ready_ends_at_once() {
    let config = instance(21);
    let folder = folder(&config);
    let trouble = (0..100).map(|_| Trouble::Status(503)).collect();
    let imds = Imds::start(State { trouble, ..state(21, &config) });
    let mut process = boot(&imds, folder.path(), "60");
    let deadline = std::time::Instant::now() + process::DEADLINE;
    while imds.log().is_empty() {
        assert!(std::time::Instant::now() < deadline, "the metadata service was not asked");
        std::thread::sleep(Duration::from_millis(5));
    }
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(0));
    process.wait_for_log("told to end before it was ready");
}

#[test]
fn run_needs_an_address_and_no_metadata() {
    let mut config = instance(22);
    let (mut process, _folder) = Process::run(&config);
    let line = process.wait_for_failure(3);
    assert!(
        line.ends_with("listen.address: missing: `run` has no metadata to take it from; write the address"),
        "{line}"
    );

    config.listen.address = Some(address(22));
    config.advertise = Advertise::Metadata;
    let (mut process, _folder) = Process::run(&config);
    let line = process.wait_for_failure(3);
    assert!(line.contains("advertise: metadata: `run` reads no instance metadata"), "{line}");
}

#[test]
fn an_instance_that_persists_says_why_it_is_not_ready_and_tries_again() {
    let config = instance(24);
    let folder = folder(&config);
    let keys = folder.path().join("token-keys.json");
    let there = std::fs::read(&keys).unwrap();
    std::fs::remove_file(&keys).unwrap();
    let imds = Imds::start(state(24, &config));
    let (url, control) = (imds.url(), folder.path().join("control.sock"));
    let (secrets, control) = (folder.path().to_str().unwrap(), control.to_str().unwrap());
    let mut process =
        Process::start(["boot", "--persist", "--metadata", &url, "--secrets", secrets, "--control", control]);
    let said = wait_for_readyz(address(24), 503, &mut process);
    assert!(said.starts_with("not ready: ") && said.contains("token-keys.json"), "{said}");
    process.wait_for_log("exit_code=5");
    std::fs::write(&keys, there).unwrap();
    assert_eq!(wait_for_readyz(address(24), 200, &mut process), "ready\n");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
}
