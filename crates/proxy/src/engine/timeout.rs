//! What the passing of time does to transactions (RFC 3261 §16.8, §17).

use sipedge_sip::Time;
use sipedge_sip::transaction::{ClientExpiry, ServerExpiry};

use super::Engine;
use super::admission::TRYING;
use super::context::Outcome;
use super::flow::Receipt;
use super::transactions::{Id, Key, Machine};

impl Engine {
    pub(super) fn transaction_timeout(&mut self, now: Time, id: Id) {
        let timers = &self.setup.timers;
        let is_cancel = self.transactions.key(id).is_some_and(Key::is_cancel);
        let Some(transaction) = self.transactions.get_mut(id) else { return };
        let expiry = match &mut transaction.machine {
            Machine::InviteServer(machine) => Expiry::Server(machine.handle_timeout(now, timers)),
            Machine::NonInviteServer(machine) => Expiry::Server(machine.handle_timeout(now)),
            Machine::InviteClient(machine) => Expiry::Client(machine.handle_timeout(now, timers)),
            Machine::NonInviteClient(machine) => Expiry::Client(machine.handle_timeout(now, timers)),
        };
        match expiry {
            Expiry::Server(ServerExpiry::Repeat) | Expiry::Client(ClientExpiry::Retransmit) => {
                let kept = transaction.kept.bytes();
                if !kept.is_empty() {
                    self.counters.retransmissions_sent += 1;
                    self.outbox.transmit(&transaction.hop, transaction.receipt(), |out| out.extend_from_slice(kept));
                }
            }
            // A CANCEL without its INVITE goes on as if there were no state: without a 100 (RFC 3261 §16.11).
            Expiry::Server(ServerExpiry::Trying) if is_cancel => {}
            Expiry::Server(ServerExpiry::Trying) => drop(self.answer_for(now, id, TRYING)),
            Expiry::Client(ClientExpiry::Cancel) => {
                // Who has rung for so long has decided not to answer: nobody else is tried.
                let server = transaction.as_branch().and_then(|branch| branch.server);
                if let Some(context) = server.and_then(|server| self.transactions.context_mut(server)) {
                    context.decided |= context.waiting == 0;
                }
                self.send_cancel(now, id);
            }
            Expiry::Client(ClientExpiry::TimedOut) => {
                self.counters.timeouts += 1;
                let ends = matches!(transaction.machine, Machine::NonInviteClient(_));
                self.time_out(now, id);
                if ends {
                    self.transactions.remove(id);
                    return;
                }
            }
            Expiry::Server(ServerExpiry::Ended) | Expiry::Client(ClientExpiry::Ended) => {
                self.transactions.remove(id);
                return;
            }
            Expiry::Server(ServerExpiry::Wait) | Expiry::Client(ClientExpiry::Wait) => {}
        }
        self.transactions.settle(id);
    }

    /// A stream could not deliver a message (RFC 3261 §16.9). A response that cannot be delivered is lost: its transaction goes on as if it
    /// had been sent (RFC 6026 §8.8).
    ///
    /// `is_ours`: it was for want of room here, which says nothing about the destination.
    pub(super) fn transport_failed(&mut self, now: Time, receipt: Receipt, is_ours: bool) {
        self.counters.transport_failures += 1;
        if receipt.is_response {
            return;
        }
        if self.destinations.is_probe(receipt.key) {
            self.probe_timed_out(now, receipt.key);
            return;
        }
        let Some(client) = self.transactions.client_of(receipt) else { return };
        let Some(transaction) = self.transactions.get_mut(client) else { return };
        let has_failed = match &mut transaction.machine {
            Machine::InviteClient(machine) => machine.handle_failure(now),
            Machine::NonInviteClient(machine) => machine.handle_failure(now),
            Machine::InviteServer(_) | Machine::NonInviteServer(_) => false,
        };
        let (transport, address) = (transaction.hop.transport, transaction.hop.to);
        if has_failed {
            if !is_ours {
                self.destinations.note_failure(now, transport, address, &mut self.outbox);
            }
            self.close_branch(now, client, Outcome::Unreachable);
        }
        self.transactions.settle(client);
    }

    /// No answer came in time.
    fn time_out(&mut self, now: Time, client: Id) {
        let Some(transaction) = self.transactions.get(client) else { return };
        let (transport, address) = (transaction.hop.transport, transaction.hop.to);
        if let Some(key) = self.transactions.key(client).filter(|key| self.destinations.is_probe(*key)) {
            self.probe_timed_out(now, key);
            return;
        }
        self.destinations.note_silence(now, transport, address, &mut self.outbox);
        self.close_branch(now, client, Outcome::Silence);
    }
}

enum Expiry {
    Server(ServerExpiry),
    Client(ClientExpiry),
}
