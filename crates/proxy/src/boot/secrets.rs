//! Reads the secrets that a configuration names, from files or from SSM Parameter Store.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::cloud::{Cloud, CloudError, Endpoints, Metadata, Patience};
use crate::config::{Config, SecretRef};
use crate::net::{TlsMaterial, tls_references};
use crate::secrets::TokenKeys;

/// How long the metadata is asked for the region when the configuration does not say it.
const REGION_DEADLINE: Duration = Duration::from_secs(5);

/// Characters of a password: fewer could be guessed, and more are a mistake.
const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 16..=128;

/// Where secrets are read from.
#[derive(Debug)]
pub(super) struct Vault {
    /// Folder of those that are files.
    pub(super) folder: PathBuf,
    /// The metadata service, by whose role parameters are read. Absent: `run`, which knows no instance.
    metadata: Option<String>,
    endpoints: Endpoints,
    /// Made when it is first needed, for the region that it knows.
    cloud: Mutex<Option<Arc<Cloud>>>,
    /// The answerer's last good password, and where it was.
    password: Mutex<Option<(SecretRef, String)>>,
}

/// The secrets of a configuration, as they were read.
pub(super) struct Secrets {
    pub(super) keys: TokenKeys,
    pub(super) tls: TlsMaterial,
    /// The answerer's, where there is one that can be used: the one of now, or the last one that could be read.
    pub(super) password: Option<String>,
    /// Why the one of now cannot be used. No call depends on it.
    pub(super) no_password: Option<SecretsError>,
    /// Of everything that was read: tells whether anything has changed.
    pub(super) digest: Digest,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// What tells two sets of secrets apart.
pub(super) type Digest = blake3::Hash;

impl Vault {
    /// Of an instance with this metadata service, or of none.
    pub(super) fn new(folder: PathBuf, metadata: Option<String>, endpoints: Endpoints) -> Self {
        Self { folder, metadata, endpoints, cloud: Mutex::default(), password: Mutex::default() }
    }

    /// Reads everything that `config` names. `Err`: each thing that cannot be had, in the order of the configuration. `patience` is for
    /// all of it together; each thing is tried once at least.
    pub(super) async fn read(&self, config: &Config, patience: Patience) -> Result<Secrets, Vec<SecretsError>> {
        let began = Instant::now();
        let left = || Patience { after: patience.after.saturating_sub(began.elapsed()), ..patience };
        let mut errors = Vec::new();
        let mut hasher = blake3::Hasher::new();
        let mut take = |bytes: &[u8]| {
            // Both lengths, so that no two sets look alike.
            hasher.update(&bytes.len().to_le_bytes());
            hasher.update(bytes);
        };
        let reference = &config.secrets.token_keys;
        let keys = match self.one("secrets.token_keys", "the token keys", reference, config, left()).await {
            Ok((place, bytes)) => {
                take(&bytes);
                parse_keys(&place, &bytes).map_err(|error| errors.push(error)).ok()
            }
            Err(error) => {
                errors.push(error);
                None
            }
        };
        let mut tls = TlsMaterial::default();
        let mut known: HashMap<&SecretRef, Vec<u8>> = HashMap::new();
        for (setting, reference) in tls_references(config) {
            if !known.contains_key(reference) {
                match self.one(&setting, "the PEM document", reference, config, left()).await {
                    Ok((_, pem)) => drop(known.insert(reference, pem)),
                    Err(error) => {
                        errors.push(error);
                        continue;
                    }
                }
            }
            if let Some(pem) = known.get(reference) {
                take(pem);
                tls.insert(reference.clone(), pem.clone());
            }
        }
        // Last, since it may be done without.
        let (password, no_password) = self.password(config, left()).await;
        take(password.as_deref().unwrap_or_default().as_bytes());
        match keys {
            Some(keys) if errors.is_empty() => {
                Ok(Secrets { keys, tls, password, no_password, digest: hasher.finalize() })
            }
            _ => Err(errors),
        }
    }

    /// The answerer's password, where there is an answerer; else, or besides, why it cannot be read.
    async fn password(&self, config: &Config, patience: Patience) -> (Option<String>, Option<SecretsError>) {
        let Some(answerer) = &config.answerer else { return (None, None) };
        let reference = &answerer.password;
        let read = self.one("answerer.password", "the answerer's password", reference, config, patience).await;
        let mut last = self.password.lock().await;
        match read.and_then(|(place, bytes)| parse_password(&place, &bytes)) {
            Ok(password) => {
                *last = Some((reference.clone(), password.clone()));
                (Some(password), None)
            }
            // One that was somewhere else may have been given up for a reason.
            Err(error) => {
                let last = last.as_ref().filter(|(place, _)| place == reference);
                (last.map(|(_, password)| password.clone()), Some(error))
            }
        }
    }

