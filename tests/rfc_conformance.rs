//! `docs/rfc-conformance.md` is true as far as a machine can tell: every row is whole, and every test that it names exists and is run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/rfc-conformance.md";
/// What a test's cell ends with while nobody has written the test.
const PLANNED: &str = "(planned)";
/// The beginnings of a cell that says why there is no test.
const REASONS: [&str; 2] = ["Not applicable: ", "Not done: "];
const LEVELS: [&str; 4] = ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT"];
/// Letters that a requirement or a reason has at least: fewer say nothing.
const LEAST_LETTERS: usize = 12;

/// Sections of RFC 3261 that bind a proxy.
const SECTIONS: [&str; 25] = [
    "16.3", "16.4", "16.5", "16.6", "16.7", "16.8", "16.9", "16.10", "16.11", "16.12", "17.1.1.2", "17.1.1.3",
    "17.1.2.2", "17.1.3", "17.1.4", "17.2.1", "17.2.2", "17.2.3", "17.2.4", "18.1.1", "18.1.2", "18.2.1", "18.2.2",
    "18.3", "18.4",
];
/// The RFCs that the proxy follows.
const RFCS: [&str; 16] = [
    "3261", "3263", "3323", "3325", "3581", "4028", "4320", "4475", "5118", "5393", "5626", "5658", "5922", "5923",
    "6026", "8224",
];

/// One requirement.
#[derive(Debug)]
struct Row {
    /// Line of the page, from 1.
    line: usize,
    /// The `##` heading that it stands under.
    chapter: String,
    section: String,
    level: String,
    requirement: String,
    shown: Vec<Shown>,
}

/// One entry of a row's last cell.
#[derive(Debug)]
enum Shown {
    Test {
        path: String,
        name: String,
        planned: bool,
    },
    Reason(String),
    /// Neither: a mistake.
    Other(String),
}

impl Row {
    /// How a failure names it.
    fn place(&self) -> String {
        format!("{PAGE}:{} (§{} {})", self.line, self.section, self.requirement)
    }
}

