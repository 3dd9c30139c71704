//! Leading a refresh: start it or adopt the one that is in progress, place the smoke call at the first checkpoint, follow it to its end;
//! turn it back on a failed call, an alarm or a timeout.
//!
//! ```text
//! start or adopt → first checkpoint → smoke call → the rest, baking → successful
//!        ╰─────────────┴── failed call, alarm, timeout, failed launches ──┴──────→ rolled back
//! ```
//!
//! The target replaces the instances by itself; whoever leads it may be cut off at any moment, and the next one goes on from what the
//! target says and what [`RefreshRecord`] has kept.

mod failure;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::error::Cause;
use super::fleet::{Fleet, Lifecycle, Member, Preferences, Refresh, RefreshStatus};
use super::journal::{Outcome, RefreshRecord, Step};
use super::progress::{Event, Progress};
use crate::verify::Report;
use failure::because;
pub use failure::{Back, RefreshFailure, Trouble};

/// Looks in a row that may fail before the leader gives up. The refresh goes on without it.
const LOOKS: u32 = 5;

/// What the leader is told beside the version.
#[derive(Debug, Clone)]
pub struct LeadOptions {
    /// The refresh is rolled back when it has taken this long; a rollback may take as long again.
    pub timeout: Duration,
    /// Whether the smoke call is placed.
    pub smoke_call: bool,
    /// What the journal knows of the refresh that may be in progress.
    pub known: Option<RefreshRecord>,
}

/// How a refresh ended well.
#[derive(Debug, Clone, PartialEq)]
pub struct Led {
    /// Its id.
    pub id: String,
    /// The version that is live now.
    pub version: u64,
    /// The version that was live before.
    pub previous: u64,
    /// Whether it was in progress already.
    pub adopted: bool,
    /// The smoke call, unless it had passed before.
    pub report: Option<Report>,
    /// The instances through which it went.
    pub through: Vec<String>,
}

/// Where the leader says what it does: its steps are those of a run, with a journal.
pub trait Steps {
    /// A step begins.
    fn begin(&mut self, step: Step) -> Result<(), Cause>;

    /// The step has ended; `detail` says what it did, or why it failed.
    fn end(&mut self, step: Step, outcome: Outcome, detail: &str) -> Result<(), Cause>;

    /// Keeps what another leader would have to know; nothing when the refresh is over.
    fn remember(&mut self, record: Option<&RefreshRecord>) -> Result<(), Cause>;

    /// Whom to tell what happens.
    fn progress(&mut self) -> &mut dyn Progress;
}

/// Time, as the leader needs it.
pub trait Clock {
    /// Time since some moment.
    fn now(&self) -> Duration;
    /// Lets time pass.
    fn sleep(&self, time: Duration);
}

/// The machine's time.
#[derive(Debug)]
pub struct MachineClock(Instant);

impl Default for MachineClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Brings `version` to all instances of `fleet`, and returns when that has succeeded.
///
/// # Errors
/// [`Cause::Refresh`] when the new version was not found good: what was before is back then, or the failure says why not. Other causes:
/// nothing was begun, or nobody can be told any more what happens; what was begun goes on then, and the next leader adopts it.
pub fn lead(
    fleet: &dyn Fleet,
    version: u64,
    preferences: &Preferences,
    options: &LeadOptions,
    clock: &dyn Clock,
    steps: &mut dyn Steps,
) -> Result<Led, Cause> {
    let mut leader = Leader { fleet, preferences, clock, options, begun: clock.now(), shown: Shown::default() };
    steps.begin(Step::Refresh)?;
    let (mut record, adopted) = match leader.begin(version, steps) {
        Ok(begun) => begun,
        Err(cause) => {
            steps.end(Step::Refresh, Outcome::Failed, &cause.to_string())?;
            return Err(cause);
        }
    };
    let mut led =
        Led { id: record.id.clone(), version, previous: record.previous, adopted, report: None, through: Vec::new() };
    match leader.follow_through(&mut record, &mut led, steps) {
        Ok(()) => {
            steps.remember(None)?;
            Ok(led)
        }
        Err(Stop::Cause(cause)) => Err(cause),
        Err(Stop::Trouble(why)) => {
            let back = leader.turn_back(&record, &why, steps)?;
            Err(Cause::Refresh(Box::new(RefreshFailure { why, back })))
        }
    }
}

