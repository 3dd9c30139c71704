//! User agents on plain sockets. They honour route sets, Via and rport, and absorb copies, as user agents have to.

#![allow(dead_code, reason = "each behaviour uses its part of this module")]

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Deref;
use std::time::{Duration, Instant};

use crate::message::{Message, address_of, unique, uri_of};
use crate::process::DEADLINE;

/// A user agent's socket, or its end of a TCP connection.
pub(crate) struct Peer {
    /// Where it is reached.
    pub(crate) address: SocketAddr,
    /// Its To tag, another one for each peer.
    pub(crate) tag: String,
    wire: Wire,
    state: RefCell<State>,
}

enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

#[derive(Default)]
struct State {
    /// Messages that came and that nobody has asked for yet.
    backlog: VecDeque<Received>,
    /// How often each message has come again.
    copies: HashMap<Vec<u8>, u32>,
    /// What has come by TCP of a message that is not there whole.
    partial: Vec<u8>,
    /// Start lines of all that came, for a failure's text.
    seen: Vec<String>,
}

/// A message that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) from: SocketAddr,
    /// As it came.
    pub(crate) raw: Vec<u8>,
    message: Message,
}

impl Deref for Received {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Peer {
    /// A user agent on UDP, at port 5060 of an address of its own.
    pub(crate) fn udp(ip: IpAddr) -> Self {
        Self::udp_at(SocketAddr::new(ip, 5060))
    }

    pub(crate) fn udp_at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        Self::new(socket.local_addr().unwrap(), Wire::Udp(socket))
    }

    /// A TCP connection from `ip` to `to`.
    pub(crate) fn connect(ip: IpAddr, to: SocketAddr) -> Self {
        let socket = nix_stream(ip, to);
        Self::new(socket.local_addr().unwrap(), Wire::Tcp(socket))
    }

    fn new(address: SocketAddr, wire: Wire) -> Self {
        Self { address, tag: unique("tag"), wire, state: RefCell::default() }
    }

