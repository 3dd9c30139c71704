//! In steady state a call allocates nothing inside the engine.

mod bench;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use sipedge_proxy::config::{Config, Select, Target};
use sipedge_proxy::engine::{Arrival, Port};

use bench::{Bench, CALLEE, CALLER, address, config, request, response};

/// Counts the allocations of each thread by itself, so that the test harness does not disturb.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[allow(unsafe_code, reason = "GlobalAlloc is an unsafe trait; each call is handed to the system's allocator")]
// SAFETY: every method hands its arguments unchanged to `System`, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as for this function.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as for this function.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_thousand_calls_allocate_nothing() {
    check(config());
}

#[test]
fn nor_does_the_choice_among_destinations() {
    for select in [Select::Weight, Select::CallId, Select::RoundRobin] {
        let mut config = config();
        let target =
            |last: u16| Target { weight: last, priority: last / 4, ..Target::new(format!("sip:198.51.100.{last}")) };
        config.trunks[1].targets = (0..8).map(target).collect();
        config.trunks[1].select = select;
        check(config);
    }
}

fn check(mut config: Config) {
    config.budgets.transactions = 10_000;
    config.budgets.message_bytes = 64 << 20;
    let mut line = Line { bench: Bench::new(config), allocations: 0 };
    for number in 0..WARM_UP {
        line.call(number);
    }
    let counters = *line.bench.engine.counters();
    assert_eq!(counters.calls_answered, WARM_UP as u64);
    line.allocations = 0;
    for number in WARM_UP..WARM_UP + CALLS {
        line.call(number);
    }
    assert_eq!(line.bench.engine.counters().calls_answered, (WARM_UP + CALLS) as u64);
    assert_eq!(line.allocations, 0, "allocations in {CALLS} calls");
}

/// Calls one after the other, so close that the transactions of some hundred of them live at once.
struct Line {
    bench: Bench,
    allocations: u64,
}

impl Line {
    fn call(&mut self, number: usize) {
        let invite = self.receive(Port::Ingress, CALLER, request("INVITE", number, "invite", "", "").as_bytes());
        self.receive(Port::Egress, CALLEE, &response(&invite, "180 Ringing"));
        let ok = self.receive(Port::Egress, CALLEE, &response(&invite, "200 OK"));
        let ok = String::from_utf8(ok).expect("text");
        let line = ok.lines().find(|line| line.starts_with("Record-Route: ")).expect("a Record-Route");
        let route = line.replacen("Record-Route", "Route", 1) + "\r\n";
        self.receive(Port::Ingress, CALLER, request("ACK", number, "ack", ";tag=callee", &route).as_bytes());
        let bye = self.receive(Port::Ingress, CALLER, request("BYE", number, "bye", ";tag=callee", &route).as_bytes());
        let ok = self.receive(Port::Egress, CALLEE, &response(&bye, "200 OK"));
        assert!(ok.starts_with(b"SIP/2.0 200"));
        self.pass(Duration::from_millis(100));
    }

    /// Hands a datagram to the engine and counts what that allocates; the last datagram that it sent.
    fn receive(&mut self, port: Port, from: &str, bytes: &[u8]) -> Vec<u8> {
        let (from, now, engine) = (address(from), self.bench.now, &mut self.bench.engine);
        let before = ALLOCATIONS.with(Cell::get);
        engine.handle_message(now, &Arrival::datagram(port, from), bytes);
        self.allocations += ALLOCATIONS.with(Cell::get) - before;
        let last = self.bench.engine.outbox().transmits().last().map(|sent| sent.bytes.to_vec());
        self.bench.engine.clear_outbox();
        last.expect("an answer")
    }

    fn pass(&mut self, time: Duration) {
        let (until, engine) = (self.bench.now + time, &mut self.bench.engine);
        let before = ALLOCATIONS.with(Cell::get);
        while let Some(at) = engine.poll_timeout().filter(|at| *at <= until) {
            engine.handle_timeout(at);
            engine.clear_outbox();
        }
        self.allocations += ALLOCATIONS.with(Cell::get) - before;
        self.bench.now = until;
    }
}

/// Transactions live for 32 s, here 320 calls. A hash table grows for the last time when the marks of removed entries have filled it
/// once at that load: some 1,000 calls later.
const WARM_UP: usize = 2_000;
const CALLS: usize = 1_000;
