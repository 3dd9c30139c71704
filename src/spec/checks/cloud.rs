//! Checks of what the spec says of the AWS account: what AWS would refuse, or take and then not do.

use std::collections::BTreeSet;

use super::Checks;
use crate::spec::cloud::{Count, Refresh};
use crate::spec::instance_types;
use crate::spec::report::What;
use crate::spec::structure::{listed, nearest};
use crate::spec::tree::Path;
use crate::spec::values::Duration;

/// Tags that a resource may have (AWS General Reference, "Tag naming limits and requirements"), less those that sipedge sets: `Name`,
/// `sipedge:edge` and `sipedge:topology`.
const TAGS: usize = 50 - 3;

/// Difference of the two percentages that Amazon EC2 Auto Scaling takes (RefreshPreferences, MaxHealthyPercentage).
const HEALTHY_SPAN: u32 = 100;

/// The usual figures of a refresh, in percent, as [`crate::plan`] has them for the load-balanced topology.
const USUAL_HEALTHY: (u32, u32) = (100, 150);

pub(super) fn instance_type(checks: &mut Checks<'_>) {
    let name = checks.spec.aws.instance_type.clone();
    let path = Path::of(["aws", "instance_type"]);
    let known = instance_types::all().iter().map(|known| known.name.as_str());
    match instance_types::find(&name) {
        None => {
            let help = match nearest(&name, known.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the types that sipedge knows are {}", listed(known)),
            };
            let message = format!("`{name}` is no instance type that sipedge knows");
            checks.report(path, What::error("spec::instance-type", message, help));
        }
        Some(known) if known.arch != "x86_64" && checks.spec.aws.image.is_none() => {
            let message = format!("`{name}` is an {} type: an image for x86_64 does not start on it", known.arch);
            let help = format!("name an `image` for {}, or take a type such as t3.small", known.arch);
            checks.report(path, What::error("spec::instance-type", message, help));
        }
        Some(_) => {}
    }
}

pub(super) fn tags(checks: &mut Checks<'_>) {
    let count = checks.spec.aws.tags.len();
    if count > TAGS {
        let message = format!("{count} tags: AWS takes 50 on a resource, of which sipedge sets three");
        checks.report(Path::of(["aws", "tags"]), What::error("spec::tag", message, format!("keep at most {TAGS}")));
    }
}

/// A VPC that is there has a subnet of each kind in each zone.
pub(super) fn vpc(checks: &mut Checks<'_>) {
    let Some(vpc) = checks.spec.aws.vpc.clone() else { return };
    let at = Path::of(["aws", "vpc"]);
    let region = checks.spec.aws.region.clone();
    let zones = checks.spec.zones();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (setting, subnets) in [("public_subnets", &vpc.public_subnets), ("private_subnets", &vpc.private_subnets)] {
        let at = at.key(setting);
        if !checks.all_sound(&[at.clone(), Path::of(["aws", "zones"])]) {
            continue;
        }
        let missing: Vec<&str> = zones.iter().filter(|zone| !subnets.contains_key(*zone)).map(String::as_str).collect();
        if !missing.is_empty() && !subnets.is_empty() {
            let message = format!("`{setting}` has no subnet for {}", listed(missing.iter().copied()));
            let help = "add the subnet of each zone, or name fewer zones in `aws.zones`";
            checks.report_key(at.clone(), What::error("spec::vpc", message, help));
        }
        for (zone, id) in subnets {
            let here = at.key(zone);
            if !zone.starts_with(&region) && checks.is_sound(&Path::of(["aws", "region"])) {
                let message = format!("the zone `{zone}` is not in the region `{region}`");
                checks.report_key(here.clone(), What::error("spec::zone", message, "name zones of the region"));
            }
            if !seen.insert(id.clone()) {
                let message = format!("the subnet `{id}` stands twice; a subnet is in one zone, and public or private");
                checks.report(here, What::error("spec::vpc", message, "write the id of another subnet"));
            }
        }
    }
    for setting in ["gateways", "addresses"] {
        let path = Path::of(["egress", setting]);
        if checks.document.at(&path).is_some() {
            let message = format!("`egress.{setting}` has no effect: calls leave by the gateways of {}", vpc.id);
            let help = "take it out; carriers admit the addresses of those gateways";
            checks.report_key(path, What::warning("spec::unused", message, help));
        }
    }
}

