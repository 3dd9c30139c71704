//! The lab's network does what AWS's does: NLB, NAT gateway, Elastic IP, metadata, resolver.

#[path = "support/lab.rs"]
mod lab;
#[path = "support/project.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lab::{
    DESTINATION, EGRESS, EGRESS_PORT, INGRESS, INGRESS_PORT, SOURCE, TLS_PORT, TestLab, await_status, echo, echo_line,
    plan, receive,
};
use nix::sys::socket::{setsockopt, sockopt};
use sipedge::plan::{CarrierRange, Listener, Protocol, Spreading, Topology};
use sipedge::target::lab::{InstanceId, LabError, STRANGER_ADDRESS, STRANGER_NAMESPACE};
use support::{DEADLINE, eventually, is_alive, sipedge};

/// How long nothing must come before it counts as nothing: a datagram through the lab takes well under a millisecond.
const SILENCE: Duration = Duration::from_millis(200);

/// An address that nobody in the lab has.
const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);

fn id(name: &str) -> InstanceId {
    InstanceId(name.to_owned())
}

fn source(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

#[test]
fn spreads_by_source_address_and_answers_from_the_ingress_address() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 3) else { return };
    let mut served = BTreeMap::<String, u32>::new();
    for last in 0..48 {
        let (one, other) = (lab.socket(SOURCE, source(last), 5060), lab.socket(SOURCE, source(last), 5062));
        let (first, second) = (echo(&one, "first"), echo(&other, "second"));
        assert_eq!(first.from, SocketAddr::new(INGRESS.into(), INGRESS_PORT), "replies come from the ingress address");
        assert_eq!(first.source, SocketAddr::new(source(last).into(), 5060), "the target sees the client's address");
        assert_eq!(first.port, INGRESS_PORT);
        assert_eq!(first.instance, second.instance, "source-IP stickiness, whatever the port");
        *served.entry(first.instance).or_default() += 1;
    }
    assert_eq!(served.len(), 3, "every target gets a share: {served:?}");
    assert!(served.values().all(|count| *count >= 6), "shares are alike: {served:?}");
}

#[test]
fn spreads_by_five_tuple() {
    let mut plan = plan(Topology::LoadBalanced);
    plan.network.spreading = Spreading::FiveTuple;
    let Some(lab) = TestLab::start(&plan, 2) else { return };
    let served: BTreeSet<String> = (0..16)
        .map(|port| {
            let socket = lab.socket(SOURCE, source(1), 5060 + port);
            let first = echo(&socket, "first");
            assert_eq!(first.instance, echo(&socket, "second").instance, "a flow stays");
            first.instance
        })
        .collect();
    assert_eq!(served.len(), 2, "one source reaches both targets from different ports");
}

#[test]
fn a_carrier_has_every_address_of_its_ranges_single_ones_too() {
    let mut plan = plan(Topology::LoadBalanced);
    let single: ipnet::IpNet = "198.51.100.9/32".parse().expect("range");
    plan.carriers[1].ranges.push(CarrierRange { real: single, used: single });
    let Some(lab) = TestLab::start(&plan, 1) else { return };
    for address in [Ipv4Addr::new(198, 51, 100, 2), Ipv4Addr::new(198, 51, 100, 9)] {
        let answer = echo(&lab.socket(DESTINATION, address, 5060), "hello");
        assert_eq!(answer.source, SocketAddr::new(address.into(), 5060));
    }
}

#[test]
fn several_ingress_addresses_lead_to_the_same_targets() {
    let mut plan = plan(Topology::LoadBalanced);
    let second = Ipv4Addr::new(203, 0, 113, 11);
    plan.network.ingress_addresses.push(second.into());
    let Some(lab) = TestLab::start(&plan, 1) else { return };
    let socket = lab.socket(SOURCE, source(1), 5060);
    echo(&socket, "first");
    socket.send_to(b"second", (second, INGRESS_PORT)).expect("send");
    assert_eq!(receive(&socket).1, SocketAddr::new(second.into(), INGRESS_PORT));
}

