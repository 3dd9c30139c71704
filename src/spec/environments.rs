//! Environments: one spec, and what is otherwise in each of several places where it is deployed.

use super::report::What;
use super::structure::{listed, nearest};
use super::tree::{Entry, Node, Path, Value};
use super::values::check_format;

/// Keys that an environment may not have: the format is that of the file, and an environment has none within it.
const OF_THE_FILE: [&str; 2] = ["version", "environments"];

/// An environment: the document with what it says put in.
pub(super) struct Environment {
    pub(super) name: String,
    pub(super) document: Node,
}

/// What is wrong, and where in the text.
pub(super) type Fault = (std::ops::Range<usize>, String, What);

/// Takes `environments` out of `document` and returns each with what it says put in, and what is wrong with them as such.
pub(super) fn take(document: &mut Node) -> (Vec<Environment>, Vec<Fault>) {
    let mut found = Vec::new();
    let mut faults = Vec::new();
    let Value::Map(entries) = &mut document.value else { return (found, faults) };
    let Some(index) = entries.iter().position(|entry| entry.key == "environments") else { return (found, faults) };
    let all = entries.remove(index);
    let path = Path::of(["environments"]);
    let Value::Map(list) = &all.value.value else {
        let help = "write each as `NAME: { name: EDGE, … }` below it";
        let what = What::error("spec::environment", "`environments` is no map of environments", help);
        faults.push((all.key_span.clone(), path.to_string(), what));
        return (found, faults);
    };
    let mut names: Vec<String> = text_at(document, "name").into_iter().collect();
    for entry in list {
        let at = path.key(&entry.key).to_string();
        if let Err(fault) = check_format("trunk-name", &entry.key) {
            let what = What::error("spec::name", fault.reason, fault.help);
            faults.push((entry.key_span.clone(), at.clone(), what));
        }
        let Value::Map(settings) = &entry.value.value else {
            let help = format!("write `{}: {{ name: EDGE }}` with what is otherwise there", entry.key);
            let message = format!("the environment `{}` is no map of settings", entry.key);
            faults.push((entry.key_span.clone(), at, What::error("spec::environment", message, help)));
            continue;
        };
        for setting in settings.iter().filter(|setting| OF_THE_FILE.contains(&setting.key.as_str())) {
            let message = format!("`{}` is of the whole file and of no environment", setting.key);
            let what = What::error("spec::environment", message, "take it out");
            faults.push((setting.key_span.clone(), format!("{at}.{}", setting.key), what));
        }
        match text_at(&entry.value, "name") {
            Some(name) if names.contains(&name) => {
                let message = format!(
                    "another environment, or the spec itself, is named `{name}` too: one would be deployed over the other"
                );
                let span = setting_of(settings, "name").map_or(entry.key_span.clone(), |name| name.value.span.clone());
                let help = format!("write another name, such as {name}-{}", entry.key);
                faults.push((span, format!("{at}.name"), What::error("spec::environment", message, help)));
            }
            Some(name) => names.push(name),
            None if setting_of(settings, "name").is_none() => {
                let message =
                    format!("the environment `{}` has no `name`: it would be deployed over the spec itself", entry.key);
                let example = names.first().map_or("edge", String::as_str);
                let help = format!("write `name: {example}-{}` in it", entry.key);
                faults.push((entry.key_span.clone(), at, What::error("spec::environment", message, help)));
            }
            // A name of another type is reported with what it says put in.
            None => {}
        }
        let mut merged = document.clone();
        put_in(&mut merged, settings);
        found.push(Environment { name: entry.key.clone(), document: merged });
    }
    (found, faults)
}

/// Why there is no environment of this name among `known`.
pub(super) fn unknown(name: &str, known: &[Environment]) -> What {
    let names = known.iter().map(|environment| environment.name.as_str());
    let help = match nearest(name, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("add `environments: {{ {name}: {{ name: EDGE-{name} }} }}` to the file"),
        None => format!("the environments are {}", listed(names)),
    };
    What::error("spec::environment", format!("the spec has no environment `{name}`"), help)
}

/// Maps are put together key by key; all else takes the place of what is there.
fn put_in(node: &mut Node, settings: &[Entry]) {
    let Value::Map(entries) = &mut node.value else { return };
    for setting in settings.iter().filter(|setting| !OF_THE_FILE.contains(&setting.key.as_str())) {
        let known = entries.iter_mut().find(|entry| entry.key == setting.key);
        match (known, &setting.value.value) {
            (Some(entry), Value::Map(inner)) if matches!(entry.value.value, Value::Map(_)) => {
                put_in(&mut entry.value, inner);
            }
            (Some(entry), _) => *entry = setting.clone(),
            (None, _) => entries.push(setting.clone()),
        }
    }
}

fn setting_of<'a>(settings: &'a [Entry], key: &str) -> Option<&'a Entry> {
    settings.iter().find(|setting| setting.key == key)
}

fn text_at(node: &Node, key: &str) -> Option<String> {
    match &node.at(&Path::of([key]))?.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}
