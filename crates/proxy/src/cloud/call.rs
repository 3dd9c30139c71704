//! One request to AWS and what its answer means.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use reqwest::StatusCode;
use serde::Deserialize;

use super::endpoints::Service;
use super::error::CloudError;

/// A request: a `POST` to `/`, as both of AWS's older protocols have it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) service: Service,
    /// The IAM action, such as `ssm:GetParameter`.
    pub(super) action: &'static str,
    /// What it is about, for messages.
    pub(super) resource: String,
    pub(super) content_type: &'static str,
    /// The header `X-Amz-Target`, which the JSON protocol has.
    pub(super) target: Option<&'static str>,
    pub(super) body: String,
}

impl Call {
    /// In the JSON protocol (SSM).
    pub(super) fn json(
        service: Service,
        action: &'static str,
        target: &'static str,
        resource: String,
        body: &serde_json::Value,
    ) -> Self {
        let content_type = "application/x-amz-json-1.1";
        Self { service, action, resource, content_type, target: Some(target), body: body.to_string() }
    }

    /// In the query protocol (EC2, Auto Scaling).
    pub(super) fn query(service: Service, action: &'static str, resource: String, parameters: &[(&str, &str)]) -> Self {
        let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let content_type = "application/x-www-form-urlencoded; charset=utf-8";
        Self { service, action, resource, content_type, target: None, body: pairs.join("&") }
    }

    /// What an answer that is no success means.
    pub(super) fn failure(&self, status: StatusCode, request_id: &str, body: &[u8], role: &str) -> CloudError {
        let (code, message) = code_and_message(body, self.target.is_some());
        let (action, resource, role) = (self.action, self.resource.clone(), role.to_owned());
        let number = status.as_u16();
        match code.as_str() {
            "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => {
                CloudError::Denied { role, action, resource, code, message }
            }
            "ExpiredTokenException"
            | "ExpiredToken"
            | "RequestExpired"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "AuthFailure"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch" => CloudError::NotAccepted { action, resource, role, code, message },
            // The only way in which Auto Scaling says this is its message.
            "ValidationError" if message.contains("No active Lifecycle Action") => {
                CloudError::NoAction { action, resource }
            }
            "Resource.AlreadyAssociated" => CloudError::AddressTaken { allocation: resource },
            "ThrottlingException" | "Throttling" | "RequestLimitExceeded" | "ResourceContention"
            // An instance that has just been launched is not known everywhere at once, and takes no address before it runs (EC2
            // Developer Guide, "Eventual consistency in the Amazon EC2 API").
            | "InvalidInstanceID" | "InvalidInstanceID.NotFound" | "IncorrectInstanceState" => {
                CloudError::Busy { action, resource, status: number, code, message }
            }
            _ if status.is_server_error()
                || status == StatusCode::TOO_MANY_REQUESTS
                || status == StatusCode::REQUEST_TIMEOUT =>
            {
                CloudError::Busy { action, resource, status: number, code, message }
            }
            _ => {
                let request_id = shown(request_id);
                CloudError::Refused { action, resource, status: number, code, message, request_id }
            }
        }
    }
}

/// AWS's code, without the name of its model, and its message.
fn code_and_message(body: &[u8], is_json: bool) -> (String, String) {
    #[derive(Default, Deserialize)]
    struct Problem {
        #[serde(rename = "__type", default)]
        code: String,
        // Services do not agree on the letter.
        #[serde(alias = "Message", default)]
        message: String,
    }
    let (code, message) = if is_json {
        let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        (problem.code.rsplit('#').next().unwrap_or_default().to_owned(), problem.message)
    } else {
        let text = String::from_utf8_lossy(body);
        (element(&text, "Code").unwrap_or_default(), element(&text, "Message").unwrap_or_default())
    };
    let or_none = |text: String| if text.is_empty() { "no reason given".to_owned() } else { shown(&text) };
    (or_none(code), or_none(message))
}

/// The text of the first element of this name. AWS's errors have neither attributes nor elements in these.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(plain.into_iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)))
}

/// What may stand in one line of a log.
fn shown(text: &str) -> String {
    /// Letters of AWS's words that are shown: an encoded authorization message would fill pages.
    const LETTERS: usize = 400;
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(LETTERS).collect()
}

/// All but the unreserved letters (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn encoded(value: &str) -> PercentEncode<'_> {
    utf8_percent_encode(value, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(call: &Call, status: u16, body: &str) -> String {
        call.failure(StatusCode::from_u16(status).unwrap(), "r-1", body.as_bytes(), "edge").to_string()
    }

    #[test]
    fn an_instance_that_is_new_is_asked_for_again_and_an_address_that_is_not_there_is_final() {
        let call = Call::query(Service::Ec2, "ec2:AssociateAddress", "eipalloc-1".into(), &[]);
        let error = |code: &str| {
            let body =
                format!("<Response><Errors><Error><Code>{code}</Code><Message>m</Message></Error></Errors></Response>");
            call.failure(StatusCode::BAD_REQUEST, "r-1", body.as_bytes(), "edge")
        };
        for code in ["InvalidInstanceID", "InvalidInstanceID.NotFound", "IncorrectInstanceState"] {
            assert!(matches!(error(code), CloudError::Busy { .. }), "{code}");
        }
        for code in ["InvalidAllocationID.NotFound", "InvalidParameterValue"] {
            assert!(matches!(error(code), CloudError::Refused { .. }), "{code}");
        }
    }

    #[test]
    fn answers_of_both_protocols_are_understood() {
        let json =
            Call::json(Service::Ssm, "ssm:GetParameter", "AmazonSSM.GetParameter", "/a".into(), &serde_json::json!({}));
        let query = Call::query(Service::Ec2, "ec2:AssociateAddress", "eipalloc-1".into(), &[("A", "b c/d")]);
        assert_eq!(query.body, "A=b%20c%2Fd");
        let denied = said(&json, 400, r#"{"__type":"com.amazon#AccessDeniedException","Message":"not you"}"#);
        assert!(
            denied.contains("\"edge\"") && denied.contains("ssm:GetParameter") && denied.contains("not you"),
            "{denied}"
        );
        let unauthorized = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>a &lt;b&gt; &amp;lt;\n</Message>\
                            </Error></Errors><RequestID>x</RequestID></Response>";
        let denied = said(&query, 403, unauthorized);
        assert!(denied.contains("ec2:AssociateAddress on eipalloc-1") && denied.contains("a <b> &lt; "), "{denied}");
        assert!(said(&json, 502, "<html>").contains("502 no reason given"));
        assert!(said(&query, 400, "").contains("refused: 400") && said(&query, 400, "").contains("r-1"));
    }
}
