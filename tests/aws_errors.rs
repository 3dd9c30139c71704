//! What a deploy to AWS says when the account does not play along: each error provoked, its message as it stands in
//! `tests/golden/errors/`. `UPDATE_GOLDEN=1` writes those anew.

#![cfg(feature = "aws")]

#[path = "support/account.rs"]
mod account;
#[path = "support/cloud.rs"]
mod cloud;
#[path = "support/errors.rs"]
mod errors;

use std::fs;
use std::process::Command;

use account::nothing_is_left;
use cloud::project::{Ran, run};
use cloud::{Cloud, STATE_BUCKET};
use errors::assert_golden;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const DEPLOY: [&str; 4] = ["deploy", "single-ec2", "--yes", "--no-verify"];

/// The message as it is told, without what differs from run to run.
fn golden(name: &str, cloud: &Cloud, ran: &Ran) {
    let mut text = ran.stderr.replace(&*cloud.project.folder().to_string_lossy(), "FOLDER");
    text = text.replace(&cloud.moto.url(), "AWS").replace(&format!("127.0.0.1:{}", cloud.moto.port()), "AWS");
    text = text.replace(&*cloud.moto.home().to_string_lossy(), "HOME");
    // The steps before it have their own times and ids.
    let lines = text.lines().skip_while(|line| !line.starts_with("error:"));
    let text: String = lines.map(|line| format!("{}\n", without_ids(line))).collect();
    assert_golden(name, &text);
}

/// Request ids and numbers of resources are different each time.
fn without_ids(line: &str) -> String {
    let mut words = Vec::new();
    let mut rest = line.split(' ').peekable();
    while let Some(word) = rest.next() {
        words.push(word.to_owned());
        if ["RequestID:", "HostID:"].contains(&word) && rest.peek().is_some() {
            rest.next();
            words.push("ID,".to_owned());
        }
    }
    words.join(" ")
}

fn with(cloud: &Cloud, change: impl FnOnce(&mut Command)) -> Ran {
    let mut command = cloud.command(&DEPLOY);
    change(&mut command);
    run(command)
}

