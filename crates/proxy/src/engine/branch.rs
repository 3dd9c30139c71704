//! Branch parameters: which transaction a message belongs to, and what the forwarded request gets (RFC 3261 §16.6, §17.2.3).
//!
//! ```text
//! z9hG4bK | branch 32 hex digits | digest of what was routed by 8 hex digits
//! ```

use std::net::{IpAddr, SocketAddr};

use sipedge_sip::via::Via;

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
    match via.branch() {
        Some(branch) if starts_with_cookie(branch) => key.hash([branch, via.host, port.as_slice(), sender]),
        branch => key.hash([
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
/// another instance goes out with the branch that the INVITE got.
pub(super) fn onward(key: &Key, incoming: u128, transport: Transport, to: SocketAddr) -> u128 {
    let place = [transport as u8];
    let port = to.port().to_be_bytes();
    let incoming = incoming.to_be_bytes();
    match to.ip() {
        IpAddr::V4(ip) => key.hash([incoming.as_slice(), &place, &port, &ip.octets()]),
        IpAddr::V6(ip) => key.hash([incoming.as_slice(), &place, &port, &ip.octets()]),
    }
}

/// Appends the branch parameter's value.
pub(super) fn write(branch: u128, digest: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(COOKIE);
    write_hex(branch, BRANCH_DIGITS, out);
    write_hex(digest.into(), DIGEST_DIGITS, out);
}

/// The keyed hash in a branch that [`write`] wrote.
pub(super) fn of_response(via: &Via<'_>) -> Option<u128> {
    parts(via).map(|(branch, _)| branch)
}

/// The digest in a branch that [`write`] wrote.
pub(super) fn digest_of(via: &Via<'_>) -> Option<u32> {
    parts(via).map(|(_, digest)| digest)
}

fn parts(via: &Via<'_>) -> Option<(u128, u32)> {
    let (cookie, digits) = via.branch()?.split_at_checked(COOKIE.len())?;
    let (branch, digest) = digits.split_at_checked(BRANCH_DIGITS)?;
    if !cookie.eq_ignore_ascii_case(COOKIE) || digest.len() != DIGEST_DIGITS {
        return None;
    }
    let digit = |all: u128, digit: &u8| Some(all << 4 | u128::from(char::from(*digit).to_digit(16)?));
    Some((branch.iter().try_fold(0, digit)?, digest.iter().try_fold(0, digit)? as u32))
}

fn write_hex(number: u128, digits: usize, out: &mut Vec<u8>) {
    for shift in (0..digits).rev().map(|digit| digit * 4) {
        let digit = (number >> shift & 15) as u8;
        out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
    }
}

fn starts_with_cookie(branch: &[u8]) -> bool {
    // The cookie alone names nothing (RFC 4475 §3.2.1).
    branch.len() > COOKIE.len() && branch.get(..COOKIE.len()).is_some_and(|cookie| cookie.eq_ignore_ascii_case(COOKIE))
}

/// Hex digits of 128 and of 32 bits.
const BRANCH_DIGITS: usize = 32;
const DIGEST_DIGITS: usize = 8;
/// RFC 3261 §8.1.1.7.
const COOKIE: &[u8] = b"z9hG4bK";
