//! The commands that show what passes: `watch` on the terminal, `capture` into a file.

use std::fs::OpenOptions;
use std::future::pending;
use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use sipedge_proxy::admin::client::{self, ClientError};
use sipedge_proxy::admin::show;
use sipedge_proxy::admin::watched::{Passed, WatchEvent, WatchRequest};
use sipedge_proxy::observe::pcapng::{Capture, Packet};

use crate::control::Endpoint;

#[derive(Subcommand)]
pub(crate) enum WatchCommand {
    /// Print the SIP messages that pass the running proxy, decrypted and without their secrets.
    #[command(after_help = WATCH_HELP)]
    Watch {
        #[command(flatten)]
        wanted: Wanted,
        /// How long: 90, 60s, 5m, 2h; a day at most.
        #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = seconds)]
        time: u32,
        /// Print whole messages, and not their first lines alone.
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Write the SIP messages that pass the running proxy to a file for Wireshark, sngrep or tcpdump.
    #[command(after_help = CAPTURE_HELP)]
    Capture {
        /// The file, which must not be there yet; `-` for standard output.
        file: PathBuf,
        #[command(flatten)]
        wanted: Wanted,
        /// How long: 90, 60s, 5m, 2h; a day at most.
        #[arg(long = "for", value_name = "DURATION", default_value = "5m", value_parser = seconds)]
        time: u32,
        /// How large the file may get, in megabytes.
        #[arg(long, value_name = "MB", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        max_mb: u32,
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

#[derive(Args)]
pub(crate) struct Wanted {
    /// Messages of this call alone, on both sides of the edge.
    #[arg(long, value_name = "CALL-ID")]
    call_id: Option<String>,
    /// Messages that name this number or user alone, in Request-URI, From, To or P-Asserted-Identity.
    #[arg(long, value_name = "NUMBER")]
    number: Option<String>,
    /// Requests of these methods and the responses to them alone.
    #[arg(long = "method", value_name = "METHOD", value_delimiter = ',')]
    methods: Vec<String>,
    /// End after so many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Leave the responses of digest authentication, the signatures of route tokens and the keys of media in.
    #[arg(long)]
    secrets: bool,
}

const WATCH_HELP: &str = "\
Examples:
  sipedge-proxy watch                                every message, for ten minutes or until Ctrl-C
  sipedge-proxy watch --number +15551234567 --full   whole messages of calls from and to a number
  sipedge-proxy watch --method INVITE,BYE --for 60s
  sipedge-proxy watch --json --count 100             one JSON document per line

A number is found however it is written, and without its country code. Messages never wait for whoever watches: those that come too
fast are left out, and their number is printed. Four may watch at a time.";

const CAPTURE_HELP: &str = "\
Examples:
  sipedge-proxy capture /tmp/edge.pcapng --for 5m
  sipedge-proxy capture /tmp/call.pcapng --call-id a84b4c76e66710
  sipedge-proxy capture - --for 1m | tshark -r - -Y sip

The file has mode 0600. Each message is one UDP datagram in it, whatever it came over; messages of TLS are in the clear.";

/// Exit code: the file cannot be written; see docs/proxy.md.
const CANNOT_WRITE: u8 = 11;

/// Exit code of a wrong command line, as clap has it.
const USAGE: u8 = 2;

/// What a packet's headers and a block's take at most, in bytes, on top of the message.
const PACKET_OVERHEAD: u64 = 256;

impl WatchCommand {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::Watch { wanted, time, full, endpoint } => watch(&wanted.request(time, full), &endpoint),
            Self::Capture { file, wanted, time, max_mb, endpoint } => {
                capture(&file, &wanted.request(time, true), u64::from(max_mb) * 1_000_000, &endpoint)
            }
        }
    }
}

impl Wanted {
    fn request(self, seconds: u32, full: bool) -> WatchRequest {
        let Self { call_id, number, methods, count, secrets } = self;
        WatchRequest { call_id, number, methods, full, secrets, seconds, count }
    }
}

fn watch(request: &WatchRequest, endpoint: &Endpoint) -> ExitCode {
    let mut out = stdout().lock();
    let mut print = |text: &str| match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ControlFlow::Continue(()),
        // Whoever has closed the pipe has read enough.
        Err(_) => ControlFlow::Break(()),
    };
    let result = follow(request, endpoint, |line, event| match event {
        _ if endpoint.json => print(&format!("{}\n", String::from_utf8_lossy(line))),
        Some(WatchEvent::Message(passed)) => print(&show::passed(&passed)),
        Some(other) => {
            eprint!("{}", show::watch_event(&other));
            ControlFlow::Continue(())
        }
        // Of another version of the proxy.
        None => print(&format!("{}\n", show::printable(&String::from_utf8_lossy(line)))),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => endpoint.failed(&error),
    }
}

/// A capture under way.
struct Capturing<'a> {
    file: &'a Path,
    most_bytes: u64,
    capture: Option<Capture<Box<dyn Write>>>,
    messages: u64,
    lost: u64,
    ended: &'static str,
}

