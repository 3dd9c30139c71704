//! The playbooks as ansible-lint's production profile wants them, and the Packer template as far as it can be read here.
//!
//! Takes some 20 s.

#[path = "support/project.rs"]
mod support;
#[path = "support/tools.rs"]
mod tools;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{repository, skip};

fn lint(folder: &Path) -> Option<tools::Done> {
    let program = tools::python_tool("ansible-lint")?;
    let mut command = Command::new(&program);
    // It runs `ansible` of its own environment.
    let path = std::env::join_paths(
        program
            .parent()
            .map(Path::to_owned)
            .into_iter()
            .chain(std::env::var_os("PATH").iter().flat_map(std::env::split_paths)),
    );
    command.args(["--nocolor", "--profile", "production"]).current_dir(folder).env("PATH", path.expect("a path"));
    Some(tools::run(command.env("LC_ALL", "C.UTF-8")))
}

#[test]
fn the_production_profile_is_clean() {
    let Some(done) = lint(&repository().join("ansible")) else {
        return skip("the_production_profile_is_clean", "ansible-lint is not installed: run tests/setup");
    };
    let said = done.expect("ansible-lint found something");
    assert!(said.contains("0 failure(s), 0 warning(s)"), "{said}");
    // Playbooks, roles, settings: it has looked at them all.
    let files = said.split(" in ").last().and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    assert!(files >= 40, "it has looked at {files} files: {said}");
}

#[test]
fn a_task_that_breaks_a_rule_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(repository().join("ansible/.ansible-lint"), folder.path().join(".ansible-lint")).expect("copied");
    let task = "---\n- name: Try\n  hosts: all\n  tasks:\n    - name: Write\n      ansible.builtin.copy:\n        dest: /x\n        content: x\n";
    fs::write(folder.path().join("try.yml"), task).expect("written");
    let Some(done) = lint(folder.path()) else {
        return skip("a_task_that_breaks_a_rule_is_found", "ansible-lint is not installed: run tests/setup");
    };
    assert!(!done.succeeded && done.said.contains("risky-file-permissions"), "{}", done.said);
}

/// What the template takes, what explains it, and the settings that it gives to the playbook.
#[test]
fn the_packer_template_is_well_formed_and_names_settings_that_there_are() {
    let test = "the_packer_template_is_well_formed_and_names_settings_that_there_are";
    // The one beside Ansible: checkov has another of that name, which writes another form.
    let Some(reader) = tools::python_tool("ansible-lint").map(|lint| lint.with_file_name("hcl2tojson")) else {
        return skip(test, "python-hcl2 is not installed: run tests/setup");
    };
    let read = |name: &str| {
        let said =
            tools::run(Command::new(&reader).arg(repository().join("packer").join(name))).expect("it can be read");
        // Behind the document it names the file.
        let mut values = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
        values.next().expect("a document").expect("JSON")
    };
    let (variables, template) = (read("variables.pkr.hcl"), read("sipedge.pkr.hcl"));
    let text = fs::read_to_string(repository().join("packer/sipedge.pkr.hcl")).expect("readable");
    let blocks = variables["variable"].as_array().expect("variables");
    assert!(blocks.len() >= 15, "{variables}");
    for (name, block) in blocks.iter().flat_map(|block| block.as_object().expect("a block")) {
        let name = name.trim_matches('"');
        assert!(
            block["description"].as_str().is_some_and(|words| words.len() > 20),
            "{name} is not explained: {block}"
        );
        assert!(!block["type"].is_null(), "{name} has no type");
        assert!(text.contains(&format!("var.{name}")), "{name} is not used");
    }
    let names: BTreeSet<&str> = blocks
        .iter()
        .flat_map(|block| block.as_object().expect("a block").keys())
        .map(|name| name.trim_matches('"'))
        .collect();
    for used in text
        .split("var.")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
    {
        assert!(names.contains(used), "var.{used} is not declared");
    }
    assert!(!template["source"].is_null() && !template["build"].is_null(), "{template}");
    let settings = fs::read_to_string(repository().join("ansible/group_vars/all.yml")).expect("readable");
    let given: BTreeSet<&str> = text.split_whitespace().filter(|word| word.starts_with("sipedge_")).collect();
    assert!(given.len() >= 5, "{given:?}");
    for name in given {
        assert!(settings.contains(&format!("\n{name}: ")), "{name} is no setting of the playbooks");
    }
}
