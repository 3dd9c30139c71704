//! The centre of the thread: which connections stand, who may have one, and which one a message takes.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::inbox::Inbox;
use super::super::numbers::Tally;
use super::super::tap::Tap;
use super::connection::{Session, millis, tune};
use super::limits::{Full, Place, Places};
use super::link::Link;
use super::outlet::{Failures, Sending};
use super::{Rules, alias, names};
use crate::config::Refuse;
use crate::engine::{Connection, Hop, TlsPeer, Transport};

/// Pause after a failed accept: out of file descriptors, most likely, and trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Peers whose last failure is remembered, so that each is logged once.
const MAX_TROUBLES: usize = 1_000;

/// Addresses that connections were opened to and that are remembered; then it begins anew. Far more than an edge has destinations.
const MAX_REACHED: usize = 10_000;

/// The state of the thread. It is never borrowed across an await.
#[derive(Debug)]
pub(super) struct Hub {
    /// Connections are opened from this address, by any port.
    local: IpAddr,
    rules: Arc<ArcSwap<Rules>>,
    pub(super) inboxes: Arc<[Inbox]>,
    pub(super) tally: Arc<Tally>,
    pub(super) tap: Arc<Tap>,
    failures: Failures,
    last: Cell<u64>,
    places: RefCell<Places>,
    links: RefCell<HashMap<Connection, Rc<Link>>>,
    /// Where connections lead: those that the edge opened, those that are not established yet among them; and those over TCP that known
    /// peers opened, by their source (RFC 3261 §18). Over TLS a source proves nothing, see `aliases`.
    routes: RefCell<HashMap<Route, Connection>>,
    /// Connections that peers let be used for requests to this address.
    aliases: RefCell<HashMap<SocketAddr, Connection>>,
    /// Where connections of the edge have led: whoever calls from there is no stranger, and may have a response whose connection broke
    /// (RFC 3261 §18.2.2).
    reached: RefCell<HashSet<IpAddr>>,
    /// Why no connection could be opened, for those that are in trouble.
    troubles: RefCell<HashMap<Route, String>>,
}

/// Where a connection leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route {
    transport: Transport,
    to: SocketAddr,
    /// Over TLS: connections of one trunk are not for another one, which has other certificates.
    peer: Option<Arc<TlsPeer>>,
}

impl Hub {
    pub(super) fn new(
        local: IpAddr,
        rules: Arc<ArcSwap<Rules>>,
        inboxes: Arc<[Inbox]>,
        tally: Arc<Tally>,
        tap: Arc<Tap>,
    ) -> Self {
        let failures = Failures::new(Arc::clone(&inboxes), Arc::clone(&tally));
        Self {
            local,
            rules,
            inboxes,
            tally,
            tap,
            failures,
            last: Cell::default(),
            places: RefCell::default(),
            links: RefCell::default(),
            routes: RefCell::default(),
            aliases: RefCell::default(),
            reached: RefCell::default(),
            troubles: RefCell::default(),
        }
    }

