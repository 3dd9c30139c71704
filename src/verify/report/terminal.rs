//! The report for a terminal: a line per check, then ladders.

use std::fmt::Write;

use super::ladder::{self, Lane, Rung};
use super::{CallReport, Check, Report};

/// Characters between two columns of the ladder, without the columns themselves.
const GAP: usize = 31;

/// Characters before the first column: the time and a space.
const MARGIN: usize = 13;

/// A line per check with its time; then the ladder of the main call of the first route, or of the first route that failed, where
/// every other part with a failed check has its ladder too. Without colours.
pub fn terminal(report: &Report) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "Smoke call: {}, {} on {}", report.edge, report.topology, report.target);
    for call in &report.calls {
        let _ = writeln!(text, "\n{} → {}", call.from, call.to);
        for check in &call.checks {
            write_check(&mut text, check);
        }
    }
    if report.calls.is_empty() {
        let _ = writeln!(text, "\nThe plan has no route, so there is nothing to call.");
    }
    if let Some(call) = report.calls.iter().find(|call| !call.passed).or(report.calls.first()) {
        for (index, (part, rungs)) in ladder::parts(call).iter().enumerate() {
            let failed = call.checks.iter().any(|check| check.part == *part && check.tried && !check.passed);
            if index == 0 || failed {
                write_ladder(&mut text, call, part, rungs);
            }
        }
    }
    let (passed, all) = report.tally();
    let verdict = if report.passed { "passed" } else { "FAILED" };
    let _ = writeln!(text, "\n{verdict}: {passed} of {all} checks in {:.0} ms", report.took_ms);
    text
}

fn write_check(text: &mut String, check: &Check) {
    let mark = if check.passed { '✓' } else { '✗' };
    let took = match check.tried {
        true => format!("{:.1} ms", check.took_ms),
        false => "not tried".to_owned(),
    };
    let _ = writeln!(text, "  {mark} {:<23}{:<44}{took:>10}", check.id, check.title);
    if !check.tried {
        return;
    }
    if let Some(note) = &check.note {
        let _ = writeln!(text, "      {note}");
    }
    for (name, value) in [("expected", &check.expected), ("came", &check.came), ("cause", &check.cause)] {
        if let Some(value) = value {
            let _ = writeln!(text, "      {:<10}{value}", format!("{name}:"));
        }
    }
}

fn write_ladder(text: &mut String, call: &CallReport, part: &str, rungs: &[Rung<'_>]) {
    let _ = writeln!(text, "\nLadder ({part}), {} → {}\n", call.from, call.to);
    let callee = rungs
        .iter()
        .find(|rung| rung.lane == Lane::Right)
        .map(|rung| if rung.message.sent { &rung.message.from } else { &rung.message.to })
        .or(call.callee.first());
    let callee = callee.map_or("", String::as_str);
    for line in [["caller", "edge", "callee"], [call.caller.as_str(), call.edge.as_str(), callee]] {
        let mut row = String::new();
        for (column, word) in line.into_iter().enumerate() {
            let middle = MARGIN + column * (GAP + 1);
            let start = middle.saturating_sub(word.chars().count() / 2);
            row.extend(std::iter::repeat_n(' ', start.saturating_sub(row.chars().count())));
            row.push_str(word);
        }
        let _ = writeln!(text, "{row}");
    }
    let blank = " ".repeat(GAP);
    for rung in rungs {
        let (arrow, overflow) = arrow(rung);
        let time = format!("{:.1} ms", rung.after_ms);
        let (left, right) = match rung.lane {
            Lane::Left => (arrow.as_str(), blank.as_str()),
            Lane::Right => (blank.as_str(), arrow.as_str()),
        };
        let _ = writeln!(text, "{time:>width$} │{left}│{right}│{overflow}", width = MARGIN - 1);
    }
}

/// The arrow as wide as the gap, and what of its label does not fit.
fn arrow(rung: &Rung<'_>) -> (String, String) {
    let fits = GAP - 6;
    let (label, overflow) = match rung.label.char_indices().nth(fits) {
        Some((at, _)) => {
            (format!("{}…", rung.label.get(..at).unwrap_or_default().trim_end()), format!("  {}", rung.label))
        }
        None => (rung.label.clone(), String::new()),
    };
    let dashes = "─".repeat((GAP - 4).saturating_sub(label.chars().count()));
    let arrow = match rung.rightward {
        true => format!("─ {label} {dashes}▶"),
        false => format!("◀{dashes} {label} ─"),
    };
    (arrow, overflow)
}