#[test]
fn the_account_cannot_be_asked() {
    let Some(cloud) = Cloud::start("the_account_cannot_be_asked") else { return };
    let home = cloud.moto.home().to_owned();
    let without_keys = |command: &mut Command| {
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("AWS_CONFIG_FILE", home.join("config")).env("AWS_SHARED_CREDENTIALS_FILE", home.join("none"));
    };
    fs::write(home.join("config"), "").expect("written");
    golden("no-credentials", &cloud, &with(&cloud, without_keys).expect(4));

    let sso = "[profile voice]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = admin\nregion = us-east-1\n\
               [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://example.awsapps.com/start\n";
    fs::write(home.join("config"), sso).expect("written");
    let spec = cloud.project.spec();
    cloud.change_spec("region: us-east-1,", "region: us-east-1, profile: voice,");
    golden("sso-expired", &cloud, &with(&cloud, without_keys).expect(4));
    cloud.change_spec("profile: voice", "profile: nobody");
    golden("no-such-profile", &cloud, &with(&cloud, without_keys).expect(4));
    cloud.project.write_spec(&spec);

    let unreachable = |command: &mut Command| {
        command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    };
    golden("aws-unreachable", &cloud, &with(&cloud, unreachable).expect(4));
    cloud.moto.wish("fault", &json!({ "action": "sts:GetCallerIdentity", "code": "ExpiredToken", "message": "The security token included in the request is expired", "status": 403 }));
    golden("credentials-expired", &cloud, &cloud.run(&DEPLOY).expect(4));
    cloud.moto.wish("fault", &json!({ "action": "sts:GetCallerIdentity", "code": "OptInRequired", "message": "You are not subscribed to this service", "status": 403 }));
    cloud.change_spec("region: us-east-1", "region: ap-east-1");
    golden("region-not-enabled", &cloud, &cloud.run(&DEPLOY).expect(4));
    cloud.moto.wish("fault", &json!({ "action": "sts:GetCallerIdentity", "times": 0 }));
    cloud.project.write_spec(&spec);
    let image = spec.split("image: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("the spec names an image");
    cloud.change_spec(image, "ami-0123456789abcdef0");
    golden("no-such-image", &cloud, &cloud.run(&DEPLOY).expect(4));
}

#[test]
fn the_account_refuses() {
    let Some(cloud) = Cloud::start("the_account_refuses") else { return };
    for (name, action, code, message) in [
        (
            "quota-used-up",
            "ec2:AllocateAddress",
            "AddressLimitExceeded",
            "The maximum number of addresses has been reached.",
        ),
        (
            "name-is-taken",
            "iam:CreateRole",
            "EntityAlreadyExists",
            "Role with name sipedge-twilio-bridge-single-ec2 already exists.",
        ),
        (
            "access-denied",
            "ec2:CreateVpc",
            "UnauthorizedOperation",
            "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/x is not authorized to perform: \
             ec2:CreateVpc on resource: arn:aws:ec2:us-east-1:123456789012:vpc/* because no identity-based policy allows the \
             ec2:CreateVpc action",
        ),
    ] {
        cloud.moto.wish("fault", &json!({ "action": action, "code": code, "message": message, "status": 403 }));
        let ran = cloud.run(&DEPLOY).expect(5);
        cloud.moto.wish("fault", &json!({ "action": action, "times": 0 }));
        golden(name, &cloud, &ran);
        if name == "quota-used-up" {
            // What was made until then is in the state: the same command goes on.
            cloud.deploy("single-ec2");
            what_stands_is_not_left_behind(&cloud);
        }
        cloud.run(&["destroy", "single-ec2", "--target", "aws", "--yes"]).expect(0);
    }
}

/// Neither for another region nor with the credentials of another account.
fn what_stands_is_not_left_behind(cloud: &Cloud) {
    cloud.change_spec("region: us-east-1", "region: us-west-2");
    let ran = cloud.run(&DEPLOY).expect(3);
    assert!(ran.stderr.contains("us-east-1") && ran.stderr.contains("us-west-2"), "{}", ran.stderr);
    cloud.change_spec("region: us-west-2", "region: us-east-1");

    let file = cloud.project.folder().join(".sipedge/twilio-bridge/aws-single-ec2/journal.json");
    let account = || -> Value { serde_json::from_slice(&fs::read(&file).expect("a journal")).expect("JSON") };
    let (own, other) = (account()["account"].as_str().expect("the account is kept").to_owned(), "999999999999");
    let change = |from: &str, to: &str| {
        let text = fs::read_to_string(&file).expect("a journal");
        fs::write(&file, text.replacen(&format!("\"account\": \"{from}\""), &format!("\"account\": \"{to}\""), 1))
            .expect("written");
    };
    change(&own, other);
    for command in [
        DEPLOY.as_slice(),
        &["refresh", "single-ec2", "--target", "aws", "--no-verify"],
        &["destroy", "single-ec2", "--target", "aws", "--yes"],
    ] {
        let ran = cloud.run(command).expect(4);
        assert!(ran.stderr.contains(&format!("stands in the account {other}")), "{command:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(&format!("those of {own}")), "{command:?}: {}", ran.stderr);
    }
    change(other, &own);
}

/// Who holds the lock, on another machine.
const LOCK_ID: &str = "3f1c7d52-9a4e-4b60-8d2f-6e5a1b0c9d87";

#[test]
fn somebody_else_holds_the_lock_of_the_state() {
    let Some(cloud) = Cloud::start("somebody_else_holds_the_lock_of_the_state") else { return };
    cloud.make_state_bucket();
    cloud.change_spec("region: us-east-1,", &format!("region: us-east-1, state: {{ bucket: {STATE_BUCKET} }},"));
    let key = "sipedge/twilio-bridge/single-ec2.tfstate";
    // What Terraform leaves beside a state in S3 while it works, or when it was ended by force.
    let lock = json!({
        "ID": LOCK_ID,
        "Operation": "OperationTypeApply",
        "Info": "",
        "Who": "ann@machine",
        "Version": "1.11.4",
        "Created": "2026-11-01T09:30:00Z",
        "Path": format!("{STATE_BUCKET}/{key}"),
    });
    let lock = json!({ "Bucket": STATE_BUCKET, "Key": format!("{key}.tflock"), "Body": lock.to_string() });
    cloud.moto.ask("s3", "put_object", lock);

    let ran = cloud.run(&DEPLOY).expect(8);
    let (said, next) = ran.stderr.split_once("  next:").expect("it says how to go on");
    let release = next.lines().next().and_then(|line| line.trim().split("   ").next()).unwrap_or_default().to_owned();
    assert!(release.starts_with("terraform -chdir="), "{next}");
    assert!(release.ends_with(&format!("force-unlock {LOCK_ID}")), "{next}");
    assert!(next.contains("sipedge deploy single-ec2 --target aws"), "{next}");
    // Without the commands: how far they are set apart differs with the folder's name.
    let said = said.to_owned();
    golden("state-locked-deploy", &cloud, &Ran { stderr: said, ..ran });
    let vpcs = cloud.moto.ask("ec2", "describe_vpcs", json!({}));
    assert_eq!(vpcs["Vpcs"].as_array().map(Vec::len), Some(1), "nothing was made: {vpcs}");

    // The command that it names releases the lock, and the same deploy goes on.
    let mut released = Command::new("sh");
    released.args(["-c", &release.replace(" force-unlock ", " force-unlock -force ")]);
    cloud.moto.prepare(&mut released);
    run(released).expect(0);
    cloud.deploy("single-ec2");
    cloud.run(&["destroy", "single-ec2", "--target", "aws", "--yes"]).expect(0);
    nothing_is_left(&cloud);
}

#[test]
fn an_interrupt_during_apply_leaves_a_way_on() {
    let Some(cloud) = Cloud::start("an_interrupt_during_apply_leaves_a_way_on") else { return };
    // The group is made, and Terraform cannot read it: when everything else is done, no request is under way that would be dropped.
    let action = "autoscaling:DescribeAutoScalingGroups";
    cloud.moto.wish("fault", &json!({ "action": action, "code": "Throttling", "message": "Rate exceeded" }));
    let mut deploy = cloud.start_command(&["deploy", "single-ec2", "--yes", "--no-verify", "--json"]);
    deploy.wait_for("the group waits", |line| {
        let address = line["address"].as_str().unwrap_or_default();
        line["event"] == "resource" && line["phase"] == "going" && address.ends_with("aws_autoscaling_group.this")
    });
    // As Ctrl-C does.
    let pid = Pid::from_raw(i32::try_from(deploy.pid()).expect("a process id"));
    kill(pid, Signal::SIGINT).expect("it runs");
    let error = cloud.heard(deploy.finish()).expect(5).json_error();
    assert_eq!((&error["kind"], &error["step"]), (&json!("step-failed"), &json!("apply")), "{error}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("it was asked to end, and has"), "{message}");
    assert!(message.contains("the same command goes on from there"), "{message}");
    let next = error["next"].as_array().cloned().unwrap_or_default();
    assert!(next.iter().any(|way| way["command"] == "sipedge deploy single-ec2 --target aws"), "{error}");

    cloud.moto.wish("fault", &json!({ "action": action, "times": 0 }));
    cloud.deploy("single-ec2");
    let groups = cloud.moto.ask("autoscaling", "describe_auto_scaling_groups", json!({}));
    assert_eq!(groups["AutoScalingGroups"].as_array().map(Vec::len), Some(1), "{groups}");
    cloud.run(&["destroy", "single-ec2", "--target", "aws", "--yes"]).expect(0);
    nothing_is_left(&cloud);
    cloud.project.assert_no_trace();
}

#[test]
fn a_call_that_cannot_pass_is_refused_before_the_account_is_asked() {
    let Some(cloud) = Cloud::start("a_call_that_cannot_pass_is_refused_before_the_account_is_asked") else { return };
    let deploy = ["deploy", "single-ec2", "--yes"];
    let ran = cloud.run(&deploy).expect(2);
    assert!(ran.stderr.contains("verify.operators: [YOUR.ADDRESS/32]"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--no-verify"), "{}", ran.stderr);
    cloud.change_spec("version: 1\n", "version: 1\nverify: { answerer: false }\n");
    let ran = cloud.run(&deploy).expect(2);
    assert!(ran.stderr.contains("verify.answerer: false"), "{}", ran.stderr);
}

#[test]
fn nobody_agrees() {
    let Some(cloud) = Cloud::start("nobody_agrees") else { return };
    golden("nobody-can-be-asked", &cloud, &cloud.run(&["deploy", "single-ec2"]).expect(2));
    let error = cloud.run(&["deploy", "single-ec2", "--json"]).expect(2).json_error();
    assert_eq!(error["next"][0]["command"], "sipedge deploy single-ec2 --yes");
    cloud.project.assert_no_trace();
}
