//! What a deploy needs, checked before it needs it: `sipedge doctor`.

#[cfg(feature = "aws")]
mod account;
mod machine;

use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use crate::plan::{self, TargetKind};
use crate::spec::{Loaded, SpecErrors, stale_carriers};

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, such as `terraform`.
    pub topic: &'static str,
    /// How it is.
    pub state: Health,
    /// What was found, and what to do when it is not well.
    pub says: String,
    /// The command that confirms it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// As it has to be.
    Ok,
    /// A deploy will go through, and somebody should look at it.
    Warning,
    /// A deploy will fail.
    Problem,
}

impl Check {
    pub(crate) fn new(topic: &'static str, state: Health, says: impl Into<String>) -> Self {
        Self { topic, state, says: says.into(), confirm: None }
    }

    pub(crate) fn confirmed_by(mut self, command: impl Into<String>) -> Self {
        self.confirm = Some(command.into());
        self
    }
}

/// Checks what a deploy of `spec`, read from `file`, needs; `target`: for one target alone.
pub fn examine(
    file: &Path,
    spec: Result<Loaded, SpecErrors>,
    target: Option<TargetKind>,
    now: SystemTime,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let loaded = match spec {
        Ok(loaded) => {
            checks.push(spec_is_sound(&loaded, file));
            checks.extend(data_is_young(&loaded, now));
            Some(loaded)
        }
        Err(errors) => {
            let says = format!("{} cannot be used: {errors}", file.display());
            checks.push(Check::new("spec", Health::Problem, says).confirmed_by("sipedge check"));
            None
        }
    };
    if target != Some(TargetKind::Aws) {
        checks.extend(machine::lab());
    }
    if target != Some(TargetKind::Lab) {
        checks.extend(loaded.as_ref().map(answerer_is_reached));
        let bucket = loaded.as_ref().is_some_and(|loaded| loaded.spec.aws.state.is_some());
        checks.extend(machine::terraform(bucket));
        #[cfg(feature = "aws")]
        checks.extend(account::examine(file, loaded.as_ref()));
        #[cfg(not(feature = "aws"))]
        checks.push(
            Check::new("account", Health::Problem, "this build has no AWS support; build with `--features aws`")
                .confirmed_by("cargo build --release --features aws"),
        );
    }
    checks
}

/// The gravest of the checks.
pub fn worst(checks: &[Check]) -> Health {
    checks.iter().map(|check| check.state).max().unwrap_or(Health::Ok)
}

fn spec_is_sound(loaded: &Loaded, file: &Path) -> Check {
    let (state, says) = match loaded.warnings.len() {
        0 => (Health::Ok, format!("{} is sound: edge {}", file.display(), loaded.spec.name)),
        1 => (Health::Warning, format!("{} can be used, with a warning", file.display())),
        count => (Health::Warning, format!("{} can be used, with {count} warnings", file.display())),
    };
    Check::new("spec", state, says).confirmed_by("sipedge check")
}

fn answerer_is_reached(loaded: &Loaded) -> Check {
    let check = match plan::unreached_answerer(&loaded.spec) {
        Some(lack) => Check::new("operators", Health::Warning, lack),
        None if loaded.spec.verify.answerer => {
            let ranges: Vec<String> = loaded.spec.verify.operators.iter().map(ToString::to_string).collect();
            let says =
                format!("the answerer may be called from {}: your own address has to be among them", ranges.join(", "));
            Check::new("operators", Health::Ok, says)
        }
        None => {
            let says = "the spec says verify.answerer: false: a deploy to AWS needs --no-verify";
            Check::new("operators", Health::Warning, says)
        }
    };
    check.confirmed_by("curl -s https://checkip.amazonaws.com")
}

fn data_is_young(loaded: &Loaded, now: SystemTime) -> Vec<Check> {
    let stale = stale_carriers(&loaded.spec, now);
    let mut checks: Vec<Check> =
        stale.into_iter().map(|warning| Check::new("carriers' data", Health::Warning, warning)).collect();
    if checks.is_empty() {
        checks.push(Check::new(
            "carriers' data",
            Health::Ok,
            "the addresses of the spec's carriers are of the last half year",
        ));
    }
    let old: Vec<Check> = plan::stale_prices(&loaded.spec, now)
        .into_iter()
        .map(|warning| Check::new("prices", Health::Warning, warning))
        .collect();
    if old.is_empty() {
        checks.push(Check::new("prices", Health::Ok, "AWS's prices in the cost estimate are of the last year"));
    }
    checks.extend(old);
    checks
}
