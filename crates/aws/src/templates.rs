//! Launch templates and their numbered versions.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use crate::client::Aws;
use crate::error::AwsError;

/// One version of a launch template. Versions never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateVersion {
    /// Its number, from 1.
    pub number: u64,
    /// When it was made (RFC 3339, UTC).
    pub created: String,
    /// What its maker wrote about it.
    pub description: Option<String>,
}

impl Aws {
    /// The versions of a launch template, oldest first.
    ///
    /// # Errors
    /// [`AwsError::NotFound`] and the others.
    pub fn template_versions(&self, template_id: &str) -> Result<Vec<TemplateVersion>, AwsError> {
        let pages = self
            .ec2
            .describe_launch_template_versions()
            .launch_template_id(template_id)
            .into_paginator()
            .items()
            .send();
        let found = self.call("ec2:DescribeLaunchTemplateVersions", pages.collect::<Result<Vec<_>, _>>())?;
        let mut versions: Vec<TemplateVersion> = found
            .into_iter()
            .filter_map(|version| {
                Some(TemplateVersion {
                    number: u64::try_from(version.version_number?).ok()?,
                    created: version.create_time.as_ref().and_then(written).unwrap_or_default(),
                    description: version.version_description.filter(|words| !words.is_empty()),
                })
            })
            .collect();
        versions.sort_by_key(|version| version.number);
        Ok(versions)
    }

    /// The number that `$Latest` or `$Default` stands for now.
    pub(crate) fn template_version_of(&self, template_id: &str, moving: &str) -> Result<u64, AwsError> {
        let operation = "ec2:DescribeLaunchTemplateVersions";
        let request =
            self.ec2.describe_launch_template_versions().launch_template_id(template_id).versions(moving).send();
        let versions = self.call(operation, request)?.launch_template_versions.unwrap_or_default();
        versions
            .first()
            .and_then(|version| u64::try_from(version.version_number?).ok())
            .ok_or_else(|| self.unexpected(operation, format!("launch template {template_id} has no version {moving}")))
    }
}

/// A time as RFC 3339 writes it.
pub(crate) fn written(time: &DateTime) -> Option<String> {
    time.fmt(Format::DateTime).ok()
}
