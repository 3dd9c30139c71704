//! What a change means for calls.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sipedge_proxy::config::Advertise;

use super::{INGRESS_ADDRESS, Listener, Plan, PlanError, TargetKind, Topology, VpcPlan};
use crate::spec::Count;

/// What one change means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Risk {
    /// What changes.
    pub change: String,
    /// What that does, in one word.
    pub effect: Effect,
    /// What it means for calls, and who has to do what.
    pub meaning: String,
}

/// What a change does, from the mildest to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// No call notices.
    None,
    /// Instances are replaced one after another; calls go on.
    Refresh,
    /// Somebody else has to do something, before or after.
    Act,
    /// Some calls fail while it happens.
    Disturbs,
    /// All calls end.
    CallsEnd,
    /// It cannot be done in one deploy, which refuses it.
    Refused,
}

/// What Terraform does to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed where it is.
    Update,
    /// It is removed and made anew.
    Replace,
    /// It is removed.
    Destroy,
}

/// What it means for calls when `planned` takes the place of `deployed`, the worst first. Empty when nothing is deployed, or nothing
/// that calls or operators notice changes.
pub fn risks(deployed: Option<&Plan>, planned: &Plan) -> Vec<Risk> {
    let Some(deployed) = deployed else { return Vec::new() };
    let mut found = Found(Vec::new());
    place(deployed, planned, &mut found);
    if found.0.iter().any(|risk| risk.effect == Effect::Refused) {
        // Nothing else comes to pass.
        return found.0;
    }
    addresses(deployed, planned, &mut found);
    listeners(deployed, planned, &mut found);
    instances(deployed, planned, &mut found);
    group(deployed, planned, &mut found);
    peers(deployed, planned, &mut found);
    let mut risks = found.0;
    risks.sort_by_key(|risk| std::cmp::Reverse(risk.effect));
    risks
}

/// Refuses what cannot become `planned` where `deployed` stands, before anything is begun.
///
/// # Errors
/// [`PlanError::NotFromHere`], with what to do instead.
pub fn reachable(deployed: Option<&Plan>, planned: &Plan) -> Result<(), PlanError> {
    match risks(deployed, planned).into_iter().find(|risk| risk.effect == Effect::Refused) {
        Some(risk) => Err(PlanError::NotFromHere { change: risk.change, reason: risk.meaning }),
        None => Ok(()),
    }
}

