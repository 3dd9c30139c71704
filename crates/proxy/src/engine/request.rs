//! Requests: admit, route, send on (RFC 3261 §16.3 to §16.6).

use sipedge_sip::Time;
use sipedge_sip::message::{HeaderName, Message, Method};
use sipedge_sip::transaction::ServerReaction;
use sipedge_sip::uri::{NameAddr, Uri};

use super::admission::{
    BAD_ROUTE, FORBIDDEN, FORBIDDEN_TARGET, METHOD_NOT_ALLOWED, NO_ROUTE, NO_SUCH_DIALOG, NOT_FOUND, OK, Sender,
    UNRESOLVED, UNSUPPORTED_SCHEME,
};
use super::destinations::Choice;
use super::flow::{Arrival, Hop, Transport};
use super::head::Head;
use super::incoming::Incoming;
use super::relay::{NextHop, Onward, OwnRoutes};
use super::token::Token;
use super::transactions::{Id, Key, Machine};
use super::write::ExtraHeader;
use super::{Engine, Gate};

impl Engine {
    pub(super) fn handle_request(&mut self, now: Time, arrival: &Arrival, message: &Message<'_>) {
        let source = arrival.source;
        let Some(head) = Head::of(message) else {
            self.counters.malformed += 1;
            self.answer_malformed(arrival, message);
            return;
        };
        let request = Incoming::new(*message, head, arrival, &self.setup.branch_key);
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
                    self.cancel(now, id);
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
        let sender = self.sender(source);
        if head.to_tag.is_empty() {
            self.route_new(now, &request, sender)
        } else {
            self.route_in_dialog(now, &request, &sender)
        }
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
        let mut ours = OwnRoutes::default();
        let mut next_uri = None;
        for element in request.message.elements(HeaderName::Route) {
            let Some(uri) = NameAddr::parse(element.text).and_then(|value| Uri::parse(value.uri)) else {
                self.refuse(request, sender, BAD_ROUTE);
                return;
            };
            if !self.setup.is_ours(&uri) {
                next_uri = Some(uri);
                break;
            }
            let user = uri.user.unwrap_or_default();
            let Some(found) = Token::verify(user, &self.setup.token_keys, &head.call(), now.as_secs()) else {
                self.counters.refused_token += 1;
                self.refuse(request, sender, FORBIDDEN);
                return;
            };
            if !ours.push(element, found) {
                self.reject(request, BAD_ROUTE);
                return;
            }
        }
        let Some((token, direction)) = ours.last else {
            match head.method() {
                Method::Ack => self.counters.stray_acks += 1,
                _ => {
                    self.counters.refused_token += 1;
                    self.refuse(request, sender, NO_SUCH_DIALOG);
                }
            }
            return;
        };
        if !self.may_forward(request) {
            return;
        }
        let target = next_uri.or_else(|| head.request.parsed_uri());
        let Some(target) = target.filter(|uri| !uri.secure) else {
            self.reject(request, UNSUPPORTED_SCHEME);
            return;
        };
        if self.setup.is_ours(&target) {
            // Nothing of ours is a remote target: sent on, it would come back until Max-Forwards ends it.
            self.reject(request, NO_SUCH_DIALOG);
            return;
        }
        let next_hop = match self.address(now, request, &target) {
            NextHop::Known(next_hop) => next_hop,
            NextHop::Asked => {
                // The peer's retransmission will find the answer.
                self.counters.unresolved_destination += 1;
                return;
            }
            NextHop::Unknown => {
                self.counters.unresolved_destination += 1;
                self.reject(request, UNRESOLVED);
                return;
            }
        };
        if !self.may_reach(next_hop.to.ip()) {
            self.reject(request, FORBIDDEN_TARGET);
            return;
        }
        let counted = self.counted_call(request, &token, direction);
        self.edits.clear();
        ours.remove(&mut self.edits);
        let onward = Onward { next_hop, host_port: None, record_route: None, remove_routes: false, counted };
        match head.method() {
            Method::Ack => {
                self.counters.acks_forwarded += 1;
                self.send_on(request, &onward);
            }
            _ => {
                self.counters.requests_in_dialog += 1;
                self.relay(now, request, &onward);
            }
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
                self.refuse(request, &Sender::Stranger, FORBIDDEN);
                return;
            }
            (Sender::SelfCall { callee }, _) => {
                self.edits.clear();
                let token = Token { from: 0, to: 0, issued: now.as_secs() as u32 };
                let next_hop =
                    Hop { transport: Transport::Udp, port: self.egress(), to: callee, connection: None, peer: None };
                let onward =
                    Onward { next_hop, host_port: None, record_route: Some(token), remove_routes: true, counted: None };
                self.relay(now, request, &onward);
                return;
            }
            (Sender::Trunk(_), Method::Options) => {
                self.counters.options_answered += 1;
                let is_leaving = matches!(self.gate, Gate::Draining { .. });
                self.answer(request, if is_leaving { self.unavailable() } else { OK.with(ExtraHeader::Allow) });
                return;
            }
            (Sender::Trunk(_), method) if !matches!(method, Method::Invite | Method::Cancel) => {
                self.counters.refused_method += 1;
                self.answer(request, METHOD_NOT_ALLOWED);
                return;
            }
            (Sender::Trunk(trunk), _) => trunk,
        };
        if !self.may_forward(request) {
            return;
        }
        let Some(uri) = request.head.request.parsed_uri().filter(|uri| !uri.secure) else {
            self.reject(request, UNSUPPORTED_SCHEME);
            return;
        };
        if uri.user.is_none_or(<[u8]>::is_empty) {
            // Nobody is called.
            self.reject(request, NOT_FOUND);
            return;
        }
        let setup = self.setup.clone();
        let destination = setup.trunks.get(trunk).and_then(|trunk| trunk.destination);
        let Some(to) = destination else {
            self.reject(request, NO_ROUTE);
            return;
        };
        let call = super::call_hash(request.head.call_id);
        let choice = self.destinations.choose(now, &setup, &self.names, to, call, |_| false);
        let chosen = match choice {
            Choice::Take(candidate) => {
                setup.trunks.get(to).and_then(|to| Some((candidate, to.targets.get(candidate.target)?)))
            }
            Choice::Exhausted | Choice::Unavailable => None,
        };
        let Some((candidate, target)) = chosen else {
            self.counters.unresolved_destination += 1;
            self.refuse_for_now(now, request, self.unavailable());
            return;
        };
        let next_hop = self.hop(&candidate.server, Some(target.peer.clone()));
        let counted = if method == Method::Invite {
            match self.admit_call(now, request, trunk, to) {
                Ok(counted) => counted,
                Err(()) => return,
            }
        } else {
            None
        };
        let fingerprint = |trunk: usize| setup.trunks.get(trunk).map(|trunk| trunk.fingerprint).unwrap_or_default();
        let token = Token { from: fingerprint(trunk), to: fingerprint(to), issued: now.as_secs() as u32 };
        let record_route = (method == Method::Invite).then_some(token);
        self.edits.clear();
        let onward =
            Onward { next_hop, host_port: Some(&target.host_port), record_route, remove_routes: true, counted };
        match method {
            Method::Invite => self.counters.calls_started += 1,
            _ => self.counters.cancels_forwarded += 1,
        }
        self.relay(now, request, &onward);
    }
}
