//! Sending a request on: its server transaction, its branches, and what changes on the way (RFC 3261 §16.6).

use std::net::SocketAddr;
use std::sync::Arc;

use sipedge_sip::Time;
use sipedge_sip::message::{HeaderName, Layout, Message, Method};
use sipedge_sip::transaction::{InviteClient, InviteServer, NonInviteClient, NonInviteServer};
use sipedge_sip::uri::Uri;

use super::admission::{TRYING, UNRESOLVED};
use super::answerer::{self, FLOW_HEADER};
use super::context::Context;
use super::destinations::{Candidate, Choice, Destinations};
use super::flow::{Arrival, Hop, Query, Receipt, Server, TlsPeer, Transport};
use super::head::Head;
use super::incoming::Incoming;
use super::limits::with_reserve;
use super::pool::Pool;
use super::routes::Path;
use super::setup::{Lookup, Target};
use super::token::Token;
use super::transactions::{Id, Key, Machine};
use super::{Engine, Port, branch, call_hash, loops, trust, write};
use crate::config::Select;

/// Where a request goes, and what changes on the way whichever branch it takes.
#[derive(Debug, Clone)]
pub(super) struct Onward<'a> {
    pub(super) way: Way,
    /// Its routes, within a dialog; all Route headers of other requests go: what a stranger to the route set put there leads nowhere.
    pub(super) path: Option<Path<'a>>,
    pub(super) record_route: Option<Token>,
    /// Key of the call that a limit counts.
    pub(super) counted: Option<u128>,
    /// Fingerprint of the trunk at the other end.
    pub(super) toward: u16,
    /// What the answerer is told of the way back.
    pub(super) flow: Option<&'a [u8]>,
}

/// How the next hop is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// It is known.
    Hop(Hop),
    /// A destination of this trunk.
    Pool(usize),
    /// A server of this URI.
    Uri(Lookup),
}

impl Engine {
    /// Opens the server transaction of a request that is forwarded, and its first branch or branches.
    pub(super) fn relay(&mut self, now: Time, request: &Incoming<'_>, onward: &Onward<'_>) {
        let setup = self.setup.clone();
        if self.refuse_again(now, request) {
            return;
        }
        // What new calls leave is for requests within dialogs; past that there is no memory for them either.
        let (transactions, bytes) = (setup.transactions as u64, setup.message_bytes);
        let is_new = matches!(onward.way, Way::Pool(_));
        let has_room = match is_new {
            true => self.has_room(request, transactions, bytes),
            false => self.has_room(request, with_reserve(transactions), with_reserve(bytes)),
        };
        if !has_room {
            self.counters.refused_budget += 1;
            self.refuse_for_now(now, request, self.unavailable());
            return;
        }
        let method = request.head.method();
        let delivery = request.arrival.transport.delivery();
        let machine = match method {
            Method::Invite => Machine::InviteServer(InviteServer::new(delivery)),
            _ => Machine::NonInviteServer(NonInviteServer::new(now, &setup.timers, delivery)),
        };
        let context = Context {
            pool: is_new,
            toward: onward.toward,
            opens_call: method == Method::Invite && onward.record_route.is_some(),
            ..Context::default()
        };
        let server =
            self.transactions.insert_server(Key::new(request.branch, method), machine, request.back(), context);
        if let Some(counted) = onward.counted
            && let Some(extra) = self.transactions.extra_mut(server)
        {
            extra.counted = Some(counted);
        }
        if method == Method::Invite {
            self.answer(request, TRYING);
            self.keep_last_transmit(server);
        }
        if self.open_branches(now, server, request, onward) {
            return;
        }
        match &onward.way {
            Way::Uri(Lookup::Name(query)) if !self.waiting.is_full() && self.names.servers(query, now).is_none() => {
                self.keep_original(server, request);
                self.hold(now, query.clone(), server);
            }
            _ => {
                self.keep_original(server, request);
                self.conclude(now, server, UNRESOLVED);
            }
        }
    }

    /// Opens a further branch of a request that is kept: another destination is tried. Whether there was one.
    pub(super) fn open_next(&mut self, now: Time, server: Id) -> bool {
        let counted = self.transactions.extra(server).and_then(|extra| extra.counted);
        let opened = self.with_original(server, |engine, request| {
            let Some(onward) = engine.onward_again(now, server, request) else { return false };
            engine.open_branches(now, server, request, &Onward { counted, ..onward })
        });
        opened == Some(true)
    }

