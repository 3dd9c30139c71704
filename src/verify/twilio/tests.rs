//! The account as the environment has it.

use super::*;

const SOUND: [(&str, &str); 4] = [
    ("TWILIO_ACCOUNT_SID", "AC00000000000000000000000000000000"),
    ("TWILIO_AUTH_TOKEN", "planted-token"),
    ("TWILIO_FROM", "+15005550006"),
    ("TWILIO_TO", "sip:+15551234567@example.com"),
];

fn account(changes: &[(&str, &str)]) -> Result<Account, TwilioError> {
    let settings: std::collections::BTreeMap<&str, &str> = SOUND.iter().chain(changes).copied().collect();
    Account::from_environment(|name| settings.get(name).map(|value| (*value).to_owned()))
}

#[test]
fn everything_that_is_missing_is_said_at_once() {
    let error = Account::from_environment(|_| None).expect_err("nothing is set");
    let names = vec!["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_FROM", "TWILIO_TO"];
    assert_eq!(error, TwilioError::Missing { names });
    let error = account(&[("TWILIO_API_KEY", "SK1")]).expect_err("a key without its secret");
    assert_eq!(error, TwilioError::Missing { names: vec!["TWILIO_API_SECRET"] });
    assert!(account(&[("TWILIO_ACCOUNT_SID", "AC1/../x")]).is_err());
}

#[test]
fn credentials_go_nowhere_in_the_clear_and_into_no_text() {
    for (base, is_right) in [
        ("https://api.dublin.ie1.twilio.com", true),
        ("http://127.0.0.1:8080", true),
        ("http://localhost:8080", true),
        ("http://api.twilio.com", false),
        ("https://user:secret@api.twilio.com", false),
        ("ftp://127.0.0.1", false),
        ("api.twilio.com", false),
    ] {
        assert_eq!(account(&[("TWILIO_API_BASE", base)]).is_ok(), is_right, "{base}");
    }
    let account = account(&[]).expect("sound");
    assert!(!format!("{account:?}").contains("planted"), "{account:?}");
}
