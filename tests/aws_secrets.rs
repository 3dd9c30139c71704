//! The token keys of an edge on AWS, looked at and rotated: what is in Parameter Store after each step, and what is refused.

#![cfg(feature = "aws")]

#[path = "support/cloud.rs"]
mod cloud;

use std::collections::BTreeSet;
use std::fs;

use cloud::Cloud;
use cloud::project::Ran;
use serde_json::{Value, json};

/// The document of the token keys.
const PARAMETER: &str = "/sipedge/twilio-bridge/single-ec2/token-keys";

/// A token's life and the margin, and more.
const TWO_DAYS_S: u64 = 2 * 86_400;

const ROTATE: [&str; 5] = ["secrets", "rotate", "--target", "aws", "--json"];
const STATUS: [&str; 5] = ["secrets", "status", "--target", "aws", "--json"];
const FINISH: [&str; 6] = ["secrets", "rotate", "--target", "aws", "--finish", "--json"];

#[test]
fn token_keys_are_rotated_in_parameter_store() {
    let Some(cloud) = Cloud::start("token_keys_are_rotated_in_parameter_store") else { return };
    let ran = cloud.run(&["secrets", "status", "--target", "aws"]).expect(7);
    assert!(ran.stderr.contains("sipedge deploy"), "{}", ran.stderr);
    cloud.deploy("single-ec2");
    let made = document(&cloud);
    let mut seen = secrets_of(&made);
    assert_eq!((ids(&made), seen.len()), (vec![1], 2), "one token key, and the key of the branches");
    let status = cloud.run(&["secrets", "status", "--target", "aws"]).expect(0).stdout;
    assert!(status.contains("key 1      signs") && status.contains("rotation   none is under way"), "{status}");
    let status = cloud.run(&STATUS).expect(0).json();
    assert_eq!((&status["edge"], &status["topology"]), (&json!("twilio-bridge"), &json!("single-ec2")));
    assert_eq!(status["rotation"]["phase"], "settled", "{status}");

    // Instances cannot be asked from here, so that a rotation waits for minutes: meanwhile nobody else changes the keys.
    let mut rotating = cloud.start_command(&ROTATE);
    rotating.wait_for("that it waits", |line| line["event"] == "waiting");
    let added = document(&cloud);
    assert_eq!(ids(&added), [1, 2], "the old key signs, the new one verifies");
    assert!(added["tokens"][1]["signs_since"].is_null(), "the new key signs nowhere yet");
    seen.extend(secrets_of(&added));
    let error = cloud.run(&ROTATE).expect(8).json_error();
    assert_eq!(error["kind"], "state-locked", "{error}");
    cloud.run(&FINISH).expect(8);
    assert_eq!(document(&cloud), added, "what was refused has changed nothing");
    rotating.kill();

    let status = cloud.run(&["secrets", "status", "--target", "aws"]).expect(0).stdout;
    assert!(status.contains("was cut off before the new key signed"), "{status}");
    assert!(status.contains("key 2      verifies"), "{status}");
    // There is no old key before the new one signs.
    cloud.run(&FINISH).expect(0);
    assert_eq!(document(&cloud), added);

    // The next one goes on where that one was killed, and makes no third key.
    instances_look_every_second(&cloud);
    let rotated = cloud.run(&ROTATE).expect(0);
    assert_eq!(events(&rotated), ["waiting", "reached", "signs", "waiting", "reached", "token-keys"]);
    let signing = document(&cloud);
    assert_eq!(ids(&signing), [2, 1]);
    assert_eq!(secrets_of(&signing), secrets_of(&added), "the same keys, and the branch key of the beginning");
    assert!(signing["tokens"][0]["signs_since"].is_u64() && signing["tokens"][1]["signed_until"].is_u64());
    let parameter = parameter(&cloud);
    assert_eq!(parameter["Type"], "SecureString");
    assert_eq!(parameter["Version"], 4, "made, added, written again by the one that went on, signing");

    // No third key while the first may be needed, and it is not withdrawn either.
    let refused = cloud.run(&["secrets", "rotate", "--target", "aws"]).expect(5);
    assert!(refused.stderr.contains("the token key 1 signed until"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--finish --force"), "{}", refused.stderr);
    let error = cloud.run(&FINISH).expect(5).json_error();
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("the token key 1 signed until"), "{error}");
    cloud.run(&["secrets", "rotate", "--target", "aws", "--force"]).expect(2);
    assert_eq!(document(&cloud), signing);

    // The next deploy withdraws it when no call can be up that bears it.
    let mut old = signing.clone();
    let until = old["tokens"][1]["signed_until"].as_u64().expect("a moment");
    old["tokens"][1]["signed_until"] = (until - TWO_DAYS_S).into();
    let write = json!({ "Name": PARAMETER, "Value": old.to_string(), "Type": "SecureString", "Overwrite": true });
    cloud.moto.ask("ssm", "put_parameter", write);
    let status = cloud.run(&["secrets", "status", "--target", "aws"]).expect(0).stdout;
    assert!(status.contains("the old key may be withdrawn"), "{status}");
    let deployed = cloud.deploy("single-ec2");
    assert!(deployed.stdout.contains("key 1 withdrawn"), "{}", deployed.stdout);
    assert_eq!(ids(&document(&cloud)), [2]);

    // At a word it is withdrawn at once.
    instances_look_every_second(&cloud);
    let rotated = cloud.run(&ROTATE).expect(0);
    assert_eq!(events(&rotated), ["added", "waiting", "reached", "signs", "waiting", "reached", "token-keys"]);
    let signing = document(&cloud);
    assert_eq!(ids(&signing), [3, 2]);
    seen.extend(secrets_of(&signing));
    let forced = ["secrets", "rotate", "--target", "aws", "--finish", "--force", "--json"];
    assert_eq!(events(&cloud.run(&forced).expect(0)), ["withdrawn", "token-keys"]);
    assert_eq!(ids(&document(&cloud)), [3]);
    assert_eq!(cloud.run(&STATUS).expect(0).json()["rotation"]["phase"], "settled");

    assert_eq!(seen.len(), 4, "three token keys and one for the branches");
    for said in cloud.said() {
        assert!(!seen.iter().any(|secret| said.contains(secret)), "a command has said a key");
    }
    cloud.run(&["destroy", "single-ec2", "--target", "aws", "--yes"]).expect(0);
    let left = cloud.moto.ask("ssm", "describe_parameters", json!({}));
    assert_eq!(left["Parameters"], json!([]), "{left}");
    cloud.project.assert_no_trace();
}

/// Has rotations wait for three seconds instead of three minutes: for what the deployed plan says of the instances' looks, and no setting
/// of the spec is about that.
fn instances_look_every_second(cloud: &Cloud) {
    let file = cloud.state("single-ec2").join("plan.json");
    let text = fs::read_to_string(&file).expect("the state has the plan");
    let mut plan: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(plan["proxy"]["secrets"]["poll_s"], 60, "{}", plan["proxy"]["secrets"]);
    plan["proxy"]["secrets"]["poll_s"] = 1.into();
    fs::write(&file, plan.to_string()).expect("written");
}

fn parameter(cloud: &Cloud) -> Value {
    let asked = json!({ "Name": PARAMETER, "WithDecryption": true });
    cloud.moto.ask("ssm", "get_parameter", asked)["Parameter"].clone()
}

/// The document in Parameter Store.
fn document(cloud: &Cloud) -> Value {
    let parameter = parameter(cloud);
    serde_json::from_str(parameter["Value"].as_str().unwrap_or_default()).expect("the parameter is JSON")
}

/// Numbers of the token keys; the first signs.
fn ids(document: &Value) -> Vec<u64> {
    let tokens = document["tokens"].as_array().cloned().unwrap_or_default();
    tokens.iter().filter_map(|key| key["id"].as_u64()).collect()
}

/// Everything in the document that is secret.
fn secrets_of(document: &Value) -> BTreeSet<String> {
    let tokens = document["tokens"].as_array().cloned().unwrap_or_default();
    let keys = tokens.iter().map(|key| &key["key"]).chain([&document["branch"]]);
    let secrets: BTreeSet<String> = keys.map(|secret| secret.as_str().expect("a key is text").to_owned()).collect();
    assert!(secrets.iter().all(|secret| secret.len() == 64), "32 bytes in hexadecimal digits");
    secrets
}

/// What a command told, line by line.
fn events(ran: &Ran) -> Vec<String> {
    ran.json_lines().iter().filter_map(|line| line["event"].as_str().map(str::to_owned)).collect()
}
