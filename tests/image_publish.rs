//! `sipedge image publish`, `list` and `prune` against a stand-in for AWS: what is published is read back block by block; what was cut
//! off is continued; what nobody has booted is refused; what is in use stays; and a deploy takes the right one.

#![cfg(feature = "aws")]

#[path = "support/moto.rs"]
mod moto;
#[path = "support/project.rs"]
mod project;

use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use moto::{Moto, until};
use project::{DEADLINE, Project, Ran, Running};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sipedge::image::gpt::{Layout, Purpose, Slice, Wanted};
use sipedge::image::{BLOCK, Flavour, Image, esp};

/// The example's edge.
const SPEC: &str = "version: 1
name: twilio-bridge
aws: { region: us-east-1 }
trunks:
  source:      { carrier: twilio }
  destination: { carrier: twilio, domain: bridge.sip.twilio.com }
routes:
  - { from: source, to: destination }
";

/// Version of sipedge, of which images are wanted.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A kernel of three blocks and a bit.
const SMALL: usize = 3 * BLOCK + 100;

/// A publish of this kernel takes long enough to be killed in its middle.
const LARGE: usize = 150 * BLOCK;

/// A project, a cache with images, and an account.
struct Stage {
    project: Project,
    cache: PathBuf,
    moto: Moto,
}

impl Stage {
    fn start(test: &str) -> Option<Self> {
        let moto = Moto::start(test)?;
        let project = Project::with_spec(SPEC);
        let cache = project.folder().join("sipedge/images");
        fs::create_dir_all(&cache).expect("a folder");
        Some(Self { project, cache, moto })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.project.command(arguments);
        self.moto.prepare(&mut command);
        // A deploy goes as far as the image, and no further.
        command.env("SIPEDGE_TERRAFORM", "/nowhere/terraform").env("XDG_CACHE_HOME", self.project.folder());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        project::run(self.command(arguments))
    }

    /// An image as `image build` leaves it, whose kernel is `length` bytes that `seed` makes.
    fn build(&self, flavour: Flavour, length: usize, seed: u32) -> Image {
        let work = self.cache.join("work");
        fs::create_dir(&work).expect("a folder");
        let disk = work.join("disk.raw");
        write_disk(&disk, &noise(length, seed));
        let bytes = fs::read(&disk).expect("written");
        let sha256 = hexadecimal(&Sha256::digest(&bytes));
        let manifest = json!({
            "schema": 1, "flavour": flavour, "version": VERSION, "sha256": sha256, "boot_mode": "uefi",
            "bytes": bytes.len(), "used_bytes": used(&bytes) * BLOCK, "mirror": "http://mirror.example", "snapshot": "20260101T000000Z", "dated": true,
            "git_commit": "0123abc", "spec_sha256": null, "proxy_sha256": "", "sbom_sha256": "5b03", "packages": [],
        });
        fs::write(work.join("manifest.json"), manifest.to_string()).expect("written");
        let name = format!("{flavour}-{}", &sha256[..16]);
        let folder = self.cache.join(&name);
        fs::rename(&work, &folder).expect("renamed");
        fs::write(self.cache.join(format!("{flavour}.newest")), name).expect("written");
        Image::open(&folder).expect("an image")
    }

    /// The same, booted and called.
    fn build_and_boot(&self, flavour: Flavour, length: usize, seed: u32) -> Image {
        let image = self.build(flavour, length, seed);
        booted(&image, &image.manifest.sha256);
        image
    }

    /// Publishes the newest of the flavour; the last line.
    #[track_caller]
    fn publish(&self, flavour: Flavour) -> Value {
        let ran = self.run(&["image", "publish", "--flavour", &flavour.to_string(), "--json"]).expect(0);
        ran.json_lines().pop().expect("a line")
    }

    fn described(&self, id: &Value) -> Value {
        self.moto.ask("ec2", "describe_images", json!({ "ImageIds": [id] }))["Images"][0].clone()
    }

    fn snapshots(&self) -> Vec<Value> {
        let tagged = json!({ "Filters": [{ "Name": "tag-key", "Values": ["sipedge:image-hash"] }] });
        let told = self.moto.ask("ec2", "describe_snapshots", tagged);
        told["Snapshots"].as_array().expect("a list").clone()
    }

