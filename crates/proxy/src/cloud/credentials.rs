//! The credentials of the instance's role, which AWS renews every few hours (EC2 User Guide, "Retrieve security credentials from instance
//! metadata").

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use tokio::sync::Mutex;

use super::error::CloudError;
use super::metadata::Metadata;
use super::sign::Keys;
use super::time;

/// New ones are there at least 5 minutes before the old ones expire (same page).
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// How long one look at the metadata may take. The service answers within milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);

const FOLDER: &str = "latest/meta-data/iam/security-credentials/";

/// Role and keys, kept until they are about to expire.
#[derive(Debug)]
pub(super) struct Credentials {
    metadata: String,
    kept: Mutex<Option<Role>>,
}

/// A role with its keys of the moment.
#[derive(Debug, Clone)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) keys: Keys,
    /// In seconds since the Unix epoch.
    expires: u64,
}

impl Credentials {
    /// Those that the metadata service at `metadata` gives.
    pub(super) fn new(metadata: &str) -> Self {
        Self { metadata: metadata.to_owned(), kept: Mutex::default() }
    }

    /// The role, with keys that are good for now. `action`: what they are for, for the error.
    pub(super) async fn role(&self, action: &'static str) -> Result<Role, CloudError> {
        let mut kept = self.kept.lock().await;
        let now = unix_now();
        if let Some(role) = kept.as_ref().filter(|role| role.expires > now + RENEW_BEFORE.as_secs()) {
            return Ok(role.clone());
        }
        match (self.fetch(action).await, kept.as_ref().filter(|role| role.expires > now)) {
            (Ok(role), _) => Ok(kept.insert(role).clone()),
            (Err(error), Some(role)) => {
                tracing::warn!("{error}; those of before are good for {} s yet", role.expires - now);
                Ok(role.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Makes the next [`Credentials::role`] ask: AWS did not take the ones that are kept.
    pub(super) async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    async fn fetch(&self, action: &'static str) -> Result<Role, CloudError> {
        let mut metadata = Metadata::new(&self.metadata, DEADLINE)?;
        let no_role =
            || CloudError::NoRole { action, url: format!("{}/{FOLDER}", self.metadata.trim_end_matches('/')) };
        let list = metadata.get(FOLDER).await?.ok_or_else(no_role)?;
        let list = String::from_utf8_lossy(&list);
        let name = list.lines().map(str::trim).find(|line| !line.is_empty()).ok_or_else(no_role)?.to_owned();
        let wrong = |what: String| CloudError::Credentials { role: name.clone(), what };
        if !name.chars().all(|letter| letter.is_ascii_alphanumeric() || "+=,.@_-".contains(letter)) {
            return Err(wrong("the metadata's name of the role is none".to_owned()));
        }
        let document = metadata.get(&format!("{FOLDER}{name}")).await?.ok_or_else(no_role)?;
        // A reader's own words may have a part of what it read.
        let document: Document = serde_json::from_slice(&document).map_err(|error| {
            wrong(format!(
                "line {} column {} of the metadata's answer is not as AWS writes it",
                error.line(),
                error.column()
            ))
        })?;
        if document.code != "Success" {
            let code: String = document.code.chars().filter(|letter| !letter.is_control()).take(60).collect();
            return Err(wrong(format!(
                "the metadata says {code:?}: does the instance profile name a role that may be assumed by ec2.amazonaws.com?"
            )));
        }
        let expires = time::parse(&document.expiration)
            .ok_or_else(|| wrong(format!("Expiration {:?} is no moment", document.expiration)))?;
        let keys = Keys {
            access_key_id: document.access_key_id,
            secret_access_key: document.secret_access_key,
            session_token: document.token,
        };
        tracing::debug!(role = name, expires = document.expiration, "credentials of the instance's role read");
        Ok(Role { name, keys, expires })
    }
}

/// Seconds since the Unix epoch.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The metadata's answer. AWS may add to it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    code: String,
    #[serde(default)]
    access_key_id: String,
    #[serde(default)]
    secret_access_key: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    expiration: String,
}
