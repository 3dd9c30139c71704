//! The image as an instance of the lab: booted, called, and written down that it was.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{BootMode, Image, ImageError};
use crate::deploy::{self, DeployError, Options, Progress, State, now_unix_ms, rfc3339};
use crate::files::write_whole;
use crate::spec::Loaded;
use crate::target::lab::Machine;
use crate::verify::Report;

/// File of an image's folder that says that its bytes were booted and called.
const BOOTED: &str = "booted.json";

/// What to boot, and for which edge.
#[derive(Debug)]
pub struct BootRequest<'a> {
    /// The image.
    pub image: &'a Image,
    /// The spec of an edge.
    pub loaded: &'a Loaded,
    /// Where the lab keeps its state while the image runs; nothing is left there.
    pub state: &'a State,
    /// By software even where KVM can be used.
    pub emulate: bool,
    /// By BIOS instead of UEFI.
    pub bios: bool,
}

/// That these bytes were booted, and a verified call went through them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Booted {
    /// SHA-256 of the disk.
    pub sha256: String,
    /// When, as RFC 3339 has it.
    pub at: String,
    /// The topology that it was an instance of.
    pub topology: String,
    /// Milliseconds from power-on until it answered that it is ready.
    pub ready_ms: u64,
    /// Whether the processor ran it itself (KVM), and no software emulation.
    pub accelerated: bool,
    /// Checks of the call; all of them passed.
    pub checks: usize,
}

/// Why an image was not booted and called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The image.
    #[error("{0}")]
    Image(#[from] ImageError),
    /// The lab, the boot or the call.
    #[error("{0}")]
    Deploy(#[from] DeployError),
}

impl Image {
    /// That these very bytes were booted and called; `None` when they were not, or others were in their place.
    #[must_use]
    pub fn booted(&self) -> Option<Booted> {
        let text = fs::read(self.folder.join(BOOTED)).ok()?;
        let booted: Booted = serde_json::from_slice(&text).ok()?;
        (booted.sha256 == self.manifest.sha256).then_some(booted)
    }
}

/// Boots an image as the lab's only instance, with the lab's metadata, load balancer and NAT gateway around it, and places the verified
/// call through it. That it passed is kept beside the image, unless it was by BIOS: what boots by UEFI alone counts. The lab is gone afterwards, whatever came of it.
///
/// # Errors
///
/// [`BootError`]; the image does not count as booted then, even if it did before.
pub fn boot(request: &BootRequest<'_>, progress: &mut dyn Progress) -> Result<(Booted, Report), BootError> {
    let image = request.image;
    let kept = image.folder.join(BOOTED);
    if request.bios && image.manifest.boot_mode == BootMode::Uefi {
        return Err(ImageError::NoBios { flavour: image.manifest.flavour }.into());
    }
    if !request.bios {
        forget(&kept)?;
    }
    image.check()?;
    let disk = fs::canonicalize(image.disk()).map_err(ImageError::file("find", &image.disk()))?;
    let machine = Machine { bios: request.bios, ..Machine::new(&disk, request.emulate) };
    let options = Options { instances: Some(1), machine: Some(machine.clone()) };
    // What an earlier one has left that was cut off.
    deploy::destroy(request.state, progress)?;
    let deployed = deploy::deploy(request.loaded, request.state, &options, progress);
    let destroyed = deploy::destroy(request.state, progress);
    let deployed = deployed?;
    destroyed?;
    let ready_ms = deployed.status.instances.iter().find_map(|instance| instance.ready_after_ms);
    let booted = Booted {
        sha256: image.manifest.sha256.clone(),
        at: rfc3339(now_unix_ms()),
        topology: request.state.topology().to_string(),
        ready_ms: ready_ms.unwrap_or_default(),
        accelerated: machine.accelerated,
        checks: deployed.report.calls.iter().map(|call| call.checks.len()).sum(),
    };
    if request.bios {
        return Ok((booted, deployed.report));
    }
    let text =
        serde_json::to_vec_pretty(&booted).map_err(|source| ImageError::Manifest { path: kept.clone(), source })?;
    write_whole(&kept, &text, 0o644).map_err(ImageError::file("write", &kept))?;
    Ok((booted, deployed.report))
}

fn forget(kept: &Path) -> Result<(), ImageError> {
    match fs::remove_file(kept) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ImageError::file("remove", kept)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::image_of;
    use super::*;

    #[test]
    fn only_these_very_bytes_count_as_booted() {
        let cache = tempfile::tempdir().expect("a folder");
        let image = image_of(cache.path(), b"disk");
        assert_eq!(image.booted(), None);
        let booted = Booted {
            sha256: image.manifest.sha256.clone(),
            at: "2026-01-01T00:00:00Z".to_owned(),
            topology: "load-balanced".to_owned(),
            ready_ms: 3_000,
            accelerated: false,
            checks: 20,
        };
        let keep = |booted: &Booted| {
            fs::write(image.folder.join(BOOTED), serde_json::to_vec(booted).expect("JSON")).expect("written");
        };
        keep(&booted);
        assert_eq!(image.booted(), Some(booted.clone()));
        keep(&Booted { sha256: "other".to_owned(), ..booted });
        assert_eq!(image.booted(), None);
    }
}
