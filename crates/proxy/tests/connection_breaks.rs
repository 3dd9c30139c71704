//! What becomes of messages whose connection cannot be had, or breaks.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use process::address;
use process::certificates::{Authority, dns};
use process::sip::{Agent, Message};
use process::stream::{Line, listen, names_to, start, tcp_config, wait_for};
use sipedge_proxy::config::{Config, Refuse, SecretRef, TlsListener};
use sipedge_proxy::net::TlsMaterial;

/// No timer of a transaction ends a call within this test.
fn patient(mut config: Config) -> Config {
    (config.timers.t1_ms, config.timers.t2_ms) = (500, 4_000);
    config.timers.response_ms = 60_000;
    config.timers.invite_ms = 60_000;
    config
}

fn final_response(caller: &Agent) -> Message {
    loop {
        let message = caller.expect("SIP/2.0");
        if !message.first_line().contains(" 100 ") {
            return message;
        }
    }
}

#[test]
fn a_refused_connection_fails_the_call_at_once() {
    let closed: SocketAddr = listen(address(143)).local_addr().unwrap();
    let config = patient(tcp_config(address(141), address(142), &format!("sip:{closed};transport=tcp")));
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let caller = Agent::bind(address(142), 0);
    let began = Instant::now();
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "refused"), edge);
    let answer = final_response(&caller);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(["4", "5"].iter().any(|class| answer.first_line()["SIP/2.0 ".len()..].starts_with(class)), "{answer:?}");
    let numbers = wait_for(&proxy, "reported", |numbers| numbers.streams.failures_reported >= 1);
    assert!(numbers.streams.open_failures >= 1 && numbers.streams.opened == 0, "{numbers:?}");
    wait_for(&proxy, "nothing waits", |numbers| numbers.stream_gauges.bytes_waiting == 0);
}

#[test]
fn a_connection_that_is_never_established_fails_the_call_in_time() {
    // Its queue of connections is full: further ones get no answer.
    let callee = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    callee.bind(&SocketAddr::new(address(146), 0).into()).unwrap();
    callee.listen(0).unwrap();
    let at = callee.local_addr().unwrap().as_socket().unwrap();
    let _filling: Vec<_> = (0..4)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&at.into());
            socket
        })
        .collect();
    let mut config = patient(tcp_config(address(144), address(145), &format!("sip:{at};transport=tcp")));
    config.streams.connect_ms = 700;
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let caller = Agent::bind(address(145), 0);
    let began = Instant::now();
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "silent"), edge);
    final_response(&caller);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(600) && took < Duration::from_secs(6), "{took:?}");
    wait_for(&proxy, "not opened", |numbers| numbers.streams.open_failures >= 1);
}

#[test]
fn a_request_that_was_written_is_reported_when_its_connection_breaks() {
    let callee = listen(address(149));
    let target = format!("sip:{};transport=tcp", callee.local_addr().unwrap());
    let (proxy, edge) = start(patient(tcp_config(address(147), address(148), &target)), &TlsMaterial::default());
    let caller = Agent::bind(address(148), 0);
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "broken"), edge);
    let mut line = Line::accept(&callee);
    line.expect("INVITE");
    drop((line, callee));
    let began = Instant::now();
    final_response(&caller);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    wait_for(&proxy, "reported", |numbers| numbers.streams.failures_reported >= 1);
}

#[test]
fn what_is_past_the_bytes_in_flight_fails_the_call() {
    let callee = listen(address(221));
    let target = format!("sip:{};transport=tcp", callee.local_addr().unwrap());
    let mut config = patient(tcp_config(address(219), address(220), &target));
    config.streams.bytes_in_flight = 100;
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let caller = Agent::bind(address(220), 0);
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "large"), edge);
    final_response(&caller);
    let numbers = wait_for(&proxy, "counted", |numbers| numbers.streams.failures_reported >= 1);
    assert!(numbers.streams.no_room >= 1 && numbers.streams.opened == 0, "{numbers:?}");
    assert_eq!(numbers.stream_gauges.bytes_waiting, 0);
}

