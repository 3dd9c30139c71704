//! `sipedge rollback`: back to the version that was live before, and no further.

#[path = "support/project.rs"]
mod support;

use std::fs;

use support::Project;

fn version(project: &Project, topology: &str) -> u64 {
    let status = project.status(topology);
    let version = status["group"]["version"].as_u64().unwrap_or_else(|| panic!("no version: {status}"));
    let instances = status["group"]["instances"].as_array().cloned().unwrap_or_default();
    let all = instances.iter().all(|instance| instance["version"] == version);
    assert!(all && !instances.is_empty(), "all instances are of version {version}: {status}");
    version
}

#[test]
fn to_the_version_before_and_no_further() {
    let Some(project) = Project::with_lab("to_the_version_before_and_no_further") else { return };
    for topology in ["single-ec2", "load-balanced"] {
        let spec = project.spec();
        project.deploy(topology);
        let refused = project.run(&["rollback", "--json"]).expect(2).json_error();
        let message = refused["message"].as_str().unwrap_or_default();
        assert!(message.contains("nothing to go back to"), "{message}");
        let plan = fs::read_to_string(project.state(topology).join("plan.json")).expect("plan");

        project.write_spec(&format!("{spec}\ntimers: {{ invite: 90s }}\n"));
        let ran = project.deploy(topology);
        assert!(ran.stdout.contains(r#""step":"smoke-call""#), "{}", ran.stdout);
        assert_eq!(version(&project, topology), 2);
        assert_ne!(fs::read_to_string(project.state(topology).join("plan.json")).expect("plan"), plan);
        let instances = project.instances(topology);

        project.run(&["rollback"]).expect(0);
        assert_eq!(version(&project, topology), 1);
        assert_eq!(fs::read_to_string(project.state(topology).join("plan.json")).expect("plan"), plan);
        let after = project.instances(topology);
        assert!(after.len() == instances.len() && after.iter().all(|it| !instances.contains(it)), "{after:?}");
        project.run(&["verify", "call"]).expect(0);
        project.run(&["rollback"]).expect(2);

        // The spec still says what version 2 was: the next deploy brings it again.
        project.deploy(topology);
        assert_eq!(version(&project, topology), 2);
        project.write_spec(&spec);
        project.run(&["destroy"]).expect(0);
    }
    project.assert_no_trace();
}

#[test]
fn a_refresh_in_progress_is_turned_back() {
    let Some(project) = Project::with_lab("a_refresh_in_progress_is_turned_back") else { return };
    project.deploy("load-balanced");
    project.write_spec(&format!("{}\ntimers: {{ invite: 90s }}\n", project.spec()));
    let mut deploy = project.start(&["deploy", "load-balanced", "--target", "lab", "--json"]);
    deploy.wait_for("the smoke call", |line| line["event"] == "step-started" && line["step"] == "smoke-call");
    deploy.kill();
    let ran = project.run(&["rollback", "--json"]).expect(0);
    assert!(ran.stdout.contains("version 1 is live again"), "{}", ran.stdout);
    assert_eq!(version(&project, "load-balanced"), 1);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn one_that_is_killed_is_gone_on_with_and_goes_no_further() {
    let Some(project) = Project::with_lab("one_that_is_killed_is_gone_on_with_and_goes_no_further") else { return };
    let topology = "single-ec2";
    let spec = project.spec();
    for seconds in [60, 90, 120] {
        project.write_spec(&format!("{spec}\ntimers: {{ invite: {seconds}s }}\n"));
        project.deploy(topology);
    }
    assert_eq!(version(&project, topology), 3);
    // Before the way back has begun, on it, and when it is done.
    for (event, step) in [("step-started", "rollback"), ("refresh", ""), ("step-started", "verified-call")] {
        let mut rollback = project.start(&["rollback", "--json"]);
        rollback.wait_for(event, |line| line["event"] == event && (step.is_empty() || line["step"] == step));
        rollback.kill();
        let ran = project.run(&["rollback", "--json"]).expect(0);
        assert!(ran.notes().iter().any(|note| note.contains("last rollback was cut off")), "{}", ran.stdout);
        assert_eq!(version(&project, topology), 2, "killed at {event} {step}");
        project.deploy(topology);
        assert_eq!(version(&project, topology), 3);
    }
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn without_anything_deployed() {
    let project = Project::new();
    for command in ["refresh", "rollback"] {
        let ran = project.run(&[command]).expect(7);
        assert!(ran.stderr.contains("not deployed"), "{}", ran.stderr);
        let (code, kind) = if cfg!(feature = "aws") { (7, "nothing-deployed") } else { (4, "target-not-available") };
        let ran = project.run(&[command, "--target", "aws", "--json"]).expect(code);
        assert_eq!(ran.json_error()["kind"], kind);
    }
}
