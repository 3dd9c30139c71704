//! The client's side of digest authentication (RFC 7616 §3.4, RFC 8760), computed by rsip.

use rsip::Response;
use rsip::headers::auth::{Algorithm, AuthQop};
use rsip::services::DigestGenerator;

use super::message::{self, status};
use super::{AgentError, unique};

/// Who a user agent proves to be.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A challenge: one WWW-Authenticate header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    realm: String,
    nonce: String,
    algorithm: Algorithm,
    has_qop: bool,
    /// Whether the credentials were right and only the nonce was not.
    pub stale: bool,
}

impl Challenge {
    /// The challenges of a 401 that can be answered here, the preferred one first (RFC 8760 §2.4).
    pub fn all(response: &Response) -> Result<Vec<Self>, AgentError> {
        if response.status_code.code() != 401 {
            return Err(AgentError::Instead {
                what: status(401).to_string(),
                came: response.status_code.to_string(),
                code: Some(response.status_code.code()),
            });
        }
        let lines = response.headers.iter().filter_map(|header| match header {
            rsip::Header::WwwAuthenticate(value) => Some(value.to_string()),
            _ => None,
        });
        Ok(lines.filter_map(|line| Self::parse(line.split_once(':')?.1)).collect())
    }

    /// The name of its algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Md5 => "MD5",
            _ => "SHA-256",
        }
    }

    fn parse(value: &str) -> Option<Self> {
        let parameters = value.trim().strip_prefix("Digest ")?;
        let find = |wanted: &str| {
            message::split_list(parameters).into_iter().find_map(|parameter| {
                let (name, value) = parameter.split_once('=')?;
                name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"').to_owned())
            })
        };
        let algorithm = match find("algorithm").as_deref() {
            None | Some("MD5") => Algorithm::Md5,
            Some("SHA-256") => Algorithm::Sha256,
            Some(_) => return None,
        };
        let qop = find("qop");
        Some(Self {
            realm: find("realm")?,
            nonce: find("nonce")?,
            algorithm,
            has_qop: qop.is_some_and(|qop| qop.split(',').any(|qop| qop.trim() == "auth")),
            stale: find("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// The Authorization that answers it for an INVITE to `uri`, as the first use of its nonce.
    pub fn answer(&self, credentials: &Credentials, uri: &str) -> Result<String, AgentError> {
        let Self { realm, nonce, algorithm, .. } = self;
        let cnonce = unique();
        let parsed = message::uri(uri)?;
        let qop = self.has_qop.then(|| AuthQop::Auth { cnonce: cnonce.clone(), nc: 1 });
        let response = DigestGenerator {
            username: &credentials.user,
            password: &credentials.password,
            nonce,
            uri: &parsed,
            realm,
            method: &rsip::Method::Invite,
            qop: qop.as_ref(),
            algorithm: *algorithm,
        }
        .compute();
        let name = self.algorithm();
        let mut value = format!(
            "Digest username=\"{}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{parsed}\", response=\"{response}\", algorithm={name}",
            credentials.user
        );
        if qop.is_some() {
            value.push_str(&format!(", qop=auth, nc=00000001, cnonce=\"{cnonce}\""));
        }
        Ok(value)
    }
}

/// A message as ladders and reports may show it: without what a password could be guessed from.
pub(super) fn without_proof(raw: &str) -> String {
    const PROOF: &str = "response=\"";
    let hide = |line: &str| match line.find(PROOF).map(|at| at + PROOF.len()) {
        Some(at) if line.starts_with("Authorization:") => {
            let (before, after) = line.split_at(at);
            let rest = after.find('"').map_or("", |end| after.get(end..).unwrap_or_default());
            format!("{before}…{rest}")
        }
        _ => line.to_owned(),
    };
    raw.split_inclusive('\n').map(hide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(line: &str) -> Option<Challenge> {
        Challenge::parse(line)
    }

    #[test]
    fn a_challenge_is_answered_as_rfc_7616_has_it() {
        let sha =
            challenge(r#" Digest realm="edge", nonce="n1", qop="auth", algorithm=SHA-256, stale=true"#).expect("sound");
        assert_eq!((sha.algorithm(), sha.stale), ("SHA-256", true));
        let credentials = Credentials { user: "bob".into(), password: "planted".into() };
        let answer = sha.answer(&credentials, "sip:bob@192.0.2.1:5060").expect("answer");
        assert!(answer.contains("nonce=\"n1\"") && answer.contains("qop=auth, nc=00000001"), "{answer}");
        assert!(!answer.contains("planted") && !format!("{credentials:?}").contains("planted"));
        // MD5(MD5("bob:biloxi.com:zanzibar") ":" nonce ":" MD5("INVITE:sip:bob@biloxi.com")), RFC 2069.
        let old = challenge(r#"Digest realm="biloxi.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093""#).expect("sound");
        let bob = Credentials { user: "bob".into(), password: "zanzibar".into() };
        let answer = old.answer(&bob, "sip:bob@biloxi.com").expect("answer");
        assert!(
            answer.contains("response=\"bf57e4e0d0bffc0fbaedce64d59add5e\"") && !answer.contains("qop"),
            "{answer}"
        );
        for unknown in
            ["Basic realm=\"x\"", "Digest realm=\"x\"", "Digest realm=\"x\", nonce=\"y\", algorithm=SHA-512-256"]
        {
            assert_eq!(challenge(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_proof_is_in_no_ladder() {
        let raw = "INVITE sip:a@b SIP/2.0\r\nAuthorization: Digest nonce=\"n\", response=\"secret\", nc=1\r\n\r\nbody";
        let shown = without_proof(raw);
        assert_eq!(shown, raw.replace("secret", "…"));
        assert_eq!(without_proof("BYE sip:a@b SIP/2.0\r\n\r\n"), "BYE sip:a@b SIP/2.0\r\n\r\n");
    }
}
