//! The Terraform modules: formatted, valid, tested on a mocked provider, free of what checkov finds, and fed with what `sipedge plan` writes.

#[path = "support/project.rs"]
mod support;
#[path = "support/tools.rs"]
mod tools;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};
use support::{program, repository, skip};

const ROOTS: [&str; 2] = ["single-ec2", "load-balanced"];

/// What a plan without an image leaves to the deploy.
const IMAGE: &str = "ami-0123456789abcdef0";

#[test]
fn files_are_formatted() {
    let Some(terraform) = program("terraform") else {
        return skip("files_are_formatted", "terraform is not on PATH");
    };
    let mut command = tools::terraform(&terraform, &folder());
    tools::run(command.args(["fmt", "-check", "-recursive", "-diff", "-no-color"]))
        .expect("terraform fmt would change files");
}

#[test]
fn single_ec2_is_valid_and_does_what_its_tests_say() {
    root_passes("single_ec2_is_valid_and_does_what_its_tests_say", "single-ec2");
}

#[test]
fn load_balanced_is_valid_and_does_what_its_tests_say() {
    root_passes("load_balanced_is_valid_and_does_what_its_tests_say", "load-balanced");
}

#[test]
fn checkov_finds_nothing_without_a_reason_beside_it() {
    let test = "checkov_finds_nothing_without_a_reason_beside_it";
    let Some(checkov) = tools::python_tool("checkov") else {
        return skip(test, "checkov is not installed: run tests/setup");
    };
    let mut command = Command::new(checkov);
    command.args(["--directory", ".", "--config-file", ".checkov.yaml"]).current_dir(folder());
    let said = tools::run(&mut command).expect("checkov found something");
    assert!(said.contains("Failed checks: 0"), "checkov looked at nothing:\n{said}");
}

