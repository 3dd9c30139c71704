//! The flavour `debian`: mmdebstrap in a user namespace, the playbook by a chroot connection, a read-only ext4 root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::mirror::Source;
use super::sbom::packages;
use super::uki::{self, Parts};
use super::{BuildRequest, CMDLINE, Content, ImageError, SUITE, Stage, run};

/// What the playbook and the boot need before the playbook installs the rest.
const PACKAGES: [&str; 9] = [
    super::micro::KERNEL_PACKAGE,
    "systemd-boot-efi",
    "systemd-sysv",
    "systemd-resolved",
    "initramfs-tools",
    "nftables",
    "ca-certificates",
    "chrony",
    "python3-minimal",
];

/// EFI stub in the tree.
const STUB: &str = "./usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// What lists the packages, run in the tree; its output is a file of the tree until the disk is made.
const LISTING: &str = "./usr/share/sipedge/packages.tsv";

/// Room that the root has beyond its content, as a part of it: none is written to, but ext4's own tables need some.
const SPARE_PART: u64 = 4;

/// Least bytes of a root file system.
const LEAST_ROOT: u64 = 64 << 20;

/// A bootstrap that is to be run.
#[derive(Debug)]
pub(super) struct Bootstrap<'a> {
    /// mmdebstrap's variant: `minbase`, or `extract` for packages that are only unpacked.
    pub(super) variant: &'a str,
    /// Packages.
    pub(super) include: &'a [&'a str],
    /// Shell commands that run when all is installed, with the tree's folder as `$1`.
    pub(super) hooks: &'a [String],
    /// Where downloaded packages are kept; those that are there are not downloaded again.
    pub(super) downloads: &'a Path,
    /// The cache folder, which errors name.
    pub(super) cache: &'a Path,
    /// The archive, with or without `{snapshot}`.
    pub(super) mirror: &'a str,
    /// The date.
    pub(super) snapshot: &'a str,
}

/// What the disk holds. `root_guid`: what the root partition's identifier will be.
pub(super) fn content(
    request: &BuildRequest,
    source: &Source,
    work: &Path,
    root_guid: &str,
    progress: &mut dyn FnMut(Stage),
) -> Result<Content, ImageError> {
    progress(Stage::Packages);
    let playbook = request.playbook.as_deref().ok_or_else(|| ImageError::Package {
        path: request.cache.clone(),
        what: "the debian flavour is made by a playbook, and none was named; name it by --playbook".to_owned(),
    })?;
    let hooks = [
        format!(
            "ansible-playbook --connection community.general.chroot --inventory \"$1,\" --extra-vars {} {}",
            quoted(&format!("sipedge_program={}", request.program.display())),
            quoted(&playbook.display().to_string())
        ),
        format!(
            "mkdir -p \"$1\"/usr/share/sipedge && chroot \"$1\" dpkg-query --show \
             --showformat='${{Package}}\\t${{Version}}\\t${{Architecture}}\\n' > \"$1\"/{LISTING}"
        ),
        // Each machine makes its own: an empty file, which systemd fills in memory on a read-only root (machine-id(5)).
        ": > \"$1\"/etc/machine-id".to_owned(),
        // What differs from build to build and is of no use to the appliance.
        "rm -rf \"$1\"/var/log/* \"$1\"/var/cache/ldconfig/aux-cache \"$1\"/var/lib/systemd/random-seed".to_owned(),
    ];
    let archive = work.join("root.tar");
    let bootstrap = Bootstrap {
        variant: "minbase",
        include: &PACKAGES,
        hooks: &hooks,
        downloads: &request.cache.join("packages"),
        cache: &request.cache,
        mirror: &source.mirror,
        snapshot: &source.snapshot,
    };
    self::bootstrap(&bootstrap, &archive)?;

    progress(Stage::Kernel);
    let parts = work.join("parts");
    fs::create_dir(&parts).map_err(ImageError::file("create", &parts))?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--no-same-owner").arg("--file").arg(&archive).arg("--directory").arg(&parts);
    tar.args(["--wildcards", "./boot/vmlinuz-*", "./boot/initrd.img-*", STUB, LISTING]);
    run(&mut tar, "tar")?;
    let read = |path: PathBuf| fs::read(&path).map_err(ImageError::file("read", &path));
    let boot = parts.join("boot");
    let (linux, initrd) = (read(newest(&boot, "vmlinuz-")?)?, read(newest(&boot, "initrd.img-")?)?);
    let stub = read(parts.join(STUB))?;
    let cmdline = format!("{CMDLINE} root=PARTUUID={root_guid} ro rootfstype=ext4");
    let os_release = format!(
        "ID=debian\nVARIANT_ID=sipedge\nVERSION_ID={version}\nPRETTY_NAME=\"sipedge debian {version}\"\n",
        version = env!("CARGO_PKG_VERSION")
    );
    let image = Parts { stub: &stub, linux: &linux, initrd: &initrd, cmdline: &cmdline, os_release: &os_release };
    let kernel = uki::build(&image)?;
    let listing = packages(&String::from_utf8_lossy(&read(parts.join(LISTING))?));

    progress(Stage::Disk);
    let root = work.join("root.ext4");
    root_file_system(&archive, &root, root_guid, request, source)?;
    for path in [&archive, &parts] {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.map_err(ImageError::file("remove", path))?;
    }
    Ok(Content { kernel, root: Some(root), packages: listing })
}

