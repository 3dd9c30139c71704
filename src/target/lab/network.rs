//! The lab's network: namespaces, the veth pairs that join them to `vpc`, addresses and routes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ipnet::{IpNet, Ipv4Net};
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::conntrack::Flows;
use super::dhcp::Lease;
use super::netlink::Netfilter;
use super::nft::{Gateway, INSTANCE_PREFIX, INTERNET_PREFIX};
use super::{LabError, STRANGER_ADDRESS, STRANGER_NAMESPACE, VPC_NAMESPACE, conntrack, sys};
use crate::plan::{Plan, Topology};

/// Address of the instance metadata service (AWS, "Use the Instance Metadata Service").
pub(super) const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Link-local address of the VPC's resolver; it also answers at the VPC's base plus two (AWS, "Amazon DNS server").
const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// The router's address on every link. Link-local, so that it is in nobody's range.
const ROUTER_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// AWS keeps the first four addresses of a subnet (AWS, "Subnet CIDR blocks").
const RESERVED_ADDRESSES: u32 = 4;
/// Place of the NLB's node in its public subnet; from there it checks targets.
const NODE_PLACE: u32 = 10;
/// Device of every namespace but `vpc`.
const DEVICE: &str = "eth0";
/// The kernel's table of its own addresses (linux/rtnetlink.h).
const LOCAL_TABLE: u32 = 255;
/// Index of `lo`, the first device of every namespace.
const LOOPBACK: u32 = 1;

/// A network namespace that hangs on `vpc`.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) name: String,
    pub(super) descriptor: OwnedFd,
    /// Index of the link's end in `vpc`.
    device: u32,
    /// The other end of a machine's link.
    tap: Option<OwnedFd>,
}

impl Namespace {
    /// The end of a machine's link that the machine has: frames.
    pub(super) fn tap(&self) -> Option<io::Result<OwnedFd>> {
        self.tap.as_ref().map(OwnedFd::try_clone)
    }
}

/// The network that stands.
pub(super) struct Network {
    vpc: OwnedFd,
    links: Handle,
    netfilter: RefCell<Netfilter>,
    gateway: Gateway,
    /// Carriers and the stranger.
    internet: Vec<Namespace>,
    zones: Vec<PlannedZone>,
}

#[derive(Debug, Clone)]
struct PlannedZone {
    name: String,
    /// Where instances get their addresses.
    subnet: Ipv4Net,
    /// The address from which health checks come.
    node: Ipv4Addr,
}

/// What the lab needs of a plan, checked: IPv4, no address twice, names that can be namespaces.
pub(super) struct Layout {
    gateway: Gateway,
    zones: Vec<PlannedZone>,
    carriers: Vec<(String, Vec<Ipv4Net>)>,
}

/// Where an instance stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) address: Ipv4Addr,
    pub(super) zone: String,
    /// The subnet that the address is of.
    pub(super) subnet: Ipv4Net,
    node: Ipv4Addr,
}

impl Place {
    /// The hardware address of a machine that stands here: a locally administered one, with the address in it.
    pub(super) fn hardware(&self) -> [u8; 6] {
        let [a, b, c, d] = self.address.octets();
        [2, 0, a, b, c, d]
    }
}

impl Layout {
    pub(super) fn of(plan: &Plan) -> Result<Self, LabError> {
        let network = &plan.network;
        let ingress = all_v4("ingress address", &network.ingress_addresses)?;
        let egress = all_v4("egress address", &network.egress_addresses)?;
        if network.zones.is_empty() {
            return Err(LabError::Plan("it has no availability zone".to_owned()));
        }
        let mut zones = Vec::new();
        let mut translated = Vec::new();
        for (zone, address) in network.zones.iter().zip(egress.iter().cycle()) {
            let subnet = match plan.topology {
                Topology::LoadBalanced => zone.private_subnet,
                Topology::SingleEc2 => zone.public_subnet,
            };
            let node = nth(zone.public_subnet, NODE_PLACE)
                .ok_or_else(|| LabError::Plan(format!("subnet {} is too small", zone.public_subnet)))?;
            zones.push(PlannedZone { name: zone.name.clone(), subnet, node });
            translated.push((subnet, *address));
        }
        let carriers = carriers(plan)?;
        let gateway = Gateway {
            topology: plan.topology,
            vpc: network.vpc,
            ingress,
            listeners: network.listeners.clone(),
            spreading: network.spreading,
            timeouts: network.flow_timeouts.clone(),
            egress: translated,
        };
        Ok(Self { gateway, zones, carriers })
    }
}

