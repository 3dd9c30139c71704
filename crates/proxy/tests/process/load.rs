//! Calls by the clock: a caller that begins them at a rate, whatever becomes of them, and a called side that answers at once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, acknowledged, and its BYE was answered.
    Done,
    /// 503 with a Retry-After.
    Refused,
    /// Another final response.
    Failed,
    /// Nothing came until the caller gave up.
    Silent,
}

/// One call that has ended, or that was hung up.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    pub begun: Instant,
    pub outcome: Outcome,
}

/// How the calls of a stretch of time went, as parts of one.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    pub calls: usize,
    /// Calls that the caller has begun, per second: less than was wanted when the machine is too slow for the caller.
    pub begun_per_s: f64,
    pub done_per_s: f64,
    pub done: f64,
    pub refused: f64,
    pub failed: f64,
    pub silent: f64,
}

/// The caller.
pub struct Load {
    socket: UdpSocket,
    edge: SocketAddr,
    address: SocketAddr,
    next: u64,
    calls: HashMap<u64, Call>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Calls that are up until they are hung up.
    pub standing: Vec<u64>,
    pub records: Vec<Record>,
    /// BYEs of standing calls that were answered by a 200.
    pub hung_up: usize,
    /// 503 without Retry-After.
    pub bare_refusals: usize,
}

struct Call {
    begun: Instant,
    phase: Phase,
    stands: bool,
    /// What is sent again until there is an answer.
    message: Vec<u8>,
    sent: Instant,
    resend: Instant,
    interval: Duration,
    /// What its BYE is made from: the remote target, and To and Route.
    target: String,
    dialog: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Calling,
    Up,
    HangingUp,
}

impl Load {
    pub fn new(ip: IpAddr, edge: SocketAddr) -> Self {
        let socket = bind(ip);
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        Self {
            socket,
            edge,
            address,
            next: 0,
            calls: HashMap::new(),
            timers: BinaryHeap::new(),
            standing: Vec::new(),
            records: Vec::new(),
            hung_up: 0,
            bare_refusals: 0,
        }
    }

    /// Begins calls at `rate` per second for `time`.
    pub fn run(&mut self, rate: f64, time: Duration) {
        let start = Instant::now();
        let mut begun = 0;
        loop {
            let now = Instant::now();
            let passed = now - start;
            if passed >= time {
                return;
            }
            let due = (passed.as_secs_f64() * rate) as u64;
            // Never so many at once that answers are not read meanwhile.
            let some = (due - begun).min(16);
            (0..some).for_each(|_| self.begin(now, false));
            begun += some;
            self.turn(begun >= due);
        }
    }

