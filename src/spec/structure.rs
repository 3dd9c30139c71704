//! A document against the schema: every key that is unknown, missing, or whose value is not what it has to be, in one pass.

use ipnet::IpNet;
use serde_json::{Map, Value as Json};

use super::report::What;
use super::tree::{Entry, Node, Path, Value};
use super::values::{Duration, check_format};

/// What the pass found.
#[derive(Debug, Default)]
pub(crate) struct Structure {
    /// What is wrong, and where; `true`: at the key.
    pub(crate) findings: Vec<(Path, bool, What)>,
    /// Values that were left out or replaced by the schema's example because they are not sound. What is said about them means nothing.
    unsound: Vec<Path>,
    /// Maps with a key that nobody knows: a setting that seems to be absent may be that key.
    misspelt: Vec<Path>,
}

impl Structure {
    /// Whether what stands at `path`, or does not stand there, can be relied on.
    pub(crate) fn is_sound(&self, path: &Path, document: &Node) -> bool {
        let replaced = self.unsound.iter().any(|unsound| unsound.touches(path));
        let misspelt = document.at(path).is_none() && self.misspelt.contains(&path.parent());
        !replaced && !misspelt
    }

    /// Checks `node` against `schema`. Returns the value with all that is not sound replaced by examples, so that it can be read on.
    pub(crate) fn check(&mut self, node: &Node, schema: &Json, path: &Path) -> Json {
        let kind = schema.get("type").and_then(Json::as_str);
        if let Some(variant) = variant(schema, &node.value) {
            return self.check(node, variant, path);
        }
        let choices = choices(schema);
        let result = if node.value == Value::Null {
            Err(no_value(kind, path))
        } else if !choices.is_empty() {
            choice(node, &choices)
        } else {
            match (kind, &node.value) {
                (Some("object"), Value::Map(entries)) => return self.map(entries, schema, path),
                (Some("array"), Value::List(items)) => return self.list(items, schema, path),
                (Some("string"), Value::Text(text)) => check_text(text, schema),
                (Some("integer"), Value::Integer(number)) => check_number(*number, schema),
                (Some("boolean"), Value::Bool(flag)) => Ok(Json::from(*flag)),
                (Some(kind), value) => Err(wrong_type(kind, value, schema)),
                (None, value) if schema.get("anyOf").is_some() => Err(no_variant(value, schema)),
                (None, _) => Ok(Json::Null),
            }
        };
        result.unwrap_or_else(|what| {
            self.findings.push((path.clone(), false, what));
            self.replace(schema, path)
        })
    }

    fn replace(&mut self, schema: &Json, path: &Path) -> Json {
        self.unsound.push(path.clone());
        let example = schema.get("examples").and_then(|examples| examples.get(0));
        example.or_else(|| schema.get("default")).cloned().unwrap_or(Json::Null)
    }

    fn map(&mut self, entries: &[Entry], schema: &Json, path: &Path) -> Json {
        let mut sound = Map::new();
        let nothing = Map::new();
        let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&nothing);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        for Entry { key, value, .. } in entries {
            let at = path.key(key);
            if let Some(property) = properties.get(key).or(others) {
                if let Some(Err(fault)) = schema
                    .get("propertyNames")
                    .filter(|_| !properties.contains_key(key))
                    .map(|names| check_text(key, names))
                {
                    self.findings.push((at.clone(), true, fault));
                    self.unsound.push(at.clone());
                }
                let optional = !is_required(schema, key);
                let before = self.unsound.len();
                let json = self.check(value, property, &at);
                let replaced = self.unsound.get(before..).is_some_and(|new| new.contains(&at));
                if !(optional && replaced && properties.contains_key(key)) {
                    sound.insert(key.clone(), json);
                }
            } else {
                let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                self.findings.push((at, true, unknown_key(key, path, &known, entries)));
                self.misspelt.push(path.clone());
            }
        }
        for key in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if entries.iter().any(|entry| entry.key == key) {
                continue;
            }
            let property = properties.get(key).unwrap_or(&Json::Null);
            // A key with a spelling error is reported as such; that the right one is missing follows from it.
            let misspelt = entries
                .iter()
                .any(|entry| !properties.contains_key(&entry.key) && nearest(&entry.key, [key]).is_some());
            if !misspelt {
                self.findings.push((path.clone(), false, missing_key(key, path, property)));
            }
            let at = path.key(key);
            let example = self.replace(property, &at);
            sound.insert(key.to_owned(), example);
        }
        if let Some(min) =
            schema.get("minProperties").and_then(Json::as_u64).filter(|min| (entries.len() as u64) < *min)
        {
            let help = format!("write at least {min} below `{path}`");
            self.findings.push((
                path.clone(),
                false,
                What::error("spec::empty-map", format!("`{path}` has nothing in it"), help),
            ));
        }
        Json::Object(sound)
    }

    fn list(&mut self, items: &[Node], schema: &Json, path: &Path) -> Json {
        let min = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (items.len() as u64) < min {
            let help = "write at least one item";
            self.findings.push((
                path.clone(),
                false,
                What::error("spec::empty-list", format!("the list `{path}` is empty"), help),
            ));
            self.unsound.push(path.clone());
        }
        if let Some(max) = schema.get("maxItems").and_then(Json::as_u64).filter(|max| (items.len() as u64) > *max) {
            let message = format!("the list `{path}` has {} items; it may have {max}", items.len());
            self.findings.push((path.clone(), false, What::error("spec::long-list", message, "take some out")));
        }
        let of = schema.get("items").unwrap_or(&Json::Null);
        items.iter().enumerate().map(|(index, item)| self.check(item, of, &path.index(index))).collect()
    }
}

