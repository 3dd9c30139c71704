//! What `POST /watch` takes and answers: JSON that its clients read back.

use std::borrow::Cow;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// `POST /watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchRequest {
    /// Messages of this Call-ID alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// Messages that name this number or user alone, in Request-URI, From, To or P-Asserted-Identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// Requests of these methods and the responses to them alone; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Whole messages, and not their first lines alone.
    pub full: bool,
    /// With their secrets.
    pub secrets: bool,
    /// How long, in seconds; 1 to 86400.
    pub seconds: u32,
    /// After so many messages it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Default for WatchRequest {
    fn default() -> Self {
        Self {
            call_id: None,
            number: None,
            methods: Vec::new(),
            full: false,
            secrets: false,
            seconds: 600,
            count: None,
        }
    }
}

/// A line of the answer to `POST /watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum WatchEvent {
    /// The first line: what passes from now on is shown.
    Begin {
        /// Name of the edge.
        edge: String,
    },
    /// A message has passed.
    Message(Passed),
    /// Messages passed here that are not shown: they came faster than they were taken.
    Lost {
        /// How many.
        messages: u64,
    },
    /// The last line.
    End {
        /// `time` or `count`: what is over.
        reason: String,
        /// Messages that were shown.
        shown: u64,
        /// Messages that were not.
        lost: u64,
    },
}

/// A message that has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// When, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// `in` or `out`, as the edge sees it.
    pub direction: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Who sent it.
    pub source: SocketAddr,
    /// Whom it was sent to.
    pub destination: SocketAddr,
    /// Its first line; what is not UTF-8 in it is replaced.
    pub first_line: String,
    /// Its Call-ID, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// Why it is no message of SIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed: Option<String>,
    /// All of it, when whole messages were asked for and it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// All of it, when it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_base64: Option<String>,
}

impl Passed {
    /// Says what the message is, as text or as base64.
    pub(super) fn set_bytes(&mut self, bytes: Vec<u8>) {
        match String::from_utf8(bytes) {
            Ok(text) => self.message = Some(text),
            Err(error) => {
                let bytes = error.into_bytes();
                let mut text = vec![0; base64::encoded_len(bytes.len(), true).unwrap_or_default()];
                // The buffer has the length that it takes, and base64 is ASCII.
                let written = STANDARD.encode_slice(bytes, &mut text).unwrap_or_default();
                text.truncate(written);
                self.message_base64 = String::from_utf8(text).ok();
            }
        }
    }

    /// The whole message. `None`: whole messages were not asked for.
    pub fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        if let Some(text) = &self.message {
            return Some(text.as_bytes().into());
        }
        let text = self.message_base64.as_ref()?;
        let mut bytes = vec![0; base64::decoded_len_estimate(text.len())];
        let length = STANDARD.decode_slice(text, &mut bytes).ok()?;
        bytes.truncate(length);
        Some(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_byte_by_byte() {
        let texts: [&[u8]; 3] = [b"OPTIONS sip:a SIP/2.0\r\n\r\n", b"\xff\xfe", b"caf\xe9 \0"];
        for bytes in texts {
            let text = r#"{"event":"message","time_us":1,"direction":"in","transport":"udp","source":"192.0.2.1:1",
                "destination":"192.0.2.2:2","first_line":""}"#;
            let WatchEvent::Message(mut passed) = serde_json::from_str(text).unwrap() else { panic!("a message") };
            assert_eq!(passed.bytes(), None);
            passed.set_bytes(bytes.to_vec());
            let line = serde_json::to_string(&WatchEvent::Message(passed)).unwrap();
            let WatchEvent::Message(passed) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
            assert_eq!(passed.bytes().as_deref(), Some(bytes), "{line}");
        }
    }
}