/// What `action` on a resource of `resource_type` (`aws_lb`, …) means for calls. None: nothing that calls notice.
pub fn meaning(resource_type: &str, action: Action) -> Option<&'static str> {
    use Action::{Create, Destroy, Replace, Update};
    Some(match (resource_type, action) {
        ("aws_vpc", Replace) => {
            "the VPC is made anew with everything in it: all calls end, and the edge is away for minutes"
        }
        ("aws_vpc", Destroy) => "everything in the VPC goes with it: all calls end",
        ("aws_subnet", Replace | Destroy) => {
            "what runs in this subnet ends: instances, load balancer node or NAT gateway of its zone, with the calls on them"
        }
        ("aws_internet_gateway", Replace | Destroy) => {
            "nothing reaches the edge and nothing leaves it until it is back: all calls lose their signalling"
        }
        ("aws_eip", Replace | Destroy) => {
            "the public address is given back and AWS does not return it: carriers have to be told the new one before they can call or are called"
        }
        ("aws_eip", Create) => "a new public address: carriers have to admit it before calls use it",
        ("aws_lb", Replace) => {
            "the load balancer is replaced: the ingress addresses stay, but no call comes in for some minutes, and BYE and re-INVITE of carriers are lost meanwhile"
        }
        ("aws_lb", Update) => "the load balancer is changed where it is: flows stay",
        ("aws_lb", Destroy) => "no call comes in any more",
        ("aws_lb_listener", Replace) => {
            "the port takes nothing for some minutes, until the load balancer has the new listener in every zone: calls that begin or end meanwhile fail"
        }
        ("aws_lb_listener", Create) => "the load balancer takes a further port",
        ("aws_lb_listener", Destroy) => "the port takes nothing any more: who calls there gets no answer",
        ("aws_lb_listener", Update) => {
            "the listener is changed where it is; when it turns to another target group, new flows are lost until the instances are registered and healthy there, some minutes"
        }
        ("aws_lb_target_group", Replace) => {
            "the target group is replaced: the instances are registered with the new one, which takes some minutes, and new flows are lost meanwhile; the calls go on by any instance, since their route tokens say which they are"
        }
        ("aws_lb_target_group", Update) => "attributes of the target group change: they hold for new flows",
        ("aws_nat_gateway", Replace) => {
            "the NAT gateway is replaced: its addresses stay, its flows break; answers on their way are lost and TLS and TCP connections to carriers are opened anew"
        }
        ("aws_nat_gateway", Create) => "a further way out: calls use its addresses as soon as its route is there",
        ("aws_nat_gateway", Destroy) => {
            "its flows break; calls from its zones leave by another gateway, with another address"
        }
        ("aws_nat_gateway", Update) => {
            "addresses of the NAT gateway change: new calls may leave from each, so carriers have to admit all of them"
        }
        ("aws_route", Replace | Update) => {
            "instances leave by another gateway: flows to carriers break and are opened anew"
        }
        ("aws_route", Destroy) | ("aws_route_table", Replace | Destroy) => {
            "instances of the zone have no way out until it is back: no call goes out"
        }
        ("aws_security_group", Replace) => {
            "the new security group is there first. Instances that run keep the old one until they are replaced, and AWS deletes no group that is in use: the apply may end with that error, and the same command goes on after a refresh"
        }
        ("aws_vpc_security_group_ingress_rule", Create) => "further sources are let in",
        ("aws_vpc_security_group_ingress_rule", Destroy | Replace) => {
            "new flows of these sources are shut out; flows that are there go on until they are idle, so a BYE may still get through"
        }
        ("aws_launch_template", Create | Update | Replace) => {
            "a new version for instances: the refresh replaces them one after another, and calls go on"
        }
        ("aws_launch_template", Destroy) => "no instance can be launched any more",
        ("aws_autoscaling_group", Replace) => {
            "the group is made anew: all instances end without a drain, then new ones start. All calls lose their signalling, and no call comes in for some minutes"
        }
        ("aws_autoscaling_group", Destroy) => "all instances end, and all calls lose their signalling",
        ("aws_autoscaling_group", Update) => "the group's settings change; instances stay",
        ("aws_autoscaling_lifecycle_hook", Replace | Destroy) => {
            "for a moment instances start or leave without waiting: no drain for one that leaves just then"
        }
        ("aws_autoscaling_policy", _) => "the group grows and shrinks by another measure",
        ("aws_iam_role", Replace | Destroy) | ("aws_iam_instance_profile", Replace | Destroy) => {
            "instances that run lose their role: secrets are not read again and nothing is told to the group until they are replaced"
        }
        ("aws_iam_role_policy", Update | Replace) => "instances may do other things from now on; calls do not notice",
        ("aws_route53_record", Update | Replace) => {
            "the name leads elsewhere once its TTL is over; calls in progress stay where they are"
        }
        ("aws_route53_record", Destroy) => {
            "the name is gone: carriers that call it by name get nowhere, and so do BYEs of calls in which it was advertised"
        }
        ("aws_cloudwatch_metric_alarm", Destroy) => {
            "nobody is told of it any more, and it does not roll a refresh back"
        }
        ("aws_sns_topic", Replace | Destroy) => "who is told of alarms has to confirm again",
        ("aws_sns_topic_subscription", Create) => {
            "AWS asks a mail address for its consent; until it is given nobody is told"
        }
        _ => return None,
    })
}

struct Found(Vec<Risk>);

impl Found {
    fn add(&mut self, effect: Effect, change: impl Into<String>, meaning: impl Into<String>) {
        self.0.push(Risk { change: change.into(), effect, meaning: meaning.into() });
    }
}

