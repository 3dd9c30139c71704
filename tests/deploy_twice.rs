//! A second deploy keeps what is as planned, changes what is not, and never runs beside another of the same topology.

#[path = "support/project.rs"]
mod support;

use std::fs;

use serde_json::Value;
use support::Project;

#[test]
fn nothing_changed_keeps_every_process_and_places_the_call_again() {
    let Some(project) = Project::with_lab("nothing_changed_keeps_every_process") else { return };
    for topology in ["single-ec2", "load-balanced"] {
        project.deploy(topology);
        let (supervisor, instances) = (project.supervisor(topology), project.instances(topology));
        let keys = fs::read(project.state(topology).join("secrets/token-keys.json")).expect("token keys");
        let second = project.deploy(topology);
        assert_eq!(project.supervisor(topology), supervisor);
        assert_eq!(project.instances(topology), instances);
        assert_eq!(fs::read(project.state(topology).join("secrets/token-keys.json")).expect("token keys"), keys);
        let lines = second.json_lines();
        let report = lines.last().expect("a last line");
        assert_eq!(report["event"], "report");
        assert_eq!(report["report"]["passed"], true, "{report}");
    }
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn a_changed_configuration_replaces_the_instances_and_keeps_the_lab() {
    let Some(project) = Project::with_lab("a_changed_configuration_replaces_the_instances") else { return };
    let spec = project.spec();
    for topology in ["single-ec2", "load-balanced"] {
        project.write_spec(&spec);
        project.deploy(topology);
        let (supervisor, instances) = (project.supervisor(topology), project.instances(topology));
        let keys = fs::read(project.state(topology).join("secrets/token-keys.json")).expect("token keys");
        project.write_spec(&format!("{}\nrefuse: silence\n", without(&spec, "refuse:")));
        let ran = project.deploy(topology);
        let lines = ran.json_lines();
        let done: Vec<&str> =
            lines.iter().filter(|line| line["event"] == "step-done").filter_map(|line| line["step"].as_str()).collect();
        let steps = ["plan", "artefacts", "secrets", "infrastructure", "refresh", "smoke-call", "bake", "instances"];
        assert_eq!(done, [&steps[..], &["ready", "verified-call"]].concat());
        let of = lines.iter().filter(|line| line["event"] == "step-started").filter_map(|line| line["of"].as_u64());
        assert_eq!(of.max(), Some(10), "{lines:?}");
        assert_eq!(project.supervisor(topology), supervisor);
        let after = project.instances(topology);
        let new = after.iter().all(|instance| !instances.contains(instance));
        assert!(after.len() == instances.len() && new, "{instances:?}, then {after:?}");
        let kept = fs::read(project.state(topology).join("secrets/token-keys.json")).expect("token keys");
        assert_eq!(kept, keys, "the token keys outlive the instances");
        let again = project.deploy(topology);
        let is_refresh = |line: &Value| line["step"] == "refresh";
        assert!(!again.json_lines().iter().any(is_refresh), "nothing has changed: {}", again.stdout);
        assert_eq!(project.instances(topology), after);
    }
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn more_instances_are_added_to_those_that_run() {
    let Some(project) = Project::with_lab("more_instances_are_added") else { return };
    project.deploy("load-balanced");
    let before = project.instances("load-balanced");
    project.run(&["deploy", "load-balanced", "--target", "lab", "--instances", "3"]).expect(0);
    let after = project.instances("load-balanced");
    assert_eq!(after.len(), 3, "{after:?}");
    assert!(before.iter().all(|instance| after.contains(instance)), "{before:?} are kept in {after:?}");
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn a_killed_instance_is_replaced() {
    let Some(project) = Project::with_lab("a_killed_instance_is_replaced") else { return };
    project.deploy("load-balanced");
    let before = project.instances("load-balanced");
    project.run(&["lab", "kill", "i-1"]).expect(0);
    project.deploy("load-balanced");
    assert_eq!(project.instances("load-balanced").len(), before.len());
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn a_deploy_at_the_same_time_is_refused_with_the_holders_process() {
    let Some(project) = Project::with_lab("a_deploy_at_the_same_time_is_refused") else { return };
    let mut first = project.start(&["deploy", "load-balanced", "--target", "lab", "--json"]);
    let holder = first.pid();
    first.wait_for("infrastructure", |line| line["event"] == "step-started" && line["step"] == "infrastructure");
    let second = project.run(&["deploy", "load-balanced", "--target", "lab", "--json"]).expect(8);
    let message = second.json_error()["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains(&format!("process {holder}")), "{message}");
    project.run(&["destroy", "load-balanced"]).expect(8);
    first.finish().expect(0);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn both_topologies_are_live_at_once() {
    let Some(project) = Project::with_lab("both_topologies_are_live_at_once") else { return };
    project.deploy("single-ec2");
    project.deploy("load-balanced");
    for topology in ["single-ec2", "load-balanced"] {
        let report = project.run(&["verify", "call", "--topology", topology, "--json"]).expect(0).json();
        assert_eq!(report["passed"], true, "{report}");
    }
    let ran = project.run(&["verify", "call"]).expect(2);
    assert!(ran.stderr.contains("--topology"), "{}", ran.stderr);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn reports_are_written_where_they_are_asked_for() {
    let Some(project) = Project::with_lab("reports_are_written") else { return };
    let deploy = ["deploy", "single-ec2", "--target", "lab", "--junit", "deploy.xml", "--html", "deploy.html"];
    project.run(&deploy).expect(0);
    project.run(&["verify", "call", "--junit", "verify.xml", "--html", "verify.html"]).expect(0);
    for (name, part) in
        [("deploy.xml", "<testsuite"), ("deploy.html", "<svg"), ("verify.xml", "<testsuite"), ("verify.html", "<svg")]
    {
        let text = fs::read_to_string(project.folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(text.contains(part), "{name} has no {part}");
    }
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

fn without(spec: &str, key: &str) -> String {
    spec.lines().filter(|line| !line.starts_with(key)).collect::<Vec<_>>().join("\n")
}
