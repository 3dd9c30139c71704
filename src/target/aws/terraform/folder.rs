//! The working folder: the modules, the plan's files beside the root module, and where the state is.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rust_embed::RustEmbed;
use serde_json::{Value, json};

use super::TerraformError;
use crate::files;

/// Where the state of one topology is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// In a file on this machine.
    Local {
        /// The file.
        path: PathBuf,
    },
    /// In S3, encrypted, with a lock file beside it.
    S3 {
        /// The bucket; it has to be there.
        bucket: String,
        /// The object.
        key: String,
        /// The bucket's region.
        region: String,
        /// Profile of the AWS configuration files; none: what the environment says.
        profile: Option<String>,
    },
}

/// Terraform files by their path within `terraform/`.
#[derive(Debug, Clone)]
pub struct Modules(BTreeMap<String, Cow<'static, [u8]>>);

impl Modules {
    /// The modules that this build was made with.
    pub fn embedded() -> Self {
        let read = |name: Cow<'static, str>| Some((name.to_string(), Embedded::get(&name)?.data));
        Self(Embedded::iter().filter_map(read).collect())
    }

    /// Modules that are given.
    pub fn given(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self(files.into_iter().map(|(name, content)| (name, Cow::Owned(content))).collect())
    }

    /// Their paths.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The folder in which Terraform works for one topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    root: PathBuf,
    module: String,
}

impl Folder {
    /// The folder `root`, in which `module` is the root module. Creates nothing.
    pub fn new(root: &Path, module: &str) -> Self {
        Self { root: root.to_owned(), module: module.to_owned() }
    }

    /// Where `terraform` is run.
    pub fn root_module(&self) -> PathBuf {
        self.root.join(&self.module)
    }

    /// Writes modules, `files` and the backend, and removes what an earlier version of sipedge has left. What Terraform itself keeps here
    /// stays: its folder, its lock file, and any state.
    pub fn write(
        &self,
        modules: &Modules,
        files: &BTreeMap<String, String>,
        backend: &Backend,
    ) -> Result<(), TerraformError> {
        let mut wanted: BTreeSet<PathBuf> = BTreeSet::new();
        let mut put = |path: PathBuf, content: &[u8]| -> Result<(), TerraformError> {
            let folder = files::folder_of(&path);
            fs::create_dir_all(folder).map_err(|error| TerraformError::io("create", folder, error))?;
            files::write_whole(&path, content, FILE_MODE).map_err(|error| TerraformError::io("write", &path, error))?;
            wanted.insert(path);
            Ok(())
        };
        for (name, content) in &modules.0 {
            put(self.root.join(name), content)?;
        }
        for (name, content) in files {
            put(self.root_module().join(name), content.as_bytes())?;
        }
        put(self.root_module().join(BACKEND_FILE), format!("{:#}\n", backend.to_json()).as_bytes())?;
        remove_others(&self.root, &wanted)
    }

    /// Whether Terraform has been initialised here before.
    pub(super) fn is_initialised(&self) -> bool {
        self.root_module().join(INITIALISED).exists()
    }

    /// The kind of backend that has the state, such as `local` or `s3`: what Terraform was last initialised with, for as long as a move to
    /// another one is not done; else what is written for it. None: neither.
    pub fn backend_kind(&self) -> Option<String> {
        let read = |name: &str| -> Option<Value> {
            serde_json::from_slice(&fs::read(self.root_module().join(name)).ok()?).ok()
        };
        let last = read(INITIALISED).and_then(|kept| Some(kept["backend"]["type"].as_str()?.to_owned()));
        last.or_else(|| Some(read(BACKEND_FILE)?["terraform"]["backend"].as_object()?.keys().next()?.clone()))
    }

    pub(super) fn remove_plan(&self, name: &str) -> Result<(), TerraformError> {
        let path = self.root_module().join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(TerraformError::io("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// The right to run Terraform here, as a file that the child holds open too: what remains of the lock when sipedge is killed. Waits
    /// for a Terraform that is ending: that of a sipedge which was killed writes its state first. `on_wait` is told so, with the time that
    /// has passed: at once, and each minute.
    pub(super) fn claim(&self, on_wait: &mut dyn FnMut(Duration)) -> Result<Flock<File>, TerraformError> {
        let path = self.root.join(CLAIM_FILE);
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|error| TerraformError::io("open", &path, error))?;
        let begun = Instant::now();
        let mut next_word = Duration::ZERO;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((file, nix::errno::Errno::EWOULDBLOCK)) if begun.elapsed() < CLAIM_WITHIN => {
                    end_orphans(&path);
                    file
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                    return Err(TerraformError::Busy { folder: self.root_module() });
                }
                Err((_, error)) => return Err(TerraformError::io("lock", &path, error.into())),
            };
            let passed = begun.elapsed();
            if passed >= next_word {
                on_wait(passed);
                next_word += CLAIM_WORD;
            }
            std::thread::sleep(CLAIM_CHECK);
        }
    }
}

/// `terraform/` of the repository, without what developers' runs and tests leave there.
#[derive(RustEmbed)]
#[folder = "terraform"]
#[include = "*.tf"]
#[include = "*.tftpl"]
#[include = "*.json"]
#[exclude = "*/.terraform/*"]
#[exclude = "*/tests/*"]
#[exclude = "*/examples/*"]
#[exclude = "*.tfstate*"]
#[exclude = "*.auto.tfvars.json"]
#[exclude = "*/backend.tf.json"]
#[allow_missing = true]
struct Embedded;

/// Names the Terraform that holds `claim`: its process group.
pub(super) fn name_holder(claim: &File, terraform: u32) -> std::io::Result<()> {
    claim.set_len(0)?;
    claim.write_all_at(terraform.to_string().as_bytes(), 0)
}

/// Ends the providers of a Terraform that is gone. They share its standard input, and with that its claim, and wait for it for ever when it was
/// ended by force. Their process group has its number, which nobody else gets as long as they live.
fn end_orphans(claim: &Path) {
    let Some(group) = fs::read_to_string(claim).ok().and_then(|text| text.parse().ok()).filter(|group| *group > 1)
    else {
        return;
    };
    let state = fs::read_to_string(format!("/proc/{group}/stat")).unwrap_or_default();
    let lives = state.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"));
    if !lives {
        // Nobody is there any more, or they are none of ours: either is fine.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

pub(super) const BACKEND_FILE: &str = "backend.tf.json";
/// Where Terraform keeps what it was last initialised with.
pub(super) const INITIALISED: &str = ".terraform/terraform.tfstate";
/// Held open by the Terraform that works in a folder.
const CLAIM_FILE: &str = "running";
/// How long a Terraform whose sipedge was killed may go on: load balancer and NAT gateways take some minutes each.
const CLAIM_WITHIN: Duration = Duration::from_secs(900);
/// Time between two words about it.
const CLAIM_WORD: Duration = Duration::from_secs(60);
/// Time between two looks.
const CLAIM_CHECK: Duration = Duration::from_millis(100);
/// Modules and variables have no secrets.
const FILE_MODE: u32 = 0o644;

impl Backend {
    fn to_json(&self) -> Value {
        let backend = match self {
            Self::Local { path } => json!({ "local": { "path": path.display().to_string() } }),
            Self::S3 { bucket, key, region, profile } => {
                let mut s3 = json!({
                    "bucket": bucket,
                    "key": key,
                    "region": region,
                    "encrypt": true,
                    "use_lockfile": true,
                });
                if let Some(profile) = profile {
                    s3["profile"] = json!(profile);
                }
                let elsewhere = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];
                if elsewhere.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
                    // Such a server has one name and not one for each bucket.
                    s3["use_path_style"] = json!(true);
                }
                json!({ "s3": s3 })
            }
        };
        json!({ "terraform": { "backend": backend } })
    }
}

fn remove_others(folder: &Path, wanted: &BTreeSet<PathBuf>) -> Result<(), TerraformError> {
    let entries = fs::read_dir(folder).map_err(|error| TerraformError::io("read", folder, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| TerraformError::io("read", folder, error))?;
        let path = entry.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(".terraform") || name.contains(".tfstate") || name == CLAIM_FILE || wanted.contains(&path) {
            continue;
        }
        // Of the entry itself: what a link leads to is somebody else's.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_others(&path, wanted)?;
            // Fails when something has stayed in it, and then it has to stay.
            let _ = fs::remove_dir(&path);
        } else {
            fs::remove_file(&path).map_err(|error| TerraformError::io("remove", &path, error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stale_goes_and_what_terraform_keeps_stays() {
        let place = tempfile::tempdir().expect("folder");
        let folder = Folder::new(&place.path().join("terraform"), "single-ec2");
        let backend = Backend::Local { path: "../../terraform.tfstate".into() };
        let old = Modules::given([("modules/old/main.tf".to_owned(), Vec::new())]);
        folder.write(&old, &BTreeMap::new(), &backend).expect("written");
        let kept = [".terraform.lock.hcl", ".terraform/providers/x", "errored.tfstate"];
        for name in kept {
            let path = folder.root_module().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("create");
            fs::write(path, "").expect("write");
        }
        let new = Modules::given([("modules/new/main.tf".to_owned(), Vec::new())]);
        folder.write(&new, &BTreeMap::from([("a.json".to_owned(), "{}".to_owned())]), &backend).expect("written");
        assert!(!place.path().join("terraform/modules/old").exists());
        assert!(place.path().join("terraform/modules/new/main.tf").exists());
        assert!(folder.root_module().join("a.json").exists());
        for name in kept {
            assert!(folder.root_module().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn what_a_link_leads_to_stays() {
        let place = tempfile::tempdir().expect("folder");
        let (root, others) = (place.path().join("terraform"), place.path().join("others"));
        fs::create_dir_all(&root).expect("create");
        fs::create_dir(&others).expect("create");
        fs::write(others.join("main.tf"), "").expect("write");
        std::os::unix::fs::symlink(&others, root.join("link")).expect("a link");
        remove_others(&root, &BTreeSet::new()).expect("removed");
        assert!(others.join("main.tf").exists() && !root.join("link").exists());
    }

    #[test]
    fn the_backend_is_the_one_of_before_until_the_move_is_done() {
        let place = tempfile::tempdir().expect("folder");
        let folder = Folder::new(place.path(), "m");
        assert_eq!(folder.backend_kind(), None);
        let s3 = Backend::S3 { bucket: "b".into(), key: "k".into(), region: "us-east-1".into(), profile: None };
        folder.write(&Modules::given([]), &BTreeMap::new(), &s3).expect("written");
        assert_eq!(folder.backend_kind().as_deref(), Some("s3"));
        fs::create_dir(folder.root_module().join(".terraform")).expect("create");
        fs::write(folder.root_module().join(INITIALISED), r#"{"backend":{"type":"local"}}"#).expect("write");
        assert_eq!(folder.backend_kind().as_deref(), Some("local"));
    }

    #[test]
    fn one_terraform_at_a_time() {
        let place = tempfile::tempdir().expect("folder");
        let folder = Folder::new(place.path(), "m");
        let held = folder.claim(&mut |_| panic!("nobody is there")).expect("nobody is there");
        let second = File::create(place.path().join(CLAIM_FILE)).expect("open");
        let (second, _) = Flock::lock(second, FlockArg::LockExclusiveNonblock).expect_err("it is held");
        drop(held);
        let held = Flock::lock(second, FlockArg::LockExclusiveNonblock).expect("it is free");

        // Who waits says so at once, and goes on when the other one has ended.
        let (mut held, mut said) = (Some(held), 0);
        folder
            .claim(&mut |passed| {
                assert!(passed < CLAIM_WORD, "{passed:?}");
                said += 1;
                held = None;
            })
            .expect("the other one has ended");
        assert_eq!(said, 1);
    }
}
