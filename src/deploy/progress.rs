//! How a deploy is followed: bars on a terminal, plain lines in a log, one JSON object per line for programs.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::fleet::{Lifecycle, Member, Refresh};
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
    /// A refresh has changed.
    Refresh {
        /// As it is now.
        #[serde(flatten)]
        refresh: &'a Refresh,
    },
    /// An instance of the group that is refreshed is new, or has changed.
    Instance {
        /// As it is now.
        #[serde(flatten)]
        instance: &'a Member,
    },
    /// An instance is not in the group any more.
    InstanceGone {
        /// Its name.
        id: &'a str,
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
        Box::new(Bars::default())
    } else {
        Box::new(Lines)
    }
}

/// Time between two pictures of a spinner.
const TICK: Duration = Duration::from_millis(100);

/// Parts of an instance's life, for its bar: booting, healthy, draining, gone.
const LIFE: u64 = 3;

#[derive(Default)]
struct Bars {
    bar: Option<ProgressBar>,
    /// One for each instance, while a refresh is followed.
    all: Option<MultiProgress>,
    instances: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn instance(&mut self, member: &Member) {
        let all = self.all.get_or_insert_with(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        let bar = self.instances.entry(member.id.clone()).or_insert_with(|| {
            let bar = all.add(ProgressBar::new(LIFE));
            if let Ok(style) = ProgressStyle::with_template("  {prefix:<8} [{bar:12}] {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(member.id.clone());
            bar
        });
        bar.set_position(match (member.lifecycle, member.healthy) {
            (Lifecycle::Pending, _) => 0,
            (Lifecycle::InService, false) => 1,
            (Lifecycle::InService, true) => LIFE,
            _ => 2,
        });
        bar.set_message(of_instance(member));
    }

    fn finish(&mut self, mark: &str, step: Step, ms: u64, detail: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        for (_, bar) in std::mem::take(&mut self.instances) {
            bar.finish_and_clear();
        }
        self.all = None;
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
            Event::Instance { instance } => self.instance(instance),
            Event::InstanceGone { id } => {
                if let Some(bar) = self.instances.remove(*id) {
                    bar.finish_and_clear();
                }
            }
            Event::Refresh { refresh } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(of_refresh(refresh));
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
            Event::Refresh { refresh } => tell(&format!("       {}", of_refresh(refresh))),
            Event::Instance { instance } => tell(&format!("       {}: {}", instance.id, of_instance(instance))),
            Event::InstanceGone { id } => tell(&format!("       {id}: gone")),
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

fn of_refresh(refresh: &Refresh) -> String {
    let waits = if refresh.at_checkpoint { ", at a checkpoint" } else { "" };
    let Refresh { id, version, percent, .. } = refresh;
    format!("{id} to version {version}: {}, {percent} % replaced{waits}", refresh.status.as_str())
}

fn of_instance(member: &Member) -> String {
    let health = if member.healthy { ", healthy" } else { "" };
    let busy = member.in_progress.filter(|count| *count > 0).map(|count| format!(", {count} transactions in progress"));
    format!("version {}, {}{health}{}", member.version, member.lifecycle.as_str(), busy.unwrap_or_default())
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