    /// Which image `deploy` finds; none when it refuses for want of one.
    fn deploy_takes(&self, more: &[&str]) -> Option<String> {
        let deploy = ["deploy", "single-ec2", "--yes", "--no-verify", "--json"];
        let ran = self.run(&[&deploy, more].concat()).expect(4);
        let done = ran.json_lines().into_iter().find(|line| line["event"] == "step-done" && line["step"] == "image");
        done.map(|line| line["detail"].as_str().unwrap_or_default().split(',').next().unwrap_or_default().to_owned())
    }
}

/// What `image boot` writes when the call has passed.
fn booted(image: &Image, sha256: &str) {
    let boot = json!({
        "sha256": sha256, "at": "2026-11-20T12:00:00Z", "topology": "load-balanced", "ready_ms": 3500, "accelerated": false, "checks": 20,
    });
    fs::write(image.folder.join("booted.json"), boot.to_string()).expect("written");
}

/// A table and an ESP with a kernel, as `image build` writes them for micro.
fn write_disk(path: &Path, kernel: &[u8]) {
    let wanted = [Wanted { purpose: Purpose::Esp, bytes: esp::needed(kernel.len() as u64) }];
    let layout = Layout::new("micro/test", &wanted).expect("a layout");
    let mut disk = Cursor::new(vec![0; usize::try_from(layout.bytes).expect("it fits")]);
    layout.write(&mut disk, &[]).expect("a table");
    let placed = &layout.partitions[0];
    let mut volume = Cursor::new(vec![0; usize::try_from(placed.bytes).expect("it fits")]);
    esp::write(&mut volume, 1, &[(esp::BOOT_FILE, kernel)]).expect("a volume");
    Slice::new(&mut disk, placed).write_all(volume.get_ref()).expect("written");
    fs::write(path, disk.get_ref()).expect("written");
}

/// Bytes without a block of zeros (xorshift32).
fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 4);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Blocks that are not all zeros.
fn used(bytes: &[u8]) -> usize {
    bytes.chunks(BLOCK).filter(|block| block.iter().any(|byte| *byte != 0)).count()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tags(described: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = described["Tags"].as_array().cloned().unwrap_or_default();
    let mut tags: Vec<_> = list.iter().map(|tag| (text(&tag["Key"]), text(&tag["Value"]))).collect();
    tags.sort();
    tags
}

/// The two files have the same bytes, but for zeros at the end of the shorter one.
fn assert_same_disk(disk: &Path, read_back: &Path) {
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        File::open(path).expect("there").read_to_end(&mut bytes).expect("read");
        bytes
    };
    let (mut built, mut back) = (read(disk), read(read_back));
    let length = built.len().max(back.len());
    built.resize(length, 0);
    back.resize(length, 0);
    assert!(built == back, "the disk that was read back is not the one that was built");
}

