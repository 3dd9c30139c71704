//! A deploy that is killed in any step is continued by the next one, and can be destroyed as it is.

#[path = "support/project.rs"]
mod support;

use std::time::Duration;

use support::Project;

const STEPS: [&str; 7] = ["plan", "artefacts", "secrets", "infrastructure", "instances", "ready", "verified-call"];

/// Starts a deploy and kills it `later` after it says that it is in `step`.
fn deploy_killed_in(project: &Project, topology: &str, step: &str, later: Duration) {
    let mut deploy = project.start(&["deploy", topology, "--target", "lab", "--json"]);
    deploy.wait_for(step, |line| line["event"] == "step-started" && line["step"] == step);
    // The moment of the cut, not a wait for something: any moment has to do.
    std::thread::sleep(later);
    deploy.kill();
}

fn continues(project: &Project, topology: &str, step: &str) {
    let ran = project.deploy(topology);
    let notes = ran.notes();
    assert!(notes.iter().any(|note| note.contains("was cut off in step")), "{step}: {notes:?}");
    let lines = ran.json_lines();
    let done: Vec<&str> =
        lines.iter().filter(|line| line["event"] == "step-done").filter_map(|line| line["step"].as_str()).collect();
    assert_eq!(done, STEPS, "{step}");
    let status = project.status(topology);
    assert_eq!(status["damages"], serde_json::json!([]), "{step}");
    assert_eq!(status["last_run"]["outcome"], "done", "{step}");
}

#[test]
fn killed_in_any_step_and_run_again() {
    let Some(project) = Project::with_lab("killed_in_any_step_and_run_again") else { return };
    for step in STEPS {
        deploy_killed_in(&project, "load-balanced", step, Duration::ZERO);
        continues(&project, "load-balanced", step);
        project.run(&["destroy", "load-balanced"]).expect(0);
        project.assert_no_trace();
    }
}

#[test]
fn killed_at_moments_while_the_lab_is_built() {
    let Some(project) = Project::with_lab("killed_at_moments_while_the_lab_is_built") else { return };
    for moment in [5, 20, 40, 80, 160] {
        deploy_killed_in(&project, "single-ec2", "infrastructure", Duration::from_millis(moment));
        continues(&project, "single-ec2", &format!("infrastructure after {moment} ms"));
        project.run(&["destroy", "single-ec2"]).expect(0);
        project.assert_no_trace();
    }
}

#[test]
fn killed_in_any_step_and_destroyed() {
    let Some(project) = Project::with_lab("killed_in_any_step_and_destroyed") else { return };
    for step in STEPS {
        for moment in [0, 30] {
            deploy_killed_in(&project, "load-balanced", step, Duration::from_millis(moment));
            project.run(&["destroy"]).expect(0);
            project.assert_no_trace();
        }
    }
}

#[test]
fn status_tells_where_a_deploy_was_cut_off() {
    let Some(project) = Project::with_lab("status_tells_where_a_deploy_was_cut_off") else { return };
    deploy_killed_in(&project, "load-balanced", "ready", Duration::ZERO);
    let ran = project.run(&["status"]);
    assert!(ran.stdout.contains("cut off in step"), "{}", ran.stdout);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}
