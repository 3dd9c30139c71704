//! An instance on AWS reads its secrets from SSM Parameter Store, with its role and no SDK.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use process::aws::{Aws, Keys, REGION, ROLE, State, metadata};
use process::certificates::{Authority, dns};
use process::control::SOCKET;
use process::imds::{self, Imds};
use process::stream::Line;
use process::{Process, address, config, control, get, keys, user_data, wait_for_readyz};
use sipedge_proxy::config::{Advertise, Answerer, Cloud, Config, SecretRef, TlsListener};

const TOKEN_KEYS: &str = "/sipedge/test/single-ec2/token-keys";
const FAR: &str = "2126-01-01T00:00:00Z";

fn instance(number: u8) -> Config {
    let mut config = config(address(number), address(200), "198.51.100.7:5060".parse().unwrap());
    config.listen.address = None;
    config.secrets.token_keys = SecretRef::Ssm(TOKEN_KEYS.into());
    config.cloud = Some(Cloud {
        region: REGION.into(),
        group: None,
        ready_hook: None,
        drain_hook: None,
        elastic_ip: None,
        lifecycle_poll_ms: 0,
    });
    config
}

fn aws() -> State {
    let document = serde_json::to_string(&keys()).unwrap();
    State { keys: vec![Keys::new(1)], parameters: [(TOKEN_KEYS.to_owned(), document)].into(), ..State::default() }
}

fn imds(number: u8, config: &Config, expiration: &str) -> Imds {
    let user_data = Some(user_data(config).into_bytes());
    let state = imds::State { private: Some(address(number)), user_data, ..imds::State::default() };
    Imds::start(metadata(&Keys::new(1), expiration, state))
}

fn boot(imds: &Imds, aws: &Aws, folder: &Path, deadline: &str) -> Process {
    boot_within("5", imds, aws, folder, deadline)
}

/// `metadata`: seconds for the metadata.
fn boot_within(metadata: &str, imds: &Imds, aws: &Aws, folder: &Path, deadline: &str) -> Process {
    let (url, control) = (imds.url(), folder.join(SOCKET));
    let arguments = ["boot", "--metadata", &url, "--metadata-deadline", metadata, "--secrets-deadline", deadline];
    let arguments = arguments.into_iter().chain(["--log-filter", "trace"]).map(Into::into);
    let service: [std::ffi::OsString; 4] = ["--secrets".into(), folder.into(), "--control".into(), control.into()];
    Process::start_with(arguments.chain(service), [("AWS_ENDPOINT_URL", aws.url())])
}

/// Every secret that there was, looked for in everything that the proxy says.
fn nothing_leaks(number: u8, folder: &Path, process: &Process) {
    let (_, metrics) = get(address(number), "/metrics").unwrap();
    let [status, effective] = ["/status", "/config"].map(|path| control::get(folder, path).to_string());
    let keys = keys();
    for secret in ["planted", &keys.branch, &keys.tokens[0].key, "PRIVATE KEY"] {
        for (what, text) in
            [("log", &process.log()), ("metrics", &metrics), ("status", &status), ("config", &effective)]
        {
            assert!(!text.contains(secret), "{secret} is in the {what}:\n{text}");
        }
    }
}

#[test]
fn token_keys_and_certificates_are_read_with_the_role() {
    let mut config = instance(150);
    let certificate = SecretRef::Ssm("/sipedge/test/single-ec2/certificates/edge".into());
    config.listen.tls = Some(TlsListener { port: 5061, certificate, client_roots: None, require_client: false });
    // Without the section, the region is that of the metadata.
    config.cloud = None;
    let (authority, peer) = (Authority::new("root"), address(200));
    let mut state = aws();
    state
        .parameters
        .insert("/sipedge/test/single-ec2/certificates/edge".into(), authority.issue(&[dns("edge.example")]));
    let (folder, imds, aws) = (tempfile::tempdir().unwrap(), imds(150, &config, FAR), Aws::start(state));
    let mut process = boot(&imds, &aws, folder.path(), "10");
    wait_for_readyz(address(150), 200, &mut process);
    assert_eq!(
        aws.log(),
        [format!("GetParameter {TOKEN_KEYS}"), "GetParameter /sipedge/test/single-ec2/certificates/edge".into()]
    );
    let port = SocketAddr::new(address(150), 5061);
    assert!(Line::connect_tls(peer, port, authority.client(None), "edge.example").is_ok());
    nothing_leaks(150, folder.path(), &process);
}

#[test]
fn what_is_busy_at_first_is_asked_again() {
    let config = instance(151);
    let (folder, imds) = (tempfile::tempdir().unwrap(), imds(151, &config, FAR));
    let aws = Aws::start(State { throttled: 2, dropped: 1, ..aws() });
    let mut process = boot(&imds, &aws, folder.path(), "30");
    wait_for_readyz(address(151), 200, &mut process);
    let throttled = "GetParameter throttled".to_owned();
    assert_eq!(aws.log(), [throttled.clone(), throttled, format!("GetParameter {TOKEN_KEYS}")]);
    process.wait_for_log("Rate exceeded; trying again");
}

