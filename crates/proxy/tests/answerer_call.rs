//! A call to the built-in answerer from outside every trunk: challenged, answered, re-INVITE, and hung up by either end.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;
use std::time::Duration;

use process::digest::{PASSWORD, USER, challenged, with};
use process::sip::{Agent, Message};
use process::{Process, address, config, metric, wait_for_readyz, with_answerer};

/// An edge with an answerer whose only trunk is somebody else's, and who calls it.
fn stage(number: u8) -> (Process, tempfile::TempDir, SocketAddr, Agent) {
    let [edge, caller] = [address(number), address(number + 1)];
    let callee = SocketAddr::new(address(number + 2), 5060);
    let config = with_answerer(config(edge, address(number + 2), callee));
    let (mut process, folder) = Process::run(&config);
    wait_for_readyz(edge, 200, &mut process);
    (process, folder, SocketAddr::new(edge, process::INGRESS), Agent::bind(caller, 0))
}

/// A call that is up: the 200.
fn call(caller: &Agent, edge: SocketAddr, user: &str, call_id: &str, algorithm: usize) -> Message {
    let (invite, challenges) = challenged(caller, edge, user, call_id);
    let uri = format!("sip:{user}@{edge}");
    let invite = with(&invite, &challenges[algorithm].answer("INVITE", &uri, USER, PASSWORD, 1), 2);
    caller.send(&invite, edge);
    let trying = caller.expect("SIP/2.0 1");
    assert!(trying.first_line().contains("100 Trying"), "{}", trying.text);
    caller.expect("SIP/2.0 180");
    let ok = caller.expect("SIP/2.0 200");
    caller.send(&caller.in_dialog("ACK", 2, &ok), edge);
    ok
}

#[test]
fn sha_256_is_asked_for_first_and_md5_does_as_well() {
    let (_process, _folder, edge, caller) = stage(201);
    let (_, challenges) = challenged(&caller, edge, USER, "order");
    let algorithms: Vec<&str> = challenges.iter().map(|challenge| challenge.algorithm.as_str()).collect();
    assert_eq!(algorithms, ["SHA-256", "MD5"], "RFC 8760 §2.4: the preferred one on top");
    assert!(challenges.iter().all(|challenge| challenge.realm == edge.ip().to_string() && !challenge.stale));
    for (place, algorithm) in algorithms.iter().enumerate() {
        let ok = call(&caller, edge, USER, &format!("by-{algorithm}"), place);
        caller.send(&caller.in_dialog("BYE", 3, &ok), edge);
        assert!(caller.expect("SIP/2.0 200").header("CSeq").ends_with("BYE"));
    }
    assert_eq!(metric(edge.ip(), "sipedge_answerer_calls_total"), 2);
    assert_eq!(metric(edge.ip(), "sipedge_answerer_challenged_total"), 3);
}

#[test]
fn the_answer_names_instance_and_configuration_and_carries_no_media() {
    let (_process, _folder, edge, caller) = stage(204);
    let ok = call(&caller, edge, USER, "identity", 0);
    assert_eq!(ok.header("X-Sipedge-Instance"), edge.ip().to_string());
    let (_, metrics) = process::get(edge.ip(), "/metrics").unwrap();
    let hash = ok.header("X-Sipedge-Configuration");
    assert!(metrics.contains(&format!("sipedge_configuration_info{{hash=\"{hash}\"}}")), "{hash}");
    assert!(ok.header("Server").starts_with("sipedge/"));
    assert!(ok.text.contains("m=audio 9 ") && ok.text.contains("a=inactive"), "{}", ok.text);
    assert!(!ok.text.contains("X-Sipedge-Flow"), "{}", ok.text);
    assert!(ok.header("Record-Route").contains(&edge.to_string()), "through the edge, as any call: {}", ok.text);
    let reinvite = caller.in_dialog("INVITE", 3, &ok);
    let contact = format!("Contact: <sip:op@{}>\r\nContent-Length", caller.address);
    caller.send(&reinvite.replace("Content-Length", &contact), edge);
    // The first 200 may have gone again before its ACK was there, and so may this one.
    while caller.expect("SIP/2.0 200").header("CSeq") != "3 INVITE" {}
    // The route set is that of the call's first answer (RFC 3261 §12.2).
    caller.send(&caller.in_dialog("ACK", 3, &ok), edge);
    caller.send(&caller.in_dialog("BYE", 4, &ok), edge);
    while caller.expect("SIP/2.0 200").header("CSeq") != "4 BYE" {}
}

#[test]
fn the_answerer_hangs_up_by_the_way_that_the_call_came_whatever_contact_says() {
    let (_process, _folder, edge, caller) = stage(207);
    let user = format!("{USER}+hangup");
    // Behind NAT Contact is an address that nobody reaches: 10.255.255.255 here.
    let (invite, challenges) = challenged(&caller, edge, &user, "nat");
    let uri = format!("sip:{user}@{edge}");
    let contact = format!("Contact: <sip:caller@{}>", caller.address);
    let invite = with(&invite, &challenges[0].answer("INVITE", &uri, USER, PASSWORD, 1), 2);
    caller.send(&invite.replace(&contact, "Contact: <sip:caller@10.255.255.255:5060>"), edge);
    let ok = caller.expect("SIP/2.0 200");
    caller.send(&caller.in_dialog("ACK", 2, &ok), edge);
    let bye = caller.expect("BYE ");
    assert_eq!(bye.from, edge, "from the ingress address, which the caller's NAT knows");
    assert!(bye.first_line().contains("sip:caller@10.255.255.255:5060"), "{}", bye.text);
    assert!(!bye.text.contains("X-Sipedge-Flow"), "{}", bye.text);
    assert!(bye.headers("Route").is_empty(), "{}", bye.text);
    caller.respond(&bye, "200 OK");
    assert!(caller.next(Duration::from_millis(300)).is_none(), "the BYE was answered");
}

#[test]
fn options_with_credentials_says_whether_the_edge_takes_calls() {
    let (_process, _folder, edge, caller) = stage(210);
    let uri = format!("sip:{USER}@{edge}");
    let options = caller.request("OPTIONS", &uri, "options");
    caller.send(&options, edge);
    let challenges = process::digest::Challenge::all(&caller.expect("SIP/2.0 401"));
    let options = with(&options, &challenges[0].answer("OPTIONS", &uri, USER, PASSWORD, 1), 2);
    caller.send(&options, edge);
    assert!(caller.expect("SIP/2.0 200").text.contains("Allow: "));
}
