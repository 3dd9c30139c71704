//! The sandboxes of the proxy's unit and of the one that opens its ports, as systemd itself rates them, in each of the forms that the role
//! writes.
//!
//! Takes some 10 s.

#[path = "support/project.rs"]
mod support;
#[path = "support/tools.rs"]
mod tools;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{program, repository, skip};

/// Most that systemd may see exposed, of 100: 2.0 as it is shown.
const THRESHOLD: &str = "--threshold=20";

/// The proxy's unit.
const PROXY: &str = "sipedge-proxy.service";

/// The unit with these settings, and what systemd-analyze says of it.
fn rate(folder: &Path, name: &str, settings: &Value, change: impl Fn(String) -> String) -> Option<tools::Done> {
    let ansible = tools::python_tool("ansible")?;
    let roles = repository().join("ansible");
    let unit = folder.join(name);
    let template = roles.join(format!("roles/proxy/templates/{name}.j2"));
    let mut render = Command::new(ansible);
    render.args([
        "--inventory",
        "localhost,",
        "--connection",
        "local",
        "all",
        "--module-name",
        "ansible.builtin.template",
    ]);
    render.arg("--args").arg(format!("src={} dest={} mode=0644", template.display(), unit.display()));
    render.arg("--extra-vars").arg(format!("@{}", roles.join("group_vars/all.yml").display()));
    render.arg("--extra-vars").arg(settings.to_string()).env("LC_ALL", "C.UTF-8");
    // The interpreter that Ansible itself runs by.
    render.args(["--extra-vars", "ansible_python_interpreter={{ ansible_playbook_python }}"]);
    tools::run(&mut render).expect("the unit is written");
    let text = change(fs::read_to_string(&unit).expect("readable"));
    fs::write(&unit, text).expect("written");
    let mut analyze = Command::new("systemd-analyze");
    Some(tools::run(analyze.args(["security", "--offline=true", "--no-pager", THRESHOLD]).arg(&unit)))
}

#[test]
fn every_form_of_the_unit_is_confined() {
    let test = "every_form_of_the_unit_is_confined";
    if program("systemd-analyze").is_none() {
        return skip(test, "systemd-analyze is missing (Debian package systemd); tests/setup installs it");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let forms = [json!({ "sipedge_in_image": true }), json!({ "sipedge_in_image": false })];
    for form in forms {
        for name in [PROXY, "sipedge-doors.service"] {
            let Some(rated) = rate(folder.path(), name, &form, |unit| unit) else {
                return skip(test, "ansible is not installed: run tests/setup");
            };
            let verdict = rated.said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
            eprintln!("{name} {form}: {verdict}");
            assert!(rated.succeeded && !verdict.is_empty(), "{name} {form}: {}", rated.said);
        }
    }
    // The same without its sandbox: what is rated is the unit.
    let bare = |unit: String| {
        unit.lines()
            .filter(|line| !line.starts_with("Protect") && !line.starts_with("SystemCall"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let rated = rate(folder.path(), PROXY, &json!({ "sipedge_in_image": true }), bare).expect("as above");
    assert!(!rated.succeeded, "{}", rated.said);
}
