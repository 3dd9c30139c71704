//! The DHCP server of a subnet (RFC 2131), for instances that are machines: one address, always granted.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use tokio::net::UdpSocket;

use super::{LabError, sys};

/// Ports of server and client (RFC 2131, 4.1).
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// Bytes before the options: the fixed fields and the magic cookie (RFC 2131, figure 1; RFC 2132, 2).
const FIXED: usize = 240;

/// The options' magic cookie (RFC 2131, 3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// A BOOTP relay may drop what is shorter (RFC 1542, 2.1).
const SHORTEST: usize = 300;

/// Bytes of the longest message that is read: a frame.
const LONGEST: usize = 1500;

/// Seconds of a lease (AWS, "DHCP option sets in Amazon VPC": an hour).
const LEASE_S: u32 = 3600;

/// Options (RFC 2132), and values of [`option::KIND`].
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const NAME_SERVER: u8 = 6;
    pub(super) const ADDRESS: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const END: u8 = 255;

    pub(super) const DISCOVER: u8 = 1;
    pub(super) const OFFER: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const GRANTED: u8 = 5;
    pub(super) const REFUSED: u8 = 6;
}

/// What a machine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    pub(super) subnet: Ipv4Net,
    /// Router, and the server's own name.
    pub(super) router: Ipv4Addr,
    pub(super) resolver: Ipv4Addr,
}

/// A server's socket for what comes by this device, in the namespace of this thread.
pub(super) fn listen(device: &str) -> Result<UdpSocket, LabError> {
    let socket = sys::broadcast_socket(device, SERVER_PORT).and_then(UdpSocket::from_std);
    socket.map_err(|error| LabError::kernel("listen as the DHCP server", error))
}

/// Answers until its device is gone.
pub(super) async fn serve(socket: UdpSocket, lease: Lease) {
    let mut buffer = [0; LONGEST];
    loop {
        let length = match socket.recv(&mut buffer).await {
            Ok(length) => length,
            Err(error) => {
                tracing::debug!(%error, "the DHCP server ends");
                return;
            }
        };
        let Some(answer) = buffer.get(..length).and_then(|message| answer(message, &lease)) else { continue };
        // To all: the client may not have its address yet. One that has it hears broadcasts too.
        let client = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
        if let Err(error) = socket.send_to(&answer, client).await {
            tracing::warn!(%error, "cannot answer a DHCP client");
        }
    }
}

/// The answer to a client's message; `None` for what needs none, and for what is malformed.
fn answer(message: &[u8], lease: &Lease) -> Option<Vec<u8>> {
    let (fixed, options) = message.split_at_checked(FIXED)?;
    // BOOTREQUEST, Ethernet, six bytes of address.
    if fixed.get(..3)? != [1, 1, 6] || fixed.get(236..240)? != COOKIE {
        return None;
    }
    let asked = Asked::read(options)?;
    let renewed: [u8; 4] = fixed.get(12..16)?.try_into().ok()?;
    let wanted = asked.address.or_else(|| Some(Ipv4Addr::from(renewed)).filter(|address| !address.is_unspecified()));
    let kind = match asked.kind {
        option::DISCOVER => option::OFFER,
        // To another server: it is that one's to answer.
        option::REQUEST if asked.server.is_some_and(|server| server != lease.router) => return None,
        option::REQUEST if wanted == Some(lease.address) => option::GRANTED,
        option::REQUEST => option::REFUSED,
        _ => return None,
    };
    let mut bytes = vec![0; FIXED];
    bytes.get_mut(..4)?.copy_from_slice(&[2, 1, 6, 0]);
    // Transaction, flags, and the client's hardware address are given back.
    bytes.get_mut(4..8)?.copy_from_slice(fixed.get(4..8)?);
    bytes.get_mut(10..12)?.copy_from_slice(fixed.get(10..12)?);
    bytes.get_mut(28..44)?.copy_from_slice(fixed.get(28..44)?);
    bytes.get_mut(236..240)?.copy_from_slice(&COOKIE);
    let mut put = |code: u8, content: &[u8]| {
        bytes.push(code);
        // Every content below has four bytes at most.
        bytes.push(u8::try_from(content.len()).unwrap_or_default());
        bytes.extend_from_slice(content);
    };
    put(option::KIND, &[kind]);
    put(option::SERVER, &lease.router.octets());
    if kind != option::REFUSED {
        put(option::LEASE, &LEASE_S.to_be_bytes());
        put(option::MASK, &lease.subnet.netmask().octets());
        put(option::ROUTER, &lease.router.octets());
        put(option::NAME_SERVER, &lease.resolver.octets());
        bytes.get_mut(16..20)?.copy_from_slice(&lease.address.octets());
    }
    bytes.push(option::END);
    bytes.resize(bytes.len().max(SHORTEST), option::PAD);
    Some(bytes)
}

