//! Branch parameters: which transaction a message belongs to, and what the forwarded request gets (RFC 3261 §16.6, §17.2.3).

use sipedge_sip::via::Via;

use super::head::Head;
use super::keys::Key;

/// The keyed hash that names the transaction of an incoming request (RFC 3261 §17.2.3): branch and sent-by, or, from a peer without
/// the magic cookie, what RFC 2543 had instead. ACK and CANCEL give that of their INVITE.
///
/// It is also the branch of the forwarded request, so that any instance that holds the key can compute it: a CANCEL that reaches
/// another instance goes out with the branch that the INVITE got.
pub(super) fn of_request(key: &Key, head: &Head<'_>) -> u128 {
    let via = &head.via;
    let port = via.port.unwrap_or_default().to_be_bytes();
    match via.branch() {
        Some(branch) if starts_with_cookie(branch) => key.hash([branch, via.host, port.as_slice()]),
        branch => key.hash([
            branch.unwrap_or_default(),
            via.host,
            port.as_slice(),
            head.request.uri.text,
            head.from_tag,
            head.call_id,
            head.cseq.number.to_be_bytes().as_slice(),
        ]),
    }
}

/// Appends the branch parameter's value.
pub(super) fn write(branch: u128, out: &mut Vec<u8>) {
    out.extend_from_slice(COOKIE);
    for shift in (0..32).rev().map(|digit| digit * 4) {
        let digit = (branch >> shift & 15) as u8;
        out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
    }
}

/// The keyed hash in a branch that [`write`] wrote.
pub(super) fn of_response(via: &Via<'_>) -> Option<u128> {
    let (cookie, digits) = via.branch()?.split_at_checked(COOKIE.len())?;
    if !cookie.eq_ignore_ascii_case(COOKIE) || digits.len() != 32 {
        return None;
    }
    let digit = |all: u128, digit: &u8| Some(all << 4 | u128::from(char::from(*digit).to_digit(16)?));
    digits.iter().try_fold(0, digit)
}

fn starts_with_cookie(branch: &[u8]) -> bool {
    // The cookie alone names nothing (RFC 4475 §3.2.1).
    branch.len() > COOKIE.len() && branch.get(..COOKIE.len()).is_some_and(|cookie| cookie.eq_ignore_ascii_case(COOKIE))
}

/// RFC 3261 §8.1.1.7.
const COOKIE: &[u8] = b"z9hG4bK";