/// A load balancer with one address is in one zone.
pub(super) fn addresses(checks: &mut Checks<'_>) {
    let zones = checks.spec.zones();
    let path = Path::of(["load_balancer", "addresses"]);
    if checks.spec.load_balancer.addresses != Count::One || zones.len() < 2 || !checks.is_sound(&Path::of(["aws"])) {
        return;
    }
    let message = format!(
        "one ingress address with instances in {} zones: a load balancer has one Elastic IP in each zone, and targets in a zone without one get no calls (Target.NotInUse)",
        zones.len()
    );
    let first = zones.first().map_or("us-east-1a", String::as_str);
    let help =
        format!("write `zones: [{first}]` in `aws` for one address in one zone, or `per-zone` here for one in each");
    checks.report(path, What::error("spec::addresses", message, help));
}

pub(super) fn refresh(checks: &mut Checks<'_>) {
    let Refresh { min_healthy, max_healthy, checkpoints, checkpoint_delay, bake, timeout, .. } =
        checks.spec.refresh.clone();
    let at = |setting: &str| Path::of(["refresh", setting]);
    let (min, max) = (min_healthy.unwrap_or(USUAL_HEALTHY.0), max_healthy.unwrap_or(USUAL_HEALTHY.1));
    let both = checks.all_sound(&[at("min_healthy"), at("max_healthy"), Path::of(["scaling"])]);
    let written = if min_healthy.is_some() { at("min_healthy") } else { at("max_healthy") };
    let group = checks.spec.scaling.min;
    // AWS rounds the instances that have to stay up; without room for one more it takes one out in any case.
    let stay = (group * min).div_ceil(100);
    let out = group.saturating_sub(stay).max(u32::from(max == 100));
    if both && out >= group && (min_healthy.is_some() || max_healthy.is_some()) {
        let message = match group {
            1 => format!(
                "with {min} % and {max} % the only instance is ended before the new one starts: nobody takes calls meanwhile"
            ),
            _ => format!(
                "with `min_healthy: {min}` all {group} instances may be replaced at once: nobody takes calls meanwhile"
            ),
        };
        let help = "leave both out for 100 and 150: new instances are ready before old ones leave";
        checks.report(written.clone(), What::error("spec::refresh", message, help));
    } else if both && max.saturating_sub(min) > HEALTHY_SPAN {
        let message =
            format!("`max_healthy` ({max}) is more than {HEALTHY_SPAN} above `min_healthy` ({min}), which AWS refuses");
        let help = format!("write a `max_healthy` of at most {}", min + HEALTHY_SPAN);
        checks.report(written, What::error("spec::refresh", message, help));
    }
    let rise = |list: &[u32]| list.windows(2).all(|pair| pair.first() < pair.last()) && list.last() == Some(&100);
    if let Some(list) = checkpoints.as_ref().filter(|list| !rise(list)) {
        let message = format!("the checkpoints {list:?} do not rise to 100");
        let help = "write rising percents of which the last is 100, such as [10, 50, 100]";
        checks.report(at("checkpoints"), What::error("spec::refresh", message, help));
    }
    if checkpoint_delay.is_some_and(|delay| delay.as_millis() == 0) {
        let message = "without a delay the refresh has gone on before the smoke call has ended";
        checks.report(at("checkpoint_delay"), What::error("spec::refresh", message, "write a delay such as 2m"));
    }
    if bake.is_some_and(|bake| bake.as_millis() == 0) {
        let message = "without a bake the refresh has ended before the smoke call";
        checks.report(at("bake"), What::error("spec::refresh", message, "write a time such as 5m"));
    }
    let Some(timeout) = timeout else { return };
    let waits = u32::try_from(checkpoints.as_ref().map_or(2, Vec::len)).unwrap_or(u32::MAX);
    let delay = checkpoint_delay.map_or(120_000, Duration::as_millis).saturating_mul(waits);
    let least = Duration::from_millis(delay.saturating_add(bake.map_or(300_000, Duration::as_millis)));
    let sound = [at("timeout"), at("checkpoint_delay"), at("bake"), at("checkpoints")];
    if timeout <= least && checks.all_sound(&sound) {
        let message = format!(
            "`refresh.timeout` is {timeout}, but the delays at {waits} checkpoints and `bake` take {least} by themselves: every refresh would be rolled back"
        );
        checks.report(at("timeout"), What::error("spec::refresh", message, "write a longer timeout, such as 2h"));
    }
}

