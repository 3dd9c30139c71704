//! Requests: admit, route, send on (RFC 3261 §16.3 to §16.6).

use sipedge_sip::Time;
use sipedge_sip::message::{HeaderName, Message, Method};
use sipedge_sip::transaction::ServerReaction;

use super::admission::{
    BAD_REQUEST, BAD_ROUTE, FORBIDDEN, FORBIDDEN_TARGET, METHOD_NOT_ALLOWED, NO_ROUTE, NO_SUCH_DIALOG, NOT_FOUND,
    NOT_SUPPORTED, OK, Sender, TOO_LARGE, UNRESOLVED, UNSUPPORTED_SCHEME,
};
use super::cancel::CancelReason;
use super::flow::Arrival;
use super::head::Head;
use super::incoming::Incoming;
use super::relay::{Known, Onward, Way, opens_dialog};
use super::routes::{NoPath, Path};
use super::setup::Lookup;
use super::strangers::MOST_BYTES_IN_DIALOG;
use super::token::{Direction, Token};
use super::transactions::{Id, Key, Machine};
use super::write::ExtraHeader;
use super::{Engine, Gate, answerer};

impl Engine {
    pub(super) fn handle_request(&mut self, now: Time, arrival: &Arrival, message: &Message<'_>) {
        let Some(head) = Head::of(message) else {
            self.counters.malformed += 1;
            self.answer_malformed(arrival, message, BAD_REQUEST);
            return;
        };
        let request = Incoming::new(*message, head, arrival, &self.setup);
        let (method, invite) = (head.method(), Key::invite(request.branch));
        match method {
            Method::Ack => {
                if let Some(id) = self.known(&request, invite)
                    && self.absorb_ack(now, id)
                {
                    return;
                }
            }
            Method::Cancel => {
                if let Some(id) = self.known(&request, invite) {
                    self.answer(&request, OK);
                    self.cancel(now, id, CancelReason::of(message));
                    return;
                }
            }
            _ => {}
        }
        // An ACK is no transaction of its own; a CANCEL is one where its INVITE is not known.
        if method != Method::Ack
            && let Some(id) = self.known(&request, Key::new(request.branch, method))
        {
            self.repeat(id);
            return;
        }
        let sender = self.sender(&request);
        if head.to_tag.is_empty() && !self.is_to_untagged_caller(now, &request) {
            self.route_new(now, &request, sender)
        } else {
            self.route_in_dialog(now, &request, &sender)
        }
    }

    /// Whether a request without To tag is the callee's to a caller of RFC 2543, which had no tag (RFC 3261 §12.2.1.1): then its route
    /// is of that very call. An INVITE without To tag could be a call of its own where it leads: it goes to the caller's trunk alone.
    fn is_to_untagged_caller(&self, now: Time, request: &Incoming<'_>) -> bool {
        let message = &request.message;
        if message.header(HeaderName::Route).is_none() {
            return false;
        }
        let Ok(path) = Path::of(message, &request.head, &self.setup, now.as_secs()) else { return false };
        let leads_to_caller = || match Lookup::of(&path.next) {
            Some(Lookup::Address(server)) => {
                let trunk = self.setup.trunk_of(server.address.ip());
                trunk.is_some() && trunk == self.setup.trunk_with(path.token.from)
            }
            _ => false,
        };
        path.direction == Direction::FromCallee && (request.head.method() != Method::Invite || leads_to_caller())
    }

    /// The server transaction with this key, when the request comes from where that one's did: its address, or another one of its
    /// trunk. Everybody beyond the edge sees the branches of its peers; with them alone nobody cancels a call.
    fn known(&self, request: &Incoming<'_>, key: Key) -> Option<Id> {
        let id = self.transactions.server(key)?;
        let first = self.transactions.get(id)?.hop.to.ip();
        let source = request.source.ip();
        let is_same = first == source
            || self.setup.trunk_of(first).is_some_and(|trunk| self.setup.trunk_of(source) == Some(trunk));
        is_same.then_some(id)
    }

