//! A request on its way through the engine.

use std::net::SocketAddr;

use sipedge_sip::message::Message;

use super::branch;
use super::flow::{Arrival, Hop};
use super::head::Head;
use super::setup::Setup;
use super::write::{self, ViaStamp};

/// A request with all that is known of it.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) message: Message<'a>,
    pub(super) head: Head<'a>,
    pub(super) stamp: ViaStamp,
    pub(super) branch: u128,
    /// How it came.
    pub(super) arrival: Arrival,
    pub(super) source: SocketAddr,
    /// The trunk that the source belongs to.
    pub(super) trunk: Option<usize>,
    /// Where its responses go.
    pub(super) respond_to: SocketAddr,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(message: Message<'a>, head: Head<'a>, arrival: &Arrival, setup: &Setup) -> Self {
        let source = arrival.source;
        let trunk = setup.trunk_of(source.ip());
        let sender = match trunk.and_then(|trunk| setup.trunks.get(trunk)) {
            Some(trunk) => branch::Sender::Trunk(trunk.fingerprint),
            None => branch::Sender::Address(source.ip()),
        };
        Self {
            message,
            head,
            stamp: ViaStamp::new(&head.via, &head.via_parameters, &head.via_element, source),
            branch: branch::of_request(&setup.branch_key, &head, sender),
            arrival: *arrival,
            source,
            trunk,
            respond_to: write::response_address(&head.via, &head.via_parameters, arrival),
        }
    }

    /// The way of its responses.
    pub(super) fn back(&self) -> Hop {
        self.arrival.back(self.respond_to)
    }
}
