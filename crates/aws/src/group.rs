//! Autoscaling groups and their instances.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aws_sdk_autoscaling::types::{AutoScalingGroup, Instance, LaunchTemplateSpecification};
use aws_sdk_ec2::types::Filter;

use crate::client::Aws;
use crate::error::AwsError;

/// Values that one filter of EC2 takes (EC2 API reference, DescribeInstances: "up to 200 per filter").
const FILTER_VALUES: usize = 200;

/// An autoscaling group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Fewest instances.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// As many as it keeps now.
    pub desired: u32,
    /// Launch template, `lt-…`.
    pub template_id: String,
    /// The version of it that new instances get. `$Latest` and `$Default` are looked up.
    pub template_version: u64,
    /// Its instances, those that are being launched or terminated included.
    pub instances: Vec<GroupInstance>,
}

/// One instance of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInstance {
    /// `i-…`
    pub id: String,
    /// Availability zone.
    pub zone: String,
    /// The launch template version that it was launched from.
    pub version: Option<u64>,
    /// Lifecycle state in AWS's words, such as `InService` or `Terminating:Wait`.
    pub lifecycle: String,
    /// `Healthy` or `Unhealthy`, by the checks of the group (which may include the load balancer's).
    pub health: String,
}

impl Aws {
    /// A group; none if there is none of that name.
    ///
    /// # Errors
    /// [`AwsError`]; [`AwsError::Unexpected`] for a group without a launch template, which is not one of sipedge's.
    pub fn group(&self, name: &str) -> Result<Option<Group>, AwsError> {
        let operation = "autoscaling:DescribeAutoScalingGroups";
        let request = self.autoscaling.describe_auto_scaling_groups().auto_scaling_group_names(name).send();
        let groups = self.call(operation, request)?.auto_scaling_groups.unwrap_or_default();
        let Some(group) = groups.into_iter().next() else { return Ok(None) };
        let template = template_of(&group)
            .ok_or_else(|| self.unexpected(operation, format!("the group {name} has no launch template")))?;
        let template_id = template.launch_template_id.clone().unwrap_or_default();
        let template_version = match template.version.as_deref().unwrap_or("$Default") {
            moving @ ("$Latest" | "$Default") => self.template_version_of(&template_id, moving)?,
            number => number
                .parse()
                .map_err(|_| self.unexpected(operation, format!("the group {name} has version {number}")))?,
        };
        Ok(Some(Group {
            name: group.auto_scaling_group_name.unwrap_or_default(),
            min: count(group.min_size),
            max: count(group.max_size),
            desired: count(group.desired_capacity),
            template_id,
            template_version,
            instances: group.instances.unwrap_or_default().into_iter().map(GroupInstance::from).collect(),
        }))
    }

    /// Private IPv4 addresses of instances; none for one that has no address any more, or is not there.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn addresses_of(&self, instances: &[String]) -> Result<BTreeMap<String, Option<IpAddr>>, AwsError> {
        let mut addresses: BTreeMap<String, Option<IpAddr>> = instances.iter().map(|id| (id.clone(), None)).collect();
        for some in instances.chunks(FILTER_VALUES) {
            // By a filter and not by ids: an id that is gone would make the whole call fail.
            let ids = Filter::builder().name("instance-id").set_values(Some(some.to_vec())).build();
            let pages = self.ec2.describe_instances().filters(ids).into_paginator().items().send();
            for reservation in self.call("ec2:DescribeInstances", pages.collect::<Result<Vec<_>, _>>())? {
                for instance in reservation.instances.unwrap_or_default() {
                    if let (Some(id), Some(address)) = (instance.instance_id, instance.private_ip_address) {
                        addresses.insert(id, address.parse().ok());
                    }
                }
            }
        }
        Ok(addresses)
    }
}

impl From<Instance> for GroupInstance {
    fn from(instance: Instance) -> Self {
        Self {
            id: instance.instance_id.unwrap_or_default(),
            zone: instance.availability_zone.unwrap_or_default(),
            version: instance
                .launch_template
                .and_then(|template| template.version)
                .and_then(|version| version.parse().ok()),
            lifecycle: instance.lifecycle_state.map(|state| state.as_str().to_owned()).unwrap_or_default(),
            health: instance.health_status.unwrap_or_default(),
        }
    }
}

/// The launch template of a group, alone or in a policy of mixed instances.
fn template_of(group: &AutoScalingGroup) -> Option<&LaunchTemplateSpecification> {
    group.launch_template.as_ref().or_else(|| {
        group.mixed_instances_policy.as_ref()?.launch_template.as_ref()?.launch_template_specification.as_ref()
    })
}

/// A number that AWS sends signed and that is never negative.
pub(crate) fn count(number: Option<i32>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}
