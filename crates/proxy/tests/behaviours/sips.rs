//! A SIPS URI is reached over TLS or not at all (RFC 3261 §26.2.2, RFC 5630 §4).

use crate::stage::Stage;

#[test]
fn a_sips_call_is_refused_where_its_trunk_has_no_tls() {
    let stage = Stage::start(1, |config| config.listen.tcp = true);
    let mut invite = stage.invite();
    invite.start = format!("INVITE sips:bob@{} SIP/2.0", stage.edge);
    stage.call(&invite);
    let refusal = stage.caller.expect("416");
    stage.call(&invite.ack(&refusal));
    assert_eq!(stage.callees[0].seen(), [""; 0]);
}

#[test]
fn a_sips_remote_target_is_not_reached_in_the_clear() {
    let stage = Stage::start(1, |config| config.listen.tcp = true);
    let (mut dialog, _) = stage.answered_call();
    let callee = &stage.callees[0];
    // Nobody speaks TLS there.
    dialog.target = format!("sips:bob@{}", callee.address);
    let bye = dialog.request(&stage.caller, "BYE");
    stage.call(&bye);
    let refusal = stage.caller.expect("SIP/2.0 5");
    assert_eq!(refusal.header("CSeq"), bye.header("CSeq"));
    assert!(!callee.seen().iter().any(|start| start.starts_with("BYE")), "{:?}", callee.seen());
}

/// RFC 3261 §16.6 step 7: the Request-URI says how, even where a route says where.
#[test]
fn a_sips_remote_target_is_not_reached_in_the_clear_by_a_route() {
    let stage = Stage::start(1, |config| config.listen.tcp = true);
    let (mut dialog, _) = stage.answered_call();
    let callee = &stage.callees[0];
    dialog.target = "sips:bob@pbx.example".to_owned();
    // Nobody speaks TLS there, either.
    dialog.routes.push(format!("<sip:{};lr>", callee.address));
    let bye = dialog.request(&stage.caller, "BYE");
    stage.call(&bye);
    let refusal = stage.caller.expect("SIP/2.0 5");
    assert_eq!(refusal.header("CSeq"), bye.header("CSeq"));
    assert!(!callee.seen().iter().any(|start| start.starts_with("BYE")), "{:?}", callee.seen());
}
