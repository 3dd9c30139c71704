//! How messages travel: transports, connections, and the servers that a URI leads to (RFC 3261 §18, RFC 3263).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use sipedge_sip::transaction::Delivery;

use super::Port;
use super::transactions::Key;

/// A transport of SIP (RFC 3261 §18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream in the clear.
    Tcp,
    /// A stream over TLS.
    Tls,
}

impl Transport {
    /// The transport that a URI's `transport` parameter names, in any case; `None` for those that this edge does not speak.
    pub fn of_parameter(value: &[u8]) -> Option<Self> {
        [Self::Udp, Self::Tcp, Self::Tls]
            .into_iter()
            .find(|transport| value.eq_ignore_ascii_case(transport.parameter().as_bytes()))
    }

    /// What a URI's `transport` parameter says.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// What a Via says (RFC 3261 §20.42).
    pub fn via(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// Whether messages arrive whole, once and in order, or the connection breaks.
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }

    /// What transactions over it have to do themselves.
    pub(super) fn delivery(self) -> Delivery {
        if self.is_reliable() { Delivery::Reliable } else { Delivery::Unreliable }
    }

    /// The port where a URI or a Via names none (RFC 3261 §18.2.2, §19.1.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parameter())
    }
}

/// A connection of a stream transport, numbered by the driver. A number is never used again while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connection(pub u64);

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its transport.
    pub transport: Transport,
    /// The socket that it came by; [`Port::Ingress`] for connections that the peer opened, [`Port::Egress`] for those of the edge.
    pub port: Port,
    /// The peer's address.
    pub source: SocketAddr,
    /// The connection, unless it is a datagram.
    pub connection: Option<Connection>,
}

impl Arrival {
    /// A datagram on `port`.
    pub fn datagram(port: Port, source: SocketAddr) -> Self {
        Self { transport: Transport::Udp, port, source, connection: None }
    }

    /// The way back, for responses (RFC 3261 §18.2.2): the same socket or connection, `to` being where a new connection would go.
    pub(super) fn back(&self, to: SocketAddr) -> Hop {
        let Self { transport, port, connection, .. } = *self;
        Hop { transport, port, to, connection, peer: None, to_stranger: false }
    }
}

/// Where a message goes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Its transport.
    pub transport: Transport,
    /// The UDP socket that it leaves from. Connections are opened from any port.
    pub port: Port,
    /// The peer's address.
    pub to: SocketAddr,
    /// The connection to take while it stands; else one that stands to this peer, else a new one.
    pub connection: Option<Connection>,
    /// Whom a TLS peer has to prove to be. `None` over UDP and TCP, and for responses: they go by the connection that their request came by.
    pub peer: Option<Arc<TlsPeer>>,
    /// Whether a request goes where a peer's Contact leads, and to nobody of the configuration. Such connections have a share of their own.
    pub to_stranger: bool,
}

/// Whom the edge expects behind a TLS connection that it opens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsPeer {
    /// The SIP domain that its certificate has to bear (RFC 5922 §7.1): the host of the URI, before any resolution.
    pub name: String,
    /// The trunk whose client certificate and roots are used; without one, none and the public roots.
    pub trunk: Option<String>,
}

/// What the resolver has to find: the servers of a URI (RFC 3263 §4).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Query {
    /// The host name, in lower case. Addresses are not asked for.
    pub host: String,
    /// The port, when the URI has one: then neither NAPTR nor SRV is looked up.
    pub port: Option<u16>,
    /// The transport, when the URI has one: then NAPTR is not looked up.
    pub transport: Option<Transport>,
    /// Whether the URI is `sips:` or names TLS: only TLS will do.
    pub secure: bool,
}

/// One server of a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// SRV's priority over all transports: lower ones first. NAPTR's order and preference are in it already.
    pub priority: u32,
    /// SRV's weight among servers of one priority; 0 is chosen rarely (RFC 2782).
    pub weight: u16,
    /// How it is reached.
    pub transport: Transport,
    /// Where it is.
    pub address: SocketAddr,
}

/// Names a message that was given to a stream transport, so that the driver can say that it did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    pub(super) key: Key,
    /// Which of the transactions that have had this key: a late report is about none that has come after.
    pub(super) number: u32,
    /// Whether it is a response of a server transaction, and not a request of a client transaction.
    pub(super) is_response: bool,
}

impl Receipt {
    /// Whether the message is a request: then its sender waits for an answer by the same connection.
    pub fn is_request(&self) -> bool {
        !self.is_response
    }
}

#[cfg(test)]
mod tests {
    use sipedge_sip::uri::Uri;

    use super::*;
    use crate::engine::setup::Lookup;

    fn query(port: Option<u16>, transport: Option<Transport>, secure: bool) -> Query {
        Query { host: "pbx.example".into(), port, transport, secure }
    }

    #[test]
    fn a_uri_that_names_no_transport_leaves_it_to_naptr_secure_or_not() {
        let of = |uri: &str| match Lookup::of(&Uri::parse(uri.as_bytes()).unwrap()) {
            Some(Lookup::Name(query)) => query,
            other => panic!("{uri}: {other:?}"),
        };
        assert_eq!(of("sip:PBX.example"), query(None, None, false));
        assert_eq!(of("sips:pbx.example"), query(None, None, true));
        assert_eq!(of("sips:pbx.example;transport=tcp"), query(None, Some(Transport::Tls), true));
        assert_eq!(of("sip:pbx.example;transport=TLS"), query(None, Some(Transport::Tls), true));
        assert_eq!(of("sip:pbx.example:5070;transport=udp"), query(Some(5070), Some(Transport::Udp), false));
        let address = Lookup::of(&Uri::parse(b"sips:192.0.2.1").unwrap());
        let Some(Lookup::Address(server)) = address else { panic!("{address:?}") };
        assert_eq!((server.transport, server.address), (Transport::Tls, "192.0.2.1:5061".parse().unwrap()));
    }
}
