//! A build without AWS support says so, names the feature and the lab, and still plans for AWS.

#![cfg(not(feature = "aws"))]

#[path = "support/project.rs"]
mod support;

use support::Project;

#[test]
fn deploy_without_a_target_names_the_feature_and_the_lab() {
    let project = Project::new();
    for topology in ["single-ec2", "load-balanced"] {
        let ran = project.run(&["deploy", topology]).expect(4);
        assert!(ran.stderr.contains("--features aws"), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("sipedge deploy {topology} --target lab")), "{}", ran.stderr);
        let error = project.run(&["deploy", topology, "--yes", "--json"]).expect(4).json_error();
        assert_eq!(error["kind"], "target-not-available");
    }
    project.assert_no_trace();
}

#[test]
fn what_changes_the_account_is_refused() {
    let project = Project::new();
    let commands: [&[&str]; 6] = [
        &["destroy"],
        &["refresh"],
        &["rollback"],
        &["verify", "call"],
        &["lab", "instances"],
        &["lab", "exec", "twilio", "--", "true"],
    ];
    for arguments in commands {
        let with_target: Vec<&str> = ["--target", "aws"].into_iter().chain(arguments.iter().copied()).collect();
        project.run(&with_target).expect(4);
    }
}

#[test]
fn plan_for_aws_is_there() {
    let project = Project::new();
    let default = project.run(&["plan", "load-balanced", "--json"]).expect(0).json();
    let named = project.run(&["plan", "load-balanced", "--json", "--target", "aws"]).expect(0).json();
    assert_eq!(default, named);
    assert_eq!(default["plans"][0]["plan"]["target"], "aws");
    let text = project.run(&["plan", "load-balanced"]).expect(0).stdout;
    assert!(text.contains("Account\n  not asked: this build has no AWS support"), "{text}");
}

#[test]
fn doctor_says_what_is_missing() {
    let project = Project::new();
    let ran = project.run(&["doctor", "--target", "aws"]).expect(4);
    assert!(ran.stdout.contains("problem  account"), "{}", ran.stdout);
    let report = project.run(&["doctor", "--target", "lab", "--json"]).json();
    let topics: Vec<&str> =
        report["checks"].as_array().expect("checks").iter().filter_map(|check| check["topic"].as_str()).collect();
    assert!(topics.contains(&"lab") && topics.contains(&"sipedge-proxy"), "{report}");
    project.write_spec("version: 1\n");
    let ran = project.run(&["doctor"]).expect(4);
    assert!(ran.stdout.contains("problem  spec"), "{}", ran.stdout);
    project.assert_no_trace();
}
