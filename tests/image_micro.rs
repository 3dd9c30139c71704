//! The micro image, from the checkout to a call: built without options, the same bytes twice, booted as an instance of the lab in both
//! topologies, called.
//!
//! Takes some 40 s, and some minutes more when cargo has to compile the static program.

#[path = "support/image.rs"]
mod image;
#[path = "support/project.rs"]
mod support;

use std::fs;

use serde_json::Value;
use sipedge::image::{Flavour, Image};
use support::Project;

/// Most bytes of the image that are not zeros.
const MOST_BYTES: u64 = 20_000_000;

/// Milliseconds that power-on to ready may take; not looked at when it is not set, since a host that builds beside this test makes it many times
/// as long. The goal is 6000 on two cores that do nothing else, by software emulation.
const READY_VARIABLE: &str = "SIPEDGE_READY_MS";

#[test]
fn the_same_inputs_are_the_same_bytes_and_they_carry_a_call() {
    let test = "the_same_inputs_are_the_same_bytes_and_they_carry_a_call";
    if !image::possible(test) {
        return;
    }
    let project = Project::new();
    let first = image::micro(&project);

    // Elsewhere, so that nothing of the first is used again.
    let other = tempfile::tempdir().expect("a folder");
    let arguments = ["build", "--flavour", "micro", "--json", "--cache", &other.path().to_string_lossy()];
    let lines = image::image(&project, &arguments).expect(0).json_lines();
    let manifest = &lines.last().expect("the image")["manifest"];
    assert_eq!(manifest["sha256"], first.manifest.sha256.as_str(), "{manifest}");
    assert_eq!(manifest["packages"].as_array().map(Vec::len), Some(first.manifest.packages.len()));
    let second = Image::newest(other.path(), Flavour::Micro).expect("it was built");
    assert_eq!(second.booted(), None, "the same bytes elsewhere have not been booted there");
    assert!(first.manifest.used_bytes <= MOST_BYTES, "{} bytes are used", first.manifest.used_bytes);
    let warned = lines.iter().any(|line| line["event"] == "warning");
    assert_eq!(warned, !first.manifest.dated, "a date that cannot be held is said: {lines:?}");

    let cache = image::cache();
    for topology in ["load-balanced", "single-ec2"] {
        let arguments =
            ["boot", topology, "--flavour", "micro", "--emulate", "--json", "--cache", &cache.to_string_lossy()];
        let lines = image::image_there(&project, &arguments).expect(0).json_lines();
        let booted = event(&lines, "booted");
        let report = &event(&lines, "report")["report"];
        assert_eq!((&report["passed"], &report["topology"]), (&true.into(), &topology.into()), "{report}");
        let checks: usize = report["calls"].as_array().into_iter().flatten().map(checks_of).sum();
        assert_eq!(booted["booted"]["checks"], checks, "{booted}");
        assert!(checks >= 16, "{report}");
        let ready_ms = booted["booted"]["ready_ms"].as_u64().expect("a number");
        eprintln!("{topology}: ready {ready_ms} ms after power-on; {} bytes used", first.manifest.used_bytes);
        assert!(ready_ms > 0, "{booted}");
        if let Ok(most) = std::env::var(READY_VARIABLE) {
            assert!(ready_ms <= most.parse().expect("a number"), "{ready_ms} ms are more than {most}");
        }
        let kept = first.booted().expect("it is written down");
        assert_eq!((kept.sha256, kept.topology.as_str()), (first.manifest.sha256.clone(), topology));
    }
    project.assert_no_trace();
}

#[test]
fn a_boot_without_a_spec_takes_the_one_that_init_would_write() {
    if !image::possible("a_boot_without_a_spec_takes_the_one_that_init_would_write") {
        return;
    }
    let project = Project::new();
    fs::remove_file(project.folder().join("sipedge.yaml")).expect("it was there");
    image::micro(&project);
    let cache = image::cache();
    let said = image::image_there(&project, &["boot", "--flavour", "micro", "--cache", &cache.to_string_lossy()]);
    let said = said.expect(0).stdout;
    for part in ["call passed", "after power-on", "MB used of", "packages of", "SHA-256"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    project.assert_no_trace();
}

fn event<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    lines.iter().find(|line| line["event"] == name).unwrap_or_else(|| panic!("no {name} in {lines:?}"))
}

fn checks_of(call: &Value) -> usize {
    call["checks"].as_array().map_or(0, Vec::len)
}
