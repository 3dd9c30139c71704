//! The record of deploys and destroys: which step began, ended, and how. It answers `status`, tells the next run where the last one was
//! cut off, and is no source of truth about what stands: that is asked of the target.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Runs that are kept. A run is about 1 KiB; twenty show a week of trials.
const KEPT_RUNS: usize = 20;

/// What `journal.json` contains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// When the infrastructure that stands was created, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure_since_unix_ms: Option<u64>,
    /// The AWS account in which it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The refresh that was begun and whose end nobody has seen yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<RefreshRecord>,
    /// The last runs, the newest last.
    pub runs: Vec<Run>,
}

/// What has to be known of a refresh to lead it on after its leader was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshRecord {
    /// Its id; empty while it is not known whether it has begun.
    pub id: String,
    /// The version that it brings.
    pub version: u64,
    /// The version that was there before.
    pub previous: u64,
    /// The instances that were there before.
    pub before: Vec<String>,
    /// Alarms that were on before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// Whether the smoke call has passed.
    pub smoke_call: bool,
}

/// One run of a command that changes what is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The command.
    pub command: Command,
    /// Version of sipedge.
    pub sipedge: String,
    /// Its process.
    pub pid: u32,
    /// When it began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// When it ended; absent while it runs, and for ever when it was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_unix_ms: Option<u64>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The version that a rollback brings back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Its steps so far.
    pub steps: Vec<StepRecord>,
}

/// A command that changes what is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// `sipedge deploy`
    Deploy,
    /// `sipedge refresh`
    Refresh,
    /// `sipedge rollback`
    Rollback,
    /// `sipedge destroy`
    Destroy,
}

impl Command {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Refresh => "refresh",
            Self::Rollback => "rollback",
            Self::Destroy => "destroy",
        }
    }
}

/// The steps, in their order. Each may be run again at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Spec to plan.
    Plan,
    /// The plan's files are written.
    Artefacts,
    /// AWS: the image that instances start from is found.
    Image,
    /// AWS: Terraform has its providers and its state.
    Init,
    /// AWS: Terraform has worked out what changes.
    TerraformPlan,
    /// Token keys are made, unless they are there.
    Secrets,
    /// The network stands as planned.
    Infrastructure,
    /// AWS: what Terraform has worked out is done.
    Apply,
    /// Instances of another version take the place of those that run, as far as the first checkpoint.
    Refresh,
    /// The smoke call through a new instance.
    SmokeCall,
    /// The rest is replaced, and watched.
    Bake,
    /// The version of before comes back.
    Rollback,
    /// Enough instances have been started.
    Instances,
    /// Each of them passes the load balancer's health check.
    Ready,
    /// The smoke call.
    VerifiedCall,
    /// AWS: the sheet for the carriers is written, with the addresses.
    HandOff,
    /// Everything is removed.
    Remove,
}

impl Step {
    /// The steps in which a refresh is led.
    pub const REFRESH: [Self; 3] = [Self::Refresh, Self::SmokeCall, Self::Bake];

    /// The steps of a deploy. Those of a refresh come after the infrastructure, when there is something to replace.
    pub const DEPLOY: [Self; 7] = [
        Self::Plan,
        Self::Artefacts,
        Self::Secrets,
        Self::Infrastructure,
        Self::Instances,
        Self::Ready,
        Self::VerifiedCall,
    ];

    /// The steps of a deploy to AWS. Nothing in the account changes before the plan was shown, and agreed to.
    pub const DEPLOY_AWS: [Self; 10] = [
        Self::Plan,
        Self::Artefacts,
        Self::Image,
        Self::Init,
        Self::TerraformPlan,
        Self::Secrets,
        Self::Apply,
        Self::Ready,
        Self::VerifiedCall,
        Self::HandOff,
    ];

    /// The steps of a destroy on AWS.
    pub const DESTROY_AWS: [Self; 4] = [Self::Init, Self::TerraformPlan, Self::Apply, Self::Remove];

