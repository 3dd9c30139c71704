//! The lab's autoscaling group: numbered versions of what instances boot from, and the refresh that replaces instances by those of
//! another version, as EC2 Auto Scaling does it ("Use an instance refresh to update instances in an Auto Scaling group").
//!
//! [`Run`] decides and does nothing: it is told what there is and what time it is, and says the next move. The supervisor makes it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{InstanceId, LabError};
use crate::deploy::{Preferences, Refresh, RefreshStatus};
use crate::plan::Scaling;

/// How long a new instance may take until it is healthy. A boot takes less than a second; the rest is for a machine that is busy.
const LAUNCH_WITHIN: Duration = Duration::from_secs(30);
/// New instances that may fail before the refresh turns back: one more than one, since a machine that is busy fails one now and then.
const LAUNCH_FAILURES: u32 = 2;

/// How long an instance that leaves takes calls and stays, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainTimes {
    /// New calls are taken for this long.
    pub accept_ms: u32,
    /// It ends after this long at the latest.
    pub grace_ms: u32,
}

impl DrainTimes {
    /// The deregistration delay: until its end a target goes on getting what comes on the flows that it has. New calls come on them
    /// too, so it has to end while the instance still takes calls.
    pub(super) fn deregistration(self) -> Duration {
        Duration::from_millis(u64::from(self.accept_ms / 2))
    }

    pub(super) fn grace(self) -> Duration {
        Duration::from_millis(self.grace_ms.into())
    }
}

/// The group as [`super::Lab::status`] tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Fewest instances.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// The version that new instances boot from.
    pub version: u64,
    /// Versions that there are.
    pub versions: Vec<VersionStatus>,
    /// The refresh that is in progress, or else the last one.
    pub refresh: Option<Refresh>,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionStatus {
    /// Its number, from 1.
    pub number: u64,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// What instances boot from.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) number: u64,
    pub(super) created_unix_ms: u64,
    pub(super) user_data: String,
    pub(super) drain: DrainTimes,
}

/// The group's memory.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) size: Scaling,
    versions: Vec<Version>,
    /// The version of new instances.
    pub(super) live: u64,
    runs: Vec<Run>,
}

impl Group {
    pub(super) fn new(size: Scaling, first: Version) -> Self {
        Self { size, live: first.number, versions: vec![first], runs: Vec::new() }
    }

    pub(super) fn status(&self, now: Duration, seen: &[Seen]) -> GroupStatus {
        let shown =
            |version: &Version| VersionStatus { number: version.number, created_unix_ms: version.created_unix_ms };
        GroupStatus {
            min: self.size.min,
            max: self.size.max,
            version: self.live,
            versions: self.versions.iter().map(shown).collect(),
            refresh: self.runs.last().map(|run| run.status(now, seen)),
        }
    }

    pub(super) fn version(&self, number: u64) -> Option<&Version> {
        self.versions.iter().find(|version| version.number == number)
    }

    /// The number of a version with this content: that of the newest, if it has it, or a new one, which is returned as well.
    pub(super) fn put(&mut self, user_data: &str, drain: DrainTimes, now_unix_ms: u64) -> (u64, Option<&Version>) {
        let newest = self.versions.last().map_or(0, |version| version.number);
        if self.version(newest).is_some_and(|version| version.user_data == user_data && version.drain == drain) {
            return (newest, None);
        }
        let number = newest + 1;
        self.versions.push(Version { number, created_unix_ms: now_unix_ms, user_data: user_data.to_owned(), drain });
        (number, self.versions.last())
    }

    /// Begins a refresh; its id.
    pub(super) fn start(&mut self, version: u64, preferences: Preferences, seen: &[Seen]) -> Result<String, LabError> {
        if let Some(other) = self.runs.last().filter(|run| !run.status.is_final()) {
            return Err(LabError::Group(format!("{} is in progress, and there is one refresh at a time", other.id)));
        }
        if self.version(version).is_none() {
            return Err(LabError::Group(format!("there is no version {version}")));
        }
        if let Some(wrong) = wrong(&preferences) {
            return Err(LabError::Group(format!("the refresh cannot be carried out: {wrong}")));
        }
        let id = format!("refresh-{}", self.runs.len() + 1);
        self.runs.push(Run::new(id.clone(), (self.live, version), preferences, seen));
        Ok(id)
    }

