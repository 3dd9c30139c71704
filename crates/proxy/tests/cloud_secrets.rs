//! Secrets that change are taken up without a restart, whole, or refused whole; nothing of them is ever shown.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use process::aws::{Aws, Keys, REGION, State, metadata};
use process::control::SOCKET;
use process::digest::{PASSWORD, USER};
use process::imds::{self, Imds};
use process::sip::Agent;
use process::{
    DEADLINE, INGRESS, Process, address, config, control, folder, get, metric, user_data, wait_for_readyz,
    with_answerer,
};
use sipedge_proxy::config::{Cloud, Config, SecretRef};
use sipedge_proxy::secrets::{TokenKey, TokenKeys};

const TOKEN_KEYS: &str = "/sipedge/test/load-balanced/token-keys";
const FAR: &str = "2126-01-01T00:00:00Z";

/// A key whose digits tell its number.
fn key(id: u8) -> TokenKey {
    let made = Some(1_700_000_000 + u64::from(id));
    TokenKey { id, key: format!("{id:02x}").repeat(32), made, signs_since: None, signed_until: None }
}

/// A document with the keys of these numbers; the first signs.
fn document(ids: &[u8]) -> String {
    let keys = TokenKeys { branch: "0b".repeat(32), tokens: ids.iter().map(|id| key(*id)).collect() };
    serde_json::to_string(&keys).unwrap()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until these keys are in force, the first of which signs.
fn wait_for_keys(edge: IpAddr, ids: &[u8]) {
    let line = |(place, id): (usize, &u8)| {
        format!("sipedge_token_key_info{{id=\"{id}\",signs=\"{}\"}} 1", u8::from(place == 0))
    };
    let expected: Vec<String> = ids.iter().enumerate().map(line).collect();
    wait_for(&format!("the keys {ids:?} are in force"), || {
        let (_, page) = get(edge, "/metrics").unwrap();
        page.lines().filter(|line| line.starts_with("sipedge_token_key_info")).eq(expected.iter())
    });
}

#[test]
fn a_rotation_in_a_file_breaks_no_call() {
    let [edge, caller, callee] = [160, 161, 162].map(address);
    let (caller, callee) = (Agent::bind(caller, 0), Agent::bind(callee, 0));
    let mut config = config(edge, caller.address.ip(), callee.address);
    config.secrets.poll_s = 1;
    let folder = folder(&config);
    let file = folder.path().join("token-keys.json");
    let write = |text: &str| {
        let beside = folder.path().join("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &file).unwrap();
    };
    write(&document(&[1]));
    let mut process = Process::run_in(folder.path());
    wait_for_readyz(edge, 200, &mut process);
    wait_for_keys(edge, &[1]);
    assert_eq!(metric(edge, "sipedge_token_key_time_seconds{id=\"1\"}"), 1_700_000_001);
    let ingress = (edge, INGRESS).into();
    let call = |call_id: &str| {
        caller.send(&caller.request("INVITE", &format!("sip:42@{edge}"), call_id), ingress);
        callee.respond(&callee.expect("INVITE"), "200 OK");
        let ok = caller.expect("200 OK");
        caller.acknowledge(&ok, ingress);
        callee.expect("ACK");
        ok
    };
    let hang_up = |ok| {
        caller.hang_up(ok, ingress);
        callee.respond(&callee.expect("BYE"), "200 OK");
        caller.expect("200 OK");
    };
    let before = [call("before-1"), call("before-2")];
    write(&document(&[1, 2]));
    wait_for_keys(edge, &[1, 2]);
    let during = call("during");
    write(&document(&[2, 1]));
    wait_for_keys(edge, &[2, 1]);
    let after = call("after");
    for ok in [&before[0], &during] {
        hang_up(ok);
    }
    // Half a document, and two keys of one number, change nothing.
    write(&document(&[2, 1])[..60]);
    wait_for("half a document is refused", || metric(edge, "sipedge_secrets_refused_total") == 1);
    write(&document(&[3, 3]));
    wait_for("two keys of one number are refused", || metric(edge, "sipedge_secrets_refused_total") == 2);
    let trouble = control::get(folder.path(), "/status")["secrets"]["trouble"].as_str().unwrap().to_owned();
    assert!(trouble.contains("two keys have the id 3"), "{trouble}");
    wait_for_keys(edge, &[2, 1]);
    std::fs::remove_file(&file).unwrap();
    wait_for("a document that is away is told", || metric(edge, "sipedge_secrets_missed_total") > 0);
    // The old key is withdrawn: calls of it are nobody's any more, and those of the new one go on.
    write(&document(&[2]));
    wait_for_keys(edge, &[2]);
    hang_up(&after);
    caller.hang_up(&before[1], ingress);
    assert!(!caller.expect("SIP/2.0 ").first_line().contains("200"));
    let status = control::get(folder.path(), "/status")["secrets"].clone();
    let count = |name: &str| status[name].as_u64().unwrap();
    assert_eq!((count("changes"), count("refused"), count("poll_s")), (3, 2, 1), "{status}");
    assert!(status["trouble"].is_null(), "{status}");
    let [log, page] = [process.log(), get(edge, "/metrics").unwrap().1];
    for secret in ["0b0b0b", "010101", "020202", "030303"] {
        assert!(![&log, &page, &status.to_string()].into_iter().any(|text| text.contains(secret)), "{secret} is shown");
    }
    assert_eq!(log.matches("secrets refused").count(), 2, "each is told once:\n{log}");
    assert_eq!(log.matches("secrets not read").count(), 1, "told once:\n{log}");
}

/// An instance with the keys 1 in SSM, that looks every second, and its credentials good until then.
fn instance(number: u8, folder: &Path, expiration: &str) -> (Process, Imds, Aws) {
    let mut config: Config = config(address(number), address(200), "198.51.100.7:5060".parse().unwrap());
    config.listen.address = None;
    config.secrets.token_keys = SecretRef::Ssm(TOKEN_KEYS.into());
    config.secrets.poll_s = 1;
    config.cloud = Some(Cloud {
        region: REGION.into(),
        group: None,
        ready_hook: None,
        drain_hook: None,
        elastic_ip: None,
        lifecycle_poll_ms: 0,
    });
    let parameters = [(TOKEN_KEYS.to_owned(), document(&[1]))].into();
    let aws = Aws::start(State { keys: vec![Keys::new(1)], parameters, ..State::default() });
    let user_data = Some(user_data(&config).into_bytes());
    let state = imds::State { private: Some(address(number)), user_data, ..imds::State::default() };
    let imds = Imds::start(metadata(&Keys::new(1), expiration, state));
    let (url, control) = (imds.url(), folder.join(SOCKET));
    let arguments: [std::ffi::OsString; 9] = [
        "boot".into(),
        "--metadata".into(),
        url.into(),
        "--secrets".into(),
        folder.into(),
        "--control".into(),
        control.into(),
        "--log-filter".into(),
        "trace".into(),
    ];
    let mut process = Process::start_with(arguments, [("AWS_ENDPOINT_URL", aws.url())]);
    wait_for_readyz(address(number), 200, &mut process);
    (process, imds, aws)
}

#[test]
fn a_rotation_in_ssm_is_taken_up_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut process, _imds, aws) = instance(163, folder.path(), FAR);
    let write = |ids: &[u8]| aws.change(|state| state.parameters.insert(TOKEN_KEYS.into(), document(ids)));
    write(&[1, 2]);
    wait_for_keys(address(163), &[1, 2]);
    write(&[2, 1]);
    wait_for_keys(address(163), &[2, 1]);
    // While SSM is away the keys of before go on.
    aws.change(|state| (state.denied.insert("ssm:GetParameter"), state.parameters.clear()).0);
    process.wait_for_log("secrets not read: secrets.token_keys: access denied");
    wait_for_keys(address(163), &[2, 1]);
    assert!(process.is_running());
    aws.change(|state| state.denied.clear());
    process.wait_for_log("secrets not read: secrets.token_keys: SSM Parameter Store has no");
    write(&[2]);
    wait_for_keys(address(163), &[2]);
    let shown =
        process.log() + &get(address(163), "/metrics").unwrap().1 + &control::get(folder.path(), "/status").to_string();
    for secret in ["planted", "0b0b0b", "010101", "020202"] {
        assert!(!shown.contains(secret), "{secret} is shown:\n{shown}");
    }
}