#[test]
fn new_flows_leave_by_the_nat_gateway() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 2) else { return };
    let carrier = lab.socket(DESTINATION, Ipv4Addr::new(198, 51, 100, 3), 5060);
    for instance in ["i-1", "i-2"] {
        lab.get(instance, &format!("/send?from={EGRESS_PORT}&to=198.51.100.3:5060&text=hello"));
        let (text, from) = receive(&carrier);
        assert_eq!(text, "hello");
        assert_eq!(from.ip(), EGRESS, "the carrier sees the NAT address");
        assert_ne!(from.port(), EGRESS_PORT, "and a random port");
        carrier.send_to(format!("reply to {instance}").as_bytes(), from).expect("send");
        assert_eq!(lab.get(instance, "/replied"), format!("[\"reply to {instance}\"]"));
    }
    // Unsolicited datagrams to the NAT address reach nobody.
    carrier.set_read_timeout(Some(SILENCE)).expect("timeout");
    carrier.send_to(b"unsolicited", (EGRESS, EGRESS_PORT)).expect("send");
    carrier.send_to(b"unsolicited", (EGRESS, INGRESS_PORT)).expect("send");
    assert!(carrier.recv(&mut [0; 64]).is_err(), "nothing answers on the NAT address");
    for instance in ["i-1", "i-2"] {
        assert!(!lab.get(instance, "/seen").contains("unsolicited"));
    }
}

#[test]
fn an_instance_reaches_the_ingress_address_from_outside() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 1) else { return };
    lab.get("i-1", &format!("/send?from={EGRESS_PORT}&to={INGRESS}:{INGRESS_PORT}&text=hairpin"));
    eventually("the echo of the instance's own datagram comes back", || {
        lab.get("i-1", "/seen").contains(&format!("{INGRESS_PORT} {EGRESS}:"))
    });
}

#[test]
fn single_ec2_is_one_to_one() {
    let Some(lab) = TestLab::start(&plan(Topology::SingleEc2), 1) else { return };
    let carrier = lab.socket(SOURCE, source(7), 5060);
    let answer = echo(&carrier, "in");
    assert_eq!(answer.from, SocketAddr::new(INGRESS.into(), INGRESS_PORT));
    assert_eq!(answer.source, SocketAddr::new(source(7).into(), 5060));
    let other = lab.socket(DESTINATION, Ipv4Addr::new(198, 51, 100, 0), 5060);
    lab.get("i-1", &format!("/send?from={INGRESS_PORT}&to=198.51.100.0:5060&text=out"));
    let expected = SocketAddr::new(INGRESS.into(), INGRESS_PORT);
    assert_eq!(receive(&other), ("out".to_owned(), expected), "out by the Elastic IP, port kept");
    assert_eq!(lab.get("i-1", "/metadata?path=meta-data/public-ipv4"), INGRESS.to_string());
    assert!(matches!(lab.add_instance(), Err(LabError::Topology(_))), "one instance");
    assert!(matches!(lab.deregister(&id("i-1")), Err(LabError::Topology(_))), "no load balancer");

    lab.kill_instance(&id("i-1")).expect("kill");
    let next = lab.add_instance().expect("a new one in its place");
    lab.wait_healthy(&next, DEADLINE).expect("healthy");
    assert_eq!(echo(&carrier, "again").instance, "i-2", "the Elastic IP goes to the new instance");
}

#[test]
fn a_killed_instance_and_its_flows_are_gone() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 2) else { return };
    let sockets: Vec<_> = (0..8).map(|last| lab.socket(SOURCE, source(last), 5060)).collect();
    let before: BTreeSet<String> = sockets.iter().map(|socket| echo(socket, "before").instance).collect();
    assert_eq!(before.len(), 2);
    let pid = lab.status().expect("status").instances[0].pid.expect("i-1 runs");
    lab.kill_instance(&id("i-1")).expect("kill");
    assert!(!is_alive(pid), "its process has ended");
    for socket in &sockets {
        assert_eq!(echo(socket, "after").instance, "i-2", "old flows are new ones now");
    }
    let status = lab.status().expect("status");
    let killed = &status.instances[0];
    assert_eq!((killed.pid, killed.exit_code, killed.registered, killed.healthy), (None, Some(137), false, false));
    assert!(!status.namespaces.contains(&"i-1".to_owned()));
    assert!(matches!(lab.kill_instance(&id("i-1")), Err(LabError::InstanceGone { .. })));
    assert!(matches!(lab.kill_instance(&id("i-9")), Err(LabError::NoSuchInstance { .. })));
}

