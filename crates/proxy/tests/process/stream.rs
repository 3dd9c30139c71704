//! User agents on TCP and TLS, and an edge in the test's own process.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use sipedge_proxy::config::{Config, Target};
use sipedge_proxy::engine::{Control, Place};
use sipedge_proxy::net::{Numbers, Proxy, TlsMaterial};
use socket2::{Domain, Socket, Type};

use super::sip::Message;
use super::{DEADLINE, EGRESS, INGRESS, config, keys};

/// An edge that speaks TCP, between a caller and the target `callee`.
pub fn tcp_config(edge: IpAddr, caller: IpAddr, callee: &str) -> Config {
    // The address of the target is replaced.
    let mut config = config(edge, caller, SocketAddr::new(caller, 1));
    config.listen.tcp = true;
    config.trunks[1].targets = vec![Target::new(callee)];
    config
}

/// Starts and opens it; its ingress address.
pub fn start(config: Config, tls: &TlsMaterial) -> (Proxy, SocketAddr) {
    let ip = config.listen.address.unwrap();
    let ingress = SocketAddr::new(ip, INGRESS);
    let place = Place { ingress, egress: SocketAddr::new(ip, EGRESS), advertised: ip.to_string(), shards: 2 };
    let proxy = Proxy::start(config, place, &keys(), tls).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while proxy.names_unanswered() > 0 {
        assert!(Instant::now() < deadline, "{} names unanswered", proxy.names_unanswered());
        std::thread::sleep(Duration::from_millis(2));
    }
    proxy.control(Control::Open);
    (proxy, ingress)
}

/// A name server to which every name has this address.
pub fn names_to(ip: IpAddr) -> SocketAddr {
    let IpAddr::V4(answer) = ip else { panic!("an IPv4 address") };
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let server = socket.local_addr().unwrap();
    // The thread ends with the test process.
    std::thread::spawn(move || {
        let mut buffer = [0; 1_500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // The question ends after the root label, type and class.
            let end = 12 + buffer[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            let mut reply = buffer[..2].to_vec();
            reply.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            reply.extend(&buffer[12..end]);
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0x2c, 0, 4]);
            reply.extend(answer.octets());
            socket.send_to(&reply, from).unwrap();
        }
    });
    server
}

