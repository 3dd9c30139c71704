//! Who a destination has to be (RFC 5922): the SIP domain of the target stands in its certificate, whole.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::{SocketAddr, TcpListener};

use process::address;
use process::certificates::{Authority, dns, ip, server, uri};
use process::dns::Dns;
use process::sip::Agent;
use process::stream::{Line, listen, names_to, start, tcp_config, wait_for};
use rcgen::SanType;
use sipedge_proxy::config::{SecretRef, TrunkTls};
use sipedge_proxy::net::TlsMaterial;

/// Whether a call to `host` reaches a callee with a certificate of these names.
fn reaches(edge: u8, host: &str, names: &[SanType]) -> bool {
    let callee = address(edge + 2);
    let listener = listen(callee);
    let target = format!("sip:{host}:{};transport=tls", listener.local_addr().unwrap().port());
    reaches_by(edge, &target, names_to(callee), listener, names)
}

/// Whether a call to `target`, which leads to this listener, reaches a callee with a certificate of these names.
fn reaches_by(edge: u8, target: &str, dns: SocketAddr, listener: TcpListener, names: &[SanType]) -> bool {
    let caller = address(edge + 1);
    let mut config = tcp_config(address(edge), caller, target);
    config.dns.servers = vec![dns];
    let (authority, roots) = (Authority::new("roots"), SecretRef::File("carrier-roots.pem".into()));
    config.trunks[1].tls = Some(TrunkTls { certificate: None, roots: Some(roots.clone()) });
    let mut material = TlsMaterial::default();
    material.insert(roots, authority.pem().into());
    let (proxy, edge) = start(config, &material);
    let caller = Agent::bind(caller, 0);
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "named"), edge);
    let line = Line::accept_tls(&listener, server(&authority.issue(names), None));
    match line {
        Ok(mut line)
            if wait_for(&proxy, "opened or not", |numbers| {
                numbers.streams.opened + numbers.streams.open_failures > 0
            })
            .streams
            .opened
                == 1 =>
        {
            let invite = line.expect("INVITE");
            line.respond(&invite, "486 Busy Here");
            caller.expect("486");
            true
        }
        _ => {
            drop(listener);
            let numbers = wait_for(&proxy, "a failure", |numbers| numbers.streams.open_failures >= 1);
            assert_eq!((numbers.streams.opened, numbers.streams.messages_sent), (0, 0), "not a byte of SIP was sent");
            let answer = caller.expect("SIP/2.0 ");
            assert!(!answer.first_line().contains(" 2"), "{answer:?}");
            false
        }
    }
}

#[test]
fn the_domain_as_dns_name_or_as_sip_uri_is_accepted() {
    assert!(reaches(172, "carrier.example", &[dns("other.example"), dns("Carrier.Example")]));
    assert!(reaches(172, "carrier.example", &[dns("host17.example"), uri("sip:carrier.example")]));
}

#[test]
fn another_name_is_refused() {
    assert!(!reaches(176, "carrier.example", &[dns("other.example")]));
    assert!(!reaches(176, "carrier.example", &[dns("sip.carrier.example")]), "a name below it");
    assert!(!reaches(176, "carrier.example", &[]), "the common name alone");
}

#[test]
fn a_wildcard_is_refused() {
    assert!(!reaches(180, "sip.carrier.example", &[dns("*.carrier.example")]));
}

#[test]
fn where_there_are_sip_uris_they_alone_count() {
    assert!(!reaches(184, "carrier.example", &[dns("carrier.example"), uri("sip:other.example")]));
    assert!(!reaches(184, "carrier.example", &[uri("sip:user@carrier.example")]), "a user is no domain");
}

/// Whoever answers for DNS does not decide who the callee has to be.
#[test]
fn the_name_is_that_of_the_uri_and_not_of_srv() {
    let reaches = |names: &[SanType]| {
        let (callee, dns) = (address(234), Dns::start(address(235)));
        let listener = listen(callee);
        dns.srv("_sips._tcp.carrier.example", 300, [0, 1, listener.local_addr().unwrap().port()], "host17.example");
        dns.address("host17.example", 300, callee);
        reaches_by(232, "sip:carrier.example;transport=tls", dns.address, listener, names)
    };
    assert!(!reaches(&[dns("host17.example")]));
    assert!(reaches(&[dns("carrier.example")]));
}

/// RFC 5922 §7.8: a callee that serves several domains has to know which certificate to show.
#[test]
fn the_server_name_is_in_the_handshake() {
    let (caller, callee) = (address(241), address(242));
    let listener = listen(callee);
    let target = format!("sip:carrier.example:{};transport=tls", listener.local_addr().unwrap().port());
    let mut config = tcp_config(address(240), caller, &target);
    config.dns.servers = vec![names_to(callee)];
    let (authority, roots) = (Authority::new("roots"), SecretRef::File("carrier-roots.pem".into()));
    config.trunks[1].tls = Some(TrunkTls { certificate: None, roots: Some(roots.clone()) });
    let mut material = TlsMaterial::default();
    material.insert(roots, authority.pem().into());
    let (_proxy, edge) = start(config, &material);
    let caller = Agent::bind(caller, 0);
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "named"), edge);
    let line = Line::accept_tls(&listener, server(&authority.issue(&[dns("carrier.example")]), None)).unwrap();
    assert_eq!(line.stream.conn.server_name(), Some("carrier.example"));
}

#[test]
fn where_the_target_is_an_address_the_certificate_has_to_bear_it() {
    let callee = address(190);
    assert!(reaches(188, &callee.to_string(), &[ip(callee)]));
    assert!(!reaches(188, &callee.to_string(), &[ip(address(189)), dns("carrier.example")]));
}
