//! Where the checks of one call write their results.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::report::{Check, milliseconds};

/// Results by check id.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    results: Mutex<BTreeMap<&'static str, Outcome>>,
    notes: Mutex<BTreeMap<&'static str, String>>,
}

/// How long a check took, and what came of it.
type Outcome = (Duration, Result<(), Failure>);

/// Why a check failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    expected: String,
    came: String,
    cause: String,
}

impl Failure {
    pub(super) fn new(expected: impl Into<String>, came: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { expected: expected.into(), came: came.into(), cause: cause.into() }
    }
}

impl Sheet {
    /// Tries one check and writes down its time and result. `None` when it failed.
    pub(super) async fn check<T>(
        &self,
        id: &'static str,
        trial: impl Future<Output = Result<T, Failure>>,
    ) -> Option<T> {
        let began = Instant::now();
        match trial.await {
            Ok(value) => {
                self.write(id, began.elapsed(), Ok(()));
                Some(value)
            }
            Err(failure) => {
                self.write(id, began.elapsed(), Err(failure));
                None
            }
        }
    }

    /// What a check has found out besides whether it holds.
    pub(super) fn note(&self, id: &'static str, text: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(id, text);
    }

    /// Writes down a check that needs no waiting; `took` is the time that it is about, or zero.
    pub(super) fn judge(&self, id: &'static str, took: Duration, verdict: Result<(), Failure>) {
        self.write(id, took, verdict);
    }

    pub(super) fn fail(&self, id: &'static str, took: Duration, failure: Failure) {
        self.write(id, took, Err(failure));
    }

    /// The line of a check; one that has no result was not tried, which counts as failed.
    pub(super) fn line(&self, id: &'static str, title: &str, part: &str) -> Check {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let note = self.notes.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let (title, part) = (title.to_owned(), part.to_owned());
        let base = Check { id: id.to_owned(), title, part, note, ..Check::default() };
        match results.get(id) {
            Some((took, Ok(()))) => Check { passed: true, tried: true, took_ms: milliseconds(*took), ..base },
            Some((took, Err(failure))) => Check {
                tried: true,
                took_ms: milliseconds(*took),
                expected: Some(failure.expected.clone()),
                came: Some(failure.came.clone()),
                cause: Some(failure.cause.clone()),
                ..base
            },
            None => Check {
                expected: Some(base.title.clone()),
                came: Some("not tried".to_owned()),
                cause: Some("a check that comes before it failed".to_owned()),
                ..base
            },
        }
    }

    fn write(&self, id: &'static str, took: Duration, verdict: Result<(), Failure>) {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (took, verdict));
    }
}
