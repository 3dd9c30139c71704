//! An appliance that is not there: deploy says so before it builds anything, and goes on once it is there.

#[path = "support/project.rs"]
mod support;

use std::fs;
use std::path::Path;

use support::{Project, Ran, run, sipedge};

fn deploy_with(project: &Project, proxy: &Path) -> Ran {
    let mut command = project.command(&["deploy", "load-balanced", "--target", "lab", "--json"]);
    command.env("SIPEDGE_PROXY", proxy);
    run(command)
}

#[test]
fn what_cannot_be_run_is_named_and_nothing_runs() {
    let Some(project) = Project::with_lab("what_cannot_be_run_is_named") else { return };
    let no_program = project.folder().join("no-program");
    fs::write(&no_program, "").expect("write");
    for proxy in [Path::new("/nowhere/sipedge-proxy"), project.folder(), &no_program] {
        let error = deploy_with(&project, proxy).expect(4).json_error();
        assert_eq!((&error["kind"], &error["step"]), (&"target-not-available".into(), &"infrastructure".into()));
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(&*proxy.to_string_lossy()), "it names {}: {message}", proxy.display());
        assert!(message.contains("cargo build --release"), "it says what to do: {message}");
        project.run(&["status"]).expect(7);
        project.run(&["verify", "call"]).expect(7);
    }
    // The cause is gone: the same command goes on, and uses the appliance that is there now.
    project.deploy("load-balanced");
    project.run(&["verify", "call"]).expect(0);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn destroy_after_a_deploy_without_an_appliance() {
    let Some(project) = Project::with_lab("destroy_after_a_deploy_without_an_appliance") else { return };
    deploy_with(&project, Path::new("/nowhere/sipedge-proxy")).expect(4);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn it_goes_away_while_the_lab_runs() {
    let Some(project) = Project::with_lab("it_goes_away_while_the_lab_runs") else { return };
    let own = project.folder().join("own-proxy");
    fs::copy(sipedge().with_file_name("sipedge-proxy"), &own).expect("copy");
    deploy_with(&project, &own).expect(0);
    let before = project.instances("load-balanced");
    fs::remove_file(&own).expect("remove");
    let ran = project.run(&["lab", "add"]).expect(5);
    assert!(ran.stderr.contains("own-proxy"), "{}", ran.stderr);
    assert_eq!(project.instances("load-balanced"), before, "those that run go on, and no half instance is left");
    project.run(&["verify", "call"]).expect(0);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}
