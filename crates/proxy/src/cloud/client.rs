//! Requests, signed and tried again where that helps.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use rustls::RootCertStore;
use serde::Deserialize;
use serde_json::json;

use super::LifecycleAction;
use super::call::Call;
use super::credentials::{Credentials, unix_now};
use super::endpoints::{Endpoints, Service};
use super::error::CloudError;
use super::http::{self, in_words};
use super::sign::{Scope, Unsigned, authorization, date};

/// Time for one request, its connection and TLS included. AWS answers within a second nearly always.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest pauses before the second try and before any other; each pause is a random part of its own (AWS Architecture Blog, "Exponential
/// Backoff And Jitter").
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Longest answer that is read, in bytes: a parameter has at most 8 KB (SSM, "Managing parameter tiers").
const MAX_BODY: usize = 64 << 10;

/// How long a request is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// No try begins after this long.
    pub after: Duration,
    /// Whether a refusal for want of permission, or of a role, may pass by itself: right after both were made it does (IAM User Guide,
    /// "Changes that I make are not always immediately visible").
    pub denied_may_pass: bool,
}

/// What became of [`Cloud::associate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Association {
    /// The address is this instance's now, or was already.
    Done,
    /// Another instance has it, and keeps it.
    Taken,
}

/// AWS, as one instance may use it.
#[derive(Debug)]
pub struct Cloud {
    region: String,
    endpoints: Endpoints,
    http: Client,
    credentials: Credentials,
}

impl Cloud {
    /// Of `region`, with the role that the metadata service at `metadata` gives.
    pub fn new(region: &str, metadata: &str, endpoints: Endpoints) -> Result<Self, CloudError> {
        let client = |error: &dyn std::fmt::Display| CloudError::Client(error.to_string());
        let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        let http = http::client(roots)
            .map_err(|error| client(&error))?
            .timeout(REQUEST_TIMEOUT)
            // A request that is repeated goes by a new connection: when the Elastic IP comes to this instance, those of before are dead.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| client(&error))?;
        Ok(Self { region: region.to_owned(), endpoints, http, credentials: Credentials::new(metadata) })
    }

