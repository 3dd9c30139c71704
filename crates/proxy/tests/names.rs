//! Destinations' domains: resolved ahead of the calls, once for all shards, and again when their time is over.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use process::address;
use process::dns::{Dns, Trouble};
use process::named::{Named, settings};
use process::sip::Agent;
use sipedge_proxy::engine::Control;

#[test]
fn a_domain_is_resolved_before_the_first_call_and_once_for_all_shards() {
    let callee = Agent::bind(address(82), 0);
    let dns = Dns::start(address(83));
    dns.address("pstn.example", 300, address(82));
    let target = format!("sip:pstn.example:{}", callee.address.port());
    dns.hold(true);
    let named = Named::start_unanswered(settings(80, &[&target], &dns), 80, dns);
    assert!(named.proxy.names_unanswered() > 0, "the question is asked before `start` returns");
    named.dns.hold(false);
    named.wait_for_answers();
    assert_eq!(named.dns.asked(), ["A pstn.example"], "one query for two shards");
    named.proxy.control(Control::Open);
    for call in 0..20 {
        let (_, invite) = named.call(&format!("named-{call}"), &[&callee]).unwrap();
        assert!(invite.first_line().contains("@pstn.example"), "{}", invite.first_line());
    }
}

#[test]
fn a_name_server_that_is_silent_is_an_empty_answer_in_the_end() {
    let dns = Dns::start(address(86));
    dns.trouble(Some(Trouble::Silence));
    let named = Named::start(84, &["sip:pstn.example"], dns);
    assert!(named.dns.asked().len() > 1, "it is asked more than once");
    named.caller.send(&named.caller.request("INVITE", &format!("sip:42@{}", named.edge), "nowhere"), named.edge);
    named.caller.expect("SIP/2.0 5");
}