    /// The request has come again: its last response goes again, if it still can.
    fn repeat(&mut self, id: Id) {
        self.counters.retransmissions_absorbed += 1;
        let Some(transaction) = self.transactions.get_mut(id) else { return };
        let reaction = match &mut transaction.machine {
            Machine::InviteServer(machine) => machine.handle_request(),
            Machine::NonInviteServer(machine) => machine.handle_request(),
            Machine::InviteClient(_) | Machine::NonInviteClient(_) => ServerReaction::Absorb,
        };
        if reaction == ServerReaction::Repeat && !transaction.kept.is_empty() {
            let kept = transaction.kept.bytes();
            self.outbox.transmit(&transaction.hop, transaction.receipt(), |out| out.extend_from_slice(kept));
        }
    }

    /// Whether the ACK ends here, being for a refusal of ours or one that we passed.
    fn absorb_ack(&mut self, now: Time, id: Id) -> bool {
        let Some(transaction) = self.transactions.get_mut(id) else { return false };
        let Machine::InviteServer(machine) = &mut transaction.machine else { return false };
        if !machine.handle_ack(now, &self.setup.timers) {
            return false;
        }
        if !machine.may_repeat() {
            self.transactions.forget(id);
        }
        self.transactions.settle(id);
        true
    }

    /// A request within a dialog goes on only by a route that this edge has issued for this very call.
    fn route_in_dialog(&mut self, now: Time, request: &Incoming<'_>, sender: &Sender) {
        let head = &request.head;
        let path = match Path::of(&request.message, head, &self.setup, now.as_secs()) {
            Ok(path) => path,
            Err(NoPath::Broken) => return self.refuse(now, request, sender, BAD_ROUTE),
            Err(NoPath::Scheme) => return self.reject(request, UNSUPPORTED_SCHEME),
            Err(NoPath::Forged) => {
                self.counters.refused_token += 1;
                return self.refuse(now, request, sender, FORBIDDEN);
            }
            Err(NoPath::NoDialog) if head.method() == Method::Ack => {
                self.counters.stray_acks += 1;
                return;
            }
            Err(NoPath::NoDialog) => {
                self.counters.refused_token += 1;
                return self.refuse(now, request, sender, NO_SUCH_DIALOG);
            }
        };
        if matches!(sender, Sender::Stranger) && self.destination_at(request.source.ip()).is_none() {
            if !self.strangers.admit_in_dialog(now) {
                self.counters.dropped_in_dialog += 1;
                return;
            }
            if request.message.bytes().len() > MOST_BYTES_IN_DIALOG {
                return self.reject(request, TOO_LARGE);
            }
        }
        if !self.may_forward(request) || (head.method() == Method::Invite && self.refuse_again(now, request)) {
            return;
        }
        if self.route_from_answerer(now, request, &path) {
            return;
        }
        let Some(lookup) = Lookup::of(&path.next) else {
            return self.reject(request, UNSUPPORTED_SCHEME);
        };
        let may_reach = match &lookup {
            // A caller makes up the To tag of such a call and its Request-URI, and is nobody's trunk.
            Lookup::Address(server) if answerer::is_its(&path.token) => self.leads_to_answerer(server, &path.token),
            Lookup::Name(_) if answerer::is_its(&path.token) => false,
            Lookup::Address(server) => self.may_reach(server.address.ip()),
            Lookup::Name(query) => match self.name(now, query) {
                Known::Servers => {
                    let known = self.names.known(query);
                    known.iter().any(|server| self.may_reach(server.address.ip()))
                }
                Known::Asked if head.method() != Method::Ack && self.waiting.is_full() => {
                    self.counters.unresolved_destination += 1;
                    return self.refuse_for_now(now, request, self.unavailable());
                }
                Known::Asked | Known::Nowhere if head.method() == Method::Ack => {
                    // The 2xx comes again, and the answer may be there.
                    self.counters.unresolved_destination += 1;
                    return;
                }
                Known::Asked => true,
                Known::Nowhere => {
                    self.counters.unresolved_destination += 1;
                    return self.refuse_for_now(now, request, UNRESOLVED);
                }
            },
        };
        if !may_reach {
            return self.reject(request, FORBIDDEN_TARGET);
        }
        let counted = self.counted_call(request, &path.token, path.direction);
        let toward = match path.direction {
            Direction::FromCaller => path.token.to,
            Direction::FromCallee => path.token.from,
        };
        let onward =
            Onward { way: Way::Uri(lookup), path: Some(path), record_route: None, counted, toward, flow: None };
        if head.method() == Method::Ack {
            self.send_ack(request, &onward);
        } else {
            self.counters.requests_in_dialog += 1;
            self.relay(now, request, &onward);
        }
    }

