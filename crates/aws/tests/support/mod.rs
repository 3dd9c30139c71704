//! Tests of this crate against moto. The SDK reads its settings from the environment of the process, so each test runs once more in a
//! child whose environment has nothing of this machine's AWS in it.
#![allow(dead_code, reason = "each test file takes another part of it")]

#[path = "../../../../tests/support/moto.rs"]
pub(crate) mod moto;

use std::env;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use sipedge_aws::{Aws, AwsError, RefreshPreferences, Settings};

use moto::{Moto, REGION};

/// Set in the child: the server's port, or nothing.
const CHILD: &str = "SIPEDGE_AWS_TEST_PORT";

/// Runs `body` against a server of its own. `test` is the test's own name.
pub(crate) fn against_moto(test: &str, body: impl FnOnce(&Moto)) {
    if let Ok(port) = env::var(CHILD) {
        let home = PathBuf::from(env::var_os("HOME").expect("the parent has set HOME"));
        return body(&Moto::attach(port.parse().expect("a port"), home));
    }
    let Some(moto) = Moto::start(test) else { return };
    let mut child = myself(test);
    moto.prepare(&mut child).env(CHILD, moto.port().to_string());
    run(child);
}

/// Runs `body` with nothing of AWS in the environment but `variables`, and a home folder with this `.aws/config` in it.
pub(crate) fn with_environment(test: &str, variables: &[(&str, &str)], config: &str, body: impl FnOnce()) {
    if env::var_os(CHILD).is_some() {
        return body();
    }
    let home = tempfile::tempdir().expect("written");
    std::fs::create_dir(home.path().join(".aws")).expect("written");
    std::fs::write(home.path().join(".aws/config"), config).expect("written");
    let mut child = myself(test);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("AWS_") || name.to_lowercase().ends_with("_proxy") {
            child.env_remove(&name);
        }
    }
    child
        .env("HOME", home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env(CHILD, "")
        .envs(variables.iter().copied());
    run(child);
}

/// A connection to the server with the environment's own credentials.
pub(crate) fn connect() -> Aws {
    Aws::connect(&settings()).expect("done")
}

/// The usual settings.
pub(crate) fn settings() -> Settings {
    Settings { region: REGION.to_owned(), profile: None }
}

/// Why there is no connection.
pub(crate) fn refused(region: &str, profile: Option<&str>) -> AwsError {
    let settings = Settings { region: region.to_owned(), profile: profile.map(str::to_owned) };
    Aws::connect(&settings).expect_err("this connection must be refused")
}

/// What a test finds on that AWS: an edge in three zones, as Terraform makes it, near enough.
pub(crate) struct Edge {
    /// Launch template with two versions.
    pub(crate) template: String,
    /// Target group of the load balancer.
    pub(crate) target_group: String,
}

/// Name of the edge's group.
pub(crate) const GROUP: &str = "sipedge-bridge-load-balanced";

impl Edge {
    /// Makes it, with `size` instances in service.
    pub(crate) fn make(moto: &Moto, size: u32) -> Self {
        let text =
            |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let vpc = text(&moto.ask("ec2", "create_vpc", json!({ "CidrBlock": "10.0.0.0/16" })), "/Vpc/VpcId");
        let subnets: Vec<String> = ["a", "b", "c"]
            .iter()
            .enumerate()
            .map(|(index, zone)| {
                let subnet = json!({ "VpcId": vpc, "CidrBlock": format!("10.0.{index}.0/24"), "AvailabilityZone": format!("{REGION}{zone}") });
                text(&moto.ask("ec2", "create_subnet", subnet), "/Subnet/SubnetId")
            })
            .collect();
        let mappings: Vec<Value> = subnets
            .iter()
            .map(|subnet| {
                let address = moto.ask("ec2", "allocate_address", json!({ "Domain": "vpc" }));
                json!({ "SubnetId": subnet, "AllocationId": text(&address, "/AllocationId") })
            })
            .collect();
        let balancer = moto.ask(
            "elbv2",
            "create_load_balancer",
            json!({ "Name": "bridge", "Type": "network", "SubnetMappings": mappings }),
        );
        let target_group = moto.ask(
            "elbv2",
            "create_target_group",
            json!({ "Name": "bridge-5060", "Protocol": "TCP_UDP", "Port": 5060, "VpcId": vpc, "HealthCheckProtocol": "HTTP", "HealthCheckPath": "/readyz" }),
        );
        let target_group = text(&target_group, "/TargetGroups/0/TargetGroupArn");
        let forward = json!([{ "Type": "forward", "TargetGroupArn": target_group }]);
        let balancer = text(&balancer, "/LoadBalancers/0/LoadBalancerArn");
        moto.ask(
            "elbv2",
            "create_listener",
            json!({ "LoadBalancerArn": balancer, "Protocol": "TCP_UDP", "Port": 5060, "DefaultActions": forward }),
        );
        let data = |image: &str| json!({ "ImageId": image, "InstanceType": "c7g.large" });
        let template = moto.ask(
            "ec2",
            "create_launch_template",
            json!({ "LaunchTemplateName": GROUP, "LaunchTemplateData": data("ami-11111111"), "VersionDescription": "first" }),
        );
        let template = text(&template, "/LaunchTemplate/LaunchTemplateId");
        moto.ask(
            "ec2",
            "create_launch_template_version",
            json!({ "LaunchTemplateId": template, "LaunchTemplateData": data("ami-22222222"), "VersionDescription": "second" }),
        );
        moto.ask(
            "autoscaling",
            "create_auto_scaling_group",
            json!({
                "AutoScalingGroupName": GROUP, "MinSize": 0, "MaxSize": 6, "DesiredCapacity": 0,
                "LaunchTemplate": { "LaunchTemplateId": template, "Version": "1" },
                "VPCZoneIdentifier": subnets.join(","), "TargetGroupARNs": [target_group],
            }),
        );
        for (name, transition) in [("ready", "LAUNCHING"), ("drain", "TERMINATING")] {
            moto.ask(
                "autoscaling",
                "put_lifecycle_hook",
                json!({
                    "AutoScalingGroupName": GROUP, "LifecycleHookName": name,
                    "LifecycleTransition": format!("autoscaling:EC2_INSTANCE_{transition}"), "HeartbeatTimeout": 300,
                }),
            );
        }
        moto.ask(
            "autoscaling",
            "update_auto_scaling_group",
            json!({ "AutoScalingGroupName": GROUP, "MinSize": size, "DesiredCapacity": size }),
        );
        moto.advance(60);
        Self { template, target_group }
    }
}

/// Preferences of a refresh that launches before it terminates, and waits at 1 %.
pub(crate) fn preferences() -> RefreshPreferences {
    RefreshPreferences {
        min_healthy_percent: 100,
        max_healthy_percent: 150,
        checkpoints: vec![1, 100],
        checkpoint_delay_s: 300,
        bake_s: 120,
        warmup_s: Some(10),
        skip_matching: true,
        auto_rollback: true,
        alarms: vec![],
    }
}

/// This test again.
fn myself(test: &str) -> Command {
    let mut child = Command::new(env::current_exe().expect("done"));
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    child
}

fn run(mut child: Command) {
    let output = child.output().expect("done");
    let (told, troubles) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "in the child:\n{told}\n{troubles}");
}
