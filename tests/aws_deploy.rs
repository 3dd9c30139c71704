//! Deploy, changed spec, deploy again, refresh, rollback and destroy of both topologies at once, with the real Terraform and AWS provider
//! against a stand-in for AWS; what stands there is looked at one by one (`support/account.rs`).

#![cfg(feature = "aws")]

#[path = "support/account.rs"]
mod account;
#[path = "support/cloud.rs"]
mod cloud;

use std::fs;

use account::{look_at_balanced, look_at_single, no_secret_is_anywhere, nothing_is_left};
use cloud::project::Ran;
use cloud::{Cloud, texts};
use serde_json::{Value, json};

fn deployed(ran: &Ran) -> Value {
    ran.json_lines().into_iter().find(|line| line["event"] == "deployed").unwrap_or_else(|| panic!("{}", ran.stdout))
}

fn done_steps(ran: &Ran) -> Vec<String> {
    let lines = ran.json_lines();
    let done = lines.iter().filter(|line| line["event"] == "step-done");
    done.filter_map(|line| line["step"].as_str().map(str::to_owned)).collect()
}

#[test]
fn both_topologies_live_and_go() {
    let Some(cloud) = Cloud::start("both_topologies_live_and_go") else { return };
    // Both at once: the provider waits a minute for the load balancer, and they have to get along in any case.
    let balanced = cloud.start_command(&["deploy", "load-balanced", "--yes", "--no-verify", "--json"]);
    let single = cloud.deploy("single-ec2");
    let steps = [
        "plan",
        "artefacts",
        "image",
        "init",
        "terraform-plan",
        "secrets",
        "apply",
        "ready",
        "verified-call",
        "hand-off",
    ];
    assert_eq!(done_steps(&single), steps);
    let single = deployed(&single);
    assert_eq!(single["verified"], false);
    look_at_single(&cloud, &single["outputs"]);
    let balanced = deployed(&cloud.heard(balanced.finish()).expect(0));
    look_at_balanced(&cloud, &balanced["outputs"]);
    assert_ne!(single["outputs"]["ingress_addresses"], balanced["outputs"]["ingress_addresses"]);
    hand_off_has_the_addresses(&balanced);
    let status = cloud.run(&["status"]).expect(0).stdout;
    assert!(status.contains("single-ec2 on AWS: up, not verified by a call"), "{status}");
    assert!(status.contains("load-balanced on AWS: up, not verified by a call"), "{status}");

    for topology in ["single-ec2", "load-balanced"] {
        a_plan_is_empty(&cloud, topology);
    }

    let again = cloud.deploy("single-ec2");
    assert_eq!(done_steps(&again), steps, "nothing is replaced");
    assert_eq!(deployed(&again)["outputs"], single["outputs"]);

    changed_spec_refresh_and_rollback(&cloud, "single-ec2");
    changed_spec_refresh_and_rollback(&cloud, "load-balanced");
    no_secret_is_anywhere(&cloud);

    cloud.run(&["destroy", "load-balanced", "--target", "aws", "--yes"]).expect(0);
    assert!(cloud.run(&["status"]).expect(0).stdout.contains("single-ec2 on AWS: up"), "the other one lives on");
    cloud.run(&["destroy", "--target", "aws", "--yes"]).expect(0);
    nothing_is_left(&cloud);
    cloud.project.assert_no_trace();
}

fn hand_off_has_the_addresses(deployed: &Value) {
    let sheet = fs::read_to_string(deployed["hand_off"].as_str().expect("a path")).expect("the sheet");
    for side in ["ingress_addresses", "egress_addresses"] {
        for address in deployed["outputs"][side].as_array().expect("addresses") {
            assert!(sheet.contains(address.as_str().expect("text")), "{address} is not in the sheet:\n{sheet}");
        }
    }
    assert!(!sheet.contains("${"), "a place is left open:\n{sheet}");
}

/// What stands in the account is what the spec says.
fn a_plan_is_empty(cloud: &Cloud, topology: &str) {
    let plan = cloud.run(&["plan", topology, "--json"]).expect(0).json();
    assert_eq!(plan["plans"].as_array().map(Vec::len), Some(1), "{plan}");
    let account = &plan["plans"][0]["account"];
    assert_eq!(account["resources"], json!([]), "a second plan of {topology} is empty: {account}");
}

/// A changed configuration replaces the instances and nothing else; a rollback brings the one of before back.
fn changed_spec_refresh_and_rollback(cloud: &Cloud, topology: &str) {
    let before = cloud.status(topology);
    let from = if cloud.project.spec().contains("invite: 25s") { "invite: 25s" } else { "routes:" };
    let to = if from == "routes:" { "timers: { invite: 25s }\nroutes:" } else { "invite: 26s" };
    cloud.change_spec(from, to);
    let planned = cloud.run(&["plan", topology]).expect(0).stdout;
    assert!(planned.contains("changed in place") && planned.contains("aws_launch_template"), "{planned}");
    let ran = cloud.deploy(topology);
    for step in ["refresh", "bake"] {
        assert!(done_steps(&ran).contains(&step.to_owned()), "{:?}", done_steps(&ran));
    }
    let after = cloud.status(topology);
    assert_eq!(after["group"]["version"], 2, "{after}");
    for instance in after["group"]["instances"].as_array().expect("instances") {
        assert_eq!((&instance["version"], &instance["healthy"]), (&json!(2), &json!(true)), "{after}");
        let ids = texts(&before["group"]["instances"], "id");
        assert!(!ids.contains(&instance["id"].as_str().unwrap_or_default().to_owned()), "all are new: {after}");
    }
    assert_eq!(before["ingress_addresses"], after["ingress_addresses"], "the addresses stay");

    let back = cloud.run(&["rollback", topology, "--target", "aws", "--no-verify", "--json"]).expect(0);
    assert!(done_steps(&back).contains(&"rollback".to_owned()), "{}", back.stdout);
    assert_eq!(cloud.status(topology)["group"]["version"], 1);
    let again = cloud.deploy(topology);
    assert!(done_steps(&again).contains(&"refresh".to_owned()), "the spec's version comes again: {}", again.stdout);
    let ids = texts(&cloud.status(topology)["group"]["instances"], "id");
    cloud.run(&["refresh", topology, "--target", "aws", "--no-verify", "--json"]).expect(0);
    let refreshed = cloud.status(topology);
    assert_eq!(refreshed["group"]["version"], 2);
    assert!(texts(&refreshed["group"]["instances"], "id").iter().all(|id| !ids.contains(id)), "{refreshed}");
    a_plan_is_empty(cloud, topology);
}
