//! Where a destination's name leads: NAPTR, SRV and address records (RFC 3263 §4, RFC 2782), seen from the callees.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use process::dns::Dns;
use process::named::{Named, settings};
use process::sip::Agent;
use process::stream::{self, Line};
use process::{Process, address};
use sipedge_proxy::config::Target;
use sipedge_proxy::engine::Control;

/// Callees at addresses of their own, and a name server that knows each as `c0.example`, `c1.example`, …
fn callees(first: u8, count: u8) -> (Vec<Agent>, Dns) {
    let dns = Dns::start(address(first + count));
    let callees = (0..count).map(|index| {
        dns.address(&format!("c{index}.example"), 300, address(first + index));
        Agent::bind(address(first + index), 0)
    });
    (callees.collect(), dns)
}

fn port(callee: &Agent) -> u16 {
    callee.address.port()
}

#[test]
fn naptr_leads_to_srv_and_srv_to_the_port() {
    let (callees, dns) = callees(142, 1);
    // TCP would be preferred, but this edge does not listen on it.
    dns.naptr("pstn.example", 300, [10, 10], "SIP+D2T", "_sip._tcp.pstn.example")
        .naptr("pstn.example", 300, [20, 10], "SIP+D2U", "_sip._udp.carrier.example")
        .srv("_sip._tcp.pstn.example", 300, [0, 1, 5060], "wrong.example")
        .srv("_sip._udp.pstn.example", 300, [0, 1, 5060], "wrong.example")
        .srv("_sip._udp.carrier.example", 300, [0, 1, port(&callees[0])], "c0.example");
    let named = Named::start(140, &["sip:pstn.example"], dns);
    let (_, invite) = named.call("naptr", &[&callees[0]]).unwrap();
    assert!(invite.first_line().ends_with("@pstn.example SIP/2.0"), "{}", invite.first_line());
    assert_eq!(named.dns.asked(), ["NAPTR pstn.example", "SRV _sip._udp.carrier.example", "A c0.example"]);
}

#[test]
fn an_edge_that_listens_on_tcp_takes_the_transport_that_naptr_prefers() {
    let (callee, datagrams) = (stream::listen(address(211)), Agent::bind(address(211), 0));
    let dns = Dns::start(address(212));
    dns.naptr("pstn.example", 300, [10, 10], "SIP+D2T", "_sip._tcp.pstn.example")
        .naptr("pstn.example", 300, [20, 10], "SIP+D2U", "_sip._udp.pstn.example")
        .srv("_sip._tcp.pstn.example", 300, [9, 1, callee.local_addr().unwrap().port()], "c.example")
        .srv("_sip._udp.pstn.example", 300, [1, 1, port(&datagrams)], "c.example")
        .address("c.example", 300, address(211));
    let mut config = settings(209, &["sip:pstn.example"], &dns);
    config.listen.tcp = true;
    let named = Named::start_unanswered(config, 209, dns);
    named.wait_for_answers();
    named.proxy.control(Control::Open);
    named.caller.send(&named.caller.request("INVITE", &format!("sip:42@{}", named.edge), "tcp"), named.edge);
    let mut line = Line::accept(&callee);
    let invite = line.expect("INVITE");
    assert!(invite.header("Via").starts_with("SIP/2.0/TCP"), "{}", invite.text);
    line.respond(&invite, "486 Busy Here");
    named.caller.expect("486");
}

#[test]
fn calls_take_the_naptr_record_of_the_best_order_then_preference_then_srv_priority() {
    let (callees, dns) = callees(152, 4);
    let agents: Vec<&Agent> = callees.iter().collect();
    dns.naptr("pstn.example", 300, [2, 1], "SIP+D2U", "_sip._udp.a.example")
        .naptr("pstn.example", 300, [1, 2], "SIP+D2U", "_sip._udp.b.example")
        .naptr("pstn.example", 300, [1, 1], "SIP+D2U", "_sip._udp.c.example")
        .srv("_sip._udp.a.example", 300, [0, 9, port(&callees[0])], "c0.example")
        .srv("_sip._udp.b.example", 300, [0, 9, port(&callees[1])], "c1.example")
        .srv("_sip._udp.c.example", 300, [6, 9, port(&callees[2])], "c2.example")
        .srv("_sip._udp.c.example", 300, [5, 1, port(&callees[3])], "c3.example");
    let named = Named::start(150, &["sip:pstn.example"], dns);
    assert_eq!(named.shares(20, &agents), [0, 0, 0, 20]);
}

