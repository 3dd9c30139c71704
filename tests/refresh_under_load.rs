//! Every instance is replaced while calls are set up and up: none is lost, and none fails.

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