#[test]
fn credentials_that_expire_are_renewed() {
    let folder = tempfile::tempdir().unwrap();
    // They expire within the 5 minutes in which new ones are there already, so the metadata is asked each time.
    let soon = "2026-01-01T00:00:00Z";
    let (process, imds, aws) = instance(164, folder.path(), FAR);
    let new = Keys::new(2);
    aws.change(|state| state.keys = vec![new.clone()]);
    process
        .wait_for_log("are not accepted: ExpiredTokenException: The security token included in the request is expired");
    let folder_of_role = "/latest/meta-data/iam/security-credentials/";
    let role = process::aws::ROLE;
    imds.change(|state| drop(state.paths.insert(format!("{folder_of_role}{role}"), new.document(soon))));
    aws.change(|state| state.parameters.insert(TOKEN_KEYS.into(), document(&[1, 2])));
    wait_for_keys(address(164), &[1, 2]);
    let asked = || imds.log().iter().filter(|line| line.ends_with(role)).count();
    let before = asked();
    wait_for("credentials about to expire are asked for each time", || asked() >= before + 2);
    assert!(!process.log().contains("planted"), "{}", process.log());
}

#[test]
fn an_answerer_without_a_password_stops_neither_the_boot_nor_a_rotation() {
    let [edge, caller, carrier] = [165, 166, 167].map(address);
    let mut config = with_answerer(config(edge, carrier, (carrier, 5060).into()));
    config.secrets.poll_s = 1;
    let folder = folder(&config);
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), folder.path().join(name)).unwrap();
    };
    let [keys, password] = ["token-keys.json", "answerer"];
    write(keys, &document(&[1]));
    write(password, "planted");
    let mut process = Process::run_in(folder.path());
    wait_for_readyz(edge, 200, &mut process);
    process.wait_for_log("ERROR");
    process.wait_for_log("secrets refused: answerer.password: ");
    assert_eq!(metric(edge, "sipedge_secrets_refused_total"), 1);
    let caller = Agent::bind(caller, 0);
    let ingress = (edge, INGRESS).into();
    let mut number = 0;
    let mut answer = || {
        number += 1;
        let invite = caller.request("INVITE", &format!("sip:{USER}@{edge}"), &format!("password-{number}"));
        caller.send(&invite, ingress);
        let answer = caller.expect("SIP/2.0 ");
        answer.first_line().split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(answer(), "403", "nobody can be called");
    write(keys, &document(&[1, 2]));
    wait_for_keys(edge, &[1, 2]);
    let trouble = || control::get(folder.path(), "/status")["secrets"]["trouble"].clone();
    assert!(trouble().as_str().unwrap().contains("answerer.password"), "{}", trouble());
    write(password, PASSWORD);
    wait_for("the password is taken up", || trouble().is_null());
    assert_eq!(answer(), "401");
    // The last good one goes on.
    std::fs::remove_file(folder.path().join(password)).unwrap();
    wait_for("a password that is away is told", || metric(edge, "sipedge_secrets_missed_total") > 0);
    write(keys, &document(&[2, 1]));
    wait_for_keys(edge, &[2, 1]);
    assert_eq!(answer(), "401");
    assert!(!process.log().contains("planted"), "{}", process.log());
}
