//! The appliance image: built on this machine, booted before it is published.
//!
//! An image is a disk with a manifest and a bill of materials beside it. The three are one folder of the cache, which is made elsewhere and
//! renamed: they are there whole or not at all.
//!
//! ```text
//! mirror → packages → kernel, stub, root → unified kernel image → ESP → disk → manifest → boot
//! ```

pub mod bios;
mod boot;
mod boot_mode;
pub mod cpio;
mod debian;
mod disk;
mod error;
pub mod esp;
pub mod gpt;
pub mod micro;
mod mirror;
mod program;
#[cfg(feature = "aws")]
pub mod prune;
#[cfg(feature = "aws")]
pub mod publish;
#[cfg(feature = "aws")]
pub mod published;
pub mod sbom;
pub mod uki;
mod watched;
mod way;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::write_whole;
use bios::Bios;
use sbom::Package;

pub use boot::{BootError, BootRequest, Booted, boot};
pub use boot_mode::BootMode;
pub use error::ImageError;
pub use mirror::{PRESENT_MIRROR, SNAPSHOT_MIRROR};
pub use program::Checkout;
pub use way::way_to_published;

/// Megabytes that a build needs in the cache folder: packages, their tree, the disk and a copy (measured: 1.3 GB for debian).
pub const NEEDED_MB: u64 = 2000;

/// Block of an EBS snapshot, in bytes (EBS direct APIs, "block size"); what is all zeros is neither written nor uploaded.
pub const BLOCK: usize = 512 << 10;

/// Suite of the packages.
pub const SUITE: &str = "bookworm";

/// Date of the packages unless another is named: the same for everybody who builds this version of sipedge.
pub const DEFAULT_SNAPSHOT: &str = "20260101T000000Z";

/// The kernel's command line on every flavour (AWS: serial console, and NVMe requests that are never given up by time).
const CMDLINE: &str = "console=tty0 console=ttyS0,115200n8 nvme_core.io_timeout=4294967295 panic=10";

/// Form of the manifest; another number is another form.
const SCHEMA: u32 = 1;

/// Lines of a failed program's output that an error shows.
const TAIL_LINES: usize = 15;

/// What an image is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// Debian 12 with systemd, nftables, tools and the SSM agent.
    Debian,
    /// A kernel and one static program: no shell, no package, no SSM.
    Micro,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "debian",
            Self::Micro => "micro",
        })
    }
}

/// What says which image this is, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    schema: u32,
    /// What it is made of.
    pub flavour: Flavour,
    /// Version of sipedge that built it.
    pub version: String,
    /// SHA-256 of the disk, in hexadecimal.
    pub sha256: String,
    /// By which firmware it starts.
    #[serde(default)]
    pub boot_mode: BootMode,
    /// Length of the disk.
    pub bytes: u64,
    /// Bytes of those blocks of a snapshot that are not all zeros.
    pub used_bytes: u64,
    /// Archive of the packages.
    pub mirror: String,
    /// Date of the packages, as in the snapshot archive's addresses.
    pub snapshot: String,
    /// Whether the archive has the packages of this date on another day too, so that the same bytes can be built again.
    pub dated: bool,
    /// Commit that the proxy was built from, where that is known.
    pub git_commit: Option<String>,
    /// SHA-256 of the spec that the image was built for; `None` when it is for any.
    pub spec_sha256: Option<String>,
    /// SHA-256 of the proxy's program.
    pub proxy_sha256: String,
    /// SHA-256 of the bill of materials.
    pub sbom_sha256: String,
    /// The packages, sorted.
    pub packages: Vec<Package>,
}

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// What it is made of.
    pub flavour: Flavour,
    /// Where images and packages are kept.
    pub cache: PathBuf,
    /// The static program: `sipedge-proxy` for debian, `sipedge-init` for micro.
    pub program: PathBuf,
    /// The playbook that makes a Debian host an appliance; only debian has it.
    pub playbook: Option<PathBuf>,
    /// Settings of the playbook, YAML or JSON, such as the ports of a spec; only debian has them.
    pub settings: Option<PathBuf>,
    /// Archive of the packages. With `{snapshot}` in it, that is replaced by [`BuildRequest::snapshot`]; without, the packages are those that
    /// it has now. `None`: [`SNAPSHOT_MIRROR`], or [`PRESENT_MIRROR`] where that does not answer.
    pub mirror: Option<String>,
    /// Date of the packages, `YYYYMMDDTHHMMSSZ`.
    pub snapshot: String,
    /// Commit that the program was built from.
    pub git_commit: Option<String>,
    /// SHA-256 of the spec.
    pub spec_sha256: Option<String>,
    /// `Cargo.lock` of the program, for the bill of materials.
    pub lock: Option<PathBuf>,
}

