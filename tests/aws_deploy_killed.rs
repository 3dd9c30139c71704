//! A deploy to AWS that is killed in any step is continued by the next one, and ends in what an undisturbed one ends in.

#![cfg(feature = "aws")]

#[path = "support/cloud.rs"]
mod cloud;

use cloud::Cloud;
use serde_json::{Value, json};

const STEPS: [&str; 10] =
    ["plan", "artefacts", "image", "init", "terraform-plan", "secrets", "apply", "ready", "verified-call", "hand-off"];

/// What stands, without ids and addresses, which AWS gives anew.
fn standing(cloud: &Cloud) -> Value {
    let count = |service: &str, operation: &str, list: &str| {
        let found = cloud.moto.ask(service, operation, json!({}));
        found[list].as_array().map(Vec::len).unwrap_or_default()
    };
    let status = cloud.status("single-ec2");
    json!({
        "version": status["group"]["version"],
        "instances": status["group"]["instances"].as_array().map(Vec::len),
        "groups": count("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups"),
        "addresses": count("ec2", "describe_addresses", "Addresses"),
        "templates": count("ec2", "describe_launch_templates", "LaunchTemplates"),
        "vpcs": count("ec2", "describe_vpcs", "Vpcs"),
        "parameters": count("ssm", "describe_parameters", "Parameters"),
        "alarms": count("cloudwatch", "describe_alarms", "MetricAlarms"),
    })
}

#[test]
fn killed_in_any_step_and_run_again() {
    let Some(cloud) = Cloud::start("killed_in_any_step_and_run_again") else { return };
    cloud.deploy("single-ec2");
    let undisturbed = standing(&cloud);
    cloud.run(&["destroy", "single-ec2", "--target", "aws", "--yes"]).expect(0);
    for step in STEPS {
        let mut deploy = cloud.start_command(&["deploy", "single-ec2", "--yes", "--no-verify", "--json"]);
        // In the middle of the resources, where that is.
        match step {
            "apply" => deploy
                .wait_for("a resource that is made", |line| line["event"] == "resource" && line["phase"] == "done"),
            _ => deploy.wait_for(step, |line| line["event"] == "step-started" && line["step"] == step),
        }
        deploy.kill();
        let ran = cloud.deploy("single-ec2");
        assert!(ran.notes().iter().any(|note| note.contains("was cut off in step")), "{step}: {:?}", ran.notes());
        assert_eq!(standing(&cloud), undisturbed, "after {step}");
        cloud.run(&["destroy", "single-ec2", "--target", "aws", "--yes"]).expect(0);
        cloud.project.assert_no_trace();
    }
}
