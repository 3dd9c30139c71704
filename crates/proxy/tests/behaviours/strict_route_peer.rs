//! Strict routers before us, behind us, and on both sides (RFC 3261 §16.4, §16.6 step 6, §16.12).

use crate::message::{address_of, uri_of};
use crate::stage::{Dialog, Message, Received, Stage};

/// An edge with a call between the caller and the first callee; the second one plays another proxy of the route set.
fn stage() -> (Stage, Dialog) {
    let stage = Stage::start(2, |config| config.trunks[1].targets[1].priority = 2);
    let dialog = stage.answered_call().0;
    (stage, dialog)
}

/// The request with this Request-URI and these Route lines.
fn by(mut request: Message, uri: &str, routes: &[&str]) -> Message {
    request.start = format!("{} {uri} SIP/2.0", request.method());
    request = request.without("Route");
    let at = request.headers.iter().position(|(name, _)| name == "Max-Forwards").unwrap();
    request.headers.splice(at..at, routes.iter().map(|route| ("Route".to_owned(), (*route).to_owned())));
    request
}

/// Sends a request of the caller, and returns what arrives at the callee of this index. The response passes back.
fn pass(stage: &Stage, request: &Message, callee: usize) -> Received {
    stage.call(request);
    let arrived = stage.callees[callee].expect(request.method());
    stage.callees[callee].respond(&arrived, "200 OK");
    stage.caller.expect_that("200 to it", |it| it.header("CSeq") == request.header("CSeq") && it.code() == 200);
    arrived
}

#[test]
fn a_request_uri_of_ours_is_replaced_by_the_last_route() {
    let (stage, mut dialog) = stage();
    let (ours, target) = (uri_of(&dialog.routes[0]).to_owned(), dialog.target.clone());
    let info = by(dialog.request(&stage.caller, "INFO"), &ours, &[&format!("<{target}>")]);
    let arrived = pass(&stage, &info, 0);
    assert_eq!((arrived.uri(), arrived.has("Route")), (&*target, false), "{}", arrived.text());

    // The last value stands behind another one in its line.
    let other = format!("<sip:{};lr>", stage.callees[1].address);
    let info = by(dialog.request(&stage.caller, "INFO"), &ours, &[&format!("{other}, <{target}>")]);
    let arrived = pass(&stage, &info, 1);
    assert_eq!((arrived.uri(), arrived.headers("Route")), (&*target, vec![&*other]), "{}", arrived.text());
}

#[test]
fn a_strict_next_hop_gets_its_own_uri_as_request_uri() {
    let (stage, mut dialog) = stage();
    let (ours, target) = (dialog.routes[0].clone(), dialog.target.clone());
    let strict = format!("sip:{}", stage.callees[1].address);
    let info = by(dialog.request(&stage.caller, "INFO"), &target, &[&ours, &format!("<{strict}>")]);
    let arrived = pass(&stage, &info, 1);
    assert_eq!((arrived.uri(), arrived.elements("Route")), (&*strict, vec![&*format!("<{target}>")]));

    // All of them in one line, and one more behind it.
    let last = format!("<sip:{};lr>", stage.callees[0].address);
    let info = by(dialog.request(&stage.caller, "INFO"), &target, &[&format!("{ours},<{strict}> , {last}")]);
    let arrived = pass(&stage, &info, 1);
    assert_eq!((arrived.uri(), arrived.elements("Route")), (&*strict, vec![&*last, &*format!("<{target}>")]));

    // Strict routers on both sides.
    let (first, last) = (format!("<{strict}>"), format!("<{target}>"));
    for routes in [vec![&*first, &last], vec![&*format!("{first}, {last}")]] {
        let info = by(dialog.request(&stage.caller, "INFO"), uri_of(&ours), &routes);
        let arrived = pass(&stage, &info, 1);
        assert_eq!((arrived.uri(), arrived.headers("Route")), (&*strict, vec![&*last]), "{}", arrived.text());
    }
}

#[test]
fn a_top_route_of_another_element_stays() {
    let (stage, mut dialog) = stage();
    let ours = uri_of(&dialog.routes[0]).to_owned();
    let other = format!("<sip:proxy@{};lr>", stage.callees[1].address);
    let target = format!("<{}>", dialog.target);
    let info = by(dialog.request(&stage.caller, "INFO"), &ours, &[&other, &target]);
    assert_eq!(pass(&stage, &info, 1).headers("Route"), [&*other]);
}

#[test]
fn after_the_swap_our_own_top_route_goes_as_well() {
    let (stage, mut dialog) = stage();
    let (ours, target) = (dialog.routes[0].clone(), dialog.target.clone());
    for routes in [vec![ours.clone(), format!("<{target}>")], vec![format!("{ours}, <{target}>")]] {
        let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
        let info = by(dialog.request(&stage.caller, "INFO"), uri_of(&ours), &routes);
        let arrived = pass(&stage, &info, 0);
        assert_eq!((arrived.uri(), arrived.has("Route")), (&*target, false), "{}", arrived.text());
    }
}

#[test]
fn the_next_route_is_the_next_hop() {
    let (stage, mut dialog) = stage();
    let (ours, target) = (dialog.routes[0].clone(), dialog.target.clone());
    let next = format!("<sip:{};lr>", stage.callees[1].address);
    for routes in [vec![ours.clone(), next.clone()], vec![format!("{ours},{next}")]] {
        let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
        let info = by(dialog.request(&stage.caller, "INFO"), &target, &routes);
        let arrived = pass(&stage, &info, 1);
        assert_eq!((arrived.uri(), arrived.headers("Route")), (&*target, vec![&*next]), "{}", arrived.text());
    }
    // Without a Route of another element the Request-URI says it.
    let info = dialog.request(&stage.caller, "INFO");
    assert_eq!(pass(&stage, &info, 0).uri(), target);
    assert_eq!(address_of(&target), stage.callees[0].address);
}

#[test]
fn ack_and_cancel_have_the_route_of_their_invite() {
    let (stage, mut dialog) = stage();
    let (ours, target) = (dialog.routes[0].clone(), dialog.target.clone());
    let next = format!("<sip:{};lr>", stage.callees[1].address);
    let proxy = &stage.callees[1];
    let invite = by(dialog.request(&stage.caller, "INVITE"), &target, &[&ours, &next]);
    stage.call(&invite);
    let arrived = proxy.expect("INVITE");
    proxy.respond(&arrived, "180 Ringing");
    stage.caller.expect("180");
    stage.call(&invite.cancel());
    let cancel = proxy.expect("CANCEL");
    assert_eq!((cancel.uri(), cancel.headers("Route")), (&*target, vec![&*next]), "{}", cancel.text());
    assert_eq!(cancel.branch(), arrived.branch());
    proxy.respond(&cancel, "200 OK");
    proxy.respond(&arrived, "487 Request Terminated");
    let ack = proxy.expect("ACK");
    assert_eq!((ack.uri(), ack.headers("Route")), (&*target, vec![&*next]), "{}", ack.text());
    assert_eq!(ack.branch(), arrived.branch());
    let refusal = stage.caller.expect("487");
    stage.call(&invite.ack(&refusal));
}