/// What a build is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Something that whoever builds should know, and that keeps nothing from going on.
    Warning(String),
    /// Packages are fetched and unpacked.
    Packages,
    /// Kernel and initramfs are put together.
    Kernel,
    /// The root file system is written.
    Root,
    /// The disk is written.
    Disk,
    /// Hashes, bill of materials, manifest.
    Manifest,
}

/// An image in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its folder.
    pub folder: PathBuf,
    /// What it is.
    pub manifest: Manifest,
}

impl Image {
    /// The disk, raw.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join(DISK)
    }

    /// The image of this flavour that was built last.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotBuilt`], or what is wrong with its manifest.
    pub fn newest(cache: &Path, flavour: Flavour) -> Result<Self, ImageError> {
        let pointer = pointer(cache, flavour);
        let name = match fs::read_to_string(&pointer) {
            Ok(name) => name,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ImageError::NotBuilt { flavour, folder: cache.to_owned() });
            }
            Err(error) => return Err(ImageError::file("read", &pointer)(error)),
        };
        // A name of our own making: one part, so that it leads nowhere else.
        let name = Path::new(name.trim()).file_name().unwrap_or_default();
        Self::open(&cache.join(name))
    }

    /// The images in the cache, by their folders' names. What is none of this version of sipedge is left out.
    ///
    /// # Errors
    ///
    /// The cache cannot be read. One that is not there has no images.
    pub fn all(cache: &Path) -> Result<Vec<Self>, ImageError> {
        let entries = match fs::read_dir(cache) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ImageError::file("read", cache)(error)),
        };
        // What begins with a dot is still being made.
        let folders = entries.flatten().filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        let mut images: Vec<Self> = folders.filter_map(|entry| Self::open(&entry.path()).ok()).collect();
        images.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(images)
    }

    /// The image in this folder.
    ///
    /// # Errors
    ///
    /// What is wrong with its manifest.
    pub fn open(folder: &Path) -> Result<Self, ImageError> {
        let path = folder.join(MANIFEST);
        let text = fs::read(&path).map_err(ImageError::file("read", &path))?;
        let manifest = serde_json::from_slice(&text).map_err(|source| ImageError::Manifest { path, source })?;
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// How long its build took, where that is known.
    #[must_use]
    pub fn built_in(&self) -> Option<Duration> {
        let text = fs::read(self.folder.join(BUILT)).ok()?;
        let built: serde_json::Value = serde_json::from_slice(&text).ok()?;
        Some(Duration::from_millis(built.get("ms")?.as_u64()?))
    }

    /// Checks that the bytes are those that were built.
    ///
    /// # Errors
    ///
    /// [`ImageError::Damaged`], or that the disk cannot be read.
    pub fn check(&self) -> Result<(), ImageError> {
        let (found, _) = disk::digest(&self.disk())?;
        if found == self.manifest.sha256 {
            return Ok(());
        }
        Err(ImageError::Damaged { path: self.disk(), expected: self.manifest.sha256.clone(), found })
    }
}

/// Files of an image's folder.
const DISK: &str = "disk.raw";
const MANIFEST: &str = "manifest.json";
const SBOM: &str = "sbom.cdx.json";
const BUILT: &str = "built.json";

/// What a flavour puts on its disk.
#[derive(Debug)]
pub(crate) struct Content {
    /// The unified kernel image, once the root partition's identifier is known.
    pub(crate) kernel: Vec<u8>,
    /// A file with the root file system, for a flavour that has one.
    pub(crate) root: Option<PathBuf>,
    /// The packages in it.
    pub(crate) packages: Vec<Package>,
    /// What BIOS starts; `None` for a disk that only UEFI boots.
    pub(crate) bios: Option<Bios>,
}

