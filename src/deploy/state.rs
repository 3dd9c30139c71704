//! What sipedge keeps beside the spec: `.sipedge/<edge>/<topology>/`. Each topology has its own folder and lock, so that both can be
//! live at the same time.
//!
//! Every file is written beside its place and renamed, so that a reader finds the old one or the new one, whole. What is damaged
//! nevertheless (a disk that filled up, an editor, a copy) is named, taken away, and made anew by the next deploy.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::journal::Journal;
use super::secrets::TokenKeys;
use crate::files;
use crate::plan::{Plan, TargetKind, Topology};
use crate::target::aws::Outputs;
use crate::target::aws::terraform::Folder;

/// Both topologies, in the order in which they are shown.
pub const TOPOLOGIES: [Topology; 2] = [Topology::LoadBalanced, Topology::SingleEc2];

/// The state of one edge.
#[derive(Debug, Clone)]
pub struct Project {
    root: PathBuf,
    edge: String,
}

impl Project {
    /// The state of edge `edge`, whose spec is `spec_file`. Creates nothing.
    pub fn new(spec_file: &Path, edge: &str) -> io::Result<Self> {
        let spec_file = std::path::absolute(spec_file)?;
        let beside = spec_file.parent().unwrap_or(Path::new("/"));
        Ok(Self { root: beside.join(".sipedge"), edge: edge.to_owned() })
    }

    /// Name of the edge.
    pub fn edge(&self) -> &str {
        &self.edge
    }

    /// The state of one topology in the lab.
    pub fn state(&self, topology: Topology) -> State {
        self.state_on(TargetKind::Lab, topology)
    }

    /// The state of one topology on one target. Each has a folder of its own: an edge may be live on AWS and in the lab.
    pub fn state_on(&self, target: TargetKind, topology: Topology) -> State {
        State { root: self.root.clone(), edge: self.edge.clone(), target, topology }
    }

    /// The topologies of which there is something in the lab, whole or damaged.
    pub fn present(&self) -> Vec<Topology> {
        self.present_on(TargetKind::Lab)
    }

    /// The topologies of which there is something on one target, whole or damaged.
    pub fn present_on(&self, target: TargetKind) -> Vec<Topology> {
        TOPOLOGIES.into_iter().filter(|topology| self.state_on(target, *topology).exists()).collect()
    }
}

/// The state of one topology of one edge.
#[derive(Debug, Clone)]
pub struct State {
    root: PathBuf,
    edge: String,
    target: TargetKind,
    topology: Topology,
}

impl State {
    /// Name of the edge.
    pub fn edge(&self) -> &str {
        &self.edge
    }

    /// The topology.
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// Where it is deployed.
    pub fn target(&self) -> TargetKind {
        self.target
    }

    /// `.sipedge/<edge>/<topology>`; on AWS `.sipedge/<edge>/aws-<topology>`.
    pub fn folder(&self) -> PathBuf {
        let prefix = if self.target == TargetKind::Aws { "aws-" } else { "" };
        self.root.join(&self.edge).join(format!("{prefix}{}", self.topology))
    }

    /// The folder of the spec.
    pub fn spec_folder(&self) -> PathBuf {
        self.root.parent().unwrap_or(Path::new("/")).to_owned()
    }

    /// The lab's own folder.
    pub fn lab_folder(&self) -> PathBuf {
        self.folder().join("lab")
    }

    /// Where Terraform works.
    pub fn terraform_folder(&self) -> PathBuf {
        self.folder().join("terraform")
    }

    /// Terraform's state, unless it is in S3. It knows what stands in the account: nothing but a destroy that is complete removes it.
    pub fn terraform_state_file(&self) -> PathBuf {
        self.folder().join("terraform.tfstate")
    }

    /// What is known here of what Terraform has made.
    pub fn recorded(&self) -> Recorded {
        if Folder::new(&self.terraform_folder(), self.topology.as_str())
            .backend_kind()
            .is_some_and(|kind| kind != LOCAL)
        {
            // A file from before the state moved stays, and is not the state any more.
            return Recorded::Elsewhere;
        }
        let read = || {
            let state: serde_json::Value = serde_json::from_slice(&fs::read(self.terraform_state_file()).ok()?).ok()?;
            let managed = state["resources"].as_array()?.iter().filter(|resource| resource["mode"] == "managed");
            Some(managed.map(|resource| resource["instances"].as_array().map_or(0, Vec::len)).sum())
        };
        match read() {
            Some(count) => Recorded::Here(count),
            None if self.terraform_state_file().exists() => Recorded::Unreadable,
            None => Recorded::Here(0),
        }
    }

