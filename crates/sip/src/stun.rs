//! STUN on the SIP port (RFC 8489, before that RFC 5389): phones learn from Binding requests what address a NAT has given them, and
//! keep it open (RFC 5626 §4.4.2, §8). Nothing else of STUN is here: no authentication, no TCP, which has CRLF for it.

use std::net::{IpAddr, SocketAddr};

/// Whether a datagram is STUN and not SIP: its first byte is 0 or 1 and the magic cookie is at its place (RFC 5626 §8.1).
pub fn is_stun(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0 | 1)) && datagram.get(4..8) == Some(&MAGIC_COOKIE)
}

/// Answers a Binding request that came from `source`: appends the response to `out`. Whether there is one: anything that is not a
/// well-formed Binding request is to be dropped in silence (RFC 8489 §6.3).
///
/// The answer is the source address in XOR-MAPPED-ADDRESS, or 420 when the request has attributes that its sender wants understood and
/// that are not (§6.3.1). It has a FINGERPRINT when the request has one; a wrong FINGERPRINT makes a request none (§14.7). It is at most
/// 32 bytes longer than the request: little use to whoever forges a source.
pub fn binding_response(request: &[u8], source: SocketAddr, out: &mut Vec<u8>) -> bool {
    let Some(binding) = Binding::read(request) else { return false };
    let start = out.len();
    let kind = if binding.unknown == 0 { SUCCESS_RESPONSE } else { ERROR_RESPONSE };
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&MAGIC_COOKIE);
    out.extend_from_slice(&binding.transaction);
    if binding.unknown == 0 {
        xor_mapped_address(source, &binding.transaction, out);
    } else {
        // Class 4, number 20; the reason is for people.
        attribute(ERROR_CODE, out, |out| {
            out.extend_from_slice(&[0, 0, 4, 20]);
            out.extend_from_slice(b"Unknown Attribute");
        });
        attribute(UNKNOWN_ATTRIBUTES, out, |out| {
            for unknown in Attributes(request.get(HEADER..).unwrap_or_default()).unknown() {
                out.extend_from_slice(&unknown.to_be_bytes());
            }
        });
    }
    if binding.has_fingerprint {
        // The length counts the FINGERPRINT already (§14.7).
        set_length(start, FINGERPRINT_LENGTH, out);
        let sum = fingerprint(out.get(start..).unwrap_or_default());
        attribute(FINGERPRINT, out, |out| out.extend_from_slice(&sum.to_be_bytes()));
    }
    set_length(start, 0, out);
    true
}

/// What matters of a Binding request.
struct Binding {
    transaction: [u8; 12],
    has_fingerprint: bool,
    /// How many attributes have to be understood and are not.
    unknown: usize,
}

impl Binding {
    fn read(request: &[u8]) -> Option<Self> {
        let (header, attributes) = request.split_at_checked(HEADER)?;
        let announced = usize::from(be16(header.get(2..4)?)?);
        let is_binding = is_stun(request) && be16(header)? == BINDING_REQUEST;
        if !is_binding || announced != attributes.len() || announced % 4 != 0 {
            return None;
        }
        let transaction: [u8; 12] = header.get(8..HEADER)?.try_into().ok()?;
        let mut has_fingerprint = false;
        let mut rest = Attributes(attributes);
        while !rest.0.is_empty() {
            let before = request.len() - rest.0.len();
            let (kind, value) = rest.next()?;
            if kind == FINGERPRINT {
                // The last one, over all that is before it.
                let sum = fingerprint(request.get(..before)?);
                if !rest.0.is_empty() || value != sum.to_be_bytes() {
                    return None;
                }
                has_fingerprint = true;
            }
        }
        Some(Self { transaction, has_fingerprint, unknown: Attributes(attributes).unknown().count() })
    }
}

/// The attributes that are left; ends at one that is cut off.
#[derive(Clone, Copy)]
struct Attributes<'a>(&'a [u8]);

