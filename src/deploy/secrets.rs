//! The keys of route tokens and branches. They are made once per topology and stay until `destroy`: a key that changes while calls are
//! up makes the edge refuse their BYEs.

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// Bytes per key: what a keyed BLAKE3 takes.
const KEY_BYTES: usize = 32;

/// What `token-keys.json` contains.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKeys {
    /// Key of the branches of forwarded requests, in hexadecimal.
    pub branch: String,
    /// Keys of the route tokens. The first signs; all of them verify.
    pub tokens: Vec<TokenKey>,
}

/// One key of the route tokens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// Number by which a token names its key.
    pub id: u8,
    /// The key, in hexadecimal.
    pub key: String,
}

/// A new password for the answerer: 64 hexadecimal digits of the operating system's random numbers.
pub(super) fn answerer_password() -> io::Result<String> {
    random_key(&mut File::open("/dev/urandom")?)
}

fn random_key(random: &mut File) -> io::Result<String> {
    let mut bytes = [0_u8; KEY_BYTES];
    random.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl TokenKeys {
    /// New keys from the operating system's random numbers.
    pub fn generate() -> io::Result<Self> {
        let mut random = File::open("/dev/urandom")?;
        let mut key = || random_key(&mut random);
        Ok(Self { branch: key()?, tokens: vec![TokenKey { id: 1, key: key()? }] })
    }
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKeys").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_different_and_not_printed() {
        let keys = TokenKeys::generate().expect("random numbers");
        assert_eq!(keys.branch.len(), 2 * KEY_BYTES);
        assert_eq!(keys.tokens[0].key.len(), 2 * KEY_BYTES);
        assert_ne!(keys.branch, keys.tokens[0].key);
        assert!(!format!("{keys:?} {:?}", keys.tokens[0]).contains(&keys.branch[..8]));
    }
}
