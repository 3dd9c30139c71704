//! What goes wrong with images, each with its message: on the instance's console and in its health answer, at the build, at the boot.
//!
//! Takes some 40 s.

#[path = "support/image.rs"]
mod image;
#[path = "support/project.rs"]
mod support;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use image::Machines;
use sha2::{Digest, Sha256};
use support::{Project, program, skip};

/// Longest time until a machine that cannot get ready has said so. It takes some 6 s on a host that does nothing else, and as many times
/// that as there are others beside it.
const SAYS_SO: Duration = Duration::from_secs(150);

/// Time between two looks at a machine, which needs the processor itself.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[test]
fn a_machine_with_unusable_user_data_says_so_and_never_turns_ready() {
    if !image::possible("a_machine_with_unusable_user_data_says_so_and_never_turns_ready") {
        return;
    }
    let project = Project::new();
    let machines = Machines::start(&image::micro(&project).disk(), false);
    let good = fs::read_to_string(machines.user_data()).expect("written by the start");
    let other = good.replacen("#sipedge-user-data 1", "#sipedge-user-data 2", 1);
    assert_ne!(good, other);
    let cases = [
        (None, "no user-data"),
        (Some("trunks: [".to_owned()), "the first line has to be `#sipedge-user-data 1`, but is `trunks: [`"),
        (Some("#sipedge-user-data 1\ntrunks: [".to_owned()), "user-data:3:1: "),
        (Some(other), "user-data format \"2\": this build reads format 1"),
    ];
    for (user_data, reason) in cases {
        match &user_data {
            Some(text) => fs::write(machines.user_data(), text).expect("written"),
            None => fs::remove_file(machines.user_data()).expect("it was there"),
        }
        let id = machines.add_instance().expect("booted");
        let begun = Instant::now();
        let said = loop {
            match machines.health(&id) {
                Some((503, text)) => break text,
                Some((status, text)) => panic!("{status} {text}"),
                None => assert!(begun.elapsed() < SAYS_SO, "no health answer; {}", machines.console(&id)),
            }
            std::thread::sleep(LOOK_AGAIN);
        };
        assert!(said.starts_with("not ready: ") && said.contains(reason), "{said}");
        assert!(machines.console(&id).contains(reason), "{}", machines.console(&id));
        // Tried again, and refused again: the lab's wait ends with the console.
        let error = machines.wait_healthy(&id, Duration::from_secs(2)).expect_err("it is not").to_string();
        assert!(error.contains("is not healthy") && error.contains(reason), "{error}");
        machines.kill_instance(&id).expect("killed");
    }
}

#[test]
fn an_image_without_a_loader_for_bios_is_not_booted_by_it() {
    if !image::possible("an_image_without_a_loader_for_bios_is_not_booted_by_it") {
        return;
    }
    let project = Project::new();
    image::micro(&project);
    let cache = image::cache().to_string_lossy().into_owned();
    let arguments = ["boot", "--flavour", "micro", "--bios", "--cache", &cache];
    let said = image::image_there(&project, &arguments).expect(2).stderr;
    assert!(said.contains("the micro image boots by UEFI alone; leave --bios out"), "{said}");
}

#[test]
fn a_disk_that_boots_nothing_is_given_up_with_its_console() {
    if !image::possible("a_disk_that_boots_nothing_is_given_up_with_its_console") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("empty.raw");
    fs::File::create(&disk).and_then(|file| file.set_len(8 << 20)).expect("written");
    let machines = Machines::start(&disk, false);
    let id = machines.add_instance().expect("powered on");
    let begun = Instant::now();
    // The firmware's words.
    while !machines.console(&id).contains("BdsDxe") {
        assert!(begun.elapsed() < SAYS_SO, "the firmware says nothing: {}", machines.console(&id));
        std::thread::sleep(LOOK_AGAIN);
    }
    let error = machines.wait_healthy(&id, Duration::from_secs(1)).expect_err("it is not").to_string();
    assert!(error.contains("did not pass within 1 s") && error.contains("BdsDxe"), "{error}");
}

#[test]
fn an_image_that_was_damaged_is_neither_booted_nor_called_whole() {
    if !image::possible("an_image_that_was_damaged_is_neither_booted_nor_called_whole") {
        return;
    }
    let project = Project::new();
    let built = image::micro(&project);
    let cache = tempfile::tempdir().expect("a folder");
    let name = built.folder.file_name().expect("a folder").to_owned();
    let copy = cache.path().join(&name);
    fs::create_dir(&copy).expect("created");
    for file in ["disk.raw", "manifest.json", "sbom.cdx.json"] {
        fs::copy(built.folder.join(file), copy.join(file)).expect("copied");
    }
    fs::write(cache.path().join("micro.newest"), name.to_string_lossy().as_bytes()).expect("written");
    let at = cache.path().to_string_lossy().into_owned();
    image::image_there(&project, &["check", "--flavour", "micro", "--cache", &at]).expect(0);

    let mut disk = fs::OpenOptions::new().read(true).write(true).open(copy.join("disk.raw")).expect("opened");
    let mut byte = [0];
    disk.seek(SeekFrom::Start(3 << 20)).expect("within");
    disk.read_exact(&mut byte).expect("read");
    disk.seek(SeekFrom::Start(3 << 20)).expect("within");
    disk.write_all(&[byte[0] ^ 1]).expect("written");
    drop(disk);
    for action in ["check", "boot"] {
        let arguments = [action, "--flavour", "micro", "--json", "--cache", &at];
        let error = image::image_there(&project, &arguments).expect(9).json_error();
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("disk.raw: the image is damaged: its SHA-256 is"), "{message}");
    }
    assert!(!copy.join("booted.json").exists());
}