    /// Where TCP was taken for a request's size alone and has failed: the same server over UDP (RFC 3261 §18.1.1). Whether it was tried.
    pub(super) fn fall_back(&mut self, now: Time, server: Id, client: Id) -> bool {
        let Some(to) = self.transactions.get(client).map(|transaction| transaction.hop.to) else { return false };
        let opened = self.with_original(server, |engine, request| {
            let Some(onward) = engine.onward_again(now, server, request) else { return false };
            let hop = engine.datagram_to(to);
            let setup = engine.setup.clone();
            let target = match onward.way {
                Way::Pool(trunk) => setup
                    .trunks
                    .get(trunk)
                    .and_then(|trunk| trunk.targets.iter().find(|target| engine.leads_to(target, to))),
                _ => None,
            };
            // What the branch had is free again; beside others the least is safe (RFC 5393 §5.3.3).
            let is_alone = engine.transactions.context(server).is_some_and(|context| context.open == 0);
            let breadth = if is_alone { loops::breadth(&request.message).unwrap_or_default() } else { 1 };
            engine.open_branch(now, server, request, &onward, Step { hop, target, for_size: false, breadth });
            true
        });
        opened == Some(true)
    }

    /// Whether a target has a server at this address.
    fn leads_to(&self, target: &Target, address: SocketAddr) -> bool {
        match &target.lookup {
            Lookup::Address(server) => server.address == address,
            Lookup::Name(query) => self.names.known(query).iter().any(|server| server.address == address),
        }
    }

