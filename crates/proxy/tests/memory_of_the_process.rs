//! The memory of the running proxy does not grow with the calls that it has had.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use process::load::{Callee, Load};
use process::{INGRESS, Process, address, config, wait_for_readyz};

#[test]
fn five_times_the_calls_take_no_more_memory() {
    let callee = Callee::start(address(250));
    let (mut process, _folder) = Process::run(&config(address(248), address(249), callee.address));
    wait_for_readyz(address(248), 200, &mut process);
    let mut load = Load::new(address(249), SocketAddr::new(address(248), INGRESS));
    let idle = resident(process.id());
    // The first of them are long gone: transactions live for 64 × 10 ms.
    load.run(RATE, TIME);
    let first = resident(process.id());
    let from = Instant::now();
    load.run(RATE, 4 * TIME);
    let until = Instant::now();
    let last = resident(process.id());
    load.settle();
    let share = load.share(from, until);
    println!(
        "resident: idle {idle} KiB, after {} calls {first} KiB, after {} calls {last} KiB, {:.3} of that; {:.1} % of the calls good",
        load.records.len() - share.calls,
        load.records.len(),
        last as f64 / first as f64,
        100.0 * share.done
    );
    assert!(share.calls as f64 > RATE && share.done > 0.9, "{share:?}");
    // A leak of the smallest message that is kept, 384 bytes for each call, would be more.
    assert!(last < first + MOST_GROWTH, "{first} KiB became {last} KiB by {} calls", share.calls);
}

/// Resident memory of a process, in KiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Calls per second.
const RATE: f64 = 800.0;
const TIME: Duration = Duration::from_secs(3);
/// KiB.
const MOST_GROWTH: u64 = 3_072;
