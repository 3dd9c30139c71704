//! The keys of branches and route tokens, and the keyed hash that they are for.

use std::fmt;

use serde::{Deserialize, Serialize};
use siphasher::sip128::SipHasher24;

/// The secrets that make branches and route tokens. The document in the secrets folder or parameter is this as JSON.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKeys {
    /// Key of the branches, 64 hex digits. The same on all instances; not rotated with the token keys.
    pub branch: String,
    /// Keys of route tokens, one or two; the first signs, all of them verify.
    pub tokens: Vec<TokenKey>,
}

/// One key of route tokens.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// Key id, 0 to 255, carried in each token.
    pub id: u8,
    /// 64 hex digits.
    pub key: String,
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKeys(…)")
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({}, …)", self.id)
    }
}

/// A key ready for use.
#[derive(Clone, Copy)]
pub(super) struct Key {
    /// For BLAKE3's keyed mode.
    key: [u8; 32],
    /// SipHash-2-4 with a key that was derived from it: a keyed hash of 128 bits whose every output tells nothing of another, at a fifth of
    /// the cost for some dozens of bytes.
    short: SipHasher24,
}

/// What the key of [`Key::short_hash`] is derived with.
const SHORT_PURPOSE: &[u8] = b"sipedge short hash";

impl Key {
    /// From 64 hex digits.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        let derived = blake3::keyed_hash(&key, SHORT_PURPOSE);
        let short = SipHasher24::new_with_key(derived.as_bytes().first_chunk()?);
        Some(Self { key, short })
    }

    /// The first 128 bits of the keyed hash (BLAKE3) of `parts`, each preceded by its length.
    pub(super) fn hash<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
        self.whole(parts, |joined| first_bits(&blake3::keyed_hash(&self.key, joined)))
    }

    /// The same for what is computed for every message and lives no longer than a transaction: branches.
    pub(super) fn short_hash<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
        self.whole(parts, |joined| self.short.hash(joined).as_u128())
    }

    /// Hashes the parts as one piece of memory, which costs a third of handing a hasher one after the other; BLAKE3 hashes what is too long.
    fn whole<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>, one_piece: impl FnOnce(&[u8]) -> u128) -> u128 {
        let mut joined = [0; ONE_PIECE];
        let mut length = 0;
        let mut parts = parts.into_iter();
        let mut too_long = None;
        for part in parts.by_ref() {
            match joined.get_mut(length..length + LENGTH + part.len()).and_then(<[u8]>::split_first_chunk_mut) {
                Some((before, place)) => {
                    *before = (part.len() as u32).to_le_bytes();
                    place.copy_from_slice(part);
                    length += LENGTH + part.len();
                }
                None => {
                    too_long = Some(part);
                    break;
                }
            }
        }
        let joined = joined.get(..length).unwrap_or_default();
        let Some(part) = too_long else { return one_piece(joined) };
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(joined);
        for part in std::iter::once(part).chain(parts) {
            hasher.update(&(part.len() as u32).to_le_bytes());
            hasher.update(part);
        }
        first_bits(&hasher.finalize())
    }
}

fn first_bits(hash: &blake3::Hash) -> u128 {
    hash.as_bytes().first_chunk().map(|first| u128::from_be_bytes(*first)).unwrap_or_default()
}

/// Bytes of a part's length before it.
const LENGTH: usize = 4;
/// Bytes that are hashed as one piece: branches, Call-IDs and tags are shorter, together, but for a few peers'.
const ONE_PIECE: usize = 256;

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_hashed_alike_however_long_they_are() {
        let key = Key::from_hex(&"5".repeat(64)).unwrap();
        let long = [b'x'; 400];
        for lengths in
            [&[0, 0][..], &[1, 2, 3], &[100, 148], &[100, 149], &[248, 0], &[252], &[253], &[400, 1], &[1, 400]]
        {
            let parts = lengths.iter().map(|length| &long[..*length]);
            let mut hasher = blake3::Hasher::new_keyed(&key.key);
            for part in parts.clone() {
                hasher.update(&(part.len() as u32).to_le_bytes());
                hasher.update(part);
            }
            let expected = u128::from_be_bytes(hasher.finalize().as_bytes()[..16].try_into().unwrap());
            assert_eq!(key.hash(parts.clone()), expected, "{lengths:?}");
            let short = lengths.iter().map(|length| length + LENGTH).sum::<usize>() <= ONE_PIECE;
            assert_eq!(key.short_hash(parts) == expected, !short, "{lengths:?}");
        }
    }

    #[test]
    fn a_short_hash_depends_on_key_and_parts() {
        let keys = ["5", "6"].map(|digit| Key::from_hex(&digit.repeat(64)).unwrap());
        let parts: [&[&[u8]]; 5] = [&[], &[b""], &[b"ab"], &[b"a", b"b"], &[b"", b"ab"]];
        let hashes: std::collections::HashSet<u128> =
            keys.iter().flat_map(|key| parts.map(|parts| key.short_hash(parts.iter().copied()))).collect();
        assert_eq!(hashes.len(), keys.len() * parts.len());
    }
}
