//! The table of transactions, with their timers and kept messages (RFC 3261 §17).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use sipedge_sip::message::Method;
use sipedge_sip::transaction::{InviteClient, InviteServer, NonInviteClient, NonInviteServer};
use sipedge_sip::{Time, TimerWheel};

use super::flow::{Hop, Receipt};
use super::pool::{Kept, Pool};
use super::token::fingerprint;

/// All transactions of an engine: found by branch, timed by one wheel, their messages kept in one pool.
///
/// A forwarded request is a server transaction and a client transaction that know each other as `peer`; RFC 3261 §16.2 calls the pair
/// the response context.
#[derive(Debug)]
pub(super) struct Transactions {
    entries: Vec<Option<Transaction>>,
    free: Vec<u32>,
    servers: Table,
    clients: Table,
    pending: usize,
    pub(super) timers: TimerWheel,
    pub(super) pool: Pool,
    /// Bytes that kept messages never exceed.
    most_bytes: u64,
}

/// One transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    key: Key,
    pub(super) machine: Machine,
    /// The other half of a forwarded request.
    pub(super) peer: Option<Id>,
    /// Where its messages go, and how.
    pub(super) hop: Hop,
    /// What may have to be sent again: of a server transaction the last response, of a client transaction the request, and after a
    /// refusal of an INVITE its ACK.
    pub(super) kept: Kept,
    /// Whether it is counted among those without a final response.
    pending: bool,
    /// Whether it is the client half of an INVITE from outside a dialog.
    pub(super) opens_call: bool,
    /// Key of the counted call that this INVITE has opened or this BYE ends, when a limit counts it.
    pub(super) counted: Option<u128>,
}

/// Which of the four.
#[derive(Debug)]
pub(super) enum Machine {
    InviteServer(InviteServer),
    InviteClient(InviteClient),
    NonInviteServer(NonInviteServer),
    NonInviteClient(NonInviteClient),
}

impl Transaction {
    /// What comes back when one of its messages could not be delivered.
    pub(super) fn receipt(&self) -> Option<Receipt> {
        let is_response = self.machine.is_server();
        self.hop.transport.is_reliable().then_some(Receipt { key: self.key, is_response })
    }
}

impl Machine {
    fn poll_timeout(&self) -> Option<Time> {
        match self {
            Self::InviteServer(machine) => machine.poll_timeout(),
            Self::InviteClient(machine) => machine.poll_timeout(),
            Self::NonInviteServer(machine) => machine.poll_timeout(),
            Self::NonInviteClient(machine) => machine.poll_timeout(),
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        match self {
            Self::InviteServer(machine) => machine.is_proceeding(),
            Self::InviteClient(machine) => machine.is_pending(),
            Self::NonInviteServer(machine) => machine.is_pending(),
            Self::NonInviteClient(machine) => machine.is_pending(),
        }
    }

    fn is_server(&self) -> bool {
        matches!(self, Self::InviteServer(_) | Self::NonInviteServer(_))
    }
}

/// Index of a transaction. It is good until the transaction is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(pub(super) u32);

/// What requests and responses are matched by (RFC 3261 §17.1.3, §17.2.3): the branch, here as the keyed hash that it is made from, and
/// what the method says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    branch: u128,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// INVITE, and the ACK and CANCEL that look for it.
    Invite,
    /// CANCEL as a transaction of its own.
    Cancel,
    /// Any other method, by its fingerprint: some peers use one branch for two requests.
    Other(u16),
}

impl Key {
    /// The key of the transaction that a request of this method opens, or that a response with this CSeq method belongs to.
    pub(super) fn new(branch: u128, method: Method<'_>) -> Self {
        let kind = match method {
            Method::Invite | Method::Ack => Kind::Invite,
            Method::Cancel => Kind::Cancel,
            other => Kind::Other(fingerprint(other.name())),
        };
        Self { branch, kind }
    }

    /// The key of the INVITE that a CANCEL or an ACK with this branch is about.
    pub(super) fn invite(branch: u128) -> Self {
        Self { branch, kind: Kind::Invite }
    }

    /// The branch.
    pub(super) fn branch(self) -> u128 {
        self.branch
    }
}

