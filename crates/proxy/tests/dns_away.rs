//! Name servers that go away: calls go on to the last good answer, and the next good answer is used.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use process::dns::{Dns, Trouble};
use process::named::Named;
use process::sip::Agent;
use process::{EGRESS, INGRESS, address, config, keys};
use sipedge_proxy::config::Target;
use sipedge_proxy::engine::{Arrival, Control, Engine, Place, Port, Query, Server, Setup, Shared, Transport};
use sipedge_sip::Time;

#[test]
fn calls_go_on_when_the_name_server_dies_after_its_first_answer() {
    let callee = Agent::bind(address(142), 0);
    let dns = Dns::start(address(143));
    dns.srv("_sip._udp.pstn.example", 1, [0, 1, callee.address.port()], "c0.example");
    dns.address("c0.example", 1, address(142));
    let named = Named::start(140, &["sip:pstn.example"], dns);
    named.call("before", &[&callee]).unwrap();
    // An answer that the resolver of a dead zone gives, and at once.
    named.dns.trouble(Some(Trouble::Code(hickory_proto::op::ResponseCode::ServFail)));
    let asked = named.dns.asked().iter().filter(|asked| *asked == "A pstn.example").count();
    named.dns.wait_for("A pstn.example", asked + 1);
    named.wait_for_answers();
    for call in 0..10 {
        named.call(&format!("after-{call}"), &[&callee]).expect("the last good answer stays in use");
    }
}

#[test]
fn a_way_that_is_not_answered_does_not_lead_calls_astray() {
    let (callee, wrong) = (Agent::bind(address(152), 0), Agent::bind(address(153), 5060));
    let dns = Dns::start(address(154));
    dns.srv("_sip._udp.pstn.example", 1, [0, 1, callee.address.port()], "c0.example");
    dns.address("c0.example", 1, address(152)).address("pstn.example", 1, address(153));
    let named = Named::start(150, &["sip:pstn.example"], dns);
    let servfail = Trouble::Code(hickory_proto::op::ResponseCode::ServFail);
    // Only SRV fails: the address of the domain itself, its web server say, is not what calls are to go to.
    named.dns.trouble_with("_sip._udp.pstn.example", hickory_proto::rr::RecordType::SRV, servfail);
    named.dns.wait_for("A pstn.example", 1);
    named.wait_for_answers();
    for call in 0..10 {
        let (taken, _) = named.call(&format!("astray-{call}"), &[&callee, &wrong]).unwrap();
        assert_eq!(taken, 0, "the last good answer stays in use");
    }
}

/// The same on virtual time, and what happens when the name servers come back.
#[test]
fn the_answer_of_a_name_server_that_came_back_is_used() {
    let (edge, caller) = (address(160), address(161));
    let mut config = config(edge, caller, SocketAddr::new(edge, 1));
    config.trunks[1].targets = vec![Target::new("sip:pstn.example")];
    let (ingress, egress) = (SocketAddr::new(edge, INGRESS), SocketAddr::new(edge, EGRESS));
    let place = Place { ingress, egress, advertised: edge.to_string(), shards: 1 };
    let setup = Arc::new(Setup::new(config, &place, &keys()).unwrap());
    let shared = Arc::new(Shared::new(&setup));
    let mut now = Time::from_micros(1_700_000_000_000_000);
    let mut engine = Engine::new(setup, shared, now);
    engine.handle_control(now, Control::Open);

    let query = Query { host: "pstn.example".into(), port: None, transport: None, secure: false };
    let server =
        |text: &str| [Server { priority: 0, weight: 1, transport: Transport::Udp, address: text.parse().unwrap() }];
    let mut number = 0;
    // Where a new call goes now.
    let mut call = |engine: &mut Engine, now: Time| {
        number += 1;
        let invite = format!(
            "INVITE sip:42@{ingress} SIP/2.0\r\nVia: SIP/2.0/UDP {caller}:5060;branch=z9hG4bK{number};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:a@x>;tag=f\r\nTo: <sip:42@{ingress}>\r\nCall-ID: {number}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:a@{caller}>\r\nContent-Length: 0\r\n\r\n"
        );
        let arrival = Arrival::datagram(Port::Ingress, SocketAddr::new(caller, 5060));
        engine.handle_message(now, &arrival, invite.as_bytes());
        let to = engine.outbox().transmits().find(|sent| sent.bytes.starts_with(b"INVITE")).map(|sent| sent.hop.to);
        engine.clear_outbox();
        to
    };
    // How long it takes until the name is asked for again.
    let until_asked = |engine: &mut Engine, now: &mut Time| {
        let started = *now;
        while engine.outbox().resolves().is_empty() {
            *now = engine.poll_timeout().expect("the name is asked for again").max(*now);
            assert!(now.since(started) < Duration::from_secs(4_000), "not asked for again within an hour");
            engine.handle_timeout(*now);
        }
        assert_eq!(engine.outbox().resolves(), std::slice::from_ref(&query));
        engine.clear_outbox();
        now.since(started)
    };

    assert_eq!(until_asked(&mut engine, &mut now), Duration::ZERO, "asked for before the first call");
    engine.handle_resolved(now, &query, &server("198.51.100.1:5060"), Duration::from_secs(60));
    assert_eq!(call(&mut engine, now), Some("198.51.100.1:5060".parse().unwrap()));
    assert!(until_asked(&mut engine, &mut now) <= Duration::from_secs(60), "asked for when its time is over");
    for _ in 0..100 {
        engine.handle_resolved(now, &query, &[], Duration::ZERO);
        assert_eq!(call(&mut engine, now), Some("198.51.100.1:5060".parse().unwrap()), "the last good answer");
        assert!(until_asked(&mut engine, &mut now) <= Duration::from_secs(30), "a name server that is back is noticed");
    }
    engine.handle_resolved(now, &query, &server("198.51.100.2:5060"), Duration::from_secs(60));
    assert_eq!(call(&mut engine, now), Some("198.51.100.2:5060".parse().unwrap()));
}
