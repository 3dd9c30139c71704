//! Route tokens: the signed user part of Record-Route, by which requests in a dialog are known again.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::keys::Key;

/// Letters of a token.
pub(crate) const TOKEN_LETTERS: usize = TEXT;

/// Letters at the end of a token without which nobody can use it.
pub(crate) const TOKEN_SIGNATURE_LETTERS: usize = MAC / 3 * 4;

/// What makes a route ours (no open relay): the user part of the Record-Route URI.
///
/// ```text
/// version 1 | key id 1 | from trunk 2 | to trunk 2 | seconds since the epoch 4 | caller 2 | MAC 12      → 32 letters of base64url
/// ```
///
/// The MAC covers the fields, the Call-ID and the caller's tag: a token is good for its own call alone, from either side, by any
/// instance that has the key, with nothing stored. `caller` is a hint, 16 bits of the caller's tag, that tells the direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// Fingerprint of the trunk that the call came from.
    pub(super) from: u16,
    /// Fingerprint of the trunk that the call went to.
    pub(super) to: u16,
    /// When the call was set up, in seconds since the epoch.
    pub(super) issued: u32,
}

/// Who sends a request in a dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The side that sent the first INVITE.
    FromCaller,
    /// The side that answered it.
    FromCallee,
}

/// The identifiers of a request that a token is bound to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) call_id: &'a [u8],
    pub(super) from_tag: &'a [u8],
    pub(super) to_tag: &'a [u8],
}

/// A key of route tokens with its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct SigningKey {
    pub(super) id: u8,
    pub(super) key: Key,
}

impl Token {
    /// The token as the user part of a URI.
    pub(super) fn write(&self, key: &SigningKey, call: &Call<'_>, out: &mut Vec<u8>) {
        let fields = self.fields(key.id, call.from_tag);
        let mac = mac(key, &fields, call.call_id, call.from_tag);
        let mut raw = [0; RAW];
        for (to, from) in raw.iter_mut().zip(fields.iter().chain(&mac)) {
            *to = *from;
        }
        // base64url without padding: its letters are all allowed in a user part.
        let mut text = [0; TEXT];
        if URL_SAFE_NO_PAD.encode_slice(raw, &mut text).is_ok() {
            out.extend_from_slice(&text);
        }
    }

    /// The token in `user`, when one of `keys` has signed it for this call, not longer ago than [`MAX_AGE`].
    pub(super) fn verify(user: &[u8], keys: &[SigningKey], call: &Call<'_>, now: u64) -> Option<(Self, Direction)> {
        let mut raw = [0; RAW];
        if user.len() != TEXT || URL_SAFE_NO_PAD.decode_slice(user, &mut raw).ok()? != RAW {
            return None;
        }
        let (fields, mac_given) = raw.split_first_chunk::<FIELDS>()?;
        let [version, id, from0, from1, to0, to1, t0, t1, t2, t3, caller0, caller1] = *fields;
        let key = keys.iter().find(|key| version == VERSION && key.id == id)?;
        // The hint saves the second MAC nearly always; where both tags fit it, both are tried.
        let sides = [(Direction::FromCaller, call.from_tag), (Direction::FromCallee, call.to_tag)];
        let (direction, _) = sides
            .into_iter()
            .filter(|(_, tag)| hint(tag) == [caller0, caller1])
            .find(|(_, tag)| is_equal(&mac(key, fields, call.call_id, tag), mac_given))?;
        let issued = u32::from_be_bytes([t0, t1, t2, t3]);
        if now.saturating_sub(u64::from(issued)) > MAX_AGE {
            return None;
        }
        let token = Self { from: u16::from_be_bytes([from0, from1]), to: u16::from_be_bytes([to0, to1]), issued };
        Some((token, direction))
    }

    fn fields(&self, key: u8, caller_tag: &[u8]) -> [u8; FIELDS] {
        let [from0, from1] = self.from.to_be_bytes();
        let [to0, to1] = self.to.to_be_bytes();
        let [t0, t1, t2, t3] = self.issued.to_be_bytes();
        let [caller0, caller1] = hint(caller_tag);
        [VERSION, key, from0, from1, to0, to1, t0, t1, t2, t3, caller0, caller1]
    }
}

