//! The client's side of digest authentication, as RFC 7616 §3.4.1 has it, with hashes of its own crates' making.

use super::sip::{Agent, Message};

/// What the answerer asks for.
pub const USER: &str = "sipedge-verify";
pub const PASSWORD: &str = "planted-password-0123456789";

/// A challenge in one WWW-Authenticate header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub realm: String,
    pub nonce: String,
    pub algorithm: String,
    pub stale: bool,
}

impl Challenge {
    /// All challenges of a 401, in their order.
    pub fn all(message: &Message) -> Vec<Self> {
        let parameter = |line: &str, name: &str| {
            let at = line.find(&format!("{name}="))? + name.len() + 1;
            let value = line[at..].trim_start_matches('"');
            Some(value[..value.find(['"', ',']).unwrap_or(value.len())].to_owned())
        };
        let lines = message.text.lines().filter_map(|line| line.strip_prefix("WWW-Authenticate: Digest "));
        lines
            .map(|line| Self {
                realm: parameter(line, "realm").unwrap(),
                nonce: parameter(line, "nonce").unwrap(),
                algorithm: parameter(line, "algorithm").unwrap(),
                stale: parameter(line, "stale").as_deref() == Some("true"),
            })
            .collect()
    }

    /// The Authorization header line that answers it.
    pub fn answer(&self, method: &str, uri: &str, user: &str, password: &str, count: u32) -> String {
        let Self { realm, nonce, algorithm, .. } = self;
        let hash = |text: String| match algorithm.as_str() {
            "MD5" => hexadecimal(&<md5::Md5 as md5::Digest>::digest(text)),
            _ => hexadecimal(&<sha2::Sha256 as sha2::Digest>::digest(text)),
        };
        let secret = hash(format!("{user}:{realm}:{password}"));
        let request = hash(format!("{method}:{uri}"));
        let response = hash(format!("{secret}:{nonce}:{count:08x}:c0ffee:auth:{request}"));
        format!(
            "Authorization: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm={algorithm}, qop=auth, nc={count:08x}, cnonce=\"c0ffee\"\r\n"
        )
    }
}

/// `request` as a transaction of its own, with a header line more.
pub fn with(request: &str, header: &str, number: u32) -> String {
    let (start, rest) = request.split_once("\r\n").unwrap();
    let method = start.split(' ').next().unwrap();
    let rest = rest.replace("branch=z9hG4bK", &format!("branch=z9hG4bK{number}x"));
    let rest = rest.replace(&format!("CSeq: 1 {method}"), &format!("CSeq: {number} {method}"));
    format!("{start}\r\n{header}{rest}")
}

/// The ACK of a refusal (RFC 3261 §17.1.1.3).
pub fn ack(invite: &str, refusal: &Message) -> String {
    let line = |name: &str| invite.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let number = line("CSeq").split(' ').nth(1).unwrap().to_owned();
    let uri = invite.split(' ').nth(1).unwrap();
    format!(
        "ACK {uri} SIP/2.0\r\n{}\r\nMax-Forwards: 70\r\n{}\r\nTo: {}\r\n{}\r\nCSeq: {number} ACK\r\nContent-Length: 0\r\n\r\n",
        line("Via"),
        line("From"),
        refusal.header("To"),
        line("Call-ID"),
    )
}

/// An INVITE to the answerer that was challenged: the INVITE, and the challenges.
pub fn challenged(caller: &Agent, edge: std::net::SocketAddr, user: &str, call_id: &str) -> (String, Vec<Challenge>) {
    let invite = caller.request("INVITE", &format!("sip:{user}@{edge}"), call_id);
    caller.send(&invite, edge);
    let refusal = caller.expect("SIP/2.0 401");
    caller.send(&ack(&invite, &refusal), edge);
    (invite, Challenge::all(&refusal))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