#[test]
fn a_deregistered_instance_keeps_its_flows() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 2) else { return };
    let sockets: Vec<_> = (0..8).map(|last| lab.socket(SOURCE, source(last), 5060)).collect();
    let on_first: Vec<_> = sockets.iter().filter(|socket| echo(socket, "before").instance == "i-1").collect();
    assert!(!on_first.is_empty());
    lab.deregister(&id("i-1")).expect("deregister");
    for socket in &on_first {
        assert_eq!(echo(socket, "after").instance, "i-1", "the flow stays where it is");
        let address = socket.local_addr().expect("address");
        let SocketAddr::V4(address) = address else { panic!("IPv4") };
        let fresh = lab.socket(SOURCE, *address.ip(), 5070);
        assert_eq!(echo(&fresh, "new").instance, "i-2", "a new flow goes elsewhere");
    }
    lab.flush_flows().expect("flush");
    for socket in &on_first {
        assert_eq!(echo(socket, "idle").instance, "i-2", "once idle, it is a new flow");
    }
    lab.flush_flows().expect("flush");
    lab.register(&id("i-1")).expect("register");
    for socket in &on_first {
        assert_eq!(echo(socket, "back").instance, "i-1");
    }
}

#[test]
fn a_terminated_instances_flows_go_on_through_the_others() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 2) else { return };
    let sockets: Vec<_> = (0..8).map(|last| lab.socket(SOURCE, source(last), 5060)).collect();
    let before: BTreeSet<String> = sockets.iter().map(|socket| echo(socket, "before").instance).collect();
    assert_eq!(before.len(), 2);
    lab.terminate_instance(&id("i-1"), DEADLINE).expect("terminate");
    for socket in &sockets {
        assert_eq!(echo(socket, "after").instance, "i-2");
    }
}

#[test]
fn ended_flows_are_those_of_the_load_balancer_alone() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 2) else { return };
    let sockets: Vec<_> = (0..8).map(|last| lab.socket(SOURCE, source(last), 5060)).collect();
    let on_first: Vec<_> = sockets.iter().filter(|socket| echo(socket, "before").instance == "i-1").collect();
    assert!(!on_first.is_empty());
    let carrier = lab.socket(DESTINATION, Ipv4Addr::new(198, 51, 100, 3), 5060);
    lab.get("i-1", &format!("/send?from={EGRESS_PORT}&to=198.51.100.3:5060&text=hello"));
    let (_, nat) = receive(&carrier);
    lab.deregister(&id("i-1")).expect("deregister");
    lab.end_flows(&id("i-1")).expect("end its flows");
    for socket in &on_first {
        assert_eq!(echo(socket, "after").instance, "i-2", "what comes on an ended flow opens a new one");
    }
    carrier.send_to(b"reply, late", nat).expect("send");
    eventually("what the NAT gateway tracks goes on", || lab.get("i-1", "/replied").contains("reply, late"));
    assert!(matches!(lab.end_flows(&id("i-9")), Err(LabError::NoSuchInstance { .. })));
}

#[test]
fn an_unhealthy_instance_gets_no_new_flows() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 2) else { return };
    lab.get("i-1", "/set-ready?to=0");
    await_status(&lab, "i-1 is unhealthy", |status| !status.instances[0].healthy);
    for last in 0..8 {
        assert_eq!(echo(&lab.socket(SOURCE, source(last), 5060), "new").instance, "i-2");
    }
    lab.get("i-1", "/set-ready?to=1");
    lab.wait_healthy(&id("i-1"), DEADLINE).expect("healthy again");
    let served: BTreeSet<_> =
        (0..8).map(|last| echo(&lab.socket(SOURCE, source(last), 5061), "new").instance).collect();
    assert_eq!(served.len(), 2);
}

