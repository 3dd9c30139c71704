//! What a plan says of the account: state, VPC, name, refresh, what carriers admit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::{Value, json};
use sipedge::plan::{Addresses, Plan, Side, TargetKind, Topology, hand_off, plan};
use sipedge::spec::{Spec, init_text};
use sipedge_proxy::config::Advertise;

const PRODUCTION: &str = include_str!("../examples/production.yaml");
const TLS: &str = include_str!("../examples/tls.yaml");

fn planned(text: &str, topology: Topology, target: TargetKind) -> Plan {
    let loaded = Spec::parse("x", text).unwrap_or_else(|errors| panic!("{errors}"));
    plan(&loaded, topology, target).unwrap()
}

fn variables(plan: &Plan) -> Value {
    serde_json::from_str(&plan.artefacts[&format!("{}.auto.tfvars.json", plan.topology)]).unwrap()
}

#[test]
fn both_topologies_have_names_secrets_and_state_of_their_own() {
    for topology in [Topology::SingleEc2, Topology::LoadBalanced] {
        let plan = planned(PRODUCTION, topology, TargetKind::Aws);
        let aws = plan.aws.as_ref().unwrap();
        assert_eq!(aws.resource_name, format!("sipedge-bridge-production-{topology}"));
        assert_eq!(aws.parameter_prefix, format!("/sipedge/bridge-production/{topology}"));
        let state = aws.state.as_ref().unwrap();
        assert_eq!(state.key, format!("sipedge/bridge-production/{topology}.tfstate"));
        assert_eq!((state.bucket.as_str(), state.region.as_str()), ("example-terraform-state", "eu-central-1"));
        let variables = variables(&plan);
        assert_eq!(variables["parameter_prefix"], aws.parameter_prefix.as_str());
        assert_eq!(variables["tags"]["sipedge:topology"], topology.as_str());
        assert_eq!(variables["tags"]["team"], "voice");
        let sorted: Vec<&String> = variables.as_object().unwrap().keys().collect();
        assert!(sorted.is_sorted(), "{sorted:?}");
    }
}

#[test]
fn the_name_stands_for_one_topology_and_is_advertised_there() {
    let balanced = planned(PRODUCTION, Topology::LoadBalanced, TargetKind::Aws);
    assert_eq!(balanced.proxy.advertise, Advertise::Host("sip.example.com".into()));
    assert_eq!(variables(&balanced)["dns"], json!({"zone": "example.com.", "name": "sip.example.com", "srv": true}));
    let single = planned(PRODUCTION, Topology::SingleEc2, TargetKind::Aws);
    assert_eq!(single.proxy.advertise, Advertise::Host("${ingress_address}".into()));
    assert_eq!(variables(&single)["dns"], Value::Null);
    let text = PRODUCTION.replace("name: sip.example.com }", "name: sip.example.com, topology: single-ec2 }");
    assert_eq!(variables(&planned(&text, Topology::SingleEc2, TargetKind::Aws))["dns"]["name"], "sip.example.com");
    assert_eq!(variables(&planned(&text, Topology::LoadBalanced, TargetKind::Aws))["dns"], Value::Null);
    let lab = planned(PRODUCTION, Topology::LoadBalanced, TargetKind::Lab);
    assert_eq!(lab.proxy.advertise, Advertise::Host("${ingress_address}".into()), "the lab has no public DNS");
}

#[test]
fn a_vpc_that_is_there_gives_zones_and_subnets() {
    let vpc = "region: us-east-1, vpc: { id: vpc-01234567, public_subnets: { us-east-1b: subnet-01234560, us-east-1d: subnet-01234561 }, private_subnets: { us-east-1b: subnet-01234562, us-east-1d: subnet-01234563 } }";
    let text = init_text("x").replace("region: us-east-1, profile: default", vpc);
    let plan = planned(&text, Topology::LoadBalanced, TargetKind::Aws);
    let expected = json!({
        "id": "vpc-01234567",
        "public_subnet_ids": {"us-east-1b": "subnet-01234560", "us-east-1d": "subnet-01234561"},
        "private_subnet_ids": {"us-east-1b": "subnet-01234562", "us-east-1d": "subnet-01234563"},
    });
    assert_eq!(variables(&plan)["existing_vpc"], expected);
    assert_eq!(variables(&plan)["zones"], json!(["us-east-1b", "us-east-1d"]));
    let single = planned(&text, Topology::SingleEc2, TargetKind::Aws);
    assert_eq!(variables(&single)["existing_vpc"]["public_subnet_ids"], json!({"us-east-1b": "subnet-01234560"}));
    let cost = plan.cost.unwrap();
    assert!(cost.items.iter().all(|item| item.name != "NAT gateway"), "{:?}", cost.items);
}