#[test]
fn calls_are_shared_by_the_weights_of_srv_records_of_one_priority() {
    let (callees, dns) = callees(162, 3);
    let agents: Vec<&Agent> = callees.iter().collect();
    dns.srv("_sip._udp.pstn.example", 300, [1, 75, port(&callees[0])], "c0.example")
        .srv("_sip._udp.pstn.example", 300, [1, 25, port(&callees[1])], "c1.example")
        .srv("_sip._udp.pstn.example", 300, [2, 100, port(&callees[2])], "c2.example");
    let named = Named::start(160, &["sip:pstn.example"], dns);
    let shares = named.shares(200, &agents);
    // 150 and 50 on average; five standard deviations are 31.
    assert!((119..=181).contains(&shares[0]) && shares[0] + shares[1] == 200, "{shares:?}");
}

#[test]
fn a_port_in_the_target_skips_srv_and_a_transport_skips_naptr() {
    let (callees, dns) = callees(172, 2);
    let with_port = format!("sip:c0.example:{}", port(&callees[0]));
    dns.srv("_sip._udp.pstn.example", 300, [0, 1, port(&callees[1])], "c1.example");
    let named = Named::start(170, &[&with_port, "sip:pstn.example;transport=udp"], dns);
    let shares = named.shares(40, &[&callees[0], &callees[1]]);
    assert!(shares[0] > 0 && shares[1] > 0, "both targets get calls: {shares:?}");
    let mut asked = named.dns.asked();
    asked.sort();
    assert_eq!(asked, ["A c0.example", "A c1.example", "SRV _sip._udp.pstn.example"]);
}

#[test]
fn a_target_without_an_address_does_not_spoil_the_others_and_aliases_are_followed() {
    let (callees, dns) = callees(182, 1);
    dns.alias("pstn.example", 300, "carrier.example")
        .naptr("carrier.example", 300, [1, 1], "SIP+D2U", "_sip._udp.carrier.example")
        .srv("_sip._udp.carrier.example", 300, [1, 1, 5060], "gone.example")
        .srv("_sip._udp.carrier.example", 300, [2, 1, port(&callees[0])], "alias.example")
        .alias("alias.example", 300, "c0.example");
    let named = Named::start(180, &["sip:pstn.example"], dns);
    named.call("alias", &[&callees[0]]).unwrap();
}

#[test]
fn what_does_not_offer_sip_is_refused_and_not_called_at_its_address() {
    let dns = Dns::start(address(194));
    let callee = Agent::bind(address(192), 5060);
    dns.srv("_sip._udp.pstn.example", 300, [0, 0, 0], ".").address("pstn.example", 300, address(192));
    let named = Named::start(190, &["sip:pstn.example"], dns);
    assert!(named.call("root", &[&callee]).is_none());
    named.caller.expect("SIP/2.0 5");
}

#[test]
fn the_log_says_whether_a_name_does_not_exist_or_was_not_answered() {
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::RecordType;
    use process::dns::Trouble;

    let dns = Dns::start(address(203));
    dns.srv("_sip._udp.elsewhere.example", 300, [0, 0, 0], ".").trouble_with(
        "broken.example",
        RecordType::A,
        Trouble::Code(ResponseCode::ServFail),
    );
    let mut config = settings(204, &[], &dns);
    let targets = ["sip:absent.example", "sip:elsewhere.example", "sip:broken.example:5060"];
    config.trunks[1].targets = targets.into_iter().map(Target::new).collect();
    let (process, _folder) = Process::run(&config);
    process.wait_for_log("destination has no server: it does not exist");
    process.wait_for_log("destination has no server: its SRV records say that it does not offer SIP");
    process.wait_for_log("destination not resolved: name servers did not answer");
    let log = process.log();
    let line = |host: &str| log.lines().find(|line| line.contains(host)).unwrap().to_owned();
    assert!(line("broken.example").contains(&format!("A of broken.example.: {}", dns.address)), "{log}");
    for target in ["absent.example", "elsewhere.example", "broken.example"] {
        let lines = log.lines().filter(|line| line.contains(&format!("host=\"{target}\""))).count();
        assert_eq!(lines, 1, "one line for both shards:\n{log}");
    }
}