/// Region, VPC, zones.
fn place(before: &Plan, after: &Plan, found: &mut Found) {
    if let (Some(old), Some(new)) = (&before.aws, &after.aws) {
        if old.region != new.region {
            let meaning = "Terraform would look for what is deployed in the other region, find nothing and forget it, while it goes on to take calls and cost. Destroy the edge with the old region, which ends all calls, then deploy it with the new one: all public addresses are new";
            found.add(Effect::Refused, format!("region {} → {}", old.region, new.region), meaning);
            return;
        }
        let id = |vpc: &Option<super::VpcPlan>| vpc.as_ref().map_or("its own".to_owned(), |vpc| vpc.id.clone());
        if old.vpc.as_ref().map(|vpc| &vpc.id) != new.vpc.as_ref().map(|vpc| &vpc.id) {
            let meaning = "what stands in one VPC cannot move to another: AWS would refuse it half way. Destroy the edge, which ends all calls, then deploy it: ingress and egress addresses are others then";
            found.add(Effect::Refused, format!("VPC {} → {}", id(&old.vpc), id(&new.vpc)), meaning);
            return;
        }
        if let (Some(old), Some(new)) = (&old.vpc, &new.vpc) {
            subnets(after.topology, old, new, found);
        }
        if old.state != new.state {
            let meaning = "Terraform's state is moved there first; calls do not notice";
            found.add(Effect::None, "place of Terraform's state", meaning);
        }
    }
    zones(before, after, found);
}

/// Other subnets of the same zones, in a VPC that exists.
fn subnets(topology: Topology, old: &VpcPlan, new: &VpcPlan, found: &mut Found) {
    let others = |old: &BTreeMap<String, String>, new: &BTreeMap<String, String>| -> Option<String> {
        let moved = old.iter().filter_map(|(zone, before)| Some((before, new.get(zone)?)));
        let moved: Vec<String> = moved
            .filter(|(before, after)| before != after)
            .map(|(before, after)| format!("{before} → {after}"))
            .collect();
        (!moved.is_empty()).then(|| moved.join(", "))
    };
    let of_instances = match topology {
        Topology::SingleEc2 => others(&old.public_subnet_ids, &new.public_subnet_ids),
        Topology::LoadBalanced => {
            if let Some(change) = others(&old.public_subnet_ids, &new.public_subnet_ids) {
                let meaning = "Terraform's provider replaces the load balancer for it: the ingress addresses stay, but no call comes in for some minutes, and BYE and re-INVITE of carriers are lost meanwhile";
                found.add(Effect::Disturbs, format!("public subnet {change}"), meaning);
            }
            others(&old.private_subnet_ids, &new.private_subnet_ids)
        }
    };
    if let Some(change) = of_instances {
        let meaning = match topology {
            Topology::SingleEc2 => {
                "the instance stays in the old subnet, which has to stay too, until `sipedge refresh` has replaced it; the Elastic IP stays. The new one needs a route to the Internet"
            }
            Topology::LoadBalanced => {
                "instances stay in the old subnet, which has to stay too, until `sipedge refresh` has replaced them. Where the new one leaves by another NAT gateway, carriers have to admit its addresses before"
            }
        };
        found.add(Effect::Act, format!("subnet of the instances {change}"), meaning);
    }
}

/// Names of a plan's zones, in their order.
fn zone_names(plan: &Plan) -> Vec<&str> {
    plan.network.zones.iter().map(|zone| zone.name.as_str()).collect()
}

/// What is in `zones` and not in `others`.
fn without<'a>(zones: &[&'a str], others: &[&str]) -> Vec<&'a str> {
    zones.iter().filter(|zone| !others.contains(*zone)).copied().collect()
}

fn zones(before: &Plan, after: &Plan, found: &mut Found) {
    let (old, new) = (zone_names(before), zone_names(after));
    if old == new {
        return;
    }
    let (gone, added) = (without(&old, &new), without(&new, &old));
    let (gone_list, added_list) = (gone.join(", "), added.join(", "));
    if after.topology == Topology::SingleEc2 {
        let meaning = "the instance is replaced by one in the other zone; the address moves to it once it has called itself: calls that are up go on, those that ring at that moment may fail";
        found.add(Effect::Disturbs, format!("zone {gone_list} → {added_list}"), meaning);
        return;
    }
    if !gone.is_empty() && !added.is_empty() {
        let meaning = "Terraform's AWS provider cannot do both at once (\"Provider produced inconsistent final plan\"): deploy with the further zone beside the old ones first, then without those that go";
        found.add(Effect::Refused, format!("zone {gone_list} → {added_list}"), meaning);
        return;
    }
    if !gone.is_empty() {
        let meaning = "Terraform's provider replaces the load balancer for it: no call comes in for some minutes. The ingress addresses of these zones are given back; those of the other zones stay";
        found.add(Effect::Disturbs, format!("without zone {gone_list}"), meaning);
    }
    if !added.is_empty() {
        let meaning =
            "one more ingress address for each: carriers get it for their origination, and have to admit it before";
        found.add(Effect::Act, format!("further zone {added_list}"), meaning);
    }
    if let (Some(first), Some(next)) = (old.first(), new.first())
        && first != next
    {
        first_zone(after, first, next, gone.contains(first), found);
    }
}

