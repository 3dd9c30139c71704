//! Where an instance's configuration comes from: the first time, and at each reload.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::secrets::{Secrets, Vault};
use super::{BootError, Instance, check, parse_user_data, place, read};
use crate::cloud::{Metadata, Patience};
use crate::config::{Advertise, Config};
use crate::engine::Place;

/// Name of user-data in messages.
const USER_DATA: &str = "user-data";

/// The place of a configuration and of its secrets.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) document: Document,
    pub(super) vault: Vault,
    /// How long secrets are waited for.
    pub(super) patience: Patience,
}

/// The place of a configuration.
#[derive(Debug, Clone)]
pub(super) enum Document {
    /// A file, for `run`.
    File(PathBuf),
    /// The instance's user-data, for `boot`.
    UserData {
        /// The metadata service.
        metadata: String,
        /// How long it is waited for.
        deadline: Duration,
    },
}

/// A configuration as it was read, and everything that is wrong with it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Config,
    /// Absent: an error says why.
    pub(super) place: Option<Place>,
    /// Absent: an error says why.
    pub(super) secrets: Option<Secrets>,
    pub(super) errors: Vec<BootError>,
}

impl Loaded {
    /// A configuration that can be used, or the first reason why this one cannot.
    pub(super) fn whole(self) -> Result<(Config, Place, Secrets), BootError> {
        match (self.errors.into_iter().next(), self.place, self.secrets) {
            (None, Some(place), Some(secrets)) => Ok((self.config, place, secrets)),
            (Some(error), ..) => Err(error),
            (None, ..) => Err(BootError::Internal("a configuration without a place or secrets, and no reason".into())),
        }
    }
}

impl Source {
    /// What its document is called in messages.
    pub(super) fn origin(&self) -> String {
        match &self.document {
            Document::File(file) => file.display().to_string(),
            Document::UserData { .. } => USER_DATA.to_owned(),
        }
    }

    /// Reads the document and the secrets. `Err`: there is no configuration at all.
    pub(super) async fn load(&self) -> Result<Loaded, BootError> {
        match &self.document {
            Document::File(file) => self.load_file(file).await,
            Document::UserData { metadata, deadline } => self.load_user_data(metadata, *deadline).await,
        }
    }

    async fn load_file(&self, file: &Path) -> Result<Loaded, BootError> {
        let config = read(file)?;
        let origin = self.origin();
        let mut errors = Vec::new();
        errors.extend(check(&config, &origin).err().map(BootError::from));
        let place = match config.listen.address {
            None => Err(format!(
                "{origin}: listen.address: missing: `run` has no metadata to take it from; write the address"
            )),
            Some(private) => place(&config, &Instance { private, public: None }).ok_or_else(|| {
                format!(
                    "{origin}: advertise: metadata: `run` reads no instance metadata; write `advertise: listen` or \
                     `advertise: !host …`"
                )
            }),
        };
        let place = place.map_err(|reason| errors.push(BootError::Refused(reason))).ok();
        let secrets = self.secrets(&config, &mut errors).await;
        Ok(Loaded { config, place, secrets, errors })
    }

    async fn load_user_data(&self, metadata: &str, deadline: Duration) -> Result<Loaded, BootError> {
        let mut metadata = Metadata::new(metadata, deadline)?;
        let private = metadata.private_address().await?;
        let user_data = metadata.user_data().await?.ok_or(BootError::NoUserData)?;
        let config = parse_user_data(&user_data)?;
        let mut errors = Vec::new();
        errors.extend(check(&config, USER_DATA).err().map(BootError::from));
        let secrets = self.secrets(&config, &mut errors).await;
        // What is refused anyway waits for nothing.
        let public = match config.advertise {
            Advertise::Metadata if errors.is_empty() => metadata.awaited_public_address().await,
            _ => metadata.public_address().await,
        };
        let place = match public {
            Ok(public) => {
                tracing::info!(%private, public = %public.map_or("none".into(), |ip| ip.to_string()), "instance metadata read");
                place(&config, &Instance { private, public }).ok_or(BootError::NoPublicAddress)
            }
            Err(error) => Err(error.into()),
        };
        let place = place.map_err(|error| errors.push(error)).ok();
        Ok(Loaded { config, place, secrets, errors })
    }

    async fn secrets(&self, config: &Config, errors: &mut Vec<BootError>) -> Option<Secrets> {
        // A configuration that is refused anyway is not worth waiting for what it names.
        let patience =
            if errors.is_empty() { self.patience } else { Patience { after: Duration::ZERO, ..self.patience } };
        match self.vault.read(config, patience).await {
            Ok(secrets) => Some(secrets),
            Err(reasons) => {
                errors.extend(reasons.into_iter().map(BootError::from));
                None
            }
        }
    }
}
