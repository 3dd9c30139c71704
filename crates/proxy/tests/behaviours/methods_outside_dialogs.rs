//! Requests other than INVITE from outside a dialog: passed on, record-routed where they may open one, or refused.

use crate::stage::{Dialog, Stage};

#[test]
fn a_message_is_passed_on_and_opens_nothing() {
    let stage = Stage::start(1, |_| {});
    let (caller, callee) = (&stage.caller, &stage.callees[0]);
    let message = caller.request("MESSAGE", &stage.uri("bob")).with_body("text/plain", "hello\r\n");
    stage.call(&message);
    let arrived = callee.expect("MESSAGE");
    assert_eq!((&*arrived.body, arrived.has("Record-Route")), (&b"hello\r\n"[..], false), "{}", arrived.text());
    callee.respond(&arrived, "202 Accepted");
    caller.expect("202 Accepted");
}

#[test]
fn a_subscription_and_its_notifications_go_through_the_edge() {
    let stage = Stage::start(1, |_| {});
    let (caller, callee) = (&stage.caller, &stage.callees[0]);
    let subscribe = caller.request("SUBSCRIBE", &stage.uri("bob")).and("Event", "dialog").and("Expires", "60");
    stage.call(&subscribe);
    let arrived = callee.expect("SUBSCRIBE");
    // A NOTIFY may come before the answer (RFC 6665 §4.2.2).
    let answer = callee.response(&arrived, "202 Accepted");
    let mut dialog = Dialog::of_callee(&arrived, &answer);
    let early = dialog.request(callee, "NOTIFY").and("Event", "dialog").and("Subscription-State", "active");
    callee.send_by_route(&early);
    let got = caller.expect("NOTIFY");
    caller.respond(&got, "200 OK");
    callee.expect("200 OK");
    callee.reply(&arrived, &answer);
    let accepted = caller.expect("202 Accepted");
    let mut dialog = Dialog::of_caller(&subscribe, &accepted);
    caller.send_by_route(&dialog.request(caller, "SUBSCRIBE").and("Event", "dialog").and("Expires", "0"));
    let last = callee.expect("SUBSCRIBE");
    callee.respond(&last, "200 OK");
    caller.expect("200 OK");
}

#[test]
fn register_and_publish_get_405() {
    let stage = Stage::start(1, |_| {});
    for method in ["REGISTER", "PUBLISH"] {
        stage.call(&stage.caller.request(method, &stage.uri("bob")));
        let refusal = stage.caller.expect_that("405", |it| it.header("CSeq").ends_with(method));
        assert_eq!((refusal.code(), refusal.has("Allow")), (405, true), "{}", refusal.text());
    }
    assert_eq!(stage.callees[0].seen(), [""; 0]);
}