#[test]
fn connections_are_spread_by_source_address_as_datagrams_are() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 3) else { return };
    let mut served = BTreeSet::new();
    for last in 0..16 {
        let by_udp = echo(&lab.socket(SOURCE, source(last), 5060), "datagram");
        for port in [INGRESS_PORT, TLS_PORT, INGRESS_PORT] {
            let stream = lab.connect(SOURCE, source(last), (INGRESS, port)).expect("connect");
            let by_tcp = echo_line(&stream, "line").expect("echo");
            assert_eq!(by_tcp.instance, by_udp.instance, "source-IP stickiness, whatever the protocol and port");
            assert_eq!(by_tcp.port, port, "the target's port is the listener's");
            assert_eq!(by_tcp.source, stream.local_addr().expect("address"), "the target sees the client's address");
        }
        served.insert(by_udp.instance);
    }
    assert_eq!(served.len(), 3, "every target gets a share: {served:?}");
}

#[test]
fn connections_are_spread_by_five_tuple() {
    let mut plan = plan(Topology::LoadBalanced);
    plan.network.spreading = Spreading::FiveTuple;
    let Some(lab) = TestLab::start(&plan, 2) else { return };
    let served: BTreeSet<String> = (0..16)
        .map(|_| {
            let stream = lab.connect(SOURCE, source(1), (INGRESS, INGRESS_PORT)).expect("connect");
            let first = echo_line(&stream, "first").expect("echo");
            assert_eq!(first.instance, echo_line(&stream, "second").expect("echo").instance, "a connection stays");
            first.instance
        })
        .collect();
    assert_eq!(served.len(), 2, "one source reaches both targets from different ports");
}

#[test]
fn connections_go_out_by_the_nat_gateway() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 1) else { return };
    let carrier = Ipv4Addr::new(198, 51, 100, 3);
    let listener = lab.listen(DESTINATION, carrier, 5060);
    let answering = std::thread::spawn(move || {
        let (stream, from) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("a line");
        (&stream).write_all(b"answer\n").expect("write");
        (line, from)
    });
    assert_eq!(lab.get("i-1", "/connect?to=198.51.100.3:5060&text=hello"), "answer");
    let (line, from) = answering.join().expect("the carrier's side");
    assert_eq!((line.as_str(), from.ip()), ("hello\n", EGRESS.into()), "the carrier sees the NAT address");
    // Nobody can call in by it.
    assert!(lab.connect(DESTINATION, carrier, (EGRESS, INGRESS_PORT)).is_err());
}

#[test]
fn single_ec2_takes_and_opens_connections_by_its_elastic_ip() {
    let Some(lab) = TestLab::start(&plan(Topology::SingleEc2), 1) else { return };
    for port in [INGRESS_PORT, TLS_PORT] {
        let stream = lab.connect(SOURCE, source(7), (INGRESS, port)).expect("connect");
        let answer = echo_line(&stream, "in").expect("echo");
        assert_eq!((answer.port, answer.source), (port, stream.local_addr().expect("address")));
    }
    let carrier = Ipv4Addr::new(198, 51, 100, 2);
    let listener = lab.listen(DESTINATION, carrier, 5060);
    let answering = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().expect("a connection");
        stream.write_all(b"answer\n").expect("write");
        from
    });
    assert_eq!(lab.get("i-1", "/connect?to=198.51.100.2:5060&text=out"), "answer");
    assert_eq!(answering.join().expect("the carrier's side").ip(), INGRESS);
    // The security group lets in what the listeners take: health and metrics are not for the Internet.
    assert!(lab.connect(SOURCE, source(7), (INGRESS, 8080)).is_err());
}

#[test]
fn connections_of_a_killed_instance_are_reset_and_new_ones_go_elsewhere() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 2) else { return };
    let streams: Vec<_> = (0..8)
        .map(|last| {
            let stream = lab.connect(SOURCE, source(last), (INGRESS, INGRESS_PORT)).expect("connect");
            let instance = echo_line(&stream, "before").expect("echo").instance;
            (last, stream, instance)
        })
        .collect();
    assert_eq!(streams.iter().map(|(.., instance)| instance).collect::<BTreeSet<_>>().len(), 2);
    lab.kill_instance(&id("i-1")).expect("kill");
    for (last, stream, instance) in &streams {
        let after = echo_line(stream, "after");
        match instance.as_str() {
            "i-1" => assert!(after.is_err(), "the connection ended with its instance: {after:?}"),
            _ => assert_eq!(&after.expect("echo").instance, instance, "the others' connections go on"),
        }
        let fresh = lab.connect(SOURCE, source(*last), (INGRESS, INGRESS_PORT)).expect("connect");
        assert_eq!(echo_line(&fresh, "new").expect("echo").instance, "i-2");
    }
}

