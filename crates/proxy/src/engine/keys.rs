//! The keys of branches and route tokens, and the keyed hash that they are for.

use std::fmt;

use serde::{Deserialize, Serialize};

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

/// A key ready for use (BLAKE3 keyed mode).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

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
        Some(Self(key))
    }

    /// The first 128 bits of the keyed hash of `parts`, each preceded by its length.
    pub(super) fn hash<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
        // One piece of memory is hashed at once, which costs a third of handing the hasher one part after the other.
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
        let hash = match too_long {
            None => blake3::keyed_hash(&self.0, joined),
            Some(part) => {
                let mut hasher = blake3::Hasher::new_keyed(&self.0);
                hasher.update(joined);
                for part in std::iter::once(part).chain(parts) {
                    hasher.update(&(part.len() as u32).to_le_bytes());
                    hasher.update(part);
                }
                hasher.finalize()
            }
        };
        hash.as_bytes().first_chunk().map(|first| u128::from_be_bytes(*first)).unwrap_or_default()
    }
}

/// Bytes of a part's length before it.
const LENGTH: usize = 4;
/// Bytes that are hashed as one piece: branches, Call-IDs and tags are shorter, together, but for a few peers'.
const ONE_PIECE: usize = 256;

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
            let mut hasher = blake3::Hasher::new_keyed(&key.0);
            for part in parts.clone() {
                hasher.update(&(part.len() as u32).to_le_bytes());
                hasher.update(part);
            }
            let expected = u128::from_be_bytes(hasher.finalize().as_bytes()[..16].try_into().unwrap());
            assert_eq!(key.hash(parts), expected, "{lengths:?}");
        }
    }
}
