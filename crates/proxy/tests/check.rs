//! `sipedge-proxy check`: what it accepts, and the messages for what it refuses, word for word.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::process::Command;

use process::{config, user_data};
use sipedge_proxy::boot::{self, BootError};
use sipedge_proxy::config::{Advertise, Config, SecretRef};

fn good() -> Config {
    config("10.0.0.5".parse().unwrap(), "192.0.2.10".parse().unwrap(), "198.51.100.7:5060".parse().unwrap())
}

fn check(text: &str, arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.yaml"), text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sipedge-proxy"))
        .current_dir(folder.path())
        .args(["check", "config.yaml"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_good_file_and_good_user_data_are_summed_up() {
    let summary = "OK: config.yaml: edge \"test\", ingress port 5060, egress port 5080, 2 trunks, 1 route, advertises ";
    let (code, out, error) = check(&serde_yaml::to_string(&good()).unwrap(), &[]);
    assert_eq!((code, out.as_str(), error.as_str()), (0, &*format!("{summary}the address it listens on\n"), ""));

    let mut boots = good();
    boots.listen.address = None;
    boots.advertise = Advertise::Metadata;
    let (code, out, error) = check(&user_data(&boots), &[]);
    assert_eq!((code, out.as_str(), error.as_str()), (0, &*format!("{summary}the instance's public address\n"), ""));
}

#[test]
fn the_manual_s_example_is_a_good_one() {
    let manual = include_str!("../../../docs/proxy.md");
    let example = manual.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let (code, _, error) = check(example, &[]);
    assert_eq!((code, error.as_str()), (0, ""));
}

#[test]
fn json_says_the_same() {
    let (code, out, _) = check(&user_data(&good()), &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["ok"], &report["edge"]), (0, &true.into(), &"test".into()));

    let (code, out, error) = check("version: 1\nedge: [\n", &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["ok"]), (3, &false.into()));
    assert!(report["reasons"][0]["line"].as_u64().unwrap() >= 2, "{report}");
    assert!(error.starts_with("sipedge-proxy: config.yaml:"), "{error}");
}

/// Each mistake in the text, with the message.
#[test]
fn mistakes_in_the_text_are_shown_with_their_place() {
    let text = serde_yaml::to_string(&good()).unwrap();
    let replaced = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1)
    };
    let line = 1 + text.lines().position(|line| line.starts_with("refuse:")).unwrap();
    let cases = [
        (replaced("version: 1", "version: 2"), "config.yaml: version: 2: this build reads version 1"),
        (
            format!("#sipedge-user-data 2\n{text}"),
            "config.yaml:1:1: user-data format \"2\": this build reads format 1 (first line `#sipedge-user-data 1`)",
        ),
        (
            replaced("ingress_port: 5060", "ingress_port: 70000"),
            "config.yaml:5:17: listen.ingress_port: invalid value: integer `70000`, expected u16",
        ),
        (
            replaced("ingress_port: 5060", "ingres_port: 5060"),
            "config.yaml:5:3: listen: unknown field `ingres_port`, expected one of `address`, `ingress_port`, `egress_port`, \
             `shards`, `tcp`, `tls`",
        ),
        (
            replaced("refuse: answer", "refuse: perhaps"),
            &*format!("config.yaml:{line}:9: refuse: unknown variant `perhaps`, expected `answer` or `silence`"),
        ),
        (String::new(), "config.yaml:1:1: missing field `version`"),
    ];
    for (text, message) in cases {
        let (code, out, error) = check(&text, &[]);
        assert_eq!((code, out.as_str(), error.trim_end()), (3, "", &*format!("sipedge-proxy: {message}")));
    }
}

#[test]
fn a_file_in_json_is_read_and_its_mistakes_have_their_place() {
    let text = serde_json::to_string_pretty(&good()).unwrap();
    let (code, out, error) = check(&text, &[]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");

    let line = 1 + text.lines().position(|line| line.contains("\"refuse\": \"answer\"")).unwrap();
    let cases = [
        (
            text.replacen("\"version\": 1", "\"version\": 2", 1),
            "config.yaml: version: 2: this build reads version 1".into(),
        ),
        (
            text.replacen("\"refuse\": \"answer\"", "\"refuse\": \"perhaps\"", 1),
            format!("config.yaml:{line}:21: unknown variant `perhaps`, expected `answer` or `silence`"),
        ),
        // No JSON any more: the YAML reader says what is wrong.
        (
            text.replacen("\"version\": 1,", "\"version\": 1", 1),
            "config.yaml:2:14: version: invalid type: string".to_owned(),
        ),
    ];
    for (text, message) in cases {
        let (code, out, error) = check(&text, &[]);
        assert_eq!((code, out.as_str()), (3, ""), "{error}");
        assert!(error.starts_with(&format!("sipedge-proxy: {message}")), "{error}");
    }
}

#[test]
fn settings_that_make_no_sense_are_all_shown_at_once() {
    let mut config = good();
    config.advertise = Advertise::Host("${ingress_address}".into());
    config.admin.port = 0;
    config.secrets.token_keys = SecretRef::File("../keys".into());
    config.secrets.endpoint = Some("http://ssm.internal".into());
    config.drain.accept_ms = 20_000;
    let (code, _, error) = check(&serde_yaml::to_string(&config).unwrap(), &[]);
    assert_eq!(code, 3);
    for line in [
        "config.yaml: advertise: !host \"${ingress_address}\": the template's place was not filled in with the ingress address",
        "config.yaml: admin.port: 0: give the TCP port that the health check asks",
        "config.yaml: secrets.token_keys: !file \"../keys\": a file name in the secrets folder, without `/`",
        "config.yaml: secrets.endpoint: \"http://ssm.internal\": of the form https://HOST[:PORT], or http:// with a loopback or",
        "config.yaml: drain.grace_ms: 10000: less than accept_ms (20000): the process would end while it still takes calls",
    ] {
        assert!(error.contains(line), "no {line:?} in:\n{error}");
    }
    assert_eq!(error.lines().count(), 5, "each once:\n{error}");
}

#[test]
fn a_file_that_is_not_there_is_said_to_be_missing() {
    let error = boot::read("/nowhere/config.yaml".as_ref()).unwrap_err();
    assert!(matches!(error, BootError::File { .. }));
    assert_eq!(error.to_string(), "/nowhere/config.yaml: No such file or directory (os error 2)");
}

#[test]
fn wrong_arguments_are_a_usage_error() {
    let status = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sipedge-proxy")).args(arguments).output().unwrap();
        output.status.code()
    };
    assert_eq!(status(&["run"]), Some(2));
    assert_eq!(status(&["run", "--config", "x", "--log-filter", "=="]), Some(2));
    assert_eq!(status(&["--version"]), Some(0));
}
