//! What a publish has done, line by line: written when AWS has said so, read by the publish that goes on.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sipedge_aws::Started;

use super::PublishError;
use crate::image::{Image, ImageError, hexadecimal};

/// Letters of a token that EBS knows a snapshot's beginning by.
const TOKEN_LETTERS: usize = 32;

/// One line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// A snapshot is asked for: the same token gives the same one, even when the answer was lost.
    Token(String),
    /// It was started.
    Snapshot { id: String, encrypted: bool },
    /// It has this block.
    Block(u32),
}

/// The journal of one image for one account and region, locked. It is there as long as a publish is unfinished.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Flock<File>,
    token: String,
    snapshot: Option<Started>,
    blocks: BTreeSet<u32>,
}

impl Journal {
    /// Opens it, or begins one.
    pub(super) fn open(image: &Image, account: &str, region: &str) -> Result<Self, PublishError> {
        let path = image.folder.join(format!("publish-{account}-{region}.jsonl"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(ImageError::file("open", &path))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Err(PublishError::Busy { path }),
            Err((_, error)) => return Err(ImageError::file("lock", &path)(error.into()).into()),
        };
        let mut journal = Self { path, file, token: String::new(), snapshot: None, blocks: BTreeSet::new() };
        journal.read()?;
        if journal.token.is_empty() {
            journal.begin_anew()?;
        }
        Ok(journal)
    }

    /// What was done up to the first line that is none: a process that was killed leaves its last line cut off.
    fn read(&mut self) -> Result<(), PublishError> {
        let failed = |error| ImageError::file("read", &self.path)(error);
        let mut end = 0;
        let mut reader = BufReader::new(&*self.file);
        let mut text = Vec::new();
        loop {
            text.clear();
            let length = reader.read_until(b'\n', &mut text).map_err(failed)?;
            let Ok(line) = serde_json::from_slice(&text) else { break };
            if text.last() != Some(&b'\n') {
                break;
            }
            match line {
                Line::Token(token) => self.token = token,
                Line::Snapshot { id, encrypted } => self.snapshot = Some(Started { id, encrypted }),
                Line::Block(index) => {
                    self.blocks.insert(index);
                }
            }
            end += length as u64;
        }
        let mut file: &File = &self.file;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed)?;
        Ok(())
    }

    /// Forgets everything: the snapshot is of no use.
    pub(super) fn begin_anew(&mut self) -> Result<(), PublishError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let drawn = Sha256::digest(format!("{}/{}/{}", self.path.display(), now.as_nanos(), std::process::id()));
        self.token = hexadecimal(&drawn).chars().take(TOKEN_LETTERS).collect();
        self.snapshot = None;
        self.blocks.clear();
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(ImageError::file("write", &self.path))?;
        self.write(&Line::Token(self.token.clone()))
    }

    /// What tells EBS that it is the same snapshot that is asked for.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// The snapshot that was started.
    pub(super) fn snapshot(&self) -> Option<&Started> {
        self.snapshot.as_ref()
    }

    /// Whether the snapshot has this block.
    pub(super) fn has(&self, index: u32) -> bool {
        self.blocks.contains(&index)
    }

    pub(super) fn started(&mut self, snapshot: &Started) -> Result<(), PublishError> {
        self.write(&Line::Snapshot { id: snapshot.id.clone(), encrypted: snapshot.encrypted })?;
        self.snapshot = Some(snapshot.clone());
        Ok(())
    }

    pub(super) fn has_put(&mut self, index: u32) -> Result<(), PublishError> {
        self.write(&Line::Block(index))?;
        self.blocks.insert(index);
        Ok(())
    }

    /// The image is published.
    pub(super) fn remove(&self) -> Result<(), PublishError> {
        match std::fs::remove_file(&self.path) {
            // Another one that was done has taken it away between our opening and our locking it.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(ImageError::file("remove", &self.path)(error).into())
            }
            _ => Ok(()),
        }
    }

    /// In one write, so that a line is cut off by nothing but a loss of power; a lost line costs a block that is sent twice.
    fn write(&mut self, line: &Line) -> Result<(), PublishError> {
        let mut text =
            serde_json::to_vec(line).map_err(|source| ImageError::Manifest { path: self.path.clone(), source })?;
        text.push(b'\n');
        Ok(self.file.write_all(&text).map_err(ImageError::file("write", &self.path))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::image_of;

    #[test]
    fn what_was_written_is_read_again_and_a_cut_off_line_is_not() {
        let cache = tempfile::tempdir().expect("a folder");
        let image = image_of(cache.path(), b"disk");
        let open = || Journal::open(&image, "123456789012", "eu-west-1");
        let started = Started { id: "snap-1".to_owned(), encrypted: true };
        let mut journal = open().expect("begun");
        let token = journal.token().to_owned();
        assert_eq!((token.len(), journal.snapshot()), (TOKEN_LETTERS, None));
        assert!(matches!(open(), Err(PublishError::Busy { .. })));
        journal.started(&started).expect("written");
        journal.has_put(7).expect("written");
        journal.file.write_all(b"{\"block\":8").expect("written");
        drop(journal);

        let mut journal = open().expect("read");
        assert_eq!((journal.token(), journal.snapshot()), (token.as_str(), Some(&started)));
        assert!(journal.has(7) && !journal.has(8));
        journal.has_put(9).expect("written");
        drop(journal);
        let mut journal = open().expect("read");
        assert!(journal.has(7) && journal.has(9));
        journal.begin_anew().expect("written");
        assert!(!journal.has(7) && journal.snapshot().is_none() && journal.token() != token);
        journal.remove().expect("removed");
    }
}
