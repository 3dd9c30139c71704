//! Every error that an account, a machine or a network can give: told apart, with what to do, and without a secret.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sipedge_aws::{Aws, AwsError};
use support::moto::{Moto, REGION};
use support::{GROUP, against_moto, connect, preferences, refused, settings, with_environment};

/// Stands for the secret part of an access key.
const PLANTED: &str = "planted-7c1be2-secret";

/// Credentials that nothing asks about.
const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", PLANTED)];

/// A profile of IAM Identity Center.
const SSO_PROFILE: &str = "[profile telephony]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = edge\nregion = us-east-1\n\
    [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.awsapps.com/start\n";

#[test]
fn no_credentials() {
    with_environment("no_credentials", &[], "", || {
        let error = refused(REGION, None);
        assert!(matches!(error, AwsError::NoCredentials { profile: None, .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "no AWS credentials: neither the environment, nor a profile, nor a role of this machine has any; log in with `aws sso login`, or set \
             AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name another profile in aws.profile of the spec"
        );
        assert_eq!(refused(REGION, Some("default")), error, "the profile `default` is what is taken anyway");
    });
}

#[test]
fn no_such_profile() {
    with_environment("no_such_profile", &KEYS, "[profile telephony]\nregion = us-east-1\n", || {
        let error = refused(REGION, Some("telefony"));
        let home = std::env::var("HOME").unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "there is no profile `telefony` in {home}/.aws/config or {home}/.aws/credentials; make it with `aws configure sso --profile \
                 telefony`, or name another one in aws.profile of the spec"
            )
        );
        // It is there, but empty: the environment's keys are not taken for it.
        let error = refused(REGION, Some("telephony"));
        assert_eq!(
            error.to_string(),
            "no AWS credentials of profile `telephony`: the profile has no credentials in it; log in with `aws sso login --profile telephony`, or \
             set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name another profile in aws.profile of the spec"
        );
    });
}

#[test]
fn a_profile_that_the_environment_names() {
    with_environment(
        "a_profile_that_the_environment_names",
        &[("AWS_PROFILE", "telefony")],
        "[profile telephony]\n",
        || {
            let error = refused(REGION, None);
            assert!(matches!(&error, AwsError::NoSuchProfile { profile, .. } if profile == "telefony"), "{error:?}");
        },
    );
}

#[test]
fn an_sso_session_that_has_expired_or_was_never_opened() {
    with_environment("an_sso_session_that_has_expired_or_was_never_opened", &[], SSO_PROFILE, || {
        let expected = "the SSO session of profile `telephony` has expired or was never opened; run `aws sso login --profile telephony` and repeat \
                        the command";
        assert_eq!(refused(REGION, Some("telephony")).to_string(), expected, "no token");

        // The cache file's name is the SHA-1 of the session's name.
        let cache = std::path::PathBuf::from(std::env::var_os("HOME").unwrap()).join(".aws/sso/cache");
        std::fs::create_dir_all(&cache).unwrap();
        let token = json!({ "accessToken": PLANTED, "expiresAt": "2024-01-01T00:00:00Z", "region": "us-east-1" });
        std::fs::write(cache.join("ee0bfd2552fbd840c02cc48b6e823320543c450f.json"), token.to_string()).unwrap();
        let error = refused(REGION, Some("telephony"));
        assert_eq!(error.to_string(), expected, "an old token");
        assert!(!format!("{error:?}").contains(PLANTED), "{error:?}");
    });
}

#[test]
fn a_region_that_is_not_there() {
    with_environment("a_region_that_is_not_there", &KEYS, "", || {
        assert_eq!(
            refused("us-esat-1", None).to_string(),
            "there is no AWS region `us-esat-1` (did you mean `us-east-1`?); correct aws.region in the spec"
        );
        assert_eq!(
            refused("Frankfurt", None).to_string(),
            "there is no AWS region `Frankfurt`; correct aws.region in the spec"
        );
    });
}