/// The other side of RFC 3261 §18.2.2: the callee answers by a connection of its own, which it gets even where strangers get none.
#[test]
fn a_response_by_a_new_connection_of_the_callee_is_taken() {
    let callee = listen(address(231));
    let target = format!("sip:carrier.example:{};transport=tcp", callee.local_addr().unwrap().port());
    let mut config = patient(tcp_config(address(229), address(230), &target));
    config.dns.servers = vec![names_to(address(231))];
    config.refuse = Refuse::Silence;
    let (proxy, edge) = start(config, &TlsMaterial::default());
    Line::connect(address(231), edge).expect_end();
    let caller = Agent::bind(address(230), 0);
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "moved"), edge);
    let mut line = Line::accept(&callee);
    let invite = line.expect("INVITE");
    line.respond(&invite, "180 Ringing");
    caller.expect("180");
    drop((line, callee));
    wait_for(&proxy, "the connection is gone", |numbers| numbers.stream_gauges.connections_out == 0);
    Line::connect(address(231), edge).respond(&invite, "200 OK");
    assert_eq!(caller.expect("SIP/2.0 ").first_line(), "SIP/2.0 200 OK");
    assert_eq!(proxy.numbers().streams.refused_source, 1, "the first, before the edge had called there");
}

/// Over TLS nobody knows who would have to be there.
#[test]
fn a_response_over_tls_takes_no_new_connection() {
    let callee = Agent::bind(address(224), 0);
    let mut config = tcp_config(address(222), address(223), &format!("sip:{}", callee.address));
    let certificate = SecretRef::File("edge.pem".into());
    let tls = TlsListener { port: 5061, certificate: certificate.clone(), client_roots: None, require_client: false };
    config.listen.tls = Some(tls);
    let authority = Authority::new("roots");
    let mut material = TlsMaterial::default();
    material.insert(certificate, authority.issue(&[dns("edge.example")]).into());
    let (proxy, edge) = start(config, &material);
    let port = SocketAddr::new(edge.ip(), 5061);
    let mut caller = Line::connect_tls(address(223), port, authority.client(None), "edge.example").unwrap();
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "gone"));
    caller.expect("100");
    let invite = callee.expect("INVITE");
    drop(caller);
    wait_for(&proxy, "the caller's connection is gone", |numbers| numbers.stream_gauges.connections_in == 0);
    callee.respond(&invite, "200 OK");
    let numbers = wait_for(&proxy, "counted", |numbers| numbers.streams.not_returned >= 1);
    assert_eq!((numbers.streams.opened, numbers.streams.open_failures), (0, 0));
}

/// RFC 3261 §18.2.2: to the address that the request came from, at the port of its Via.
#[test]
fn a_response_whose_connection_is_gone_takes_a_new_one() {
    let callee = Agent::bind(address(152), 0);
    let config = tcp_config(address(150), address(151), &format!("sip:{}", callee.address));
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let waiting: TcpListener = listen(address(151));
    let sent_by = waiting.local_addr().unwrap();
    let mut caller = Line::connect(address(151), edge);
    let invite = caller.request("INVITE", &format!("sip:1@{edge}"), "returned");
    let invite = invite.replace(&format!("TCP {}", caller.local), &format!("TCP {sent_by}"));
    caller.send(&invite);
    caller.expect("100");
    let invite = callee.expect("INVITE");
    drop(caller);
    wait_for(&proxy, "the caller's connection is gone", |numbers| numbers.stream_gauges.connections_in == 0);
    callee.respond(&invite, "200 OK");
    let mut again = Line::accept(&waiting);
    assert_eq!(again.expect("200").header("Call-ID"), "returned");
    assert_eq!(again.peer.ip(), address(150), "from the ingress address");
}
