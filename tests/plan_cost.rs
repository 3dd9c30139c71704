//! What an edge costs in a month, by item, before anything is created.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::{Duration, SystemTime};

use sipedge::plan::{Cost, TargetKind, Topology, plan, render, stale_prices};
use sipedge::spec::{Spec, init_text};

fn cost(text: &str, topology: Topology) -> Cost {
    let loaded = Spec::parse("x", text).unwrap_or_else(|errors| panic!("{errors}"));
    plan(&loaded, topology, TargetKind::Aws).unwrap().cost.unwrap()
}

fn item(cost: &Cost, name: &str) -> (u64, u64) {
    let found = cost.items.iter().find(|item| item.name == name).unwrap_or_else(|| panic!("{name}: {:?}", cost.items));
    (found.least_cents, found.most_cents)
}

#[test]
fn a_single_instance_costs_what_its_parts_cost() {
    let cost = cost(&init_text("x"), Topology::SingleEc2);
    assert_eq!(item(&cost, "instance t3.small"), (1_518, 1_518));
    assert_eq!(item(&cost, "public IPv4 address"), (365, 365));
    assert_eq!(item(&cost, "volume gp3"), (64, 64));
    assert!(cost.items.iter().all(|item| item.name != "NAT gateway" && item.name != "network load balancer"));
    assert_eq!(cost.least_cents, cost.items.iter().map(|item| item.least_cents).sum::<u64>());
    assert_eq!(cost.least_cents, cost.most_cents);
    assert_eq!(item(&cost, "detailed monitoring"), (210, 210));
    assert_eq!((item(&cost, "metric of an alarm"), item(&cost, "dashboard")), ((50, 50), (300, 300)));
    assert_eq!(cost.least_cents, 2_507);
    let surplus = |cost: &Cost| cost.traffic.iter().any(|line| line.contains("credits"));
    assert!(surplus(&cost), "{:?}", cost.traffic);
    let steady = init_text("x").replace("profile: default", "instance_type: c7i.large");
    assert!(!surplus(&self::cost(&steady, Topology::SingleEc2)));
}

#[test]
fn a_group_costs_a_range_and_its_way_in_and_out() {
    let cost = cost(&init_text("x"), Topology::LoadBalanced);
    assert_eq!(item(&cost, "instance t3.small"), (3_037, 15_184));
    assert_eq!(item(&cost, "network load balancer"), (1_643, 1_643));
    assert_eq!(item(&cost, "NAT gateway"), (3_285, 3_285));
    // One ingress address for each of three zones, one egress address.
    assert_eq!(item(&cost, "public IPv4 address"), (1_460, 1_460));
    assert_eq!((cost.least_cents, cost.most_cents), (10_363, 24_702));
    assert!(cost.traffic.iter().any(|line| line.contains("NAT gateway")), "{:?}", cost.traffic);
    assert!(cost.traffic.iter().any(|line| line.contains("between zones")), "{:?}", cost.traffic);
    assert_eq!(item(&cost, "detailed monitoring"), (420, 2_100));
}

#[test]
fn gateways_and_addresses_count_for_each_zone() {
    let text = init_text("x") + "egress: { gateways: per-zone, addresses: 2 }\n";
    let cost = cost(&text, Topology::LoadBalanced);
    assert_eq!(item(&cost, "NAT gateway"), (9_855, 9_855));
    assert_eq!(item(&cost, "public IPv4 address"), (3_285, 3_285));
}

#[test]
fn a_region_without_prices_is_estimated_and_says_so() {
    let here = cost(&init_text("x").replace("us-east-1", "eu-central-1"), Topology::SingleEc2);
    assert_eq!((here.prices_of.as_str(), here.estimated.len()), ("eu-central-1", 0));
    let text = init_text("x").replace("us-east-1", "sa-east-1");
    let far = cost(&text, Topology::SingleEc2);
    assert_eq!(far.prices_of, "us-east-1");
    assert!(far.estimated.iter().any(|note| note.contains("sa-east-1") && note.contains("us-east-1")), "{far:?}");
    let shown = render(&plan(&Spec::parse("x", &text).unwrap(), Topology::SingleEc2, TargetKind::Aws).unwrap(), None);
    assert!(shown.contains("An estimate: sipedge has no prices of sa-east-1"), "{shown}");
}

#[test]
fn an_alarm_costs_as_many_metrics_as_it_looks_at() {
    let metrics =
        |rest: &str| item(&cost(&(init_text("x") + rest), Topology::LoadBalanced), "metric of an alarm").0 / 10;
    // Three alarms over the listener, CPU, room to grow, and two for each of two policies.
    assert_eq!(metrics(""), 3 + 1 + 1 + 4);
    assert_eq!(metrics("scaling: { min: 2, max: 2 }\n"), 3 + 1 + 4, "there is no alarm for room to grow");
    assert_eq!(metrics("scaling: { min: 1, max: 10 }\n"), 2 + 1 + 1 + 4, "nor for few instances");
    let tls = cost(include_str!("../examples/tls.yaml"), Topology::LoadBalanced);
    assert_eq!(item(&tls, "metric of an alarm").0 / 10, 3 * 2 + 1 + 1 + 4, "with two listeners");
}

#[test]
fn how_far_prices_were_compared_is_said() {
    let shown = |region: &str| {
        let text = init_text("x").replace("us-east-1", region);
        render(&plan(&Spec::parse("x", &text).unwrap(), Topology::LoadBalanced, TargetKind::Aws).unwrap(), None)
    };
    for (region, confirmed) in [("us-east-1", "load balancer unit, NAT gateway"), ("eu-west-1", "public IPv4 address")]
    {
        let text = shown(region);
        assert!(text.contains(&format!("Confirmed by another source: {confirmed}")), "{text}");
        assert!(text.contains("none was compared with AWS's price list"), "{text}");
    }
}

#[test]
fn the_lab_costs_nothing() {
    let loaded = Spec::parse("x", &init_text("x")).unwrap();
    assert_eq!(plan(&loaded, Topology::SingleEc2, TargetKind::Lab).unwrap().cost, None);
}

#[test]
fn old_prices_are_a_warning() {
    let spec = Spec::parse("x", &init_text("x")).unwrap().spec;
    let after = |years: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(years * 365 * 86_400);
    assert!(stale_prices(&spec, after(56)).is_empty());
    let said = stale_prices(&spec, after(60));
    assert!(said.iter().any(|warning| warning.contains("us-east-1") && warning.contains("https://aws")), "{said:?}");
}
