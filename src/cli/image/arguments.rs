//! What `sipedge image` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sipedge::image::DEFAULT_SNAPSHOT;

use crate::cli::{Reports, TopologyName};

#[derive(Debug, Args)]
pub(in crate::cli) struct ImageArgs {
    /// Where images and downloaded packages are kept; `$XDG_CACHE_HOME/sipedge/images` when it is left out.
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) cache: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) action: ImageAction,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ImageAction {
    #[command(after_help = "\
Examples:
  sipedge image build --flavour micro                 the program is built by cargo, from the checkout around this folder
  sipedge image build --flavour micro --json
  sipedge image build --snapshot 20260101T000000Z --program sipedge-proxy --playbook ansible/image.yml

Neither root nor loop devices are needed. The same program, packages' date and sipedge give the same bytes as far as the packages do.")]
    /// Builds a bootable disk with manifest and bill of materials.
    Build(BuildImage),
    #[command(after_help = "\
Examples:
  sipedge image boot --flavour micro                  as the only instance of a lab of its own, behind the NLB
  sipedge image boot single-ec2 --flavour micro       the same with an Elastic IP
  sipedge image boot --flavour micro --emulate --json
  sipedge image boot --flavour debian --bios          as an instance type without UEFI

The edge is that of the spec; where there is none, that of `sipedge init`. That these bytes were booted and called is kept beside the
image: without it, it cannot be published. Exit codes: 4 without QEMU, firmware or user namespaces, 5 when it does not get ready, 6 when
the call does not pass, 7 when there is no image, 9 when it is not what was built.")]
    /// Boots the image that was built last in QEMU as an instance of the lab, and places the verified call through it.
    Boot(BootImage),
    #[command(after_help = "Examples:\n  sipedge image check --flavour micro --json")]
    /// Checks that the image that was built last is still what was built, and shows it.
    Check {
        /// What the image is made of.
        #[arg(long, value_enum, default_value_t = FlavourName::Debian)]
        flavour: FlavourName,
    },
    #[command(after_help = "\
Examples:
  sipedge image publish                   the debian image that was built last, to the account of the spec
  sipedge image publish --flavour micro --json

Only an image that `sipedge image boot` has booted and called, byte for byte, is published. A publish that was cut off is continued by the
same command; one that is done says so.")]
    /// Brings the image that was built last to the account and region that the spec names.
    Publish {
        /// What the image is made of.
        #[arg(long, value_enum, default_value_t = FlavourName::Debian)]
        flavour: FlavourName,
    },
    #[command(after_help = "\
Examples:
  sipedge image list                      the images on this machine and those in the account of the spec
  sipedge image list --local --json       those on this machine")]
    /// Shows the images on this machine and in the account.
    List {
        /// Asks no account.
        #[arg(long)]
        local: bool,
    },
    #[command(after_help = "\
Examples:
  sipedge image prune --keep 3 --dry-run  shows what would go
  sipedge image prune --keep 3            shows what goes, asks, and removes it
  sipedge image prune --keep 3 --yes      the same for a pipeline, which cannot be asked

An image that an instance or a version of a launch template names stays in any case.")]
    /// Removes published images from the account, but for the newest of each flavour, and their snapshots.
    Prune(PruneImages),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PruneImages {
    /// How many of each flavour stay.
    #[arg(long, value_name = "N")]
    pub(super) keep: usize,
    /// Shows what would go, and removes nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Does not ask.
    #[arg(long, short)]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct BuildImage {
    /// What the image is made of.
    #[arg(long, value_enum, default_value_t = FlavourName::Debian)]
    pub(super) flavour: FlavourName,
    /// The static program in it: sipedge-proxy for debian, sipedge-init for micro. Left out: cargo builds it from the checkout around this
    /// folder.
    #[arg(long, value_name = "FILE")]
    pub(super) program: Option<PathBuf>,
    /// The playbook that makes Debian an appliance. Left out: that of the checkout.
    #[arg(long, value_name = "FILE")]
    pub(super) playbook: Option<PathBuf>,
    /// Settings of the playbook, YAML or JSON, such as the ports of SIP; ansible/group_vars/all.yml lists them.
    #[arg(long, value_name = "FILE")]
    pub(super) settings: Option<PathBuf>,
    /// Archive of the packages; {snapshot} in it stands for the date. Left out: snapshot.debian.org, or, when that does not answer,
    /// deb.debian.org with the packages of today.
    #[arg(long, value_name = "URL")]
    pub(super) mirror: Option<String>,
    /// Date of the packages, as the snapshot archive writes it.
    #[arg(long, value_name = "YYYYMMDDTHHMMSSZ", default_value = DEFAULT_SNAPSHOT)]
    pub(super) snapshot: String,
    /// Commit that the program was built from, for the manifest. Left out: that of the checkout, when the program is built from it.
    #[arg(long, value_name = "COMMIT")]
    pub(super) commit: Option<String>,
    /// Cargo.lock that the program was built by, for the bill of materials. Left out: that of the checkout, likewise.
    #[arg(long, value_name = "FILE")]
    pub(super) lock: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct BootImage {
    /// The topology that it is an instance of.
    #[arg(default_value = "load-balanced")]
    pub(super) topology: TopologyName,
    /// What the image is made of.
    #[arg(long, value_enum, default_value_t = FlavourName::Debian)]
    pub(super) flavour: FlavourName,
    /// By software, even where the processor can run it (KVM).
    #[arg(long)]
    pub(super) emulate: bool,
    /// By BIOS instead of UEFI, as older instance types do; debian alone. It is not counted as the boot that publishing asks for.
    #[arg(long)]
    pub(super) bios: bool,
    #[command(flatten)]
    pub(super) reports: Reports,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FlavourName {
    /// Debian 12 with systemd, tools and the SSM agent.
    Debian,
    /// A kernel and one static program: no shell, no SSM.
    Micro,
}