    /// What Terraform said of what it made: addresses, names and ids. No secrets.
    pub fn outputs_file(&self) -> PathBuf {
        self.folder().join("outputs.json")
    }

    /// The outputs of the last apply, if there was one.
    pub fn outputs(&self) -> Result<Option<Outputs>, StateError> {
        read_json(&self.outputs_file())
    }

    /// The rendered files of the deployed plan.
    pub fn artefacts_folder(&self) -> PathBuf {
        self.folder().join("artefacts")
    }

    /// The token keys. They outlive the lab that uses them, so that a new one continues the calls of the old one.
    pub fn token_keys_file(&self) -> PathBuf {
        self.folder().join("secrets").join("token-keys.json")
    }

    /// The journal of deploys.
    pub fn journal_file(&self) -> PathBuf {
        self.folder().join("journal.json")
    }

    /// The plan that is deployed.
    pub fn plan_file(&self) -> PathBuf {
        self.folder().join("plan.json")
    }

    /// Whether there is anything, whole or damaged.
    pub fn exists(&self) -> bool {
        fs::symlink_metadata(self.folder()).is_ok()
    }

    /// The deployed plan, if there is one.
    pub fn plan(&self) -> Result<Option<Plan>, StateError> {
        read_json(&self.plan_file())
    }

    /// The journal; empty when there is none.
    pub fn journal(&self) -> Result<Journal, StateError> {
        Ok(read_json(&self.journal_file())?.unwrap_or_default())
    }

    /// The token keys, if they have been made.
    pub fn token_keys(&self) -> Result<Option<TokenKeys>, StateError> {
        read_json(&self.token_keys_file())
    }

    /// Takes the lock, which is held until the returned value is dropped. Creates the folder.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let folder = self.folder();
        fs::create_dir_all(&folder).map_err(StateError::io("create", &folder))?;
        let path = folder.join(LOCK_FILE);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(StateError::io("open", &path))?;
            let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                    return Err(StateError::Locked { folder, holder: holder(file) });
                }
                Err((_, error)) => return Err(StateError::io("lock", &path)(error.into())),
            };
            // The one who held it before may have removed the file after we opened it: then we hold a lock that nobody else sees.
            let held = lock.metadata().map_err(StateError::io("read", &path))?;
            match fs::metadata(&path) {
                Ok(named) if named.ino() == held.ino() && named.dev() == held.dev() => {}
                _ => {
                    fs::create_dir_all(&folder).map_err(StateError::io("create", &folder))?;
                    continue;
                }
            }
            let note = std::process::id().to_string();
            lock.set_len(0)
                .and_then(|()| lock.rewind())
                .and_then(|()| lock.write_all(note.as_bytes()))
                .map_err(StateError::io("write", &path))?;
            return Ok(StateLock { _lock: lock });
        }
    }

    /// Whatever of the state cannot be used.
    pub fn damages(&self) -> Vec<Damage> {
        let mut damages = Vec::new();
        for folder in self.folders() {
            match fs::symlink_metadata(&folder) {
                Ok(data) if !data.is_dir() => damages.push(Damage { path: folder, what: "is not a folder".to_owned() }),
                _ => {}
            }
        }
        if let Some(damage) = damages.first().filter(|damage| self.folder().starts_with(&damage.path)) {
            return vec![damage.clone()];
        }
        let lock = self.folder().join(LOCK_FILE);
        if lock.is_dir() {
            damages.push(Damage { path: lock, what: "is a folder, not a lock file".to_owned() });
        }
        damages.extend(self.plan().err().and_then(StateError::damage));
        damages.extend(self.journal().err().and_then(StateError::damage));
        damages.extend(self.outputs().err().and_then(StateError::damage));
        damages.extend(self.token_keys().err().and_then(StateError::damage));
        damages.extend(self.versions().err().and_then(StateError::damage));
        damages
    }

    /// Takes away what is damaged and tells what it was. Call it before [`State::lock`], which needs sound folders, only when
    /// [`Damage::blocks_lock`] says so, and again with the lock held.
    pub fn take_away(&self, damage: &Damage) -> Result<(), StateError> {
        if damage.path == self.root {
            // The folder of all edges: other people's state may depend on what stands in its place.
            return Err(StateError::Damaged(damage.clone()));
        }
        remove_any(&damage.path).map_err(StateError::io("remove", &damage.path))
    }

    /// Removes everything, the lock last, and the parents if nothing else is in them.
    pub fn remove(&self, lock: StateLock) -> Result<(), StateError> {
        let folder = self.folder();
        let entries = fs::read_dir(&folder).map_err(StateError::io("read", &folder))?;
        for entry in entries {
            let path = entry.map_err(StateError::io("read", &folder))?.path();
            if path.file_name().is_some_and(|name| name != LOCK_FILE) {
                remove_any(&path).map_err(StateError::io("remove", &path))?;
            }
        }
        let lock_file = folder.join(LOCK_FILE);
        remove_any(&lock_file).map_err(StateError::io("remove", &lock_file))?;
        match fs::remove_dir(&folder) {
            // Another process has taken the state over since the lock file went.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StateError::io("remove", &folder)(error));
            }
            _ => {}
        }
        drop(lock);
        for parent in [self.root.join(&self.edge), self.root.clone()] {
            // Fails when something else is in it, and then it has to stay.
            if fs::remove_dir(&parent).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn folders(&self) -> [PathBuf; 6] {
        [
            self.root.clone(),
            self.root.join(&self.edge),
            self.folder(),
            self.lab_folder(),
            self.artefacts_folder(),
            self.folder().join("secrets"),
        ]
    }
}