/// Turns the refresh that is in progress back, and waits until that has ended. None when there is none. When it ends well before it can be
/// turned back, a refresh with `preferences` brings the version of before.
///
/// # Errors
/// The target cannot be asked, or the journal not be written.
pub fn turn_back(
    fleet: &dyn Fleet,
    preferences: &Preferences,
    options: &LeadOptions,
    clock: &dyn Clock,
    steps: &mut dyn Steps,
) -> Result<Option<Back>, Cause> {
    let Some(refresh) = fleet.refresh_in_progress()? else { return Ok(None) };
    let mut leader = Leader { fleet, preferences, clock, options, begun: clock.now(), shown: Shown::default() };
    let record = leader.record_of(&refresh)?;
    steps.begin(Step::Rollback)?;
    leader.roll_back(&record, steps).map(Some)
}

/// Brings `version` back, which was found good earlier: without a smoke call, as one step. Returns when that has succeeded.
///
/// # Errors
/// As [`lead`].
pub fn go_back(
    fleet: &dyn Fleet,
    version: u64,
    preferences: &Preferences,
    options: &LeadOptions,
    clock: &dyn Clock,
    steps: &mut dyn Steps,
) -> Result<(), Cause> {
    let mut leader = Leader { fleet, preferences, clock, options, begun: clock.now(), shown: Shown::default() };
    steps.begin(Step::Rollback)?;
    let begun = leader.begin(version, steps).map_err(Stop::Cause);
    let (record, ended) = match begun {
        Ok((record, _)) => {
            let ended = leader.follow(&record, steps, |_| false);
            (Some(record), ended)
        }
        Err(stop) => (None, Err(stop)),
    };
    match (closed(Step::Rollback, ended, steps, |_| format!("version {version} is on all instances")), record) {
        (Ok(_), _) => steps.remember(None),
        (Err(Stop::Trouble(why)), Some(record)) => {
            let back = leader.turn_back(&record, &why, steps)?;
            Err(Cause::Refresh(Box::new(RefreshFailure { why, back })))
        }
        (Err(Stop::Trouble(why)), None) => Err(Cause::Trouble(Box::new(why))),
        (Err(Stop::Cause(cause)), _) => Err(cause),
    }
}

/// Why following ended early.
enum Stop {
    /// The new version is no good.
    Trouble(Trouble),
    /// The run cannot go on.
    Cause(Cause),
}

impl From<Cause> for Stop {
    fn from(cause: Cause) -> Self {
        Self::Cause(cause)
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

struct Leader<'a> {
    fleet: &'a dyn Fleet,
    preferences: &'a Preferences,
    clock: &'a dyn Clock,
    options: &'a LeadOptions,
    /// When this leader, or its rollback, began.
    begun: Duration,
    shown: Shown,
}

impl Leader<'_> {
    /// Starts the refresh, or finds it in progress.
    fn begin(&mut self, version: u64, steps: &mut dyn Steps) -> Result<(RefreshRecord, bool), Cause> {
        let mut in_progress = self.fleet.refresh_in_progress()?;
        if let Some(other) = in_progress.take_if(|refresh| !brings(refresh, version)) {
            let text = match other.status {
                RefreshStatus::RollbackInProgress | RefreshStatus::Cancelling => {
                    format!("{} is ending, {}: waiting for that", other.id, other.status.as_str())
                }
                _ => format!("{} brings version {}: it is turned back first", other.id, other.version),
            };
            steps.progress().event(&Event::Note { text: &text });
            if !matches!(other.status, RefreshStatus::RollbackInProgress | RefreshStatus::Cancelling) {
                self.ask_back(&other.id, steps)?;
            }
            self.await_end(&other.id, steps)?;
            // The time of the other one is not that of ours.
            self.begun = self.clock.now();
        }
        if let Some(refresh) = in_progress {
            let record = self.record_of(&refresh)?;
            let text = format!("{} to version {version} is in progress: going on with it", refresh.id);
            steps.progress().event(&Event::Note { text: &text });
            steps.remember(Some(&record))?;
            return Ok((record, true));
        }
        let (group, alarms) = (self.fleet.group()?, self.fleet.alarms()?);
        let before = group.instances.into_iter().map(|member| member.id).collect();
        let (id, previous) = (String::new(), group.version);
        let mut record = RefreshRecord { id, version, previous, before, alarms, smoke_call: false };
        // Before it begins: who is cut off in between has to know afterwards what was there.
        steps.remember(Some(&record))?;
        record.id = self.fleet.start_refresh(version, self.preferences)?;
        steps.remember(Some(&record))?;
        if !record.alarms.is_empty() {
            let text = format!("in alarm before the refresh, and not counted: {}", record.alarms.join(", "));
            steps.progress().event(&Event::Note { text: &text });
        }
        Ok((record, false))
    }