/// The schema for `value` where values of several types may stand.
pub(crate) fn variant<'a>(schema: &'a Json, value: &Value) -> Option<&'a Json> {
    let kind = match value {
        Value::Bool(_) => "boolean",
        Value::Integer(_) => "integer",
        Value::Text(_) => "string",
        Value::List(_) => "array",
        Value::Map(_) => "object",
        Value::Null | Value::Float(_) => return None,
    };
    let variants = schema.get("anyOf").and_then(Json::as_array)?;
    variants.iter().find(|variant| variant.get("type").and_then(Json::as_str) == Some(kind))
}

/// The known name that `name` is probably meant to be.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&plain(name), &plain(candidate)), candidate))
        // A third of the letters may be wrong, and one in the shortest names.
        .filter(|(distance, candidate)| {
            *distance <= (candidate.chars().count() / 3).max(1) && *distance < name.chars().count().max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `a`, `b` and `c`, each in backquotes.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => "none".into(),
        [one] => one.clone(),
        [start @ .., last] => format!("{} and {last}", start.join(", ")),
    }
}

fn is_required(schema: &Json, key: &str) -> bool {
    schema.get("required").and_then(Json::as_array).is_some_and(|required| required.iter().any(|name| name == key))
}

/// The words that an enum may be; empty when the schema is none.
fn choices(schema: &Json) -> Vec<&str> {
    let words = schema.get("enum").and_then(Json::as_array).into_iter().flatten();
    let variants = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    words.chain(variants.filter_map(|variant| variant.get("const"))).filter_map(Json::as_str).collect()
}

fn choice(node: &Node, choices: &[&str]) -> Result<Json, What> {
    let text = match &node.value {
        Value::Text(text) => text.as_str(),
        other => {
            let message =
                format!("{} stands where one of {} is needed", article(other), listed(choices.iter().copied()));
            return Err(What::error("spec::choice", message, "write one of these words"));
        }
    };
    if choices.contains(&text) {
        return Ok(Json::from(text));
    }
    let message = format!("`{text}` is none of {}", listed(choices.iter().copied()));
    let help = nearest(text, choices.iter().copied())
        .map_or_else(|| "write one of these words".into(), |word| format!("did you mean `{word}`?"));
    Err(What::error("spec::choice", message, help))
}

fn check_text(text: &str, schema: &Json) -> Result<Json, What> {
    let format = schema.get("format").and_then(Json::as_str).unwrap_or_default();
    check_format(format, text).map_err(|fault| What::error(format_code(format), fault.reason, fault.help))?;
    if text.is_empty() {
        return Err(What::error("spec::empty-text", "the text is empty", "write a value, or take the key out"));
    }
    if format == "duration" {
        check_duration(text, schema)?;
    }
    if format == "cidr" {
        // `192.0.2.0/24` and the like are normal already; the value keeps its host bits for the check that explains them.
        return Ok(text.parse::<IpNet>().map_or_else(|_| Json::from(text), |range| Json::from(range.to_string())));
    }
    Ok(Json::from(text))
}

fn check_duration(text: &str, schema: &Json) -> Result<(), What> {
    let bound = |key: &str| schema.get(key).and_then(Json::as_str).and_then(|bound| bound.parse::<Duration>().ok());
    let Ok(value) = text.parse::<Duration>() else { return Ok(()) };
    let reason = schema.get("description").and_then(Json::as_str).map(first_line).unwrap_or_default();
    match (bound("x-minimum"), bound("x-maximum")) {
        (Some(min), Some(max)) if value < min || value > max => {
            let message = format!("{text} is outside of {min} to {max} ({reason})");
            Err(What::error("spec::range", message, format!("write {}", if value < min { min } else { max })))
        }
        _ => Ok(()),
    }
}

fn check_number(number: i64, schema: &Json) -> Result<Json, What> {
    let min = schema.get("minimum").and_then(Json::as_i64).unwrap_or(i64::MIN);
    let max = schema.get("maximum").and_then(Json::as_i64).unwrap_or(i64::from(u32::MAX));
    if (min..=max).contains(&number) {
        return Ok(Json::from(number));
    }
    let nearest = if number < min { min } else { max };
    Err(What::error(
        "spec::range",
        format!("{number} is outside of {min} to {max}"),
        format!("write a number within, such as {nearest}"),
    ))
}

