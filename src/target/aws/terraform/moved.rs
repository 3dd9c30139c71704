//! A state that is to be kept elsewhere from now on: whether it has moved, and what is at both places.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::folder::{BACKEND_FILE, Folder, INITIALISED};
use super::process::Child;
use super::{Program, TerraformError, Verb, words};
use crate::files;

/// A place of a state: a backend's type and configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    kind: String,
    config: Map<String, Value>,
}

impl Place {
    /// Where Terraform was told to keep the state when it was last initialised in `folder`. None: never, or that cannot be read.
    fn last(folder: &Folder) -> Option<Self> {
        let kept = read(&folder.root_module().join(INITIALISED))?;
        Self::of(kept["backend"]["type"].as_str()?, &kept["backend"]["config"])
    }

    /// Where `backend.tf.json` says that it is kept.
    fn next(folder: &Folder) -> Option<Self> {
        let written = read(&folder.root_module().join(BACKEND_FILE))?;
        let (kind, config) = written["terraform"]["backend"].as_object()?.iter().next()?;
        Self::of(kind, config)
    }

    fn of(kind: &str, config: &Value) -> Option<Self> {
        // Terraform keeps what is not set as null.
        let set = config.as_object()?.iter().filter(|(_, value)| !value.is_null());
        Some(Self { kind: kind.to_owned(), config: set.map(|(name, value)| (name.clone(), value.clone())).collect() })
    }

    /// What makes it this place; how it is reached may change.
    fn identity(&self) -> (&str, Vec<Option<&Value>>) {
        (&self.kind, ["path", "bucket", "key"].map(|name| self.config.get(name)).to_vec())
    }

    /// In words.
    fn describe(&self) -> String {
        let of = |name: &str| self.config.get(name).and_then(Value::as_str).unwrap_or_default();
        match self.kind.as_str() {
            "s3" => format!("s3://{}/{}", of("bucket"), of("key")),
            "local" => of("path").to_owned(),
            kind => kind.to_owned(),
        }
    }

    /// The state that is there; none when there is none, or it has no resources.
    fn state(&self, folder: &Folder, program: &Program) -> Result<Option<Kept>, TerraformError> {
        if self.kind == "local" {
            let path =
                folder.root_module().join(self.config.get("path").and_then(Value::as_str).unwrap_or(LOCAL_STATE));
            return Ok(fs::read(path).ok().and_then(|bytes| Kept::read(&bytes)));
        }
        // Terraform itself fetches it, in a folder of its own: this one has either place and not both.
        let scratch = tempfile::Builder::new().prefix("sipedge-state-").tempdir();
        let scratch =
            scratch.map_err(|error| TerraformError::io("create a folder in", &std::env::temp_dir(), error))?;
        let elsewhere = Folder::new(scratch.path(), "state");
        let (file, mode) = (elsewhere.root_module().join(BACKEND_FILE), 0o600);
        let text = json!({ "terraform": { "backend": { self.kind.as_str(): self.config } } }).to_string();
        fs::create_dir_all(elsewhere.root_module())
            .and_then(|()| files::write_whole(&file, text.as_bytes(), mode))
            .map_err(|error| TerraformError::io("write", &file, error))?;
        let init = Child::new(program, &elsewhere, words(&["init", "-input=false", "-no-color"]));
        program.must(&elsewhere, Verb::Init, init.run(&mut |_| {})?, Vec::new())?;
        let (ended, bytes) = Child::new(program, &elsewhere, words(&["state", "pull"])).read_all()?;
        program.must(&elsewhere, Verb::Pull, ended, Vec::new())?;
        Ok(Kept::read(&bytes))
    }
}

/// What an init has to do about the state's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// It stays where it is.
    Stays,
    /// It is copied to the new place, where there is none.
    Copy,
}

/// Whether the state is to be kept elsewhere from now on.
///
/// # Errors
/// [`TerraformError::TwoStates`] when there is one at both places, and not the same; whatever keeps Terraform from reading them.
pub(super) fn move_of(folder: &Folder, program: &Program) -> Result<Move, TerraformError> {
    let (Some(old), Some(new)) = (Place::last(folder), Place::next(folder)) else { return Ok(Move::Stays) };
    if old.identity() == new.identity() {
        return Ok(Move::Stays);
    }
    match (old.state(folder, program)?, new.state(folder, program)?) {
        (Some(left), Some(right)) if left != right => Err(TerraformError::TwoStates {
            old: old.describe(),
            new: new.describe(),
            resources: (left.resources, right.resources),
        }),
        _ => Ok(Move::Copy),
    }
}

/// A state that has resources.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    lineage: String,
    serial: u64,
    resources: usize,
}

impl Kept {
    fn read(bytes: &[u8]) -> Option<Self> {
        let state: Value = serde_json::from_slice(bytes).ok()?;
        let resources = state["resources"].as_array().map_or(0, Vec::len);
        let lineage = state["lineage"].as_str().unwrap_or_default().to_owned();
        (resources > 0).then(|| Self { lineage, serial: state["serial"].as_u64().unwrap_or_default(), resources })
    }
}

/// Where a local state is when nothing else is said.
const LOCAL_STATE: &str = "terraform.tfstate";

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(PathBuf::from(path)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(key: &str, extra: &Value) -> Place {
        let mut config = json!({ "bucket": "b", "key": key, "region": "us-east-1", "endpoints": null });
        if let (Some(config), Some(extra)) = (config.as_object_mut(), extra.as_object()) {
            config.extend(extra.clone());
        }
        Place::of("s3", &config).expect("a place")
    }

    #[test]
    fn how_a_place_is_reached_does_not_make_it_another() {
        let one = s3("k", &json!({}));
        assert_eq!(one.identity(), s3("k", &json!({ "profile": "voice", "use_lockfile": true })).identity());
        assert_ne!(one.identity(), s3("other", &json!({})).identity());
        let local =
            Place::of("local", &json!({ "path": "../../terraform.tfstate", "workspace_dir": null })).expect("one");
        assert_ne!(one.identity(), local.identity());
        assert_eq!((one.describe(), local.describe()), ("s3://b/k".to_owned(), "../../terraform.tfstate".to_owned()));
    }

    #[test]
    fn a_state_without_resources_is_none() {
        assert_eq!(Kept::read(b""), None);
        assert_eq!(Kept::read(br#"{"version":4,"serial":3,"lineage":"l","resources":[]}"#), None);
        let kept = Kept::read(br#"{"version":4,"serial":3,"lineage":"l","resources":[{}]}"#).expect("one");
        assert_eq!((kept.serial, kept.resources), (3, 1));
    }
}
