//! What the passing of time does to transactions (RFC 3261 §16.8, §17).

use sipedge_sip::Time;
use sipedge_sip::message::Message;
use sipedge_sip::transaction::{ClientExpiry, ServerExpiry};

use super::Engine;
use super::admission::{TIMEOUT, TRYING};
use super::flow::Receipt;
use super::transactions::{Id, Machine};
use super::write::{self, Answer};

impl Engine {
    pub(super) fn transaction_timeout(&mut self, now: Time, id: Id) {
        let timers = &self.setup.timers;
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
            Expiry::Server(ServerExpiry::Trying) => self.answer_for(now, id, TRYING),
            Expiry::Client(ClientExpiry::Cancel) => self.send_cancel(now, id),
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

    /// A stream could not deliver a message.
    pub(super) fn transport_failed(&mut self, now: Time, receipt: Receipt) {
        if !receipt.is_response
            && let Some(client) = self.transactions.client(receipt.key)
        {
            self.time_out(now, client);
        }
    }

    /// No answer came: an INVITE's sender gets 408; others get nothing, their own Timer F ends them (RFC 4320 §4.2).
    fn time_out(&mut self, now: Time, client: Id) {
        let server = self.transactions.get(client).and_then(|transaction| transaction.peer);
        if let Some(server) = server {
            let is_invite = self
                .transactions
                .get(server)
                .is_some_and(|transaction| matches!(transaction.machine, Machine::InviteServer(_)));
            if is_invite {
                self.answer_for(now, server, TIMEOUT);
            }
        }
        self.end_failed_call(client);
    }

    /// Answers a forwarded request ourselves, from the request as its client transaction keeps it.
    fn answer_for(&mut self, now: Time, server: Id, answer: Answer) {
        let timers = &self.setup.timers;
        let Some(client) = self.transactions.get(server).and_then(|transaction| transaction.peer) else { return };
        let Some(branch) = self.transactions.key(server).map(super::transactions::Key::branch) else { return };
        let Some(transaction) = self.transactions.get_mut(server) else { return };
        let passes = match &mut transaction.machine {
            Machine::InviteServer(machine) => machine.handle_response(now, answer.code, timers),
            // Its machine has asked for the 100 itself.
            Machine::NonInviteServer(_) => answer.code == TRYING.code,
            Machine::InviteClient(_) | Machine::NonInviteClient(_) => false,
        };
        if !passes {
            return;
        }
        let (hop, receipt) = (transaction.hop.clone(), transaction.receipt());
        let mut layout = std::mem::take(&mut self.spare_layout);
        let request = self.transactions.take_kept(client);
        if let Ok(forwarded) = Message::read_without_body(request.bytes(), &mut layout) {
            self.outbox.transmit(&hop, receipt, |out| write::answer_forwarded(&forwarded, answer, branch, out));
            self.keep_last_transmit(server);
        }
        self.transactions.put_kept(client, request);
        self.spare_layout = layout;
        self.transactions.settle(server);
    }
}

enum Expiry {
    Server(ServerExpiry),
    Client(ClientExpiry),
}
