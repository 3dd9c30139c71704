//! Who is let in, how much, and what the others are answered.

use super::*;

#[test]
fn strangers_get_403_or_nothing() {
    let invite = request("INVITE", "sip:+1555@edge", "z9hG4bKone", "", "");
    let mut bench = Bench::new(config());
    let refused = Bench::one(bench.receive(Port::Ingress, "203.0.113.99:40000", &invite));
    assert_eq!((refused.start(), refused.to.as_str()), ("SIP/2.0 403 Forbidden", "203.0.113.99:40000"));
    let mut bench = Bench::new(Config { refuse: Refuse::Silence, ..config() });
    assert!(bench.receive(Port::Ingress, "203.0.113.99:40000", &invite).is_empty());
    assert_eq!(bench.engine.counters().refused_source, 1);
}

#[test]
fn limits_refuse_new_calls_and_spare_those_that_are_up() {
    let mut limited = config();
    limited.trunks[0].limits = Limits { cps: None, calls: Some(1) };
    let mut bench = Bench::new(limited);
    let route = bench.call();
    let second = request("INVITE", "sip:+1555@edge", "z9hG4bKtwo", "", "").replace("call@1", "call@2");
    let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &second));
    assert!(refused.start().starts_with("SIP/2.0 503") && refused.text.contains("Retry-After: 10"));
    let bye = request("BYE", "sip:b@198.51.100.1", "z9hG4bKthree", ";tag=callee", &route);
    let bye = Bench::one(bench.receive(Port::Ingress, CALLER, &bye));
    assert_eq!(bye.to, CALLEE);
    bench.answer(&bye, "200 OK");
    let third = second.replace("z9hG4bKtwo", "z9hG4bKfour");
    assert_eq!(bench.receive(Port::Ingress, CALLER, &third).len(), 2);

    let mut limited = config();
    limited.trunks[0].limits = Limits { cps: Some(1), calls: None };
    let mut bench = Bench::new(limited);
    bench.invite("z9hG4bKone");
    let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &second));
    assert!(refused.start().starts_with("SIP/2.0 503") && refused.text.contains("Retry-After: 1\r\n"));
    bench.pass(1_000);
    let again = second.replace("z9hG4bKtwo", "z9hG4bKthree");
    assert_eq!(bench.receive(Port::Ingress, CALLER, &again).len(), 2);
}

#[test]
fn while_it_is_behind_new_calls_are_refused_and_those_in_progress_go_on() {
    let mut bench = Bench::new(config());
    let route = bench.call();
    let ringing = bench.invite("z9hG4bKringing");
    bench.engine.set_behind(u8::MAX);
    let second = request("INVITE", "sip:+1555@edge", "z9hG4bKtwo", "", "").replace("call@1", "call@2");
    let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &second));
    assert!(refused.start().starts_with("SIP/2.0 503") && refused.text.contains("Retry-After: 1\r\n"));
    assert_eq!(bench.answer(&ringing, "200 OK").len(), 1);
    for (method, branch) in [("INVITE", "z9hG4bKagain"), ("BYE", "z9hG4bKbye")] {
        let within = request(method, "sip:b@198.51.100.1", branch, ";tag=callee", &route);
        let sent = bench.receive(Port::Ingress, CALLER, &within);
        assert_eq!(sent.last().map(|sent| sent.to.as_str()), Some(CALLEE), "{method}: {sent:#?}");
    }
    bench.engine.set_behind(0);
    // The caller has been told no; a copy of the same INVITE that was late does not open its call (RFC 3261 §8.2.7).
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &second)).start(), refused.start());
    let third = second.replace("z9hG4bKtwo", "z9hG4bKthree");
    assert_eq!(bench.receive(Port::Ingress, CALLER, &third).len(), 2);
    assert_eq!(bench.engine.counters().refused_behind, 1);
}

#[test]
fn what_the_edge_answers_itself() {
    let mut bench = Bench::new(config());
    let cases = [
        (request("INVITE", "sip:+1555@edge", "z9hG4bK1", "", "").replace("Forwards: 70", "Forwards: 0"), "SIP/2.0 483"),
        (request("INVITE", "sip:+1555@edge", "z9hG4bK2", "", "").replace("Forwards: 70", "Forwards: x"), "SIP/2.0 400"),
        (request("INVITE", "tel:+1555", "z9hG4bK3", "", ""), "SIP/2.0 416"),
        (request("INVITE", "sip:+1555@[::1", "z9hG4bK10", "", ""), "SIP/2.0 400"),
        (request("INVITE", "sip:edge", "z9hG4bK4", "", ""), "SIP/2.0 404"),
        (request("INVITE", "sip:+1555@edge", "z9hG4bK5", "", "Proxy-Require: foo\n"), "SIP/2.0 420"),
        (request("OPTIONS", "sip:203.0.113.10", "z9hG4bK6", "", ""), "SIP/2.0 200"),
        (request("REGISTER", "sip:203.0.113.10", "z9hG4bK7", "", ""), "SIP/2.0 405"),
        (request("FOO", "sip:203.0.113.10", "z9hG4bK8", "", ""), "SIP/2.0 404"),
        (request("INVITE", "sip:+1555@edge", "z9hG4bK9", "", "").replace("1 INVITE", "1 BYE"), "SIP/2.0 400"),
    ];
    for (text, status) in cases {
        let answer = Bench::one(bench.receive(Port::Ingress, CALLER, &text));
        assert!(answer.start().starts_with(status), "{text}\n{answer:?}");
    }
    for text in ["", "\n\n", "\n\n\n\n", "GET / HTTP/1.0\n\n", "ACK sip:a@b SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1\n\n"] {
        assert!(bench.receive(Port::Ingress, CALLER, text).is_empty(), "{text:?}");
    }
}

