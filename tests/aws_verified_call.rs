//! The verified call on AWS, the smoke call of a refresh, and the way back when that does not pass: by the real Terraform and provider
//! against moto, and by real calls to a `sipedge-proxy` that boots as the group's instance (`support/booted.rs`).
//!
//! What is not shown: that packets pass a security group or an Elastic IP. Neither is there.

#![cfg(feature = "aws")]

#[path = "support/booted.rs"]
mod booted;
#[path = "support/cloud.rs"]
mod cloud;

use std::collections::BTreeSet;

use booted::Booted;
use cloud::Cloud;
use serde_json::{Value, json};

const TOPOLOGY: &str = "single-ec2";
const DEPLOY: [&str; 4] = ["deploy", TOPOLOGY, "--yes", "--json"];
const VERIFY: [&str; 5] = ["verify", "call", "--target", "aws", "--json"];
const REFRESH: [&str; 7] = ["refresh", TOPOLOGY, "--target", "aws", "--version", "2", "--json"];

/// Where the answerer's password is.
const PASSWORD: &str = "/sipedge/twilio-bridge/single-ec2/answerer";

/// The bake, in AWS's seconds: a call that fails takes ten of ours at most, and has to find the refresh in progress.
const BAKE_S: u64 = 1_800;

/// None where there is no Terraform or no moto.
fn stage() -> Option<Cloud> {
    let cloud = Cloud::start("calls_prove_what_is_deployed_and_turn_back_what_is_not_good")?;
    // By address: an instance asks no name server, since the one of its VPC is not here.
    let by_hand = r#"{ from: [192.0.2.16/29], targets: ["sip:192.0.2.18:5062"] }"#;
    cloud.change_spec("{ carrier: twilio, domain: bridge.sip.twilio.com }", by_hand);
    // A security group would admit this address; nobody looks at the one from which the calls here come.
    cloud.change_spec("routes:", "verify: { operators: [192.0.2.7/32] }\nroutes:");
    cloud.change_spec("bake: 10s, warmup: 5s", "bake: 30m, warmup: 60s");
    // An instance gets ready by what its process does, and not by itself.
    cloud.moto.wish("appliances", &json!({ "ready_s": null }));
    Some(cloud)
}

#[test]
fn calls_prove_what_is_deployed_and_turn_back_what_is_not_good() {
    let Some(cloud) = stage() else { return };
    let mut known = BTreeSet::new();

    let deploying = cloud.start_command(&DEPLOY);
    let first = Booted::launched(&cloud, &mut known, None, &str::to_owned);
    let ran = deploying.finish();
    assert_eq!(ran.code, 0, "{}\n{}\nthe instance:\n{}", ran.stdout, ran.stderr, first.log());
    let deployed = ran.json_lines().into_iter().find(|line| line["event"] == "deployed");
    assert_eq!(deployed.map(|line| line["verified"].clone()), Some(json!(true)), "{}", ran.stdout);
    it_is_called(&cloud, &first);
    a_wrong_password_is_told(&cloud);
    it_is_called(&cloud, &first);

    // A deploy leads the refresh to the version that it brings; that version's instance dies before the smoke call.
    cloud.change_spec("routes:", "timers: { invite: 25s }\nroutes:");
    let back = turned_back(&cloud, &DEPLOY, &mut known, first);
    // So does a refresh to that version.
    let back = turned_back(&cloud, &REFRESH, &mut known, back);

    // This time it lives. Who leads the refresh is killed when the smoke call is next; who comes after it places the call.
    let mut killed = cloud.start_command(&REFRESH);
    let second = Booted::launched(&cloud, &mut known, Some(back), &str::to_owned);
    killed.wait_for("smoke-call", |line| line["event"] == "step-started" && line["step"] == "smoke-call");
    killed.kill();
    let mut refreshing = cloud.start_command(&REFRESH);
    let through = format!("passed through {}", second.id);
    refreshing.wait_for(&through, |line| {
        line["event"] == "step-done" && line["step"] == "smoke-call" && line["detail"] == through.as_str()
    });
    cloud.moto.advance(BAKE_S);
    refreshing.finish().expect(0);
    is_live(&cloud, 2, &second);

    drop(second);
    cloud.run(&["destroy", "--target", "aws", "--yes"]).expect(0);
    cloud.project.assert_no_trace();
}

