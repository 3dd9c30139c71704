use std::net::IpAddr;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use rustls::RootCertStore;

use super::http::{self, in_words};

/// Where every EC2 instance finds its metadata (AWS, "Instance metadata service").
pub const METADATA_URL: &str = "http://169.254.169.254";

/// Longest response that is read, in bytes: user data has at most 16 KB (AWS, "Run commands at launch").
const MAX_BODY: usize = 64 << 10;

/// Time for one request. The service answers within milliseconds; while an instance starts, packets to it may be lost.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// First and longest pause between tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Life of the session token, in seconds: far longer than a boot.
const TOKEN_TTL: &str = "300";

/// The instance metadata service, version 2.
#[derive(Debug)]
pub struct Metadata {
    http: Client,
    base: String,
    deadline: Deadline,
    token: Option<String>,
}

/// Why metadata could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// No useful answer before the deadline.
    #[error("instance metadata: {url}: no answer within {} s: {last}", after.as_secs_f32())]
    Deadline {
        /// What was asked for.
        url: String,
        /// The deadline.
        after: Duration,
        /// What the last try came to.
        last: String,
    },
    /// An answer that trying again would not change.
    #[error("instance metadata: {url}: {status}; {hint}")]
    Refused {
        /// What was asked for.
        url: String,
        /// Its answer.
        status: StatusCode,
        /// What to look at.
        hint: &'static str,
    },
    /// An answer that makes no sense.
    #[error("instance metadata: {url}: {what}")]
    Malformed {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        what: String,
    },
}

impl Metadata {
    /// The service at `base`; everything asked of it has to come before `deadline` has passed.
    pub fn new(base: &str, deadline: Duration) -> Result<Self, MetadataError> {
        let base = base.trim_end_matches('/').to_owned();
        let wrong = |error: String| MetadataError::Malformed { url: base.clone(), what: error };
        // The service speaks plain HTTP, so nobody is trusted.
        let client = http::client(RootCertStore::empty()).map_err(|error| wrong(error.to_string()))?;
        let http = client.timeout(REQUEST_TIMEOUT).build().map_err(|error| wrong(error.to_string()))?;
        Ok(Self { http, base, deadline: Deadline { started: Instant::now(), after: deadline }, token: None })
    }

    /// The instance's private IPv4 address.
    pub async fn private_address(&mut self) -> Result<IpAddr, MetadataError> {
        let path = "latest/meta-data/local-ipv4";
        match self.get(path).await? {
            Some(body) => self.address(path, &body),
            None => Err(self.malformed(path, "404 Not Found: the instance has no private IPv4 address".into())),
        }
    }

    /// The instance's public IPv4 address. `None`: it has none, now.
    pub async fn public_address(&mut self) -> Result<Option<IpAddr>, MetadataError> {
        let path = "latest/meta-data/public-ipv4";
        match self.get(path).await? {
            Some(body) => self.address(path, &body).map(Some),
            None => Ok(None),
        }
    }

    /// As [`Metadata::public_address`], but waits for one until the deadline: an Elastic IP may be associated after the start.
    pub async fn awaited_public_address(&mut self) -> Result<Option<IpAddr>, MetadataError> {
        let mut pause = BACKOFF.0;
        loop {
            let address = self.public_address().await?;
            if address.is_some() || !self.deadline.pause(&mut pause).await {
                return Ok(address);
            }
        }
    }

    /// The instance's user-data. `None`: it was launched without.
    pub async fn user_data(&mut self) -> Result<Option<Vec<u8>>, MetadataError> {
        self.get("latest/user-data").await
    }

    /// The instance's name, such as `i-0123456789abcdef0`.
    pub async fn instance_id(&mut self) -> Result<String, MetadataError> {
        self.text("latest/meta-data/instance-id").await
    }

    /// The region that the instance is in.
    pub async fn region(&mut self) -> Result<String, MetadataError> {
        self.text("latest/meta-data/placement/region").await
    }

    /// The state that its group brings the instance to, such as `InService` or `Terminated`. `None`: it is in no group.
    pub async fn target_lifecycle_state(&mut self) -> Result<Option<String>, MetadataError> {
        let state = self.get("latest/meta-data/autoscaling/target-lifecycle-state").await?;
        Ok(state.map(|state| String::from_utf8_lossy(&state).trim().to_owned()))
    }