#[test]
fn before_it_is_open_only_the_self_call_passes() {
    let mut bench = Bench::new(config());
    let (caller, callee) = ("10.0.1.10:40000", "10.0.1.10:40001");
    let order = Control::SelfCall { caller: caller.parse().unwrap(), callee: callee.parse().unwrap() };
    bench.engine.handle_control(bench.now, order);
    let invite = request("INVITE", "sip:self@edge", "z9hG4bKone", "", "");
    assert!(bench.receive(Port::Ingress, CALLER, &invite).is_empty());
    let sent = bench.receive(Port::Ingress, caller, &invite);
    assert_eq!((sent[1].to.as_str(), sent[1].start()), (callee, "INVITE sip:self@edge SIP/2.0"));
    assert_eq!(bench.engine.counters().dropped_closed, 1);
    bench.engine.handle_control(bench.now, Control::Open);
    assert_eq!(*bench.engine.counters(), Counters::default());
}

#[test]
fn draining_answers_options_with_503_at_once_and_calls_later() {
    let mut bench = Bench::new(config());
    bench.engine.handle_control(bench.now, Control::Drain);
    let options = request("OPTIONS", "sip:203.0.113.10", "z9hG4bK6", "", "");
    assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &options)).start().starts_with("SIP/2.0 503"));
    let route = bench.call();
    bench.pass(1_000);
    let late = request("INVITE", "sip:+1555@edge", "z9hG4bKlate", "", "").replace("call@1", "call@2");
    assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &late)).start().starts_with("SIP/2.0 503"));
    let bye = request("BYE", "sip:b@198.51.100.1", "z9hG4bKbye", ";tag=callee", &route);
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &bye)).to, CALLEE);
}

#[test]
fn a_copy_of_a_refused_invite_is_refused_even_when_there_is_room_again() {
    let mut limited = config();
    limited.trunks[0].limits = Limits { cps: Some(1), calls: None };
    let mut bench = Bench::new(limited);
    bench.invite("z9hG4bKone");
    let second = request("INVITE", "sip:+1555@edge", "z9hG4bKtwo", "", "").replace("call@1", "call@2");
    let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &second));
    assert!(refused.start().starts_with("SIP/2.0 503"));
    bench.pass(2_000);
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &second)), refused);
    let anew = second.replace("z9hG4bKtwo", "z9hG4bKthree");
    assert_eq!(bench.receive(Port::Ingress, CALLER, &anew).len(), 2);
}

#[test]
fn a_body_that_did_not_arrive_whole_is_a_400_for_those_whom_we_know() {
    let mut bench = Bench::new(config());
    let cut = request("INVITE", "sip:+1555@edge", "z9hG4bKone", "", "").replace("Length: 4", "Length: 400");
    assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &cut)).start().starts_with("SIP/2.0 400"));
    assert!(bench.receive(Port::Ingress, "203.0.113.99:5060", &cut).is_empty());
}

#[test]
fn legs_of_one_call_count_one_each_and_a_refused_bye_ends_none() {
    let mut limited = config();
    limited.trunks[0].limits = Limits { cps: None, calls: Some(2) };
    let mut bench = Bench::new(limited);
    let route = bench.call();
    let leg = |branch: &str| request("INVITE", "sip:+1555@edge", branch, "", "");
    let second = bench.receive(Port::Ingress, CALLER, &leg("z9hG4bKtwo")).remove(1);
    assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &leg("z9hG4bKthree"))).start().starts_with("SIP/2.0 503"));
    bench.answer(&second, "486 Busy Here");
    assert_eq!(bench.engine.gauges().counted_calls, 1);
    let bye = |branch: &str| request("BYE", "sip:b@198.51.100.1", branch, ";tag=callee", &route);
    let refused = Bench::one(bench.receive(Port::Ingress, CALLER, &bye("z9hG4bKfour")));
    bench.answer(&refused, "481 Call/Transaction Does Not Exist");
    assert_eq!(bench.engine.gauges().counted_calls, 1);
    let bye = Bench::one(bench.receive(Port::Ingress, CALLER, &bye("z9hG4bKfive")));
    bench.answer(&bye, "200 OK");
    assert_eq!(bench.engine.gauges().counted_calls, 0);
}

