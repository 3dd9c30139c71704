//! `--help` of every command has examples, and the documents tell of every command and exit code.

#[path = "support/project.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;

use support::{Project, repository};

/// The names under `Commands:` of a help text.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    listed
        .filter(|line| line.starts_with("  ") && !line.starts_with("    "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Every command with its help, such as `["verify", "call"]`.
fn all_commands(project: &Project) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(command) = open.pop() {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = project.run(&arguments).expect(0).stdout;
        for name in subcommands(&help) {
            open.push(command.iter().cloned().chain([name]).collect());
        }
        found.push((command, help));
    }
    found
}

#[test]
fn every_command_has_examples_that_name_it() {
    let project = Project::new();
    let commands = all_commands(&project);
    assert!(commands.len() >= 18, "the commands are found in the help: {commands:?}");
    for (command, help) in commands {
        let name = ["sipedge".to_owned()].into_iter().chain(command).collect::<Vec<_>>().join(" ");
        let (_, examples) = help.split_once("Examples:").unwrap_or_else(|| panic!("`{name} --help` has no examples"));
        assert!(examples.contains(&name), "the examples of `{name} --help` do not show it");
    }
}

#[test]
fn the_process_that_owns_a_lab_is_not_shown() {
    let help = Project::new().run(&["lab", "--help"]).expect(0).stdout;
    assert!(!help.contains("supervise"), "{help}");
}

#[test]
fn documents_tell_of_every_command() {
    let text = fs::read_to_string(repository().join("docs/commands.md")).expect("docs/commands.md");
    for (command, _) in all_commands(&Project::new()) {
        let name = ["sipedge".to_owned()].into_iter().chain(command).collect::<Vec<_>>().join(" ");
        assert!(text.contains(&name), "docs/commands.md does not tell of `{name}`");
    }
}

#[test]
fn documents_and_help_tell_the_same_exit_codes() {
    let help = Project::new().run(&["--help"]).expect(0).stdout;
    let (_, codes) = help.split_once("Exit codes:\n").expect("the help lists the exit codes");
    let in_help: BTreeMap<u8, String> = codes
        .lines()
        .map_while(|line| line.trim().split_once("  "))
        .map(|(code, meaning)| (code.parse().expect("a number"), meaning.trim().to_owned()))
        .collect();
    let text = fs::read_to_string(repository().join("docs/commands.md")).expect("docs/commands.md");
    let in_document: BTreeMap<u8, String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .filter_map(|(code, meaning)| Some((code.parse().ok()?, meaning.to_owned())))
        .collect();
    assert_eq!(in_help.len(), 10);
    assert_eq!(in_help, in_document);
}

#[test]
fn completions_are_made_for_each_shell() {
    let project = Project::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = project.run(&["completions", shell]).expect(0).stdout;
        assert!(script.contains("deploy"), "{shell}: the commands are completed");
    }
}

#[test]
fn the_schema_is_one() {
    let schema = Project::new().run(&["schema"]).expect(0).json();
    assert!(schema["$schema"].is_string(), "{schema}");
}

#[test]
fn version_is_the_packages() {
    let version = Project::new().run(&["--version"]).expect(0).stdout;
    assert_eq!(version.trim(), format!("sipedge {}", env!("CARGO_PKG_VERSION")));
}
