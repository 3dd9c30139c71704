//! Messages in a stream of bytes: TCP, TLS (RFC 3261 §7.5, §18.3), and the keep-alives between them (RFC 5626 §3.5.1).

use memchr::memchr;

use crate::message::announced_body;

/// Most bytes of start line and headers, the empty line included. 64 KiB: what the largest datagram holds, so that no message is
/// possible over a stream that is not over UDP.
pub const MAX_HEAD: usize = 64 * 1024;

/// Usual limit of a message body in bytes. 64 KiB: far above any session description, and above what any peer over UDP can have sent.
pub const MAX_BODY: usize = 64 * 1024;

/// Cuts a stream of bytes into messages and keep-alives. One per connection and direction.
///
/// It keeps bytes of a message only while that is incomplete, at most [`MAX_HEAD`] and the body's limit; one that lies whole in what was
/// received is handed out from there. How the stream was cut into pieces on its way makes no difference to what comes out.
///
/// Where a message ends is judged as [`crate::message::Message::read`] judges it: a bare LF ends a line too, a header may be folded,
/// names may be compact. Nothing else of a message is judged here: a frame may still be no SIP message.
#[derive(Debug)]
pub struct Framer {
    most_head: usize,
    most_body: usize,
    /// The begin of a message.
    partial: Vec<u8>,
    state: State,
}

impl Framer {
    /// At the start of a stream; a message with a body of more than `most_body` bytes ends it (see [`MAX_BODY`]).
    pub fn new(most_body: usize) -> Self {
        Self { most_head: MAX_HEAD, most_body, partial: Vec::new(), state: State::BETWEEN }
    }

    /// The next frame of the stream. `received` is what has come since, or what the last call has left of it; what is used is taken off
    /// it. Call until there is no frame: then `received` is empty.
    ///
    /// # Errors
    ///
    /// Where the next message begins cannot be known any more: close the connection (RFC 3261 §18.3). The error comes again at each
    /// further call.
    pub fn next<'a, 'r: 'a>(&'a mut self, received: &mut &'r [u8]) -> Result<Option<Frame<'a>>, FramingError> {
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        let result = self.advance(received);
        match result {
            Ok(Found::Nothing) => Ok(None),
            Ok(Found::Ping) => Ok(Some(Frame::Ping)),
            Ok(Found::Pong) => Ok(Some(Frame::Pong)),
            Ok(Found::Received(message)) => Ok(Some(Frame::Message(message))),
            Ok(Found::Kept) => Ok(Some(Frame::Message(&self.partial))),
            Err(error) => {
                self.partial = Vec::new();
                self.state = State::Failed(error);
                Err(error)
            }
        }
    }

    /// Whether a message has begun that is not complete: the peer owes the rest of it.
    pub fn is_within_message(&self) -> bool {
        matches!(self.state, State::Head(_) | State::Body { .. })
    }

    /// Bytes of memory held for an incomplete message, or kept for the next one: at most [`MAX_HEAD`] and the body's limit.
    pub fn held(&self) -> usize {
        self.partial.capacity()
    }

    fn advance<'r>(&mut self, received: &mut &'r [u8]) -> Result<Found<'r>, FramingError> {
        if let State::Taken = self.state {
            self.recycle();
        }
        if let State::Between(blank) = &mut self.state {
            if let Some(keep_alive) = blank.skip(received) {
                return Ok(keep_alive);
            }
            if received.is_empty() {
                return Ok(Found::Nothing);
            }
            self.state = State::Head(Search::Text);
        }
        if let State::Head(search) = &mut self.state {
            let room = self.most_head.saturating_sub(self.partial.len());
            let window = received.get(..room).unwrap_or(received);
            let Some(end) = search.find(window) else {
                if window.len() == room {
                    return Err(FramingError::HeadTooLong { most: self.most_head });
                }
                self.keep(received, received.len());
                return Ok(Found::Nothing);
            };
            let length = self.partial.len() + end;
            let body = if self.partial.is_empty() {
                self.body_length(window.get(..end).unwrap_or_default())?
            } else {
                self.keep(received, end);
                self.body_length(&self.partial)?
            };
            self.state = State::Body { end: length + body };
        }
        let State::Body { end } = self.state else { return Ok(Found::Nothing) };
        if self.partial.is_empty()
            && let Some((message, rest)) = received.split_at_checked(end)
        {
            *received = rest;
            self.state = State::BETWEEN;
            return Ok(Found::Received(message));
        }
        self.keep(received, received.len().min(end.saturating_sub(self.partial.len())));
        if self.partial.len() < end {
            return Ok(Found::Nothing);
        }
        self.state = State::Taken;
        Ok(Found::Kept)
    }

    fn body_length(&self, head: &[u8]) -> Result<usize, FramingError> {
        match announced_body(head) {
            Ok(Some(announced)) if announced > self.most_body => {
                Err(FramingError::BodyTooLong { announced, most: self.most_body })
            }
            Ok(Some(announced)) => Ok(announced),
            Ok(None) => Err(FramingError::NoContentLength),
            Err(_) => Err(FramingError::ContentLength),
        }
    }

    /// Moves the first `count` bytes of `received` to the message that is incomplete.
    fn keep(&mut self, received: &mut &[u8], count: usize) {
        let Some((taken, rest)) = received.split_at_checked(count) else { return };
        let needed = self.partial.len() + taken.len();
        if needed > self.partial.capacity() {
            // Doubled, so that each byte is moved a few times at most; never past the limit; never on a peer's mere announcement.
            let doubled = self.partial.capacity().saturating_mul(2).max(LEAST_CAPACITY);
            let most = self.most_head.saturating_add(self.most_body);
            let capacity = doubled.min(most).max(needed);
            self.partial.reserve_exact(capacity - self.partial.len());
        }
        self.partial.extend_from_slice(taken);
        *received = rest;
    }

    fn recycle(&mut self) {
        self.partial.clear();
        if self.partial.capacity() > KEPT_CAPACITY {
            self.partial = Vec::new();
        }
        self.state = State::BETWEEN;
    }
}

