//! Each mistake in a spec is answered with a report that says where, what, why, and what to write.
//!
//! `tests/spec_mistakes/NAME.yaml` has the mistake, `NAME.txt` the report. `UPDATE_GOLDEN=1` writes the reports anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sipedge::spec::{Severity, Spec, SpecErrors};

/// As many kinds of mistakes as there have to be at least.
const AT_LEAST: usize = 30;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec_mistakes")
}

fn compare(golden: &Path, actual: &str, failures: &mut Vec<String>) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(golden, actual).unwrap();
        return;
    }
    match fs::read_to_string(golden) {
        Ok(expected) if expected == actual => {}
        Ok(expected) => failures.push(format!("{}:\n--- expected\n{expected}\n--- actual\n{actual}", golden.display())),
        Err(error) => failures.push(format!("{}: {error}; UPDATE_GOLDEN=1 writes it\n{actual}", golden.display())),
    }
}

/// The report of a spec that has errors, or its warnings as they are printed beside a plan.
fn report(name: &str, text: &str) -> SpecErrors {
    match Spec::parse(name, text) {
        Err(errors) => errors,
        Ok(loaded) => {
            assert!(!loaded.warnings.is_empty(), "{name}: nothing was found");
            loaded.report(text)
        }
    }
}

#[test]
fn each_mistake_has_its_report() {
    let mut failures = Vec::new();
    let mut codes = BTreeSet::new();
    let mut names: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    names.sort();
    assert!(names.len() >= AT_LEAST, "{} mistakes", names.len());
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let report = report("sipedge.yaml", &text);
        codes.extend(report.findings.iter().map(|finding| finding.code));
        for finding in &report.findings {
            assert!(!finding.message.is_empty() && !finding.help.is_empty(), "{}: {finding:?}", path.display());
            assert!(
                finding.line >= 1 && finding.line <= text.lines().count().max(1),
                "{}: {finding:?}",
                path.display()
            );
        }
        compare(&path.with_extension("txt"), &report.to_string(), &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(codes.len() >= AT_LEAST, "{} kinds: {codes:?}", codes.len());
}

#[test]
fn files_that_cannot_be_read_are_explained() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("directory.yaml")).unwrap();
    fs::write(at("latin-1.yaml"), b"version: 1\nname: caf\xe9\n").unwrap();
    fs::write(at("large.yaml"), "# much\n".repeat(200_000)).unwrap();
    let mut failures = Vec::new();
    for name in ["absent", "directory", "latin-1", "large"] {
        let path = at(&format!("{name}.yaml"));
        let report = Spec::load(&path).unwrap_err().to_string().replace(&*place.path().to_string_lossy(), "DIR");
        // The folder's name has a length of its own, so lines break elsewhere: words alone are compared.
        let words: Vec<&str> = report.split_whitespace().filter(|word| *word != "│").collect();
        compare(&folder().join(format!("file-{name}.txt")), &(words.join(" ") + "\n"), &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn a_file_is_read_with_and_without_byte_order_mark() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("sipedge.yaml");
    fs::write(&path, format!("\u{feff}{}", sipedge::spec::init_text("bom"))).unwrap();
    assert_eq!(Spec::load(&path).unwrap().spec.name, "bom");
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_places_in_json() {
    let text = "version: 1\nnmae: x\naws: { region: us-east-1, profile: 5 }\ntrunks:\n  a: { carrier: twilo }\n  b: { carrier: twilio, from: [10.0.0.0/8] }\nroutes:\n  - { from: a, to: c }\ntimers: { response: 40s }\n";
    let errors = Spec::parse("edge.yaml", text).unwrap_err();
    let found: BTreeSet<(usize, &str)> = errors.errors().map(|finding| (finding.line, finding.code)).collect();
    for expected in [
        (2, "spec::unknown-key"),
        (3, "spec::type"),
        (5, "spec::carrier"),
        (6, "spec::range"),
        (8, "spec::route"),
        (9, "spec::timers"),
    ] {
        assert!(found.contains(&expected), "{expected:?} is not in {found:?}");
    }
    let json = serde_json::to_value(&errors).unwrap();
    let first = &json["findings"][0];
    assert_eq!(first["file"], "edge.yaml");
    assert_eq!((&first["line"], &first["column"], &first["length"]), (&2.into(), &1.into(), &4.into()));
    assert_eq!(first["severity"], "error");
    assert_eq!(first["help"], "did you mean `name`?");
}

#[test]
fn a_report_stays_readable_whatever_the_file_is() {
    let windows =
        sipedge::spec::init_text("x").replace('\n', "\r\n").replace("carrier: twilio }", "carrier: twillio }");
    let report = Spec::parse("x", &windows).unwrap_err();
    assert_eq!(report.errors().count(), 1, "{report}");
    assert!(!report.to_string().contains('\r'));

    let long = format!("name: {}\n", "x".repeat(100_000));
    let report = Spec::parse("x", &long).unwrap_err().to_string();
    assert!(report.contains("(line 1, column 7)"), "{report}");

    let many: String = (0..2_000).map(|number| format!("key-{number}: 1\n")).collect();
    assert!(Spec::parse("x", &many).unwrap_err().findings.len() <= 400);
}

#[test]
fn a_misspelt_key_is_not_reported_as_missing_too() {
    let text = sipedge::spec::init_text("x").replace("domain:", "domian:");
    let errors = Spec::parse("x", &text).unwrap_err();
    let codes: Vec<&str> = errors.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["spec::unknown-key"], "{errors}");
}

#[test]
fn no_prefix_of_a_spec_makes_it_panic() {
    let text = sipedge::spec::init_text("cut") + include_str!("../examples/by-hand.yaml");
    for (at, _) in text.char_indices() {
        for cut in [text.get(..at), text.get(at..)] {
            if let Err(errors) = Spec::parse("cut", cut.unwrap_or_default()) {
                assert!(errors.findings.iter().any(|finding| finding.severity == Severity::Error));
            }
        }
    }
}
