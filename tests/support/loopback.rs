//! Addresses of 127.0.0.0/8 that play the parts of carriers, edge and strangers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use sipedge::target::lab::STRANGER_NAMESPACE;
use sipedge::verify::Bench;

use crate::edge::{EdgeConfig, EdgeRoute};

/// Number that the test calls dial.
pub(crate) const NUMBER: &str = "+15550100";

/// Domain of the destination.
pub(crate) const DOMAIN: &str = "destination.pstn.example";

/// Blocks of 256 addresses that this process has taken.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// 256 addresses of a test's own, so that tests run side by side with SIP's own ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    prefix: [u8; 3],
}

impl Block {
    /// A block that no other test of this process has, and whose edge address is free.
    pub(crate) fn take() -> Self {
        loop {
            // 127.0 belongs to the machine's services. Processes are kept apart by their ids.
            let index =
                std::process::id().wrapping_mul(251).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % 65_000;
            let block = Self { prefix: [127, 1 + (index / 256) as u8 % 254, (index % 256) as u8] };
            if UdpSocket::bind(block.ingress()).is_ok() {
                return block;
            }
        }
    }

    /// An address of the block.
    pub(crate) fn address(&self, last: u8) -> IpAddr {
        let [a, b, c] = self.prefix;
        IpAddr::V4(Ipv4Addr::new(a, b, c, last))
    }

    /// Where the edge receives.
    pub(crate) fn ingress(&self) -> SocketAddr {
        SocketAddr::new(self.address(2), 5060)
    }

    /// Where the edge sends requests from.
    pub(crate) fn egress(&self) -> SocketAddr {
        SocketAddr::new(self.address(3), 5080)
    }

    /// The calling carrier.
    pub(crate) fn caller(&self) -> SocketAddr {
        SocketAddr::new(self.address(10), 5060)
    }

    /// The called carrier.
    pub(crate) fn callee(&self) -> SocketAddr {
        SocketAddr::new(self.address(20), 5060)
    }

    /// An edge without fault in this block, which sends the caller's calls to `callee`.
    pub(crate) fn edge(&self, callee: SocketAddr) -> EdgeConfig {
        EdgeConfig {
            ingress: self.ingress(),
            egress: self.egress(),
            advertised: self.address(2).to_string(),
            private: self.address(77).to_string(),
            routes: vec![EdgeRoute { allow: vec![self.address(10).into()], callee, domain: DOMAIN.to_owned() }],
            silent: false,
            secret: 42,
            faults: Default::default(),
        }
    }
}

impl Bench for Block {
    fn udp_socket(&self, namespace: &str, address: SocketAddr) -> io::Result<UdpSocket> {
        match namespace == STRANGER_NAMESPACE {
            true => UdpSocket::bind((self.address(99), address.port())),
            false => UdpSocket::bind(address),
        }
    }
}
