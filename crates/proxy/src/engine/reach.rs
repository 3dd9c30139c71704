//! Where requests may go.

use std::net::{IpAddr, Ipv4Addr};

use super::{Engine, Gate};

impl Engine {
    /// Whether a remote target may be at this address. What the sender of a request writes there must not make the edge talk to its own
    /// machine or network; peers that are there stand in the configuration.
    pub(super) fn may_reach(&self, ip: IpAddr) -> bool {
        // An IPv4 address in IPv6 clothes is that IPv4 address.
        let ip = ip.to_canonical();
        let is_everywhere = ip.is_loopback() || ip.is_multicast() || ip.is_unspecified();
        let is_inside = is_everywhere
            || match ip {
                IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_broadcast() || is_shared_or_this(ip),
                IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
            };
        let is_peer =
            || self.setup.trunk_of(ip).is_some() || self.destination_at(ip).is_some() || self.destinations.knows(ip);
        let is_self_call = || match self.gate {
            Gate::SelfCall { caller, callee } => ip == caller.ip() || ip == callee.ip(),
            _ => false,
        };
        !is_inside || is_peer() || self.shared.was_peer(ip) || is_self_call()
    }
}

/// RFC 6598 §7 (100.64.0.0/10, which clouds use inside) and RFC 1122 §3.2.1.3 (0.0.0.0/8).
fn is_shared_or_this(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 0 || (first == 100 && second & 0xc0 == 64)
}