    /// Its name in journals, JSON and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Artefacts => "artefacts",
            Self::Image => "image",
            Self::Init => "init",
            Self::TerraformPlan => "terraform-plan",
            Self::Secrets => "secrets",
            Self::Infrastructure => "infrastructure",
            Self::Refresh => "refresh",
            Self::SmokeCall => "smoke-call",
            Self::Bake => "bake",
            Self::Rollback => "rollback",
            Self::Apply => "apply",
            Self::Instances => "instances",
            Self::Ready => "ready",
            Self::VerifiedCall => "verified-call",
            Self::HandOff => "hand-off",
            Self::Remove => "remove",
        }
    }
}

/// One step of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// The step.
    pub step: Step,
    /// When it began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_unix_ms: Option<u64>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What it did, or why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// How a step or a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As asked.
    Done,
    /// With an error.
    Failed,
}

impl Journal {
    /// The newest run.
    pub fn last(&self) -> Option<&Run> {
        self.runs.last()
    }

    /// When the newest run began that changed what is live, or tried to. A run that ended before that has changed nothing.
    pub fn changed_unix_ms(&self) -> Option<u64> {
        let changes = |record: &StepRecord| matches!(record.step, Step::Apply | Step::Refresh | Step::Rollback);
        let run = self.runs.iter().rev().find(|run| run.steps.iter().any(changes))?;
        Some(run.started_unix_ms)
    }

    /// Begins a run.
    pub fn begin(&mut self, command: Command) {
        if self.runs.len() >= KEPT_RUNS {
            self.runs.drain(..=self.runs.len() - KEPT_RUNS);
        }
        self.runs.push(Run {
            command,
            sipedge: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_unix_ms: now_unix_ms(),
            ended_unix_ms: None,
            outcome: None,
            version: None,
            steps: Vec::new(),
        });
    }

    /// The newest run brings this version back.
    pub fn aim_at(&mut self, version: u64) {
        if let Some(run) = self.runs.last_mut() {
            run.version = Some(version);
        }
    }

    /// The version that a rollback was to bring which was cut off: the next one goes on with it, and not to the version before that.
    pub fn cut_off_rollback(&self) -> Option<u64> {
        self.last().filter(|run| run.command == Command::Rollback && run.outcome.is_none())?.version
    }

    /// Begins a step of the newest run.
    pub fn begin_step(&mut self, step: Step) {
        if let Some(run) = self.runs.last_mut() {
            run.steps.push(StepRecord {
                step,
                started_unix_ms: now_unix_ms(),
                ended_unix_ms: None,
                outcome: None,
                detail: String::new(),
            });
        }
    }

    /// Ends the newest step of the newest run. A step that failed ends the run.
    pub fn end_step(&mut self, outcome: Outcome, detail: &str) {
        let Some(run) = self.runs.last_mut() else { return };
        if let Some(step) = run.steps.last_mut() {
            step.ended_unix_ms = Some(now_unix_ms());
            step.outcome = Some(outcome);
            step.detail = detail.to_owned();
        }
        if outcome == Outcome::Failed {
            self.end(Outcome::Failed);
        }
    }

    /// Ends the newest run.
    pub fn end(&mut self, outcome: Outcome) {
        if let Some(run) = self.runs.last_mut() {
            run.ended_unix_ms = Some(now_unix_ms());
            run.outcome = Some(outcome);
        }
    }
}

impl Run {
    /// The step in which it failed or was cut off; absent when it ended well or is not known to have begun a step.
    pub fn unfinished_step(&self) -> Option<Step> {
        match self.outcome {
            Some(Outcome::Done) => None,
            // A rollback that is done follows the step that made it necessary.
            _ => self
                .steps
                .iter()
                .rev()
                .find(|record| record.outcome != Some(Outcome::Done))
                .or(self.steps.last())
                .map(|record| record.step),
        }
    }
}