/// What a stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A message: start line, headers, empty line, and the body as long as Content-Length says.
    Message(&'a [u8]),
    /// CRLF CRLF between messages: to be answered by one CRLF (RFC 5626 §4.4.1), unless it came as the [`Frame::Pong`] that was waited
    /// for.
    Ping,
    /// One CRLF between messages: the answer to a ping of ours, or nothing (RFC 3261 §7.5). It comes before the second CRLF, if there
    /// is one, has made a ping of it. While a ping of ours is unanswered, the first frame of either kind is its answer.
    Pong,
}

/// Why a stream can be read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// Start line and headers have no end within the limit: not SIP, or an attack.
    #[error("no end of the headers within {most} bytes")]
    HeadTooLong {
        /// The limit in bytes.
        most: usize,
    },
    /// There is no Content-Length, which a stream needs (RFC 3261 §18.3, §20.14).
    #[error("a message without Content-Length: over TCP and TLS nobody knows where it ends")]
    NoContentLength,
    /// Content-Length is not a number, or there are two that differ.
    #[error("Content-Length is not a number, or there are two that differ")]
    ContentLength,
    /// The body is longer than it may be.
    #[error("Content-Length announces {announced} bytes, the limit is {most}")]
    BodyTooLong {
        /// Content-Length.
        announced: usize,
        /// The limit in bytes.
        most: usize,
    },
}

/// [`Frame`], without a borrow of the framer.
enum Found<'r> {
    Nothing,
    Ping,
    Pong,
    /// A message that lies whole in what was received.
    Received(&'r [u8]),
    /// The message that has been put together.
    Kept,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Before a start line.
    Between(Blank),
    /// Within start line and headers.
    Head(Search),
    /// The headers are complete; the message ends `end` bytes after its begin.
    Body { end: usize },
    /// A message that was put together has been handed out: its memory is free at the next call.
    Taken,
    /// The stream is lost.
    Failed(FramingError),
}

impl State {
    const BETWEEN: Self = Self::Between(Blank { after_cr: false, odd: false });
}

/// Line ends before a start line.
#[derive(Debug, Clone, Copy)]
struct Blank {
    /// The last byte was CR.
    after_cr: bool,
    /// An odd number of CRLFs has come since the last message.
    odd: bool,
}

impl Blank {
    /// Takes line ends off `received`, up to the next keep-alive or the start line. Bare ones are passed over.
    fn skip<'r>(&mut self, received: &mut &'r [u8]) -> Option<Found<'r>> {
        while let Some((byte @ (b'\r' | b'\n'), rest)) = received.split_first() {
            *received = rest;
            let is_crlf = *byte == b'\n' && self.after_cr;
            self.after_cr = *byte == b'\r';
            if is_crlf {
                self.odd = !self.odd;
                return Some(if self.odd { Found::Pong } else { Found::Ping });
            }
        }
        None
    }
}

/// The search for an empty line: what the bytes searched so far end with. No byte is looked at twice.
#[derive(Debug, Clone, Copy)]
enum Search {
    Text,
    LineEnd,
    /// CR right after a line end.
    CarriageReturn,
}

impl Search {
    /// Offset after the empty line, when it ends in `bytes`.
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            match self {
                Self::Text => {
                    at += memchr(b'\n', bytes.get(at..)?)? + 1;
                    *self = Self::LineEnd;
                }
                Self::LineEnd | Self::CarriageReturn => match bytes.get(at)? {
                    b'\n' => return Some(at + 1),
                    b'\r' if matches!(self, Self::LineEnd) => {
                        at += 1;
                        *self = Self::CarriageReturn;
                    }
                    _ => *self = Self::Text,
                },
            }
        }
    }
}

/// First allocation for an incomplete message, in bytes: a small INVITE.
const LEAST_CAPACITY: usize = 1024;
/// Memory of a connection that is kept for its next incomplete message, in bytes. Most messages need no more; ten thousand idle
/// connections hold at most 40 MB.
const KEPT_CAPACITY: usize = 4 * 1024;

#[cfg(test)]
mod tests;
