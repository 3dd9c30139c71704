//! The control endpoint, asked without the client that is tested elsewhere.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::DEADLINE;

/// Name of the socket in a test's folder.
pub const SOCKET: &str = "control.sock";

/// One request: status code and document of the answer.
pub fn ask(folder: &Path, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(folder.join(SOCKET)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
    let document = serde_json::from_str(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), document)
}

pub fn get(folder: &Path, path: &str) -> Value {
    let (status, document) = ask(folder, "GET", path, "");
    assert_eq!(status, 200, "{path}: {document}");
    document
}

pub fn reload(folder: &Path) -> (u16, Value) {
    ask(folder, "POST", "/reload", "")
}

/// The reasons of a refusal, as they are written on a line.
pub fn reasons(refusal: &Value) -> Vec<String> {
    let reasons = refusal["reasons"].as_array().unwrap_or_else(|| panic!("no reasons: {refusal}"));
    let line = |reason: &Value| {
        let place = match (reason["file"].as_str(), reason["line"].as_u64(), reason["column"].as_u64()) {
            (Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}: "),
            (Some(file), ..) => format!("{file}: "),
            _ => String::new(),
        };
        format!("{place}{}", reason["text"].as_str().unwrap())
    };
    reasons.iter().map(line).collect()
}