/// Builds an image. What is in the cache and still fits is not built again.
///
/// # Errors
///
/// [`ImageError`]; nothing of the image is left then, and the one that was built before stays.
pub fn build(request: &BuildRequest, progress: &mut dyn FnMut(Stage)) -> Result<Image, ImageError> {
    let began = Instant::now();
    fs::create_dir_all(&request.cache).map_err(ImageError::file("create", &request.cache))?;
    let program = fs::read(&request.program).map_err(ImageError::file("read", &request.program))?;
    check_static(&request.program, &program)?;
    let work = tempfile::Builder::new().prefix(".building-").tempdir_in(&request.cache);
    let work = work.map_err(ImageError::file("write in", &request.cache))?;
    // Debian's root partition comes behind the ESP; its identifier depends on neither's size.
    let source = mirror::find(request)?;
    if let Some(warning) = &source.warning {
        progress(Stage::Warning(warning.clone()));
    }
    let label = format!("{}/{}", request.flavour, source.snapshot);
    let content = match request.flavour {
        Flavour::Micro => micro::content(request, &source, &program, progress)?,
        Flavour::Debian => {
            debian::content(request, &source, &program, work.path(), &disk::root_guid(&label)?, progress)?
        }
    };
    progress(Stage::Disk);
    let path = work.path().join(DISK);
    disk::write(&path, &label, &content)?;
    if let Some(root) = &content.root {
        fs::remove_file(root).map_err(ImageError::file("remove", root))?;
    }
    progress(Stage::Manifest);
    let (sha256, used_bytes) = disk::digest(&path)?;
    let lock = request.lock.as_deref().map(|path| fs::read_to_string(path).map_err(ImageError::file("read", path)));
    let crates = sbom::crates(&lock.transpose()?.unwrap_or_default());
    let name = format!("sipedge-{}", request.flavour);
    let version = env!("CARGO_PKG_VERSION");
    let bill = sbom::cyclonedx(&name, version, &source.snapshot, &content.packages, &crates);
    let manifest = Manifest {
        schema: SCHEMA,
        flavour: request.flavour,
        version: version.to_owned(),
        boot_mode: if content.bios.is_some() { BootMode::UefiPreferred } else { BootMode::Uefi },
        bytes: fs::metadata(&path).map_err(ImageError::file("read", &path))?.len(),
        used_bytes,
        mirror: source.mirror,
        snapshot: source.snapshot,
        dated: source.dated,
        git_commit: request.git_commit.clone(),
        spec_sha256: request.spec_sha256.clone(),
        proxy_sha256: hexadecimal(&Sha256::digest(&program)),
        sbom_sha256: hexadecimal(&Sha256::digest(&bill)),
        packages: content.packages,
        sha256,
    };
    let image = keep(request, work, &manifest, &bill, began.elapsed())?;
    tracing::info!(flavour = %request.flavour, seconds = began.elapsed().as_secs_f64(), "image built");
    Ok(image)
}

/// Renames the finished folder to its place and points to it.
fn keep(
    request: &BuildRequest,
    work: tempfile::TempDir,
    manifest: &Manifest,
    bill: &str,
    took: Duration,
) -> Result<Image, ImageError> {
    let sbom = work.path().join(SBOM);
    fs::write(&sbom, bill).map_err(ImageError::file("write", &sbom))?;
    let built = work.path().join(BUILT);
    // Beside the manifest, which is the same for the same inputs.
    let text = serde_json::json!({ "ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX) }).to_string();
    fs::write(&built, text).map_err(ImageError::file("write", &built))?;
    let text = serde_json::to_vec_pretty(manifest)
        .map_err(|source| ImageError::Manifest { path: work.path().join(MANIFEST), source })?;
    let path = work.path().join(MANIFEST);
    write_whole(&path, &text, 0o644).map_err(ImageError::file("write", &path))?;

    let name = format!("{}-{}", manifest.flavour, manifest.sha256.get(..16).unwrap_or(&manifest.sha256));
    let folder = request.cache.join(&name);
    // The same disk may have been built before, with other words about it.
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ImageError::file("replace", &folder)(error));
        }
        _ => {}
    }
    let made = work.keep();
    fs::rename(&made, &folder).map_err(ImageError::file("rename to", &folder))?;
    let pointer = pointer(&request.cache, manifest.flavour);
    write_whole(&pointer, name.as_bytes(), 0o644).map_err(ImageError::file("write", &pointer))?;
    Ok(Image { folder, manifest: manifest.clone() })
}

