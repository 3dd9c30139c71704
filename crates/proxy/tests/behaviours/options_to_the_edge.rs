//! OPTIONS from a trunk, for the edge itself (RFC 3261 §11.2).

use crate::stage::Stage;

#[test]
fn an_options_without_a_user_is_answered_here() {
    let stage = Stage::start(1, |_| {});
    stage.call(&stage.caller.request("OPTIONS", &format!("sip:{}", stage.edge)).with("Max-Forwards", "0"));
    let ok = stage.caller.expect("200 OK");
    for name in ["Allow", "Accept", "Accept-Encoding", "Accept-Language", "Supported"] {
        assert!(ok.has(name), "no {name} in:\n{}", ok.text());
    }
    assert!(ok.to_tag().is_some(), "{}", ok.text());
    assert_eq!(stage.callees[0].seen(), [""; 0]);
}

#[test]
fn an_options_that_requires_something_gets_420() {
    let stage = Stage::start(1, |_| {});
    let options = stage.caller.request("OPTIONS", &format!("sip:{}", stage.edge));
    stage.call(&options.clone().and("Require", "100rel, precondition").and("Require", "foo"));
    let refusal = stage.caller.expect("420 Bad Extension");
    assert_eq!(refusal.elements("Unsupported"), ["100rel", "precondition", "foo"]);
    stage.call(&options.with("Via", &format!("{}x", options_via(&stage))).and("Proxy-Require", "bar"));
    let refusal = stage.caller.expect("420 Bad Extension");
    assert_eq!(refusal.elements("Unsupported"), ["bar"]);
}

/// A Via of the caller with a branch that no other request has, to be added to.
fn options_via(stage: &Stage) -> String {
    stage.caller.request("OPTIONS", "sip:nobody").header("Via").to_owned().replace(";rport", "")
}
