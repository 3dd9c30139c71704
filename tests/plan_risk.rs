//! What a change means for calls is said before anything happens.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use sipedge::plan::{
    Action, Effect, Plan, PlanError, Risk, State, TargetKind, Topology, difference, meaning, plan, reachable, render,
    risks,
};
use sipedge::spec::{Spec, init_text};

fn planned(text: &str, topology: Topology) -> Plan {
    let loaded = Spec::parse("x", text).unwrap_or_else(|errors| panic!("{errors}"));
    plan(&loaded, topology, TargetKind::Aws).unwrap()
}

/// The risks of adding `after` to the example, as a load-balanced edge.
fn of(after: &str) -> Vec<Risk> {
    let before = planned(&init_text("x"), Topology::LoadBalanced);
    risks(Some(&before), &planned(&(init_text("x") + after), Topology::LoadBalanced))
}

fn one(risks: &[Risk], change: &str) -> (Effect, String) {
    let found = risks.iter().find(|risk| risk.change.contains(change));
    found.map(|risk| (risk.effect, risk.meaning.clone())).unwrap_or_else(|| panic!("{change}: {risks:?}"))
}

#[test]
fn nothing_deployed_and_nothing_changed_are_no_risk() {
    let before = planned(&init_text("x"), Topology::LoadBalanced);
    assert_eq!(risks(None, &before), []);
    assert_eq!(risks(Some(&before), &before), []);
}

#[test]
fn a_change_of_the_configuration_replaces_instances_one_after_another() {
    let risks = of("timers: { invite: 45s }\n");
    let (effect, meaning) = one(&risks, "configuration");
    assert_eq!((effect, risks.len()), (Effect::Refresh, 1));
    assert!(meaning.contains("calls go on"), "{meaning}");
    let single = |text: &str| planned(text, Topology::SingleEc2);
    let text = init_text("x") + "timers: { invite: 45s }\n";
    let risks = sipedge::plan::risks(Some(&single(&init_text("x"))), &single(&text));
    assert!(one(&risks, "configuration").1.contains("the Elastic IP moves"), "{risks:?}");
}

#[test]
fn a_change_of_protocol_replaces_the_target_group_and_keeps_the_addresses() {
    let (effect, meaning) = one(&of("listen: { tcp: false }\n"), "protocol of port 5060");
    assert_eq!(effect, Effect::Disturbs);
    assert!(meaning.contains("target group") && meaning.contains("addresses stay"), "{meaning}");
    assert!(meaning.contains("minutes") && !meaning.contains("seconds"), "{meaning}");
}

#[test]
fn new_addresses_have_to_be_admitted_before() {
    for (after, change) in [
        ("egress: { addresses: 2 }\n", "egress addresses 1 → 2"),
        ("egress: { gateways: per-zone }\n", "NAT gateways one → per-zone"),
    ] {
        let (effect, meaning) = one(&of(after), change);
        assert!(effect >= Effect::Act && meaning.contains("admit"), "{change}: {effect:?} {meaning}");
    }
}

#[test]
fn zones_and_regions_are_told_apart_by_what_they_cost() {
    let before = planned(&init_text("x"), Topology::LoadBalanced);
    let other = |aws: &str| {
        let text = init_text("x").replace("region: us-east-1, profile: default", aws);
        risks(Some(&before), &planned(&text, Topology::LoadBalanced))
    };
    let fewer = other("region: us-east-1, zones: [us-east-1a, us-east-1b]");
    let (effect, meaning) = one(&fewer, "without zone us-east-1c");
    assert_eq!(effect, Effect::Disturbs);
    assert!(meaning.contains("load balancer") && meaning.contains("other zones stay"), "{meaning}");
    let more = other("region: us-east-1, zones: [us-east-1a, us-east-1b, us-east-1c, us-east-1d]");
    assert_eq!(one(&more, "further zone us-east-1d").0, Effect::Act);
    let moved = other("region: eu-west-1");
    assert_eq!((moved[0].effect, moved.len()), (Effect::Refused, 1), "{moved:?}");
    assert!(moved[0].meaning.contains("Destroy"), "{moved:?}");
    let vpc = other(
        "region: us-east-1, zones: [us-east-1a], vpc: { id: vpc-01234567, public_subnets: { us-east-1a: subnet-01234567 }, private_subnets: { us-east-1a: subnet-01234568 } }",
    );
    assert_eq!((vpc[0].effect, vpc[0].change.as_str()), (Effect::Refused, "VPC its own → vpc-01234567"));
    assert!(vpc[0].meaning.contains("Destroy") && !vpc[0].meaning.contains("stay"), "{vpc:?}");
}