#[test]
fn a_denied_access_is_told_with_role_and_action_and_may_come_late() {
    let config = instance(152);
    let (folder, imds) = (tempfile::tempdir().unwrap(), imds(152, &config, FAR));
    let aws = Aws::start(State { denied: ["ssm:GetParameter"].into(), ..aws() });
    let line = boot(&imds, &aws, folder.path(), "1").wait_for_failure(5);
    let expected = format!(
        "sipedge-proxy: secrets.token_keys: access denied: the role {ROLE:?} may not do ssm:GetParameter on {TOKEN_KEYS}: allow it in \
         the role's policy; AWS says AccessDeniedException: User: "
    );
    assert!(line.starts_with(&expected), "{line}");
    assert!(line.contains("; tried for "), "{line}");

    let mut process = boot(&imds, &aws, folder.path(), "30");
    process.wait_for_log("trying again");
    aws.change(|state| state.denied.clear());
    wait_for_readyz(address(152), 200, &mut process);
    nothing_leaks(152, folder.path(), &process);
}

#[test]
fn a_parameter_that_is_not_there_or_is_none_of_ours_is_refused_at_once() {
    let config = instance(153);
    let (folder, imds, aws) = (tempfile::tempdir().unwrap(), imds(153, &config, FAR), Aws::start(aws()));
    aws.change(|state| state.parameters.insert(TOKEN_KEYS.into(), "planted-nonsense".into()));
    let line = boot(&imds, &aws, folder.path(), "60").wait_for_failure(5);
    assert!(
        line.contains(&format!("secrets.token_keys: !ssm \"{TOKEN_KEYS}\":1:1: not a token key document")),
        "{line}"
    );
    aws.change(|state| state.parameters.clear());
    let mut process = boot(&imds, &aws, folder.path(), "60");
    let line = process.wait_for_failure(5);
    assert_eq!(
        line,
        format!(
            "sipedge-proxy: secrets.token_keys: SSM Parameter Store has no \"{TOKEN_KEYS}\" in {REGION}: `sipedge deploy` writes it; \
             is this the edge's region and name?"
        )
    );
    assert!(!process.log().contains("planted"), "{}", process.log());
}

#[test]
fn an_instance_without_a_role_and_an_endpoint_that_is_away_are_told() {
    let config = instance(154);
    let (folder, aws) = (tempfile::tempdir().unwrap(), Aws::start(aws()));
    let without = imds(154, &config, FAR);
    without.change(|state| state.paths.retain(|path, _| !path.contains("/iam/")));
    let line = boot(&without, &aws, folder.path(), "1").wait_for_failure(5);
    assert!(line.contains("this instance has no role, and ssm:GetParameter needs one"), "{line}");

    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let imds = imds(154, &config, FAR);
    let mut process = Process::start_with(
        ["boot", "--metadata", &imds.url(), "--secrets-deadline", "1"],
        [("AWS_ENDPOINT_URL", aws.url()), ("AWS_ENDPOINT_URL_SSM", format!("http://{away}"))],
    );
    let line = process.wait_for_failure(5);
    assert!(line.contains(&format!("ssm:GetParameter: {away}: Connection refused")), "{line}");
    assert!(line.contains("NAT gateway, public address, or VPC endpoint"), "{line}");
}

#[test]
fn all_secrets_together_are_waited_for_until_the_deadline() {
    let mut config = instance(155);
    let parameter = |name: &str| SecretRef::Ssm(format!("/sipedge/test/single-ec2/{name}"));
    config.listen.tls = Some(TlsListener {
        port: 5061,
        certificate: parameter("certificates/edge"),
        client_roots: Some(parameter("certificates/roots")),
        require_client: false,
    });
    config.answerer = Some(Answerer { user: "verify".into(), password: parameter("answerer") });
    let (folder, imds) = (tempfile::tempdir().unwrap(), imds(155, &config, FAR));
    let aws = Aws::start(State { denied: ["ssm:GetParameter"].into(), ..aws() });
    let began = Instant::now();
    let line = boot(&imds, &aws, folder.path(), "3").wait_for_failure(5);
    assert!(line.contains("secrets.token_keys: access denied"), "{line}");
    // Each for itself would take 3 s four times, or, with the pauses as short as they may be, half of that.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(aws.log().len() >= 4, "each is tried: {:?}", aws.log());
}

#[test]
fn a_public_address_is_waited_for_when_the_secrets_have_taken_long() {
    let mut config = instance(156);
    config.advertise = Advertise::Metadata;
    let (folder, imds) = (tempfile::tempdir().unwrap(), imds(156, &config, FAR));
    let aws = Aws::start(State { denied: ["ssm:GetParameter"].into(), ..aws() });
    let began = Instant::now();
    let mut process = boot_within("2", &imds, &aws, folder.path(), "60");
    aws.wait_for("GetParameter denied");
    std::thread::sleep(Duration::from_millis(2_500).saturating_sub(began.elapsed()));
    aws.change(|state| state.denied.clear());
    let deadline = Instant::now() + process::DEADLINE;
    while !imds.log().iter().any(|line| line.ends_with("public-ipv4")) {
        assert!(Instant::now() < deadline, "the public address is not asked for: {:?}", imds.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    imds.change(|state| state.public = Some("198.51.100.20".parse().unwrap()));
    wait_for_readyz(address(156), 200, &mut process);
}
