//! Who a TLS peer is (RFC 5922): the SIP domains in its certificate, compared whole, without wildcards.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use webpki::EndEntityCert;

/// Verifies the certificate of a server that the edge calls: its chain up to one of the roots, its time, and its SIP domain.
#[derive(Debug)]
pub(super) struct SipServerVerifier {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl SipServerVerifier {
    pub(super) fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Self {
        Self { roots, provider }
    }
}

impl ServerCertVerifier for SipServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let certificate = EndEntityCert::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let presented = identities(&certificate);
        let is_named = match server_name {
            ServerName::DnsName(name) => presented.iter().any(|identity| is_same(identity, name.as_ref())),
            // RFC 5922 knows domains alone; where the URI has an address, the certificate has to name that.
            ServerName::IpAddress(_) => certificate.verify_is_valid_for_subject_name(server_name).is_ok(),
            _ => false,
        };
        if is_named {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::NotValidForNameContext { expected: server_name.to_owned(), presented }.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The SIP domains of a certificate whose chain has been verified; none when it cannot be read.
pub(super) fn identities_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    EndEntityCert::try_from(certificate).map(|certificate| identities(&certificate)).unwrap_or_default()
}

/// RFC 5922 §7.1: the hosts of `sip:` URIs without a user part; the DNS names if and only if there is no such URI. The common name does
/// not count.
fn identities(certificate: &EndEntityCert<'_>) -> Vec<String> {
    let domains: Vec<String> = certificate.valid_uri_names().filter_map(sip_domain).map(str::to_owned).collect();
    if !domains.is_empty() {
        return domains;
    }
    certificate.valid_dns_names().map(str::to_owned).collect()
}

/// The host of `sip:host`; `None` for other schemes (`sips:` among them) and where there is a user part.
fn sip_domain(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    let is_domain = scheme.eq_ignore_ascii_case("sip") && !rest.contains('@');
    let host = rest.split([':', ';', '?']).next().unwrap_or_default();
    (is_domain && !host.is_empty()).then_some(host)
}

/// RFC 5922 §7.2: whole names, without regard to case; `*` stands for nothing, and a final dot makes no difference.
pub(super) fn is_same(identity: &str, domain: &str) -> bool {
    let trimmed = |name: &'_ str| name.strip_suffix('.').unwrap_or(name).len();
    let (identity, domain) =
        (identity.get(..trimmed(identity)).unwrap_or_default(), domain.get(..trimmed(domain)).unwrap_or_default());
    identity.eq_ignore_ascii_case(domain) && !identity.is_empty() && !identity.contains('*')
}

#[cfg(test)]
mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn domains(names: &[SanType]) -> Vec<String> {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = names.to_vec();
        let certificate = parameters.self_signed(&KeyPair::generate().unwrap()).unwrap();
        identities_of(certificate.der())
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(Ia5String::try_from(name).unwrap())
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(Ia5String::try_from(uri).unwrap())
    }

    #[test]
    fn sip_uris_come_before_dns_names() {
        assert_eq!(domains(&[dns("a.example"), dns("b.example")]), ["a.example", "b.example"]);
        assert_eq!(domains(&[dns("a.example"), uri("sip:b.example")]), ["b.example"]);
        assert_eq!(
            domains(&[uri("SIP:b.example"), uri("sip:c.example:5061;transport=tls")]),
            ["b.example", "c.example"]
        );
    }

    #[test]
    fn other_schemes_and_users_are_no_domains() {
        let others = [uri("sips:b.example"), uri("https://c.example"), uri("sip:alice@d.example"), uri("sip:")];
        assert_eq!(domains(&others), Vec::<String>::new());
        assert_eq!(domains(&[others.as_slice(), &[dns("a.example")]].concat()), ["a.example"]);
    }

    #[test]
    fn names_are_compared_whole_and_without_wildcards() {
        assert!(is_same("Sip.Example", "sip.example"));
        assert!(is_same("sip.example.", "sip.example"));
        for (identity, domain) in [
            ("*.example", "sip.example"),
            ("*.example", "*.example"),
            ("example", "sip.example"),
            ("sip.example", "example"),
            ("sip.example.evil", "sip.example"),
            ("", ""),
        ] {
            assert!(!is_same(identity, domain), "{identity} {domain}");
        }
    }
}
