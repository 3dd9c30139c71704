//! The flavour `micro`: Debian's cloud kernel, and an initramfs with one static program as its first process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::Archive;
use super::debian::{self, Bootstrap};
use super::mirror::Source;
use super::sbom::{Package, packages};
use super::uki::{self, Parts};
use super::{BuildRequest, CMDLINE, Content, ImageError, Stage, run};

/// Kernel for virtual machines of clouds: it has ENA, NVMe and virtio, and little else.
pub const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// Package of systemd's EFI stub, and where it is in it.
const STUB_PACKAGE: &str = "systemd-boot-efi";
const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Drivers that the machine needs: the network of EC2's Nitro, and of QEMU. There is no disk to mount, so none for disks.
const DRIVERS: [&str; 3] = ["ena", "virtio_pci", "virtio_net"];

/// Major and minor number of the console that the kernel opens for the first process (Documentation/admin-guide/devices.txt).
const CONSOLE: (u32, u32) = (5, 1);

/// Command line of this flavour alone: the kernel does not test its ciphers, which nothing on it uses (TLS is the proxy's own). A fifth of a
/// second under software emulation.
const OWN_CMDLINE: &str = "cryptomgr.notests";

/// Level of the initramfs's compression: the best one that needs no larger window than the kernel has (8 MiB, zstd(1), `--ultra`).
const LEVEL: i32 = 19;

/// What `/etc/os-release` says; the kernel image bears it too.
const OS_RELEASE: &str = concat!(
    "ID=sipedge\nNAME=sipedge\nVARIANT_ID=micro\nVERSION_ID=",
    env!("CARGO_PKG_VERSION"),
    "\nPRETTY_NAME=\"sipedge micro ",
    env!("CARGO_PKG_VERSION"),
    "\"\n"
);

/// What the disk holds.
pub(super) fn content(
    request: &BuildRequest,
    source: &Source,
    program: &[u8],
    progress: &mut dyn FnMut(Stage),
) -> Result<Content, ImageError> {
    progress(Stage::Packages);
    let tree = unpacked(request, source)?;
    progress(Stage::Kernel);
    let kernel = one_file(&tree.join("boot"), "vmlinuz-")?;
    let linux = fs::read(&kernel).map_err(ImageError::file("read", &kernel))?;
    let stub_path = tree.join(STUB);
    let stub = fs::read(&stub_path).map_err(ImageError::file("read", &stub_path))?;
    let (modules, merged) = (tree.join("lib/modules"), tree.join("usr/lib/modules"));
    let drivers = Drivers::find(if modules.is_dir() { &modules } else { &merged })?;
    let initrd = initramfs(program, &drivers.in_order(&DRIVERS)?)?;
    let cmdline = format!("{CMDLINE} {OWN_CMDLINE}");
    let parts = Parts { stub: &stub, linux: &linux, initrd: &initrd, cmdline: &cmdline, os_release: OS_RELEASE };
    let listing = tree.join(LISTING);
    let listing = fs::read_to_string(&listing).map_err(ImageError::file("read", &listing))?;
    // Only these two are in the image, though the mirror gave what they depend on as well.
    let inside = |package: &Package| package.name.starts_with("linux-image-") || package.name == STUB_PACKAGE;
    let packages = packages(&listing).into_iter().filter(inside).collect();
    Ok(Content { kernel: uki::build(&parts)?, root: None, packages, bios: None })
}

/// The packages' list, beside what was unpacked.
const LISTING: &str = "packages.tsv";

