//! Checks of the edge as a whole.

use super::Checks;
use crate::spec::cloud::Count;
use crate::spec::report::What;
use crate::spec::structure::nearest;
use crate::spec::tree::Path;
use crate::spec::types::VERSION;
use crate::spec::values::Duration;

/// AWS regions, 2026-11. One that is missing here is a warning, no error: AWS opens new ones.
const REGIONS: [&str; 36] = [
    "af-south-1",
    "ap-east-1",
    "ap-east-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-central-1",
    "ca-west-1",
    "cn-north-1",
    "cn-northwest-1",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "mx-central-1",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

/// Idle timeout of a UDP flow through an NLB, not configurable (AWS: Network Load Balancers, connection idle timeout).
const NLB_UDP_IDLE: Duration = Duration::from_secs(120);

/// What deregistering a target takes in practice even without a delay: how long an NLB may go on sending new calls to an instance that
/// leaves, on flows that are never idle.
const NLB_NOTICES: Duration = Duration::from_secs(120);

pub(super) fn version(checks: &mut Checks<'_>) {
    let version = checks.spec.version;
    if version != VERSION {
        let message = format!("version {version} of the format is not known; this sipedge reads version {VERSION}");
        checks.report(
            Path::of(["version"]),
            What::error("spec::version", message, format!("write `version: {VERSION}`, or use a newer sipedge")),
        );
    }
}

pub(super) fn place(checks: &mut Checks<'_>) {
    let aws = &checks.spec.aws;
    let region = Path::of(["aws", "region"]);
    if !REGIONS.contains(&aws.region.as_str()) && !aws.region.starts_with("us-gov-") {
        let help = match nearest(&aws.region, REGIONS) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "if AWS has it, go on".into(),
        };
        checks.report(
            region.clone(),
            What::warning("spec::region", format!("`{}` is no region that sipedge knows", aws.region), help),
        );
    }
    let zones = Path::of(["aws", "zones"]);
    for (index, zone) in aws.zones.iter().flatten().enumerate() {
        let path = zones.index(index);
        let in_region = zone.strip_prefix(&aws.region).is_some_and(|letter| letter.len() == 1);
        if !in_region && checks.is_sound(&region) {
            let message = format!("the zone `{zone}` is not in the region `{}`", aws.region);
            checks.report(
                path.clone(),
                What::error("spec::zone", message, format!("write {}a or another zone of the region", aws.region)),
            );
        }
        if aws.zones.iter().flatten().take(index).any(|earlier| earlier == zone) {
            let message =
                format!("the zone `{zone}` stands twice; AWS refuses two subnets of one load balancer in one zone");
            checks.report(path, What::error("spec::zone", message, "name each zone once"));
        }
    }
    let alone = aws.zones.as_ref().is_some_and(|zones| zones.len() == 1);
    if alone && checks.spec.load_balancer.addresses == Count::PerZone {
        let message = "with one zone the load-balanced topology does not survive the loss of that zone";
        checks.report(zones, What::warning("spec::zone", message, "name two or three, or leave `zones` out for three"));
    }
}

pub(super) fn ports(checks: &mut Checks<'_>) {
    let (ingress, egress) = (checks.spec.listen.port, checks.spec.egress.port);
    let paths = [Path::of(["listen", "port"]), Path::of(["egress", "port"])];
    if ingress == egress && checks.all_sound(&paths) {
        let [listen, port] = paths;
        let at = if checks.document.at(&port).is_some() { port } else { listen };
        let message = format!(
            "`listen.port` and `egress.port` are both {ingress}: behind NLB and NAT gateway the flows collide when a carrier is both source and destination"
        );
        let other = if ingress == 5080 { 5081 } else { 5080 };
        checks.report(
            at,
            What::error(
                "spec::ports",
                message,
                format!("write another egress port, such as {other}; single-ec2 uses one port in any case"),
            ),
        );
    }
}

