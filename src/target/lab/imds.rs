//! The instance metadata service, version 2 only (AWS, "Use the Instance Metadata Service to access instance metadata"); and, at the same
//! address, as much of SSM Parameter Store as instances need that see no folder of this host.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::LabError;
use super::http::Head;
use super::network::METADATA_ADDRESS;

/// Its port.
const PORT: u16 = 80;
/// Longest life of a token, in seconds (AWS, same page: 6 hours).
const MAX_TTL_S: u64 = 21_600;
/// Tokens that are kept per instance; a client needs one.
const MAX_TOKENS: usize = 64;
/// A connection on which no request comes for this long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// What the service tells one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) instance: String,
    pub(super) private_address: Ipv4Addr,
    /// single-ec2 alone.
    pub(super) public_address: Option<IpAddr>,
    pub(super) zone: String,
    /// `InService` or `Terminated`.
    pub(super) lifecycle: &'static str,
    /// `None`: it was launched without.
    pub(super) user_data: Option<String>,
}

/// Name of the instances' role.
const ROLE: &str = "sipedge-lab";
const ROLES: &str = "meta-data/iam/security-credentials";
/// The role's credentials, which nobody checks: in the lab an instance is known by its address. They never expire.
const CREDENTIALS: &str = r#"{"Code":"Success","Type":"AWS-HMAC","LastUpdated":"2026-01-01T00:00:00Z","AccessKeyId":"lab","SecretAccessKey":"lab","Token":"lab","Expiration":"2099-01-01T00:00:00Z"}"#;
/// What a client of Parameter Store says that it wants (AWS Systems Manager API Reference, "GetParameter").
const GET_PARAMETER: &str = "AmazonSSM.GetParameter";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetParameter {
    name: String,
}

/// The service: tokens by instance.
#[derive(Debug, Default)]
pub(super) struct Service {
    tokens: RefCell<HashMap<Ipv4Addr, Vec<(String, Instant)>>>,
}

impl Service {
    /// Opens the listener, in the namespace in which this thread is.
    pub(super) async fn listen() -> Result<TcpListener, LabError> {
        let listener = TcpListener::bind((METADATA_ADDRESS, PORT)).await;
        listener.map_err(|error| LabError::kernel("listen as the metadata service", error))
    }

    /// Answers one client until it closes. `lookup` knows an instance by its source address, `parameter` the
    /// value of one by its name.
    pub(super) async fn serve(
        &self,
        stream: TcpStream,
        lookup: impl Fn(Ipv4Addr) -> Option<Metadata>,
        parameter: impl Fn(&str) -> Option<String>,
    ) -> io::Result<()> {
        let IpAddr::V4(source) = stream.peer_addr()?.ip() else { return Ok(()) };
        let mut stream = BufReader::new(stream);
        loop {
            let Ok(head) = tokio::time::timeout(IDLE, Head::read(&mut stream)).await else { return Ok(()) };
            let Some(head) = head? else { return Ok(()) };
            let close = head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            let (status, headers, body) = self.answer(&head, source, &lookup, &parameter)?;
            let answer = format!(
                "HTTP/1.1 {status}\r\nServer: EC2ws\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{headers}\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await?;
            if close {
                return Ok(());
            }
        }
    }

    /// Status line, further header lines, body.
    fn answer(
        &self,
        head: &Head,
        source: Ipv4Addr,
        lookup: impl Fn(Ipv4Addr) -> Option<Metadata>,
        parameter: impl Fn(&str) -> Option<String>,
    ) -> io::Result<(&'static str, String, String)> {
        const NOT_FOUND: (&str, String, String) = ("404 Not Found", String::new(), String::new());
        const UNAUTHORIZED: (&str, String, String) = ("401 Unauthorized", String::new(), String::new());
        let Some(metadata) = lookup(source) else { return Ok(NOT_FOUND) };
        match (head.method.as_str(), head.path.as_str()) {
            ("PUT", "/latest/api/token") => {
                if head.header("x-forwarded-for").is_some() {
                    return Ok(("403 Forbidden", String::new(), String::new()));
                }
                let ttl = head.header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|ttl| ttl.parse::<u64>().ok());
                let Some(ttl) = ttl.filter(|ttl| (1..=MAX_TTL_S).contains(ttl)) else {
                    return Ok(("400 Bad Request", String::new(), String::new()));
                };
                let token = self.issue(source, Duration::from_secs(ttl))?;
                Ok(("200 OK", format!("X-Aws-Ec2-Metadata-Token-Ttl-Seconds: {ttl}\r\n"), token))
            }
            ("POST", "/") if head.header("x-amz-target") == Some(GET_PARAMETER) => {
                let asked: Option<GetParameter> = serde_json::from_slice(&head.body).ok();
                let found = asked.and_then(|GetParameter { name }| Some((parameter(&name)?, name)));
                let Some((value, name)) = found else {
                    let body = r#"{"__type":"ParameterNotFound"}"#.to_owned();
                    return Ok(("400 Bad Request", String::new(), body));
                };
                let body =
                    json!({ "Parameter": { "Name": name, "Type": "SecureString", "Value": value, "Version": 1 } });
                Ok(("200 OK", String::new(), body.to_string()))
            }
            ("GET", path) => {
                let token = head.header("x-aws-ec2-metadata-token").unwrap_or_default();
                if !self.knows(source, token) {
                    return Ok(UNAUTHORIZED);
                }
                Ok(metadata.get(path).map_or(NOT_FOUND, |body| ("200 OK", String::new(), body)))
            }
            _ => Ok(("405 Method Not Allowed", "Allow: GET, PUT\r\n".to_owned(), String::new())),
        }
    }

    fn issue(&self, source: Ipv4Addr, ttl: Duration) -> io::Result<String> {
        let mut random = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let now = Instant::now();
        let mut tokens = self.tokens.borrow_mut();
        let own = tokens.entry(source).or_default();
        own.retain(|(_, until)| *until > now);
        if own.len() >= MAX_TOKENS {
            own.remove(0);
        }
        own.push((token.clone(), now + ttl));
        Ok(token)
    }

    fn knows(&self, source: Ipv4Addr, token: &str) -> bool {
        let now = Instant::now();
        let tokens = self.tokens.borrow();
        tokens.get(&source).is_some_and(|own| own.iter().any(|(known, until)| known == token && *until > now))
    }
}

impl Metadata {
    fn get(&self, path: &str) -> Option<String> {
        let path = path.strip_prefix("/latest/")?;
        match path.trim_end_matches('/') {
            "user-data" => self.user_data.clone(),
            ROLES => Some(ROLE.to_owned()),
            path if path.strip_prefix(ROLES).is_some_and(|role| role.strip_prefix('/') == Some(ROLE)) => {
                Some(CREDENTIALS.to_owned())
            }
            "meta-data/instance-id" => Some(self.instance.clone()),
            "meta-data/local-ipv4" => Some(self.private_address.to_string()),
            "meta-data/public-ipv4" => self.public_address.map(|address| address.to_string()),
            "meta-data/placement/availability-zone" => Some(self.zone.clone()),
            // A zone is its region and a letter.
            "meta-data/placement/region" => {
                Some(self.zone.trim_end_matches(|c: char| c.is_ascii_alphabetic()).to_owned())
            }
            "meta-data/autoscaling/target-lifecycle-state" => Some(self.lifecycle.to_owned()),
            _ => None,
        }
    }
}
