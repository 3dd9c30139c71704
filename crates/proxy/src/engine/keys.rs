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
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(&(part.len() as u32).to_le_bytes());
            hasher.update(part);
        }
        let mut first = [0; 16];
        for (byte, hashed) in first.iter_mut().zip(hasher.finalize().as_bytes()) {
            *byte = *hashed;
        }
        u128::from_be_bytes(first)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}
