//! Certificates, keys and roots: from PEM to what TLS needs, checked whole.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ConfigBuilder, Error, InconsistentKeys, RootCertStore, ServerConfig};

use super::names::SipServerVerifier;
use crate::config::{Config, SecretRef, TlsListener};
use crate::engine::TlsPeer;

/// The PEM documents that a configuration names, as they were read.
#[derive(Clone, Default)]
pub struct TlsMaterial {
    documents: Vec<(SecretRef, Vec<u8>)>,
}

/// Certificates, keys or roots that cannot be used. The text never has a part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The document was not read.
    #[error("{setting}: {reference}: this document was not read; it has to be read with the configuration")]
    Missing {
        /// The setting.
        setting: String,
        /// What it names.
        reference: String,
    },
    /// The document is no PEM, or a part of it is damaged.
    #[error(
        "{setting}: {reference}: not PEM ({reason}); write the certificates between `-----BEGIN CERTIFICATE-----` lines"
    )]
    Pem {
        /// The setting.
        setting: String,
        /// What it names.
        reference: String,
        /// What the reader says.
        reason: String,
    },
    /// There is no certificate in it.
    #[error("{setting}: {reference}: no certificate in it; write the certificate and its chain there, in PEM")]
    NoCertificate {
        /// The setting.
        setting: String,
        /// What it names.
        reference: String,
    },
    /// There is no private key in it.
    #[error(
        "{setting}: {reference}: no private key in it; append the key to the certificates, in PEM (PKCS #8, SEC1 or PKCS #1)"
    )]
    NoKey {
        /// The setting.
        setting: String,
        /// What it names.
        reference: String,
    },
    /// The key belongs to another certificate.
    #[error(
        "{setting}: {reference}: the private key does not fit the first certificate; the edge's own certificate comes first, its chain after it"
    )]
    KeyMismatch {
        /// The setting.
        setting: String,
        /// What it names.
        reference: String,
    },
    /// The TLS library refuses its own defaults: this build is broken.
    #[error("TLS cannot be used in this build: {reason}")]
    Library {
        /// Why.
        reason: String,
    },
    /// Clients are to be verified, and there is nothing to verify them by.
    #[error(
        "listen.tls.require_client: without client_roots no client could be verified; name the roots of their certificates"
    )]
    NoClientRoots,
    /// TLS cannot use it.
    #[error("{setting}: {reference}: {reason}")]
    Unusable {
        /// The setting.
        setting: String,
        /// What it names.
        reference: String,
        /// Why.
        reason: String,
    },
}

/// Every PEM document that `config` names, each with the setting that names it.
pub fn tls_references(config: &Config) -> Vec<(String, &SecretRef)> {
    let mut references = Vec::new();
    if let Some(listener) = &config.listen.tls {
        references.push(("listen.tls.certificate".to_owned(), &listener.certificate));
        references.extend(listener.client_roots.iter().map(|roots| ("listen.tls.client_roots".to_owned(), roots)));
    }
    for trunk in &config.trunks {
        let Some(tls) = &trunk.tls else { continue };
        let of_trunk = |what: &str| format!("trunks.{}.tls.{what}", trunk.name);
        references.extend(tls.certificate.iter().map(|certificate| (of_trunk("certificate"), certificate)));
        references.extend(tls.roots.iter().map(|roots| (of_trunk("roots"), roots)));
    }
    references
}

impl TlsMaterial {
    /// Adds what `reference` stands for.
    pub fn insert(&mut self, reference: SecretRef, pem: Vec<u8>) {
        self.documents.retain(|(known, _)| *known != reference);
        self.documents.push((reference, pem));
    }

    fn document<'a>(&'a self, setting: &'a str, reference: &'a SecretRef) -> Result<Document<'a>, TlsError> {
        let document = self.documents.iter().find(|(known, _)| known == reference);
        let document = document.map(|(_, pem)| Document { setting, reference, pem });
        document.ok_or_else(|| TlsError::Missing { setting: setting.to_owned(), reference: name_of(reference) })
    }
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.documents.iter().map(|(reference, _)| reference)).finish()
    }
}

/// TLS as a configuration wants it, ready for handshakes.
#[derive(Debug)]
pub(in crate::net) struct Tls {
    server: Option<Arc<ServerConfig>>,
    trunks: HashMap<String, OfTrunk>,
    /// For trunks without settings of their own: no client certificate, the public roots.
    public: Arc<ClientConfig>,
}

#[derive(Debug)]
struct OfTrunk {
    client: Arc<ClientConfig>,
    has_own_roots: bool,
}

