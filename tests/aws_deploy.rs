//! Deploy, changed spec, deploy again, refresh, rollback and destroy of both topologies at once, with the real Terraform and AWS provider
//! against a stand-in for AWS; what stands there is looked at one by one.

#![cfg(feature = "aws")]

#[path = "support/cloud.rs"]
mod cloud;

use std::fs;
use std::path::Path;

use cloud::project::Ran;
use cloud::{Cloud, texts};
use serde_json::{Value, json};

/// The group, template and load balancer of a topology of the example's edge.
fn group_name(topology: &str) -> String {
    format!("sipedge-twilio-bridge-{topology}")
}

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
    let balanced = deployed(&balanced.finish().expect(0));
    look_at_balanced(&cloud, &balanced["outputs"]);
    assert_ne!(single["outputs"]["ingress_addresses"], balanced["outputs"]["ingress_addresses"]);
    hand_off_has_the_addresses(&balanced);
    let status = cloud.run(&["status"]).expect(0).stdout;
    assert!(status.contains("single-ec2 on AWS: up, not verified by a call"), "{status}");
    assert!(status.contains("load-balanced on AWS: up, not verified by a call"), "{status}");

    let plan = cloud.run(&["plan", "--json"]).expect(0).json();
    for planned in plan["plans"].as_array().expect("plans") {
        assert_eq!(planned["account"]["resources"], json!([]), "a second plan is empty: {}", planned["account"]);
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

fn look_at_single(cloud: &Cloud, outputs: &Value) {
    let name = group_name("single-ec2");
    let group = group(cloud, &name);
    assert_eq!((&group["MinSize"], &group["MaxSize"], &group["DesiredCapacity"]), (&json!(1), &json!(1), &json!(1)));
    let hooks = hooks(cloud, &name);
    assert_eq!(hooks, ["drain autoscaling:EC2_INSTANCE_TERMINATING", "ready autoscaling:EC2_INSTANCE_LAUNCHING"]);
    template_is_safe(cloud, outputs);
    assert_eq!(outputs["ingress_addresses"], outputs["egress_addresses"], "one Elastic IP for both");
    assert_eq!(outputs["ingress_addresses"].as_array().map(Vec::len), Some(1));
    doors_are_narrow(cloud, "single-ec2");
}

fn look_at_balanced(cloud: &Cloud, outputs: &Value) {
    let name = group_name("load-balanced");
    let group = group(cloud, &name);
    assert_eq!((&group["MinSize"], &group["MaxSize"]), (&json!(2), &json!(10)));
    assert_eq!(hooks(cloud, &name).len(), 2);
    let policies = cloud.moto.ask("autoscaling", "describe_policies", json!({ "AutoScalingGroupName": name }));
    assert_eq!(texts(&policies["ScalingPolicies"], "PolicyType"), ["TargetTrackingScaling", "TargetTrackingScaling"]);
    template_is_safe(cloud, outputs);
    doors_are_narrow(cloud, "load-balanced");

    let balancers = cloud.moto.ask("elbv2", "describe_load_balancers", json!({}));
    let balancer = &balancers["LoadBalancers"][0];
    assert_eq!((&balancer["Type"], &balancer["Scheme"]), (&json!("network"), &json!("internet-facing")));
    assert_eq!(balancer["AvailabilityZones"].as_array().map(Vec::len), Some(3), "an ingress address per zone");
    assert_eq!(balancer["SecurityGroups"].as_array().map(Vec::len), Some(1), "only attached when it is made");
    let arn = &balancer["LoadBalancerArn"];
    let attributes = cloud.moto.ask("elbv2", "describe_load_balancer_attributes", json!({ "LoadBalancerArn": arn }));
    assert_eq!(attribute(&attributes, "load_balancing.cross_zone.enabled"), "true");
    let listeners = cloud.moto.ask("elbv2", "describe_listeners", json!({ "LoadBalancerArn": arn }));
    let listener = &listeners["Listeners"][0];
    assert_eq!((&listener["Port"], &listener["Protocol"]), (&json!(5060), &json!("TCP_UDP")));
    let groups = cloud.moto.ask("elbv2", "describe_target_groups", json!({ "LoadBalancerArn": arn }));
    let targets = &groups["TargetGroups"][0];
    assert_eq!((&targets["Protocol"], &targets["HealthCheckProtocol"]), (&json!("TCP_UDP"), &json!("HTTP")));
    assert_eq!((&targets["HealthCheckPath"], &targets["HealthCheckIntervalSeconds"]), (&json!("/readyz"), &json!(30)));
    assert_eq!((&targets["HealthyThresholdCount"], &targets["UnhealthyThresholdCount"]), (&json!(2), &json!(2)));
    let arn = &targets["TargetGroupArn"];
    let attributes = cloud.moto.ask("elbv2", "describe_target_group_attributes", json!({ "TargetGroupArn": arn }));
    assert_eq!(attribute(&attributes, "stickiness.enabled"), "true");
    assert_eq!(attribute(&attributes, "stickiness.type"), "source_ip");

    let gateways = cloud.moto.ask("ec2", "describe_nat_gateways", json!({}));
    assert_eq!(gateways["NatGateways"].as_array().map(Vec::len), Some(1));
    let gateway = &gateways["NatGateways"][0]["NatGatewayId"];
    let routes = cloud.moto.ask("ec2", "describe_route_tables", json!({}));
    let through: Vec<Value> = (routes["RouteTables"].as_array().cloned().unwrap_or_default().iter())
        .flat_map(|table| table["Routes"].as_array().cloned().unwrap_or_default())
        .filter(|route| &route["NatGatewayId"] == gateway)
        .collect();
    assert!(!through.is_empty(), "instances go out through the NAT gateway: {routes}");
    let alarms = cloud.moto.ask("cloudwatch", "describe_alarms", json!({ "AlarmNamePrefix": name }));
    assert!(texts(&alarms["MetricAlarms"], "AlarmName").len() >= 5, "{alarms}");
}

fn group(cloud: &Cloud, name: &str) -> Value {
    let groups =
        cloud.moto.ask("autoscaling", "describe_auto_scaling_groups", json!({ "AutoScalingGroupNames": [name] }));
    let group = groups["AutoScalingGroups"][0].clone();
    assert!(group.is_object(), "there is no group {name}: {groups}");
    group
}

fn hooks(cloud: &Cloud, name: &str) -> Vec<String> {
    let hooks = cloud.moto.ask("autoscaling", "describe_lifecycle_hooks", json!({ "AutoScalingGroupName": name }));
    let mut hooks: Vec<String> = (hooks["LifecycleHooks"].as_array().cloned().unwrap_or_default().iter())
        .filter_map(|hook| {
            Some(format!("{} {}", hook["LifecycleHookName"].as_str()?, hook["LifecycleTransition"].as_str()?))
        })
        .collect();
    hooks.sort();
    hooks
}

/// IMDSv2, an encrypted disk, no key for SSH.
fn template_is_safe(cloud: &Cloud, outputs: &Value) {
    let asked = json!({ "LaunchTemplateId": outputs["launch_template_id"], "Versions": ["$Latest"] });
    let versions = cloud.moto.ask("ec2", "describe_launch_template_versions", asked);
    let data = &versions["LaunchTemplateVersions"][0]["LaunchTemplateData"];
    assert_eq!(data["MetadataOptions"]["HttpTokens"], "required", "{data}");
    assert_eq!(data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"], true, "{data}");
    assert!(data["KeyName"].is_null(), "no SSH: {data}");
}

/// SIP from the trunks' ranges alone.
fn doors_are_narrow(cloud: &Cloud, topology: &str) {
    let filter = json!({ "Filters": [{ "Name": "tag:sipedge:topology", "Values": [topology] }] });
    let groups = cloud.moto.ask("ec2", "describe_security_groups", filter);
    let groups = groups["SecurityGroups"].as_array().cloned().unwrap_or_default();
    assert!(!groups.is_empty(), "{topology} has security groups");
    for group in groups {
        for rule in group["IpPermissions"].as_array().cloned().unwrap_or_default() {
            let open = texts(&rule["IpRanges"], "CidrIp").iter().any(|range| range == "0.0.0.0/0");
            assert!(!open, "{} lets everybody in: {rule}", group["GroupName"]);
            assert_ne!(rule["FromPort"], 22, "no SSH: {rule}");
        }
    }
}

fn attribute(attributes: &Value, name: &str) -> String {
    let list = attributes["Attributes"].as_array().cloned().unwrap_or_default();
    let found = list.iter().find(|attribute| attribute["Key"] == name);
    found.and_then(|attribute| attribute["Value"].as_str()).unwrap_or_default().to_owned()
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
}

/// What is in Parameter Store is in no file of the project.
fn no_secret_is_anywhere(cloud: &Cloud) {
    for topology in ["single-ec2", "load-balanced"] {
        let name = format!("/sipedge/twilio-bridge/{topology}/token-keys");
        let parameter = cloud.moto.ask("ssm", "get_parameter", json!({ "Name": name, "WithDecryption": true }));
        assert_eq!(parameter["Parameter"]["Type"], "SecureString");
        let keys: Value =
            serde_json::from_str(parameter["Parameter"]["Value"].as_str().expect("a value")).expect("JSON");
        let secrets = [keys["branch"].clone(), keys["tokens"][0]["key"].clone()];
        for secret in secrets {
            let secret = secret.as_str().expect("a key").to_owned();
            assert!(secret.len() >= 32, "a key");
            search(cloud.project.folder(), &secret);
        }
    }
}

fn search(folder: &Path, secret: &str) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            continue;
        }
        if path.is_dir() {
            search(&path, secret);
        } else {
            let bytes = fs::read(&path).unwrap_or_default();
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret is in {}", path.display());
        }
    }
}

