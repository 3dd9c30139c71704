//! The examples with pools and TLS, deployed to the lab, and smoke calls by UDP, TCP and TLS through them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/project.rs"]
mod support;

use std::fs;

use rcgen::{CertificateParams, KeyPair};
use support::Project;

const TOPOLOGIES: [&str; 2] = ["single-ec2", "load-balanced"];

/// A certificate for the name of `examples/tls.yaml`, and its key, in one PEM document; valid in this year or not.
fn certificate(year: i32) -> String {
    let mut parameters = CertificateParams::new(vec!["sip.example.com".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(year, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(year + 100, 1, 1);
    let key = KeyPair::generate().unwrap();
    parameters.self_signed(&key).unwrap().pem() + &key.serialize_pem()
}

/// Places the smoke calls and expects that they pass; the start lines and raw messages of all ladders.
#[track_caller]
fn passes(project: &Project, topology: &str, transport: &str) -> String {
    let arguments = ["verify", "call", "--topology", topology, "--transport", transport, "--json"];
    let ran = project.run(&arguments).expect(0);
    assert_eq!(ran.json()["passed"], true, "{topology} by {transport}: {}", ran.stdout);
    ran.stdout
}

#[test]
fn a_pool_gets_calls_by_udp_and_tcp() {
    let Some(project) = Project::with_lab("a_pool_gets_calls_by_udp_and_tcp") else { return };
    project.write_spec(include_str!("../examples/failover.yaml"));
    for topology in TOPOLOGIES {
        project.deploy(topology);
        passes(&project, topology, "udp");
        let ladder = passes(&project, topology, "tcp");
        assert!(ladder.contains("SIP/2.0/TCP"), "{ladder}");
        let refused = project.run(&["verify", "call", "--topology", topology, "--transport", "tls"]).expect(2);
        assert!(
            refused.stderr.contains("takes no calls by tls") && refused.stderr.contains("listen.tls"),
            "{refused:?}"
        );
    }
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn a_trunk_that_is_reached_by_tcp_gets_its_calls_by_tcp() {
    let Some(project) = Project::with_lab("a_trunk_that_is_reached_by_tcp") else { return };
    project.write_spec(&project.spec().replace("domain: your-account", "transport: tcp, domain: your-account"));
    project.deploy("load-balanced");
    let ladder = passes(&project, "load-balanced", "udp");
    assert!(ladder.contains("SIP/2.0/TCP") && ladder.contains("SIP/2.0/UDP"), "{ladder}");
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn tls_outside_and_udp_inside() {
    let Some(project) = Project::with_lab("tls_outside_and_udp_inside") else { return };
    project.write_spec(include_str!("../examples/tls.yaml"));
    let pem = certificate(2020);
    fs::write(project.folder().join("edge.pem"), &pem).unwrap();
    for topology in TOPOLOGIES {
        // One instance: another one has not the caller's connection, and the lab's callers take none by TLS.
        project.run(&["deploy", topology, "--target", "lab", "--instances", "1", "--json"]).expect(0);
        let ladder = passes(&project, topology, "tls");
        assert!(ladder.contains("SIP/2.0/TLS") && ladder.contains("SIP/2.0/UDP"), "{ladder}");
        passes(&project, topology, "udp");
        passes(&project, topology, "tcp");
        let key = pem.lines().nth(pem.lines().count() - 2).unwrap();
        for file in ["plan.json", "artefacts/proxy.yaml", "artefacts/user-data.tftpl", "journal.json"] {
            let text =
                fs::read_to_string(project.folder().join(".sipedge/tls-edge").join(topology).join(file)).unwrap();
            assert!(!text.contains(key), "{file} has the private key in it");
        }
    }
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn a_certificate_that_cannot_be_used_ends_the_deploy_before_anything_is_built() {
    let Some(project) = Project::with_lab("a_certificate_that_cannot_be_used") else { return };
    project.write_spec(include_str!("../examples/tls.yaml"));
    let deploy = ["deploy", "single-ec2", "--target", "lab"];
    let absent = project.run(&deploy);
    assert!(absent.code != 0 && absent.stderr.contains("edge.pem) is not there"), "{absent:?}");
    fs::write(project.folder().join("edge.pem"), certificate(1900)).unwrap();
    let ended = project.run(&deploy);
    assert!(ended.code != 0 && ended.stderr.contains("ended on"), "{ended:?}");
    assert!(!project.folder().join(".sipedge/tls-edge/single-ec2/lab").exists());
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}
