//! How much an account may have, and how much of it is used.

use aws_sdk_ec2::types::Filter;

use crate::client::Aws;
use crate::error::AwsError;

impl Aws {
    /// An account's quota in this region, such as `("ec2", "L-0263D0A3")` for Elastic IP addresses: its own, or AWS's default where it
    /// has none of its own. None if Service Quotas knows neither.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn quota(&self, service: &str, code: &str) -> Result<Option<f64>, AwsError> {
        let own = self.service_quotas.get_service_quota().service_code(service).quota_code(code).send();
        match self.call("servicequotas:GetServiceQuota", own) {
            Ok(answer) => return Ok(answer.quota.and_then(|quota| quota.value)),
            Err(AwsError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let usual = self.service_quotas.get_aws_default_service_quota().service_code(service).quota_code(code).send();
        match self.call("servicequotas:GetAWSDefaultServiceQuota", usual) {
            Ok(answer) => Ok(answer.quota.and_then(|quota| quota.value)),
            Err(AwsError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Elastic IP addresses that the account has in this region, associated or not.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn elastic_ips_used(&self) -> Result<u32, AwsError> {
        let in_vpcs = Filter::builder().name("domain").values("vpc").build();
        let answer = self.call("ec2:DescribeAddresses", self.ec2.describe_addresses().filters(in_vpcs).send())?;
        Ok(u32::try_from(answer.addresses.unwrap_or_default().len()).unwrap_or(u32::MAX))
    }

    /// VPCs that the account has in this region.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn vpcs_used(&self) -> Result<u32, AwsError> {
        let pages = self.ec2.describe_vpcs().into_paginator().items().send();
        let found = self.call("ec2:DescribeVpcs", pages.collect::<Result<Vec<_>, _>>())?;
        Ok(u32::try_from(found.len()).unwrap_or(u32::MAX))
    }
}
