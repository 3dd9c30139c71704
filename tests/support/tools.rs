//! Tools that other people wrote and tests run: Terraform with its AWS provider, and the Python tools that `tests/setup` installs.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest time for one command. The tests of a root module take half a minute on an idle core.
const DEADLINE: Duration = Duration::from_secs(900);
/// Time between two looks whether a command has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Names a folder with the AWS provider in it, laid out as a mirror: `registry.terraform.io/hashicorp/aws/VERSION/PLATFORM/`.
const MIRROR_VARIABLE: &str = "SIPEDGE_TERRAFORM_PLUGIN_DIR";
/// Names the folder of the Python tools, as it does for `tests/setup`.
const TOOLS_VARIABLE: &str = "SIPEDGE_TEST_TOOLS";

/// Where in a mirror the provider is.
const PROVIDER: &str = "registry.terraform.io/hashicorp/aws";

/// What a command did.
pub struct Done {
    pub succeeded: bool,
    /// Standard output, then standard error.
    pub said: String,
}

impl Done {
    /// Fails unless the command has succeeded.
    #[track_caller]
    pub fn expect(self, what: &str) -> String {
        assert!(self.succeeded, "{what}:\n{}", self.said);
        self.said
    }
}

/// Runs a command to its end, or ends it at the deadline.
#[track_caller]
pub fn run(command: &mut Command) -> Done {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    command.stdin(Stdio::null());
    command.stdout(File::create(&out).expect("a file")).stderr(File::create(&err).expect("a file"));
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let begun = Instant::now();
    let read = || {
        let text = |file| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
        text(&out) + &text(&err)
    };
    loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return Done { succeeded: status.success(), said: read() };
        }
        if begun.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} did not end within {DEADLINE:?}; it said:\n{}", read());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Terraform without settings of its user or of the machine: neither may change what a test sees.
pub fn terraform(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("TF_") || text.starts_with("AWS_") {
            command.env_remove(&name);
        }
    }
    command.env("CHECKPOINT_DISABLE", "1").env("TF_IN_AUTOMATION", "1").current_dir(folder);
    command
}

/// `terraform init` without a backend, from a mirror of this machine if it has one, else from the registry.
#[track_caller]
pub fn init(program: &Path, folder: &Path) -> Done {
    let mut command = terraform(program, folder);
    command.args(["init", "-input=false", "-backend=false", "-no-color"]);
    if let Some(mirror) = mirror() {
        command.arg(format!("-plugin-dir={}", mirror.display()));
    }
    run(&mut command)
}

/// A folder of this machine that has the AWS provider.
pub fn mirror() -> Option<&'static Path> {
    static MIRROR: OnceLock<Option<PathBuf>> = OnceLock::new();
    MIRROR.get_or_init(|| std::env::var_os(MIRROR_VARIABLE).map(PathBuf::from).or_else(search)).as_deref()
}

/// Looks where Terraform itself looks ("Implied local mirror directories"), then everywhere.
fn search() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".terraform.d/plugins"));
    let implied = ["/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins"].map(PathBuf::from);
    if let Some(found) = home.into_iter().chain(implied).find(|folder| folder.join(PROVIDER).is_dir()) {
        return Some(found);
    }
    let mut find = Command::new("find");
    find.args([
        "/",
        "-xdev",
        "-path",
        "/proc",
        "-prune",
        "-o",
        "-type",
        "f",
        "-name",
        "terraform-provider-aws_v5*",
        "-print",
    ]);
    let found = run(&mut find).said;
    let mirrors =
        found.lines().filter(|line| !line.contains("/.terraform/")).filter_map(|line| line.split_once(PROVIDER));
    mirrors.map(|(mirror, _)| PathBuf::from(mirror)).next()
}

/// A program of the Python tools.
pub fn python_tool(name: &str) -> Option<PathBuf> {
    ["venv", "venv-ansible"]
        .map(|venv| test_tools().join(venv).join("bin").join(name))
        .into_iter()
        .find(|file| file.is_file())
}

/// Where `tests/setup` puts what it makes.
pub fn test_tools() -> PathBuf {
    std::env::var_os(TOOLS_VARIABLE).map(PathBuf::from).unwrap_or_else(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
        target.join("test-tools")
    })
}
