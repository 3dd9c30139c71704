use proptest::prelude::*;

use super::*;

const INVITE: &str = "INVITE sip:+1555@edge.example SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport, SIP/2.0/UDP 192.0.2.9\r\n\
    v: SIP/2.0/UDP 192.0.2.8\r\n\
    Max-Forwards: 70\r\n\
    f: \"A, B\" <sip:a@b>;tag=1\r\n\
    t: <sip:+1555@edge.example>\r\n\
    i: abc@d\r\n\
    CSeq: 7\r\n  INVITE\r\n\
    no colon here\r\n\
    X-Bytes: \u{fffd}\r\n\
    l: 4\r\n\r\nbodyTRAILING";

fn read(text: &[u8]) -> Result<Layout, Malformed> {
    let mut layout = Layout::default();
    Message::read(text, &mut layout)?;
    Ok(layout)
}

#[test]
fn finds_what_a_proxy_needs() {
    let layout = read(INVITE.as_bytes()).unwrap();
    let message = Message { bytes: INVITE.as_bytes(), layout: &layout };
    let request = message.request().unwrap();
    assert_eq!((request.method, request.uri.text), (Method::Invite, b"sip:+1555@edge.example".as_slice()));
    assert_eq!(message.call_id(), Some(b"abc@d".as_slice()));
    assert_eq!(message.cseq(), Some(CSeq { number: 7, method: Method::Invite }));
    assert_eq!(message.from().unwrap().tag(), Some(b"1".as_slice()));
    assert_eq!(message.to().unwrap().tag(), None);
    assert_eq!(message.max_forwards(), Some(Some(70)));
    assert_eq!(message.elements(HeaderName::Via).count(), 3);
    assert!(message.bytes().ends_with(b"\r\n\r\nbody"));
}

#[test]
fn the_first_via_goes_with_its_comma_or_with_its_line() {
    let mut edits = Edits::default();
    let mut out = Vec::new();
    let layout = read(INVITE.as_bytes()).unwrap();
    let message = Message { bytes: INVITE.as_bytes(), layout: &layout };
    edits.remove(message.top_via().unwrap().1.removal());
    edits.write(&message, &mut out);
    let expected = INVITE.replace("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport,", "");
    assert_eq!(String::from_utf8_lossy(&out), expected.trim_end_matches("TRAILING"));

    let layout = read(&out).unwrap();
    let message = Message { bytes: &out, layout: &layout };
    let mut second = Vec::new();
    edits.clear();
    edits.remove(message.top_via().unwrap().1.removal());
    edits.write(&message, &mut second);
    assert!(
        String::from_utf8_lossy(&second)
            .starts_with("INVITE sip:+1555@edge.example SIP/2.0\r\nv: SIP/2.0/UDP 192.0.2.8\r\n")
    );
}

#[test]
fn a_comma_at_the_end_separates_nothing() {
    let text = b"ACK sip:a SIP/2.0\r\nRoute: <sip:a;lr> , ,\r\n\r\n";
    let layout = read(text).unwrap();
    let message = Message { bytes: text, layout: &layout };
    let elements: Vec<Element<'_>> = message.elements(HeaderName::Route).collect();
    assert_eq!(elements.len(), 1);
    assert_eq!(elements[0].text, b"<sip:a;lr>");
    assert_eq!(elements[0].removal(), elements[0].line());
}

#[test]
fn numbers_have_no_sign() {
    let signed = b"BYE sip:a SIP/2.0\r\nMax-Forwards: +5\r\nCSeq: +1 BYE\r\n\r\n";
    let layout = read(signed).unwrap();
    let message = Message { bytes: signed, layout: &layout };
    assert_eq!((message.max_forwards(), message.cseq()), (Some(None), None));
    assert!(read(b"BYE sip:a SIP/2.0\r\nl: +0\r\n\r\n").is_err());
}