    /// What is known of a refresh: what was written down when it began, if only that it was about to. Of one that somebody else began there
    /// is what can be seen: its new instances are those of its version, and the alarms that are on say nothing of it.
    fn record_of(&self, refresh: &Refresh) -> Result<RefreshRecord, Cause> {
        let is_its = |known: &RefreshRecord| match known.id.as_str() {
            "" => known.version == refresh.version,
            id => id == refresh.id,
        };
        if let Some(known) = self.options.known.clone().filter(is_its) {
            return Ok(RefreshRecord { id: refresh.id.clone(), ..known });
        }
        let group = self.fleet.group()?;
        let before = group.instances.into_iter().filter(|member| member.version != refresh.version);
        Ok(RefreshRecord {
            id: refresh.id.clone(),
            version: refresh.version,
            previous: group.version,
            before: before.map(|member| member.id).collect(),
            alarms: self.fleet.alarms()?,
            smoke_call: false,
        })
    }

    fn follow_through(&mut self, record: &mut RefreshRecord, led: &mut Led, steps: &mut dyn Steps) -> Result<(), Stop> {
        let wants_call = self.options.smoke_call && !record.smoke_call;
        let reached = self.follow(record, steps, |refresh| {
            wants_call && (refresh.at_checkpoint || refresh.status == RefreshStatus::Baking)
        });
        let mut refresh = closed(Step::Refresh, reached, steps, |refresh| {
            let how = if led.adopted { "adopted" } else { "begun" };
            format!("{} to version {} {how}: {} % replaced", record.id, record.version, refresh.percent)
        })?;
        if self.options.smoke_call {
            let some_are_old = refresh.status == RefreshStatus::InProgress;
            if !self.prove(record, led, some_are_old, steps)? {
                steps.begin(Step::Bake)?;
                let all_new = self.follow(record, steps, |refresh| refresh.status == RefreshStatus::Baking);
                refresh = closed(Step::Bake, all_new, steps, |_| {
                    "all instances are new: the call is placed again".to_owned()
                })?;
                self.prove(record, led, false, steps)?;
            }
        }
        steps.begin(Step::Bake)?;
        let ended = if refresh.status == RefreshStatus::Successful {
            Ok(refresh)
        } else {
            self.follow(record, steps, |_| false)
        };
        closed(Step::Bake, ended, steps, |_| format!("version {} is on all instances", record.version))?;
        Ok(())
    }

    /// The step of the smoke call. Whether it proves the new version: a call that met an old instance does not, as long as there are some.
    fn prove(
        &self,
        record: &mut RefreshRecord,
        led: &mut Led,
        some_are_old: bool,
        steps: &mut dyn Steps,
    ) -> Result<bool, Stop> {
        steps.begin(Step::SmokeCall)?;
        let called = if record.smoke_call {
            Ok(("it has passed before".to_owned(), true))
        } else {
            self.call(record, led).map(|(text, met)| (text, met || !some_are_old))
        };
        let (_, proves) = closed(Step::SmokeCall, called, steps, |(text, _)| text.clone())?;
        if proves {
            record.smoke_call = true;
            steps.remember(Some(record))?;
        } else {
            let text = "no call met a new instance: it is placed again when all are new";
            steps.progress().event(&Event::Note { text });
        }
        Ok(proves)
    }

    /// Places the smoke call through the new instances; through which it went, and whether that is as wanted.
    fn call(&self, record: &RefreshRecord, led: &mut Led) -> Result<(String, bool), Stop> {
        let version = record.version;
        let placed = self.fleet.group().and_then(|group| {
            let is_new = |member: &&Member| {
                member.version == version
                    && member.lifecycle == Lifecycle::InService
                    && !record.before.contains(&member.id)
            };
            let new: Vec<String> = group.instances.iter().filter(is_new).map(|member| member.id.clone()).collect();
            self.fleet.smoke_call(&new).map(|call| (call, new))
        });
        let (call, new) = placed.map_err(|cause| Trouble::NoSmokeCall { version, cause: Box::new(cause) })?;
        if !call.report.passed {
            return Err(Trouble::SmokeCall { version, report: Box::new(call.report) }.into());
        }
        let text = match call.through.as_slice() {
            [] if new.is_empty() => "passed; all instances are of the version".to_owned(),
            [] => "passed; no call met a new instance".to_owned(),
            through => format!("passed through {}", through.join(", ")),
        };
        let met = !call.through.is_empty() || new.is_empty();
        (led.report, led.through) = (Some(call.report), call.through);
        Ok((text, met))
    }

