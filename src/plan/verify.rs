//! What the smoke calls are made of.

use std::net::{IpAddr, SocketAddr};

use sipedge_proxy::config::Config;

use super::proxy::used_target;
use super::{Carrier, Endpoint, TargetKind, VerifyCall, VerifyPlan};
use crate::spec::{Select, Spec, Target, Transport, Trunk};

/// SIP's port, where carriers send from and listen (RFC 3261 §19.1.2).
const SIP_PORT: u16 = 5060;

/// The caller's port when it has to share an address with the called side.
const SHARED_CALLER_PORT: u16 = 5070;

/// One call per route.
pub(super) fn verify(spec: &Spec, target: TargetKind, carriers: &[Carrier], proxy: &Config) -> VerifyPlan {
    let calls = spec.routes.iter().filter_map(|route| {
        let source = carriers.iter().find(|carrier| carrier.trunks.contains(&route.from))?;
        let destination = carriers.iter().find(|carrier| carrier.trunks.contains(&route.to))?;
        let goals: Vec<Target> = first_choice(spec.trunks.get(&route.to)?);
        let goals: Vec<Target> = goals.iter().map(|goal| used_target(carriers, goal)).collect();
        let mut callee: Vec<Endpoint> = Vec::new();
        for goal in &goals {
            let resolved = || destination.domains.iter().find(|domain| domain.name == goal.host);
            let addresses = match goal.address() {
                Some(address) if target == TargetKind::Lab => vec![address],
                _ => resolved().map(|domain| domain.addresses.clone()).unwrap_or_default(),
            };
            let endpoint = |address| Endpoint {
                namespace: destination.name.clone(),
                address: SocketAddr::new(address, goal.usual_port()),
                transport: goal.usual_transport(),
            };
            callee.extend(addresses.into_iter().map(endpoint));
        }
        let addresses: Vec<IpAddr> = callee.iter().map(|callee| callee.address.ip()).collect();
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
            caller: Endpoint { namespace: source.name.clone(), address: caller, transport: Transport::Udp },
            callee,
            request_uri_hosts: goals
                .iter()
                .map(|goal| goal.port.map_or_else(|| goal.host.clone(), |port| format!("{}:{port}", goal.host)))
                .collect(),
            number: spec.verify.number.clone(),
        })
    });
    VerifyPlan {
        calls: calls.collect(),
        max_setup_ms: spec.verify.max_setup.as_millis(),
        operators: spec.verify.operators.clone(),
    }
}

/// The targets of which a call takes one when all are up: those of the best priority, without spares.
fn first_choice(trunk: &Trunk) -> Vec<Target> {
    let destinations = trunk.destinations();
    let best = destinations.iter().map(|target| target.priority).min();
    let chosen = destinations.into_iter().filter(|target| Some(target.priority) == best);
    chosen.filter(|target| trunk.select != Select::Weight || target.weight > 0).map(|target| target.uri).collect()
}
