//! Instance refreshes: start, follow, roll back, cancel.

use aws_sdk_autoscaling::types::{
    AlarmSpecification, DesiredConfiguration, InstanceRefresh, LaunchTemplateSpecification,
    RefreshPreferences as Preferences, RefreshStrategy,
};
use aws_smithy_types::DateTime;

use crate::client::Aws;
use crate::error::AwsError;
use crate::group::count;
use crate::templates::written;

/// How a refresh goes about its work (`RefreshPreferences` of StartInstanceRefresh).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshPreferences {
    /// Percent of the desired capacity that has to be in service at every moment, 0 to 100.
    pub min_healthy_percent: u32,
    /// Percent that may be there at most, 100 to 200, and at most 100 above the minimum. Above 100: instances are launched before others
    /// are terminated.
    pub max_healthy_percent: u32,
    /// Percents of replaced instances at which the refresh waits; rising, the last is 100. Empty: none.
    pub checkpoints: Vec<u32>,
    /// Seconds that it waits at each, 0 to 172,800.
    pub checkpoint_delay_s: u32,
    /// Seconds of watching after the last replacement, before the refresh counts as successful, 0 to 172,800.
    pub bake_s: u32,
    /// Seconds after the start of an instance until it counts; none: the group's own default.
    pub warmup_s: Option<u32>,
    /// Whether instances that are of the version already stay.
    pub skip_matching: bool,
    /// Whether AWS rolls a failing refresh back by itself.
    pub auto_rollback: bool,
    /// Alarms that make the refresh fail.
    pub alarms: Vec<String>,
}

/// An instance refresh as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// Its id.
    pub id: String,
    /// Status in AWS's words: `Pending`, `InProgress`, `Baking`, `Successful`, `Failed`, `Cancelling`, `Cancelled`,
    /// `RollbackInProgress`, `RollbackSuccessful`, `RollbackFailed`.
    pub status: String,
    /// Why, in AWS's words.
    pub reason: Option<String>,
    /// Percent of the instances that are replaced, 0 to 100; goes back to 0 during a rollback.
    pub percent: u32,
    /// Instances that are still to be replaced; during a rollback those that never were.
    pub instances_to_update: u32,
    /// The launch template version that it brings; none: the group's own.
    pub version: Option<u64>,
    /// Percents at which it waits.
    pub checkpoints: Vec<u32>,
    /// Seconds that it waits at each.
    pub checkpoint_delay_s: u32,
    /// When it began (RFC 3339, UTC).
    pub started: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
}

impl Refresh {
    /// Whether nothing follows.
    pub fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "Successful" | "Failed" | "Cancelled" | "RollbackSuccessful" | "RollbackFailed")
    }

    /// The checkpoint at which it waits, or which it has just left: AWS tells the percentage and not the waiting. The percentage stays
    /// until the first instance after the checkpoint is replaced.
    pub fn checkpoint(&self) -> Option<u32> {
        let open = self.status == "InProgress" && self.instances_to_update > 0;
        self.checkpoints.iter().copied().filter(|checkpoint| open && *checkpoint <= self.percent).max()
    }
}

impl Aws {
    /// Begins to replace the instances of a group by new ones of a numbered launch template version; returns the refresh's id.
    ///
    /// # Errors
    /// [`AwsError::RefreshInProgress`], [`AwsError::NotFound`] (no such group) and the others.
    pub fn start_refresh(
        &self,
        group: &str,
        template_id: &str,
        version: u64,
        preferences: &RefreshPreferences,
    ) -> Result<String, AwsError> {
        let operation = "autoscaling:StartInstanceRefresh";
        // A rollback needs a desired configuration with a number in it (Amazon EC2 Auto Scaling, "Undo changes with a rollback").
        let template =
            LaunchTemplateSpecification::builder().launch_template_id(template_id).version(version.to_string()).build();
        let request = self
            .autoscaling
            .start_instance_refresh()
            .auto_scaling_group_name(group)
            .strategy(RefreshStrategy::Rolling)
            .desired_configuration(DesiredConfiguration::builder().launch_template(template).build())
            .preferences(preferences.for_aws())
            .send();
        self.call(operation, request)?
            .instance_refresh_id
            .ok_or_else(|| self.unexpected(operation, "a refresh without an id"))
    }