/// Sixteen bits of a trunk's name, or of a tag (FNV-1a, folded).
pub(super) fn fingerprint(name: &[u8]) -> u16 {
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 16)) as u16
}

fn hint(tag: &[u8]) -> [u8; 2] {
    fingerprint(tag).to_be_bytes()
}

fn mac(key: &SigningKey, fields: &[u8; FIELDS], call_id: &[u8], caller_tag: &[u8]) -> [u8; MAC] {
    let hash = key.key.hash([fields.as_slice(), call_id, caller_tag]).to_be_bytes();
    let mut mac = [0; MAC];
    for (to, from) in mac.iter_mut().zip(hash) {
        *to = from;
    }
    mac
}

/// Compared without an early end, so that the time taken says nothing.
fn is_equal(expected: &[u8; MAC], given: &[u8]) -> bool {
    expected.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

const VERSION: u8 = 1;
const FIELDS: usize = 12;
/// 96 bits: a forger would need some 2^95 tries, each a datagram.
const MAC: usize = 12;
const RAW: usize = FIELDS + MAC;
/// Letters of base64url for [`RAW`] bytes.
const TEXT: usize = RAW / 3 * 4;
/// A day in seconds: longer than carriers let a call last, short enough that a leaked token ends.
const MAX_AGE: u64 = 24 * 3_600;

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call<'static> = Call { call_id: b"a@b", from_tag: b"caller", to_tag: b"callee" };
    const TOKEN: Token = Token { from: 1, to: 2, issued: 1_000 };

    fn key(id: u8, digit: &str) -> SigningKey {
        SigningKey { id, key: Key::from_hex(&digit.repeat(64)).unwrap() }
    }

    fn written() -> Vec<u8> {
        let mut out = Vec::new();
        TOKEN.write(&key(7, "a"), &CALL, &mut out);
        out
    }

    #[test]
    fn good_for_its_call_from_either_side() {
        let keys = [key(8, "b"), key(7, "a")];
        let user = written();
        assert_eq!(user.len(), 32);
        assert_eq!(Token::verify(&user, &keys, &CALL, 1_000), Some((TOKEN, Direction::FromCaller)));
        let callee = Call { from_tag: b"callee", to_tag: b"caller", ..CALL };
        assert_eq!(Token::verify(&user, &keys, &callee, 1_000 + MAX_AGE), Some((TOKEN, Direction::FromCallee)));
    }

    #[test]
    fn tags_with_the_same_hint_are_told_apart() {
        let twin = (0_u32..).map(|number| number.to_string()).find(|tag| hint(tag.as_bytes()) == hint(b"caller"));
        let twin = twin.unwrap();
        let callee = Call { from_tag: twin.as_bytes(), to_tag: b"caller", ..CALL };
        assert_eq!(Token::verify(&written(), &[key(7, "a")], &callee, 1_000), Some((TOKEN, Direction::FromCallee)));
    }

    #[test]
    fn good_for_nothing_else() {
        let user = written();
        let keys = [key(7, "a")];
        let refused =
            |user: &[u8], keys: &[SigningKey], call: Call<'_>, now| Token::verify(user, keys, &call, now).is_none();
        assert!(refused(&user, &keys, Call { call_id: b"other", ..CALL }, 1_000));
        assert!(refused(&user, &keys, Call { from_tag: b"x", to_tag: b"y", ..CALL }, 1_000));
        assert!(refused(&user, &[key(8, "a")], CALL, 1_000), "its key was withdrawn");
        assert!(refused(&user, &[key(7, "b")], CALL, 1_000), "another key of the same id");
        assert!(refused(&user, &keys, CALL, 1_001 + MAX_AGE), "too old");
        for at in 0..user.len() {
            let mut forged = user.clone();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert!(refused(&forged, &keys, CALL, 1_000), "letter {at} changed");
        }
        assert!(refused(&user[1..], &keys, CALL, 1_000));
        assert!(refused(b"", &keys, CALL, 1_000));
    }
}
