//! `sipedge doctor --target aws`: an account in which a deploy will go through, and what each lack of it reads like.

#![cfg(feature = "aws")]

#[path = "support/cloud.rs"]
mod cloud;

use std::fs;
use std::process::Command;

use cloud::Cloud;
use cloud::project::{Ran, run};
use serde_json::{Value, json};

const DOCTOR: [&str; 3] = ["doctor", "--target", "aws"];

/// What the report says of one topic: how it is, and the words.
#[track_caller]
fn check(cloud: &Cloud, topic: &str, code: i32) -> (String, String) {
    let report = cloud.run(&["doctor", "--target", "aws", "--json"]).expect(code).json();
    let checks = report["checks"].as_array().cloned().unwrap_or_default();
    let found: Vec<&Value> = checks.iter().filter(|check| check["topic"] == topic).collect();
    assert_eq!(found.len(), 1, "one check of {topic}: {report:#}");
    assert!(found[0]["confirm"].is_string(), "a command confirms it: {}", found[0]);
    let text = |key: &str| found[0][key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("says"))
}

/// Whether a line of the report for people is about a topic, which comes after how it is.
fn is_about(line: &str, topic: &str) -> bool {
    line.get(9..).is_some_and(|rest| rest.starts_with(&format!("{topic} ")))
}

/// The line about a topic in the report for people.
#[track_caller]
fn line(ran: &Ran, topic: &str) -> String {
    let found = ran.stdout.lines().find(|line| is_about(line, topic));
    found.unwrap_or_else(|| panic!("nothing is said of {topic}:\n{}", ran.stdout)).to_owned()
}

#[test]
fn an_account_with_room_is_well() {
    let Some(cloud) = Cloud::start("an_account_with_room_is_well") else { return };
    let report = cloud.run(&["doctor", "--target", "aws", "--json"]).expect(0).json();
    assert_ne!(report["state"], "problem", "{report:#}");
    let topics: Vec<&str> =
        report["checks"].as_array().expect("checks").iter().filter_map(|check| check["topic"].as_str()).collect();
    for topic in ["spec", "operators", "terraform", "providers", "credentials", "image", "Elastic IPs", "VPCs"] {
        assert!(topics.contains(&topic), "{topic} is not looked at: {topics:?}");
    }
    assert!(!topics.contains(&"lab"), "the lab is not asked for: {topics:?}");

    let ran = cloud.run(&DOCTOR).expect(0);
    assert!(!ran.stdout.lines().any(|line| line.starts_with("problem")), "{}", ran.stdout);
    for (topic, words) in [
        ("spec", "edge twilio-bridge"),
        ("terraform", "Terraform 1."),
        ("credentials", "of account 123456789012"),
        ("image", "instances start from ami-"),
        ("Elastic IPs", "0 of 5 are used; single-ec2 needs 1 more; load-balanced needs 4 more"),
        // Every account has a VPC to begin with.
        ("VPCs", "1 of 5 are used; single-ec2 needs 1 more; load-balanced needs 1 more"),
    ] {
        let line = line(&ran, topic);
        assert!(line.starts_with("ok ") && line.contains(words), "{line}");
    }
    let operators = line(&ran, "operators");
    assert!(operators.starts_with("warning ") && operators.contains("deploy with --no-verify"), "{operators}");
    assert!(
        ran.stdout.contains("$ aws sts get-caller-identity --region us-east-1 --profile default"),
        "{}",
        ran.stdout
    );
    // It has looked, and nothing else.
    assert_eq!(cloud.moto.calls("ec2:AllocateAddress") + cloud.moto.calls("ssm:PutParameter"), 0);
    cloud.project.assert_no_trace();
}

