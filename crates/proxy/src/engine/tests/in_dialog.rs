//! Requests within a dialog: by which route they come, and where they may go.

use super::*;

#[test]
fn the_callee_hangs_up_by_another_instance() {
    let route = Bench::new(config()).call();
    let mut other = Bench::new(config());
    let bye = request("BYE", "sip:a@192.0.2.1", "z9hG4bKx", ";tag=caller", &route)
        .replace("tag=caller\nTo", "tag=callee\nTo");
    let bye = Bench::one(other.receive(Port::Ingress, CALLEE, &bye));
    assert_eq!((bye.port, bye.to.as_str()), (Port::Egress, CALLER));
}

#[test]
fn in_dialog_requests_need_the_token_of_their_call() {
    let route = Bench::new(config()).call();
    let bye = |route: &str| request("BYE", "sip:b@198.51.100.1", "z9hG4bKx", ";tag=callee", route);
    let refused = |bench: &mut Bench, text: &str, status: &str| {
        let answer = Bench::one(bench.receive(Port::Ingress, CALLER, text));
        assert!(answer.start().starts_with(status), "{answer:?}");
    };
    let mut bench = Bench::new(config());
    refused(&mut bench, &bye(""), "SIP/2.0 404");
    refused(&mut bench, &bye("Route: <sip:203.0.113.10;lr>\n"), "SIP/2.0 403");
    refused(&mut bench, &bye(&route.replace("sip:A", "sip:B")), "SIP/2.0 403");
    refused(&mut bench, &bye(&route).replace("call@1", "call@2"), "SIP/2.0 403");
    refused(&mut Bench::with_keys(config(), &keys(&[2])), &bye(&route), "SIP/2.0 403");
    assert_eq!(bench.engine.counters().refused_token, 4);
    // Signed by the key before last week's rotation: still good.
    assert_eq!(
        Bench::one(Bench::with_keys(config(), &keys(&[2, 1])).receive(Port::Ingress, CALLER, &bye(&route))).to,
        CALLEE
    );
    // A forged ACK is dropped in silence.
    let ack = request("ACK", "sip:b@198.51.100.1", "z9hG4bKx", ";tag=callee", &route.replace("sip:A", "sip:B"));
    assert!(bench.receive(Port::Ingress, CALLER, &ack).is_empty());
}

#[test]
fn an_ack_of_a_2xx_may_bear_the_branch_of_its_invite() {
    let mut bench = Bench::new(config());
    let route = bench.call();
    let ack = request("ACK", "sip:b@198.51.100.1", "z9hG4bKcall", ";tag=callee", &route);
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &ack)).to, CALLEE);
}

#[test]
fn a_header_that_is_there_twice_is_refused() {
    let route = Bench::new(config()).call();
    let mut bench = Bench::new(config());
    let bye = request("BYE", "sip:b@198.51.100.1", "z9hG4bKx", ";tag=callee", &route);
    for twice in ["Call-ID: victim@1\n", "From: <sip:a@b>;tag=x\n", "To: <sip:a@b>;tag=x\n", "Max-Forwards: 9\n"] {
        let text = bye.replace("CSeq:", &format!("{twice}CSeq:"));
        assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &text)).start().starts_with("SIP/2.0 400"), "{twice}");
    }
}

#[test]
fn a_remote_target_inside_is_refused() {
    let route = Bench::new(config()).call();
    for inside in ["127.0.0.1", "10.0.1.77", "169.254.169.254", "224.0.0.1", "255.255.255.255", "0.0.0.0", "[::1]"] {
        let mut bench = Bench::new(config());
        let bye = request("BYE", &format!("sip:b@{inside}"), "z9hG4bKx", ";tag=callee", &route);
        let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &bye));
        assert!(refused.start().starts_with("SIP/2.0 403"), "{inside}: {refused:?}");
    }
}

