//! What a load balancer thinks of its targets.

use crate::client::Aws;
use crate::error::AwsError;

/// Health of one target of a target group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHealth {
    /// `i-…`, or an address where the group's targets are addresses.
    pub instance: String,
    /// Port that traffic goes to.
    pub port: Option<u16>,
    /// `initial`, `healthy`, `unhealthy`, `unhealthy.draining`, `draining`, `unused`, `unavailable`.
    pub state: String,
    /// Why it is not healthy, such as `Target.FailedHealthChecks`, or `Target.NotInUse` for a zone that the load balancer is not in.
    pub reason: Option<String>,
    /// The same in AWS's words.
    pub description: Option<String>,
}

impl Aws {
    /// Health of every target of a target group.
    ///
    /// # Errors
    /// [`AwsError::NotFound`] and the others.
    pub fn target_health(&self, target_group_arn: &str) -> Result<Vec<TargetHealth>, AwsError> {
        let request = self.load_balancing.describe_target_health().target_group_arn(target_group_arn).send();
        let found = self.call("elasticloadbalancing:DescribeTargetHealth", request)?.target_health_descriptions;
        Ok(found
            .unwrap_or_default()
            .into_iter()
            .map(|described| {
                let (instance, port) = described.target.map(|target| (target.id, target.port)).unwrap_or_default();
                let health = described.target_health;
                TargetHealth {
                    instance: instance.unwrap_or_default(),
                    port: port.and_then(|port| u16::try_from(port).ok()),
                    state: health
                        .as_ref()
                        .and_then(|health| health.state.as_ref())
                        .map(|state| state.as_str().to_owned())
                        .unwrap_or_default(),
                    reason: health
                        .as_ref()
                        .and_then(|health| health.reason.as_ref())
                        .map(|reason| reason.as_str().to_owned()),
                    description: health.and_then(|health| health.description),
                }
            })
            .collect())
    }
}
