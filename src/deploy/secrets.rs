//! The secrets of a topology: what the document of its token keys is, and where it is kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use sipedge_proxy::secrets::{TokenKey, TokenKeys};

use super::state::write_whole;

/// Secrets are for their owner alone.
const MODE: u32 = 0o600;

/// A new password for the answerer: 64 hexadecimal digits of the operating system's random numbers.
pub(super) fn answerer_password() -> io::Result<String> {
    sipedge_proxy::secrets::random_key()
}

/// Where a topology's secrets are kept. A name is what comes after the prefix in SSM Parameter Store, such as `token-keys`.
pub trait SecretStore {
    /// The value of a secret. `None`: there is none of this name.
    fn read(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Makes or changes a secret: whole, or not at all.
    fn write(&self, name: &str, value: &str) -> Result<(), StoreError>;

    /// Removes a secret; one that is not there is removed already.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// A secret that could not be read, written or removed. The text never has a part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {verb} the secret {name:?} ({place}): {reason}")]
pub struct StoreError {
    /// `read`, `write` or `remove`.
    pub verb: &'static str,
    /// Its name.
    pub name: String,
    /// The file or the parameter.
    pub place: String,
    /// Why.
    pub reason: String,
}

/// Secrets in files: those of the state, and those that the lab's instances read. The first folder is the one that counts; what a write
/// that was cut off has left in the others is made good by the next one.
#[derive(Debug, Clone)]
pub struct FileStore {
    folders: Vec<PathBuf>,
}

impl FileStore {
    /// In these folders; in each the same.
    pub fn new(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { folders: folders.into_iter().collect() }
    }

    fn files(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        let file = format!("{name}.json");
        self.folders.iter().map(move |folder| folder.join(&file))
    }
}

impl SecretStore for FileStore {
    fn read(&self, name: &str) -> Result<Option<String>, StoreError> {
        let Some(file) = self.files(name).next() else { return Ok(None) };
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", name, &file, &error)),
        }
    }

    fn write(&self, name: &str, value: &str) -> Result<(), StoreError> {
        for file in self.files(name) {
            write_whole(&file, value.as_bytes(), MODE).map_err(|error| failed("write", name, &file, &error))?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        for file in self.files(name) {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", name, &file, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn failed(verb: &'static str, name: &str, file: &Path, error: &impl ToString) -> StoreError {
    StoreError { verb, name: name.to_owned(), place: file.display().to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_all_folders_are_written_and_the_first_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let folders = ["state", "lab"].map(|name| folder.path().join(name));
        let store = FileStore::new(folders.clone());
        assert_eq!(store.read("token-keys"), Ok(None));
        store.write("token-keys", "one").expect("write");
        for folder in &folders {
            assert_eq!(fs::read_to_string(folder.join("token-keys.json")).expect("read"), "one");
        }
        fs::write(folders[1].join("token-keys.json"), "half").expect("write");
        assert_eq!(store.read("token-keys"), Ok(Some("one".to_owned())));
        store.remove("token-keys").expect("remove");
        store.remove("token-keys").expect("remove what is not there");
        assert_eq!(store.read("token-keys"), Ok(None));
        fs::create_dir_all(folders[0].join("token-keys.json")).expect("a folder in its place");
        let error = store.read("token-keys").expect_err("no file").to_string();
        assert!(
            error.contains("cannot read the secret \"token-keys\"") && error.contains("state/token-keys.json"),
            "{error}"
        );
    }
}
