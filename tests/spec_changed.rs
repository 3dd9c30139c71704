//! The spec is changed between deploys: what runs is kept as far as it can be, and never left without its owner.

#[path = "support/project.rs"]
mod support;

use support::Project;

const TOPOLOGY: &str = "load-balanced";

#[test]
fn another_size_keeps_those_that_run() {
    let Some(project) = Project::with_lab("another_size_keeps_those_that_run") else { return };
    project.deploy(TOPOLOGY);
    let before = project.instances(TOPOLOGY);
    let spec = project.spec();
    project.write_spec(&format!("{spec}\nscaling: {{ min: 3, max: 4 }}\n"));
    project.deploy(TOPOLOGY);
    let more = project.instances(TOPOLOGY);
    assert!(more.len() == 3 && before.iter().all(|instance| more.contains(instance)), "{before:?}, then {more:?}");
    project.write_spec(&format!("{spec}\nscaling: {{ min: 2, max: 2 }}\ndrain: {{ accept: 1s, grace: 2s }}\n"));
    project.deploy(TOPOLOGY);
    assert_eq!(project.instances(TOPOLOGY).len(), 2);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn a_mistake_leaves_what_runs_as_it_is() {
    let Some(project) = Project::with_lab("a_mistake_leaves_what_runs_as_it_is") else { return };
    project.deploy(TOPOLOGY);
    let (supervisor, instances) = (project.supervisor(TOPOLOGY), project.instances(TOPOLOGY));
    let spec = project.spec();
    for wrong in
        [spec.replace("routes:", "rutes:"), spec.replace("carrier: twilio, domain", "carrier: twillio, domain")]
    {
        project.write_spec(&wrong);
        project.run(&["deploy", TOPOLOGY, "--target", "lab"]).expect(3);
        assert_eq!((project.supervisor(TOPOLOGY), project.instances(TOPOLOGY)), (supervisor, instances.clone()));
        project.run(&["verify", "call"]).expect(0);
    }
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn other_carriers_replace_the_lab_and_its_call() {
    let Some(project) = Project::with_lab("other_carriers_replace_the_lab") else { return };
    project.deploy("single-ec2");
    let supervisor = project.supervisor("single-ec2");
    project.write_spec(&project.spec().replace("your-account.sip.twilio.com", "another.sip.twilio.com"));
    let notes = project.deploy("single-ec2").notes();
    assert!(notes.iter().any(|note| note.contains("the plan has changed")), "{notes:?}");
    assert_ne!(project.supervisor("single-ec2"), supervisor);
    let report = project.run(&["verify", "call", "--json"]).expect(0);
    assert!(report.stdout.contains("another.sip.twilio.com") && !report.stdout.contains("your-account"));
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}

#[test]
fn another_name_is_another_edge_and_the_first_is_still_its_own_specs() {
    let Some(project) = Project::with_lab("another_name_is_another_edge") else { return };
    project.deploy("single-ec2");
    let first = project.instances("single-ec2");
    let spec = project.spec();
    project.write_spec(&spec.replace("name: twilio-bridge", "name: other"));
    for command in [&["status"][..], &["verify", "call"]] {
        let ran = project.run(command).expect(7);
        assert!(ran.stderr.contains("other is not deployed"), "{}", ran.stderr);
    }
    project.deploy("single-ec2");
    project.run(&["destroy"]).expect(0);
    project.write_spec(&spec);
    assert_eq!(project.instances("single-ec2"), first, "the other edge's end is nothing to this one");
    project.run(&["verify", "call"]).expect(0);
    project.run(&["destroy"]).expect(0);
    project.assert_no_trace();
}
