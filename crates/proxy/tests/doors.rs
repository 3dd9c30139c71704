//! `sipedge-proxy doors`: the ports of a configuration, of a file's and of an instance's user-data, as nftables takes them.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::process::Command;

use process::imds::{Imds, State};
use process::{address, config, folder, user_data};
use sipedge_proxy::config::{Config, SecretRef, TlsListener};

fn doors(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sipedge-proxy")).arg("doors").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// With another port for each purpose.
fn all_ports() -> Config {
    let mut config = config(address(1), address(2), "198.51.100.7:5060".parse().unwrap());
    config.listen.tcp = true;
    let certificate = SecretRef::File("certificate.pem".into());
    config.listen.tls = Some(TlsListener { port: 443, certificate, client_roots: None, require_client: false });
    config.admin.port = 9090;
    config
}

/// An instance without user-data.
fn there() -> State {
    State { private: Some(address(1)), ..State::default() }
}

const ALL: &str = "flush set inet sipedge sip_udp\nadd element inet sipedge sip_udp { 5060, 5080 }\n\
    flush set inet sipedge sip_tcp\nadd element inet sipedge sip_tcp { 443, 5060 }\n\
    flush set inet sipedge health\nadd element inet sipedge health { 9090 }\n";

#[test]
fn a_file_names_its_ports_and_no_others() {
    let folder = folder(&all_ports());
    let file = folder.path().join("config.yaml");
    let file = file.to_str().unwrap();
    assert_eq!(doors(&["--config", file]), (Some(0), ALL.to_owned(), String::new()));

    let mut one = all_ports();
    one.listen.egress_port = one.listen.ingress_port;
    (one.listen.tcp, one.listen.tls) = (false, None);
    std::fs::write(file, serde_yaml::to_string(&one).unwrap()).unwrap();
    let out = folder.path().join("doors.nft");
    let (code, said, _) = doors(&["--config", file, "--out", out.to_str().unwrap()]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let expected = "flush set inet sipedge sip_udp\nadd element inet sipedge sip_udp { 5060 }\nflush set inet sipedge sip_tcp\n\
        flush set inet sipedge health\nadd element inet sipedge health { 9090 }\n";
    assert_eq!(std::fs::read_to_string(out).unwrap(), expected);
}

#[test]
fn an_instance_has_them_in_its_user_data() {
    let imds = Imds::start(State { user_data: Some(user_data(&all_ports()).into_bytes()), ..there() });
    let (code, said, error) = doors(&["--metadata", &imds.url()]);
    assert_eq!((code, said.as_str()), (Some(0), ALL), "{error}");
}

#[test]
fn what_cannot_be_used_opens_nothing() {
    let imds = Imds::start(there());
    let (code, said, error) = doors(&["--metadata", &imds.url()]);
    assert_eq!((code, said.as_str()), (Some(4), ""));
    assert!(error.contains("no user-data"), "{error}");
    imds.change(|state| state.user_data = Some(b"#sipedge-user-data 2\n".to_vec()));
    let (code, said, error) = doors(&["--metadata", &imds.url()]);
    assert_eq!((code, said.as_str()), (Some(3), ""));
    assert!(error.contains("this build reads format 1"), "{error}");
    assert_eq!(doors(&["--config", "x", "--persist"]).0, Some(2));
}