/// The tree of kernel and stub, from the cache when it is of the same date and mirror.
fn unpacked(request: &BuildRequest, source: &Source) -> Result<PathBuf, ImageError> {
    let name = format!("micro-packages-{}", super::gpt::guid_from(&format!("{}/{}", source.mirror, source.snapshot)));
    let place = request.cache.join(name);
    if place.is_dir() {
        return Ok(place);
    }
    let work = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(&request.cache);
    let work = work.map_err(ImageError::file("write in", &request.cache))?;
    let archive = work.path().join("packages.tar");
    // A folder of its own, so that what is in it afterwards is what was unpacked.
    let downloads = work.path().join("packages");
    let bootstrap = Bootstrap {
        variant: "extract",
        include: &[KERNEL_PACKAGE, STUB_PACKAGE],
        hooks: &[],
        downloads: &downloads,
        cache: &request.cache,
        mirror: &source.mirror,
        snapshot: &source.snapshot,
    };
    debian::bootstrap(&bootstrap, &archive)?;
    let tree = work.path().join("tree");
    fs::create_dir(&tree).map_err(ImageError::file("create", &tree))?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--no-same-owner").arg("--file").arg(&archive).arg("--directory").arg(&tree);
    // The modules are below /lib or /usr/lib, as the kernel's package and the merging of the two would have it.
    tar.args(["--wildcards", "./boot/vmlinuz-*", "*lib/modules/*", &format!("./{STUB}")]);
    run(&mut tar, "tar")?;
    let files = fs::read_dir(&downloads).map_err(ImageError::file("read", &downloads))?;
    let names = files.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let listing = tree.join(LISTING);
    fs::write(&listing, listing_of(names)).map_err(ImageError::file("write", &listing))?;
    fs::rename(&tree, &place).map_err(ImageError::file("rename to", &place))?;
    Ok(place)
}

/// The names of packages' files, `NAME_VERSION_ARCHITECTURE.deb`, as the lines that [`packages`] reads; other files are left out.
fn listing_of(names: impl Iterator<Item = String>) -> String {
    let line = |name: String| {
        let mut fields = name.strip_suffix(".deb")?.split('_');
        let (package, version, architecture) = (fields.next()?, fields.next()?, fields.next()?);
        // apt writes the colon of an epoch as in an address.
        Some(format!("{package}\t{}\t{architecture}\n", version.replace("%3a", ":")))
    };
    names.filter_map(line).collect()
}

/// The only file of a folder whose name begins so.
fn one_file(folder: &Path, prefix: &str) -> Result<PathBuf, ImageError> {
    let entries = fs::read_dir(folder).map_err(ImageError::file("read", folder))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(ImageError::Package { path: folder.to_owned(), what: format!("there is no {prefix}*") }),
        _ => Err(ImageError::Package { path: folder.to_owned(), what: format!("there is more than one {prefix}*") }),
    }
}

/// Program, console, drivers in their order, roots for names: compressed by zstd.
fn initramfs(program: &[u8], drivers: &[(String, Vec<u8>)]) -> Result<Vec<u8>, ImageError> {
    let mut archive = Archive::new();
    archive.file("init", 0o755, program)?;
    archive.device("dev/console", 0o600, CONSOLE.0, CONSOLE.1)?;
    for folder in ["proc", "sys", "run", "etc/sipedge/secrets"] {
        archive.folder(folder, 0o755)?;
    }
    archive.file("etc/os-release", 0o644, OS_RELEASE)?;
    archive.file("etc/hosts", 0o644, "127.0.0.1 localhost\n")?;
    let mut order = String::new();
    for (name, driver) in drivers {
        let path = format!("lib/modules/{name}.ko");
        archive.file(&path, 0o644, driver.as_slice())?;
        order.push_str(&format!("/{path}\n"));
    }
    archive.file("lib/modules/order", 0o644, order)?;
    let packed = zstd::stream::encode_all(archive.to_bytes().as_slice(), LEVEL);
    packed.map_err(|source| ImageError::File { what: "compress", path: PathBuf::from("initramfs"), source })
}

/// The kernel's modules.
#[derive(Debug, Default)]
struct Drivers {
    /// By name, with underscores as the kernel has them.
    files: BTreeMap<String, PathBuf>,
    /// What the kernel has in itself.
    built_in: BTreeSet<String>,
    folder: PathBuf,
}