#[test]
fn a_request_waits_until_the_name_of_its_remote_target_is_resolved() {
    let route = Bench::new(config()).call();
    let mut bench = Bench::new(config());
    let bye = request("BYE", "sip:b@PBX.example:5070", "z9hG4bKx", ";tag=callee", &route);
    assert!(bench.receive(Port::Ingress, CALLER, &bye).is_empty());
    bench.engine.handle_timeout(bench.now);
    let query = |host: &str, port| Query { host: host.into(), port, transport: None, secure: false };
    assert_eq!(bench.engine.outbox().resolves(), [query("pbx.example", Some(5070))]);
    bench.engine.clear_outbox();
    let found = [server("198.51.100.9:5070")];
    bench.engine.handle_resolved(bench.now, &query("pbx.example", Some(5070)), &found, Duration::from_secs(60));
    assert_eq!(Bench::one(bench.sent()).to, "198.51.100.9:5070");
    assert!(bench.receive(Port::Ingress, CALLER, &bye).is_empty(), "its copy is absorbed");

    let nowhere = request("BYE", "sip:b@nowhere.example", "z9hG4bKy", ";tag=callee", &route);
    assert!(bench.receive(Port::Ingress, CALLER, &nowhere).is_empty());
    bench.engine.handle_resolved(bench.now, &query("nowhere.example", None), &[], Duration::ZERO);
    assert!(Bench::one(bench.sent()).start().starts_with("SIP/2.0 503"));
    let never = request("BYE", "sip:b@never.example", "z9hG4bKz", ";tag=callee", &route);
    assert!(bench.receive(Port::Ingress, CALLER, &never).is_empty());
    let sent = bench.pass(5_000);
    assert!(sent.iter().any(|sent| sent.start().starts_with("SIP/2.0 503") && sent.text.contains("z9hG4bKz")));
}

#[test]
fn a_re_invite_to_a_name_without_servers_is_refused_alike_when_there_are_some() {
    let route = Bench::new(config()).call();
    let mut bench = Bench::new(config());
    let again = request("INVITE", "sip:b@nowhere.example", "z9hG4bKx", ";tag=callee", &route);
    bench.receive(Port::Ingress, CALLER, &again);
    let query = Query { host: "nowhere.example".into(), port: None, transport: None, secure: false };
    bench.engine.handle_resolved(bench.now, &query, &[], Duration::from_secs(1));
    let refused = Bench::one(bench.sent().into_iter().filter(|it| !it.start().contains(" 100 ")).collect());
    assert!(refused.start().starts_with("SIP/2.0 503"), "{refused:?}");
    bench.engine.handle_resolved(bench.now, &query, &[server("198.51.100.9:5060")], Duration::from_secs(60));
    bench.engine.clear_outbox();
    let copy = Bench::one(bench.receive(Port::Ingress, CALLER, &again));
    assert!(copy.start().starts_with("SIP/2.0 503"), "{copy:?}");
}

#[test]
fn a_re_invite_whose_key_comes_after_it_is_refused_alike() {
    let route = Bench::with_keys(config(), &keys(&[2])).call();
    let mut bench = Bench::new(config());
    let again = request("INVITE", "sip:b@198.51.100.1", "z9hG4bKx", ";tag=callee", &route);
    let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &again));
    assert!(refused.start().starts_with("SIP/2.0 403"), "{refused:?}");
    let both = setup(config(), &keys(&[1, 2]));
    let shared = Arc::new(Shared::new(&both));
    bench.engine.handle_setup(bench.now, both, shared);
    bench.engine.clear_outbox();
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &again)), refused);
    let anew = again.replace("z9hG4bKx", "z9hG4bKy");
    assert!(bench.receive(Port::Ingress, CALLER, &anew).iter().any(|it| it.start().starts_with("INVITE ")));
}