#[test]
fn a_refresh_takes_minutes_on_aws_and_seconds_in_the_lab() {
    let aws = planned(&init_text("x"), Topology::LoadBalanced, TargetKind::Aws).refresh;
    assert_eq!(
        (aws.min_healthy_percent, aws.max_healthy_percent, aws.checkpoints.as_slice()),
        (100, 150, &[10, 100][..])
    );
    assert!(aws.checkpoint_delay_s >= 60 && aws.bake_s >= 60 && aws.timeout_s >= 3_600 && aws.skip_matching);
    let lab = planned(&init_text("x"), Topology::LoadBalanced, TargetKind::Lab).refresh;
    assert!(lab.checkpoint_delay_s <= 1 && lab.bake_s <= 1 && lab.warmup_s <= 1, "{lab:?}");
    let said = init_text("x") + "refresh: { max_healthy: 120, checkpoints: [50, 100], bake: 10s }\n";
    let lab = planned(&said, Topology::LoadBalanced, TargetKind::Lab).refresh;
    assert_eq!((lab.max_healthy_percent, lab.checkpoints.as_slice(), lab.bake_s), (120, &[50, 100][..], 10));
    // The second instance is there before the first one goes, whatever the spec says of groups.
    let single = planned(&said, Topology::SingleEc2, TargetKind::Aws).refresh;
    assert_eq!((single.min_healthy_percent, single.max_healthy_percent, single.checkpoints), (100, 200, vec![100]));
}

#[test]
fn an_alarm_that_would_always_be_on_is_not_there() {
    for (scaling, desired) in
        [("{ min: 2, max: 10 }", json!(8)), ("{ min: 2, max: 2 }", Value::Null), ("{ min: 3, max: 4 }", json!(4))]
    {
        let plan = planned(&format!("{}scaling: {scaling}\n", init_text("x")), Topology::LoadBalanced, TargetKind::Aws);
        assert_eq!(variables(&plan)["alarms"]["desired"], desired, "{scaling}");
    }
}

#[test]
fn carriers_admit_the_way_in_and_the_way_out() {
    let balanced = planned(&init_text("x"), Topology::LoadBalanced, TargetKind::Aws);
    let sides = |plan: &Plan, trunk: &str| -> Vec<Side> {
        plan.whitelist.iter().filter(|entry| entry.trunk == trunk).map(|entry| entry.side).collect()
    };
    assert_eq!(sides(&balanced, "destination"), [Side::Egress, Side::Ingress]);
    assert_eq!(sides(&balanced, "source"), [Side::Ingress, Side::Egress]);
    let entry = &balanced.whitelist[0];
    assert!(entry.place.as_ref().unwrap().contains("IP Access Control Lists") && entry.peer == "Twilio", "{entry:?}");
    let single = planned(&init_text("x"), Topology::SingleEc2, TargetKind::Aws);
    assert_eq!(sides(&single, "destination"), [Side::Both]);
}

#[test]
fn the_sheet_has_the_addresses_of_a_deploy() {
    let plan = planned(&init_text("x"), Topology::LoadBalanced, TargetKind::Aws);
    let known = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
    let addresses = Addresses { ingress: known(&["203.0.113.10", "203.0.113.11"]), egress: known(&["203.0.113.20"]) };
    let sheet = hand_off(&plan, &addresses).unwrap();
    assert!(!sheet.contains("${"), "{sheet}");
    assert!(sheet.contains("`sip:203.0.113.10:5060`, `sip:203.0.113.11:5060`"), "{sheet}");
    assert!(sheet.contains("<Sip>sip:{{To}}@203.0.113.10:5060</Sip>"), "{sheet}");
    assert!(sheet.contains("| Calls go out from (egress) | `203.0.113.20` |"), "{sheet}");
    assert!(hand_off(&plan, &Addresses::default()).unwrap().contains("${egress_address}"));
}

#[test]
fn the_sheet_names_the_port_that_a_trunk_speaks_by() {
    let text = TLS.replace("192.0.2.18:5060;transport=udp", "192.0.2.18:5061;transport=tls");
    let sheet = |text: &str| planned(text, Topology::LoadBalanced, TargetKind::Aws).artefacts["hand-off.md"].clone();
    let by_tls = sheet(&text);
    assert!(by_tls.contains("BYE comes back to `sip:sip.example.com:5061;transport=tls`"), "{by_tls}");
    let by_udp = sheet(TLS);
    assert!(by_udp.contains("BYE comes back to `sip:sip.example.com:5060`"), "{by_udp}");
    let offers = "`sip:sip.example.com:5060`, or `sip:sip.example.com:5061;transport=tls`";
    assert!(by_udp.contains(offers), "{by_udp}");
}