#[test]
fn headers_are_known_by_their_whole_name_in_any_case() {
    let cases = [
        ("Max-Breadth", HeaderName::MaxBreadth),
        ("p-asserted-identity", HeaderName::PAssertedIdentity),
        ("P-Preferred-Identity", HeaderName::PPreferredIdentity),
        ("PRIVACY", HeaderName::Privacy),
        ("Retry-After", HeaderName::RetryAfter),
        ("WWW-Authenticate", HeaderName::WwwAuthenticate),
        ("Proxy-Authenticate", HeaderName::ProxyAuthenticate),
        ("X-Store-Domain", HeaderName::Internal),
        ("X-Inbound-Trunk", HeaderName::Internal),
        ("x-outbound-call", HeaderName::Internal),
        ("X-INTERNAL-CALL", HeaderName::Internal),
        ("X-Park-Call", HeaderName::Internal),
        ("X-Original-DID", HeaderName::Internal),
        ("X-Route-To-Trunk", HeaderName::Internal),
        ("X-Store-Domains", HeaderName::Other),
        ("X-Store-Domai", HeaderName::Other),
        ("X-Outbound-Cell", HeaderName::Other),
        ("Proxy-Authorization", HeaderName::Other),
        ("Retry-Aftermath", HeaderName::Other),
        ("x", HeaderName::Other),
    ];
    for (name, expected) in cases {
        assert_eq!(HeaderName::of(name.as_bytes()), expected, "{name}");
    }
}

#[test]
fn numbers_and_words_of_a_response() {
    let of = |header: &str| format!("SIP/2.0 503 No\r\n{header}\r\n\r\n");
    let retry_after = |header: &str| {
        let text = of(header);
        let layout = read(text.as_bytes()).unwrap();
        Message { bytes: text.as_bytes(), layout: &layout }.retry_after()
    };
    for (header, expected) in [
        ("Retry-After: 120", Some(120)),
        ("Retry-After: 18000;duration=3600", Some(18_000)),
        ("Retry-After: 5 (I'm in a meeting)", Some(5)),
        ("Retry-After: 7(now)", Some(7)),
        ("Retry-After: 99999999999", Some(u32::MAX)),
        ("Retry-After: ", None),
        ("Retry-After: soon", None),
        ("Retry-After: -1", None),
        ("Retry-After: 5x", None),
        ("Retry-Afterwards: 5", None),
    ] {
        assert_eq!(retry_after(header), expected, "{header}");
    }
    let breadth = |header: &str| {
        let text = of(header);
        let layout = read(text.as_bytes()).unwrap();
        Message { bytes: text.as_bytes(), layout: &layout }.max_breadth()
    };
    assert_eq!(breadth("Max-Breadth: 60"), Some(Some(60)));
    assert_eq!(breadth("Max-Breadth: +60"), Some(None));
    assert_eq!(breadth("X: 60"), None);
    let private = |header: &str, kind: &[u8]| {
        let text = of(header);
        let layout = read(text.as_bytes()).unwrap();
        Message { bytes: text.as_bytes(), layout: &layout }.privacy_has(kind)
    };
    assert!(private("Privacy: id", b"id"));
    assert!(private("Privacy: header; ID ;critical", b"id"));
    assert!(private("Privacy: user\r\nprivacy: id", b"id"));
    assert!(!private("Privacy: identity;none", b"id"));
    assert!(!private("X: id", b"id"));
}

#[test]
fn what_is_not_sip_is_told_apart() {
    let cases: [(&[u8], Malformed); 9] = [
        (b"", Malformed::StartLine),
        (b"\r\n\r\n", Malformed::StartLine),
        (b"GET / HTTP/1.1\r\n\r\n", Malformed::StartLine),
        (b"INVITE  sip:a SIP/2.0\r\n\r\n", Malformed::StartLine),
        (b"SIP/2.0 99 X\r\n\r\n", Malformed::StartLine),
        (b"SIP/2.0 2000 OK\r\n\r\n", Malformed::StartLine),
        (b"INVITE sip:a SIP/2.0\r\nVia: x\r\n", Malformed::NoEndOfHeaders),
        (b"INVITE sip:a SIP/2.0\r\nl: 1\r\nContent-Length: 2\r\n\r\nabc", Malformed::ContentLength),
        (b"INVITE sip:a SIP/2.0\r\nl: 5\r\n\r\nabc", Malformed::Truncated { announced: 5, arrived: 3 }),
    ];
    for (text, error) in cases {
        assert_eq!(read(text).err(), Some(error), "{}", String::from_utf8_lossy(text));
    }
}