#[test]
fn a_destination_hears_of_a_route_that_is_refused_even_where_strangers_do_not() {
    let route = Bench::with_keys(config(), &keys(&[2])).call();
    let mut bench = Bench::new(Config { refuse: Refuse::Silence, ..config() });
    let of_callee = request("INVITE", "sip:a@192.0.2.1", "z9hG4bKx", ";tag=caller", &route)
        .replace("tag=caller\nTo", "tag=callee\nTo");
    assert!(bench.receive(Port::Ingress, "203.0.113.99:5060", &of_callee).is_empty());
    let refused = Bench::one(bench.receive(Port::Ingress, CALLEE, &of_callee));
    assert!(refused.start().starts_with("SIP/2.0 403"), "{refused:?}");
    let both = setup(Config { refuse: Refuse::Silence, ..config() }, &keys(&[1, 2]));
    let shared = Arc::new(Shared::new(&both));
    bench.engine.handle_setup(bench.now, both, shared);
    bench.engine.clear_outbox();
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLEE, &of_callee)), refused, "alike, whatever has changed");
}

#[test]
fn a_large_request_of_a_token_holder_from_nowhere_is_refused() {
    let route = Bench::new(config()).call();
    let info = |bytes: usize| {
        let body = "x".repeat(bytes);
        let text = request("INFO", "sip:b@198.51.100.1", &format!("z9hG4bK{bytes}"), ";tag=callee", &route);
        text.replace("Content-Length: 4\n\nbody", &format!("Content-Length: {bytes}\n\n{body}"))
    };
    let mut bench = Bench::new(config());
    let stranger = "203.0.113.99:5060";
    let large = Bench::one(bench.receive(Port::Ingress, stranger, &info(9_000)));
    assert!(large.start().starts_with("SIP/2.0 513"), "{large:?}");
    assert!(bench.receive(Port::Ingress, stranger, &info(2_000)).iter().any(|it| it.start().starts_with("INFO ")));
    let of_trunk = bench.receive(Port::Ingress, CALLER, &info(9_001));
    assert!(of_trunk.iter().any(|it| it.start().starts_with("INFO ")));
}

#[test]
fn the_destination_of_a_trunk_may_be_a_name_of_an_address_inside() {
    let mut bench = Bench::new(config());
    let query = Query { host: "callee.example".into(), port: None, transport: None, secure: false };
    bench.engine.handle_resolved(bench.now, &query, &[server("10.0.3.7:5060")], Duration::from_secs(60));
    bench.engine.clear_outbox();
    let route = bench.call();
    let ack = request("ACK", "sip:b@10.0.3.7", "z9hG4bKack", ";tag=callee", &route);
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &ack)).to, "10.0.3.7:5060");
    let elsewhere = request("BYE", "sip:b@10.0.3.8", "z9hG4bKbye", ";tag=callee", &route);
    assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &elsewhere)).start().starts_with("SIP/2.0 403"));
}

/// The transaction of a request that came by a stream ends with its answer: that, too, is done when the time for it has come.
#[test]
fn a_request_by_a_stream_that_waits_in_vain_leaves_nothing_that_is_due() {
    let route = Bench::new(config()).call();
    let mut bench = Bench::new(config());
    let bye =
        request("BYE", "sip:b@never.example", "z9hG4bKx", ";tag=callee", &route).replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let source = CALLER.parse().unwrap();
    let arrival = Arrival { transport: Transport::Tcp, port: Port::Ingress, source, connection: Some(Connection(1)) };
    bench.engine.handle_message(bench.now, &arrival, bye.replace('\n', "\r\n").as_bytes());
    bench.now = bench.now + Duration::from_secs(6);
    bench.engine.handle_timeout(bench.now);
    assert!(Bench::one(bench.sent()).start().starts_with("SIP/2.0 503"));
    assert!(bench.engine.poll_timeout().is_none_or(|at| at > bench.now), "something is due still");
    assert_eq!(bench.engine.gauges().transactions, 0);
}
