//! Where an instance's configuration comes from: the first time, and at each reload.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::secrets::{Secrets, Vault};
use super::{BootError, Instance, check, parse_user_data, place, read};
use crate::admin::USUAL_PORT;
use crate::cloud::{Metadata, Patience};
use crate::config::{Advertise, Config};
use crate::engine::Place;

/// Name of user-data in messages.
pub(super) const USER_DATA: &str = "user-data";

/// Where an instance is asked whether it is ready, before its metadata have been read.
pub(super) const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), USUAL_PORT);

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

/// A configuration as it stands in its document.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) config: Config,
    /// Of an instance: its metadata service, its address, and how long the service is waited for.
    instance: Option<(Metadata, IpAddr, Duration)>,
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

impl Document {
    /// Reads it. `Err`: there is no configuration at all. `health`: where an instance is asked whether it is ready, as far as that is known.
    pub(super) async fn begin(&self, health: &mut SocketAddr) -> Result<Begun, BootError> {
        match self {
            Self::File(file) => Ok(Begun { config: read(file)?, instance: None }),
            Self::UserData { metadata, deadline } => {
                let mut metadata = Metadata::new(metadata, *deadline)?;
                let private = metadata.private_address().await?;
                health.set_ip(private);
                let user_data = metadata.user_data().await?.ok_or(BootError::NoUserData)?;
                let config = parse_user_data(&user_data)?;
                health.set_port(config.admin.port);
                Ok(Begun { config, instance: Some((metadata, private, *deadline)) })
            }
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
        Ok(self.finish(self.document.begin(&mut UNKNOWN.clone()).await?).await)
    }

    /// Reads what a configuration needs besides.
    pub(super) async fn finish(&self, begun: Begun) -> Loaded {
        let Begun { config, instance } = begun;
        let mut errors = Vec::new();
        errors.extend(check(&config, &self.origin()).err().map(BootError::from));
        let (place, secrets) = match instance {
            None => {
                let place = self.file_place(&config).map_err(|error| errors.push(error)).ok();
                (place, self.secrets(&config, &mut errors).await)
            }
            Some((mut metadata, private, deadline)) => {
                let secrets = self.secrets(&config, &mut errors).await;
                // The secrets may have taken all of the time.
                metadata.allow(deadline);
                let place = instance_place(&config, &mut metadata, private, errors.is_empty()).await;
                (place.map_err(|error| errors.push(error)).ok(), secrets)
            }
        };
        Loaded { config, place, secrets, errors }
    }

    fn file_place(&self, config: &Config) -> Result<Place, BootError> {
        let origin = self.origin();
        let refused = |what: &str| BootError::Refused(format!("{origin}: {what}"));
        let Some(private) = config.listen.address else {
            return Err(refused("listen.address: missing: `run` has no metadata to take it from; write the address"));
        };
        place(config, &Instance { private, public: None }).ok_or_else(|| {
            refused(
                "advertise: metadata: `run` reads no instance metadata; write `advertise: listen` or `advertise: !host …`",
            )
        })
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

/// The place of an instance. A public address is waited for only where one `is_needed`: what is refused anyway waits for nothing.
async fn instance_place(
    config: &Config,
    metadata: &mut Metadata,
    private: IpAddr,
    is_needed: bool,
) -> Result<Place, BootError> {
    let public = match config.advertise {
        Advertise::Metadata if is_needed => metadata.awaited_public_address().await,
        _ => metadata.public_address().await,
    }?;
    tracing::info!(%private, public = %public.map_or("none".into(), |ip| ip.to_string()), "instance metadata read");
    place(config, &Instance { private, public }).ok_or(BootError::NoPublicAddress)
}
