//! Both sides prove who they are: the edge to destinations, by a certificate for each; peers to the edge, where it demands that.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;

use process::address;
use process::certificates::{Authority, dns, ip, server};
use process::sip::Agent;
use process::stream::{Line, listen, start, tcp_config, wait_for};
use sipedge_proxy::config::{Route, SecretRef, Target, TlsListener, Trunk, TrunkTls};
use sipedge_proxy::net::TlsMaterial;

fn file(name: &str) -> SecretRef {
    SecretRef::File(name.to_owned())
}

#[test]
fn each_destination_gets_its_own_certificate() {
    let (callers, callees) = ([address(192), address(193)], [address(194), address(195)]);
    let listeners = callees.map(listen);
    let mut config = tcp_config(address(191), callers[0], "sip:192.0.2.1");
    (config.trunks, config.routes) = (Vec::new(), Vec::new());
    let (roots, mut material) = (Authority::new("roots"), TlsMaterial::default());
    material.insert(file("roots.pem"), roots.pem().into());
    let mut demanded = Vec::new();
    for (number, (caller, listener)) in callers.iter().zip(&listeners).enumerate() {
        let (from, to, own) = (format!("from{number}"), format!("to{number}"), format!("own{number}.pem"));
        let authority = Authority::new(&to);
        material.insert(file(&own), authority.issue(&[dns("edge.example")]).into());
        demanded.push(authority);
        let target = format!("sip:{};transport=tls", listener.local_addr().unwrap());
        config.trunks.push(Trunk { from: vec![(*caller).into()], ..Trunk::new(&from) });
        config.trunks.push(Trunk {
            targets: vec![Target::new(target)],
            tls: Some(TrunkTls { certificate: Some(file(&own)), roots: Some(file("roots.pem")) }),
            ..Trunk::new(&to)
        });
        config.routes.push(Route { from, to });
    }
    let (_proxy, edge) = start(config, &material);
    for (number, listener) in listeners.iter().enumerate() {
        let caller = Agent::bind(callers[number], 0);
        caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), &format!("mutual{number}")), edge);
        let certificate = roots.issue(&[ip(callees[number])]);
        let mut line = Line::accept_tls(listener, server(&certificate, Some(&demanded[number]))).unwrap();
        let invite = line.expect("INVITE");
        line.respond(&invite, "486 Busy Here");
        caller.expect("486");
    }
}

/// A call to a callee whose certificate comes from `issuer`, and who demands one of `clients`; the edge trusts `roots` and has none.
fn fails(edge: u8, issuer: &Authority, roots: &Authority, clients: Option<&Authority>) {
    let (caller, callee) = (address(edge + 1), address(edge + 2));
    let listener = listen(callee);
    let target = format!("sip:{};transport=tls", listener.local_addr().unwrap());
    let mut config = tcp_config(address(edge), caller, &target);
    config.trunks[1].tls = Some(TrunkTls { certificate: None, roots: Some(file("roots.pem")) });
    let mut material = TlsMaterial::default();
    material.insert(file("roots.pem"), roots.pem().into());
    let (proxy, edge) = start(config, &material);
    let caller = Agent::bind(caller, 0);
    caller.send(&caller.request("INVITE", &format!("sip:1@{edge}"), "fails"), edge);
    let accepted = Line::accept_tls(&listener, server(&issuer.issue(&[ip(callee)]), clients));
    assert!(accepted.is_err());
    drop(listener);
    caller.expect("SIP/2.0 100");
    let answer = caller.expect("SIP/2.0 ");
    assert!(["4", "5"].iter().any(|class| answer.first_line()["SIP/2.0 ".len()..].starts_with(class)), "{answer:?}");
    wait_for(&proxy, "reported", |numbers| numbers.streams.failures_reported >= 1);
}

#[test]
fn a_destination_that_demands_a_certificate_and_gets_none_fails_the_call() {
    let roots = Authority::new("roots");
    fails(202, &roots, &roots, Some(&Authority::new("clients")));
}

#[test]
fn a_destination_from_a_wrong_root_fails_the_call() {
    fails(206, &Authority::new("others"), &Authority::new("roots"), None);
}

#[test]
fn the_edge_turns_away_peers_without_a_good_certificate() {
    let peer = address(211);
    let mut config = tcp_config(address(210), peer, "sip:192.0.2.1");
    let (roots, clients) = (Authority::new("roots"), Authority::new("clients"));
    config.listen.tls = Some(TlsListener {
        port: 5061,
        certificate: file("edge.pem"),
        client_roots: Some(file("clients.pem")),
        require_client: true,
    });
    let mut material = TlsMaterial::default();
    material.insert(file("edge.pem"), roots.issue(&[dns("edge.example")]).into());
    material.insert(file("clients.pem"), clients.pem().into());
    let (proxy, edge) = start(config, &material);
    let port = SocketAddr::new(edge.ip(), 5061);
    let foreign = Authority::new("foreign").issue(&[dns("peer.example")]);
    for (number, certificate) in [None, Some(foreign.as_str())].into_iter().enumerate() {
        // In TLS 1.3 the client learns of the refusal only by its first read.
        if let Ok(mut line) = Line::connect_tls(peer, port, roots.client(certificate), "edge.example") {
            line.expect_end();
        }
        let refused = number as u64 + 1;
        wait_for(&proxy, "handshake refused", |numbers| numbers.streams.handshake_failures == refused);
    }
    let certificate = clients.issue(&[dns("peer.example")]);
    let mut line = Line::connect_tls(peer, port, roots.client(Some(&certificate)), "edge.example").unwrap();
    assert!(line.options("mutual").contains("200"));
    assert_eq!(proxy.numbers().streams.messages_received, 1);
}
