use proptest::prelude::*;

use super::*;
use crate::message::{Layout, Message};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Message(Vec<u8>),
    Ping,
    Pong,
}

fn small() -> Framer {
    Framer { most_head: 120, ..Framer::new(60) }
}

/// All frames of a stream that arrives in `pieces`, and how it ended; the limits are asserted at each step.
fn frames<'a>(
    framer: &mut Framer,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Owned>, Result<(), FramingError>) {
    let mut all = Vec::new();
    for mut piece in pieces {
        loop {
            let frame = match framer.next(&mut piece) {
                Ok(Some(Frame::Message(bytes))) => Some(Owned::Message(bytes.to_vec())),
                Ok(Some(Frame::Ping)) => Some(Owned::Ping),
                Ok(Some(Frame::Pong)) => Some(Owned::Pong),
                Ok(None) => None,
                Err(error) => return (all, Err(error)),
            };
            assert!(framer.held() <= framer.most_head + framer.most_body, "{} bytes held", framer.held());
            let Some(frame) = frame else { break };
            all.push(frame);
        }
        assert!(piece.is_empty(), "all that was received is taken");
    }
    (all, Ok(()))
}

fn whole(stream: &[u8]) -> (Vec<Owned>, Result<(), FramingError>) {
    frames(&mut small(), [stream])
}

fn message(text: &[u8]) -> Owned {
    Owned::Message(text.to_vec())
}

const OPTIONS: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nl: 0\r\n\r\n";

#[test]
fn messages_follow_each_other_and_line_ends_between_them_are_no_part_of_them() {
    let with_body = b"MESSAGE sip:a@b SIP/2.0\r\nContent-Length: 4\r\n\r\n\r\n\r\n".as_slice();
    let stream = [b"\r\n\r\n", OPTIONS, with_body, OPTIONS, b"\r\n", OPTIONS, b"\n\r\n\r\n\r\n"].concat();
    let (frames, end) = whole(&stream);
    use Owned::{Ping, Pong};
    let expected =
        [Pong, Ping, message(OPTIONS), message(with_body), message(OPTIONS), Pong, message(OPTIONS), Pong, Ping, Pong];
    assert_eq!((frames.as_slice(), end), (expected.as_slice(), Ok(())));
}

#[test]
fn content_length_is_found_in_all_its_forms() {
    for header in [
        "Content-Length: 3",
        "content-LENGTH:3",
        "l: 3",
        "L :\t3 ",
        "Content-Length:\r\n 3",
        "Content-Length\r\n\t:\r\n 3\r\n ",
        "Content-Length: 003",
        "l: 3\r\nContent-Length: 3",
        "Subject: x\r\n l: 9\r\nl: 3",
        "no colon here\r\nl: 3",
        "l: 3\n",
    ] {
        let text = format!("BYE sip:a SIP/2.0\r\n{header}\r\n\r\nabc");
        let text = if header.ends_with('\n') { text.replacen("\n\r\n\r\n", "\n\n", 1) } else { text };
        let (frames, end) = whole(&[text.as_bytes(), OPTIONS].concat());
        assert_eq!((frames, end), (vec![message(text.as_bytes()), message(OPTIONS)], Ok(())), "{text:?}");
    }
}

#[test]
fn a_stream_that_lost_its_frame_is_over() {
    let many = "Via: x\r\n".repeat(20);
    let long = "Via: x\r\n".repeat(10);
    for (head, expected) in [
        ("Via: a\r\n", FramingError::NoContentLength),
        ("Subject: a\r\n l: 4\r\n", FramingError::NoContentLength),
        ("l: 1\r\nContent-Length: 2\r\n", FramingError::ContentLength),
        ("l: -1\r\n", FramingError::ContentLength),
        ("l:\r\n", FramingError::ContentLength),
        ("l: 1, 1\r\n", FramingError::ContentLength),
        ("l: 99999999999999999999999\r\n", FramingError::ContentLength),
        ("l: 61\r\n", FramingError::BodyTooLong { announced: 61, most: 60 }),
        ("l: 18446744073709551615\r\n", FramingError::BodyTooLong { announced: usize::MAX, most: 60 }),
        (many.as_str(), FramingError::HeadTooLong { most: 120 }),
    ] {
        let mut framer = small();
        let stream = format!("BYE sip:a SIP/2.0\r\n{head}\r\nabcd");
        let (before, end) = frames(&mut framer, [OPTIONS, stream.as_bytes()]);
        assert_eq!((before, end), (vec![message(OPTIONS)], Err(expected)), "{stream:?}");
        assert_eq!(framer.held(), 0);
        assert_eq!(framer.next(&mut OPTIONS.to_vec().as_slice()), Err(expected), "it does not find back");
    }
    let fits = format!("BYE sip:a SIP/2.0\r\n{long}l: 60\r\n\r\n{}", "b".repeat(60));
    assert_eq!(whole(fits.as_bytes()), (vec![message(fits.as_bytes())], Ok(())));
}

#[test]
fn the_head_may_be_as_long_as_its_limit_and_not_longer() {
    let of_length = |length: usize| {
        let rest = "OPTIONS sip:a SIP/2.0\r\nl: 0\r\nX: \r\n\r\n".len();
        format!("OPTIONS sip:a SIP/2.0\r\nl: 0\r\nX: {}\r\n\r\n", "x".repeat(length - rest))
    };
    let (most, over) = (of_length(120), of_length(121));
    assert_eq!(whole(most.as_bytes()), (vec![message(most.as_bytes())], Ok(())));
    assert_eq!(whole(over.as_bytes()), (vec![], Err(FramingError::HeadTooLong { most: 120 })));
    let mut framer = Framer::new(MAX_BODY);
    let (most, over) = (of_length(MAX_HEAD), of_length(MAX_HEAD + 1));
    let (found, end) = frames(&mut framer, most.as_bytes().chunks(1_000));
    assert_eq!((found.len(), end), (1, Ok(())));
    let (_, end) = frames(&mut framer, over.as_bytes().chunks(1_000));
    assert_eq!(end, Err(FramingError::HeadTooLong { most: MAX_HEAD }));
}

