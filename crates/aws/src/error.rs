//! Why AWS did not do what was asked.

use std::fmt;

/// Where a call went: which operation, in which region, as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// Service and operation as IAM policies name them, such as `autoscaling:StartInstanceRefresh`.
    pub operation: &'static str,
    /// Region that was asked.
    pub region: String,
    /// Profile whose credentials were to be used; none: whatever the SDK finds.
    pub profile: Option<String>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.operation, self.region)?;
        match &self.profile {
            Some(profile) => write!(f, " (profile {profile})"),
            None => Ok(()),
        }
    }
}

/// Why AWS did not do what was asked, told apart by what the user does about it. No message contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AwsError {
    /// No credentials were found, or they could not be loaded.
    #[error(
        "no AWS credentials{}: {reason}; log in with `aws sso login{}`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name another profile in aws.profile of the spec",
        of(profile),
        flag(profile)
    )]
    NoCredentials {
        /// Profile that was to give them.
        profile: Option<String>,
        /// What the SDK says.
        reason: String,
    },
    /// The profile is of IAM Identity Center, and its session has ended or never began.
    #[error(
        "the SSO session{} has expired or was never opened; run `aws sso login{}` and repeat the command",
        of(profile),
        flag(profile)
    )]
    SsoExpired {
        /// Profile that names the session.
        profile: Option<String>,
    },
    /// The profile is in neither file.
    #[error(
        "there is no profile `{profile}` in {config_file} or {credentials_file}; make it with `aws configure sso --profile {profile}`, or name another one in aws.profile of the spec"
    )]
    NoSuchProfile {
        /// The name that was looked for.
        profile: String,
        /// `~/.aws/config`, or what `AWS_CONFIG_FILE` names.
        config_file: String,
        /// `~/.aws/credentials`, or what `AWS_SHARED_CREDENTIALS_FILE` names.
        credentials_file: String,
    },
    /// Temporary credentials are past their end.
    #[error("{at}: the credentials have expired ({code}); get new ones (`aws sso login{}`) and repeat the command", flag(&at.profile))]
    CredentialsExpired {
        /// Where.
        at: Box<At>,
        /// AWS's error code.
        code: String,
    },
    /// AWS does not know the credentials, or their signature is wrong.
    #[error("{at}: AWS refuses the credentials ({code}): the access key was deleted or mistyped, this machine's clock is wrong, or the region is not enabled in the account (`aws sts get-caller-identity{}` tells)", flag(&at.profile))]
    CredentialsRefused {
        /// Where.
        at: Box<At>,
        /// AWS's error code.
        code: String,
    },
    /// There is no such region.
    #[error("there is no AWS region `{region}`{}; correct aws.region in the spec", nearest(nearest_region))]
    UnknownRegion {
        /// What was given.
        region: String,
        /// The region that is written most like it.
        nearest_region: Option<String>,
    },
    /// The region is one that an account has to enable first.
    #[error("{at}: the region is not enabled in this account; enable it (`aws account enable-region --region-name {}`) or name another one in aws.region of the spec", at.region)]
    RegionNotEnabled {
        /// Where.
        at: Box<At>,
    },
    /// The credentials are good, but their policies do not allow the action.
    #[error(
        "{at}: access denied: the credentials' policies do not allow {action}; have it allowed, or use another profile. AWS says: {message}"
    )]
    AccessDenied {
        /// Where.
        at: Box<At>,
        /// The action that a policy has to allow.
        action: String,
        /// AWS's words.
        message: String,
    },
    /// The account has as many of this as it may.
    #[error(
        "{at}: a quota of the account is used up ({code}): {message}; remove what is unused, or ask for more under Service Quotas"
    )]
    QuotaExceeded {
        /// Where.
        at: Box<At>,
        /// AWS's error code.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// Something of that name is there.
    #[error("{at}: the name is taken ({code}): {message}; remove the other one, or give this edge another name")]
    AlreadyExists {
        /// Where.
        at: Box<At>,
        /// AWS's error code.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// What was named is not there.
    #[error(
        "{at}: not found ({code}): {message}; check aws.region and aws.profile, or deploy again if it was removed by hand"
    )]
    NotFound {
        /// Where.
        at: Box<At>,
        /// AWS's error code.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// An instance refresh of the group is in progress.
    #[error(
        "{at}: an instance refresh of this group is in progress; follow it with `sipedge status --watch`, or end it with `sipedge rollback`"
    )]
    RefreshInProgress {
        /// Where.
        at: Box<At>,
    },
    /// No instance refresh of the group is in progress.
    #[error(
        "{at}: no instance refresh of this group is in progress, so there is nothing to end; `sipedge status` shows the last one"
    )]
    NoRefreshInProgress {
        /// Where.
        at: Box<At>,
    },
    /// AWS asked for fewer calls, and went on doing so.
    #[error(
        "{at}: AWS asks for fewer calls ({code}), and went on doing so; something else in this account calls a lot: wait a minute and repeat the command"
    )]
    Throttled {
        /// Where.
        at: Box<At>,
        /// AWS's error code.
        code: String,
    },
    /// No answer, or none that AWS gives.
    #[error(
        "{at}: {endpoint} cannot be reached: {reason}; check the network, HTTPS_PROXY, and AWS_ENDPOINT_URL if it is set"
    )]
    Unreachable {
        /// Where.
        at: Box<At>,
        /// Address of the service.
        endpoint: String,
        /// What went wrong on the way.
        reason: String,
    },
    /// The value is longer than Parameter Store takes.
    #[error(
        "the secret {name} has {bytes} bytes, and Parameter Store takes {most} at most; a certificate needs only its chain up to the root, without the root"
    )]
    SecretTooLong {
        /// The parameter's name.
        name: String,
        /// Its value's length.
        bytes: usize,
        /// The most that there may be.
        most: usize,
    },
    /// A setting of this machine is unusable.
    #[error("{what}: {reason}")]
    Setup {
        /// What.
        what: String,
        /// Why, and what to do.
        reason: String,
    },
    /// AWS's answer lacks something that it always has, or has something that sipedge did not make.
    #[error("{at}: unexpected answer: {what}")]
    Unexpected {
        /// Where.
        at: Box<At>,
        /// What is strange.
        what: String,
    },
    /// Any other error of a service.
    #[error("{at}: {code}: {message}{}", request(request_id))]
    Service {
        /// Where.
        at: Box<At>,
        /// AWS's error code.
        code: String,
        /// AWS's words.
        message: String,
        /// What AWS's support asks for.
        request_id: Option<String>,
    },
}

