//! Whatever arrives, the engine does not panic, keeps its budgets, sends only well-formed messages, and forgets everything in the end.

mod bench;

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use sipedge_proxy::engine::{Gauges, Port};

use bench::{Bench, CALLEE, CALLER, STRANGER, Sent, check_well_formed, config, request, response};

/// One thing that happens to the engine.
#[derive(Debug, Clone)]
enum Step {
    /// Bytes that nobody has thought of.
    Bytes(Vec<u8>),
    /// A message that a peer would send, spoilt by these changes.
    Message { kind: usize, call: usize, changes: Vec<Change> },
    /// The called side answers the last request that it got, spoilt by these changes.
    Answer { status: &'static str, changes: Vec<Change> },
    /// Milliseconds pass.
    Pass(u64),
}

/// One change to a message.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// A line goes, comes twice, or moves to another place.
    DropLine(Index),
    DoubleLine(Index),
    SwapLines(Index, Index),
    /// Something that SIP has a meaning for.
    Word(Index, &'static str),
}

const METHODS: [&str; 9] = ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "INFO", "UPDATE", "ODD"];
const STATUSES: [&str; 8] =
    ["100 Trying", "180 Ringing", "200 OK", "302 Moved", "404 Not Found", "487 Terminated", "503 Busy", "699 "];
const WORDS: [&str; 16] = [
    "\r\n",
    "\r\n ",
    "\n",
    ",",
    ";",
    "<",
    ">",
    "\"",
    "\\",
    ";rport",
    ";tag=",
    ":",
    "\r\n\r\n",
    "Via: ",
    "Content-Length: 5\r\n",
    "@",
];

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), proptest::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), 0_usize..200).prop_map(|(at, count)| Change::Remove(at, count)),
        any::<Index>().prop_map(Change::DropLine),
        any::<Index>().prop_map(Change::DoubleLine),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::SwapLines(a, b)),
        (any::<Index>(), proptest::sample::select(&WORDS[..])).prop_map(|(at, word)| Change::Word(at, word)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let changes = || proptest::collection::vec(change(), 0..4);
    prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..400).prop_map(Step::Bytes),
        6 => (0..METHODS.len() * 2, 0_usize..3, changes())
            .prop_map(|(kind, call, changes)| Step::Message { kind, call, changes }),
        4 => (proptest::sample::select(&STATUSES[..]), changes())
            .prop_map(|(status, changes)| Step::Answer { status, changes }),
        2 => (0_u64..40_000).prop_map(Step::Pass),
    ]
}

fn spoil(bytes: &mut Vec<u8>, changes: &[Change]) {
    for change in changes {
        let length = bytes.len();
        if length == 0 {
            return;
        }
        let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        match change {
            Change::Set(at, byte) => bytes[at.index(length)] = *byte,
            Change::Insert(at, more) => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Word(at, word) => {
                let at = at.index(length);
                bytes.splice(at..at, word.bytes());
            }
            Change::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..(at + count).min(length));
            }
            Change::DropLine(at) => {
                lines.remove(at.index(lines.len()));
                *bytes = lines.concat();
            }
            Change::DoubleLine(at) => {
                let at = at.index(lines.len());
                lines.insert(at, lines[at].clone());
                *bytes = lines.concat();
            }
            Change::SwapLines(a, b) => {
                let count = lines.len();
                lines.swap(a.index(count), b.index(count));
                *bytes = lines.concat();
            }
        }
    }
}

/// Runs steps against a fresh engine, from all kinds of sources.
fn run(steps: &[Step]) {
    let mut bench = Bench::new(config());
    let mut route = String::new();
    let mut last_request = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let source = [CALLER, CALLER, CALLER, CALLEE, STRANGER][index % 5];
        let sent = match step {
            Step::Bytes(bytes) => bench.receive(Port::Ingress, source, bytes),
            Step::Message { kind, call, changes } => {
                let method = METHODS[kind % METHODS.len()];
                let (tag, extra) = if *kind < METHODS.len() { ("", "") } else { (";tag=callee", route.as_str()) };
                let branch = if matches!(method, "INVITE" | "CANCEL" | "ACK") { "same" } else { method };
                let mut bytes = request(method, *call, branch, tag, extra).into_bytes();
                spoil(&mut bytes, changes);
                bench.receive(Port::Ingress, source, &bytes)
            }
            Step::Answer { status, changes } => {
                let mut bytes = response(&last_request, status);
                spoil(&mut bytes, changes);
                bench.receive(Port::Egress, CALLEE, &bytes)
            }
            Step::Pass(ms) => bench.pass(Duration::from_millis(*ms)),
        };
        bench.check_budgets();
        for one in sent {
            check_well_formed(&one);
            remember(one, &mut route, &mut last_request);
        }
    }
    bench.pass(Duration::from_secs(300));
    assert_eq!(bench.engine.gauges(), Gauges::default(), "tables are empty in the end");
}

/// The last request that went to the called side, and the route that it carries.
fn remember(sent: Sent, route: &mut String, last_request: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(&sent.bytes);
    if let Some(line) = text.lines().find(|line| line.starts_with("Record-Route: ")) {
        *route = line.replacen("Record-Route", "Route", 1) + "\r\n";
    }
    if !sent.bytes.starts_with(b"SIP/2.0 ") {
        *last_request = sent.bytes;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_nobody_has_thought_of(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        run(&[Step::Bytes(bytes)]);
    }

    #[test]
    fn one_spoilt_message_within_a_call(
        kind in 0..METHODS.len() * 2,
        status in proptest::sample::select(&STATUSES[..]),
        changes in proptest::collection::vec(change(), 1..6),
        more in proptest::collection::vec(change(), 0..3),
    ) {
        run(&[
            Step::Message { kind: 0, call: 0, changes: more.clone() },
            Step::Answer { status: "180 Ringing", changes: vec![] },
            Step::Answer { status, changes: more },
            Step::Message { kind, call: 0, changes },
            Step::Answer { status: "200 OK", changes: vec![] },
            Step::Pass(3_000),
        ]);
    }

    #[test]
    fn whatever_happens_in_whatever_order(steps in proptest::collection::vec(step(), 1..40)) {
        run(&steps);
    }
}