#[test]
fn every_row_has_a_section_a_level_a_requirement_and_a_test_or_a_reason() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for row in rows() {
        let mut complain = |what: &str| wrong.push(format!("{}: {what}", row.place()));
        if !row.section.starts_with(|first: char| first.is_ascii_digit()) {
            complain("the section is no number");
        }
        if !LEVELS.contains(&row.level.as_str()) {
            complain(&format!("the level is `{}`, not one of {LEVELS:?}", row.level));
        }
        if row.requirement.len() < LEAST_LETTERS {
            complain("the requirement says nothing");
        }
        if !seen.insert((row.chapter.clone(), row.section.clone(), row.level.clone(), row.requirement.clone())) {
            complain("the row is there twice");
        }
        for shown in &row.shown {
            match shown {
                Shown::Test { .. } => {}
                Shown::Reason(reason) if reason.len() < LEAST_LETTERS => complain("the reason says nothing"),
                Shown::Reason(_) => {}
                Shown::Other(text) => complain(&format!("`{text}` is neither `path.rs::test` nor {REASONS:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_named_test_exists_and_is_run() {
    let mut wrong = Vec::new();
    for row in rows() {
        for shown in &row.shown {
            if let Shown::Test { path, name, planned: false } = shown
                && let Err(reason) = find_test(path, name)
            {
                wrong.push(format!("{}: {path}::{name}: {reason}", row.place()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_section_and_every_rfc_is_there() {
    let rows = rows();
    let sections: BTreeSet<&str> = rows
        .iter()
        .filter(|row| row.chapter.contains("RFC 3261"))
        // `16.6 (4)` is an item of 16.6, `16.12.1.1` is within 16.12.
        .map(|row| row.section.split(' ').next().unwrap_or_default())
        .collect();
    let missing: Vec<&str> = SECTIONS.into_iter().filter(|section| !sections.contains(section)).collect();
    assert!(missing.is_empty(), "{PAGE} has no row of RFC 3261 §{missing:?}");
    let named = |rfc: &&str| !rows.iter().any(|row| row.chapter.contains(*rfc));
    let missing: Vec<&str> = RFCS.into_iter().filter(named).collect();
    assert!(missing.is_empty(), "{PAGE} has no row of RFC {missing:?}");
}

#[test]
fn no_test_is_only_planned() {
    let mut planned = BTreeSet::new();
    let mut rows_without = 0;
    for row in rows() {
        let names = row.shown.iter().filter_map(|shown| match shown {
            Shown::Test { path, name, planned: true } => Some(format!("{path}::{name}")),
            _ => None,
        });
        let names: Vec<String> = names.collect();
        rows_without += usize::from(!names.is_empty());
        planned.extend(names);
    }
    let names: Vec<String> = planned.into_iter().collect();
    assert!(names.is_empty(), "{rows_without} rows wait for {} tests:\n{}", names.len(), names.join("\n"));
}

/// The finder of tests finds what cargo would run, and nothing else.
#[test]
fn a_test_that_would_not_be_run_is_not_found() {
    let source = "#[test]\nfn plain() {}\n\n#[test]\n#[should_panic(expected = \"x\")]\nfn panics() {}\n\n\
                  #[tokio::test(flavor = \"current_thread\")]\nasync fn on_tokio() {}\n\nfn helper() {}\n\n\
                  #[test]\n#[ignore = \"slow\"]\nfn ignored() {}\n\n// #[test]\n// fn commented() {}\n\n\
                  mod inner {\n    /// Says what.\n    #[test]\n    fn nested() {}\n}\n";
    for name in ["plain", "panics", "on_tokio", "nested"] {
        assert_eq!(test_in(source, name), Ok(()), "{name}");
    }
    for name in ["helper", "ignored", "commented", "missing", "plai", "lain"] {
        assert!(test_in(source, name).is_err(), "{name}");
    }
}

/// A file that nobody builds is told from one that a test binary takes in.
#[test]
fn a_file_that_would_not_be_built_is_not_found() {
    let root = repository();
    for built in ["tests/rfc_conformance.rs", "tests/sim/main.rs", "crates/proxy/tests/behaviours/failover.rs"] {
        assert!(is_built(&root.join(built)), "{built}");
    }
    for built in ["crates/sip/src/transaction/tests.rs", "crates/proxy/src/engine/tests/calls.rs"] {
        assert!(is_built(&root.join(built)), "{built}");
    }
    for other in ["crates/proxy/tests/behaviours/nobody.rs", "crates/proxy/src/engine/tests/nobody.rs", "docs/x.rs"] {
        assert!(!is_built(&root.join(other)), "{other}");
    }
}

/// The rows of all tables of the page.
fn rows() -> Vec<Row> {
    let text = fs::read_to_string(repository().join(PAGE)).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
    let mut rows = Vec::new();
    let mut chapter = "";
    for (index, line) in text.lines().enumerate() {
        if let Some(heading) = line.strip_prefix("## ") {
            chapter = heading;
        }
        let Some(inner) = line.strip_prefix('|') else { continue };
        let cells: Vec<&str> = inner.trim_end().trim_end_matches('|').split('|').map(str::trim).collect();
        let [section, level, requirement, shown] = cells[..] else {
            panic!("{PAGE}:{}: {} cells instead of 4: {line}", index + 1, cells.len());
        };
        let is_head = section == "§" || section.chars().all(|letter| letter == '-');
        if !is_head {
            rows.push(Row {
                line: index + 1,
                chapter: chapter.to_owned(),
                section: section.to_owned(),
                level: level.to_owned(),
                requirement: requirement.to_owned(),
                shown: entries(shown),
            });
        }
    }
    assert!(!rows.is_empty(), "{PAGE} has no table");
    rows
}

/// The entries of a row's last cell: a reason, or tests between commas.
fn entries(cell: &str) -> Vec<Shown> {
    if REASONS.iter().any(|beginning| cell.starts_with(beginning)) {
        return vec![Shown::Reason(cell.split_once(": ").map(|(_, reason)| reason.to_owned()).unwrap_or_default())];
    }
    cell.split(", ").map(entry).collect()
}

/// `` `path.rs::name` ``, with ` (planned)` behind it while the test is not written.
fn entry(text: &str) -> Shown {
    let (quoted, planned) = match text.strip_suffix(PLANNED) {
        Some(before) => (before.trim_end(), true),
        None => (text, false),
    };
    let inner = quoted.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    match inner.and_then(|inner| inner.split_once("::")) {
        Some((path, name)) if path.ends_with(".rs") && is_function_name(name) => {
            Shown::Test { path: path.to_owned(), name: name.to_owned(), planned }
        }
        _ => Shown::Other(text.to_owned()),
    }
}

fn is_function_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn find_test(path: &str, name: &str) -> Result<(), String> {
    let source = fs::read_to_string(repository().join(path)).map_err(|error| error.to_string())?;
    test_in(&source, name)?;
    match is_built(&repository().join(path)) {
        true => Ok(()),
        false => Err("no `mod` line takes that file into a test binary".to_owned()),
    }
}

/// Whether cargo builds this file: it is a test binary by its place, or the module above it has a `mod` line for it.
fn is_built(path: &Path) -> bool {
    let (Some(folder), Some(stem)) = (path.parent(), path.file_stem().and_then(|stem| stem.to_str())) else {
        return false;
    };
    let is_tests_of_a_crate = |folder: &Path| folder.ends_with("tests") && folder.with_file_name("Cargo.toml").exists();
    if is_tests_of_a_crate(folder) || (stem == "main" && folder.parent().is_some_and(is_tests_of_a_crate)) {
        return true;
    }
    let (folder, name) = match (stem, folder.parent(), folder.file_name().and_then(|name| name.to_str())) {
        ("mod", Some(above), Some(name)) => (above, name),
        _ => (folder, stem),
    };
    let above = [folder.join("main.rs"), folder.join("lib.rs"), folder.join("mod.rs"), folder.with_extension("rs")];
    let line_of_it = format!("mod {name};");
    let is_it = |line: &str| line.trim().ends_with(&line_of_it) && !line.trim().starts_with("//");
    above.iter().filter_map(|above| fs::read_to_string(above).ok()).any(|source| source.lines().any(is_it))
}

/// Whether cargo runs a test of this name from this source: a function with a test attribute that is not ignored.
fn test_in(source: &str, name: &str) -> Result<(), String> {
    let mut attributes: Vec<&str> = Vec::new();
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line);
            continue;
        }
        let is_this = function_name(line) == Some(name);
        if is_this && attributes.iter().any(|attribute| attribute.starts_with("#[ignore")) {
            return Err("the test is ignored".to_owned());
        }
        let is_test = |attribute: &&str| attribute.starts_with("#[test]") || attribute.starts_with("#[tokio::test");
        if is_this && attributes.iter().any(is_test) {
            return Ok(());
        }
        if !line.starts_with("//") {
            attributes.clear();
        }
    }
    Err("there is no such test in that file".to_owned())
}

/// The name of the function that begins in this line.
fn function_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    rest.split_once('(').map(|(name, _)| name)
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
