//! What a call costs the engine in instructions, counted by callgrind: the same binary and the same messages give the same count,
//! whatever else the machine does. `bench/limits.json` has the limits; who makes the engine cheaper lowers them.

mod bench;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bench::carriers::Carriers;

/// Says how many calls the counted process makes.
const CALLS_VARIABLE: &str = "SIPEDGE_COUNTED_CALLS";
/// Calls of the two counted runs: what the start and the first growth of the tables cost is in both.
const FEW: u64 = 300;
const MANY: u64 = 800;
/// What is counted: whatever these do, and all that they call.
const COUNTED: [&str; 2] = ["*Engine*handle_message*", "*Engine*handle_timeout*"];

/// This is also what the other test counts, in a process of its own.
#[test]
fn a_call_of_the_yardstick_is_seven_messages() {
    let calls = std::env::var(CALLS_VARIABLE).map_or(100, |text| text.parse().expect("a number of calls"));
    let mut carriers = Carriers::new();
    for number in 0..calls {
        carriers.call(10_000 + number);
        carriers.pass(INTERVAL);
    }
    assert_eq!(carriers.arrived, 7 * calls as u64);
    assert_eq!(carriers.bench.engine.counters().calls_answered, calls as u64);
}

#[test]
fn a_call_costs_no_more_instructions_than_its_limit() {
    if std::env::var_os(CALLS_VARIABLE).is_some() || skipped("a_call_costs_no_more_instructions_than_its_limit") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (few, many) = (count(FEW, folder.path()), count(MANY, folder.path()));
    let each = (many - few) / (MANY - FEW);
    let limits = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../bench/limits.json");
    let limits: serde_json::Value = serde_json::from_slice(&std::fs::read(&limits).unwrap()).unwrap();
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let limit = limits["engine_instructions_per_call"][profile].as_u64().expect("a limit for this profile");
    println!("{each} instructions per call in the engine, profile {profile}, limit {limit}");
    assert!(
        each * 2 > limit,
        "{each} instructions per call are so far below the limit of {limit} that it limits nothing"
    );
    assert!(
        each <= limit,
        "{each} instructions per call, and bench/limits.json allows {limit} in the profile {profile}"
    );
}

/// The instructions of so many calls.
fn count(calls: u64, folder: &Path) -> u64 {
    let counts = folder.join(format!("callgrind.{calls}"));
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "-q"])
        .args(COUNTED.map(|name| format!("--toggle-collect={name}")))
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(std::env::current_exe().expect("the path of this test"))
        .args(["--exact", "a_call_of_the_yardstick_is_seven_messages", "--test-threads=1"])
        .env(CALLS_VARIABLE, calls.to_string())
        .output()
        .expect("valgrind runs");
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let counts = std::fs::read_to_string(&counts).expect("what callgrind has counted");
    let total =
        counts.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    let total: u64 = total.expect("a total").trim().parse().expect("a number");
    assert!(total > 0, "callgrind has counted nothing: are {COUNTED:?} still what they are called?");
    total
}

/// Whether valgrind is missing; then the test says that it is skipped, which is a failure in CI.
fn skipped(test: &str) -> bool {
    let is_there = Command::new("valgrind").arg("--version").output().is_ok_and(|ran| ran.status.success());
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(is_there || !in_ci, "{test} would be skipped, and in CI nothing is: there is no valgrind: run tests/setup");
    if !is_there {
        eprintln!("skipped: {test}: there is no valgrind: run tests/setup");
    }
    !is_there
}

/// Between two calls: a hundred per second.
const INTERVAL: Duration = Duration::from_millis(10);
