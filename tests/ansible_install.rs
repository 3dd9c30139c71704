//! The playbooks on a plain Debian 12 host, which runs systemd in a container: installed, called, closed to all but the edge's doors,
//! installed again without a change, removed without a trace.
//!
//! Takes some 90 s.

#[path = "support/host.rs"]
mod host;
#[path = "support/project.rs"]
mod support;
#[path = "support/tools.rs"]
mod tools;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use host::{CALLEE, CALLER, HOST, Host, METADATA};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use serde_json::json;
use sipedge::deploy::TokenKeys;
use support::{sipedge, skip};
use tools::Done;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long something that must not come is waited for: what comes at all comes within a millisecond.
const SILENCE: Duration = Duration::from_millis(500);

/// The health port of the configuration: another than the usual one, so that what is open is what it names.
const HEALTH: u16 = 9090;

/// A port that the configuration does not name.
const CLOSED: u16 = 9999;

#[test]
fn a_plain_host_is_an_edge_and_then_a_plain_host_again() {
    let test = "a_plain_host_is_an_edge_and_then_a_plain_host_again";
    if tools::python_tool("ansible-playbook").is_none() {
        return skip(test, "ansible is not installed: run tests/setup");
    }
    let Some(host) = Host::boot(test) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (config, secrets) = (folder.path().join("config.yaml"), folder.path().join("secrets"));
    fs::write(&config, configuration()).expect("written");
    fs::create_dir(&secrets).expect("a folder");
    let keys = TokenKeys::generate().expect("random numbers");
    fs::write(secrets.join("token-keys.json"), serde_json::to_vec(&keys).expect("JSON")).expect("written");
    let settings = json!({ "sipedge_proxy_binary": sipedge().with_file_name("sipedge-proxy"), "sipedge_config": config, "sipedge_secrets": secrets });
    let (files, packages) = (host.tree(), packages(&host));

    let first = play(&host, "install.yml", &settings);
    assert!(changed(&first) > 0, "{first}");
    call(&host, "first");
    only_the_doors_are_open(&host);
    // Debian's own rules, and whoever makes the table anew, take the ports away: they come again.
    host.run(&["systemctl", "restart", "sipedge-firewall.service"]).expect("restarted");
    await_doors(&host);
    call(&host, "again");
    the_metadata_are_the_proxys(&host);
    the_service_reloads_and_is_confined(&host);

    let second = play(&host, "install.yml", &settings);
    assert_eq!(changed(&second), 0, "the second run changes something:\n{second}");

    let removed = play(&host, "uninstall.yml", &json!({}));
    assert!(changed(&removed) > 0, "{removed}");
    assert_eq!(difference(&packages, &self::packages(&host)), Vec::<String>::new(), "packages differ");
    assert_eq!(difference(&files, &host.tree()), Vec::<String>::new(), "files differ");
    let tables = host.inside(|| tools::run(std::process::Command::new("nft").args(["list", "tables"])));
    assert!(!tables.said.contains("sipedge"), "{}", tables.said);
    let again = play(&host, "uninstall.yml", &json!({}));
    assert_eq!(changed(&again), 0, "there was something left to remove:\n{again}");
}

/// The configuration of the page is one, its ports are those that it says, and each of its commands names a playbook and settings that there are.
#[test]
fn what_the_page_shows_is_taken() {
    let page = fs::read_to_string(support::repository().join("docs/install.md")).expect("readable");
    let config = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a configuration");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    fs::write(&file, config).expect("written");
    let proxy = sipedge().with_file_name("sipedge-proxy");
    tools::run(std::process::Command::new(&proxy).arg("check").arg(&file)).expect("it is accepted");
    let doors = tools::run(std::process::Command::new(&proxy).args(["doors", "--config"]).arg(&file)).expect("ports");
    assert!(doors.contains("sip_udp { 5060 }") && doors.contains("sip_tcp { 5060 }"), "{doors}");

    let ansible = support::repository().join("ansible");
    let settings = fs::read_to_string(ansible.join("group_vars/all.yml")).expect("readable");
    let commands: Vec<&str> = page.lines().filter(|line| line.starts_with("$ ansible-playbook ")).collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    for playbook in commands.iter().flat_map(|line| line.split(' ')).filter(|word| word.ends_with(".yml")) {
        assert!(ansible.join(playbook).is_file(), "{playbook}");
    }
    let words = page.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    let named: Vec<&str> = words.filter(|word| word.starts_with("sipedge_")).collect();
    assert!(named.len() >= 9, "{named:?}");
    for name in named {
        assert!(settings.contains(&format!("\n{name}: ")), "{name} is no setting");
    }
}

