//! Checks of trunks and routes.

use std::time::SystemTime;

use ipnet::IpNet;

use super::{Checks, trunk};
use crate::spec::carriers;
use crate::spec::dates::{day_of, days_since_epoch};
use crate::spec::report::What;
use crate::spec::structure::{listed, nearest};
use crate::spec::tree::Path;
use crate::spec::types::{PoolTarget, Spec};

/// Names of the lab's namespaces that are nobody's trunk.
const RESERVED: [&str; 4] = ["stranger", "vpc", "internet", "edge"];

/// The warning of a domain that stands in the examples. In the lab it does no harm: there every domain is the lab's own.
pub(crate) const PLACEHOLDER: &str = "spec::placeholder";

/// Days after which a carrier's data should be compared to its source again: carriers announce changes a quarter ahead.
const STALE_DAYS: u64 = 180;

/// A warning for each carrier of `spec` whose data is older than 180 days at `now`.
pub fn stale_carriers(spec: &Spec, now: SystemTime) -> Vec<String> {
    let today = days_since_epoch(now);
    let mut used: Vec<_> = spec.trunks.values().filter_map(|trunk| trunk.data()).collect();
    used.sort_by_key(|data| &data.name);
    used.dedup();
    used.into_iter()
        .filter(|data| day_of(&data.as_of).is_some_and(|day| today > day + STALE_DAYS))
        .map(|data| {
            format!("the addresses of {} are as of {}; compare them with {}", data.title, data.as_of, data.source)
        })
        .collect()
}

pub(super) fn names(checks: &mut Checks<'_>) {
    for (name, settings) in &checks.spec.trunks {
        let path = Path::of(["trunks", name]);
        let instance = name.strip_prefix("i-").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        if RESERVED.contains(&name.as_str()) || instance {
            let message = format!("`{name}` names a part of the lab");
            checks.report_key(path, What::error("spec::trunk-name", message, "choose another name for the trunk"));
        } else if settings.carrier.as_deref() != Some(name) && carriers::find(name).is_some() {
            let message = format!("`{name}` is the name of a carrier, and the trunk has not `carrier: {name}`");
            checks.report_key(
                path,
                What::error("spec::trunk-name", message, format!("write `carrier: {name}`, or choose another name")),
            );
        }
    }
}

pub(super) fn carriers(checks: &mut Checks<'_>) {
    for (name, settings) in &checks.spec.trunks {
        let Some(carrier) = settings.carrier.as_deref() else { continue };
        let known = carriers::all().iter().map(|data| data.name.as_str());
        if carriers::find(carrier).is_none() {
            let help = match nearest(carrier, known.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    format!("known carriers are {}; write other addresses by hand with `from: [range]`", listed(known))
                }
            };
            checks.report(
                trunk(name, "carrier"),
                What::error("spec::carrier", format!("sipedge has no addresses of a carrier `{carrier}`"), help),
            );
        }
    }
}

pub(super) fn routes(checks: &mut Checks<'_>) {
    let routes = &checks.spec.routes;
    let trunks: Vec<&str> = checks.document.keys(&Path::of(["trunks"]));
    let at = |index: usize, end: &str| Path::of(["routes"]).index(index).key(end);
    for (index, route) in routes.iter().enumerate() {
        for (end, name) in [("from", &route.from), ("to", &route.to)] {
            if trunks.contains(&name.as_str()) || trunks.is_empty() {
                continue;
            }
            let help = nearest(name, trunks.iter().copied()).map_or_else(
                || format!("the trunks are {}", listed(trunks.iter().copied())),
                |near| format!("did you mean `{near}`?"),
            );
            checks.report(at(index, end), What::error("spec::route", format!("there is no trunk `{name}`"), help));
        }
        if route.from == route.to && checks.is_sound(&at(index, "from")) {
            let message = format!("calls from `{}` would go back to `{}`", route.from, route.to);
            checks.report(
                at(index, "to"),
                What::error(
                    "spec::loop",
                    message,
                    "name the trunk that the calls go to; the same carrier may have two trunks",
                ),
            );
        }
        let earlier = routes.iter().take(index).enumerate().find(|(_, earlier)| earlier.from == route.from);
        if let Some((number, earlier)) = earlier.filter(|(number, _)| checks.is_sound(&at(*number, "from"))) {
            let message = format!(
                "calls from `{}` already go to `{}` (route {}); this route is never taken",
                route.from,
                earlier.to,
                number + 1
            );
            checks.report(at(index, "from"), What::error("spec::route", message, "keep one route per source trunk"));
        }
    }
}

