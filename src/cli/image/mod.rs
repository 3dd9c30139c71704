//! `sipedge image`: the appliance image, built on this machine.

mod arguments;
#[cfg(feature = "aws")]
pub(super) mod bring;
pub(super) mod list;
#[cfg(feature = "aws")]
mod published;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sipedge::deploy::{self, Cause, DeployError, Project};
use sipedge::image::{self, BootError, BootRequest, Booted, BuildRequest, Checkout, Flavour, Image, ImageError, Stage};
use sipedge::spec::{self, Spec};

#[cfg(feature = "aws")]
use self::published as account;
use super::exit::{self, Exit, Failure};
#[cfg(not(feature = "aws"))]
use super::no_aws as account;
use super::{DEFAULT_SPEC, Global, Reports, edge};
use arguments::{BootImage, BuildImage, FlavourName, ImageAction};
pub(super) use arguments::{ImageArgs, PruneImages};

pub(super) fn run(global: &Global, args: ImageArgs) -> Result<Exit, Failure> {
    let cache = match args.cache {
        Some(cache) => cache,
        None => default_cache()?,
    };
    match args.action {
        ImageAction::Build(args) => build(global, args, cache),
        ImageAction::Boot(args) => boot(global, &args, &cache),
        ImageAction::Check { flavour } => {
            let image = Image::newest(&cache, flavour.into())?;
            image.check()?;
            show(global, &image, None)
        }
        ImageAction::Publish { flavour } => account::publish_image(global, &cache, flavour.into()),
        ImageAction::List { local } => list::run(global, &cache, local),
        ImageAction::Prune(args) => account::prune_images(global, &args),
    }
}

/// How often a bar that cannot know its end moves.
const TICK: Duration = Duration::from_millis(100);