#[test]
fn a_deregistered_instance_keeps_its_connections_until_they_are_ended() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 2) else { return };
    let stream = (0..8)
        .map(|last| lab.connect(SOURCE, source(last), (INGRESS, INGRESS_PORT)).expect("connect"))
        .find(|stream| echo_line(stream, "before").expect("echo").instance == "i-1")
        .expect("one of eight sources is on i-1");
    lab.deregister(&id("i-1")).expect("deregister");
    assert_eq!(echo_line(&stream, "after").expect("echo").instance, "i-1", "the connection stays where it is");
    lab.end_flows(&id("i-1")).expect("end its flows");
    // What comes on it now is for a target that knows nothing of it, which resets it.
    let ended = echo_line(&stream, "ended").expect_err("the connection is over");
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset, "{ended}");
}

#[test]
fn a_listener_without_tcp_takes_no_connections() {
    let mut plan = plan(Topology::LoadBalanced);
    plan.network.listeners = vec![Listener { port: INGRESS_PORT, protocol: Protocol::Udp }];
    let Some(lab) = TestLab::start(&plan, 1) else { return };
    assert!(lab.connect(SOURCE, source(1), (INGRESS, INGRESS_PORT)).is_err());
    assert_eq!(echo(&lab.socket(SOURCE, source(1), 5060), "by-udp").instance, "i-1");
}

#[test]
fn the_internet_cannot_reach_private_addresses() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 1) else { return };
    let status = lab.status().expect("status");
    let private = status.instances[0].address;
    for (namespace, address) in [(SOURCE, source(1)), (STRANGER_NAMESPACE, STRANGER_ADDRESS)] {
        let socket = lab.socket(namespace, address, 5060);
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).expect("have ICMP errors reported");
        socket.send_to(b"straight", (private, INGRESS_PORT)).expect("send");
        socket.send_to(b"straight", (private, EGRESS_PORT)).expect("send");
        socket.send_to(b"wrong port", (INGRESS, EGRESS_PORT)).expect("send");
        socket.send_to(b"to nobody", (NOBODY, INGRESS_PORT)).expect("send");
        // Sent later on the same path, it shows that the others had their time.
        assert_eq!(echo(&socket, "by-the-door").instance, "i-1");
        socket.set_read_timeout(Some(SILENCE)).expect("timeout");
        let nothing = socket.recv(&mut [0; 64]).expect_err("no answer");
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "no ICMP error: {nothing}");
    }
    assert_eq!(lab.get("i-1", "/seen"), r#"["by-the-door", "by-the-door"]"#);
}

#[test]
fn carriers_reach_each_other_under_their_own_addresses() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 0) else { return };
    let one = lab.socket(SOURCE, source(63), 5060);
    let other = lab.socket(DESTINATION, Ipv4Addr::new(198, 51, 100, 3), 5060);
    one.send_to(b"media", other.local_addr().expect("address")).expect("send");
    assert_eq!(receive(&other), ("media".to_owned(), one.local_addr().expect("address")));
}

#[test]
fn metadata_needs_a_token() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 2) else { return };
    assert_eq!(lab.code("i-1", "/metadata-without?path=meta-data/local-ipv4"), 401);
    assert_eq!(lab.code("i-1", "/metadata-with?path=meta-data/local-ipv4&token=guessed"), 401);
    assert_eq!(lab.code("i-1", "/token?ttl=0"), 400);
    assert_eq!(lab.code("i-1", "/token?ttl=21601"), 400);
    let token = lab.get("i-1", "/token?ttl=21600");
    let with = format!("/metadata-with?path=meta-data/local-ipv4&token={token}");
    let status = lab.status().expect("status");
    assert_eq!(lab.get("i-1", &with), status.instances[0].address.to_string());
    assert_eq!(lab.code("i-2", &with), 401, "a token is its instance's alone");
    for (path, expected) in [
        ("meta-data/instance-id", "i-2"),
        ("meta-data/placement/availability-zone", "us-east-1b"),
        ("meta-data/placement/region", "us-east-1"),
        ("meta-data/autoscaling/target-lifecycle-state", "InService"),
    ] {
        assert_eq!(lab.get("i-2", &format!("/metadata?path={path}")), expected);
    }
    assert_eq!(
        lab.code("i-1", "/metadata?path=meta-data/public-ipv4"),
        404,
        "no public address behind a load balancer"
    );
    assert_eq!(lab.code("i-1", "/metadata?path=meta-data/nothing"), 404);
    let user_data = lab.get("i-1", "/metadata?path=user-data");
    assert!(user_data.contains(&format!("\"advertise\": \"{INGRESS}\"")), "{user_data}");
}

