//! An address that the smoke call or an instance needs is taken: the message names it, and all is well when it is free again.

#[path = "support/project.rs"]
mod support;

use std::fs;

use sipedge::plan::Plan;
use sipedge::target::lab::Lab;
use support::Project;

#[test]
fn a_carriers_address_is_taken_while_verify_runs() {
    let Some(project) = Project::with_lab("a_carriers_address_is_taken") else { return };
    project.deploy("single-ec2");
    let state = project.state("single-ec2");
    let plan: Plan = serde_json::from_slice(&fs::read(state.join("plan.json")).expect("plan")).expect("plan");
    let lab = Lab::attach(&state.join("lab")).expect("attach").expect("the lab runs");
    let call = &plan.verify.calls[0];
    for endpoint in [&call.caller, &call.callee[0]] {
        let taken = lab.udp_socket(&endpoint.namespace, endpoint.address).expect("a socket");
        let report = project.run(&["verify", "call", "--json"]).expect(6).json();
        assert_eq!(report["passed"], false);
        let reached = &report["calls"][0]["checks"][0];
        assert_eq!((&reached["id"], &reached["passed"]), (&"reached".into(), &false.into()));
        let came = reached["came"].as_str().unwrap_or_default();
        assert!(came.contains(&endpoint.address.to_string()), "it names the address: {reached}");
        drop(taken);
        project.run(&["verify", "call"]).expect(0);
    }
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn an_instances_own_port_is_taken() {
    let Some(project) = Project::with_lab("an_instances_own_port_is_taken") else { return };
    if support::program("python3").is_none() {
        return support::skip("an_instances_own_port_is_taken", "it needs python3");
    }
    // A socket that the appliance inherits and does not know of.
    let proxy = support::sipedge().with_file_name("sipedge-proxy");
    let occupy = "import os, socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.set_inheritable(True); \
                  s.bind((\"0.0.0.0\", 5060)); os.execv(sys.argv[1], sys.argv[1:])";
    let commands = format!("exec python3 -c '{occupy}' '{}' \"$@\"", proxy.display());
    let mut command = project.command(&["deploy", "single-ec2", "--target", "lab", "--json"]);
    command.env("SIPEDGE_PROXY", project.script("crowded-proxy", &commands));
    let error = support::run(command).expect(5).json_error();
    assert_eq!(error["step"], "ready", "{error}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains(":5060") && message.contains("in use"), "the instance's log is shown: {message}");
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}
