//! A request that comes back to the edge as it was is a loop, however many proxies it has passed on its way (RFC 5393 §4).

use sipedge_proxy::config::{Config, Select};

use crate::stage::{Message, Received, Stage};

/// The callee is a proxy of the same carrier as the caller, so what it sends back to the edge takes the way of the caller's calls.
fn same_carrier(config: &mut Config) {
    let callee = config.trunks[1].targets[0].uri.strip_prefix("sip:").unwrap().parse::<std::net::SocketAddr>().unwrap();
    config.trunks[0].from.push(callee.ip().into());
}

/// The proxies at `hops` send the INVITE that the edge has sent on back to it. Returns what the last of them gets for it.
fn sent_back(stage: &Stage, arrived: &Received, hops: &[&str]) -> (Message, Received) {
    let proxy = &stage.callees[0];
    let mut request = (**arrived).clone();
    for hop in hops {
        request = request.forwarded_by(hop.parse().unwrap(), &stage.uri("bob"));
    }
    proxy.send(&request, stage.edge);
    let answer = proxy.expect_that("final response to what it has sent back", |it| {
        it.start.starts_with("SIP/2.0 ") && it.branch() == request.branch() && it.code() >= 200
    });
    (request, answer)
}

#[test]
fn a_loop_gets_482() {
    for select in [Select::Weight, Select::All] {
        let stage = Stage::start(1, |config| {
            same_carrier(config);
            config.trunks[1].select = select;
        });
        let (caller, [proxy]) = (&stage.caller, stage.callees());
        let invite = stage.invite();
        stage.call(&invite);
        let arrived = proxy.expect("INVITE");
        let (looped, answer) = sent_back(&stage, &arrived, &[&proxy.address.to_string()]);
        assert_eq!(answer.code(), 482, "{}", answer.text());
        proxy.send(&looped.ack(&answer), stage.edge);
        // It goes back the way it came.
        proxy.reply(&arrived, &answer.without_top_via());
        let answer = caller.expect_that("final response", |it| it.answers(&invite) && it.code() >= 200);
        assert_eq!(answer.code(), 482);
        let calls = proxy.seen().iter().filter(|start| start.starts_with("INVITE")).count();
        assert_eq!(calls, 1, "{:?}", proxy.seen());
        stage.wait_for_metric("sipedge_loops_total", 1);
    }
}

#[test]
fn a_loop_through_another_proxy_gets_482() {
    let stage = Stage::start(1, same_carrier);
    let [proxy] = stage.callees();
    stage.call(&stage.invite());
    let arrived = proxy.expect("INVITE");
    let own = proxy.address.to_string();
    let (_, answer) = sent_back(&stage, &arrived, &["192.0.2.7:5060", "192.0.2.8:5070", &own]);
    assert_eq!(answer.code(), 482, "{}", answer.text());
}

#[test]
fn two_calls_to_one_number_are_no_loop() {
    let stage = Stage::start(1, same_carrier);
    let [proxy] = stage.callees();
    let (first, second) = (stage.invite(), stage.invite());
    stage.call(&first);
    let to_first = proxy.expect("INVITE");
    // Another call to the same number, on the Vias of the first one: a peer that begins a call anew keeps them.
    let mut other = to_first.forwarded_by(proxy.address, &stage.uri("bob"));
    for name in ["From", "Call-ID"] {
        other = other.with(name, second.header(name));
    }
    proxy.send(&other, stage.edge);
    let to_second = proxy
        .expect_that("second INVITE", |it| it.method() == "INVITE" && it.header("Call-ID") == second.header("Call-ID"));
    assert_ne!(to_second.branch(), to_first.branch());
    assert_eq!(stage.metric("sipedge_loops_total"), 0);
}

#[test]
fn a_cancel_has_the_branch_of_its_invite() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "180 Ringing");
    caller.expect("180");
    stage.call(&invite.cancel());
    let cancel = callee.expect("CANCEL");
    assert_eq!(cancel.branch(), arrived.branch());
    assert_eq!(cancel.elements("Via").len(), 1);
    callee.respond(&arrived, "487 Request Terminated");
    let ack = callee.expect("ACK");
    assert_eq!(ack.branch(), arrived.branch());
    caller.expect("487");
}
