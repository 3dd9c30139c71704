//! The newest image of an account that fits.

mod support;

use std::collections::BTreeMap;

use serde_json::json;
use sipedge_aws::ImageFilter;
use support::{Edge, GROUP, against_moto, connect};

#[test]
fn the_newest_fitting_image_is_found() {
    against_moto("the_newest_fitting_image_is_found", |moto| {
        let tags: BTreeMap<String, String> = [("sipedge:image".to_owned(), "proxy".to_owned())].into();
        let made = |name: &str, architecture: &str, tagged: bool| {
            let image = json!({ "Name": name, "Architecture": architecture, "RootDeviceName": "/dev/xvda" });
            let id = moto.ask("ec2", "register_image", image)["ImageId"].as_str().unwrap().to_owned();
            if tagged {
                moto.ask(
                    "ec2",
                    "create_tags",
                    json!({ "Resources": [id], "Tags": [{ "Key": "sipedge:image", "Value": "proxy" }] }),
                );
            }
            id
        };
        let aws = connect();
        let all = ImageFilter { tags: tags.clone(), ..ImageFilter::default() };
        assert_eq!(aws.newest_image(&all).unwrap(), None);
        let old = made("sipedge-1", "arm64", true);
        // Times of images have whole seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let new = made("sipedge-2", "arm64", true);
        let other = made("sipedge-3", "x86_64", true);
        made("another-thing", "arm64", false);

        let arm = ImageFilter { architecture: Some("arm64".to_owned()), ..all.clone() };
        let found = aws.newest_image(&arm).unwrap().expect("there are images");
        assert_eq!(
            (found.id.as_str(), found.name.as_str(), found.state.as_str()),
            (new.as_str(), "sipedge-2", "available")
        );
        assert_eq!((found.architecture.as_str(), found.tags), ("arm64", tags));
        let ids: Vec<String> = aws.images(&all).unwrap().into_iter().map(|image| image.id).collect();
        assert_eq!((ids.len(), ids[0].as_str()), (3, old.as_str()));
        let named = ImageFilter { name: Some("sipedge-3*".to_owned()), ..ImageFilter::default() };
        assert_eq!(aws.newest_image(&named).unwrap().map(|image| image.id), Some(other));

        assert_eq!(aws.image(&old).unwrap().map(|image| image.name).as_deref(), Some("sipedge-1"));
        assert_eq!(aws.image("ami-00000000000000000").unwrap(), None);
    });
}

#[test]
fn an_instance_takes_its_elastic_ip_when_it_is_let_in() {
    // What the stand-in does for an appliance, so that a deploy of single-ec2 can be followed to its end.
    against_moto("an_instance_takes_its_elastic_ip_when_it_is_let_in", |moto| {
        let edge = Edge::make(moto, 0);
        let allocation = moto.ask("ec2", "allocate_address", json!({ "Domain": "vpc" }))["AllocationId"]
            .as_str()
            .unwrap()
            .to_owned();
        let data = json!({ "ImageId": "ami-33333333", "InstanceType": "c7g.large", "UserData": base64(&format!("cloud: {{ elastic_ip: {allocation} }}")) });
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
            moto.ask("ec2", "describe_addresses", json!({ "AllocationIds": [allocation] }))["Addresses"][0]["InstanceId"].clone()
        };
        moto.advance(15);
        assert_eq!(holder(), serde_json::Value::Null, "it boots");
        moto.advance(30);
        let instance = connect().group(GROUP).unwrap().unwrap().instances[0].id.clone();
        assert_eq!(holder(), json!(instance));
    });
}

/// Base64 (RFC 4648), with padding.
fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |chunk: &[u8]| {
        let bits = (0..3).fold(0, |bits, index| bits << 8 | u32::from(chunk.get(index).copied().unwrap_or_default()));
        let used = chunk.len() + 1;
        (0..4)
            .map(
                move |digit| if digit < used { LETTERS[(bits >> (18 - 6 * digit)) as usize & 63] as char } else { '=' },
            )
            .collect::<String>()
    };
    text.as_bytes().chunks(3).map(digits).collect()
}
