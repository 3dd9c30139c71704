//! Sending a request on: two transactions, the edits, the next hop (RFC 3261 §16.6), and CANCEL (§16.10).

use std::net::IpAddr;
use std::sync::Arc;

use sipedge_sip::message::{Edits, Element, HeaderName, Message, Method};
use sipedge_sip::transaction::{InviteClient, InviteServer, NonInviteClient, NonInviteServer};
use sipedge_sip::uri::Uri;
use sipedge_sip::{Span, Time};

use super::admission::TRYING;
use super::flow::{Hop, Server, TlsPeer};
use super::incoming::Incoming;
use super::limits::with_reserve;
use super::setup::Lookup;
use super::token::{Direction, Token};
use super::transactions::{Id, Key, Machine};
use super::{Engine, Gate, Port, write};

/// Where a request goes, and what changes on the way.
pub(super) struct Onward<'t> {
    pub(super) next_hop: Hop,
    /// `host[:port]` that replaces the one of the Request-URI.
    pub(super) host_port: Option<&'t str>,
    pub(super) record_route: Option<Token>,
    /// All Route headers go: what a stranger to the route set put there leads nowhere.
    pub(super) remove_routes: bool,
    pub(super) counted: Option<u128>,
}

impl Engine {
    /// Opens the two transactions of a forwarded request and sends it on.
    pub(super) fn relay(&mut self, now: Time, request: &Incoming<'_>, onward: &Onward<'_>) {
        let setup = self.setup.clone();
        if let Some(answer) = self.refusals.find(now, request.branch) {
            self.counters.retransmissions_absorbed += 1;
            self.answer(request, answer);
            return;
        }
        // What new calls leave is for requests within dialogs; past that there is no memory for them either.
        let (transactions, bytes) = (setup.transactions as u64, setup.message_bytes);
        let has_room = match onward.host_port {
            Some(_) => self.has_room(request, transactions, bytes),
            None => self.has_room(request, with_reserve(transactions), with_reserve(bytes)),
        };
        if !has_room {
            self.counters.refused_budget += 1;
            self.refuse_for_now(now, request, self.unavailable());
            return;
        }
        let method = request.head.method();
        let key = Key::new(request.branch, method);
        let timers = &setup.timers;
        let (server, client) = match method {
            Method::Invite => {
                (Machine::InviteServer(InviteServer::new()), Machine::InviteClient(InviteClient::new(now, timers)))
            }
            _ => (
                Machine::NonInviteServer(NonInviteServer::new(now, timers)),
                Machine::NonInviteClient(NonInviteClient::new(now, timers)),
            ),
        };
        let server = self.transactions.insert(key, server, request.back());
        if method == Method::Invite {
            self.answer(request, TRYING);
            self.keep_last_transmit(server);
        }
        self.send_on(request, onward);
        let client = self.transactions.insert(key, client, onward.next_hop.clone());
        self.keep_last_transmit(client);
        self.transactions.join(server, client);
        if let Some(transaction) = self.transactions.get_mut(client) {
            transaction.opens_call = method == Method::Invite && onward.record_route.is_some();
            transaction.counted = onward.counted;
        }
    }

    /// Sends the request on with the edits that are noted and those that every forwarded request gets.
    pub(super) fn send_on(&mut self, request: &Incoming<'_>, onward: &Onward<'_>) {
        let setup = self.setup.clone();
        let (message, head) = (&request.message, &request.head);
        let edits = &mut self.edits;
        if let (Some(host_port), Some(uri)) = (onward.host_port, head.request.parsed_uri()) {
            edits.replace(head.request.uri.span, |out| write_request_uri(&uri, host_port, out));
        }
        write::edit_forwarded(edits, message, &request.stamp, request.branch, &setup);
        if onward.remove_routes {
            for route in message.headers(HeaderName::Route) {
                edits.remove(route.line);
            }
        }
        if let (Some(token), Some(key)) = (onward.record_route, setup.token_keys.first()) {
            edits.insert(message.first_header(), |out| {
                out.extend_from_slice(b"Record-Route: <sip:");
                token.write(key, &head.call(), out);
                out.push(b'@');
                out.extend_from_slice(setup.sent_by.as_bytes());
                out.extend_from_slice(b";lr>\r\n");
            });
        }
        let edits = &self.edits;
        self.outbox.transmit(&onward.next_hop, None, |out| edits.write(message, out));
    }

    /// Sends the CANCEL of an INVITE that the caller has cancelled, now or as soon as the branch has answered provisionally.
    pub(super) fn cancel(&mut self, now: Time, server: Id) {
        let Some(client) = self.transactions.get(server).and_then(|transaction| transaction.peer) else { return };
        let Some(transaction) = self.transactions.get_mut(client) else { return };
        if let Machine::InviteClient(machine) = &mut transaction.machine
            && machine.cancel(now, &self.setup.timers)
        {
            self.send_cancel(now, client);
        }
        self.transactions.settle(client);
    }

