//! The lab's own certificate authority: whom the lab's callers have their certificates from.
//!
//! A callee's BYE goes back to a TLS caller by the connection that the caller opened, if the caller has proved who it is (RFC 5923 §8.2);
//! carriers do that with certificates that the lab cannot have.

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use crate::plan::Plan;

/// PEM documents of an authority that was just made. Its key is thrown away.
pub(super) struct LabAuthority {
    /// Its certificate.
    pub(super) roots: String,
    /// Certificate and key of all user agents of the plan's smoke calls.
    pub(super) peers: String,
}

impl LabAuthority {
    /// For the smoke calls of `plan`.
    pub(super) fn new(plan: &Plan) -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "sipedge lab");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate()?;
        let roots = authority.self_signed(&authority_key)?.pem();

        let mut peers = CertificateParams::default();
        peers.distinguished_name.push(DnType::CommonName, "carriers of the sipedge lab");
        // RFC 5922 §7.1: a SIP domain stands as a URI; the user agents' Contacts have addresses.
        let ends = plan.verify.calls.iter().flat_map(|call| std::iter::once(&call.caller).chain(&call.callee));
        for end in ends {
            let name = SanType::URI(Ia5String::try_from(format!("sip:{}", end.address.ip()))?);
            if !peers.subject_alt_names.contains(&name) {
                peers.subject_alt_names.push(name);
            }
        }
        let peers_key = KeyPair::generate()?;
        let issuer = Issuer::new(authority, authority_key);
        let peers = peers.signed_by(&peers_key, &issuer)?.pem() + &peers_key.serialize_pem();
        Ok(Self { roots, peers })
    }
}