/// Runs mmdebstrap; `archive` is the tree as a tar file.
pub(super) fn bootstrap(bootstrap: &Bootstrap, archive: &Path) -> Result<(), ImageError> {
    let downloads = bootstrap.downloads;
    fs::create_dir_all(downloads).map_err(ImageError::file("create", downloads))?;
    let mirror = bootstrap.mirror.replace("{snapshot}", bootstrap.snapshot);
    let mut command = Command::new("mmdebstrap");
    command.args(arguments(bootstrap, archive, &mirror)).env("LC_ALL", "C.UTF-8");
    if let Some(epoch) = epoch(bootstrap.snapshot) {
        // Times of files are at most this (reproducible-builds.org, SOURCE_DATE_EPOCH).
        command.env("SOURCE_DATE_EPOCH", epoch.to_string());
    }
    match run(&mut command, "mmdebstrap") {
        Ok(_) => Ok(()),
        Err(ImageError::Program { program, status, tail }) => {
            Err(cause(&tail, &mirror, bootstrap.cache).unwrap_or(ImageError::Program { program, status, tail }))
        }
        Err(other) => Err(other),
    }
}

fn arguments(bootstrap: &Bootstrap, archive: &Path, mirror: &str) -> Vec<String> {
    let downloads = quoted(&bootstrap.downloads.display().to_string());
    let mut arguments = vec![
        "--mode=unshare".to_owned(),
        "--format=tar".to_owned(),
        format!("--variant={}", bootstrap.variant),
        format!("--include={}", bootstrap.include.join(",")),
        // A snapshot's lists are out of date by definition; what they name is signed all the same.
        "--aptopt=Acquire::Check-Valid-Until \"false\"".to_owned(),
        "--aptopt=Acquire::Retries \"3\"".to_owned(),
        "--aptopt=Acquire::http::Timeout \"30\"".to_owned(),
        "--aptopt=Acquire::https::Timeout \"30\"".to_owned(),
        // Downloaded packages go into the tree and come out of it again, so that the next build has them.
        "--skip=download/empty".to_owned(),
        "--skip=essential/unlink".to_owned(),
        "--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives/".to_owned(),
        format!("--setup-hook=sync-in {downloads} /var/cache/apt/archives/"),
    ];
    // Where packages are only unpacked, nothing is customized, and the last hook is that of the unpacking (mmdebstrap(1), `extract`).
    let last = if bootstrap.variant == "extract" { "extract" } else { "customize" };
    arguments.extend(bootstrap.hooks.iter().map(|hook| format!("--{last}-hook={hook}")));
    arguments.push(format!("--{last}-hook=sync-out /var/cache/apt/archives {downloads}"));
    arguments.extend([SUITE.to_owned(), archive.display().to_string(), mirror.to_owned()]);
    arguments
}

/// The tree as ext4, without loop device and without root: unpacked in a user namespace, where its owners are, and written by mke2fs.
fn root_file_system(
    archive: &Path,
    root: &Path,
    guid: &str,
    request: &BuildRequest,
    source: &Source,
) -> Result<(), ImageError> {
    let length = fs::metadata(archive).map_err(ImageError::file("read", archive))?.len();
    let kilobytes = (length + length / SPARE_PART).max(LEAST_ROOT).next_multiple_of(1 << 20) / 1024;
    // The tree is below the work folder, which another user of the namespace has to be able to enter.
    let script = "set -e; tree=$(mktemp -d \"$2.tree-XXXXXX\"); trap 'rm -rf \"$tree\"' EXIT; \
                  tar --extract --numeric-owner --same-permissions --file \"$1\" --directory \"$tree\"; \
                  mke2fs -q -t ext4 -O ^has_journal -m 0 -L root -U \"$3\" -E \"hash_seed=$3,root_owner=0:0\" -d \"$tree\" \"$2\" \"$4\"k";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--map-auto", "--mount", "sh", "-c", script, "sh"]);
    command.arg(archive).arg(root).arg(guid).arg(kilobytes.to_string());
    if let Some(epoch) = epoch(&source.snapshot) {
        // The second is for e2fsprogs before 1.47.1.
        command.env("SOURCE_DATE_EPOCH", epoch.to_string()).env("E2FSPROGS_FAKE_TIME", epoch.to_string());
    }
    match run(&mut command, "util-linux e2fsprogs uidmap") {
        Ok(_) => Ok(()),
        Err(ImageError::Program { tail, .. }) if tail.contains("No space left") => {
            Err(ImageError::NoSpace { folder: request.cache.clone(), need_mb: super::NEEDED_MB })
        }
        Err(other) => Err(other),
    }
}

