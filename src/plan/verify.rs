//! What the smoke calls are made of.

use std::net::{IpAddr, SocketAddr};

use sipedge_proxy::config::Config;

use super::proxy::used_target;
use super::{Carrier, Endpoint, TargetKind, VerifyCall, VerifyPlan};
use crate::spec::Spec;

/// SIP's port, where carriers send from and listen (RFC 3261 §19.1.2).
const SIP_PORT: u16 = 5060;

/// The caller's port when it has to share an address with the called side.
const SHARED_CALLER_PORT: u16 = 5070;

/// One call per route.
pub(super) fn verify(spec: &Spec, target: TargetKind, carriers: &[Carrier], proxy: &Config) -> VerifyPlan {
    let calls = spec.routes.iter().filter_map(|route| {
        let source = carriers.iter().find(|carrier| carrier.trunks.contains(&route.from))?;
        let destination = carriers.iter().find(|carrier| carrier.trunks.contains(&route.to))?;
        let goal = used_target(carriers, spec.trunks.get(&route.to)?.destinations().first()?);
        let resolved =
            destination.domains.iter().find(|domain| domain.name == goal.host).map(|domain| domain.addresses.clone());
        let addresses = match goal.address() {
            Some(address) if target == TargetKind::Lab => vec![address],
            _ => resolved.unwrap_or_default(),
        };
        let callee: Vec<Endpoint> = addresses
            .iter()
            .map(|address| Endpoint {
                namespace: destination.name.clone(),
                address: SocketAddr::new(*address, goal.port.unwrap_or(SIP_PORT)),
            })
            .collect();
        let from = &proxy.trunks.iter().find(|trunk| trunk.name == route.from)?.from;
        let callers: Vec<IpAddr> = from.iter().flat_map(|range| range.hosts().take(addresses.len() + 1)).collect();
        let own = callers.iter().find(|caller| !addresses.contains(caller));
        let caller = match own {
            Some(address) => SocketAddr::new(*address, SIP_PORT),
            None => SocketAddr::new(*callers.first()?, SHARED_CALLER_PORT),
        };
        Some(VerifyCall {
            from: route.from.clone(),
            to: route.to.clone(),
            caller: Endpoint { namespace: source.name.clone(), address: caller },
            callee,
            request_uri_host: goal.port.map_or_else(|| goal.host.clone(), |port| format!("{}:{port}", goal.host)),
            number: spec.verify.number.clone(),
        })
    });
    VerifyPlan { calls: calls.collect(), max_setup_ms: spec.verify.max_setup.as_millis() }
}