/// The first zone has the address that is advertised, and the only NAT gateway.
fn first_zone(after: &Plan, old: &str, new: &str, is_gone: bool, found: &mut Found) {
    let change = format!("first zone {old} → {new}");
    if after.proxy.advertise == Advertise::Host(INGRESS_ADDRESS.into()) {
        let (effect, meaning) = match is_gone {
            true => (
                Effect::Disturbs,
                "its ingress address is the one in Via and Record-Route: the BYE and re-INVITE of calls that were told the old one are lost. Carriers that call the old one have to be told the other",
            ),
            false => (
                Effect::Refresh,
                "its ingress address is the one in Via and Record-Route: instances are replaced to say the other; calls in progress go on by the old one, which stays",
            ),
        };
        found.add(effect, change.clone(), meaning);
    }
    let own_gateway = after.aws.as_ref().filter(|aws| aws.vpc.is_none()).and_then(|aws| aws.egress);
    if own_gateway.is_some_and(|egress| egress.gateways == Count::One) {
        let meaning = "the NAT gateway moves to it: its addresses stay, but no call goes out for some minutes";
        found.add(Effect::Disturbs, change, meaning);
    }
}

/// What carriers have to admit.
fn addresses(before: &Plan, after: &Plan, found: &mut Found) {
    egress(before, after, found);
    if before.proxy.advertise != after.proxy.advertise {
        let meaning = "calls in progress go on to use what they were told: the old address or name has to lead here for as long as they last";
        found.add(Effect::Refresh, "what Via and Record-Route say", meaning);
    }
    let name = |plan: &Plan| plan.aws.as_ref().and_then(|aws| aws.dns.clone());
    match (name(before), name(after)) {
        (Some(old), None) => found.add(
            Effect::Act,
            format!("name {}", old.name),
            "its records go: who calls it by name has to be told the address",
        ),
        (Some(old), Some(new)) if old.name != new.name => {
            found.add(
                Effect::Act,
                format!("name {} → {}", old.name, new.name),
                "who calls the old name has to be told the new one before",
            );
        }
        _ => {}
    }
}

/// Addresses from which calls leave by NAT gateways of the edge's own.
fn egress(before: &Plan, after: &Plan, found: &mut Found) {
    let own = |plan: &Plan| plan.aws.as_ref().filter(|aws| aws.vpc.is_none()).and_then(|aws| aws.egress);
    let (Some(old), Some(new)) = (own(before), own(after)) else { return };
    if old.gateways != new.gateways {
        let meaning = "all egress addresses are new, and those of before are given back to AWS: carriers have to admit the new ones, which sipedge can tell only once they are there, so calls fail until they do. Flows to carriers break once and are opened anew";
        let change = format!("NAT gateways {} → {}", old.gateways.as_str(), new.gateways.as_str());
        found.add(Effect::Disturbs, change, meaning);
        return;
    }
    let is_each = new.gateways == Count::PerZone;
    let (zones_before, zones_after) = (zone_names(before), zone_names(after));
    let count = |addresses: u32, zones: &[&str]| {
        if is_each { addresses * u32::try_from(zones.len()).unwrap_or(u32::MAX) } else { addresses }
    };
    let change =
        format!("egress addresses {} → {}", count(old.addresses, &zones_before), count(new.addresses, &zones_after));
    let more = is_each && !without(&zones_after, &zones_before).is_empty();
    if new.addresses > old.addresses || more {
        let meaning = "new calls may leave from the new addresses at once: carriers have to admit them before, and sipedge can tell them only after they are there. Deploy when few calls are made, or use an address that is admitted already";
        found.add(Effect::Act, change.clone(), meaning);
    }
    let fewer = is_each && !without(&zones_before, &zones_after).is_empty();
    if new.addresses < old.addresses || fewer {
        let meaning =
            "flows by an address that goes break; AWS gives it to somebody else: carriers should no longer admit it";
        found.add(Effect::Disturbs, change, meaning);
    }
}

