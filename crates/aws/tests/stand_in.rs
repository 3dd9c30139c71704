//! The stand-in refuses what AWS refuses, so that a plan which AWS would refuse does not pass here.

mod support;

use serde_json::{Value, json};
use support::moto::Moto;
use support::{Edge, GROUP, against_moto};

/// Asserts that a question is refused with these words.
fn refused(moto: &Moto, service: &str, operation: &str, arguments: Value, words: &str) {
    let told = moto.refusal(service, operation, arguments);
    assert!(told.contains(words), "{service} {operation}: {told}");
}

#[test]
fn load_balancers_that_cannot_be_are_refused() {
    against_moto("load_balancers_that_cannot_be_are_refused", |moto| {
        let edge = Edge::make(moto, 0);
        let subnets =
            moto.ask("ec2", "describe_subnets", json!({ "Filters": [{ "Name": "cidr-block", "Values": ["10.0.*"] }] }));
        let vpc = subnets["Subnets"][0]["VpcId"].clone();
        let subnet = |index: usize| subnets["Subnets"][index]["SubnetId"].clone();
        let used = moto.ask("ec2", "describe_addresses", json!({}))["Addresses"][0]["AllocationId"].clone();
        let free = moto.ask("ec2", "allocate_address", json!({ "Domain": "vpc" }))["AllocationId"].clone();
        let balancer = |mappings: Value| json!({ "Name": "second", "Type": "network", "SubnetMappings": mappings });
        let mapping =
            |index: usize, allocation: &Value| json!({ "SubnetId": subnet(index), "AllocationId": allocation });
        let create = "create_load_balancer";
        refused(moto, "elbv2", create, balancer(json!([mapping(0, &free), mapping(1, &free)])), "one subnet only");
        refused(moto, "elbv2", create, balancer(json!([mapping(0, &used)])), "not available for use");
        refused(
            moto,
            "elbv2",
            create,
            balancer(json!([mapping(0, &free), mapping(0, &used)])),
            "same Availability Zone",
        );
        refused(moto, "elbv2", create, balancer(json!([mapping(0, &json!("eipalloc-none"))])), "AllocationIdNotFound");
        refused(
            moto,
            "elbv2",
            create,
            json!({ "Name": "bridge", "Type": "network", "Subnets": [subnet(0)] }),
            "DuplicateLoadBalancerName",
        );

        let group = |name: &str, protocol: &str, check: &str| json!({ "Name": name, "Protocol": protocol, "Port": 5060, "VpcId": vpc, "HealthCheckProtocol": check });
        refused(moto, "elbv2", "create_target_group", group("checked", "UDP", "UDP"), "Health check protocol");
        let datagrams =
            moto.ask("elbv2", "create_target_group", group("udp", "UDP", "HTTP"))["TargetGroups"][0]["TargetGroupArn"]
                .clone();
        let found = moto.ask("elbv2", "describe_load_balancers", json!({}));
        let listener = |protocol: &str, port: u16, target: &Value| {
            json!({
                "LoadBalancerArn": found["LoadBalancers"][0]["LoadBalancerArn"], "Protocol": protocol, "Port": port,
                "DefaultActions": [{ "Type": "forward", "TargetGroupArn": target }],
            })
        };
        refused(moto, "elbv2", "create_listener", listener("TCP_UDP", 5070, &datagrams), "IncompatibleProtocols");
        refused(
            moto,
            "elbv2",
            "create_listener",
            listener("TCP_UDP", 5060, &json!(edge.target_group)),
            "DuplicateListener",
        );
        let kept = json!({ "TargetGroupArn": datagrams, "Attributes": [{ "Key": "preserve_client_ip.enabled", "Value": "false" }] });
        refused(moto, "elbv2", "modify_target_group_attributes", kept, "Client IP preservation");
        let late =
            json!({ "LoadBalancerArn": found["LoadBalancers"][0]["LoadBalancerArn"], "SecurityGroups": ["sg-1"] });
        refused(moto, "elbv2", "set_security_groups", late, "created without one");
    });
}

