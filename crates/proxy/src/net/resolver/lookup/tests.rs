//! What names lead to, asked of a real name server on loopback.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the name server is shared with the tests of the running proxy, which use the rest"
)]

#[path = "../../../../tests/process/dns.rs"]
mod dns;

use std::net::Ipv4Addr;

use super::*;
use dns::{Dns, Trouble};
use hickory_resolver::proto::op::ResponseCode;

const ALL: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

fn query(host: &str) -> Query {
    Query { host: host.to_owned(), port: None, transport: None, secure: false }
}

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

/// A name server, and the rest of 127.0.0.0/8 is the operating system's.
fn dns() -> Dns {
    Dns::start(Ipv4Addr::LOCALHOST.into())
}

fn ask(servers: &[&Dns], transports: &[Transport], query: &Query) -> Answer {
    let servers: Vec<SocketAddr> = servers.iter().map(|dns| dns.address).collect();
    let lookups = Lookups { servers: NameServers::new(&servers), ipv4: true, transports: transports.to_vec() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Arc::new(lookups).lookup(query))
}

/// Each server as `priority/weight transport address`.
fn lines(answer: &Answer) -> Vec<String> {
    let line =
        |server: &Server| format!("{}/{} {} {}", server.priority, server.weight, server.transport, server.address);
    answer.servers.iter().map(line).collect()
}

/// The answer is whole and has these servers.
#[track_caller]
fn expect(answer: &Answer, expected: &[&str]) {
    assert_eq!((lines(answer), &answer.flaw), (expected.iter().map(|line| (*line).to_owned()).collect(), &None));
}

#[track_caller]
fn expect_nothing(answer: &Answer) {
    assert!(answer.servers.is_empty(), "{answer:?}");
    assert!(matches!(answer.flaw, Some(Flaw::Nothing(_))), "{answer:?}");
}

/// RFC 3263 §4.1's example, with two SRV records for TCP.
fn example() -> Dns {
    let dns = dns();
    dns.naptr("example.com", 60, [50, 50], "SIPS+D2T", "_sips._tcp.example.com")
        .naptr("example.com", 60, [90, 50], "SIP+D2T", "_sip._tcp.example.com")
        .naptr("example.com", 60, [100, 50], "SIP+D2U", "_sip._udp.example.com")
        .srv("_sips._tcp.example.com", 60, [0, 1, 5061], "server1.example.com")
        .srv("_sip._tcp.example.com", 60, [0, 1, 5060], "server1.example.com")
        .srv("_sip._tcp.example.com", 60, [0, 2, 5060], "server2.example.com")
        .srv("_sip._udp.example.com", 60, [7, 0, 5080], "server2.example.com")
        .address("server1.example.com", 60, ip(1))
        .address("server2.example.com", 60, ip(2));
    dns
}

#[test]
fn naptr_puts_the_transports_in_order_and_those_not_spoken_are_left_out() {
    let dns = example();
    let (tls, tcp1, tcp2) = ("tls 192.0.2.1:5061", "tcp 192.0.2.1:5060", "tcp 192.0.2.2:5060");
    expect(
        &ask(&[&dns], &ALL, &query("example.com")),
        &[&format!("0/1 {tls}"), &format!("1/1 {tcp1}"), &format!("1/2 {tcp2}"), "2/0 udp 192.0.2.2:5080"],
    );
    expect(
        &ask(&[&dns], &ALL[..2], &query("example.com")),
        &[&format!("0/1 {tcp1}"), &format!("0/2 {tcp2}"), "1/0 udp 192.0.2.2:5080"],
    );
    expect(&ask(&[&dns], &ALL[..1], &query("example.com")), &["0/0 udp 192.0.2.2:5080"]);
    let asked = dns.asked();
    let last = asked.len() - 3;
    assert_eq!(
        asked[last..],
        ["NAPTR example.com", "SRV _sip._udp.example.com", "A server2.example.com"],
        "nothing is asked that is not needed"
    );
}

#[test]
fn a_secure_uri_takes_the_services_with_s_alone() {
    let dns = example();
    let secure = Query { secure: true, ..query("example.com") };
    expect(&ask(&[&dns], &ALL[..1], &secure), &["0/1 tls 192.0.2.1:5061"]);
    assert!(dns.asked().iter().all(|asked| !asked.contains("_sip.")), "{:?}", dns.asked());
}