#[test]
fn a_trunk_over_its_calls_leaves_the_rate_of_the_destination_alone() {
    let mut limited = config();
    limited.trunks[0].limits = Limits { cps: None, calls: Some(1) };
    limited.trunks[1].limits = Limits { cps: Some(2), calls: None };
    let mut bench = Bench::new(limited);
    let invite = |number: u32| {
        let text = request("INVITE", "sip:+1555@edge", &format!("z9hG4bK{number}"), "", "");
        text.replace("call@1", &format!("call@{number}"))
    };
    let first = bench.receive(Port::Ingress, CALLER, &invite(1)).remove(1);
    for number in 2..9 {
        assert_eq!(bench.receive(Port::Ingress, CALLER, &invite(number)).len(), 1);
    }
    bench.answer(&first, "486 Busy Here");
    assert_eq!(bench.receive(Port::Ingress, CALLER, &invite(9)).len(), 2);
    assert_eq!(bench.engine.counters().refused_cps, 0);
}

#[test]
fn a_refused_invite_is_refused_alike_when_the_reason_has_changed() {
    let mut limited = config();
    limited.trunks[0].limits = Limits { cps: Some(1), calls: None };
    let mut bench = Bench::new(limited);
    bench.invite("z9hG4bKone");
    let second = request("INVITE", "sip:+1555@edge", "z9hG4bKtwo", "", "");
    let first_time = Bench::one(bench.receive(Port::Ingress, CALLER, &second));
    assert_eq!(first_time.line("retry-after"), "Retry-After: 1");
    let (transport, address) = (Transport::Udp, CALLEE.parse().unwrap());
    bench.engine.handle_control(bench.now, Control::Mark { transport, address, mark: Mark::Down });
    assert_eq!(Bench::one(bench.receive(Port::Ingress, CALLER, &second)), first_time);
}

#[test]
fn a_trunk_that_looks_like_the_answerer_is_refused() {
    let party = super::super::answerer::party();
    let fingerprint = |name: &String| super::super::token::fingerprint(name.as_bytes()) == party;
    let name = (0..10_000_000).map(|number| format!("t{number}")).find(fingerprint).expect("one in 65,536 does");
    let mut config = config();
    config.trunks[0].name = name.clone();
    config.routes[0].from = name.clone();
    let place = Place {
        ingress: "10.0.1.10:5060".parse().unwrap(),
        egress: "10.0.1.10:5080".parse().unwrap(),
        advertised: "203.0.113.10".into(),
        shards: 1,
    };
    let error = Setup::new(config, &place, &keys(&[1])).map(drop).unwrap_err();
    assert_eq!(error.reasons, [format!("trunks: `{name}` looks like the answerer in 16 bits; give it another name")]);
}

#[test]
fn while_it_is_behind_calls_to_the_answerer_are_refused_like_others() {
    use sha2::{Digest, Sha256};
    const STRANGER: &str = "233.252.0.7:5060";
    let mut bench = Bench::new(config());
    let answerer =
        super::super::answerer::Answerer::new("10.0.1.10:4000".parse().unwrap(), "verify".into(), "secret".into());
    bench.engine.handle_answerer(Some(Arc::new(answerer)));
    bench.engine.set_behind(u8::MAX);
    let uri = "sip:verify@203.0.113.10";
    let mut call = |number: u32| {
        let invite =
            |header: &str, turn: u32| request("INVITE", uri, &format!("z9hG4bKturn{turn}of{number}"), "", header);
        let challenge = Bench::one(bench.receive(Port::Ingress, STRANGER, &invite("", 1)));
        let nonce = challenge.line("www-authenticate").split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
        let hash = |text: String| -> String { Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect() };
        let (secret, target) = (hash("verify:203.0.113.10:secret".into()), hash(format!("INVITE:{uri}")));
        let response = hash(format!("{secret}:{nonce}:{target}"));
        let proof = format!(
            "Authorization: Digest username=\"verify\", realm=\"203.0.113.10\", nonce=\"{nonce}\", uri=\"{uri}\", \
             algorithm=SHA-256, response=\"{response}\"\n"
        );
        bench.receive(Port::Ingress, STRANGER, &invite(&proof, 2)).last().unwrap().start().to_owned()
    };
    let starts: Vec<String> = (0..8).map(&mut call).collect();
    // Of 256 one goes on.
    assert!(starts.iter().filter(|start| start.starts_with("SIP/2.0 503")).count() >= 6, "{starts:?}");
    bench.engine.set_behind(0);
    assert!(bench.engine.counters().refused_behind >= 6);
}
