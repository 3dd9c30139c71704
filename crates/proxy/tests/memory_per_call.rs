//! What a call costs in memory: while it rings, while its transactions live, and afterwards.
//!
//! Counted are the bytes that the engine has allocated and not freed, whatever they are for: tables with their spare room, timers, kept
//! messages and buffers that wait to be used again.

mod bench;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use sipedge_proxy::config::Config;
use sipedge_proxy::engine::{Arrival, Engine, Gauges, Port};

use bench::{Bench, CALLEE, CALLER, address, config, response};

/// Counts what each thread has allocated and not freed, so that the test harness does not disturb.
struct Counting;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    LIVE.with(|live| live.set(live.get() + bytes));
}

#[allow(unsafe_code, reason = "GlobalAlloc is an unsafe trait; each call is handed to the system's allocator")]
// SAFETY: every method hands its arguments unchanged to `System`, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: as for this function.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: as for this function.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The hundredfold of the calls changes nothing. `SIPEDGE_MEMORY_CALLS=1000000` for the full run.
#[test]
fn many_calls_leave_what_few_calls_leave() {
    let calls = std::env::var("SIPEDGE_MEMORY_CALLS").map_or(CALLS, |text| text.parse().expect("a number of calls"));
    let mut line = Line::new();
    let started = Instant::now();
    let mut after_few = 0;
    for number in 0..calls {
        line.call(number);
        line.pass(INTERVAL);
        if number + 1 == FEW {
            after_few = line.live;
        }
    }
    let after_many = line.live;
    println!(
        "live bytes after {FEW} calls {after_few}, after {calls} calls {after_many}; {:.1} s",
        started.elapsed().as_secs_f32()
    );
    assert_eq!(line.bench.engine.counters().calls_answered, calls as u64);
    assert!(after_few > 0 && calls > FEW);
    assert!((after_many - after_few).abs() * 100 <= after_few, "{after_few} bytes became {after_many}");
}

#[test]
fn a_call_that_rings() {
    let mut line = Line::new();
    let base = line.live;
    let mut dearest = (0, 0);
    for number in 0..RINGING {
        line.ring(number);
        let calls = number as i64 + 1;
        let each = (line.live - base) / calls;
        if calls >= FEWEST && each > dearest.0 {
            dearest = (each, calls);
        }
        if [FEWEST, RINGING as i64 / 2, RINGING as i64].contains(&calls) {
            println!("{calls} ringing calls: {each} bytes each");
        }
    }
    println!("the dearest: {} bytes each, at {} ringing calls", dearest.0, dearest.1);
    assert_eq!(line.bench.engine.gauges().pending_transactions, 2 * RINGING as u64);
    assert!(dearest.0 <= MOST_BYTES, "{} bytes each at {} ringing calls", dearest.0, dearest.1);
}

/// Room that was made for as many calls stays, and is all that stays: the next as many calls fit into it.
#[test]
fn an_answered_call_afterwards() {
    let mut line = Line::new();
    let base = line.live;
    let mut left = Vec::new();
    for wave in 0..4 {
        for number in 0..WAVE {
            line.call(wave * WAVE + number);
        }
        let up = line.live;
        line.pass(LIFETIME);
        assert_eq!(line.bench.engine.gauges(), Gauges::default(), "transactions after 64 × T1");
        println!(
            "wave {wave}: {} bytes for each of {WAVE} answered calls, {} afterwards",
            (up - base) / WAVE as i64,
            (line.live - base) / WAVE as i64
        );
        left.push(line.live);
    }
    // A hash table may grow once more when the marks of removed entries have filled it; that is after the first wave.
    assert!(left[1..].iter().all(|bytes| (bytes - left[1]).abs() * 1_000 <= left[1]), "{left:?} bytes after each wave");
}

/// Calls, and the bytes that the engine holds for them.
struct Line {
    bench: Bench,
    live: i64,
}

impl Line {
    fn new() -> Self {
        let before = LIVE.with(Cell::get);
        let mut bench = Bench::new(Config {
            budgets: sipedge_proxy::config::Budgets {
                transactions: 1_000_000,
                message_bytes: 1 << 30,
                counted_calls: 1_000_000,
            },
            timers: sipedge_proxy::config::Timers { invite_ms: 180_000, ..config().timers },
            ..config()
        });
        bench.pass(Duration::from_millis(1));
        Self { bench, live: LIVE.with(Cell::get) - before }
    }

    /// A call that rings; the INVITE as it was sent on.
    fn ring(&mut self, number: usize) -> Vec<u8> {
        let invite = self.receive(Port::Ingress, CALLER, &request("INVITE", number, ""));
        self.receive(Port::Egress, CALLEE, &response(&invite, "180 Ringing"));
        invite
    }