impl Network {
    /// Makes this process's network namespace the `vpc` and hangs the Internet on it. Needs a tokio runtime.
    pub(super) async fn build(layout: Layout) -> Result<Self, LabError> {
        let Layout { gateway, zones, carriers } = layout;
        let vpc = sys::current_namespace().map_err(|error| LabError::kernel("open the vpc namespace", error))?;
        let links = connect().map_err(|error| LabError::kernel("open a route socket", error))?;
        for (setting, value) in [("ip_forward", "1"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")] {
            sysctl(setting, value)?;
        }
        // One device in, the same out, as when an instance calls its own ingress address: no ICMP redirect.
        sysctl("conf/all/send_redirects", "0")?;
        sysctl("conf/default/send_redirects", "0")?;

        let mut own = vec![ROUTER_ADDRESS, METADATA_ADDRESS, RESOLVER_ADDRESS];
        own.extend(nth(gateway.vpc, 2));
        own.extend(zones.iter().map(|zone| zone.node));
        own.extend(zones.iter().filter_map(|zone| router_of(zone.subnet)));
        own.extend(gateway.ingress.iter().chain(gateway.egress.iter().map(|(_, address)| address)));
        let mut seen = BTreeSet::new();
        own.retain(|address| seen.insert(*address));
        up(&links, LOOPBACK).await?;
        for address in own {
            add_address(&links, LOOPBACK, address).await?;
        }
        // What is nobody's is dropped in silence, as on the Internet; nothing leaves the lab.
        let nowhere = RouteMessageBuilder::<Ipv4Addr>::new().kind(RouteType::BlackHole).build();
        links.route().add(nowhere).execute().await.map_err(|error| LabError::kernel("add the last route", error))?;

        let mut netfilter = Netfilter::open()?;
        gateway.build(&mut netfilter)?;
        let netfilter = RefCell::new(netfilter);
        let mut network = Self { vpc, links, netfilter, gateway, internet: Vec::new(), zones };
        let stranger = (STRANGER_NAMESPACE.to_owned(), vec![Ipv4Net::from(STRANGER_ADDRESS)]);
        for (index, (name, ranges)) in carriers.into_iter().chain([stranger]).enumerate() {
            let address = ranges.first().and_then(|range| nth(*range, 1).or_else(|| nth(*range, 0)));
            let address = address.ok_or_else(|| LabError::Plan(format!("{name} has no address range")))?;
            let device = format!("{INTERNET_PREFIX}{index}");
            let namespace = network.attach(&name, &device, address, &ranges, None).await?;
            network.internet.push(namespace);
        }
        Ok(network)
    }

    /// The namespace of the router.
    pub(super) fn vpc(&self) -> BorrowedFd<'_> {
        self.vpc.as_fd()
    }

    /// Where the resolver answers.
    pub(super) fn resolver_addresses(&self) -> Vec<Ipv4Addr> {
        [Some(RESOLVER_ADDRESS), nth(self.gateway.vpc, 2)].into_iter().flatten().collect()
    }

    /// Carriers and the stranger.
    pub(super) fn internet(&self) -> &[Namespace] {
        &self.internet
    }

    /// Where the `number`-th instance stands: zones in turn, addresses never used again.
    pub(super) fn place(&self, number: u32) -> Result<Place, LabError> {
        let index = number.saturating_sub(1);
        let count = u32::try_from(self.zones.len()).unwrap_or(u32::MAX);
        let zone = usize::try_from(index % count).ok().and_then(|zone| self.zones.get(zone));
        let place = zone.and_then(|zone| {
            let mut place = RESERVED_ADDRESSES + index / count;
            // single-ec2: the node's address is in the same subnet.
            if zone.subnet.contains(&zone.node) && place >= NODE_PLACE {
                place += 1;
            }
            let address = nth(zone.subnet, place)?;
            Some(Place { address, zone: zone.name.clone(), subnet: zone.subnet, node: zone.node })
        });
        place.ok_or_else(|| LabError::Topology(format!("the subnets have no address left for instance {number}")))
    }

    /// A namespace for an instance.
    pub(super) async fn attach_instance(&self, number: u32, place: &Place) -> Result<Namespace, LabError> {
        let name = format!("{INSTANCE_PREFIX}{number}");
        self.attach(&name, &name, place.address, &[Ipv4Net::from(place.address)], Some(place.node)).await
    }