#[test]
fn another_subnet_of_the_same_zone_is_named() {
    let within = |public: &str, private: &str, topology| {
        let vpc = format!(
            "region: us-east-1, zones: [us-east-1a], vpc: {{ id: vpc-01234567, public_subnets: {{ us-east-1a: {public} }}, \
             private_subnets: {{ us-east-1a: {private} }} }}"
        );
        planned(&init_text("x").replace("region: us-east-1, profile: default", &vpc), topology)
    };
    let [first, second, third, fourth] = ["subnet-01234567", "subnet-01234568", "subnet-01234569", "subnet-0123456a"];
    let before = within(first, second, Topology::LoadBalanced);
    assert_eq!(risks(Some(&before), &before), []);
    let both = risks(Some(&before), &within(third, fourth, Topology::LoadBalanced));
    let (effect, meaning) = one(&both, &format!("public subnet {first} → {third}"));
    assert!(effect == Effect::Disturbs && meaning.contains("replaces the load balancer"), "{meaning}");
    let (effect, meaning) = one(&both, &format!("subnet of the instances {second} → {fourth}"));
    assert!(effect == Effect::Act && meaning.contains("sipedge refresh"), "{meaning}");
    assert_eq!(both.len(), 2, "{both:?}");

    // A single instance is in the public one, and the private one is nothing to it.
    let before = within(first, second, Topology::SingleEc2);
    let moved = risks(Some(&before), &within(third, fourth, Topology::SingleEc2));
    let (effect, meaning) = one(&moved, &format!("subnet of the instances {first} → {third}"));
    assert!(effect == Effect::Act && meaning.contains("Elastic IP stays"), "{meaning}");
    assert_eq!(moved.len(), 1, "{moved:?}");
}

/// A load-balanced edge in these zones of us-east-1, by their letters.
fn in_zones(letters: &str, rest: &str) -> Plan {
    let zones: Vec<String> = letters.chars().map(|letter| format!("us-east-1{letter}")).collect();
    let aws = format!("region: us-east-1, zones: [{}]", zones.join(", "));
    let text = init_text("x").replace("region: us-east-1, profile: default", &aws) + rest;
    planned(&text, Topology::LoadBalanced)
}

#[test]
fn what_takes_two_deploys_is_refused_with_both() {
    let refused = |before: &Plan, after: &Plan| match reachable(Some(before), after) {
        Err(PlanError::NotFromHere { change, reason }) => (change, reason),
        other => panic!("{other:?}"),
    };
    let (change, reason) = refused(&in_zones("abc", ""), &in_zones("abd", ""));
    assert_eq!(change, "zone us-east-1c → us-east-1d");
    assert!(reason.contains("first") && reason.contains("inconsistent final plan"), "{reason}");
    for (before, after) in [("abc", "abcd"), ("abcd", "abd"), ("abc", "bca"), ("abc", "abc")] {
        assert_eq!(reachable(Some(&in_zones(before, "")), &in_zones(after, "")), Ok(()), "{before} {after}");
    }
    assert_eq!(reachable(None, &in_zones("abd", "")), Ok(()), "there is nothing that stands");
    let elsewhere = planned(&init_text("x").replace("us-east-1", "eu-west-1"), Topology::SingleEc2);
    let here = planned(&init_text("x"), Topology::SingleEc2);
    let said = reachable(Some(&here), &elsewhere).unwrap_err().to_string();
    assert!(said.contains("region us-east-1 → eu-west-1") && said.contains("Destroy the edge"), "{said}");
}