    /// A whole call: it rings, is answered, acknowledged, and the caller hangs up.
    fn call(&mut self, number: usize) {
        let invite = self.ring(number);
        let ok = self.receive(Port::Egress, CALLEE, &response(&invite, "200 OK"));
        let ok = String::from_utf8(ok).expect("text");
        let line = ok.lines().find(|line| line.starts_with("Record-Route: ")).expect("a Record-Route");
        let route = line.replacen("Record-Route", "Route", 1) + "\r\n";
        self.receive(Port::Ingress, CALLER, &request("ACK", number, &route));
        let bye = self.receive(Port::Ingress, CALLER, &request("BYE", number, &route));
        let ok = self.receive(Port::Egress, CALLEE, &response(&bye, "200 OK"));
        assert!(ok.starts_with(b"SIP/2.0 200"));
    }

    fn receive(&mut self, port: Port, from: &str, bytes: &[u8]) -> Vec<u8> {
        let (from, now) = (address(from), self.bench.now);
        self.inside(|engine| engine.handle_message(now, &Arrival::datagram(port, from), bytes));
        let last = self.bench.engine.outbox().transmits().last().map(|sent| sent.bytes.to_vec());
        self.inside(Engine::clear_outbox);
        last.expect("an answer")
    }

    fn pass(&mut self, time: Duration) {
        let until = self.bench.now + time;
        self.inside(|engine| {
            while let Some(at) = engine.poll_timeout().filter(|at| *at <= until) {
                engine.handle_timeout(at);
                engine.clear_outbox();
            }
        });
        self.bench.now = until;
    }

    fn inside(&mut self, act: impl FnOnce(&mut Engine)) {
        let before = LIVE.with(Cell::get);
        act(&mut self.bench.engine);
        self.live += LIVE.with(Cell::get) - before;
    }
}

/// A request as carriers send them: an INVITE of a thousand bytes, a quarter of them its SDP.
fn request(method: &str, number: usize, route: &str) -> Vec<u8> {
    let (to_tag, uri) =
        if route.is_empty() { ("", "+15551230000@203.0.113.10:5060") } else { (";tag=callee", "callee@198.51.100.1") };
    let body = if method == "INVITE" { SDP } else { "" };
    let text = format!(
        "{method} sip:{uri} SIP/2.0\r\n\
         {route}Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK{method}5d2f1b{number:08}\r\n\
         Max-Forwards: 69\r\n\
         From: \"+15557654321\" <sip:+15557654321@carrier.example>;tag=67454908_c3356d0b_5e3a{number:08}\r\n\
         To: <sip:+15551230000@203.0.113.10:5060>{to_tag}\r\n\
         Call-ID: 0a4f95d8e8c94b1d8b2f{number:08}@192.0.2.1\r\n\
         CSeq: 1 {method}\r\n\
         Contact: <sip:+15557654321@192.0.2.1:5060;transport=udp>\r\n\
         User-Agent: Carrier Gateway\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK\r\n\
         Supported: 100rel, timer, replaces\r\n\
         Session-Expires: 1800;refresher=uac\r\n\
         Date: Thu, 19 Nov 2026 11:20:14 GMT\r\n\
         P-Asserted-Identity: <sip:+15557654321@carrier.example>\r\n\
         X-Carrier-Call: CA5ef8732a3c49700934481addd5ce1659\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(method != "INVITE" || (980..1_020).contains(&text.len()), "{} bytes", text.len());
    text.into_bytes()
}

const SDP: &str = "v=0\r\n\
                   o=carrier 1967916459 1967916459 IN IP4 192.0.2.1\r\n\
                   s=call\r\n\
                   c=IN IP4 192.0.2.1\r\n\
                   t=0 0\r\n\
                   m=audio 14834 RTP/AVP 0 8 101\r\n\
                   a=rtpmap:0 PCMU/8000\r\n\
                   a=rtpmap:8 PCMA/8000\r\n\
                   a=rtpmap:101 telephone-event/8000\r\n\
                   a=fmtp:101 0-16\r\n\
                   a=ptime:20\r\n\
                   a=sendrecv\r\n";

/// Enough for the transactions of the first of them to have ended, and for the tables to have their size.
const FEW: usize = 10_000;
const CALLS: usize = 100_000;
/// Time between two calls: 100 a second, so that the transactions of 3,200 calls live at once.
const INTERVAL: Duration = Duration::from_millis(10);
/// 64 × T1, and an interval of the timers' rounding.
const LIFETIME: Duration = Duration::from_millis(33_000);

const RINGING: usize = 20_000;
/// From so many on the engine's buffers that there are once, whatever the number of calls, no longer matter.
const FEWEST: i64 = 1_000;
/// The most that a ringing call may cost, in bytes.
const MOST_BYTES: i64 = 1_700;
const WAVE: usize = 5_000;