pub(super) fn alarms(checks: &mut Checks<'_>) {
    let spec = checks.spec;
    let paths = [Path::of(["alarms", "cpu"]), Path::of(["scaling", "cpu"])];
    if spec.alarms.cpu <= spec.scaling.cpu && checks.all_sound(&paths) {
        let [alarm, scaling] = paths;
        let at = if checks.document.at(&alarm).is_some() { alarm } else { scaling };
        let message = format!(
            "the alarm goes off at {} % of CPU, which the group is scaled to ({} %): it would be on in usual operation, and roll every refresh back",
            spec.alarms.cpu, spec.scaling.cpu
        );
        let help = format!("write an `alarms.cpu` above {}, such as 80", spec.scaling.cpu);
        checks.report(at, What::error("spec::alarms", message, help));
    }
    for (setting, endpoints) in [("email", &spec.alarms.email), ("https", &spec.alarms.https)] {
        for (index, endpoint) in endpoints.iter().enumerate() {
            if endpoints.iter().take(index).any(|earlier| earlier == endpoint) {
                let message = format!("`{endpoint}` stands twice; AWS makes one subscription of them");
                let at = Path::of(["alarms", setting]).index(index);
                checks.report(at, What::error("spec::alarms", message, "take it out"));
            }
        }
    }
}

pub(super) fn dns(checks: &mut Checks<'_>) {
    let Some(dns) = checks.spec.dns.clone() else { return };
    let (zone, name) = (dns.zone.to_ascii_lowercase(), dns.name.to_ascii_lowercase());
    let at = |setting: &str| Path::of(["dns", setting]);
    let within = name.strip_suffix(&zone).is_some_and(|front| front.is_empty() || front.ends_with('.'));
    if !within && checks.all_sound(&[at("zone"), at("name")]) {
        let message = format!("`{}` is not in the zone `{}`", dns.name, dns.zone);
        checks.report(at("name"), What::error("spec::dns", message, format!("write a name such as sip.{zone}")));
    }
    let to_itself =
        checks.spec.trunks.values().flat_map(|trunk| trunk.destinations()).any(|target| target.uri.host == name);
    if to_itself {
        let message = format!(
            "`{name}` is also where calls are sent to: they would come back to the edge until Max-Forwards is 0"
        );
        checks.report(at("name"), What::error("spec::loop", message, "name the edge otherwise"));
    }
}

/// A security group takes so many rules, and each range needs one for each transport.
pub(super) fn rules(checks: &mut Checks<'_>) {
    let spec = checks.spec;
    let ranges: BTreeSet<String> =
        spec.trunks.values().flat_map(|trunk| trunk.ranges()).map(|range| range.to_string()).collect();
    let doors = 1 + usize::from(spec.listen.tcp) + usize::from(spec.listen.tls.is_some());
    let (rules, quota) = (ranges.len() * doors, spec.aws.rules_quota as usize);
    if rules > quota && checks.all_sound(&[Path::of(["trunks"]), Path::of(["listen"])]) {
        let message = format!(
            "{} source ranges need {rules} rules of a security group, one for each of {doors} transports; AWS admits {quota}",
            ranges.len()
        );
        let help = "merge ranges into shorter prefixes, or have the quota raised and write it as `aws.rules_quota`";
        checks.report_key(Path::of(["trunks"]), What::error("spec::rules", message, help));
    }
}
