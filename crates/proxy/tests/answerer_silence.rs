//! An edge that refuses in silence answers strangers who name the answerer's user, and nobody else; one without an answerer knows no such user.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;
use std::time::Duration;

use process::digest::{PASSWORD, USER, challenged, with};
use process::sip::Agent;
use process::{Process, address, config, metric, wait_for_readyz, with_answerer};
use sipedge_proxy::config::{Config, Refuse};

const SILENCE: Duration = Duration::from_millis(250);

fn stage(number: u8, change: impl FnOnce(Config) -> Config) -> (Process, tempfile::TempDir, SocketAddr, Agent) {
    let [edge, caller, carrier] = [0, 1, 2].map(|place| address(number + place));
    let config = change(config(edge, carrier, SocketAddr::new(carrier, 5060)));
    let (mut process, folder) = Process::run(&config);
    wait_for_readyz(edge, 200, &mut process);
    (process, folder, SocketAddr::new(edge, process::INGRESS), Agent::bind(caller, 0))
}

#[test]
fn a_silent_edge_answers_its_answerers_user_alone() {
    let silent = |config| Config { refuse: Refuse::Silence, ..with_answerer(config) };
    let (_process, _folder, edge, caller) = stage(234, silent);
    for (number, (method, user)) in [
        ("INVITE", "+15550100".to_owned()),
        ("INVITE", format!("{USER}x")),
        ("INVITE", format!("x{USER}")),
        ("INVITE", USER.to_uppercase()),
        ("INVITE", format!("{USER}+other")),
        ("OPTIONS", "somebody".to_owned()),
        ("REGISTER", USER.to_owned()),
        ("MESSAGE", USER.to_owned()),
        ("BYE", USER.to_owned()),
        ("CANCEL", USER.to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        caller.send(&caller.request(method, &format!("sip:{user}@{edge}"), &format!("silent-{number}")), edge);
        let answer = caller.next(SILENCE);
        assert!(answer.is_none(), "{method} to {user}: {answer:?}");
    }
    caller.send(&caller.request("INVITE", &format!("sip:{edge}"), "no-user"), edge);
    assert!(caller.next(SILENCE).is_none());
    let scanner = caller.request("INVITE", &format!("sip:{USER}@{edge}"), "scanner");
    caller.send(&scanner.replace("Max-Forwards", "User-Agent: friendly-scanner\r\nMax-Forwards"), edge);
    assert!(caller.next(SILENCE).is_none(), "a known scanner hears nothing");

    let (invite, challenges) = challenged(&caller, edge, USER, "call");
    let uri = format!("sip:{USER}@{edge}");
    caller.send(&with(&invite, &challenges[0].answer("INVITE", &uri, USER, PASSWORD, 1), 2), edge);
    let ok = caller.expect("SIP/2.0 200");
    caller.send(&caller.in_dialog("ACK", 2, &ok), edge);
    caller.send(&caller.in_dialog("BYE", 3, &ok), edge);
    while !caller.expect("SIP/2.0 200").header("CSeq").ends_with("BYE") {}
}

#[test]
fn without_an_answerer_its_user_is_anybody() {
    let (_process, _folder, edge, caller) = stage(237, |config| config);
    caller.send(&caller.request("INVITE", &format!("sip:{USER}@{edge}"), "none"), edge);
    caller.expect("SIP/2.0 403");
    let (_process, _folder, edge, caller) = stage(240, |config| Config { refuse: Refuse::Silence, ..config });
    caller.send(&caller.request("INVITE", &format!("sip:{USER}@{edge}"), "none"), edge);
    assert!(caller.next(SILENCE).is_none());
}

#[test]
fn a_carrier_that_calls_the_answerers_user_calls_its_destination() {
    let (_process, _folder, edge, _) = stage(243, with_answerer);
    let carrier = Agent::bind(address(245), 0);
    let callee = Agent::bind(address(245), 5060);
    carrier.send(&carrier.request("INVITE", &format!("sip:{USER}@{edge}"), "carrier"), edge);
    let invite = callee.expect("INVITE ");
    assert!(!invite.text.contains("X-Sipedge-Flow"), "{}", invite.text);
    callee.respond(&invite, "486 Busy Here");
    carrier.expect("SIP/2.0 486");
}

#[test]
fn a_route_of_another_call_leads_nobody_to_the_answerer() {
    // The answerer's port is guessed from a call of one's own; a carrier's token is good for that call and not for the answerer's.
    let (_process, _folder, edge, operator) = stage(246, with_answerer);
    let uri = format!("sip:{USER}@{edge}");
    let (invite, challenges) = challenged(&operator, edge, USER, "own");
    operator.send(&with(&invite, &challenges[0].answer("INVITE", &uri, USER, PASSWORD, 1), 2), edge);
    let ok = operator.expect("SIP/2.0 200");
    operator.send(&operator.in_dialog("ACK", 2, &ok), edge);
    let target = ok.header("Contact").to_owned();

    let carrier = Agent::bind(address(248), 0);
    let callee = Agent::bind(address(248), 5060);
    carrier.send(&carrier.request("INVITE", &format!("sip:+15550100@{edge}"), "carrier"), edge);
    let invite = callee.expect("INVITE ");
    callee.respond(&invite, "200 OK");
    let ok = carrier.expect("SIP/2.0 200");
    carrier.acknowledge(&ok, edge);
    let mut bye = carrier.in_dialog("BYE", 2, &ok);
    let rest = bye.split_off(bye.find(" SIP/2.0").unwrap());
    let answer = format!("BYE {}{rest}", target.trim_matches(['<', '>']));
    carrier.send(&answer, edge);
    // On loopback, where peers are, the address itself may be reached; nothing but a 481 of the answerer or a refusal may come of it.
    let refusal = carrier.expect("SIP/2.0 4");
    assert!(refusal.header("CSeq").ends_with("BYE"), "{}", refusal.text);
    assert_eq!(metric(edge.ip(), "sipedge_answerer_calls_total"), 1);
}

#[test]
fn the_answerers_token_leads_to_nobody_else() {
    let (_process, _folder, edge, operator) = stage(249, with_answerer);
    let callee = Agent::bind(address(251), 5060);
    let uri = format!("sip:{USER}@{edge}");
    let (invite, challenges) = challenged(&operator, edge, USER, "fraud");
    operator.send(&with(&invite, &challenges[0].answer("INVITE", &uri, USER, PASSWORD, 1), 2), edge);
    let ok = operator.expect("SIP/2.0 200");
    operator.send(&operator.in_dialog("ACK", 2, &ok), edge);
    let target = ok.header("Contact").trim_matches(['<', '>']).to_owned();
    for (number, (method, to)) in [
        ("INVITE", format!("sip:+15550100@{}", callee.address)),
        ("INVITE", "sip:+15550100@callee.example".to_owned()),
        ("MESSAGE", format!("sip:+15550100@{}", callee.address)),
        ("ACK", format!("sip:+15550100@{}", callee.address)),
    ]
    .into_iter()
    .enumerate()
    {
        let request = operator.in_dialog(method, 10 + number as u32, &ok);
        let request = request.replacen(&target, &to, 1).replace(ok.header("To"), "<sip:x@y>;tag=made-up");
        assert!(request.contains("Route: ") && request.contains(&to) && request.contains("made-up"), "{request}");
        operator.send(&request, edge);
        if method != "ACK" {
            let refusal = operator.expect("SIP/2.0 403");
            assert!(refusal.header("CSeq").ends_with(method), "{}", refusal.text);
        }
    }
    assert!(callee.next(SILENCE).is_none(), "nobody is reached");
    // The call itself goes on.
    operator.send(&operator.in_dialog("BYE", 20, &ok), edge);
    while !operator.expect("SIP/2.0 200").header("CSeq").ends_with("BYE") {}
}
