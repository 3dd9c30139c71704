//! A version whose smoke call does not pass is rolled back by itself while calls are set up and up: none is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/answerer.rs"]
mod answerer;
#[path = "support/edge.rs"]
mod edge;
#[path = "support/rolling.rs"]
mod rolling;
#[path = "support/sipp.rs"]
mod sipp;
#[path = "support/project.rs"]
mod support;

use std::fs;

use edge::Edge;
use rcgen::{CertificateParams, KeyPair};
use rolling::{Load, assert_calls_went_on};
use support::{Project, program, skip};

const TOPOLOGY: &str = "load-balanced";

/// Two routes. Calls on the second one arrive where nobody can answer them, once its target is reached by TLS.
const TWO_ROUTES: &str = "\
version: 1
name: twilio-bridge
aws: { region: us-east-1, profile: default }
listen: { tls: { port: 5061, certificate: edge } }
certificates: { edge: { file: edge.pem } }
trunks:
  carrier: { from: [198.51.100.0/28] }
  pbx: { from: [192.0.2.16/29], targets: [\"sip:192.0.2.18:5062\"] }
  second: { from: [198.51.100.32/28] }
  shop: { from: [192.0.2.32/29], targets: [\"sip:192.0.2.34:5062\"] }
routes:
  - { from: carrier, to: pbx }
  - { from: second, to: shop }
scaling: { min: 2 }
";

fn broken(spec: &str) -> String {
    spec.replace("sip:192.0.2.34:5062", "sip:192.0.2.34:5061;transport=tls")
}

fn certificate() -> String {
    let parameters = CertificateParams::new(vec!["sip.example.com".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    parameters.self_signed(&key).unwrap().pem() + &key.serialize_pem()
}

/// The edge with both routes working.
fn deployed(test: &str) -> Option<Edge> {
    let project = Project::with_lab(test)?;
    fs::write(project.folder().join("edge.pem"), certificate()).unwrap();
    Edge::deploy_project(project, TWO_ROUTES, TOPOLOGY)
}

#[test]
fn under_load() {
    let test = "under_load";
    if program("sipp").is_none() {
        return skip(test, "sipp is not installed (Debian package sip-tester)");
    }
    let Some(edge) = deployed(test) else { return };
    let state = edge.project.state(TOPOLOGY);
    let plan = fs::read_to_string(state.join("plan.json")).unwrap();
    let artefact = fs::read_to_string(state.join("artefacts/proxy.yaml")).unwrap();
    let load = Load::start(&edge, edge.route());
    edge.project.write_spec(&broken(TWO_ROUTES));
    let ran = edge.project.run(&["deploy", TOPOLOGY, "--target", "lab", "--json"]).expect(6);
    load.assert_no_call_was_lost(test);
    assert_calls_went_on(&ran);

    let error = ran.json_error();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("smoke call through version 2 did not pass"), "{message}");
    assert!(message.contains("version 1 is live again"), "{message}");
    let lines = ran.json_lines();
    let ended = |event: &str, step: &str| lines.iter().any(|line| line["event"] == event && line["step"] == step);
    assert!(ended("step-failed", "smoke-call") && ended("step-done", "rollback"), "{}", ran.stdout);
    assert_eq!(lines.last().unwrap()["report"]["passed"], false);

    let status = edge.project.status(TOPOLOGY);
    assert_eq!(status["group"]["version"], 1, "{status}");
    let instances = status["group"]["instances"].as_array().unwrap();
    assert!(instances.len() == 2 && instances.iter().all(|instance| instance["version"] == 1), "{status}");
    assert_eq!(status["refresh"]["status"], "rollback-successful", "{status}");
    assert_eq!(fs::read_to_string(state.join("plan.json")).unwrap(), plan, "the plan of what is live");
    assert_eq!(fs::read_to_string(state.join("artefacts/proxy.yaml")).unwrap(), artefact);
    edge.project.run(&["verify", "call"]).expect(0);
    edge.destroy();
}

#[test]
fn and_what_was_repaired_is_brought() {
    let Some(edge) = deployed("and_what_was_repaired_is_brought") else { return };
    edge.project.write_spec(&broken(TWO_ROUTES));
    let deploy = ["deploy", TOPOLOGY, "--target", "lab", "--json"];
    edge.project.run(&deploy).expect(6);
    let again = edge.project.run(&deploy).expect(6);
    assert!(again.notes().iter().any(|note| note.contains("was rolled back last time")), "{:?}", again.notes());
    edge.project.write_spec(&format!("{TWO_ROUTES}refuse: silence\n"));
    edge.project.run(&deploy).expect(0);
    let status = edge.project.status(TOPOLOGY);
    assert_eq!(status["group"]["version"], 3, "{status}");
    edge.project.run(&["rollback"]).expect(0);
    assert_eq!(edge.project.status(TOPOLOGY)["group"]["version"], 1, "version 2 was never found good");
    edge.destroy();
}