impl AwsError {
    /// AWS's error code, where there is one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::CredentialsExpired { code, .. }
            | Self::CredentialsRefused { code, .. }
            | Self::QuotaExceeded { code, .. }
            | Self::AlreadyExists { code, .. }
            | Self::NotFound { code, .. }
            | Self::Throttled { code, .. }
            | Self::Service { code, .. } => Some(code),
            _ => None,
        }
    }

    /// The error without a secret that AWS's words may repeat: its validation quotes values, shortened and escaped at that.
    pub(crate) fn without(mut self, secret: &str) -> Self {
        if let Self::AccessDenied { message, .. }
        | Self::QuotaExceeded { message, .. }
        | Self::AlreadyExists { message, .. }
        | Self::NotFound { message, .. }
        | Self::Service { message, .. } = &mut self
        {
            let quotes = message.contains("Value ") || message.contains(secret);
            if quotes {
                *message = "the value is refused (AWS's words repeat it, and are left out here)".to_owned();
            }
        }
        self
    }
}

/// ` of profile X`.
fn of(profile: &Option<String>) -> String {
    profile.as_ref().map(|name| format!(" of profile `{name}`")).unwrap_or_default()
}

/// ` --profile X`.
fn flag(profile: &Option<String>) -> String {
    profile.as_ref().map(|name| format!(" --profile {name}")).unwrap_or_default()
}

/// `; did you mean X?`.
fn nearest(region: &Option<String>) -> String {
    region.as_ref().map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

/// ` (request X)`.
fn request(id: &Option<String>) -> String {
    id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default()
}
