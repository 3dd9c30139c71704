//! The little HTTP that the lab speaks: heads of requests for the metadata service, and `GET` for health checks.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest line of a request, and longest head in lines: what a metadata client sends fits many times.
const MAX_LINE: u64 = 4096;
const MAX_LINES: usize = 64;
/// Largest answer that is read: metrics of a busy proxy are some 100 kB.
const MAX_ANSWER: u64 = 4 << 20;

/// Longest body of a request that is kept: the name of a parameter fits many times.
const MAX_BODY: u64 = 16 << 10;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    headers: Vec<(String, String)>,
    /// Up to 16 KiB of it.
    pub(super) body: Vec<u8>,
}

impl Head {
    /// The value of a header, whatever its case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Reads the next request. `None`: the client has closed.
    pub(super) async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let Some(first) = line(stream).await? else { return Ok(None) };
        let mut words = first.split_ascii_whitespace();
        let (Some(method), Some(path), Some(_version)) = (words.next(), words.next(), words.next()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not an HTTP request"));
        };
        let mut head = Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() };
        loop {
            match line(stream).await? {
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(line) if line.is_empty() => break,
                Some(_) if head.headers.len() >= MAX_LINES => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "too many headers"));
                }
                Some(line) => {
                    if let Some((name, value)) = line.split_once(':') {
                        head.headers.push((name.to_owned(), value.trim().to_owned()));
                    }
                }
            }
        }
        let length = head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let kept = length.min(MAX_BODY);
        (&mut *stream).take(kept).read_to_end(&mut head.body).await?;
        tokio::io::copy(&mut stream.take(length - kept), &mut tokio::io::sink()).await?;
        Ok(Some(head))
    }
}

/// `GET path`: status code and body.
pub(super) async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: ELB-HealthChecker/2.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_ascii_whitespace().nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))?;
    Ok((status, body.to_owned()))
}

async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if stream.take(MAX_LINE).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long or cut off"));
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()))
}
