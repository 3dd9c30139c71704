//! The table of transactions, with their timers and kept messages (RFC 3261 §17).

use sipedge_sip::message::Method;
use sipedge_sip::transaction::{InviteClient, InviteServer, NonInviteClient, NonInviteServer};
use sipedge_sip::{Time, TimerWheel};

use super::context::{Context, Gone};
use super::flow::{Hop, Receipt};
use super::index::Index;
use super::pool::{Kept, Pool};
use super::token::fingerprint;

/// All transactions of an engine: found by branch, timed by one wheel, their messages kept in one pool.
///
/// A forwarded request is a server transaction and a client transaction for each of its branches. The server transaction holds what
/// RFC 3261 §16.2 calls the response context; its branches are a list through the client transactions.
#[derive(Debug)]
pub(super) struct Transactions {
    entries: Entries,
    free: Vec<u32>,
    servers: Index,
    clients: Index,
    pending: usize,
    /// Number of the transaction that is inserted next.
    next_number: u32,
    pub(super) timers: TimerWheel,
    pub(super) pool: Pool,
    /// Bytes that kept messages never exceed.
    pub(super) most_bytes: u64,
}

/// One transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    key: Key,
    /// Counts all that were inserted, and goes round: it tells apart those of one key.
    number: u32,
    pub(super) machine: Machine,
    pub(super) side: Side,
    /// Where its messages go, and how.
    pub(super) hop: Hop,
    /// What may have to be sent again: of a server transaction the last response, of a client transaction the request, and after a
    /// refusal of an INVITE its ACK.
    pub(super) kept: Kept,
    /// Whether it is counted among those without a final response.
    pending: bool,
}

/// What a transaction is for.
#[derive(Debug)]
pub(super) enum Side {
    /// It has received a request; this is what became of it.
    Server(Context),
    /// It has sent one.
    Client(Branch),
}

/// One branch of a forwarded request; a CANCEL or a probe of the edge's own, without a server transaction, is one too.
#[derive(Debug, Default)]
pub(super) struct Branch {
    /// The server transaction of the request.
    pub(super) server: Option<Id>,
    /// The branch that was opened before this one.
    next: Option<Id>,
    /// Whether its final response, or what stands for it, has come.
    pub(super) closed: bool,
    /// Of an INVITE, what its CANCEL, its ACK and an answer of our own are made from: kept instead of it once it has been answered.
    pub(super) extract: Kept,
    /// Whether it is.
    pub(super) cut: bool,
    /// Whether TCP was taken for the request's size alone: where TCP fails, UDP is tried (RFC 3261 §18.1.1).
    pub(super) for_size: bool,
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
    /// The response context, of a server transaction.
    pub(super) fn context(&self) -> Option<&Context> {
        match &self.side {
            Side::Server(context) => Some(context),
            Side::Client(_) => None,
        }
    }

    /// The branch, of a client transaction.
    pub(super) fn as_branch(&self) -> Option<&Branch> {
        match &self.side {
            Side::Server(_) => None,
            Side::Client(branch) => Some(branch),
        }
    }

    /// See [`Branch::cut`].
    pub(super) fn is_cut(&self) -> bool {
        self.as_branch().is_some_and(|branch| branch.cut)
    }

    /// What comes back when one of its messages could not be delivered.
    pub(super) fn receipt(&self) -> Option<Receipt> {
        let is_response = self.machine.is_server();
        self.hop.transport.is_reliable().then_some(Receipt { key: self.key, number: self.number, is_response })
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

    /// Whether it is that of a CANCEL.
    pub(super) fn is_cancel(self) -> bool {
        self.kind == Kind::Cancel
    }

    /// The branch.
    pub(super) fn branch(self) -> u128 {
        self.branch
    }
}

impl Transactions {
    pub(super) fn new(now: Time, most_bytes: u64) -> Self {
        Self {
            entries: Entries::default(),
            free: Vec::new(),
            servers: Index::default(),
            clients: Index::default(),
            pending: 0,
            next_number: 0,
            timers: TimerWheel::new(now),
            pool: Pool::default(),
            most_bytes,
        }
    }

    pub(super) fn server(&self, key: Key) -> Option<Id> {
        self.servers.find(key.branch, |slot| self.entries.has(slot, key)).map(Id)
    }

    pub(super) fn client(&self, key: Key) -> Option<Id> {
        self.clients.find(key.branch, |slot| self.entries.has(slot, key)).map(Id)
    }

