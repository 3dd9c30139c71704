//! An image in an account: the disk's blocks as a snapshot, the snapshot as an image.
//!
//! ```text
//! check → booted? → published already? → snapshot → blocks → complete → image
//! ```
//!
//! What was done is in a journal in the image's folder, so that a publish that was cut off is continued by the same command.

mod journal;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest, Sha256};
use sipedge_aws::{Aws, AwsError, BLOCK_BYTES, Block, NewImage, NewSnapshot, Started};

use super::published::{self, Published};
use super::{Flavour, Image, ImageError};
use crate::spec;
use journal::Journal;

/// Root device of the image, which `terraform/` names as well (variable `root_device_name`).
const ROOT_DEVICE: &str = "/dev/xvda";

/// What snapshots are counted in.
const GIB: u64 = 1 << 30;

/// For EBS to make a snapshot of the blocks, and for EC2 to make an image of the snapshot: either takes seconds to minutes.
const SETTLE: Duration = Duration::from_secs(900);

/// Pause between looks at them, so that EC2 does not ask for fewer calls.
const LOOK: Duration = Duration::from_secs(2);

/// Why an image was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// What is on this machine is not as it was built, or cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// AWS did not do what was asked.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// No call has gone through these very bytes.
    #[error(
        "the {flavour} image {} was not booted yet, or its call did not pass, or its bytes are others now: only what has carried a call is \
         published", folder.display()
    )]
    NotBooted {
        /// Its flavour.
        flavour: Flavour,
        /// Its folder.
        folder: PathBuf,
    },
    /// Another process does the same.
    #[error("another process is publishing this image: {} is locked", path.display())]
    Busy {
        /// The journal.
        path: PathBuf,
    },
    /// EBS has other blocks than those that were sent, or the snapshot failed.
    #[error("the snapshot {snapshot} is of no use: {why}; the same command starts another one")]
    Snapshot {
        /// Its id.
        snapshot: String,
        /// Why.
        why: String,
    },
    /// EC2 could not make an image of the snapshot.
    #[error("EC2 could not make the image {image} of its snapshot, and it is taken back; the same command tries again")]
    ImageFailed {
        /// Its id.
        image: String,
    },
    /// Snapshot or image did not get ready in time.
    #[error("{what} is still {state} after {} s; the same command goes on waiting", after.as_secs())]
    NotReady {
        /// Which.
        what: String,
        /// Its state.
        state: String,
        /// How long was waited.
        after: Duration,
    },
}

/// What a publish is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum PublishEvent {
    /// The disk is compared with what was built.
    Checking,
    /// A snapshot takes the blocks.
    Snapshot {
        /// Its id.
        id: String,
        /// Whether it was begun before, and is continued.
        continued: bool,
    },
    /// Blocks are there.
    Blocks {
        /// How many.
        done: usize,
        /// Of how many.
        of: usize,
    },
    /// EBS makes the snapshot of the blocks.
    Completing,
    /// EC2 makes the image of the snapshot.
    Registering,
}

/// What a publish ends in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The image in the account.
    pub image: Published,
    /// Whether it was there before, and nothing was done.
    pub already: bool,
    /// Blocks of the snapshot, of 512 KiB; none when nothing was done.
    pub blocks: usize,
    /// Blocks that this run has sent.
    pub sent: usize,
}