    pub(super) fn run(&mut self, id: &str) -> Result<&mut Run, LabError> {
        let known = self.runs.iter().map(|run| run.id.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.runs.iter_mut().find(|run| run.id == id);
        found.ok_or_else(|| LabError::Group(format!("there is no refresh {id}; there are: {known}")))
    }
}

/// What AWS refuses of preferences (AutoScaling API Reference, RefreshPreferences).
fn wrong(preferences: &Preferences) -> Option<&'static str> {
    let Preferences { min_healthy_percent: min, max_healthy_percent: max, checkpoints, .. } = preferences;
    match () {
        () if *min > 100 => Some("the least percentage in service is above 100"),
        () if !(100..=200).contains(max) => Some("the greatest percentage is not within 100 and 200"),
        () if *min == 100 && *max == 100 => Some("with 100 percent in service and none above there is nothing to do"),
        () if checkpoints.is_empty() || checkpoints.iter().any(|percent| !(1..=100).contains(percent)) => {
            Some("checkpoints are percentages from 1 to 100, at least one")
        }
        () if !checkpoints.is_sorted_by(|one, next| one < next) => Some("checkpoints have to rise"),
        () => None,
    }
}

/// An instance that is there, as a refresh sees it. Times are since the lab began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: InstanceId,
    pub(super) version: u64,
    /// Whether its process runs.
    pub(super) alive: bool,
    pub(super) launched: Duration,
    pub(super) healthy_since: Option<Duration>,
    /// Whether it drains.
    pub(super) leaving: bool,
}

/// What a refresh wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Move {
    /// Boot an instance of this version, and tell the run.
    Launch(u64),
    /// Drain this instance and end it.
    Retire(InstanceId),
    /// End this instance, which never served.
    Discard(InstanceId),
    /// Nothing before this moment, or before something changes.
    Wait(Option<Duration>),
    /// It is over.
    End,
}

/// One refresh.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) status: RefreshStatus,
    reason: Option<String>,
    previous: u64,
    pub(super) version: u64,
    preferences: Preferences,
    desired: usize,
    /// Those that have to go.
    old: BTreeSet<InstanceId>,
    /// How many they were.
    total: usize,
    launched: BTreeSet<InstanceId>,
    failures: u32,
    /// Checkpoints that are behind it.
    passed: usize,
    /// Since when it waits at a checkpoint, or bakes.
    waits_since: Option<Duration>,
}

impl Run {
    fn new(id: String, (previous, version): (u64, u64), preferences: Preferences, seen: &[Seen]) -> Self {
        let staying = || seen.iter().filter(|instance| !instance.leaving);
        let matching = |instance: &&Seen| preferences.skip_matching && instance.version == version && instance.alive;
        let old: BTreeSet<_> = staying().filter(|it| !matching(it)).map(|it| it.id.clone()).collect();
        Self {
            id,
            status: RefreshStatus::InProgress,
            reason: None,
            previous,
            version,
            desired: staying().filter(|instance| instance.alive).count(),
            preferences,
            total: old.len(),
            old,
            launched: BTreeSet::new(),
            failures: 0,
            passed: 0,
            waits_since: None,
        }
    }

    pub(super) fn status(&self, now: Duration, seen: &[Seen]) -> Refresh {
        let replaced = self.replaced(now, seen);
        let done = matches!(self.status, RefreshStatus::Successful | RefreshStatus::RollbackSuccessful);
        let percent = if self.total == 0 || done { 100 } else { replaced * 100 / self.total };
        Refresh {
            id: self.id.clone(),
            status: self.status,
            reason: self.reason.clone(),
            percent: u32::try_from(percent).unwrap_or(100),
            instances_to_update: if done { 0 } else { u32::try_from(self.total - replaced).unwrap_or(u32::MAX) },
            version: self.version,
            at_checkpoint: self.status == RefreshStatus::InProgress && self.waits_since.is_some(),
        }
    }

    /// An instance of this version was booted for it. One that was asked for before the refresh was turned back is one more that has to go.
    pub(super) fn has_launched(&mut self, id: InstanceId, version: u64) {
        if self.status != RefreshStatus::RollbackInProgress || version == self.previous {
            self.launched.insert(id);
        } else if self.old.insert(id) {
            self.total += 1;
        }
    }

