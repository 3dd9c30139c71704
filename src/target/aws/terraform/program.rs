//! Which Terraform there is, and whether it is new enough.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;

use super::TerraformError;
use super::is_program;

/// Environment variable that names the program instead of `terraform` or `tofu` on PATH.
pub const PROGRAM_VARIABLE: &str = "SIPEDGE_TERRAFORM";

/// Environment variable that names a folder of providers (a filesystem mirror) to take instead of the registry's.
pub const PLUGIN_FOLDER_VARIABLE: &str = "SIPEDGE_TERRAFORM_PLUGIN_DIR";

/// The modules' validations name other variables, which is new in 1.9 (Terraform 1.9 and OpenTofu 1.9 upgrade guides).
const OLDEST: Version = Version { major: 1, minor: 9, patch: 0 };

/// State locks as files in S3 (`use_lockfile`) are new in 1.10 (Terraform 1.10 and OpenTofu 1.10 changelogs).
const OLDEST_FOR_S3: Version = Version { major: 1, minor: 10, patch: 0 };

/// A Terraform or OpenTofu that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    name: &'static str,
    version: Version,
}

/// A version, without what follows the patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second.
    pub minor: u32,
    /// Third.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// Reads `1.11.4` or `v1.12.0-beta1`. None when it is something else.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('v');
        let plain = text.split(['-', '+']).next()?;
        let mut numbers = plain.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { major: next()?, minor: next()?, patch: next().unwrap_or(0) })
    }
}

impl Program {
    /// The program that [`PROGRAM_VARIABLE`] names, else `terraform`, else `tofu` on PATH; with its version, which is not checked yet.
    ///
    /// # Errors
    /// None of them is there, or it does not say its version.
    pub fn find() -> Result<Self, TerraformError> {
        let path = match std::env::var_os(PROGRAM_VARIABLE).filter(|value| !value.is_empty()) {
            Some(named) => locate(&named).ok_or_else(|| TerraformError::NotThere { named: Some(named.into()) })?,
            None => ["terraform", "tofu"]
                .iter()
                .find_map(|name| locate(name.as_ref()))
                .ok_or(TerraformError::NotThere { named: None })?,
        };
        Self::at(&path)
    }

    /// The program at `path`.
    pub fn at(path: &Path) -> Result<Self, TerraformError> {
        let unusable = |reason: String| TerraformError::NoVersion { path: path.to_owned(), reason };
        let mut command = Command::new(path);
        command.args(["version", "-json"]).stdin(Stdio::null());
        // Old ones ask the network whether there is a newer version.
        command.env("CHECKPOINT_DISABLE", "1");
        let output = command.output().map_err(|error| unusable(error.to_string()))?;
        let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing");
            unusable(format!("`version -json` was not answered with JSON: {first}"))
        })?;
        let version = Version::read(&answer.terraform_version)
            .ok_or_else(|| unusable(format!("{:?} is no version", answer.terraform_version)))?;
        let is_tofu = path.file_name().is_some_and(|name| name.to_string_lossy().contains("tofu"));
        Ok(Self { path: path.to_owned(), name: if is_tofu { "OpenTofu" } else { "Terraform" }, version })
    }

    /// Whether it is new enough; `s3`: for a state in S3 with a lock file.
    ///
    /// # Errors
    /// [`TerraformError::TooOld`].
    pub fn check(&self, s3: bool) -> Result<(), TerraformError> {
        let (needed, reason) = match s3 {
            true => (OLDEST_FOR_S3, "a state in S3 with a lock file"),
            false => (OLDEST, "the modules' variables"),
        };
        if self.version >= needed {
            return Ok(());
        }
        Err(TerraformError::TooOld { name: self.name, path: self.path.clone(), found: self.version, needed, reason })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `Terraform` or `OpenTofu`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }
}

/// The user's cache, where providers of all folders are kept: one is some 700 MB. None when there is no home.
pub(super) fn default_plugin_cache() -> Option<PathBuf> {
    let set = |variable| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(home.join("sipedge").join("terraform-providers"))
}

/// Makes the cache and takes its lock: Terraform says that two of them may not fill it at once.
pub(super) fn lock_plugin_cache(cache: &Path) -> Result<Flock<File>, TerraformError> {
    std::fs::create_dir_all(cache).map_err(|error| TerraformError::io("create", cache, error))?;
    let path = cache.join("lock");
    let begun = Instant::now();
    let mut file = File::create(&path).map_err(|error| TerraformError::io("open", &path, error))?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) if begun.elapsed() < CACHE_WITHIN => file,
            Err((_, error)) => return Err(TerraformError::io("lock", &path, error.into())),
        };
        std::thread::sleep(CACHE_CHECK);
    }
}

/// How long somebody else may take to fill the cache: 700 MB at 1 MB/s, and a little.
const CACHE_WITHIN: Duration = Duration::from_secs(15 * 60);
/// Time between two looks.
const CACHE_CHECK: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
struct Answer {
    terraform_version: String,
}

fn locate(name: &OsStr) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.components().count() > 1 {
        return is_program(path).then(|| path.to_owned());
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|file| is_program(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let read = |text| Version::read(text).expect("a version");
        assert!(read("1.10.0") > read("1.9.8"));
        assert!(read("v1.12.0-beta1") > OLDEST_FOR_S3);
        assert_eq!(read("1.11.4").to_string(), "1.11.4");
        assert_eq!(Version::read("unknown"), None);
    }
}
