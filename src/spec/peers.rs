//! Which networks the trunks of a spec reach.

use ipnet::IpNet;

use super::carriers::{self, CarrierData};
use super::types::{PlacedTarget, PoolTarget, Spec, Trunk, Trust};
use super::values::Target;

/// The network of a peer. Trunks with the same carrier, or with the same ranges by hand, share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The carrier's name, or that of its first trunk.
    pub(crate) name: String,
    /// Its trunks, in the order of the spec's names.
    pub(crate) trunks: Vec<String>,
    /// Its ranges, each once.
    pub(crate) ranges: Vec<IpNet>,
    /// What sipedge knows of the carrier.
    pub(crate) data: Option<&'static CarrierData>,
}

/// The peers of `spec`, in the order of their first trunks' names.
pub(crate) fn peers(spec: &Spec) -> Vec<Peer> {
    let mut peers: Vec<Peer> = Vec::new();
    for (name, trunk) in &spec.trunks {
        let data = trunk.data();
        let ranges = trunk.ranges();
        let same = |peer: &&mut Peer| match data {
            Some(data) => peer.data.is_some_and(|other| other.name == data.name),
            None => peer.data.is_none() && !ranges.is_empty() && sorted(&peer.ranges) == sorted(&ranges),
        };
        let peer = match peers.iter_mut().find(same) {
            Some(peer) => peer,
            None => {
                let name = data.map_or(name, |data| &data.name).clone();
                peers.push(Peer { name, trunks: Vec::new(), ranges: Vec::new(), data });
                let Some(peer) = peers.last_mut() else { continue };
                peer
            }
        };
        peer.trunks.push(name.clone());
        for range in ranges {
            if !peer.ranges.contains(&range) {
                peer.ranges.push(range);
            }
        }
    }
    peers
}

/// Letters of the zones that a region has for every account; three where there are as many.
fn zone_letters(region: &str) -> &'static str {
    match region {
        "ap-northeast-1" => "acd",
        "ca-central-1" => "abd",
        "us-west-1" => "ac",
        _ => "abc",
    }
}

fn sorted(ranges: &[IpNet]) -> Vec<IpNet> {
    let mut ranges = ranges.to_vec();
    ranges.sort();
    ranges
}

impl Trunk {
    /// What sipedge knows of its carrier.
    pub fn data(&self) -> Option<&'static CarrierData> {
        self.carrier.as_deref().and_then(carriers::find)
    }

    /// The ranges that its requests come from: `from`, else the carrier's, and the addresses among its targets.
    pub fn ranges(&self) -> Vec<IpNet> {
        let by_hand = self.from.as_ref().map(|ranges| ranges.iter().map(IpNet::trunc).collect());
        let published =
            || self.data().into_iter().flat_map(|data| data.ranges.iter().map(|range| range.range)).collect();
        let mut ranges: Vec<IpNet> = by_hand.unwrap_or_else(published);
        for address in self.targets.iter().flatten().filter_map(|target| target.uri().address()) {
            if !ranges.iter().any(|range| range.contains(&address)) {
                ranges.push(IpNet::from(address));
            }
        }
        ranges
    }

    /// Where calls to it go: `targets`, else `domain`, else the carrier's one domain.
    pub fn destinations(&self) -> Vec<PlacedTarget> {
        if let Some(targets) = &self.targets {
            return targets.iter().map(PoolTarget::placed).collect();
        }
        let common = self.data().and_then(|data| data.domain.as_deref());
        let host = self.domain.as_deref().or(common);
        let target = host.map(|host| Target { host: host.to_ascii_lowercase(), port: None, transport: self.transport });
        target.map(PlacedTarget::new).into_iter().collect()
    }

    /// What its word is taken for: `trust`, else what the carrier's is.
    pub fn trusted_for(&self) -> Vec<Trust> {
        let usual = || self.data().map(|data| data.trust.clone()).unwrap_or_default();
        self.trust.clone().unwrap_or_else(usual)
    }
}

impl Spec {
    /// The zones of the load-balanced topology: `aws.zones`, else those of the VPC's public subnets, else the first three of the region.
    pub fn zones(&self) -> Vec<String> {
        match (&self.aws.zones, &self.aws.vpc) {
            (Some(zones), _) => zones.clone(),
            (None, Some(vpc)) => vpc.public_subnets.keys().cloned().collect(),
            (None, None) => {
                let letters = zone_letters(&self.aws.region);
                letters.chars().map(|letter| format!("{}{letter}", self.aws.region)).collect()
            }
        }
    }

    /// Whether a route leads from `trunk`.
    pub fn is_source(&self, trunk: &str) -> bool {
        self.routes.iter().any(|route| route.from == trunk)
    }

    /// Whether a route leads to `trunk` from another one.
    pub fn is_destination(&self, trunk: &str) -> bool {
        self.routes.iter().any(|route| route.to == trunk && route.from != trunk)
    }
}
