//! The yardstick of `bench/` works: the proxy does its whole job, a load is measured, and the table says what could not be measured.

#[path = "support/project.rs"]
mod support;
#[path = "support/tools.rs"]
mod tools;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{program, repository, sipedge, skip, user_namespaces_forbidden};

/// What the yardstick is made of and runs in.
const NEEDED: [&str; 5] = ["python3", "make", "cc", "unshare", "ip"];
/// Messages of one call, each way.
const MESSAGES: u64 = 7;

/// A network namespace around a command: everybody measures at the same addresses.
const NAMESPACE: [&str; 6] = ["unshare", "-rn", "sh", "-c", "ip link set lo up && exec \"$@\"", "_"];

/// Starts the proxy, waits until it answers, and asks whether it does the whole job.
const ASK: &str = "
import subprocess, sys
sys.path.insert(0, sys.argv[1])
import bench
proxy = bench.Proxy(sys.argv[1] + '/sipedge.sh')
try:
    status = subprocess.run([sys.executable, sys.argv[1] + '/functest.py']).returncode
finally:
    proxy.stop()
sys.exit(status)
";

#[test]
fn the_proxy_does_the_whole_job() {
    let Some(folder) = folder("the_proxy_does_the_whole_job") else { return };
    let said = run(&folder, &["python3", "-c", ASK, &bench("")]);
    assert!(said.ends_with("ALL OK\n"), "{said}");
}

#[test]
fn a_load_is_measured_and_every_call_succeeds() {
    let Some(folder) = folder("a_load_is_measured_and_every_call_succeeds") else { return };
    let made = Command::new("make").args(["-s", "-C", &bench("")]).arg(format!("OUT={}", folder.display())).status();
    assert!(made.expect("make runs").success(), "the generator is not built");
    let command = bench("sipedge.sh");
    let load = ["--gen", "callgen", "--rate", "200", "--warm", "1", "--secs", "1"];
    let said = run(&folder, &[&["python3", &bench("bench.py"), "steady", "--cmd", &command], &load[..]].concat());
    let measured: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect("a line of JSON");
    let number = |name: &str| measured[name].as_u64().unwrap_or_else(|| panic!("no {name}: {measured}"));
    assert_eq!((number("calls"), number("ok"), number("failed")), (500, 500, 0), "{measured}");
    for name in ["msgs_in", "msgs_out"] {
        assert!(number(name) >= MESSAGES * number("calls"), "{name}: {measured}");
    }
    for pointer in ["/cpu_us_per_call", "/pss_kb", "/rtt/ow_invite/p50", "/rtt/ow_invite/p99"] {
        let value = measured.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
        assert!(value > 0.0, "{pointer}: {measured}");
    }
}

#[test]
fn what_cannot_be_measured_stands_in_the_table_with_the_reason() {
    let Some(folder) = folder("what_cannot_be_measured_stands_in_the_table_with_the_reason") else { return };
    let mut command = Command::new("python3");
    command.arg(bench("table.py")).args(["--reps", "1", "--only", "lookup"]);
    command.env("BENCH_OUT", &folder).env("ENGINE_BENCH", "/bin/false");
    let said = tools::run(&mut command).expect("bench/table.py");
    let row = said.lines().find(|line| line.contains("source lookup among 1,000,000 prefixes")).expect("the row");
    assert!(row.contains("not measured: the micro-benchmark has left no "), "{row}");
    let table: Value = serde_json::from_slice(&fs::read(folder.join("table.json")).expect("table.json")).expect("JSON");
    let reason = table["rows"][0]["not_measured"]["sipedge"].as_str().unwrap_or_default();
    assert!(reason.starts_with("the micro-benchmark has left no "), "{table}");
    let picture = fs::read_to_string(folder.join("table.svg")).expect("table.svg");
    assert!(picture.contains("not measured"), "{picture}");
}

/// Where the yardstick puts what it makes; none, and `test` is skipped, where something is missing.
fn folder(test: &str) -> Option<std::path::PathBuf> {
    let missing = NEEDED.iter().find(|name| program(name).is_none()).map(|name| format!("{name} is not installed"));
    if let Some(reason) = missing.or_else(user_namespaces_forbidden) {
        skip(test, &reason);
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench_yardstick").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    Some(folder)
}

fn bench(file: &str) -> String {
    repository().join("bench").join(file).display().to_string()
}

/// Runs it in a namespace to its end: what it said.
#[track_caller]
fn run(folder: &Path, command: &[&str]) -> String {
    let mut line = Command::new(NAMESPACE[0]);
    line.args(&NAMESPACE[1..]).args(command);
    line.env("BENCH_OUT", folder).env("SIPEDGE_PROXY", sipedge().with_file_name("sipedge-proxy"));
    tools::run(&mut line).expect(&command.join(" "))
}