    /// A refresh of a group: by its id, or the newest one. None if there is none.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn refresh(&self, group: &str, id: Option<&str>) -> Result<Option<Refresh>, AwsError> {
        let request = self
            .autoscaling
            .describe_instance_refreshes()
            .auto_scaling_group_name(group)
            .set_instance_refresh_ids(id.map(|id| vec![id.to_owned()]))
            .max_records(1)
            .send();
        let answer = self.call("autoscaling:DescribeInstanceRefreshes", request)?;
        Ok(answer.instance_refreshes.unwrap_or_default().into_iter().next().map(Refresh::from))
    }

    /// Turns the refresh that is in progress back to the version before it. Follow it with [`Aws::refresh`].
    ///
    /// # Errors
    /// [`AwsError::NoRefreshInProgress`]; [`AwsError::Service`] with code `IrreversibleInstanceRefresh` when there is no version to go
    /// back to.
    pub fn roll_back_refresh(&self, group: &str) -> Result<(), AwsError> {
        let request = self.autoscaling.rollback_instance_refresh().auto_scaling_group_name(group).send();
        self.call("autoscaling:RollbackInstanceRefresh", request).map(drop)
    }

    /// Ends the refresh that is in progress. What is replaced stays; the group keeps its version, which a refresh changes at its success.
    ///
    /// # Errors
    /// [`AwsError::NoRefreshInProgress`] and the others.
    pub fn cancel_refresh(&self, group: &str) -> Result<(), AwsError> {
        let request = self.autoscaling.cancel_instance_refresh().auto_scaling_group_name(group).send();
        self.call("autoscaling:CancelInstanceRefresh", request).map(drop)
    }
}

impl RefreshPreferences {
    fn for_aws(&self) -> Preferences {
        let mut preferences = Preferences::builder()
            .min_healthy_percentage(signed(self.min_healthy_percent))
            .max_healthy_percentage(signed(self.max_healthy_percent))
            .bake_time(signed(self.bake_s))
            .set_instance_warmup(self.warmup_s.map(signed))
            .skip_matching(self.skip_matching)
            .auto_rollback(self.auto_rollback);
        if !self.checkpoints.is_empty() {
            preferences = preferences
                .set_checkpoint_percentages(Some(self.checkpoints.iter().copied().map(signed).collect()))
                .checkpoint_delay(signed(self.checkpoint_delay_s));
        }
        if !self.alarms.is_empty() {
            preferences = preferences
                .alarm_specification(AlarmSpecification::builder().set_alarms(Some(self.alarms.clone())).build());
        }
        preferences.build()
    }
}

impl From<InstanceRefresh> for Refresh {
    fn from(refresh: InstanceRefresh) -> Self {
        let version = refresh
            .desired_configuration
            .and_then(|wanted| wanted.launch_template)
            .and_then(|template| template.version);
        let preferences = refresh.preferences;
        let delay = preferences.as_ref().and_then(|preferences| preferences.checkpoint_delay);
        let checkpoints = preferences.and_then(|preferences| preferences.checkpoint_percentages).unwrap_or_default();
        let time = |time: Option<DateTime>| time.as_ref().and_then(written);
        Self {
            id: refresh.instance_refresh_id.unwrap_or_default(),
            status: refresh.status.map(|status| status.as_str().to_owned()).unwrap_or_default(),
            reason: refresh.status_reason.filter(|reason| !reason.is_empty()),
            percent: count(refresh.percentage_complete),
            instances_to_update: count(refresh.instances_to_update),
            version: version.and_then(|version| version.parse().ok()),
            checkpoints: checkpoints.into_iter().map(|percent| count(Some(percent))).collect(),
            checkpoint_delay_s: count(delay),
            started: time(refresh.start_time),
            ended: time(refresh.end_time),
        }
    }
}

/// A number for AWS, whose numbers are signed; one that does not fit is refused by AWS as too large.
fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
