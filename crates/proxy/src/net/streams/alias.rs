//! Connections that a peer opened, for requests to it (RFC 5923): only where the peer has proved by a certificate who it is.

use std::net::SocketAddr;

use sipedge_sip::message::{Layout, Message};

use super::hub::Hub;
use super::link::Link;
use super::names;
use crate::engine::{TlsPeer, Transport};

/// Notes that the sender of `message` lets its connection be used the other way: `alias` in the topmost Via of a request, on a connection
/// whose client certificate has been verified. The address is the one that the message came from, with the port of the Via (RFC 5923 §8.2).
pub(super) fn note(hub: &Hub, link: &Link, message: &[u8]) {
    if link.identities.borrow().is_empty() || link.alias.get().is_some() {
        return;
    }
    let mut layout = Layout::default();
    let Ok(message) = Message::read(message, &mut layout) else { return };
    let Some((via, _)) = message.top_via().filter(|(via, _)| via.has_alias()) else { return };
    if message.request().is_some() {
        let port = via.port.unwrap_or(Transport::Tls.default_port());
        let address = SocketAddr::new(link.peer.ip(), port);
        link.alias.set(Some(address));
        hub.set_alias(address, link.id);
    }
}

/// Whether the peer of this connection has proved to be `peer`.
pub(super) fn serves(link: &Link, peer: &TlsPeer) -> bool {
    link.identities.borrow().iter().any(|identity| names::is_same(identity, &peer.name))
}
