//! More calls than there is room or time for: those in progress go on, new ones are refused at once, and after the burst all is as before.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use process::load::{Callee, Load, Share};
use process::{INGRESS, Process, address, config, metric, wait_for_readyz};
use sipedge_proxy::config::{Budgets, Config, Listen, Timers};
use tempfile::TempDir;

/// Each test needs the machine for itself.
static ALONE: Mutex<()> = Mutex::new(());

struct Rig {
    process: Process,
    _folder: TempDir,
    load: Load,
    _callee: Callee,
    number: u8,
}

impl Rig {
    /// A proxy at the address with this number, the caller and the called side at the next ones.
    fn start(number: u8, change: impl FnOnce(Config) -> Config) -> Self {
        let callee = Callee::start(address(number + 2));
        let config = change(config(address(number), address(number + 1), callee.address));
        let (mut process, folder) = Process::run(&config);
        wait_for_readyz(address(number), 200, &mut process);
        let load = Load::new(address(number + 1), SocketAddr::new(address(number), INGRESS));
        Self { process, _folder: folder, load, _callee: callee, number }
    }

    fn metric(&self, name: &str) -> u64 {
        metric(address(self.number), name)
    }
}

/// The budget for transactions is what ends: so the numbers are the same on every machine that manages some hundred calls per second.
#[test]
fn past_its_budget_new_calls_are_refused_and_those_in_progress_go_on() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // An answered call has three transactions for 64 × T1 and one, the BYE that was sent on, for T4: so many seconds in all.
    let timers = Timers {
        t1_ms: 30,
        t2_ms: 240,
        t4_ms: 300,
        ..config(address(0), address(0), SocketAddr::new(address(0), 1)).timers
    };
    let lifetime = Duration::from_millis(64 * u64::from(timers.t1_ms));
    let seconds = 3.0 * lifetime.as_secs_f64() + f64::from(timers.t4_ms) / 1_000.0;
    let budget = (CAPACITY * seconds) as u32;
    let budgets =
        Budgets { transactions: budget, ..config(address(0), address(0), SocketAddr::new(address(0), 1)).budgets };
    let mut rig = Rig::start(240, |config| Config { timers, budgets, ..config });

    rig.load.stand(STANDING);
    // The transactions of their INVITEs end.
    rig.load.run(0.6 * CAPACITY, 2 * lifetime);
    let quiet = Instant::now() - lifetime;
    let burst = Instant::now();
    let times = STANDING as u32;
    for _ in 0..times {
        rig.load.hang_one_up();
        rig.load.run(2.0 * CAPACITY, burst_time() / times);
    }
    let after = Instant::now();
    rig.load.run(0.6 * CAPACITY, 5 * lifetime);
    let end = Instant::now();
    rig.load.settle();

    let (before, during) = (rig.load.share(quiet, burst), rig.load.share(burst, after));
    let settled = after + lifetime + Duration::from_secs(1);
    let recovered = rig.load.share(settled, end);
    heading(&format!("budget of {budget} transactions, good for {CAPACITY} calls/s"));
    line("60 %", &before);
    line("200 %", &during);
    line("60 %, from 64 × T1 + 1 s on", &recovered);
    println!("recovered {:?} after the burst", recovery(&rig.load, after, end));
    println!("BYEs of calls from before: {} of {STANDING} answered", rig.load.hung_up);

    assert!(rig.process.is_running());
    assert!(before.done >= 0.99, "{before:?}");
    assert!(during.refused > 0.2 && rig.metric("sipedge_refused_budget_total") > 0, "{during:?}");
    assert_eq!(rig.load.bare_refusals, 0, "503 without Retry-After");
    assert!(during.done_per_s >= 0.7 * CAPACITY, "as many calls go on as there is room for: {during:?}");
    assert!(during.silent + during.failed < 0.01, "{during:?}");
    assert_eq!(rig.load.hung_up, STANDING, "BYEs of calls from before that were answered");
    assert!(recovered.calls > 50 && recovered.done >= 0.99, "{recovered:?}");
}