/// Milliseconds since 1970.
pub fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment as RFC 3339 has it, in UTC, such as `2026-11-20T11:24:00Z`.
pub fn rfc3339(unix_ms: u64) -> String {
    let (days, seconds) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    // Years that begin in March have their leap day at the end: 400 of them have 146,097 days, and day 0 of 1970 is day 719,468.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(unix_ms), text);
        }
    }

    #[test]
    fn a_run_without_an_end_names_the_step_it_was_cut_off_in() {
        let mut journal = Journal::default();
        journal.begin(Command::Deploy);
        journal.begin_step(Step::Plan);
        journal.end_step(Outcome::Done, "");
        journal.begin_step(Step::Ready);
        assert_eq!(journal.last().and_then(Run::unfinished_step), Some(Step::Ready));
        journal.end_step(Outcome::Done, "");
        journal.end(Outcome::Done);
        assert_eq!(journal.last().and_then(Run::unfinished_step), None);
    }

    #[test]
    fn only_a_rollback_that_was_cut_off_is_gone_on_with() {
        let mut journal = Journal::default();
        journal.begin(Command::Rollback);
        assert_eq!(journal.cut_off_rollback(), None, "it is not known where to");
        journal.aim_at(4);
        assert_eq!(journal.cut_off_rollback(), Some(4));
        journal.end(Outcome::Failed);
        assert_eq!(journal.cut_off_rollback(), None, "who asks again wants another version");
        journal.begin(Command::Refresh);
        journal.aim_at(4);
        assert_eq!(journal.cut_off_rollback(), None);
    }

    #[test]
    fn a_failed_step_ends_the_run() {
        let mut journal = Journal::default();
        journal.begin(Command::Deploy);
        journal.begin_step(Step::Infrastructure);
        journal.end_step(Outcome::Failed, "no memory");
        assert_eq!(journal.last().and_then(|run| run.outcome), Some(Outcome::Failed));
    }

    #[test]
    fn a_rollback_does_not_hide_the_step_that_failed() {
        let mut journal = Journal::default();
        journal.begin(Command::Deploy);
        journal.begin_step(Step::SmokeCall);
        journal.end_step(Outcome::Failed, "no 200");
        journal.begin_step(Step::Rollback);
        journal.end_step(Outcome::Done, "");
        assert_eq!(journal.last().and_then(Run::unfinished_step), Some(Step::SmokeCall));
    }

    #[test]
    fn a_run_that_changed_nothing_leaves_what_is_live_as_it_was() {
        let mut journal = Journal::default();
        assert_eq!(journal.changed_unix_ms(), None);
        for (started, step) in [(1, Step::Apply), (2, Step::TerraformPlan), (3, Step::Rollback), (4, Step::Init)] {
            journal.begin(Command::Deploy);
            journal.begin_step(step);
            journal.runs.last_mut().expect("begun").started_unix_ms = started;
            assert_eq!(journal.changed_unix_ms(), Some(if started < 3 { 1 } else { 3 }));
        }
    }

    #[test]
    fn a_journal_of_an_older_build_has_no_account() {
        let journal: Journal = serde_json::from_str(r#"{"runs":[]}"#).expect("it can be read");
        assert_eq!(journal.account, None);
    }

    #[test]
    fn old_runs_are_forgotten() {
        let mut journal = Journal::default();
        for _ in 0..3 * KEPT_RUNS {
            journal.begin(Command::Deploy);
        }
        assert_eq!(journal.runs.len(), KEPT_RUNS);
    }

    #[test]
    fn names_are_those_of_the_json() {
        for step in Step::DEPLOY.into_iter().chain(Step::REFRESH).chain(Step::DEPLOY_AWS).chain(Step::DESTROY_AWS) {
            assert_eq!(serde_json::to_value(step).expect("JSON"), step.name());
        }
    }
}