/// Waits until the numbers are as `reached` wants them.
pub fn wait_for(proxy: &Proxy, what: &str, mut reached: impl FnMut(&Numbers) -> bool) -> Numbers {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let numbers = proxy.numbers();
        if reached(&numbers) {
            return numbers;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}: {numbers:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One end of a connection.
pub struct Line<S> {
    pub stream: S,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    transport: &'static str,
    received: Vec<u8>,
}

impl Line<TcpStream> {
    /// Connects from this address.
    pub fn connect(from: IpAddr, to: SocketAddr) -> Self {
        Self::new(connect(from, to), "TCP")
    }

    pub fn accept(listener: &TcpListener) -> Self {
        Self::new(accept(listener), "TCP")
    }

    pub fn new(stream: TcpStream, transport: &'static str) -> Self {
        let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        Self { stream, local, peer, transport, received: Vec::new() }
    }
}

impl Line<StreamOwned<ClientConnection, TcpStream>> {
    /// Connects by TLS to the server `name`; fails as the handshake does.
    pub fn connect_tls(from: IpAddr, to: SocketAddr, config: Arc<ClientConfig>, name: &str) -> Result<Self, String> {
        let mut stream = connect(from, to);
        let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(config, name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(|error| error.to_string())?;
        }
        Ok(Self { stream: StreamOwned::new(connection, stream), local, peer, transport: "TLS", received: Vec::new() })
    }
}

impl Line<StreamOwned<ServerConnection, TcpStream>> {
    /// Accepts a connection by TLS; fails as the handshake does.
    pub fn accept_tls(listener: &TcpListener, config: Arc<ServerConfig>) -> Result<Self, String> {
        let mut stream = accept(listener);
        let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let mut connection = ServerConnection::new(config).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(|error| error.to_string())?;
        }
        Ok(Self { stream: StreamOwned::new(connection, stream), local, peer, transport: "TLS", received: Vec::new() })
    }
}

impl<S: Read + Write> Line<S> {
    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
        self.stream.flush().unwrap();
    }

    /// The next message; `None` when the connection ends.
    pub fn next(&mut self) -> Option<Message> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(length) = length(&self.received) {
                let bytes: Vec<u8> = self.received.drain(..length).collect();
                return Some(Message { from: self.peer, text: String::from_utf8(bytes).unwrap() });
            }
            assert!(Instant::now() < deadline, "no message and no end within {DEADLINE:?}: {:?}", self.received);
            if !self.fill() {
                return None;
            }
        }
    }

    /// The next message whose first line contains `what`; others are skipped.
    pub fn expect(&mut self, what: &str) -> Message {
        let mut seen = Vec::new();
        loop {
            match self.next() {
                Some(message) if message.first_line().contains(what) => return message,
                Some(message) => seen.push(message.first_line().to_owned()),
                None => panic!("{} got no {what:?} before the connection ended, but {seen:?}", self.local),
            }
        }
    }

    /// The bytes that arrive next, as many as that.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert!(self.fill(), "the connection ended after {:?}", self.received);
        }
        self.received.drain(..count).collect()
    }

    /// Waits for the end of the connection; nothing may arrive before.
    pub fn expect_end(&mut self) {
        while self.fill() {}
        assert!(self.received.is_empty(), "{:?}", String::from_utf8_lossy(&self.received));
    }

    /// The rest of a call to `invite` after its 200: ACK or BYE by the Route set.
    pub fn in_dialog(&self, method: &str, number: u8, ok: &Message) -> String {
        let (transport, address) = (self.transport, self.local);
        let target = ok.header("Contact").trim_matches(['<', '>']).to_owned();
        let routes: String =
            ok.headers("Record-Route").iter().rev().map(|route| format!("Route: {route}\r\n")).collect();
        let (call_id, from, to) = (ok.header("Call-ID"), ok.header("From"), ok.header("To"));
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/{transport} {address};branch=z9hG4bK{call_id}{method};rport\r\n{routes}\
             Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {number} {method}\r\n\
             Content-Length: 0\r\n\r\n"
        )
    }

    /// A request outside a dialog.
    pub fn request(&self, method: &str, uri: &str, call_id: &str) -> String {
        request(self.transport, self.local, method, uri, call_id)
    }

    /// A response to `request`.
    pub fn respond(&mut self, request: &Message, status: &str) {
        let text = response(request, self.local, status);
        self.send(&text);
    }

    /// OPTIONS to the edge, and its answer's first line.
    pub fn options(&mut self, call_id: &str) -> String {
        let request = self.request("OPTIONS", &format!("sip:{}", self.peer), call_id);
        self.send(&request);
        let answer = self.next().unwrap_or_else(|| panic!("the connection ended instead of an answer to {call_id}"));
        assert_eq!(answer.header("Call-ID"), call_id);
        answer.first_line().to_owned()
    }

    /// `false`: the end.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("{} got nothing within {DEADLINE:?}", self.local)
            }
            // Reset, or TLS without farewell.
            Err(_) => false,
        }
    }
}

pub fn request(transport: &str, address: SocketAddr, method: &str, uri: &str, call_id: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {address};branch=z9hG4bK{call_id}{method};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:caller@{address}>;tag=f{call_id}\r\nTo: <{uri}>\r\nCall-ID: {call_id}\r\n\
         CSeq: 1 {method}\r\nContact: <sip:caller@{address}>\r\nContent-Length: 0\r\n\r\n"
    )
}

pub fn response(request: &Message, contact: SocketAddr, status: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for line in request.text.lines().skip(1) {
        let name = line.split(':').next().unwrap();
        let tag = if name == "To" && !line.contains(";tag=") { ";tag=callee" } else { "" };
        if ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"].contains(&name) {
            text += &format!("{line}{tag}\r\n");
        }
    }
    text + &format!("Contact: <sip:callee@{contact}>\r\nContent-Length: 0\r\n\r\n")
}

/// Where callees wait.
pub fn listen(ip: IpAddr) -> TcpListener {
    TcpListener::bind((ip, 0)).unwrap()
}

fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect_timeout(&to.into(), DEADLINE).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn accept(listener: &TcpListener) -> TcpStream {
    // A listener that waits for ever would hide what did not happen.
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + DEADLINE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                return stream;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        assert!(Instant::now() < deadline, "nobody connected within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Length of the first message in `bytes`, when it is whole.
fn length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let body: usize = text.split("content-length:").nth(1)?.lines().next()?.trim().parse().unwrap();
    (bytes.len() >= head + body).then_some(head + body)
}
