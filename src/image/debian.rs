//! The flavour `debian`: mmdebstrap in a user namespace, the playbook by a chroot connection, a read-only root as squashfs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::bios::Bios;
use super::mirror::Source;
use super::sbom::packages;
use super::uki::{self, Parts};
use super::{BuildRequest, CMDLINE, Content, ImageError, SUITE, Stage, run, tail, watched};

/// What the boot needs, what the playbook would install one by one, and what makes the rest and goes again.
const PACKAGES: [&str; 23] = [
    super::micro::KERNEL_PACKAGE,
    "systemd-boot-efi",
    "systemd-sysv",
    "usr-is-merged",
    "udev",
    "systemd-resolved",
    "systemd-timesyncd",
    "initramfs-tools",
    "busybox",
    "zstd",
    "nftables",
    "ca-certificates",
    "tcpdump",
    "sngrep",
    "curl",
    "iproute2",
    "procps",
    "less",
    "kmod",
    "netbase",
    // For the build alone.
    "grub-pc-bin",
    "python3",
    "python3-apt",
];

/// Packages that go when all is made: Ansible's interpreter, and GRUB's tools.
const BUILD_ONLY: &str = "grub-pc-bin grub-common python3 python3-minimal python3.11 python3.11-minimal python3-apt";

/// What is not unpacked: an appliance has no readers. Licences stay.
const LEFT_OUT: [&str; 7] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/bug/*",
];

/// GRUB's modules: what reads the kernel from the EFI system partition and starts it, with a serial console.
const GRUB_MODULES: &str = "biosdisk part_gpt fat normal linux serial terminal echo";

/// Where in the tree the program is, below the root.
const PROGRAM: &str = "./usr/local/bin/sipedge-proxy";

/// What the command line has besides that of every flavour: the root, which is never dirty and needs no login; what the tree is made
/// with, it need not find again at every boot.
const ROOT_CMDLINE: &str = "ro rootfstype=squashfs fsck.mode=skip systemd.condition-needs-update=no systemd.getty_auto=no systemd.firstboot=no";

/// Names in the folder of what was made.
const TREE: &str = "root.tar";
const BOOT: &str = "sipedge";

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
    program: &[u8],
    work: &Path,
    root_guid: &str,
    progress: &mut dyn FnMut(Stage),
) -> Result<Content, ImageError> {
    progress(Stage::Packages);
    let made = tree(request, source)?;

    progress(Stage::Kernel);
    let boot = made.join(BOOT);
    let read = |name: &str| fs::read(boot.join(name)).map_err(ImageError::file("read", &boot.join(name)));
    let (linux, initrd, stub) = (read("linux")?, read("initrd")?, read("stub")?);
    let cmdline = format!("{CMDLINE} root=PARTUUID={root_guid} {ROOT_CMDLINE}");
    let os_release = format!(
        "ID=debian\nVARIANT_ID=sipedge\nVERSION_ID={version}\nPRETTY_NAME=\"sipedge debian {version}\"\n",
        version = env!("CARGO_PKG_VERSION")
    );
    let image = Parts { stub: &stub, linux: &linux, initrd: &initrd, cmdline: &cmdline, os_release: &os_release };
    let kernel = uki::build(&image)?;
    let listing = packages(&String::from_utf8_lossy(&read("packages.tsv")?));
    let bios = Bios { first: read("boot.img")?, core: read("core.img")?, linux, initrd, cmdline };

    progress(Stage::Root);
    let root = work.join("root.squashfs");
    root_file_system(&made.join(TREE), program, &root, &request.cache, &source.snapshot)?;
    Ok(Content { kernel, root: Some(root), packages: listing, bios: Some(bios) })
}

/// The tree without the program, and what boots it: from the cache when the packages, the playbook and its settings are those of then.
///
/// The program is put in afterwards, so that another one makes another image in seconds.
fn tree(request: &BuildRequest, source: &Source) -> Result<PathBuf, ImageError> {
    let playbook = request.playbook.as_deref().ok_or_else(|| ImageError::Package {
        path: request.cache.clone(),
        what: "the debian flavour is made by a playbook, and none was named; name it by --playbook".to_owned(),
    })?;
    let playbook = playbook.canonicalize().map_err(ImageError::file("read", playbook))?;
    let settings = request.settings.as_deref();
    let settings = settings.map(|path| path.canonicalize().map_err(ImageError::file("read", path))).transpose()?;
    let program = request.program.canonicalize().map_err(ImageError::file("read", &request.program))?;
    let name = format!("{TREES}{}", key(source, &playbook, settings.as_deref())?);
    let place = request.cache.join(&name);
    if place.is_dir() {
        return Ok(place);
    }
    let work = tempfile::Builder::new().prefix(".making-").tempdir_in(&request.cache);
    let work = work.map_err(ImageError::file("write in", &request.cache))?;
    // Written to from within the user namespace, by a user who is nobody here.
    let hooks = hooks(&playbook, settings.as_deref(), &program, work.path());
    let bootstrap = Bootstrap {
        variant: "minbase",
        include: &PACKAGES,
        hooks: &hooks,
        downloads: &request.cache.join("packages"),
        cache: &request.cache,
        mirror: &source.mirror,
        snapshot: &source.snapshot,
    };
    self::bootstrap(&bootstrap, &work.path().join(TREE))?;
    // One is enough: it is large, and another is made when it is wanted.
    let entries = fs::read_dir(&request.cache).map_err(ImageError::file("read", &request.cache))?;
    for old in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(TREES)) {
        fs::remove_dir_all(old.path()).map_err(ImageError::file("remove", &old.path()))?;
    }
    let made = work.keep();
    fs::rename(&made, &place).map_err(ImageError::file("rename to", &place))?;
    Ok(place)
}

/// What the folders of trees in the cache begin with.
const TREES: &str = "debian-tree-";

/// What a tree depends on, as a name: the packages, how they are put together, the playbook's folder and its settings.
fn key(source: &Source, playbook: &Path, settings: Option<&Path>) -> Result<String, ImageError> {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    for part in [source.mirror.as_str(), &source.snapshot, env!("CARGO_PKG_VERSION"), BUILD_ONLY, GRUB_MODULES] {
        add(part.as_bytes());
    }
    // The hooks as they are for a playbook and a program without names.
    for part in hooks(Path::new(""), None, Path::new(""), Path::new("")) {
        add(part.as_bytes());
    }
    for part in PACKAGES.iter().chain(&LEFT_OUT) {
        add(part.as_bytes());
    }
    let mut files = BTreeMap::new();
    read_folder(playbook.parent().unwrap_or(playbook), &mut files)?;
    for (path, content) in &files {
        add(path.to_string_lossy().as_bytes());
        add(content);
    }
    if let Some(path) = settings {
        add(&fs::read(path).map_err(ImageError::file("read", path))?);
    }
    Ok(super::hexadecimal(&hash.finalize()).chars().take(16).collect())
}

/// All files below a folder with what is in them; hidden ones, such as a tool's own cache, are left out.
fn read_folder(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<(), ImageError> {
    for entry in fs::read_dir(folder).map_err(ImageError::file("read", folder))?.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            read_folder(&path, files)?;
        } else {
            let content = fs::read(&path).map_err(ImageError::file("read", &path))?;
            files.insert(path, content);
        }
    }
    Ok(())
}

/// What is done in the tree when the packages are installed; `$1` is its folder, `out` the one on this machine.
fn hooks(playbook: &Path, settings: Option<&Path>, program: &Path, out: &Path) -> Vec<String> {
    let show = |path: &Path| path.display().to_string();
    let variables = json!({ "sipedge_proxy_binary": show(program), "sipedge_read_only_root": true });
    let settings = settings.map(|path| format!("--extra-vars {} ", quoted(&format!("@{}", show(path)))));
    let configuration = playbook.with_file_name("ansible.cfg");
    vec![
        // Ansible's own files go to a folder of the namespace's user: the home is somebody else's there.
        format!(
            "home=$(mktemp -d) && ANSIBLE_HOME=\"$home\" ANSIBLE_LOCAL_TEMP=\"$home\" ANSIBLE_REMOTE_TEMP=/tmp/.ansible \
             ANSIBLE_CONFIG={} ansible-playbook --connection community.general.chroot --inventory \"$1,\" {}--extra-vars {} {} 1>&2 \
             && rm -rf \"$home\" \"$1\"/tmp/.ansible",
            quoted(&show(&configuration)),
            settings.unwrap_or_default(),
            quoted(&variables.to_string()),
            quoted(&show(playbook)),
        ),
        // The modules are named now.
        "chroot \"$1\" update-initramfs -u -k all".to_owned(),
        format!(
            "mkdir \"$1\"/boot/{BOOT} && cd \"$1\"/boot/{BOOT} && cp ../vmlinuz-* linux && cp ../initrd.img-* initrd && \
             cp ../../usr/lib/systemd/boot/efi/linuxx64.efi.stub stub && cp ../../usr/lib/grub/i386-pc/boot.img . && \
             chroot \"$1\" grub-mkimage --format i386-pc --prefix '(,gpt1)/grub' --output /boot/{BOOT}/core.img {GRUB_MODULES} && \
             {LIST} grub-pc-bin > packages.tsv && \
             DEBIAN_FRONTEND=noninteractive chroot \"$1\" apt-get --quiet --yes purge --auto-remove {BUILD_ONLY} && \
             {LIST} >> packages.tsv && chmod -R a+rX ."
        ),
        format!("copy-out /boot/{BOOT} {}", quoted(&show(out))),
        // Kernel and initramfs are on the EFI system partition; the program is put in when the disk is written.
        format!("rm -rf \"$1\"/boot/* \"$1\"/vmlinuz* \"$1\"/initrd.img* \"$1\"/{PROGRAM}"),
        // What differs from build to build and is of no use to the appliance.
        "cd \"$1\" && rm -rf var/log/* var/cache/ldconfig/aux-cache var/cache/debconf/*-old var/lib/dpkg/*-old \
         var/lib/systemd/random-seed etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/subuid- etc/subgid- etc/.pwd.lock root/.ansible \
         usr/lib/python3* var/lib/initramfs-tools/* var/lib/apt/extended_states tmp/* && : > etc/machine-id"
            .to_owned(),
    ]
}

/// Lists packages of the tree as [`packages`] reads them; all, or those that are named behind it.
const LIST: &str = "chroot \"$1\" dpkg-query --show --showformat='${Package}\\t${Version}\\t${Architecture}\\n'";

/// Runs mmdebstrap; `archive` is the tree as a tar file.
pub(super) fn bootstrap(bootstrap: &Bootstrap, archive: &Path) -> Result<(), ImageError> {
    let downloads = bootstrap.downloads;
    fs::create_dir_all(downloads).map_err(ImageError::file("create", downloads))?;
    let mirror = bootstrap.mirror.replace("{snapshot}", bootstrap.snapshot);
    let mut command = Command::new("mmdebstrap");
    command.args(arguments(bootstrap, &mirror)).env("LC_ALL", "C.UTF-8");
    if let Some(epoch) = epoch(bootstrap.snapshot) {
        // Times of files are at most this (reproducible-builds.org, SOURCE_DATE_EPOCH).
        command.env("SOURCE_DATE_EPOCH", epoch.to_string());
    }
    match watched::run(&mut command, "mmdebstrap", watched::QUIET, Some(archive)) {
        Ok(()) => Ok(()),
        Err(ImageError::Program { program, status, tail }) => {
            Err(cause(&tail, &mirror, bootstrap.cache).unwrap_or(ImageError::Program { program, status, tail }))
        }
        Err(ImageError::NoSpace { need_mb, .. }) => {
            Err(ImageError::NoSpace { folder: bootstrap.cache.to_owned(), need_mb })
        }
        Err(other) => Err(other),
    }
}

fn arguments(bootstrap: &Bootstrap, mirror: &str) -> Vec<String> {
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
    if bootstrap.variant != "extract" {
        // Otherwise a package that merges the two comes, and Perl with it.
        arguments.push("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr".to_owned());
        arguments.extend(LEFT_OUT.iter().map(|option| format!("--dpkgopt={option}")));
        arguments.push("--customize-hook=rm -rf \"$1\"/var/cache/apt/* \"$1\"/var/lib/apt/lists/*".to_owned());
    }
    // To its standard output.
    arguments.extend([SUITE.to_owned(), "-".to_owned(), mirror.to_owned()]);
    arguments
}

/// Makes the root of an archive at its input, and writes it to its output: whoever runs it in the namespace is nobody outside, and could
/// neither read nor write a file there. `$1` is the time of the file system.
///
/// LZ4, since what is read at every boot is to be read fast; device nodes are the kernel's.
const MAKE_ROOT: &str = "set -e; work=$(mktemp -d); trap 'rm -rf \"$work\"' EXIT; mkdir \"$work\"/tree; \
    tar --extract --numeric-owner --same-permissions --xattrs --xattrs-include='*' --exclude='./dev/*' --directory \"$work\"/tree; \
    chmod 755 \"$work\"/tree; touch --date=\"@$1\" \"$work\"/tree/usr/local/bin \"$work\"/tree/dev \"$work\"/tree; \
    mksquashfs \"$work\"/tree \"$work\"/root -comp lz4 -mkfs-time \"$1\" -quiet -no-progress 1>&2; cat \"$work\"/root";

/// The tree with the program in it as squashfs: read-only by its nature. In a user namespace, where its owners are, and without loop device.
fn root_file_system(tree: &Path, program: &[u8], root: &Path, cache: &Path, snapshot: &str) -> Result<(), ImageError> {
    run(Command::new("mksquashfs").arg("-version"), "squashfs-tools")?;
    let epoch = epoch(snapshot).unwrap_or(0);
    let log = root.with_extension("log");
    let errors = File::create(&log).map_err(ImageError::file("write", &log))?;
    let output = File::create(root).map_err(ImageError::file("write", root))?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--unshare-helper", "sh", "-c", MAKE_ROOT, "sh", &epoch.to_string()]).env("LC_ALL", "C.UTF-8");
    // With it mksquashfs refuses the option.
    command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::piped()).stdout(output).stderr(errors);
    let program_name = "mksquashfs".to_owned();
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            ImageError::ProgramMissing { program: "mmdebstrap".to_owned(), package: "mmdebstrap" }
        }
        _ => ImageError::File { what: "run", path: PathBuf::from("mmdebstrap"), source },
    })?;
    let given = child.stdin.take().map(|mut input| archive_with(tree, program, epoch, &mut input));
    let status = child.wait().map_err(ImageError::file("wait for", Path::new("mmdebstrap")))?;
    let said = fs::read_to_string(&log).unwrap_or_default();
    // First, since the archive cannot be written either when the other end has gone.
    if !status.success() {
        if said.contains("No space left") {
            return Err(ImageError::NoSpace { folder: cache.to_owned(), need_mb: super::NEEDED_MB });
        }
        return Err(ImageError::Program { program: program_name, status: status.to_string(), tail: tail(&said) });
    }
    given.transpose().map_err(ImageError::file("read", tree))?;
    fs::remove_file(&log).map_err(ImageError::file("remove", &log))
}

/// Writes the archive with the program behind its last file.
fn archive_with(tree: &Path, program: &[u8], epoch: u64, out: &mut impl Write) -> io::Result<()> {
    let mut archive = File::open(tree)?;
    let end = end_of_archive(&mut archive)?;
    archive.rewind()?;
    io::copy(&mut archive.take(end), out)?;
    out.write_all(&header(PROGRAM, program.len() as u64, epoch))?;
    out.write_all(program)?;
    out.write_all(&vec![0; program.len().next_multiple_of(TAR_BLOCK) - program.len()])?;
    // Two empty blocks end an archive.
    out.write_all(&[0; 2 * TAR_BLOCK])
}

/// Bytes of a block of a tar archive (POSIX.1-2017, pax, "ustar Interchange Format").
const TAR_BLOCK: usize = 512;

/// Where the empty blocks begin that end an archive.
fn end_of_archive(archive: &mut (impl Read + Seek)) -> io::Result<u64> {
    let mut at = 0;
    let mut block = [0; TAR_BLOCK];
    loop {
        archive.seek(SeekFrom::Start(at))?;
        archive.read_exact(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(at);
        }
        let size = block.get(124..136).and_then(|field| std::str::from_utf8(field).ok());
        let size = size.and_then(|field| u64::from_str_radix(field.trim_matches(['\0', ' ']), 8).ok());
        let size = size.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a tar archive"))?;
        at += TAR_BLOCK as u64 + size.next_multiple_of(TAR_BLOCK as u64);
    }
}

/// Header of a program of root.
fn header(name: &str, length: u64, time: u64) -> [u8; TAR_BLOCK] {
    let mut block = [0; TAR_BLOCK];
    let fields = [
        (0, name.to_owned()),
        (100, "0000755\0".to_owned()),
        (108, "0000000\0".to_owned()),
        (116, "0000000\0".to_owned()),
        (124, format!("{length:011o}\0")),
        (136, format!("{time:011o}\0")),
        // The sum is taken with blanks in its own place.
        (148, "        ".to_owned()),
        (156, "0".to_owned()),
        (257, "ustar\x0000".to_owned()),
    ];
    let put = |block: &mut [u8; TAR_BLOCK], at: usize, text: &str| {
        for (place, byte) in block.iter_mut().skip(at).zip(text.bytes()) {
            *place = byte;
        }
    };
    for (at, text) in &fields {
        put(&mut block, *at, text);
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut block, 148, &format!("{sum:06o}\0 "));
    block
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

    /// Files as tar itself reads them: mode, owner, size, time and name.
    fn listed(archive: &Path) -> Vec<String> {
        let mut tar = Command::new("tar");
        let text = run(tar.args(["--list", "--verbose", "--numeric-owner", "--utc", "--file"]).arg(archive), "tar");
        text.expect("an archive").lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn the_program_is_added_to_an_archive() {
        let folder = tempfile::tempdir().expect("a folder");
        let (tree, whole) = (folder.path().join("tree.tar"), folder.path().join("whole.tar"));
        // A file that ends with empty blocks, which end no archive.
        fs::write(folder.path().join("zeros"), vec![0; 5000]).expect("written");
        let mut tar = Command::new("tar");
        tar.args(["--create", "--file"]).arg(&tree).arg("--directory").arg(folder.path()).arg("zeros");
        run(&mut tar, "tar").expect("made");
        let mut out = File::create(&whole).expect("a file");
        archive_with(&tree, b"program", 86_400, &mut out).expect("written");
        let lines = listed(&whole);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("zeros"), "{lines:?}");
        assert_eq!(lines[1], "-rwxr-xr-x 0/0 7 1970-01-02 00:00 ./usr/local/bin/sipedge-proxy");
        fs::write(&tree, [7; 1024]).expect("written");
        assert!(archive_with(&tree, b"", 0, &mut Vec::new()).is_err(), "it is no archive");
        fs::write(&tree, []).expect("written");
        assert!(archive_with(&tree, b"", 0, &mut Vec::new()).is_err(), "it has no end");
    }

    #[test]
    fn a_tree_is_made_anew_when_the_playbook_or_its_settings_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("ansible")).expect("a folder");
        let (playbook, settings) = (path("ansible/image.yml"), path("settings"));
        fs::write(&playbook, "a").expect("written");
        fs::write(&settings, "b").expect("written");
        let source = |snapshot: &str| Source {
            mirror: MIRROR.to_owned(),
            snapshot: snapshot.to_owned(),
            dated: true,
            warning: None,
        };
        let key = |source: &Source, settings| key(source, &playbook, settings).expect("readable");
        let first = key(&source("1"), None);
        assert_eq!(first, key(&source("1"), None));
        assert_ne!(first, key(&source("2"), None));
        assert_ne!(first, key(&source("1"), Some(settings.as_path())));
        fs::create_dir(path("ansible/roles")).expect("a folder");
        fs::write(path("ansible/roles/x.yml"), "c").expect("written");
        assert_ne!(first, key(&source("1"), None));
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
        let arguments = arguments(&bootstrap, MIRROR);
        assert!(arguments.contains(&"--include=a,b".to_owned()));
        assert!(arguments.contains(&r"--setup-hook=sync-in 'it'\''s here' /var/cache/apt/archives/".to_owned()));
        let place = |text: &str| arguments.iter().position(|argument| argument.contains(text));
        assert!(place("--customize-hook=true") < place("sync-out"), "packages that the hooks fetched are kept as well");
        assert_eq!(arguments[arguments.len() - 3..], ["bookworm", "-", MIRROR]);
    }
}