#[test]
fn every_variable_and_output_is_explained_and_checked() {
    let mut wrong = Vec::new();
    for module in modules() {
        for block in blocks(&module.join("variables.tf"), "variable") {
            let closed_set = block.text.contains("type        = bool");
            let needed =
                ["description", "type", "validation"].into_iter().filter(|it| *it != "validation" || !closed_set);
            for needed in needed {
                if !block.text.contains(needed) {
                    wrong.push(format!("{}: variable {} has no {needed}", module.display(), block.name));
                }
            }
        }
        for block in blocks(&module.join("outputs.tf"), "output") {
            if !block.text.contains("description") {
                wrong.push(format!("{}: output {} has no description", module.display(), block.name));
            }
        }
        let is_root = ROOTS.iter().any(|root| module.ends_with(root));
        let versions = read(&module.join("versions.tf"));
        if versions.contains("\nprovider ") != is_root {
            wrong.push(format!("{}: a provider block belongs to root modules, and only there", module.display()));
        }
        if !module.join("README.md").is_file() {
            wrong.push(format!("{}: no README.md", module.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn root_modules_use_every_module() {
    let used: String = ROOTS.iter().map(|root| read(&folder().join(root).join("main.tf"))).collect();
    for module in fs::read_dir(folder().join("modules")).expect("modules/").flatten() {
        let name = module.file_name().into_string().expect("a plain name");
        assert!(used.contains(&format!("source = \"../modules/{name}\"")), "nothing validates or tests modules/{name}");
    }
}

#[test]
fn what_others_stand_on_goes_after_its_successor() {
    let of = |module: &str| read(&folder().join("modules").join(module).join("main.tf"));
    for (module, resources) in [
        ("network", ["aws_subnet\" \"public", "aws_subnet\" \"private", "aws_eip\" \"egress"].as_slice()),
        ("security", &["aws_security_group\" \"instances", "aws_security_group\" \"load_balancer"]),
        ("load-balancer", &["aws_lb_target_group\" \"this"]),
    ] {
        let text = of(module);
        for resource in resources {
            let begins = format!("resource \"{resource}\" {{\n");
            let block = text.split_once(&begins).and_then(|(_, rest)| rest.split_once("\n}\n")).map(|(block, _)| block);
            let block = block.unwrap_or_else(|| panic!("modules/{module} has no {resource}"));
            assert!(
                block.contains("create_before_destroy = true"),
                "modules/{module}: {resource} would go while others need it"
            );
        }
    }
}

#[test]
fn nothing_is_looked_up_that_may_be_gone_when_the_edge_is_destroyed() {
    for module in modules() {
        let text = read(&module.join("main.tf"));
        assert!(!text.contains("data \"aws_ami\""), "{}: a deregistered image would block destroy", module.display());
    }
}

#[test]
fn root_modules_know_every_variable_that_a_plan_writes() {
    for (root, _, file, values) in plans() {
        let known: BTreeSet<String> = blocks(&folder().join(&root).join("variables.tf"), "variable")
            .into_iter()
            .map(|block| block.name)
            .collect();
        let unknown: Vec<&String> = values.keys().filter(|key| !known.contains(*key)).collect();
        assert!(unknown.is_empty(), "{}: terraform/{root} has no variables {unknown:?}", file.display());
    }
}

/// Validates and tests a root module, in a folder of its own, with its example and the plans of `tests/golden` as further tests.
fn root_passes(test: &str, root: &str) {
    let Some(terraform) = program("terraform") else {
        return skip(test, "terraform is not on PATH");
    };
    let copy = tempfile::tempdir().expect("a temporary folder");
    copy_folder(&folder(), copy.path());
    let here = copy.path().join(root);
    fs::write(here.join("tests/plans.tftest.hcl"), runs_of_plans(root)).expect("a file");
    let example = copy.path().join("examples").join(root);
    fs::write(example.join("user-data.tftpl"), "advertise: !host ${ingress_address}\n").expect("a file");

    let begun = tools::init(&terraform, &here);
    if !begun.succeeded && tools::mirror().is_none() {
        return skip(test, &format!("no AWS provider on this machine, and none from the registry:\n{}", begun.said));
    }
    begun.expect("terraform init");
    tools::run(tools::terraform(&terraform, &here).args(["validate", "-no-color"])).expect("terraform validate");
    let said = tools::run(tools::terraform(&terraform, &here).args(["test", "-no-color"])).expect("terraform test");
    assert!(said.contains(" passed, 0 failed"), "terraform test ran nothing:\n{said}");
}

/// A test file with a run for the example, and one for each plan: the root module takes its variables and its user data.
fn runs_of_plans(root: &str) -> String {
    let example = read(&folder().join("examples").join(root).join("edge.tfvars"));
    let mut text = format!(
        "mock_provider \"aws\" {{\n  source = \"../mocks\"\n}}\n\nrun \"the_example\" {{\n  command = plan\n\n  variables {{\n{example}  }}\n}}\n"
    );
    let plans: Vec<_> = plans().into_iter().filter(|(of, ..)| of == root).collect();
    assert!(!plans.is_empty(), "tests/golden has no plan of {root} on AWS");
    for (_, name, file, mut values) in plans {
        let template = file.with_file_name("user-data.tftpl");
        values.insert("user_data_template".to_owned(), template.to_string_lossy().into());
        values.entry("image_id").or_insert_with(|| IMAGE.into());
        write!(text, "\nrun \"{}\" {{\n  command = plan\n\n  variables {{\n", name.replace('-', "_"))
            .expect("a string");
        for (key, value) in values {
            // JSON is an expression of HCL, as long as no text has a template in it.
            let value = value.to_string();
            assert!(!value.contains("${") && !value.contains("%{"), "{}: {key} has a template", file.display());
            writeln!(text, "    {key} = {value}").expect("a string");
        }
        text.push_str("  }\n}\n");
    }
    text
}

/// The Terraform variables of `tests/golden` for AWS: root module, plan, file, values.
fn plans() -> Vec<(String, String, PathBuf, Map<String, Value>)> {
    let golden = fs::read_dir(repository().join("tests/golden")).expect("tests/golden");
    let mut folders: Vec<PathBuf> = golden.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let mut found = Vec::new();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(plan) = name.strip_suffix("-aws") else { continue };
        for root in ROOTS.iter().filter(|root| plan.ends_with(**root)) {
            let file = folder.join(format!("{root}.auto.tfvars.json"));
            let values =
                serde_json::from_str(&read(&file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            found.push(((*root).to_owned(), plan.to_owned(), file, values));
        }
    }
    found
}

fn folder() -> PathBuf {
    repository().join("terraform")
}

/// Root modules and modules.
fn modules() -> Vec<PathBuf> {
    let inner = fs::read_dir(folder().join("modules")).expect("modules/").flatten().map(|entry| entry.path());
    ROOTS.iter().map(|root| folder().join(root)).chain(inner).collect()
}

/// A block of a file that `terraform fmt` has formatted: it begins and ends in the first column.
struct Block {
    name: String,
    text: String,
}

fn blocks(file: &Path, kind: &str) -> Vec<Block> {
    let text = read(file);
    let begins = format!("{kind} \"");
    let mut found: Vec<Block> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix(&begins) {
            let name = rest.split('"').next().unwrap_or_default().to_owned();
            found.push(Block { name, text: String::new() });
            inside = true;
        } else if line == "}" {
            inside = false;
        } else if let (true, Some(block)) = (inside, found.last_mut()) {
            block.text.push_str(line);
            block.text.push('\n');
        }
    }
    assert!(!found.is_empty(), "{}: no {kind}", file.display());
    found
}

#[track_caller]
fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Copies what is in the repository, and nothing that Terraform has left there.
fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with(".terraform");
        let (source, target) = (entry.path(), to.join(&name));
        if source.is_dir() && !hidden {
            fs::create_dir(&target).expect("a folder");
            copy_folder(&source, &target);
        } else if source.is_file() && !hidden {
            fs::copy(&source, &target).expect("a copy");
        }
    }
}