#[test]
fn a_secure_uri_never_goes_by_a_service_without_s() {
    let dns = dns();
    dns.naptr("example.com", 60, [1, 1], "SIP+D2T", "_sip._tcp.example.com")
        .srv("_sip._tcp.example.com", 60, [0, 1, 5060], "server1.example.com")
        .address("server1.example.com", 60, ip(1))
        .address("example.com", 60, ip(9));
    let secure = Query { secure: true, ..query("example.com") };
    expect(&ask(&[&dns], &ALL, &secure), &["0/1 tls 192.0.2.9:5061"]);
    assert!(dns.asked().contains(&"SRV _sips._tcp.example.com".to_owned()), "{:?}", dns.asked());
}

#[test]
fn preference_decides_among_records_of_one_order_and_priority_among_those_of_one_service() {
    let dns = dns();
    dns.naptr("example.com", 60, [10, 20], "SIP+D2U", "_sip._udp.second.example.com")
        .naptr("example.com", 60, [10, 10], "SIP+D2U", "_sip._udp.first.example.com")
        .naptr("example.com", 60, [9, 99], "sip+d2t", "_sip._tcp.example.com")
        .srv("_sip._udp.second.example.com", 60, [1, 5, 5060], "c.example.com")
        .srv("_sip._udp.first.example.com", 60, [65_535, 65_535, 5060], "b.example.com")
        .srv("_sip._udp.first.example.com", 60, [2, 60, 5060], "a.example.com")
        .srv("_sip._udp.first.example.com", 60, [2, 40, 5062], "b.example.com")
        .srv("_sip._tcp.example.com", 60, [3, 0, 5070], "a.example.com")
        .address("a.example.com", 60, ip(1))
        .address("b.example.com", 60, ip(2))
        .address("c.example.com", 60, ip(3));
    expect(
        &ask(&[&dns], &ALL, &query("example.com")),
        &[
            "0/0 tcp 192.0.2.1:5070",
            "1/40 udp 192.0.2.2:5062",
            "1/60 udp 192.0.2.1:5060",
            "2/65535 udp 192.0.2.2:5060",
            "3/5 udp 192.0.2.3:5060",
        ],
    );
}

#[test]
fn naptr_records_that_are_not_for_sip_or_are_in_error_are_as_if_they_were_not_there() {
    let dns = dns();
    dns.naptr_of("s", "!^.*$!sip:x@y!", "example.com", 60, [1, 1], "SIP+D2U", "_sip._udp.wrong.example.com")
        .naptr_of("a", "", "example.com", 60, [1, 1], "SIP+D2U", "wrong.example.com")
        .naptr_of("", "", "example.com", 60, [1, 1], "SIP+D2U", "other.example.com")
        .naptr_of("u", "!^.*$!sip:x@y!", "example.com", 60, [1, 1], "E2U+sip", ".")
        .naptr("example.com", 60, [1, 1], "SIP+D2U", ".")
        .naptr("example.com", 60, [1, 1], "SIP+D2S", "_sip._sctp.example.com")
        .srv("_sip._udp.example.com", 60, [0, 1, 5090], "server.example.com")
        .address("server.example.com", 60, ip(1));
    expect(&ask(&[&dns], &ALL, &query("example.com")), &["0/1 udp 192.0.2.1:5090"]);
}

#[test]
fn without_naptr_the_srv_records_of_each_transport_are_used_datagrams_first() {
    let dns = dns();
    dns.srv("_sip._tcp.example.com", 60, [1, 1, 5060], "server.example.com")
        .srv("_sip._udp.example.com", 60, [20, 1, 5060], "server.example.com")
        .srv("_sips._tcp.example.com", 60, [0, 1, 5061], "server.example.com")
        .address("server.example.com", 60, ip(1));
    let answer = ask(&[&dns], &ALL, &query("example.com"));
    expect(&answer, &["0/1 udp 192.0.2.1:5060", "1/1 tcp 192.0.2.1:5060"]);
    expect(&ask(&[&dns], &ALL[..1], &query("example.com")), &["0/1 udp 192.0.2.1:5060"]);
    let secure = Query { secure: true, ..query("example.com") };
    expect(&ask(&[&dns], &ALL, &secure), &["0/1 tls 192.0.2.1:5061"]);
}

