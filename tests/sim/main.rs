//! Two carriers and two instances of the edge on a virtual network with loss, duplication, reordering, crashes and restarts, on virtual
//! time: everything follows from one seed.
//!
//! `SIPEDGE_SIM_SEED=123 cargo test --test sim -- --nocapture` replays one; `SIPEDGE_SIM_SEEDS=20000` runs more of them.

#![allow(unreachable_pub, reason = "the modules of a test are nobody's library")]

mod agent;
mod audit;
mod plan;
mod profile;
mod rng;
mod stranger;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

#[test]
fn calls_on_a_bad_network() {
    if let Some(seed) = number("SIPEDGE_SIM_SEED") {
        let world = run(seed);
        println!("seed {seed}: {} datagrams, digest {:016x}", world.datagrams, world.digest);
        return;
    }
    let seeds = number("SIPEDGE_SIM_SEEDS").unwrap_or(SEEDS);
    let (next, datagrams) = (AtomicU64::new(0), AtomicU64::new(0));
    let (calls, met) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let world = run(seed);
                    datagrams.fetch_add(world.datagrams, Ordering::Relaxed);
                    let (of, as_wanted) = world.met_in_spite_of_loss();
                    calls.fetch_add(of, Ordering::Relaxed);
                    met.fetch_add(as_wanted, Ordering::Relaxed);
                }
            });
        }
    });
    let (calls, met) = (calls.into_inner(), met.into_inner());
    println!("{seeds} seeds, {} datagrams; of {calls} calls with loss {met} as wanted", datagrams.into_inner());
    assert!(met * 100 >= calls * LEAST_MET, "of {calls} calls on bad networks only {met} became what was wanted");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..8 {
        let runs = [run(seed), run(seed)].map(|world| (world.digest, world.datagrams));
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
    assert_ne!(run(1).digest, run(5).digest);
}

/// The world at the end of a run. A failure says how to see it again.
fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let reason = match result {
        Ok(Ok(())) => return world,
        Ok(Err(reason)) => reason,
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default(),
    };
    panic!(
        "seed {seed}: {reason}\n\n{}\nreplay: SIPEDGE_SIM_SEED={seed} cargo test --test sim -- --nocapture\n",
        world.trace()
    );
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Enough for each kind of fault to meet each kind of call many times, in seconds.
const SEEDS: u64 = 2_000;
/// Percent of the calls on networks that lose up to a quarter of all datagrams. Retransmission saves most; what it does not save is a
/// CANCEL, a refusal or a timeout that crosses with something else.
const LEAST_MET: u64 = 95;
