//! A group as it is: its bounds, its launch template version, its instances with theirs.

mod support;

use serde_json::json;
use support::{Edge, GROUP, against_moto, connect};

#[test]
fn a_group_and_its_instances_are_told() {
    against_moto("a_group_and_its_instances_are_told", |moto| {
        let edge = Edge::make(moto, 3);
        let aws = connect();
        let group = aws.group(GROUP).unwrap().expect("the group is there");
        assert_eq!((group.name.as_str(), group.min, group.max, group.desired), (GROUP, 3, 6, 3));
        assert_eq!((group.template_id, group.template_version), (edge.template, 1));
        let mut zones: Vec<&str> = group.instances.iter().map(|instance| instance.zone.as_str()).collect();
        zones.sort_unstable();
        assert_eq!(zones, ["us-east-1a", "us-east-1b", "us-east-1c"]);
        for instance in &group.instances {
            assert_eq!(
                (instance.version, instance.lifecycle.as_str(), instance.health.as_str()),
                (Some(1), "InService", "Healthy")
            );
        }

        let mut ids: Vec<String> = group.instances.iter().map(|instance| instance.id.clone()).collect();
        ids.push("i-00000000000000000".to_owned());
        let addresses = aws.addresses_of(&ids).unwrap();
        assert_eq!(addresses.len(), 4);
        for id in &ids[..3] {
            let address = addresses[id].expect("a running instance has an address");
            assert!(address.to_string().starts_with("10.0."), "{address}");
        }
        assert_eq!(
            addresses["i-00000000000000000"], None,
            "an instance that is gone has no address, and spoils nothing"
        );

        assert_eq!(aws.group("sipedge-other-single-ec2").unwrap(), None);
    });
}

#[test]
fn a_moving_version_is_looked_up() {
    against_moto("a_moving_version_is_looked_up", |moto| {
        let edge = Edge::make(moto, 0);
        let aws = connect();
        for (moving, number) in [("$Latest", 2), ("$Default", 1), ("2", 2)] {
            let template = json!({ "LaunchTemplateId": edge.template, "Version": moving });
            moto.ask(
                "autoscaling",
                "update_auto_scaling_group",
                json!({ "AutoScalingGroupName": GROUP, "LaunchTemplate": template }),
            );
            assert_eq!(aws.group(GROUP).unwrap().unwrap().template_version, number, "{moving}");
        }
        let versions = aws.template_versions(&edge.template).unwrap();
        let told: Vec<(u64, Option<&str>)> =
            versions.iter().map(|version| (version.number, version.description.as_deref())).collect();
        assert_eq!(told, [(1, Some("first")), (2, Some("second"))]);
        assert!(versions[0].created.ends_with('Z') && versions[0].created.len() >= 20, "{}", versions[0].created);
    });
}

#[test]
fn an_instance_on_its_way_in_or_out_is_told_as_such() {
    against_moto("an_instance_on_its_way_in_or_out_is_told_as_such", |moto| {
        moto.wish("appliances", &json!({ "ready_s": null, "drain_s": null }));
        Edge::make(moto, 1);
        let aws = connect();
        let instance = || aws.group(GROUP).unwrap().unwrap().instances.pop().expect("one instance");
        assert_eq!(instance().lifecycle, "Pending:Wait");

        let complete = |hook: &str| {
            let action = json!({
                "AutoScalingGroupName": GROUP, "LifecycleHookName": hook, "InstanceId": instance().id, "LifecycleActionResult": "CONTINUE",
            });
            moto.ask("autoscaling", "complete_lifecycle_action", action);
            moto.advance(5);
        };
        complete("ready");
        assert_eq!(instance().lifecycle, "InService");
        moto.ask(
            "autoscaling",
            "update_auto_scaling_group",
            json!({ "AutoScalingGroupName": GROUP, "MinSize": 0, "DesiredCapacity": 0 }),
        );
        assert_eq!(instance().lifecycle, "Terminating:Wait");
        complete("drain");
        assert_eq!(aws.group(GROUP).unwrap().unwrap().instances, []);
    });
}
