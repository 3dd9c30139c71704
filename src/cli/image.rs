//! `sipedge image`: the appliance image, built on this machine.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sipedge::image::{self, BuildRequest, Flavour, Image, ImageError, Stage};

use super::exit::{self, Exit, Failure};
use super::{BuildImage, FlavourName, Global, ImageAction, ImageArgs};

pub(super) fn run(global: &Global, args: ImageArgs) -> Result<Exit, Failure> {
    let cache = match args.cache {
        Some(cache) => cache,
        None => default_cache()?,
    };
    match args.action {
        ImageAction::Build(args) => build(global, args, cache),
        ImageAction::Check { flavour } => {
            let image = Image::newest(&cache, flavour.into())?;
            image.check()?;
            show(global, &image, None)
        }
    }
}

/// How often a bar that cannot know its end moves.
const TICK: Duration = Duration::from_millis(100);

fn build(global: &Global, args: BuildImage, cache: PathBuf) -> Result<Exit, Failure> {
    let request = BuildRequest {
        flavour: args.flavour.into(),
        cache,
        program: args.program,
        playbook: args.playbook,
        settings: args.settings,
        mirror: args.mirror,
        snapshot: args.snapshot,
        git_commit: args.commit,
        spec_sha256: None,
        lock: args.lock,
    };
    let began = Instant::now();
    let bar = if std::io::stderr().is_terminal() && !global.json {
        let style =
            ProgressStyle::with_template("{spinner} {msg} {elapsed}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(TICK);
        Some(bar)
    } else {
        None
    };
    let built = image::build(&request, &mut |stage| match &bar {
        Some(bar) => bar.set_message(words(stage)),
        None if global.json => {
            // A reader that went away does not stop a build.
            let _ = exit::print(&json!({ "event": "stage", "stage": stage }).to_string());
        }
        None => eprintln!("{}", words(stage)),
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    show(global, &built?, Some(began.elapsed()))
}

fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Packages => "fetching and unpacking packages",
        Stage::Kernel => "putting kernel and initramfs together",
        Stage::Root => "writing the root file system",
        Stage::Disk => "writing the disk",
        Stage::Manifest => "hashing; writing manifest and bill of materials",
    }
}

fn show(global: &Global, image: &Image, took: Option<Duration>) -> Result<Exit, Failure> {
    let manifest = &image.manifest;
    if global.json {
        let data = json!({
            "disk": image.disk(),
            "manifest": manifest,
            "build_ms": took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        });
        // One line, as the stages before it.
        exit::print(&data.to_string())?;
        return Ok(Exit::Done);
    }
    let took = took.map(|took| format!(", built in {:.1} s", took.as_secs_f64())).unwrap_or_default();
    exit::print(&format!(
        "{}: {}{took}\nSHA-256 {}\n{:.1} MB used of {:.1} MB; {} packages of {}",
        manifest.flavour,
        image.disk().display(),
        manifest.sha256,
        megabytes(manifest.used_bytes),
        megabytes(manifest.bytes),
        manifest.packages.len(),
        manifest.snapshot,
    ))?;
    Ok(Exit::Done)
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The user's folder for what can be made again (XDG Base Directory specification).
fn default_cache() -> Result<PathBuf, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let unknown = || Failure::new(Exit::Usage, "neither XDG_CACHE_HOME nor HOME is set; name a folder by --cache");
    Ok(base.ok_or_else(unknown)?.join("sipedge/images"))
}

impl From<FlavourName> for Flavour {
    fn from(name: FlavourName) -> Self {
        match name {
            FlavourName::Debian => Self::Debian,
            FlavourName::Micro => Self::Micro,
        }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let exit = match &error {
            ImageError::NotBuilt { .. } => Exit::NothingDeployed,
            ImageError::ProgramMissing { .. } | ImageError::FirmwareMissing { .. } => Exit::TargetNotAvailable,
            ImageError::NotStatic { .. } => Exit::Usage,
            ImageError::Damaged { .. } | ImageError::Manifest { .. } => Exit::StateDamaged,
            ImageError::File { .. } | ImageError::NoSpace { .. } => Exit::Unexpected,
            _ => Exit::StepFailed,
        };
        Self::new(exit, error.to_string())
    }
}