#[test]
fn what_was_booted_is_published_as_it_is() {
    let Some(stage) = Stage::start("what_was_booted_is_published_as_it_is") else { return };
    let publish = ["image", "publish", "--flavour", "micro", "--json"];
    let refused = |code: i32| stage.run(&publish).expect(code).json_error();
    assert_eq!(refused(7)["kind"], "nothing-deployed", "nothing was built");

    let image = stage.build(Flavour::Micro, SMALL, 1);
    let error = refused(2);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("was not booted yet")), "{error}");
    assert_eq!(error["next"][0]["command"], "sipedge image boot --flavour micro");
    booted(&image, &"0".repeat(64));
    assert_eq!(refused(2)["next"], error["next"], "another disk was booted");
    assert_eq!(stage.moto.calls("ebs:StartSnapshot"), 0, "nothing is begun for what is refused");

    booted(&image, &image.manifest.sha256);
    let done = stage.publish(Flavour::Micro);
    let disk = fs::read(image.disk()).expect("there");
    let blocks = used(&disk);
    assert!(blocks >= 4 && blocks * BLOCK < disk.len(), "{blocks} blocks of {} bytes", disk.len());
    assert_eq!((&done["event"], &done["blocks"]), (&json!("published"), &json!(blocks)), "{done}");

    // The image is what an instance needs to start from it.
    let described = stage.described(&done["image"]["id"]);
    let name = format!("sipedge-{VERSION}-micro-{}", &image.manifest.sha256[..12]);
    for (key, value) in [
        ("Name", json!(name)),
        ("Architecture", json!("x86_64")),
        ("BootMode", json!("uefi")),
        ("EnaSupport", json!(true)),
        ("ImdsSupport", json!("v2.0")),
        ("RootDeviceName", json!("/dev/xvda")),
        ("VirtualizationType", json!("hvm")),
    ] {
        assert_eq!(described[key], value, "{key}: {described}");
    }
    let root = &described["BlockDeviceMappings"][0];
    assert_eq!((&root["DeviceName"], &root["Ebs"]["VolumeType"]), (&json!("/dev/xvda"), &json!("gp3")));
    assert_eq!((&root["Ebs"]["DeleteOnTermination"], &root["Ebs"]["Encrypted"]), (&json!(true), &Value::Null));
    let expected: Vec<(String, String)> = [
        ("Name", name.as_str()),
        ("sipedge:commit", "0123abc"),
        ("sipedge:flavour", "micro"),
        ("sipedge:image-hash", &image.manifest.sha256),
        ("sipedge:sbom-hash", "5b03"),
        ("sipedge:version", VERSION),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    assert_eq!(tags(&described), expected);
    let snapshots = stage.snapshots();
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    assert_eq!((&snapshots[0]["SnapshotId"], tags(&snapshots[0])), (&root["Ebs"]["SnapshotId"], expected));

    // Its disk is the one that was built.
    let back = stage.project.folder().join("read-back.raw");
    let told = stage.moto.wish("read-back", &json!({ "snapshot": root["Ebs"]["SnapshotId"], "file": back }));
    assert_eq!(told, json!({ "blocks": blocks, "block_size": BLOCK, "gib": 1 }));
    assert_same_disk(&image.disk(), &back);

    // Once more: there is nothing to do.
    let again = stage.publish(Flavour::Micro);
    assert_eq!((&again["event"], &again["image"]), (&json!("already-published"), &done["image"]));
    assert_eq!(stage.moto.calls("ebs:StartSnapshot"), 1);
    let text = stage.run(&["image", "publish", "--flavour", "micro"]).expect(0).stdout;
    assert!(text.contains("is published already: ami-"), "{text}");
    let left = fs::read_dir(&image.folder).expect("a folder").flatten().count();
    assert_eq!(left, 3, "disk, manifest, boot: no journal is left");

    let list = stage.run(&["image", "list", "--json"]).expect(0).json();
    assert_eq!((&list["published"][0], &list["region"]), (&done["image"], &json!("us-east-1")));
    assert_eq!(list["local"][0]["booted"]["checks"], 20, "{list}");
    let table = stage.run(&["image", "list"]).expect(0).stdout;
    assert!(table.contains("passed") && table.contains("Published in us-east-1"), "{table}");
    let local = stage.run(&["image", "list", "--local"]).expect(0).stdout;
    assert!(!local.contains("ami-"), "{local}");

    let mut damaged = fs::read(image.disk()).expect("there");
    damaged[BLOCK * 2] ^= 1;
    fs::write(image.disk(), damaged).expect("written");
    let error = refused(9);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("damaged")), "{error}");
}