#[test]
fn a_transport_in_the_uri_keeps_naptr_from_being_asked_for() {
    for (transport, service, port) in
        [(Transport::Udp, "_sip._udp", 5060), (Transport::Tcp, "_sip._tcp", 5060), (Transport::Tls, "_sips._tcp", 5061)]
    {
        let dns = example();
        dns.srv(&format!("{service}.other.example"), 60, [0, 3, 5099], "server1.example.com");
        dns.address("bare.example", 60, ip(5));
        let secure = transport == Transport::Tls;
        let of = |host: &str| Query { transport: Some(transport), secure, ..query(host) };
        // The edge need not listen on it.
        let udp = &ALL[..1];
        expect(&ask(&[&dns], udp, &of("other.example")), &[&format!("0/3 {transport} 192.0.2.1:5099")]);
        expect(&ask(&[&dns], udp, &of("bare.example")), &[&format!("0/1 {transport} 192.0.2.5:{port}")]);
        let expected = [
            format!("SRV {service}.other.example"),
            "A server1.example.com".into(),
            format!("SRV {service}.bare.example"),
            "A bare.example".into(),
        ];
        assert_eq!(dns.asked(), expected);
    }
}

#[test]
fn a_port_in_the_uri_keeps_naptr_and_srv_from_being_asked_for() {
    let dns = example();
    dns.address("example.com", 60, ip(9)).address("example.com", 60, ip(8));
    let of = |transport, secure| Query { port: Some(5070), transport, secure, ..query("example.com") };
    let answer = |transport: &str| [8, 9].map(|last| format!("0/1 {transport} 192.0.2.{last}:5070"));
    assert_eq!(lines(&ask(&[&dns], &ALL, &of(None, false))), answer("udp"));
    assert_eq!(lines(&ask(&[&dns], &ALL, &of(None, true))), answer("tls"));
    assert_eq!(lines(&ask(&[&dns], &ALL, &of(Some(Transport::Tcp), false))), answer("tcp"));
    assert_eq!(dns.asked(), ["A example.com"; 3]);
}

#[test]
fn a_host_without_records_for_sip_is_reached_at_its_address_and_the_default_port() {
    let dns = dns();
    dns.address("example.com", 60, ip(2)).address("example.com", 60, ip(1)).address("example.com", 60, ip(2));
    expect(&ask(&[&dns], &ALL, &query("example.com")), &["0/1 udp 192.0.2.1:5060", "0/1 udp 192.0.2.2:5060"]);
    let expected = ["NAPTR example.com", "SRV _sip._udp.example.com", "SRV _sip._tcp.example.com", "A example.com"];
    assert_eq!(dns.asked(), expected);
}

#[test]
fn a_service_that_naptr_names_and_that_has_no_srv_records_is_reached_at_the_host() {
    let dns = dns();
    dns.naptr("example.com", 60, [1, 1], "SIP+D2T", "_sip._tcp.example.com").address("example.com", 60, ip(1));
    expect(&ask(&[&dns], &ALL, &query("example.com")), &["0/1 tcp 192.0.2.1:5060"]);
}

#[test]
fn a_root_as_target_says_that_the_service_is_not_offered() {
    let dns = dns();
    dns.srv("_sip._udp.example.com", 60, [0, 0, 0], ".").address("example.com", 60, ip(1));
    expect_nothing(&ask(&[&dns], &ALL, &query("example.com")));
    assert!(!dns.asked().contains(&"A example.com".into()), "{:?}", dns.asked());
    dns.srv("_sip._tcp.example.com", 60, [0, 0, 5060], "server.example.com").address("server.example.com", 60, ip(2));
    expect(&ask(&[&dns], &ALL, &query("example.com")), &["0/0 tcp 192.0.2.2:5060"]);
}

#[test]
fn one_target_without_an_address_does_not_spoil_the_others() {
    let dns = dns();
    dns.srv("_sip._udp.example.com", 60, [1, 1, 5060], "gone.example.com")
        .srv("_sip._udp.example.com", 60, [2, 1, 5060], "server.example.com")
        .address("server.example.com", 60, ip(2));
    expect(&ask(&[&dns], &ALL, &query("example.com")), &["0/1 udp 192.0.2.2:5060"]);
    // One that nobody knows about is as little in the way, but the answer is not whole.
    dns.trouble_with("gone.example.com", RecordType::A, Trouble::Code(ResponseCode::ServFail));
    let answer = ask(&[&dns], &ALL, &query("example.com"));
    assert_eq!(lines(&answer), ["0/1 udp 192.0.2.2:5060"]);
    let Some(Flaw::Address(unanswered)) = answer.flaw else { panic!("{answer:?}") };
    assert!(unanswered.to_string().contains("A of gone.example.com.: "), "{unanswered}");
    dns.clear().srv("_sip._udp.example.com", 60, [1, 1, 5060], "absent.example.com").address("example.com", 60, ip(1));
    expect_nothing(&ask(&[&dns], &ALL, &query("example.com")));
}

