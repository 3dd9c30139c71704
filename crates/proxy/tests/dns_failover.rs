//! A name with several servers: a call goes on from one address to the next (RFC 3263 §4.3, RFC 3261 §16.6 step 7), and what belongs
//! to an attempt goes where the attempt went.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use process::address;
use process::dns::Dns;
use process::named::{Named, settings};
use process::sip::{Agent, Message};
use sipedge_proxy::engine::Control;

/// An edge at the address with this number whose calls go to `pstn.example`, and the two servers of that name in SRV's order.
fn two_servers(edge: u8) -> (Named, [Agent; 2]) {
    let servers = [edge + 2, edge + 3].map(|number| Agent::bind(address(number), 0));
    let dns = Dns::start(address(edge + 4));
    for (number, server) in servers.iter().enumerate() {
        let host = format!("c{number}.example");
        dns.srv("_sip._udp.pstn.example", 300, [number as u16, 1, server.address.port()], &host);
        dns.address(&host, 300, server.address.ip());
    }
    let mut config = settings(edge, &["sip:pstn.example;transport=udp"], &dns);
    config.timers.response_ms = 600;
    let named = Named::start_unanswered(config, edge, dns);
    named.wait_for_answers();
    named.proxy.control(Control::Open);
    (named, servers)
}

/// Sends an INVITE to the edge.
fn call(named: &Named, call_id: &str) {
    let invite = named.caller.request("INVITE", &format!("sip:42@{}", named.edge), call_id);
    named.caller.send(&invite, named.edge);
}

/// The branch of a request's top Via.
fn branch(message: &Message) -> &str {
    let (_, branch) = message.header("Via").split_once(";branch=").unwrap_or_else(|| panic!("{}", message.text));
    branch.split([';', ',']).next().unwrap()
}

/// All that has come to this server, up to an OPTIONS that the test sends it now.
fn rest(server: &Agent) -> Vec<Message> {
    let end = Agent::bind(server.address.ip(), 0);
    end.send(&end.request("OPTIONS", "sip:end", "end"), server.address);
    let next = || server.next(process::DEADLINE).expect("the OPTIONS of the test at last");
    std::iter::from_fn(|| Some(next()).filter(|message| message.from != end.address)).collect()
}

#[test]
fn the_next_address_is_tried_when_one_is_silent() {
    let (named, [silent, answering]) = two_servers(10);
    call(&named, "silence");
    let first = silent.expect("INVITE");
    let second = answering.expect("INVITE");
    assert!(second.first_line().ends_with("@pstn.example;transport=udp SIP/2.0"), "{}", second.first_line());
    assert_eq!(first.first_line(), second.first_line(), "the target is the same");
    answering.respond(&second, "486 Busy Here");
    let answer = named.caller.expect("SIP/2.0 4");
    assert!(answer.first_line().contains(" 486 "), "{}", answer.text);
}

#[test]
fn the_next_address_is_tried_after_a_503() {
    let (named, [refusing, answering]) = two_servers(20);
    call(&named, "refused");
    let first = refusing.expect("INVITE");
    refusing.respond(&first, "503 Service Unavailable");
    let ack = refusing.expect("ACK");
    assert_eq!((branch(&ack), ack.from), (branch(&first), first.from));
    let second = answering.expect("INVITE");
    answering.respond(&second, "486 Busy Here");
    let answer = named.caller.expect("486");
    assert_eq!(answer.header("Call-ID"), "refused");
    assert_eq!(branch(&answering.expect("ACK")), branch(&second));
    let more = rest(&refusing);
    assert!(more.iter().all(|message| branch(message) == branch(&first)), "{more:#?}");
}

#[test]
fn each_attempt_has_a_branch_of_its_own() {
    let (named, [silent, answering]) = two_servers(30);
    call(&named, "branches");
    let second = answering.expect("INVITE");
    // Meanwhile the first one got its INVITE more than once: copies are of one transaction.
    let copies = rest(&silent);
    assert!(copies.len() > 1, "{copies:#?}");
    assert!(copies.iter().all(|copy| branch(copy) == branch(&copies[0])), "{copies:#?}");
    assert_ne!(branch(&second), branch(&copies[0]));
    assert!(branch(&second).starts_with("z9hG4bK"), "{}", second.text);
}

#[test]
fn when_no_address_is_left_the_caller_gets_408() {
    let (named, servers) = two_servers(40);
    call(&named, "nobody");
    let answer = named.caller.expect("SIP/2.0 4");
    assert!(answer.first_line().starts_with("SIP/2.0 408 "), "{}", answer.text);
    for server in &servers {
        assert!(!rest(server).is_empty(), "{} was never tried", server.address);
    }
}

#[test]
fn a_cancel_goes_to_the_address_of_its_invite() {
    let (named, [refusing, ringing]) = two_servers(50);
    call(&named, "cancelled");
    refusing.respond(&refusing.expect("INVITE"), "503 Service Unavailable");
    let invite = ringing.expect("INVITE");
    ringing.respond(&invite, "180 Ringing");
    named.caller.expect("180");
    let cancel = named.caller.request("CANCEL", &format!("sip:42@{}", named.edge), "cancelled");
    // It has the branch of its INVITE.
    named.caller.send(&cancel.replace("z9hG4bKcancelledCANCEL", "z9hG4bKcancelledINVITE"), named.edge);
    let cancel = ringing.expect("CANCEL");
    assert_eq!((branch(&cancel), cancel.from), (branch(&invite), invite.from));
    ringing.respond(&cancel, "200 OK");
    ringing.respond(&invite, "487 Request Terminated");
    assert_eq!(branch(&ringing.expect("ACK")), branch(&invite));
    named.caller.expect("487");
    let more = rest(&refusing);
    assert!(!more.iter().any(|message| message.first_line().starts_with("CANCEL")), "{more:#?}");
}
