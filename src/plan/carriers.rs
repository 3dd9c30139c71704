//! The peers' networks; in the lab, the documentation ranges that stand in for theirs.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{Carrier, CarrierDomain, CarrierRange, PlanError, TargetKind};
use crate::spec::Spec;
use crate::spec::peers::peers;

/// The ranges for documentation that stand in for carriers (RFC 5737). The third, 203.0.113.0/24, is the edge's own.
const POOLS: [Ipv4Net; 2] =
    [Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24), Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24)];

/// The end of the second pool: the lab's strangers live there.
const STRANGERS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 240), 28);

/// Shortest prefix of a stand-in. 16 addresses are more than a smoke call needs, and 31 such ranges fit.
const SHORTEST_PREFIX: u8 = 28;

/// Addresses that a domain resolves to in the lab: two, so that a choice between them is exercised.
const ADDRESSES_PER_DOMAIN: usize = 2;

/// The carriers of `spec`, in the order of their first trunks.
pub(super) fn carriers(spec: &Spec, target: TargetKind, warnings: &mut Vec<String>) -> Result<Vec<Carrier>, PlanError> {
    let mut carriers: Vec<Carrier> = peers(spec)
        .into_iter()
        .map(|peer| Carrier {
            name: peer.name,
            trunks: peer.trunks,
            ranges: peer.ranges.into_iter().map(|real| CarrierRange { real, used: real }).collect(),
            domains: Vec::new(),
        })
        .collect();
    match target {
        TargetKind::Lab => stand_in(&mut carriers, warnings)?,
        TargetKind::Aws => warn_of_examples(&carriers, warnings),
    }
    for carrier in &mut carriers {
        let addresses: Vec<IpAddr> = match target {
            TargetKind::Lab => {
                carrier.ranges.iter().flat_map(|range| range.used.hosts()).take(ADDRESSES_PER_DOMAIN).collect()
            }
            TargetKind::Aws => Vec::new(),
        };
        for trunk in carrier.trunks.iter().filter(|trunk| spec.is_destination(trunk)) {
            let targets = spec.trunks.get(trunk).map(|trunk| trunk.destinations()).unwrap_or_default();
            for target in targets.into_iter().map(|target| target.uri).filter(|uri| uri.address().is_none()) {
                if !carrier.domains.iter().any(|domain| domain.name == target.host) {
                    carrier.domains.push(CarrierDomain { name: target.host, addresses: addresses.clone() });
                }
            }
        }
    }
    Ok(carriers)
}

/// `address` of a carrier as this plan uses it: at the same place in the range that stands in.
pub(super) fn used_address(carriers: &[Carrier], address: IpAddr) -> IpAddr {
    let all = carriers.iter().flat_map(|carrier| &carrier.ranges).filter(|range| range.real.contains(&address));
    let range = all.max_by_key(|range| range.real.prefix_len());
    match (range.map(|range| (range.real, range.used)), address) {
        (Some((IpNet::V4(real), IpNet::V4(used))), IpAddr::V4(address)) => {
            let size = 1_u64 << (32 - u32::from(used.prefix_len()));
            let offset = u64::from(u32::from(address).wrapping_sub(u32::from(real.network()))) % size;
            let offset = u32::try_from(offset).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(used.network()).wrapping_add(offset)))
        }
        _ => address,
    }
}

/// The ranges of a trunk as this plan uses them.
pub(super) fn used_ranges(carriers: &[Carrier], ranges: &[IpNet]) -> Vec<IpNet> {
    let all = || carriers.iter().flat_map(|carrier| &carrier.ranges);
    ranges.iter().filter_map(|real| all().find(|range| range.real == *real).map(|range| range.used)).collect()
}

fn stand_in(carriers: &mut [Carrier], warnings: &mut Vec<String>) -> Result<(), PlanError> {
    let mut taken = vec![STRANGERS];
    let free =
        |range: &Ipv4Net, taken: &[Ipv4Net]| !taken.iter().any(|other| other.contains(range) || range.contains(other));
    // What is a documentation range already stays what it is.
    for range in carriers.iter().flat_map(|carrier| &carrier.ranges) {
        if let IpNet::V4(real) = range.real
            && POOLS.iter().any(|pool| pool.contains(&real))
            && free(&real, &taken)
        {
            taken.push(real);
        }
    }
    let kept = taken.clone();
    for carrier in carriers {
        for range in &mut carrier.ranges {
            let IpNet::V4(real) = range.real else {
                return Err(PlanError::Ipv6 { carrier: carrier.name.clone(), range: range.real });
            };
            if kept.contains(&real) && real != STRANGERS {
                continue;
            }
            let prefix = real.prefix_len().max(SHORTEST_PREFIX);
            let used = POOLS
                .iter()
                .flat_map(|pool| pool.subnets(prefix).into_iter().flatten())
                .find(|used| free(used, &taken) && !is_pool_end(used))
                .ok_or_else(|| PlanError::DocumentationSpace { carrier: carrier.name.clone(), range: range.real })?;
            taken.push(used);
            range.used = IpNet::V4(used);
            if prefix != real.prefix_len() {
                warnings.push(format!("in the lab {used} stands in for the larger {real} of {}", carrier.name));
            }
        }
    }
    Ok(())
}

/// A single address that is the first or the last of a pool: some tools take them for network and broadcast addresses.
fn is_pool_end(range: &Ipv4Net) -> bool {
    range.prefix_len() == 32
        && POOLS.iter().any(|pool| range.network() == pool.network() || range.network() == pool.broadcast())
}

fn warn_of_examples(carriers: &[Carrier], warnings: &mut Vec<String>) {
    for range in carriers.iter().flat_map(|carrier| &carrier.ranges) {
        let IpNet::V4(real) = range.real else { continue };
        if POOLS.iter().any(|pool| pool.contains(&real)) {
            warnings.push(format!("{real} is a documentation range (RFC 5737): on AWS nobody has these addresses"));
        }
    }
}
