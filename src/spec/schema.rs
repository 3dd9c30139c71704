//! The JSON Schema of a spec, generated from its types. It drives the check of a file's structure and the list of defaults, and is
//! published for editors.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::structure::variant;
use super::tree::{Node, Path};
use super::types::Spec;

/// A setting that the spec left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaulted {
    /// Its path in the spec, such as `timers.invite`.
    pub setting: String,
    /// Its value, as one would write it in the spec.
    pub value: String,
    /// Why this value.
    pub reason: String,
}

static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
    let generator = SchemaSettings::draft2020_12()
        .for_deserialize()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<Spec>().to_value();
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        let name = properties.get("name").cloned().unwrap_or_default();
        properties.insert("environments".to_owned(), environments(name));
    }
    schema
});

/// The schema of `environments`, which are put into the document before it is read: no part of [`Spec`].
fn environments(name: Json) -> Json {
    json!({
        "description": "What is otherwise in other places where this edge is deployed, by name: any settings of this file. `--environment NAME` takes one.",
        "type": "object",
        "propertyNames": {"format": "trunk-name", "pattern": "^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$"},
        "additionalProperties": {"type": "object", "properties": {"name": name}, "required": ["name"]},
    })
}

/// The JSON Schema (draft 2020-12) of `sipedge.yaml`.
pub fn schema() -> Json {
    SCHEMA.clone()
}

/// The schema, without a copy.
pub(crate) fn root() -> &'static Json {
    &SCHEMA
}

/// The settings that have a default with a reason and do not stand in `document`, in the order of the schema.
pub(crate) fn defaults(document: &Node) -> Vec<Defaulted> {
    let mut found = Vec::new();
    collect_defaults(root(), Some(document), document, &Path::default(), &mut found);
    found
}

fn collect_defaults(schema: &Json, node: Option<&Node>, document: &Node, path: &Path, found: &mut Vec<Defaulted>) {
    if let (None, Some(reason), Some(default)) =
        (node, schema.get("x-reason").and_then(Json::as_str), schema.get("default"))
    {
        let value = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        found.push(Defaulted { setting: path.to_string(), value, reason: reason.to_owned() });
    }
    let schema = node.and_then(|node| variant(schema, &node.value)).unwrap_or(schema);
    // What is optional and has no default is not there at all, nor is what is below it.
    if node.is_none() && schema.get("default").is_none() {
        return;
    }
    for (key, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
        let path = path.key(key);
        collect_defaults(property, document.at(&path), document, &path, found);
    }
    let each = schema.get("additionalProperties").filter(|each| each.is_object());
    for (each, key) in each.into_iter().flat_map(|each| document.keys(path).into_iter().map(move |key| (each, key))) {
        let path = path.key(key);
        collect_defaults(each, document.at(&path), document, &path, found);
    }
}
