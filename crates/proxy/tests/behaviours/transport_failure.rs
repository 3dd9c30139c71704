//! Messages that cannot be sent (RFC 3261 §16.9, §17.1.4, §17.2.4, §18.4).

use std::time::Instant;

use sipedge_proxy::config::{Failover, Target};

use crate::peer::{Listener, Peer};
use crate::stage::{Stage, loopback};

#[test]
fn a_refused_connection_counts_as_503() {
    let nobody = loopback();
    let stage = Stage::start(1, |config| {
        config.listen.tcp = true;
        config.trunks[1].targets = vec![Target::new(format!("sip:{nobody}:5060;transport=tcp"))];
    });
    let invite = stage.invite();
    stage.call(&invite);
    // RFC 3261 §16.7 step 6: a 503 goes up as a 500.
    let refusal = stage.caller.expect("SIP/2.0 5");
    assert_eq!(refusal.code(), 500);
    stage.call(&invite.ack(&refusal));
}

#[test]
fn a_refused_connection_lets_the_call_go_on_to_the_next_destination() {
    let nobody = loopback();
    let began = Instant::now();
    let stage = Stage::start(1, |config| {
        config.listen.tcp = true;
        config.timers.response_ms = 20_000;
        config.trunks[1].targets[0].priority = 2;
        config.trunks[1].targets.push(Target::new(format!("sip:{nobody}:5060;transport=tcp")));
        // Not even 503 is named: a failure of the transport moves on by itself.
        config.trunks[1].failover = Failover { codes: Vec::new(), ..Failover::default() };
    });
    stage.answered_call();
    assert!(began.elapsed().as_millis() < 20_000, "it was the timer, and not the connection");
    assert_eq!(stage.metric("sipedge_failovers_total"), 1);
}

#[test]
fn a_caller_that_is_gone_cancels_nothing() {
    let stage = Stage::start(1, |config| config.listen.tcp = true);
    let callee = &stage.callees[0];
    let caller = Peer::connect(stage.caller.address.ip(), stage.edge);
    caller.send(&caller.request("INVITE", &stage.uri("bob")), stage.edge);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "180 Ringing");
    caller.expect("180");
    drop(caller);
    let failures = stage.metric("sipedge_transport_failures_total");
    callee.respond(&arrived, "486 Busy Here");
    callee.expect("ACK");
    stage.wait_for_metric("sipedge_transport_failures_total", failures + 1);
    assert!(!callee.seen().iter().any(|start| start.starts_with("CANCEL")), "{:?}", callee.seen());
    // Another one gets through.
    stage.answered_call();
}

/// A connection that breaks before the answer: the branch is over, and the next destination gets the call.
#[test]
fn a_connection_that_breaks_before_the_answer_counts_as_503() {
    let listener = Listener::bind(loopback());
    let stage = Stage::start(1, |config| {
        config.listen.tcp = true;
        config.timers.response_ms = 20_000;
        config.trunks[1].targets[0].priority = 2;
        config.trunks[1].targets.push(Target::new(format!("sip:{};transport=tcp", listener.address)));
    });
    let began = Instant::now();
    stage.call(&stage.invite());
    let first = listener.accept();
    first.expect("INVITE");
    drop(first);
    let arrived = stage.callees[0].expect("INVITE");
    assert!(began.elapsed().as_millis() < 20_000, "it was the timer, and not the connection");
    stage.callees[0].respond(&arrived, "200 OK");
    stage.caller.expect("200 OK");
}
