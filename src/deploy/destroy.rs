//! Removing a topology: whole, half built, damaged or not there at all.

use super::error::{Cause, DeployError, StepFailure};
use super::journal::{Command, Outcome, Step};
use super::progress::{Event, Progress};
use super::state::{State, write_json};
use super::{ARTEFACT_MODE, take_over};
use crate::target::lab::Lab;

/// What a destroy found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destroyed {
    /// There was something, and now there is not.
    Removed,
    /// There was nothing to remove.
    NothingThere,
}

/// Ends everything that a deploy of this topology started and removes its state.
pub fn destroy(state: &State, progress: &mut dyn Progress) -> Result<Destroyed, DeployError> {
    if !state.exists() {
        return Ok(Destroyed::NothingThere);
    }
    let lock = take_over(state, progress)?;
    let mut journal = state.journal()?;
    journal.begin(Command::Destroy);
    journal.begin_step(Step::Remove);
    write_json(&state.journal_file(), &journal, ARTEFACT_MODE)?;
    progress.event(&Event::StepStarted { step: Step::Remove, number: 1, of: 1 });
    let begun = std::time::Instant::now();
    let removed = remove_lab(state, progress);
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Err(cause) = removed {
        let detail = cause.to_string();
        journal.end_step(Outcome::Failed, &detail);
        // The lab's failure is what the user has to see, not that it could not be written down as well.
        let _ = write_json(&state.journal_file(), &journal, ARTEFACT_MODE);
        progress.event(&Event::StepFailed { step: Step::Remove, ms, detail: &detail });
        return Err(StepFailure::new(Step::Remove, cause, state).into());
    }
    state.remove(lock)?;
    let detail = format!("{} is gone", state.folder().display());
    progress.event(&Event::StepDone { step: Step::Remove, ms, detail: &detail });
    Ok(Destroyed::Removed)
}

fn remove_lab(state: &State, progress: &mut dyn Progress) -> Result<(), Cause> {
    match Lab::attach(&state.lab_folder()) {
        Ok(Some(lab)) => lab.destroy()?,
        Ok(None) => {}
        Err(error) => {
            progress.event(&Event::Note { text: &format!("the lab's state cannot be used ({error}): it is removed") });
        }
    }
    Ok(())
}
