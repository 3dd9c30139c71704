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

/// A boot of an image that got ready. What else is in the file is for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Booted {
    #[serde(default = "this_form")]
    schema: u32,
    /// SHA-256 of the disk that was booted, in hexadecimal.
    pub sha256: String,
    /// When (RFC 3339, UTC).
    #[serde(alias = "at")]
    pub booted_at: String,
    /// Seconds from power-on until it was ready, where that was measured.
    pub seconds_to_ready: Option<f64>,
    /// The verified call through it. A boot that says nothing of it was written down because it had passed.
    #[serde(default = "passed")]
    pub call: CallResult,
}

fn this_form() -> u32 {
    SCHEMA
}

fn passed() -> CallResult {
    CallResult::Passed
}

impl Booted {
    /// A boot of this image.
    #[must_use]
    pub fn of(image: &Image, booted_at: String, seconds_to_ready: f64, call: CallResult) -> Self {
        let sha256 = image.manifest.sha256.clone();
        Self { schema: SCHEMA, sha256, booted_at, seconds_to_ready: Some(seconds_to_ready), call }
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

#[cfg(test)]
mod tests {
    use super::super::tests::an_image;
    use super::*;

    #[test]
    fn only_a_call_that_passed_through_these_bytes_proves() {
        let cache = tempfile::tempdir().expect("a folder");
        let image = an_image(cache.path(), b"disk");
        assert_eq!(Booted::read(&image).expect("read"), None);
        let booted = Booted::of(&image, "2026-11-20T12:00:00Z".to_owned(), 3.5, CallResult::Passed);
        booted.write(&image.folder).expect("written");
        assert_eq!(Booted::read(&image).expect("read"), Some(booted.clone()));
        assert!(booted.proves(&image));
        assert!(!Booted { call: CallResult::Failed, ..booted.clone() }.proves(&image));
        assert!(!Booted { sha256: String::new(), ..booted }.proves(&image));

        let short =
            format!(r#"{{ "sha256": "{}", "at": "2026-11-20T12:00:00Z", "checks": 9 }}"#, image.manifest.sha256);
        fs::write(image.folder.join(FILE), short).expect("written");
        let read = Booted::read(&image).expect("read").expect("a boot");
        assert!(read.proves(&image) && read.seconds_to_ready.is_none());
        fs::write(image.folder.join(FILE), "{").expect("written");
        assert!(matches!(Booted::read(&image), Err(ImageError::Booted { .. })));
    }
}
