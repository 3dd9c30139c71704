//! What a deploy will do: a pure function of spec, topology and target. `deploy` takes the [`Plan`] as its argument, so what `plan`
//! shows is what happens.

mod artefacts;
mod carriers;
mod cloud;
mod cost;
mod defaults;
mod difference;
mod hand_off;
mod network;
mod proxy;
mod risk;
mod show;
mod types;
mod verify;

use ipnet::IpNet;

use crate::spec::{Count, Loaded, PLACEHOLDER, Spec};

pub use crate::spec::Defaulted;
pub(crate) use artefacts::user_data;
pub use cloud::{AlarmsPlan, AwsPlan, DnsPlan, EgressPlan, RefreshPlan, SlackPlan, StatePlan, TrackingPlan, VpcPlan};
pub use cost::{Cost, CostItem, stale_prices};
pub(crate) use cost::{dollars, instance_month_cents};
pub use difference::{ArtefactChange, Difference, SettingChange, State, difference};
pub use hand_off::{Addresses, Side, Whitelist, hand_off};
pub use network::lab_differences;
pub(crate) use proxy::ANSWERER_FILE;
pub use risk::{Action, Effect, Risk, meaning, reachable, risks};
pub use show::{defaults_table, picture, render};
pub use types::{
    Carrier, CarrierDomain, CarrierRange, Certificate, Endpoint, FlowTimeouts, HealthCheck, Listener, Network, Plan,
    Protocol, Scaling, Spreading, TargetKind, Topology, VerifyCall, VerifyPlan, Zone,
};

/// Stands in a user-data template where the ingress address goes that only the target knows (Terraform's `templatefile` syntax).
pub const INGRESS_ADDRESS: &str = "${ingress_address}";

/// Stands in user-data for the allocation of the Elastic IP that a single instance associates with itself, as Terraform's `templatefile`
/// writes it.
pub const ELASTIC_IP_ALLOCATION: &str = "${elastic_ip_allocation}";

/// Stands in the hand-off sheet where the egress address goes that only AWS will know.
pub const EGRESS_ADDRESS: &str = "${egress_address}";

/// In the lab's secrets: the roots that its callers' certificates come from, where the spec has none.
pub(crate) const LAB_ROOTS: &str = "lab-roots.pem";

/// In the lab's secrets: certificate and key of the callers.
pub(crate) const LAB_PEERS: &str = "lab-peers.pem";

/// Bytes of user-data before base64 that EC2 takes (Amazon EC2 User Guide, "Run commands when you launch an EC2 instance").
pub const USER_DATA_LIMIT: usize = 16_384;

/// Elastic IPs that an account has in a region, until its quota is raised.
const ADDRESSES_OF_A_REGION: usize = 5;

/// Elastic IPs that a NAT gateway takes, until the quota is raised to at most 8.
const ADDRESSES_OF_A_GATEWAY: u32 = 2;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The configuration is too large for user-data.
    #[error(
        "the user-data has {bytes} bytes; EC2 takes at most {USER_DATA_LIMIT} before base64, and larger user-data from S3 is not there yet. \
         Merge address ranges into shorter prefixes, or divide the trunks among several edges"
    )]
    UserDataTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The lab has no documentation range left to stand in for a carrier's.
    #[error(
        "the lab has no documentation addresses left for {range} of `{carrier}`: all carriers share 192.0.2.0/24 and 198.51.100.0/24 (RFC 5737). \
         Name fewer or longer prefixes for the lab"
    )]
    DocumentationSpace {
        /// The carrier's name.
        carrier: String,
        /// Its range.
        range: IpNet,
    },
    /// A range that the lab cannot stand in for.
    #[error("{range} of `{carrier}` is an IPv6 range, which is not there yet. Write the carrier's IPv4 ranges")]
    Ipv6 {
        /// The carrier's name.
        carrier: String,
        /// Its range.
        range: IpNet,
    },
    /// What is deployed cannot become what is planned in one deploy.
    #[error("{change} cannot be done to what is deployed: {reason}")]
    NotFromHere {
        /// What would change.
        change: String,
        /// Why not, and what to do instead.
        reason: String,
    },
    /// An artefact could not be written.
    #[error("{artefact} could not be written: {reason}. This is a fault of sipedge; please report it with the spec")]
    Artefact {
        /// File name.
        artefact: &'static str,
        /// What the writer said.
        reason: String,
    },
}

