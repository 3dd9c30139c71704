//! What the debian image shows to the outside, as a machine of the lab: the doors of its configuration and no others, and, where it cannot use
//! its user-data, the reason in its health answer and on its console.
//!
//! Takes some 3 minutes, most of it boots under software emulation; the image comes from the cache when `image_debian` has run.

#[path = "support/image.rs"]
mod image;
#[path = "support/project.rs"]
mod support;
#[path = "support/tools.rs"]
mod tools;

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use image::Machines;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{SockaddrStorage, connect, getpeername};
use sipedge::image::{Flavour, Image};
use sipedge::target::lab::{InstanceId, VPC_NAMESPACE};
use support::{Project, program, repository, skip};

/// Carrier of the plan's source trunk.
const SOURCE: &str = "source-carrier";

/// Ports of the spec, and that of the health answer.
const SIP: u16 = 5062;
const EGRESS: u16 = 5082;
const HEALTH: u16 = 8080;

/// Longest time until machines have said what they have to say: three at a time boot on a host that may be busy.
const SAYS_SO: Duration = Duration::from_secs(600);

/// Time between two looks at a machine, which needs the processor itself.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Connections that are tried at a time, and how long a machine under software emulation has to answer them.
const AT_A_TIME: usize = 900;
const ANSWERS_WITHIN: Duration = Duration::from_millis(300);

/// How long an answer over UDP may take.
const ANSWER: Duration = Duration::from_secs(2);

/// UDP ports on which something listens in a Debian (resolver, LLMNR, time, DHCP's client), or often does.
const UDP_PORTS: [u16; 16] = [22, 53, 67, 68, 69, 111, 123, 137, 161, 323, 500, 514, 1900, 5061, 5353, 5355];

/// The image, built by the command that users type; none, and `test` is skipped, where that cannot be.
fn debian(test: &str) -> Option<Image> {
    if !image::possible(test) {
        return None;
    }
    let Some(ansible) = tools::python_tool("ansible-playbook").filter(|_| program("mksquashfs").is_some()) else {
        skip(test, "ansible or mksquashfs is missing: run tests/setup");
        return None;
    };
    let cache = image::cache();
    let build = ["build", "--flavour", "debian", "--cache", &cache.to_string_lossy()];
    image::image_with(&Project::new(), repository(), ansible.parent().expect("a folder"), &build).expect(0);
    Some(Image::newest(&cache, Flavour::Debian).expect("it was built"))
}

/// The address that a machine has in its subnet.
fn address(machines: &Machines, id: &InstanceId) -> std::net::IpAddr {
    let status = machines.status().expect("the lab runs");
    status.instances.iter().find(|instance| instance.id == *id).expect("it is there").address
}

#[test]
fn only_the_doors_of_the_configuration_are_open() {
    let Some(image) = debian("only_the_doors_of_the_configuration_are_open") else { return };
    // Other ports than the usual ones: what is open is what the spec names, not what the image was made with.
    let spec = format!("listen: {{ port: {SIP} }}\negress: {{ port: {EGRESS} }}\n");
    let machines = Machines::start_with(&image.disk(), false, &spec);
    let id = machines.add_instance().expect("booted");
    machines.wait_healthy(&id, SAYS_SO).expect("it gets ready");
    let instance = address(&machines, &id);

    // From the carrier's side, by the load balancer.
    let ingress = machines.status().expect("the lab runs").ingress_addresses[0];
    assert_eq!(open_tcp(&machines, SOURCE, ingress), [SIP], "TCP from the carrier");
    let said = ask(&machines, SOURCE, SocketAddr::new(ingress, SIP)).expect("SIP answers");
    assert!(said.starts_with("SIP/2.0 200"), "{said}");
    // From the subnet's router, with nothing between the two: the load balancer passes on no more than the listeners.
    let begun = Instant::now();
    let open = open_tcp(&machines, VPC_NAMESPACE, instance);
    eprintln!("TCP: 65535 ports in {} s: {open:?}", begun.elapsed().as_secs());
    assert_eq!(open, [SIP, HEALTH], "TCP from the subnet");
    for port in UDP_PORTS.into_iter().chain([5060, 5080]) {
        let answer = ask(&machines, VPC_NAMESPACE, SocketAddr::new(instance, port));
        assert_eq!(answer, None, "UDP port {port} answers");
    }
    // A stranger is refused by the proxy, not by the firewall.
    for port in [SIP, EGRESS] {
        let said = ask(&machines, VPC_NAMESPACE, SocketAddr::new(instance, port));
        assert!(said.as_deref().is_some_and(|said| said.starts_with("SIP/2.0 ")), "UDP port {port}: {said:?}");
    }
    machines.kill_instance(&id).expect("killed");
}

