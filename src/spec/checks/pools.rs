//! Checks of what calls to a trunk choose from, and of how it is reached.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checks, trunk};
use crate::spec::report::What;
use crate::spec::tree::Path;
use crate::spec::types::{PoolTarget, Probe, Select, Trunk};
use crate::spec::values::{Duration, Target, Transport};

/// Targets that one call may ring at the same time. Each rings somewhere, and each takes a transaction and a kept INVITE on the
/// instance; the breadth that RFC 5393 §5.3.3 gives a request (60) is shared with every proxy behind.
const FORK_MAX: usize = 8;

/// Percent by which the interval of probes is varied.
const JITTER_PERCENT: u32 = 10;

pub(super) fn all(checks: &mut Checks<'_>) {
    for (name, settings) in &checks.spec.trunks {
        let sound = checks.is_sound(&trunk(name, "targets"));
        if sound && let Some(targets) = &settings.targets {
            duplicates(checks, name, targets);
            weights(checks, name, settings, targets);
        }
        failover(checks, name, settings);
        probe(checks, name, settings);
        transport(checks, name, settings);
    }
}

fn duplicates(checks: &mut Checks<'_>, name: &str, targets: &[PoolTarget]) {
    // An address has its port; what a name without one means is for DNS to say.
    let place = |target: &Target| {
        let port = if target.address().is_some() { Some(target.usual_port()) } else { target.port };
        let transport = if port.is_some() { Some(target.usual_transport()) } else { target.transport };
        (target.host.clone(), port, transport)
    };
    let mut seen = BTreeSet::new();
    for (index, target) in targets.iter().enumerate() {
        if !seen.insert(place(target.uri())) {
            let message = format!("`{}` stands twice: a call that fails there would try it again", target.uri());
            let help = "name each target once; a greater share is a `weight`";
            checks.report(trunk(name, "targets").index(index), What::error("spec::target", message, help));
        }
    }
}

fn weights(checks: &mut Checks<'_>, name: &str, settings: &Trunk, targets: &[PoolTarget]) {
    let mut ranks: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    for target in targets.iter().map(PoolTarget::placed) {
        ranks.entry(target.priority).or_default().push(target.weight);
    }
    let at = trunk(name, "targets");
    for (priority, weights) in &ranks {
        if weights.iter().all(|weight| *weight == 0) {
            let message = format!(
                "every target of priority {priority} has weight 0, which means: only when the others are down; there are no others"
            );
            let help = "give at least one of them a weight of 1 or more; a spare has a higher `priority` number";
            checks.report(at.clone(), What::error("spec::weight", message, help));
        }
        if settings.select == Select::All && weights.len() > FORK_MAX {
            let message = format!(
                "`select: all` would ring {} targets of priority {priority} for each call; {FORK_MAX} is the most",
                weights.len()
            );
            let help = "ring fewer at once, or choose one by `select: weight`";
            checks.report(trunk(name, "select"), What::error("spec::select", message, help));
        }
    }
    if settings.select != Select::Weight && ranks.values().flatten().any(|weight| *weight > 1) {
        let message = format!("weights have no effect: the trunk `{name}` selects by something else");
        let help = "write `select: weight`, or take the weights out";
        checks.report(trunk(name, "select"), What::warning("spec::select", message, help));
    }
}

/// Why a response with this code is the callee's own word, if it is.
fn decided_by_callee(code: u16) -> Option<&'static str> {
    match code {
        401 | 407 => Some("asks the caller for credentials"),
        403 => Some("is a refusal"),
        404 | 410 => Some("says that there is no such number"),
        480 | 486 => Some("says that the callee is there and cannot take the call"),
        487 => Some("is the answer to the caller's own CANCEL"),
        481..=489 => Some("is about this very request"),
        _ => None,
    }
}

fn failover(checks: &mut Checks<'_>, name: &str, settings: &Trunk) {
    let codes = trunk(name, "failover").key("codes");
    let mut seen = BTreeSet::new();
    for (index, code) in settings.failover.codes.iter().enumerate() {
        if let Some(why) = decided_by_callee(*code) {
            let message = format!("{code} {why}: another destination would ring again, or charge for the same answer");
            let help = "take it out; codes to fail over on are 408, 500, 502, 503 and 504";
            checks.report(codes.index(index), What::error("spec::failover", message, help));
        } else if !seen.insert(*code) {
            let message = format!("{code} stands twice");
            checks.report(codes.index(index), What::warning("spec::failover", message, "take it out"));
        }
    }
}

fn probe(checks: &mut Checks<'_>, name: &str, settings: &Trunk) {
    let Some(Probe::Figures(figures)) = &settings.probe else { return };
    let at = |setting: &str| trunk(name, "probe").key(setting);
    // The earliest that the next probe is sent: of one destination one probe is under way at a time.
    let least = Duration::from_millis(figures.interval.as_millis() / 100 * (100 - JITTER_PERCENT));
    if figures.timeout > least && checks.all_sound(&[at("timeout"), at("interval")]) {
        let place = if checks.document.at(&at("timeout")).is_some() { "timeout" } else { "interval" };
        let message = format!(
            "the answer to a probe is awaited for {}, but the next one may be sent after {least} ({} less {JITTER_PERCENT} %)",
            figures.timeout, figures.interval
        );
        let help = format!("write a `timeout` of at most {least}, or a longer `interval`");
        checks.report(at(place), What::error("spec::probe", message, help));
    }
}

fn transport(checks: &mut Checks<'_>, name: &str, settings: &Trunk) {
    let at = trunk(name, "transport");
    if settings.transport.is_some() && settings.targets.is_some() {
        let message = format!("the trunk `{name}` has both `transport` and `targets`; `transport` is for `domain`");
        let help = "write it at each target, such as \"sip:pbx.example.com;transport=tcp\"";
        checks.report(at.clone(), What::error("spec::transport", message, help));
        return;
    }
    if !checks.spec.is_destination(name) {
        return;
    }
    let destinations = settings.destinations();
    for (index, target) in destinations.iter().enumerate() {
        let place = if settings.targets.is_some() { trunk(name, "targets").index(index) } else { at.clone() };
        let (missing, help) = match target.uri.transport {
            Some(Transport::Tcp) if !checks.spec.listen.tcp => {
                ("takes no TCP (`listen.tcp` is false)", "leave `listen.tcp` at true, or reach the trunk by UDP")
            }
            Some(Transport::Tls) if checks.spec.listen.tls.is_none() => (
                "takes no TLS (there is no `listen.tls`)",
                "add `listen: { tls: { certificate: NAME } }` with the edge's certificate",
            ),
            _ => continue,
        };
        let sound = [Path::of(["listen", "tcp"]), Path::of(["listen", "tls"])];
        if checks.all_sound(&sound) {
            let message = format!(
                "calls go to `{}`, but the edge {missing}: the BYE of a callee who hangs up comes back the same way",
                target.uri
            );
            checks.report(place, What::error("spec::transport", message, help));
        }
    }
    let tls = destinations.iter().any(|target| target.uri.transport == Some(Transport::Tls));
    if settings.tls.is_some() && !tls && !destinations.is_empty() {
        let message = format!("`tls` has no effect: no target of `{name}` is reached by TLS");
        let help = "write `transport: tls` beside `domain`, or `;transport=tls` at the targets";
        checks.report_key(trunk(name, "tls"), What::warning("spec::unused", message, help));
    }
}
