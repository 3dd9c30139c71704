//! `POST /watch`: the messages that pass, one line of JSON for each, until its time is over or its client has gone.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use sipedge_sip::message::{Layout, Message};
use tokio::time::{Sleep, sleep};

use super::Admin;
use super::control::{Refused, refused};
use super::serving::Allowance;
use super::watched::{Passed, WatchEvent, WatchRequest};
use crate::net::{Direction, Filter, Seen, Watch};
use crate::observe::mask;

/// Longest watch: a day. What runs for longer is no look at a fault any more, and belongs on a host of its own.
const MAX_SECONDS: u32 = 86_400;

/// Time for the client to take the rest once the watch is over.
const FAREWELL: Duration = Duration::from_secs(5);

/// Bytes of lines that are handed to the connection at a time.
const BATCH: usize = 16 << 10;

pub(super) async fn watch(
    State(admin): State<Arc<Admin>>,
    Extension(allowance): Extension<Allowance>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let body = body.map_err(|error| refused(error.status(), format!("the request's body: {error}")))?;
    let request = read(&body).map_err(|text| refused(StatusCode::BAD_REQUEST, text))?;
    let methods = request.methods.iter().map(|method| method.to_ascii_uppercase()).collect();
    let filter = Filter { call_id: request.call_id.clone(), number: request.number.clone(), methods };
    let watch = admin.proxy.watch(filter).map_err(|error| refused(StatusCode::TOO_MANY_REQUESTS, error.to_string()))?;
    let time = Duration::from_secs(request.seconds.into());
    allowance.set(time + FAREWELL);
    let WatchRequest { call_id, number, methods, full, secrets, seconds, .. } = &request;
    tracing::info!(call_id, number, ?methods, full, secrets, seconds, "messages are shown by the control endpoint");
    let begin = WatchEvent::Begin { edge: admin.proxy.setup().config.edge.clone() };
    let left = request.count.unwrap_or(u64::MAX);
    let (full, secrets) = (request.full, request.secrets);
    let mut lines = Lines {
        watch,
        full,
        secrets,
        over: Box::pin(sleep(time)),
        left,
        shown: 0,
        told: 0,
        text: Vec::new(),
        state: Progress::Watching,
    };
    lines.add(&begin);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(lines)).into_response())
}

/// What is asked for; an empty body asks for everything.
fn read(body: &[u8]) -> Result<WatchRequest, String> {
    if body.is_empty() {
        return Ok(WatchRequest::default());
    }
    let request: WatchRequest = serde_json::from_slice(body).map_err(|error| {
        format!("the request's body: {error}; it is {{\"number\": \"+15551234567\", \"seconds\": 60}}")
    })?;
    match &request {
        WatchRequest { seconds, .. } if !(1..=MAX_SECONDS).contains(seconds) => {
            Err(format!("seconds {seconds}: 1 to {MAX_SECONDS}"))
        }
        WatchRequest { count: Some(0), .. } => Err("count 0: at least 1".to_owned()),
        _ => Ok(request),
    }
}

/// The lines of one watch.
#[derive(Debug)]
struct Lines {
    watch: Watch,
    full: bool,
    secrets: bool,
    /// When its time is over.
    over: Pin<Box<Sleep>>,
    /// Messages that may be shown yet.
    left: u64,
    shown: u64,
    /// Lost messages that the client knows of.
    told: u64,
    /// Lines that wait for the connection.
    text: Vec<u8>,
    state: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Watching,
    /// What was seen in time is shown yet.
    TimeIsOver,
    Ended,
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let lines = &mut *self;
        if lines.state == Progress::Watching && lines.over.as_mut().poll(context).is_ready() {
            lines.watch.stop();
            lines.state = Progress::TimeIsOver;
        }
        while lines.state != Progress::Ended && lines.text.len() < BATCH {
            let Poll::Ready(next) = lines.watch.poll_next(context) else { break };
            match next {
                Some(seen) => lines.add_message(seen),
                None => lines.end("time"),
            }
            if lines.left == 0 {
                lines.watch.stop();
                lines.end("count");
            }
        }
        match (lines.text.is_empty(), lines.state) {
            (false, _) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut lines.text).into())))),
            (true, Progress::Ended) => Poll::Ready(None),
            (true, _) => Poll::Pending,
        }
    }
}

impl Lines {
    fn add_message(&mut self, seen: Seen) {
        self.tell_lost();
        self.left -= 1;
        self.shown += 1;
        let passed = passed(seen, self.full, self.secrets);
        self.add(&WatchEvent::Message(passed));
    }

    fn end(&mut self, reason: &str) {
        self.tell_lost();
        self.add(&WatchEvent::End { reason: reason.to_owned(), shown: self.shown, lost: self.told });
        self.state = Progress::Ended;
    }

    fn tell_lost(&mut self) {
        let lost = self.watch.left_out();
        if lost > self.told {
            self.add(&WatchEvent::Lost { messages: lost - self.told });
            self.told = lost;
        }
    }

    fn add(&mut self, event: &WatchEvent) {
        // Strings and numbers can always be written, and a Vec takes them.
        let _ = serde_json::to_writer(&mut self.text, event);
        self.text.push(b'\n');
    }
}

fn passed(mut seen: Seen, full: bool, secrets: bool) -> Passed {
    let mut layout = Layout::default();
    let malformed = Message::read(&seen.bytes, &mut layout).err().map(|reason| reason.to_string());
    if !secrets {
        mask(&mut seen.bytes);
    }
    let call_id = Message::read_without_body(&seen.bytes, &mut layout).ok().and_then(|message| message.call_id());
    let call_id = call_id.map(|call_id| String::from_utf8_lossy(call_id).into_owned());
    let first_line = seen.bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let first_line = String::from_utf8_lossy(first_line).into_owned();
    let mut passed = Passed {
        time_us: seen.at.as_micros(),
        direction: if seen.direction == Direction::In { "in" } else { "out" }.to_owned(),
        transport: seen.transport.to_string(),
        source: seen.source,
        destination: seen.destination,
        first_line,
        call_id,
        malformed,
        message: None,
        message_base64: None,
    };
    if full {
        passed.set_bytes(seen.bytes);
    }
    passed
}
