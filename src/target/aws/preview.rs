//! Terraform's plan in sipedge's words: what is created, changed, replaced and destroyed, and what that means for calls.

use std::fmt::Write;

use super::terraform::{Action, Changes, ResourceChange};
use crate::plan;

/// The changes as text, the gravest first.
pub fn preview(changes: &Changes) -> String {
    let mut text = String::new();
    if changes.is_empty() {
        text.push_str("No change: what stands in the account is what is planned.\n");
    }
    for (action, sign, heading) in [
        (Action::Delete, '-', "destroyed"),
        (Action::Replace, '±', "replaced"),
        (Action::Update, '~', "changed in place"),
        (Action::Create, '+', "created"),
        (Action::Forget, '.', "left alone and forgotten"),
    ] {
        let resources: Vec<&ResourceChange> =
            changes.resources.iter().filter(|resource| resource.action == action).collect();
        if resources.is_empty() {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {heading}:", resources.len());
        for resource in resources {
            let why = match (action, resource.attributes.as_slice()) {
                (_, []) => String::new(),
                (Action::Replace, attributes) => format!(", because of {}", attributes.join(", ")),
                (_, attributes) => format!(": {}", attributes.join(", ")),
            };
            let _ = writeln!(text, "  {sign} {}{why}", resource.address);
            if let Some(meaning) = meaning(resource) {
                let _ = writeln!(text, "      {meaning}");
            }
        }
    }
    if changes.resources.is_empty() && !changes.outputs.is_empty() {
        let _ = writeln!(text, "No resource changes; outputs do: {}", changes.outputs.join(", "));
    }
    if !changes.drifted.is_empty() {
        let _ = writeln!(text, "Changed outside of sipedge since the last deploy: {}", changes.drifted.join(", "));
    }
    text
}

/// What a change means for calls; none when no call notices.
pub fn meaning(resource: &ResourceChange) -> Option<&'static str> {
    let action = match resource.action {
        Action::Create => plan::Action::Create,
        Action::Update => plan::Action::Update,
        Action::Replace => plan::Action::Replace,
        Action::Delete => plan::Action::Destroy,
        Action::Forget => return None,
    };
    plan::meaning(&resource.kind, action)
}
