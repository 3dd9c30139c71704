//! Two carriers and two instances of the edge on a virtual network with loss, duplication, reordering, broken connections, crashes,
//! restarts and reloads, on virtual time: everything follows from one seed.
//!
//! `SIPEDGE_SIM_SEED=123 cargo test --test sim -- --nocapture` replays one; `SIPEDGE_SIM_SEEDS=20000` runs more of them,
//! `SIPEDGE_SIM_FIRST=20000` others. With `SIPEDGE_SIM_CALL=3` a failure shows the messages of that call alone, and more of them.

#![allow(unreachable_pub, reason = "the modules of a test are nobody's library")]

mod agent;
mod audit;
mod edge;
mod ending;
mod instance;
mod names;
mod network;
mod plan;
mod profile;
mod rng;
mod schedule;
mod stranger;
mod streams;
mod wire;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

#[test]
fn calls_on_a_bad_network() {
    if let Some(seed) = number("SIPEDGE_SIM_SEED") {
        let world = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        println!("seed {seed}: {} datagrams, digest {:016x}", world.datagrams, world.digest);
        return;
    }
    let seeds = number("SIPEDGE_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("SIPEDGE_SIM_FIRST").unwrap_or_default();
    let (next, datagrams) = (AtomicU64::new(first), AtomicU64::new(0));
    let (calls, met) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || failures.lock().is_ok_and(|failures| failures.len() >= MOST_FAILURES) {
                        return;
                    }
                    let world = match run(seed) {
                        Ok(world) => world,
                        Err(failure) => {
                            // At once: a long run may be cut off.
                            eprintln!("{}", failure.lines().next().unwrap_or_default());
                            failures.lock().map(|mut failures| failures.insert(seed, failure)).ok();
                            continue;
                        }
                    };
                    datagrams.fetch_add(world.datagrams, Ordering::Relaxed);
                    let (of, as_wanted) = world.met_in_spite_of_loss();
                    calls.fetch_add(of, Ordering::Relaxed);
                    met.fetch_add(as_wanted, Ordering::Relaxed);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    let reasons: Vec<&str> = failures.values().filter_map(|failure| failure.lines().next()).collect();
    if let Some(failure) = failures.values().next() {
        panic!("{failure}\n{} seeds have failed:\n{}\n", failures.len(), reasons.join("\n"));
    }
    let (calls, met) = (calls.into_inner(), met.into_inner());
    println!("{seeds} seeds, {} datagrams; of {calls} calls with loss {met} as wanted", datagrams.into_inner());
    assert!(met * 100 >= calls * LEAST_MET, "of {calls} calls on bad networks only {met} became what was wanted");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let outcome = |seed| run(seed).map(|world| (world.digest, world.datagrams));
    for seed in 0..8 {
        assert_eq!(outcome(seed), outcome(seed), "seed {seed}");
    }
    assert_ne!(outcome(1), outcome(5));
}

/// The world at the end of a run. A failure says how to see it again.
fn run(seed: u64) -> Result<World, String> {
    let mut world = World::new(seed);
    world.shown = number("SIPEDGE_SIM_CALL").map(|call| call as usize);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let reason = match result {
        Ok(Ok(())) => return Ok(world),
        Ok(Err(reason)) => reason,
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default(),
    };
    let at = world.now as f64 / 1e3;
    Err(format!(
        "seed {seed} at {at} ms: {reason}\n\n{:?}\n\n{}\nreplay: SIPEDGE_SIM_SEED={seed} cargo test --test sim -- --nocapture\n",
        world.profile,
        world.trace()
    ))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Enough for each kind of fault to meet each kind of call many times.
const SEEDS: u64 = 10_000;
/// Seeds that fail before the others are left out: more would say nothing new.
const MOST_FAILURES: usize = 25;
/// Percent of the calls on networks that lose up to a quarter of all datagrams. Retransmission saves most; what it does not save is a
/// CANCEL, a refusal or a timeout that crosses with something else.
const LEAST_MET: u64 = 95;
