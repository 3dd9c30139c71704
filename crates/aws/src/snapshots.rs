//! Snapshots that are written block by block, by the EBS direct APIs: no volume, no instance.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ebs::primitives::ByteStream;
use aws_sdk_ebs::types::{ChecksumAggregationMethod, ChecksumAlgorithm, Tag};
use aws_smithy_types::base64;
use tokio::task::JoinSet;

use crate::classify::classify;
use crate::client::Aws;
use crate::error::AwsError;

/// Length of every block of a snapshot, in bytes (EBS direct APIs, "Block").
pub const BLOCK_BYTES: usize = 512 << 10;

/// Blocks that are under way at once. EBS takes 1,000 a second (EBS direct APIs, quotas); 16 fill a line of 1 Gbit/s at 60 ms.
const AT_ONCE: usize = 16;

/// For one attempt to put a block: 16 at once get through a line of 1.2 Mbit/s.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);

/// For one block with all its attempts.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(300);

/// Attempts to put a block: one of thousands that fails ends the whole.
const PUT_ATTEMPTS: u32 = 8;

/// Minutes without a block after which EBS gives an unfinished snapshot up: what was cut off in the evening is continued in the morning.
const TIMEOUT_MINUTES: i32 = 1440;

/// A snapshot that is to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewSnapshot<'a> {
    /// Size of the volumes that are made from it, in GiB.
    pub gib: u32,
    /// What it is.
    pub description: &'a str,
    /// Its tags.
    pub tags: &'a BTreeMap<String, String>,
    /// The same token starts the same snapshot, however often it is asked for. At most 255 letters.
    pub token: &'a str,
}

/// A snapshot that takes blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// `snap-…`
    pub id: String,
    /// Whether the account encrypts it. Then blocks that were never put do not read as zeros.
    pub encrypted: bool,
}

/// What EC2 says of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `snap-…`
    pub id: String,
    /// `pending`, `completed`, `error`, …
    pub state: String,
    /// EC2's words on the state, if it has any.
    pub message: Option<String>,
    /// When it was started, in seconds since 1970.
    pub started_s: Option<i64>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A block of a snapshot.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its place, from 0.
    pub index: u32,
    /// [`BLOCK_BYTES`] bytes.
    pub data: Vec<u8>,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

impl Aws {
    /// Starts a snapshot that takes blocks until it is completed.
    ///
    /// # Errors
    /// [`AwsError::QuotaExceeded`] and the others.
    pub fn start_snapshot(&self, wanted: &NewSnapshot<'_>) -> Result<Started, AwsError> {
        let operation = "ebs:StartSnapshot";
        let tags = wanted.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let request = self
            .ebs
            .start_snapshot()
            .volume_size(i64::from(wanted.gib))
            .description(wanted.description)
            .set_tags(Some(tags))
            .client_token(wanted.token)
            .timeout(TIMEOUT_MINUTES);
        let answer = self.call(operation, request.send())?;
        let block_size = answer.block_size.and_then(|size| usize::try_from(size).ok());
        if block_size != Some(BLOCK_BYTES) {
            return Err(self.unexpected(operation, format!("blocks of {block_size:?} bytes, not of {BLOCK_BYTES}")));
        }
        let encrypted = answer.kms_key_arn.is_some();
        let id = answer.snapshot_id.ok_or_else(|| self.unexpected(operation, "a snapshot without an id"))?;
        Ok(Started { id, encrypted })
    }

    /// Puts the blocks that `next` gives, several at once, and tells `done` of each that is there for good. What is under way when
    /// something fails is given up; a block may be put any number of times.
    ///
    /// # Errors
    /// [`AwsError`], or what `next` or `done` fails with.
    pub fn put_blocks<E: From<AwsError>>(
        &self,
        snapshot: &str,
        mut next: impl FnMut() -> Result<Option<Block>, E>,
        mut done: impl FnMut(u32) -> Result<(), E>,
    ) -> Result<(), E> {
        let operation = "ebs:PutSnapshotBlock";
        self.block_on(async {
            let mut under_way = JoinSet::new();
            let mut more = true;
            loop {
                while more && under_way.len() < AT_ONCE {
                    match next()? {
                        Some(block) => under_way.spawn(put(self.ebs.clone(), snapshot.to_owned(), block)),
                        None => {
                            more = false;
                            break;
                        }
                    };
                }
                match under_way.join_next().await {
                    None => return Ok(()),
                    Some(Ok((index, Ok(_)))) => done(index)?,
                    Some(Ok((_, Err(error)))) => {
                        return Err(E::from(classify(self.at(operation), &self.endpoint(operation), &error)));
                    }
                    Some(Err(error)) => {
                        return Err(E::from(self.unexpected(operation, format!("a block was given up: {error}"))));
                    }
                }
            }
        })
    }

