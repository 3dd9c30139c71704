//! A run of a command that changes what is deployed: each step is journaled and told.

use std::time::Instant;

use super::ARTEFACT_MODE;
use super::error::{Cause, DeployError, StepFailure};
use super::journal::{Command, Journal, Outcome, RefreshRecord, Run, Step};
use super::progress::{Event, Progress};
use super::refresh::Steps;
use super::state::{State, StateError, write_json};

/// Journals and tells each step.
pub(super) struct Runner<'a> {
    pub(super) state: &'a State,
    pub(super) progress: &'a mut dyn Progress,
    pub(super) journal: Journal,
    /// The step at which the last run ended, unless it ended well.
    pub(super) last_unfinished: Option<Step>,
    /// The steps that this run is expected to have.
    steps: Vec<Step>,
    /// When the step began that is in progress.
    begun: Instant,
}

impl<'a> Runner<'a> {
    pub(super) fn begin(
        state: &'a State,
        command: Command,
        steps: &[Step],
        progress: &'a mut dyn Progress,
    ) -> Result<Self, StateError> {
        let mut journal = state.journal()?;
        let last_unfinished = journal.last().and_then(Run::unfinished_step);
        if let (Some(step), Some(Run { outcome: None, command, .. })) = (last_unfinished, journal.last()) {
            let command = command.name();
            let text = format!("the last {command} was cut off in step {}: going on from what stands", step.name());
            progress.event(&Event::Note { text: &text });
        }
        journal.begin(command);
        Ok(Self { state, progress, journal, last_unfinished, steps: steps.to_vec(), begun: Instant::now() })
    }

    /// Does one step.
    pub(super) fn step<T>(
        &mut self,
        step: Step,
        work: impl FnOnce(&mut dyn Progress) -> Result<(T, String), Cause>,
    ) -> Result<T, DeployError> {
        self.begin_step(step)?;
        match work(&mut *self.progress) {
            Ok((value, detail)) => {
                self.end_step(step, Outcome::Done, &detail)?;
                Ok(value)
            }
            Err(cause) => {
                let detail = cause.to_string();
                // The step's failure is what the user has to see, not that it could not be written down as well.
                let _ = self.end_step(step, Outcome::Failed, &detail);
                Err(StepFailure::new(step, cause, self.state).into())
            }
        }
    }

    /// What a rollback brings back, for the next one when this one is cut off.
    pub(super) fn aim_at(&mut self, version: u64) -> Result<(), StateError> {
        self.journal.aim_at(version);
        self.save()
    }

    /// The steps of a refresh follow `after`.
    pub(super) fn expect_refresh_after(&mut self, after: Step) {
        if let Some(place) = self.steps.iter().position(|step| *step == after) {
            self.steps.splice(place + 1..place + 1, Step::REFRESH);
        }
    }

    /// The failure of a part that has told its steps by itself, or of what is between two steps. The run has ended.
    pub(super) fn failed(&mut self, cause: Cause) -> DeployError {
        let begun = self.journal.last().and_then(Run::unfinished_step);
        let step = begun.or(self.steps.first().copied()).unwrap_or(Step::Refresh);
        self.give_up();
        StepFailure::new(step, cause, self.state).into()
    }

    /// The end of a run that is given up between two steps, before anything was changed.
    #[cfg(feature = "aws")]
    pub(super) fn refused(&mut self, cause: Cause) -> DeployError {
        self.give_up();
        DeployError::Refused(Box::new(cause))
    }

    fn give_up(&mut self) {
        self.journal.end(Outcome::Failed);
        // The failure is what the user has to see, not that it could not be written down as well.
        let _ = self.save();
    }

    /// The run has ended well. No refresh is left to lead: one whose leader was cut off may have ended by itself.
    pub(super) fn end(mut self) -> Result<(), StateError> {
        self.journal.refresh = None;
        self.journal.end(Outcome::Done);
        self.save()
    }

    fn begin_step(&mut self, step: Step) -> Result<(), StateError> {
        if !self.steps.contains(&step) {
            self.steps.push(step);
        }
        let number = self.steps.iter().position(|other| *other == step).map_or(0, |index| index + 1);
        self.journal.begin_step(step);
        self.save()?;
        self.progress.event(&Event::StepStarted { step, number, of: self.steps.len() });
        self.begun = Instant::now();
        Ok(())
    }

    fn end_step(&mut self, step: Step, outcome: Outcome, detail: &str) -> Result<(), StateError> {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.journal.end_step(outcome, detail);
        let saved = self.save();
        let failed = outcome == Outcome::Failed || saved.is_err();
        self.progress.event(&match failed {
            false => Event::StepDone { step, ms, detail },
            true => Event::StepFailed { step, ms, detail },
        });
        saved
    }

    fn save(&self) -> Result<(), StateError> {
        write_json(&self.state.journal_file(), &self.journal, ARTEFACT_MODE)
    }
}

impl Steps for Runner<'_> {
    fn begin(&mut self, step: Step) -> Result<(), Cause> {
        Ok(self.begin_step(step)?)
    }

    fn end(&mut self, step: Step, outcome: Outcome, detail: &str) -> Result<(), Cause> {
        Ok(self.end_step(step, outcome, detail)?)
    }

    fn remember(&mut self, record: Option<&RefreshRecord>) -> Result<(), Cause> {
        self.journal.refresh = record.cloned();
        Ok(self.save()?)
    }

    fn progress(&mut self) -> &mut dyn Progress {
        self.progress
    }
}
