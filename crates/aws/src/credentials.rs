//! Whose credentials are used, and why there are none.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::classify::chain;
use crate::error::AwsError;

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Profile {
    /// From this profile and nothing else, as with `--profile` of the AWS CLI.
    Named(String),
    /// By the SDK's usual order, with the profile that `AWS_PROFILE` names, if it does.
    Usual(Option<String>),
}

impl Profile {
    /// What a setting means.
    pub(crate) fn choose(setting: Option<&str>) -> Self {
        match setting {
            Some(name) if name != "default" && !name.is_empty() => Self::Named(name.to_owned()),
            _ => Self::Usual(env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty())),
        }
    }

    /// The profile, if one was named.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Usual(name) => name.as_deref(),
        }
    }
}

/// Credentials of a profile, even when the environment has others.
pub(crate) fn of_profile(name: &str, region: Region, http: SharedHttpClient) -> ProfileFileCredentialsProvider {
    let config = ProviderConfig::without_region().with_region(Some(region)).with_http_client(http);
    ProfileFileCredentialsProvider::builder().configure(&config).profile_name(name).build()
}

/// Loads credentials once, so that whatever is wrong with them is said before anything begins.
pub(crate) async fn load(config: &SdkConfig, profile: &Profile) -> Result<(), AwsError> {
    let nothing = || AwsError::NoCredentials {
        profile: profile.name().map(str::to_owned),
        reason: "no source of credentials is set up".to_owned(),
    };
    let provider = config.credentials_provider().ok_or_else(nothing)?;
    provider.provide_credentials().await.map(drop).map_err(|error| classify(&error, profile.name()))
}

/// Why there are no credentials.
pub(crate) fn classify(error: &CredentialsError, profile: Option<&str>) -> AwsError {
    let files = Files::of_environment();
    let named = profile.map(str::to_owned);
    let section = profile.map(|name| (name, files.keys(name)));
    if let Some((name, None)) = &section {
        return AwsError::NoSuchProfile {
            profile: (*name).to_owned(),
            config_file: files.config.display().to_string(),
            credentials_file: files.credentials.display().to_string(),
        };
    }
    let keys = section.and_then(|(_, keys)| keys).or_else(|| files.keys("default")).unwrap_or_default();
    let words = chain(error).map(|error| error.to_string()).collect::<Vec<_>>().join(": ");
    if is_session_lost(&words, &keys) {
        return AwsError::SsoExpired { profile: named };
    }
    let reason = match error {
        CredentialsError::CredentialsNotLoaded(_) if profile.is_none() => {
            "neither the environment, nor a profile, nor a role of this machine has any".to_owned()
        }
        CredentialsError::CredentialsNotLoaded(_) => "the profile has no credentials in it".to_owned(),
        _ => words,
    };
    AwsError::NoCredentials { profile: named, reason }
}

/// Whether a session of IAM Identity Center has ended, or was never opened: its token is in a cache file that is missing or past its
/// end, or the portal refuses it (`UnauthorizedException` of GetRoleCredentials). The SDK has no type for it.
fn is_session_lost(words: &str, keys: &[String]) -> bool {
    let single_sign_on = words.contains("SSO") || keys.iter().any(|key| key.starts_with("sso_"));
    single_sign_on
        && ["SSO token", "expired", "UnauthorizedException", "Session token not found"]
            .iter()
            .any(|sign| words.contains(sign))
}

/// The two files that profiles are in (AWS, "Location of the shared config and credentials files").
struct Files {
    config: PathBuf,
    credentials: PathBuf,
}

impl Files {
    fn of_environment() -> Self {
        let home = env::var_os("HOME").or_else(|| env::var_os("USERPROFILE")).map(PathBuf::from).unwrap_or_default();
        let file = |variable: &str, usual: &str| {
            env::var_os(variable)
                .filter(|path| !path.is_empty())
                .map_or_else(|| home.join(".aws").join(usual), PathBuf::from)
        };
        Self {
            config: file("AWS_CONFIG_FILE", "config"),
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        }
    }

    /// Names of a profile's settings in both files; none if neither has the profile.
    fn keys(&self, profile: &str) -> Option<Vec<String>> {
        let parts = [keys_in(&self.config, profile), keys_in(&self.credentials, profile)];
        if parts.iter().all(Option::is_none) {
            return None;
        }
        Some(parts.into_iter().flatten().flatten().collect())
    }
}

/// Names of a profile's settings in one file: `[profile NAME]` in the one, `[NAME]` in the other.
fn keys_in(file: &Path, profile: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(file).ok()?;
    let mut inside = false;
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let header = header.trim();
            let name =
                header.strip_prefix("profile").filter(|rest| rest.starts_with(char::is_whitespace)).unwrap_or(header);
            inside = name.trim() == profile;
            if inside {
                found.get_or_insert_with(Vec::new);
            }
        } else if let (true, Some((key, _)), Some(keys)) = (inside, line.split_once('='), found.as_mut()) {
            keys.push(key.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_profile_are_found_in_both_spellings() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, "[default]\nregion = x\n[profile a b]\nsso_session= s\n# c\nsso_role_name =r\n[c]\nkey = v\n")
            .unwrap();
        assert_eq!(keys_in(&file, "a b"), Some(vec!["sso_session".to_owned(), "sso_role_name".to_owned()]));
        assert_eq!(keys_in(&file, "c"), Some(vec!["key".to_owned()]));
        assert_eq!(keys_in(&file, "d"), None);
        assert_eq!(keys_in(&folder.path().join("none"), "c"), None);
    }

    #[test]
    fn a_lost_session_is_told_from_other_troubles() {
        let keys = ["sso_session".to_owned()];
        assert!(is_session_lost("the SSO token has expired and cannot be refreshed", &[]));
        assert!(is_session_lost("service error: UnauthorizedException: Session token not found or invalid", &keys));
        assert!(!is_session_lost("dispatch failure: io error", &keys));
        assert!(!is_session_lost("the credentials of the process have expired", &[]));
    }
}
