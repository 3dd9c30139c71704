//! What the edge does not read goes on as it came: unknown methods, headers and bodies, byte for byte and in order (RFC 3261 §16.3, §16.6).

use crate::message::parameter;
use crate::stage::{Message, Received, Stage};

/// Headers that a proxy passes, whatever they say.
const PASSED: [&str; 22] = [
    "Identity: eyJhbGciOi.J9.sig;info=<https://cert.example/a.pem>;alg=ES256;ppt=shaken",
    "History-Info: <sip:bob@a.example>;index=1, <sip:bob@b.example?Reason=SIP%3Bcause%3D302>;index=1.1",
    "Diversion: \"Bob\" <sip:bob@a.example>;reason=user-busy;counter=1",
    "Reason: Q.850;cause=16;text=\"Terminated\"",
    "Privacy: header;user",
    "Session-Expires: 90;refresher=uac",
    "Min-SE: 90",
    "RSeq: 988789",
    "RAck: 776656 1 INVITE",
    "Require: 100rel",
    "supported:timer,   100rel",
    "Date: Sat, 13 Nov 2010 23:29:00 GMT",
    "X-Empty:",
    "X-Spaces  :   two   ",
    "x-Case: KePt",
    "X-Same: 1",
    "X-Other: ,;\"<>",
    "X-Same: 2",
    "X-Folded: a\r\n\tb\r\n  c",
    "Authorization: Digest username=\"a\", nonce=\"\\\"\"",
    "Warning: what is no warning",
    "no colon at all",
];

/// An INVITE with those headers, with bytes that are no UTF-8, and a body of all bytes.
fn invite(stage: &Stage) -> Vec<u8> {
    let body: Vec<u8> = (0..=255).chain(*b"\r\n\r\nSIP/2.0 200 OK\r\n").collect();
    let (head, _) =
        stage.invite().text().split_once("Content-Length").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let mut bytes = head.into_bytes();
    for line in PASSED {
        bytes.extend(line.as_bytes());
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"Subject: caf\xe9 \xff\xfe\x80\r\nX-After: it is still there\r\n");
    bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
    bytes.extend(body);
    bytes
}

/// The lines of a message up to the empty one, and its body.
fn lines(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in bytes[..end].split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        lines.push(line.to_vec());
    }
    (lines, bytes[end + 4..].to_vec())
}

#[test]
fn headers_and_bodies_pass_byte_for_byte() {
    let stage = Stage::start(1, |_| {});
    let sent = invite(&stage);
    stage.caller.send_bytes(&sent, stage.edge);
    let arrived = stage.callees[0].expect("INVITE");
    let (sent, body) = lines(&sent);
    let (mut got, got_body) = lines(&arrived.raw);
    assert_eq!(got_body, body);
    let edge = stage.edge.to_string();
    let mut own = Vec::new();
    got.retain(|line| {
        let text = String::from_utf8_lossy(line);
        let is_own = text.starts_with(&format!("Via: SIP/2.0/UDP {edge};"))
            || (text.starts_with("Record-Route: <sip:") && text.ends_with(&format!("@{edge};lr>")))
            || text == "Max-Breadth: 60";
        if is_own {
            own.push(text.split(':').next().unwrap().to_owned());
        }
        !is_own
    });
    own.sort();
    assert_eq!(own, ["Max-Breadth", "Record-Route", "Via"]);
    assert_eq!(got.len(), sent.len());
    for (got, sent) in got.iter().zip(&sent).skip(1) {
        let wanted = String::from_utf8_lossy(sent);
        let wanted = match wanted.split(':').next() {
            Some("Via") => {
                let (ip, port) = (stage.caller.address.ip(), stage.caller.address.port());
                format!("{};received={ip}", wanted.replace(";rport", &format!(";rport={port}"))).into_bytes()
            }
            Some("Max-Forwards") => b"Max-Forwards: 69".to_vec(),
            _ => sent.clone(),
        };
        assert_eq!(got.escape_ascii().to_string(), wanted.escape_ascii().to_string());
    }
}

#[test]
fn a_response_comes_back_unchanged_but_for_our_via() {
    let stage = Stage::start(1, |_| {});
    let callee = &stage.callees[0];
    stage.call(&stage.invite());
    let arrived = callee.expect("INVITE");
    for status in ["183 Session Progress", "200 OK"] {
        let (head, _) = lines(&callee.response(&arrived, status).bytes());
        let mut wanted = Vec::new();
        let mut sent = Vec::new();
        let own_via = head.iter().position(|line| line.starts_with(b"Via:")).unwrap();
        for (at, line) in head.iter().enumerate().filter(|(_, line)| !line.starts_with(b"Content-Length")) {
            let whole = [line, &b"\r\n"[..]].concat();
            sent.extend(&whole);
            if at != own_via {
                wanted.extend(&whole);
            }
        }
        let mut rest = Vec::new();
        for line in PASSED {
            rest.extend(line.as_bytes());
            rest.extend(b"\r\n");
        }
        rest.extend(b"Subject: caf\xe9 \xff\r\nContent-Length: 4\r\n\r\n\x00\xff\r\n");
        sent.extend(&rest);
        wanted.extend(&rest);
        callee.send_bytes(&sent, arrived.from);
        let passed = stage.caller.expect(status);
        assert_eq!(passed.raw.escape_ascii().to_string(), wanted.escape_ascii().to_string());
        assert!(parameter(passed.elements("Via")[0], "received").is_some(), "what we put into the Via below stays");
    }
}

