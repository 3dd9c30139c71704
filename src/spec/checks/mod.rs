//! What the schema cannot say: settings against each other, against SIP, the carriers and AWS.

mod cloud;
mod edge;
mod listeners;
mod pools;
mod ranges;
mod trunks;

use super::report::What;
use super::structure::Structure;
use super::tree::{Node, Path};
use super::types::Spec;

pub(crate) use ranges::SHORTEST_PREFIX;
pub(crate) use trunks::PLACEHOLDER;
pub use trunks::stale_carriers;

/// Runs all checks on what is sound of `spec`. Each finding: where, whether at the key, what.
pub(super) fn all(spec: &Spec, document: &Node, structure: &Structure) -> Vec<(Path, bool, What)> {
    let mut checks = Checks { spec, document, structure, findings: Vec::new() };
    edge::version(&mut checks);
    edge::place(&mut checks);
    edge::ports(&mut checks);
    listeners::ports(&mut checks);
    listeners::certificates(&mut checks);
    edge::timers(&mut checks);
    edge::scaling(&mut checks);
    edge::drain(&mut checks);
    edge::advertise(&mut checks);
    cloud::instance_type(&mut checks);
    cloud::tags(&mut checks);
    cloud::vpc(&mut checks);
    cloud::addresses(&mut checks);
    cloud::refresh(&mut checks);
    cloud::alarms(&mut checks);
    cloud::dns(&mut checks);
    cloud::rules(&mut checks);
    trunks::names(&mut checks);
    trunks::carriers(&mut checks);
    trunks::routes(&mut checks);
    trunks::sources(&mut checks);
    trunks::destinations(&mut checks);
    trunks::targets(&mut checks);
    pools::all(&mut checks);
    trunks::placeholders(&mut checks);
    trunks::limits(&mut checks);
    trunks::unused(&mut checks);
    ranges::each(&mut checks);
    ranges::open(&mut checks);
    ranges::operators(&mut checks);
    ranges::within_trunks(&mut checks);
    ranges::between_trunks(&mut checks);
    checks.findings
}

/// The spec under check.
struct Checks<'a> {
    spec: &'a Spec,
    document: &'a Node,
    structure: &'a Structure,
    findings: Vec<(Path, bool, What)>,
}

impl Checks<'_> {
    /// Reports `what` at the value of `path`.
    fn report(&mut self, path: Path, what: What) {
        if self.is_sound(&path) {
            self.findings.push((path, false, what));
        }
    }

    /// Reports `what` at the key of `path`, although what is below may not be sound.
    fn report_key(&mut self, path: Path, what: What) {
        self.findings.push((path, true, what));
    }

    /// Whether `path` is as the file has it.
    fn is_sound(&self, path: &Path) -> bool {
        self.structure.is_sound(path, self.document)
    }

    /// Whether the file has `path`, or means to leave it out.
    fn all_sound(&self, paths: &[Path]) -> bool {
        paths.iter().all(|path| self.is_sound(path))
    }
}

/// The path of a trunk's setting.
fn trunk(name: &str, setting: &str) -> Path {
    Path::of(["trunks", name, setting])
}
