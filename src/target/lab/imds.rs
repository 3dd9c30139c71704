//! The instance metadata service, version 2 only (AWS, "Use the Instance Metadata Service to access instance metadata").

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

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
    pub(super) user_data: String,
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

    /// Answers one client until it closes. `lookup` knows an instance by its source address.
    pub(super) async fn serve(
        &self,
        stream: TcpStream,
        lookup: impl Fn(Ipv4Addr) -> Option<Metadata>,
    ) -> io::Result<()> {
        let IpAddr::V4(source) = stream.peer_addr()?.ip() else { return Ok(()) };
        let mut stream = BufReader::new(stream);
        loop {
            let Ok(head) = tokio::time::timeout(IDLE, Head::read(&mut stream)).await else { return Ok(()) };
            let Some(head) = head? else { return Ok(()) };
            let close = head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            let (status, headers, body) = self.answer(&head, source, &lookup)?;
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
            "user-data" => Some(self.user_data.clone()),
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