    /// A namespace for the program that is an instance's machine, and a link from `vpc` into the machine. `vpc` is its router and answers
    /// for the other addresses of its subnet.
    pub(super) async fn attach_machine(&self, number: u32, place: &Place) -> Result<Namespace, LabError> {
        let name = format!("{INSTANCE_PREFIX}{number}");
        let failed = |error: &dyn std::fmt::Display| LabError::kernel(format!("create the link of {name}"), error);
        let (descriptor, ()) = sys::create_namespace(self.vpc(), || ()).map_err(|error| failed(&error))?;
        let tap = sys::tap(&name).map_err(|error| failed(&error))?;
        let device = if_nametoindex(name.as_str()).map_err(|error| failed(&error))?;
        sysctl(&format!("conf/{name}/proxy_arp"), "1")?;
        up(&self.links, device).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(place.address, 32)
            .scope(RouteScope::Link)
            .output_interface(device)
            .pref_source(place.node)
            .build();
        self.links.route().add(route).execute().await.map_err(|error| failed(&error))?;
        Ok(Namespace { name, descriptor, device, tap: Some(tap) })
    }

    /// What the DHCP server tells a machine that stands here.
    pub(super) fn lease(&self, place: &Place) -> Result<Lease, LabError> {
        let known = router_of(place.subnet).zip(nth(self.gateway.vpc, 2));
        let (router, resolver) =
            known.ok_or_else(|| LabError::Plan(format!("subnet {} is too small for machines", place.subnet)))?;
        Ok(Lease { address: place.address, subnet: place.subnet, router, resolver })
    }

    /// Takes a namespace's link away. The namespace ends with its last process.
    pub(super) async fn detach(&self, namespace: Namespace) {
        if let Err(error) = self.links.link().del(namespace.device).execute().await {
            tracing::warn!(namespace = namespace.name, %error, "cannot delete the link");
        }
    }

    /// Makes these the targets of new flows; those that are tracked stay where they are.
    pub(super) fn set_targets(&self, targets: &[Ipv4Addr]) -> Result<(), LabError> {
        self.gateway.set_targets(&mut self.netfilter.borrow_mut(), targets)
    }

    /// Forgets the tracked flows of an address, or all.
    pub(super) fn forget_flows(&self, of: Option<Ipv4Addr>) -> Result<(), LabError> {
        let mut netfilter = self.netfilter.borrow_mut();
        match of {
            Some(address) => conntrack::forget(&mut netfilter, address, Flows::All),
            None => conntrack::flush(&mut netfilter),
        }
    }

    /// Forgets the UDP flow from `source` to `edge`, if there is one.
    pub(super) fn forget_flow(&self, source: SocketAddrV4, edge: SocketAddrV4) -> Result<(), LabError> {
        conntrack::forget_one(&mut self.netfilter.borrow_mut(), source, edge)
    }

    /// The address to which the UDP flow from `source` to `edge` goes.
    pub(super) fn target_of(&self, source: SocketAddrV4, edge: SocketAddrV4) -> Result<Option<Ipv4Addr>, LabError> {
        conntrack::target_of(&mut self.netfilter.borrow_mut(), source, edge)
    }

    /// Forgets the flows that the load balancer has to an instance; those that the instance opened stay.
    pub(super) fn forget_ingress_flows(&self, of: Ipv4Addr) -> Result<(), LabError> {
        conntrack::forget(&mut self.netfilter.borrow_mut(), of, Flows::TranslatedTo)
    }

    /// A namespace that holds every address of `ranges`, with `address` as the source of what it sends unbound.
    async fn attach(
        &self,
        name: &str,
        device: &str,
        address: Ipv4Addr,
        ranges: &[Ipv4Net],
        node: Option<Ipv4Addr>,
    ) -> Result<Namespace, LabError> {
        let failed = |error: &dyn std::fmt::Display| LabError::kernel(format!("create the namespace of {name}"), error);
        let (descriptor, inner) = sys::create_namespace(self.vpc(), || {
            sysctl("conf/all/rp_filter", "0")?;
            sysctl("conf/default/rp_filter", "0")?;
            connect().map_err(|error| LabError::kernel("open a route socket", error))
        })
        .map_err(|error| failed(&error))?;
        let inner = inner?;

        let peer = LinkUnspec::new_with_name(DEVICE).setns_by_fd(descriptor.as_raw_fd()).build();
        let pair = LinkVeth::new(device, DEVICE).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).up().build();
        self.links.link().add(pair).execute().await.map_err(|error| failed(&error))?;
        let outer_index = if_nametoindex(device).map_err(|error| failed(&error))?;
        let inner_index = sys::inside(descriptor.as_fd(), self.vpc(), || if_nametoindex(DEVICE))
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;

