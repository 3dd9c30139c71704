//! Destroy removes one topology or all, twice is fine, and nothing is left.

#[path = "support/project.rs"]
mod support;

use std::fs;

use support::{Project, processes_of};

#[test]
fn nothing_deployed_is_nothing_to_destroy() {
    let project = Project::new();
    for arguments in [&["destroy"][..], &["destroy", "single-ec2"], &["destroy", "load-balanced"]] {
        let ran = project.run(arguments).expect(0);
        assert!(ran.stdout.contains("nothing to destroy"), "{}", ran.stdout);
    }
    assert_eq!(project.run(&["destroy", "--json"]).expect(0).json()["topologies"], serde_json::json!([]));
    project.assert_no_trace();
}

#[test]
fn one_goes_and_the_other_stays() {
    let Some(project) = Project::with_lab("one_goes_and_the_other_stays") else { return };
    project.deploy("single-ec2");
    project.deploy("load-balanced");
    let kept = project.instances("load-balanced");
    project.run(&["destroy", "single-ec2"]).expect(0);
    assert!(!project.state("single-ec2").exists());
    assert_eq!(project.instances("load-balanced"), kept);
    project.run(&["verify", "call"]).expect(0);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn twice_is_fine_and_verify_then_says_that_nothing_is_there() {
    let Some(project) = Project::with_lab("twice_is_fine") else { return };
    project.deploy("load-balanced");
    let first = project.run(&["destroy", "load-balanced"]).expect(0);
    assert_eq!(processes_of(project.folder()), [], "destroy waits until its processes are gone");
    assert!(first.stdout.contains("load-balanced destroyed"), "{}", first.stdout);
    let second = project.run(&["destroy", "load-balanced"]).expect(0);
    assert!(second.stdout.contains("nothing to destroy"), "{}", second.stdout);
    project.run(&["verify", "call"]).expect(7);
    project.run(&["status"]).expect(7);
    project.assert_no_trace();
}

#[test]
fn works_while_the_rest_of_the_spec_has_mistakes() {
    let Some(project) = Project::with_lab("works_while_the_rest_of_the_spec_has_mistakes") else { return };
    project.deploy("single-ec2");
    project.write_spec(&project.spec().replace("routes:", "rutes:"));
    project.run(&["status"]).expect(0);
    project.run(&["verify", "call"]).expect(0);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn files_of_others_in_the_state_folder_stay() {
    let Some(project) = Project::with_lab("files_of_others_in_the_state_folder_stay") else { return };
    project.deploy("single-ec2");
    let other = project.folder().join(".sipedge/notes.txt");
    fs::write(&other, "mine").expect("write");
    project.run(&["destroy"]).expect(0);
    assert_eq!(fs::read_to_string(&other).expect("it is still there"), "mine");
    fs::remove_dir_all(project.folder().join(".sipedge")).expect("remove");
    project.assert_no_trace();
}
