//! Checks of source ranges.

use ipnet::{IpNet, Ipv4Net};

use super::{Checks, trunk};
use crate::spec::peers::{Peer, peers};
use crate::spec::report::What;
use crate::spec::tree::Path;

/// Shortest prefix of a range by hand. A carrier's signalling range is a handful of addresses; a /16 already admits 65,536 strangers.
pub(crate) const SHORTEST_PREFIX: u8 = 16;

/// Ranges that no packet from the Internet comes from (IANA IPv4 Special-Purpose Address Registry, RFC 6890), with what they are.
/// The documentation ranges are not among them: they stand in for carriers in the lab.
const NEVER: [(&str, &str); 9] = [
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared with carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
];

/// What `range` is, when no packet from the Internet comes from it.
pub(super) fn never_arrives(range: &IpNet) -> Option<&'static str> {
    let IpNet::V4(range) = range else { return None };
    NEVER
        .iter()
        .filter_map(|(never, what)| Some((never.parse::<Ipv4Net>().ok()?, *what)))
        .find(|(never, _)| never.contains(&range.network()) || range.contains(&never.network()))
        .map(|(_, what)| what)
}

pub(super) fn each(checks: &mut Checks<'_>) {
    for (name, settings) in &checks.spec.trunks {
        for (index, range) in settings.from.iter().flatten().enumerate() {
            let path = trunk(name, "from").index(index);
            if let Some(what) = fault(range, settings.open_to_the_world) {
                checks.report(path.clone(), what);
            } else if let Some(data) =
                settings.data().filter(|data| !data.ranges.iter().any(|known| known.range.contains(range)))
            {
                let message = format!(
                    "{range} is not among the ranges that {} publishes ({}, {})",
                    data.title, data.source, data.as_of
                );
                checks.report(
                    path,
                    What::warning(
                        "spec::range",
                        message,
                        "compare with the carrier's page; `from` replaces the ranges that sipedge knows",
                    ),
                );
            }
        }
    }
}

/// Whether `range` is a part of one that no packet from the Internet comes from, not the other way round.
fn within_never(range: &IpNet) -> bool {
    let IpNet::V4(range) = range else { return false };
    NEVER.iter().filter_map(|(never, _)| never.parse::<Ipv4Net>().ok()).any(|never| never.contains(range))
}

/// A trunk that says so takes calls from anybody: warned of when nothing bounds them, or when it does not do so at all.
pub(super) fn open(checks: &mut Checks<'_>) {
    for (name, settings) in checks.spec.trunks.iter().filter(|(_, settings)| settings.open_to_the_world) {
        let path = trunk(name, "open_to_the_world");
        if !settings.from.iter().flatten().any(|range| range.prefix_len() < SHORTEST_PREFIX) {
            let message =
                format!("`open_to_the_world` has no effect: no range in `from` is shorter than /{SHORTEST_PREFIX}");
            checks.report_key(path, What::warning("spec::unused", message, "take it out"));
        } else if checks.spec.is_source(name) && settings.limits.cps.is_none() {
            let message = "anybody on the Internet can place calls through the edge, as many as it carries, at the cost of who pays for them";
            checks.report_key(
                path,
                What::warning("spec::open", message, "bound them with `limits: { cps: 5, calls: 20 }`"),
            );
        }
    }
}

fn fault(range: &IpNet, open: bool) -> Option<What> {
    let error = |message: String, help: &str| Some(What::error("spec::range", message, help));
    let meant = "or `open_to_the_world: true` beside them if that is meant";
    if range.prefix_len() == 0 && !open {
        let help = format!("write the carrier's signalling ranges alone, {meant}");
        return error(format!("{range} lets everyone in"), &help);
    }
    if range.addr().is_ipv6() {
        let message = format!("{range}: sources with an IPv6 address are not there yet");
        return error(message, "write the carrier's IPv4 ranges");
    }
    if range.addr() != range.network() {
        let message = format!("{range} has bits set behind its prefix");
        let single = IpNet::from(range.addr());
        let help = format!("write {} for the whole range, or {single} for the address alone", range.trunc());
        return error(message, &help);
    }
    let wide = range.prefix_len() < SHORTEST_PREFIX;
    // A wide range that has private ones in it is wide in the first place.
    if let Some(what) = never_arrives(range).filter(|_| !wide || within_never(range)) {
        let message = format!("{range} is {what}: no packet from a carrier comes from there");
        return error(message, "write the carrier's public addresses, as its documentation lists them");
    }
    if wide && !open {
        let count = 1_u64 << (32 - u32::from(range.prefix_len()));
        let message = format!("{range} lets {count} addresses in; no carrier signals from so many");
        let help = format!("write ranges of /{SHORTEST_PREFIX} or longer prefix, {meant}");
        return error(message, &help);
    }
    None
}

/// Where operators call from: like a trunk's ranges, and in none of them.
pub(super) fn operators(checks: &mut Checks<'_>) {
    let verify = &checks.spec.verify;
    if !verify.operators.is_empty() && !verify.answerer {
        let what = What::error(
            "spec::unused",
            "there are operators, and no answerer that they could call",
            "take `operators` out, or set `answerer: true`",
        );
        checks.report(Path::of(["verify", "operators"]), what);
    }
    for (index, range) in verify.operators.iter().enumerate() {
        let path = Path::of(["verify", "operators"]).index(index);
        let trunks = &checks.spec.trunks;
        let trunk = trunks
            .iter()
            .find(|(_, trunk)| trunk.ranges().iter().any(|known| known.contains(range) || range.contains(known)));
        if let Some(mut what) = fault(range, false) {
            if range.prefix_len() < SHORTEST_PREFIX {
                what.help = "name the addresses of operators alone, such as 192.0.2.7/32".into();
            }
            checks.report(path, what);
        } else if let Some((name, _)) = trunk {
            let message =
                format!("{range} belongs to trunk `{name}`: its calls are a carrier's, and go where its route leads");
            checks.report(path, What::error("spec::range-twice", message, "name addresses of operators alone"));
        }
    }
}

