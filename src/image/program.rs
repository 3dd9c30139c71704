//! The static program of an image, built from a checkout by cargo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Flavour, ImageError, tail};

/// The target of static programs.
const TARGET: &str = "x86_64-unknown-linux-musl";

/// The profile of images' programs in the checkout's `Cargo.toml`.
const PROFILE: &str = "appliance";

/// The C compilers for it that cargo's packages look for; a variable may name another.
const COMPILERS: [&str; 2] = ["x86_64-linux-musl-gcc", "musl-gcc"];
const COMPILER_VARIABLES: [&str; 2] = ["CC_x86_64_unknown_linux_musl", "CC_x86_64-unknown-linux-musl"];

/// A working copy of sipedge's sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The one around the current folder, or around this program.
    #[must_use]
    pub fn find() -> Option<Self> {
        let here = std::env::current_dir().ok();
        let own = std::env::current_exe().ok();
        let is_root =
            |folder: &&Path| folder.join("crates/init/Cargo.toml").is_file() && folder.join("Cargo.lock").is_file();
        let places = here.into_iter().chain(own);
        places.into_iter().find_map(|place| Some(Self { root: place.ancestors().find(is_root)?.to_owned() }))
    }

    /// Its `Cargo.lock`.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("Cargo.lock")
    }

    /// The playbook that makes a Debian host an appliance.
    #[must_use]
    pub fn playbook(&self) -> PathBuf {
        self.root.join("ansible/image.yml")
    }

    /// The commit that it is of, with `-changed` when files differ from it; none when git does not know.
    #[must_use]
    pub fn commit(&self) -> Option<String> {
        let git = |arguments: &[&str]| {
            let output =
                Command::new("git").arg("-C").arg(&self.root).args(arguments).stderr(Stdio::null()).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let commit = git(&["rev-parse", "HEAD"])?;
        let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
        Some(if changed.is_empty() { commit } else { format!("{commit}-changed") })
    }

    /// Builds the program of a flavour, or finds it built; its path.
    ///
    /// # Errors
    ///
    /// [`ImageError::CannotBuildProgram`] with what is missing and what to type.
    pub fn build(&self, flavour: Flavour) -> Result<PathBuf, ImageError> {
        let package = package(flavour);
        let failed = |why: &str, todo: &str| ImageError::CannotBuildProgram {
            package: package.to_owned(),
            why: why.to_owned(),
            todo: todo.to_owned(),
        };
        if !has_compiler() {
            return Err(failed("there is no C compiler for musl", "on Debian: apt-get install musl-tools"));
        }
        let mut command = Command::new("cargo");
        command.args(["build", "--profile", PROFILE, "--locked", "--target", TARGET, "--package", package]);
        command.args(["--message-format", "json-render-diagnostics"]).current_dir(&self.root).stdin(Stdio::null());
        let output = command
            .output()
            .map_err(|error| failed(&format!("cargo cannot be run: {error}"), "install Rust: https://rustup.rs"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let no_target = errors.contains("target may not be installed");
            return Err(match no_target {
                true => failed(&format!("Rust's {TARGET} is not installed"), &format!("rustup target add {TARGET}")),
                false => failed(&format!("cargo says:\n{}", tail(&errors)), "correct that"),
            });
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        let built = messages.lines().filter_map(|line| executable(line, package)).next_back();
        built.ok_or_else(|| failed("cargo does not say where it is", "name a program by --program"))
    }
}

/// The package, and the program in it.
fn package(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Debian => "sipedge-proxy",
        Flavour::Micro => "sipedge-init",
    }
}

/// The program that a message of cargo says was built.
fn executable(line: &str, name: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    (message.pointer("/target/name")?.as_str()? == name).then_some(())?;
    message.get("executable")?.as_str().map(PathBuf::from)
}

fn has_compiler() -> bool {
    let named = COMPILER_VARIABLES.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    named || COMPILERS.iter().any(|name| is_there(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_one_that_cargo_names() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"sipedge-init"},"executable":"/t/sipedge-init"}"#;
        assert_eq!(executable(line, "sipedge-init"), Some(PathBuf::from("/t/sipedge-init")));
        assert_eq!(executable(line, "sipedge-proxy"), None);
        assert_eq!(executable(r#"{"target":{"name":"sipedge-init"},"executable":null}"#, "sipedge-init"), None);
        assert_eq!(executable("warning", "sipedge-init"), None);
    }

    #[test]
    fn tests_run_in_a_checkout() {
        let checkout = Checkout::find().expect("around this test");
        assert!(checkout.lock().is_file());
    }
}
