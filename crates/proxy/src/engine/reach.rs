//! Where requests may go.

use std::net::IpAddr;

use super::setup::Lookup;
use super::{Engine, Gate};

impl Engine {
    /// Whether a remote target may be at this address. What the sender of a request writes there must not make the edge talk to its own
    /// machine or network; peers that are there stand in the configuration.
    pub(super) fn may_reach(&self, ip: IpAddr) -> bool {
        let is_everywhere = ip.is_loopback() || ip.is_multicast() || ip.is_unspecified();
        let is_inside = is_everywhere
            || match ip {
                IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_broadcast(),
                IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
            };
        let is_peer = || {
            let mut targets = self.setup.trunks.iter().flat_map(|trunk| &trunk.targets);
            self.setup.trunk_of(ip).is_some()
                || targets.any(|target| matches!(&target.lookup, Lookup::Address(server) if server.address.ip() == ip))
        };
        let is_self_call = || match self.gate {
            Gate::SelfCall { caller, callee } => ip == caller.ip() || ip == callee.ip(),
            _ => false,
        };
        !is_inside || is_peer() || self.shared.was_peer(ip) || is_self_call()
    }
}