/// What a client's options say.
#[derive(Debug, Default)]
struct Asked {
    kind: u8,
    address: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

impl Asked {
    fn read(mut options: &[u8]) -> Option<Self> {
        let mut asked = Self::default();
        while let Some((code, rest)) = options.split_first() {
            match *code {
                option::PAD => {
                    options = rest;
                    continue;
                }
                option::END => break,
                _ => {}
            }
            let (length, rest) = rest.split_first()?;
            let (content, rest) = rest.split_at_checked(usize::from(*length))?;
            options = rest;
            let address = || <[u8; 4]>::try_from(content).ok().map(Ipv4Addr::from);
            match *code {
                option::KIND => asked.kind = *content.first()?,
                option::ADDRESS => asked.address = Some(address()?),
                option::SERVER => asked.server = Some(address()?),
                _ => {}
            }
        }
        Some(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease {
            address: Ipv4Addr::new(10, 0, 1, 4),
            subnet: "10.0.1.0/24".parse().expect("a subnet"),
            router: Ipv4Addr::new(10, 0, 1, 1),
            resolver: Ipv4Addr::new(10, 0, 0, 2),
        }
    }

    fn question(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..8].copy_from_slice(&[1, 1, 6, 0, 1, 2, 3, 4]);
        bytes[28..34].copy_from_slice(&[2, 0, 10, 0, 1, 4]);
        bytes[236..240].copy_from_slice(&COOKIE);
        bytes.extend_from_slice(options);
        bytes
    }

    /// Kind and offered address of an answer.
    fn said(bytes: &[u8]) -> (u8, [u8; 4]) {
        assert_eq!(bytes[..3], [2, 1, 6]);
        assert_eq!(bytes[4..8], [1, 2, 3, 4], "the transaction");
        assert_eq!(bytes[28..34], [2, 0, 10, 0, 1, 4], "the client");
        assert_eq!(bytes[240..242], [option::KIND, 1]);
        (bytes[242], bytes[16..20].try_into().expect("four"))
    }

    #[test]
    fn an_address_is_offered_and_granted() {
        let offer = answer(&question(&[53, 1, 1, 255]), &lease()).expect("an offer");
        assert_eq!(said(&offer), (option::OFFER, [10, 0, 1, 4]));
        let mask =
            [option::MASK, 4, 255, 255, 255, 0, option::ROUTER, 4, 10, 0, 1, 1, option::NAME_SERVER, 4, 10, 0, 0, 2];
        assert!(offer.windows(mask.len()).any(|part| part == mask), "{offer:?}");
        let request = question(&[53, 1, 3, 50, 4, 10, 0, 1, 4, 54, 4, 10, 0, 1, 1, 255]);
        assert_eq!(said(&answer(&request, &lease()).expect("granted")), (option::GRANTED, [10, 0, 1, 4]));
        let mut renewal = question(&[53, 1, 3, 255]);
        renewal[12..16].copy_from_slice(&[10, 0, 1, 4]);
        assert_eq!(said(&answer(&renewal, &lease()).expect("granted")).0, option::GRANTED);
    }

    #[test]
    fn another_address_is_refused_and_another_server_is_left_to_answer() {
        let other = question(&[53, 1, 3, 50, 4, 10, 0, 1, 9, 255]);
        assert_eq!(said(&answer(&other, &lease()).expect("refused")), (option::REFUSED, [0; 4]));
        assert_eq!(answer(&question(&[53, 1, 3, 50, 4, 10, 0, 1, 4, 54, 4, 10, 0, 9, 9, 255]), &lease()), None);
        assert_eq!(answer(&question(&[53, 1, 7, 255]), &lease()), None, "a release needs no answer");
    }

    #[test]
    fn what_is_cut_off_is_not_answered() {
        let whole = question(&[53, 1, 1, 50, 4, 10, 0, 1, 4, 255]);
        for length in 0..=FIXED {
            assert_eq!(answer(&whole[..length], &lease()), None);
        }
        assert_eq!(answer(&question(&[53, 1, 1, 50, 200, 1]), &lease()), None);
    }
}
