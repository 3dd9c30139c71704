//! Secrets are made, read, rotated and removed; none is in an error, in a description, or in what the SDK would log.

mod support;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use serde_json::json;
use sipedge_aws::AwsError;
use support::{against_moto, connect};
use tracing_subscriber::fmt::MakeWriter;

const PREFIX: &str = "/sipedge/bridge/load-balanced";
const PLANTED: &str = "planted-9f2c51-secret";

/// Tags of an edge.
fn tags() -> BTreeMap<String, String> {
    [("sipedge:edge", "bridge"), ("sipedge:topology", "load-balanced")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

#[test]
fn secrets_are_made_read_rotated_and_removed() {
    against_moto("secrets_are_made_read_rotated_and_removed", |moto| {
        let aws = connect();
        let (keys, password) = (format!("{PREFIX}/token-keys"), format!("{PREFIX}/answerer"));
        assert_eq!(aws.secret(&keys).unwrap(), None);
        assert_eq!(aws.put_secret(&keys, "first", &tags()).unwrap(), 1);
        assert_eq!(aws.put_secret(&password, "second\nline", &tags()).unwrap(), 1);
        aws.put_secret("/sipedge/bridge-two/load-balanced/answerer", "another edge's", &tags()).unwrap();

        let told = moto.ask(
            "ssm",
            "describe_parameters",
            json!({ "ParameterFilters": [{ "Key": "Name", "Values": [keys] }] }),
        );
        assert_eq!(told["Parameters"][0]["Type"], "SecureString", "{told}");
        let tagged =
            moto.ask("ssm", "list_tags_for_resource", json!({ "ResourceType": "Parameter", "ResourceId": keys }));
        assert_eq!(tagged["TagList"].as_array().map(Vec::len), Some(2), "{tagged}");

        let more: BTreeMap<String, String> = [("rotated".to_owned(), "yes".to_owned())].into();
        assert_eq!(aws.put_secret(&keys, "rotated", &more).unwrap(), 2);
        assert_eq!(aws.secret(&keys).unwrap().as_deref(), Some("rotated"));
        assert_eq!(aws.secret(&password).unwrap().as_deref(), Some("second\nline"));
        let tagged =
            moto.ask("ssm", "list_tags_for_resource", json!({ "ResourceType": "Parameter", "ResourceId": keys }));
        assert_eq!(tagged["TagList"].as_array().map(Vec::len), Some(3), "the tags that it had stay: {tagged}");

        let below = aws.secrets_below(PREFIX).unwrap();
        let names: Vec<(&str, u64)> = below.iter().map(|secret| (secret.name.as_str(), secret.version)).collect();
        assert_eq!(names, [(password.as_str(), 1), (keys.as_str(), 2)]);
        assert!(
            below.iter().all(|secret| secret.modified.as_deref().is_some_and(|time| time.ends_with('Z'))),
            "{below:?}"
        );

        // More than one call takes, and one that is not there.
        let many: Vec<String> = (0..12).map(|number| format!("{PREFIX}/certificates/{number}")).collect();
        for name in &many {
            aws.put_secret(name, "pem", &tags()).unwrap();
        }
        assert_eq!(aws.secrets_below(PREFIX).unwrap().len(), 14);
        let all: Vec<String> = many.into_iter().chain([keys, password, format!("{PREFIX}/none")]).collect();
        aws.delete_secrets(&all).unwrap();
        assert_eq!(aws.secrets_below(PREFIX).unwrap(), []);
        assert_eq!(aws.secrets_below("/sipedge/bridge-two").unwrap().len(), 1, "another edge's secrets stay");
    });
}

#[test]
fn a_secret_that_is_there_is_not_made_again() {
    against_moto("a_secret_that_is_there_is_not_made_again", |moto| {
        let aws = connect();
        let keys = format!("{PREFIX}/token-keys");
        assert!(aws.make_secret(&keys, "first", &tags()).unwrap());
        assert!(!aws.make_secret(&keys, "second", &tags()).unwrap(), "somebody else was first");
        assert_eq!(aws.secret(&keys).unwrap().as_deref(), Some("first"));
        let tagged =
            moto.ask("ssm", "list_tags_for_resource", json!({ "ResourceType": "Parameter", "ResourceId": keys }));
        assert_eq!(tagged["TagList"].as_array().map(Vec::len), Some(2), "{tagged}");
        let error = aws.make_secret(&format!("{PREFIX}/answerer"), &PLANTED.repeat(500), &tags()).unwrap_err();
        assert!(matches!(error, AwsError::SecretTooLong { .. }), "{error}");
        nowhere(&error);
    });
}

#[test]
fn a_long_certificate_fits_and_a_longer_one_is_refused_before_it_is_sent() {
    against_moto("a_long_certificate_fits_and_a_longer_one_is_refused_before_it_is_sent", |moto| {
        let aws = connect();
        let name = format!("{PREFIX}/certificates/edge");
        aws.put_secret(&name, &"x".repeat(8192), &tags()).unwrap();
        assert_eq!(aws.secret(&name).unwrap().map(|value| value.len()), Some(8192));
        let asked = moto.calls("ssm:PutParameter");
        let error = aws.put_secret(&name, &PLANTED.repeat(500), &tags()).unwrap_err();
        assert!(matches!(error, AwsError::SecretTooLong { bytes: 10_500, most: 8192, .. }), "{error}");
        assert_eq!(moto.calls("ssm:PutParameter"), asked);
        nowhere(&error);
    });
}

#[test]
fn no_secret_is_in_an_error_or_a_log() {
    against_moto("no_secret_is_in_an_error_or_a_log", |moto| {
        let log = Log::default();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let aws = connect();
            let name = format!("{PREFIX}/token-keys");
            aws.put_secret(&name, PLANTED, &tags()).unwrap();
            aws.put_secret(&name, PLANTED, &tags()).unwrap();
            assert_eq!(aws.secret(&name).unwrap().as_deref(), Some(PLANTED));
            assert!(!format!("{aws:?}").contains(PLANTED));
            assert!(!format!("{:?}", aws.secrets_below(PREFIX).unwrap()).contains(PLANTED));

            let quoted =
                format!("1 validation error detected: Value '{PLANTED}' at 'value' failed to satisfy constraint");
            for (code, message) in
                [("ValidationException", quoted.as_str()), ("AccessDeniedException", &format!("no {PLANTED} for you"))]
            {
                moto.wish(
                    "fault",
                    &json!({ "action": "ssm:PutParameter", "code": code, "message": message, "times": 1 }),
                );
                nowhere(&aws.put_secret(&name, PLANTED, &tags()).unwrap_err());
            }
        });
        let log = log.text();
        assert!(
            log.contains("DescribeParameters"),
            "the log is one of the SDK's, at its most talkative: {} bytes",
            log.len()
        );
        assert!(!log.contains(PLANTED), "the secret is in the log");
        // Bytes are written as numbers, too.
        let numbers = PLANTED.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
        assert!(!log.contains(&numbers), "the secret is in the log, as numbers");
    });
}

/// The planted secret is in no form of the error.
fn nowhere(error: &AwsError) {
    assert!(!error.to_string().contains(PLANTED), "{error}");
    assert!(!format!("{error:?}").contains(PLANTED), "{error:?}");
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("it is there")).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("it is there").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