pub(super) fn sources(checks: &mut Checks<'_>) {
    for (name, settings) in &checks.spec.trunks {
        let carrier_known = settings.carrier.is_none() || settings.data().is_some();
        if !checks.spec.is_source(name) || !carrier_known || !settings.ranges().is_empty() {
            continue;
        }
        if checks.all_sound(&[trunk(name, "carrier"), trunk(name, "from"), trunk(name, "targets")]) {
            let message = format!(
                "calls come from the trunk `{name}`, but nothing says from which addresses: nobody would be let in"
            );
            checks.report_key(
                Path::of(["trunks", name]),
                What::error("spec::source", message, "add `carrier: twilio` or `from: [range]`"),
            );
        }
    }
}

pub(super) fn destinations(checks: &mut Checks<'_>) {
    for (name, settings) in &checks.spec.trunks {
        let path = Path::of(["trunks", name]);
        let carrier_known = settings.carrier.is_none() || settings.data().is_some();
        let places = [trunk(name, "carrier"), trunk(name, "domain"), trunk(name, "targets"), trunk(name, "from")];
        if !checks.spec.is_destination(name) || !carrier_known || !checks.all_sound(&places) {
            continue;
        }
        if settings.destinations().is_empty() {
            let message = format!("calls go to the trunk `{name}`, but nothing says where it is");
            let example =
                settings.data().and_then(|data| data.placeholder_domain.as_deref()).unwrap_or("sip.example.com");
            checks.report_key(
                path,
                What::error(
                    "spec::destination",
                    message,
                    format!("add `domain: {example}` with your domain, or `targets: [\"sip:HOST\"]`"),
                ),
            );
        } else if settings.ranges().is_empty() {
            let message = format!(
                "nothing says from which addresses the trunk `{name}` sends: the BYE of a callee who hangs up would be refused as a stranger's"
            );
            checks.report_key(
                path,
                What::error(
                    "spec::destination",
                    message,
                    "add `carrier: NAME` or `from: [range]` with its signalling addresses",
                ),
            );
        }
    }
}