#[test]
fn a_publish_that_was_killed_is_continued() {
    let Some(stage) = Stage::start("a_publish_that_was_killed_is_continued") else { return };
    let image = stage.build_and_boot(Flavour::Micro, LARGE, 2);
    let blocks = used(&fs::read(image.disk()).expect("there"));
    let journal = || {
        let entries = fs::read_dir(&image.folder).expect("a folder").flatten();
        let path = entries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "jsonl"));
        path.map(|path| (fs::read_to_string(&path).unwrap_or_default(), path))
    };
    let sent = || journal().map_or(0, |(text, _)| text.matches("{\"block\":").count());

    let running = Running::start(stage.command(&["image", "publish", "--flavour", "micro", "--json"]));
    until("a block is there", DEADLINE * 6, || (sent() > 4).then_some(()));
    let second = stage.run(&["image", "publish", "--flavour", "micro", "--json"]);
    running.kill();
    assert_eq!(second.expect(8).json_error()["kind"], "state-locked", "one at a time");
    let there = sent();
    assert!(there > 4 && there < blocks, "{there} of {blocks} blocks were there when it was killed");

    // The answer to StartSnapshot was lost: the same token gives the same snapshot.
    let (text, path) = journal().expect("a journal");
    let first = text.lines().next().expect("a token").to_owned();
    fs::write(&path, format!("{first}\n")).expect("written");
    stage
        .moto
        .wish("fault", &json!({ "action": "ebs:PutSnapshotBlock", "code": "AccessDeniedException", "status": 403 }));
    let error = stage.run(&["image", "publish", "--flavour", "micro", "--json"]).expect(5).json_error();
    assert!(error["message"].as_str().is_some_and(|text| text.contains("ebs:PutSnapshotBlock")), "{error}");
    stage.moto.wish("fault", &json!({ "action": "ebs:PutSnapshotBlock", "times": 0 }));
    assert_eq!(stage.snapshots().len(), 1);

    // What the journal names is not sent again; its last line was cut off.
    fs::write(&path, text.trim_end().strip_suffix('}').expect("a line")).expect("written");
    let named = sent() - 1;
    let done = stage.publish(Flavour::Micro);
    assert_eq!((&done["blocks"], &done["sent"]), (&json!(blocks), &json!(blocks - named)), "{done}");
    assert_eq!(stage.snapshots().len(), 1);
    let back = stage.project.folder().join("read-back.raw");
    stage.moto.wish("read-back", &json!({ "snapshot": done["image"]["snapshot"], "file": back }));
    assert_same_disk(&image.disk(), &back);
}

#[test]
fn an_image_that_ec2_is_making_is_waited_for_by_the_next_publish() {
    let Some(stage) = Stage::start("an_image_that_ec2_is_making_is_waited_for_by_the_next_publish") else { return };
    let image = stage.build_and_boot(Flavour::Micro, SMALL, 7);
    let publish = || Running::start(stage.command(&["image", "publish", "--flavour", "micro", "--json"]));
    let registered = || stage.moto.calls("ec2:RegisterImage");
    let settle = |state: &str| stage.moto.wish("snapshots", &json!({ "settle": state }));
    settle("pending");
    let first = publish();
    until("the image is registered", DEADLINE * 6, || (registered() == 1).then_some(()));
    first.kill();
    let second = publish();
    until("the second has tried", DEADLINE * 6, || (registered() == 2).then_some(()));
    settle("available");
    let done = second.finish().expect(0).json_lines().pop().expect("a line");
    assert_eq!((&done["event"], &done["sent"]), (&json!("published"), &json!(0)), "{done}");
    assert_eq!(done["image"]["sha256"], image.manifest.sha256.as_str());
    assert_eq!(stage.snapshots().len(), 1);

    // One that EC2 could not make does not keep its name.
    stage.build_and_boot(Flavour::Micro, SMALL, 8);
    settle("failed");
    let error = publish().finish().expect(5).json_error();
    assert!(error["message"].as_str().is_some_and(|text| text.contains("could not make the image")), "{error}");
    settle("available");
    let done = publish().finish().expect(0).json_lines().pop().expect("a line");
    assert_eq!((&done["event"], &done["sent"]), (&json!("published"), &json!(0)), "{done}");
}