/// The INVITE as it arrives, with its 200 on its way back.
fn arrives(stage: &Stage, request: &Message) -> Received {
    stage.call(request);
    let arrived = stage.callees[0].expect(request.method());
    stage.callees[0].respond(&arrived, "200 OK");
    stage.caller.expect_that("200", |it| it.code() == 200 && it.header("Call-ID") == request.header("Call-ID"));
    arrived
}

#[test]
fn a_body_without_content_length_passes_whole() {
    let stage = Stage::start(1, |_| {});
    let invite = stage.invite().with_body("application/sdp", "v=0\r\ns=-\r\n").without("Content-Length");
    assert_eq!(arrives(&stage, &invite).body, b"v=0\r\ns=-\r\n");
}

#[test]
fn a_broken_header_that_nobody_reads_is_passed_on() {
    let stage = Stage::start(1, |_| {});
    let broken = [("Contact", "<<>>\"sip:"), ("Date", "yesterday"), ("Accept", "text/@@@"), ("Expires", "-1")];
    let mut invite = stage.invite();
    for (name, value) in broken {
        invite = invite.with(name, value);
    }
    let arrived = arrives(&stage, &invite);
    for (name, value) in broken {
        assert_eq!(arrived.header(name), value);
    }
}

#[test]
fn a_method_that_nobody_knows_is_passed_on() {
    let stage = Stage::start(1, |_| {});
    let arrived = arrives(&stage, &stage.caller.request("FROBNICATE", &stage.uri("bob")));
    assert_eq!(arrived.uri(), format!("sip:bob@{}", stage.callees[0].address));
}

#[test]
fn a_method_that_nobody_knows_is_record_routed() {
    let stage = Stage::start(1, |_| {});
    let arrived = arrives(&stage, &stage.caller.request("FROBNICATE", &stage.uri("bob")));
    assert!(arrived.header("Record-Route").ends_with(&format!("@{};lr>", stage.edge)), "{}", arrived.text());
}

#[test]
fn a_proxy_require_gets_420_that_names_it() {
    let stage = Stage::start(1, |_| {});
    let invite = stage.invite().and("Proxy-Require", "foo, bar").and("Require", "baz").and("Proxy-Require", "qux");
    stage.call(&invite);
    let refusal = stage.caller.expect("420 Bad Extension");
    assert_eq!(refusal.elements("Unsupported"), ["foo", "bar", "qux"]);
    stage.call(&invite.ack(&refusal));
    // Require is the callee's to meet.
    assert_eq!(arrives(&stage, &stage.invite().and("Require", "baz")).header("Require"), "baz");
}

#[test]
fn a_request_without_max_forwards_gets_70() {
    let stage = Stage::start(1, |_| {});
    assert_eq!(arrives(&stage, &stage.invite().without("Max-Forwards")).headers("Max-Forwards"), ["70"]);
    assert_eq!(arrives(&stage, &stage.invite().with("Max-Forwards", "1")).headers("Max-Forwards"), ["0"]);
}

#[test]
fn our_record_route_comes_before_those_that_were_there() {
    let stage = Stage::start(1, |_| {});
    let before = "<sip:first.example;lr>, <sip:second.example;lr>";
    let ours = format!("<sip:{};lr>", stage.edge);
    for invite in [stage.invite(), stage.invite().and("Route", &ours)] {
        let arrived = arrives(&stage, &invite.and("Record-Route", before));
        let all = arrived.headers("Record-Route");
        assert!(all.len() == 2 && all[0].ends_with(&format!("@{};lr>", stage.edge)) && all[1] == before, "{all:?}");
        assert!(!arrived.has("Route"), "{}", arrived.text());
    }
}

#[test]
fn parameters_of_the_old_host_leave_the_request_uri() {
    let stage = Stage::start(1, |_| {});
    let gone = ";transport=udp;maddr=192.0.2.9;ttl=3;lr;method=BYE";
    let mut invite = stage.invite();
    let uri = format!("sip:+15550100;npdi@{}{gone};user=phone;x=Y?Subject=no", stage.edge);
    invite.start = format!("INVITE {uri} SIP/2.0");
    let arrived = arrives(&stage, &invite);
    assert_eq!(arrived.uri(), format!("sip:+15550100;npdi@{};user=phone;x=Y", stage.callees[0].address));
}

#[test]
fn session_timer_headers_pass_unchanged() {
    let stage = Stage::start(1, |_| {});
    let invite =
        stage.invite().and("Session-Expires", "5 ;refresher=uac").and("Min-SE", "90").and("Supported", "timer");
    stage.call(&invite);
    let callee = &stage.callees[0];
    let arrived = callee.expect("INVITE");
    for name in ["Session-Expires", "Min-SE", "Supported"] {
        assert_eq!(arrived.headers(name), invite.headers(name));
    }
    let answer =
        callee.response(&arrived, "200 OK").and("Session-Expires", "1800;refresher=uas").and("Require", "timer");
    callee.reply(&arrived, &answer);
    let ok = stage.caller.expect("200 OK");
    assert_eq!((ok.header("Session-Expires"), ok.header("Require")), ("1800;refresher=uas", "timer"));
}
