//! Stub: the spec's owner replaces this file.

use std::path::Path;

use serde::Serialize;

/// Stub.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Stub.
    pub name: String,
}

/// Stub.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Stub.
    pub spec: Spec,
    /// Stub.
    pub warnings: Vec<Finding>,
}

/// Stub.
#[derive(Debug, Clone, Serialize, thiserror::Error)]
#[error("{0}")]
pub struct SpecErrors(String);

impl Spec {
    /// Stub.
    pub fn load(path: &Path) -> Result<Loaded, SpecErrors> {
        let text = std::fs::read_to_string(path).map_err(|e| SpecErrors(format!("{}: {e}", path.display())))?;
        let value: serde_json::Value = serde_yaml::from_str(&text).map_err(|e| SpecErrors(e.to_string()))?;
        let name = value["name"].as_str().ok_or_else(|| SpecErrors("no name".into()))?.to_owned();
        Ok(Loaded { spec: Spec { name }, warnings: Vec::new() })
    }
}

/// Stub.
pub fn schema() -> serde_json::Value {
    serde_json::json!({"$schema": "https://json-schema.org/draft/2020-12/schema"})
}

/// Stub.
pub fn init_text(name: &str) -> String {
    format!("version: 1\nname: {name}\n")
}

impl SpecErrors {
    /// Stub.
    pub fn render(&self, _colour: bool) -> String {
        self.0.clone()
    }
}

/// Stub.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Stub.
    pub file: String,
    /// Stub.
    pub line: usize,
    /// Stub.
    pub column: usize,
    /// Stub.
    pub message: String,
    /// Stub.
    pub help: String,
}