fn build(global: &Global, args: BuildImage, cache: PathBuf) -> Result<Exit, Failure> {
    let flavour: Flavour = args.flavour.into();
    let checkout = Checkout::find();
    let (program, sources) = match args.program {
        Some(program) => (program, None),
        None => {
            let checkout = checkout.as_ref().ok_or(ImageError::NoCheckout)?;
            tell(global, "building the static program");
            (checkout.build(flavour)?, Some(checkout))
        }
    };
    let request = BuildRequest {
        flavour,
        cache,
        program,
        playbook: args.playbook.or_else(|| checkout.as_ref().map(Checkout::playbook)),
        settings: args.settings,
        mirror: args.mirror,
        snapshot: args.snapshot,
        git_commit: args.commit.or_else(|| sources.and_then(Checkout::commit)),
        spec_sha256: None,
        lock: args.lock.or_else(|| sources.map(Checkout::lock)),
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
    let built = image::build(&request, &mut |stage| match (&bar, &stage) {
        (_, Stage::Warning(text)) if global.json => {
            // A reader that went away does not stop a build.
            let _ = exit::print(&json!({ "event": "warning", "text": text }).to_string());
        }
        (Some(bar), Stage::Warning(text)) => bar.suspend(|| eprintln!("warning: {text}")),
        (None, Stage::Warning(text)) => eprintln!("warning: {text}"),
        (Some(bar), _) => bar.set_message(words(&stage)),
        (None, _) if global.json => {
            let _ = exit::print(&json!({ "event": "stage", "stage": stage }).to_string());
        }
        (None, _) => eprintln!("{}", words(&stage)),
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    show(global, &built?, Some(began.elapsed()))
}

/// What is done before the build itself.
fn tell(global: &Global, what: &str) {
    if global.json {
        // As above.
        let _ = exit::print(&json!({ "event": "stage", "stage": "program" }).to_string());
    } else {
        eprintln!("{what}");
    }
}

fn boot(global: &Global, args: &BootImage, cache: &Path) -> Result<Exit, Failure> {
    let flavour: Flavour = args.flavour.into();
    let image = Image::newest(cache, flavour)?;
    // Without a spec: the edge that `sipedge init` would write.
    let own = if global.spec.exists() || global.environment.is_some() || global.spec != Path::new(DEFAULT_SPEC) {
        None
    } else {
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::new(Exit::Unexpected, format!("cannot make a folder for the lab: {error}")))?;
        Some(folder)
    };
    let (loaded, spec) = match &own {
        None => (global.load_spec()?, global.spec.clone()),
        Some(folder) => (Spec::parse(DEFAULT_SPEC, &spec::init_text("edge"))?, folder.path().join(DEFAULT_SPEC)),
    };
    // Beside a deployed edge of the same name, which goes on.
    let project = Project::new(&spec, &format!("{}.image-{flavour}", loaded.spec.name))
        .map_err(|error| Failure::new(Exit::Unexpected, format!("cannot find the folder of the spec: {error}")))?;
    let state = project.state(args.topology.into());
    let request = BootRequest { image: &image, loaded: &loaded, state: &state, emulate: args.emulate, bios: args.bios };
    let mut progress = deploy::for_output(global.json);
    let (booted, report) = match image::boot(&request, progress.as_mut()) {
        Ok(done) => done,
        Err(BootError::Image(error)) => return Err(error.into()),
        Err(BootError::Deploy(error)) => return Err(not_booted(error, &args.reports, global.json)),
        Err(error) => return Err(Failure::new(Exit::Unexpected, error.to_string())),
    };
    edge::show_report(&report, &args.reports, global.json, true)?;
    show_booted(global, &image, &booted)
}

/// The failure of a boot. The lab is gone, so that nothing of a deploy's advice is of use.
fn not_booted(error: DeployError, reports: &Reports, json: bool) -> Failure {
    let DeployError::Step(failed) = error else { return error.into() };
    let exit = exit::exit_of(&failed.cause);
    if let Cause::Verification(report) = &failed.cause
        && let Err(failure) = edge::show_report(report, reports, json, true)
    {
        return failure;
    }
    Failure::new(exit, format!("the image was not booted and called: {}", failed.cause))
}

fn show_booted(global: &Global, image: &Image, booted: &Booted) -> Result<Exit, Failure> {
    let manifest = &image.manifest;
    let built = image.built_in();
    if global.json {
        let data = json!({
            "event": "booted",
            "disk": image.disk(),
            "booted": booted,
            "build_ms": built.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            "bytes": manifest.bytes,
            "used_bytes": manifest.used_bytes,
            "packages": manifest.packages.len(),
        });
        exit::print(&data.to_string())?;
        return Ok(Exit::Done);
    }
    let built = built.map(|took| format!("built in {:.1} s, ", took.as_secs_f64())).unwrap_or_default();
    let how = if booted.accelerated { "KVM" } else { "software emulation" };
    exit::print(&format!(
        "{}: {built}ready {:.1} s after power-on ({how}), call passed ({} checks)\nSHA-256 {}\n{:.1} MB used of {:.1} MB; {} packages of {}",
        manifest.flavour,
        Duration::from_millis(booted.ready_ms).as_secs_f64(),
        booted.checks,
        manifest.sha256,
        megabytes(manifest.used_bytes),
        megabytes(manifest.bytes),
        manifest.packages.len(),
        manifest.snapshot,
    ))?;
    Ok(Exit::Done)
}

fn words(stage: &Stage) -> &'static str {
    match stage {
        Stage::Warning(_) => "",
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
pub(super) fn default_cache() -> Result<PathBuf, Failure> {
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
            ImageError::ProgramMissing { .. } | ImageError::CannotBuildProgram { .. } => Exit::TargetNotAvailable,
            ImageError::NoCheckout | ImageError::NotStatic { .. } => Exit::Usage,
            ImageError::Damaged { .. } | ImageError::Manifest { .. } => Exit::StateDamaged,
            ImageError::File { .. } | ImageError::NoSpace { .. } => Exit::Unexpected,
            _ => Exit::StepFailed,
        };
        Self::new(exit, error.to_string())
    }
}