    /// An instance could not be booted for it.
    pub(super) fn has_not_launched(&mut self, reason: String, seen: &[Seen]) {
        self.launch_failed(reason, seen);
    }

    /// Ends it where it is.
    pub(super) fn cancel(&mut self) -> Result<(), LabError> {
        if self.status.is_final() {
            return Err(LabError::Group(format!("{} is over", self.id)));
        }
        self.status = RefreshStatus::Cancelled;
        Ok(())
    }

    /// Turns it back.
    pub(super) fn roll_back(&mut self, reason: String, seen: &[Seen]) -> Result<(), LabError> {
        match self.status {
            RefreshStatus::RollbackInProgress => return Ok(()),
            status if status.is_final() => return Err(LabError::Group(format!("{} is over", self.id))),
            _ => {}
        }
        self.status = RefreshStatus::RollbackInProgress;
        self.reason = Some(reason);
        let staying = seen.iter().filter(|instance| !instance.leaving);
        let others = staying.filter(|instance| instance.version != self.previous || !instance.alive);
        self.old = others.map(|instance| instance.id.clone()).collect();
        self.total = self.old.len();
        self.launched.clear();
        (self.failures, self.waits_since) = (0, None);
        Ok(())
    }

    /// What to do next, with these instances at this moment.
    pub(super) fn next(&mut self, now: Duration, seen: &[Seen]) -> Move {
        if self.status.is_final() {
            return Move::End;
        }
        if let Some(failed) = self.failed_launch(now, seen) {
            return failed;
        }
        let rolling_back = self.status == RefreshStatus::RollbackInProgress;
        let Counts { staying, old, ready_new, ready } = self.counts(now, seen);
        if let Some(dead) = old.iter().find(|instance| !instance.alive) {
            return Move::Retire(dead.id.clone());
        }
        let limit = if rolling_back { self.total } else { self.limit() };
        let (present, gone) = (staying.len(), self.total - old.len());
        let max = percent_of(self.desired, self.preferences.max_healthy_percent);
        let min = percent_of(self.desired, self.preferences.min_healthy_percent);

        if gone >= limit && ready_new + old.len() >= self.desired {
            if let Some(surplus) =
                staying.iter().rev().find(|it| present > self.desired && self.launched.contains(&it.id))
            {
                return Move::Retire(surplus.id.clone());
            }
            return self.at_limit(limit, now, seen);
        }
        let wanted_new = self.desired.saturating_sub(self.total - limit);
        if present - old.len() < wanted_new
            && present < max.max(self.desired)
            && (present < max || present < self.desired)
        {
            return Move::Launch(if rolling_back { self.previous } else { self.version });
        }
        let candidate = old.iter().find(|instance| instance.healthy_since.is_none()).or(old.first());
        if let Some(candidate) = candidate.filter(|_| gone < limit) {
            let replacement_stands = ready_new + old.len() > self.desired;
            let none_above = max <= self.desired;
            let serves = usize::from(candidate.healthy_since.is_some());
            if (replacement_stands || none_above) && (serves == 0 || ready - serves >= min) {
                return Move::Retire(candidate.id.clone());
            }
        }
        let warm = |instance: &&Seen| Some(instance.healthy_since? + self.warmup());
        let in_time = |instance: &&Seen| match instance.healthy_since {
            Some(_) => None,
            None => self.launched.contains(&instance.id).then_some(instance.launched + LAUNCH_WITHIN),
        };
        let moments = staying.iter().filter_map(warm).chain(staying.iter().filter_map(in_time));
        Move::Wait(moments.filter(|moment| *moment > now).min())
    }

