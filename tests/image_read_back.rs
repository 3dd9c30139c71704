//! From publish to boot: the micro image is built, booted and published to a stand-in for AWS; its disk is read back from the snapshot block
//! by block, is the one that was built, and boots and carries the call again.
//!
//! Takes some 40 s, and some minutes more when cargo has to compile the static program.

#![cfg(feature = "aws")]

#[path = "support/image.rs"]
mod image;
#[path = "support/moto.rs"]
mod moto;
#[path = "support/project.rs"]
mod support;

use std::fs::{self, OpenOptions};
use std::path::Path;

use moto::Moto;
use serde_json::json;
use sipedge::image::{Flavour, Image};
use support::{Project, Ran};

#[test]
fn the_disk_that_was_read_back_boots_and_carries_the_call() {
    let test = "the_disk_that_was_read_back_boots_and_carries_the_call";
    if !image::possible(test) {
        return;
    }
    let Some(moto) = Moto::start(test) else { return };
    let project = Project::new();
    // Beside the cache that other tests boot from.
    let built = image::micro(&project);
    let own = project.folder().join("built");
    copy(&built, &own, &built.disk());
    boot(&project, &own);

    let mut publish = project.command(&["image", "publish", "--flavour", "micro", "--json"]);
    moto.prepare(&mut publish).arg("--cache").arg(&own);
    let done = support::run(publish).expect(0).json_lines().pop().expect("a line");
    let back = project.folder().join("read-back.raw");
    let told = moto.wish("read-back", &json!({ "snapshot": done["image"]["snapshot"], "file": back }));
    assert_eq!(told["blocks"], done["blocks"], "{done}");
    // A volume is as long as the snapshot says, and reads as zeros where no block is.
    OpenOptions::new().write(true).open(&back).and_then(|disk| disk.set_len(built.manifest.bytes)).expect("filled up");
    assert!(
        fs::read(&back).expect("read") == fs::read(built.disk()).expect("read"),
        "the disk that was read back is not the one that was built"
    );

    let again = project.folder().join("again");
    copy(&built, &again, &back);
    let lines = boot(&project, &again).json_lines();
    let booted = lines.iter().find(|line| line["event"] == "booted").expect("it was booted");
    assert_eq!(booted["booted"]["sha256"], built.manifest.sha256.as_str(), "{booted}");
    project.assert_no_trace();
}

/// A cache with nothing but this image, whose disk is `disk`; it has not been booted.
fn copy(image: &Image, cache: &Path, disk: &Path) {
    let folder = cache.join("micro");
    fs::create_dir_all(&folder).expect("a folder");
    fs::copy(disk, folder.join("disk.raw")).expect("copied");
    fs::copy(image.folder.join("manifest.json"), folder.join("manifest.json")).expect("copied");
    fs::write(cache.join("micro.newest"), "micro").expect("written");
    assert_eq!(Image::newest(cache, Flavour::Micro).expect("an image").booted(), None);
}

/// Boots the image of a cache, and calls through it.
fn boot(project: &Project, cache: &Path) -> Ran {
    let arguments = ["boot", "--flavour", "micro", "--emulate", "--json", "--cache", &cache.to_string_lossy()];
    image::image_there(project, &arguments).expect(0)
}
