//! Header names in their compact forms (RFC 3261 §7.3.3).

use crate::stage::{Dialog, Message, Stage};

/// The message with every name compact that can be.
fn compact(mut message: Message) -> Message {
    for (name, _) in &mut message.headers {
        let short = match name.as_str() {
            "Via" => "v",
            "From" => "f",
            "To" => "t",
            "Call-ID" => "i",
            "Contact" => "m",
            "Content-Length" => "l",
            "Content-Type" => "c",
            _ => continue,
        };
        *name = short.to_owned();
    }
    message
}

#[test]
fn a_call_in_compact_forms() {
    let stage = Stage::start(1, |_| {});
    let (caller, callee) = (&stage.caller, &stage.callees[0]);
    let invite = compact(stage.invite().with_body("application/sdp", "v=0\r\n"));
    stage.call(&invite);
    let trying = caller.expect("100");
    assert_eq!(trying.header("Call-ID"), invite.header("Call-ID"));
    let arrived = callee.expect("INVITE");
    assert_eq!(arrived.body, b"v=0\r\n");
    for name in ["f", "t", "i", "m", "l", "c"] {
        assert_eq!(arrived.headers.iter().filter(|(it, _)| it == name).count(), 1, "{name}:\n{}", arrived.text());
    }
    let answer = compact(callee.response(&arrived, "200 OK"));
    callee.reply(&arrived, &answer);
    let ok = caller.expect("200 OK");
    assert_eq!(ok.elements("Via").len(), 1, "{}", ok.text());
    let mut dialog = Dialog::of_caller(&invite, &ok);
    caller.send_by_route(&compact(dialog.ack(caller)));
    callee.expect("ACK");
    let bye = compact(Dialog::of_callee(&arrived, &answer).request(callee, "BYE"));
    callee.send_by_route(&bye);
    let bye = caller.expect("BYE");
    caller.reply(&bye, &compact(caller.response(&bye, "200 OK")));
    callee.expect("200 OK");
    let late = compact(dialog.request(caller, "BYE"));
    caller.send_by_route(&late);
    let late = callee.expect("BYE");
    callee.respond(&late, "481 Call/Transaction Does Not Exist");
    caller.expect("481");
}
