//! An instance with an Elastic IP takes it before it is let in.

mod support;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use serde_json::json;
use support::{Edge, GROUP, against_moto, connect};

#[test]
fn an_instance_takes_its_elastic_ip_when_it_is_let_in() {
    // What the stand-in does for an appliance, so that a deploy of single-ec2 can be followed to its end.
    against_moto("an_instance_takes_its_elastic_ip_when_it_is_let_in", |moto| {
        let edge = Edge::make(moto, 0);
        let allocation = moto.ask("ec2", "allocate_address", json!({ "Domain": "vpc" }))["AllocationId"]
            .as_str()
            .unwrap()
            .to_owned();
        let data = json!({ "ImageId": "ami-33333333", "InstanceType": "c7g.large", "UserData": STANDARD.encode(format!("cloud: {{ elastic_ip: {allocation} }}")) });
        moto.ask(
            "ec2",
            "create_launch_template_version",
            json!({ "LaunchTemplateId": edge.template, "LaunchTemplateData": data }),
        );
        let template = json!({ "LaunchTemplateId": edge.template, "Version": "3" });
        moto.ask(
            "autoscaling",
            "update_auto_scaling_group",
            json!({ "AutoScalingGroupName": GROUP, "LaunchTemplate": template, "DesiredCapacity": 1 }),
        );
        let holder = || {
            moto.ask("ec2", "describe_addresses", json!({ "AllocationIds": [allocation] }))["Addresses"][0]["InstanceId"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        moto.advance(15);
        assert_eq!(holder(), "", "it boots");
        moto.advance(30);
        let instance = connect().group(GROUP).unwrap().unwrap().instances[0].id.clone();
        assert_eq!(holder(), instance);
    });
}