#[test]
fn a_machine_with_unusable_user_data_says_so_and_never_turns_ready() {
    let Some(image) = debian("a_machine_with_unusable_user_data_says_so_and_never_turns_ready") else { return };
    let machines = Machines::start(&image.disk(), false);
    let good = fs::read_to_string(machines.user_data()).expect("written by the start");
    let other = good.replacen("#sipedge-user-data 1", "#sipedge-user-data 2", 1);
    let cases = [
        (None, "no user-data"),
        (Some("#sipedge-user-data 1\ntrunks: [".to_owned()), "user-data:3:1: "),
        (Some(other), "user-data format \"2\": this build reads format 1"),
    ];
    // All at the same time: each reads its user-data once, when it is added.
    let ids = cases.map(|(user_data, reason)| {
        match &user_data {
            Some(text) => fs::write(machines.user_data(), text).expect("written"),
            None => fs::remove_file(machines.user_data()).expect("it was there"),
        }
        (machines.add_instance().expect("booted"), reason)
    });
    for (id, reason) in ids {
        let begun = Instant::now();
        let said = loop {
            match machines.health(&id) {
                Some((503, text)) => break text,
                Some((status, text)) => panic!("{status} {text}"),
                None => assert!(begun.elapsed() < SAYS_SO, "no health answer; {}", machines.console(&id)),
            }
            std::thread::sleep(LOOK_AGAIN);
        };
        eprintln!("{}: {said}", id);
        assert!(said.starts_with("not ready: ") && said.contains(reason), "{said}");
        // Tried again, and refused again: the lab's wait ends with the console.
        let error = machines.wait_healthy(&id, Duration::from_secs(5)).expect_err("it is not").to_string();
        assert!(error.contains("is not healthy"), "{error}");
        assert!(machines.console(&id).contains(reason), "{}", machines.console(&id));
        let instance = address(&machines, &id);
        let answer = ask(&machines, VPC_NAMESPACE, SocketAddr::new(instance, 5060));
        assert_eq!(answer, None, "SIP is closed as long as there is no configuration");
        machines.kill_instance(&id).expect("killed");
    }
}

/// The TCP ports of an address that take connections from a namespace.
fn open_tcp(machines: &Machines, namespace: &str, address: std::net::IpAddr) -> Vec<u16> {
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let mut open = Vec::new();
    for ports in (1..=u16::MAX).collect::<Vec<_>>().chunks(AT_A_TIME) {
        let begin = |port: u16| -> OwnedFd {
            let socket = machines.tcp_socket(namespace, any).expect("a socket");
            fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
            // What comes of it is seen later.
            let _ = connect(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, port)));
            socket
        };
        let tries: Vec<(u16, OwnedFd)> = ports.iter().map(|port| (*port, begin(*port))).collect();
        // Silence is the answer of a closed door, and has no end to wait for.
        std::thread::sleep(ANSWERS_WITHIN);
        let connected = |socket: &OwnedFd| getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok();
        open.extend(tries.iter().filter(|(_, socket)| connected(socket)).map(|(port, _)| *port));
    }
    open
}

/// What comes back over UDP when an OPTIONS is sent; `refused` where a machine says that nobody listens.
fn ask(machines: &Machines, namespace: &str, to: SocketAddr) -> Option<String> {
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let socket = machines.udp_socket(namespace, any).expect("a socket");
    socket.connect(to).expect("there is a way");
    socket.set_read_timeout(Some(ANSWER)).expect("set");
    let own = socket.local_addr().expect("an address");
    let request = format!(
        "OPTIONS sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKscan{};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:scan@{own}>;tag=a\r\nTo: <sip:{to}>\r\nCall-ID: scan{}@{own}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        to.port(),
        to.port()
    );
    socket.send(request.as_bytes()).expect("sent");
    let mut buffer = [0; 2048];
    match socket.recv(&mut buffer) {
        Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).into_owned()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Some("refused".to_owned()),
        Err(_) => None,
    }
}