#[test]
fn quotas_without_room_are_named() {
    let Some(cloud) = Cloud::start("quotas_without_room_are_named") else { return };
    let quota = |service: &str, code: &str, value: u32| {
        cloud.moto.wish("quota", &json!({ "service": service, "code": code, "value": value }));
    };
    // For each alone, and not for both.
    quota("ec2", "L-0263D0A3", 4);
    let (state, says) = check(&cloud, "Elastic IPs", 0);
    assert_eq!(state, "warning", "{says}");
    assert!(says.ends_with("load-balanced needs 4 more, and there is no room for both at once"), "{says}");
    quota("ec2", "L-0263D0A3", 1);
    let (state, says) = check(&cloud, "Elastic IPs", 4);
    let expected =
        "0 of 1 are used; single-ec2 needs 1 more; load-balanced needs 4 more: ask for a higher quota, or release some";
    assert_eq!((state.as_str(), says.as_str()), ("problem", expected));
    let ran = cloud.run(&DOCTOR).expect(4);
    let told = line(&ran, "Elastic IPs");
    assert!(told.starts_with("problem ") && told.ends_with(expected), "{told}");
    let command =
        "$ aws service-quotas get-service-quota --service-code ec2 --quota-code L-0263D0A3 --region us-east-1";
    assert!(ran.stdout.contains(command), "{}", ran.stdout);
    // What the account has counts, whoever made it.
    quota("ec2", "L-0263D0A3", 4);
    cloud.moto.ask("ec2", "allocate_address", json!({ "Domain": "vpc" }));
    let (state, says) = check(&cloud, "Elastic IPs", 4);
    assert!(state == "problem" && says.starts_with("1 of 4 are used"), "{says}");

    quota("ec2", "L-0263D0A3", 20);
    quota("vpc", "L-F678F1CE", 1);
    let (state, says) = check(&cloud, "VPCs", 4);
    assert!(state == "problem" && says.starts_with("1 of 1 are used; single-ec2 needs 1 more: ask for"), "{says}");
    quota("vpc", "L-F678F1CE", 5);
    cloud.run(&DOCTOR).expect(0);
}

#[test]
fn credentials_that_cannot_ask_are_a_problem() {
    let Some(cloud) = Cloud::start("credentials_that_cannot_ask_are_a_problem") else { return };
    let home = cloud.moto.home().to_owned();
    fs::write(home.join("config"), "").expect("written");
    let ran = with(&cloud, |command| {
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("AWS_CONFIG_FILE", home.join("config")).env("AWS_SHARED_CREDENTIALS_FILE", home.join("none"));
    })
    .expect(4);
    let told = line(&ran, "credentials");
    assert!(told.starts_with("problem ") && told.contains("no AWS credentials"), "{told}");
    assert!(ran.stdout.contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{}", ran.stdout);
    assert!(ran.stdout.contains("$ aws sts get-caller-identity"), "{}", ran.stdout);
    // Without them nothing is known of the account.
    for topic in ["image", "Elastic IPs", "VPCs"] {
        assert!(!ran.stdout.lines().any(|line| is_about(line, topic)), "{}", ran.stdout);
    }

    let fault =
        json!({ "action": "sts:GetCallerIdentity", "code": "ExpiredToken", "message": "expired", "status": 403 });
    cloud.moto.wish("fault", &fault);
    let (state, says) = check(&cloud, "credentials", 4);
    assert!(state == "problem" && says.contains("the credentials have expired (ExpiredToken)"), "{says}");
    cloud.moto.wish("fault", &json!({ "action": "sts:GetCallerIdentity", "times": 0 }));
    cloud.run(&DOCTOR).expect(0);
}

#[test]
fn a_missing_image_or_terraform_is_a_problem_and_a_quota_that_may_not_be_read_is_none() {
    let test = "a_missing_image_or_terraform_is_a_problem_and_a_quota_that_may_not_be_read_is_none";
    let Some(cloud) = Cloud::start(test) else { return };
    let fault = json!({ "action": "servicequotas:GetServiceQuota", "code": "AccessDeniedException", "message": "no" });
    cloud.moto.wish("fault", &fault);
    let (state, says) = check(&cloud, "VPCs", 0);
    assert!(state == "warning" && says.starts_with("cannot be asked: "), "{says}");
    cloud.moto.wish("fault", &json!({ "action": "servicequotas:GetServiceQuota", "times": 0 }));

    let empty = cloud.moto.home().join("empty");
    fs::create_dir(&empty).expect("a folder");
    let ran = with(&cloud, |command| {
        command.env("PATH", &empty).env_remove("SIPEDGE_TERRAFORM").env("SIPEDGE_TERRAFORM_PLUGIN_DIR", &empty);
    })
    .expect(4);
    let told = line(&ran, "terraform");
    assert!(told.starts_with("problem "), "{told}");
    let told = line(&ran, "providers");
    assert!(told.starts_with("problem ") && told.contains("has no provider hashicorp/aws"), "{told}");

    let spec = cloud.project.spec();
    let image = spec.split("image: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("the spec names an image");
    cloud.change_spec(image, "ami-0123456789abcdef0");
    let (state, says) = check(&cloud, "image", 4);
    assert!(state == "problem" && says.contains("ami-0123456789abcdef0"), "{says}");
}

/// The report, in an environment that is changed.
fn with(cloud: &Cloud, change: impl FnOnce(&mut Command)) -> Ran {
    let mut command = cloud.command(&DOCTOR);
    change(&mut command);
    run(command)
}
