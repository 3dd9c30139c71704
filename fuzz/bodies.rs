//! What the fuzz targets do with their input. Plain functions, so that a normal test runs them over the corpus.

#![allow(dead_code, unreachable_pub, reason = "each target uses one of them")]

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use sipedge_proxy::config::{Config, Failover, Probe, Route, Select, Streams, Target, Trunk};
use sipedge_proxy::engine::{
    Arrival, Bulletin, Connection, Control, Counters, Gauges, Health, Mark, Port, Receipt, Server, Transport,
};
use sipedge_sip::framing::{Frame, Framer, FramingError, MAX_HEAD};
use sipedge_sip::message::{Edits, HeaderName, Layout, Message};
use sipedge_sip::stun;
use sipedge_sip::uri::NameAddr;
use sipedge_sip::via::ViaParameters;

use crate::bench::{Bench, CALLEE, CALLER, STRANGER, Sent, address, check_well_formed, config, response};

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
    if let Some((via, element)) = message.top_via() {
        let _ = via.has_alias();
        let at_once = ViaParameters::of(element.text);
        let found = (at_once.branch, at_once.rport.is_some(), at_once.received.is_some());
        assert_eq!(found, (via.branch(), via.rport().is_some(), via.received().is_some()));
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
/// - `T` the same by a stream: the lowest bits of the next byte are connection (2), TLS (1), from the called side (1); the rest is the
///   message.
/// - `r` the called side answers the last forwarded request, by UDP: the rest is status code and reason.
/// - `a` the peer that got it answers one of the last forwarded requests by the way that it came: the next byte says which, 0 being the
///   last; the rest is status code and reason.
/// - `f` messages that were given to streams could not be delivered: each byte says which, 0 being the last.
/// - `n` the name servers answer what they were asked first, or else last: the next byte is the time to live in seconds, each further
///   one a server.
/// - `b` bulletins, and `m` marks: each byte is a destination (3 bits) and what became of it, or is to become of it.
/// - `u` a new configuration: the next byte says which of three, 0 being the first.
/// - `t` time passes, 100 ms for the value of each byte; `j` the clock jumps, a minute for the value of each byte.
/// - `p` how far the driver is behind with what arrives: the next byte.
/// - `x` the instance has to leave.
pub fn engine(data: &[u8]) -> Counters {
    let mut script =
        Script { bench: Bench::probing(config()), forwarded: Vec::new(), receipts: Vec::new(), route: Vec::new() };
    for record in data.split(|byte| *byte == 0x1e).take(MOST_RECORDS) {
        let Some((kind, rest)) = record.split_first() else { continue };
        let sent = script.play(*kind, rest);
        script.bench.check_budgets();
        script.note(sent);
    }
    // Without probes, after all timers: nothing is left.
    let sent = script.bench.reload(config());
    script.note(sent);
    let sent = script.bench.pass(Duration::from_secs(300));
    script.note(sent);
    let Gauges { transactions, pending_transactions, message_bytes, counted_calls, .. } = script.bench.engine.gauges();
    let left = [transactions, pending_transactions, message_bytes, counted_calls];
    assert_eq!(left, [0; 4], "tables are empty in the end");
    *script.bench.engine.counters()
}

struct Script {
    bench: Bench,
    /// The last requests that the engine has sent, oldest first.
    forwarded: Vec<Sent>,
    receipts: Vec<Receipt>,
    route: Vec<u8>,
}

impl Script {
    fn play(&mut self, kind: u8, rest: &[u8]) -> Vec<Sent> {
        let Self { bench, forwarded, receipts, route } = self;
        let sum: u64 = rest.iter().map(|byte| u64::from(*byte)).sum();
        match kind {
            b'r' => {
                let last = forwarded.last().map(|sent| sent.bytes.as_slice()).unwrap_or_default();
                bench.receive(Port::Egress, CALLEE, &response(last, &String::from_utf8_lossy(rest)))
            }
            b'a' => {
                let Some((which, status)) = rest.split_first() else { return Vec::new() };
                let Some(sent) = from_end(forwarded, *which) else { return Vec::new() };
                let connection = sent.connection.or(sent.transport.is_reliable().then_some(Connection(9)));
                let arrival = Arrival { transport: sent.transport, port: sent.port, source: sent.to, connection };
                let bytes = response(&sent.bytes, &String::from_utf8_lossy(status));
                bench.engine.handle_message(bench.now, &arrival, &bytes);
                bench.take()
            }
            b'T' => {
                let Some((flags, message)) = rest.split_first() else { return Vec::new() };
                let transport = if flags & 4 == 0 { Transport::Tcp } else { Transport::Tls };
                let source = address(if flags & 8 == 0 { CALLER } else { CALLEE });
                let connection = Some(Connection(u64::from(flags & 3)));
                let arrival = Arrival { transport, port: Port::Ingress, source, connection };
                bench.engine.handle_message(bench.now, &arrival, &filled(message, route));
                bench.take()
            }
            b'f' => {
                for which in rest {
                    if let Some(receipt) = from_end(receipts, *which) {
                        bench.engine.handle_failure(bench.now, *receipt);
                    }
                }
                bench.take()
            }
            b'n' => {
                let Some((ttl, servers)) = rest.split_first() else { return Vec::new() };
                let Some(query) = bench.asked.first().cloned() else { return Vec::new() };
                if bench.asked.len() > 1 {
                    bench.asked.remove(0);
                }
                let servers: Vec<Server> = servers.iter().map(|byte| server(*byte)).collect();
                bench.engine.handle_resolved(bench.now, &query, &servers, Duration::from_secs((*ttl).into()));
                bench.take()
            }
            b'b' => {
                for byte in rest {
                    let (transport, address) = destination(*byte);
                    let health = match byte >> 3 {
                        0 => Health::Up,
                        1 => Health::Down,
                        seconds => Health::AvoidUntil(bench.now + Duration::from_secs(seconds.into())),
                    };
                    bench.engine.handle_bulletin(bench.now, &Bulletin { transport, address, health });
                }
                bench.take()
            }
            b'm' => {
                for byte in rest {
                    let (transport, address) = destination(*byte);
                    let mark = [Mark::InService, Mark::Draining, Mark::Down][usize::from(byte >> 3) % 3];
                    bench.engine.handle_control(bench.now, Control::Mark { transport, address, mark });
                }
                bench.take()
            }
            b'u' => bench.reload(configuration(rest.first().copied().unwrap_or_default())),
            b't' => bench.pass(Duration::from_millis(100 * sum.min(10_000))),
            b'j' => bench.jump(Duration::from_secs(60 * sum)),
            b'p' => {
                bench.engine.set_behind(rest.first().copied().unwrap_or_default());
                Vec::new()
            }
            b'x' => {
                bench.engine.handle_control(bench.now, Control::Drain);
                bench.take()
            }
            b'd' => bench.receive(Port::Ingress, CALLEE, &filled(rest, route)),
            b'e' => bench.receive(Port::Egress, CALLEE, &filled(rest, route)),
            b's' => bench.receive(Port::Ingress, STRANGER, &filled(rest, route)),
            _ => bench.receive(Port::Ingress, CALLER, &filled(rest, route)),
        }
    }

    fn note(&mut self, sent: Vec<Sent>) {
        for one in sent {
            check_well_formed(&one);
            self.receipts.extend(one.receipt);
            if !one.bytes.starts_with(b"SIP/2.0 ") {
                let text = String::from_utf8_lossy(&one.bytes).into_owned();
                if let Some(line) = text.lines().find_map(|line| line.strip_prefix("Record-Route: ")) {
                    self.route = line.as_bytes().to_vec();
                }
                self.forwarded.push(one);
            }
        }
    }
}

/// The element that is so many before the last.
fn from_end<T>(all: &[T], which: u8) -> Option<&T> {
    all.len().checked_sub(1 + usize::from(which & 15) % all.len().max(1)).and_then(|at| all.get(at))
}

/// A destination of the second and third configuration, or nobody.
fn destination(byte: u8) -> (Transport, SocketAddr) {
    let transport = [Transport::Udp, Transport::Tcp, Transport::Tls][usize::from(byte & 7) % 3];
    let port = transport.default_port();
    (transport, SocketAddr::from(([198, 51, 100, 1 + (byte & 7)], port)))
}

fn server(byte: u8) -> Server {
    let (transport, address) = destination(byte);
    Server { priority: u32::from(byte >> 6), weight: u16::from(byte >> 3) & 7, transport, address }
}

/// The first is the usual one; the second tries its destinations one after the other and probes them, the third all at the same time.
fn configuration(which: u8) -> Config {
    let mut config = config();
    let which = which % 3;
    if which == 0 {
        return config;
    }
    config.streams = Streams { above_bytes: Some(900), ..Streams::default() };
    let target = |uri: &str, priority, weight| Target { priority, weight, ..Target::new(uri) };
    config.trunks[1] = Trunk {
        from: vec!["198.51.100.0/29".parse().expect("a range")],
        targets: vec![
            target("sip:198.51.100.1", 1, 3),
            target("sip:198.51.100.2;transport=tcp", 1, 1),
            target("sip:198.51.100.3;transport=tls", 2, 0),
            target("sip:pool.example", 1, 2),
        ],
        failover: Failover { codes: vec![408, 500, 503], attempts: 4 },
        ..Trunk::new("destination")
    };
    config.routes.push(Route { from: "destination".into(), to: "source".into() });
    config.trunks[0].targets = vec![Target::new("sip:192.0.2.1")];
    if which == 1 {
        config.trunks[1].probe = Some(Probe { interval_ms: 10_000, timeout_ms: 1_000, ..Probe::default() });
    } else {
        config.trunks[1].select = Select::All;
    }
    config
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
