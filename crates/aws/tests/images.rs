//! The newest image of an account that fits.

mod support;

use std::collections::BTreeMap;

use serde_json::json;
use sipedge_aws::ImageFilter;
use support::{against_moto, connect};

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
