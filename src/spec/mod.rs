//! The spec: one YAML file → checked settings, or everything that is wrong with it at once.
//!
//! [`Spec`] and its schema are the single source of truth. A file is read into a tree with positions, the tree is checked against
//! the schema, and what is sound of it against what SIP, the carriers and AWS demand.

pub mod carriers;
mod checks;
mod cloud;
mod cloud_values;
mod dates;
mod environments;
pub mod instance_types;
pub(crate) mod peers;
mod report;
mod schema;
mod structure;
mod tree;
mod types;
mod values;

use std::path::Path;

use structure::Structure;
use tree::{Node, TreeError};

pub use checks::stale_carriers;
pub(crate) use checks::{PLACEHOLDER, SHORTEST_PREFIX};
pub use cloud::{Alarms, Aws, Count, Dns, ExistingVpc, NamedTopology, Refresh, Slack, StateBucket};
pub(crate) use dates::{day_of, days_since_epoch};
pub use report::{Finding, Severity, SpecErrors};
pub use schema::{Defaulted, schema};
pub use types::{
    Certificate, Drain, Egress, Failover, Limits, Listen, LoadBalancer, PlacedTarget, PoolTarget, Probe, ProbeFigures,
    Refuse, Route, Scaling, Select, Spec, Spreading, Timers, TlsListen, Trunk, TrunkTls, Trust, VERSION, Verify,
};
pub(crate) use values::LAST_ZONE;
pub use values::{Duration, Fault, Target, Transport};

use report::What;

/// Bytes that a spec may have. A large one has a few kilobytes; more is some other file.
const MAX_BYTES: u64 = 1024 * 1024;

/// TCP port of the instances' health and metrics, on their private addresses. No listener may have it.
pub(crate) const ADMIN_PORT: u16 = 8080;

/// Findings that one report has at most: who has more has the wrong file.
const MAX_FINDINGS: usize = 200;

/// A spec that can be planned.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub spec: Spec,
    /// What is doubtful.
    pub warnings: Vec<Finding>,
    /// The settings that the file leaves out.
    pub defaults: Vec<Defaulted>,
}

impl Loaded {
    /// The warnings as a report on `text`, the file's content.
    pub fn report(&self, text: &str) -> SpecErrors {
        let file = self.warnings.first().map(|warning| warning.file.clone()).unwrap_or_default();
        SpecErrors::new(&file, text.strip_prefix('\u{feff}').unwrap_or(text), self.warnings.clone())
    }
}

impl Spec {
    /// Reads and checks the file at `path`. Errors: all that is wrong with it.
    pub fn load(path: &Path) -> Result<Loaded, SpecErrors> {
        Self::load_environment(path, None)
    }

    /// As [`load`](Self::load), and gives the spec with what `environment` says put in; none: the spec itself.
    pub fn load_environment(path: &Path, environment: Option<&str>) -> Result<Loaded, SpecErrors> {
        Self::parse_environment(&path.display().to_string(), &Self::read(path)?, environment)
    }

    /// The edge's name in the file at `path`, or in `environment` of it, whatever else is wrong with the file; none when it has no
    /// sound name.
    pub fn edge_name(path: &Path, environment: Option<&str>) -> Option<String> {
        let text = Self::read(path).ok()?;
        let (mut document, _) = tree::read(text.strip_prefix('\u{feff}').unwrap_or(&text)).ok()?;
        if let Some(wanted) = environment {
            let (all, _) = environments::take(&mut document);
            document = all.into_iter().find(|known| known.name == wanted)?.document;
        }
        match &document.at(&tree::Path::of(["name"]))?.value {
            tree::Value::Text(name) => values::check_format("edge-name", name).ok().map(|()| name.clone()),
            _ => None,
        }
    }

