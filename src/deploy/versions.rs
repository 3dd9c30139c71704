//! The versions that were found good, and the plan of each: what a rollback goes back to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ARTEFACT_MODE;
use super::journal::now_unix_ms;
use super::state::{State, StateError, read_json, remove_any, write_json};
use crate::plan::Plan;

/// What `versions.json` contains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// In the order in which they went live; the last one is live, unless a refresh is in progress or was cut off.
    pub verified: Vec<Verified>,
}

/// A version through which the verified call has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// Its number.
    pub version: u64,
    /// When it was found good, in milliseconds since 1970.
    pub verified_unix_ms: u64,
}

impl Versions {
    /// The version that was found good last.
    pub fn last(&self) -> Option<u64> {
        self.verified.last().map(|verified| verified.version)
    }

    /// The version to go back to from `live`.
    pub fn before(&self, live: u64) -> Option<u64> {
        let numbers = || self.verified.iter().map(|verified| verified.version);
        match numbers().position(|version| version == live) {
            Some(place) => numbers().take(place).next_back(),
            // It was never found good: what was is older than it.
            None => numbers().rfind(|version| *version < live),
        }
    }

    /// `version` was found good. What went live after it, when it has come back, is forgotten.
    pub fn found_good(&mut self, version: u64) {
        let place = self.verified.iter().position(|verified| verified.version == version);
        self.verified.truncate(place.unwrap_or(self.verified.len()));
        self.verified.push(Verified { version, verified_unix_ms: now_unix_ms() });
    }
}

impl State {
    /// Which versions were found good.
    pub fn versions(&self) -> Result<Versions, StateError> {
        Ok(read_json(&self.versions_file())?.unwrap_or_default())
    }

    /// The plan of a version.
    pub fn plan_of(&self, version: u64) -> Result<Option<Plan>, StateError> {
        read_json(&self.plan_file_of(version))
    }

    /// Keeps the plan of a version.
    pub(super) fn keep_plan_of(&self, version: u64, plan: &Plan) -> Result<(), StateError> {
        write_json(&self.plan_file_of(version), plan, ARTEFACT_MODE)
    }

    /// Writes down that a version was found good.
    pub(super) fn found_good(&self, version: u64) -> Result<(), StateError> {
        let mut versions = self.versions()?;
        versions.found_good(version);
        write_json(&self.versions_file(), &versions, ARTEFACT_MODE)
    }

    /// Forgets all versions: what had them is gone.
    pub(super) fn forget_versions(&self) -> Result<(), StateError> {
        for path in [self.versions_file(), self.versions_folder()] {
            remove_any(&path).map_err(StateError::io("remove", &path))?;
        }
        Ok(())
    }

    fn versions_file(&self) -> PathBuf {
        self.folder().join("versions.json")
    }

    fn versions_folder(&self) -> PathBuf {
        self.folder().join("versions")
    }

    fn plan_file_of(&self, version: u64) -> PathBuf {
        self.versions_folder().join(format!("{version}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(versions: &Versions) -> Vec<u64> {
        versions.verified.iter().map(|verified| verified.version).collect()
    }

    #[test]
    fn one_goes_back_to_what_was_live_before() {
        let mut versions = Versions::default();
        assert_eq!(versions.before(1), None);
        for version in [1, 2, 4] {
            versions.found_good(version);
        }
        assert_eq!((versions.last(), versions.before(4), versions.before(1)), (Some(4), Some(2), None));
        assert_eq!(versions.before(5), Some(4), "a version that was not found good");
        assert_eq!(versions.before(3), Some(2), "nor was this one, and version 4 came after it");
        versions.found_good(2);
        assert_eq!(numbers(&versions), [1, 2], "version 4 is forgotten");
        versions.found_good(5);
        assert_eq!((numbers(&versions), versions.before(5)), (vec![1, 2, 5], Some(2)));
        versions.found_good(5);
        assert_eq!(numbers(&versions), [1, 2, 5]);
    }
}