    /// Says that all blocks were put: `blocks` of them, `sha256` being the digest of their digests in the order of their places.
    ///
    /// # Errors
    /// [`AwsError::Service`] when EBS has other blocks than these, and the others.
    pub fn complete_snapshot(&self, id: &str, blocks: u32, sha256: &[u8; 32]) -> Result<(), AwsError> {
        let request = self
            .ebs
            .complete_snapshot()
            .snapshot_id(id)
            .changed_blocks_count(i32::try_from(blocks).unwrap_or(i32::MAX))
            .checksum(base64::encode(sha256))
            .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .checksum_aggregation_method(ChecksumAggregationMethod::ChecksumAggregationLinear);
        self.call("ebs:CompleteSnapshot", request.send()).map(|_| ())
    }

    /// A snapshot by its id; none if it is not there.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn snapshot(&self, id: &str) -> Result<Option<Snapshot>, AwsError> {
        match self.call("ec2:DescribeSnapshots", self.ec2.describe_snapshots().snapshot_ids(id).send()) {
            Ok(answer) => Ok(answer.snapshots.unwrap_or_default().into_iter().next().map(Snapshot::from)),
            Err(AwsError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The snapshots of this account that have the tag, whatever its value.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn snapshots_tagged(&self, key: &str) -> Result<Vec<Snapshot>, AwsError> {
        let filter = aws_sdk_ec2::types::Filter::builder().name("tag-key").values(key).build();
        let pages = self.ec2.describe_snapshots().owner_ids("self").filters(filter).into_paginator().items().send();
        let found = self.call("ec2:DescribeSnapshots", pages.collect::<Result<Vec<_>, _>>())?;
        Ok(found.into_iter().map(Snapshot::from).collect())
    }

    /// Deletes a snapshot; one that is not there is no failure.
    ///
    /// # Errors
    /// [`AwsError::Service`] while an image is made of it, and the others.
    pub fn delete_snapshot(&self, id: &str) -> Result<(), AwsError> {
        match self.call("ec2:DeleteSnapshot", self.ec2.delete_snapshot().snapshot_id(id).send()) {
            Ok(_) | Err(AwsError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The client for blocks: they are large, and there are thousands of them.
pub(crate) fn client(config: &SdkConfig) -> aws_sdk_ebs::Client {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(PUT_TIMEOUT).operation_timeout(BLOCK_TIMEOUT);
    let settings = aws_sdk_ebs::config::Builder::from(config)
        .retry_config(RetryConfig::standard().with_max_attempts(PUT_ATTEMPTS))
        .timeout_config(timeouts.build());
    aws_sdk_ebs::Client::from_conf(settings.build())
}

type Put = Result<
    aws_sdk_ebs::operation::put_snapshot_block::PutSnapshotBlockOutput,
    aws_sdk_ebs::error::SdkError<aws_sdk_ebs::operation::put_snapshot_block::PutSnapshotBlockError>,
>;

async fn put(ebs: aws_sdk_ebs::Client, snapshot: String, block: Block) -> (u32, Put) {
    let request = ebs
        .put_snapshot_block()
        .snapshot_id(snapshot)
        .block_index(i32::try_from(block.index).unwrap_or(i32::MAX))
        .data_length(i32::try_from(block.data.len()).unwrap_or(i32::MAX))
        .checksum(base64::encode(block.sha256))
        .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
        .block_data(ByteStream::from(block.data));
    (block.index, request.send().await)
}

impl From<aws_sdk_ec2::types::Snapshot> for Snapshot {
    fn from(snapshot: aws_sdk_ec2::types::Snapshot) -> Self {
        let tags = snapshot.tags.unwrap_or_default();
        Self {
            id: snapshot.snapshot_id.unwrap_or_default(),
            state: snapshot.state.map(|state| state.as_str().to_owned()).unwrap_or_default(),
            message: snapshot.state_message.filter(|message| !message.is_empty()),
            started_s: snapshot.start_time.map(|time| time.secs()),
            tags: tags.into_iter().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect(),
        }
    }
}