    /// A request from outside a dialog: from a trunk, to where its route leads.
    fn route_new(&mut self, now: Time, request: &Incoming<'_>, sender: Sender) {
        let method = request.head.method();
        let trunk = match (sender, method) {
            // An ACK is never answered, and without a dialog or a transaction it belongs to nothing.
            (_, Method::Ack) => {
                self.counters.stray_acks += 1;
                return;
            }
            (Sender::Stranger, _) => {
                if !self.route_to_answerer(now, request) {
                    self.refuse(now, request, &Sender::Stranger, FORBIDDEN);
                }
                return;
            }
            (Sender::SelfCall { callee }, _) => {
                let token = Token { from: 0, to: 0, issued: now.as_secs() as u32 };
                let onward = Onward {
                    way: Way::Hop(self.datagram_to(callee)),
                    path: None,
                    record_route: Some(token),
                    counted: None,
                    toward: 0,
                    flow: None,
                };
                return self.relay(now, request, &onward);
            }
            (Sender::Trunk(trunk), _) => trunk,
        };
        match method {
            Method::Options => return self.answer_options(request),
            // This edge is no registrar, and nobody's presence agent.
            Method::Register | Method::Other(b"PUBLISH") => {
                self.counters.refused_method += 1;
                return self.answer(request, METHOD_NOT_ALLOWED);
            }
            _ => {}
        }
        if !self.may_forward(request) {
            return;
        }
        let uri = request.head.uri;
        if uri.and_then(|uri| uri.user).is_none_or(<[u8]>::is_empty) {
            // Nobody is called.
            return self.reject(request, NOT_FOUND);
        }
        let setup = self.setup.clone();
        let Some(to) = setup.trunks.get(trunk).and_then(|trunk| trunk.destination) else {
            return self.reject(request, NO_ROUTE);
        };
        let is_secure = |to: &super::setup::Trunk| to.targets.iter().all(|target| target.lookup.is_secure());
        if uri.is_some_and(|uri| uri.secure) && !setup.trunks.get(to).is_some_and(is_secure) {
            // RFC 5630 §4: a SIPS request goes over TLS to its end, or nowhere.
            return self.reject(request, UNSUPPORTED_SCHEME);
        }
        if method == Method::Invite && self.refuse_again(now, request) {
            return;
        }
        if !self.destinations.has_any(now, &setup, &self.names, to) {
            self.counters.unresolved_destination += 1;
            return self.refuse_for_now(now, request, self.unavailable());
        }
        let counted = match method {
            Method::Invite => match self.admit_call(now, request, trunk, to) {
                Ok(counted) => counted,
                Err(()) => return,
            },
            Method::Cancel => None,
            _ => match self.admit_request(now, request, trunk, to) {
                Ok(()) => None,
                Err(()) => return,
            },
        };
        let fingerprint = |trunk: usize| setup.trunks.get(trunk).map(|trunk| trunk.fingerprint).unwrap_or_default();
        let token = Token { from: fingerprint(trunk), to: fingerprint(to), issued: now.as_secs() as u32 };
        let record_route = opens_dialog(method).then_some(token);
        let onward = Onward { way: Way::Pool(to), path: None, record_route, counted, toward: token.to, flow: None };
        match method {
            Method::Invite => self.counters.calls_started += 1,
            Method::Cancel => self.counters.cancels_forwarded += 1,
            _ => self.counters.requests_outside += 1,
        }
        self.relay(now, request, &onward);
    }

    /// OPTIONS to the edge (RFC 3261 §11.2).
    pub(super) fn answer_options(&mut self, request: &Incoming<'_>) {
        if !self.may_forward(request) {
            return;
        }
        self.counters.options_answered += 1;
        let is_leaving = matches!(self.gate, Gate::Draining { .. });
        let required = request.message.header(HeaderName::Require).is_some();
        self.answer(
            request,
            match (required, is_leaving) {
                (true, _) => NOT_SUPPORTED,
                (false, true) => self.unavailable(),
                (false, false) => OK.with(ExtraHeader::Capabilities),
            },
        );
    }
}
