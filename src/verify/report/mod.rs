//! What a run found, and its renderings: terminal, JSON, JUnit, HTML.

mod html;
mod junit;
mod ladder;
mod terminal;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Addresses;
use super::trace::{Side, TracedMessage};
use crate::plan::{TargetKind, Topology, VerifyCall};

pub use html::html;
pub use junit::junit;
pub use terminal::terminal;

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the edge.
    pub edge: String,
    /// How it is built.
    pub topology: Topology,
    /// Where it is built.
    pub target: TargetKind,
    /// When the run started, RFC 3339.
    pub started: String,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// Whether there was a call and every check of every call passed.
    pub passed: bool,
    /// The calls, one per route.
    pub calls: Vec<CallReport>,
}

/// What was found on one route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallReport {
    /// Source trunk.
    pub from: String,
    /// Destination trunk.
    pub to: String,
    /// The caller's address.
    pub caller: String,
    /// The edge's ingress address.
    pub edge: String,
    /// The callee's addresses.
    pub callee: Vec<String>,
    /// The instance that it went through, as the answer names it: where the answer does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whether every check passed.
    pub passed: bool,
    /// The checks in their order: all of them, but for `same-carrier` when the destination's address may not call.
    pub checks: Vec<Check>,
    /// What the user agents sent and received, part by part.
    pub ladder: Vec<LadderMessage>,
}

/// One check.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name, such as `ack-end-to-end`.
    pub id: String,
    /// What it proves.
    pub title: String,
    /// The part of the smoke call that it belongs to; the ladder has its messages under this name.
    pub part: String,
    /// Whether it holds.
    pub passed: bool,
    /// Whether it could be tried. What was not tried counts as failed.
    pub tried: bool,
    /// How long it took, in milliseconds; for `set-up-delay` the delay itself.
    pub took_ms: f64,
    /// What it has found out besides, such as the instance that the call has reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it failed: what should have come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// When it failed: what came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub came: Option<String>,
    /// When it failed: the likely cause, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// One message as a user agent saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LadderMessage {
    /// The part of the smoke call that it belongs to.
    pub part: String,
    /// Milliseconds since the run started.
    pub at_ms: f64,
    /// Which end saw it.
    pub end: LadderEnd,
    /// Whether that end sent it.
    pub sent: bool,
    /// Source address.
    pub from: String,
    /// Destination address.
    pub to: String,
    /// Request line or status line, with a note in brackets when the user agent dropped it or could not send it.
    pub start_line: String,
    /// Method of CSeq.
    pub method: String,
    /// The whole message.
    pub raw: String,
}

/// An end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LadderEnd {
    /// The calling side; the stranger too.
    Caller,
    /// The called side.
    Callee,
}

/// The report as JSON.
pub fn json(report: &Report) -> String {
    // A report has string keys and finite numbers only, which always serialize.
    serde_json::to_string_pretty(report).unwrap_or_default()
}

impl CallReport {
    pub(super) fn new(
        call: &VerifyCall,
        addresses: &Addresses,
        checks: Vec<Check>,
        ladder: Vec<LadderMessage>,
    ) -> Self {
        Self {
            from: call.from.clone(),
            to: call.to.clone(),
            caller: call.caller.address.to_string(),
            edge: addresses.ingress.to_string(),
            callee: call.callee.iter().map(|endpoint| endpoint.address.to_string()).collect(),
            instance: None,
            passed: checks.iter().all(|check| check.passed),
            checks,
            ladder,
        }
    }
}

impl LadderMessage {
    pub(super) fn new(part: &str, message: TracedMessage) -> Self {
        Self {
            part: part.to_owned(),
            at_ms: milliseconds(message.at),
            end: match message.side {
                Side::Caller => LadderEnd::Caller,
                Side::Callee => LadderEnd::Callee,
            },
            sent: message.sent,
            from: message.from.to_string(),
            to: message.to.to_string(),
            method: cseq_method(&message.raw),
            start_line: message.start_line,
            raw: message.raw,
        }
    }
}

impl Report {
    /// Checks that passed, and all.
    fn tally(&self) -> (usize, usize) {
        let checks = || self.calls.iter().flat_map(|call| &call.checks);
        (checks().filter(|check| check.passed).count(), checks().count())
    }
}

/// Milliseconds with one decimal.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn cseq_method(raw: &str) -> String {
    raw.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("CSeq"))
        .and_then(|(_, value)| value.split_whitespace().nth(1))
        .unwrap_or_default()
        .to_owned()
}
