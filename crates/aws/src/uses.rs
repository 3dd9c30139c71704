//! What starts from which image, or has started from it.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Filter;

use crate::client::Aws;
use crate::error::AwsError;

/// States of an instance that is there: all but `terminated`.
const THERE: [&str; 5] = ["pending", "running", "shutting-down", "stopping", "stopped"];

impl Aws {
    /// The images that instances or launch templates of this account and region name, each with who names it: instances that are not
    /// terminated, and every version of every launch template.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn image_uses(&self) -> Result<BTreeMap<String, Vec<String>>, AwsError> {
        let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let states =
            Filter::builder().name("instance-state-name").set_values(Some(THERE.map(str::to_owned).to_vec())).build();
        let pages = self.ec2.describe_instances().filters(states).into_paginator().items().send();
        for reservation in self.call("ec2:DescribeInstances", pages.collect::<Result<Vec<_>, _>>())? {
            for instance in reservation.instances.unwrap_or_default() {
                if let (Some(image), Some(id)) = (instance.image_id, instance.instance_id) {
                    uses.entry(image).or_default().push(format!("instance {id}"));
                }
            }
        }
        let pages = self.ec2.describe_launch_templates().into_paginator().items().send();
        for template in self.call("ec2:DescribeLaunchTemplates", pages.collect::<Result<Vec<_>, _>>())? {
            let Some(id) = template.launch_template_id else { continue };
            let name = template.launch_template_name.unwrap_or_else(|| id.clone());
            let pages =
                self.ec2.describe_launch_template_versions().launch_template_id(&id).into_paginator().items().send();
            for version in self.call("ec2:DescribeLaunchTemplateVersions", pages.collect::<Result<Vec<_>, _>>())? {
                let number = version.version_number.unwrap_or_default();
                if let Some(image) = version.launch_template_data.and_then(|data| data.image_id) {
                    uses.entry(image).or_default().push(format!("launch template {name}, version {number}"));
                }
            }
        }
        Ok(uses)
    }
}
