//! An HTTP server that speaks as much of Twilio's API as its client needs, and answers what a test says.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Of an account that is nobody's.
pub const SID: &str = "AC0123456789abcdef0123456789abcdef";
/// Its secret, which no output may have.
pub const TOKEN: &str = "planted-twilio-token-4711";

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub body: String,
    /// Whether it had the account's credentials.
    pub is_authorized: bool,
}

/// The server. Its thread ends with the test process.
pub struct StandIn {
    /// What `TWILIO_API_BASE` has to be.
    pub base: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl StandIn {
    /// Answers each request, one after the other, with what `answer` returns: a whole HTTP response.
    pub fn start(mut answer: impl FnMut(&Request) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let Some(request) = read(&stream) else { continue };
                seen.lock().expect("unpoisoned").push(request.clone());
                let _ = stream.write_all(answer(&request).as_bytes());
            }
        });
        Self { base, requests }
    }

    /// What has come so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("unpoisoned").clone()
    }
}

/// A whole response, after which the connection is closed.
pub fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// A call in this status, as the API describes it.
pub fn call(status: &str) -> String {
    serde_json::json!({
        "sid": "CA0123456789abcdef0123456789abcdef", "account_sid": SID, "status": status,
        "duration": if status == "completed" { Some("2") } else { None }, "direction": "outbound-api",
    })
    .to_string()
}

fn read(stream: &TcpStream) -> Option<Request> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let (mut length, mut is_authorized) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => {
                is_authorized = value == format!("Basic {}", BASE64_STANDARD.encode(format!("{SID}:{TOKEN}")))
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, body: String::from_utf8_lossy(&body).into_owned(), is_authorized })
}