/// Publishes an image that was booted, to the account and region that a spec names; what an earlier run has done is not done again.
///
/// # Errors
/// [`PublishError`]. What is in the account then is continued by the next publish; EBS gives an unfinished snapshot up after a day.
pub fn publish(
    image: &Image,
    account: &spec::Aws,
    progress: &mut dyn FnMut(PublishEvent),
) -> Result<Done, PublishError> {
    progress(PublishEvent::Checking);
    image.check()?;
    if image.booted().is_none() {
        return Err(PublishError::NotBooted { flavour: image.manifest.flavour, folder: image.folder.clone() });
    }
    // What is wrong on this machine was told before an account is asked.
    let aws = &published::connect(account)?;
    let account = aws.identity()?.account;
    let sha256 = &image.manifest.sha256;
    let mut journal = Journal::open(image, &account, aws.region())?;
    if let Some(published) = published::of_disk(aws, sha256)? {
        journal.remove()?;
        return Ok(Done { image: published, already: true, blocks: 0, sent: 0 });
    }
    let name = published::name(&image.manifest);
    let tags = published::tags(&image.manifest);

    let (snapshot, state) = snapshot(image, aws, &mut journal, progress)?;
    let digests = digests(&image.disk(), snapshot.encrypted)?;
    let mut sent = 0;
    if state == PENDING {
        sent = upload(image, aws, &snapshot.id, &digests, &mut journal, progress)?;
        progress(PublishEvent::Completing);
        complete(aws, &snapshot.id, &digests, &mut journal)?;
    }
    settled(aws, &snapshot.id, &mut journal)?;

    progress(PublishEvent::Registering);
    let wanted = NewImage {
        name: &name,
        description: &description(image),
        snapshot: &snapshot.id,
        root_device: ROOT_DEVICE,
        boot_mode: image.manifest.boot_mode.into(),
        tags: &tags,
    };
    let id = match aws.register_image(&wanted) {
        // A run that was cut off may have registered it; while EC2 is at it, it is not found by its tags.
        Err(taken @ AwsError::AlreadyExists { .. }) => {
            let of_this_disk = |image: &sipedge_aws::Image| image.tags.get(published::HASH_TAG) == Some(sha256);
            aws.image_of_name(&name)?.filter(of_this_disk).ok_or(taken)?.id
        }
        registered => registered?,
    };
    let published = available(aws, &id, sha256)?;
    journal.remove()?;
    Ok(Done { image: published, already: false, blocks: digests.len(), sent })
}

/// A snapshot that takes blocks.
const PENDING: &str = "pending";

/// An image that EC2 could not make.
const FAILED: &str = "failed";

/// A snapshot that has them all.
const COMPLETED: &str = "completed";

fn description(image: &Image) -> String {
    let manifest = &image.manifest;
    format!("SIP edge, sipedge {}, {}, packages of {}", manifest.version, manifest.flavour, manifest.snapshot)
}

/// The snapshot of the journal with its state, or a new one.
fn snapshot(
    image: &Image,
    aws: &Aws,
    journal: &mut Journal,
    progress: &mut dyn FnMut(PublishEvent),
) -> Result<(Started, String), PublishError> {
    if let Some(begun) = journal.snapshot().cloned() {
        match aws.snapshot(&begun.id)? {
            Some(found) if found.state == PENDING || found.state == COMPLETED => {
                progress(PublishEvent::Snapshot { id: begun.id.clone(), continued: true });
                return Ok((begun, found.state));
            }
            // Given up by EBS, or deleted by somebody: its blocks are gone.
            _ => journal.begin_anew()?,
        }
    }
    let gib = u32::try_from(image.manifest.bytes.div_ceil(GIB).max(1)).unwrap_or(u32::MAX);
    let started = aws.start_snapshot(&NewSnapshot {
        gib,
        description: &description(image),
        tags: &published::tags(&image.manifest),
        token: journal.token(),
    })?;
    journal.started(&started)?;
    progress(PublishEvent::Snapshot { id: started.id.clone(), continued: false });
    Ok((started, PENDING.to_owned()))
}

/// A block that has to be in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    index: u32,
    sha256: [u8; 32],
}

/// The blocks of a disk, without those that are all zeros unless all are wanted.
fn digests(disk: &Path, all: bool) -> Result<Vec<Wanted>, ImageError> {
    let failed = |error| ImageError::file("read", disk)(error);
    let mut file = File::open(disk).map_err(failed)?;
    let mut wanted = Vec::new();
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    for index in 0.. {
        if !read_block(&mut file, &mut block).map_err(failed)? {
            break;
        }
        if all || block.iter().any(|byte| *byte != 0) {
            wanted.push(Wanted { index, sha256: Sha256::digest(&block).into() });
        }
    }
    Ok(wanted)
}

/// Reads the next block, with zeros behind a disk's end; whether there was one.
fn read_block(from: &mut impl Read, block: &mut Vec<u8>) -> io::Result<bool> {
    block.clear();
    let read = from.by_ref().take(BLOCK_BYTES as u64).read_to_end(block)?;
    block.resize(BLOCK_BYTES, 0);
    Ok(read > 0)
}

