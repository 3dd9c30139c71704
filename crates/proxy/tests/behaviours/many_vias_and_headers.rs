//! Long messages: 30 Vias, 200 headers; and what the edge keeps of a request and its answer.

use crate::stage::{Dialog, Stage};

#[test]
fn thirty_vias_pass_both_ways() {
    let stage = Stage::start(1, |_| {});
    let callee = &stage.callees[0];
    let mut invite = stage.invite();
    for hop in 0..29 {
        invite =
            invite.and("Via", &format!("SIP/2.0/UDP hop{hop}.example:5060;branch=z9hG4bKhop{hop};received=192.0.2.9"));
    }
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    assert_eq!(arrived.elements("Via")[2..], invite.elements("Via")[1..]);
    for status in ["180 Ringing", "486 Busy Here"] {
        callee.respond(&arrived, status);
        assert_eq!(stage.caller.expect(status).elements("Via"), arrived.elements("Via")[1..]);
    }
    stage.call(&invite.ack(&callee.response(&arrived, "486 Busy Here")));
}

#[test]
fn two_hundred_headers_pass_both_ways() {
    let stage = Stage::start(1, |_| {});
    let callee = &stage.callees[0];
    let many: Vec<(String, String)> =
        (0..200).map(|number| (format!("X-{number}"), format!("value {number}"))).collect();
    let is_there = |headers: &[(String, String)]| headers.windows(200).any(|window| window == many);
    let mut invite = stage.invite();
    invite.headers.splice(3..3, many.clone());
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    assert!(is_there(&arrived.headers), "{}", arrived.text());
    let mut answer = callee.response(&arrived, "200 OK");
    answer.headers.extend(many.clone());
    callee.reply(&arrived, &answer);
    let ok = stage.caller.expect("200 OK");
    assert!(is_there(&ok.headers), "{}", ok.text());
}

#[test]
fn more_headers_than_there_may_be_get_400() {
    let stage = Stage::start(1, |_| {});
    let mut invite = stage.invite();
    invite.headers.extend((0..600).map(|number| (format!("X-{number}"), "1".to_owned())));
    stage.call(&invite);
    let refusal = stage.caller.expect("400");
    assert_eq!(refusal.branch(), invite.branch());
    assert!(refusal.to_tag().is_some(), "{}", refusal.text());
}

#[test]
fn a_bye_that_comes_again_gets_the_same_answer() {
    let stage = Stage::start(1, |_| {});
    let (caller, callee) = (&stage.caller, &stage.callees[0]);
    let mut dialog: Dialog = stage.answered_call().0;
    let bye = dialog.request(caller, "BYE");
    caller.send_by_route(&bye);
    let arrived = callee.expect("BYE");
    callee.respond(&arrived, "200 OK");
    let ok = caller.expect_that("200 to the BYE", |it| it.header("CSeq") == bye.header("CSeq"));
    caller.send_by_route(&bye);
    caller.expect_copy(&ok);
    assert_eq!(callee.copies(&arrived), 0, "the copy ends here");
}

#[test]
fn the_ack_of_a_refusal_has_one_via() {
    let stage = Stage::start(1, |_| {});
    let callee = &stage.callees[0];
    let invite = stage.invite().with("CSeq", "4711 INVITE").with_body("application/sdp", "v=0\r\n");
    let invite = invite.and("Via", "SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKbelow");
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    callee.respond(&arrived, "486 Busy Here");
    let ack = callee.expect("ACK");
    assert_eq!(ack.elements("Via"), [arrived.elements("Via")[0]]);
    assert_eq!((ack.header("CSeq"), ack.uri()), ("4711 ACK", arrived.uri()));
    assert_eq!((ack.header("Content-Length"), &*ack.body, ack.has("Content-Type")), ("0", &b""[..], false));
    assert_eq!(ack.to_tag(), Some(&*callee.tag), "To is the refusal's");
    assert_eq!(
        (ack.header("From"), ack.header("Call-ID")),
        (arrived.header("From"), arrived.header("Call-ID")),
        "the rest is the INVITE's"
    );
}
