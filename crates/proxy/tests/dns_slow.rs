//! A name server that is silent holds up nothing but the calls to names that it does not tell.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::time::{Duration, Instant};

use process::dns::{Dns, Trouble};
use process::named::{AT_ONCE, Named, settings};
use process::sip::Agent;
use process::{DEADLINE, address};
use sipedge_proxy::config::{Route, Target, Trunk};
use sipedge_proxy::engine::Control;

#[test]
fn calls_to_a_known_destination_pass_at_once_while_every_question_hangs() {
    let callee = Agent::bind(address(142), 0);
    let dns = Dns::start(address(143));
    dns.address("known.example", 300, address(142));
    let mut config = settings(140, &[&format!("sip:known.example:{}", callee.address.port())], &dns);
    // A second caller, whose destination's name is never answered.
    let stuck = Agent::bind(address(144), 0);
    config.trunks.push(Trunk { from: vec![address(144).into()], ..Trunk::new("stuck") });
    config.trunks.push(Trunk { targets: vec![Target::new("sip:hangs.example")], ..Trunk::new("hanging") });
    config.routes.push(Route { from: "stuck".into(), to: "hanging".into() });
    let named = Named::start_unanswered(config, 140, dns);
    named.dns.wait_for("A known.example", 1);
    named.wait_for_answers();
    named.dns.trouble(Some(Trouble::Silence));
    named.proxy.control(Control::Open);
    let edge = named.edge;

    // Calls whose callee gives a name as its Contact: their ACKs have to be looked up, and each name hangs.
    let hanging = 60;
    for call in 0..hanging {
        let caller = &named.caller;
        caller.send(&caller.request("INVITE", &format!("sip:42@{edge}"), &format!("hang-{call}")), edge);
        let invite = callee.expect("INVITE");
        let ok = answer_with_contact(&callee, &invite, &format!("sip:callee@hang-{call}.example"));
        callee.send(&ok, invite.from);
        caller.acknowledge(&caller.expect("200 OK"), edge);
    }
    named.dns.wait_for("NAPTR hang-0.example", 1);
    assert!(named.proxy.names_unanswered() > 10, "{} questions hang", named.proxy.names_unanswered());

    let mut slowest = Duration::ZERO;
    for call in 0..100 {
        if call % 10 == 0 {
            stuck.send(&stuck.request("INVITE", &format!("sip:42@{edge}"), &format!("stuck-{call}")), edge);
        }
        let started = Instant::now();
        named.call(&format!("known-{call}"), &[&callee]).expect("a call to a known destination passes at once");
        slowest = slowest.max(started.elapsed());
    }
    assert!(named.proxy.names_unanswered() > 0, "questions hang to the end");
    assert!(slowest < AT_ONCE, "the slowest of 100 calls took {slowest:?}");
    stuck.expect("SIP/2.0 5");
    println!("slowest of 100 calls while {hanging} questions hang: {slowest:?}");
}

#[test]
fn a_destination_is_refreshed_in_time_while_the_names_of_strangers_hang() {
    let (old, new) = (Agent::bind(address(152), 0), Agent::bind(address(153), 0));
    let dns = Dns::start(address(154));
    dns.srv("_sip._udp.known.example", 1, [0, 1, old.address.port()], "c.example").address(
        "c.example",
        1,
        address(152),
    );
    let named = Named::start(150, &["sip:known.example;transport=udp"], dns);
    let edge = named.edge;
    let hanging = 60;
    for call in 0..hanging {
        let host = format!("hang-{call}.example");
        named.dns.trouble_with(&host, hickory_proto::rr::RecordType::NAPTR, Trouble::Silence);
        for transport in ["udp", "tcp"] {
            let service = format!("_sip._{transport}.{host}");
            named.dns.trouble_with(&service, hickory_proto::rr::RecordType::SRV, Trouble::Silence);
        }
    }
    for call in 0..hanging {
        let caller = &named.caller;
        caller.send(&caller.request("INVITE", &format!("sip:42@{edge}"), &format!("hang-{call}")), edge);
        let invite = old.expect("INVITE");
        let ok = answer_with_contact(&old, &invite, &format!("sip:callee@hang-{call}.example"));
        old.send(&ok, invite.from);
        caller.acknowledge(&caller.expect("200 OK"), edge);
    }
    named.dns.wait_for("NAPTR hang-0.example", 1);
    // 60 names of at most 16 at a time, each for some 4 s: the last would be answered after 15 s.
    named.dns.clear().srv("_sip._udp.known.example", 1, [0, 1, new.address.port()], "c.example");
    named.dns.address("c.example", 1, address(153));
    let moved = Instant::now();
    let mut number = 0;
    while named.call(&format!("move-{number}"), &[&old, &new]).expect("a call is taken by one of them").0 == 0 {
        number += 1;
        assert!(moved.elapsed() < DEADLINE, "calls still go to the old address after {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(moved.elapsed() < Duration::from_secs(8), "the new address was used only after {:?}", moved.elapsed());
}

/// A 200 to `invite` with a Contact of the callee's choice.
fn answer_with_contact(callee: &Agent, invite: &process::sip::Message, contact: &str) -> String {
    let copied: String = ["Via", "Record-Route"]
        .iter()
        .flat_map(|name| invite.headers(name).into_iter().map(move |value| format!("{name}: {value}\r\n")))
        .collect();
    let (from, to, cseq, id) =
        (invite.header("From"), invite.header("To"), invite.header("CSeq"), invite.header("Call-ID"));
    format!(
        "SIP/2.0 200 OK\r\n{copied}From: {from}\r\nTo: {to};tag={}\r\nCall-ID: {id}\r\nCSeq: {cseq}\r\n\
         Contact: <{contact}>\r\nContent-Length: 0\r\n\r\n",
        callee.address.port()
    )
}
