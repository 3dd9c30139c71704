//! A callee that answers every call, for load: SIPp's sends the answer to a BYE where the INVITE came from, and not where its Via says.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// T1 and T2 (RFC 3261 §17.1.1.1): a 200 is sent again after the one, twice as long and so on up to the other, until its ACK.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// Longest wait for a packet before the retransmissions are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A callee at one address.
pub struct Answerer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Answered>>,
}

/// One call that was answered.
#[derive(Debug)]
pub struct Answered {
    pub call_id: String,
    pub acknowledged: bool,
    pub ended: bool,
    /// The 200, where it went, when it goes there again and after which pause.
    again: Option<(String, SocketAddr, Instant, Duration)>,
}

impl Answerer {
    pub fn start(socket: UdpSocket) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        socket.set_read_timeout(Some(LOOK)).expect("a timeout");
        let thread = std::thread::spawn(move || answer(&socket, &stopped));
        Self { stop, thread }
    }

    /// The calls that it has answered.
    pub fn stop(self) -> Vec<Answered> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the callee's thread ends")
    }
}

fn answer(socket: &UdpSocket, stopped: &AtomicBool) -> Vec<Answered> {
    let mut calls: HashMap<String, Answered> = HashMap::new();
    let mut buffer = [0; 65_536];
    while !stopped.load(Ordering::Relaxed) {
        let received = socket.recv_from(&mut buffer);
        for call in calls.values_mut() {
            let Some((text, to, at, pause)) = &mut call.again else { continue };
            if Instant::now() >= *at {
                socket.send_to(text.as_bytes(), *to).expect("send");
                *pause = (*pause * 2).min(T2);
                *at = Instant::now() + *pause;
            }
        }
        // Nothing came meanwhile.
        let Ok((length, from)) = received else { continue };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let call_id = header(&text, "Call-ID");
        match text.split(' ').next().unwrap_or_default() {
            "INVITE" => {
                let ringing = response(&text, "180 Ringing", socket);
                let ok = response(&text, "200 OK", socket);
                for message in [&ringing, &ok] {
                    // The edge puts rport into its Via: answers go where the request came from (RFC 3581 §4).
                    socket.send_to(message.as_bytes(), from).expect("send");
                }
                calls.entry(call_id.clone()).or_insert_with(|| Answered {
                    call_id,
                    acknowledged: false,
                    ended: false,
                    again: Some((ok, from, Instant::now() + T1, T1)),
                });
            }
            "ACK" => {
                if let Some(call) = calls.get_mut(&call_id) {
                    (call.acknowledged, call.again) = (true, None);
                }
            }
            "BYE" => {
                socket.send_to(response(&text, "200 OK", socket).as_bytes(), from).expect("send");
                if let Some(call) = calls.get_mut(&call_id) {
                    call.ended = true;
                }
            }
            _ => {}
        }
    }
    calls.into_values().collect()
}

fn response(request: &str, status: &str, socket: &UdpSocket) -> String {
    let address = socket.local_addr().expect("an address");
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let copied = |name: &str| -> String {
        let prefix = format!("{}:", name.to_ascii_lowercase());
        let lines = head.lines().filter(|line| line.to_ascii_lowercase().starts_with(&prefix));
        lines.map(|line| format!("{line}\r\n")).collect()
    };
    let to = copied("To");
    let tag = if to.contains(";tag=") { String::new() } else { ";tag=callee".to_owned() };
    format!(
        "SIP/2.0 {status}\r\n{}{}{}{}{tag}\r\n{}{}Contact: <sip:callee@{address}>\r\nContent-Length: 0\r\n\r\n",
        copied("Via"),
        copied("Record-Route"),
        copied("From"),
        to.trim_end(),
        copied("Call-ID"),
        copied("CSeq"),
    )
}

fn header(message: &str, name: &str) -> String {
    let prefix = format!("{}:", name.to_ascii_lowercase());
    let line = message.lines().find(|line| line.to_ascii_lowercase().starts_with(&prefix)).unwrap_or_default();
    line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}
