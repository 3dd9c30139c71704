//! What leading a refresh needs of a target, in the words of Amazon EC2 Auto Scaling. The autoscaling group of an account offers it, and
//! the lab's own: [`super::refresh`] drives both.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Cause;
use crate::verify::Report;

/// A group of instances, what stands before it, and the calls that prove it.
pub trait Fleet {
    /// The group as it is now.
    fn group(&self) -> Result<Group, Cause>;

    /// Begins to replace every instance that is not of `version`; returns the refresh's id. One refresh at a time.
    fn start_refresh(&self, version: u64, preferences: &Preferences) -> Result<String, Cause>;

    /// A refresh, by its id.
    fn refresh(&self, id: &str) -> Result<Refresh, Cause>;

    /// The refresh that is in progress.
    fn refresh_in_progress(&self) -> Result<Option<Refresh>, Cause>;

    /// Turns a refresh that is in progress back: instances of the version before it take the place of the new ones.
    fn roll_back(&self, id: &str) -> Result<(), Cause>;

    /// Places the smoke call through the edge as it is now, through one of `instances` if that can be brought about from here.
    fn smoke_call(&self, instances: &[String]) -> Result<SmokeCall, Cause>;

    /// Names of the alarms of this edge that are in alarm. Empty where there are none.
    fn alarms(&self) -> Result<Vec<String>, Cause>;

    /// Time between two looks at a refresh that is followed.
    fn pause(&self) -> Duration;
}

/// A smoke call that was placed.
#[derive(Debug, Clone, PartialEq)]
pub struct SmokeCall {
    /// What came of it.
    pub report: Report,
    /// Through which of the instances that were asked for; empty when that cannot be known.
    pub through: Vec<String>,
}

/// An autoscaling group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Fewest instances.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// As many as it keeps now.
    pub desired: u32,
    /// The launch template version that new instances get.
    pub version: u64,
    /// Its instances, in the order of their launch where that is known.
    pub instances: Vec<Member>,
}

/// One instance of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `i-…`
    pub id: String,
    /// Private address, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::IpAddr>,
    /// Availability zone.
    pub zone: String,
    /// The launch template version that it was launched from.
    pub version: u64,
    /// Where it is in its life.
    pub lifecycle: Lifecycle,
    /// Whether the load balancer's health check passes (single-ec2: whether it has told that it is ready).
    pub healthy: bool,
    /// Calls and transactions in progress, where that can be asked from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_progress: Option<u64>,
    /// What its proxy says of itself, where a status asks each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyAnswer>,
}

/// What came of asking an instance's proxy how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ProxyAnswer {
    /// It has answered.
    Known(ProxyState),
    /// It has not.
    Unknown {
        /// Why, in one line.
        unknown: String,
    },
}

/// How a proxy is, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyState {
    /// `waiting`, `ready` or `draining`, as its `/readyz` has it.
    pub state: String,
    /// Seconds since its drain began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_s: Option<u64>,
    /// What it waits for, or what is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Calls in set-up or in progress on trunks that limit them; none where no trunk does, because an edge keeps no state of other calls.
    pub calls: Option<u64>,
    /// INVITEs that it has sent on to open a call, since its start.
    pub calls_started: u64,
    /// Version of its program.
    pub version: String,
    /// Hash of the configuration in force: the first 16 hex digits of BLAKE3 over its settings.
    pub configuration: String,
    /// Seconds since its start.
    pub uptime_s: u64,
}

/// Lifecycle states of an instance, those of AWS in fewer words (Amazon EC2 Auto Scaling, "instance lifecycle").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifecycle {
    /// `Pending`, `Pending:Wait`, `Pending:Proceed`: it boots.
    Pending,
    /// `InService`.
    InService,
    /// `Terminating`, `Terminating:Wait`, `Terminating:Proceed`: it drains.
    Terminating,
    /// `Terminated`, or gone.
    Terminated,
    /// Anything else, such as `Standby`.
    Other,
}

/// How a refresh goes about its work (RefreshPreferences of StartInstanceRefresh).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preferences {
    /// Percent of the desired capacity that has to be in service at every moment, 0 to 100.
    pub min_healthy_percent: u32,
    /// Percent that may be there at most, 100 to 200. Above 100: instances are launched before others are terminated.
    pub max_healthy_percent: u32,
    /// Percents of replaced instances at which the refresh waits; rising, the last is 100.
    pub checkpoints: Vec<u32>,
    /// Seconds that it waits at each.
    pub checkpoint_delay_s: u32,
    /// Seconds of watching after the last replacement, before the refresh counts as successful.
    pub bake_s: u32,
    /// Seconds after the start of an instance until it counts.
    pub warmup_s: u32,
    /// Whether instances that are of the version already stay.
    pub skip_matching: bool,
}

/// A refresh as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// Its id.
    pub id: String,
    /// Where it is.
    pub status: RefreshStatus,
    /// Why, in the target's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Percent of the instances that are replaced, 0 to 100.
    pub percent: u32,
    /// Instances that are still to be replaced.
    pub instances_to_update: u32,
    /// The version that it brings.
    pub version: u64,
    /// Whether it waits at a checkpoint.
    pub at_checkpoint: bool,
}

/// Statuses of an instance refresh (DescribeInstanceRefreshes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefreshStatus {
    /// It has not begun.
    Pending,
    /// Instances are being replaced.
    InProgress,
    /// All are replaced; alarms are watched.
    Baking,
    /// Done.
    Successful,
    /// Ended with an error; what was replaced stays.
    Failed,
    /// Somebody has asked for its end.
    Cancelling,
    /// Ended on request.
    Cancelled,
    /// The version before it comes back.
    RollbackInProgress,
    /// It is back.
    RollbackSuccessful,
    /// It is not.
    RollbackFailed,
}

impl Lifecycle {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InService => "in service",
            Self::Terminating => "terminating",
            Self::Terminated => "terminated",
            Self::Other => "other",
        }
    }
}

impl RefreshStatus {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in progress",
            Self::Baking => "baking",
            Self::Successful => "successful",
            Self::Failed => "failed",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::RollbackInProgress => "rollback in progress",
            Self::RollbackSuccessful => "rolled back",
            Self::RollbackFailed => "rollback failed",
        }
    }

    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Successful | Self::Failed | Self::Cancelled | Self::RollbackSuccessful | Self::RollbackFailed
        )
    }
}
