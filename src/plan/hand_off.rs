//! The sheet for the carriers, and what they have to let in.

use std::net::IpAddr;

use askama::Template;
use serde::{Deserialize, Serialize};
use sipedge_proxy::config::{Advertise, Trunk};

use super::artefacts::fault;
use super::{Carrier, EGRESS_ADDRESS, INGRESS_ADDRESS, Plan, PlanError, TargetKind, Topology};
use crate::spec::carriers::{self, CarrierData};
use crate::spec::{Target, Transport};

/// The edge's public addresses and names, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Where calls come in; empty: not known yet.
    pub ingress: Vec<IpAddr>,
    /// Where calls go out from (single-ec2: the same); empty: not known yet.
    pub egress: Vec<IpAddr>,
}

/// One thing that a peer has to let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whitelist {
    /// The trunk.
    pub trunk: String,
    /// Who has to do it, in the carrier's own spelling.
    pub peer: String,
    /// Where in the peer's console, when sipedge knows.
    pub place: Option<String>,
    /// Which of the edge's addresses.
    pub side: Side,
    /// Ports of the edge that messages come from or go to, with their transports, such as `5060 UDP, TCP`.
    pub ports: String,
    /// What comes from there, and what is lost without it.
    pub reason: String,
}

/// A side of the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The addresses at which calls come in.
    Ingress,
    /// The addresses from which calls go out.
    Egress,
    /// The one address of single-ec2.
    Both,
}

impl Addresses {
    /// Those that `plan` knows: all in the lab, none on AWS.
    pub fn of(plan: &Plan) -> Self {
        Self { ingress: plan.network.ingress_addresses.clone(), egress: plan.network.egress_addresses.clone() }
    }
}

/// What the peers of `plan` have to let in, trunk by trunk.
pub(super) fn whitelist(plan: &Plan) -> Vec<Whitelist> {
    let mut all = Vec::new();
    let single = plan.topology == Topology::SingleEc2;
    for trunk in &plan.proxy.trunks {
        let (source, destination) = roles(plan, &trunk.name);
        if !source && !destination {
            continue;
        }
        let data = carrier_of(plan, &trunk.name).and_then(|carrier| carriers::find(&carrier.name));
        let mut add = |side, ports: String, reason: &str| {
            all.push(Whitelist {
                trunk: trunk.name.clone(),
                peer: data.map_or(&trunk.name, |data| &data.title).clone(),
                place: data.map(|data| data.whitelist.clone()),
                side,
                ports,
                reason: reason.into(),
            });
        };
        let doors = Doors::of(plan, trunk);
        let egress = format!("{} UDP; TCP and TLS from any port", plan.proxy.listen.egress_port);
        match (single, destination) {
            (true, true) => add(Side::Both, doors.ports(), "new calls, and answers to its own requests"),
            (true, false) => add(Side::Both, doors.ports(), "answers, and BYE and re-INVITE of the callee"),
            (false, true) => {
                add(Side::Egress, egress, "new calls: without it every call is refused or unanswered");
                add(Side::Ingress, doors.ports(), "answers to its own requests, such as the callee's BYE");
            }
            (false, false) => {
                add(Side::Ingress, doors.ports(), "answers to its calls");
                add(Side::Egress, egress, "BYE and re-INVITE of the callee: without it calls do not end");
            }
        }
    }
    all
}

/// The sheet for the carriers of `plan`, with `addresses` as they are known now. Errors: the template cannot be written.
pub fn hand_off(plan: &Plan, addresses: &Addresses) -> Result<String, PlanError> {
    let single = plan.topology == Topology::SingleEc2;
    let listed = |addresses: &[IpAddr], pending: &str| match addresses {
        [] => format!("`{pending}`"),
        known => known.iter().map(|address| format!("`{address}`")).collect::<Vec<_>>().join(", "),
    };
    let ingress = listed(&addresses.ingress, INGRESS_ADDRESS);
    let egress = match (addresses.egress.as_slice(), single) {
        ([], true) => ingress.clone(),
        (known, _) => listed(known, EGRESS_ADDRESS),
    };
    let listen = &plan.proxy.listen;
    let hosts = hosts(plan, addresses);
    let admit = match (single, listen.tls.as_ref()) {
        (true, None) => format!("{ingress}, port {}", listen.ingress_port),
        (true, Some(tls)) => format!("{ingress}, ports {} and {} (TLS)", listen.ingress_port, tls.port),
        (false, _) => format!("both {ingress} and {egress}"),
    };
    let sides = |source: bool| -> Vec<Peer> {
        let of = |trunk: &&Trunk| if source { roles(plan, &trunk.name).0 } else { roles(plan, &trunk.name).1 };
        plan.proxy.trunks.iter().filter(of).map(|trunk| Peer::new(plan, trunk, &hosts)).collect()
    };
    let sheet = HandOff {
        name: &plan.name,
        topology: plan.topology,
        lab: plan.target == TargetKind::Lab,
        single,
        pending: addresses.ingress.is_empty() || addresses.egress.is_empty(),
        several: hosts.len() > 1,
        name_host: hosts.first().cloned().unwrap_or_default(),
        admit,
        ingress,
        egress,
        ingress_variable: INGRESS_ADDRESS,
        egress_variable: EGRESS_ADDRESS,
        transports: format!("{}, port {}", if listen.tcp { "UDP or TCP" } else { "UDP" }, listen.ingress_port),
        tls_port: listen.tls.as_ref().map(|tls| tls.port),
        called: "{{To}}",
        sources: sides(true),
        destinations: sides(false),
    };
    let text = sheet.render().map_err(|error| fault("hand-off.md", &error))?;
    Ok(text + "\n")
}

