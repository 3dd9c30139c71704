//! One connection serves many requests. One that a peer opened over TCP serves those to its source (RFC 3261 §18); over TLS only when the
//! peer has proved who it is (RFC 5923).

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;

use process::address;
use process::certificates::{Authority, dns};
use process::sip::Agent;
use process::stream::{Line, listen, names_to, start, tcp_config, wait_for};
use sipedge_proxy::config::{SecretRef, TlsListener, TrunkTls};
use sipedge_proxy::net::TlsMaterial;

#[test]
fn calls_to_one_destination_share_a_connection() {
    let callee = listen(address(155));
    let target = format!("sip:{};transport=tcp", callee.local_addr().unwrap());
    let (proxy, edge) = start(tcp_config(address(153), address(154), &target), &TlsMaterial::default());
    let caller = Agent::bind(address(154), 0);
    let mut line = None;
    for call in 0..5 {
        caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), &format!("call{call}")), edge);
        let line = line.get_or_insert_with(|| Line::accept(&callee));
        let invite = line.expect("INVITE");
        assert_eq!(invite.header("Call-ID"), format!("call{call}"));
        line.respond(&invite, "486 Busy Here");
        assert_eq!(caller.expect("486").header("Call-ID"), format!("call{call}"));
        line.expect("ACK");
    }
    assert_eq!(proxy.numbers().streams.opened, 1);
    // Once it is closed, the next call gets another one.
    drop(line);
    wait_for(&proxy, "it is gone", |numbers| numbers.stream_gauges.connections_out == 0);
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "later"), edge);
    assert_eq!(Line::accept(&callee).expect("INVITE").header("Call-ID"), "later");
    assert_eq!(proxy.numbers().streams.opened, 2);
}

/// An agent behind a NAT names in its Contact the address that it has learned from `received` and `rport`; nobody listens there.
#[test]
fn a_caller_whose_contact_is_its_connections_source_is_reached_by_it() {
    let (caller, callee) = (address(173), Agent::bind(address(174), 0));
    let config = tcp_config(address(172), caller, &format!("sip:{};transport=udp", callee.address));
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let mut line = Line::connect(caller, edge);
    let invite = line.request("INVITE", &format!("sip:1@{edge}"), "contact");
    let contact = format!("Contact: <sip:caller@{}", line.local);
    line.send(&invite.replace(&contact, &format!("{contact};transport=tcp")));
    let invite = callee.expect("INVITE");
    callee.respond(&invite, "200 OK");
    let ok = line.expect("200 OK");
    line.send(&line.in_dialog("ACK", 1, &ok));
    callee.expect("ACK");
    let (id, from, to) = (invite.header("Call-ID"), invite.header("From"), ok.header("To"));
    let routes: String = invite.headers("Record-Route").iter().map(|route| format!("Route: {route}\r\n")).collect();
    let target = invite.header("Contact").trim_matches(['<', '>']);
    callee.send(
        &format!(
            "BYE {target} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKback;rport\r\n{routes}Max-Forwards: 70\r\n\
             From: {to}\r\nTo: {from}\r\nCall-ID: {id}\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
            callee.address
        ),
        edge,
    );
    let bye = line.expect("BYE");
    line.respond(&bye, "200 OK");
    callee.expect("200 OK");
    assert_eq!(proxy.numbers().streams.opened, 0);
}