/// What a deploy of `loaded` as `topology` on `target` will do. The same input gives the same bytes.
pub fn plan(loaded: &Loaded, topology: Topology, target: TargetKind) -> Result<Plan, PlanError> {
    let spec = &loaded.spec;
    let mut warnings: Vec<String> = loaded
        .warnings
        .iter()
        .filter(|warning| target == TargetKind::Aws || warning.code != PLACEHOLDER)
        .map(|warning| format!("{}:{}: {} ({})", warning.file, warning.line, warning.message, warning.help))
        .collect();
    let carriers = carriers::carriers(spec, target, &mut warnings)?;
    if topology == Topology::LoadBalanced {
        warn_of_call_limits(spec, &mut warnings);
    }
    if target == TargetKind::Aws && topology == Topology::LoadBalanced {
        warn_of_tls_name(spec, &mut warnings);
    }
    let network = network::network(spec, topology, target);
    let proxy = proxy::config(spec, topology, target, &carriers);
    let scaling = match topology {
        Topology::SingleEc2 => Scaling { min: 1, max: 1 },
        Topology::LoadBalanced => Scaling { min: spec.scaling.min, max: spec.scaling.max },
    };
    let refresh = cloud::refresh(spec, topology, target);
    let zones: Vec<String> = network.zones.iter().map(|zone| zone.name.clone()).collect();
    let aws = cloud::aws(spec, topology, &zones, scaling, &proxy.drain);
    if target == TargetKind::Aws {
        warn_of_quotas(&aws, zones.len(), &mut warnings);
        warnings.extend(unreached_answerer(spec));
    }
    let verify = verify::verify(spec, target, &carriers, &proxy);
    let defaults = defaults::defaults(loaded, topology, target, &network, &proxy, &carriers, &refresh);
    let mut plan = Plan {
        name: spec.name.clone(),
        topology,
        target,
        proxy,
        user_data: String::new(),
        network,
        scaling,
        refresh,
        cost: None,
        aws: None,
        whitelist: Vec::new(),
        carriers,
        verify,
        certificates: proxy::certificates(spec, topology, target),
        artefacts: std::collections::BTreeMap::new(),
        defaults,
        warnings,
    };
    plan.whitelist = hand_off::whitelist(&plan);
    plan.user_data = artefacts::user_data(&plan)?;
    plan.artefacts = artefacts::all(&plan, &aws)?;
    if target == TargetKind::Aws {
        plan.cost = cost::cost(&plan, &aws);
        plan.aws = Some(aws);
    }
    Ok(plan)
}

/// Each instance counts the calls that it set up, and a BYE may pass by another one.
fn warn_of_call_limits(spec: &Spec, warnings: &mut Vec<String>) {
    for (name, _) in spec.trunks.iter().filter(|(_, trunk)| trunk.limits.calls.is_some()) {
        warnings.push(format!(
            "trunks.{name}.limits.calls: a BYE that passes by another instance than the one that counts the call ends nothing there; that \
             call counts until timers.call is over. Give the limit room, or shorten timers.call"
        ));
    }
}

/// What AWS admits of addresses until a quota is raised (Amazon VPC quotas, 2026-11).
fn warn_of_quotas(aws: &AwsPlan, zones: usize, warnings: &mut Vec<String>) {
    let Some(way) = aws.egress.filter(|_| aws.vpc.is_none()) else { return };
    let gateways = if way.gateways == Count::One { 1 } else { zones };
    let addresses = zones + gateways * way.addresses as usize;
    if way.addresses > ADDRESSES_OF_A_GATEWAY {
        warnings.push(format!(
            "egress.addresses: {} for each NAT gateway; AWS admits {ADDRESSES_OF_A_GATEWAY} until the quota \"Elastic IP addresses per public NAT gateway\" is raised",
            way.addresses
        ));
    }
    if addresses > ADDRESSES_OF_A_REGION {
        warnings.push(format!(
            "this edge needs {addresses} Elastic IPs; AWS admits {ADDRESSES_OF_A_REGION} in a region until the quota \"EC2-VPC Elastic IPs\" (L-0263D0A3) is raised"
        ));
    }
}

/// What a deploy to AWS lacks for its verified call, which comes from the machine that deploys; none when it lacks nothing.
pub(crate) fn unreached_answerer(spec: &Spec) -> Option<String> {
    let unreached = spec.verify.answerer && spec.verify.operators.is_empty();
    unreached.then(|| {
        "verify.operators names nobody, so the security group admits no call to the answerer from here, and a deploy refuses its verified \
         call: set verify.operators: [YOUR.ADDRESS/32], or deploy with --no-verify"
            .to_owned()
    })
}

/// A peer compares the name that it connects to with those in the certificate (RFC 5922 §7.1).
fn warn_of_tls_name(spec: &Spec, warnings: &mut Vec<String>) {
    if spec.listen.tls.is_some() && proxy::advertised_name(spec).is_none() {
        warnings.push(
            "listen.tls: peers are told an address, which few certificates are for. Write dns or load_balancer.advertise with the name in the certificate"
                .to_owned(),
        );
    }
}