    /// The same way on as before, for a request that is kept.
    fn onward_again<'a>(&self, now: Time, server: Id, request: &Incoming<'a>) -> Option<Onward<'a>> {
        let context = self.transactions.context(server)?;
        let toward = context.toward;
        if context.pool {
            let to = self.setup.trunk_with(toward)?;
            let from = request.trunk.and_then(|from| self.setup.trunks.get(from))?;
            let token = Token { from: from.fingerprint, to: toward, issued: now.as_secs() as u32 };
            let record_route = opens_dialog(request.head.method()).then_some(token);
            return Some(Onward { way: Way::Pool(to), path: None, record_route, counted: None, toward, flow: None });
        }
        let path = Path::of(&request.message, &request.head, &self.setup, now.as_secs()).ok()?;
        let way = Way::Uri(Lookup::of(&path.next)?);
        Some(Onward { way, path: Some(path), record_route: None, counted: None, toward, flow: None })
    }

    /// Opens the branches that are due now: one, or at the first time all that a forking trunk has. Whether there was any.
    fn open_branches(&mut self, now: Time, server: Id, request: &Incoming<'_>, onward: &Onward<'_>) -> bool {
        let setup = self.setup.clone();
        let is_first = self.transactions.context(server).is_some_and(|context| context.tries == 0);
        let breadth = loops::breadth(&request.message).unwrap_or_default();
        let trunk = match onward.way {
            Way::Pool(trunk) => setup.trunks.get(trunk),
            _ => None,
        };
        let forks = is_first && trunk.is_some_and(|trunk| trunk.select == Select::All);
        // Which destination the INVITE has gone to is not known here: whoever has it takes the CANCEL.
        let is_for_all = request.head.method() == Method::Cancel;
        let most = if forks || is_for_all { MOST_BRANCHES.min(breadth) } else { 1 };
        let mut set = std::mem::take(&mut self.fork);
        set.clear();
        if let (true, false, Way::Pool(trunk)) = (forks, is_for_all, &onward.way) {
            self.destinations.set(now, &setup, &self.names, *trunk, call_hash(request.head.call_id), &mut set);
        }
        let mut steps: [Option<Step<'_>>; MOST_BRANCHES as usize] = Default::default();
        let mut count = 0;
        while count < most {
            // A branch that cannot be kept could be neither acknowledged nor cancelled. Of the first one admission has made sure.
            let taken = u64::from(count + 1) * Pool::cost(request.message.bytes().len() + ADDED);
            if (count > 0 || !is_first) && !self.transactions.has_memory(taken) {
                break;
            }
            let found = match (forks && !is_for_all, trunk) {
                (true, Some(trunk)) => {
                    let candidate = set.get(count as usize);
                    candidate.map(|candidate| (candidate.server, trunk.targets.get(candidate.target)))
                }
                _ => self.next_server(now, server, request, onward, &setup, &steps),
            };
            let Some((server_found, target)) = found else { break };
            let Some(place) = steps.get_mut(count as usize) else { break };
            *place = Some(self.step(request, onward, server_found, target));
            count += 1;
        }
        let waiting = set.len().saturating_sub(count as usize);
        self.fork = set;
        if count == 0 {
            return false;
        }
        if let Some(context) = self.transactions.context_mut(server) {
            context.waiting = if forks { waiting as u16 } else { context.waiting.saturating_sub(1) };
        }
        // RFC 5393 §5.3.3: branches at the same time share the breadth, all of it.
        let (share, rest) = (breadth / count, breadth % count);
        let mut keeps = !matches!(onward.way, Way::Hop(_)) && self.has_more(server, onward, &setup, count);
        for (step, place) in steps.into_iter().flatten().zip(0..) {
            keeps |= step.for_size;
            let breadth = share + u32::from(place < rest);
            self.open_branch(now, server, request, onward, Step { breadth, ..step });
        }
        if keeps {
            self.keep_original(server, request);
        } else {
            self.let_original_go(server);
        }
        true
    }

    /// The next server that this request has not been sent to.
    fn next_server<'s>(
        &mut self,
        now: Time,
        server: Id,
        request: &Incoming<'_>,
        onward: &Onward<'_>,
        setup: &'s super::Setup,
        steps: &[Option<Step<'_>>],
    ) -> Option<(Server, Option<&'s Target>)> {
        let transactions = &self.transactions;
        let gone = transactions.extra(server).map(|extra| extra.gone.as_slice()).unwrap_or_default();
        let is_tried = |found: &Server| {
            let is_at = |transport: Transport, to: SocketAddr, for_size: bool| {
                to == found.address && (transport == found.transport || for_size)
            };
            let of_branch = |client: Id| {
                let transaction = transactions.get(client)?;
                Some((transaction.hop.transport, transaction.hop.to, transaction.as_branch()?.for_size))
            };
            let taken = steps.iter().flatten().map(|step| (step.hop.transport, step.hop.to, step.for_size));
            let open = transactions.branches(server).filter_map(of_branch);
            let gone = gone.iter().map(|gone| (gone.transport, gone.to, gone.for_size));
            taken.chain(open).chain(gone).any(|(transport, to, for_size)| is_at(transport, to, for_size))
        };
        let call = call_hash(request.head.call_id);
        match &onward.way {
            Way::Hop(hop) => {
                let found = Server { priority: 0, weight: 1, transport: hop.transport, address: hop.to };
                (!is_tried(&found)).then_some((found, None))
            }
            Way::Pool(trunk) => {
                let settings = setup.trunks.get(*trunk)?;
                let (tries, waiting) =
                    transactions.context(server).map_or((0, 0), |context| (context.tries, context.waiting));
                if tries >= settings.attempts.max(1) && waiting == 0 {
                    return None;
                }
                let tried = |candidate: &Candidate| is_tried(&candidate.server);
                match self.destinations.choose(now, setup, &self.names, *trunk, call, tried) {
                    Choice::Take(candidate) => Some((candidate.server, settings.targets.get(candidate.target))),
                    Choice::Exhausted | Choice::Unavailable => None,
                }
            }
            Way::Uri(Lookup::Address(found)) => (!is_tried(found)).then_some((*found, None)),
            Way::Uri(Lookup::Name(query)) => {
                let left = self
                    .names
                    .known(query)
                    .iter()
                    .filter(|found| !is_tried(found) && self.may_reach(found.address.ip()));
                let best = left.clone().map(|found| found.priority).min()?;
                let left = left.filter(|found| found.priority == best);
                let place = call % left.clone().count().max(1) as u64;
                left.cloned().nth(place as usize).map(|found| (found, None))
            }
        }
    }

    /// Whether there are more servers than those that have been taken.
    fn has_more(&self, server: Id, onward: &Onward<'_>, setup: &super::Setup, taken: u32) -> bool {
        let context = self.transactions.context(server);
        let tries = context.map_or(0, |context| u32::from(context.tries)) + taken;
        if context.is_some_and(|context| context.waiting > 0) {
            return true;
        }
        match &onward.way {
            Way::Hop(_) | Way::Uri(Lookup::Address(_)) => false,
            Way::Uri(Lookup::Name(query)) => tries < MOST_BRANCHES && (tries as usize) < self.names.known(query).len(),
            Way::Pool(trunk) => setup.trunks.get(*trunk).is_some_and(|settings| {
                tries < u32::from(settings.attempts)
                    && (tries as usize) < Destinations::servers(setup, &self.names, *trunk)
            }),
        }
    }

    /// The way to a server, with what its size and its name ask for.
    fn step<'s>(
        &self,
        request: &Incoming<'_>,
        onward: &Onward<'_>,
        server: Server,
        target: Option<&'s Target>,
    ) -> Step<'s> {
        let above = self.setup.config.streams.above_bytes;
        let is_large = above.is_some_and(|above| request.message.bytes().len() + ADDED > above as usize);
        let for_size =
            is_large && server.transport == Transport::Udp && target.is_some_and(|target| target.leaves_transport_open);
        let transport = if for_size { Transport::Tcp } else { server.transport };
        let peer = match (transport, target, &onward.way) {
            (Transport::Tls, Some(target), _) => Some(target.peer.clone()),
            (Transport::Tls, None, Way::Uri(Lookup::Name(query))) => Some(self.peer(&query.host, onward)),
            (Transport::Tls, None, _) => Some(self.peer(&server.address.ip().to_string(), onward)),
            _ => None,
        };
        let hop = match &onward.way {
            Way::Hop(hop) => hop.clone(),
            _ => {
                let (port, to) = (self.egress(), server.address);
                let is_of_configuration = || self.setup.knows(to.ip()) || self.destination_at(to.ip()).is_some();
                let to_stranger = target.is_none() && !is_of_configuration();
                Hop { transport, port, to, connection: None, peer, to_stranger }
            }
        };
        Step { hop, target, for_size, breadth: 1 }
    }

    /// Whom a remote target has to prove to be over TLS: its host, by the certificates of the trunk that it belongs to.
    fn peer(&self, host: &str, onward: &Onward<'_>) -> Arc<TlsPeer> {
        let trunk = self.setup.trunk_with(onward.toward).and_then(|trunk| self.setup.trunks.get(trunk));
        Arc::new(TlsPeer { name: host.to_owned(), trunk: trunk.map(|trunk| trunk.name.clone()) })
    }

    /// Sends a request on in a branch of its own.
    fn open_branch(&mut self, now: Time, server: Id, request: &Incoming<'_>, onward: &Onward<'_>, step: Step<'_>) {
        let method = request.head.method();
        let timers = &self.setup.timers;
        let delivery = step.hop.transport.delivery();
        let machine = match method {
            Method::Invite => Machine::InviteClient(InviteClient::new(now, timers, delivery)),
            _ => Machine::NonInviteClient(NonInviteClient::new(now, timers, delivery)),
        };
        let key = Key::new(self.onward_branch(request, &step.hop), method);
        let receipt = self.transactions.next_receipt(key);
        self.send_on(request, onward, &step, Some(receipt));
        let client = self.transactions.insert_client(key, machine, step.hop, Some(server));
        self.keep_last_transmit(client);
        // Within a dialog there may be routes, which are not found again as easily.
        if method == Method::Invite && onward.path.is_none() {
            self.scratch.clear();
            write::extract_sent(request, self.outbox.last(), &mut self.scratch);
            self.transactions.keep_extract(client, &self.scratch);
        }
        if let Some(branch) = self.transactions.branch_mut(client) {
            branch.for_size = step.for_size;
        }
        if let Some(context) = self.transactions.context_mut(server) {
            context.tries = context.tries.saturating_add(1);
            self.counters.failovers += u64::from(context.tries > 1 && context.open == 1);
        }
    }

    /// The branch parameter of a request that goes this way.
    fn onward_branch(&self, request: &Incoming<'_>, hop: &Hop) -> u128 {
        branch::onward(&self.setup.branch_key, request.branch, hop.transport, hop.to)
    }

    /// Sends an ACK of a 2xx on: once, without a transaction (RFC 3261 §16.6, §17).
    pub(super) fn send_ack(&mut self, request: &Incoming<'_>, onward: &Onward<'_>) {
        let found = match &onward.way {
            Way::Uri(Lookup::Address(found)) => Some(*found),
            Way::Uri(Lookup::Name(query)) => {
                let known = self.names.known(query);
                let best =
                    known.iter().filter(|found| Some(found.priority) == known.first().map(|first| first.priority));
                let place = call_hash(request.head.call_id) % best.clone().count().max(1) as u64;
                best.cloned().nth(place as usize)
            }
            Way::Hop(hop) => Some(Server { priority: 0, weight: 1, transport: hop.transport, address: hop.to }),
            Way::Pool(_) => None,
        };
        // A hop that is given was found by the engine itself.
        let is_given = matches!(onward.way, Way::Hop(_));
        let token = onward.path.as_ref().map(|path| path.token).filter(answerer::is_its);
        let may_reach = |found: &Server| match token {
            _ if is_given => true,
            Some(token) => self.leads_to_answerer(found, &token),
            None => self.may_reach(found.address.ip()),
        };
        let Some(found) = found.filter(may_reach) else { return };
        let breadth = loops::breadth(&request.message).unwrap_or_default();
        let step = Step { breadth, ..self.step(request, onward, found, None) };
        self.counters.acks_forwarded += 1;
        self.send_on(request, onward, &step, None);
    }

    /// Sends the request on with the edits that its way asks for and those that every forwarded request gets. `receipt`: of the transaction
    /// that it opens, if it does.
    fn send_on(&mut self, request: &Incoming<'_>, onward: &Onward<'_>, step: &Step<'_>, receipt: Option<Receipt>) {
        let setup = self.setup.clone();
        let (message, head) = (&request.message, &request.head);
        let branch = receipt.map_or_else(|| self.onward_branch(request, &step.hop), |receipt| receipt.key.branch());
        // A trunk that calls only go to speaks within them.
        let speaker = request.trunk.or_else(|| match trust::concerns(message) {
            true => self.destination_at(request.source.ip()),
            false => None,
        });
        let edits = &mut self.edits;
        edits.clear();
        match &onward.path {
            Some(path) => path.note(head, edits),
            None => message.headers(HeaderName::Route).for_each(|route| edits.remove(route.line)),
        }
        if let (Some(target), Some(uri)) = (step.target, head.uri) {
            edits.replace(head.request.uri.span, |out| write_request_uri(&uri, &target.host_port, out));
        }
        let digest = loops::digest(request, &setup);
        write::edit_forwarded(edits, message, &request.stamp, (branch, digest), step.hop.transport, &setup);
        loops::note_breadth(message, step.breadth, edits);
        if trust::concerns(message) {
            let (from, to) = (setup.trust_of(speaker), setup.trust_of(setup.trunk_with(onward.toward)));
            trust::note(message, from, to, edits);
        }
        if let Some(flow) = onward.flow {
            edits.insert(message.first_header(), |out| {
                out.extend_from_slice(FLOW_HEADER.as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(flow);
                out.extend_from_slice(b"\r\n");
            });
        }
        if let (Some(token), Some(signing)) = (onward.record_route, setup.token_keys.first()) {
            let (before, after) = (request.arrival.transport, step.hop.transport);
            let secure = head.uri.is_some_and(|uri| uri.secure);
            edits.insert(message.first_header(), |out| {
                // Two where the transports differ, the later one on top (RFC 5658 §4).
                for transport in [after].into_iter().chain((before != after).then_some(before)) {
                    out.extend_from_slice(if secure { b"Record-Route: <sips:" } else { b"Record-Route: <sip:" });
                    token.write(signing, &head.call(), out);
                    out.push(b'@');
                    out.extend_from_slice(setup.sent_by(transport).as_bytes());
                    if transport != Transport::Udp && !(secure && transport == Transport::Tls) {
                        out.extend_from_slice(b";transport=");
                        out.extend_from_slice(transport.parameter().as_bytes());
                    }
                    out.extend_from_slice(b";lr>\r\n");
                }
            });
        }
        let receipt = receipt.filter(|_| step.hop.transport.is_reliable());
        let edits = &self.edits;
        self.outbox.transmit(&step.hop, receipt, |out| edits.write(message, out));
    }

    /// Keeps a request as it came, for further branches.
    fn keep_original(&mut self, server: Id, request: &Incoming<'_>) {
        let Some(context) = self.transactions.context_mut(server) else { return };
        context.has_more = true;
        if self.transactions.extra(server).is_some_and(|extra| !extra.kept.is_empty()) {
            return;
        }
        let original = self.transactions.copy(request.message.bytes());
        if let Some(extra) = self.transactions.extra_mut(server) {
            extra.kept = original;
            extra.source = Some(request.source);
        }
    }

    /// Reads the request that a server transaction keeps, and gives it to `act`.
    pub(super) fn with_original<R>(
        &mut self,
        server: Id,
        act: impl FnOnce(&mut Self, &Incoming<'_>) -> R,
    ) -> Option<R> {
        let transaction = self.transactions.get(server)?;
        let hop = &transaction.hop;
        let source = transaction.extra.as_ref()?.source?;
        let arrival = Arrival { transport: hop.transport, port: hop.port, source, connection: hop.connection };
        let original = self.transactions.take_original(server)?;
        // A failover is rare: a layout of its own keeps the others free for what `act` does.
        let mut layout = Layout::default();
        let read = Message::read(original.bytes(), &mut layout).ok();
        let request = read.and_then(|message| Some(Incoming::new(message, Head::of(&message)?, &arrival, &self.setup)));
        let result = request.map(|request| act(self, &request));
        // `act` may have kept it anew, or have let it go since nothing further can be tried.
        let has_more = self.transactions.context(server).is_some_and(|context| context.has_more);
        match self.transactions.extra_mut(server).filter(|extra| has_more && extra.kept.is_empty()) {
            Some(extra) => (extra.kept, extra.source) = (original, Some(source)),
            None => self.transactions.release(original),
        }
        self.transactions.tidy(server);
        result
    }

    /// The last queued message is what this transaction may have to send again.
    pub(super) fn keep_last_transmit(&mut self, id: Id) {
        self.transactions.keep(id, self.outbox.last());
    }

    /// The port that requests leave from.
    pub(super) fn egress(&self) -> Port {
        if self.setup.egress == self.setup.ingress { Port::Ingress } else { Port::Egress }
    }

    /// The way of a datagram to this address.
    pub(super) fn datagram_to(&self, to: SocketAddr) -> Hop {
        let (transport, port) = (Transport::Udp, self.egress());
        Hop { transport, port, to, connection: None, peer: None, to_stranger: false }
    }

    /// What is known of the servers of a name.
    pub(super) fn name(&mut self, now: Time, query: &Query) -> Known {
        match self.names.servers(query, now) {
            None => Known::Asked,
            Some([]) => Known::Nowhere,
            Some(_) => Known::Servers,
        }
    }
}

/// What the name servers have said of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Servers,
    Asked,
    Nowhere,
}

