//! Power is cut in the middle of a boot and of a change of the configuration, again and again on one disk: the machine always comes up.
//!
//! `SIPEDGE_POWER_CUTS` is how often (6 when it is not set, some 50 s; the full run has 20).

#[path = "support/image.rs"]
mod image;
#[path = "support/project.rs"]
mod support;

use std::fs;
use std::time::Duration;

use image::Machines;
use sipedge::image::{Flavour, Image};
use sipedge::target::lab::LabFleet;
use support::Project;

/// How often power is cut.
const CUTS: &str = "SIPEDGE_POWER_CUTS";
const USUAL_CUTS: u32 = 6;

/// Names another image than the micro one that the test builds: the folder of one that was built before.
const IMAGE: &str = "SIPEDGE_POWER_IMAGE";

/// Longest time for a boot.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// Within this time after a change an instance has seen it, and has taken it up: it looks every second, a tenth more or less.
const TAKES_UP: Duration = Duration::from_millis(1_500);

#[test]
fn it_always_comes_up() {
    if !image::possible("it_always_comes_up") {
        return;
    }
    let project = Project::new();
    let built = match std::env::var_os(IMAGE) {
        Some(folder) => Image::open(folder.as_ref()).expect("an image's folder"),
        None => image::micro(&project),
    };
    let cuts = std::env::var(CUTS).map_or(USUAL_CUTS, |number| number.parse().expect("a number"));
    // A disk of its own, which keeps whatever a cut leaves on it.
    let disk = project.folder().join("disk.raw");
    fs::copy(built.disk(), &disk).expect("copied");
    let machines = Machines::start(&disk, true);

    let boot = || {
        let id = machines.add_instance().expect("powered on");
        machines.wait_healthy(&id, READY_WITHIN).unwrap_or_else(|error| panic!("it does not come up: {error}"));
        id
    };
    let first = boot();
    let status = machines.status().expect("the lab runs");
    let ready = status.instances.iter().find(|it| it.id == first).and_then(|it| it.ready_after_ms);
    let ready = Duration::from_millis(ready.expect("it is healthy"));
    machines.kill_instance(&first).expect("cut");
    for cut in 0..cuts {
        // Spread over the whole of what is cut into.
        let part = (f64::from(cut) + 0.5) / f64::from(cuts);
        let (id, after) = if cut % 2 == 0 {
            (machines.add_instance().expect("powered on"), ready.mul_f64(part))
        } else {
            let id = boot();
            machines.write_token_keys();
            (id, TAKES_UP.mul_f64(part))
        };
        // What is waited for is a moment, not an event.
        std::thread::sleep(after);
        machines.kill_instance(&id).expect("cut");
        eprintln!("cut {}: {} ms into {}", cut + 1, after.as_millis(), ["a boot", "a change"][(cut % 2) as usize]);
    }
    boot();
    let report = LabFleet::new(&machines, &machines.plan).verified_call().expect("the lab runs");
    assert!(report.passed, "{report:#?}");
    if built.manifest.flavour == Flavour::Micro {
        let same = fs::read(&disk).expect("read") == fs::read(built.disk()).expect("read");
        assert!(same, "nothing of a disk is mounted, so nothing on it changes");
    }
}
