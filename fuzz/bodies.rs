//! What the fuzz targets do with their input. Plain functions, so that a normal test runs them over the corpus.

#![allow(dead_code, unreachable_pub, reason = "each target uses one of them")]

use std::net::Ipv6Addr;
use std::time::Duration;

use sipedge_proxy::engine::{Control, Gauges, Port};
use sipedge_sip::framing::{Frame, Framer, FramingError, MAX_HEAD};
use sipedge_sip::message::{Edits, HeaderName, Layout, Message};
use sipedge_sip::stun;
use sipedge_sip::uri::NameAddr;

use crate::bench::{Bench, CALLEE, CALLER, STRANGER, check_well_formed, config, response};

/// Reads a datagram in every way that there is; of a message, takes parts out and reads what is left.
pub fn message(data: &[u8]) {
    let mut response = Vec::new();
    if stun::binding_response(data, (Ipv6Addr::LOCALHOST, 5060).into(), &mut response) {
        assert!(stun::is_stun(data) && stun::is_stun(&response));
        assert!(response.len() <= data.len() + 32);
        return;
    }
    assert!(response.is_empty());
    let mut layout = Layout::default();
    let Ok(message) = Message::read(data, &mut layout) else { return };
    assert!(message.bytes().len() <= data.len());
    assert!(message.request().is_some() != message.status().is_some());
    let uri = message.request().and_then(|request| request.parsed_uri());
    let _ = uri.map(|uri| (uri.ip(), uri.is_loose(), uri.transport(), uri.maddr()));
    let _ = (message.call_id(), message.cseq(), message.max_forwards(), message.max_breadth());
    let _ = (message.retry_after(), message.privacy_has(b"id"));
    let _ = [message.from(), message.to()].map(|value| value.map(|value| value.tag().map(<[u8]>::len)));
    let names = [
        HeaderName::Via,
        HeaderName::Route,
        HeaderName::RecordRoute,
        HeaderName::To,
        HeaderName::PAssertedIdentity,
        HeaderName::PPreferredIdentity,
        HeaderName::WwwAuthenticate,
        HeaderName::ProxyAuthenticate,
        HeaderName::Internal,
        HeaderName::Other,
    ];
    let mut edits = Edits::default();
    for name in names {
        for element in message.elements(name) {
            assert_eq!(element.span.of(data), element.text);
            let _ = NameAddr::parse(element.text);
        }
        if let Some(first) = message.elements(name).next().filter(|_| name != HeaderName::Other) {
            edits.remove(first.removal());
        }
    }
    if let Some((via, _)) = message.top_via() {
        let _ = (via.branch(), via.rport(), via.received(), via.has_alias());
    }
    edits.insert(message.first_header(), |out| out.extend_from_slice(b"X-Added: yes\r\n"));
    let mut out = Vec::new();
    edits.write(&message, &mut out);
    let mut layout = Layout::default();
    let again = Message::read_without_body(&out, &mut layout).expect("a message less some headers is a message");
    assert_eq!(again.bytes().len(), out.len());
    assert_eq!(again.body().of(&out), message.body().of(data));
}

/// Cuts a stream into messages: its first two bytes say how it arrives, in pieces of so many bytes by turns. In one piece the same comes
/// out, no more is held than may be, and what is a message ends where its frame does.
pub fn framing(data: &[u8]) {
    let Some(([first, second], stream)) = data.split_first_chunk() else { return };
    let mut pieces = Vec::new();
    let mut rest = stream;
    for length in [first, second].into_iter().cycle() {
        let (piece, after) = rest.split_at((usize::from(*length) + 1).min(rest.len()));
        pieces.push(piece);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let in_pieces = frames(&pieces);
    assert_eq!(in_pieces, frames(&[stream]));
    let mut layout = Layout::default();
    for text in in_pieces.0 {
        if let Ok(message) = Message::read(&text, &mut layout) {
            assert_eq!(message.bytes().len(), text.len());
        }
    }
}

/// All frames of a stream, keep-alives as the bytes that have made them, and how it ended.
fn frames(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Result<(), FramingError>) {
    let mut framer = Framer::new(MOST_BODY);
    let mut all = Vec::new();
    for piece in pieces {
        let mut received = *piece;
        loop {
            let frame = match framer.next(&mut received) {
                Ok(Some(Frame::Message(text))) => text.to_vec(),
                Ok(Some(Frame::Ping)) => b"\r\n\r\n".to_vec(),
                Ok(Some(Frame::Pong)) => b"\r\n".to_vec(),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(framer.held(), 0);
                    return (all, Err(error));
                }
            };
            all.push(frame);
        }
        assert!(received.is_empty());
        assert!(framer.held() <= MAX_HEAD + MOST_BODY);
    }
    (all, Ok(()))
}

/// Drives an engine by a script. Records are separated by 0x1E; the first letter of each says what it is:
///
/// - `c` from the caller, `d` from the called side to the ingress port, `e` to the egress port, `s` from a stranger: a datagram. In it
///   `%ROUTE%` stands for the Record-Route of the last request that the engine has sent on.
/// - `r` the called side answers the last forwarded request: the rest is status code and reason.
/// - `t` time passes, 100 ms for the value of each byte.
/// - `x` the instance has to leave.
pub fn engine(data: &[u8]) {
    let mut bench = Bench::new(config());
    let (mut forwarded, mut route) = (Vec::new(), Vec::new());
    for record in data.split(|byte| *byte == 0x1e).take(MOST_RECORDS) {
        let Some((kind, rest)) = record.split_first() else { continue };
        let sent = match kind {
            b'r' => {
                let status = String::from_utf8_lossy(rest);
                bench.receive(Port::Egress, CALLEE, &response(&forwarded, &status))
            }
            b't' => {
                let steps: u64 = rest.iter().map(|byte| u64::from(*byte)).sum();
                bench.pass(Duration::from_millis(100 * steps.min(10_000)))
            }
            b'x' => {
                bench.engine.handle_control(bench.now, Control::Drain);
                Vec::new()
            }
            b'd' => bench.receive(Port::Ingress, CALLEE, &filled(rest, &route)),
            b'e' => bench.receive(Port::Egress, CALLEE, &filled(rest, &route)),
            b's' => bench.receive(Port::Ingress, STRANGER, &filled(rest, &route)),
            _ => bench.receive(Port::Ingress, CALLER, &filled(rest, &route)),
        };
        bench.check_budgets();
        for one in sent {
            check_well_formed(&one);
            if !one.bytes.starts_with(b"SIP/2.0 ") {
                let text = String::from_utf8_lossy(&one.bytes).into_owned();
                let line = text.lines().find_map(|line| line.strip_prefix("Record-Route: "));
                route = line.map_or(route, |line| line.as_bytes().to_vec());
                forwarded = one.bytes;
            }
        }
    }
    bench.pass(Duration::from_secs(300));
    assert_eq!(bench.engine.gauges(), Gauges::default(), "tables are empty in the end");
}

fn filled(record: &[u8], route: &[u8]) -> Vec<u8> {
    let Some(at) = record.windows(PLACE.len()).position(|window| window == PLACE) else { return record.to_vec() };
    [&record[..at], route, &record[at + PLACE.len()..]].concat()
}

const PLACE: &[u8] = b"%ROUTE%";
/// Longer scripts find nothing that short ones do not, and are slow.
const MOST_RECORDS: usize = 64;
/// Limit of a body that short inputs reach, in bytes.
const MOST_BODY: usize = 512;