#[test]
fn a_target_with_several_addresses_has_no_more_than_its_weight() {
    let dns = dns();
    dns.srv("_sip._udp.example.com", 60, [1, 3, 5060], "pair.example.com")
        .srv("_sip._udp.example.com", 60, [1, 1, 5060], "one.example.com")
        .srv("_sip._udp.example.com", 60, [1, 0, 5060], "rare.example.com")
        .address("pair.example.com", 60, ip(1))
        .address("pair.example.com", 60, ip(2))
        .address("one.example.com", 60, ip(3))
        .address("rare.example.com", 60, ip(4));
    let weights = |answer: &Answer| answer.servers.iter().map(|server| server.weight).collect::<Vec<_>>();
    assert_eq!(weights(&ask(&[&dns], &ALL, &query("example.com"))), [0, 840, 1_260, 1_260]);
    dns.srv("_sip._udp.example.com", 60, [1, 65_535, 5060], "heavy.example.com").address(
        "heavy.example.com",
        60,
        ip(5),
    );
    assert_eq!(weights(&ask(&[&dns], &ALL, &query("example.com"))), [0, 1, 1, 1, 65_535]);
}

#[test]
fn aliases_are_followed_everywhere() {
    let dns = dns();
    dns.alias("example.com", 60, "domain.example")
        .naptr("domain.example", 60, [1, 1], "SIP+D2U", "_sip._udp.alias.example")
        .alias("_sip._udp.alias.example", 60, "_sip._udp.real.example")
        .srv("_sip._udp.real.example", 60, [0, 1, 5060], "server.example")
        .alias("server.example", 60, "host.example")
        .address("host.example", 60, ip(4));
    expect(&ask(&[&dns], &ALL, &query("example.com")), &["0/1 udp 192.0.2.4:5060"]);
    let port = Query { port: Some(5060), ..query("loop.example") };
    dns.alias("loop.example", 60, "pool.example").alias("pool.example", 60, "loop.example");
    expect_nothing(&ask(&[&dns], &ALL, &port));
}

#[test]
fn the_smallest_ttl_of_what_was_used_holds() {
    let seconds = |answer: &Answer| answer.ttl.as_secs_f64().round() as u64;
    let ask_for = |naptr, srv, alias, address| {
        let dns = dns();
        dns.naptr("example.com", naptr, [1, 1], "SIP+D2U", "_sip._udp.example.com")
            .naptr("example.com", 400, [1, 1], "SIP+D2S", "_sip._sctp.example.com")
            .srv("_sip._udp.example.com", srv, [0, 1, 5060], "server.example.com")
            .alias("server.example.com", alias, "host.example.com")
            .address("host.example.com", address, ip(1));
        seconds(&ask(&[&dns], &ALL, &query("example.com")))
    };
    assert_eq!(ask_for(100, 200, 300, 400), 100);
    assert_eq!(ask_for(200, 100, 300, 400), 100);
    assert_eq!(ask_for(300, 200, 100, 400), 100);
    assert_eq!(ask_for(300, 200, 400, 100), 100);
    assert_eq!(ask_for(300, 200, 400, 0), 0);
}

#[test]
fn what_does_not_exist_is_told_from_what_nobody_answers() {
    let dns = dns();
    expect_nothing(&ask(&[&dns], &ALL, &query("nowhere.example")));
    for host in ["", ".", "a..b", &"x".repeat(64), &"long.".repeat(60)] {
        expect_nothing(&ask(&[&dns], &ALL, &query(host)));
    }
    dns.trouble(Some(Trouble::Code(ResponseCode::ServFail)));
    let answer = ask(&[&dns], &ALL, &query("nowhere.example"));
    assert!(answer.servers.is_empty() && matches!(answer.flaw, Some(Flaw::Way(_))), "{answer:?}");
    let no_server = ask(&[], &ALL, &query("nowhere.example"));
    assert!(no_server.servers.is_empty() && matches!(no_server.flaw, Some(Flaw::Way(_))), "{no_server:?}");
}

#[test]
fn silence_ends_within_the_deadline() {
    let dns = dns();
    dns.trouble(Some(Trouble::Silence));
    let started = std::time::Instant::now();
    let answer = ask(&[&dns], &ALL, &query("example.com"));
    assert!(started.elapsed() < DEADLINE + Duration::from_millis(500), "{:?}", started.elapsed());
    assert!(answer.servers.is_empty() && matches!(answer.flaw, Some(Flaw::Way(_))), "{answer:?}");
}

