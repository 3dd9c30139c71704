//! A call as a ladder of arrows between caller, edge and callee.

use super::super::agent::FORGED_SUBJECT;
use super::{CallReport, LadderEnd, LadderMessage};

/// One arrow.
#[derive(Debug)]
pub(super) struct Rung<'a> {
    /// Milliseconds since the first arrow of its part.
    pub(super) after_ms: f64,
    /// Between which columns.
    pub(super) lane: Lane,
    /// Whether it points to the callee's side.
    pub(super) rightward: bool,
    /// What is written on it.
    pub(super) label: String,
    /// The message.
    pub(super) message: &'a LadderMessage,
}

/// The two gaps between three columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Caller to edge.
    Left,
    /// Edge to callee.
    Right,
}

/// The parts of a call in order, each with its arrows.
pub(super) fn parts(call: &CallReport) -> Vec<(&str, Vec<Rung<'_>>)> {
    let mut parts: Vec<(&str, Vec<Rung<'_>>)> = Vec::new();
    for message in &call.ladder {
        if parts.last().is_none_or(|(name, _)| *name != message.part) {
            parts.push((&message.part, Vec::new()));
        }
        if let Some((_, rungs)) = parts.last_mut() {
            let start = rungs.first().map_or(message.at_ms, |first: &Rung<'_>| first.message.at_ms);
            rungs.push(Rung::new(message, start));
        }
    }
    parts
}

impl<'a> Rung<'a> {
    fn new(message: &'a LadderMessage, start_ms: f64) -> Self {
        let caller = message.end == LadderEnd::Caller;
        Self {
            after_ms: ((message.at_ms - start_ms) * 10.0).round() / 10.0,
            lane: if caller { Lane::Left } else { Lane::Right },
            // The caller's sending and the callee's receiving point the same way.
            rightward: caller == message.sent,
            label: label(message),
            message,
        }
    }
}

/// `INVITE`, `200 OK (BYE)`, `BYE, forged route`, and the note of what was dropped or not sent.
fn label(message: &LadderMessage) -> String {
    let line = &message.start_line;
    let note = line.find(" (").and_then(|at| line.get(at..)).unwrap_or_default();
    match line.strip_prefix("SIP/2.0 ") {
        Some(status) => {
            let status = status.strip_suffix(note).unwrap_or(status);
            format!("{status} ({}){note}", message.method)
        }
        None => {
            let forged = message.raw.lines().any(|line| line.strip_prefix("Subject: ") == Some(FORGED_SUBJECT));
            let forged = if forged { ", forged route" } else { "" };
            format!("{}{forged}{note}", line.split(' ').next().unwrap_or_default())
        }
    }
}