/// The operator's call goes through that instance.
#[track_caller]
fn it_is_called(cloud: &Cloud, instance: &Booted) {
    let ran = cloud.run(&VERIFY);
    assert_eq!(ran.code, 0, "{}\n{}\nthe instance:\n{}", ran.stdout, ran.stderr, instance.log());
    let report = ran.json();
    assert_eq!((&report["passed"], report["calls"].as_array().map(Vec::len)), (&json!(true), Some(1)), "{report}");
    let call = &report["calls"][0];
    assert_eq!(call["instance"], instance.address.as_str(), "{call}");
    assert_eq!(call["edge"], format!("{}:5060", instance.address), "{call}");
}

/// One that is in Parameter Store, and that the instance has not read yet.
fn a_wrong_password_is_told(cloud: &Cloud) {
    let right = cloud.moto.ask("ssm", "get_parameter", json!({ "Name": PASSWORD, "WithDecryption": true }));
    put_password(cloud, &json!("this is another password"));
    let report = cloud.run(&VERIFY).expect(6).json();
    let check = |id: &str| -> Value {
        let checks = report["calls"][0]["checks"].as_array().cloned().unwrap_or_default();
        checks.into_iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no check {id}: {report}"))
    };
    assert_eq!(check("challenged")["passed"], true, "{report}");
    assert_eq!(check("provisional")["passed"], false, "{report}");
    put_password(cloud, &right["Parameter"]["Value"]);
}

fn put_password(cloud: &Cloud, value: &Value) {
    let wish = json!({ "Name": PASSWORD, "Value": value, "Type": "SecureString", "Overwrite": true });
    cloud.moto.ask("ssm", "put_parameter", wish);
}

/// A command that brings version 2, whose instance dies once the group has let it in: version 1 comes back without a word from anybody.
/// Returns the instance of version 1.
#[track_caller]
fn turned_back(cloud: &Cloud, command: &[&str], known: &mut BTreeSet<String>, before: Booted) -> Booted {
    let running = cloud.start_command(command);
    drop(Booted::launched(cloud, known, Some(before), &str::to_owned));
    let back = Booted::launched(cloud, known, None, &str::to_owned);
    let ran = cloud.heard(running.finish()).expect(6);
    let error = ran.json_error();
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("smoke call through version 2 did not pass"), "{error}");
    assert!(message.contains("version 1 is live again"), "{error}");
    let ended = |event: &str, step: &str| -> bool {
        ran.json_lines().iter().any(|line| line["event"] == event && line["step"] == step)
    };
    assert!(ended("step-failed", "smoke-call") && ended("step-done", "rollback"), "{}", ran.stdout);
    is_live(cloud, 1, &back);
    back
}

/// That version is on the one instance, and the instance is called.
#[track_caller]
fn is_live(cloud: &Cloud, version: u64, instance: &Booted) {
    let status = cloud.status(TOPOLOGY);
    assert_eq!(status["group"]["version"], version, "{status}");
    let instances = status["group"]["instances"].as_array().cloned().unwrap_or_default();
    let found = instances.iter().find(|found| found["id"] == instance.id.as_str());
    let found = found.unwrap_or_else(|| panic!("{} is not in the group: {status}", instance.id));
    assert_eq!((&found["version"], &found["healthy"]), (&json!(version), &json!(true)), "{status}");
    assert_eq!(found["proxy"]["state"], "ready", "{status}");
    it_is_called(cloud, instance);
}