    /// Watches the refresh until it has succeeded or `enough` is true.
    fn follow(
        &mut self,
        record: &RefreshRecord,
        steps: &mut dyn Steps,
        enough: impl Fn(&Refresh) -> bool,
    ) -> Result<Refresh, Stop> {
        loop {
            let refresh = self.look(&record.id, steps.progress())?;
            match refresh.status {
                RefreshStatus::Successful => return Ok(refresh),
                RefreshStatus::Pending | RefreshStatus::InProgress | RefreshStatus::Baking => {}
                status => {
                    let (version, reason) = (record.version, refresh.reason);
                    return Err(Trouble::Ended { version, status, reason }.into());
                }
            }
            let mut alarms = self.fleet.alarms().unwrap_or_default();
            alarms.retain(|alarm| !record.alarms.contains(alarm));
            if !alarms.is_empty() {
                return Err(Trouble::Alarm(alarms).into());
            }
            if enough(&refresh) {
                return Ok(refresh);
            }
            if self.clock.now().saturating_sub(self.begun) >= self.options.timeout {
                let (version, after) = (record.version, self.options.timeout);
                return Err(Trouble::Timeout { version, after }.into());
            }
            self.clock.sleep(self.fleet.pause());
        }
    }

    /// The refresh as it is now. A look that fails is repeated.
    fn look(&mut self, id: &str, progress: &mut dyn Progress) -> Result<Refresh, Trouble> {
        let mut failed = 0;
        loop {
            let seen = self.fleet.refresh(id).and_then(|refresh| Ok((refresh, self.fleet.group()?)));
            match seen {
                Ok((refresh, group)) => {
                    self.shown.tell(&refresh, &group.instances, progress);
                    return Ok(refresh);
                }
                Err(cause) => {
                    failed += 1;
                    if failed >= LOOKS {
                        return Err(Trouble::Unreachable(Box::new(cause)));
                    }
                }
            }
            self.clock.sleep(self.fleet.pause());
        }
    }

    /// Waits until a refresh that is ending has ended.
    fn await_end(&mut self, id: &str, steps: &mut dyn Steps) -> Result<Refresh, Cause> {
        let begun = self.clock.now();
        loop {
            let refresh = self.look(id, steps.progress()).map_err(|trouble| Cause::Trouble(Box::new(trouble)))?;
            if refresh.status.is_final() {
                return Ok(refresh);
            }
            if self.clock.now().saturating_sub(begun) >= self.options.timeout {
                let (version, after) = (refresh.version, self.options.timeout);
                return Err(Cause::Trouble(Box::new(Trouble::Timeout { version, after })));
            }
            self.clock.sleep(self.fleet.pause());
        }
    }

    /// Brings the version of before back after `why`, unless the target has done so or nobody can ask it.
    fn turn_back(&mut self, record: &RefreshRecord, why: &Trouble, steps: &mut dyn Steps) -> Result<Back, Cause> {
        match why {
            Trouble::Unreachable(_) => {
                return Ok(Back::Not("the refresh goes on by itself, and the next run adopts it".to_owned()));
            }
            Trouble::Ended { status: RefreshStatus::RollbackSuccessful, .. } => {
                steps.remember(None)?;
                return Ok(Back::Version(record.previous));
            }
            Trouble::Ended { status, reason, .. } if status.is_final() => {
                steps.remember(None)?;
                return Ok(Back::Not(format!("the refresh is {}{}", status.as_str(), because(reason))));
            }
            _ => {}
        }
        steps.begin(Step::Rollback)?;
        self.roll_back(record, steps)
    }

