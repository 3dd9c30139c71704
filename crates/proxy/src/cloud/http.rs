//! The HTTP client that metadata and AWS are asked with.

use std::sync::Arc;

use reqwest::{Client, ClientBuilder};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// A client that trusts `roots`, and follows neither a proxy from the environment nor a redirect: where it is sent is where it goes.
pub(super) fn client(roots: RootCertStore) -> Result<ClientBuilder, rustls::Error> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Client::builder().tls_backend_preconfigured(tls).no_proxy().redirect(reqwest::redirect::Policy::none()))
}

/// What became of a request that got no answer.
pub(super) fn in_words(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    // The innermost error is the one that says something, such as "Connection refused".
    let mut source: &dyn std::error::Error = &error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}
