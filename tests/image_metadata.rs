//! Who may read the instance metadata on the booted debian image: the proxy's user, and nobody else.
//!
//! Nobody logs in to an image. It is asked by its own kernel command line (`systemd.run=`), which is in clear on a copy of its disk.

#[path = "support/debian.rs"]
mod debian;
#[path = "support/image.rs"]
mod image;
#[path = "support/project.rs"]
mod support;
#[path = "support/tools.rs"]
mod tools;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use debian::debian;
use fatfs::{FileSystem, FsOptions};
use image::Machines;
use sipedge::image::gpt::{Placed, Purpose, Slice};
use sipedge::target::lab::Machine;

/// Longest time until the machine has said it, on a host that may be busy.
const SAYS_SO: Duration = Duration::from_secs(600);

/// Time between two looks at a machine, which needs the processor itself.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Length of a sector, and of the table's header and what is before it, in bytes.
const SECTOR: u64 = 512;
const TABLE: u64 = 2 * SECTOR;

/// GRUB's script, by which BIOS boots.
const SCRIPT: &str = "grub/grub.cfg";

/// Asks for a token, with which everything of the metadata can be read, as users of the machine, once the proxy runs.
const ASK: &str = r#"
systemctl start multi-user.target
token=http://169.254.169.254/latest/api/token
for user in root sipedge nobody; do
    status=$(setpriv --reuid="$user" --clear-groups curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' \
        --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$token")
    echo "metadata as $user: $status, curl $?." > /dev/console
done
"#;

/// The first partition of a disk, which is the EFI system partition (UEFI 2.10, 5.3.3: first and last sector at 32 and 40 of an entry).
fn system_partition(disk: &mut File) -> Placed {
    let mut entry = [0; 128];
    disk.seek(SeekFrom::Start(TABLE)).expect("there is a table");
    disk.read_exact(&mut entry).expect("read");
    let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
    let (first, last) = (number(32), number(40));
    let guid = uuid::Uuid::from_slice_le(&entry[16..32]).expect("16 bytes");
    Placed { purpose: Purpose::Esp, start: first * SECTOR, bytes: (last + 1 - first) * SECTOR, guid }
}

/// Puts a program for the shell at the end of the kernel's command line, which systemd runs at boot.
fn run_at_boot(disk: &Path, program: &str) {
    let mut disk = OpenOptions::new().read(true).write(true).open(disk).expect("the copy");
    let placed = system_partition(&mut disk);
    let system = FileSystem::new(Slice::new(&mut disk, &placed), FsOptions::new()).expect("FAT");
    let mut file = system.root_dir().open_file(SCRIPT).expect("it boots by BIOS");
    let mut script = String::new();
    file.read_to_string(&mut script).expect("text");
    // Without quotes and, behind the -c, without blanks: GRUB, the kernel and systemd have their own ideas of both.
    let run = format!("/bin/bash -c {{base64,-d}}<<<{}|bash", BASE64_STANDARD.encode(program));
    let changed = script.replacen(
        "\ninitrd ",
        &format!(" systemd.unit=kernel-command-line.target \"systemd.run={run}\"\ninitrd "),
        1,
    );
    assert_ne!(changed, script, "the script has the line");
    file.seek(SeekFrom::Start(0)).expect("its beginning");
    file.write_all(changed.as_bytes()).expect("written");
}

#[test]
fn the_metadata_answer_the_user_of_the_proxy_and_nobody_else() {
    let Some(image) = debian("the_metadata_answer_the_user_of_the_proxy_and_nobody_else") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    fs::copy(image.disk(), &disk).expect("copied");
    run_at_boot(&disk, ASK);
    let machines = Machines::start_as(&Machine { bios: true, ..Machine::new(&disk, true) }, "");
    let id = machines.add_instance().expect("booted");
    let begun = Instant::now();
    let console = loop {
        let console = machines.console(&id);
        if console.contains("metadata as nobody") {
            break console;
        }
        assert!(begun.elapsed() < SAYS_SO, "it says nothing; {console}");
        std::thread::sleep(LOOK_AGAIN);
    };
    // 200: a token. 000 and 7: no connection, and at once.
    for said in ["root: 000, curl 7.", "sipedge: 200, curl 0.", "nobody: 000, curl 7."] {
        assert!(console.contains(&format!("metadata as {said}")), "{said} is not in {console}");
    }
    machines.kill_instance(&id).expect("killed");
}
