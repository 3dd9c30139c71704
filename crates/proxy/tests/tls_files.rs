//! What a process says of certificates and TCP ports that it cannot use.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::TcpListener;

use process::certificates::{Authority, dns};
use process::stream::Line;
use process::{INGRESS, Process, address, config, folder, metric, wait_for_readyz};
use sipedge_proxy::config::{Config, SecretRef, TlsListener};

/// A TCP and TLS edge with these contents in `edge.pem`. The folder has to outlive the process.
fn run(edge: u8, pem: Option<&str>) -> (Process, tempfile::TempDir) {
    let ip = address(edge);
    let mut config: Config = config(ip, address(201), "198.51.100.7:5060".parse().unwrap());
    config.listen.tcp = true;
    let certificate = SecretRef::File("edge.pem".into());
    config.listen.tls = Some(TlsListener { port: 5061, certificate, client_roots: None, require_client: false });
    let folder = folder(&config);
    if let Some(pem) = pem {
        std::fs::write(folder.path().join("edge.pem"), pem).unwrap();
    }
    let file = folder.path().join("config.yaml");
    let arguments =
        ["run".as_ref(), "--config".as_ref(), file.as_os_str(), "--secrets".as_ref(), folder.path().as_os_str()];
    (Process::start(arguments), folder)
}

#[test]
fn files_that_are_missing_or_wrong_are_named_with_what_to_do() {
    let authority = Authority::new("roots");
    let good = authority.issue(&[dns("edge.example")]);
    let certificate = good.split("-----BEGIN PRIVATE KEY").next().unwrap();
    for (pem, expected) in [
        (None, "listen.tls.certificate: "),
        (Some("nothing of use"), "no certificate in it"),
        (Some(certificate), "no private key in it; append the key"),
    ] {
        let (mut process, _folder) = run(215, pem);
        process.wait_for_log(expected);
        assert_eq!(process.wait().code(), Some(5), "{}", process.log());
        let log = process.log();
        assert!(log.contains("edge.pem"), "{log}");
        assert!(!log.contains("BEGIN"), "no contents in the log: {log}");
    }
    let (mut process, _folder) = run(215, Some(&good));
    wait_for_readyz(address(215), 200, &mut process);
    let client = authority.client(None);
    let mut peer = Line::connect_tls(address(201), (address(215), 5061).into(), client, "edge.example").unwrap();
    assert!(peer.options("files").contains("200"));
    assert_eq!(metric(address(215), "sipedge_stream_accepted_total"), 1);
    assert_eq!(metric(address(215), "sipedge_stream_connections_in"), 1);
}

#[test]
fn a_tcp_port_that_is_taken_is_named() {
    let good = Authority::new("roots").issue(&[dns("edge.example")]);
    let _taken = TcpListener::bind((address(216), INGRESS)).unwrap();
    let (mut process, _folder) = run(216, Some(&good));
    process.wait_for_log("cannot bind TCP");
    assert_eq!(process.wait().code(), Some(6), "{}", process.log());
    let log = process.log();
    assert!(log.contains("(ingress)") && log.contains("another process"), "{log}");
}