/// Nothing that bears the edge's tag or name.
fn nothing_is_left(cloud: &Cloud) {
    let tagged = cloud.moto.ask(
        "resourcegroupstaggingapi",
        "get_resources",
        json!({ "TagFilters": [{ "Key": "sipedge:edge", "Values": ["twilio-bridge"] }] }),
    );
    let left: Vec<String> = texts(&tagged["ResourceTagMappingList"], "ResourceARN")
        .into_iter()
        // Terminated instances, their disks and deleted NAT gateways stay visible for an hour.
        .filter(|arn| {
            ![":instance/", ":volume/", ":network-interface/", ":natgateway/"].iter().any(|kind| arn.contains(kind))
        })
        .collect();
    assert!(left.is_empty(), "{left:#?}");
    for (service, operation, list) in [
        ("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups"),
        ("elbv2", "describe_load_balancers", "LoadBalancers"),
        ("elbv2", "describe_target_groups", "TargetGroups"),
        ("ec2", "describe_addresses", "Addresses"),
        ("ec2", "describe_launch_templates", "LaunchTemplates"),
        ("ssm", "describe_parameters", "Parameters"),
        ("cloudwatch", "describe_alarms", "MetricAlarms"),
        ("sns", "list_topics", "Topics"),
    ] {
        let found = cloud.moto.ask(service, operation, json!({}));
        assert_eq!(found[list].as_array().map(Vec::len).unwrap_or_default(), 0, "{service} {operation}: {found}");
    }
    let gateways = cloud.moto.ask("ec2", "describe_nat_gateways", json!({}));
    assert!(texts(&gateways["NatGateways"], "State").iter().all(|state| state == "deleted"), "{gateways}");
    let roles = cloud.moto.ask("iam", "list_roles", json!({}));
    let roles = texts(&roles["Roles"], "RoleName");
    assert!(!roles.iter().any(|role| role.starts_with("sipedge-")), "{roles:?}");
}
