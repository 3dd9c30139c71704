//! What Terraform says went wrong.

use serde::Serialize;
use serde_json::Value;

/// One diagnostic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The first line.
    pub summary: String,
    /// The rest; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The resource's address, when it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Diagnostic {
    /// An error's part of a `-json` line; none for a warning.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        if value["severity"] != "error" {
            return None;
        }
        let text = |name: &str| value[name].as_str().unwrap_or_default().trim().to_owned();
        let address = value["address"].as_str().filter(|address| !address.is_empty()).map(str::to_owned);
        Some(Self { summary: text("summary"), detail: text("detail"), address })
    }

    /// Summary and detail in one.
    pub fn text(&self) -> String {
        if self.detail.is_empty() { self.summary.clone() } else { format!("{}: {}", self.summary, self.detail) }
    }
}

/// The errors in the text that Terraform writes for people: boxes drawn with `│` whose first line begins with `Error: `.
pub(super) fn from_text(lines: &[String]) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = Vec::new();
    let mut inside = false;
    for line in lines {
        let boxed = line.trim_start().strip_prefix('│').map(str::trim);
        let plain = boxed.unwrap_or(line.trim());
        if let Some(summary) = plain.strip_prefix("Error: ") {
            found.push(Diagnostic { summary: summary.to_owned(), detail: String::new(), address: None });
            inside = true;
            continue;
        }
        if plain.starts_with("Warning: ") || line.trim_start().starts_with(['╵', '╷']) {
            inside = false;
            continue;
        }
        let Some(last) = found.last_mut().filter(|_| inside) else { continue };
        if let Some(place) = plain.strip_prefix("with ").and_then(|rest| rest.strip_suffix(',')) {
            last.address = Some(place.to_owned());
        } else if !plain.is_empty() {
            if !last.detail.is_empty() {
                last.detail.push('\n');
            }
            last.detail.push_str(plain);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_read_and_warnings_are_not() {
        let text = "╷\n│ Warning: old\n│\n│ of no use\n╵\n╷\n│ Error: Failed to query available provider packages\n│\n│ Could not \
                    retrieve the list\n│ of versions\n╵\n";
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let found = from_text(&lines);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].summary, "Failed to query available provider packages");
        assert_eq!(found[0].detail, "Could not retrieve the list\nof versions");
    }
}
