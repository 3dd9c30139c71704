//! From the SDK's errors to [`AwsError`].

use std::error::Error;
use std::fmt::Debug;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};

use crate::credentials;
use crate::error::{At, AwsError};

/// Characters of AWS's words that are passed on: its messages are sentences, but EC2 adds encoded blobs of kilobytes to some.
const MESSAGE_CHARACTERS: usize = 600;

/// What an operation's error means.
pub(crate) fn classify<E, R>(at: At, endpoint: &str, error: &SdkError<E, R>) -> AwsError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: Debug + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(answer) if answer.err().meta().code().is_none() => AwsError::Unreachable {
            at: Box::new(at),
            endpoint: endpoint.to_owned(),
            reason: "what answers there is not AWS (no error code in its answer)".to_owned(),
        },
        SdkError::ServiceError(answer) => service(at, answer.err().meta()),
        SdkError::DispatchFailure(failure) => {
            match failure.as_connector_error().and_then(|error| credentials_error(error)) {
                Some(refused) => credentials::classify(refused, at.profile.as_deref()),
                None => {
                    let reason = failure.as_connector_error().map(|error| innermost(error)).unwrap_or_default();
                    let reason = if failure.is_timeout() { format!("no answer in time: {reason}") } else { reason };
                    AwsError::Unreachable { at: Box::new(at), endpoint: endpoint.to_owned(), reason }
                }
            }
        }
        SdkError::TimeoutError(_) => AwsError::Unreachable {
            at: Box::new(at),
            endpoint: endpoint.to_owned(),
            reason: format!("no answer within {} s", crate::client::OPERATION_TIMEOUT.as_secs()),
        },
        SdkError::ResponseError(answer) => AwsError::Unreachable {
            at: Box::new(at),
            endpoint: endpoint.to_owned(),
            reason: format!(
                "what answers there is not AWS ({})",
                source_of(answer_error(error)).unwrap_or_else(|| format!("{:?}", answer.raw()))
            ),
        },
        other => AwsError::Unexpected { at: Box::new(at), what: source_of(other).unwrap_or_else(|| other.to_string()) },
    }
}

/// An error as a trait object, for its chain of sources.
fn answer_error<E, R>(error: &SdkError<E, R>) -> &(dyn Error + 'static)
where
    E: Error + 'static,
    R: Debug + 'static,
{
    error
}

/// An answer of a service that is an error.
fn service(at: At, metadata: &ErrorMetadata) -> AwsError {
    let code = metadata.code().unwrap_or("Unknown").to_owned();
    let message = plain(metadata.message().unwrap_or("no message"));
    let request_id = metadata.extra("aws_request_id").map(str::to_owned);
    let at = Box::new(at);
    match kind(&code, &message) {
        Kind::Denied => AwsError::AccessDenied { action: at.operation.to_owned(), at, message },
        Kind::Refused => AwsError::CredentialsRefused { at, code },
        Kind::Expired => AwsError::CredentialsExpired { at, code },
        Kind::NotEnabled => AwsError::RegionNotEnabled { at },
        Kind::Throttled => AwsError::Throttled { at, code },
        Kind::Quota => AwsError::QuotaExceeded { at, code, message },
        Kind::Exists => AwsError::AlreadyExists { at, code, message },
        Kind::Missing => AwsError::NotFound { at, code, message },
        Kind::RefreshInProgress => AwsError::RefreshInProgress { at },
        Kind::NoRefresh => AwsError::NoRefreshInProgress { at },
        Kind::Other => AwsError::Service { at, code, message, request_id },
    }
}

/// What an error code means to the user.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Denied,
    Refused,
    Expired,
    NotEnabled,
    Throttled,
    Quota,
    Exists,
    Missing,
    RefreshInProgress,
    NoRefresh,
    Other,
}

