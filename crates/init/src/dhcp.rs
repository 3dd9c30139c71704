//! DHCP for IPv4 (RFC 2131), as far as an instance of a cloud needs it: messages only, no socket and no clock.

use std::net::Ipv4Addr;

/// Ports of server and client (RFC 2131, 4.1).
pub(crate) const SERVER_PORT: u16 = 67;
pub(crate) const CLIENT_PORT: u16 = 68;

/// Bytes before the options: the fixed fields and the magic cookie (RFC 2131, figure 1; RFC 2132, 2).
const FIXED: usize = 240;

/// The options' magic cookie (RFC 2131, 3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// A BOOTP relay may drop what is shorter (RFC 1542, 2.1).
const SHORTEST: usize = 300;

/// Name servers that are kept; a resolver asks no more than three (resolv.conf(5)).
const MOST_SERVERS: usize = 3;

/// Options (RFC 2132).
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const NAME_SERVER: u8 = 6;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const ADDRESS: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const WANTED: u8 = 55;
    pub(super) const LONGEST: u8 = 57;
    pub(super) const END: u8 = 255;
}

/// What a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Who has an address for me?
    Discover,
    /// I take what this server offered.
    Request {
        /// The offered address.
        address: Ipv4Addr,
        /// The server that offered it.
        server: Ipv4Addr,
    },
    /// I go on using my address (RFC 2131, 4.3.2: REBINDING, which any server may answer).
    Renew {
        /// The address.
        address: Ipv4Addr,
    },
}

/// What kind of answer a server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An address may be had.
    Offer,
    /// The address is the client's.
    Acknowledged,
    /// It is not, or no longer.
    Refused,
}

/// A server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) kind: Kind,
    /// The address that the client may have; 0.0.0.0 in a refusal.
    pub(crate) address: Ipv4Addr,
    /// Bits of the network's prefix; 32 where the server did not say.
    pub(crate) prefix: u8,
    pub(crate) router: Option<Ipv4Addr>,
    pub(crate) name_servers: Vec<Ipv4Addr>,
    pub(crate) domain: Option<String>,
    /// Bytes; from 576 (RFC 791) where the server said something sensible.
    pub(crate) mtu: Option<u16>,
    /// Seconds; `None` where the server did not say.
    pub(crate) lease: Option<u32>,
    pub(crate) server: Ipv4Addr,
}

/// The bytes of a client's message. `transaction`: drawn anew for each conversation; `hardware`: the interface's address.
pub(crate) fn write(question: Question, transaction: u32, hardware: [u8; 6]) -> Vec<u8> {
    let mut bytes = vec![0; FIXED];
    let client = if let Question::Renew { address } = question { address } else { Ipv4Addr::UNSPECIFIED };
    // BOOTREQUEST, Ethernet, six bytes of address; the broadcast flag asks for an answer that needs no address to be received.
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&transaction.to_be_bytes());
    bytes[10..12].copy_from_slice(&[0x80, 0]);
    bytes[12..16].copy_from_slice(&client.octets());
    bytes[28..34].copy_from_slice(&hardware);
    bytes[236..240].copy_from_slice(&COOKIE);
    let mut option = |code: u8, content: &[u8]| {
        bytes.push(code);
        // Every content below is a few bytes long.
        bytes.push(u8::try_from(content.len()).unwrap_or(0));
        bytes.extend_from_slice(content);
    };
    match question {
        Question::Discover => option(option::KIND, &[1]),
        Question::Request { address, server } => {
            option(option::KIND, &[3]);
            option(option::ADDRESS, &address.octets());
            option(option::SERVER, &server.octets());
        }
        Question::Renew { .. } => option(option::KIND, &[3]),
    }
    option(option::LONGEST, &1500_u16.to_be_bytes());
    let wanted = [option::MASK, option::ROUTER, option::NAME_SERVER, option::DOMAIN, option::MTU, option::LEASE];
    option(option::WANTED, &wanted);
    bytes.push(option::END);
    bytes.resize(bytes.len().max(SHORTEST), option::PAD);
    bytes
}

/// Reads an answer to the conversation `transaction` of `hardware`; `None` for anything else, and for what is malformed.
pub(crate) fn read(bytes: &[u8], transaction: u32, hardware: [u8; 6]) -> Option<Answer> {
    let (fixed, mut options) = bytes.split_at_checked(FIXED)?;
    let ours = fixed.get(..3)? == [2, 1, 6]
        && fixed.get(4..8)? == transaction.to_be_bytes()
        && fixed.get(28..34)? == hardware
        && fixed.get(236..240)? == COOKIE;
    if !ours {
        return None;
    }
    let mut kind = None;
    let mut answer = Answer {
        kind: Kind::Refused,
        address: address(fixed.get(16..20)?)?,
        prefix: 32,
        router: None,
        name_servers: Vec::new(),
        domain: None,
        mtu: None,
        lease: None,
        server: Ipv4Addr::UNSPECIFIED,
    };
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
        match *code {
            option::KIND => kind = Some(kind_of(content)?),
            option::MASK => answer.prefix = prefix_of(content)?,
            option::ROUTER => answer.router = content.get(..4).and_then(address),
            option::NAME_SERVER => {
                answer.name_servers = content.chunks_exact(4).filter_map(address).take(MOST_SERVERS).collect();
            }
            option::DOMAIN => answer.domain = domain_of(content),
            option::MTU => {
                answer.mtu = content.first_chunk().copied().map(u16::from_be_bytes).filter(|mtu| *mtu >= 576);
            }
            option::LEASE => answer.lease = content.first_chunk().copied().map(u32::from_be_bytes),
            option::SERVER => answer.server = address(content)?,
            _ => {}
        }
    }
    answer.kind = kind?;
    let usable = !answer.address.is_unspecified() && !answer.address.is_broadcast() && !answer.address.is_loopback();
    (usable || answer.kind == Kind::Refused).then_some(answer)
}

