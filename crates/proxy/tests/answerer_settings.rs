//! The answerer's settings: what is refused at the start, and what a reload changes.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;

use process::control::reload;
use process::digest::{Challenge, PASSWORD, USER, ack, challenged, with};
use process::sip::Agent;
use process::{Process, address, config, folder, metric, wait_for_readyz, with_answerer};
use sipedge_proxy::config::{Answerer, Config, SecretRef};

#[test]
fn a_password_that_is_missing_or_weak_leaves_an_edge_without_answerer_and_is_in_no_message() {
    let config = with_answerer(config(address(250), address(251), SocketAddr::new(address(251), 5060)));
    for (password, text) in [
        (None, "write the answerer's password there"),
        (Some("short-secret"), "16 to 128 printable"),
        (Some(""), "16 to 128 printable"),
        (Some("two lines of a\nplanted-secret"), "16 to 128 printable"),
    ] {
        let folder = folder(&config);
        let file = folder.path().join("answerer");
        match password {
            None => std::fs::remove_file(&file).unwrap(),
            Some(password) => std::fs::write(&file, password).unwrap(),
        }
        let mut process = Process::run_in(folder.path());
        wait_for_readyz(address(250), 200, &mut process);
        let log = process.log();
        let line = log.lines().find(|line| line.contains("answerer.password")).unwrap_or_default();
        assert!(line.contains("ERROR") && line.contains(text), "{log}");
        let counted = |what: &str| metric(address(250), &format!("sipedge_secrets_{what}_total"));
        assert_eq!(counted("refused") + counted("missed"), 1);
        let (caller, edge) = (Agent::bind(address(249), 0), SocketAddr::new(address(250), process::INGRESS));
        caller.send(&caller.request("INVITE", &format!("sip:{USER}@{edge}"), "none"), edge);
        caller.expect("SIP/2.0 403");
        assert!(!process.log().contains("secret\n") && !process.log().contains("short-secret"), "{}", process.log());
    }
    for user in ["", "two words", "a@b", "plus+sign"] {
        let answerer = Some(Answerer { user: user.into(), password: SecretRef::File("answerer".into()) });
        let folder = folder(&Config { answerer, ..config.clone() });
        let line = Process::run_in(folder.path()).wait_for_failure(3);
        assert!(line.contains("answerer.user"), "{user:?}: {line}");
    }
}

#[test]
fn a_reload_takes_another_password_and_takes_the_answerer_away() {
    let [edge, caller, carrier] = [252, 253, 254].map(address);
    let config = with_answerer(config(edge, carrier, SocketAddr::new(carrier, 5060)));
    let (mut process, folder) = Process::run(&config);
    wait_for_readyz(edge, 200, &mut process);
    let (edge, caller) = (SocketAddr::new(edge, process::INGRESS), Agent::bind(caller, 0));
    let uri = format!("sip:{USER}@{edge}");
    let code = |call_id: &str, password: &str| {
        let (invite, challenges) = challenged(&caller, edge, USER, call_id);
        let invite = with(&invite, &challenges[0].answer("INVITE", &uri, USER, password, 1), 2);
        caller.send(&invite, edge);
        loop {
            let message = caller.expect("SIP/2.0 ");
            let is_its = message.header("CSeq") == "2 INVITE" && message.header("Call-ID") == call_id;
            match message.first_line().split(' ').nth(1).unwrap() {
                "200" if is_its => {
                    caller.send(&caller.in_dialog("ACK", 2, &message), edge);
                    return ("200", Some(message));
                }
                "401" if is_its => {
                    caller.send(&ack(&invite, &message), edge);
                    return ("401", None);
                }
                _ => {}
            }
        }
    };
    let (first, up) = code("before", PASSWORD);
    assert_eq!(first, "200");
    const NEXT: &str = "another-password-0123456789";
    std::fs::write(folder.path().join("answerer"), NEXT).unwrap();
    assert_eq!(reload(folder.path()).0, 200);
    assert_eq!((code("old", PASSWORD).0, code("new", NEXT).0), ("401", "200"));
    // The call of before is up, and ends as it should.
    caller.send(&caller.in_dialog("BYE", 3, &up.unwrap()), edge);
    while !caller.expect("SIP/2.0 200").header("CSeq").ends_with("BYE") {}

    std::fs::write(folder.path().join("answerer"), "weak").unwrap();
    let (status, taken) = reload(folder.path());
    assert_eq!(status, 200);
    assert!(taken["consequences"].to_string().contains("answerer.password"), "{taken}");
    assert_eq!(code("still", NEXT).0, "200", "the last good one stays");

    let without = Config { answerer: None, ..config };
    std::fs::write(folder.path().join("config.yaml"), serde_yaml::to_string(&without).unwrap()).unwrap();
    assert_eq!(reload(folder.path()).0, 200);
    caller.send(&caller.request("INVITE", &uri, "gone"), edge);
    caller.expect("SIP/2.0 403");
    assert!(!process.log().contains(PASSWORD) && !process.log().contains(NEXT), "{}", process.log());
    let shown = process::control::get(folder.path(), "/config").to_string();
    assert!(!shown.contains(NEXT), "{shown}");
}

#[test]
fn a_proof_that_was_used_stays_used_over_a_reload() {
    let [edge, caller, carrier] = [246, 247, 248].map(address);
    let config = with_answerer(config(edge, carrier, SocketAddr::new(carrier, 5060)));
    let (mut process, folder) = Process::run(&config);
    wait_for_readyz(edge, 200, &mut process);
    let (edge, caller) = (SocketAddr::new(edge, process::INGRESS), Agent::bind(caller, 0));
    let uri = format!("sip:{USER}@{edge}");
    let (_, challenges) = challenged(&caller, edge, USER, "first");
    let proof = challenges[0].answer("OPTIONS", &uri, USER, PASSWORD, 1);
    let options = |call_id: &str| {
        caller.send(&with(&caller.request("OPTIONS", &uri, call_id), &proof, 2), edge);
        caller.expect("SIP/2.0 ")
    };
    assert!(options("once").first_line().starts_with("SIP/2.0 200"));
    assert_eq!(reload(folder.path()).0, 200);
    let again = options("again");
    assert!(again.first_line().starts_with("SIP/2.0 401"), "{}", again.text);
    assert!(Challenge::all(&again)[0].stale, "{}", again.text);
}