pub(super) fn within_trunks(checks: &mut Checks<'_>) {
    for (name, settings) in &checks.spec.trunks {
        let ranges: Vec<&IpNet> = settings.from.iter().flatten().collect();
        for (index, range) in ranges.iter().enumerate() {
            let Some((other, wide)) = ranges
                .iter()
                .enumerate()
                .find(|(other, wide)| *other != index && wide.contains(*range) && (*wide != range || *other < index))
            else {
                continue;
            };
            let message = match wide == range {
                true => format!("{range} stands twice"),
                false => format!("{range} is within {wide}, which stands in the same list (item {})", other + 1),
            };
            checks.report(trunk(name, "from").index(index), What::error("spec::range-twice", message, "take it out"));
        }
    }
}

pub(super) fn between_trunks(checks: &mut Checks<'_>) {
    let peers = peers(checks.spec);
    for (index, peer) in peers.iter().enumerate() {
        for earlier in peers.iter().take(index) {
            overlap(checks, earlier, peer);
        }
        ambiguous_source(checks, peer);
    }
}

/// Two networks that are not the same one share addresses.
fn overlap(checks: &mut Checks<'_>, first: &Peer, second: &Peer) {
    let shared = |range: &IpNet, others: &[IpNet]| {
        others.iter().find(|other| other.contains(range) || range.contains(*other)).copied()
    };
    for range in &second.ranges {
        let Some(other) = shared(range, &first.ranges) else { continue };
        // Who is in a trunk open to the world and in another one belongs to the other one: the longest prefix wins.
        let open = |peer: &Peer| {
            peer.trunks.iter().any(|name| checks.spec.trunks.get(name).is_some_and(|trunk| trunk.open_to_the_world))
        };
        let wider_is_open = (range.prefix_len() < other.prefix_len() && open(second))
            || (other.prefix_len() < range.prefix_len() && open(first));
        if wider_is_open || fault(range, open(second)).is_some() || fault(&other, open(first)).is_some() {
            continue;
        }
        let (Some((name, path)), Some((earlier, other_path))) =
            (owner(checks, second, range), owner(checks, first, &other))
        else {
            continue;
        };
        if !checks.is_sound(&other_path) {
            continue;
        }
        let message = match *range == other {
            true => format!("{range} belongs to the trunks `{earlier}` and `{name}`"),
            false => format!("{range} of the trunk `{name}` overlaps {other} of the trunk `{earlier}`"),
        };
        let help = "an address belongs to one peer: use one trunk in several routes, or give both trunks the same list, or the same `carrier`";
        checks.report(path, What::error("spec::overlap", message, help));
    }
}

/// Two trunks of one network from which routes lead: nobody can tell whose call it is.
fn ambiguous_source(checks: &mut Checks<'_>, peer: &Peer) {
    let spec = checks.spec;
    let sources: Vec<&String> = peer.trunks.iter().filter(|name| spec.is_source(name)).collect();
    for (index, name) in sources.iter().enumerate() {
        let ranges = spec.trunks.get(*name).map(|trunk| trunk.ranges()).unwrap_or_default();
        let twin = sources.iter().take(index).find(|earlier| {
            let others = spec.trunks.get(**earlier).map(|trunk| trunk.ranges()).unwrap_or_default();
            ranges.iter().any(|range| others.iter().any(|other| other.contains(range) || range.contains(other)))
        });
        let Some(twin) = twin else { continue };
        let Some(path) = ranges.first().and_then(|range| owner(checks, peer, range)).map(|(_, path)| path) else {
            continue;
        };
        let path = if checks.document.at(&trunk(name, "carrier")).is_some() { trunk(name, "carrier") } else { path };
        let message =
            format!("calls from these addresses belong to the trunks `{twin}` and `{name}`, and routes lead from both");
        let help = "let routes lead from one of the two, or give each the ranges of its own with `from`";
        checks.report(path, What::error("spec::ambiguous-source", message, help));
    }
}

/// The trunk of `peer` that has `range`, and where the file says so.
fn owner(checks: &Checks<'_>, peer: &Peer, range: &IpNet) -> Option<(String, Path)> {
    let name = peer
        .trunks
        .iter()
        .find(|name| checks.spec.trunks.get(*name).is_some_and(|trunk| trunk.ranges().contains(range)))?;
    let settings = checks.spec.trunks.get(name)?;
    let by_hand = settings.from.iter().flatten().position(|from| from.trunc() == *range);
    let by_target = settings
        .targets
        .iter()
        .flatten()
        .position(|target| target.uri().address().is_some_and(|address| range.contains(&address)));
    let path = match (by_hand, by_target) {
        (Some(index), _) => trunk(name, "from").index(index),
        (None, Some(index)) if settings.carrier.is_none() => trunk(name, "targets").index(index),
        _ => trunk(name, "carrier"),
    };
    Some((name.clone(), path))
}