    /// All that may be replaced before the next checkpoint is.
    fn at_limit(&mut self, limit: usize, now: Duration, seen: &[Seen]) -> Move {
        let leaving = seen.iter().any(|instance| instance.leaving);
        let since = *self.waits_since.get_or_insert(now);
        if self.status == RefreshStatus::RollbackInProgress {
            if leaving {
                return Move::Wait(None);
            }
            self.status = RefreshStatus::RollbackSuccessful;
            return Move::End;
        }
        if limit < self.total {
            let until = since + Duration::from_secs(self.preferences.checkpoint_delay_s.into());
            if now < until {
                return Move::Wait(Some(until));
            }
            self.passed += 1;
            self.waits_since = None;
            return self.next(now, seen);
        }
        if self.status == RefreshStatus::InProgress {
            (self.status, self.waits_since) = (RefreshStatus::Baking, Some(now));
            return self.next(now, seen);
        }
        let until = since + Duration::from_secs(self.preferences.bake_s.into());
        if now < until {
            return Move::Wait(Some(until));
        }
        if leaving {
            return Move::Wait(None);
        }
        self.status = RefreshStatus::Successful;
        Move::End
    }

    fn failed_launch(&mut self, now: Duration, seen: &[Seen]) -> Option<Move> {
        let own = seen.iter().filter(|instance| !instance.leaving && self.launched.contains(&instance.id));
        let late = |instance: &&Seen| instance.healthy_since.is_none() && now >= instance.launched + LAUNCH_WITHIN;
        let failed = own.clone().find(|instance| !instance.alive || late(instance))?;
        let what = if failed.alive {
            format!("was not healthy within {} s", LAUNCH_WITHIN.as_secs())
        } else {
            "has ended by itself".to_owned()
        };
        let (id, reason) = (failed.id.clone(), format!("{}, of version {}, {what}", failed.id, failed.version));
        self.launched.remove(&id);
        // What was booted by this refresh and failed is neither new nor old.
        self.old.remove(&id);
        let others: Vec<Seen> = seen.iter().filter(|instance| instance.id != id).cloned().collect();
        self.launch_failed(reason, &others);
        Some(Move::Discard(id))
    }

    fn launch_failed(&mut self, reason: String, seen: &[Seen]) {
        self.failures += 1;
        if self.failures < LAUNCH_FAILURES {
            return;
        }
        if self.status == RefreshStatus::RollbackInProgress {
            (self.status, self.reason) = (RefreshStatus::RollbackFailed, Some(reason));
        } else if self.previous == self.version {
            // There is nothing to go back to.
            (self.status, self.reason) = (RefreshStatus::Failed, Some(reason));
        } else {
            // Cannot be refused: the refresh is in progress.
            let _ = self.roll_back(reason, seen);
        }
    }

    fn counts<'a>(&self, now: Duration, seen: &'a [Seen]) -> Counts<'a> {
        let staying: Vec<&Seen> = seen.iter().filter(|instance| !instance.leaving).collect();
        let old: Vec<&Seen> = staying.iter().copied().filter(|instance| self.old.contains(&instance.id)).collect();
        let is_ready = |instance: &&&Seen| {
            let warmup = if self.launched.contains(&instance.id) { self.warmup() } else { Duration::ZERO };
            instance.healthy_since.is_some_and(|since| now >= since + warmup)
        };
        let ready = staying.iter().filter(is_ready).count();
        let ready_old = old.iter().filter(is_ready).count();
        Counts { staying, old, ready_new: ready - ready_old, ready }
    }

    /// Old ones that are gone and have a replacement that is ready.
    fn replaced(&self, now: Duration, seen: &[Seen]) -> usize {
        let Counts { old, ready_new, .. } = self.counts(now, seen);
        let gone = self.total.saturating_sub(old.len());
        gone.saturating_sub(self.desired.saturating_sub(old.len() + ready_new))
    }

    /// How many may be replaced before it waits again.
    fn limit(&self) -> usize {
        self.preferences.checkpoints.get(self.passed).map_or(self.total, |percent| percent_of(self.total, *percent))
    }

    fn warmup(&self) -> Duration {
        Duration::from_secs(self.preferences.warmup_s.into())
    }
}

struct Counts<'a> {
    /// Those that do not drain.
    staying: Vec<&'a Seen>,
    /// Those of them that have to go.
    old: Vec<&'a Seen>,
    /// Those of the others that are ready.
    ready_new: usize,
    /// All that are ready.
    ready: usize,
}

/// A percentage of a number, rounded up.
fn percent_of(number: usize, percent: u32) -> usize {
    usize::try_from(percent).map_or(number, |percent| (number * percent).div_ceil(100))
}

#[cfg(test)]
mod tests;