#[test]
fn a_message_that_lies_whole_in_what_was_received_is_not_copied() {
    let stream = [OPTIONS, OPTIONS].concat();
    let mut framer = small();
    let mut received = stream.as_slice();
    for start in [0, OPTIONS.len()] {
        let Ok(Some(Frame::Message(bytes))) = framer.next(&mut received) else { panic!("a message") };
        assert_eq!(bytes.as_ptr(), stream[start..].as_ptr());
        assert_eq!(framer.held(), 0);
    }
}

#[test]
fn memory_is_used_again_and_that_of_a_large_message_is_given_back() {
    let mut framer = Framer::new(MAX_BODY);
    let split = |framer: &mut Framer, text: &[u8]| {
        assert!(!framer.is_within_message());
        let (first, second) = text.split_at(text.len() - 1);
        assert_eq!(frames(framer, [first]), (vec![], Ok(())));
        assert!(framer.is_within_message());
        assert_eq!(frames(framer, [second]), (vec![message(text)], Ok(())));
        assert!(!framer.is_within_message());
        framer.held()
    };
    let held = split(&mut framer, OPTIONS);
    assert!(held > 0);
    let place = framer.partial.as_ptr();
    for _ in 0..100 {
        assert_eq!(split(&mut framer, OPTIONS), held);
        assert_eq!(framer.partial.as_ptr(), place);
    }
    let large = format!("INFO sip:a SIP/2.0\r\nl: 60000\r\n\r\n{}", "b".repeat(60_000));
    split(&mut framer, large.as_bytes());
    assert_eq!(frames(&mut framer, [b"\r\n".as_slice()]), (vec![Owned::Pong], Ok(())));
    assert_eq!(framer.held(), 0);
}

#[test]
fn an_announcement_alone_costs_no_memory() {
    let mut framer = Framer::new(1 << 30);
    let (found, end) = frames(&mut framer, [b"INFO sip:a SIP/2.0\r\nl: 1000000000\r\n\r\nabc".as_slice()]);
    assert_eq!((found, end), (vec![], Ok(())));
    assert_eq!(framer.held(), LEAST_CAPACITY);
}

/// Pieces of streams: what messages are made of, and what is like it.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(OPTIONS.to_vec()),
        4 => Just(b"BYE sip:a SIP/2.0\r\n".to_vec()),
        2 => Just(b"SIP/2.0 200 OK\n".to_vec()),
        4 => (0_usize..64).prop_map(|length| format!("Content-Length: {length}\r\n").into_bytes()),
        2 => (0_usize..6).prop_map(|length| format!("l:\r\n {length}\n").into_bytes()),
        6 => Just(b"\r\n".to_vec()),
        2 => Just(b"\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        2 => Just(b" \r\n".to_vec()),
        1 => Just(b"\tfold: x\r\n".to_vec()),
        2 => Just(b"Via: SIP/2.0/TCP a\r\n".to_vec()),
        2 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// The frames are those of the stream, however it is cut.
    #[test]
    fn any_cut_gives_the_same_frames(stream in stream(), cuts in proptest::collection::vec(1_usize..40, 1..40)) {
        let expected = whole(&stream);
        let mut rest = stream.as_slice();
        let pieces = cuts.iter().cycle().map_while(|cut| {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(frames(&mut small(), pieces), expected.clone());
        prop_assert_eq!(frames(&mut small(), stream.chunks(1)), expected);
    }

    /// Whatever a frame is, if it is a message, then one with nothing behind it; and nothing of the stream gets lost but line ends.
    #[test]
    fn frame_and_message_end_at_the_same_byte(stream in stream()) {
        let (found, end) = whole(&stream);
        let mut rest = stream.as_slice();
        let mut layout = Layout::default();
        for frame in found {
            let Owned::Message(bytes) = frame else { continue };
            while !rest.starts_with(&bytes) {
                let (first, after) = rest.split_first().expect("the frame is in the stream");
                prop_assert!(matches!(first, b'\r' | b'\n'), "{first} lost");
                rest = after;
            }
            rest = &rest[bytes.len()..];
            if let Ok(message) = Message::read(&bytes, &mut layout) {
                prop_assert_eq!(message.bytes().len(), bytes.len());
            }
            // Over UDP what follows in the datagram is cut off at the same place.
            let longer = [bytes.as_slice(), b"x"].concat();
            if let Ok(message) = Message::read(&longer, &mut layout) {
                prop_assert_eq!(message.bytes().len(), bytes.len());
            }
        }
        let waiting = rest.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |start| rest.len() - start);
        prop_assert!(end.is_err() || waiting <= 180, "{waiting} bytes wait");
    }

    /// Messages that are well formed all come out.
    #[test]
    fn every_message_comes_out(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..8)) {
        let texts: Vec<Vec<u8>> = bodies.iter().map(|body| {
            [format!("INFO sip:a SIP/2.0\r\nl: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
        }).collect();
        let expected: Vec<Owned> = texts.iter().map(|text| message(text)).collect();
        prop_assert_eq!(whole(&texts.concat()), (expected, Ok(())));
    }
}
