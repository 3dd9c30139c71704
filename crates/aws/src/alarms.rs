//! CloudWatch alarms.

use aws_sdk_cloudwatch::types::{AlarmType, StateValue};

use crate::client::Aws;
use crate::error::AwsError;

impl Aws {
    /// Names of the alarms that begin with `prefix` and are in alarm now.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn alarms_in_alarm(&self, prefix: &str) -> Result<Vec<String>, AwsError> {
        let pages = self
            .cloudwatch
            .describe_alarms()
            .alarm_name_prefix(prefix)
            .state_value(StateValue::Alarm)
            .alarm_types(AlarmType::MetricAlarm)
            .alarm_types(AlarmType::CompositeAlarm)
            .into_paginator()
            .send();
        let pages = self.call("cloudwatch:DescribeAlarms", pages.collect::<Result<Vec<_>, _>>())?;
        let mut names = Vec::new();
        for page in pages {
            names.extend(page.metric_alarms.unwrap_or_default().into_iter().filter_map(|alarm| alarm.alarm_name));
            names.extend(page.composite_alarms.unwrap_or_default().into_iter().filter_map(|alarm| alarm.alarm_name));
        }
        names.sort();
        Ok(names)
    }
}
