//! TCP and TLS under a user agent: connections that it opens and that it takes, and messages cut out of their bytes (RFC 3261 §18.3).

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::{Agent, Hop, Inner};
use crate::spec::Transport;

/// Connections that wait to be taken.
const BACKLOG: u32 = 16;

/// Bytes of a message that has not ended: more is no message of a smoke call.
const MESSAGE_MAX: usize = 65_535;

/// What a user agent needs for TCP and TLS. The sockets are bound, and neither listen nor are connected.
#[derive(Debug)]
pub struct Streams {
    /// Bound to the user agent's address.
    pub listener: OwnedFd,
    /// Each for one connection that the user agent opens, bound to its address and any port.
    pub spare: Vec<OwnedFd>,
    /// For connections by TLS: the name of the server, and how it proves to be it. None: there are no such connections.
    pub tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

/// The connections of a user agent. They end with it.
#[derive(Debug)]
pub(super) struct Links {
    open: Mutex<HashMap<Hop, mpsc::UnboundedSender<Vec<u8>>>>,
    spare: Mutex<Vec<OwnedFd>>,
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    accepting: OnceLock<AbortHandle>,
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.get() {
            accepting.abort();
        }
    }
}

impl Links {
    /// Listens, and takes connections for the agent.
    pub(super) fn new(streams: Streams, agent: Weak<Inner>) -> io::Result<Self> {
        let listener = tokio_socket(streams.listener)?.listen(BACKLOG)?;
        let links = Self {
            open: Mutex::default(),
            spare: Mutex::new(streams.spare),
            tls: streams.tls,
            accepting: OnceLock::new(),
        };
        let accepting = tokio::spawn(accept(listener, agent));
        let _ = links.accepting.set(accepting.abort_handle());
        Ok(links)
    }

    /// Sends by the connection to this hop; opens one when there is none.
    pub(super) fn send(&self, agent: Weak<Inner>, to: Hop, bytes: Vec<u8>) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let link = match open.get(&to).filter(|link| !link.is_closed()) {
            Some(link) => link,
            None => {
                let link = self.connect(agent, to)?;
                open.entry(to).insert_entry(link).into_mut()
            }
        };
        link.send(bytes).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn connect(&self, agent: Weak<Inner>, to: Hop) -> io::Result<mpsc::UnboundedSender<Vec<u8>>> {
        let tls = match to.transport {
            Transport::Udp => return Err(io::Error::other("UDP has no connections")),
            Transport::Tcp => None,
            Transport::Tls => Some(self.tls.clone().ok_or_else(|| io::Error::other("no TLS is set up"))?),
        };
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let socket = tokio_socket(spare.ok_or_else(|| io::Error::other("no socket is left for another connection"))?)?;
        let (sender, outgoing) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let served = async {
                let stream = socket.connect(to.address).await?;
                stream.set_nodelay(true)?;
                match tls {
                    None => serve(stream, to, &agent, outgoing).await,
                    Some((name, config)) => {
                        let stream = TlsConnector::from(config).connect(name, stream).await?;
                        serve(stream, to, &agent, outgoing).await
                    }
                }
            };
            if let (Err(error), Some(inner)) = (served.await, agent.upgrade()) {
                Agent { inner }.note(to, &format!("connection failed: {error}"));
            }
        });
        Ok(sender)
    }
}

async fn accept(listener: TcpListener, agent: Weak<Inner>) {
    while let Ok((stream, address)) = listener.accept().await {
        let Some(inner) = agent.upgrade() else { return };
        let Some(links) = inner.links.get() else { continue };
        let from = Hop { transport: Transport::Tcp, address };
        let (sender, outgoing) = mpsc::unbounded_channel();
        links.open.lock().unwrap_or_else(PoisonError::into_inner).insert(from, sender);
        let agent = agent.clone();
        tokio::spawn(async move {
            if let (Err(error), Some(inner)) = (serve(stream, from, &agent, outgoing).await, agent.upgrade()) {
                Agent { inner }.note(from, &format!("connection failed: {error}"));
            }
        });
    }
}

/// Reads and writes one connection until either end closes it.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    hop: Hop,
    agent: &Weak<Inner>,
    mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            bytes = outgoing.recv() => match bytes {
                Some(bytes) => {
                    stream.write_all(&bytes).await?;
                    stream.flush().await?;
                }
                None => return stream.shutdown().await,
            },
            read = stream.read_buf(&mut buffer) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(message) = take_message(&mut buffer)? {
                    let Some(inner) = agent.upgrade() else { return Ok(()) };
                    Agent { inner }.handle(hop, &message);
                }
            }
        }
    }
}

/// Takes the first message out of `buffer`, when it is there whole. Line ends before it are keep-alives (RFC 5626 §3.5.1).
fn take_message(buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let blank = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    buffer.drain(..blank);
    let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
        return if buffer.len() > MESSAGE_MAX { Err(invalid("a header without an end")) } else { Ok(None) };
    };
    let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default());
    let length = text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| {
        let name = name.trim();
        name.eq_ignore_ascii_case("Content-Length") || name.eq_ignore_ascii_case("l")
    });
    // §18.3: over a stream it has to be there.
    let (_, length) = length.ok_or_else(|| invalid("a message without Content-Length"))?;
    let length: usize = length.trim().parse().map_err(|_| invalid("a Content-Length that is no number"))?;
    let whole = head.saturating_add(length);
    if whole > MESSAGE_MAX {
        return Err(invalid("a message that is too long"));
    }
    Ok((buffer.len() >= whole).then(|| buffer.drain(..whole).collect()))
}

fn tokio_socket(socket: OwnedFd) -> io::Result<TcpSocket> {
    let socket = TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    Ok(TcpSocket::from_std_stream(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_at_their_length_whatever_the_segments() {
        let one = "OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 3\r\n\r\nabc";
        let two = "BYE sip:a@b SIP/2.0\r\nl: 0\r\n\r\n";
        let text = format!("\r\n\r\n{one}\r\n{two}");
        for at in 0..=text.len() {
            let mut buffer = Vec::new();
            let mut found = Vec::new();
            for part in [&text[..at], &text[at..]] {
                buffer.extend_from_slice(part.as_bytes());
                while let Some(message) = take_message(&mut buffer).expect("sound") {
                    found.push(String::from_utf8(message).expect("text"));
                }
            }
            assert_eq!(found, [one, two], "cut at {at}");
        }
    }

    #[test]
    fn a_stream_that_cannot_be_cut_is_an_error() {
        for text in ["BYE sip:a@b SIP/2.0\r\n\r\n", "BYE sip:a@b SIP/2.0\r\nContent-Length: x\r\n\r\n"] {
            assert!(take_message(&mut text.as_bytes().to_vec()).is_err(), "{text}");
        }
        assert!(take_message(&mut vec![b'x'; MESSAGE_MAX + 1]).is_err());
    }
}
