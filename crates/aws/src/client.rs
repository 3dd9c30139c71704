//! The connection to an account: credentials, region, clients, and the runtime that they run on.

use std::env;
use std::error::Error;
use std::fmt::{self, Debug};
use std::fs;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout_at};

use crate::classify::classify;
use crate::credentials::{self, Profile};
use crate::error::{At, AwsError};
use crate::regions;
use crate::snapshots;

/// Until a connection stands. A region on another continent answers within 0.3 s; what takes longer than this is blocked on the way.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For one operation with all its retries: longer than any of ours takes, short enough for a person to wait.
pub(crate) const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// For one attempt of an operation, so that a connection that went silent leaves time for another attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

/// Attempts of an operation, the first included (standard mode of AWS's SDKs: backs off up to 1, 2, … seconds, by chance).
const ATTEMPTS: u32 = 3;

/// Whose account, and which region of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Region, such as `eu-central-1`.
    pub region: String,
    /// Profile of `~/.aws/config` whose credentials are used. None or `default`: what AWS's own tools take when none is named, which is
    /// `AWS_ACCESS_KEY_ID` before `AWS_PROFILE` before the profile `default`, then web identity, container, instance.
    pub profile: Option<String>,
}

/// Whose credentials these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Account number, 12 digits.
    pub account: String,
    /// The user's or assumed role's name.
    pub arn: String,
}

/// An account's services in one region. Calls block the thread; not to be used inside an async runtime.
pub struct Aws {
    runtime: Runtime,
    config: SdkConfig,
    profile: Option<String>,
    region: String,
    pub(crate) autoscaling: aws_sdk_autoscaling::Client,
    pub(crate) cloudwatch: aws_sdk_cloudwatch::Client,
    pub(crate) ebs: aws_sdk_ebs::Client,
    pub(crate) ec2: aws_sdk_ec2::Client,
    pub(crate) load_balancing: aws_sdk_elasticloadbalancingv2::Client,
    pub(crate) service_quotas: aws_sdk_servicequotas::Client,
    pub(crate) ssm: aws_sdk_ssm::Client,
}

impl Aws {
    /// Finds the region and loads credentials. Asks AWS for nothing unless the credentials have to be fetched (SSO, roles).
    ///
    /// # Errors
    /// [`AwsError::UnknownRegion`], [`AwsError::NoCredentials`], [`AwsError::NoSuchProfile`], [`AwsError::SsoExpired`], [`AwsError::Setup`].
    pub fn connect(settings: &Settings) -> Result<Self, AwsError> {
        let endpoint = env::var("AWS_ENDPOINT_URL").is_ok_and(|url| !url.is_empty());
        if !regions::exists(&settings.region, !endpoint) {
            let nearest_region = regions::nearest(&settings.region);
            return Err(AwsError::UnknownRegion { region: settings.region.clone(), nearest_region });
        }
        // One thread: the calls come one after the other.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| setup("no runtime for calls to AWS can be made", error))?;
        let http = http_client()?;
        let region = Region::new(settings.region.clone());
        let profile = Profile::choose(settings.profile.as_deref());
        let config = runtime.block_on(async {
            let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
                .http_client(http.clone())
                .region(region.clone())
                .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
                .timeout_config(
                    TimeoutConfig::builder()
                        .connect_timeout(CONNECT_TIMEOUT)
                        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                        .operation_timeout(OPERATION_TIMEOUT)
                        .build(),
                );
            let loader = match &profile {
                Profile::Named(name) => {
                    loader.profile_name(name).credentials_provider(credentials::of_profile(name, region, http))
                }
                Profile::Usual(_) => loader,
            };
            let config = loader.load().await;
            credentials::load(&config, &profile).await.map(|()| config)
        })?;
        Ok(Self {
            autoscaling: aws_sdk_autoscaling::Client::new(&config),
            cloudwatch: aws_sdk_cloudwatch::Client::new(&config),
            ebs: snapshots::client(&config),
            ec2: aws_sdk_ec2::Client::new(&config),
            load_balancing: aws_sdk_elasticloadbalancingv2::Client::new(&config),
            service_quotas: aws_sdk_servicequotas::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
            profile: profile.name().map(str::to_owned),
            region: settings.region.clone(),
            runtime,
            config,
        })
    }

