//! The published schema accepts what the check accepts, and knows every key.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sipedge::spec::{Spec, init_text, schema};

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&schema()).unwrap()
}

fn parsed(yaml: &str) -> Value {
    serde_yaml::from_str(yaml).unwrap()
}

#[test]
fn the_examples_are_valid_for_schema_and_check() {
    let validator = validator();
    for (name, text) in [
        ("carrier-bridge", include_str!("../examples/carrier-bridge.yaml").to_owned()),
        ("by-hand", include_str!("../examples/by-hand.yaml").to_owned()),
        ("failover", include_str!("../examples/failover.yaml").to_owned()),
        ("production", include_str!("../examples/production.yaml").to_owned()),
        ("tls", include_str!("../examples/tls.yaml").to_owned()),
        ("init", init_text("my-edge")),
    ] {
        let errors: Vec<String> = validator.iter_errors(&parsed(&text)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        let loaded = Spec::parse(name, &text).unwrap_or_else(|errors| panic!("{errors}"));
        // The examples' own domain is what one has to replace.
        let doubtful: Vec<_> = loaded.warnings.iter().filter(|warning| warning.code != "spec::placeholder").collect();
        assert!(doubtful.is_empty(), "{name}: {doubtful:?}");
    }
    assert_eq!(Spec::parse("init", &init_text("my-edge")).unwrap().spec.name, "my-edge");
}

#[test]
fn a_spec_that_is_written_out_is_valid_and_the_same() {
    let validator = validator();
    for text in [
        include_str!("../examples/carrier-bridge.yaml"),
        include_str!("../examples/by-hand.yaml"),
        include_str!("../examples/failover.yaml"),
        include_str!("../examples/production.yaml"),
        include_str!("../examples/tls.yaml"),
    ] {
        let spec = Spec::parse("x", text).unwrap().spec;
        let value = serde_json::to_value(&spec).unwrap();
        assert!(validator.is_valid(&value), "{value}");
        let again =
            Spec::parse("x", &serde_yaml::to_string(&spec).unwrap()).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(again.spec, spec);
        assert_eq!(again.defaults, []);
    }
}

/// Each path of the schema, with its schema.
fn properties(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    for variant in schema["anyOf"].as_array().into_iter().flatten() {
        properties(variant, path, found);
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        found.push((path.clone(), property.clone()));
        properties(property, &path, found);
        properties(&property["items"], &format!("{path}[]"), found);
        properties(&property["additionalProperties"], &format!("{path}.NAME"), found);
    }
}

#[test]
fn every_key_has_a_description_and_stands_in_the_documentation() {
    let mut keys = Vec::new();
    properties(&schema(), "", &mut keys);
    assert!(keys.len() > 40, "{}", keys.len());
    let page = include_str!("../docs/spec.md");
    for (path, property) in keys {
        assert!(property["description"].is_string(), "{path} has no description");
        assert!(property["type"] != json!(["string", "null"]), "{path} takes null");
        assert!(page.contains(&format!("`{path}`")), "docs/spec.md does not have `{path}`");
        if property["x-reason"].is_string() {
            let default = property["default"].as_str().map_or_else(|| property["default"].to_string(), str::to_owned);
            let row = page.lines().find(|line| line.starts_with(&format!("| `{path}`"))).unwrap();
            assert!(
                row.contains(&format!("`{default}`")),
                "docs/spec.md: the default of {path} is {default}, not as in {row}"
            );
        }
    }
}

#[test]
fn schema_and_check_agree_on_keys_and_values() {
    let validator = validator();
    let bases = [
        parsed(include_str!("../examples/failover.yaml")),
        parsed(include_str!("../examples/production.yaml")),
        parsed(include_str!("../examples/tls.yaml")),
        parsed(include_str!("../examples/by-hand.yaml")),
    ];
    let wrong =
        [json!(null), json!([]), json!({"surplus": 1}), json!(-1), json!(70_000), json!("?"), json!(true), json!("")];
    for base in &bases {
        let mut paths = BTreeSet::new();
        pointers(base, String::new(), &mut paths);
        for pointer in &paths {
            for value in &wrong {
                let mut changed = base.clone();
                *changed.pointer_mut(pointer).unwrap() = value.clone();
                let by_check = Spec::parse("x", &serde_yaml::to_string(&changed).unwrap()).is_ok();
                // The schema cannot say all that the check does, but it never refuses what the check accepts.
                assert!(!by_check || validator.is_valid(&changed), "{pointer} = {value}: only the schema refuses it");
            }
        }
    }
    let [.., base] = &bases;
    for text in [
        "twilio_bridge: 1",
        "trunks: { a: { carier: x } }",
        "aws: { region: us-east-1, zone: a }",
        "listen: { prot: 1 }",
    ] {
        let mut changed = base.clone();
        for (key, value) in parsed(text).as_object().unwrap() {
            changed[key] = value.clone();
        }
        assert!(!validator.is_valid(&changed), "the schema knows {text}");
        assert!(Spec::parse("x", &serde_yaml::to_string(&changed).unwrap()).is_err(), "the check knows {text}");
    }
}

fn pointers(value: &Value, at: String, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| pointers(value, format!("{at}/{key}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| pointers(value, format!("{at}/{index}"), found))
        }
        _ => {}
    }
    found.insert(at);
}
