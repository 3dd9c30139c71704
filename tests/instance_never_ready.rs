//! An instance that never gets ready: deploy ends with its log, says what stands, and the next deploy replaces it.

#[path = "support/project.rs"]
mod support;

use std::fs;
use std::path::PathBuf;

use support::{Project, Ran, run, sipedge};

/// A program in the appliance's place, which does `instead` until the file `repaired` is in the project's folder.
fn broken_proxy(project: &Project, instead: &str) -> PathBuf {
    let proxy = sipedge().with_file_name("sipedge-proxy");
    let repaired = project.folder().join("repaired");
    let start = format!("[ -e '{}' ] && exec '{}' \"$@\"", repaired.display(), proxy.display());
    project.script("broken-proxy", &format!("{start}\n{instead}"))
}

fn deploy(project: &Project, instead: &str, json: bool) -> Ran {
    let mut command = project.command(&["deploy", "single-ec2", "--target", "lab"]);
    command.args(json.then_some("--json")).env("SIPEDGE_PROXY", broken_proxy(project, instead));
    run(command)
}

fn repaired(project: &Project) -> Ran {
    fs::write(project.folder().join("repaired"), "").expect("write");
    let ran = project.deploy("single-ec2");
    project.run(&["verify", "call"]).expect(0);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
    ran
}

#[test]
fn it_ends_at_once() {
    let Some(project) = Project::with_lab("it_ends_at_once") else { return };
    let instead = "echo 'the token keys are missing' >&2; exit 3";
    let text = deploy(&project, instead, false).expect(5).stderr;
    for part in
        ["step ready failed", "i-1", "the token keys are missing", "stands:", "missing:", "next:", "sipedge destroy"]
    {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let again = deploy(&project, instead, true).expect(5);
    assert!(
        again.notes().iter().any(|note| note.contains("i-1 has ended by itself: it is replaced")),
        "{:?}",
        again.notes()
    );
    let error = again.json_error();
    assert_eq!(error["step"], "ready");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("the token keys are missing")), "{error}");
    repaired(&project);
}

#[test]
fn a_call_placed_while_nobody_was_there_does_not_spoil_the_next() {
    let Some(project) = Project::with_lab("a_call_placed_while_nobody_was_there") else { return };
    deploy(&project, "exit 3", false).expect(5);
    project.run(&["verify", "call"]).expect(6);
    repaired(&project);
}

#[test]
fn it_runs_and_does_not_answer() {
    let Some(project) = Project::with_lab("it_runs_and_does_not_answer") else { return };
    let text = deploy(&project, "echo 'waiting for nothing' >&2; exec sleep 600", false).expect(5).stderr;
    for part in ["step ready failed", "waiting for nothing", "runs, but is not healthy"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let notes = repaired(&project).notes();
    assert!(notes.iter().any(|note| note.contains("never got ready: it is replaced")), "{notes:?}");
}
