//! How a deploy is followed: bars on a terminal, plain lines in a log, one JSON object per line for programs.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::journal::Step;
use crate::target::aws::terraform::{Phase, ResourceEvent};

/// Something that happened in a run.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// A step began.
    StepStarted {
        /// The step.
        step: Step,
        /// Its number, from 1.
        number: usize,
        /// How many steps there are.
        of: usize,
    },
    /// Something that the reader should know.
    Note {
        /// One sentence.
        text: &'a str,
    },
    /// A part of the step is done.
    Counted {
        /// The step.
        step: Step,
        /// How many are done.
        done: usize,
        /// Of how many.
        of: usize,
    },
    /// Something happened to a resource on AWS.
    Resource {
        /// The step.
        step: Step,
        /// What, to which.
        #[serde(flatten)]
        resource: &'a ResourceEvent,
    },
    /// The step is done.
    StepDone {
        /// The step.
        step: Step,
        /// How long it took, in milliseconds.
        ms: u64,
        /// What it did.
        detail: &'a str,
    },
    /// The step failed, and with it the run.
    StepFailed {
        /// The step.
        step: Step,
        /// How long it took, in milliseconds.
        ms: u64,
        /// Why.
        detail: &'a str,
    },
}

/// Who is told what happens.
pub trait Progress {
    /// Takes one event.
    fn event(&mut self, event: &Event<'_>);
}

/// The way to tell it that suits the output: JSON lines on standard output, or bars or lines on standard error.
pub fn for_output(json: bool) -> Box<dyn Progress> {
    if json {
        Box::new(JsonLines)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bars { bar: None })
    } else {
        Box::new(Lines)
    }
}

/// Time between two pictures of a spinner.
const TICK: Duration = Duration::from_millis(100);

struct Bars {
    bar: Option<ProgressBar>,
}

impl Bars {
    fn finish(&mut self, mark: &str, step: Step, ms: u64, detail: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        tell(&format!("{mark} {:<15} {:>7}  {detail}", step.name(), seconds(ms)));
    }
}

impl Progress for Bars {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::StepStarted { step, number, of } => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {msg} {elapsed}") {
                    bar.set_style(style);
                }
                bar.set_prefix(format!("[{number}/{of}]"));
                bar.set_message(step.name());
                bar.enable_steady_tick(TICK);
                self.bar = Some(bar);
            }
            Event::Note { text } => match &self.bar {
                Some(bar) => bar.suspend(|| tell(&format!("  {text}"))),
                None => tell(text),
            },
            Event::Counted { step, done, of } => {
                let Some(bar) = &self.bar else { return };
                if let Ok(style) =
                    ProgressStyle::with_template("{spinner} {prefix} {msg} [{bar:20}] {pos}/{len} {elapsed}")
                {
                    bar.set_style(style);
                }
                bar.set_message(step.name());
                bar.set_length(u64::try_from(*of).unwrap_or(u64::MAX));
                bar.set_position(u64::try_from(*done).unwrap_or(u64::MAX));
            }
            Event::Resource { resource, .. } => {
                let Some(bar) = &self.bar else { return };
                match resource.phase {
                    Phase::Started | Phase::Going => bar.set_message(resource_line(resource)),
                    Phase::Done | Phase::Failed => bar.suspend(|| tell(&format!("  {}", resource_line(resource)))),
                }
            }
            Event::StepDone { step, ms, detail } => self.finish("✔", *step, *ms, detail),
            Event::StepFailed { step, ms, detail } => self.finish("✘", *step, *ms, first_line(detail)),
        }
    }
}

struct Lines;

impl Progress for Lines {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::StepStarted { .. } | Event::Counted { .. } => {}
            Event::Resource { resource, .. } => match resource.phase {
                Phase::Started | Phase::Going => {}
                Phase::Done | Phase::Failed => tell(&format!("       {}", resource_line(resource))),
            },
            Event::Note { text } => tell(&format!("note: {text}")),
            Event::StepDone { step, ms, detail } => {
                tell(&format!("done   {:<15} {:>7}  {detail}", step.name(), seconds(*ms)));
            }
            Event::StepFailed { step, ms, detail } => {
                tell(&format!("failed {:<15} {:>7}  {}", step.name(), seconds(*ms), first_line(detail)));
            }
        }
    }
}

struct JsonLines;

impl Progress for JsonLines {
    fn event(&mut self, event: &Event<'_>) {
        if let Ok(line) = serde_json::to_string(event) {
            let mut out = std::io::stdout().lock();
            // A reader that went away does not stop a deploy half way.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }
}

fn tell(line: &str) {
    // As above: progress is for whoever listens.
    let _ = writeln!(std::io::stderr().lock(), "{}", line.trim_end());
}

/// `module.network.aws_vpc.this: created in 3 s`.
fn resource_line(resource: &ResourceEvent) -> String {
    let (doing, done) = match resource.action.as_str() {
        "create" => ("creating", "created"),
        "delete" => ("destroying", "destroyed"),
        "read" => ("reading", "read"),
        _ => ("changing", "changed"),
    };
    let ResourceEvent { address, elapsed_s, .. } = resource;
    match resource.phase {
        Phase::Started => format!("{address}: {doing}"),
        Phase::Going => format!("{address}: {doing} for {elapsed_s} s"),
        Phase::Done => format!("{address}: {done} in {elapsed_s} s"),
        Phase::Failed => format!("{address}: {doing} it failed after {elapsed_s} s"),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}