impl Drivers {
    fn find(folder: &Path) -> Result<Self, ImageError> {
        let mut found = Self { folder: folder.to_owned(), ..Self::default() };
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(ImageError::file("read", &folder))?.flatten() {
                let path = entry.path();
                // Not through links: `build` and `source` lead out of the tree.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                    continue;
                }
                let name = entry.file_name().to_string_lossy().into_owned();
                if name == "modules.builtin" {
                    let text = fs::read_to_string(&path).map_err(ImageError::file("read", &path))?;
                    found.built_in.extend(text.lines().filter_map(|line| name_of(Path::new(line))));
                } else if let Some(name) = name_of(&path) {
                    found.files.insert(name, path);
                }
            }
        }
        Ok(found)
    }

    /// These and all that they need, each behind what it needs.
    fn in_order(&self, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>, ImageError> {
        let mut ordered = Vec::new();
        let mut begun = BTreeSet::new();
        for name in wanted {
            self.add(name, &mut begun, &mut ordered)?;
        }
        Ok(ordered)
    }

    fn add(
        &self,
        name: &str,
        begun: &mut BTreeSet<String>,
        ordered: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<(), ImageError> {
        // The kernel's modules need each other in no circle; a name that was begun is there or on its way.
        if self.built_in.contains(name) || !begun.insert(name.to_owned()) {
            return Ok(());
        }
        let missing = || {
            let what =
                format!("the kernel has no driver {name}, or has it compressed, which the first process cannot load");
            ImageError::Package { path: self.folder.clone(), what }
        };
        let path = self.files.get(name).ok_or_else(missing)?;
        let driver = fs::read(path).map_err(ImageError::file("read", path))?;
        for needed in needed_by(&driver) {
            self.add(&needed, begun, ordered)?;
        }
        ordered.push((name.to_owned(), driver));
        Ok(())
    }
}

/// The name of a module by its file's: `virtio-rng.ko` is `virtio_rng`.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".ko")?;
    Some(name.replace('-', "_"))
}

/// What a module's own information says that it needs: the string `depends=a,b` among others that end in NUL (modinfo(8)). depmod's list
/// is made on installation, which has not happened.
fn needed_by(module: &[u8]) -> Vec<String> {
    let mut strings = module.split(|byte| *byte == 0);
    let list = strings.find_map(|string| string.strip_prefix(b"depends=")).unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(files: &[(&str, &str)], built_in: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let kernel = folder.path().join("6.1.0-cloud-amd64/kernel/drivers");
        fs::create_dir_all(&kernel).expect("made");
        for (name, needs) in files {
            fs::write(kernel.join(format!("{name}.ko")), format!("\x7fELF\0license=GPL\0depends={needs}\0more"))
                .expect("written");
        }
        fs::write(folder.path().join("6.1.0-cloud-amd64/modules.builtin"), built_in).expect("written");
        folder
    }

    fn names(folder: &Path, wanted: &[&str]) -> Result<Vec<String>, ImageError> {
        let ordered = Drivers::find(folder).and_then(|drivers| drivers.in_order(wanted))?;
        Ok(ordered.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn drivers_come_behind_what_they_need() {
        let files =
            [("virtio_net", "virtio,net-failover"), ("net_failover", "failover"), ("failover", ""), ("virtio", "")];
        let folder = modules(&files, "kernel/drivers/net/ena.ko\n");
        let names = names(folder.path(), &["ena", "virtio_net"]).expect("all there");
        assert_eq!(names, ["virtio", "failover", "net_failover", "virtio_net"]);
    }

    #[test]
    fn a_driver_that_is_missing_is_named() {
        let folder = modules(&[], "");
        let error = names(folder.path(), &["ena"]).expect_err("there is none").to_string();
        assert!(error.contains("no driver ena"), "{error}");
    }

    #[test]
    fn the_initramfs_is_the_same_each_time_and_names_its_drivers() {
        let drivers = [("b".to_owned(), vec![1]), ("a".to_owned(), vec![2])];
        let packed = initramfs(b"program", &drivers).expect("made");
        assert_eq!(packed, initramfs(b"program", &drivers).expect("made"));
        let bytes = zstd::stream::decode_all(packed.as_slice()).expect("zstd");
        let order = b"/lib/modules/b.ko\n/lib/modules/a.ko\n";
        assert!(bytes.windows(order.len()).any(|part| part == order), "the order is the one that was given");
    }

    #[test]
    fn files_of_packages_become_a_listing() {
        let names = ["a_1%3a2-3_all.deb", "lock", "b_2_amd64.deb", "broken.deb"].map(str::to_owned);
        assert_eq!(listing_of(names.into_iter()), "a\t1:2-3\tall\nb\t2\tamd64\n");
    }
}