#[test]
fn a_snapshot_that_is_gone_or_encrypted_is_written_whole() {
    let Some(stage) = Stage::start("a_snapshot_that_is_gone_or_encrypted_is_written_whole") else { return };
    let image = stage.build_and_boot(Flavour::Micro, SMALL, 3);
    let disk = fs::read(image.disk()).expect("there");

    // EBS refuses the whole: the snapshot is deleted, and the next publish starts another one.
    let wrong = json!({ "action": "ebs:CompleteSnapshot", "code": "ValidationException", "message": "wrong blocks" });
    stage.moto.wish("fault", &wrong);
    let error = stage.run(&["image", "publish", "--flavour", "micro", "--json"]).expect(5).json_error();
    assert!(error["message"].as_str().is_some_and(|text| text.contains("wrong blocks")), "{error}");
    assert!(stage.snapshots().is_empty());
    stage.moto.wish("fault", &json!({ "action": "ebs:CompleteSnapshot", "times": 0 }));

    // In an account that encrypts by default, what is not written does not read as zeros.
    stage.moto.wish("snapshots", &json!({ "encrypted": true }));
    let done = stage.publish(Flavour::Micro);
    assert_eq!(done["blocks"], json!(disk.len().div_ceil(BLOCK)), "{done}");

    // Cut off before the image was made of it; the snapshot is deleted by hand meanwhile.
    stage.moto.wish("snapshots", &json!({ "encrypted": false }));
    let image = stage.build_and_boot(Flavour::Micro, SMALL, 4);
    let busy = json!({ "action": "ec2:RegisterImage", "code": "IncorrectState", "message": "busy" });
    stage.moto.wish("fault", &busy);
    stage.run(&["image", "publish", "--flavour", "micro", "--json"]).expect(5);
    stage.moto.wish("fault", &json!({ "action": "ec2:RegisterImage", "times": 0 }));
    let of_image = |snapshot: &Value| tags(snapshot).iter().any(|(_, value)| *value == image.manifest.sha256);
    let left = stage.snapshots().into_iter().find(of_image).expect("a snapshot");
    stage.moto.ask("ec2", "delete_snapshot", json!({ "SnapshotId": left["SnapshotId"] }));
    let done = stage.publish(Flavour::Micro);
    assert_eq!(done["event"], "published");
    assert_ne!(done["image"]["snapshot"], left["SnapshotId"]);
}

