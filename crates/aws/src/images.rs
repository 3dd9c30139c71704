//! Machine images.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    ArchitectureValues, BlockDeviceMapping, BootModeValues, EbsBlockDevice, Filter, Image as Described,
    ImdsSupportValues, ResourceType, Tag, TagSpecification, VolumeType,
};

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
    /// Snapshot of its root device, for one that is a snapshot's.
    pub snapshot: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// By which firmware an instance starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMode {
    /// UEFI; instance types without it cannot start the image.
    Uefi,
    /// UEFI where the instance type has it, else BIOS.
    UefiPreferred,
}

/// An image that is to be made of a snapshot, for Nitro instances of x86-64.
#[derive(Debug, Clone, Copy)]
pub struct NewImage<'a> {
    /// Its name, which no other image of the account and region has.
    pub name: &'a str,
    /// What it is.
    pub description: &'a str,
    /// Snapshot of its disk, completed.
    pub snapshot: &'a str,
    /// Root device, as launch templates name it.
    pub root_device: &'a str,
    /// By which firmware it starts.
    pub boot_mode: BootMode,
    /// Its tags.
    pub tags: &'a BTreeMap<String, String>,
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

    /// The image of this account that has this name, in whatever state: names are unique within account and region.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn image_of_name(&self, name: &str) -> Result<Option<Image>, AwsError> {
        let named = Filter::builder().name("name").values(name).build();
        let request = self.ec2.describe_images().owners("self").filters(named);
        let answer = self.call("ec2:DescribeImages", request.send())?;
        Ok(answer.images.unwrap_or_default().into_iter().next().map(Image::from))
    }

    /// Makes an image of a snapshot; returns its id. Its instances have ENA, a root device of gp3 that goes with them, and answer to IMDSv2
    /// alone. Whether that device is encrypted is said where an instance is launched: here EC2 takes no word on it.
    ///
    /// # Errors
    /// [`AwsError::AlreadyExists`] when the name is taken, and the others.
    pub fn register_image(&self, wanted: &NewImage<'_>) -> Result<String, AwsError> {
        let operation = "ec2:RegisterImage";
        let disk = EbsBlockDevice::builder()
            .snapshot_id(wanted.snapshot)
            .volume_type(VolumeType::Gp3)
            .delete_on_termination(true)
            .build();
        let tags = wanted.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let request = self
            .ec2
            .register_image()
            .name(wanted.name)
            .description(wanted.description)
            .architecture(ArchitectureValues::X8664)
            .virtualization_type("hvm")
            .root_device_name(wanted.root_device)
            .block_device_mappings(BlockDeviceMapping::builder().device_name(wanted.root_device).ebs(disk).build())
            .ena_support(true)
            .imds_support(ImdsSupportValues::V20)
            .boot_mode(match wanted.boot_mode {
                BootMode::Uefi => BootModeValues::Uefi,
                BootMode::UefiPreferred => BootModeValues::UefiPreferred,
            })
            .tag_specifications(
                TagSpecification::builder().resource_type(ResourceType::Image).set_tags(Some(tags)).build(),
            );
        let answer = self.call(operation, request.send())?;
        answer.image_id.ok_or_else(|| self.unexpected(operation, "an image without an id"))
    }

    /// Takes an image back: nothing starts from it any more. Its snapshot stays. One that is not there is no failure.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn deregister_image(&self, id: &str) -> Result<(), AwsError> {
        match self.call("ec2:DeregisterImage", self.ec2.deregister_image().image_id(id).send()) {
            Ok(_) | Err(AwsError::NotFound { .. }) => Ok(()),
            Err(AwsError::Service { code, .. }) if code == "InvalidAMIID.Unavailable" => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl From<Described> for Image {
    fn from(image: Described) -> Self {
        let tags = image.tags.unwrap_or_default();
        let root = image.root_device_name;
        let disks = image.block_device_mappings.unwrap_or_default();
        let disk = disks.into_iter().find(|disk| disk.device_name == root);
        Self {
            id: image.image_id.unwrap_or_default(),
            name: image.name.unwrap_or_default(),
            created: image.creation_date.unwrap_or_default(),
            state: image.state.map(|state| state.as_str().to_owned()).unwrap_or_default(),
            architecture: image.architecture.map(|name| name.as_str().to_owned()).unwrap_or_default(),
            snapshot: disk.and_then(|disk| disk.ebs?.snapshot_id),
            tags: tags.into_iter().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect(),
        }
    }
}
