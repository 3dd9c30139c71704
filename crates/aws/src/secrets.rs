//! Secrets: SecureString parameters of SSM Parameter Store, encrypted with the account's `aws/ssm` key.

use std::collections::BTreeMap;

use aws_sdk_ssm::operation::put_parameter::builders::PutParameterFluentBuilder;
use aws_sdk_ssm::types::{ParameterStringFilter, ParameterTier, ParameterType, ResourceTypeForTagging, Tag};

use crate::client::Aws;
use crate::error::AwsError;
use crate::templates::written;

/// Bytes of the longest value: that of an advanced parameter (AWS Systems Manager, "Managing parameter tiers", 2026-11).
const LONGEST_SECRET: usize = 8192;

/// Names that one DeleteParameters takes.
const NAMES_PER_DELETE: usize = 10;

/// The operation that writes.
const PUT: &str = "ssm:PutParameter";

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    /// Its full name, such as `/sipedge/bridge/single-ec2/token-keys`.
    pub name: String,
    /// Counted up by every write, from 1.
    pub version: u64,
    /// When it was written (RFC 3339, UTC).
    pub modified: Option<String>,
}

impl Aws {
    /// Makes a secret, and leaves one that is there as it is; whether it was made.
    ///
    /// # Errors
    /// As [`Aws::put_secret`].
    pub fn make_secret(&self, name: &str, value: &str, tags: &BTreeMap<String, String>) -> Result<bool, AwsError> {
        check_length(name, value)?;
        let put = self.put(name, value).set_tags(Some(tags_of(name, tags)?)).send();
        match self.call_quietly(PUT, put) {
            Ok(_) => Ok(true),
            Err(AwsError::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error.without(value)),
        }
    }

    /// Writes a secret, whether it is there or not; returns its version. Its tags are those given and those that it had.
    ///
    /// # Errors
    /// [`AwsError::SecretTooLong`] and the others; none of them contains the value.
    pub fn put_secret(&self, name: &str, value: &str, tags: &BTreeMap<String, String>) -> Result<u64, AwsError> {
        check_length(name, value)?;
        let tags = tags_of(name, tags)?;
        // AWS takes tags with a new parameter alone, and `overwrite` with an old one alone.
        let made = self.call_quietly(PUT, self.put(name, value).set_tags(Some(tags.clone())).send());
        let written = match made {
            Err(AwsError::AlreadyExists { .. }) => {
                let written = self.call_quietly(PUT, self.put(name, value).overwrite(true).send());
                if written.is_ok() && !tags.is_empty() {
                    let request = self
                        .ssm
                        .add_tags_to_resource()
                        .resource_type(ResourceTypeForTagging::Parameter)
                        .resource_id(name)
                        .set_tags(Some(tags))
                        .send();
                    self.call("ssm:AddTagsToResource", request)?;
                }
                written
            }
            made => made,
        };
        let version = written.map_err(|error| error.without(value))?.version;
        u64::try_from(version).map_err(|_| self.unexpected(PUT, format!("version {version} of {name}")))
    }

    /// The request that writes a secret.
    fn put(&self, name: &str, value: &str) -> PutParameterFluentBuilder {
        self.ssm
            .put_parameter()
            .name(name)
            .value(value)
            .r#type(ParameterType::SecureString)
            // A standard parameter where 4 KB suffice, an advanced one where they do not.
            .tier(ParameterTier::IntelligentTiering)
    }

    /// A secret's value; none if there is no secret of that name.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn secret(&self, name: &str) -> Result<Option<String>, AwsError> {
        let request = self.ssm.get_parameter().name(name).with_decryption(true).send();
        match self.call_quietly("ssm:GetParameter", request) {
            Ok(answer) => Ok(answer.parameter.and_then(|parameter| parameter.value)),
            Err(AwsError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The secrets whose names begin with `prefix` and a slash, by name. Reads no value.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn secrets_below(&self, prefix: &str) -> Result<Vec<SecretInfo>, AwsError> {
        let operation = "ssm:DescribeParameters";
        let below = ParameterStringFilter::builder()
            .key("Path")
            .option("Recursive")
            .values(prefix.trim_end_matches('/'))
            .build()
            .map_err(|error| self.unexpected(operation, error.to_string()))?;
        let pages = self.ssm.describe_parameters().parameter_filters(below).into_paginator().send();
        let pages = self.call(operation, pages.collect::<Result<Vec<_>, _>>())?;
        let mut secrets: Vec<SecretInfo> = pages
            .into_iter()
            .flat_map(|page| page.parameters.unwrap_or_default())
            .filter_map(|parameter| {
                Some(SecretInfo {
                    name: parameter.name?,
                    version: u64::try_from(parameter.version).unwrap_or_default(),
                    modified: parameter.last_modified_date.as_ref().and_then(written),
                })
            })
            .collect();
        secrets.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(secrets)
    }

    /// Removes secrets; those that are not there are removed already.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn delete_secrets(&self, names: &[String]) -> Result<(), AwsError> {
        for some in names.chunks(NAMES_PER_DELETE) {
            let request = self.ssm.delete_parameters().set_names(Some(some.to_vec())).send();
            self.call("ssm:DeleteParameters", request)?;
        }
        Ok(())
    }
}

fn check_length(name: &str, value: &str) -> Result<(), AwsError> {
    if value.len() > LONGEST_SECRET {
        return Err(AwsError::SecretTooLong { name: name.to_owned(), bytes: value.len(), most: LONGEST_SECRET });
    }
    Ok(())
}

/// Tags as AWS takes them.
fn tags_of(name: &str, tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, AwsError> {
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
    tags.collect::<Result<_, _>>().map_err(|error| AwsError::Setup {
        what: format!("the tags of {name} are incomplete"),
        reason: error.to_string(),
    })
}