#[test]
fn quotas_that_have_to_be_raised_are_warned_of() {
    let plan = planned(PRODUCTION, Topology::LoadBalanced, TargetKind::Aws);
    let warned = |what: &str| plan.warnings.iter().any(|warning| warning.contains(what));
    assert!(warned("needs 9 Elastic IPs"), "{:?}", plan.warnings);
    assert!(
        planned(&init_text("x"), Topology::LoadBalanced, TargetKind::Aws)
            .warnings
            .iter()
            .all(|w| !w.contains("Elastic IPs"))
    );
}

#[test]
fn a_trunk_open_to_the_world_leaves_others_their_addresses() {
    let text = init_text("x").replace(
        "source: { carrier: twilio }",
        "source: { from: [0.0.0.0/0], open_to_the_world: true, limits: { cps: 5 } }",
    );
    let plan = planned(&text, Topology::LoadBalanced, TargetKind::Aws);
    let from = |name: &str| plan.proxy.trunks.iter().find(|trunk| trunk.name == name).unwrap().from.len();
    assert_eq!((from("source"), from("destination")), (1, 8));
    planned(&text, Topology::LoadBalanced, TargetKind::Lab);
}

#[test]
fn a_subnet_keeps_its_range_whatever_zones_stand_beside_it() {
    let ranges = |zones: &str| {
        let aws = format!("region: us-east-1, zones: [{zones}]");
        let text = init_text("x").replace("region: us-east-1, profile: default", &aws);
        let variables = variables(&planned(&text, Topology::LoadBalanced, TargetKind::Aws));
        (variables["public_subnets"].clone(), variables["private_subnets"].clone())
    };
    let all = json!({"us-east-1a": "10.0.0.0/24", "us-east-1c": "10.0.2.0/24", "us-east-1o": "10.0.14.0/24"});
    let private = json!({"us-east-1a": "10.0.16.0/20", "us-east-1c": "10.0.48.0/20", "us-east-1o": "10.0.240.0/20"});
    assert_eq!(ranges("us-east-1a, us-east-1c, us-east-1o"), (all.clone(), private.clone()));
    assert_eq!(ranges("us-east-1o, us-east-1c, us-east-1a"), (all.clone(), private.clone()));
    let (public, inside) = ranges("us-east-1c, us-east-1o");
    assert_eq!((&public["us-east-1c"], &inside["us-east-1c"]), (&all["us-east-1c"], &private["us-east-1c"]));
}

#[test]
fn an_answerer_that_nobody_reaches_is_warned_of_on_aws() {
    let warned = |rest: &str, target| {
        let plan = planned(&(init_text("x") + rest), Topology::SingleEc2, target);
        plan.warnings.iter().any(|warning| warning.contains("verify.operators: [YOUR.ADDRESS/32]"))
    };
    assert!(warned("", TargetKind::Aws));
    assert!(!warned("", TargetKind::Lab), "the lab has its own caller");
    assert!(!warned("verify: { operators: [192.0.2.7/32] }\n", TargetKind::Aws));
    assert!(!warned("verify: { answerer: false }\n", TargetKind::Aws));
}

#[test]
fn who_may_call_the_answerer_is_among_the_defaults_of_aws() {
    let shown = |rest: &str, target| {
        let plan = planned(&(init_text("x") + rest), Topology::LoadBalanced, target);
        let names = plan.defaults.into_iter().map(|default| default.setting);
        names.filter(|name| ["verify.answerer", "verify.operators"].contains(&name.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(shown("", TargetKind::Aws), ["verify.answerer", "verify.operators"]);
    assert_eq!(shown("", TargetKind::Lab), ["verify.answerer"]);
    assert_eq!(shown("verify: { answerer: false }\n", TargetKind::Aws), Vec::<String>::new());
    assert_eq!(shown("verify: { operators: [192.0.2.7/32] }\n", TargetKind::Aws), ["verify.answerer"]);
}

#[test]
fn an_instance_counts_once_the_load_balancer_can_have_registered_it() {
    let plan = planned(&init_text("x"), Topology::LoadBalanced, TargetKind::Aws);
    assert_eq!((plan.refresh.warmup_s, &variables(&plan)["warmup_s"]), (240, &json!(240)));
    let reason = plan.defaults.iter().find(|default| default.setting == "refresh.warmup").unwrap();
    assert!(reason.value == "4m" && reason.reason.contains("register"), "{reason:?}");
}
