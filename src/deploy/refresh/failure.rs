//! Why a refresh did not end as it should, and what has become of the version of before.

use std::fmt;
use std::time::Duration;

use super::super::error::Cause;
use super::super::fleet::RefreshStatus;
use crate::verify::Report;

/// A refresh that did not end as it should.
#[derive(Debug, thiserror::Error)]
#[error("{why}; {back}")]
pub struct RefreshFailure {
    /// What went wrong.
    pub why: Trouble,
    /// What has become of the version of before.
    pub back: Back,
}

/// What went wrong in a refresh.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// The smoke call did not pass.
    #[error("the smoke call through version {version} did not pass")]
    SmokeCall {
        /// The new version.
        version: u64,
        /// What came of the call.
        report: Box<Report>,
    },
    /// The smoke call could not be placed.
    #[error("the smoke call through version {version} could not be placed: {cause}")]
    NoSmokeCall {
        /// The new version.
        version: u64,
        /// Why.
        cause: Box<Cause>,
    },
    /// Alarms went off.
    #[error("in alarm: {}", .0.join(", "))]
    Alarm(Vec<String>),
    /// It took too long.
    #[error("version {version} was not in place after {} s", after.as_secs())]
    Timeout {
        /// The new version.
        version: u64,
        /// How long it was waited for.
        after: Duration,
    },
    /// The target ended it.
    #[error("the refresh to version {version} ended by itself, {}{}", status.as_str(), because(reason))]
    Ended {
        /// The new version.
        version: u64,
        /// How.
        status: RefreshStatus,
        /// Why, in the target's words.
        reason: Option<String>,
    },
    /// The target does not answer.
    #[error("the target cannot be asked any more: {0}")]
    Unreachable(Box<Cause>),
}

/// What has become of the version of before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Back {
    /// It is live again, and the new one is gone.
    Version(u64),
    /// It is not, or not whole.
    Not(String),
}

impl fmt::Display for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "version {version} is live again"),
            Self::Not(reason) => write!(f, "the version of before is not back: {reason}"),
        }
    }
}

/// `: REASON`, where there is one.
pub(super) fn because(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}