    /// The text of the file at `path`, of at most [`MAX_BYTES`].
    fn read(path: &Path) -> Result<String, SpecErrors> {
        let name = path.display().to_string();
        let fail = |code, message: String, help: &str| {
            let what = What::error(code, message, help);
            Err(SpecErrors::new(&name, "", vec![Finding::new(&name, "", (0..0, String::new()), what)]))
        };
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return fail(
                    "spec::no-file",
                    format!("there is no file {name}"),
                    "`sipedge init` writes one; `--spec FILE` names another",
                );
            }
            Err(error) => {
                return fail("spec::read", format!("{name} cannot be read: {error}"), "check its permissions");
            }
        };
        if !metadata.is_file() {
            let kind = if metadata.is_dir() { "a directory" } else { "no regular file" };
            return fail("spec::no-file", format!("{name} is {kind}"), "name the YAML file");
        }
        if metadata.len() > MAX_BYTES {
            let message = format!("{name} has {} bytes; a spec has at most {MAX_BYTES}", metadata.len());
            return fail("spec::size", message, "is it the right file?");
        }
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                return fail("spec::read", format!("{name} cannot be read: {error}"), "check its permissions");
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
                let message = format!("{name} is not UTF-8: line {line} has other bytes (byte {valid} of the file)");
                fail("spec::encoding", message, "save it as UTF-8")
            }
        }
    }

    /// Checks `text`; `name` is what reports call it. Errors: all that is wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Loaded, SpecErrors> {
        Self::parse_environment(name, text, None)
    }

    /// As [`parse`](Self::parse), and gives the spec with what `environment` says put in; none: the spec itself. All environments are
    /// checked, whichever is asked for.
    pub fn parse_environment(name: &str, text: &str, environment: Option<&str>) -> Result<Loaded, SpecErrors> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.len() as u64 > MAX_BYTES {
            let what =
                What::error("spec::size", format!("the spec has more than {MAX_BYTES} bytes"), "is it the right file?");
            return Err(SpecErrors::new(name, "", vec![Finding::new(name, "", (0..0, String::new()), what)]));
        }
        let finding = |error: TreeError| {
            Finding::new(name, text, (error.span, String::new()), What::error(error.code, error.message, error.help))
        };
        let (mut document, duplicates) =
            tree::read(text).map_err(|error| SpecErrors::new(name, text, vec![finding(error)]))?;
        let mut findings: Vec<Finding> = duplicates.into_iter().map(finding).collect();
        let (environments, faults) = environments::take(&mut document);
        findings
            .extend(faults.into_iter().map(|(span, setting, what)| Finding::new(name, text, (span, setting), what)));
        let mut chosen = None;
        if let Some(wanted) = environment {
            chosen = environments.iter().position(|known| known.name == wanted);
            if chosen.is_none() {
                let what = environments::unknown(wanted, &environments);
                findings.push(Finding::new(name, text, (0..0, "environments".into()), what));
            }
        }

        let (mut spec, own) = check_document(name, text, &document);
        let mut defaults = schema::defaults(&document);
        findings.extend(own.into_iter().filter(|finding| chosen.is_none() || finding.severity == Severity::Error));
        for (index, other) in environments.iter().enumerate() {
            let (of_other, own) = check_document(name, text, &other.document);
            let is_chosen = chosen == Some(index);
            findings.extend(own.into_iter().filter(|finding| is_chosen || finding.severity == Severity::Error));
            if is_chosen {
                spec = of_other;
                defaults = schema::defaults(&other.document);
            }
        }

        let report = SpecErrors::new(name, text, findings);
        match spec {
            Ok(spec) if report.errors().next().is_none() => Ok(Loaded { spec, warnings: report.findings, defaults }),
            Ok(_) => Err(report),
            Err(_) if report.errors().next().is_some() => Err(report),
            Err(error) => {
                let what = What::error(
                    "spec::read",
                    format!("the spec cannot be read: {error}"),
                    "compare it with docs/spec.md",
                );
                Err(SpecErrors::new(name, text, vec![Finding::new(name, text, (0..1, String::new()), what)]))
            }
        }
    }
}

/// The spec that `document` is, as far as it is one, and what is wrong with it.
fn check_document(name: &str, text: &str, document: &Node) -> (serde_json::Result<Spec>, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut structure = Structure::default();
    let sound = structure.check(document, schema::root(), &tree::Path::default());
    let spec = serde_json::from_value::<Spec>(sound);
    for (path, at_key, what) in std::mem::take(&mut structure.findings).into_iter().take(MAX_FINDINGS) {
        findings.push(Finding::new(name, text, (place(document, &path, at_key), path.to_string()), what));
    }
    if let Ok(spec) = &spec {
        for (path, at_key, what) in checks::all(spec, document, &structure).into_iter().take(MAX_FINDINGS) {
            findings.push(Finding::new(name, text, (place(document, &path, at_key), path.to_string()), what));
        }
    }
    (spec, findings)
}

/// The spec that `sipedge init` writes: the carrier bridge, commented.
pub fn init_text(name: &str) -> String {
    include_str!("../../examples/carrier-bridge.yaml").replacen("name: twilio-bridge", &format!("name: {name}"), 1)
}

fn place(document: &Node, path: &tree::Path, at_key: bool) -> std::ops::Range<usize> {
    let mark = if at_key { document.key_mark(path) } else { document.mark(path) };
    // What is about the whole file points to its first key.
    if mark.is_empty() { document.span.start..document.span.start + 1 } else { mark }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is wrong with single values, the rest is read, so that one report names structural and other mistakes.
    #[test]
    fn what_is_not_sound_does_not_hide_the_rest() {
        for text in [
            include_str!("../../examples/by-hand.yaml"),
            include_str!("../../examples/failover.yaml"),
            include_str!("../../examples/production.yaml"),
            include_str!("../../examples/tls.yaml"),
        ] {
            each_line_replaced(text);
        }
    }

    fn each_line_replaced(text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(':') && !line.starts_with('#'))
        {
            let at = line.find(':').unwrap();
            for junk in ["", " [1]", " { a: b }", " 7", " \"?\"", " true", " -1.5"] {
                let changed = format!("{}:{junk}", &line[..at]);
                let mut all = lines.clone();
                all[number] = &changed;
                let Ok((document, _)) = tree::read(&all.join("\n")) else { continue };
                let mut structure = Structure::default();
                let sound = structure.check(&document, schema::root(), &tree::Path::default());
                let read = serde_json::from_value::<Spec>(sound.clone());
                assert!(read.is_ok(), "line {}: {changed}: {read:?}\n{sound}", number + 1);
            }
        }
    }
}
