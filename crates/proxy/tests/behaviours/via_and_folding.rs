//! Via as senders write it: several in one line, folded, with names, and with what is the receiver's to say (RFC 3261 §7.3.1, §18.2).

use crate::message::parameter;
use crate::peer::Peer;
use crate::stage::{Message, Stage};

/// The Via of the sender as the callee gets it: the second one.
fn senders(arrived: &Message) -> &str {
    arrived.elements("Via")[1]
}

/// The call of this INVITE gets through, to the 200 that the caller gets with the Vias that it has sent.
fn gets_through(stage: &Stage, invite: &Message) -> Message {
    stage.call(invite);
    let arrived = stage.callees[0].expect("INVITE");
    stage.callees[0].respond(&arrived, "200 OK");
    let ok = stage.caller.expect("200 OK");
    assert_eq!(ok.elements("Via"), arrived.elements("Via")[1..], "the edge's own Via goes, and nothing else");
    (*arrived).clone()
}

#[test]
fn a_via_with_a_name_gets_received() {
    let stage = Stage::start(1, |_| {});
    let invite = stage.invite().with("Via", "SIP/2.0/UDP pbx.example:5060;branch=z9hG4bKname");
    let arrived = gets_through(&stage, &invite);
    assert_eq!(parameter(senders(&arrived), "received"), Some(&*stage.caller.address.ip().to_string()));
    assert_eq!(parameter(senders(&arrived), "rport"), None, "nobody has asked for it");

    // An address that is the source needs none.
    let invite = stage.invite().with("Via", &format!("SIP/2.0/UDP {};branch=z9hG4bKaddress", stage.caller.address));
    let arrived = gets_through(&stage, &invite);
    assert_eq!(parameter(senders(&arrived), "received"), None);
}

#[test]
fn received_and_rport_of_the_sender_are_replaced() {
    let stage = Stage::start(1, |_| {});
    let (ip, port) = (stage.caller.address.ip().to_string(), stage.caller.address.port().to_string());
    let vias = [
        "SIP/2.0/UDP 192.0.2.1;received=192.0.2.66;branch=z9hG4bKone;rport=9",
        "SIP/2.0/UDP 192.0.2.1;rport=9;branch=z9hG4bKtwo;Received = 192.0.2.66 ;x=1",
        "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKthree;rport",
    ];
    for via in vias {
        let arrived = gets_through(&stage, &stage.invite().with("Via", via));
        let stamped = senders(&arrived);
        assert_eq!((parameter(stamped, "received"), parameter(stamped, "rport")), (Some(&*ip), Some(&*port)));
        assert_eq!(stamped.to_lowercase().matches("received").count(), 1, "{stamped}");
        assert!(!stamped.contains("192.0.2.66") && !stamped.contains("rport=9"), "{stamped}");
        assert_eq!(parameter(stamped, "branch"), parameter(via, "branch"));
        assert_eq!(parameter(stamped, "x"), parameter(via, "x"));
    }
}

#[test]
fn two_vias_in_one_line_are_two() {
    let stage = Stage::start(1, |_| {});
    let top = stage.invite().header("Via").to_owned();
    let below = "SIP/2.0/TCP first.example:5070;branch=z9hG4bKbelow";
    let mut invite = stage.invite().with("Via", &format!("{top} ,\r\n  {below}"));
    let arrived = gets_through(&stage, &invite);
    assert_eq!(arrived.elements("Via")[2], below);

    // The same in the response: the callee writes all Vias into one line.
    let callee = &stage.callees[0];
    invite = stage.invite().and("Via", below);
    stage.call(&invite);
    let arrived = callee.expect("INVITE");
    let all = arrived.elements("Via").join(",");
    callee.reply(&arrived, &callee.response(&arrived, "200 OK").with("Via", &all));
    let ok = stage.caller.expect_that("200", |it| it.header("Call-ID") == invite.header("Call-ID") && it.code() == 200);
    assert_eq!(ok.elements("Via"), arrived.elements("Via")[1..]);
}

/// Folds are read, and stay as they are.
#[test]
fn folded_headers_are_read_and_stay() {
    let stage = Stage::start(1, |_| {});
    let from = "\"A\r\n \tB\"\r\n <sip:alice@192.0.2.1>\r\n\t;tag=folded";
    let (max_forwards, to) = ("\r\n 10", "\r\n <sip:bob@edge.example>");
    let invite = stage.invite().with("From", from).with("Max-Forwards", max_forwards).with("To", to);
    let arrived = stage_raw(&stage, &invite);
    assert!(arrived.contains(&format!("From: {from}\r\n")) && arrived.contains(&format!("To: {to}\r\n")), "{arrived}");
    assert_eq!(arrived.matches("Max-Forwards").count(), 1);
    assert!(arrived.contains("Max-Forwards: \r\n 9\r\n") || arrived.contains("Max-Forwards: 9\r\n"), "{arrived}");
}

/// The bytes of an INVITE as they arrive.
fn stage_raw(stage: &Stage, invite: &Message) -> String {
    stage.call(invite);
    let arrived = stage.callees[0].expect("INVITE");
    stage.callees[0].respond(&arrived, "486 Busy Here");
    stage.caller.expect("486");
    String::from_utf8(arrived.raw.clone()).unwrap()
}

#[test]
fn without_rport_the_answer_goes_to_the_port_of_sent_by() {
    let stage = Stage::start(1, |_| {});
    let other = Peer::udp_at((stage.caller.address.ip(), 0).into());
    let options = stage.caller.request("OPTIONS", &format!("sip:{}", stage.edge));
    let via = |tail: &str| format!("SIP/2.0/UDP {tail}");
    // From another port than sent-by's.
    for (number, sent_by) in ["pbx.example", "pbx.example:5060", "192.0.2.1"].iter().enumerate() {
        other.send(&options.clone().with("Via", &via(&format!("{sent_by};branch=z9hG4bKo{number}"))), stage.edge);
        stage.caller.expect_that("200", |it| it.branch() == format!("z9hG4bKo{number}"));
    }
    other.send(&options.with("Via", &via("pbx.example;branch=z9hG4bKwith;rport")), stage.edge);
    other.expect_that("200", |it| it.branch() == "z9hG4bKwith");
}