    /// Accepts and sends until it is stopped.
    pub(super) async fn run(
        self: Rc<Self>,
        listeners: Vec<(Transport, TcpListener)>,
        mut sendings: UnboundedReceiver<Sending>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        for (transport, listener) in listeners {
            spawn_local(Rc::clone(&self).listen(transport, listener));
        }
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                sending = sendings.recv() => match sending {
                    Some(sending) => self.dispatch(sending),
                    None => return,
                },
            }
        }
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Requests to `address` may take this connection.
    pub(super) fn set_alias(&self, address: SocketAddr, id: Connection) {
        self.aliases.borrow_mut().insert(address, id);
    }

    async fn listen(self: Rc<Self>, transport: Transport, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, source)) => self.accept(transport, stream, source),
                Err(error) if is_of_one_peer(&error) => {}
                Err(error) => {
                    tracing::warn!("cannot accept connections over {transport}: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Lets a peer in, or closes its connection at once.
    fn accept(self: &Rc<Self>, transport: Transport, stream: TcpStream, source: SocketAddr) {
        let rules = self.rules();
        let is_known = self.knows(&rules, source.ip());
        if !is_known && rules.setup.config.refuse == Refuse::Silence {
            Tally::count(&self.tally.refused_source);
            return;
        }
        let place = Place::Accepted { source: source.ip(), is_known };
        let taken = self.places.borrow_mut().take(place, &rules.setup.config.streams);
        match taken {
            Ok(place) => {
                Tally::count(&self.tally.accepted);
                // A stranger gets nothing that others are to get.
                let leads_back = is_known && transport == Transport::Tcp;
                let route = leads_back.then_some(Route { transport, to: source, peer: None });
                let standing = self.stand(source, place, route);
                spawn_local(Rc::clone(self).welcome(transport, stream, standing));
            }
            Err(Full::All) => Tally::count(&self.tally.refused_limit),
            Err(Full::Source) => Tally::count(&self.tally.refused_source),
        }
    }

    async fn welcome(self: Rc<Self>, transport: Transport, stream: TcpStream, standing: Standing) {
        let rules = self.rules();
        let time = millis(rules.setup.config.streams.connect_ms);
        if tune(&stream).is_err() {
            return;
        }
        standing.link().local.set(stream.local_addr().ok());
        if transport != Transport::Tls {
            Session::accepted(self, standing, transport).run(stream).await;
            return;
        }
        let Some(config) = rules.tls.server() else { return };
        match timeout(time, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => {
                let (_, tls) = stream.get_ref();
                if let Some(certificate) = tls.peer_certificates().and_then(<[_]>::first) {
                    *standing.link().identities.borrow_mut() = names::identities_of(certificate);
                }
                Session::accepted(self, standing, transport).run(stream).await;
            }
            Ok(Err(error)) => {
                Tally::count(&self.tally.handshake_failures);
                tracing::debug!(peer = %standing.link().peer, "TLS handshake failed: {error}");
            }
            Err(_) => Tally::count(&self.tally.handshake_failures),
        }
    }

    /// Finds the connection for a message, or opens one (RFC 3261 §18.1.1, §18.2.2).
    fn dispatch(self: &Rc<Self>, sending: Sending) {
        let Sending { hop, parcel } = sending;
        let of_request = hop.connection.and_then(|id| self.link(id));
        let link = of_request.or_else(|| self.standing_to(&hop)).or_else(|| self.open(&hop, parcel.is_response()));
        let left = match link {
            Some(link) => link.push(parcel).inspect_err(|_| Tally::count(&self.tally.no_room)).err(),
            None => Some(parcel),
        };
        if let Some(parcel) = left {
            self.failures.report_no_room(parcel.ticket);
        }
    }

    fn link(&self, id: Connection) -> Option<Rc<Link>> {
        self.links.borrow().get(&id).cloned()
    }

    /// A connection that stands, or is being opened, to this very peer.
    fn standing_to(&self, hop: &Hop) -> Option<Rc<Link>> {
        let route = Route::of(hop)?;
        let opened = self.routes.borrow().get(&route).copied();
        if let Some(link) = opened.and_then(|id| self.link(id)) {
            return Some(link);
        }
        // A trunk with roots of its own trusts nobody else's word on who the peer is.
        let peer = route.peer.filter(|peer| !self.rules.load().tls.has_own_roots(peer))?;
        let id = self.aliases.borrow().get(&route.to).copied()?;
        self.link(id).filter(|link| alias::serves(link, &peer))
    }

    /// A link to a connection that is going to be opened; `None`: there must be none, or there is no place.
    fn open(self: &Rc<Self>, hop: &Hop, is_response: bool) -> Option<Rc<Link>> {
        let rules = self.rules();
        let may_be_opened = !is_response || self.knows(&rules, hop.to.ip());
        let Some(route) = Route::of(hop).filter(|_| may_be_opened) else {
            // The response to a stranger that did not wait for it, or to nobody whom TLS could prove.
            Tally::count(&self.tally.not_returned);
            return None;
        };
        let place = Place::Opened { is_known: !hop.to_stranger };
        let taken = self.places.borrow_mut().take(place, &rules.setup.config.streams);
        let Ok(place) = taken else {
            Tally::count(&self.tally.refused_limit);
            return None;
        };
        let standing = self.stand(hop.to, place, Some(route.clone()));
        let link = Rc::clone(&standing.link);
        spawn_local(Rc::clone(self).reach(route, standing));
        Some(link)
    }

    async fn reach(self: Rc<Self>, route: Route, standing: Standing) {
        let rules = self.rules();
        let time = millis(rules.setup.config.streams.connect_ms);
        let established = timeout(time, self.connect(&rules, &route, standing.link())).await;
        let established =
            established.unwrap_or_else(|_| Err(format!("not established within {} ms", time.as_millis())));
        match established {
            Ok(stream) => {
                Tally::count(&self.tally.opened);
                self.note_reached(route.to.ip());
                if self.troubles.borrow_mut().remove(&route).is_some() {
                    tracing::info!(to = %route.to, transport = %route.transport, "connected again");
                }
                Session::opened(self, standing, route.transport).run(stream).await;
            }
            Err(reason) => {
                Tally::count(&self.tally.open_failures);
                self.note_trouble(route, reason);
            }
        }
    }

    async fn connect(&self, rules: &Rules, route: &Route, link: &Link) -> Result<Box<dyn Stream>, String> {
        let tcp = async {
            let socket = if route.to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.bind(SocketAddr::new(self.local, 0))?;
            let stream = socket.connect(route.to).await?;
            tune(&stream)?;
            io::Result::Ok(stream)
        };
        let stream = tcp.await.map_err(|error| error.to_string())?;
        link.local.set(stream.local_addr().ok());
        let Some(peer) = &route.peer else { return Ok(Box::new(stream)) };
        let host = peer.name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name =
            ServerName::try_from(host).map_err(|_| format!("{:?} is no name that TLS could prove", peer.name))?;
        let connector = TlsConnector::from(rules.tls.client(peer));
        let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        Ok(Box::new(stream))
    }

    /// Logs why a peer cannot be reached, once until that changes.
    fn note_trouble(&self, route: Route, reason: String) {
        let mut troubles = self.troubles.borrow_mut();
        if troubles.get(&route) == Some(&reason) {
            return;
        }
        let name = route.peer.as_ref().map_or("", |peer| &peer.name);
        tracing::warn!(to = %route.to, transport = %route.transport, name, "cannot connect: {reason}");
        if troubles.len() >= MAX_TROUBLES {
            troubles.clear();
        }
        troubles.insert(route, reason);
    }

    fn knows(&self, rules: &Rules, ip: IpAddr) -> bool {
        rules.setup.knows(ip) || self.reached.borrow().contains(&ip)
    }

    fn note_reached(&self, ip: IpAddr) {
        let mut reached = self.reached.borrow_mut();
        if reached.len() >= MAX_REACHED && !reached.contains(&ip) {
            reached.clear();
        }
        reached.insert(ip);
    }

    fn stand(self: &Rc<Self>, peer: SocketAddr, place: Place, route: Option<Route>) -> Standing {
        let id = Connection(self.last.get() + 1);
        self.last.set(id.0);
        let link = Rc::new(Link::new(id, peer));
        self.links.borrow_mut().insert(id, Rc::clone(&link));
        if let Some(route) = &route {
            self.routes.borrow_mut().insert(route.clone(), id);
        }
        self.connections(place).fetch_add(1, Ordering::Relaxed);
        Standing { hub: Rc::clone(self), link, place, route }
    }

    /// The gauge that counts such a connection.
    fn connections(&self, place: Place) -> &AtomicU64 {
        match place {
            Place::Accepted { .. } => &self.tally.connections_in,
            Place::Opened { .. } => &self.tally.connections_out,
        }
    }
}

impl Route {
    /// `None`: TLS to nobody in particular, which there must not be.
    fn of(hop: &Hop) -> Option<Self> {
        let is_tls = hop.transport == Transport::Tls;
        let peer = hop.peer.clone().filter(|_| is_tls);
        (is_tls == peer.is_some()).then_some(Self { transport: hop.transport, to: hop.to, peer })
    }
}

/// A connection's entry in the hub's tables. When it is dropped the connection is gone, and what it had not delivered is reported.
#[derive(Debug)]
pub(super) struct Standing {
    hub: Rc<Hub>,
    link: Rc<Link>,
    place: Place,
    route: Option<Route>,
}

impl Standing {
    pub(super) fn link(&self) -> &Link {
        &self.link
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let hub = &self.hub;
        let id = self.link.id;
        hub.links.borrow_mut().remove(&id);
        if let Some(route) = self.route.take()
            && let Entry::Occupied(entry) = hub.routes.borrow_mut().entry(route)
            && *entry.get() == id
        {
            entry.remove();
        }
        if let Some(address) = self.link.alias.get()
            && let Entry::Occupied(entry) = hub.aliases.borrow_mut().entry(address)
            && *entry.get() == id
        {
            entry.remove();
        }
        hub.places.borrow_mut().give(self.place);
        hub.connections(self.place).fetch_sub(1, Ordering::Relaxed);
        for ticket in self.link.undelivered() {
            hub.failures.report(Some(ticket));
        }
    }
}

/// TCP or TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Whether an error of accept concerns the connection that was to be accepted, and not the listener (accept(2)).
fn is_of_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable)
}