fn pointer(cache: &Path, flavour: Flavour) -> PathBuf {
    cache.join(format!("{flavour}.newest"))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses a program that is not for this machine type, or that needs a loader (ELF: a segment of type PT_INTERP).
fn check_static(path: &Path, program: &[u8]) -> Result<(), ImageError> {
    let refused = |why| Err(ImageError::NotStatic { path: path.to_owned(), why });
    let word = |at: usize| program.get(at..)?.first_chunk().copied().map(u16::from_le_bytes);
    let long = |at: usize| program.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
    // 64 bits, little-endian; x86-64 is machine 62.
    if !program.starts_with(b"\x7fELF\x02\x01") || word(18) != Some(62) {
        return refused("it is no program for x86-64");
    }
    let (Some(table), Some(size), Some(count)) = (long(32), word(54), word(56)) else {
        return refused("it is cut off");
    };
    let table = usize::try_from(table).unwrap_or(usize::MAX);
    for index in 0..usize::from(count) {
        let kind =
            table.checked_add(index * usize::from(size)).and_then(|at| program.get(at..)?.first_chunk().copied());
        match kind.map(u32::from_le_bytes) {
            None => return refused("it is cut off"),
            Some(3) => return refused("it needs a dynamic loader"),
            Some(_) => {}
        }
    }
    Ok(())
}

/// Runs a program to its end; its standard error when it failed.
pub(crate) fn run(command: &mut Command, package: &'static str) -> Result<String, ImageError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ImageError::ProgramMissing { program: program.clone(), package },
        _ => ImageError::File { what: "run", path: PathBuf::from(&program), source },
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(ImageError::Program { program, status: output.status.to_string(), tail: tail(&text) })
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(segment: u32) -> Vec<u8> {
        let mut bytes = vec![0; 120];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64..68].copy_from_slice(&segment.to_le_bytes());
        bytes
    }

    #[test]
    fn a_program_that_needs_a_loader_is_refused() {
        let path = Path::new("proxy");
        assert!(check_static(path, &elf(1)).is_ok());
        for (bytes, why) in [
            (elf(3), "it needs a dynamic loader"),
            (elf(1)[..60].to_vec(), "it is cut off"),
            (b"#!/bin/sh".to_vec(), "it is no program for x86-64"),
        ] {
            match check_static(path, &bytes) {
                Err(ImageError::NotStatic { why: found, .. }) => assert_eq!(found, why),
                other => panic!("{other:?}"),
            }
        }
    }

    /// An image in the cache with these bytes as its disk.
    pub(super) fn image_of(cache: &Path, bytes: &[u8]) -> Image {
        let request = BuildRequest {
            flavour: Flavour::Micro,
            cache: cache.to_owned(),
            program: PathBuf::new(),
            playbook: None,
            settings: None,
            mirror: None,
            snapshot: "20260101T000000Z".to_owned(),
            git_commit: None,
            spec_sha256: None,
            lock: None,
        };
        let work = tempfile::tempdir_in(cache).expect("a folder");
        let disk = work.path().join(DISK);
        fs::write(&disk, bytes).expect("written");
        let manifest = Manifest {
            schema: SCHEMA,
            flavour: Flavour::Micro,
            version: "1".to_owned(),
            sha256: disk::digest(&disk).expect("read").0,
            boot_mode: BootMode::Uefi,
            bytes: bytes.len() as u64,
            used_bytes: bytes.len() as u64,
            mirror: SNAPSHOT_MIRROR.to_owned(),
            snapshot: request.snapshot.clone(),
            dated: true,
            git_commit: None,
            spec_sha256: None,
            proxy_sha256: String::new(),
            sbom_sha256: String::new(),
            packages: Vec::new(),
        };
        keep(&request, work, &manifest, "{}", Duration::from_secs(2)).expect("kept")
    }

    #[test]
    fn an_image_is_found_and_damage_is_told() {
        let cache = tempfile::tempdir().expect("a folder");
        let newest = || Image::newest(cache.path(), Flavour::Micro);
        assert!(matches!(newest(), Err(ImageError::NotBuilt { .. })));
        let kept = image_of(cache.path(), b"disk");
        assert_eq!(newest().expect("found"), kept);
        assert_eq!(kept.built_in(), Some(Duration::from_secs(2)));
        assert_eq!(Image::all(cache.path()).expect("read").as_slice(), std::slice::from_ref(&kept));
        kept.check().expect("whole");
        fs::write(kept.disk(), b"disc").expect("written");
        assert!(matches!(kept.check(), Err(ImageError::Damaged { .. })));
    }
}