pub(super) fn timers(checks: &mut Checks<'_>) {
    let timers = checks.spec.timers.clone();
    let path = |name| Path::of(["timers", name]);
    let pairs = [
        ("response", timers.response, "invite", timers.invite, "the first response comes before the final one"),
        ("t1", timers.t1, "t2", timers.t2, "retransmission intervals double from T1 up to T2 (RFC 3261 §17.1.2.2)"),
        ("t1", timers.t1, "response", timers.response, "a request would time out before it is sent a second time"),
        ("invite", timers.invite, "call", timers.call, "a call would no longer be counted while it still rings"),
    ];
    for (short, low, long, high, reason) in pairs {
        if low > high && checks.all_sound(&[path(short), path(long)]) {
            let at = if checks.document.at(&path(short)).is_some() { short } else { long };
            let message = format!("`timers.{short}` ({low}) is longer than `timers.{long}` ({high}): {reason}");
            checks.report(
                path(at),
                What::error(
                    "spec::timers",
                    message,
                    format!("write a `{short}` of at most {high}, or a longer `{long}`"),
                ),
            );
        }
    }
    if timers.invite > NLB_UDP_IDLE {
        let message = format!(
            "an INVITE may ring for {}; the load balancer forgets a flow that is silent for {NLB_UDP_IDLE}, and a late answer is lost unless the callee's carrier repeats its 180",
            timers.invite
        );
        checks.report(
            path("invite"),
            What::warning(
                "spec::timers",
                message,
                format!("write at most {NLB_UDP_IDLE}; most carriers give up after 30s to 60s"),
            ),
        );
    }
}

pub(super) fn scaling(checks: &mut Checks<'_>) {
    let scaling = checks.spec.scaling.clone();
    let paths = [Path::of(["scaling", "min"]), Path::of(["scaling", "max"])];
    if scaling.min > scaling.max && checks.all_sound(&paths) {
        let [min, max] = paths;
        let at = if checks.document.at(&min).is_some() { min } else { max };
        let message = format!("`scaling.min` ({}) is greater than `scaling.max` ({})", scaling.min, scaling.max);
        checks.report(
            at,
            What::error("spec::scaling", message, "AWS refuses such an autoscaling group; raise `max` or lower `min`"),
        );
    } else if scaling.min < 2 {
        let message = "with one instance the edge is away until AWS has replaced it when it is lost";
        checks.report(
            Path::of(["scaling", "min"]),
            What::warning("spec::scaling", message, "write `min: 2`, or deploy single-ec2"),
        );
    }
}

pub(super) fn drain(checks: &mut Checks<'_>) {
    let drain = checks.spec.drain.clone();
    let accept = Path::of(["drain", "accept"]);
    if let (Some(take), Some(grace)) = (drain.accept, drain.grace)
        && take > grace
    {
        let message = format!(
            "`drain.accept` ({take}) is longer than `drain.grace` ({grace}): the instance ends while it still takes new calls"
        );
        checks.report(
            accept.clone(),
            What::error("spec::drain", message, format!("write at most {grace}, or a longer `grace`")),
        );
    }
    if let Some(take) = drain.accept.filter(|take| *take < NLB_NOTICES) {
        let message = format!(
            "after {take} new calls get 503, but the load balancer may send them for {NLB_NOTICES} (that is what deregistering takes)"
        );
        checks.report(accept, What::warning("spec::drain", message, format!("write {NLB_NOTICES}")));
    }
}

pub(super) fn advertise(checks: &mut Checks<'_>) {
    let Some(name) = checks.spec.load_balancer.advertise.clone() else { return };
    let path = Path::of(["load_balancer", "advertise"]);
    if !name.contains('.') {
        let message = format!("`{name}` is no full host name: carriers resolve it in the public DNS");
        checks.report(
            path.clone(),
            What::error("spec::advertise", message, "write the full name, such as sip.example.com"),
        );
    }
    let to_itself = checks
        .spec
        .trunks
        .values()
        .flat_map(|trunk| trunk.destinations())
        .any(|target| target.uri.host.eq_ignore_ascii_case(&name));
    if to_itself {
        let message = format!(
            "`{name}` is also where calls are sent to: they would come back to the edge until Max-Forwards is 0"
        );
        checks.report(path, What::error("spec::loop", message, "advertise the edge's own name"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_sorted_and_have_the_form() {
        assert!(REGIONS.is_sorted());
        for region in REGIONS {
            assert_eq!(crate::spec::values::check_format("aws-region", region), Ok(()));
        }
    }
}
