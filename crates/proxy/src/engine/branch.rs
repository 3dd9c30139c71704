//! Branch parameters: which transaction a message belongs to, and what the forwarded request gets (RFC 3261 §16.6, §17.2.3).
//!
//! ```text
//! z9hG4bK | branch 32 hex digits | digest of what was routed by 8 hex digits
//! ```

use std::net::{IpAddr, SocketAddr};

use super::flow::Transport;
use super::head::Head;
use super::keys::Key;

/// The keyed hash that names the transaction of an incoming request (RFC 3261 §17.2.3): branch and sent-by, or, from a peer without
/// the magic cookie, what RFC 2543 had instead. ACK and CANCEL give that of their INVITE.
///
/// `sender` is in it too: the trunk, or the address of who belongs to none. Two peers behind two NATs may have one private address and
/// count their branches alike; and who has seen another one's branch gets nowhere with it.
pub(super) fn of_request(key: &Key, head: &Head<'_>, sender: Sender) -> u128 {
    let via = &head.via;
    let port = via.port.unwrap_or_default().to_be_bytes();
    let fingerprint;
    let (v4, v6);
    let sender: &[u8] = match sender {
        Sender::Trunk(trunk) => {
            fingerprint = trunk.to_be_bytes();
            &fingerprint
        }
        Sender::Address(IpAddr::V4(ip)) => {
            v4 = ip.octets();
            &v4
        }
        Sender::Address(IpAddr::V6(ip)) => {
            v6 = ip.octets();
            &v6
        }
    };
    match head.via_parameters.branch {
        Some(branch) if starts_with_cookie(branch) => key.short_hash([branch, via.host, port.as_slice(), sender]),
        branch => key.short_hash([
            branch.unwrap_or_default(),
            via.host,
            port.as_slice(),
            sender,
            head.request.uri.text,
            head.from_tag,
            head.call_id,
            head.cseq.number.to_be_bytes().as_slice(),
        ]),
    }
}

/// Whom a transaction is with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// A trunk, by the fingerprint of its name.
    Trunk(u16),
    /// Somebody at this address.
    Address(IpAddr),
}

/// The branch of a request that is sent on to this server. It can be computed by any instance that holds the key: a CANCEL that reaches
/// another instance goes out with the branch that the INVITE got. Nobody else can: who sees one branch knows none of those to other servers.
pub(super) fn onward(key: &Key, incoming: u128, transport: Transport, to: SocketAddr) -> u128 {
    let place = [transport as u8];
    let port = to.port().to_be_bytes();
    let incoming = incoming.to_be_bytes();
    match to.ip() {
        IpAddr::V4(ip) => key.short_hash([incoming.as_slice(), &place, &port, &ip.octets()]),
        IpAddr::V6(ip) => key.short_hash([incoming.as_slice(), &place, &port, &ip.octets()]),
    }
}

/// Appends the branch parameter's value.
pub(super) fn write(branch: u128, digest: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(COOKIE);
    write_hex(&branch.to_be_bytes(), out);
    write_hex(&digest.to_be_bytes(), out);
}

/// The keyed hash in a branch that [`write`] wrote.
pub(super) fn of_response(branch: &[u8]) -> Option<u128> {
    parts(branch).map(|(branch, _)| branch)
}

/// The digest in a branch that [`write`] wrote.
pub(super) fn digest_of(branch: &[u8]) -> Option<u32> {
    parts(branch).map(|(_, digest)| digest)
}

fn parts(branch: &[u8]) -> Option<(u128, u32)> {
    let (cookie, digits) = branch.split_at_checked(COOKIE.len())?;
    let (branch, digest) = digits.split_at_checked(BRANCH_DIGITS)?;
    if !cookie.eq_ignore_ascii_case(COOKIE) || digest.len() != DIGEST_DIGITS {
        return None;
    }
    let (high, low) = branch.split_at_checked(BRANCH_DIGITS / 2)?;
    Some((u128::from(read_hex(high)?) << 64 | u128::from(read_hex(low)?), read_hex(digest)? as u32))
}

/// The number that so many times eight hex digits are, at most 16, eight of them at once.
fn read_hex(digits: &[u8]) -> Option<u64> {
    let (eights, rest) = digits.as_chunks::<8>();
    let mut number = 0;
    for eight in eights {
        let text = u64::from_be_bytes(*eight);
        // In each byte 1 if it is a letter.
        let letters = text >> 6 & ONES;
        let values = (text & (ONES * 15)) + letters * 9;
        // What is none gives other digits when it is written again.
        let above_nine = (values + ONES * 6) >> 4 & ONES;
        let again = values + ONES * u64::from(b'0') + above_nine * 39;
        if values & (ONES * 0xf0) != 0 || again != text | (letters << 5) {
            return None;
        }
        let pairs = (values | values >> 4) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
        number = number << 32 | (fours | fours >> 16) & 0xffff_ffff;
    }
    rest.is_empty().then_some(number)
}

/// 1 in each byte.
const ONES: u64 = u64::from_le_bytes([1; 8]);

/// Appends a number of at most 128 bits as hex digits, two of each byte.
pub(super) fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    let mut digits = [0; 2 * MOST_BYTES];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        // Both digits at once, each in a byte of its own.
        let values = u16::from(byte >> 4) | u16::from(byte & 15) << 8;
        // 6 more than 9 carries into the next bit.
        let letters = (values + 0x0606) >> 4 & 0x0101;
        *pair = (values + 0x3030 + letters * 39).to_le_bytes();
    }
    out.extend_from_slice(digits.get(..2 * bytes.len()).unwrap_or_default());
}

fn starts_with_cookie(branch: &[u8]) -> bool {
    // The cookie alone names nothing (RFC 4475 §3.2.1).
    branch.len() > COOKIE.len() && branch.get(..COOKIE.len()).is_some_and(|cookie| cookie.eq_ignore_ascii_case(COOKIE))
}

/// Bytes of 128 bits.
const MOST_BYTES: usize = 16;
/// Hex digits of 128 and of 32 bits.
const BRANCH_DIGITS: usize = 32;
const DIGEST_DIGITS: usize = 8;
/// RFC 3261 §8.1.1.7.
const COOKIE: &[u8] = b"z9hG4bK";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_digits_are_what_the_standard_library_reads() {
        for byte in 0..=u8::MAX {
            for at in 0..16 {
                let mut text = *b"0123456789abcDEF";
                text[at] = byte;
                let expected = text.iter().all(u8::is_ascii_hexdigit).then(|| std::str::from_utf8(&text).unwrap());
                let expected = expected.and_then(|text| u64::from_str_radix(text, 16).ok());
                assert_eq!(read_hex(&text), expected, "{text:?}");
                let upper = text.get(8..).unwrap();
                assert_eq!(read_hex(upper).is_some(), upper.iter().all(u8::is_ascii_hexdigit), "{upper:?}");
            }
        }
        let mut out = Vec::new();
        write(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, 0x90ab_cdef, &mut out);
        assert_eq!(out, b"z9hG4bK0123456789abcdeffedcba987654321090abcdef");
        assert_eq!(parts(&out), Some((0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, 0x90ab_cdef)));
    }
}
