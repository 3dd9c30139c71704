//! Both sides of a call send a re-INVITE at the same time, and refuse the other's (RFC 3261 §14.2).

use crate::stage::Stage;

#[test]
fn both_invites_and_both_491_are_passed() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    let (mut of_caller, mut of_callee) = stage.answered_call();
    let (by_caller, by_callee) = (of_caller.request(caller, "INVITE"), of_callee.request(callee, "INVITE"));
    caller.send_by_route(&by_caller);
    callee.send_by_route(&by_callee);
    let (at_callee, at_caller) = (callee.expect("INVITE"), caller.expect("INVITE"));
    callee.respond(&at_callee, "491 Request Pending");
    caller.respond(&at_caller, "491 Request Pending");
    for (peer, request) in [(caller, &by_caller), (callee, &by_callee)] {
        let refusal = peer.expect_that("491", |it| it.answers(request) && it.code() == 491);
        assert_eq!(refusal.header("To"), request.header("To"), "a To tag that was there stays");
        peer.send_by_route(&request.ack(&refusal));
        // The other one's refusal is acknowledged by the edge, hop by hop.
        peer.expect("ACK");
    }
    // The call is none the worse.
    let again = of_caller.request(caller, "INVITE");
    caller.send_by_route(&again);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "200 OK");
    caller.expect_that("200 to the re-INVITE", |it| it.answers(&again) && it.code() == 200);
    caller.send_by_route(&of_caller.ack(caller));
    let ack = callee.expect_that("ACK of the 200", |it| it.method() == "ACK" && it.cseq() == again.cseq());
    assert_eq!(ack.uri(), of_caller.target);
}
