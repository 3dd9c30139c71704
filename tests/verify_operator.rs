//! The operator's call in the lab: by password, through the real NAT and load balancer, to the answerer in the edge.

#[path = "support/project.rs"]
mod support;

use std::fs;

use serde_json::Value;
use support::Project;

const CHECKS: [&str; 10] = [
    "challenged",
    "provisional",
    "answered",
    "through-instance",
    "set-up-delay",
    "reinvite",
    "bye-from-caller",
    "bye-from-callee",
    "wrong-password-refused",
    "stranger-refused",
];

fn call(report: &Value) -> &Value {
    let calls = report["calls"].as_array().expect("calls");
    assert_eq!(calls.len(), 1, "{report}");
    &calls[0]
}

fn assert_all_pass(report: &Value) {
    let checks = call(report)["checks"].as_array().expect("checks");
    let ids: Vec<&str> = checks.iter().filter_map(|check| check["id"].as_str()).collect();
    assert_eq!(ids, CHECKS);
    for check in checks {
        assert!(check["passed"] == true && check["tried"] == true, "{check:#}");
    }
    assert_eq!(report["passed"], true);
}

/// The password that the lab's instances have.
fn password(project: &Project, topology: &str) -> String {
    let folder = project.state(topology).join("lab/secrets/answerer");
    fs::read_to_string(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

#[test]
fn an_operator_calls_through_either_topology_by_udp_and_tcp() {
    for topology in ["single-ec2", "load-balanced"] {
        let Some(project) = Project::with_lab("an_operator_calls_through_either_topology") else { return };
        project.deploy(topology);
        let status = project.status(topology);
        let instances: Vec<String> = status["lab"]["instances"]
            .as_array()
            .expect("instances")
            .iter()
            .filter_map(|instance| instance["address"].as_str().map(str::to_owned))
            .collect();
        for transport in ["udp", "tcp"] {
            let arguments = ["verify", "call", "--via", "operator", "--transport", transport, "--json"];
            let ran = project.run(&arguments).expect(0);
            assert_all_pass(&ran.json());
            let note = call(&ran.json())["checks"][3]["note"].as_str().expect("a note").to_owned();
            let is_one = |address: &String| note.starts_with(&format!("instance {address}, configuration "));
            assert!(instances.iter().any(is_one), "{note}: {instances:?}");
            assert!(!ran.stdout.contains(&password(&project, topology)), "the password is in the report");
            assert!(!ran.stderr.contains(&password(&project, topology)));
        }
        let ran = project.run(&["verify", "call", "--html", "call.html", "--junit", "call.xml"]).expect(0);
        assert!(ran.stdout.contains("operator → answerer") && ran.stdout.contains("26 of 26 checks"), "{}", ran.stdout);
        for file in ["call.html", "call.xml"] {
            let text = fs::read_to_string(project.folder().join(file)).expect("written");
            assert!(text.contains("wrong-password-refused") && !text.contains(&password(&project, topology)));
        }
        let ran = project.run(&["verify", "call", "--via", "carriers", "--json"]).expect(0);
        assert_eq!(call(&ran.json())["from"], "source");
        project.run(&["destroy"]).expect(0);
        project.assert_no_trace();
    }
}

#[test]
fn an_edge_that_refuses_in_silence_answers_its_operator() {
    let Some(project) = Project::with_lab("an_edge_that_refuses_in_silence") else { return };
    project.write_spec(&format!("{}\nrefuse: silence\n", project.spec()));
    project.deploy("load-balanced");
    assert_all_pass(&project.run(&["verify", "call", "--via", "operator", "--json"]).expect(0).json());
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn a_password_that_is_not_the_edges_fails_the_call_and_says_so() {
    let Some(project) = Project::with_lab("a_password_that_is_not_the_edges") else { return };
    project.deploy("single-ec2");
    let file = project.state("single-ec2").join("lab/secrets/answerer");
    fs::write(&file, "another-password-than-the-edges").expect("the file can be written");
    let ran = project.run(&["verify", "call", "--via", "operator", "--json"]).expect(6);
    let checks = call(&ran.json())["checks"].as_array().expect("checks").clone();
    let failed: Vec<&Value> =
        checks.iter().filter(|check| check["tried"] == true && check["passed"] == false).collect();
    let ids: Vec<&str> = failed.iter().filter_map(|check| check["id"].as_str()).collect();
    assert_eq!(ids, ["provisional", "bye-from-callee"]);
    assert!(failed[0]["cause"].as_str().is_some_and(|cause| cause.contains("the password is not the edge's")));
    fs::remove_file(&file).expect("the file can be removed");
    let ran = project.run(&["verify", "call", "--via", "operator", "--json"]).expect(6);
    assert!(call(&ran.json())["checks"][0]["cause"].as_str().is_some_and(|cause| cause.contains("secrets folder")));
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn an_edge_without_an_answerer_is_called_by_carriers_alone() {
    let Some(project) = Project::with_lab("an_edge_without_an_answerer") else { return };
    project.write_spec(&format!("{}\nverify: {{ answerer: false }}\n", project.spec()));
    project.deploy("single-ec2");
    let report = project.run(&["verify", "call", "--json"]).expect(0).json();
    assert_eq!(call(&report)["from"], "source");
    let error = project.run(&["verify", "call", "--via", "operator", "--json"]).expect(2).json_error();
    assert!(error["message"].as_str().is_some_and(|text| text.contains("verify.answerer")), "{error}");
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn at_an_address_that_is_named_the_call_needs_the_password() {
    let project = Project::new();
    let said = |arguments: &[&str], code: i32| {
        let error = project.run(arguments).expect(code).json_error();
        error["message"].as_str().expect("a message").to_owned()
    };
    let aws = ["verify", "call", "--target", "aws", "--json", "--ingress", "127.0.0.1"];
    assert!(said(&aws, 2).contains("SIPEDGE_ANSWERER_PASSWORD"));
    assert!(said(&[&aws[..], &["--via", "carriers"]].concat(), 2).contains("carriers' addresses"));
}