    /// AWS, in the region of `config`, by the role of this instance. `None`: `run`, which knows no instance.
    pub(super) async fn cloud(&self, config: &Config) -> Result<Option<Arc<Cloud>>, CloudError> {
        let Some(metadata) = &self.metadata else { return Ok(None) };
        let mut made = self.cloud.lock().await;
        let wanted = config.cloud.as_ref().map(|cloud| cloud.region.as_str());
        let endpoints = self.endpoints.clone().with_ssm(config.secrets.endpoint.as_deref());
        let fits = |cloud: &&Arc<Cloud>| {
            wanted.is_none_or(|region| region == cloud.region()) && *cloud.endpoints() == endpoints
        };
        if let Some(cloud) = made.as_ref().filter(fits) {
            return Ok(Some(Arc::clone(cloud)));
        }
        let region = match wanted {
            Some(region) => region.to_owned(),
            None => Metadata::new(metadata, REGION_DEADLINE)?.region().await?,
        };
        let cloud = Arc::new(Cloud::new(&region, metadata, endpoints)?);
        Ok(Some(Arc::clone(made.insert(cloud))))
    }

    /// Where it was, and what it is.
    async fn one(
        &self,
        setting: &str,
        what: &'static str,
        reference: &SecretRef,
        config: &Config,
        patience: Patience,
    ) -> Result<(String, Vec<u8>), SecretsError> {
        let setting = setting.to_owned();
        match reference {
            SecretRef::File(name) => {
                let path = self.folder.join(name);
                let file = path.display().to_string();
                match std::fs::read(&path) {
                    Ok(bytes) => Ok((file, bytes)),
                    Err(source) => Err(SecretsError::Unreadable { setting, what, file, source }),
                }
            }
            SecretRef::Ssm(name) => {
                let parameter = name.clone();
                match self.cloud(config).await {
                    Ok(Some(cloud)) => match cloud.parameter(name, patience).await {
                        Ok(value) => Ok((format!("!ssm {name:?}"), value)),
                        Err(source) => Err(SecretsError::Parameter { setting, source: Box::new(source) }),
                    },
                    Ok(None) => Err(SecretsError::NoInstance { setting, parameter }),
                    Err(source) => Err(SecretsError::Parameter { setting, source: Box::new(source) }),
                }
            }
        }
    }
}

/// Reads the document of the token keys. The text of an error never has a part of a secret.
fn parse_keys(place: &str, bytes: &[u8]) -> Result<TokenKeys, SecretsError> {
    serde_json::from_slice(bytes).map_err(|error| SecretsError::Malformed {
        place: place.to_owned(),
        line: error.line(),
        column: error.column(),
    })
}

/// Reads the answerer's password: one line, whose end does not count.
fn parse_password(place: &str, bytes: &[u8]) -> Result<String, SecretsError> {
    let text = std::str::from_utf8(bytes).map(str::trim_end).unwrap_or_default();
    let is_printable = text.chars().all(|letter| letter.is_ascii_graphic() || letter == ' ');
    match is_printable && PASSWORD_LENGTH.contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err(SecretsError::Password { place: place.to_owned() }),
    }
}

/// Secrets that are not where the configuration says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretsError {
    /// A parameter of SSM Parameter Store cannot be read.
    #[error("{setting}: {source}")]
    Parameter {
        /// The setting that names it.
        setting: String,
        /// Why.
        source: Box<CloudError>,
    },
    /// A parameter, and no instance whose role could read it.
    #[error(
        "{setting}: !ssm {parameter:?}: `run` knows no instance whose role could read it; use `boot` on an instance, or `!file`"
    )]
    NoInstance {
        /// The setting that names it.
        setting: String,
        /// The parameter's name.
        parameter: String,
    },
    /// No such file, or no permission.
    #[error("{setting}: {file}: {source}; write {what} there, readable by this user, or name the folder by --secrets")]
    Unreadable {
        /// The setting that names it.
        setting: String,
        /// What should be there.
        what: &'static str,
        /// The file.
        file: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// Something else than a password that cannot be guessed.
    #[error("answerer.password: {place}: not a password of 16 to 128 printable ASCII characters in one line")]
    Password {
        /// The file, or the parameter.
        place: String,
    },
    /// Something else than [`TokenKeys`].
    #[error(
        "secrets.token_keys: {place}:{line}:{column}: not a token key document; it is \
         {{\"branch\": \"<64 hex digits>\", \"tokens\": [{{\"id\": 0, \"key\": \"<64 hex digits>\"}}]}}"
    )]
    Malformed {
        /// The file, or the parameter.
        place: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
}

impl SecretsError {
    /// What is wrong, in the same words each time: without how long it was tried.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Parameter { setting, source } => format!("{setting}: {}", source.root()),
            other => other.to_string(),
        }
    }
}
