use proptest::prelude::*;

use super::*;

const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

/// RFC 5769 §2.1: with SOFTWARE, PRIORITY, ICE-CONTROLLED, USERNAME, MESSAGE-INTEGRITY, FINGERPRINT.
const RFC5769_REQUEST: &str = "00010058 2112a442 b7e7a701 bc34d686 fa87dfae 80220010 5354554e 20746573 7420636c 69656e74 \
    00240004 6e0001ff 80290008 932ff9b1 51263b36 00060009 6576746a 3a683676 59202020 00080014 9aeaa70c bfd8cb56 781ef2b5 \
    b2d3f249 c1b571a2 80280004 e57a3bcf";
/// RFC 5769 §2.2, without its MESSAGE-INTEGRITY and FINGERPRINT: 192.0.2.1:32853.
const RFC5769_IPV4: &str = "00200008 0001a147 e112a643";
/// RFC 5769 §2.3, likewise: [2001:db8:1234:5678:11:2233:4455:6677]:32853.
const RFC5769_IPV6: &str = "00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn request(attributes: &[u8]) -> Vec<u8> {
    let length = attributes.len() as u16;
    [&[0, 1], length.to_be_bytes().as_slice(), &MAGIC_COOKIE, &TRANSACTION, attributes].concat()
}

fn answer(request: &[u8], source: &str) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let answers = binding_response(request, source.parse().unwrap(), &mut out);
    let response = out.strip_prefix(b"before").expect("what was there stays").to_vec();
    assert_eq!(answers, !response.is_empty());
    answers.then_some(response)
}

fn success(attributes: &[u8]) -> Vec<u8> {
    let mut response = request(attributes);
    response[..2].copy_from_slice(&[1, 1]);
    response
}

#[test]
fn a_binding_request_is_answered_with_its_source() {
    let bare = request(&[]);
    assert_eq!(answer(&bare, "192.0.2.1:32853"), Some(success(&hex(RFC5769_IPV4))));
    assert_eq!(answer(&bare, "[::ffff:192.0.2.1]:32853"), Some(success(&hex(RFC5769_IPV4))));
    let source = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";
    assert_eq!(answer(&bare, source), Some(success(&hex(RFC5769_IPV6))));
    // SOFTWARE may be ignored; USERNAME is known.
    let known = request(&hex("80220003 61626300 00060001 61000000"));
    assert_eq!(answer(&known, "192.0.2.1:32853"), Some(success(&hex(RFC5769_IPV4))));
}

#[test]
fn the_fingerprint_is_that_of_the_rfc() {
    let sample = hex(RFC5769_REQUEST);
    assert_eq!(fingerprint(&sample[..sample.len() - 8]), 0xe57a_3bcf);
    let response = "0101003c 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220 00200008 0001a147 \
        e112a643 00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7";
    assert_eq!(fingerprint(&hex(response)), 0xc07d_4c96);
}

#[test]
fn a_fingerprint_is_answered_with_one_and_a_wrong_one_not_at_all() {
    let mut asks = request(&hex("80280004 00000000"));
    let sum = fingerprint(&asks[..20]);
    asks[24..].copy_from_slice(&sum.to_be_bytes());
    let response = answer(&asks, "192.0.2.1:32853").expect("an answer");
    let (before, last) = response.split_at(response.len() - 8);
    assert_eq!(before[..4], [1, 1, 0, 20], "the length counts it");
    assert_eq!(before[20..], hex(RFC5769_IPV4));
    assert_eq!(last[..4], hex("80280004"));
    assert_eq!(last[4..], fingerprint(before).to_be_bytes());

    asks[27] ^= 1;
    assert_eq!(answer(&asks, "192.0.2.1:32853"), None);
    asks[27] ^= 1;
    // Not the last one.
    asks.extend_from_slice(&hex("80220000"));
    asks[3] += 4;
    assert_eq!(answer(&asks, "192.0.2.1:32853"), None);
}

