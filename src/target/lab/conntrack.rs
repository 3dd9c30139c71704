//! The table of tracked flows (ctnetlink): forget those of one address, or all.

use std::net::{Ipv4Addr, SocketAddrV4};

use netlink_packet_core::NlasIterator;
use nix::libc;

use super::LabError;
use super::netlink::{Attrs, Message, Netfilter, SUBSYSTEM_CONNTRACK};

/// Message types (linux/netfilter/nfnetlink_conntrack.h).
const GET: u16 = SUBSYSTEM_CONNTRACK << 8 | 1;
const DELETE: u16 = SUBSYSTEM_CONNTRACK << 8 | 2;
/// Attributes of a flow: its two tuples, and its id, which tells it from a later flow with the same tuple.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
/// Attributes of a tuple: its addresses; and of those, source and destination.
const TUPLE_IP: u16 = 1;
const IP_V4: [u16; 2] = [1, 2];
/// Attributes of a tuple: its protocol; and of that number, source port, destination port.
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const UDP: u8 = 17;

/// Forgets every flow.
pub(super) fn flush(netfilter: &mut Netfilter) -> Result<(), LabError> {
    let what = "forget all tracked flows".to_owned();
    netfilter.request(&Message { what, kind: DELETE, flags: 0, attrs: Attrs::default() })
}

/// Which flows of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flows {
    /// From or to it, in either direction, translated or not.
    All,
    /// Those that were opened to another address and translated to this one: what a load balancer has sent there.
    TranslatedTo,
}

/// Forgets flows of `address`.
pub(super) fn forget(netfilter: &mut Netfilter, address: Ipv4Addr, flows: Flows) -> Result<(), LabError> {
    let what = format!("list the tracked flows of {address}");
    let mut found = Vec::new();
    netfilter.dump(&Message { what, kind: GET, flags: 0, attrs: Attrs::default() }, |attrs| {
        if let Some(key) = key_if_of(attrs, address, flows) {
            found.push(key);
        }
    })?;
    forget_all(netfilter, found)
}

/// Forgets the UDP flow from `source` to `edge`, if there is one.
pub(super) fn forget_one(netfilter: &mut Netfilter, source: SocketAddrV4, edge: SocketAddrV4) -> Result<(), LabError> {
    let what = format!("list the tracked flows of {source}");
    let mut found = Vec::new();
    netfilter.dump(&Message { what, kind: GET, flags: 0, attrs: Attrs::default() }, |attrs| {
        if answerer_if_of(attrs, source, edge).is_some() {
            found.push(key_of(attrs));
        }
    })?;
    forget_all(netfilter, found)
}

fn forget_all(netfilter: &mut Netfilter, keys: Vec<Attrs>) -> Result<(), LabError> {
    for key in keys {
        let what = "forget a tracked flow".to_owned();
        match netfilter.request(&Message { what, kind: DELETE, flags: 0, attrs: key }) {
            // It ended by itself in between.
            Err(LabError::Kernel { reason, .. }) if reason == not_found() => {}
            other => other?,
        }
    }
    Ok(())
}

/// The address that answers on the UDP flow from `source` to `edge`; none when there is no such flow.
pub(super) fn target_of(
    netfilter: &mut Netfilter,
    source: SocketAddrV4,
    edge: SocketAddrV4,
) -> Result<Option<Ipv4Addr>, LabError> {
    let what = format!("list the tracked flows of {source}");
    let mut found = None;
    netfilter.dump(&Message { what, kind: GET, flags: 0, attrs: Attrs::default() }, |attrs| {
        found = found.or(answerer_if_of(attrs, source, edge));
    })?;
    Ok(found)
}

/// The source of the flow's replies, when it was opened from `source` to `edge` by UDP.
fn answerer_if_of(flow: &[u8], source: SocketAddrV4, edge: SocketAddrV4) -> Option<Ipv4Addr> {
    let tuple = |kind: u16| NlasIterator::new(flow).flatten().find(|attr| attr.kind() == kind);
    let [from, to] = IP_V4;
    let opened = tuple(TUPLE_ORIG)?;
    let number = |kind: u16| part(opened.value(), TUPLE_PROTOCOL, kind);
    let matches = number(PROTOCOL_NUMBER)? == [UDP]
        && part(opened.value(), TUPLE_IP, from)? == source.ip().octets()
        && part(opened.value(), TUPLE_IP, to)? == edge.ip().octets()
        && number(SOURCE_PORT)? == source.port().to_be_bytes()
        && number(DESTINATION_PORT)? == edge.port().to_be_bytes();
    let answerer: [u8; 4] = part(tuple(TUPLE_REPLY)?.value(), TUPLE_IP, from)?.try_into().ok()?;
    matches.then(|| Ipv4Addr::from(answerer))
}

/// One attribute of one part of a tuple.
fn part(tuple: &[u8], of: u16, kind: u16) -> Option<Vec<u8>> {
    let within = NlasIterator::new(tuple).flatten().find(|attr| attr.kind() == of)?;
    let found = NlasIterator::new(within.value()).flatten().find(|attr| attr.kind() == kind)?;
    Some(found.value().to_vec())
}

fn not_found() -> String {
    std::io::Error::from_raw_os_error(libc::ENOENT).to_string()
}

/// The attributes that name the flow.
fn key_of(flow: &[u8]) -> Attrs {
    let mut key = Attrs::default();
    for attr in NlasIterator::new(flow).flatten() {
        match attr.kind() {
            TUPLE_ORIG => key = key.nested_bytes(TUPLE_ORIG, attr.value()),
            ID => key = key.bytes(ID, attr.value()),
            _ => {}
        }
    }
    key
}

/// The attributes that name the flow, when it is one of the wanted ones.
fn key_if_of(flow: &[u8], address: Ipv4Addr, wanted: Flows) -> Option<Attrs> {
    let (mut opened, mut answered) = (false, false);
    for attr in NlasIterator::new(flow).flatten() {
        match attr.kind() {
            TUPLE_ORIG => opened |= tuple_has(attr.value(), address),
            TUPLE_REPLY => answered |= tuple_has(attr.value(), address),
            _ => {}
        }
    }
    let matches = match wanted {
        Flows::All => opened || answered,
        Flows::TranslatedTo => answered && !opened,
    };
    matches.then(|| key_of(flow))
}

fn tuple_has(tuple: &[u8], address: Ipv4Addr) -> bool {
    NlasIterator::new(tuple).flatten().filter(|attr| attr.kind() == TUPLE_IP).any(|ip| {
        let mut addresses = NlasIterator::new(ip.value()).flatten();
        addresses.any(|attr| IP_V4.contains(&attr.kind()) && attr.value() == address.octets())
    })
}