impl Transactions {
    pub(super) fn new(now: Time, most_bytes: u64) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            servers: Table::default(),
            clients: Table::default(),
            pending: 0,
            timers: TimerWheel::new(now),
            pool: Pool::default(),
            most_bytes,
        }
    }

    pub(super) fn server(&self, key: Key) -> Option<Id> {
        self.servers.get(&key).copied().map(Id)
    }

    pub(super) fn client(&self, key: Key) -> Option<Id> {
        self.clients.get(&key).copied().map(Id)
    }

    pub(super) fn get(&self, id: Id) -> Option<&Transaction> {
        self.entries.get(id.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Transaction> {
        self.entries.get_mut(id.0 as usize)?.as_mut()
    }

    /// Adds a transaction with nothing kept and sets its timer.
    pub(super) fn insert(&mut self, key: Key, machine: Machine, hop: Hop) -> Id {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        let table = if machine.is_server() { &mut self.servers } else { &mut self.clients };
        table.insert(key, slot);
        let kept = Kept::default();
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            *entry = Some(Transaction {
                key,
                machine,
                peer: None,
                hop,
                kept,
                pending: false,
                opens_call: false,
                counted: None,
            });
        }
        self.settle(Id(slot));
        Id(slot)
    }

    /// Makes the two halves of a forwarded request known to each other.
    pub(super) fn join(&mut self, server: Id, client: Id) {
        if let Some(transaction) = self.get_mut(server) {
            transaction.peer = Some(client);
        }
        if let Some(transaction) = self.get_mut(client) {
            transaction.peer = Some(server);
        }
    }

    /// Keeps `message` instead of what was kept; nothing when there is no memory left for it: then it is not sent again.
    pub(super) fn keep(&mut self, id: Id, message: &[u8]) {
        self.forget(id);
        if self.pool.held() + Pool::cost(message.len()) > self.most_bytes {
            return;
        }
        let kept = self.pool.keep(message);
        match self.get_mut(id) {
            Some(transaction) => {
                transaction.kept = kept;
            }
            None => self.pool.release(kept),
        }
    }

    /// Nothing has to be sent again any more.
    pub(super) fn forget(&mut self, id: Id) {
        if let Some(transaction) = self.get_mut(id) {
            let kept = std::mem::take(&mut transaction.kept);
            self.pool.release(kept);
        }
    }

    /// Takes what is kept out, to read it while transactions change; give it back by [`Transactions::put_kept`].
    pub(super) fn take_kept(&mut self, id: Id) -> Kept {
        self.get_mut(id).map(|transaction| std::mem::take(&mut transaction.kept)).unwrap_or_default()
    }

    /// Gives back what [`Transactions::take_kept`] took.
    pub(super) fn put_kept(&mut self, id: Id, kept: Kept) {
        match self.get_mut(id) {
            Some(transaction) if transaction.kept.is_empty() => transaction.kept = kept,
            _ => self.pool.release(kept),
        }
    }

    /// Takes note of a machine's step: what it waits for, and whether a final response is still to come. Call after every step.
    pub(super) fn settle(&mut self, id: Id) {
        let Some(transaction) = self.get_mut(id) else { return };
        let at = transaction.machine.poll_timeout();
        let is_pending = transaction.machine.is_pending();
        let was_pending = std::mem::replace(&mut transaction.pending, is_pending);
        self.pending += usize::from(is_pending);
        self.pending -= usize::from(was_pending);
        match at {
            Some(at) => self.timers.set(id.0, at),
            None => self.timers.cancel(id.0),
        }
    }

    /// Removes a transaction; its peer stands alone from then on.
    pub(super) fn remove(&mut self, id: Id) -> Option<Transaction> {
        let mut transaction = self.entries.get_mut(id.0 as usize)?.take()?;
        let table = if transaction.machine.is_server() { &mut self.servers } else { &mut self.clients };
        // A late copy of a request may have opened a transaction with the same key meanwhile.
        if table.get(&transaction.key) == Some(&id.0) {
            table.remove(&transaction.key);
        }
        self.timers.cancel(id.0);
        self.pending -= usize::from(transaction.pending);
        self.free.push(id.0);
        self.pool.release(std::mem::take(&mut transaction.kept));
        if let Some(peer) = transaction.peer.and_then(|peer| self.get_mut(peer)) {
            peer.peer = None;
        }
        Some(transaction)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// How many wait for a final response.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    pub(super) fn key(&self, id: Id) -> Option<Key> {
        self.get(id).map(|transaction| transaction.key)
    }
}

type Table = HashMap<Key, u32, BuildHasherDefault<BranchHasher>>;

/// Branches are keyed hashes already, whoever looks for one; their own bits spread them.
#[derive(Debug, Default)]
pub(super) struct BranchHasher(u64);

impl Hasher for BranchHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, branch: u128) {
        self.0 ^= branch as u64 ^ (branch >> 64) as u64;
    }
}