#[test]
fn what_has_to_be_understood_and_is_not_is_answered_420() {
    // CHANGE-REQUEST of RFC 5780, and one that may be ignored, and PRIORITY of ICE.
    let asks = request(&hex("00030004 00000006 80290000 00240004 6e0001ff"));
    let mut expected =
        request(&hex("00090015 00000414 556e6b6e 6f776e20 41747472 69627574 65000000 000a0004 00030024"));
    expected[..2].copy_from_slice(&[1, 0x11]);
    assert_eq!(answer(&asks, "192.0.2.1:5060"), Some(expected));
    // Behind an integrity check nothing counts.
    let behind = request(&hex("00080014 00000000 00000000 00000000 00000000 00000000 00030004 00000006"));
    assert_eq!(answer(&behind, "192.0.2.1:32853"), Some(success(&hex(RFC5769_IPV4))));
    // The sample of RFC 5769 is one of ICE.
    let response = answer(&hex(RFC5769_REQUEST), "192.0.2.1:5060").expect("an answer");
    assert_eq!(response[..2], [1, 0x11]);
    assert_eq!(response[48..56], hex("000a0002 00240000"));
    let (before, last) = response.split_at(response.len() - 4);
    assert_eq!(last, fingerprint(&before[..before.len() - 4]).to_be_bytes());
}

#[test]
fn anything_else_is_not_answered() {
    let bare = request(&[]);
    let with = |at: usize, byte: u8| {
        let mut bytes = bare.clone();
        bytes[at] = byte;
        bytes
    };
    let cases: [(&str, Vec<u8>); 12] = [
        ("empty", vec![]),
        ("a keep-alive", b"\r\n\r\n".to_vec()),
        ("SIP", b"OPTIONS sip:a@b SIP/2.0\r\n\r\n".to_vec()),
        ("cut off", bare[..19].to_vec()),
        ("longer than it says", [bare.as_slice(), &[0; 4]].concat()),
        ("shorter than it says", with(3, 4)),
        ("a length that is no multiple of four", request(&[0, 6, 0])),
        ("an indication", with(1, 0x11)),
        ("a success response", success(&[])),
        ("the first bits are set", with(0, 0x80)),
        ("without the magic cookie (RFC 3489)", with(4, 0)),
        ("an attribute that is cut off", request(&[0, 6, 0, 9, 1, 2, 3, 4])),
    ];
    for (what, bytes) in cases {
        assert_eq!(answer(&bytes, "192.0.2.1:5060"), None, "{what}");
    }
    assert!(is_stun(&bare) && is_stun(&success(&[])));
    assert!(!is_stun(b"INVITE sip:a SIP/2.0") && !is_stun(&bare[..7]) && !is_stun(&with(0, 2)));
}

proptest! {
    /// Whatever comes, what goes out is a STUN message of this transaction, at most 32 bytes longer.
    #[test]
    fn an_answer_is_small_and_well_formed(attributes in proptest::collection::vec(any::<u8>(), 0..60), kinds in
        proptest::collection::vec((0_u16..0x40, proptest::collection::vec(any::<u8>(), 0..9)), 0..6)) {
        let mut well_formed = Vec::new();
        for (kind, value) in kinds {
            attribute(kind, &mut well_formed, |out| out.extend_from_slice(&value));
        }
        for attributes in [attributes, well_formed.clone()] {
            let asks = request(&attributes);
            let Some(response) = answer(&asks, "[2001:db8::1]:5060") else {
                prop_assert_ne!(&attributes, &well_formed);
                continue;
            };
            prop_assert!(is_stun(&response));
            prop_assert_eq!(&response[8..20], &TRANSACTION);
            prop_assert_eq!(usize::from(u16::from_be_bytes([response[2], response[3]])), response.len() - 20);
            let mut rest = Attributes(&response[20..]);
            while rest.next().is_some() {}
            prop_assert!(rest.0.is_empty());
            prop_assert!(response.len() <= asks.len() + 32);
        }
    }
}