/// One branch that is to be opened.
#[derive(Debug)]
struct Step<'t> {
    hop: Hop,
    /// The target whose host the Request-URI gets.
    target: Option<&'t Target>,
    /// Whether TCP is taken for the request's size alone.
    for_size: bool,
    /// Its Max-Breadth.
    breadth: u32,
}

/// Whether a request of this method, from outside a dialog, may open one: then the edge stays in its path. One that is not known may
/// (RFC 3261 §16.6 step 4).
pub(super) fn opens_dialog(method: Method<'_>) -> bool {
    match method {
        Method::Invite => true,
        // RFC 3428 §4, RFC 3903 §4, RFC 3262, RFC 3311, RFC 6086: they open none.
        Method::Other(name) => !matches!(name, b"MESSAGE" | b"PUBLISH" | b"PRACK" | b"UPDATE" | b"INFO"),
        _ => false,
    }
}

/// The Request-URI with another host: scheme and user part kept, and the parameters but those that say how to reach the old host.
fn write_request_uri(uri: &Uri<'_>, host_port: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(if uri.secure { b"sips:" } else { b"sip:" });
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

/// RFC 3261 §16.6 step 2, §19.1.1: transport, maddr and ttl are about the host; lr is a route's; method is for no Request-URI.
const OF_THE_OLD_HOST: [&[u8]; 5] = [b"transport", b"maddr", b"ttl", b"lr", b"method"];
/// Branches that one request has at the same time: enough for a hunt group, few enough that one INVITE floods nobody.
const MOST_BRANCHES: u32 = 8;
/// Bytes that a request grows by on its way, at most; see RFC 3261 §18.1.1 for why the grown size counts.
pub(super) const ADDED: usize = 512;
