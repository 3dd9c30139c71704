//! Why an image could not be built, booted or read.

use std::io;
use std::path::{Path, PathBuf};

/// Why an image could not be built, booted or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file or folder cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was to be done, such as `read`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The disk of this machine is full.
    #[error(
        "no space left in {}: an image needs about {need_mb} MB there while it is built; free some, or name another \
         folder by --cache", folder.display()
    )]
    NoSpace {
        /// The cache folder.
        folder: PathBuf,
        /// What a build needs, in megabytes.
        need_mb: u64,
    },
    /// A program that the build or the boot uses is not installed.
    #[error("`{program}` is not installed; on Debian: apt-get install {package}")]
    ProgramMissing {
        /// The program.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program ended with an error.
    #[error("{program} failed ({status}):\n{tail}")]
    Program {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The last lines that it wrote.
        tail: String,
    },
    /// A program hung, and was ended.
    #[error(
        "{program} has said nothing for {minutes} min, and was ended; try again, or name another mirror by --mirror. Its last lines:\n{tail}"
    )]
    Silent {
        /// The program.
        program: String,
        /// How long it was waited for, in minutes.
        minutes: u64,
        /// The last lines that it wrote.
        tail: String,
    },
    /// An image that has no loader for BIOS was to be booted by it.
    #[error("the {flavour} image boots by UEFI alone; leave --bios out")]
    NoBios {
        /// The flavour.
        flavour: super::Flavour,
    },
    /// The packages' mirror cannot be reached.
    #[error(
        "the mirror {mirror} does not answer: {detail}; check the network and the proxy variables, or name another mirror \
         by --mirror"
    )]
    MirrorAway {
        /// The mirror.
        mirror: String,
        /// What the package manager said.
        detail: String,
    },
    /// The mirror has no package of this name.
    #[error(
        "{mirror} has no package {package} in {suite}: a snapshot before the suite's release has none; name a later date by \
         --snapshot"
    )]
    PackageMissing {
        /// The package.
        package: String,
        /// The mirror.
        mirror: String,
        /// The suite.
        suite: String,
    },
    /// A package does not contain what it should.
    #[error("{}: {what}", path.display())]
    Package {
        /// The package or the tree it was unpacked into.
        path: PathBuf,
        /// What is missing or wrong.
        what: String,
    },
    /// Boot loader, kernel or initramfs do not fit together.
    #[error("the unified kernel image cannot be made: {0}")]
    Uki(#[from] super::uki::UkiError),
    /// GRUB's images are of another form.
    #[error("the disk cannot be made bootable by BIOS: {0}")]
    Bios(#[from] super::bios::BiosError),
    /// An initramfs cannot be written.
    #[error("the initramfs cannot be made: {0}")]
    Cpio(#[from] super::cpio::CpioError),
    /// The disk cannot be laid out.
    #[error("the disk cannot be laid out: {0}")]
    Disk(#[from] super::gpt::DiskError),
    /// A proxy that was not linked statically would need libraries that the image does not have.
    #[error(
        "{}: not a static program for x86-64 Linux: {why}; build it by `cargo build --release --target \
         x86_64-unknown-linux-musl -p sipedge-proxy`", path.display()
    )]
    NotStatic {
        /// The program.
        path: PathBuf,
        /// What gives it away.
        why: &'static str,
    },
    /// The static program cannot be built from the checkout.
    #[error("the static program {package} cannot be built: {why}; {todo}, or name one by --program")]
    CannotBuildProgram {
        /// The program.
        package: String,
        /// What is missing or wrong.
        why: String,
        /// What to do about it.
        todo: String,
    },
    /// No program was named, and there are no sources of one.
    #[error(
        "there are no sources of sipedge here to build the static program from: run this in a checkout, or name a program by --program"
    )]
    NoCheckout,
    /// Nothing of this flavour has been built.
    #[error("no {flavour} image in {}; build one by `sipedge image build --flavour {flavour}`", folder.display())]
    NotBuilt {
        /// The flavour.
        flavour: super::Flavour,
        /// The cache folder.
        folder: PathBuf,
    },
    /// The bytes are not those that were built.
    #[error(
        "{}: the image is damaged: its SHA-256 is {found}, the manifest says {expected}; build it again by `sipedge image \
         build`", path.display()
    )]
    Damaged {
        /// The image.
        path: PathBuf,
        /// SHA-256 of the manifest.
        expected: String,
        /// SHA-256 of the file.
        found: String,
    },
    /// The manifest cannot be read.
    #[error("{}: no manifest of this version of sipedge: {source}; build the image again", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl ImageError {
    /// For `map_err`: a file could not be handled, or the disk is full.
    pub(super) fn file<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| {
            if source.kind() == io::ErrorKind::StorageFull {
                Self::NoSpace { folder: crate::files::folder_of(path).to_owned(), need_mb: super::NEEDED_MB }
            } else {
                Self::File { what, path: path.to_owned(), source }
            }
        }
    }
}