/// Sends what is not there yet; how many blocks that were.
fn upload(
    image: &Image,
    aws: &Aws,
    snapshot: &str,
    digests: &[Wanted],
    journal: &mut Journal,
    progress: &mut dyn FnMut(PublishEvent),
) -> Result<usize, PublishError> {
    let disk = image.disk();
    let failed = |error| PublishError::Image(ImageError::file("read", &disk)(error));
    let mut file = File::open(&disk).map_err(failed)?;
    let missing: Vec<Wanted> = digests.iter().filter(|wanted| !journal.has(wanted.index)).copied().collect();
    let of = digests.len();
    let mut done = of - missing.len();
    progress(PublishEvent::Blocks { done, of });
    let mut left = missing.iter();
    let next = || {
        let Some(wanted) = left.next() else { return Ok(None) };
        let mut data = Vec::with_capacity(BLOCK_BYTES);
        file.seek(SeekFrom::Start(u64::from(wanted.index) * BLOCK_BYTES as u64)).map_err(failed)?;
        read_block(&mut file, &mut data).map_err(failed)?;
        let sha256: [u8; 32] = Sha256::digest(&data).into();
        if sha256 != wanted.sha256 {
            // Somebody writes to the disk meanwhile: the check tells the digest of the whole.
            image.check()?;
        }
        Ok(Some(Block { index: wanted.index, data, sha256 }))
    };
    aws.put_blocks(snapshot, next, |index| {
        journal.has_put(index)?;
        done += 1;
        progress(PublishEvent::Blocks { done, of });
        Ok::<(), PublishError>(())
    })?;
    Ok(missing.len())
}

/// Says that all blocks are there. When EBS has others than these, the next publish begins anew.
fn complete(aws: &Aws, snapshot: &str, digests: &[Wanted], journal: &mut Journal) -> Result<(), PublishError> {
    let mut linear = Sha256::new();
    for wanted in digests {
        linear.update(wanted.sha256);
    }
    let count = u32::try_from(digests.len()).unwrap_or(u32::MAX);
    match aws.complete_snapshot(snapshot, count, &linear.finalize().into()) {
        Err(AwsError::Service { code, message, .. }) if code == "ValidationException" => {
            journal.begin_anew()?;
            aws.delete_snapshot(snapshot)?;
            Err(PublishError::Snapshot { snapshot: snapshot.to_owned(), why: message })
        }
        done => Ok(done?),
    }
}

/// Waits until EBS has made the snapshot.
fn settled(aws: &Aws, id: &str, journal: &mut Journal) -> Result<(), PublishError> {
    let begun = Instant::now();
    loop {
        let found = aws.snapshot(id)?;
        let state = found.as_ref().map_or("gone", |snapshot| snapshot.state.as_str());
        match state {
            COMPLETED => return Ok(()),
            PENDING if begun.elapsed() < SETTLE => std::thread::sleep(LOOK),
            PENDING => return Err(not_ready(format!("the snapshot {id}"), state)),
            _ => {
                let said = found.as_ref().and_then(|snapshot| snapshot.message.clone());
                let why = said.unwrap_or_else(|| format!("it is {state}"));
                journal.begin_anew()?;
                return Err(PublishError::Snapshot { snapshot: id.to_owned(), why });
            }
        }
    }
}

/// Waits until instances can start from the image.
fn available(aws: &Aws, id: &str, sha256: &str) -> Result<Published, PublishError> {
    let begun = Instant::now();
    loop {
        // Only images that can be started are found by their tags.
        if let Some(published) = published::of_disk(aws, sha256)? {
            return Ok(published);
        }
        let state = aws.image(id)?.map_or_else(|| "gone".to_owned(), |image| image.state);
        if state == FAILED {
            // Its name would be taken for ever.
            aws.deregister_image(id)?;
            return Err(PublishError::ImageFailed { image: id.to_owned() });
        }
        if begun.elapsed() > SETTLE {
            return Err(not_ready(format!("the image {id}"), &state));
        }
        std::thread::sleep(LOOK);
    }
}

fn not_ready(what: String, state: &str) -> PublishError {
    PublishError::NotReady { what, state: state.to_owned(), after: SETTLE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_zeros_are_left_out_and_the_last_is_filled_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = folder.path().join("disk");
        let mut bytes = vec![0; 3 * BLOCK_BYTES + 5];
        bytes[BLOCK_BYTES + 7] = 1;
        bytes[3 * BLOCK_BYTES] = 2;
        std::fs::write(&disk, &bytes).expect("written");
        bytes.resize(4 * BLOCK_BYTES, 0);
        let expected = |index: usize| Wanted {
            index: u32::try_from(index).expect("small"),
            sha256: Sha256::digest(&bytes[index * BLOCK_BYTES..(index + 1) * BLOCK_BYTES]).into(),
        };
        assert_eq!(digests(&disk, false).expect("read"), [expected(1), expected(3)]);
        assert_eq!(digests(&disk, true).expect("read"), [expected(0), expected(1), expected(2), expected(3)]);
    }
}