/// The right to change a topology's state. Ends with the process that has it, however that ends.
#[derive(Debug)]
pub struct StateLock {
    _lock: Flock<File>,
}

/// A part of the state that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Where it is.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl Damage {
    /// Whether the lock cannot be taken before this is away.
    pub fn blocks_lock(&self, state: &State) -> bool {
        state.folder().starts_with(&self.path) || self.path.ends_with(LOCK_FILE)
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.path.display(), self.what)
    }
}

/// Why the state could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process is changing it.
    #[error("another sipedge{} is changing {}", holder.map(|pid| format!(" (process {pid})")).unwrap_or_default(), folder.display())]
    Locked {
        /// The topology's folder.
        folder: PathBuf,
        /// The process that holds the lock, if it said so.
        holder: Option<u32>,
    },
    /// A part of it is not what sipedge writes.
    #[error("the state is damaged: {0}")]
    Damaged(Damage),
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl StateError {
    /// Makes an [`io::Error`] one of these; for `map_err`.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    fn damage(self) -> Option<Damage> {
        match self {
            Self::Damaged(damage) => Some(damage),
            Self::Io { doing, path, source } => {
                Some(Damage { path, what: format!("cannot be used: {doing}: {source}") })
            }
            Self::Locked { .. } => None,
        }
    }
}

/// What is known on this machine of what Terraform has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The state is a file here, and has this many resources.
    Here(usize),
    /// The state is a file here that cannot be read.
    Unreadable,
    /// The state is in S3.
    Elsewhere,
}

/// The kind of backend whose state is a file.
const LOCAL: &str = "local";

/// Writes a file beside its place and renames it, in a folder that is made when it is not there. `mode` as in chmod.
pub fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<(), StateError> {
    let folder = files::folder_of(path);
    fs::create_dir_all(folder).map_err(StateError::io("create", folder))?;
    files::write_whole(path, content, mode).map_err(StateError::io("write", path))
}

/// [`write_whole`] of a value as indented JSON.
pub fn write_json(path: &Path, value: &impl Serialize, mode: u32) -> Result<(), StateError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| StateError::io("write", path)(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    text.push('\n');
    write_whole(path, text.as_bytes(), mode)
}

/// Paths need not be UTF-8, and JSON has to be.
fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

