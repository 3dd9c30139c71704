//! What the spec leaves out, and what a plan makes of it.

use sipedge_proxy::config::Config;

use super::cloud::refresh_defaults;
use super::proxy::{advertised_name, probe};
use super::{Carrier, Defaulted, Network, RefreshPlan, TargetKind, Topology};
use crate::spec::{Duration, Loaded, Spec, Trust};

/// What the spec leaves out, with what this topology and target make of it, in the order of settings.
pub(super) fn defaults(
    loaded: &Loaded,
    topology: Topology,
    target: TargetKind,
    network: &Network,
    proxy: &Config,
    carriers: &[Carrier],
    refresh: &RefreshPlan,
) -> Vec<Defaulted> {
    let spec = &loaded.spec;
    let single = topology == Topology::SingleEc2;
    let of_load_balancer = ["egress.", "scaling.", "load_balancer."];
    let of_account = [
        "aws.",
        "alarms.",
        "dns.",
        "verify.operators",
        "egress.gateways",
        "egress.addresses",
        "scaling.cpu",
        "scaling.network_in",
    ];
    let begins = |setting: &str, with: &[&str]| with.iter().any(|beginning| setting.starts_with(beginning));
    let mut defaults: Vec<Defaulted> = loaded
        .defaults
        .iter()
        .filter(|default| !single || !begins(&default.setting, &of_load_balancer))
        .filter(|default| target == TargetKind::Aws || !begins(&default.setting, &of_account))
        .filter(|default| is_of_use(spec, &default.setting))
        .cloned()
        .collect();
    let mut add = |setting: &str, value: String, reason: &str| {
        defaults.push(Defaulted { setting: setting.into(), value, reason: reason.into() });
    };
    if spec.aws.zones.is_none() {
        let names: Vec<&str> = network.zones.iter().map(|zone| zone.name.as_str()).collect();
        let reason = match (single, &spec.aws.vpc) {
            (true, _) => "one instance lives in one zone",
            (false, Some(_)) => "those of the VPC's subnets",
            (false, None) => "the edge survives the loss of a zone",
        };
        add("aws.zones", format!("[{}]", names.join(", ")), reason);
    }
    if target == TargetKind::Aws {
        if spec.aws.image.is_none() {
            add("aws.image", "the newest of sipedge in the account".into(), "each deploy brings the newest proxy");
        }
        if spec.aws.state.is_none() {
            add(
                "aws.state",
                "a file in the project's folder".into(),
                "works without a bucket; with one several people can deploy",
            );
        }
        if spec.alarms.email.is_empty() && spec.alarms.https.is_empty() && spec.alarms.slack.is_none() {
            add("alarms.email", "[]".into(), "nobody is told of alarms; they roll a refresh back all the same");
        }
    }
    if spec.drain.accept.is_none() {
        let reason = match single {
            true => "no load balancer goes on sending calls",
            false => "flows that are busy bring new calls until the target is deregistered",
        };
        add("drain.accept", Duration::from_millis(proxy.drain.accept_ms).to_string(), reason);
    }
    if spec.drain.grace.is_none() {
        let reason = match single {
            true => "transactions in progress end; a longer call loses its edge",
            false => "transactions in progress end; longer calls go on through the other instances",
        };
        add("drain.grace", Duration::from_millis(proxy.drain.grace_ms).to_string(), reason);
    }
    if spec.load_balancer.advertise.is_none() && !single {
        match advertised_name(spec).filter(|_| target == TargetKind::Aws) {
            Some(name) => add("load_balancer.advertise", name, "`dns.name`: it has the ingress address of every zone"),
            None => add(
                "load_balancer.advertise",
                "the ingress address".into(),
                "works without DNS; a name lets the address change later",
            ),
        }
    }
    defaults.extend(refresh_defaults(spec, topology, refresh));
    let mut add = |setting: &str, value: String, reason: &str| {
        defaults.push(Defaulted { setting: setting.into(), value, reason: reason.into() });
    };
    if spec.listen.tcp_above.is_none() {
        add(
            "listen.tcp_above",
            "never".into(),
            "a peer that takes UDP alone would refuse a connection first for each large request",
        );
    }
    for (name, trunk) in &spec.trunks {
        if let (true, None) = (spec.is_destination(name), &trunk.probe) {
            let pool = trunk.destinations().len() > 1;
            let (value, reason) = match probe(trunk, target) {
                Some(figures) => {
                    let value = format!(
                        "every {}, down after {}, up after {}",
                        figures.interval, figures.down_after, figures.up_after
                    );
                    (value, "another target of the pool takes the calls of one that is down")
                }
                None if pool => ("false".into(), "nobody stands at the lab's targets between verified calls"),
                None => ("false".into(), "there is no other target that could take its calls"),
            };
            add(&format!("trunks.{name}.probe"), value, reason);
        }
        if trunk.trust.is_none() {
            let (value, reason) = match trunk.data().filter(|data| data.trust.contains(&Trust::Identity)) {
                Some(data) => ("[identity]", format!("{} vouches for its callers", data.title)),
                None => {
                    ("[]", "P-Asserted-Identity and internal headers are taken for true from nobody unasked".to_owned())
                }
            };
            add(&format!("trunks.{name}.trust"), value.into(), &reason);
        }
        let Some(data) = trunk.data() else { continue };
        if trunk.from.is_none() {
            let count =
                carriers.iter().find(|carrier| carrier.trunks.contains(name)).map_or(0, |carrier| carrier.ranges.len());
            let value = format!("{count} ranges of {}", data.title);
            add(
                &format!("trunks.{name}.from"),
                value,
                &format!("its signalling addresses as of {} ({})", data.as_of, data.source),
            );
        }
        if let (true, None, None, Some(domain)) =
            (spec.is_destination(name), &trunk.domain, &trunk.targets, &data.domain)
        {
            add(
                &format!("trunks.{name}.domain"),
                domain.clone(),
                &format!("{} has one domain for all customers", data.title),
            );
        }
    }
    defaults.sort_by(|a, b| a.setting.cmp(&b.setting));
    defaults
}

/// Whether a default decides anything.
fn is_of_use(spec: &Spec, setting: &str) -> bool {
    if setting == "verify.operators" {
        return spec.verify.answerer;
    }
    let Some((name, setting)) = setting.strip_prefix("trunks.").and_then(|rest| rest.split_once('.')) else {
        return true;
    };
    let pool = || spec.trunks.get(name).is_some_and(|trunk| trunk.destinations().len() > 1);
    match setting {
        "select" => spec.is_destination(name) && pool(),
        _ => spec.is_destination(name),
    }
}
