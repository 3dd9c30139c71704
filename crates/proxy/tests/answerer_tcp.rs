//! The answerer over TCP: its BYE comes back by the connection that the caller opened, since nobody could open one to a caller behind NAT.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;

use process::digest::{Challenge, PASSWORD, USER, ack, with};
use process::stream::Line;
use process::{Process, address, config, wait_for_readyz, with_answerer};
use sipedge_proxy::config::Listen;

#[test]
fn a_call_over_tcp_is_hung_up_by_its_own_connection() {
    let [edge, caller, carrier] = [241, 242, 243].map(address);
    let config = with_answerer(config(edge, carrier, SocketAddr::new(carrier, 5060)));
    let config = sipedge_proxy::config::Config { listen: Listen { tcp: true, ..config.listen.clone() }, ..config };
    let (mut process, _folder) = Process::run(&config);
    wait_for_readyz(edge, 200, &mut process);
    let edge = SocketAddr::new(edge, process::INGRESS);
    let mut line = Line::connect(caller, edge);
    let uri = format!("sip:{USER}+hangup@{edge}");
    let invite = line.request("INVITE", &uri, "tcp");
    // Where nobody listens.
    let contact = invite.lines().find(|line| line.starts_with("Contact: ")).unwrap().to_owned();
    let invite = invite.replace(&contact, "Contact: <sip:op@10.255.255.255:5060;transport=tcp>");
    line.send(&invite);
    let refusal = line.expect("SIP/2.0 401");
    line.send(&ack(&invite, &refusal));
    let answer = Challenge::all(&refusal)[0].answer("INVITE", &uri, USER, PASSWORD, 1);
    line.send(&with(&invite, &answer, 2));
    let ok = line.expect("SIP/2.0 200");
    assert_eq!(ok.headers("Record-Route").len(), 2, "one for each transport (RFC 5658): {}", ok.text);
    line.send(&line.in_dialog("ACK", 2, &ok));
    let bye = line.expect("BYE ");
    assert!(bye.text.contains("SIP/2.0/TCP"), "{}", bye.text);
    line.respond(&bye, "200 OK");
    assert_eq!(process::metric(edge.ip(), "sipedge_stream_opened_total"), 0, "the edge has opened no connection");
}
