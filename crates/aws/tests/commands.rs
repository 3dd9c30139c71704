//! A command on several instances: each one's answer, or why there is none; one that cannot be asked keeps nobody else from answering.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use sipedge_aws::{AwsError, CommandAnswer};
use support::{Edge, GROUP, against_moto, connect};

const WITHIN: Duration = Duration::from_secs(10);

/// For what is not to be answered.
const BRIEFLY: Duration = Duration::from_millis(1_500);

#[test]
fn each_instance_answers_for_itself() {
    against_moto("each_instance_answers_for_itself", |moto| {
        Edge::make(moto, 4);
        let aws = connect();
        let instances = aws.group(GROUP).unwrap().expect("the group is there").instances;
        let ids: Vec<String> = instances.into_iter().map(|instance| instance.id).collect();
        let [good, bad, late, slow] = ids.as_slice() else { panic!("four instances: {ids:?}") };
        moto.wish("agent", &json!({ "instance": good, "output": "it works\n" }));
        moto.wish("agent", &json!({ "instance": bad, "code": 3, "output": "", "error": "it does not\n" }));
        let answers = aws.run_on(&ids[..2], "works", "a test", WITHIN).unwrap();
        assert_eq!(answers[good], Ok(CommandAnswer::Output("it works\n".to_owned())));
        let failed =
            CommandAnswer::Failed { how: "Failed".to_owned(), code: Some(3), error: "it does not\n".to_owned() };
        assert_eq!(answers[bad], Ok(failed));
        assert_eq!(moto.calls("ssm:SendCommand"), 1, "one command for all");
        let sent = moto.ask("ssm", "list_commands", json!({}))["Commands"][0].clone();
        assert_eq!(sent["Parameters"]["commands"], json!(["works"]), "{sent}");
        assert_eq!((&sent["Comment"], &sent["MaxErrors"]), (&json!("a test"), &json!("100%")), "{sent}");

        moto.wish("agent", &json!({ "instance": late, "state": "late" }));
        moto.wish("agent", &json!({ "instance": slow, "state": "slow" }));
        let begun = Instant::now();
        let answers = aws.run_on(&ids[2..], "works", "a test", BRIEFLY).unwrap();
        assert!(begun.elapsed() < BRIEFLY + Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(answers[late], Ok(CommandAnswer::Late { taken: false }));
        assert_eq!(answers[slow], Ok(CommandAnswer::Late { taken: true }));

        // AWS refuses a command as a whole when it names one of these.
        moto.wish("agent", &json!({ "instance": late, "state": "lost" }));
        moto.wish("agent", &json!({ "instance": slow, "state": "none" }));
        moto.wish("agent", &json!({ "instance": bad, "code": 0, "output": "now it does" }));
        let answers = aws.run_on(&ids, "works", "a test", WITHIN).unwrap();
        let told: Vec<_> = ids.iter().map(|id| answers[id].clone()).collect();
        let expected = [
            CommandAnswer::Output("it works\n".to_owned()),
            CommandAnswer::Output("now it does".to_owned()),
            CommandAnswer::Silent,
            CommandAnswer::NotManaged,
        ];
        assert_eq!(told, expected.map(Ok));
    });
}

#[test]
fn more_instances_than_a_command_takes_are_asked_by_several() {
    against_moto("more_instances_than_a_command_takes_are_asked_by_several", |moto| {
        let ids: Vec<String> = (0..51).map(|number| format!("i-{number:017x}")).collect();
        let answers = connect().run_on(&ids, "works", "a test", WITHIN).unwrap();
        assert_eq!(answers.len(), 51);
        assert!(answers.values().all(|answer| *answer == Ok(CommandAnswer::NotManaged)), "{answers:?}");
        assert_eq!((moto.calls("ssm:SendCommand"), moto.calls("ssm:DescribeInstanceInformation")), (2, 2));
    });
}

#[test]
fn a_missing_permission_is_named() {
    against_moto("a_missing_permission_is_named", |moto| {
        Edge::make(moto, 1);
        let aws = connect();
        let group = aws.group(GROUP).unwrap().expect("the group is there");
        let ids: Vec<String> = group.instances.into_iter().map(|instance| instance.id).collect();
        let denied = |action: &str, times: Option<u32>| {
            let fault = json!({ "action": action, "code": "AccessDeniedException", "message": "no", "times": times });
            moto.wish("fault", &fault);
        };
        let action = |error: AwsError| match error {
            AwsError::AccessDenied { action, .. } => action,
            other => panic!("{other}"),
        };
        denied("ssm:GetCommandInvocation", None);
        let answers = aws.run_on(&ids, "works", "a test", WITHIN).unwrap();
        assert_eq!(action(answers[&ids[0]].clone().expect_err("it may not be seen")), "ssm:GetCommandInvocation");
        moto.wish("agent", &json!({ "instance": "*", "state": "none" }));
        denied("ssm:DescribeInstanceInformation", None);
        let error = aws.run_on(&ids, "works", "a test", WITHIN).expect_err("nobody can be asked");
        assert_eq!(action(error), "ssm:DescribeInstanceInformation");
        denied("ssm:SendCommand", None);
        let error = aws.run_on(&ids, "works", "a test", WITHIN).expect_err("nobody can be asked");
        assert_eq!(action(error), "ssm:SendCommand");
    });
}
