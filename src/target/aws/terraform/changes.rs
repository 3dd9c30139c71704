//! What a plan changes (`terraform show -json`, "JSON Output Format", resource_changes).

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a plan would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Resources that change, in the order of their addresses.
    pub resources: Vec<ResourceChange>,
    /// Resources that somebody has changed or removed outside of Terraform, by address.
    pub drifted: Vec<String>,
    /// Outputs whose value changes.
    pub outputs: Vec<String>,
}

/// What happens to one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResourceChange {
    /// Its address, such as `module.ingress.aws_lb.this`.
    pub address: String,
    /// Its type, such as `aws_lb`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is done.
    pub action: Action,
    /// Attributes that change; of a replaced one, those that force the replacement.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
}

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed as it stands.
    Update,
    /// It goes, and another one comes.
    Replace,
    /// It goes.
    Delete,
    /// It stays, and Terraform forgets it.
    Forget,
}

impl Changes {
    /// Reads the answer of `show -json`. The error says what was strange.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        let shown: Shown = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let mut resources: Vec<ResourceChange> = shown.resource_changes.iter().filter_map(Changed::read).collect();
        resources.sort_by(|a, b| a.address.cmp(&b.address));
        let drifted = shown.resource_drift.into_iter().filter(|drift| drift.mode == "managed");
        let mut outputs: Vec<String> = shown
            .output_changes
            .into_iter()
            .filter(|(_, change)| change["actions"] != serde_json::json!(["no-op"]))
            .map(|(name, _)| name)
            .collect();
        outputs.sort();
        Ok(Self { resources, drifted: drifted.map(|drift| drift.address).collect(), outputs })
    }

    /// Whether an apply would do nothing, to resources and to outputs.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.outputs.is_empty()
    }

    /// How many resources have this done to them.
    pub fn count(&self, action: Action) -> usize {
        self.resources.iter().filter(|resource| resource.action == action).count()
    }

    /// In one line: `2 to create, 1 to change`.
    pub fn summary(&self) -> String {
        let parts: Vec<String> = [
            (Action::Create, "to create"),
            (Action::Update, "to change"),
            (Action::Replace, "to replace"),
            (Action::Delete, "to destroy"),
            (Action::Forget, "to forget"),
        ]
        .into_iter()
        .map(|(action, what)| (self.count(action), what))
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        match parts.as_slice() {
            [] if self.outputs.is_empty() => "nothing to change".to_owned(),
            [] => "no resource changes, outputs do".to_owned(),
            _ => parts.join(", "),
        }
    }

    /// How many times Terraform will say that it is done with a resource: a replaced one is destroyed and created.
    pub fn steps(&self) -> usize {
        self.resources.len() + self.count(Action::Replace)
    }
}

#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    resource_changes: Vec<Changed>,
    #[serde(default)]
    resource_drift: Vec<Changed>,
    #[serde(default)]
    output_changes: std::collections::BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Changed {
    address: String,
    mode: String,
    #[serde(rename = "type")]
    kind: String,
    change: Change,
}

#[derive(Deserialize)]
struct Change {
    actions: Vec<String>,
    #[serde(default)]
    before: Value,
    #[serde(default)]
    after: Value,
    #[serde(default)]
    after_unknown: Value,
    #[serde(default)]
    replace_paths: Vec<Vec<Value>>,
}

impl Changed {
    fn read(&self) -> Option<ResourceChange> {
        if self.mode != "managed" {
            return None;
        }
        let actions: Vec<&str> = self.change.actions.iter().map(String::as_str).collect();
        let action = match actions.as_slice() {
            ["create"] => Action::Create,
            ["update"] => Action::Update,
            ["delete"] => Action::Delete,
            ["forget"] => Action::Forget,
            ["delete", "create"] | ["create", "delete"] => Action::Replace,
            // `no-op`, `read`.
            _ => return None,
        };
        let attributes = match action {
            Action::Replace if !self.change.replace_paths.is_empty() => {
                self.change.replace_paths.iter().map(|path| written(path)).collect()
            }
            Action::Update | Action::Replace => self.change.changed(),
            _ => Vec::new(),
        };
        Some(ResourceChange { address: self.address.clone(), kind: self.kind.clone(), action, attributes })
    }
}

impl Change {
    /// Names of the top-level attributes whose value differs or is known only after the apply. Values stay out: some are secret.
    fn changed(&self) -> Vec<String> {
        let empty = serde_json::Map::new();
        let (before, after) = (self.before.as_object().unwrap_or(&empty), self.after.as_object().unwrap_or(&empty));
        let unknown = self.after_unknown.as_object().unwrap_or(&empty);
        let mut names: Vec<String> = after
            .iter()
            .filter(|(name, value)| before.get(*name) != Some(value))
            .map(|(name, _)| name.clone())
            .chain(unknown.iter().filter(|(_, unknown)| **unknown == Value::Bool(true)).map(|(name, _)| name.clone()))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// A path as one writes it: `listener[0].port`.
fn written(path: &[Value]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Value::String(name) if text.is_empty() => text.push_str(name),
            Value::String(name) => text.push_str(&format!(".{name}")),
            other => text.push_str(&format!("[{other}]")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_by_action_and_attribute() {
        let text = serde_json::json!({
            "resource_changes": [
                {"address": "b", "mode": "managed", "type": "t", "change": {"actions": ["delete", "create"],
                    "replace_paths": [["subnet_mapping", 0, "allocation_id"]]}},
                {"address": "a", "mode": "managed", "type": "t", "change": {"actions": ["update"],
                    "before": {"x": 1, "y": 2, "z": 3}, "after": {"x": 1, "y": 3}, "after_unknown": {"z": true}}},
                {"address": "c", "mode": "managed", "type": "t", "change": {"actions": ["no-op"]}},
                {"address": "data.d", "mode": "data", "type": "t", "change": {"actions": ["read"]}},
            ],
            "output_changes": {"same": {"actions": ["no-op"]}, "new": {"actions": ["create"]}},
        });
        let changes = Changes::read(text.to_string().as_bytes()).expect("a plan");
        assert_eq!(changes.summary(), "1 to change, 1 to replace");
        assert_eq!(changes.steps(), 3);
        assert_eq!(changes.resources[0].attributes, ["y", "z"]);
        assert_eq!(changes.resources[1].attributes, ["subnet_mapping[0].allocation_id"]);
        assert_eq!(changes.outputs, ["new"]);
        assert!(!changes.is_empty());
    }
}
