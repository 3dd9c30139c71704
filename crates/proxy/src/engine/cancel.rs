//! CANCEL: hop by hop (RFC 3261 §9, §16.10).

use sipedge_sip::Time;
use sipedge_sip::message::{HeaderName, Message, Method};
use sipedge_sip::transaction::NonInviteClient;

use super::Engine;
use super::admission::REQUEST_TERMINATED;
use super::flow::Hop;
use super::limits::with_reserve;
use super::transactions::{Id, Key, Machine};
use super::write;

/// Why branches are cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CancelReason {
    /// The caller has hung up; the Reason header lines of its CANCEL (RFC 3326), if there are any.
    Caller(Option<Box<[u8]>>),
    /// Another branch has answered.
    Elsewhere,
    /// Nothing that has to be said.
    None,
}

impl CancelReason {
    /// The caller's reason, as its CANCEL states it.
    pub(super) fn of(cancel: &Message<'_>) -> Self {
        let mut lines = Vec::new();
        for header in cancel.headers(HeaderName::Reason) {
            lines.extend_from_slice(header.line.of(cancel.bytes()));
        }
        let fits = !lines.is_empty() && lines.len() <= LONGEST_REASON;
        Self::Caller(fits.then(|| lines.into_boxed_slice()))
    }

    fn lines(&self) -> &[u8] {
        match self {
            Self::Caller(lines) => lines.as_deref().unwrap_or_default(),
            Self::Elsewhere => b"Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n",
            Self::None => b"",
        }
    }
}

impl Engine {
    /// The caller has hung up: every branch is cancelled, and none is opened any more.
    pub(super) fn cancel(&mut self, now: Time, server: Id, reason: CancelReason) {
        let Some(transaction) = self.transactions.get(server) else { return };
        let is_ringing = matches!(&transaction.machine, Machine::InviteServer(machine) if machine.is_proceeding());
        if !is_ringing {
            return;
        }
        let Some(context) = self.transactions.context_mut(server) else { return };
        context.decided = true;
        let is_open = context.open > 0;
        if let Some(extra) = self.transactions.extra_mut(server) {
            extra.cancelling = Some(reason);
        }
        if !is_open {
            self.conclude(now, server, REQUEST_TERMINATED);
            return;
        }
        self.let_original_go(server);
        self.cancel_branches(now, server, CancelReason::None);
    }

    /// Sends the CANCEL of one branch, now or as soon as it has answered provisionally.
    pub(super) fn cancel_branch(&mut self, now: Time, client: Id) {
        let timers = &self.setup.timers;
        let Some(transaction) = self.transactions.get_mut(client) else { return };
        let sends = match &mut transaction.machine {
            Machine::InviteClient(machine) => machine.cancel(now, timers),
            _ => false,
        };
        if sends {
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
            let extra = self.transactions.server_of(client).and_then(|server| self.transactions.extra(server));
            let reason = extra.and_then(|extra| extra.cancelling.as_ref()).unwrap_or(&CancelReason::None);
            let to = message.header(HeaderName::To).map(|to| to.line.of(message.bytes())).unwrap_or_default();
            let parts = write::Companion { method: Method::Cancel, to, more: reason.lines() };
            self.outbox.transmit(&hop, None, |out| write::companion(&message, &parts, out));
            // Without room for a transaction it is sent once.
            if (self.transactions.len() as u64) < with_reserve(self.setup.transactions as u64) {
                let machine = NonInviteClient::new(now, &self.setup.timers, hop.transport.delivery());
                let id =
                    self.transactions.insert_client(key, Machine::NonInviteClient(machine), Hop::clone(&hop), None);
                self.keep_last_transmit(id);
            }
        }
        self.spare_layout = layout;
        self.transactions.put_kept(client, invite);
    }
}

/// Bytes of Reason that are kept until a branch can be cancelled: two causes with their texts.
const LONGEST_REASON: usize = 512;