/// What mmdebstrap's last lines mean; `None` when they are none of the usual.
fn cause(output: &str, mirror: &str, cache: &Path) -> Option<ImageError> {
    // First, since a full disk makes downloads fail too.
    if output.contains("No space left on device") || output.contains("don't have enough free space") {
        return Some(ImageError::NoSpace { folder: cache.to_owned(), need_mb: super::NEEDED_MB });
    }
    let lines = || output.lines().map(str::trim);
    if let Some(package) = lines().find_map(|line| line.split_once("Unable to locate package ")) {
        return Some(missing(package.1, mirror));
    }
    let no_candidate =
        lines().find_map(|line| line.split_once("Package '")?.1.split_once("' has no installation candidate"));
    if let Some((package, _)) = no_candidate {
        return Some(missing(package, mirror));
    }
    const AWAY: [&str; 6] = [
        "Temporary failure resolving",
        "Could not resolve",
        "Could not connect",
        "Connection timed out",
        "Connection failed",
        "Failed to fetch",
    ];
    let detail = lines().find(|line| AWAY.iter().any(|sign| line.contains(sign)))?;
    Some(ImageError::MirrorAway { mirror: mirror.to_owned(), detail: detail.to_owned() })
}

fn missing(package: &str, mirror: &str) -> ImageError {
    let package = package.split_whitespace().next().unwrap_or(package).to_owned();
    ImageError::PackageMissing { package, mirror: mirror.to_owned(), suite: SUITE.to_owned() }
}

/// The file of the highest name that begins so: the newest kernel.
fn newest(folder: &Path, prefix: &str) -> Result<PathBuf, ImageError> {
    let entries = fs::read_dir(folder).map_err(ImageError::file("read", folder))?;
    let begins = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let found = entries.flatten().map(|entry| entry.path()).filter(begins).max();
    found.ok_or_else(|| ImageError::Package { path: folder.to_owned(), what: format!("there is no {prefix}*") })
}

/// One word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Seconds since 1970 of a snapshot's date, `YYYYMMDDTHHMMSSZ`; `None` for another form.
pub(super) fn epoch(snapshot: &str) -> Option<u64> {
    let form = |(index, byte): (usize, u8)| match index {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    if snapshot.len() != 16 || !snapshot.bytes().enumerate().all(form) {
        return None;
    }
    let number = |from: usize, to: usize| snapshot.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    // Years from March, so that a leap day ends one.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    // Days from 1 March 0000 to 1 January 1970.
    days.checked_sub(719_468).map(|days| days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIRROR: &str = "http://mirror.invalid";

    #[test]
    fn dates_become_seconds() {
        assert_eq!(epoch("19700101T000000Z"), Some(0));
        assert_eq!(epoch("20000301T000000Z"), Some(951_868_800));
        assert_eq!(epoch("20240229T120000Z"), Some(1_709_208_000));
        for wrong in ["", "2024-02-29", "20241301T000000Z", "20240101T250000Z", "20240101 000000Z", "abcdefghTijklmnZ"]
        {
            assert_eq!(epoch(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_usual_failures_are_told_apart() {
        let cause = |output| cause(output, MIRROR, Path::new("cache")).map(|error| error.to_string());
        let away =
            cause("E: something\nErr:1 http://mirror.invalid x\n  Temporary failure resolving 'mirror.invalid'\n");
        assert!(away.expect("known").contains("does not answer: Temporary failure resolving 'mirror.invalid'"));
        let missing = cause("E: Unable to locate package linux-image-cloud-amd64\n").expect("known");
        assert!(missing.contains("has no package linux-image-cloud-amd64 in bookworm"), "{missing}");
        let full = cause("E: Failed to fetch x\nwrite: No space left on device\n").expect("known");
        assert!(full.contains("no space left in cache"), "{full}");
        assert_eq!(cause("E: a hook failed"), None);
    }

    #[test]
    fn arguments_keep_packages_and_end_with_suite_target_and_mirror() {
        let hooks = ["true".to_owned()];
        let bootstrap = Bootstrap {
            variant: "minbase",
            include: &["a", "b"],
            hooks: &hooks,
            downloads: Path::new("it's here"),
            cache: Path::new("c"),
            mirror: MIRROR,
            snapshot: "",
        };
        let arguments = arguments(&bootstrap, Path::new("root.tar"), MIRROR);
        assert!(arguments.contains(&"--include=a,b".to_owned()));
        assert!(arguments.contains(&r"--setup-hook=sync-in 'it'\''s here' /var/cache/apt/archives/".to_owned()));
        let place = |text: &str| arguments.iter().position(|argument| argument.contains(text));
        assert!(place("--customize-hook=true") < place("sync-out"), "packages that the hooks fetched are kept as well");
        assert_eq!(arguments[arguments.len() - 3..], ["bookworm", "root.tar", MIRROR]);
    }
}