#[test]
fn a_question_about_the_way_that_is_not_answered_is_a_flaw_and_the_rest_is_still_found() {
    let dns = example();
    dns.trouble_with("example.com", RecordType::NAPTR, Trouble::Code(ResponseCode::ServFail));
    let answer = ask(&[&dns], &ALL[..1], &query("example.com"));
    assert_eq!(lines(&answer), ["0/0 udp 192.0.2.2:5080"]);
    assert!(
        matches!(&answer.flaw, Some(Flaw::Way(unanswered)) if unanswered.to_string().starts_with("NAPTR of example.com.")),
        "{answer:?}"
    );
}

#[test]
fn a_name_server_that_does_not_know_the_record_type_has_no_such_records() {
    let dns = dns();
    dns.address("example.com", 60, ip(1))
        .trouble_with("example.com", RecordType::NAPTR, Trouble::Code(ResponseCode::NotImp))
        .trouble_with("_sip._udp.example.com", RecordType::SRV, Trouble::Code(ResponseCode::NotImp));
    expect(&ask(&[&dns], &ALL, &query("example.com")), &["0/1 udp 192.0.2.1:5060"]);
}

#[test]
fn the_next_name_server_is_asked_when_one_is_silent_or_in_error_and_then_first() {
    for trouble in [Trouble::Silence, Trouble::Code(ResponseCode::ServFail), Trouble::Code(ResponseCode::Refused)] {
        let (bad, good) = (dns(), example());
        bad.trouble(Some(trouble));
        let expected = ["0/0 udp 192.0.2.2:5080"];
        expect(&ask(&[&bad, &good], &ALL[..1], &query("example.com")), &expected);
        assert!(bad.asked().iter().all(|asked| asked == "NAPTR example.com"), "{:?}", bad.asked());
    }
}

#[test]
fn a_truncated_answer_is_asked_for_over_tcp() {
    let dns = dns();
    dns.trouble(Some(Trouble::Truncate));
    for number in 0..200 {
        dns.srv("_sip._udp.example.com", 60, [number, 1, 5060], &format!("server-{number}.example.com"));
        dns.address(&format!("server-{number}.example.com"), 60, ip(number as u8));
    }
    let answer = ask(&[&dns], &ALL, &query("example.com"));
    assert!(dns.asked().contains(&"SRV _sip._udp.example.com by TCP".into()), "{:?}", dns.asked());
    assert_eq!(answer.servers.len(), MOST_TARGETS, "{answer:?}");
    assert_eq!(lines(&answer).last().unwrap(), "31/1 udp 192.0.2.31:5060", "those of the best priorities");
}

#[test]
fn what_cannot_be_a_server_is_left_out() {
    let dns = dns();
    for target in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.7"] {
        dns.address("server.example.com", 60, target.parse().unwrap());
    }
    dns.srv("_sip._udp.example.com", 60, [0, 1, 0], "server.example.com").srv(
        "_sip._udp.example.com",
        60,
        [0, 1, 5060],
        "SERVER.example.com",
    );
    expect(&ask(&[&dns], &ALL, &query("example.com")), &["0/1 udp 192.0.2.7:5060"]);
}

#[test]
fn noise_is_no_answer_and_breaks_nothing() {
    let dns = example();
    dns.trouble_with("_sip._udp.example.com", RecordType::SRV, Trouble::Noise);
    let answer = ask(&[&dns], &ALL[..1], &query("example.com"));
    assert!(answer.servers.is_empty() && matches!(answer.flaw, Some(Flaw::Way(_))), "{answer:?}");
    // An SRV record where NAPTR was asked for, and addresses where SRV was.
    let odd = self::dns();
    odd.srv("example.com", 60, [0, 1, 5060], "server.example.com").address("_sip._udp.example.com", 60, ip(3)).address(
        "example.com",
        60,
        ip(1),
    );
    expect(&ask(&[&odd], &ALL[..1], &query("example.com")), &["0/1 udp 192.0.2.1:5060"]);
}

#[test]
fn over_ipv6_only_such_addresses_count() {
    let dns = dns();
    dns.srv("_sip._udp.example.com", 60, [0, 1, 5060], "server.example.com")
        .address("server.example.com", 60, ip(1))
        .address("server.example.com", 60, "2001:db8::1".parse().unwrap());
    let servers = NameServers::new(&[dns.address]);
    let lookups = Lookups { servers, ipv4: false, transports: ALL.to_vec() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(Arc::new(lookups).lookup(&query("example.com")));
    expect(&answer, &["0/1 udp [2001:db8::1]:5060"]);
}