    /// The step of the rollback, which has begun.
    fn roll_back(&mut self, record: &RefreshRecord, steps: &mut dyn Steps) -> Result<Back, Cause> {
        let ended = self.ask_back(&record.id, steps).and_then(|()| self.await_end(&record.id, steps));
        let back = match ended {
            Ok(Refresh { status: RefreshStatus::RollbackSuccessful, .. }) => Back::Version(record.previous),
            Ok(Refresh { status: RefreshStatus::Successful, .. }) if record.previous != record.version => {
                let text = format!(
                    "{} had ended before it could be turned back: a refresh brings version {}",
                    record.id, record.previous
                );
                steps.progress().event(&Event::Note { text: &text });
                self.replace_again(record.previous, steps)
            }
            Ok(ended) => Back::Not(format!("the refresh is {}{}", ended.status.as_str(), because(&ended.reason))),
            Err(cause) => Back::Not(cause.to_string()),
        };
        match &back {
            Back::Version(_) => {
                steps.end(Step::Rollback, Outcome::Done, &back.to_string())?;
                steps.remember(None)?;
            }
            Back::Not(reason) => steps.end(Step::Rollback, Outcome::Failed, reason)?,
        }
        Ok(back)
    }
}

impl Leader<'_> {
    /// Asks for a refresh's rollback until that is granted, or the refresh goes forward no more: what has ended cannot be turned back, and
    /// its status says what it came to.
    fn ask_back(&mut self, id: &str, steps: &mut dyn Steps) -> Result<(), Cause> {
        let begun = self.clock.now();
        loop {
            let Err(cause) = self.fleet.roll_back(id) else { return Ok(()) };
            let refresh = self.look(id, steps.progress()).map_err(|trouble| Cause::Trouble(Box::new(trouble)))?;
            if !is_forward(refresh.status) {
                return Ok(());
            }
            let late = self.clock.now().saturating_sub(begun) >= self.options.timeout;
            if late || !cause.may_pass() {
                return Err(cause);
            }
            self.clock.sleep(self.fleet.pause());
        }
    }

    /// Brings a version back by a refresh of its own.
    fn replace_again(&mut self, version: u64, steps: &mut dyn Steps) -> Back {
        self.begun = self.clock.now();
        let begun = self.begin(version, steps).map_err(Stop::Cause);
        let ended = begun.and_then(|(record, _)| self.follow(&record, steps, |_| false));
        match ended {
            Ok(_) => Back::Version(version),
            Err(Stop::Trouble(trouble)) => Back::Not(trouble.to_string()),
            Err(Stop::Cause(cause)) => Back::Not(cause.to_string()),
        }
    }
}

/// Ends a step by what came of it.
fn closed<T, E: Into<Stop>>(
    step: Step,
    result: Result<T, E>,
    steps: &mut dyn Steps,
    detail: impl FnOnce(&T) -> String,
) -> Result<T, Stop> {
    match result.map_err(Into::into) {
        Ok(value) => {
            steps.end(step, Outcome::Done, &detail(&value))?;
            Ok(value)
        }
        Err(stop) => {
            let text = match &stop {
                Stop::Trouble(trouble) => trouble.to_string(),
                Stop::Cause(cause) => cause.to_string(),
            };
            steps.end(step, Outcome::Failed, &text)?;
            Err(stop)
        }
    }
}

/// Whether a refresh in progress is one that brings this version, and is not on its way back.
fn brings(refresh: &Refresh, version: u64) -> bool {
    is_forward(refresh.status) && refresh.version == version
}

fn is_forward(status: RefreshStatus) -> bool {
    matches!(status, RefreshStatus::Pending | RefreshStatus::InProgress | RefreshStatus::Baking)
}

/// What was told last, so that only what changes is.
#[derive(Debug, Default)]
struct Shown {
    refresh: Option<(RefreshStatus, u32, bool)>,
    members: BTreeMap<String, (Lifecycle, bool)>,
}

impl Shown {
    fn tell(&mut self, refresh: &Refresh, members: &[Member], progress: &mut dyn Progress) {
        for member in members {
            let now = (member.lifecycle, member.healthy);
            if self.members.insert(member.id.clone(), now) != Some(now) {
                progress.event(&Event::Instance { instance: member });
            }
        }
        let gone: Vec<String> =
            self.members.keys().filter(|id| members.iter().all(|member| member.id != **id)).cloned().collect();
        for id in gone {
            self.members.remove(&id);
            progress.event(&Event::InstanceGone { id: &id });
        }
        let now = (refresh.status, refresh.percent, refresh.at_checkpoint);
        if self.refresh.replace(now) != Some(now) {
            progress.event(&Event::Refresh { refresh });
        }
    }
}

#[cfg(test)]
mod tests;
