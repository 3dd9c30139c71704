//! The lines of `-json`: what happens to which resource, and what went wrong (Terraform, "Machine-Readable UI").

use serde::Serialize;
use serde_json::Value;

use super::{Applied, Diagnostic};

/// Diagnostics that are kept of one run: an apply of fifty resources that all fail says fifty.
const DIAGNOSTICS: usize = 50;

/// Something that happened to a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResourceEvent {
    /// Its address, such as `module.ingress.aws_lb.this`.
    pub address: String,
    /// What is done to it: `create`, `update`, `delete`, `read`.
    pub action: String,
    /// How far that is.
    pub phase: Phase,
    /// Seconds since it began.
    pub elapsed_s: u64,
}

/// How far an action on a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It has begun.
    Started,
    /// It goes on.
    Going,
    /// It is done.
    Done,
    /// It has failed.
    Failed,
}

/// Reads the lines of one run.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) applied: Applied,
}

impl Reader {
    /// Takes a line. What is no JSON, such as a warning on the CLI configuration, is passed over; it is in the run's last lines.
    pub(super) fn line(&mut self, line: &str) -> Option<ResourceEvent> {
        let value: Value = serde_json::from_str(line).ok()?;
        let phase = match value["type"].as_str()? {
            "apply_start" => Phase::Started,
            "apply_progress" => Phase::Going,
            "apply_complete" => Phase::Done,
            "apply_errored" => Phase::Failed,
            "diagnostic" => {
                let diagnostic = Diagnostic::from_json(&value["diagnostic"])?;
                if self.diagnostics.len() < DIAGNOSTICS {
                    self.diagnostics.push(diagnostic);
                }
                return None;
            }
            "change_summary" => {
                let count = |name: &str| value["changes"][name].as_u64().unwrap_or(0);
                self.applied = Applied { added: count("add"), changed: count("change"), removed: count("remove") };
                return None;
            }
            _ => return None,
        };
        let hook = &value["hook"];
        Some(ResourceEvent {
            address: hook["resource"]["addr"].as_str()?.to_owned(),
            action: hook["action"].as_str().unwrap_or_default().to_owned(),
            phase,
            elapsed_s: hook["elapsed_seconds"].as_u64().unwrap_or(0),
        })
    }
}