    /// `UDP` or `TCP`, as in Via.
    pub(crate) fn transport(&self) -> &'static str {
        match self.wire {
            Wire::Udp(_) => "UDP",
            Wire::Tcp(_) => "TCP",
        }
    }

    /// A request from outside a dialog with a branch, a Call-ID and a From tag of its own.
    pub(crate) fn request(&self, method: &str, uri: &str) -> Message {
        let (address, transport) = (self.address, self.transport());
        let (branch, tag, call_id) = (unique("z9hG4bK-"), unique("from"), unique("call"));
        let by = if transport == "UDP" { String::new() } else { format!(";transport={}", transport.to_lowercase()) };
        let headers = [
            ("Via", format!("SIP/2.0/{transport} {address};branch={branch};rport")),
            ("Max-Forwards", "70".to_owned()),
            ("From", format!("<sip:alice@{address}>;tag={tag}")),
            ("To", format!("<{uri}>")),
            ("Call-ID", format!("{call_id}@{}", address.ip())),
            ("CSeq", format!("1 {method}")),
            ("Contact", format!("<sip:alice@{address}{by}>")),
            ("Content-Length", "0".to_owned()),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Message { start: format!("{method} {uri} SIP/2.0"), headers, body: Vec::new() }
    }

    pub(crate) fn send(&self, message: &Message, to: SocketAddr) {
        self.send_bytes(&message.bytes(), to);
    }

    /// Sends bytes; by TCP to the other end, whatever `to` is.
    pub(crate) fn send_bytes(&self, bytes: &[u8], to: SocketAddr) {
        match &self.wire {
            Wire::Udp(socket) => assert_eq!(socket.send_to(bytes, to).unwrap(), bytes.len()),
            Wire::Tcp(stream) => {
                let mut stream: &TcpStream = stream;
                stream.write_all(bytes).unwrap();
            }
        }
    }

    /// Sends a request where its first Route leads, or else its Request-URI (RFC 3261 §8.1.2).
    pub(crate) fn send_by_route(&self, request: &Message) {
        let route = request.elements("Route").first().map(|route| uri_of(route).to_owned());
        let next = route.unwrap_or_else(|| request.uri().to_owned());
        self.send(request, address_of(&next));
    }

    /// Answers a request, with this peer's tag and Contact, and returns the answer.
    pub(crate) fn respond(&self, request: &Received, status: &str) -> Message {
        let response = self.response(request, status);
        self.reply(request, &response);
        response
    }

    /// A response with this peer's tag and Contact, to be changed and sent by [`Peer::reply`].
    pub(crate) fn response(&self, request: &Message, status: &str) -> Message {
        let by = if self.transport() == "UDP" { "" } else { ";transport=tcp" };
        request.response(status, &self.tag).and("Contact", &format!("<sip:bob@{}{by}>", self.address))
    }

    /// Sends a response where its request came from.
    pub(crate) fn reply(&self, request: &Received, response: &Message) {
        self.send(response, request.from);
    }

    /// The next message whose start line contains `what`. Others stay for those who ask for them; copies of earlier ones are absorbed.
    pub(crate) fn expect(&self, what: &str) -> Received {
        self.expect_that(what, |message| message.start.contains(what))
    }

    /// The next message that `is_it` is true of; `what` says what that is.
    pub(crate) fn expect_that(&self, what: &str, is_it: impl Fn(&Message) -> bool) -> Received {
        self.take(&is_it, DEADLINE).unwrap_or_else(|| panic!("{}", self.missing(what)))
    }

    /// Waits until a message that was here comes once more.
    pub(crate) fn expect_copy(&self, of: &Received) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(count) = self.state.borrow_mut().copies.get_mut(&of.raw).filter(|count| **count > 0) {
                *count -= 1;
                return;
            }
            if !self.receive(deadline) {
                panic!("{}", self.missing(&format!("copy of {:?}", of.start)));
            }
        }
    }

    /// No message whose start line contains `what` comes within `time`, and none has come. Only for what no later event would show.
    pub(crate) fn expect_nothing(&self, what: &str, time: Duration) {
        let is_it = |message: &Message| message.start.contains(what);
        if let Some(message) = self.take(&is_it, time) {
            panic!("{} got what may not come:\n{}", self.address, message.text());
        }
    }

    /// A message whose start line contains `what`, if there is one already.
    pub(crate) fn take_now(&self, what: &str) -> Option<Received> {
        self.take_that_now(|message| message.start.contains(what))
    }

    /// A message that `is_it` is true of, if there is one already.
    pub(crate) fn take_that_now(&self, is_it: impl Fn(&Message) -> bool) -> Option<Received> {
        self.take(&is_it, Duration::ZERO)
    }

    /// The start lines of what has come so far, without copies.
    pub(crate) fn seen(&self) -> Vec<String> {
        while self.receive(Instant::now()) {}
        self.state.borrow().seen.clone()
    }

    /// How many copies of this message have come that nobody has asked for.
    pub(crate) fn copies(&self, of: &Received) -> u32 {
        while self.receive(Instant::now()) {}
        self.state.borrow().copies.get(&of.raw).copied().unwrap_or_default()
    }

    /// Waits until the other end of a TCP connection has closed it.
    pub(crate) fn expect_end(&self) {
        let deadline = Instant::now() + DEADLINE;
        while self.receive(deadline) {}
        assert!(Instant::now() < deadline, "{}: the connection is open after {DEADLINE:?}", self.address);
    }

    fn take(&self, is_it: &dyn Fn(&Message) -> bool, time: Duration) -> Option<Received> {
        let deadline = Instant::now() + time;
        loop {
            let mut state = self.state.borrow_mut();
            if let Some(at) = state.backlog.iter().position(|message| is_it(message)) {
                return state.backlog.remove(at);
            }
            drop(state);
            if !self.receive(deadline) {
                return None;
            }
        }
    }

    /// Receives one message, or a copy of one. `false`: the time is over, or the connection has ended.
    fn receive(&self, deadline: Instant) -> bool {
        let Some((raw, from)) = self.next_bytes(deadline) else { return false };
        let mut state = self.state.borrow_mut();
        if let Some(count) = state.copies.get_mut(&raw) {
            *count += 1;
            return true;
        }
        state.copies.insert(raw.clone(), 0);
        let message = Message::read(&raw);
        state.seen.push(message.start.clone());
        state.backlog.push_back(Received { from, raw, message });
        true
    }

    fn next_bytes(&self, deadline: Instant) -> Option<(Vec<u8>, SocketAddr)> {
        loop {
            if let Some(message) = framed(&mut self.state.borrow_mut().partial) {
                let Wire::Tcp(stream) = &self.wire else { unreachable!("only TCP leaves parts") };
                return Some((message, stream.peer_addr().unwrap()));
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let mut buffer = vec![0; 65_536];
            let read = match &self.wire {
                Wire::Udp(socket) => {
                    socket.set_read_timeout(Some(left)).unwrap();
                    socket.recv_from(&mut buffer)
                }
                Wire::Tcp(stream) => {
                    stream.set_read_timeout(Some(left)).unwrap();
                    let mut stream: &TcpStream = stream;
                    stream.read(&mut buffer).map(|length| (length, self.address))
                }
            };
            match (read, &self.wire) {
                (Ok((length, from)), Wire::Udp(_)) => return Some((buffer[..length].to_vec(), from)),
                (Ok((0, _)), Wire::Tcp(_)) => return None,
                (Ok((length, _)), Wire::Tcp(_)) => {
                    self.state.borrow_mut().partial.extend_from_slice(&buffer[..length]);
                }
                // An answer of the kernel to something that this socket has sent to a closed port.
                (Err(error), Wire::Udp(_)) if error.kind() == ErrorKind::ConnectionRefused => {}
                (Err(error), _) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                (Err(error), _) if error.kind() == ErrorKind::Interrupted => {}
                (Err(_), _) => return None,
            }
        }
    }

    fn missing(&self, what: &str) -> String {
        let state = self.state.borrow();
        let waiting: Vec<&str> = state.backlog.iter().map(|message| message.start.as_str()).collect();
        format!(
            "{} got no {what:?} within {DEADLINE:?}. It got: {:#?}; of that nobody asked for: {waiting:#?}",
            self.address, state.seen
        )
    }
}

