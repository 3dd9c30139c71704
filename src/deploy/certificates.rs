//! The certificates of a plan: read from where the spec has them, checked, and handed to the edge beside its other secrets.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sipedge_proxy::config::SecretRef;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::state::{StateError, write_whole};
use crate::plan::{Certificate, Plan};

/// Days before its end from which a certificate is worth a word: a month is what renewals begin with.
const ENDS_SOON: Duration = Duration::from_secs(30 * 86_400);

/// A certificate or roots, checked.
pub(super) struct Checked {
    /// File in the secrets folder, or name of the parameter.
    pub(super) name: String,
    pub(super) pem: Vec<u8>,
    /// What is doubtful.
    pub(super) warning: Option<String>,
}

/// Why a certificate cannot be deployed.
#[derive(Debug, thiserror::Error)]
#[error("the certificate `{name}` ({}) {what}. {help}", file.display())]
pub struct CertificateError {
    /// Its name in the spec.
    pub name: String,
    /// The PEM file.
    pub file: PathBuf,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

/// Reads the certificates of `plan`, whose files are relative to `folder`, and checks that they can be used at `now`.
pub(super) fn read(plan: &Plan, folder: &Path, now: SystemTime) -> Result<Vec<Checked>, CertificateError> {
    plan.certificates.iter().map(|certificate| read_one(certificate, folder, now)).collect()
}

/// Writes them into `secrets`. Returns the files whose content is not what was there before.
pub(super) fn write(certificates: &[Checked], secrets: &Path, mode: u32) -> Result<Vec<String>, StateError> {
    let mut changed = Vec::new();
    for Checked { name, pem, .. } in certificates {
        let path = secrets.join(name);
        if fs::read(&path).is_ok_and(|before| before == *pem) {
            continue;
        }
        write_whole(&path, pem, mode)?;
        changed.push(name.clone());
    }
    Ok(changed)
}

fn read_one(certificate: &Certificate, folder: &Path, now: SystemTime) -> Result<Checked, CertificateError> {
    let (SecretRef::File(place) | SecretRef::Ssm(place)) = &certificate.place;
    let file = folder.join(&certificate.file);
    let fail = |what: String, help: &str| CertificateError {
        name: certificate.name.clone(),
        file: file.clone(),
        what,
        help: help.to_owned(),
    };
    let content = if certificate.has_key { "the certificate, its chain and its private key" } else { "the roots" };
    let pem = fs::read(&file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => fail(
            "is not there".to_owned(),
            &format!("Put a PEM file with {content} there, or write its path in `certificates`"),
        ),
        _ => fail(format!("cannot be read: {error}"), "Check its permissions"),
    })?;
    let help = format!("It has to be a PEM file with {content}");
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| fail(format!("is no PEM file: {error}"), &help))?;
    if chain.is_empty() {
        return Err(fail("has no certificate in it".to_owned(), &help));
    }
    if certificate.has_key {
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|error| fail(format!("has no private key that can be used: {error}"), &help))?;
        CertifiedKey::from_der(chain.clone(), key, &ring::default_provider()).map_err(|error| {
            fail(format!("and its private key cannot be used together: {error}"), "Is it the key of this certificate?")
        })?;
    }
    let mut ends = Vec::new();
    for der in &chain {
        let (_, parsed) = X509Certificate::from_der(der)
            .map_err(|error| fail(format!("has a certificate that cannot be read: {error}"), &help))?;
        ends.push((parsed.subject().to_string(), validity(&parsed, now)));
    }
    // All of a chain has to be valid; of roots one is enough, since old ones often stay in a bundle.
    let problem = ends.iter().find_map(|(subject, end)| Some((subject, end.as_ref().err()?)));
    let usable = if certificate.has_key { problem.is_none() } else { ends.iter().any(|(_, end)| end.is_ok()) };
    if let Some((subject, problem)) = problem.filter(|_| !usable) {
        return Err(fail(format!("cannot be used: {subject} {problem}"), "Renew it, and deploy again"));
    }
    let soon = ends
        .iter()
        .filter_map(|(subject, end)| Some((subject, end.as_ref().ok()?)))
        .find(|(_, left)| **left < ENDS_SOON);
    let warning = soon.filter(|_| certificate.has_key).map(|(subject, left)| {
        format!("the certificate `{}`: {subject} ends in {} days", certificate.name, left.as_secs() / 86_400)
    });
    Ok(Checked { name: place.clone(), pem, warning })
}

/// How long it is valid yet, or why it is not.
fn validity(certificate: &X509Certificate<'_>, now: SystemTime) -> Result<Duration, String> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    let (begin, end) = (certificate.validity().not_before, certificate.validity().not_after);
    if now < seconds(begin.timestamp()) {
        return Err(format!("is not valid before {begin}"));
    }
    seconds(end.timestamp()).checked_sub(now).map(Duration::from_secs).ok_or_else(|| format!("ended on {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn certificate(has_key: bool) -> Certificate {
        let place = SecretRef::File("certificate-edge.pem".to_owned());
        Certificate { name: "edge".to_owned(), file: "edge.pem".to_owned(), place, has_key }
    }

    fn day(count: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(count * 86_400)
    }

    /// A self-signed certificate for 2027, and its key.
    fn made() -> (String, String) {
        let mut parameters = CertificateParams::new(vec!["sip.example.com".to_owned()]).expect("a name");
        parameters.not_before = rcgen::date_time_ymd(2027, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2028, 1, 1);
        let key = KeyPair::generate().expect("a key");
        (parameters.self_signed(&key).expect("signed").pem(), key.serialize_pem())
    }

    fn read(content: Option<&str>, has_key: bool, now: SystemTime) -> Result<Option<String>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        if let Some(content) = content {
            fs::write(folder.path().join("edge.pem"), content).expect("write");
        }
        match read_one(&certificate(has_key), folder.path(), now) {
            Ok(checked) => Ok(checked.warning),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_reason() {
        let (certificate, key) = made();
        let (_, other) = made();
        // 2027-07-02.
        let summer = day(20_636 + 365);
        assert_eq!(read(Some(&(certificate.clone() + &key)), true, summer), Ok(None));
        assert_eq!(read(Some(&certificate), false, summer), Ok(None), "roots need no key");
        for (content, now, said) in [
            (None, summer, "is not there. Put a PEM file"),
            (Some(String::new()), summer, "has no certificate in it"),
            (Some(certificate.clone()), summer, "has no private key"),
            (Some(certificate.clone() + &other), summer, "cannot be used together"),
            (Some(certificate.clone() + &key), day(20_000), "is not valid before"),
            (Some(certificate.clone() + &key), day(22_000), "ended on"),
            (Some("-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned()), summer, "is no PEM file"),
        ] {
            let error = read(content.as_deref(), true, now).expect_err(said);
            assert!(error.contains(said) && error.contains("edge.pem") && error.contains("`edge`"), "{error}");
        }
    }

    #[test]
    fn an_end_that_is_near_is_said() {
        let (certificate, key) = made();
        // 2027-12-17.
        let warning = read(Some(&(certificate + &key)), true, day(21_169)).expect("valid").expect("a warning");
        assert!(warning.contains("ends in 15 days"), "{warning}");
    }
}