/// The machine is what ends. Figures are printed; what is asserted holds on a machine that others use as well.
#[test]
fn after_twice_its_capacity_it_works_as_before() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rig = Rig::start(244, |config| Config {
        // The end of transactions has its cost, too: 64 × T1 is shorter than a step.
        timers: Timers { t1_ms: 25, t2_ms: 200, t4_ms: 250, ..config.timers },
        budgets: Budgets { transactions: 1_000_000, message_bytes: 1 << 30, counted_calls: 1_000_000 },
        listen: Listen { shards: 1, ..config.listen.clone() },
        ..config
    });
    rig.load.stand(STANDING);
    let capacity = capacity(&mut rig.load);
    let burst = Instant::now();
    let times = STANDING as u32;
    for _ in 0..times {
        rig.load.hang_one_up();
        rig.load.run(2.0 * capacity, burst_time() / times);
    }
    let after = Instant::now();
    rig.load.run(0.6 * capacity, Duration::from_secs(8));
    let end = Instant::now();
    rig.load.settle();

    heading(&format!("capacity of one shard and its load generator on this machine: {capacity:.0} calls/s"));
    line("200 %", &rig.load.share(burst, after));
    line("60 %, first second", &rig.load.share(after, after + Duration::from_secs(1)));
    line("60 %, second second", &rig.load.share(after + Duration::from_secs(1), after + Duration::from_secs(2)));
    let last = rig.load.share(after + Duration::from_secs(2), end);
    line("60 %, from then on", &last);
    println!("recovered {:?} after the burst", recovery(&rig.load, after, end));
    println!("BYEs of calls from before: {} of {STANDING} answered", rig.load.hung_up);
    println!("calls refused while behind: {}", rig.metric("sipedge_refused_behind_total"));
    println!("datagrams that the kernel dropped at the proxy: {}", rig.metric("sipedge_net_kernel_drops_total"));

    assert!(rig.process.is_running());
    assert!(last.calls > 0 && last.done >= 0.9, "{last:?}");
    assert!(
        rig.load.hung_up * 10 >= STANDING * 9,
        "BYEs of calls from before that were answered: {}",
        rig.load.hung_up
    );
    assert_eq!(rig.load.bare_refusals, 0, "503 without Retry-After");
}

/// The highest rate at which 99 of 100 calls succeed.
fn capacity(load: &mut Load) -> f64 {
    let (mut rate, mut best) = (800.0, 0.0);
    loop {
        let from = Instant::now();
        load.run(rate, Duration::from_millis(2_500));
        let until = Instant::now();
        load.settle();
        let share = load.share(from, until);
        line(&format!("step of {rate:.0}"), &share);
        if share.done < 0.99 || share.begun_per_s < 0.9 * rate {
            // At least something: the rest of the test is about the ratio.
            return f64::max(best, 100.0);
        }
        best = rate;
        rate *= 1.4;
    }
}

/// Time after `from` from which on each half second's calls were good.
fn recovery(load: &Load, from: Instant, end: Instant) -> Duration {
    let half = Duration::from_millis(500);
    let mut recovered = from;
    let mut at = from;
    while at + half <= end {
        if load.share(at, at + half).done < 0.99 {
            recovered = at + half;
        }
        at += half;
    }
    recovered - from
}

fn heading(text: &str) {
    println!(
        "\n{text}\n{:<30} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "begun/s", "done/s", "done", "refused", "failed", "silent"
    );
}

fn line(what: &str, share: &Share) {
    let Share { begun_per_s, done_per_s, done, refused, failed, silent, .. } = share;
    println!(
        "{what:<30} {begun_per_s:>8.0} {done_per_s:>8.0} {:>7.1}% {:>7.1}% {:>7.1}% {:>7.1}%",
        100.0 * done,
        100.0 * refused,
        100.0 * failed,
        100.0 * silent
    );
}

/// `SIPEDGE_OVERLOAD_SECONDS`, 30 for the full run.
fn burst_time() -> Duration {
    let seconds =
        std::env::var("SIPEDGE_OVERLOAD_SECONDS").map_or(8, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

/// Calls per second that the budget of the first test is made for.
const CAPACITY: f64 = 200.0;
/// Calls that are up before the burst; each is hung up in it.
const STANDING: usize = 40;
