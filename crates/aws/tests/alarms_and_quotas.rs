//! Alarms that are in alarm, and how much of an account is left.

mod support;

use serde_json::json;
use sipedge_aws::AwsError;
use support::{against_moto, connect};

#[test]
fn only_alarms_of_the_edge_that_are_in_alarm_are_told() {
    against_moto("only_alarms_of_the_edge_that_are_in_alarm_are_told", |moto| {
        let aws = connect();
        for name in ["sipedge-bridge-cpu", "sipedge-bridge-hosts", "sipedge-other-cpu"] {
            let alarm = json!({
                "AlarmName": name, "MetricName": "m", "Namespace": "n", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1.0,
                "ComparisonOperator": "GreaterThanThreshold", "Statistic": "Sum",
            });
            moto.ask("cloudwatch", "put_metric_alarm", alarm);
        }
        assert_eq!(aws.alarms_in_alarm("sipedge-bridge-").unwrap(), Vec::<String>::new());
        for name in ["sipedge-bridge-hosts", "sipedge-other-cpu"] {
            moto.wish("alarm", &json!({ "name": name, "state": "ALARM" }));
        }
        assert_eq!(aws.alarms_in_alarm("sipedge-bridge-").unwrap(), ["sipedge-bridge-hosts"]);

        moto.wish("fault", &json!({ "action": "cloudwatch:DescribeAlarms", "code": "AccessDenied", "message": "not allowed", "status": 403 }));
        let denied = aws.alarms_in_alarm("sipedge-bridge-").unwrap_err();
        assert!(
            matches!(&denied, AwsError::AccessDenied { action, .. } if action == "cloudwatch:DescribeAlarms"),
            "{denied}"
        );
    });
}

#[test]
fn quotas_and_what_is_used_of_them_are_told() {
    against_moto("quotas_and_what_is_used_of_them_are_told", |moto| {
        let aws = connect();
        assert_eq!(aws.quota("ec2", "L-0263D0A3").unwrap(), Some(5.0), "AWS's default");
        moto.wish("quota", &json!({ "service": "ec2", "code": "L-0263D0A3", "value": 2.0 }));
        assert_eq!(aws.quota("ec2", "L-0263D0A3").unwrap(), Some(2.0), "the account's own");
        assert_eq!(aws.quota("ec2", "L-00000000").unwrap(), None);

        assert_eq!(aws.elastic_ips_used().unwrap(), 0);
        moto.ask("ec2", "allocate_address", json!({ "Domain": "vpc" }));
        moto.ask("ec2", "allocate_address", json!({ "Domain": "vpc" }));
        assert_eq!(aws.elastic_ips_used().unwrap(), 2);
        let vpcs = aws.vpcs_used().unwrap();
        moto.ask("ec2", "create_vpc", json!({ "CidrBlock": "10.9.0.0/16" }));
        assert_eq!(aws.vpcs_used().unwrap(), vpcs + 1);
        assert_eq!(aws.identity().unwrap().account, "123456789012");
    });
}