    /// The client transaction whose message a receipt is for, while there is one.
    pub(super) fn client_of(&self, receipt: Receipt) -> Option<Id> {
        self.client(receipt.key).filter(|id| self.get(*id).is_some_and(|it| it.number == receipt.number))
    }

    /// The receipt for the request of the client transaction that is inserted next, under this key.
    pub(super) fn next_receipt(&self, key: Key) -> Receipt {
        Receipt { key, number: self.next_number, is_response: false }
    }

    pub(super) fn get(&self, id: Id) -> Option<&Transaction> {
        self.entries.get(id.0)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Transaction> {
        self.entries.get_mut(id.0)?.as_mut()
    }

    /// The response context of a server transaction.
    pub(super) fn context(&self, server: Id) -> Option<&Context> {
        self.get(server)?.context()
    }

    /// The response context of a server transaction.
    pub(super) fn context_mut(&mut self, server: Id) -> Option<&mut Context> {
        match &mut self.get_mut(server)?.side {
            Side::Server(context) => Some(context),
            Side::Client(_) => None,
        }
    }

    /// The branch of a client transaction.
    pub(super) fn branch_mut(&mut self, client: Id) -> Option<&mut Branch> {
        match &mut self.get_mut(client)?.side {
            Side::Server(_) => None,
            Side::Client(branch) => Some(branch),
        }
    }

    /// The server transaction whose request a client transaction has sent on.
    pub(super) fn server_of(&self, client: Id) -> Option<Id> {
        self.get(client)?.as_branch()?.server
    }

    /// The branches of a server transaction, newest first.
    pub(super) fn branches(&self, server: Id) -> impl Iterator<Item = Id> {
        let next = |id: &Id| self.get(*id)?.as_branch()?.next;
        std::iter::successors(self.context(server).and_then(|context| context.newest), next)
    }

    /// The branch after this one, to go through them while they change.
    pub(super) fn next_branch(&self, client: Id) -> Option<Id> {
        self.get(client)?.as_branch()?.next
    }

    /// Adds the transaction of a request that has arrived, with nothing kept, and sets its timer.
    pub(super) fn insert_server(&mut self, key: Key, machine: Machine, hop: Hop, context: Context) -> Id {
        self.insert(key, machine, hop, Side::Server(context))
    }

    /// Adds the transaction of a request that goes out, with nothing kept, and sets its timer. With a server transaction it is the newest
    /// of its branches.
    pub(super) fn insert_client(&mut self, key: Key, machine: Machine, hop: Hop, server: Option<Id>) -> Id {
        let next = server.and_then(|server| self.context(server)?.newest);
        let id = self.insert(key, machine, hop, Side::Client(Branch { server, next, ..Branch::default() }));
        if let Some(context) = server.and_then(|server| self.context_mut(server)) {
            context.newest = Some(id);
            context.open += 1;
        }
        id
    }

    fn insert(&mut self, key: Key, machine: Machine, hop: Hop, side: Side) -> Id {
        let slot = self.free.pop().unwrap_or_else(|| self.entries.push());
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        let index = if machine.is_server() { &mut self.servers } else { &mut self.clients };
        index.insert(key.branch, slot, |slot| self.entries.has(slot, key));
        if let Some(entry) = self.entries.get_mut(slot) {
            *entry = Some(Transaction { key, number, machine, side, hop, kept: Kept::default(), pending: false });
        }
        self.settle(Id(slot));
        Id(slot)
    }

    /// Keeps `message` instead of what was kept; nothing when there is no memory left for it: then it is not sent again.
    pub(super) fn keep(&mut self, id: Id, message: &[u8]) {
        self.forget(id);
        let kept = self.copy(message);
        self.put_kept(id, kept);
    }

    /// Keeps for an INVITE that has been sent what is kept instead of it once it has been answered.
    pub(super) fn keep_extract(&mut self, client: Id, extract: &[u8]) {
        let extract = self.copy(extract);
        match self.branch_mut(client) {
            Some(branch) => branch.extract = extract,
            None => self.pool.release(extract),
        }
    }

    /// Keeps that now. Whether there was something.
    pub(super) fn cut(&mut self, client: Id) -> bool {
        let Some(transaction) = self.get_mut(client) else { return false };
        let Side::Client(branch) = &mut transaction.side else { return false };
        if branch.extract.is_empty() {
            return false;
        }
        branch.cut = true;
        let whole = std::mem::replace(&mut transaction.kept, std::mem::take(&mut branch.extract));
        self.pool.release(whole);
        true
    }

    /// Whether so many bytes more can be kept.
    pub(super) fn has_memory(&self, bytes: u64) -> bool {
        self.pool.held() + bytes <= self.most_bytes
    }

    /// A copy of `message` out of the pool, empty when there is no memory left for it.
    pub(super) fn copy(&mut self, message: &[u8]) -> Kept {
        if !self.has_memory(Pool::cost(message.len())) {
            return Kept::default();
        }
        self.pool.keep(message)
    }

    /// The memory of a copy is used again.
    pub(super) fn release(&mut self, kept: Kept) {
        self.pool.release(kept);
    }

    /// Nothing has to be sent again any more.
    pub(super) fn forget(&mut self, id: Id) {
        let Some(transaction) = self.get_mut(id) else { return };
        let kept = std::mem::take(&mut transaction.kept);
        let extract = match &mut transaction.side {
            Side::Server(_) => Kept::default(),
            Side::Client(branch) => std::mem::take(&mut branch.extract),
        };
        self.pool.release(kept);
        self.pool.release(extract);
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

    /// Removes a transaction. Branches of a server transaction that is gone go on alone: a refusal is still acknowledged.
    pub(super) fn remove(&mut self, id: Id) {
        self.unlink(id);
        let Some(mut transaction) = self.entries.get_mut(id.0).and_then(Option::take) else { return };
        let index = if transaction.machine.is_server() { &mut self.servers } else { &mut self.clients };
        // A late copy of a request may have opened a transaction with the same key meanwhile: that one stays.
        index.remove(transaction.key.branch, id.0);
        self.timers.cancel(id.0);
        self.pending -= usize::from(transaction.pending);
        self.free.push(id.0);
        self.pool.release(std::mem::take(&mut transaction.kept));
        match transaction.side {
            Side::Server(context) => {
                self.pool.release(context.original);
                if let Some(best) = context.best {
                    self.pool.release(best.response);
                }
            }
            Side::Client(branch) => self.pool.release(branch.extract),
        }
    }

    /// Takes a transaction out of the list of branches that it is in, or that it holds.
    fn unlink(&mut self, id: Id) {
        let mut at = self.context(id).and_then(|context| context.newest);
        while let Some(client) = at {
            at = self.next_branch(client);
            if let Some(branch) = self.branch_mut(client) {
                branch.server = None;
                branch.next = None;
            }
        }
        let Some((server, next, gone)) = self.get(id).and_then(|gone| {
            let branch = gone.as_branch()?;
            let (transport, to) = (gone.hop.transport, gone.hop.to);
            Some((branch.server?, branch.next, Gone { transport, to, for_size: branch.for_size }))
        }) else {
            return;
        };
        if let Some(context) = self.context_mut(server).filter(|context| context.has_more && !context.decided) {
            context.gone.push(gone);
        }
        let before = self.branches(server).find(|client| self.next_branch(*client) == Some(id));
        match before.and_then(|before| self.branch_mut(before)) {
            Some(before) => before.next = next,
            None => {
                if let Some(context) = self.context_mut(server).filter(|context| context.newest == Some(id)) {
                    context.newest = next;
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.count as usize - self.free.len()
    }

    /// How many wait for a final response.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    pub(super) fn key(&self, id: Id) -> Option<Key> {
        self.get(id).map(|transaction| transaction.key)
    }
}

/// Entries by slot, in pages: a table that grows moves none of them, which would hold its shard up, and has no more spare room than a page.
#[derive(Debug, Default)]
struct Entries {
    pages: Vec<Box<[Option<Transaction>]>>,
    count: u32,
}

impl Entries {
    /// A new slot.
    fn push(&mut self) -> u32 {
        let slot = self.count;
        if slot as usize / PAGE == self.pages.len() {
            self.pages.push(std::iter::repeat_with(|| None).take(PAGE).collect());
        }
        self.count += 1;
        slot
    }

    fn get(&self, slot: u32) -> Option<&Option<Transaction>> {
        self.pages.get(slot as usize / PAGE)?.get(slot as usize % PAGE)
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut Option<Transaction>> {
        self.pages.get_mut(slot as usize / PAGE)?.get_mut(slot as usize % PAGE)
    }

    /// Whether the transaction in this slot has this key.
    fn has(&self, slot: u32, key: Key) -> bool {
        self.get(slot).and_then(Option::as_ref).is_some_and(|transaction| transaction.key == key)
    }
}

/// Transactions of a page: some 45 KiB.
const PAGE: usize = 128;
