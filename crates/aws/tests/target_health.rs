//! What the load balancer thinks of its targets.

mod support;

use serde_json::json;
use sipedge_aws::AwsError;
use support::{Edge, GROUP, against_moto, connect};

#[test]
fn healthy_failing_and_unused_targets_are_told_apart() {
    against_moto("healthy_failing_and_unused_targets_are_told_apart", |moto| {
        let edge = Edge::make(moto, 3);
        let aws = connect();
        let health = aws.target_health(&edge.target_group).unwrap();
        assert_eq!(health.len(), 3);
        assert!(
            health
                .iter()
                .all(|target| target.state == "healthy" && target.port == Some(5060) && target.reason.is_none()),
            "{health:?}"
        );

        let ill = health[1].instance.clone();
        moto.wish("target", &json!({ "instance": ill, "state": "unhealthy" }));
        let told =
            aws.target_health(&edge.target_group).unwrap().into_iter().find(|target| target.instance == ill).unwrap();
        assert_eq!((told.state.as_str(), told.reason.as_deref()), ("unhealthy", Some("Target.FailedHealthChecks")));
        assert_eq!(told.description.as_deref(), Some("Health checks failed"));
        moto.wish("target", &json!({ "instance": ill, "state": null }));
        assert!(aws.target_health(&edge.target_group).unwrap().iter().all(|target| target.state == "healthy"));

        // An instance that drains is no target any more.
        moto.ask(
            "autoscaling",
            "update_auto_scaling_group",
            json!({ "AutoScalingGroupName": GROUP, "MinSize": 0, "DesiredCapacity": 2 }),
        );
        assert_eq!(aws.target_health(&edge.target_group).unwrap().len(), 2);

        // A target group without a listener.
        let vpc = moto.ask(
            "ec2",
            "describe_subnets",
            json!({ "Filters": [{ "Name": "cidr-block", "Values": ["10.0.0.0/24"] }] }),
        )["Subnets"][0]["VpcId"]
            .clone();
        let lonely = moto.ask(
            "elbv2",
            "create_target_group",
            json!({ "Name": "lonely", "Protocol": "UDP", "Port": 5060, "VpcId": vpc, "HealthCheckProtocol": "TCP" }),
        );
        let lonely = lonely["TargetGroups"][0]["TargetGroupArn"].as_str().unwrap().to_owned();
        let instance = aws.group(GROUP).unwrap().unwrap().instances[0].id.clone();
        moto.ask("elbv2", "register_targets", json!({ "TargetGroupArn": lonely, "Targets": [{ "Id": instance }] }));
        let told = aws.target_health(&lonely).unwrap();
        assert_eq!((told[0].state.as_str(), told[0].reason.as_deref()), ("unused", Some("Target.NotInUse")));

        let none =
            aws.target_health("arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/none/0123456789abcdef");
        assert!(matches!(none, Err(AwsError::NotFound { .. })), "{none:?}");
    });
}