#[test]
fn groups_and_addresses_that_cannot_be_are_refused() {
    against_moto("groups_and_addresses_that_cannot_be_are_refused", |moto| {
        let edge = Edge::make(moto, 1);
        let update = |change: Value| {
            let mut arguments = json!({ "AutoScalingGroupName": GROUP });
            arguments.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            arguments
        };
        refused(
            moto,
            "autoscaling",
            "update_auto_scaling_group",
            update(json!({ "MinSize": 9 })),
            "less than or equal to max bound, 6",
        );
        refused(
            moto,
            "autoscaling",
            "update_auto_scaling_group",
            update(json!({ "DesiredCapacity": 7 })),
            "between the specified min size",
        );
        refused(moto, "autoscaling", "delete_auto_scaling_group", update(json!({})), "instances still in the group");
        let hook = json!({ "LifecycleHookName": "drain", "HeartbeatTimeout": 9000 });
        refused(moto, "autoscaling", "put_lifecycle_hook", update(hook), "30 and 7200");
        let again = json!({
            "MinSize": 0, "MaxSize": 1, "AvailabilityZones": ["us-east-1a"], "LaunchTemplate": { "LaunchTemplateId": edge.template, "Version": "1" },
        });
        refused(moto, "autoscaling", "create_auto_scaling_group", update(again), "AlreadyExists");
        let late = json!({ "LifecycleHookName": "ready", "LifecycleActionResult": "CONTINUE", "InstanceId": "i-00000000000000000" });
        refused(moto, "autoscaling", "complete_lifecycle_action", update(late), "No active Lifecycle Action");

        moto.wish("quota", &json!({ "service": "ec2", "code": "L-0263D0A3", "value": 4 }));
        moto.ask("ec2", "allocate_address", json!({ "Domain": "vpc" }));
        refused(moto, "ec2", "allocate_address", json!({ "Domain": "vpc" }), "AddressLimitExceeded");
    });
}

#[test]
fn an_abandoned_instance_is_replaced_and_a_heartbeat_keeps_one() {
    against_moto("an_abandoned_instance_is_replaced_and_a_heartbeat_keeps_one", |moto| {
        moto.wish("appliances", &json!({ "ready_s": null }));
        Edge::make(moto, 1);
        let instance = || {
            let told =
                moto.ask("autoscaling", "describe_auto_scaling_groups", json!({ "AutoScalingGroupNames": [GROUP] }));
            let staying = told["AutoScalingGroups"][0]["Instances"].as_array().unwrap().iter();
            let found =
                staying.filter(|instance| !instance["LifecycleState"].as_str().unwrap().starts_with("Terminat"));
            found.map(|instance| instance["InstanceId"].as_str().unwrap().to_owned()).next().expect("an instance")
        };
        let action = |change: Value| {
            let mut arguments =
                json!({ "AutoScalingGroupName": GROUP, "LifecycleHookName": "ready", "InstanceId": instance() });
            arguments.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            arguments
        };
        let first = instance();
        moto.advance(200);
        moto.ask("autoscaling", "record_lifecycle_action_heartbeat", action(json!({})));
        moto.advance(200);
        assert_eq!(instance(), first, "the heartbeat began the 300 s anew");
        moto.ask("autoscaling", "complete_lifecycle_action", action(json!({ "LifecycleActionResult": "ABANDON" })));
        moto.advance(15);
        let second = instance();
        assert_ne!(second, first);
        moto.advance(400);
        assert_ne!(instance(), second, "nobody completed the hook in time");
    });
}

#[test]
fn snapshots_have_blocks_of_aws_size() {
    against_moto("snapshots_have_blocks_of_aws_size", |moto| {
        let snapshot = moto.ask("ebs", "start_snapshot", json!({ "VolumeSize": 1 }));
        assert_eq!(snapshot["BlockSize"], 524_288, "{snapshot}");
        let block = json!({
            "SnapshotId": snapshot["SnapshotId"], "BlockIndex": 0, "BlockData": "short", "DataLength": 5, "Checksum": "c", "ChecksumAlgorithm": "SHA256",
        });
        refused(moto, "ebs", "put_snapshot_block", block, "ValidationException");
    });
}
