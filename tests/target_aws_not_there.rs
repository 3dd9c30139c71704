//! AWS is the target when none is said; it is not there yet, and the answer names the lab.

#[path = "support/project.rs"]
mod support;

use support::Project;

#[test]
fn deploy_without_a_target_names_the_lab() {
    let project = Project::new();
    for topology in ["single-ec2", "load-balanced"] {
        let ran = project.run(&["deploy", topology]).expect(4);
        assert!(ran.stderr.contains(&format!("sipedge deploy {topology} --target lab")), "{}", ran.stderr);
        let error = project.run(&["deploy", topology, "--yes", "--json"]).expect(4).json_error();
        assert_eq!(error["kind"], "target-not-available");
        assert_eq!(error["next"][0]["command"], format!("sipedge deploy {topology} --target lab"));
    }
    project.assert_no_trace();
}

#[test]
fn every_command_on_what_is_deployed_refuses_aws() {
    let project = Project::new();
    let commands: [&[&str]; 5] = [
        &["status"],
        &["verify", "call"],
        &["destroy"],
        &["lab", "instances"],
        &["lab", "exec", "twilio", "--", "true"],
    ];
    for arguments in commands {
        let with_target: Vec<&str> = ["--target", "aws"].into_iter().chain(arguments.iter().copied()).collect();
        let ran = project.run(&with_target).expect(4);
        assert!(ran.stderr.contains("--target lab"), "{}: {}", ran.command, ran.stderr);
    }
}

#[test]
fn plan_for_aws_is_there() {
    let project = Project::new();
    let default = project.run(&["plan", "load-balanced", "--json"]).expect(0).json();
    let named = project.run(&["plan", "load-balanced", "--json", "--target", "aws"]).expect(0).json();
    assert_eq!(default, named);
    assert_eq!(default["plans"][0]["plan"]["target"], "aws");
}
