//! What a deploy would change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

use super::{Plan, Risk, risks};

/// Lines around a change in an artefact.
const CONTEXT: usize = 2;

/// What a deploy of a plan changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// In one word.
    pub state: State,
    /// Settings whose value changes, by path.
    pub settings: Vec<SettingChange>,
    /// Files that change.
    pub artefacts: Vec<ArtefactChange>,
    /// What it means for calls, the worst first.
    pub risks: Vec<Risk>,
}

/// Whether anything changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing is deployed: all of the plan is new.
    New,
    /// What is deployed is what is planned.
    Same,
    /// Something changes.
    Changed,
}

/// A setting of proxy, network or scaling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingChange {
    /// Path, such as `proxy.timers.invite_ms`.
    pub setting: String,
    /// Deployed value; absent when it is new.
    pub before: Option<String>,
    /// Planned value; absent when it goes away.
    pub after: Option<String>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArtefactChange {
    /// File name.
    pub name: String,
    /// Unified diff.
    pub diff: String,
}

/// What changes when `planned` takes the place of `deployed`.
pub fn difference(deployed: Option<&Plan>, planned: &Plan) -> Difference {
    let risks = risks(deployed, planned);
    let Some(deployed) = deployed else {
        return Difference { state: State::New, settings: Vec::new(), artefacts: Vec::new(), risks: Vec::new() };
    };
    let (before, after) = (settings(deployed), settings(planned));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let settings: Vec<SettingChange> = paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| SettingChange {
            setting: path.clone(),
            before: before.get(path).cloned(),
            after: after.get(path).cloned(),
        })
        .collect();
    let names: BTreeSet<&String> = deployed.artefacts.keys().chain(planned.artefacts.keys()).collect();
    let text = |plan: &Plan, name: &String| plan.artefacts.get(name).cloned().unwrap_or_default();
    let artefacts: Vec<ArtefactChange> = names
        .into_iter()
        .map(|name| (name, text(deployed, name), text(planned, name)))
        .filter(|(_, before, after)| before != after)
        .map(|(name, before, after)| ArtefactChange {
            name: name.clone(),
            diff: TextDiff::from_lines(before.as_str(), after.as_str())
                .unified_diff()
                .context_radius(CONTEXT)
                .header(&format!("deployed/{name}"), &format!("planned/{name}"))
                .to_string(),
        })
        .collect();
    let state = if settings.is_empty() && artefacts.is_empty() { State::Same } else { State::Changed };
    Difference { state, settings, artefacts, risks }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            State::New => return writeln!(f, "Nothing is deployed: everything is new."),
            State::Same => return writeln!(f, "No change: what is deployed is what is planned."),
            State::Changed => {}
        }
        for change in &self.settings {
            match (&change.before, &change.after) {
                (Some(before), Some(after)) => writeln!(f, "~ {}: {before} → {after}", change.setting)?,
                (None, Some(after)) => writeln!(f, "+ {}: {after}", change.setting)?,
                (Some(before), None) => writeln!(f, "- {}: {before}", change.setting)?,
                (None, None) => {}
            }
        }
        for artefact in &self.artefacts {
            write!(f, "\n{}", artefact.diff)?;
        }
        Ok(())
    }
}

/// The settings that make an edge, flat.
fn settings(plan: &Plan) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    let parts = [
        ("target", serde_json::to_value(plan.target)),
        ("topology", serde_json::to_value(plan.topology)),
        ("proxy", serde_json::to_value(&plan.proxy)),
        ("network", serde_json::to_value(&plan.network)),
        ("scaling", serde_json::to_value(plan.scaling)),
        ("refresh", serde_json::to_value(&plan.refresh)),
        ("aws", serde_json::to_value(&plan.aws)),
        ("carriers", serde_json::to_value(&plan.carriers)),
    ];
    for (name, value) in parts {
        flatten(name.to_owned(), &value.unwrap_or_default(), &mut flat);
    }
    flat
}

fn flatten(path: String, value: &Value, flat: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(format!("{path}.{key}"), value, flat)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| {
            // Trunks and carriers are known by their names: one that is added must not make all that follow look changed.
            let key = value.get("name").and_then(Value::as_str).map_or_else(|| index.to_string(), str::to_owned);
            flatten(format!("{path}[{key}]"), value, flat);
        }),
        Value::String(text) => {
            flat.insert(path, text.clone());
        }
        other => {
            flat.insert(path, other.to_string());
        }
    }
}