fn configuration() -> String {
    format!(
        "version: 1\nedge: plain\nlisten: {{ address: {HOST}, ingress_port: 5060, egress_port: 5080, shards: 1 }}\nadvertise: listen\n\
         admin: {{ port: {HEALTH} }}\ndns: {{ servers: [] }}\nsecrets: {{ token_keys: !file token-keys.json }}\ntrunks:\n  \
         - {{ name: source, from: [{CALLER}/32] }}\n  - {{ name: destination, targets: [{{ uri: \"sip:{CALLEE}\" }}] }}\nroutes:\n  \
         - {{ from: source, to: destination }}\nrefuse: answer\n\
         timers: {{ t1_ms: 500, t2_ms: 4000, t4_ms: 5000, response_ms: 5000, invite_ms: 30000, call_ms: 14400000 }}\n\
         budgets: {{ transactions: 5000, message_bytes: 16777216, counted_calls: 1000 }}\n\
         drain: {{ accept_ms: 100, grace_ms: 1000, retry_after_s: 5 }}\n"
    )
}

#[track_caller]
fn play(host: &Host, name: &str, settings: &serde_json::Value) -> String {
    let Done { succeeded, said } = host.playbook(name, settings).expect("ansible is there");
    assert!(succeeded, "{name}:\n{said}\n{}", host.run(&["journalctl", "--lines", "40", "--no-pager"]).said);
    said
}

/// How much a playbook has changed, by its own last line.
#[track_caller]
fn changed(said: &str) -> u32 {
    let number = said.rsplit_once("changed=").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no summary in {said}"))
}

fn packages(host: &Host) -> BTreeMap<String, String> {
    let said = host.run(&["dpkg-query", "--show", "--showformat", "${Package}\t${Status}\n"]).expect("packages");
    said.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, state)| (name.to_owned(), state.to_owned()))
        .collect()
}

fn difference(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let gone = before
        .iter()
        .filter(|(name, line)| after.get(*name) != Some(line))
        .map(|(name, line)| format!("- {name} {line}"));
    let new = after
        .iter()
        .filter(|(name, line)| before.get(*name) != Some(line))
        .map(|(name, line)| format!("+ {name} {line}"));
    gone.chain(new).collect()
}

/// INVITE, 200, ACK and BYE from the caller's carrier to the callee's, through the host. `name`: another for each call.
fn call(host: &Host, name: &str) {
    let bind = |address: &str| {
        let address = format!("{address}:5060");
        let socket = host.outside(move || UdpSocket::bind(address)).expect("bound");
        socket.set_read_timeout(Some(ANSWER)).expect("a timeout");
        socket
    };
    let (caller, callee) = (bind(CALLER), bind(CALLEE));
    let edge: SocketAddr = format!("{HOST}:5060").parse().expect("an address");
    let request = |method: &str, number: u8, uri: &str, routes: &str, to: &str| {
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER}:5060;branch=z9hG4bK{name}{number};rport\r\nMax-Forwards: 70\r\n{routes}\
             From: <sip:+15550100@{CALLER}>;tag=a\r\nTo: {to}\r\nCall-ID: {name}@{CALLER}\r\nCSeq: {} {method}\r\n\
             Contact: <sip:{CALLER}:5060>\r\nContent-Length: 0\r\n\r\n",
            if method == "ACK" { 1 } else { number }
        )
    };
    let to = format!("<sip:+15550101@{HOST}>");
    caller.send_to(request("INVITE", 1, &format!("sip:+15550101@{HOST}"), "", &to).as_bytes(), edge).expect("sent");
    let (invite, from) = receive(&callee, "INVITE ");
    let to = format!("{to};tag=b");
    callee.send_to(answer(&invite, &to).as_bytes(), from).expect("sent");
    let answered = receive(&caller, "SIP/2.0 200").0;
    // The route set of a caller is the answer's, the other way round (RFC 3261 §12.1.2).
    let mut routes: Vec<String> =
        headers(&answered, "Record-Route").into_iter().map(|route| format!("Route: {route}\r\n")).collect();
    routes.reverse();
    let (routes, target) = (routes.concat(), format!("sip:{CALLEE}:5060"));
    assert!(!routes.is_empty(), "the edge stays in the call's way: {answered}");
    caller.send_to(request("ACK", 2, &target, &routes, &to).as_bytes(), edge).expect("sent");
    receive(&callee, "ACK ");
    caller.send_to(request("BYE", 3, &target, &routes, &to).as_bytes(), edge).expect("sent");
    let (bye, from) = receive(&callee, "BYE ");
    callee.send_to(answer(&bye, &to).as_bytes(), from).expect("sent");
    assert!(receive(&caller, "SIP/2.0 200").0.contains("CSeq: 3 BYE"));
}

/// The next message that begins so; others, such as 100 Trying and what is sent again, are passed over.
#[track_caller]
fn receive(socket: &UdpSocket, beginning: &str) -> (String, SocketAddr) {
    let mut buffer = [0; 4096];
    let mut others = Vec::new();
    for _ in 0..20 {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { break };
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if message.starts_with(beginning) {
            return (message, from);
        }
        others.push(message);
    }
    panic!("no {beginning:?} within {ANSWER:?}, but {others:?}");
}