/// The UDP payload of an IPv4 packet from a DHCP server's port to a client's; `None` for every other packet, fragments among them.
pub(crate) fn payload(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let fragment = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x3fff;
    if first >> 4 != 4 || header < 20 || fragment != 0 || *packet.get(9)? != 17 {
        return None;
    }
    let udp = packet.get(header..)?;
    let port = |at: usize| udp.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
    let length = usize::from(port(4)?);
    if port(0)? != SERVER_PORT || port(2)? != CLIENT_PORT {
        return None;
    }
    udp.get(8..length)
}

fn kind_of(content: &[u8]) -> Option<Kind> {
    match content {
        [2] => Some(Kind::Offer),
        [5] => Some(Kind::Acknowledged),
        [6] => Some(Kind::Refused),
        _ => None,
    }
}

fn address(content: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = content.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}

/// The prefix's length; `None` for a mask with holes.
fn prefix_of(content: &[u8]) -> Option<u8> {
    let mask = address(content)?.to_bits();
    let bits = mask.leading_ones();
    (bits + mask.trailing_zeros() == 32).then(|| u8::try_from(bits).ok()).flatten()
}

/// A domain that may stand in resolv.conf: it must not be able to add a line of its own.
fn domain_of(content: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(content).ok()?.trim_end_matches('\0');
    let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
    (!text.is_empty() && text.len() < 254 && text.chars().all(plain)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OFFERED: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 7);

    fn answer(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..3].copy_from_slice(&[2, 1, 6]);
        bytes[4..8].copy_from_slice(&9_u32.to_be_bytes());
        bytes[16..20].copy_from_slice(&OFFERED.octets());
        bytes[28..34].copy_from_slice(&HARDWARE);
        bytes[236..240].copy_from_slice(&COOKIE);
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn an_offer_is_read() {
        let options = [
            53, 1, 2, 0, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 1, 1, 6, 8, 10, 0, 0, 2, 1, 1, 1, 1, 26, 2, 0x23, 0x29,
            51, 4, 0, 0, 14, 16, 54, 4, 10, 0, 1, 1, 15, 3, b'a', b'.', b'b', 255, 99,
        ];
        let read = read(&answer(&options), 9, HARDWARE).expect("an offer");
        let expected = Answer {
            kind: Kind::Offer,
            address: OFFERED,
            prefix: 24,
            router: Some(Ipv4Addr::new(10, 0, 1, 1)),
            name_servers: vec![Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(1, 1, 1, 1)],
            domain: Some("a.b".to_owned()),
            mtu: Some(9001),
            lease: Some(3600),
            server: Ipv4Addr::new(10, 0, 1, 1),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn answers_to_others_are_not_read() {
        let bytes = answer(&[53, 1, 5, 255]);
        assert!(read(&bytes, 9, HARDWARE).is_some());
        assert_eq!(read(&bytes, 8, HARDWARE), None);
        assert_eq!(read(&bytes, 9, [2, 0, 0, 0, 0, 2]), None);
    }

    #[test]
    fn what_is_cut_off_or_odd_is_not_read() {
        let whole = answer(&[53, 1, 5, 1, 4, 255, 255, 255, 0, 255]);
        for length in 0..whole.len() - 1 {
            // Options that are cut off between two are well-formed; what counts is that nothing panics.
            let _ = read(&whole[..length], 9, HARDWARE);
        }
        assert_eq!(read(&answer(&[53, 1, 5, 1, 4, 255, 0, 255, 0, 255]), 9, HARDWARE), None, "a mask with holes");
        assert_eq!(read(&answer(&[53, 1, 5, 3, 200, 1]), 9, HARDWARE), None, "longer than the message");
        assert_eq!(read(&answer(&[255]), 9, HARDWARE), None, "no kind");
    }

    #[test]
    fn a_domain_adds_no_line() {
        let read = read(&answer(b"\x35\x01\x05\x0f\x05a\nb.c\xff"), 9, HARDWARE).expect("an answer");
        assert_eq!(read.domain, None);
    }

    #[test]
    fn masks_of_every_length() {
        for bits in 0..=32_u32 {
            let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - bits).unwrap_or(0));
            assert_eq!(prefix_of(&mask.octets()).map(u32::from), Some(bits), "{mask}");
        }
    }

    #[test]
    fn questions_are_whole_and_tell_what_they_ask() {
        let server = Ipv4Addr::new(10, 0, 1, 1);
        let bytes = write(Question::Request { address: OFFERED, server }, 9, HARDWARE);
        assert_eq!(bytes.len(), SHORTEST);
        assert_eq!(bytes[240..243], [53, 1, 3]);
        assert_eq!(bytes[243..249], [50, 4, 10, 0, 1, 7]);
        let renewed = write(Question::Renew { address: OFFERED }, 9, HARDWARE);
        assert_eq!(renewed[12..16], OFFERED.octets(), "ciaddr");
    }

    #[test]
    fn the_payload_of_a_packet_is_that_of_a_server() {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 1, 1, 255, 255, 255, 255];
        packet.extend([0, 67, 0, 68, 0, 10, 0, 0, 1, 2, 3]);
        assert_eq!(payload(&packet), Some(&[1, 2][..]), "what pads a short frame is not part of it");
        packet[20..22].copy_from_slice(&[0, 53]);
        assert_eq!(payload(&packet), None);
        for length in 0..packet.len() {
            assert_eq!(payload(&packet[..length]), None);
        }
    }
}