impl Attributes<'_> {
    /// Those that have to be understood (below 0x8000) and that no Binding without authentication knows. What stands behind an integrity
    /// check does not count (RFC 8489 §14.5, §14.6).
    fn unknown(self) -> impl Iterator<Item = u16> {
        self.map(|(kind, _)| kind)
            .take_while(|kind| !matches!(*kind, MESSAGE_INTEGRITY | MESSAGE_INTEGRITY_SHA256))
            .filter(|kind| *kind < 0x8000 && !KNOWN.contains(kind))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let kind = be16(self.0)?;
        let length = usize::from(be16(self.0.get(2..)?)?);
        let value = self.0.get(4..4 + length)?;
        self.0 = self.0.get(4 + length.next_multiple_of(4)..)?;
        Some((kind, value))
    }
}

/// §14.2: the address, masked so that no NAT on the way takes it for one that it has to change.
fn xor_mapped_address(source: SocketAddr, transaction: &[u8; 12], out: &mut Vec<u8>) {
    let [high, low, ..] = MAGIC_COOKIE;
    let port = source.port() ^ u16::from_be_bytes([high, low]);
    let mask = MAGIC_COOKIE.iter().chain(transaction);
    attribute(XOR_MAPPED_ADDRESS, out, |out| {
        // On a socket for both versions, an IPv4 sender has an IPv6 address that it does not know.
        match source.ip().to_canonical() {
            IpAddr::V4(ip) => {
                out.extend_from_slice(&[0, 1]);
                out.extend_from_slice(&port.to_be_bytes());
                out.extend(ip.octets().iter().zip(mask).map(|(byte, mask)| byte ^ mask));
            }
            IpAddr::V6(ip) => {
                out.extend_from_slice(&[0, 2]);
                out.extend_from_slice(&port.to_be_bytes());
                out.extend(ip.octets().iter().zip(mask).map(|(byte, mask)| byte ^ mask));
            }
        }
    });
}

/// Appends an attribute, filled up to a multiple of four bytes.
fn attribute(kind: u16, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&kind.to_be_bytes());
    let place = out.len();
    out.extend_from_slice(&[0, 0]);
    let start = out.len();
    write(out);
    let length = out.len() - start;
    put16(place, length, out);
    out.resize(start + length.next_multiple_of(4), 0);
}

/// Writes the length of a message that begins at `start`: what is behind its header, and what is `to_come`.
fn set_length(start: usize, to_come: usize, out: &mut [u8]) {
    put16(start + 2, out.len() - start - HEADER + to_come, out);
}

/// Lengths here are below that of the request, and so below 2^16.
fn put16(place: usize, value: usize, out: &mut [u8]) {
    if let Some(bytes) = out.get_mut(place..place + 2) {
        bytes.copy_from_slice(&(value as u16).to_be_bytes());
    }
}

fn be16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

/// §14.7: CRC-32 (ITU V.42) of the message up to the attribute, masked so that it is not that of another protocol. Bit by bit: requests
/// are a few dozen bytes.
fn fingerprint(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        }
    }
    !sum ^ 0x5354_554e
}

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Bytes of the header: type, length, magic cookie, transaction id.
const HEADER: usize = 20;

const BINDING_REQUEST: u16 = 0x0001;
const SUCCESS_RESPONSE: u16 = 0x0101;
const ERROR_RESPONSE: u16 = 0x0111;

const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FINGERPRINT: u16 = 0x8028;
/// Bytes of the attribute with its header.
const FINGERPRINT_LENGTH: usize = 8;

/// Attributes of RFC 8489 §18.3 that have to be understood: those of authentication, which is not asked for here, and those of responses,
/// which are ignored in a request (§6.3).
const KNOWN: [u16; 11] = [
    0x0001, // MAPPED-ADDRESS
    0x0006, // USERNAME
    MESSAGE_INTEGRITY,
    ERROR_CODE,
    UNKNOWN_ATTRIBUTES,
    0x0014, // REALM
    0x0015, // NONCE
    MESSAGE_INTEGRITY_SHA256,
    0x001d, // PASSWORD-ALGORITHM
    0x001e, // USERHASH
    XOR_MAPPED_ADDRESS,
];

#[cfg(test)]
mod tests;