    /// Makes the time that answers may take begin anew.
    pub(crate) fn allow(&mut self, after: Duration) {
        self.deadline = Deadline { started: Instant::now(), after };
    }

    async fn text(&mut self, path: &str) -> Result<String, MetadataError> {
        match self.get(path).await? {
            Some(body) => Ok(String::from_utf8_lossy(&body).trim().to_owned()),
            None => Err(self.malformed(path, "404 Not Found: every EC2 instance has one".into())),
        }
    }

    /// `GET`, with the token. `None`: 404.
    pub(super) async fn get(&mut self, path: &str) -> Result<Option<Vec<u8>>, MetadataError> {
        let url = self.url(path);
        let mut pause = BACKOFF.0;
        loop {
            let token = self.token().await?;
            let last = match self.request(Method::GET, &url, ("X-aws-ec2-metadata-token", &token)).await {
                Ok((status, body)) if status.is_success() => return Ok(Some(body)),
                Ok((StatusCode::NOT_FOUND, _)) => return Ok(None),
                // The token has expired, or the service has forgotten it.
                Ok((status @ StatusCode::UNAUTHORIZED, _)) => {
                    self.token = None;
                    status.to_string()
                }
                Ok((status, _)) => transient(&url, status)?,
                Err(error) => error,
            };
            self.wait(&url, &mut pause, last).await?;
        }
    }

    async fn token(&mut self) -> Result<String, MetadataError> {
        if let Some(token) = &self.token {
            return Ok(token.clone());
        }
        let url = self.url("latest/api/token");
        let mut pause = BACKOFF.0;
        loop {
            let header = ("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL);
            let last = match self.request(Method::PUT, &url, header).await {
                Ok((status, body)) if status.is_success() => {
                    let Ok(token) = String::from_utf8(body) else {
                        return Err(MetadataError::Malformed { url, what: "the token is not text".into() });
                    };
                    self.token = Some(token.clone());
                    return Ok(token);
                }
                Ok((status, _)) => transient(&url, status)?,
                Err(error) => error,
            };
            self.wait(&url, &mut pause, last).await?;
        }
    }

    async fn request(
        &self,
        method: Method,
        url: &str,
        header: (&'static str, &str),
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let request = self.http.request(method, url).header(header.0, header.1);
        let mut response = request.send().await.map_err(in_words)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(in_words)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY {
                return Err(format!("the answer is longer than {MAX_BODY} bytes"));
            }
        }
        Ok((response.status(), body))
    }

    async fn wait(&self, url: &str, pause: &mut Duration, last: String) -> Result<(), MetadataError> {
        tracing::debug!(url, "instance metadata: {last}");
        if self.deadline.pause(pause).await {
            return Ok(());
        }
        Err(MetadataError::Deadline { url: url.to_owned(), after: self.deadline.after, last })
    }

    fn address(&self, path: &str, body: &[u8]) -> Result<IpAddr, MetadataError> {
        let text = String::from_utf8_lossy(body);
        text.trim().parse().map_err(|_| self.malformed(path, format!("{:?} is no IP address", text.trim())))
    }

    fn malformed(&self, path: &str, what: String) -> MetadataError {
        MetadataError::Malformed { url: self.url(path), what }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }
}

/// The status in words when another try may bring a better one.
fn transient(url: &str, status: StatusCode) -> Result<String, MetadataError> {
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT {
        return Ok(status.to_string());
    }
    let hint = match status {
        StatusCode::FORBIDDEN => "the instance's metadata options have to enable the HTTP endpoint",
        _ => "is this an instance metadata service (IMDSv2)?",
    };
    Err(MetadataError::Refused { url: url.to_owned(), status, hint })
}

#[derive(Debug)]
struct Deadline {
    started: Instant,
    after: Duration,
}

impl Deadline {
    /// Sleeps for `pause` and doubles it. `false`: the deadline would pass meanwhile.
    async fn pause(&self, pause: &mut Duration) -> bool {
        let left = self.after.saturating_sub(self.started.elapsed());
        if left <= *pause {
            return false;
        }
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(BACKOFF.1);
        true
    }
}