        up(&inner, LOOPBACK).await?;
        up(&inner, inner_index).await?;
        add_address(&inner, inner_index, address).await?;
        for range in ranges.iter().filter(|range| **range != Ipv4Net::from(address)) {
            // A local route makes every address of the range the namespace's own, however many there are.
            let all = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(range.network(), range.prefix_len())
                .table_id(LOCAL_TABLE)
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .output_interface(LOOPBACK)
                .build();
            inner.route().add(all).execute().await.map_err(|error| failed(&error))?;
        }
        let default = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(ROUTER_ADDRESS)
            .output_interface(inner_index)
            .pref_source(address)
            .onlink()
            .build();
        inner.route().add(default).execute().await.map_err(|error| failed(&error))?;
        for range in ranges {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(range.network(), range.prefix_len())
                .scope(RouteScope::Link)
                .output_interface(outer_index);
            let route = if let Some(node) = node { route.pref_source(node) } else { route };
            self.links.route().add(route.build()).execute().await.map_err(|error| failed(&error))?;
        }
        Ok(Namespace { name: name.to_owned(), descriptor, device: outer_index, tap: None })
    }
}

/// The carriers' names and ranges, checked.
fn carriers(plan: &Plan) -> Result<Vec<(String, Vec<Ipv4Net>)>, LabError> {
    let mut carriers: Vec<(String, Vec<Ipv4Net>)> = Vec::new();
    for carrier in &plan.carriers {
        let name = carrier.name.clone();
        let reserved =
            [VPC_NAMESPACE, STRANGER_NAMESPACE].contains(&name.as_str()) || name.starts_with(INSTANCE_PREFIX);
        if reserved || carriers.iter().any(|(other, _)| *other == name) {
            return Err(LabError::Plan(format!("the carrier name {name} is taken by the lab or by another carrier")));
        }
        let mut ranges: Vec<Ipv4Net> = Vec::new();
        for range in &carrier.ranges {
            let IpNet::V4(range) = range.used else {
                return Err(LabError::Plan(format!(
                    "range {} of {name} is IPv6, which the lab does not have yet",
                    range.used
                )));
            };
            let range = range.trunc();
            let others = carriers.iter().flat_map(|(other, held)| held.iter().map(move |held| (other, held)));
            if let Some((other, held)) = others.into_iter().find(|(_, held)| overlap(**held, range)) {
                return Err(LabError::Plan(format!("range {range} of {name} overlaps {held} of {other}")));
            }
            if overlap(plan.network.vpc, range) || range.contains(&STRANGER_ADDRESS) {
                return Err(LabError::Plan(format!("range {range} of {name} overlaps the VPC's or the stranger's")));
            }
            if !ranges.iter().any(|held| held.contains(&range)) {
                ranges.retain(|held| !range.contains(held));
                ranges.push(range);
            }
        }
        carriers.push((name, ranges));
    }
    Ok(carriers)
}

fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn all_v4(what: &str, addresses: &[IpAddr]) -> Result<Vec<Ipv4Addr>, LabError> {
    let v4: Option<Vec<Ipv4Addr>> =
        addresses.iter().map(|address| if let IpAddr::V4(address) = address { Some(*address) } else { None }).collect();
    match v4 {
        Some(v4) if !v4.is_empty() => Ok(v4),
        Some(_) => Err(LabError::Plan(format!("it has no {what}"))),
        None => Err(LabError::Plan(format!("it has an IPv6 {what}, which the lab does not have yet"))),
    }
}

/// The router's address in a subnet (AWS, "Subnet CIDR blocks": base plus one).
fn router_of(subnet: Ipv4Net) -> Option<Ipv4Addr> {
    nth(subnet, 1)
}

/// The address at `place` of the range.
fn nth(range: Ipv4Net, place: u32) -> Option<Ipv4Addr> {
    let address = Ipv4Addr::from(u32::from(range.network()).checked_add(place)?);
    range.contains(&address).then_some(address)
}

/// A route socket of the namespace in which this thread is.
fn connect() -> std::io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn up(links: &Handle, index: u32) -> Result<(), LabError> {
    let message = LinkUnspec::new_with_index(index).up().build();
    links.link().set(message).execute().await.map_err(|error| LabError::kernel("set a link up", error))
}

async fn add_address(links: &Handle, index: u32, address: Ipv4Addr) -> Result<(), LabError> {
    let request = links.address().add(index, address.into(), 32);
    request.execute().await.map_err(|error| LabError::kernel(format!("add the address {address}"), error))
}

/// Sets an IPv4 setting of the namespace in which this thread is.
fn sysctl(setting: &str, value: &str) -> Result<(), LabError> {
    let path = format!("/proc/sys/net/ipv4/{setting}");
    fs::write(&path, value).map_err(|error| LabError::io("write", path.as_ref(), error))
}