#[test]
fn a_deploy_takes_the_newest_and_a_prune_none_that_is_in_use() {
    let Some(stage) = Stage::start("a_deploy_takes_the_newest_and_a_prune_none_that_is_in_use") else { return };
    // What is there: another version's, one without tags, one of Packer's that is old, and micro.
    let registered = |name: &str, version: Option<&str>| {
        let image = json!({ "Name": name, "Architecture": "x86_64", "RootDeviceName": "/dev/xvda" });
        let id = stage.moto.ask("ec2", "register_image", image)["ImageId"].clone();
        if let Some(version) = version {
            let tags = json!({ "Resources": [id], "Tags": [{ "Key": "sipedge:version", "Value": version }] });
            stage.moto.ask("ec2", "create_tags", tags);
        }
        id
    };
    registered("sipedge-by-hand", None);
    registered("sipedge-0.0.9", Some("0.0.9"));
    stage.build_and_boot(Flavour::Micro, SMALL, 5);
    let micro = stage.publish(Flavour::Micro)["image"]["id"].clone();
    let ran = stage.run(&["deploy", "single-ec2", "--yes", "--no-verify", "--json"]).expect(4);
    let error = ran.json_error();
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains(&format!("no published debian image of sipedge {VERSION}")), "{message}");
    let next: Vec<&str> = (0..3).filter_map(|index| error["next"][index]["command"].as_str()).collect();
    let expected = ["build", "boot", "publish"].map(|what| format!("sipedge image {what} --flavour debian"));
    assert_eq!(next, expected);

    // What is built and booted here needs only to be published; without a compiler or packages there is nothing to build.
    let ran = stage.run(&["deploy", "single-ec2", "--yes", "--no-verify", "--json", "--build-image"]);
    assert!(
        ran.code != 0 && ran.json_error()["message"].as_str().is_some_and(|text| !text.contains("published")),
        "{ran:?}"
    );
    assert_eq!(stage.moto.calls("ebs:StartSnapshot"), 1, "the micro image alone was published");
    stage.build_and_boot(Flavour::Debian, SMALL, 6);
    let first = stage.deploy_takes(&["--build-image"]).expect("an image");
    assert_eq!(stage.described(&json!(first))["Tags"].as_array().map(Vec::len), Some(6), "it was published");
    stage.moto.ask("ec2", "deregister_image", json!({ "ImageId": first }));

    let packer = registered("sipedge-packer", Some(VERSION));
    assert_eq!(stage.deploy_takes(&[]).as_deref(), packer.as_str());
    let older = |id: &Value, days: u64| {
        stage.moto.wish("snapshots", &json!({ "older": [id, days * 86_400] }));
    };
    older(&packer, 10);
    let debian: Vec<Value> = (0..4_u32)
        .map(|number| {
            stage.build_and_boot(Flavour::Debian, SMALL, 10 + number);
            let image = stage.publish(Flavour::Debian)["image"].clone();
            older(&image["id"], 9 - u64::from(number));
            image
        })
        .collect();
    assert_eq!(stage.deploy_takes(&[]).as_deref(), debian[3]["id"].as_str(), "the newest of this version and flavour");

    // The oldest has an instance, the next an old version of a launch template.
    stage.moto.ask("ec2", "run_instances", json!({ "ImageId": debian[0]["id"], "MinCount": 1, "MaxCount": 1 }));
    let data = |image: &Value| json!({ "ImageId": image["id"], "InstanceType": "t3.small" });
    let template = json!({ "LaunchTemplateName": "sipedge-twilio-bridge", "LaunchTemplateData": data(&debian[1]) });
    stage.moto.ask("ec2", "create_launch_template", template.clone());
    let mut newer = template;
    newer["LaunchTemplateData"] = data(&debian[3]);
    stage.moto.ask("ec2", "create_launch_template_version", newer);
    // A publish that was never finished has left a snapshot.
    let orphan = json!({ "VolumeSize": 1, "Tags": [{ "Key": "sipedge:image-hash", "Value": "1" }] });
    let orphan = stage.moto.ask("ebs", "start_snapshot", orphan)["SnapshotId"].clone();

    let prune = |more: &[&str]| {
        let arguments: Vec<&str> = ["image", "prune", "--keep", "1", "--json"].iter().chain(more).copied().collect();
        stage.run(&arguments)
    };
    let last = |ran: Ran| ran.expect(0).json_lines().pop().expect("a line")["pruning"].clone();
    let error = prune(&[]).expect(2).json_error();
    assert_eq!(error["next"][0]["command"], "sipedge image prune --keep 1 --yes");
    let planned = last(prune(&["--dry-run"]));
    let ids =
        |list: &Value| list.as_array().expect("a list").iter().map(|image| image["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&planned["remove"]), [debian[2]["id"].clone()], "{planned}");
    assert_eq!(planned["orphans"], json!([]), "it may still be continued");
    let in_use = planned["in_use"].as_array().expect("a list");
    assert_eq!((&in_use[0]["image"]["id"], &in_use[1]["image"]["id"]), (&debian[0]["id"], &debian[1]["id"]));
    assert!(in_use[0]["by"][0].as_str().is_some_and(|by| by.starts_with("instance i-")), "{planned}");
    assert_eq!(in_use[1]["by"], json!(["launch template sipedge-twilio-bridge, version 1"]));
    assert_eq!(stage.described(&debian[2]["id"])["State"], "available", "a dry run removes nothing");

    older(&orphan, 3);
    let pruned = last(prune(&["--yes"]));
    assert_eq!(pruned["orphans"], json!([orphan]));
    let left = stage.run(&["image", "list", "--json"]).expect(0).json();
    let left = ids(&left["published"]);
    for (image, stays) in [(&debian[0], true), (&debian[1], true), (&debian[2], false), (&debian[3], true)] {
        assert_eq!(left.contains(&image["id"]), stays, "{image}");
        let there = stage.snapshots().iter().any(|snapshot| snapshot["SnapshotId"] == image["snapshot"]);
        assert_eq!(there, stays, "its snapshot goes with it: {image}");
    }
    assert!(left.contains(&micro) && left.contains(&packer), "{left:?}");
    assert!(last(prune(&["--yes"]))["remove"].as_array().is_some_and(Vec::is_empty), "a second prune finds nothing");
    assert_eq!(stage.deploy_takes(&[]).as_deref(), debian[3]["id"].as_str());
}