proptest! {
    /// Whatever arrives: no panic, and what is read lies within the datagram and comes out unchanged when nothing is edited.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        untouched(&bytes)?;
    }

    /// The same for messages with a byte changed, taken out or put in.
    #[test]
    fn a_damaged_message_is_read_or_refused(at in 0_usize..INVITE.len(), byte: u8, kind in 0_u8..3) {
        let mut bytes = INVITE.as_bytes().to_vec();
        match kind {
            0 => bytes[at] = byte,
            1 => { bytes.remove(at); }
            _ => bytes.insert(at, byte),
        }
        untouched(&bytes)?;
    }

    /// Edits anywhere give what the same edits on a vector, made from the back, give.
    #[test]
    fn edits_are_those_of_a_vector(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        cuts in proptest::collection::vec((0_usize..80, 0_usize..6, proptest::collection::vec(any::<u8>(), 0..5)), 0..8),
    ) {
        let mut cuts = cuts;
        cuts.sort_by_key(|cut| cut.0);
        let mut edits = Edits::default();
        let mut expected = Vec::new();
        let mut end = 0;
        for (start, length, text) in cuts {
            let start = start.min(bytes.len());
            if start < end { continue; }
            expected.extend_from_slice(&bytes[end..start]);
            expected.extend_from_slice(&text);
            end = (start + length).min(bytes.len());
            edits.replace(Span::new(start, end), |out| out.extend_from_slice(&text));
        }
        expected.extend_from_slice(&bytes[end..]);
        let mut out = Vec::new();
        edits.write_bytes(&bytes, &mut out);
        prop_assert_eq!(out, expected);
    }
}

fn untouched(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut layout = Layout::default();
    if let Ok(message) = Message::read(bytes, &mut layout) {
        let mut out = Vec::new();
        Edits::default().write(&message, &mut out);
        prop_assert!(bytes.starts_with(&out));
        let _ = (
            message.call_id(),
            message.cseq(),
            message.from(),
            message.to(),
            message.max_forwards(),
            message.max_breadth(),
            message.retry_after(),
            message.privacy_has(b"id"),
            message.top_via(),
        );
        let _ = message.request().map(|request| request.parsed_uri());
        for name in [HeaderName::Via, HeaderName::Route, HeaderName::Other] {
            for element in message.elements(name) {
                prop_assert_eq!(element.span.of(bytes), element.text);
                let removal = element.removal();
                prop_assert!(removal.range().end <= bytes.len());
            }
        }
    }
    Ok(())
}

#[test]
fn a_fold_of_the_start_line_is_no_header() {
    let folded = INVITE.replacen("\r\nVia", "\r\n  Via", 1);
    assert_eq!(read(folded.as_bytes()).unwrap_err(), Malformed::StartLine);
}

#[test]
fn what_has_grown_on_its_way_can_be_read_again() {
    let headers = "X: y\r\n".repeat(MAX_HEADERS);
    let full = format!("OPTIONS sip:a@b SIP/2.0\r\n{headers}\r\n");
    assert!(read(full.as_bytes()).is_ok());
    let grown = full.replacen("X: y", "Via: a\r\nX: y", 1);
    assert_eq!(read(grown.as_bytes()).unwrap_err(), Malformed::TooManyHeaders);
    assert!(Message::read_without_body(grown.as_bytes(), &mut Layout::default()).is_ok());
}

#[test]
fn of_a_refused_request_there_is_what_an_answer_needs() {
    let headers = "Via: SIP/2.0/UDP a\r\nCSeq: 1 INVITE\r\nContent-Length: -1\r\nCall-ID: x\r\n\r\nbody";
    for start in [
        "INVITE  sip:a@b  SIP/2.0",
        "INVITE sip:a@b; lr SIP/2.0",
        "INVITE sip:a@b SIP/7.0",
        "INVITE\tx",
        "INVITE x\r\n y",
    ] {
        let text = format!("{start}\r\n{headers}");
        let mut layout = Layout::default();
        assert!(Message::read(text.as_bytes(), &mut layout).is_err(), "{start}");
        let message = Message::read_refused(text.as_bytes(), &mut layout).unwrap();
        assert_eq!(message.request().unwrap().method, Method::Invite, "{start}");
        assert_eq!((message.call_id(), message.cseq().unwrap().number), (Some(&b"x"[..]), 1), "{start}");
        assert!(message.bytes().ends_with(b"\r\n\r\n"), "{start}");
    }
    for start in ["SIP/2.0 20 OK", "SIP/7.0 200 OK", "", " INVITE sip:a@b SIP/2.0", "INVITE", "IN\"VITE x y"] {
        let text = format!("{start}\r\n{headers}");
        assert!(Message::read_refused(text.as_bytes(), &mut Layout::default()).is_none(), "{start}");
    }
    let version = |text: &str| Message::read(format!("{text}\r\n\r\n").as_bytes(), &mut Layout::default()).unwrap_err();
    assert_eq!(version("OPTIONS sip:a SIP/7.0"), Malformed::Version);
    assert_eq!(version("OPTIONS sip:a SIP/7.x"), Malformed::StartLine);
    assert_eq!(version("GET / HTTP/1.1"), Malformed::StartLine);
}