#[derive(Template)]
#[template(path = "hand-off.md", escape = "none")]
struct HandOff<'a> {
    name: &'a str,
    topology: Topology,
    lab: bool,
    single: bool,
    pending: bool,
    several: bool,
    name_host: String,
    ingress: String,
    egress: String,
    ingress_variable: &'static str,
    egress_variable: &'static str,
    transports: String,
    tls_port: Option<u16>,
    admit: String,
    called: &'static str,
    sources: Vec<Peer>,
    destinations: Vec<Peer>,
}

/// A trunk as the sheet names it.
struct Peer {
    trunk: String,
    title: String,
    whitelist: String,
    origination: String,
    twiml: bool,
    ranges: String,
    data: String,
    /// What calls, and a callee's BYE, are pointed to; the usual first.
    uris: Vec<String>,
    /// Host, port and transport of the first, as they follow a user part.
    place: String,
    targets: Vec<String>,
    example: String,
    notes: Vec<String>,
}

impl Peer {
    fn new(plan: &Plan, trunk: &Trunk, hosts: &[String]) -> Self {
        let carrier = carrier_of(plan, &trunk.name);
        let data: Option<&CarrierData> = carrier.and_then(|carrier| carriers::find(&carrier.name));
        let ranges: Vec<String> =
            carrier.into_iter().flat_map(|carrier| &carrier.ranges).map(|range| range.used.to_string()).collect();
        let mut pool: Vec<_> = trunk.targets.iter().collect();
        pool.sort_by_key(|target| target.priority);
        let targets: Vec<String> = pool.into_iter().map(|target| target.uri.clone()).collect();
        let number = plan.verify.calls.first().map_or("+12025550143", |call| call.number.as_str());
        let first = targets.first().cloned().unwrap_or_default();
        let doors = Doors::of(plan, trunk);
        let places: Vec<String> = doors
            .suffixes()
            .iter()
            .flat_map(|suffix| hosts.iter().map(move |host| format!("{host}{suffix}")))
            .collect();
        Self {
            trunk: trunk.name.clone(),
            title: data.map_or(&trunk.name, |data| &data.title).clone(),
            whitelist: data.map(|data| data.whitelist.clone()).unwrap_or_default(),
            origination: data.map(|data| data.origination.clone()).unwrap_or_default(),
            twiml: data.is_some_and(|data| data.name == "twilio"),
            ranges: ranges.join(", "),
            data: data.map(|data| format!("(As of {}: {})", data.as_of, data.source)).unwrap_or_default(),
            example: first.replacen("sip:", &format!("sip:{number}@"), 1),
            place: places.first().cloned().unwrap_or_default(),
            uris: places.iter().map(|place| format!("sip:{place}")).collect(),
            targets,
            notes: data.map(|data| data.notes.clone()).unwrap_or_default(),
        }
    }
}

/// How a trunk reaches the edge.
struct Doors {
    plain: Option<u16>,
    tcp: bool,
    tls: Option<u16>,
}

impl Doors {
    /// A trunk that is called by TLS alone speaks TLS back; one that is called by UDP or TCP may use any door.
    fn of(plan: &Plan, trunk: &Trunk) -> Self {
        let listen = &plan.proxy.listen;
        let parsed = trunk.targets.iter().filter_map(|target| target.uri.parse::<Target>().ok());
        let transports: Vec<Transport> = parsed.map(|target| target.usual_transport()).collect();
        let by_tls = transports.iter().filter(|transport| **transport == Transport::Tls).count();
        let tls = listen.tls.as_ref().map(|tls| tls.port);
        match (tls, by_tls) {
            (Some(port), some) if some > 0 && some == transports.len() => {
                Self { plain: None, tcp: false, tls: Some(port) }
            }
            // A destination that is called by UDP or TCP answers so.
            (_, 0) if !transports.is_empty() && !roles(plan, &trunk.name).0 => {
                Self { plain: Some(listen.ingress_port), tcp: listen.tcp, tls: None }
            }
            _ => Self { plain: Some(listen.ingress_port), tcp: listen.tcp, tls },
        }
    }

    /// Ports with their transports.
    fn ports(&self) -> String {
        let plain = self.plain.map(|port| format!("{port} {}", if self.tcp { "UDP, TCP" } else { "UDP" }));
        let tls = self.tls.map(|port| format!("{port} TLS"));
        plain.into_iter().chain(tls).collect::<Vec<_>>().join("; ")
    }

    /// What follows the host in a URI. The port always does: without it a name means SRV first, and TLS has another one.
    fn suffixes(&self) -> Vec<String> {
        let plain = self.plain.map(|port| format!(":{port}"));
        plain.into_iter().chain(self.tls.map(|port| format!(":{port};transport=tls"))).collect()
    }
}

/// Where peers point calls to: the name that is advertised, else each ingress address.
fn hosts(plan: &Plan, addresses: &Addresses) -> Vec<String> {
    match (&plan.proxy.advertise, addresses.ingress.as_slice()) {
        (Advertise::Host(name), _) if name != INGRESS_ADDRESS => vec![name.clone()],
        (_, []) => vec![INGRESS_ADDRESS.to_owned()],
        (_, known) => known.iter().map(ToString::to_string).collect(),
    }
}

fn carrier_of<'a>(plan: &'a Plan, trunk: &str) -> Option<&'a Carrier> {
    plan.carriers.iter().find(|carrier| carrier.trunks.iter().any(|name| name == trunk))
}

/// Whether calls come from the trunk, and whether they go to it.
fn roles(plan: &Plan, trunk: &str) -> (bool, bool) {
    let routes = &plan.proxy.routes;
    (routes.iter().any(|route| route.from == trunk), routes.iter().any(|route| route.to == trunk))
}
