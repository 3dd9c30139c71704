//! Images in an account: what they are told by.

use std::collections::BTreeMap;

use serde::Serialize;
use sipedge_aws::{Aws, AwsError, ImageFilter, Settings};

use super::{Flavour, Manifest};
use crate::spec;

/// Tag with the version of sipedge that an image is of.
pub(crate) const VERSION_TAG: &str = "sipedge:version";

/// Tag with the SHA-256 of the disk. Only what `image publish` has made bears it.
pub(crate) const HASH_TAG: &str = "sipedge:image-hash";

/// Tag with the flavour; what lacks it is Debian, since Packer makes nothing else.
const FLAVOUR_TAG: &str = "sipedge:flavour";

/// Letters of the disk's SHA-256 in an image's name: 48 bits tell the builds of one version apart.
const HASH_LETTERS: usize = 12;

/// An image of sipedge's in the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// `ami-…`
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made (RFC 3339, UTC).
    pub created: String,
    /// `available`, `pending`, …
    pub state: String,
    /// Version of sipedge.
    pub version: String,
    /// What it is made of.
    pub flavour: Flavour,
    /// SHA-256 of its disk; none for one that Packer has made.
    pub sha256: Option<String>,
    /// Its snapshot.
    pub snapshot: Option<String>,
    /// Commit of its proxy.
    pub commit: Option<String>,
}

/// The account that a spec names.
///
/// # Errors
/// No credentials, no such profile, no such region.
pub fn connect(account: &spec::Aws) -> Result<Aws, AwsError> {
    Aws::connect(&Settings { region: account.region.clone(), profile: Some(account.profile.clone()) })
}

/// All images of sipedge's in the account and region that can be started, oldest first.
///
/// # Errors
/// [`AwsError`].
pub fn all(aws: &Aws) -> Result<Vec<Published>, AwsError> {
    let any = [(VERSION_TAG.to_owned(), "*".to_owned())].into();
    found(aws, any)
}

/// The newest image of this version and flavour.
///
/// # Errors
/// [`AwsError`].
pub fn newest(aws: &Aws, version: &str, flavour: Flavour) -> Result<Option<Published>, AwsError> {
    let of_version = found(aws, [(VERSION_TAG.to_owned(), version.to_owned())].into())?;
    Ok(of_version.into_iter().rfind(|image| image.flavour == flavour))
}

/// The image that was made of a disk with this SHA-256.
///
/// # Errors
/// [`AwsError`].
pub(super) fn of_disk(aws: &Aws, sha256: &str) -> Result<Option<Published>, AwsError> {
    Ok(found(aws, [(HASH_TAG.to_owned(), sha256.to_owned())].into())?.pop())
}

/// The name of an image in an account, the same for the same bytes.
pub(super) fn name(manifest: &Manifest) -> String {
    let hash = manifest.sha256.get(..HASH_LETTERS).unwrap_or(&manifest.sha256);
    format!("sipedge-{}-{}-{hash}", manifest.version, manifest.flavour)
}

/// What image and snapshot are told by. Those of Packer's have the same keys as far as Packer knows the values.
pub(super) fn tags(manifest: &Manifest) -> BTreeMap<String, String> {
    let mut tags: BTreeMap<String, String> = [
        ("Name", name(manifest)),
        (VERSION_TAG, manifest.version.clone()),
        (FLAVOUR_TAG, manifest.flavour.to_string()),
        (HASH_TAG, manifest.sha256.clone()),
        ("sipedge:sbom-hash", manifest.sbom_sha256.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    for (key, value) in [(COMMIT_TAG, &manifest.git_commit), ("sipedge:spec-hash", &manifest.spec_sha256)] {
        tags.extend(value.clone().map(|value| (key.to_owned(), value)));
    }
    tags
}

/// Tag with the commit that the proxy was built from.
const COMMIT_TAG: &str = "sipedge:commit";

fn found(aws: &Aws, tags: BTreeMap<String, String>) -> Result<Vec<Published>, AwsError> {
    let images = aws.images(&ImageFilter { tags, ..ImageFilter::default() })?;
    let published = images.into_iter().filter_map(|mut image| {
        let flavour = match image.tags.get(FLAVOUR_TAG).map(String::as_str) {
            None => Flavour::Debian,
            // A flavour of another version of sipedge is nothing that this one could start or judge.
            Some(name) => [Flavour::Debian, Flavour::Micro].into_iter().find(|flavour| flavour.to_string() == name)?,
        };
        Some(Published {
            version: image.tags.remove(VERSION_TAG)?,
            sha256: image.tags.remove(HASH_TAG),
            commit: image.tags.remove(COMMIT_TAG),
            id: image.id,
            name: image.name,
            created: image.created,
            state: image.state,
            snapshot: image.snapshot,
            flavour,
        })
    });
    Ok(published.collect())
}
