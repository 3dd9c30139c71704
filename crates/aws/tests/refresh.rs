//! An instance refresh: to its end, back again, cut short, failed by an alarm.

mod support;

use std::time::Duration;

use serde_json::json;
use sipedge_aws::{Aws, AwsError, Refresh, RefreshPreferences};
use support::moto::{Moto, until};
use support::{Edge, GROUP, against_moto, connect, preferences};

/// For what AWS does within minutes, and moto within seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// The newest refresh.
fn newest(aws: &Aws) -> Refresh {
    aws.refresh(GROUP, None).expect("it is there").expect("there is a refresh")
}

/// Waits for a status while AWS's time passes.
fn reach(moto: &Moto, aws: &Aws, status: &str) -> Refresh {
    until(&format!("status {status}"), LIMIT, || {
        moto.advance(5);
        Some(newest(aws)).filter(|refresh| refresh.status == status)
    })
}

/// Waits for the checkpoint.
fn reach_checkpoint(moto: &Moto, aws: &Aws) -> Refresh {
    until("the checkpoint", LIMIT, || {
        moto.advance(5);
        Some(newest(aws)).filter(|refresh| refresh.checkpoint().is_some())
    })
}

/// Versions of the instances, sorted.
fn versions(aws: &Aws) -> Vec<Option<u64>> {
    let mut versions: Vec<_> = aws
        .group(GROUP)
        .expect("it is there")
        .expect("it is there")
        .instances
        .iter()
        .map(|instance| instance.version)
        .collect();
    versions.sort_unstable();
    versions
}

#[test]
fn a_refresh_replaces_every_instance_and_moves_the_group() {
    against_moto("a_refresh_replaces_every_instance_and_moves_the_group", |moto| {
        let edge = Edge::make(moto, 3);
        let aws = connect();
        let before: Vec<String> =
            aws.group(GROUP).unwrap().unwrap().instances.into_iter().map(|instance| instance.id).collect();
        assert_eq!(aws.refresh(GROUP, None).unwrap(), None);

        let id = aws.start_refresh(GROUP, &edge.template, 2, &preferences()).unwrap();
        let started = newest(&aws);
        assert_eq!((started.id.as_str(), started.version), (id.as_str(), Some(2)));
        assert_eq!((started.checkpoints.as_slice(), started.checkpoint_delay_s), ([1, 100].as_slice(), 300));
        assert!(!started.is_final());
        assert_eq!(
            aws.start_refresh(GROUP, &edge.template, 2, &preferences()).unwrap_err().to_string(),
            format!(
                "autoscaling:StartInstanceRefresh in us-east-1: an instance refresh of this group is in progress; follow it with `sipedge status --watch`, or end it with `sipedge rollback`"
            )
        );

        let waiting = reach_checkpoint(moto, &aws);
        assert_eq!((waiting.checkpoint(), waiting.percent, waiting.instances_to_update), (Some(1), 33, 2));
        assert_eq!(
            aws.group(GROUP).unwrap().unwrap().template_version,
            1,
            "the group moves with the refresh's success"
        );
        moto.advance(300);
        reach(moto, &aws, "Baking");
        let done = reach(moto, &aws, "Successful");
        assert!(done.is_final() && done.ended.is_some());
        assert_eq!((done.percent, done.instances_to_update), (100, 0));

        let group = aws.group(GROUP).unwrap().unwrap();
        assert_eq!((group.template_version, versions(&aws)), (2, vec![Some(2); 3]));
        assert!(
            group.instances.iter().all(|instance| !before.contains(&instance.id)),
            "{before:?} {:?}",
            group.instances
        );
        assert_eq!(aws.refresh(GROUP, Some(&id)).unwrap().unwrap().status, "Successful");

        aws.start_refresh(GROUP, &edge.template, 2, &preferences()).unwrap();
        assert_eq!(reach(moto, &aws, "Successful").instances_to_update, 0, "instances of that version stay");
    });
}

#[test]
fn a_refresh_is_turned_back_from_its_checkpoint() {
    against_moto("a_refresh_is_turned_back_from_its_checkpoint", |moto| {
        let edge = Edge::make(moto, 3);
        let aws = connect();
        assert!(matches!(aws.roll_back_refresh(GROUP), Err(AwsError::NoRefreshInProgress { .. })));
        aws.start_refresh(GROUP, &edge.template, 2, &preferences()).unwrap();
        reach_checkpoint(moto, &aws);
        assert!(versions(&aws).contains(&Some(2)), "one instance is new");
        aws.roll_back_refresh(GROUP).unwrap();
        reach(moto, &aws, "RollbackInProgress");
        let back = reach(moto, &aws, "RollbackSuccessful");
        assert!(back.is_final());
        assert_eq!(versions(&aws), [Some(1); 3]);
        assert_eq!(aws.group(GROUP).unwrap().unwrap().template_version, 1);
    });
}