const LOCK_FILE: &str = "lock";

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    match fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                let what = format!("is not what sipedge wrote there: {error}");
                Err(StateError::Damaged(Damage { path: path.to_owned(), what }))
            }
        },
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(StateError::io("read", path)(error)),
    }
}

pub(super) fn remove_any(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn holder(mut file: File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(folder: &Path) -> Project {
        Project::new(&folder.join("sipedge.yaml"), "edge").expect("absolute path")
    }

    #[test]
    fn second_lock_names_the_holder() {
        let folder = tempfile::tempdir().expect("folder");
        let state = project(folder.path()).state(Topology::SingleEc2);
        let lock = state.lock().expect("first lock");
        match state.lock() {
            Err(StateError::Locked { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("expected the lock to be refused, got {other:?}"),
        }
        drop(lock);
        state.lock().expect("lock is free again");
    }

    #[test]
    fn a_state_that_has_moved_is_not_read_where_it_was() {
        let folder = tempfile::tempdir().expect("folder");
        let state = project(folder.path()).state_on(TargetKind::Aws, Topology::SingleEc2);
        assert_eq!(state.recorded(), Recorded::Here(0));
        let resources = r#"{"resources":[{"mode":"data","instances":[{}]},{"mode":"managed","instances":[{},{}]}]}"#;
        write_whole(&state.terraform_state_file(), resources.as_bytes(), 0o600).expect("write");
        assert_eq!(state.recorded(), Recorded::Here(2));
        let initialised = state.terraform_folder().join("single-ec2/.terraform/terraform.tfstate");
        write_whole(&initialised, br#"{"backend":{"type":"local"}}"#, 0o600).expect("write");
        assert_eq!(state.recorded(), Recorded::Here(2));
        write_whole(&initialised, br#"{"backend":{"type":"s3"}}"#, 0o600).expect("write");
        assert_eq!(state.recorded(), Recorded::Elsewhere);
        fs::remove_file(initialised).expect("remove");
        fs::write(state.terraform_state_file(), "{").expect("write");
        assert_eq!(state.recorded(), Recorded::Unreadable);
    }

    #[test]
    fn remove_leaves_nothing_and_spares_the_other_topology() {
        let folder = tempfile::tempdir().expect("folder");
        let project = project(folder.path());
        let single = project.state(Topology::SingleEc2);
        let balanced = project.state(Topology::LoadBalanced);
        let single_lock = single.lock().expect("lock");
        let balanced_lock = balanced.lock().expect("lock");
        write_whole(&single.artefacts_folder().join("hand-off.md"), b"x", 0o644).expect("write");

        single.remove(single_lock).expect("remove");
        assert_eq!(project.present(), [Topology::LoadBalanced]);
        balanced.remove(balanced_lock).expect("remove");
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0, "the .sipedge folder is gone");
    }

    #[test]
    fn each_damage_is_named_and_can_be_taken_away() {
        let folder = tempfile::tempdir().expect("folder");
        let state = project(folder.path()).state(Topology::LoadBalanced);
        drop(state.lock().expect("lock"));
        assert_eq!(state.damages(), []);
        fs::write(state.plan_file(), "{").expect("write");
        fs::write(state.journal_file(), [0xff, 0]).expect("write");
        write_whole(&state.token_keys_file(), b"[]", 0o600).expect("write");
        fs::write(state.lab_folder(), "").expect("write");
        let damages = state.damages();
        assert_eq!(damages.len(), 4, "{damages:?}");
        for damage in &damages {
            assert!(!damage.blocks_lock(&state), "{damage}");
            state.take_away(damage).expect("take away");
        }
        assert_eq!(state.damages(), []);
    }

    #[test]
    fn a_file_where_the_folder_should_be_blocks_the_lock() {
        let folder = tempfile::tempdir().expect("folder");
        let state = project(folder.path()).state(Topology::LoadBalanced);
        write_whole(&state.folder(), b"", 0o644).expect("write");
        let damages = state.damages();
        assert_eq!(damages.len(), 1, "{damages:?}");
        assert!(damages[0].blocks_lock(&state));
        state.take_away(&damages[0]).expect("take away");
        state.lock().expect("lock");
    }
}
