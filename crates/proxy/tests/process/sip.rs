//! User agents on plain sockets, and the messages that they get.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::DEADLINE;

/// A user agent's socket.
pub struct Agent {
    pub socket: UdpSocket,
    pub address: SocketAddr,
}

/// A message that arrived.
#[derive(Debug, Clone)]
pub struct Message {
    pub from: SocketAddr,
    pub text: String,
}

impl Agent {
    pub fn bind(ip: IpAddr, port: u16) -> Self {
        let socket = UdpSocket::bind((ip, port)).unwrap();
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    pub fn send(&self, text: &str, to: SocketAddr) {
        assert_eq!(self.socket.send_to(text.as_bytes(), to).unwrap(), text.len());
    }

    /// The next message, whatever it is, within `time`.
    pub fn next(&self, time: Duration) -> Option<Message> {
        self.socket.set_read_timeout(Some(time.max(Duration::from_millis(1)))).unwrap();
        let mut buffer = vec![0; 65_536];
        let (length, from) = self.socket.recv_from(&mut buffer).ok()?;
        Some(Message { from, text: String::from_utf8_lossy(&buffer[..length]).into_owned() })
    }

    /// The next message whose first line contains `what`; others are skipped.
    pub fn expect(&self, what: &str) -> Message {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Some(message) if message.first_line().contains(what) => return message,
                Some(message) => seen.push(message.first_line().to_owned()),
                None => panic!("{} got no {what:?} within {DEADLINE:?}, but {seen:?}", self.address),
            }
        }
    }

    /// A request outside a dialog.
    pub fn request(&self, method: &str, uri: &str, call_id: &str) -> String {
        let address = self.address;
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{call_id}{method};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:caller@{address}>;tag=f{call_id}\r\nTo: <{uri}>\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:caller@{address}>\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// The ACK to `ok`, a 200 to an INVITE: by the Route set, sent to `edge`.
    pub fn acknowledge(&self, ok: &Message, edge: SocketAddr) {
        self.send(&self.in_dialog("ACK", 1, ok), edge);
    }

    /// The BYE of the caller whose INVITE was answered `ok`.
    pub fn hang_up(&self, ok: &Message, edge: SocketAddr) {
        self.send(&self.in_dialog("BYE", 2, ok), edge);
    }

    /// A request of the caller whose INVITE was answered `ok`.
    pub fn in_dialog(&self, method: &str, cseq: u32, ok: &Message) -> String {
        let target = ok.header("Contact").trim_matches(['<', '>']).to_owned();
        let routes: String =
            ok.headers("Record-Route").iter().rev().map(|route| format!("Route: {route}\r\n")).collect();
        let (call_id, from, to) = (ok.header("Call-ID"), ok.header("From"), ok.header("To"));
        let address = self.address;
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{call_id}{method}{cseq};rport\r\n{routes}\
             Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
             Content-Length: 0\r\n\r\n"
        )
    }

    /// A response to `request`, sent where it came from.
    pub fn respond(&self, request: &Message, status: &str) {
        let copied: String = ["Via", "Record-Route"]
            .iter()
            .flat_map(|name| request.headers(name).into_iter().map(move |value| format!("{name}: {value}\r\n")))
            .collect();
        let (from, to, cseq, id) =
            (request.header("From"), request.header("To"), request.header("CSeq"), request.header("Call-ID"));
        let tag = if to.contains(";tag=") { "" } else { ";tag=callee" };
        let text = format!(
            "SIP/2.0 {status}\r\n{copied}From: {from}\r\nTo: {to}{tag}\r\nCall-ID: {id}\r\nCSeq: {cseq}\r\n\
             Contact: <sip:callee@{}>\r\nContent-Length: 0\r\n\r\n",
            self.address
        );
        self.send(&text, request.from);
    }
}

impl Message {
    pub fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    pub fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self.text.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers(name).first().copied().unwrap_or_else(|| panic!("no {name} in:\n{}", self.text))
    }
}
