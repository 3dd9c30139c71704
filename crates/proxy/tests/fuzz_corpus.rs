//! The corpus of the fuzz targets, run through the same bodies, so that what fuzzing has found stays found without cargo-fuzz.

mod bench;

#[path = "../../../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
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
    replay("engine", bodies::engine);
}

#[test]
fn framing() {
    replay("framing", bodies::framing);
}
