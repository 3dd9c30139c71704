//! Destinations over real sockets: OPTIONS find out who is there, and calls go by it.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use process::sip::Agent;
use process::{DEADLINE, EGRESS, INGRESS, address, config, keys};
use sipedge_proxy::config::{Probe, Target};
use sipedge_proxy::engine::{Control, Gauges, Place};
use sipedge_proxy::net::{Proxy, TlsMaterial};

fn wait_for(proxy: &Proxy, what: &str, is_so: impl Fn(&Gauges) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so(&proxy.numbers().gauges) {
        assert!(Instant::now() < deadline, "not {what} within {DEADLINE:?}: {:?}", proxy.numbers().gauges);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn probes_from_one_of_four_shards_find_out_who_is_there() {
    let caller = Agent::bind(address(91), 0);
    let (good, odd) = (Agent::bind(address(92), 0), Agent::bind(address(93), 0));
    let mut config = config(address(90), address(91), good.address);
    config.trunks[1].targets = [&odd, &good].map(|agent| Target::new(format!("sip:{}", agent.address))).to_vec();
    config.trunks[1].targets[1].priority = 2;
    let probe = Probe { interval_ms: 1_000, timeout_ms: 300, ..Probe::default() };
    config.trunks[1].probe = Some(probe);
    let (ingress, egress) = (SocketAddr::new(address(90), INGRESS), SocketAddr::new(address(90), EGRESS));
    let place = Place { ingress, egress, advertised: address(90).to_string(), shards: 4 };
    let proxy = Proxy::start(config, place, &keys(), &TlsMaterial::default()).unwrap();
    proxy.control(Control::Open);
    let [always, answers, ends] = [true, false, false].map(AtomicBool::new);
    let serve = |agent: &Agent, is_there: &AtomicBool, status: &str| {
        while !ends.load(Ordering::Relaxed) {
            let Some(request) = agent.next(Duration::from_millis(20)) else { continue };
            match request.first_line().split(' ').next() {
                Some("OPTIONS") if is_there.load(Ordering::Relaxed) => agent.respond(&request, "200 OK"),
                Some("INVITE") => agent.respond(&request, status),
                _ => {}
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&good, &always, "486 Busy Here"));
        scope.spawn(|| serve(&odd, &answers, "480 Temporarily Unavailable"));
        // The agents end before a failure is shown.
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(&proxy, "one down", |gauges| (gauges.destinations_up, gauges.destinations_down) == (1, 1));
            for call in 0..8 {
                caller.send(&caller.request("INVITE", &format!("sip:42@{ingress}"), &format!("down-{call}")), ingress);
                // Whichever shard has the call knows that the one of the better priority is down.
                caller.expect("486");
            }
            let answered = proxy.numbers().counters;
            assert!(answered.probes_failed >= 2 && answered.probes_sent > answered.probes_failed, "{answered:?}");
            answers.store(true, Ordering::Relaxed);
            wait_for(&proxy, "both up", |gauges| (gauges.destinations_up, gauges.destinations_down) == (2, 0));
        }));
        ends.store(true, Ordering::Relaxed);
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    });
    proxy.join();
}

#[test]
fn where_every_destination_is_down_calls_get_503() {
    let caller = Agent::bind(address(95), 0);
    let silent = Agent::bind(address(96), 0);
    let mut config = config(address(94), address(95), silent.address);
    config.trunks[1].probe = Some(Probe { interval_ms: 1_000, timeout_ms: 300, ..Probe::default() });
    let (ingress, egress) = (SocketAddr::new(address(94), INGRESS), SocketAddr::new(address(94), EGRESS));
    let place = Place { ingress, egress, advertised: address(94).to_string(), shards: 2 };
    let proxy = Proxy::start(config, place, &keys(), &TlsMaterial::default()).unwrap();
    proxy.control(Control::Open);
    wait_for(&proxy, "down", |gauges| gauges.destinations_down == 1);
    for call in 0..4 {
        caller.send(&caller.request("INVITE", &format!("sip:42@{ingress}"), &format!("nobody-{call}")), ingress);
        assert!(!caller.expect("503").headers("Retry-After").is_empty());
    }
    proxy.join();
}
