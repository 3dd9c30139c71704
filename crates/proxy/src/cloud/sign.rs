//! AWS Signature Version 4 (IAM User Guide, "Create a signed AWS API request"), as far as an instance needs it: the path is `/` and
//! there is no query.

use std::fmt;

use ring::{digest, hmac};

use super::time::basic;

/// The keys of a role, for some hours. Nothing of them is ever printed but the first.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    /// Names the other two; no secret.
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// What a signature is good for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    /// As the signature names it, such as `ssm`.
    pub(super) service: &'a str,
    /// When it was signed, in seconds since the Unix epoch.
    pub(super) unix_s: u64,
}

/// A request before it is signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// All of them are signed; names in lower case, `host` and `x-amz-date` among them.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

/// The value of `x-amz-date`.
pub(super) fn date(scope: &Scope<'_>) -> String {
    basic(scope.unix_s)
}

/// The value of `Authorization`.
pub(super) fn authorization(request: &Unsigned<'_>, scope: &Scope<'_>, keys: &Keys) -> String {
    let date = date(scope);
    let day = date.split('T').next().unwrap_or_default();
    let mut headers: Vec<(&str, String)> =
        request.headers.iter().map(|(name, value)| (*name, trimmed(value))).collect();
    headers.sort_unstable();
    let signed = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!("{}\n/\n\n{lines}\n{signed}\n{}", request.method, sha256(request.body));
    let scope_name = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope_name}\n{}", sha256(canonical.as_bytes()));
    let first = format!("AWS4{}", keys.secret_access_key).into_bytes();
    let key = [day, scope.region, scope.service, "aws4_request"]
        .into_iter()
        .fold(first, |key, part| hmac_sha256(&key, part.as_bytes()));
    let signature = hex(&hmac_sha256(&key, to_sign.as_bytes()));
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope_name}, SignedHeaders={signed}, Signature={signature}",
        keys.access_key_id
    )
}

/// Without spaces around it, and with one where there are several.
fn trimmed(value: &str) -> String {
    value.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hmac_sha256(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example key of AWS's documentation.
    fn keys() -> Keys {
        Keys {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: "unused".into(),
        }
    }

    fn signature(method: &str, more: &[(&str, &str)], body: &str) -> (String, String) {
        // 2015-08-30T12:36:00Z, `service` in us-east-1 at example.amazonaws.com: what all of the published tests have.
        let scope = Scope { region: "us-east-1", service: "service", unix_s: 1_440_938_160 };
        let date = date(&scope);
        let mut headers = vec![("host", "example.amazonaws.com"), ("x-amz-date", date.as_str())];
        headers.extend(more);
        let value = authorization(&Unsigned { method, headers: &headers, body: body.as_bytes() }, &scope, &keys());
        let (head, signature) = value.split_once(", Signature=").unwrap();
        (head.to_owned(), signature.to_owned())
    }

    /// From AWS's "Signature Version 4 test suite", by the names that its tests have.
    #[test]
    fn the_published_tests_pass() {
        const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
        const FORM_UTF8: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf8");
        const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        for (name, method, more, body, expected) in [
            ("get-vanilla", "GET", vec![], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("post-vanilla", "POST", vec![], "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "post-header-key-sort",
                "POST",
                vec![("my-header1", "value1")],
                "",
                "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
            ),
            (
                "post-x-www-form-urlencoded",
                "POST",
                vec![FORM],
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            (
                "post-x-www-form-urlencoded-parameters",
                "POST",
                vec![FORM_UTF8],
                "Param1=value1",
                "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
            ),
            (
                "post-sts-header-before",
                "POST",
                vec![("x-amz-security-token", TOKEN)],
                "",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
            (
                "get-header-value-trim",
                "GET",
                vec![("my-header1", "value1"), ("my-header2", "\"a   b   c\"")],
                "",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
        ] {
            assert_eq!(signature(method, &more, body).1, expected, "{name}");
        }
    }

    #[test]
    fn what_is_signed_is_named_and_keys_are_not_printed() {
        let (head, _) = signature("POST", &[("content-type", "text/plain")], "x");
        let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                        SignedHeaders=content-type;host;x-amz-date";
        assert_eq!(head, expected);
        let printed = format!("{:?}", keys());
        assert!(
            printed.contains("AKIDEXAMPLE") && !printed.contains("wJalr") && !printed.contains("unused"),
            "{printed}"
        );
    }
}
