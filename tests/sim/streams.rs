//! Virtual connections: what is written arrives in its order, or the connection breaks.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sipedge_proxy::engine::{Receipt, Transport};

/// Who holds an end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Agent(usize),
    /// Index and life of an instance.
    Instance(usize, u32),
}

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Opener,
    Acceptor,
}

/// Whom to tell that a message was not delivered.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    pub shard: usize,
    pub receipt: Receipt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Connecting,
    Up,
    /// Nothing arrives any more, and nobody has been told.
    Silent,
    Gone,
}

#[derive(Debug)]
pub struct Stream {
    pub transport: Transport,
    pub opener: Peer,
    pub acceptor: Peer,
    /// The opener's address as the acceptor sees it, and the acceptor's as the opener does.
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub state: State,
    /// Whether the opener, the acceptor knows that it is over.
    pub ended: [bool; 2],
    /// What waits for the connection to be established.
    pub queue: Vec<Vec<u8>>,
    /// Requests of an instance that an answer by this connection is expected for.
    pub tickets: Vec<Ticket>,
    /// When the last message to the opener, to the acceptor arrives.
    pub last: [u64; 2],
    /// Whether an end has written into the silence.
    pub has_noticed: [bool; 2],
}

#[derive(Debug, Default)]
pub struct Streams {
    pub all: BTreeMap<u64, Stream>,
    serial: u64,
}

impl Streams {
    pub fn add(&mut self, stream: Stream) -> u64 {
        self.serial += 1;
        self.all.insert(self.serial, stream);
        self.serial
    }

    /// The connection, if this peer can write to it, and which end of it the peer is.
    pub fn usable(&self, id: u64, peer: Peer) -> Option<End> {
        let stream = self.all.get(&id)?;
        let end = stream.end_of(peer)?;
        (!stream.ended[end as usize]).then_some(end)
    }

    /// A connection that this peer has opened to that address and may still use.
    pub fn opened(&self, peer: Peer, transport: Transport, to: SocketAddr) -> Option<u64> {
        let is_it = |stream: &Stream| {
            stream.opener == peer && stream.transport == transport && stream.to == to && !stream.ended[0]
        };
        self.all.iter().rev().find(|(_, stream)| is_it(stream)).map(|(id, _)| *id)
    }

    /// Connections that a peer has an end of.
    pub fn of(&self, peer: Peer) -> Vec<u64> {
        let is_its = |stream: &Stream| stream.opener == peer || stream.acceptor == peer;
        self.all.iter().filter(|(_, stream)| is_its(stream)).map(|(id, _)| *id).collect()
    }
}

impl Stream {
    pub fn end_of(&self, peer: Peer) -> Option<End> {
        if self.opener == peer { Some(End::Opener) } else { (self.acceptor == peer).then_some(End::Acceptor) }
    }

    pub fn at(&self, end: End) -> Peer {
        match end {
            End::Opener => self.opener,
            End::Acceptor => self.acceptor,
        }
    }
}

impl End {
    pub fn other(self) -> Self {
        match self {
            Self::Opener => Self::Acceptor,
            Self::Acceptor => Self::Opener,
        }
    }
}
