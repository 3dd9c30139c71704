//! Requests within a dialog, of every method, from either side (RFC 3261 §16.4 to §16.6, RFC 3262, 3311, 3515, 6086, 6665).

use crate::stage::{Dialog, Peer, Stage};

const METHODS: [&str; 10] =
    ["PRACK", "UPDATE", "INFO", "REFER", "NOTIFY", "SUBSCRIBE", "MESSAGE", "OPTIONS", "PUBLISH", "FROBNICATE"];

#[test]
fn any_method_passes_from_either_side() {
    let stage = Stage::start(2, |config| config.trunks[1].targets[1].priority = 2);
    let (caller, callee) = (&stage.caller, &stage.callees[0]);
    let (mut of_caller, mut of_callee) = stage.answered_call();
    for method in METHODS {
        exchange(method, caller, &mut of_caller, callee);
        exchange(method, callee, &mut of_callee, caller);
    }
    exchange("BYE", callee, &mut of_callee, caller);
    assert_eq!(stage.callees[1].seen(), [""; 0], "nothing of it concerns another destination");
}

/// RFC 3261 §16.5, RFC 3263 §4: `maddr` takes the place of the host, and stays in the Request-URI.
#[test]
fn maddr_of_the_remote_target_says_where_the_request_goes() {
    let stage = Stage::start(2, |config| config.trunks[1].targets[1].priority = 2);
    let [host, at_maddr] = stage.callees();
    let (mut dialog, _) = stage.answered_call();
    dialog.target = format!("sip:bob@{};maddr={}", host.address, at_maddr.address.ip());
    exchange("INFO", &stage.caller, &mut dialog, at_maddr);
    assert_eq!(host.seen().iter().filter(|start| start.starts_with("INFO")).count(), 0, "{:?}", host.seen());
}

/// One request with a body, its answer with a body, and a refusal of the next one.
fn exchange(method: &str, from: &Peer, dialog: &mut Dialog, to: &Peer) {
    let request = dialog.request(from, method).and("X-Of-The-Request", "1").with_body("text/plain", "zäh\r\n\r\n\u{1}");
    from.send_by_route(&request);
    let arrived = to.expect(&format!("{method} "));
    assert_eq!(arrived.uri(), dialog.target, "{}", arrived.text());
    assert!(!arrived.has("Route"), "{}", arrived.text());
    for name in ["From", "To", "Call-ID", "CSeq", "Contact", "Content-Type", "X-Of-The-Request"] {
        assert_eq!(arrived.headers(name), request.headers(name), "{}", arrived.text());
    }
    assert_eq!(arrived.body, request.body);
    let answer = to.response(&arrived, "202 Accepted").with_body("text/plain", "yes");
    to.reply(&arrived, &answer);
    let got = from.expect_that("202", |it| it.answers(&request));
    assert_eq!((got.code(), &got.body), (202, &answer.body), "{}", got.text());
    assert_eq!(got.elements("Via").len(), 1, "{}", got.text());

    let request = dialog.request(from, method);
    from.send_by_route(&request);
    let arrived = to.expect_that(method, |it| it.method() == method && it.cseq() == request.cseq());
    to.respond(&arrived, "481 Call/Transaction Does Not Exist");
    let got = from.expect_that("481", |it| it.answers(&request));
    assert_eq!(got.code(), 481);
}