    /// Sets calls up that stay up.
    pub fn stand(&mut self, count: usize) {
        for _ in 0..count {
            self.begin(Instant::now(), true);
            self.turn(true);
        }
        let deadline = Instant::now() + GIVE_UP;
        while self.standing.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} calls are up", self.standing.len());
            self.turn(true);
        }
    }

    /// Hangs one of the standing calls up.
    pub fn hang_one_up(&mut self) {
        let Some(number) = self.standing.pop() else { return };
        self.hang_up(number, Instant::now());
    }

    /// Waits for the end of all calls that do not stand.
    pub fn settle(&mut self) {
        while self.calls.len() > self.standing.len() {
            self.turn(true);
        }
    }

    /// How the calls went that were begun between these moments.
    pub fn share(&self, from: Instant, until: Instant) -> Share {
        let records: Vec<&Record> =
            self.records.iter().filter(|record| (from..until).contains(&record.begun)).collect();
        let count = |outcome| records.iter().filter(|record| record.outcome == outcome).count();
        let part = |outcome| count(outcome) as f64 / records.len().max(1) as f64;
        let seconds = (until - from).as_secs_f64();
        Share {
            calls: records.len(),
            begun_per_s: records.len() as f64 / seconds,
            done_per_s: count(Outcome::Done) as f64 / seconds,
            done: part(Outcome::Done),
            refused: part(Outcome::Refused),
            failed: part(Outcome::Failed),
            silent: part(Outcome::Silent),
        }
    }

    fn begin(&mut self, now: Instant, stands: bool) {
        self.next += 1;
        let number = self.next;
        let target = format!("sip:callee@{}", self.edge);
        let message = self.request("INVITE", number, "", &target, &format!("To: <{target}>\r\n")).into_bytes();
        self.send(&message);
        let call = Call {
            begun: now,
            phase: Phase::Calling,
            stands,
            message,
            sent: now,
            resend: now + T1,
            interval: T1,
            target: String::new(),
            dialog: String::new(),
        };
        self.timers.push(Reverse((call.resend, number)));
        self.calls.insert(number, call);
    }

    /// Reads what has arrived and sends again what is due. `rests`: there is nothing else to do before something arrives.
    fn turn(&mut self, rests: bool) {
        let mut buffer = [0; 4_096];
        let mut has_read = false;
        for _ in 0..64 {
            let Ok(length) = self.socket.recv(&mut buffer) else { break };
            has_read = true;
            self.read(&buffer[..length]);
        }
        let now = Instant::now();
        while let Some(Reverse((at, number))) = self.timers.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.timers.pop();
            self.time_out(number, at, now);
        }
        if rests && !has_read {
            std::thread::sleep(Duration::from_micros(300));
        }
    }

    fn time_out(&mut self, number: u64, at: Instant, now: Instant) {
        let Some(call) = self.calls.get_mut(&number).filter(|call| call.phase != Phase::Up && call.resend == at) else {
            return;
        };
        if now - call.sent >= GIVE_UP {
            self.end(number, Outcome::Silent);
            return;
        }
        call.interval *= 2;
        call.resend = now + call.interval;
        let message = std::mem::take(&mut call.message);
        self.timers.push(Reverse((call.resend, number)));
        self.send(&message);
        if let Some(call) = self.calls.get_mut(&number) {
            call.message = message;
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let code: u16 = text.get(8..11).and_then(|code| code.parse().ok()).unwrap_or(0);
        let number = field("Call-ID: load").and_then(|id| id.split('@').next()?.parse().ok());
        let (Some(number), true) = (number, code >= 200) else { return };
        let is_invite = field("CSeq: ").is_some_and(|cseq| cseq.ends_with("INVITE"));
        let to = format!("To: {}\r\n", field("To: ").unwrap_or_default());
        let Some(call) = self.calls.get_mut(&number) else { return };
        match (call.phase, is_invite) {
            (Phase::Calling, true) if code < 300 => {
                let routes: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Record-Route: ")).collect();
                let routes: String = routes.iter().rev().map(|route| format!("Route: {route}\r\n")).collect();
                call.target = field("Contact: ").unwrap_or_default().trim_matches(['<', '>']).to_owned();
                call.dialog = to + &routes;
                call.phase = Phase::Up;
                let stands = call.stands;
                self.acknowledge(number);
                match stands {
                    true => self.standing.push(number),
                    false => self.hang_up(number, Instant::now()),
                }
            }
            // The ACK was lost: the called side answers again.
            (Phase::Up | Phase::HangingUp, true) if code < 300 => {
                self.acknowledge(number);
            }
            (Phase::Calling, true) => {
                let target = format!("sip:callee@{}", self.edge);
                self.send(self.request("ACK", number, "", &target, &to).as_bytes());
                let is_refusal = code == 503 && field("Retry-After: ").is_some();
                self.bare_refusals += usize::from(code == 503 && !is_refusal);
                self.end(number, if is_refusal { Outcome::Refused } else { Outcome::Failed });
            }
            (Phase::HangingUp, false) => {
                self.end(number, if code == 200 { Outcome::Done } else { Outcome::Failed });
            }
            _ => {}
        }
    }

    fn acknowledge(&self, number: u64) {
        if let Some(call) = self.calls.get(&number) {
            self.send(self.request("ACK", number, "a", &call.target, &call.dialog).as_bytes());
        }
    }

    fn hang_up(&mut self, number: u64, now: Instant) {
        let Some(call) = self.calls.get(&number) else { return };
        let message = self.request("BYE", number, "b", &call.target, &call.dialog).into_bytes();
        self.send(&message);
        if let Some(call) = self.calls.get_mut(&number) {
            (call.phase, call.message, call.sent, call.interval) = (Phase::HangingUp, message, now, T1);
            call.resend = now + T1;
            self.timers.push(Reverse((call.resend, number)));
        }
    }

    fn end(&mut self, number: u64, outcome: Outcome) {
        let Some(call) = self.calls.remove(&number) else { return };
        match call.stands {
            true => self.hung_up += usize::from(outcome == Outcome::Done),
            false => self.records.push(Record { begun: call.begun, outcome }),
        }
    }

    /// `branch`: what tells its transaction from the INVITE's.
    fn request(&self, method: &str, number: u64, branch: &str, target: &str, dialog: &str) -> String {
        let (address, cseq) = (self.address, if method == "BYE" { 2 } else { 1 });
        let body = if method == "INVITE" { BODY } else { "" };
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{number}{branch};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:caller@{address}>;tag=caller\r\n{dialog}Call-ID: load{number}@{address}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:caller@{address}>\r\nContent-Type: application/sdp\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// What the kernel does not take is lost as on any network, and sent again.
    fn send(&self, bytes: &[u8]) {
        let _ = self.socket.send_to(bytes, self.edge);
    }
}

/// The called side: a thread that answers every INVITE and every BYE by a 200, and the INVITE again until its ACK has come.
pub struct Callee {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Callee {
    pub fn start(ip: IpAddr) -> Self {
        let socket = bind(ip);
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || answer(&socket, address, &stopped));
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn answer(socket: &UdpSocket, address: SocketAddr, stop: &AtomicBool) {
    let mut buffer = [0; 4_096];
    let mut unacknowledged: HashMap<String, (Vec<u8>, SocketAddr)> = HashMap::new();
    let mut timers: VecDeque<(Instant, String, u32)> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            let call = text.lines().find_map(|line| line.strip_prefix("Call-ID: ")).unwrap_or_default();
            if text.starts_with("ACK") {
                unacknowledged.remove(call);
            } else if !text.starts_with("SIP/2.0") {
                let ok = ok(&text, address);
                let _ = socket.send_to(&ok, from);
                if text.starts_with("INVITE") && !unacknowledged.contains_key(call) {
                    timers.push_back((Instant::now() + T1, call.to_owned(), 1));
                    unacknowledged.insert(call.to_owned(), (ok, from));
                }
            }
        }
        let now = Instant::now();
        while timers.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, call, times)) = timers.pop_front() else { break };
            let Some((ok, from)) = unacknowledged.get(&call) else { continue };
            if times > MOST_ANSWERS {
                unacknowledged.remove(&call);
                continue;
            }
            let _ = socket.send_to(ok, *from);
            timers.push_back((now + T1, call, times + 1));
        }
    }
}

fn ok(request: &str, address: SocketAddr) -> Vec<u8> {
    let mut text = String::from("SIP/2.0 200 OK\r\n");
    for line in request.lines().take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        if ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"].contains(&name) {
            text.push_str(line);
            if name == "To" && !line.contains(";tag=") {
                text.push_str(";tag=callee");
            }
            text.push_str("\r\n");
        }
    }
    text += &format!("Contact: <sip:callee@{address}>\r\nContent-Length: 0\r\n\r\n");
    text.into_bytes()
}

/// A socket with room for what arrives while its thread does not run.
fn bind(ip: IpAddr) -> UdpSocket {
    let socket = Socket::new(Domain::for_address((ip, 0).into()), Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_recv_buffer_size(4 << 20).unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    socket.into()
}

/// RFC 3261 Table 4.
const T1: Duration = Duration::from_millis(500);
/// When the caller takes a call for lost.
const GIVE_UP: Duration = Duration::from_secs(4);
/// How often the called side sends the 200 of an INVITE again.
const MOST_ANSWERS: u32 = 6;
const BODY: &str = "v=0\r\no=load 1 1 IN IP4 192.0.2.1\r\ns=call\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 14834 RTP/AVP 0 8 101\r\n\
                    a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n";
