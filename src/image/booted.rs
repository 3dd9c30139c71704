//! That an image was booted, and that a call went through it: a file beside the manifest, which a publish asks for.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Image, ImageError};
use crate::files::write_whole;

/// Form of the file; another number is another form.
const SCHEMA: u32 = 1;

/// The file in an image's folder.
const FILE: &str = "booted.json";

/// What the verified call ended in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallResult {
    /// Every check of it passed.
    Passed,
    /// Some did not.
    Failed,
}

/// A boot of an image that got ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Booted {
    schema: u32,
    /// SHA-256 of the disk that was booted, in hexadecimal.
    pub sha256: String,
    /// When (RFC 3339, UTC).
    pub booted_at: String,
    /// Seconds from power-on until it was ready.
    pub seconds_to_ready: f64,
    /// The verified call through it.
    pub call: CallResult,
}

impl Booted {
    /// A boot of this image.
    #[must_use]
    pub fn of(image: &Image, booted_at: String, seconds_to_ready: f64, call: CallResult) -> Self {
        Self { schema: SCHEMA, sha256: image.manifest.sha256.clone(), booted_at, seconds_to_ready, call }
    }

    /// The last boot of an image; none when it was never booted.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is none of this version of sipedge.
    pub fn read(image: &Image) -> Result<Option<Self>, ImageError> {
        let path = image.folder.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ImageError::file("read", &path)(error)),
        };
        let booted: Self =
            serde_json::from_slice(&text).map_err(|source| ImageError::Booted { path: path.clone(), source })?;
        Ok(Some(booted).filter(|booted| booted.schema == SCHEMA))
    }

    /// Keeps it beside the manifest, in the place of the boot before.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ImageError> {
        let path = folder.join(FILE);
        let text =
            serde_json::to_vec_pretty(self).map_err(|source| ImageError::Booted { path: path.clone(), source })?;
        write_whole(&path, &text, 0o644).map_err(ImageError::file("write", &path))
    }

    /// Whether the call passed, through these very bytes.
    #[must_use]
    pub fn proves(&self, image: &Image) -> bool {
        self.call == CallResult::Passed && self.sha256 == image.manifest.sha256
    }
}
