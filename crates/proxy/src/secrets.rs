//! The document of the token keys, as it is kept where the configuration says: written and rotated by `sipedge`, read by the proxy.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::engine;

/// Bytes per key: what a keyed BLAKE3 takes.
const KEY_BYTES: usize = 32;

/// The keys of branches and route tokens, with their history. Moments are seconds since the Unix epoch.
///
/// What a later version adds is passed over: while instances are replaced, two versions read one document.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKeys {
    /// Key of the branches of forwarded requests, 64 hex digits. It is never rotated.
    pub branch: String,
    /// Keys of the route tokens, one or two. The first signs; all of them verify.
    pub tokens: Vec<TokenKey>,
}

/// One key of the route tokens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey {
    /// Number by which a token names its key.
    pub id: u8,
    /// The key, 64 hex digits.
    pub key: String,
    /// When it came into the document, where it verifies from then on. Absent: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<u64>,
    /// Since when it signs. Absent: it does not yet, or it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs_since: Option<u64>,
    /// Until when it signed. Absent: it signs, or has not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_until: Option<u64>,
}

impl TokenKeys {
    /// New keys from the operating system's random numbers, made now.
    pub fn generate() -> io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let first = TokenKey { signs_since: Some(now), ..TokenKey::generate(1, now)? };
        Ok(Self { branch: random_key()?, tokens: vec![first] })
    }

    /// As the engine takes them.
    pub fn for_engine(&self) -> engine::TokenKeys {
        let key = |key: &TokenKey| engine::TokenKey { id: key.id, key: key.key.clone() };
        engine::TokenKeys { branch: self.branch.clone(), tokens: self.tokens.iter().map(key).collect() }
    }
}

impl TokenKey {
    /// A new key with this number, made at `now`, that does not sign yet.
    pub fn generate(id: u8, now: u64) -> io::Result<Self> {
        Ok(Self { id, key: random_key()?, made: Some(now), signs_since: None, signed_until: None })
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKeys").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A secret of 64 hex digits from the operating system's random numbers.
pub fn random_key() -> io::Result<String> {
    let mut bytes = [0_u8; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_different_and_not_printed() {
        let keys = TokenKeys::generate().unwrap();
        assert_eq!((keys.branch.len(), keys.tokens[0].key.len()), (2 * KEY_BYTES, 2 * KEY_BYTES));
        assert_ne!(keys.branch, keys.tokens[0].key);
        let printed = format!("{keys:?}");
        assert!(!printed.contains(&keys.branch[..8]) && !printed.contains(&keys.tokens[0].key[..8]), "{printed}");
    }

    #[test]
    fn documents_of_before_and_of_later_are_read() {
        let old = r#"{"branch":"0b","tokens":[{"id":7,"key":"1c"}]}"#;
        let keys: TokenKeys = serde_json::from_str(old).unwrap();
        assert_eq!(serde_json::to_string(&keys).unwrap(), old);
        let later = r#"{"branch":"0b","tokens":[{"id":7,"key":"1c","made":3,"colour":"red"}],"note":1}"#;
        assert_eq!(serde_json::from_str::<TokenKeys>(later).unwrap().tokens[0].made, Some(3));
    }
}
