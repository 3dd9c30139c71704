//! Responses: to the transaction that waits for them, and on to whoever sent the request (RFC 3261 §16.7).

use sipedge_sip::Time;
use sipedge_sip::message::{HeaderName, Message, Method};
use sipedge_sip::transaction::ClientReaction;

use super::transactions::{Id, Key, Machine};
use super::{Engine, branch, write};

impl Engine {
    pub(super) fn handle_response(&mut self, now: Time, message: &Message<'_>, code: u16) {
        let Some(client) = self.waiting_client(message) else {
            // RFC 6026 §7.2: a proxy drops what no transaction waits for.
            self.counters.stray_responses += 1;
            return;
        };
        let timers = &self.setup.timers;
        let Some(transaction) = self.transactions.get_mut(client) else { return };
        if transaction.peer.is_some() && message.elements(HeaderName::Via).nth(1).is_none() {
            // §16.7 step 3: without our Via there would be none, and nobody to take it. A peer that has answered another instance's
            // CANCEL with this branch gives that answer again.
            self.counters.stray_responses += 1;
            return;
        }
        let was_pending = transaction.machine.is_pending();
        let (reaction, is_invite) = match &mut transaction.machine {
            Machine::InviteClient(machine) => (machine.handle_response(now, code, timers), true),
            Machine::NonInviteClient(machine) => (machine.handle_response(now, code, timers), false),
            Machine::InviteServer(_) | Machine::NonInviteServer(_) => return,
        };
        self.transactions.settle(client);
        match reaction {
            ClientReaction::Absorb => {}
            ClientReaction::Acknowledge { first } => {
                self.acknowledge(client, message);
                if first {
                    self.end_failed_call(client);
                    self.respond(now, client, message, code);
                }
            }
            ClientReaction::Pass => {
                if was_pending && code >= 200 {
                    // The request is not needed again, whatever is retransmitted.
                    self.transactions.forget(client);
                    if is_invite {
                        self.counters.calls_answered += u64::from(self.opens_call(client));
                    } else if code < 300 {
                        // A BYE that was refused has ended nothing.
                        self.end_counted_call(client);
                    }
                }
                self.respond(now, client, message, code);
                if code < 200 {
                    self.handle_provisional(now, client);
                }
            }
        }
    }

    /// The client transaction that a response belongs to: its topmost Via is ours and bears the branch of one (RFC 3261 §17.1.3).
    fn waiting_client(&self, message: &Message<'_>) -> Option<Id> {
        let (via, _) = message.top_via()?;
        if !self.setup.is_our_via(via.host, via.port) {
            return None;
        }
        self.transactions.client(Key::new(branch::of_response(&via)?, message.cseq()?.method))
    }

    /// After a provisional response the INVITE is not sent again: its body need not be kept. A CANCEL that waited for it goes out.
    fn handle_provisional(&mut self, now: Time, client: Id) {
        let Some(transaction) = self.transactions.get_mut(client) else { return };
        let Machine::InviteClient(machine) = &mut transaction.machine else { return };
        let sends_cancel = machine.take_cancel(now, &self.setup.timers);
        let mut kept = std::mem::take(&mut transaction.kept);
        let mut layout = std::mem::take(&mut self.spare_layout);
        let headers = Message::read_without_body(kept.bytes(), &mut layout).map(|invite| invite.body());
        if let Ok(body) = headers
            && !body.is_empty()
        {
            self.transactions.pool.shorten(&mut kept, body.start as usize);
        }
        self.spare_layout = layout;
        self.transactions.put_kept(client, kept);
        if sends_cancel {
            self.send_cancel(now, client);
            self.transactions.settle(client);
        }
    }

    /// Sends the ACK of a refusal, made from the INVITE and the refusal's To, and keeps it for the refusal's retransmissions.
    fn acknowledge(&mut self, client: Id, refusal: &Message<'_>) {
        let Some(transaction) = self.transactions.get(client) else { return };
        let (hop, receipt) = (transaction.hop.clone(), transaction.receipt());
        let kept = transaction.kept.bytes();
        if kept.starts_with(b"ACK ") {
            self.outbox.transmit(&hop, receipt, |out| out.extend_from_slice(kept));
            return;
        }
        let mut layout = std::mem::take(&mut self.spare_layout);
        let written = match Message::read_without_body(kept, &mut layout) {
            Ok(invite) => {
                let to = refusal.header(HeaderName::To).map(|to| to.line.of(refusal.bytes())).unwrap_or_default();
                self.outbox.transmit(&hop, receipt, |out| write::companion(&invite, Method::Ack, to, out));
                true
            }
            Err(_) => false,
        };
        self.spare_layout = layout;
        if written {
            self.keep_last_transmit(client);
        }
    }

    /// Sends a response on to the request's sender: without our Via, by the socket and to the address that the request came by.
    fn respond(&mut self, now: Time, client: Id, message: &Message<'_>, code: u16) {
        let timers = &self.setup.timers;
        let Some(server) = self.transactions.get(client).and_then(|transaction| transaction.peer) else { return };
        let Some(transaction) = self.transactions.get_mut(server) else { return };
        // 100 is hop by hop (§16.7 step 5).
        let passes = code != 100
            && match &mut transaction.machine {
                Machine::InviteServer(machine) => machine.handle_response(now, code, timers),
                // RFC 4320 §4.2: no 408 to a non-INVITE request.
                Machine::NonInviteServer(machine) => code != 408 && machine.handle_response(now, code, timers),
                Machine::InviteClient(_) | Machine::NonInviteClient(_) => false,
            };
        if !passes {
            return;
        }
        let keeps = match &transaction.machine {
            Machine::InviteServer(machine) => machine.may_repeat(),
            _ => true,
        };
        let (hop, receipt) = (transaction.hop.clone(), transaction.receipt());
        let edits = &mut self.edits;
        edits.clear();
        if let Some((_, via)) = message.top_via() {
            edits.remove(via.removal());
        }
        if code == 503
            && let Some(status) = message.status_span()
        {
            // §16.7 step 6: our upstream must not take the edge for overloaded.
            edits.replace(status, |out| out.extend_from_slice(b"500 Server Internal Error"));
        }
        let edits = &self.edits;
        self.counters.responses_forwarded += 1;
        self.outbox.transmit(&hop, receipt, |out| edits.write(message, out));
        if keeps {
            self.keep_last_transmit(server);
        } else {
            self.transactions.forget(server);
        }
        self.transactions.settle(server);
    }

    /// Whether this INVITE opens a call, and is not one within a dialog.
    fn opens_call(&self, client: Id) -> bool {
        self.transactions.get(client).is_some_and(|transaction| transaction.opens_call)
    }

    /// The INVITE was refused, cancelled or not answered: a limit counts it no longer.
    pub(super) fn end_failed_call(&mut self, client: Id) {
        if !self.opens_call(client) {
            return;
        }
        self.counters.calls_failed += 1;
        self.end_counted_call(client);
    }

    /// The INVITE came to nothing, or the BYE was answered.
    fn end_counted_call(&mut self, client: Id) {
        let counted = self.transactions.get_mut(client).and_then(|transaction| transaction.counted.take());
        if let Some(leg) = counted.and_then(|key| self.calls.end_leg(key)) {
            self.give_call(leg);
        }
    }
}