#[test]
fn a_cancelled_refresh_leaves_what_it_has_replaced() {
    against_moto("a_cancelled_refresh_leaves_what_it_has_replaced", |moto| {
        let edge = Edge::make(moto, 3);
        let aws = connect();
        assert!(matches!(aws.cancel_refresh(GROUP), Err(AwsError::NoRefreshInProgress { .. })));
        aws.start_refresh(GROUP, &edge.template, 2, &preferences()).unwrap();
        reach_checkpoint(moto, &aws);
        aws.cancel_refresh(GROUP).unwrap();
        reach(moto, &aws, "Cancelled");
        until("the old instance's end", LIMIT, || {
            moto.advance(5);
            (versions(&aws) == [Some(1), Some(1), Some(2)]).then_some(())
        });
        assert_eq!(
            aws.group(GROUP).unwrap().unwrap().template_version,
            1,
            "new instances are of the old version again"
        );
    });
}

#[test]
fn an_alarm_or_a_version_that_never_gets_ready_turns_a_refresh_back() {
    against_moto("an_alarm_or_a_version_that_never_gets_ready_turns_a_refresh_back", |moto| {
        let edge = Edge::make(moto, 2);
        let aws = connect();
        let alarm = "sipedge-bridge-load-balanced-errors";
        let made = json!({
            "AlarmName": alarm, "MetricName": "m", "Namespace": "n", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1.0,
            "ComparisonOperator": "GreaterThanThreshold", "Statistic": "Sum",
        });
        moto.ask("cloudwatch", "put_metric_alarm", made);
        let wished = RefreshPreferences { alarms: vec![alarm.to_owned()], ..preferences() };
        aws.start_refresh(GROUP, &edge.template, 2, &wished).unwrap();
        reach_checkpoint(moto, &aws);
        moto.wish("alarm", &json!({ "name": alarm, "state": "ALARM" }));
        let back = reach(moto, &aws, "RollbackSuccessful");
        assert!(back.reason.as_deref().unwrap_or_default().contains(alarm), "{back:?}");

        moto.wish("appliances", &json!({ "broken_versions": [2] }));
        aws.start_refresh(GROUP, &edge.template, 2, &preferences()).unwrap();
        let back = until("the rollback", LIMIT, || {
            moto.advance(100);
            Some(newest(&aws)).filter(Refresh::is_final)
        });
        assert_eq!(back.status, "RollbackSuccessful", "{back:?}");
        assert_eq!(versions(&aws), [Some(1); 2]);

        moto.wish("appliances", &json!({ "broken_versions": [] }));
        aws.start_refresh(GROUP, &edge.template, 2, &RefreshPreferences { auto_rollback: false, ..preferences() })
            .unwrap();
        reach_checkpoint(moto, &aws);
        moto.wish("refresh/fail", &json!({ "group": GROUP, "reason": "the test wished it" }));
        assert_eq!(reach(moto, &aws, "Failed").reason.as_deref(), Some("the test wished it"));
    });
}

#[test]
fn what_aws_refuses_is_refused() {
    against_moto("what_aws_refuses_is_refused", |moto| {
        let edge = Edge::make(moto, 1);
        let aws = connect();
        let refusal = |change: fn(&mut RefreshPreferences)| {
            let mut wished = preferences();
            change(&mut wished);
            let error = aws.start_refresh(GROUP, &edge.template, 2, &wished).expect_err("AWS refuses this");
            assert_eq!(error.code(), Some("ValidationError"), "{error}");
            error.to_string()
        };
        assert!(refusal(|wished| wished.max_healthy_percent = 99).contains("99 is not within 100 and 200"));
        assert!(refusal(|wished| wished.checkpoints = vec![50, 20, 100]).contains("ascending"));
        assert!(refusal(|wished| wished.min_healthy_percent = 20).contains("greater than 100"));
        let missing = aws.start_refresh(GROUP, &edge.template, 9, &preferences()).unwrap_err();
        assert!(missing.to_string().contains("version 9"), "{missing}");
        let elsewhere = aws.start_refresh("sipedge-none", &edge.template, 2, &preferences()).unwrap_err();
        assert!(matches!(elsewhere, AwsError::NotFound { .. }), "{elsewhere}");

        // A group that follows $Latest has no version to go back to.
        let template = json!({ "LaunchTemplateId": edge.template, "Version": "$Latest" });
        moto.ask(
            "autoscaling",
            "update_auto_scaling_group",
            json!({ "AutoScalingGroupName": GROUP, "LaunchTemplate": template }),
        );
        aws.start_refresh(GROUP, &edge.template, 2, &RefreshPreferences { skip_matching: false, ..preferences() })
            .unwrap();
        moto.advance(5);
        assert_eq!(aws.roll_back_refresh(GROUP).unwrap_err().code(), Some("IrreversibleInstanceRefresh"));
    });
}