/// A user agent that accepts TCP connections.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    socket: TcpListener,
}

impl Listener {
    /// At port 5060 of an address.
    pub(crate) fn bind(ip: IpAddr) -> Self {
        let socket = TcpListener::bind((ip, 5060)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { address: socket.local_addr().unwrap(), socket }
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> Peer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Peer::new(self.address, Wire::Tcp(stream));
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            assert!(Instant::now() < deadline, "nobody connected to {} within {DEADLINE:?}", self.address);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A connection that comes from an address of the caller's choice.
fn nix_stream(ip: IpAddr, to: SocketAddr) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let descriptor = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(descriptor.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(ip, 0))).unwrap();
    connect(descriptor.as_raw_fd(), &SockaddrStorage::from(to)).unwrap_or_else(|error| panic!("{ip} to {to}: {error}"));
    descriptor.into()
}

/// Takes the first message out of what has come by TCP, when it is there whole (RFC 3261 §18.3). Line ends before it are keep-alives.
fn framed(partial: &mut Vec<u8>) -> Option<Vec<u8>> {
    while partial.starts_with(b"\r\n") {
        partial.drain(..2);
    }
    let head = partial.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let length = Message::read(&partial[..head]).header("Content-Length").parse::<usize>().unwrap();
    (partial.len() >= head + length).then(|| partial.drain(..head + length).collect())
}