fn capture(file: &Path, request: &WatchRequest, most_bytes: u64, endpoint: &Endpoint) -> ExitCode {
    let to_stdout = file == Path::new("-");
    if to_stdout && stdout().is_terminal() {
        eprintln!("sipedge-proxy: a capture is not for a terminal: name a file, or pipe it into a program");
        return ExitCode::from(USAGE);
    }
    let mut capturing = Capturing { file, most_bytes, capture: None, messages: 0, lost: 0, ended: "interrupted" };
    let mut trouble = None;
    let result = follow(request, endpoint, |_, event| match event.map(|event| capturing.take(event)) {
        Some(Ok(flow)) => flow,
        None => ControlFlow::Continue(()),
        Some(Err(error)) => {
            trouble = Some(error);
            ControlFlow::Break(())
        }
    });
    let (messages, lost, ended) = (capturing.messages, capturing.lost, capturing.ended);
    let written = match trouble {
        Some(error) => Err(error),
        None => capturing.finish(),
    };
    let name = file.display();
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::AlreadyExists => "; it stays as it is: name another file, or remove it",
                io::ErrorKind::StorageFull => "; what was written until then can be read",
                _ => "",
            };
            eprintln!("sipedge-proxy: {name}: {error}{hint}");
            return ExitCode::from(CANNOT_WRITE);
        }
    };
    if let Err(error) = result {
        return endpoint.failed(&error);
    }
    if endpoint.json {
        let report =
            serde_json::json!({ "file": file, "messages": messages, "lost": lost, "bytes": bytes, "ended": ended });
        let out: &mut dyn Write = if to_stdout { &mut stderr() } else { &mut stdout() };
        let _ = writeln!(out, "{report}");
    } else {
        eprintln!("{name}: {}", show::captured(messages, lost, bytes, ended));
    }
    ExitCode::SUCCESS
}

impl Capturing<'_> {
    fn take(&mut self, event: WatchEvent) -> io::Result<ControlFlow<()>> {
        match event {
            WatchEvent::Begin { edge } => {
                self.capture = Some(Capture::begin(open(self.file)?, &format!("sipedge {edge}"))?);
            }
            WatchEvent::Message(passed) => return self.add(&passed),
            WatchEvent::Lost { messages } => self.lost += messages,
            WatchEvent::End { reason, .. } => self.ended = if reason == "count" { "count" } else { "time" },
        }
        Ok(ControlFlow::Continue(()))
    }

    fn add(&mut self, passed: &Passed) -> io::Result<ControlFlow<()>> {
        let (Some(capture), Some(message)) = (&mut self.capture, passed.bytes()) else {
            return Ok(ControlFlow::Continue(()));
        };
        if capture.written() + message.len() as u64 + PACKET_OVERHEAD > self.most_bytes {
            self.ended = "size";
            return Ok(ControlFlow::Break(()));
        }
        let transport = passed.transport.to_uppercase();
        let comment = match &passed.malformed {
            Some(reason) => format!("{transport}; {reason}"),
            None => transport,
        };
        capture.packet(&Packet {
            at_us: passed.time_us,
            is_inbound: passed.direction == "in",
            source: passed.source,
            destination: passed.destination,
            comment: &comment,
            message: &message,
        })?;
        self.messages += 1;
        Ok(ControlFlow::Continue(()))
    }

    /// Bytes of the whole file.
    fn finish(self) -> io::Result<u64> {
        let Some(capture) = self.capture else { return Ok(0) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        capture.end(u64::try_from(now.as_micros()).unwrap_or_default(), self.messages + self.lost, self.lost)
    }
}

/// A new file that its owner alone may read, or standard output.
fn open(file: &Path) -> io::Result<Box<dyn Write>> {
    const MODE: u32 = 0o600;
    if file == Path::new("-") {
        return Ok(Box::new(stdout()));
    }
    Ok(Box::new(OpenOptions::new().write(true).create_new(true).mode(MODE).open(file)?))
}

/// Watches until the proxy ends it, `line` does, or Ctrl-C. `line` gets each line of the answer, and what it means.
fn follow(
    request: &WatchRequest,
    endpoint: &Endpoint,
    mut line: impl FnMut(&[u8], Option<WatchEvent>) -> ControlFlow<()>,
) -> Result<(), ClientError> {
    let runtime = endpoint.runtime()?;
    let each = |text: &[u8]| line(text, serde_json::from_slice(text).ok());
    runtime.block_on(async {
        let interrupted = async {
            // Without the signal's handler Ctrl-C ends the process, which does as well.
            if tokio::signal::ctrl_c().await.is_err() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            result = client::watch(endpoint.socket(), request, each) => result,
            () = interrupted => Ok(()),
        }
    })
}

/// `90`, `90s`, `5m`, `2h` or `1d` in seconds.
fn seconds(text: &str) -> Result<u32, String> {
    const DAY: u32 = 86_400;
    let (number, unit) = match text.as_bytes().last() {
        Some(b's') => (text.trim_end_matches('s'), 1),
        Some(b'm') => (text.trim_end_matches('m'), 60),
        Some(b'h') => (text.trim_end_matches('h'), 3_600),
        Some(b'd') => (text.trim_end_matches('d'), DAY),
        _ => (text, 1),
    };
    let seconds = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    seconds.filter(|seconds| (1..=DAY).contains(seconds)).ok_or_else(|| "1s to 1d, such as 90, 60s, 5m, 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_one_unit_and_is_a_day_at_most() {
        for (text, expected) in [("90", 90), ("60s", 60), ("5m", 300), ("2h", 7_200), ("1d", 86_400), ("24h", 86_400)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "0s", "5 m", "-1", "25h", "2d", "1h30m", "m", "ss", "99999999h"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
