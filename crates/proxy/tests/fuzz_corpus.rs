//! The corpus of the fuzz targets, run through the same bodies, so that what fuzzing has found stays found without cargo-fuzz.

mod bench;

#[path = "../../../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

use sipedge_proxy::engine::Counters;

fn replay(target: &str, mut body: impl FnMut(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        body(&std::fs::read(&path).expect("a readable file"));
        count += 1;
    }
    assert!(count >= 20, "{count} files in {}", folder.display());
}

#[test]
fn message() {
    replay("message", bodies::message);
}

#[test]
fn engine() {
    let mut all = Counters::default();
    replay("engine", |script| all.add(&bodies::engine(script)));
    // The corpus reaches what it is for.
    let reached = [
        ("failovers", all.failovers),
        ("transport failures", all.transport_failures),
        ("probes", all.probes_sent),
        ("timeouts", all.timeouts),
        ("refusals while behind", all.refused_behind),
        ("answered calls", all.calls_answered),
        ("cancelled branches", all.cancels_forwarded),
    ];
    println!("{reached:?}");
    assert!(reached.iter().all(|(_, count)| *count > 0), "{reached:?}");
}

#[test]
fn framing() {
    replay("framing", bodies::framing);
}
