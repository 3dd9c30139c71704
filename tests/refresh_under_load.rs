//! Every instance is replaced while calls are set up and up: none is lost, and none fails.

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

use edge::{Edge, SIX_LINES};
use rolling::{Load, assert_calls_went_on};
use support::{program, skip};

#[test]
fn all_instances_behind_a_load_balancer() {
    let test = "all_instances_behind_a_load_balancer";
    if program("sipp").is_none() {
        return skip(test, "sipp is not installed (Debian package sip-tester)");
    }
    let spec = format!("{SIX_LINES}scaling: {{ min: 3 }}\nload_balancer: {{ spreading: five-tuple }}\n");
    let Some(edge) = Edge::deploy(test, &spec, "load-balanced") else { return };
    let before = edge.project.instances("load-balanced");
    let load = Load::start(&edge, edge.route());
    let ran = edge.project.run(&["refresh", "--json"]).expect(0);
    load.assert_no_call_was_lost(test);
    assert_calls_went_on(&ran);
    let after = edge.project.instances("load-balanced");
    assert_eq!(after.len(), before.len(), "{before:?}, then {after:?}");
    assert!(before.iter().all(|instance| !after.contains(instance)), "all are replaced: {before:?}, then {after:?}");
    edge.destroy();
}

#[test]
fn the_one_instance_with_the_elastic_ip() {
    let test = "the_one_instance_with_the_elastic_ip";
    if program("sipp").is_none() {
        return skip(test, "sipp is not installed (Debian package sip-tester)");
    }
    let Some(edge) = Edge::deploy(test, SIX_LINES, "single-ec2") else { return };
    let before = edge.project.instances("single-ec2");
    let load = Load::hold(&edge, edge.route(), 12_000);
    let ran = edge.project.run(&["refresh", "--json"]).expect(0);
    let after = edge.project.instances("single-ec2");
    assert!(after.len() == 1 && after != before, "{before:?}, then {after:?}");
    // Two instances were there at once, the old one until the new one was healthy.
    let lines = ran.json_lines();
    let (new, old) = (after[0].0.as_str(), before[0].0.as_str());
    let healthy = lines.iter().position(|line| line["id"] == new && line["healthy"] == true);
    let leaves = lines.iter().position(|line| line["id"] == old && line["lifecycle"] == "terminating");
    assert!(healthy.is_some() && leaves >= healthy, "{}", ran.stdout);
    load.assert_no_call_was_lost(test);
    edge.destroy();
}