#[test]
fn nothing_that_was_built_cannot_be_booted() {
    let project = Project::new();
    let cache = project.folder().join("cache");
    let arguments = ["boot", "--flavour", "micro", "--cache", &cache.to_string_lossy()];
    let said = image::image_there(&project, &arguments).expect(7).stderr;
    assert!(said.contains("no micro image in") && said.contains("sipedge image build --flavour micro"), "{said}");
}

#[test]
fn a_mirror_that_is_away_is_named() {
    if !image::possible("a_mirror_that_is_away_is_named") {
        return;
    }
    // A port that nobody has while this holds it without listening.
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mirror = format!("http://{closed}/debian");
    let said = build(&["--mirror", &mirror], &[]);
    assert!(said.contains(&format!("the mirror {mirror} does not answer:")) && said.contains("--mirror"), "{said}");
}

#[test]
fn a_mirror_without_the_kernel_is_named_with_the_package() {
    if !image::possible("a_mirror_without_the_kernel_is_named_with_the_package") {
        return;
    }
    // An archive with another package and without a signature, which apt is told to take.
    let archive = tempfile::tempdir().expect("a folder");
    let binary = archive.path().join("dists/bookworm/main/binary-amd64");
    fs::create_dir_all(&binary).expect("created");
    let packages = "Package: other\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>\nFilename: other.deb\n\
                    Size: 1\nSHA256: 0000000000000000000000000000000000000000000000000000000000000000\nDescription: none\n";
    fs::write(binary.join("Packages"), packages).expect("written");
    let hash: String = Sha256::digest(packages).iter().map(|byte| format!("{byte:02x}")).collect();
    let release = format!(
        "Origin: test\nSuite: bookworm\nCodename: bookworm\nDate: Sat, 15 Nov 2025 10:21:14 UTC\nArchitectures: amd64\nComponents: main\n\
         SHA256:\n {hash} {} main/binary-amd64/Packages\n",
        packages.len()
    );
    fs::write(archive.path().join("dists/bookworm/Release"), release).expect("written");
    let mirror = serve(archive.path());
    let real = program("mmdebstrap").expect("looked for above");
    let trusting = archive.path().join("bin");
    fs::create_dir(&trusting).expect("created");
    let script = trusting.join("mmdebstrap");
    let text = format!(
        "#!/bin/sh\nexec {} --aptopt='Acquire::AllowInsecureRepositories \"true\"' \
         --aptopt='APT::Get::AllowUnauthenticated \"true\"' \"$@\"\n",
        real.display()
    );
    fs::write(&script, text).expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
    let said = build(&["--mirror", &mirror], &[&trusting]);
    assert!(said.contains(&format!("{mirror} has no package linux-image-cloud-amd64 in bookworm")), "{said}");
}

#[test]
fn a_full_disk_is_said_with_what_is_needed() {
    let test = "a_full_disk_is_said_with_what_is_needed";
    if !image::possible(test) {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        return skip(test, "only root can make a small file system for a build");
    }
    let project = Project::new();
    let built = image::micro(&project);
    let small = project.folder().join("small");
    fs::create_dir(&small).expect("created");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs -o size=16m tmpfs \"$1\" && shift && exec \"$@\"", "sh"]);
    command.arg(&small).arg(support::sipedge()).args(["image", "build", "--flavour", "micro", "--json"]);
    command.arg("--cache").arg(&small).arg("--program").arg(static_program()).current_dir(project.folder());
    command.args(["--mirror", &built.manifest.mirror, "--snapshot", &built.manifest.snapshot]);
    let error = image::run(command).expect(1).json_error();
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("no space left in") && message.contains("--cache"), "{message}");
}

#[test]
fn a_program_that_needs_a_loader_is_refused() {
    let project = Project::new();
    let own = support::sipedge().to_string_lossy().into_owned();
    let arguments = ["build", "--flavour", "micro", "--program", &own, "--cache", "cache"];
    let said = image::image_there(&project, &arguments).expect(2).stderr;
    assert!(said.contains("not a static program"), "{said}");
}

/// What a build that has to fail says; its programs are searched in `first` before PATH.
fn build(more: &[&str], first: &[&Path]) -> String {
    let project = Project::new();
    let cache = project.folder().join("cache");
    let mut command = project.command(&["image", "build", "--flavour", "micro", "--json", "--cache"]);
    command.arg(&cache).arg("--program").arg(static_program()).args(more);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = first.iter().map(|folder| folder.to_path_buf()).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).expect("PATH"));
    let error = image::run(command).expect(5).json_error();
    assert!(!cache.join("micro.newest").exists(), "nothing was built");
    error["message"].as_str().unwrap_or_default().to_owned()
}

/// The smallest program that is static: what is in it does not matter to a build that fails before.
fn static_program() -> std::path::PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static-program");
    let mut bytes = vec![0; 120];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (bytes[18], bytes[32], bytes[54], bytes[56], bytes[64]) = (62, 64, 56, 1, 1);
    fs::write(&place, bytes).expect("written");
    place
}

/// Serves a folder's files by HTTP for as long as the test runs; its address.
fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            // A client that goes away is no failure of the test.
            std::thread::spawn(move || drop(answer(stream, &folder)));
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head);
    let path = text.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/');
    let (status, body) = match fs::read(folder.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}