#[test]
fn the_resolver_knows_the_carriers_and_nothing_else() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 1) else { return };
    for server in ["169.254.169.253", "10.0.0.2"] {
        let ask = |name: &str, kind: u16| lab.get("i-1", &format!("/resolve?server={server}&name={name}&kind={kind}"));
        assert_eq!(ask("destination.test", 1), r#"{"code": 0, "answers": [["198.51.100.3", 60]]}"#);
        assert_eq!(ask("DESTINATION.test", 1), r#"{"code": 0, "answers": [["198.51.100.3", 60]]}"#);
        assert_eq!(ask("destination.test", 28), r#"{"code": 0, "answers": []}"#, "no AAAA");
        assert_eq!(ask("elsewhere.test", 1), r#"{"code": 3, "answers": []}"#, "NXDOMAIN");
    }
}

#[test]
fn instances_stand_in_the_zones_in_turn() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 4) else { return };
    let status = lab.status().expect("status");
    let places: Vec<_> = status.instances.iter().map(|one| (one.zone.as_str(), one.address.to_string())).collect();
    let expected = [
        ("us-east-1a", "10.0.100.4"),
        ("us-east-1b", "10.0.101.4"),
        ("us-east-1c", "10.0.102.4"),
        ("us-east-1a", "10.0.100.5"),
    ];
    assert_eq!(places, expected.map(|(zone, address)| (zone, address.to_owned())));
}

#[test]
fn flows_idle_out_as_on_aws() {
    let Some(lab) = TestLab::start(&plan(Topology::LoadBalanced), 1) else { return };
    let flow = |port: u16| -> Option<u32> {
        let mut exec = std::process::Command::new(sipedge());
        exec.args(["lab", "--folder"]).arg(&lab.folder).args(["exec", "vpc", "--", "cat", "/proc/net/nf_conntrack"]);
        let table = String::from_utf8_lossy(&exec.output().expect("exec").stdout).into_owned();
        let line = table.lines().find(|line| line.contains(&format!(" dport={port} ")))?;
        // ipv4 2 udp 17 SECONDS src=…, ipv4 2 tcp 6 SECONDS STATE src=…
        line.split_ascii_whitespace().nth(4)?.parse().ok()
    };
    let connection = lab.connect(SOURCE, source(2), (INGRESS, TLS_PORT)).expect("connect");
    echo_line(&connection, "established").expect("echo");
    let established = flow(TLS_PORT).expect("a tracked connection");
    assert!((345..=350).contains(&established), "{established} s");

    let carrier = lab.socket(DESTINATION, Ipv4Addr::new(198, 51, 100, 3), 6001);
    carrier.set_nonblocking(true).expect("nonblocking");
    lab.get("i-1", &format!("/send?from={EGRESS_PORT}&to=198.51.100.3:6001&text=unanswered"));
    let unanswered = flow(6001).expect("a tracked flow; /proc/net/nf_conntrack needs CONFIG_NF_CONNTRACK_PROCFS");
    assert!((25..=30).contains(&unanswered), "{unanswered} s");

    let caller = lab.socket(SOURCE, source(1), 5060);
    eventually("the load balancer's flow gets 120 s", || {
        echo(&caller, "keep");
        flow(INGRESS_PORT).is_some_and(|seconds| (115..=120).contains(&seconds))
    });
    eventually("the NAT gateway's flow gets 350 s", || {
        lab.get("i-1", &format!("/send?from={EGRESS_PORT}&to=198.51.100.3:6001&text=keep"));
        if let Ok((_, from)) = carrier.recv_from(&mut [0; 64]) {
            carrier.send_to(b"reply", from).expect("send");
        }
        flow(6001).is_some_and(|seconds| (345..=350).contains(&seconds))
    });
}
