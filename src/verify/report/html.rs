//! The report as one HTML page with nothing outside of it; the ladders are drawn as SVG.

use askama::Template;

use super::ladder::{self, Lane, Rung};
use super::{CallReport, Report};

/// Pixels from one arrow to the next.
const RUNG_HEIGHT: usize = 28;

/// Pixels above the first arrow: the columns' heads.
const HEAD_HEIGHT: usize = 64;

/// Positions of the columns in pixels.
const COLUMNS: [usize; 3] = [160, 470, 780];

/// Pixels between an arrow's tip and the column that it points to.
const TIP_GAP: usize = 2;

/// The report as a self-contained HTML page. Everything that came from outside is escaped.
pub fn html(report: &Report) -> Result<String, askama::Error> {
    let (passed, all) = report.tally();
    let calls = report.calls.iter().map(|call| Call { call, drawings: drawings(call) }).collect();
    Page {
        report,
        topology: report.topology.as_str(),
        target: report.target.as_str(),
        passed,
        all,
        columns: COLUMNS,
        calls,
    }
    .render()
}

#[derive(Template)]
#[template(path = "verify-report.html")]
struct Page<'a> {
    report: &'a Report,
    topology: &'static str,
    target: &'static str,
    passed: usize,
    all: usize,
    columns: [usize; 3],
    calls: Vec<Call<'a>>,
}

struct Call<'a> {
    call: &'a CallReport,
    drawings: Vec<Drawing<'a>>,
}

/// One part of the call.
struct Drawing<'a> {
    name: &'a str,
    first: bool,
    callee: &'a str,
    height: usize,
    arrows: Vec<Arrow<'a>>,
}

struct Arrow<'a> {
    rung: Rung<'a>,
    y: usize,
    from_x: usize,
    to_x: usize,
    middle_x: usize,
    /// Class of the status: `request`, `ok`, `info` or `bad`.
    kind: &'static str,
}

fn drawings(call: &CallReport) -> Vec<Drawing<'_>> {
    ladder::parts(call)
        .into_iter()
        .enumerate()
        .map(|(index, (name, rungs))| {
            let callee = rungs.iter().find(|rung| rung.lane == Lane::Right);
            let callee = callee.map(|rung| if rung.message.sent { &rung.message.from } else { &rung.message.to });
            Drawing {
                name,
                first: index == 0,
                callee: callee.or(call.callee.first()).map_or("", String::as_str),
                height: HEAD_HEIGHT + (rungs.len() + 1) * RUNG_HEIGHT,
                arrows: rungs.into_iter().enumerate().map(|(index, rung)| arrow(rung, index)).collect(),
            }
        })
        .collect()
}

fn arrow(rung: Rung<'_>, index: usize) -> Arrow<'_> {
    let [caller, edge, callee] = COLUMNS;
    let (left, right) = match rung.lane {
        Lane::Left => (caller, edge),
        Lane::Right => (edge, callee),
    };
    let (from_x, to_x) = match rung.rightward {
        true => (left, right - TIP_GAP),
        false => (right, left + TIP_GAP),
    };
    let kind = match rung.message.start_line.strip_prefix("SIP/2.0 ").and_then(|status| status.chars().next()) {
        None => "request",
        Some('1') => "info",
        Some('2') => "ok",
        Some(_) => "bad",
    };
    Arrow { y: HEAD_HEIGHT + (index + 1) * RUNG_HEIGHT, from_x, to_x, middle_x: left.midpoint(right), kind, rung }
}