fn answer(request: &str, to: &str) -> String {
    let mut text = String::from("SIP/2.0 200 OK\r\n");
    for name in ["Via", "Record-Route", "From", "Call-ID", "CSeq"] {
        for value in headers(request, name) {
            text += &format!("{name}: {value}\r\n");
        }
    }
    text + &format!("To: {to}\r\nContact: <sip:{CALLEE}:5060>\r\nContent-Length: 0\r\n\r\n")
}

fn headers(message: &str, name: &str) -> Vec<String> {
    message.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned).collect()
}

/// From the carrier's side: the health page answers, and a port on which something listens that is no door of the edge is silent.
fn only_the_doors_are_open(host: &Host) {
    let listeners = host.inside(|| {
        let tcp = TcpListener::bind((HOST, CLOSED)).expect("a free port");
        let udp = UdpSocket::bind((HOST, CLOSED)).expect("a free port");
        tcp.set_nonblocking(true).expect("a socket");
        udp.set_read_timeout(Some(SILENCE)).expect("a socket");
        // They work: what is silent below is the firewall.
        TcpStream::connect_timeout(&address(CLOSED), ANSWER).expect("from the host itself it is open");
        tcp.accept().expect("it came");
        (tcp, udp)
    });
    // All ports but 22, which stays open for whoever runs Ansible, with many at a time: what is closed says nothing.
    let open = host.outside(|| {
        let mut open = Vec::new();
        for ports in (1..=u16::MAX).collect::<Vec<_>>().chunks(512) {
            let tries: Vec<_> = ports.iter().map(|port| (*port, connecting(*port))).collect();
            std::thread::sleep(Duration::from_millis(20));
            open.extend(
                tries
                    .into_iter()
                    .filter(|(_, tried)| socket::getpeername::<SockaddrStorage>(tried.as_raw_fd()).is_ok())
                    .map(|(port, _)| port),
            );
        }
        open
    });
    assert_eq!(open, [HEALTH], "the ports that are open for TCP");
    host.outside(|| {
        let mut health = TcpStream::connect_timeout(&address(HEALTH), ANSWER).expect("the health page is open");
        health.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").expect("sent");
        let mut page = String::new();
        health.read_to_string(&mut page).expect("an answer");
        assert!(page.contains("200 OK"), "{page}");
        UdpSocket::bind((CALLER, 0)).expect("a port").send_to(b"x", address(CLOSED)).expect("sent");
    });
    let error = listeners.1.recv_from(&mut [0; 8]).expect_err("UDP is closed");
    assert!([ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()), "{error}");
    assert_eq!(listeners.0.accept().expect_err("TCP is closed").kind(), ErrorKind::WouldBlock);
}

/// Waits until the firewall knows the ports of the configuration.
fn await_doors(host: &Host) {
    let begun = Instant::now();
    loop {
        let sets = host.run(&["nft", "list", "table", "inet", "sipedge"]).said;
        if sets.contains("elements = { 5060, 5080 }") && sets.contains(&format!("elements = {{ {HEALTH} }}")) {
            return;
        }
        let log = || host.run(&["journalctl", "--unit", "sipedge-doors", "--lines", "20", "--no-pager"]).said;
        assert!(begun.elapsed() < ANSWER, "the ports are not there within {ANSWER:?}: {sets}\n{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::new(HOST.parse().expect("an address"), port)
}

/// A connection that is being set up.
fn connecting(port: u16) -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
    // What comes of it is seen later.
    let _ = socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address(port)));
    socket
}

/// The credentials of the instance's role are the proxy's, and not root's.
fn the_metadata_are_the_proxys(host: &Host) {
    let service = host.outside(|| TcpListener::bind((METADATA, 80)).expect("a port"));
    std::thread::spawn(move || {
        for mut stream in service.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nrole");
        }
    });
    let url = format!("http://{METADATA}/");
    let ask = |user: &str| {
        host.run(&[
            "setpriv",
            "--reuid",
            user,
            "--clear-groups",
            "--",
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            "5",
            &url,
        ])
    };
    let allowed = ask("sipedge");
    assert!(allowed.succeeded && allowed.said.ends_with("role"), "{}", allowed.said);
    for user in ["root", "nobody"] {
        // Refused at once (curl's code 7), not silent until the time is up (28).
        let refused = ask(user);
        assert!(!refused.succeeded && refused.said.contains("curl: (7)"), "{user}: {}", refused.said);
    }
}

/// What systemd does with the service: a reload is waited for, and its sandbox holds.
fn the_service_reloads_and_is_confined(host: &Host) {
    host.run(&["systemctl", "reload", "sipedge-proxy.service"]).expect("reloaded");
    let shown =
        host.run(&["systemctl", "show", "--property", "User,NRestarts,ActiveState", "sipedge-proxy.service"]).said;
    for part in ["User=sipedge", "NRestarts=0", "ActiveState=active"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    for unit in ["sipedge-proxy.service", "sipedge-doors.service"] {
        let exposure = host.run(&["systemd-analyze", "security", "--no-pager", "--threshold=20", unit]);
        assert!(exposure.succeeded, "{unit}: {}", exposure.said);
    }
}
