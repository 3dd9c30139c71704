//! Responses: to the transaction that waits for them, and on to whoever sent the request (RFC 3261 §16.7).

use sipedge_sip::Time;
use sipedge_sip::message::{HeaderName, Message, Method};
use sipedge_sip::transaction::ClientReaction;

use super::context::Outcome;
use super::transactions::{Id, Key, Machine};
use super::{Engine, branch, write};

impl Engine {
    pub(super) fn handle_response(&mut self, now: Time, message: &Message<'_>, code: u16) {
        let Some(client) = self.waiting_client(message) else {
            // RFC 6026 §7.2: a proxy drops what no transaction waits for.
            self.counters.stray_responses += 1;
            return;
        };
        let probe = self.transactions.key(client).filter(|key| self.destinations.is_probe(*key));
        if let Some(key) = probe {
            self.probe_answered(now, key, code, message.retry_after());
        }
        let timers = &self.setup.timers;
        let Some(transaction) = self.transactions.get_mut(client) else { return };
        let has_server = transaction.as_branch().is_some_and(|branch| branch.server.is_some());
        let is_alone = || !message.is_repeated(HeaderName::Via) && message.elements(HeaderName::Via).nth(1).is_none();
        if has_server && is_alone() {
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
        if was_pending && probe.is_none() {
            let (transport, address) = (transaction.hop.transport, transaction.hop.to);
            let retry_after = message.retry_after();
            self.destinations.note_answer(now, transport, address, code, retry_after, &mut self.outbox);
        }
        self.transactions.settle(client);
        match (reaction, code) {
            (ClientReaction::Absorb, _) => {}
            (ClientReaction::Acknowledge { first }, _) => {
                let is_repeated = self.acknowledge(client, message);
                if first {
                    self.close_branch(now, client, Outcome::Response(message, code));
                } else if !is_repeated {
                    self.refuse_late(now, client, message, code);
                }
            }
            (ClientReaction::Pass, ..=199) => {
                if let Some(server) = self.transactions.server_of(client) {
                    self.respond(now, server, message, code);
                }
                self.handle_provisional(now, client);
            }
            (ClientReaction::Pass, _) => {
                // The request is not needed again, whatever is retransmitted.
                self.transactions.forget(client);
                match is_invite {
                    true => self.accept_branch(now, client, message, code),
                    false => self.close_branch(now, client, Outcome::Response(message, code)),
                }
            }
        }
    }

    /// The client transaction that a response belongs to: its topmost Via is ours and bears the branch of one (RFC 3261 §17.1.3).
    fn waiting_client(&self, message: &Message<'_>) -> Option<Id> {
        let branch = self.setup.own_branch(message.top_via_element()?.text)?;
        self.transactions.client(Key::new(branch::of_response(branch)?, message.cseq()?.method))
    }

    /// After a provisional response the INVITE is not sent again: what its CANCEL, its ACK and an answer of our own are made from is
    /// enough. A CANCEL that waited for the response goes out.
    fn handle_provisional(&mut self, now: Time, client: Id) {
        let Some(transaction) = self.transactions.get_mut(client) else { return };
        let Machine::InviteClient(machine) = &mut transaction.machine else { return };
        let sends_cancel = machine.take_cancel(now, &self.setup.timers);
        if !transaction.is_cut() && !self.transactions.cut(client) {
            let Some(transaction) = self.transactions.get_mut(client) else { return };
            let mut kept = std::mem::take(&mut transaction.kept);
            let mut layout = std::mem::take(&mut self.spare_layout);
            if let Ok(invite) = Message::read_without_body(kept.bytes(), &mut layout) {
                self.scratch.clear();
                write::extract(&invite, &mut self.scratch);
                self.transactions.pool.replace(&mut kept, &self.scratch);
            }
            self.spare_layout = layout;
            self.transactions.put_kept(client, kept);
            if let Some(branch) = self.transactions.branch_mut(client) {
                branch.cut = true;
            }
        }
        if sends_cancel {
            self.send_cancel(now, client);
            self.transactions.settle(client);
        }
    }

    /// Sends the ACK of a refusal, made from the INVITE and the refusal's To, and keeps it for the refusal's retransmissions. Whether the
    /// refusal is one.
    fn acknowledge(&mut self, client: Id, refusal: &Message<'_>) -> bool {
        let Some(transaction) = self.transactions.get(client) else { return false };
        let (hop, receipt) = (transaction.hop.clone(), transaction.receipt());
        let kept = transaction.kept.bytes();
        if kept.starts_with(b"ACK ") {
            self.outbox.transmit(&hop, receipt, |out| out.extend_from_slice(kept));
            return true;
        }
        let mut layout = std::mem::take(&mut self.spare_layout);
        let written = match Message::read_without_body(kept, &mut layout) {
            Ok(invite) => {
                let to = refusal.header(HeaderName::To).map(|to| to.line.of(refusal.bytes())).unwrap_or_default();
                self.outbox.transmit(&hop, receipt, |out| {
                    write::companion(&invite, &write::Companion { method: Method::Ack, to, more: b"" }, out)
                });
                true
            }
            Err(_) => false,
        };
        self.spare_layout = layout;
        if written {
            self.keep_last_transmit(client);
        }
        false
    }
}