/// A peer at an address where nobody listens opens a TLS connection and sends OPTIONS with `via`; then there is a call to it.
/// With `own_roots` the trunk accepts only certificates of another authority. Whether the call took that connection.
fn is_reused(edge: u8, certificate: Option<&str>, via: &str, own_roots: bool) -> bool {
    let (peer, caller) = (address(edge + 1), address(edge + 2));
    let closed: SocketAddr = listen(peer).local_addr().unwrap();
    let target = format!("sip:carrier.example:{};transport=tls", closed.port());
    let mut config = tcp_config(address(edge), caller, &target);
    config.dns.servers = vec![names_to(peer)];
    config.trunks[1].from = vec![peer.into()];
    let authority = Authority::new("roots");
    let (own, roots) = (SecretRef::File("edge.pem".into()), SecretRef::File("roots.pem".into()));
    config.listen.tls = Some(TlsListener {
        port: 5061,
        certificate: own.clone(),
        client_roots: Some(roots.clone()),
        require_client: false,
    });
    let mut material = TlsMaterial::default();
    material.insert(own, authority.issue(&[dns("edge.example")]).into());
    material.insert(roots, authority.pem().into());
    if own_roots {
        let roots = SecretRef::File("carrier-roots.pem".into());
        material.insert(roots.clone(), Authority::new("carrier").pem().into());
        config.trunks[1].tls = Some(TrunkTls { certificate: None, roots: Some(roots) });
    }
    let (proxy, edge) = start(config, &material);
    let certificate = certificate.map(|name| authority.issue(&[dns(name)]));
    let client = authority.client(certificate.as_deref());
    let mut line = Line::connect_tls(peer, SocketAddr::new(edge.ip(), 5061), client, "edge.example").unwrap();
    let options = line.request("OPTIONS", "sip:edge.example", "alias");
    let sent_by = format!("TLS {};", line.local);
    line.send(&options.replace(&sent_by, &format!("TLS {closed};{via}")));
    line.expect("200");
    let caller = Agent::bind(caller, 0);
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "called"), edge);
    let mut numbers = wait_for(&proxy, "sent or failed", |numbers| {
        numbers.streams.messages_sent >= 2 || numbers.streams.open_failures >= 1
    });
    if numbers.streams.open_failures == 0 {
        assert_eq!(line.expect("INVITE").header("Call-ID"), "called");
        numbers = proxy.numbers();
        assert_eq!(numbers.streams.open_failures, 0);
        return true;
    }
    assert_eq!(numbers.streams.messages_sent, 1, "the 200 alone");
    false
}

#[test]
fn a_peer_with_its_certificate_and_alias_is_called_by_its_own_connection() {
    assert!(is_reused(156, Some("carrier.example"), "alias;", false));
}

#[test]
fn without_alias_it_is_not() {
    assert!(!is_reused(160, Some("carrier.example"), "", false));
}

#[test]
fn with_the_certificate_of_another_domain_it_is_not() {
    assert!(!is_reused(164, Some("other.example"), "alias;", false));
}

#[test]
fn without_certificate_it_is_not() {
    assert!(!is_reused(168, None, "alias;", false));
}

/// The listener's roots have vouched for the peer, not those that the trunk demands.
#[test]
fn where_the_trunk_has_roots_of_its_own_it_is_not() {
    assert!(!is_reused(225, Some("carrier.example"), "alias;", true));
}

/// Whoever can open a connection from the peer's address could take its calls.
#[test]
fn over_tcp_it_is_not() {
    let (peer, caller) = (address(246), address(247));
    let closed: SocketAddr = listen(peer).local_addr().unwrap();
    let mut config = tcp_config(address(245), caller, &format!("sip:{closed};transport=tcp"));
    config.trunks[1].from = vec![peer.into()];
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let mut line = Line::connect(peer, edge);
    let options = line.request("OPTIONS", &format!("sip:{edge}"), "alias");
    let sent_by = format!("TCP {};", line.local);
    line.send(&options.replace(&sent_by, &format!("TCP {closed};alias;")));
    line.expect("200");
    let caller = Agent::bind(caller, 0);
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "called"), edge);
    let numbers = wait_for(&proxy, "sent or failed", |numbers| {
        numbers.streams.messages_sent >= 2 || numbers.streams.open_failures >= 1
    });
    assert_eq!((numbers.streams.messages_sent, numbers.streams.open_failures), (1, 1), "the 200 alone");
}