pub(super) fn targets(checks: &mut Checks<'_>) {
    for (name, settings) in &checks.spec.trunks {
        if settings.domain.is_some() && settings.targets.is_some() {
            let message = format!("the trunk `{name}` has both `domain` and `targets`");
            checks.report(
                trunk(name, "targets"),
                What::error(
                    "spec::destination",
                    message,
                    "keep one; `domain: HOST` is short for `targets: [\"sip:HOST\"]`",
                ),
            );
        }
        for (index, target) in settings.targets.iter().flatten().map(PoolTarget::uri).enumerate() {
            let path = trunk(name, "targets").index(index);
            if let Some(address) = target.address() {
                if let Some(what) = super::ranges::never_arrives(&IpNet::from(address)) {
                    let message = format!("{address} is {what}: the edge cannot reach it over the Internet");
                    checks.report(
                        path,
                        What::error("spec::target", message, "write the peer's public address or its host name"),
                    );
                }
            } else if !target.host.contains('.') {
                checks.report(path, short_host(&target.host));
            }
        }
        let Some(domain) = settings.domain.as_deref() else { continue };
        if !domain.contains('.') {
            checks.report(trunk(name, "domain"), short_host(domain));
        } else if let Some(data) = settings.data() {
            let lower = domain.to_ascii_lowercase();
            let theirs = data
                .domain_suffixes
                .iter()
                .any(|suffix| lower.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.')));
            if !theirs {
                let message = format!(
                    "`{domain}` is no domain of {}: its domains end in {}",
                    data.title,
                    listed(data.domain_suffixes.iter().map(String::as_str))
                );
                checks.report(
                    trunk(name, "domain"),
                    What::warning("spec::domain", message, "compare with the carrier's console"),
                );
            }
        }
    }
}

pub(super) fn placeholders(checks: &mut Checks<'_>) {
    for (name, settings) in &checks.spec.trunks {
        let Some((data, domain)) = settings.data().zip(settings.domain.as_deref()) else { continue };
        if checks.spec.is_destination(name) && Some(domain) == data.placeholder_domain.as_deref() {
            let message = format!("the domain of the trunk `{name}` is that of the examples: calls to it reach nobody");
            let help = format!("write the domain that {} gave you", data.title);
            checks.report(trunk(name, "domain"), What::warning(PLACEHOLDER, message, help));
        }
    }
}

fn short_host(host: &str) -> What {
    What::error(
        "spec::host-name",
        format!("`{host}` is no full host name: the VPC's resolver does not know it"),
        "write the full name, such as pbx.example.com",
    )
}

pub(super) fn limits(checks: &mut Checks<'_>) {
    for (name, settings) in &checks.spec.trunks {
        let Some(cps) = settings.limits.cps else { continue };
        let Some((data, max)) = settings.data().and_then(|data| Some((data, data.max_cps?))) else { continue };
        if cps > max && checks.spec.is_destination(name) {
            let message = format!(
                "{} takes {max} calls per second from one source address; {cps} would be refused there",
                data.title
            );
            checks.report(
                Path::of(["trunks", name, "limits", "cps"]),
                What::warning("spec::cps", message, format!("write at most {max}, over all instances together")),
            );
        }
    }
}

pub(super) fn unused(checks: &mut Checks<'_>) {
    let spec = checks.spec;
    let routes_sound = (0..spec.routes.len()).all(|index| {
        let route = Path::of(["routes"]).index(index);
        // A route with a misspelt trunk may be the one that is missed.
        let known = |name: &String| spec.trunks.contains_key(name);
        spec.routes.get(index).is_some_and(|route| known(&route.from) && known(&route.to) && route.from != route.to)
            && checks.is_sound(&route)
    });
    if !routes_sound || !checks.is_sound(&Path::of(["routes"])) {
        return;
    }
    for (name, settings) in &spec.trunks {
        if !spec.is_source(name) && !spec.is_destination(name) {
            let message = format!("no route names the trunk `{name}`");
            checks.report_key(
                Path::of(["trunks", name]),
                What::warning("spec::unused", message, "add a route, or take the trunk out"),
            );
        } else if !spec.is_destination(name) {
            let without_effect = [
                ("domain", "the domain", settings.domain.is_some()),
                ("targets", "the targets", settings.targets.is_some()),
                ("transport", "it", settings.transport.is_some()),
                ("select", "it", checks.document.at(&trunk(name, "select")).is_some()),
                ("failover", "it", checks.document.at(&trunk(name, "failover")).is_some()),
                ("probe", "it", settings.probe.is_some()),
                ("tls", "it", settings.tls.is_some()),
            ];
            for (setting, what, _) in without_effect.into_iter().filter(|(.., set)| *set) {
                let message = format!("`{setting}` has no effect: no route leads to the trunk `{name}`");
                let help = format!("add a route to it, or take {what} out");
                checks.report_key(trunk(name, setting), What::warning("spec::unused", message, help));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn old_data_is_a_warning() {
        let spec = crate::spec::Spec::parse("x", &crate::spec::init_text("x")).unwrap().spec;
        let day = |count: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(count * 86_400);
        let as_of = day_of(&carriers::find("twilio").unwrap().as_of).unwrap();
        assert!(stale_carriers(&spec, day(as_of + 180)).is_empty());
        assert_eq!(stale_carriers(&spec, day(as_of + 181)).len(), 1);
    }
}
