//! A deploy, refresh, rollback or destroy on AWS that is killed in any step is continued by the next one, and ends in what an undisturbed
//! one ends in.

#![cfg(feature = "aws")]

#[path = "support/account.rs"]
mod account;
#[path = "support/cloud.rs"]
mod cloud;

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use account::nothing_is_left;
use cloud::project::Ran;
use cloud::{Cloud, texts};
use serde_json::{Value, json};

const TOPOLOGY: &str = "single-ec2";
const REFRESH: [&str; 6] = ["refresh", TOPOLOGY, "--target", "aws", "--no-verify", "--json"];
const ROLLBACK: [&str; 6] = ["rollback", TOPOLOGY, "--target", "aws", "--no-verify", "--json"];
const DESTROY: [&str; 6] = ["destroy", TOPOLOGY, "--target", "aws", "--yes", "--json"];

/// From the start of an instance until it is ready, in AWS's seconds: what moto has when nobody wishes something else, and long enough for
/// the next command to meet the refresh in progress.
const READY_S: u64 = 20;
const SLOW_S: u64 = 250;

const STEPS: [&str; 10] =
    ["plan", "artefacts", "image", "init", "terraform-plan", "secrets", "apply", "ready", "verified-call", "hand-off"];

/// How many accounts the steps are shared among.
const ACCOUNTS: usize = 3;

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
        "last run": status["last_run"]["outcome"],
    })
}

/// The instances that run.
fn instances(cloud: &Cloud) -> BTreeSet<String> {
    let status = cloud.status(TOPOLOGY);
    texts(&status["group"]["instances"], "id").into_iter().collect()
}

/// Kills a command at the first line that is as wanted.
#[track_caller]
fn kill_at(cloud: &Cloud, command: &[&str], what: &str, wanted: impl Fn(&Value) -> bool) {
    let mut running = cloud.start_command(command);
    running.wait_for(what, wanted);
    running.kill();
}

/// Runs the command that was killed to its end.
#[track_caller]
fn again(cloud: &Cloud, command: &[&str], killed_in: &str) -> Ran {
    let ran = cloud.run(command).expect(0);
    let told = ran.notes().iter().any(|note| note.contains("was cut off in step"));
    assert!(told, "after {killed_in}: {:?}", ran.notes());
    ran
}

/// A refresh is led by nobody any more.
#[track_caller]
fn nothing_is_left_to_lead(cloud: &Cloud, killed_in: &str) {
    let file = cloud.state(TOPOLOGY).join("journal.json");
    let journal: Value = serde_json::from_slice(&fs::read(file).expect("a journal")).expect("JSON");
    assert!(journal.get("refresh").is_none(), "after {killed_in}: {journal}");
}

#[test]
fn killed_in_any_step_and_run_again() {
    // Most of it is waiting: a few at once, each on an account of its own.
    thread::scope(|scope| {
        for steps in STEPS.chunks(STEPS.len().div_ceil(ACCOUNTS)) {
            scope.spawn(|| deploys_are_killed_in(steps));
        }
    });
}

fn deploys_are_killed_in(steps: &[&str]) {
    let Some(cloud) = Cloud::start("killed_in_any_step_and_run_again") else { return };
    cloud.deploy("single-ec2");
    let undisturbed = standing(&cloud);
    cloud.run(&["destroy", "single-ec2", "--target", "aws", "--yes"]).expect(0);
    for &step in steps {
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

/// A refresh, a deploy that brings a version, a rollback and a destroy, one after the other on what the one before has left.
#[test]
fn what_stands_is_changed_and_removed_by_runs_that_are_killed() {
    let Some(cloud) = Cloud::start("what_stands_is_changed_and_removed_by_runs_that_are_killed") else { return };
    let deploy = ["deploy", TOPOLOGY, "--yes", "--no-verify", "--json"];
    cloud.deploy(TOPOLOGY);
    let first = standing(&cloud);
    let mut second = first.clone();
    second["version"] = json!(2);
    let begins = |step: &'static str| move |line: &Value| line["event"] == "step-started" && line["step"] == step;
    let in_progress = |line: &Value| line["event"] == "refresh";
    let ready_after = |seconds: u64| cloud.moto.wish("appliances", &json!({ "ready_s": seconds }));

    for step in ["refresh", "in the middle", "bake", "ready", "verified-call"] {
        let before = instances(&cloud);
        if step == "in the middle" {
            ready_after(SLOW_S);
            kill_at(&cloud, &REFRESH, step, in_progress);
            let ran = again(&cloud, &REFRESH, step);
            assert!(ran.notes().iter().any(|note| note.contains("going on with it")), "{}", ran.stdout);
            ready_after(READY_S);
        } else {
            kill_at(&cloud, &REFRESH, step, begins(step));
            again(&cloud, &REFRESH, step);
        }
        assert_eq!(standing(&cloud), first, "a refresh killed in {step}");
        nothing_is_left_to_lead(&cloud, step);
        assert!(instances(&cloud).is_disjoint(&before), "a refresh killed in {step} replaces what was there");
    }

    cloud.change_spec("routes:", "timers: { invite: 25s }\nroutes:");
    kill_at(&cloud, &deploy, "bake", begins("bake"));
    // The refresh ends by itself meanwhile.
    again(&cloud, &deploy, "bake");
    assert_eq!(standing(&cloud), second, "a deploy killed in bake");
    nothing_is_left_to_lead(&cloud, "bake");

    // Each run that is killed goes on from where the one before was.
    kill_at(&cloud, &ROLLBACK, "rollback", begins("rollback"));
    ready_after(SLOW_S);
    kill_at(&cloud, &ROLLBACK, "in the middle", in_progress);
    // What is in progress is the way back: it is gone on with, and not turned back.
    kill_at(&cloud, &ROLLBACK, "ready", begins("ready"));
    kill_at(&cloud, &ROLLBACK, "verified-call", begins("verified-call"));
    again(&cloud, &ROLLBACK, "each of its steps");
    assert_eq!(standing(&cloud), first, "a rollback killed in each of its steps");
    nothing_is_left_to_lead(&cloud, "each step of a rollback");

    kill_at(&cloud, &DESTROY, "init", begins("init"));
    kill_at(&cloud, &DESTROY, "terraform-plan", begins("terraform-plan"));
    kill_at(&cloud, &DESTROY, "apply", begins("apply"));
    // Terraform goes on with what it does; this one waits for it and finds what it has left.
    kill_at(&cloud, &DESTROY, "remove", begins("remove"));
    again(&cloud, &DESTROY, "each of its steps");
    nothing_is_left(&cloud);
    cloud.project.assert_no_trace();
}