#[test]
fn the_first_zone_has_the_advertised_address_and_the_only_gateway() {
    let change = "first zone us-east-1a → us-east-1b";
    let of = |before: &Plan, after: &Plan| -> Vec<(Effect, String)> {
        let found = risks(Some(before), after).into_iter().filter(|risk| risk.change == change);
        found.map(|risk| (risk.effect, risk.meaning)).collect()
    };
    let reordered = of(&in_zones("abc", ""), &in_zones("bac", ""));
    let [(Effect::Disturbs, gateway), (Effect::Refresh, advertised)] = reordered.as_slice() else {
        panic!("{reordered:?}")
    };
    assert!(gateway.contains("NAT gateway") && gateway.contains("addresses stay"), "{gateway}");
    assert!(advertised.contains("Record-Route") && advertised.contains("stays"), "{advertised}");
    let gone = of(&in_zones("abc", ""), &in_zones("bc", ""));
    assert!(gone.iter().any(|(effect, said)| *effect == Effect::Disturbs && said.contains("BYE")), "{gone:?}");
    let rest = "egress: { gateways: per-zone }\nload_balancer: { advertise: sip.example.com }\n";
    assert_eq!(of(&in_zones("abc", rest), &in_zones("bac", rest)), [], "a name, and a gateway in each zone");
    assert_eq!(risks(Some(&in_zones("abc", "")), &in_zones("acb", "")), [], "the first stays the first");
}

#[test]
fn egress_addresses_that_come_and_go_with_zones_are_told() {
    let each = "egress: { gateways: per-zone, addresses: 2 }\n";
    let more = risks(Some(&in_zones("ab", each)), &in_zones("abc", each));
    assert_eq!(one(&more, "egress addresses 4 → 6").0, Effect::Act, "{more:?}");
    let fewer = risks(Some(&in_zones("abc", each)), &in_zones("ab", each));
    assert_eq!(one(&fewer, "egress addresses 6 → 4").0, Effect::Disturbs, "{fewer:?}");
    let one_gateway = risks(Some(&in_zones("ab", "")), &in_zones("abc", ""));
    assert!(one_gateway.iter().all(|risk| !risk.change.contains("egress")), "{one_gateway:?}");
}

#[test]
fn the_worst_comes_first_and_stands_in_plan_and_json() {
    let before = planned(&init_text("x"), Topology::LoadBalanced);
    let text = init_text("x") + "listen: { port: 5070 }\nscaling: { max: 5 }\n";
    let after = planned(&text, Topology::LoadBalanced);
    let change = difference(Some(&before), &after);
    assert_eq!(change.state, State::Changed);
    assert!(change.risks.windows(2).all(|pair| pair[0].effect >= pair[1].effect), "{:?}", change.risks);
    assert!(change.risks.len() >= 4, "{:?}", change.risks);
    assert_eq!(serde_json::to_value(&change).unwrap()["risks"][0]["effect"], "disturbs");
    let shown = render(&after, Some(&before));
    assert!(shown.contains("\nRisk\n  some calls fail") && shown.contains("port 5060 goes"), "{shown}");
    assert!(!render(&after, None).contains("\nRisk\n"));
}

#[test]
fn tags_and_alarms_disturb_nobody() {
    let risks = of("alarms: { email: [noc@example.com] }\n");
    assert!(risks.iter().all(|risk| risk.effect == Effect::None) && !risks.is_empty(), "{risks:?}");
}

#[test]
fn what_terraform_does_to_a_resource_has_a_meaning() {
    assert!(meaning("aws_lb", Action::Replace).unwrap().contains("ingress addresses stay"));
    assert!(meaning("aws_eip", Action::Destroy).unwrap().contains("AWS does not return it"));
    assert!(meaning("aws_vpc", Action::Replace).unwrap().contains("all calls end"));
    assert!(meaning("aws_lb_listener", Action::Replace).unwrap().contains("minutes"));
    assert!(meaning("aws_autoscaling_group", Action::Replace).unwrap().contains("without a drain"));
    assert!(meaning("aws_vpc_security_group_ingress_rule", Action::Destroy).unwrap().contains("new flows"));
    assert!(meaning("aws_security_group", Action::Replace).unwrap().contains("keep the old one"));
    assert_eq!(meaning("aws_cloudwatch_dashboard", Action::Update), None);
    assert_eq!(meaning("aws_lb", Action::Create), None);
}
