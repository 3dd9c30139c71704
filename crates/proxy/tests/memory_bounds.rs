//! Whatever floods in, the tables keep their budgets, and calls that are up go on.

mod bench;

use std::time::Duration;

use sipedge_proxy::engine::{Gauges, Port};

use bench::{Bench, CALLEE, CALLER, STRANGER, Sent, config, request, response};

/// Sends `flood` while calls are up; each of them still ends by its BYE, and afterwards nothing is left.
fn calls_survive(mut flood: impl FnMut(&mut Bench, usize)) {
    let mut bench = Bench::new(config());
    let calls: Vec<(usize, String)> = (0..10).map(|number| (number, bench.call(number).0)).collect();
    for number in 0..FLOOD {
        flood(&mut bench, 1_000 + number);
        bench.check_budgets();
        if number % 500 == 0 {
            bench.pass(Duration::from_millis(100));
        }
        if number % 3_000 == 2_999 {
            let (call, route) = &calls[number / 3_000];
            ends(&bench.bye(*call, route));
        }
    }
    bench.pass(Duration::from_secs(200));
    assert_eq!(bench.engine.gauges(), Gauges::default());
}

fn ends(sent: &[Sent]) {
    let starts: Vec<&[u8]> = sent.iter().filter_map(|sent| sent.bytes.get(..11)).collect();
    assert_eq!(starts, [b"BYE sip:cal".as_slice(), b"SIP/2.0 200".as_slice()]);
}

#[test]
fn invites_from_an_allowed_source() {
    let mut refused = 0;
    calls_survive(|bench, number| {
        let sent = bench.receive(Port::Ingress, CALLER, request("INVITE", number, "flood", "", "").as_bytes());
        refused += usize::from(sent.iter().all(|sent| sent.bytes.starts_with(b"SIP/2.0 503")));
    });
    assert!(refused > FLOOD / 2);
}

#[test]
fn invites_with_large_bodies_that_ring_and_are_cancelled() {
    calls_survive(|bench, number| {
        let body = format!("Content-Length: 9000\r\n\r\n{}", "x".repeat(9_000));
        let invite = request("INVITE", number, "flood", "", "").replace("Content-Length: 4\r\n\r\nbody", &body);
        let sent = bench.receive(Port::Ingress, CALLER, invite.as_bytes());
        let Some(invite) = sent.iter().find(|sent| sent.bytes.starts_with(b"INVITE")) else { return };
        let mut ringing = response(&invite.bytes, "180 Ringing");
        let long = format!("\r\nX-Long: {}\r\n\r\n", "y".repeat(20_000));
        ringing.truncate(ringing.len() - 4);
        ringing.extend_from_slice(long.as_bytes());
        bench.receive(Port::Egress, CALLEE, &ringing);
        bench.receive(Port::Ingress, CALLER, request("CANCEL", number, "flood", "", "").as_bytes());
    });
}

#[test]
fn cancels_of_nothing() {
    calls_survive(|bench, number| {
        bench.receive(Port::Ingress, CALLER, request("CANCEL", number, "flood", "", "").as_bytes());
    });
}

#[test]
fn strangers() {
    calls_survive(|bench, number| {
        let method = ["INVITE", "OPTIONS", "REGISTER", "CANCEL", "ACK", "FOO"][number % 6];
        let text = request(method, number, "flood", "", "").replace("192.0.2.1", "203.0.113.200");
        for sent in bench.receive(Port::Ingress, STRANGER, text.as_bytes()) {
            assert!(sent.to == bench::address(STRANGER) && sent.bytes.starts_with(b"SIP/2.0 403"));
        }
        assert!(bench.engine.gauges().transactions <= 60);
    });
}

#[test]
fn forged_requests_within_dialogs() {
    calls_survive(|bench, number| {
        let route = format!("Route: <sip:{}@203.0.113.10:5060;lr>\r\n", "A".repeat(31 + number % 2));
        let method = ["BYE", "INVITE", "INFO", "ACK"][number % 4];
        let source = [CALLER, CALLEE, STRANGER][number % 3];
        let text = request(method, number % 20, &format!("flood{number}"), ";tag=callee", &route);
        for sent in bench.receive(Port::Ingress, source, text.as_bytes()) {
            assert!(sent.bytes.starts_with(b"SIP/2.0 403"));
        }
        assert!(bench.engine.gauges().transactions <= 60);
    });
}

#[test]
fn noise() {
    let mut state = 1_u64;
    calls_survive(|bench, number| {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        let noise: Vec<u8> = (0..number % 1_500).map(|_| next()).collect();
        assert!(bench.receive(Port::Ingress, [CALLER, STRANGER][number % 2], &noise).is_empty());
    });
}

/// The worst that a trusted peer can do: requests within a call of its own, each a transaction, as large as they come.
#[test]
fn a_peer_floods_within_its_own_call() {
    let mut bench = Bench::new(config());
    let (route, _) = bench.call(0);
    for number in 0..FLOOD {
        let body = format!("Content-Length: 6000\r\n\r\n{}", "x".repeat(6_000));
        let info = request("INFO", 0, &format!("flood{number}"), ";tag=callee", &route);
        let info = info.replace("Content-Length: 4\r\n\r\nbody", &body);
        bench.receive(Port::Ingress, CALLER, info.as_bytes());
        bench.check_budgets();
    }
    assert!(bench.engine.counters().refused_budget > 0);
    bench.pass(Duration::from_secs(200));
    assert_eq!(bench.engine.gauges(), Gauges::default());
}

const FLOOD: usize = 30_000;