fn format_code(format: &str) -> &'static str {
    match format {
        "duration" => "spec::duration",
        "sip-uri" => "spec::target",
        "cidr" => "spec::range-form",
        "host-name" => "spec::host-name",
        "aws-region" => "spec::region",
        "aws-zone" => "spec::zone",
        "number" => "spec::number",
        "image-id" | "vpc-id" | "subnet-id" => "spec::aws-id",
        "bucket-name" | "key-prefix" => "spec::bucket",
        "tag-key" | "tag-value" => "spec::tag",
        "email" | "https-url" | "slack-workspace" | "slack-channel" => "spec::alarms",
        _ => "spec::name",
    }
}

fn no_value(kind: Option<&str>, path: &Path) -> What {
    let help = match kind {
        Some("object") => "write its settings below it, indented by two spaces, or take the key out",
        Some("array") => "write [item, item], or take the key out",
        _ => "write a value, or take the key out",
    };
    What::error("spec::no-value", format!("`{path}` has no value"), help)
}

/// What a value of this type is called.
fn needed(kind: &str, format: &str) -> &'static str {
    match (kind, format) {
        ("object", _) => "a map of settings",
        ("array", _) => "a list",
        ("integer", _) => "a whole number",
        ("boolean", _) => "true or false",
        (_, "duration") => "a duration",
        (_, "sip-uri") => "a SIP URI",
        _ => "a text",
    }
}

fn no_variant(value: &Value, schema: &Json) -> What {
    let text = |variant: &Json, key: &str| variant.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
    let variants = schema.get("anyOf").and_then(Json::as_array).into_iter().flatten();
    let needed: Vec<&str> = variants.map(|variant| needed(&text(variant, "type"), &text(variant, "format"))).collect();
    let needed = needed.join(" or ");
    What::error("spec::type", format!("{} stands where {needed} is needed", article(value)), format!("write {needed}"))
}

fn wrong_type(kind: &str, value: &Value, schema: &Json) -> What {
    let format = schema.get("format").and_then(Json::as_str).unwrap_or_default();
    let needed = needed(kind, format);
    let help = match (kind, value) {
        ("string", Value::Integer(number)) if format == "duration" => {
            format!("write {number}s for seconds, {number}ms for milliseconds")
        }
        ("string", Value::Integer(number)) if format == "number" => {
            format!("put it in quotes, with its + if it has one: \"+{number}\"")
        }
        ("string", Value::Integer(number)) => format!("put it in quotes: \"{number}\""),
        ("string", Value::Float(number)) => format!("put it in quotes: \"{number}\""),
        ("string", Value::Bool(flag)) => format!("put it in quotes: \"{flag}\""),
        ("string", Value::List(_)) => "write one value, without brackets or hyphen".into(),
        ("integer", Value::Text(text)) if text.parse::<i64>().is_ok() => format!("write {text} without quotes"),
        ("array", Value::Text(text)) => format!("put it in brackets: [{text}]"),
        ("array", Value::Map(_)) => "write each item on a line of its own that begins with a hyphen".into(),
        ("object", Value::List(_)) => "write `key: value` lines without hyphens".into(),
        ("object", _) => "write { key: value }, or `key: value` lines below it".into(),
        _ => format!("write {needed}"),
    };
    What::error("spec::type", format!("{} stands where {needed} is needed", article(value)), help)
}

fn article(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(flag) => format!("{flag}"),
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Text(text) => format!("the text `{text}`"),
        Value::List(_) => "a list".into(),
        Value::Map(_) => "a map".into(),
    }
}

fn unknown_key(key: &str, path: &Path, known: &[&str], entries: &[Entry]) -> What {
    let place = path.to_string();
    let message =
        if place.is_empty() { format!("unknown key `{key}`") } else { format!("unknown key `{key}` in `{place}`") };
    let free = known.iter().copied().filter(|name| !entries.iter().any(|entry| entry.key == *name));
    let help = match nearest(key, free).or_else(|| nearest(key, known.iter().copied())) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("the keys here are {}", listed(known.iter().copied())),
    };
    What::error("spec::unknown-key", message, help)
}

fn missing_key(key: &str, path: &Path, schema: &Json) -> What {
    let place = path.to_string();
    let message = if place.is_empty() {
        format!("the key `{key}` is missing")
    } else {
        format!("the key `{key}` is missing in `{place}`")
    };
    let what = schema.get("description").and_then(Json::as_str).map(first_line).unwrap_or_default();
    let example = match schema.get("examples").and_then(|examples| examples.get(0)) {
        Some(Json::String(text)) => format!("write `{key}: {text}`, with your value"),
        Some(Json::Number(number)) => format!("write `{key}: {number}`"),
        _ => format!("write `{key}:`"),
    };
    What::error("spec::missing-key", message, format!("{example}. {what}"))
}

fn first_line(text: &str) -> String {
    text.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["carrier", "domain", "from", "targets", "limits"];
        assert_eq!(nearest("carier", known), Some("carrier"));
        assert_eq!(nearest("form", known), Some("from"));
        assert_eq!(nearest("Domain", known), Some("domain"));
        assert_eq!(nearest("password", known), None);
        assert_eq!(nearest("load-balancer", ["load_balancer"]), Some("load_balancer"));
    }
}
