//! A call from UDP to TCP: a Record-Route value for each side, both removed on the way back (RFC 5658).

use sipedge_proxy::config::Target;

use crate::message::uri_of;
use crate::peer::Listener;
use crate::stage::{Dialog, Stage, loopback};

#[test]
fn a_call_from_udp_to_tcp_has_a_route_for_each_side() {
    let listener = Listener::bind(loopback());
    let stage = Stage::start(0, |config| {
        config.listen.tcp = true;
        config.trunks[1].targets = vec![Target::new(format!("sip:{};transport=tcp", listener.address))];
    });
    let caller = &stage.caller;
    let invite = stage.invite();
    stage.call(&invite);
    let callee = listener.accept();
    let arrived = callee.expect("INVITE");
    let routes: Vec<&str> = arrived.elements("Record-Route").into_iter().map(uri_of).collect();
    assert_eq!(routes.len(), 2, "{}", arrived.text());
    assert!(routes[0].ends_with(&format!("@{};transport=tcp;lr", stage.edge)), "{routes:?}");
    assert!(routes[1].ends_with(&format!("@{};lr", stage.edge)), "{routes:?}");
    let answer = callee.respond(&arrived, "200 OK");
    let ok = caller.expect("200 OK");
    assert_eq!(ok.elements("Record-Route"), arrived.elements("Record-Route"));

    let (mut of_caller, mut of_callee) = (Dialog::of_caller(&invite, &ok), Dialog::of_callee(&arrived, &answer));
    caller.send_by_route(&of_caller.ack(caller));
    let ack = callee.expect("ACK");
    assert!(!ack.has("Route") && ack.uri() == of_caller.target, "{}", ack.text());
    callee.send_by_route(&of_callee.request(&callee, "INFO"));
    let info = caller.expect("INFO");
    assert!(!info.has("Route") && info.uri() == of_callee.target, "{}", info.text());
    assert!(info.elements("Via")[0].starts_with("SIP/2.0/UDP "), "{}", info.text());
    caller.respond(&info, "200 OK");
    callee.expect("200 OK");
    caller.send_by_route(&of_caller.request(caller, "BYE"));
    let bye = callee.expect("BYE");
    assert!(!bye.has("Route") && bye.elements("Via")[0].starts_with("SIP/2.0/TCP "), "{}", bye.text());
    callee.respond(&bye, "200 OK");
    caller.expect_that("200 to the BYE", |it| it.header("CSeq").ends_with("BYE"));
}

#[test]
fn a_call_that_stays_on_one_transport_has_one_route() {
    let stage = Stage::start(1, |config| config.listen.tcp = true);
    stage.call(&stage.invite());
    let arrived = stage.callees[0].expect("INVITE");
    assert_eq!(arrived.elements("Record-Route").len(), 1, "{}", arrived.text());
}
