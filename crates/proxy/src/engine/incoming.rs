//! A request on its way through the engine.

use std::net::SocketAddr;

use sipedge_sip::message::Message;

use super::head::Head;
use super::keys::Key;
use super::write::{self, ViaStamp};
use super::{Port, branch};

/// A request with all that is known of it.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) message: Message<'a>,
    pub(super) head: Head<'a>,
    pub(super) stamp: ViaStamp,
    pub(super) branch: u128,
    /// The socket that it came by.
    pub(super) port: Port,
    pub(super) source: SocketAddr,
    /// Where its responses go.
    pub(super) respond_to: SocketAddr,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(message: Message<'a>, head: Head<'a>, port: Port, source: SocketAddr, branch_key: &Key) -> Self {
        Self {
            message,
            head,
            stamp: ViaStamp::new(&head, source),
            branch: branch::of_request(branch_key, &head),
            port,
            source,
            respond_to: write::response_address(&head.via, source),
        }
    }
}