fn listeners(before: &Plan, after: &Plan, found: &mut Found) {
    let balanced = after.topology == Topology::LoadBalanced;
    let same_port = |listeners: &[Listener], port| listeners.iter().find(|listener| listener.port == port).copied();
    for old in &before.network.listeners {
        match same_port(&after.network.listeners, old.port) {
            None => {
                let meaning =
                    "who calls there gets no answer any more, and BYEs to it are lost: carriers have to be told before";
                found.add(Effect::Disturbs, format!("port {} goes", old.port), meaning);
            }
            Some(new) if new.protocol != old.protocol && balanced => {
                let meaning = "AWS changes no target group's protocol, so the listener turns to a new target group: new flows are lost until the instances are registered and healthy there, some minutes. The addresses stay";
                found.add(Effect::Disturbs, format!("protocol of port {}", old.port), meaning);
            }
            Some(_) => {}
        }
    }
    for new in &after.network.listeners {
        if same_port(&before.network.listeners, new.port).is_none() {
            let meaning = "carriers may be told to call there; nothing changes for those who do not";
            found.add(Effect::Act, format!("further port {}", new.port), meaning);
        }
    }
    if before.network.spreading != after.network.spreading {
        found.add(
            Effect::None,
            "spreading of flows",
            "it holds for new flows; calls in progress stay, since every instance knows them by their route tokens",
        );
    }
}

/// What a new launch template version brings.
fn instances(before: &Plan, after: &Plan, found: &mut Found) {
    let mut changes = Vec::new();
    if before.proxy != after.proxy {
        changes.push("configuration");
    }
    if let (Some(old), Some(new)) = (&before.aws, &after.aws) {
        let template = [
            ("instance type", old.instance_type != new.instance_type),
            ("image", old.image != new.image),
            ("volume", old.volume_gib != new.volume_gib),
        ];
        changes.extend(template.into_iter().filter(|(_, changed)| *changed).map(|(what, _)| what));
    }
    if changes.is_empty() {
        return;
    }
    let meaning = match after.topology {
        Topology::LoadBalanced => {
            "instances are replaced one after another: each takes calls until the load balancer sends none, then drains; calls go on through the others"
        }
        Topology::SingleEc2 => {
            "a second instance starts and calls itself, then the Elastic IP moves to it: calls that are up go on, those that ring at that moment may fail"
        }
    };
    let effect = if after.topology == Topology::SingleEc2 { Effect::Disturbs } else { Effect::Refresh };
    found.add(effect, changes.join(", "), meaning);
    if before.proxy.drain.grace_ms > after.proxy.drain.grace_ms {
        let meaning = "instances leave earlier: a transaction that is in progress by then is lost; the instances that leave now have the old time";
        found.add(Effect::None, "shorter drain", meaning);
    }
}

fn group(before: &Plan, after: &Plan, found: &mut Found) {
    let (old, new) = (before.scaling, after.scaling);
    if old != new {
        let change = format!("{} to {} instances → {} to {}", old.min, old.max, new.min, new.max);
        let meaning = if new.max < old.max {
            "instances over the new limit leave and drain like any other; calls go on"
        } else {
            "the group grows when it has to; calls do not notice"
        };
        found.add(Effect::None, change, meaning);
    }
    let alarms = |plan: &Plan| plan.aws.as_ref().map(|aws| aws.alarms.clone());
    if alarms(before) != alarms(after) {
        found.add(Effect::None, "alarms", "calls do not notice; a new mail address has to give its consent first");
    }
}

/// Who is let in.
fn peers(before: &Plan, after: &Plan, found: &mut Found) {
    let ranges = |plan: &Plan| -> BTreeSet<String> {
        plan.carriers.iter().flat_map(|carrier| &carrier.ranges).map(|range| range.used.to_string()).collect()
    };
    let (old, new) = (ranges(before), ranges(after));
    let gone: Vec<&str> = old.difference(&new).map(String::as_str).collect();
    if !gone.is_empty() {
        let meaning = "requests from there are refused, those of calls in progress too: their BYE is lost";
        found.add(Effect::Disturbs, format!("without {}", gone.join(", ")), meaning);
    }
    let added: Vec<&str> = new.difference(&old).map(String::as_str).collect();
    if !added.is_empty() && after.target == TargetKind::Aws {
        let meaning =
            "requests from there are let in; if they are another carrier's, it has to admit the edge's addresses";
        found.add(Effect::Act, format!("further {}", added.join(", ")), meaning);
    }
}