#[test]
fn an_endpoint_that_nothing_answers_at() {
    // Port 1 of loopback: refused at once.
    let variables = [KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL", "http://127.0.0.1:1")];
    with_environment("an_endpoint_that_nothing_answers_at", &variables, "", || {
        let aws = connect();
        let began = Instant::now();
        let error = aws.identity().unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        let AwsError::Unreachable { at, endpoint, reason } = &error else { panic!("{error:?}") };
        assert_eq!((at.operation, endpoint.as_str()), ("sts:GetCallerIdentity", "http://127.0.0.1:1"));
        assert!(reason.contains("onnection refused"), "{reason}");
        assert!(!format!("{aws:?} {error:?} {error}").contains(PLANTED));
    });
}

#[test]
fn an_endpoint_that_is_not_aws() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let page = "<html>Please log in to the hotel's network</html>";
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}", page.len());
        }
    });
    let variables = [KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL", url.as_str())];
    with_environment("an_endpoint_that_is_not_aws", &variables, "", || {
        let error = connect().identity().unwrap_err();
        assert!(matches!(error, AwsError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("what answers there is not AWS"), "{error}");
    });
}

/// Has the server answer an action with an error.
fn fault(moto: &Moto, action: &str, code: &str, message: &str, times: Value) {
    moto.wish("fault", &json!({ "action": action, "code": code, "message": message, "status": 400, "times": times }));
}

#[test]
fn errors_of_the_services_are_told_apart() {
    against_moto("errors_of_the_services_are_told_apart", |moto| {
        let aws = connect();
        let told = |action: &str, code: &str, message: &str, ask: &dyn Fn(&Aws) -> AwsError| {
            fault(moto, action, code, message, json!(1));
            ask(&aws).to_string()
        };
        let start = |aws: &Aws| aws.start_refresh(GROUP, "lt-0123456789abcdef0", 2, &preferences()).unwrap_err();
        let versions = |aws: &Aws| aws.template_versions("lt-0123456789abcdef0").unwrap_err();
        let identity = |aws: &Aws| aws.identity().unwrap_err();
        assert_eq!(
            told(
                "ec2:DescribeLaunchTemplateVersions",
                "UnauthorizedOperation",
                "You are not authorized to perform this operation. Encoded authorization failure message: AbCdEf",
                &versions
            ),
            "ec2:DescribeLaunchTemplateVersions in us-east-1: access denied: the credentials' policies do not allow \
             ec2:DescribeLaunchTemplateVersions; have it allowed, or use another profile. AWS says: You are not authorized to perform this operation."
        );
        assert_eq!(
            told("autoscaling:StartInstanceRefresh", "LimitExceeded", "You have reached your limit.", &start),
            "autoscaling:StartInstanceRefresh in us-east-1: a quota of the account is used up (LimitExceeded): You have reached your limit.; \
             remove what is unused, or ask for more under Service Quotas"
        );
        assert_eq!(
            told(
                "sts:GetCallerIdentity",
                "ExpiredToken",
                "The security token included in the request is expired",
                &identity
            ),
            "sts:GetCallerIdentity in us-east-1: the credentials have expired (ExpiredToken); get new ones (`aws sso login`) and repeat the command"
        );
        assert_eq!(
            told(
                "sts:GetCallerIdentity",
                "InvalidClientTokenId",
                "The security token included in the request is invalid",
                &identity
            ),
            "sts:GetCallerIdentity in us-east-1: AWS refuses the credentials (InvalidClientTokenId): the access key was deleted or mistyped, this \
             machine's clock is wrong, or the region is not enabled in the account (`aws sts get-caller-identity` tells)"
        );
        assert_eq!(
            told(
                "ec2:DescribeLaunchTemplateVersions",
                "OptInRequired",
                "You are not subscribed to this service.",
                &versions
            ),
            "ec2:DescribeLaunchTemplateVersions in us-east-1: the region is not enabled in this account; enable it (`aws account enable-region \
             --region-name us-east-1`) or name another one in aws.region of the spec"
        );
        assert_eq!(
            told("autoscaling:StartInstanceRefresh", "SomethingNew", "It is <new> & strange.", &start),
            "autoscaling:StartInstanceRefresh in us-east-1: SomethingNew: It is <new> & strange. (request 11111111-2222-3333-4444-555555555555)"
        );
        let gone = versions(&aws);
        assert!(matches!(gone, AwsError::NotFound { .. }), "{gone:?}");
        let secret = told("ssm:GetParameter", "AccessDeniedException", "User is not authorized", &|aws| {
            aws.secret("/sipedge/a/b/c").unwrap_err()
        });
        assert!(secret.starts_with("ssm:GetParameter in us-east-1: access denied"), "{secret}");
    });
}

#[test]
fn throttled_calls_are_repeated_before_they_are_given_up() {
    against_moto("throttled_calls_are_repeated_before_they_are_given_up", |moto| {
        let aws = connect();
        fault(moto, "autoscaling:DescribeAutoScalingGroups", "Throttling", "Rate exceeded", json!(1));
        assert_eq!(aws.group(GROUP).unwrap(), None, "once is nothing");
        assert_eq!(moto.calls("autoscaling:DescribeAutoScalingGroups"), 2);

        fault(moto, "autoscaling:DescribeAutoScalingGroups", "Throttling", "Rate exceeded", Value::Null);
        let error = aws.group(GROUP).unwrap_err();
        assert_eq!(
            error.to_string(),
            "autoscaling:DescribeAutoScalingGroups in us-east-1: AWS asks for fewer calls (Throttling), and went on doing so; something else in \
             this account calls a lot: wait a minute and repeat the command"
        );
        assert_eq!(moto.calls("autoscaling:DescribeAutoScalingGroups"), 5);
    });
}

#[test]
fn a_named_profile_is_taken_before_the_environment_and_told_in_errors() {
    against_moto("a_named_profile_is_taken_before_the_environment_and_told_in_errors", |moto| {
        let profile = "[profile telephony]\naws_access_key_id = AKIATELEPHONY\naws_secret_access_key = planted\n";
        std::fs::write(moto.home().join(".aws/config"), profile).unwrap();
        let settings = sipedge_aws::Settings { profile: Some("telephony".to_owned()), ..settings() };
        let aws = Aws::connect(&settings).unwrap();
        assert_eq!((aws.profile(), aws.region()), (Some("telephony"), REGION));
        fault(moto, "sts:GetCallerIdentity", "ExpiredToken", "expired", json!(1));
        let error = aws.identity().unwrap_err().to_string();
        assert!(error.starts_with("sts:GetCallerIdentity in us-east-1 (profile telephony): "), "{error}");
        assert!(error.contains("`aws sso login --profile telephony`"), "{error}");
    });
}
