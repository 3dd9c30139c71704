use std::time::Duration;

use super::metadata::MetadataError;

/// Why AWS did not do what this instance asked for. The text names who asked for what; it never has a part of a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloudError {
    /// The metadata service did not give the role's credentials.
    #[error("credentials of the instance's role: {0}")]
    Metadata(#[from] MetadataError),
    /// The instance has no role.
    #[error(
        "this instance has no role, and {action} needs one: launch it with the instance profile that `terraform/` makes \
         (metadata: {url}: 404)"
    )]
    NoRole {
        /// What was to be done, such as `ssm:GetParameter`.
        action: &'static str,
        /// What was asked.
        url: String,
    },
    /// The metadata service's answer for the role cannot be used.
    #[error("credentials of the role {role:?}: {what}")]
    Credentials {
        /// The role.
        role: String,
        /// What is wrong.
        what: String,
    },
    /// The role may not do that.
    #[error(
        "access denied: the role {role:?} may not do {action} on {resource}: allow it in the role's policy; AWS says {code}: {message}"
    )]
    Denied {
        /// The role.
        role: String,
        /// The IAM action.
        action: &'static str,
        /// On what.
        resource: String,
        /// AWS's code.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// AWS does not take the credentials.
    #[error(
        "{action} on {resource}: the credentials of the role {role:?} are not accepted: {code}: {message}; is this machine's clock right?"
    )]
    NotAccepted {
        /// The IAM action.
        action: &'static str,
        /// On what.
        resource: String,
        /// The role.
        role: String,
        /// AWS's code.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// No such parameter.
    #[error(
        "SSM Parameter Store has no {name:?} in {region}: `sipedge deploy` writes it; is this the edge's region and name?"
    )]
    NoParameter {
        /// Its name.
        name: String,
        /// Where it was looked for.
        region: String,
    },
    /// There is no lifecycle action that could be completed.
    #[error("{action} on {resource}: no lifecycle action is active: it has been completed, or its time is over")]
    NoAction {
        /// The IAM action.
        action: &'static str,
        /// The group, the hook and the instance.
        resource: String,
    },
    /// Another instance has the Elastic IP, and it was not to be taken away.
    #[error("the Elastic IP {allocation} belongs to another instance")]
    AddressTaken {
        /// Its allocation.
        allocation: String,
    },
    /// AWS asks for fewer requests, or has a fault of its own.
    #[error("{action} on {resource}: {status} {code}: {message}")]
    Busy {
        /// The IAM action.
        action: &'static str,
        /// On what.
        resource: String,
        /// HTTP status.
        status: u16,
        /// AWS's code.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// AWS refused for another reason.
    #[error("{action} on {resource}: refused: {status} {code}: {message} (request id {request_id})")]
    Refused {
        /// The IAM action.
        action: &'static str,
        /// On what.
        resource: String,
        /// HTTP status.
        status: u16,
        /// AWS's code.
        code: String,
        /// AWS's words.
        message: String,
        /// What AWS's support asks for.
        request_id: String,
    },
    /// No answer.
    #[error("{action}: {host}: {reason}; the instance needs a way to it: NAT gateway, public address, or VPC endpoint")]
    Unreachable {
        /// The IAM action.
        action: &'static str,
        /// Who was asked.
        host: String,
        /// What happened.
        reason: String,
    },
    /// An answer that makes no sense. What is in it is not shown, since it may be a secret.
    #[error("{action} on {resource}: the answer cannot be read: {what}")]
    Malformed {
        /// The IAM action.
        action: &'static str,
        /// On what.
        resource: String,
        /// What is wrong with it.
        what: String,
    },
    /// Tries until there was no more time.
    #[error("{last}; tried for {:.1} s", after.as_secs_f32())]
    GaveUp {
        /// How long.
        after: Duration,
        /// What the last try came to.
        last: Box<CloudError>,
    },
    /// An endpoint that makes no sense.
    #[error("{variable}, or AWS_ENDPOINT_URL: {url:?}: {reason}")]
    Endpoint {
        /// The variable.
        variable: &'static str,
        /// What it says.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// This build cannot make requests.
    #[error("requests to AWS cannot be made: {0}")]
    Client(String),
}

impl CloudError {
    /// What the last try came to, where there were several.
    pub fn root(&self) -> &Self {
        match self {
            Self::GaveUp { last, .. } => last.root(),
            other => other,
        }
    }
}
