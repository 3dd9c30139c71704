//! Who is believed about an identity, and who is told (RFC 3325, RFC 3323, RFC 8224), and the `X-` headers of an edge and its PBX.

use sipedge_proxy::config::Trust;

use crate::stage::{Message, Received, Stage};

const ASSERTED: &str = "P-Asserted-Identity";
const PREFERRED: &str = "P-Preferred-Identity";
const ALICE: &str = "\"Alice\" <sip:+15550100@carrier.example>";
const TEL: &str = "<tel:+15550100>";

/// An edge that believes caller and callee, or not.
fn stage(caller: bool, callee: bool) -> Stage {
    Stage::start(1, |config| {
        let callee_ip = config.trunks[1].targets[0].uri.trim_start_matches("sip:").parse::<std::net::SocketAddr>();
        config.trunks[1].from = vec![callee_ip.unwrap().ip().into()];
        config.trunks[0].trust = Trust { identity: caller, internal_headers: caller };
        config.trunks[1].trust = Trust { identity: callee, internal_headers: callee };
    })
}

/// The INVITE as it arrives; the call is refused.
fn arrives(stage: &Stage, invite: &Message) -> Received {
    stage.call(invite);
    let arrived = stage.callees[0].expect("INVITE");
    stage.callees[0].respond(&arrived, "486 Busy Here");
    stage.caller.expect("486");
    arrived
}

#[test]
fn an_asserted_identity_of_a_stranger_to_the_trust_domain_goes() {
    for callee in [false, true] {
        let stage = stage(false, callee);
        let arrived = arrives(&stage, &stage.invite().and(ASSERTED, ALICE).and("p-asserted-identity", TEL));
        assert!(!arrived.has(ASSERTED), "{}", arrived.text());
    }
}

#[test]
fn an_asserted_identity_between_trusted_peers_stays() {
    let stage = stage(true, true);
    for privacy in ["id", "user;id", "none"] {
        let invite = stage.invite().and(ASSERTED, ALICE).and(ASSERTED, TEL).and("Privacy", privacy);
        let arrived = arrives(&stage, &invite);
        assert_eq!((arrived.headers(ASSERTED), arrived.header("Privacy")), (vec![ALICE, TEL], privacy));
    }
}

#[test]
fn a_preferred_identity_goes() {
    let stage = stage(false, true);
    let arrived = arrives(&stage, &stage.invite().and(PREFERRED, ALICE));
    assert!(!arrived.has(PREFERRED), "{}", arrived.text());
}

#[test]
fn privacy_id_removes_the_identity_before_an_untrusted_peer() {
    let stage = stage(true, false);
    for privacy in ["id", "header; ID ;critical"] {
        let arrived = arrives(&stage, &stage.invite().and(ASSERTED, ALICE).and("Privacy", privacy));
        assert_eq!((arrived.has(ASSERTED), arrived.header("Privacy")), (false, privacy));
    }
}

#[test]
fn privacy_none_keeps_the_identity() {
    let stage = stage(true, false);
    let arrived = arrives(&stage, &stage.invite().and(ASSERTED, ALICE).and("Privacy", "none"));
    assert_eq!((arrived.header(ASSERTED), arrived.header("Privacy")), (ALICE, "none"));
    let arrived = arrives(&stage, &stage.invite().and(ASSERTED, ALICE));
    assert_eq!(arrived.header(ASSERTED), ALICE);
}

#[test]
fn responses_are_treated_the_same() {
    for (trusted, privacy, passes) in [(true, "none", true), (true, "id", false), (false, "none", false)] {
        let stage = stage(false, trusted);
        let callee = &stage.callees[0];
        stage.call(&stage.invite());
        let arrived = callee.expect("INVITE");
        for status in ["183 Session Progress", "200 OK"] {
            let answer = callee.response(&arrived, status).and(ASSERTED, ALICE).and("Privacy", privacy);
            callee.reply(&arrived, &answer);
            let passed = stage.caller.expect(status);
            assert_eq!((passed.has(ASSERTED), passed.header("Privacy")), (passes, privacy), "{}", passed.text());
        }
    }
}

#[test]
fn requests_in_a_dialog_are_treated_the_same() {
    for trusted in [true, false] {
        let stage = stage(trusted, !trusted);
        let (caller, callee) = (&stage.caller, &stage.callees[0]);
        let (mut of_caller, mut of_callee) = stage.answered_call();
        let dress = |request: Message| request.and(ASSERTED, ALICE).and(PREFERRED, ALICE).and("X-Original-DID", "1");
        caller.send_by_route(&dress(of_caller.request(caller, "UPDATE")));
        let forth = callee.expect("UPDATE");
        callee.send_by_route(&dress(of_callee.request(callee, "INFO")));
        let back = caller.expect("INFO");
        for (arrived, passes) in [(forth, trusted), (back, !trusted)] {
            for name in [ASSERTED, "X-Original-DID"] {
                assert_eq!(arrived.has(name), passes, "{name}:\n{}", arrived.text());
            }
        }
    }
}

/// A trunk that opens no calls has no `from`: it is known by its target.
#[test]
fn a_callee_that_opens_no_calls_is_believed_in_its_dialogs() {
    for trusted in [true, false] {
        let stage = Stage::start(1, |config| config.trunks[1].trust.identity = trusted);
        let callee = &stage.callees[0];
        let (_, mut dialog) = stage.answered_call();
        callee.send_by_route(&dialog.request(callee, "UPDATE").and(ASSERTED, ALICE));
        let arrived = stage.caller.expect("UPDATE");
        assert_eq!(arrived.has(ASSERTED), trusted, "{}", arrived.text());
    }
}

#[test]
fn internal_headers_are_taken_from_those_alone_who_may_say_them() {
    let names = ["X-Store-Domain", "X-Inbound-Trunk", "x-outbound-call", "X-INTERNAL-CALL", "X-Park-Call"];
    let names = [&names[..], &["X-Original-DID", "X-Route-To-Trunk"]].concat();
    for trusted in [true, false] {
        let stage = stage(trusted, false);
        let mut invite = stage.invite().and("X-Other", "stays");
        for name in &names {
            invite = invite.and(name, "yes");
        }
        let arrived = arrives(&stage, &invite);
        assert!(names.iter().all(|name| arrived.has(name) == trusted), "{trusted}:\n{}", arrived.text());
        assert_eq!(arrived.header("X-Other"), "stays");
    }
}

#[test]
fn what_an_identity_signs_is_never_changed() {
    let stage = stage(false, false);
    let first = "eyJhbGciOi.J9.sig;info=<https://cert.example/a.pem>;alg=ES256;ppt=shaken";
    let second = "eyJwcHQiOi.J9.gis;info=<https://cert.example/b.pem>;alg=ES256;ppt=div";
    let date = "Sat, 13 Nov 2010 23:29:00 GMT";
    let body = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns= odd  spaces \r\n";
    let invite = stage.invite().and("Identity", first).and("Date", date).and("Identity", second);
    let invite = invite.with_body("application/sdp", body);
    let arrived = arrives(&stage, &invite);
    assert_eq!(arrived.headers("Identity"), [first, second]);
    for name in ["From", "To", "Date", "Call-ID", "Contact", "Content-Type"] {
        assert_eq!(arrived.header(name), invite.header(name));
    }
    assert_eq!(arrived.body, body.as_bytes());
}
