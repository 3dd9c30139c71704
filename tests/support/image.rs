//! An image for tests: built once by the command that users type, and machines that boot it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use sipedge::deploy::{TokenKeys, write_json};
use sipedge::image::{Flavour, Image};
use sipedge::plan::{self, Plan, TargetKind, Topology};
use sipedge::spec::Spec;
use sipedge::target::lab::{InstanceId, Lab, Machine};

use crate::support::{Project, Ran, Running, lab_forbidden, program, repository, skip};

/// Longest time for a build: cargo compiles the static program, which takes minutes on two busy cores.
const BUILD_DEADLINE: Duration = Duration::from_secs(2400);

/// Longest time for a boot with its call, which says by itself when a machine takes too long.
const BOOT_DEADLINE: Duration = Duration::from_secs(400);

/// What a build needs: program, and Debian's package of it.
const BUILDERS: [(&str, &str); 3] = [("mmdebstrap", "mmdebstrap"), ("musl-gcc", "musl-tools"), ("tar", "tar")];

/// Whether images can be built and booted here; else says that the test is skipped.
pub fn possible(test: &str) -> bool {
    let missing = BUILDERS.into_iter().chain([("qemu-system-x86_64", "qemu-system-x86")]);
    if let Some((name, package)) = missing.into_iter().find(|(name, _)| program(name).is_none()) {
        skip(test, &format!("{name} is missing (Debian package {package}); tests/setup installs it"));
        return false;
    }
    if let Some(reason) = lab_forbidden() {
        skip(test, &reason);
        return false;
    }
    true
}

/// The cache that the tests share, below the target folder: packages are fetched once.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("images")
}

/// `sipedge image …` from the repository's folder, where its sources are.
pub fn image(project: &Project, arguments: &[&str]) -> Ran {
    let mut command = project.command(&["image"]);
    command.args(arguments).current_dir(repository());
    Running::start_with_deadline(command, BUILD_DEADLINE).finish()
}

/// `sipedge image …` from the project's folder, where its spec is.
pub fn image_there(project: &Project, arguments: &[&str]) -> Ran {
    let mut command = project.command(&["image"]);
    command.args(arguments);
    Running::start_with_deadline(command, BOOT_DEADLINE).finish()
}

/// `sipedge image …` from `folder`, with Ansible's programs in `ansible`, by which debian is built.
pub fn image_with(project: &Project, folder: &Path, ansible: &Path, arguments: &[&str]) -> Ran {
    let mut command = project.command(&["image"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([ansible.to_owned()].into_iter().chain(std::env::split_paths(&path)));
    command.args(arguments).current_dir(folder).env("PATH", path.expect("a path"));
    Running::start_with_deadline(command, BUILD_DEADLINE).finish()
}

/// A command that builds, or fails to.
pub fn run(command: Command) -> Ran {
    Running::start_with_deadline(command, BOOT_DEADLINE).finish()
}

/// The micro image, built once.
pub fn micro(project: &Project) -> Image {
    static BUILT: OnceLock<Image> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let cache = cache();
        image(project, &["build", "--flavour", "micro", "--cache", &cache.to_string_lossy()]).expect(0);
        Image::newest(&cache, Flavour::Micro).expect("it was built")
    });
    built.clone()
}

/// A lab whose instances are machines that boot an image. It is gone when this is dropped.
pub struct Machines {
    lab: Option<Lab>,
    pub plan: Plan,
    pub folder: PathBuf,
    _above: tempfile::TempDir,
}

impl Machines {
    /// With this disk; no instance yet. `writes`: whether what machines write stays on the disk.
    pub fn start(disk: &Path, writes: bool) -> Self {
        Self::start_with(disk, writes, "")
    }

    /// As [`Machines::start`], with more lines in the spec.
    pub fn start_with(disk: &Path, writes: bool, more: &str) -> Self {
        let text = sipedge::spec::init_text("edge") + more;
        let loaded = Spec::parse("sipedge.yaml", &text).expect("the spec is sound");
        let plan = plan::plan(&loaded, Topology::LoadBalanced, TargetKind::Lab).expect("it can be planned");
        let machine = Machine { writes, ..Machine::new(disk, true) };
        let above = tempfile::tempdir().expect("a folder");
        let folder = above.path().join("lab");
        let lab = Lab::start_with(&plan, &folder, Some(&machine)).expect("the lab starts");
        let machines = Self { lab: Some(lab), plan, folder, _above: above };
        machines.write_token_keys();
        // A password of the answerer, as a deploy makes them.
        fs::write(machines.folder.join("secrets/answerer"), "0".repeat(64)).expect("written");
        machines
    }

    /// New token keys, which instances take up within a second or so.
    pub fn write_token_keys(&self) {
        let keys = TokenKeys::generate().expect("random numbers");
        write_json(&self.folder.join("secrets/token-keys.json"), &keys, 0o600).expect("written");
    }

    /// The file from which instances of the first version take their user-data.
    pub fn user_data(&self) -> PathBuf {
        self.folder.join("user-data")
    }

    /// Status and body of an instance's health page, when there is an answer.
    pub fn health(&self, id: &InstanceId) -> Option<(u16, String)> {
        self.http_get(id, "/readyz").ok()
    }

    /// What an instance has said on its console.
    pub fn console(&self, id: &InstanceId) -> String {
        self.log(id, 200).expect("the lab runs").join("\n")
    }
}

impl std::ops::Deref for Machines {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab.as_ref().expect("the lab is up")
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if let Some(lab) = self.lab.take() {
            lab.destroy().expect("destroyed");
        }
    }
}