/// Sorts an error code. The names are those of the services' own lists ("Common Errors" of each API reference, "Error codes for the
/// Amazon EC2 API"); where a service has many of one kind, by the ending that they share.
fn kind(code: &str, message: &str) -> Kind {
    match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "NotAuthorized" | "UnauthorizedAccess" => {
            Kind::Denied
        }
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "AuthFailure"
        | "InvalidAccessKeyId"
        | "IncompleteSignature"
        | "MissingAuthenticationToken" => Kind::Refused,
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Kind::Expired,
        "OptInRequired" => Kind::NotEnabled,
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "TooManyUpdates"
        | "SlowDown"
        | "PriorRequestNotComplete" => Kind::Throttled,
        "InstanceRefreshInProgress" | "InstanceRefreshInProgressFault" => Kind::RefreshInProgress,
        "ActiveInstanceRefreshNotFound" | "ActiveInstanceRefreshNotFoundFault" => Kind::NoRefresh,
        // Auto Scaling has no code for a group that is not there.
        "ValidationError" if message.contains("not found") => Kind::Missing,
        _ if code.ends_with("LimitExceeded")
            || code.ends_with("LimitExceededException")
            || code.ends_with("LimitExceededFault")
            || code.ends_with("QuotaExceededException")
            || code.starts_with("TooMany")
            || code == "LimitExceeded" =>
        {
            Kind::Quota
        }
        _ if code.ends_with("AlreadyExists")
            || code.ends_with("AlreadyExistsException")
            || code.ends_with("AlreadyExistsFault")
            || code.ends_with(".Duplicate")
            || code.ends_with("AlreadyInUse")
            || code.starts_with("Duplicate") =>
        {
            Kind::Exists
        }
        _ if code.ends_with("NotFound") || code.ends_with("NotFoundException") || code.starts_with("NoSuch") => {
            Kind::Missing
        }
        _ => Kind::Other,
    }
}

/// AWS's words on one line, without the blob that EC2 adds to a denial.
fn plain(message: &str) -> String {
    let words = message.split("Encoded authorization failure message").next().unwrap_or_default();
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE_CHARACTERS) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// The credentials' error in a chain of errors.
fn credentials_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CredentialsError> {
    chain(error).find_map(|error| error.downcast_ref::<CredentialsError>())
}

/// An error and what it comes from, outermost first.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The last two errors of a chain: the one above a system error says what was tried.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let words: Vec<String> = chain(error).map(|error| error.to_string()).collect();
    let mut last: Vec<String> = words.into_iter().rev().take(2).collect();
    last.dedup();
    last.reverse();
    plain(&last.join(": "))
}

/// The innermost error below one.
fn source_of(error: &(dyn Error + 'static)) -> Option<String> {
    error.source().map(innermost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_the_user_does() {
        for (code, message, expected) in [
            ("UnauthorizedOperation", "", Kind::Denied),
            ("AccessDeniedException", "", Kind::Denied),
            ("AuthFailure", "", Kind::Refused),
            ("RequestLimitExceeded", "", Kind::Throttled),
            ("TooManyRequestsException", "", Kind::Throttled),
            ("AddressLimitExceeded", "", Kind::Quota),
            ("TooManyLoadBalancers", "", Kind::Quota),
            ("LimitExceeded", "", Kind::Quota),
            ("ServiceQuotaExceededException", "", Kind::Quota),
            ("InvalidGroup.Duplicate", "", Kind::Exists),
            ("ParameterAlreadyExists", "", Kind::Exists),
            ("InvalidAMIID.NotFound", "", Kind::Missing),
            ("TargetGroupNotFound", "", Kind::Missing),
            ("ValidationError", "AutoScalingGroup name not found - no such group", Kind::Missing),
            ("ValidationError", "1 validation error detected", Kind::Other),
            ("InstanceRefreshInProgress", "", Kind::RefreshInProgress),
            ("ActiveInstanceRefreshNotFound", "", Kind::NoRefresh),
            ("OptInRequired", "", Kind::NotEnabled),
            ("ExpiredToken", "", Kind::Expired),
            ("IrreversibleInstanceRefresh", "", Kind::Other),
        ] {
            assert_eq!(kind(code, message), expected, "{code}");
        }
    }

    #[test]
    fn blobs_and_line_ends_are_left_out_of_messages() {
        let denied = "You are not authorized to perform this operation.\n Encoded authorization failure message: AAAA";
        assert_eq!(plain(denied), "You are not authorized to perform this operation.");
        assert_eq!(plain(&"é".repeat(700)).chars().count(), MESSAGE_CHARACTERS + 1);
    }
}