    /// Where its services are.
    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Its region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The decrypted value of a parameter of SSM Parameter Store.
    pub async fn parameter(&self, name: &str, patience: Patience) -> Result<Vec<u8>, CloudError> {
        let question = json!({ "Name": name, "WithDecryption": true });
        let target = "AmazonSSM.GetParameter";
        let call = Call::json(Service::Ssm, "ssm:GetParameter", target, name.to_owned(), &question);
        let body = self.call(&call, patience).await.map_err(|error| match error {
            CloudError::Refused { code, .. } if code == "ParameterNotFound" => {
                CloudError::NoParameter { name: name.to_owned(), region: self.region.clone() }
            }
            error => error,
        })?;
        // A reader's own words may have a part of what it read.
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| CloudError::Malformed {
            action: call.action,
            resource: name.to_owned(),
            what: format!("line {} column {} is not as SSM writes it", error.line(), error.column()),
        })?;
        Ok(answer.parameter.value.into_bytes())
    }

    /// Lets an instance go on that waits at a hook of its group.
    pub async fn complete(&self, action: &LifecycleAction, patience: Patience) -> Result<(), CloudError> {
        let more = [("LifecycleActionResult", "CONTINUE")];
        let call = lifecycle("CompleteLifecycleAction", "autoscaling:CompleteLifecycleAction", action, &more);
        self.call(&call, patience).await.map(drop)
    }

    /// Makes the time at a hook begin anew.
    pub async fn heartbeat(&self, action: &LifecycleAction, patience: Patience) -> Result<(), CloudError> {
        let name = "autoscaling:RecordLifecycleActionHeartbeat";
        self.call(&lifecycle("RecordLifecycleActionHeartbeat", name, action, &[]), patience).await.map(drop)
    }

    /// Associates an Elastic IP with an instance. `takes`: from another instance too.
    pub async fn associate(
        &self,
        allocation: &str,
        instance: &str,
        takes: bool,
        patience: Patience,
    ) -> Result<Association, CloudError> {
        let parameters = [
            ("Action", "AssociateAddress"),
            ("Version", "2016-11-15"),
            ("AllocationId", allocation),
            ("InstanceId", instance),
            ("AllowReassociation", if takes { "true" } else { "false" }),
        ];
        let call = Call::query(Service::Ec2, "ec2:AssociateAddress", allocation.to_owned(), &parameters);
        match self.call(&call, patience).await {
            Ok(_) => Ok(Association::Done),
            Err(CloudError::AddressTaken { .. }) => Ok(Association::Taken),
            Err(error) => Err(error),
        }
    }

    async fn call(&self, call: &Call, patience: Patience) -> Result<Vec<u8>, CloudError> {
        let started = Instant::now();
        let mut longest = BACKOFF.0;
        loop {
            let error = match self.attempt(call).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            if matches!(error, CloudError::NotAccepted { .. }) {
                self.credentials.forget().await;
            }
            if !may_pass(&error, patience) {
                return Err(error);
            }
            let pause = longest.mul_f64(random_part());
            if started.elapsed() + pause >= patience.after {
                return Err(CloudError::GaveUp { after: started.elapsed(), last: Box::new(error) });
            }
            if longest == BACKOFF.0 {
                tracing::warn!("{error}; trying again");
            } else {
                tracing::debug!("{error}; trying again");
            }
            tokio::time::sleep(pause).await;
            longest = (longest * 2).min(BACKOFF.1);
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Vec<u8>, CloudError> {
        let role = self.credentials.role(call.action).await?;
        let url = self.endpoints.url(call.service, &self.region)?;
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let scope = Scope { region: &self.region, service: call.service.name(), unix_s: unix_now() };
        let date = date(&scope);
        let mut headers = vec![
            (HOST.as_str(), host.as_str()),
            (CONTENT_TYPE.as_str(), call.content_type),
            ("x-amz-date", &date),
            ("x-amz-security-token", &role.keys.session_token),
        ];
        headers.extend(call.target.map(|target| ("x-amz-target", target)));
        let unsigned = Unsigned { method: "POST", headers: &headers, body: call.body.as_bytes() };
        let signature = authorization(&unsigned, &scope, &role.keys);
        let mut request = self.http.post(url).header(AUTHORIZATION, signature);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let unreachable = |reason: String| CloudError::Unreachable { action: call.action, host: host.clone(), reason };
        let sent = request.body(call.body.clone()).send().await;
        let mut response = sent.map_err(|error| unreachable(in_words(error)))?;
        let status = response.status();
        let id = response.headers().get("x-amzn-requestid").and_then(|id| id.to_str().ok());
        let id = id.unwrap_or("none").to_owned();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(in_words(error)))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY {
                let what = format!("it is longer than {MAX_BODY} bytes");
                return Err(CloudError::Malformed { action: call.action, resource: call.resource.clone(), what });
            }
        }
        if status.is_success() { Ok(body) } else { Err(call.failure(status, &id, &body, &role.name)) }
    }
}

/// A call of Auto Scaling about one instance at one hook.
fn lifecycle(name: &str, iam: &'static str, action: &LifecycleAction, more: &[(&str, &str)]) -> Call {
    let LifecycleAction { group, hook, instance } = action;
    let mut parameters = vec![
        ("Action", name),
        ("Version", "2011-01-01"),
        ("AutoScalingGroupName", group.as_str()),
        ("LifecycleHookName", hook.as_str()),
        ("InstanceId", instance.as_str()),
    ];
    parameters.extend(more);
    Call::query(Service::AutoScaling, iam, format!("{group}, hook {hook:?}, {instance}"), &parameters)
}

/// Whether another try may come to something better.
fn may_pass(error: &CloudError, patience: Patience) -> bool {
    match error {
        CloudError::Busy { .. }
        | CloudError::Unreachable { .. }
        | CloudError::NotAccepted { .. }
        | CloudError::Metadata(_)
        | CloudError::Credentials { .. } => true,
        CloudError::Denied { .. } | CloudError::NoRole { .. } => patience.denied_may_pass,
        _ => false,
    }
}

/// From 0 to 1, another one each time.
fn random_part() -> f64 {
    // Each RandomState has other keys.
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    parameter: Parameter,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    value: String,
}
