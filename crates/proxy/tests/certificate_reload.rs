//! New certificates come into force for new handshakes; connections and calls go on.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;

use process::certificates::{Authority, dns};
use process::sip::Agent;
use process::stream::{Line, start, tcp_config};
use process::{address, keys};
use sipedge_proxy::config::{SecretRef, TlsListener};
use sipedge_proxy::net::TlsMaterial;

fn material(pem: String) -> TlsMaterial {
    let mut material = TlsMaterial::default();
    material.insert(SecretRef::File("edge.pem".into()), pem.into());
    material
}

#[test]
fn a_call_goes_on_while_the_certificate_changes() {
    let (peer, callee) = (address(213), Agent::bind(address(214), 0));
    let mut config = tcp_config(address(212), peer, &format!("sip:{}", callee.address));
    let certificate = SecretRef::File("edge.pem".into());
    config.listen.tls = Some(TlsListener { port: 5061, certificate, client_roots: None, require_client: false });
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let names = [dns("edge.example")];
    let (proxy, edge) = start(config, &material(old.issue(&names)));
    let port = SocketAddr::new(edge.ip(), 5061);
    let connect = |authority: &Authority| Line::connect_tls(peer, port, authority.client(None), "edge.example");

    let mut line = connect(&old).unwrap();
    let invite = line.request("INVITE", &format!("sip:1@{edge}"), "long");
    line.send(&invite);
    callee.respond(&callee.expect("INVITE"), "200 OK");
    let ok = line.expect("200");
    line.send(&line.in_dialog("ACK", 1, &ok));
    callee.expect("ACK");

    let reload = |material: &TlsMaterial| {
        let setup = proxy.setup();
        proxy
            .reload(setup.config.clone(), proxy.place(), &keys(), material)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    reload(&material(new.issue(&names))).unwrap();
    assert!(connect(&old).is_err(), "the old certificate is shown no more");
    assert!(connect(&new).unwrap().options("new").contains("200"));

    line.send(&line.in_dialog("BYE", 2, &ok));
    callee.respond(&callee.expect("BYE"), "200 OK");
    assert!(line.expect("200").header("CSeq").contains("BYE"));

    // What cannot be used changes nothing.
    let other_key = new.issue(&names);
    let mixed = new.issue(&names).split("-----BEGIN PRIVATE KEY").next().unwrap().to_owned()
        + &other_key[other_key.find("-----BEGIN PRIVATE KEY").unwrap()..];
    let refused = |material: &TlsMaterial| reload(material).unwrap_err();
    let answers = [refused(&material(mixed)), refused(&material(String::new())), refused(&TlsMaterial::default())];
    assert!(answers.iter().all(|answer| answer.contains("edge.pem")), "{answers:#?}");
    assert!(answers[0] != answers[1] && answers[1] != answers[2], "each says what is wrong: {answers:#?}");
    assert!(connect(&new).unwrap().options("still").contains("200"));
}