    /// Whose credentials these are (`sts:GetCallerIdentity`, which no policy can deny): the cheapest call that tells whether they are good.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn identity(&self) -> Result<Identity, AwsError> {
        let operation = "sts:GetCallerIdentity";
        let sts = aws_sdk_sts::Client::new(&self.config);
        let answer = self.call(operation, sts.get_caller_identity().send())?;
        match (answer.account, answer.arn) {
            (Some(account), Some(arn)) => Ok(Identity { account, arn }),
            _ => Err(self.unexpected(operation, "an identity without account or name")),
        }
    }

    /// The region that is asked.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The profile whose credentials are used, if one was named by the settings or `AWS_PROFILE`.
    pub fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// Runs one operation to its end.
    pub(crate) fn call<T, E, R>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> Result<T, AwsError>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        R: Debug + Send + Sync + 'static,
    {
        self.wait(request).map_err(|error| self.classified(operation, &error))
    }

    /// Runs one operation until a moment, and no longer.
    pub(crate) fn call_until<T, E, R>(
        &self,
        operation: &'static str,
        deadline: Instant,
        request: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> Result<T, AwsError>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        R: Debug + Send + Sync + 'static,
    {
        match self.wait(async { timeout_at(deadline, request).await }) {
            Ok(told) => told.map_err(|error| self.classified(operation, &error)),
            Err(_) => Err(AwsError::Unreachable {
                at: Box::new(self.at(operation)),
                endpoint: self.endpoint(operation),
                reason: "no answer in the time that there was".to_owned(),
            }),
        }
    }

    /// Waits for what is to come.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// What an operation's error means.
    pub(crate) fn classified<E, R>(&self, operation: &'static str, error: &SdkError<E, R>) -> AwsError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        R: Debug + Send + Sync + 'static,
    {
        classify(self.at(operation), &self.endpoint(operation), error)
    }

    /// Runs one operation whose bytes are secret: the SDK writes requests and answers into traces, and these go into none.
    pub(crate) fn call_quietly<T, E, R>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> Result<T, AwsError>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        R: Debug + Send + Sync + 'static,
    {
        tracing::dispatcher::with_default(&tracing::Dispatch::none(), || self.call(operation, request))
    }

    /// Runs something that makes calls of its own.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Where a call goes.
    pub(crate) fn at(&self, operation: &'static str) -> At {
        At { operation, region: self.region.clone(), profile: self.profile.clone() }
    }

    /// An answer that AWS does not give.
    pub(crate) fn unexpected(&self, operation: &'static str, what: impl Into<String>) -> AwsError {
        AwsError::Unexpected { at: Box::new(self.at(operation)), what: what.into() }
    }

    /// Address of an operation's service, for messages.
    pub(crate) fn endpoint(&self, operation: &str) -> String {
        match self.config.endpoint_url() {
            Some(url) => url.to_owned(),
            None => {
                format!("https://{}.{}.amazonaws.com", operation.split(':').next().unwrap_or_default(), self.region)
            }
        }
    }
}

impl Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aws").field("region", &self.region).field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// HTTPS over rustls and ring, through the environment's proxies, with the machine's root certificates and those of `AWS_CA_BUNDLE`.
fn http_client() -> Result<SharedHttpClient, AwsError> {
    let mut roots = TrustStore::default();
    if let Some(path) = env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        let what = || format!("AWS_CA_BUNDLE names {}, which cannot be read", path.display());
        roots.add_pem_certificate(fs::read(&path).map_err(|error| setup(&what(), error))?);
    }
    let tls = TlsContext::builder()
        .with_trust_store(roots)
        .build()
        .map_err(|error| setup("no TLS for calls to AWS", error))?;
    let connector =
        move |settings: Option<&_>,
              components: Option<&aws_smithy_runtime_api::client::runtime_components::RuntimeComponents>| {
            let mut builder = Connector::builder();
            if let Some(settings) = settings {
                let settings: &aws_smithy_runtime_api::client::http::HttpConnectorSettings = settings;
                builder = builder.connector_settings(settings.clone());
            }
            builder.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
            builder
                .proxy_config(ProxyConfig::from_env())
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .tls_context(tls.clone())
                .build()
        };
    Ok(Builder::new().build_with_connector_fn(connector))
}

/// A setting of this machine is unusable.
fn setup(what: &str, error: impl Error) -> AwsError {
    AwsError::Setup { what: what.to_owned(), reason: error.to_string() }
}
