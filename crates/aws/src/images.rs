//! Machine images.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Filter, Image as Described};

use crate::client::Aws;
use crate::error::AwsError;

/// A machine image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `ami-…`
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made (RFC 3339, UTC).
    pub created: String,
    /// `available`, `pending`, `failed`, …
    pub state: String,
    /// `x86_64`, `arm64`.
    pub architecture: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// Which images are meant: those of this account that fit everything that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// Name; `*` and `?` stand for any letters.
    pub name: Option<String>,
    /// Tags with their values.
    pub tags: BTreeMap<String, String>,
    /// `x86_64`, `arm64`.
    pub architecture: Option<String>,
}

impl Aws {
    /// The newest image of this account that can be launched and fits the filter.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn newest_image(&self, filter: &ImageFilter) -> Result<Option<Image>, AwsError> {
        Ok(self.images(filter)?.pop())
    }

    /// The images of this account that can be launched and fit the filter, oldest first.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn images(&self, filter: &ImageFilter) -> Result<Vec<Image>, AwsError> {
        let mut filters = vec![("state".to_owned(), "available".to_owned())];
        filters.extend(filter.name.iter().map(|name| ("name".to_owned(), name.clone())));
        filters.extend(filter.architecture.iter().map(|name| ("architecture".to_owned(), name.clone())));
        filters.extend(filter.tags.iter().map(|(key, value)| (format!("tag:{key}"), value.clone())));
        let filters =
            filters.into_iter().map(|(name, value)| Filter::builder().name(name).values(value).build()).collect();
        let pages =
            self.ec2.describe_images().owners("self").set_filters(Some(filters)).into_paginator().items().send();
        let found = self.call("ec2:DescribeImages", pages.collect::<Result<Vec<_>, _>>())?;
        let mut images: Vec<Image> = found.into_iter().map(Image::from).collect();
        // EC2 writes all times alike, so that they sort as text.
        images.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
        Ok(images)
    }

    /// An image by its id, whoever owns it; none if it is not there or not shared with this account.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn image(&self, id: &str) -> Result<Option<Image>, AwsError> {
        match self.call("ec2:DescribeImages", self.ec2.describe_images().image_ids(id).send()) {
            Ok(answer) => Ok(answer.images.unwrap_or_default().into_iter().next().map(Image::from)),
            Err(AwsError::NotFound { .. }) => Ok(None),
            // An id that was removed long ago, or never was, is no id at all to EC2.
            Err(AwsError::Service { code, .. })
                if code == "InvalidAMIID.Unavailable" || code == "InvalidAMIID.Malformed" =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl From<Described> for Image {
    fn from(image: Described) -> Self {
        let tags = image.tags.unwrap_or_default();
        Self {
            id: image.image_id.unwrap_or_default(),
            name: image.name.unwrap_or_default(),
            created: image.creation_date.unwrap_or_default(),
            state: image.state.map(|state| state.as_str().to_owned()).unwrap_or_default(),
            architecture: image.architecture.map(|name| name.as_str().to_owned()).unwrap_or_default(),
            tags: tags.into_iter().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect(),
        }
    }
}