impl Tls {
    /// Reads all that `config` needs out of `material`.
    pub(in crate::net) fn new(config: &Config, material: &TlsMaterial) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let server = config.listen.tls.as_ref().map(|listener| server(listener, material, &provider)).transpose()?;
        let mut trunks = HashMap::new();
        for trunk in &config.trunks {
            let Some(tls) = &trunk.tls else { continue };
            let setting = format!("trunks.{}.tls.roots", trunk.name);
            let roots = match &tls.roots {
                Some(roots) => material.document(&setting, roots)?.roots()?,
                None => public_roots(),
            };
            let builder = client_builder(roots, &provider)?;
            let setting = format!("trunks.{}.tls.certificate", trunk.name);
            let client = match &tls.certificate {
                Some(certificate) => {
                    let document = material.document(&setting, certificate)?;
                    let (chain, key) = document.certificate()?;
                    builder.with_client_auth_cert(chain, key).map_err(|error| document.refused(error))?
                }
                None => builder.with_no_client_auth(),
            };
            let of_trunk = OfTrunk { client: without_resumption(client), has_own_roots: tls.roots.is_some() };
            trunks.insert(trunk.name.clone(), of_trunk);
        }
        let public = without_resumption(client_builder(public_roots(), &provider)?.with_no_client_auth());
        Ok(Self { server, trunks, public })
    }

    /// For connections that peers open; `None` when there is no TLS listener.
    pub(super) fn server(&self) -> Option<Arc<ServerConfig>> {
        self.server.clone()
    }

    /// For a connection to this peer.
    pub(super) fn client(&self, peer: &TlsPeer) -> Arc<ClientConfig> {
        Arc::clone(self.of_trunk(peer).map_or(&self.public, |of_trunk| &of_trunk.client))
    }

    /// Whether this peer's certificate has to come from roots that are its trunk's alone.
    pub(super) fn has_own_roots(&self, peer: &TlsPeer) -> bool {
        self.of_trunk(peer).is_some_and(|of_trunk| of_trunk.has_own_roots)
    }

    fn of_trunk(&self, peer: &TlsPeer) -> Option<&OfTrunk> {
        self.trunks.get(peer.trunk.as_ref()?)
    }
}

/// One PEM document, with what an error says of it.
struct Document<'a> {
    setting: &'a str,
    reference: &'a SecretRef,
    pem: &'a [u8],
}

impl Document<'_> {
    /// Certificates in order, and the private key.
    fn certificate(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = self.certificates()?;
        let key = PrivateKeyDer::from_pem_slice(self.pem);
        let key = key.map_err(|_| TlsError::NoKey { setting: self.setting.to_owned(), reference: self.name() })?;
        Ok((chain, key))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| self.refused(error))?;
        }
        Ok(roots)
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.pem).collect();
        let certificates = certificates.map_err(|error| TlsError::Pem {
            setting: self.setting.to_owned(),
            reference: self.name(),
            reason: error.to_string(),
        })?;
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate { setting: self.setting.to_owned(), reference: self.name() });
        }
        Ok(certificates)
    }

    fn refused(&self, error: Error) -> TlsError {
        let (setting, reference) = (self.setting.to_owned(), self.name());
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyMismatch { setting, reference },
            error => self.unusable(error.to_string()),
        }
    }

    fn unusable(&self, reason: String) -> TlsError {
        TlsError::Unusable { setting: self.setting.to_owned(), reference: self.name(), reason }
    }

    fn name(&self) -> String {
        name_of(self.reference)
    }
}

fn server(
    listener: &TlsListener,
    material: &TlsMaterial,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(library)?;
    let builder = match &listener.client_roots {
        None if listener.require_client => {
            return Err(TlsError::NoClientRoots);
        }
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let document = material.document("listen.tls.client_roots", roots)?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(document.roots()?), Arc::clone(provider));
            let verifier = if listener.require_client { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|error| document.unusable(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let document = material.document("listen.tls.certificate", &listener.certificate)?;
    let (chain, key) = document.certificate()?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| document.refused(error))?;
    // As for clients: each handshake proves everything anew.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

type ClientBuilder = ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn client_builder(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<ClientBuilder, TlsError> {
    let verifier = Arc::new(SipServerVerifier::new(roots, Arc::clone(provider)));
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions();
    Ok(builder.map_err(library)?.dangerous().with_custom_certificate_verifier(verifier))
}

fn library(error: Error) -> TlsError {
    TlsError::Library { reason: error.to_string() }
}

/// Connections last for hours: a resumed session would save next to nothing, and would keep an old certificate in force after a reload.
fn without_resumption(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn name_of(reference: &SecretRef) -> String {
    match reference {
        SecretRef::File(name) => format!("!file {name:?}"),
        SecretRef::Ssm(name) => format!("!ssm {name:?}"),
    }
}