    /// Sends the CANCEL of a branch, in a transaction of its own that has the branch's key.
    pub(super) fn send_cancel(&mut self, now: Time, client: Id) {
        let Some((branch, hop)) = self
            .transactions
            .key(client)
            .zip(self.transactions.get(client))
            .map(|(key, transaction)| (key.branch(), transaction.hop.clone()))
        else {
            return;
        };
        let key = Key::new(branch, Method::Cancel);
        if self.transactions.client(key).is_some() {
            return;
        }
        let invite = self.transactions.take_kept(client);
        let mut layout = std::mem::take(&mut self.spare_layout);
        if let Ok(message) = Message::read_without_body(invite.bytes(), &mut layout) {
            self.counters.cancels_forwarded += 1;
            let to = message.header(HeaderName::To).map(|to| to.line.of(message.bytes())).unwrap_or_default();
            self.outbox.transmit(&hop, None, |out| write::companion(&message, Method::Cancel, to, out));
            // Without room for a transaction it is sent once.
            if (self.transactions.len() as u64) < with_reserve(self.setup.transactions as u64) {
                let machine = Machine::NonInviteClient(NonInviteClient::new(now, &self.setup.timers));
                let id = self.transactions.insert(key, machine, hop);
                self.keep_last_transmit(id);
            }
        }
        self.spare_layout = layout;
        self.transactions.put_kept(client, invite);
    }

    /// The last queued datagram is what this transaction may have to send again.
    pub(super) fn keep_last_transmit(&mut self, id: Id) {
        self.transactions.keep(id, self.outbox.last());
    }

    /// The port that requests leave from.
    pub(super) fn egress(&self) -> Port {
        if self.setup.egress == self.setup.ingress { Port::Ingress } else { Port::Egress }
    }

    /// The address that a request goes to. Of several the Call-ID chooses, so that every instance takes the same for one call.
    pub(super) fn address(&mut self, now: Time, request: &Incoming<'_>, uri: &Uri<'_>) -> NextHop {
        let server = match Lookup::of(uri) {
            Some(Lookup::Address(server)) => server,
            Some(Lookup::Name(query)) => {
                let Some(servers) = self.names.servers(&query, now) else { return NextHop::Asked };
                let choice = super::call_hash(request.head.call_id) % servers.len().max(1) as u64;
                match servers.get(choice as usize) {
                    Some(server) => *server,
                    None => return NextHop::Unknown,
                }
            }
            None => return NextHop::Unknown,
        };
        NextHop::Known(self.hop(&server, None))
    }

    /// The way to a server.
    pub(super) fn hop(&self, server: &Server, peer: Option<Arc<TlsPeer>>) -> Hop {
        Hop { transport: server.transport, port: self.egress(), to: server.address, connection: None, peer }
    }

    /// Whether a remote target may be at this address. What the sender of a request writes there must not make the edge talk to its own
    /// machine or network; peers that are there stand in the configuration.
    pub(super) fn may_reach(&self, ip: IpAddr) -> bool {
        let is_everywhere = ip.is_loopback() || ip.is_multicast() || ip.is_unspecified();
        let is_inside = is_everywhere
            || match ip {
                IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_broadcast(),
                IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
            };
        let is_peer = || {
            let mut targets = self.setup.trunks.iter().flat_map(|trunk| &trunk.targets);
            self.setup.trunk_of(ip).is_some()
                || targets.any(|target| matches!(&target.lookup, Lookup::Address(server) if server.address.ip() == ip))
        };
        let is_self_call = || match self.gate {
            Gate::SelfCall { caller, callee } => ip == caller.ip() || ip == callee.ip(),
            _ => false,
        };
        !is_inside || is_peer() || self.shared.was_peer(ip) || is_self_call()
    }
}

/// What is known of a next hop.
pub(super) enum NextHop {
    Known(Hop),
    /// Its name is being resolved.
    Asked,
    /// Its name has no address.
    Unknown,
}

/// The Route elements at the top that name this edge, all of them with a token that is good: they go before the request goes on.
#[derive(Debug, Default)]
pub(super) struct OwnRoutes {
    removals: [Span; MOST_OWN_ROUTES],
    count: usize,
    pub(super) last: Option<(Token, Direction)>,
}

impl OwnRoutes {
    /// Whether there was room for it.
    pub(super) fn push(&mut self, element: Element<'_>, found: (Token, Direction)) -> bool {
        let Some(removal) = self.removals.get_mut(self.count) else { return false };
        *removal = element.removal();
        self.count += 1;
        self.last = Some(found);
        true
    }

    pub(super) fn remove(&self, edits: &mut Edits) {
        for removal in self.removals.iter().take(self.count) {
            edits.remove(*removal);
        }
    }
}

/// The Request-URI with another host: scheme and user part kept, and the parameters but those that say how to reach the old host.
fn write_request_uri(uri: &Uri<'_>, host_port: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"sip:");
    if let Some(user) = uri.user {
        out.extend_from_slice(user);
        out.push(b'@');
    }
    out.extend_from_slice(host_port.as_bytes());
    for parameter in uri.parameters.split(|byte| *byte == b';').skip(1) {
        let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        if !OF_THE_OLD_HOST.iter().any(|old| name.eq_ignore_ascii_case(old)) {
            out.push(b';');
            out.extend_from_slice(parameter);
        }
    }
}

/// RFC 3261 §19.1.1: transport, maddr and ttl are about the host; lr is a route's.
const OF_THE_OLD_HOST: [&[u8]; 4] = [b"transport", b"maddr", b"ttl", b"lr"];
/// A call that passes the edge twice has two route entries of ours; more than a few are a loop.
const MOST_OWN_ROUTES: usize = 8;
