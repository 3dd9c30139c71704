//! A destination that moves: when its TTL is over, new calls go to the new address, and the others to where they were.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::time::{Duration, Instant};

use process::dns::Dns;
use process::named::Named;
use process::sip::Agent;
use process::{DEADLINE, address};

#[test]
fn new_calls_go_to_the_new_address_and_a_call_in_set_up_stays() {
    let (old, new) = (Agent::bind(address(142), 0), Agent::bind(address(143), 0));
    let dns = Dns::start(address(144));
    dns.srv("_sip._udp.pstn.example", 1, [0, 1, old.address.port()], "c.example");
    dns.address("c.example", 1, address(142));
    let named = Named::start(140, &["sip:pstn.example"], dns);

    named.call("before", &[&old, &new]).filter(|(taken, _)| *taken == 0).expect("the old address");
    let (caller, edge) = (&named.caller, named.edge);
    caller.send(&caller.request("INVITE", &format!("sip:42@{edge}"), "long"), edge);
    let ringing = old.expect("INVITE");
    old.respond(&ringing, "180 Ringing");
    caller.expect("180");

    named.dns.clear().srv("_sip._udp.pstn.example", 1, [0, 1, new.address.port()], "c.example");
    named.dns.address("c.example", 1, address(143));
    let deadline = Instant::now() + DEADLINE;
    let mut number = 0;
    loop {
        let (taken, _) =
            named.call(&format!("move-{number}"), &[&old, &new]).expect("every call is taken by one of them");
        if taken == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "calls still go to the old address after {DEADLINE:?}");
        number += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    for call in 0..10 {
        let (taken, _) = named.call(&format!("after-{call}"), &[&old, &new]).unwrap();
        assert_eq!(taken, 1);
    }
    old.respond(&ringing, "486 Busy Here");
    caller.expect("486");
}
