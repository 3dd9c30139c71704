//! The table of transactions, with their timers and kept messages (RFC 3261 §17).

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use sipedge_sip::message::Method;
use sipedge_sip::transaction::{InviteClient, InviteServer, NonInviteClient, NonInviteServer};
use sipedge_sip::{Time, TimerWheel};

use super::context::{Best, Context, Extra, Gone};
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
    hops: Hops,
    /// Those of transactions that have none any more, to be used again.
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is used again")]
    extras: Vec<Box<Extra>>,
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
    pub(super) hop: Arc<Hop>,
    /// What may have to be sent again: of a server transaction the last response, of a client transaction the request, and after a
    /// refusal of an INVITE its ACK.
    pub(super) kept: Kept,
    /// What only some have.
    pub(super) extra: Option<Box<Extra>>,
    /// Whether it is counted among those without a final response.
    pending: bool,
}

/// There are a hundred thousand of them at a thousand calls per second: what few have, or for a short time only, is in [`Extra`].
const _: () = assert!(size_of::<Option<Transaction>>() <= 112);

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
    /// Whether there is kept instead of an INVITE what its CANCEL, its ACK and an answer of our own are made from.
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
pub(super) struct Id(NonZeroU32);

impl Id {
    /// That of the transaction in this slot.
    pub(super) fn of(slot: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(slot))
    }

    fn slot(self) -> u32 {
        self.0.get() - 1
    }
}

/// What requests and responses are matched by (RFC 3261 §17.1.3, §17.2.3): the branch, here as the keyed hash that it is made from, and
/// what the method says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The words of a number: it would take up twice the room, for its alignment.
    branch: [u32; 4],
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
        Self { branch: split(branch), kind }
    }

    /// The key of the INVITE that a CANCEL or an ACK with this branch is about.
    pub(super) fn invite(branch: u128) -> Self {
        Self { branch: split(branch), kind: Kind::Invite }
    }

    /// Whether it is that of a CANCEL.
    pub(super) fn is_cancel(self) -> bool {
        self.kind == Kind::Cancel
    }

    /// The branch.
    pub(super) fn branch(self) -> u128 {
        join(self.branch)
    }
}

fn split(number: u128) -> [u32; 4] {
    [number as u32, (number >> 32) as u32, (number >> 64) as u32, (number >> 96) as u32]
}

fn join([first, second, third, fourth]: [u32; 4]) -> u128 {
    u128::from(first) | u128::from(second) << 32 | u128::from(third) << 64 | u128::from(fourth) << 96
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
            hops: Hops::default(),
            extras: Vec::new(),
            most_bytes,
        }
    }

    pub(super) fn server(&self, key: Key) -> Option<Id> {
        self.servers.find(key.branch(), |slot| self.entries.has(slot, key)).map(Id::of)
    }

    pub(super) fn client(&self, key: Key) -> Option<Id> {
        self.clients.find(key.branch(), |slot| self.entries.has(slot, key)).map(Id::of)
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
        self.entries.get(id.slot())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Transaction> {
        self.entries.get_mut(id.slot())?.as_mut()
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
        index.insert(key.branch(), slot, |slot| self.entries.has(slot, key));
        let hop = self.hops.share(hop);
        if let Some(entry) = self.entries.get_mut(slot) {
            let (kept, extra) = (Kept::default(), None);
            *entry = Some(Transaction { key, number, machine, side, hop, kept, extra, pending: false });
        }
        self.settle(Id::of(slot));
        Id::of(slot)
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
        match self.extra_mut(client) {
            Some(extra) if extra.kept.is_empty() => extra.kept = extract,
            _ => self.pool.release(extract),
        }
    }

    /// What only some transactions have.
    pub(super) fn extra(&self, id: Id) -> Option<&Extra> {
        self.get(id)?.extra.as_deref()
    }

    /// Takes the request as it came out.
    pub(super) fn take_original(&mut self, server: Id) -> Option<Kept> {
        self.get_mut(server)?.extra.as_mut().map(|extra| std::mem::take(&mut extra.kept))
    }

    /// Takes the best final response so far out.
    pub(super) fn take_best(&mut self, server: Id) -> Option<Best> {
        self.get_mut(server)?.extra.as_mut()?.best.take()
    }

    /// What only some transactions have, to change it; afterwards [`Transactions::tidy`].
    pub(super) fn extra_mut(&mut self, id: Id) -> Option<&mut Extra> {
        let Self { entries, extras, .. } = self;
        let transaction = entries.get_mut(id.slot())?.as_mut()?;
        Some(transaction.extra.get_or_insert_with(|| extras.pop().unwrap_or_default()))
    }

    /// Takes the memory of a transaction's extra back that holds nothing any more.
    pub(super) fn tidy(&mut self, id: Id) {
        let Some(transaction) = self.get_mut(id) else { return };
        if let Some(extra) = transaction.extra.take_if(|extra| extra.is_empty())
            && self.extras.len() < MOST_SPARE
        {
            self.extras.push(extra);
        }
    }

    /// Keeps that now. Whether there was something.
    pub(super) fn cut(&mut self, client: Id) -> bool {
        let Some(transaction) = self.get_mut(client) else { return false };
        let Side::Client(branch) = &mut transaction.side else { return false };
        let Some(extra) = transaction.extra.as_mut().filter(|extra| !extra.kept.is_empty()) else { return false };
        branch.cut = true;
        let whole = std::mem::replace(&mut transaction.kept, std::mem::take(&mut extra.kept));
        self.pool.release(whole);
        self.tidy(client);
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
        let extract = match (&transaction.side, &mut transaction.extra) {
            (Side::Client(_), Some(extra)) => Some(std::mem::take(&mut extra.kept)),
            _ => None,
        };
        self.pool.release(kept);
        if let Some(extract) = extract {
            self.pool.release(extract);
            self.tidy(id);
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
            Some(at) => self.timers.set(id.slot(), at),
            None => self.timers.cancel(id.slot()),
        }
    }

    /// Removes a transaction. Branches of a server transaction that is gone go on alone: a refusal is still acknowledged.
    pub(super) fn remove(&mut self, id: Id) {
        self.unlink(id);
        let Some(mut transaction) = self.entries.get_mut(id.slot()).and_then(Option::take) else { return };
        let index = if transaction.machine.is_server() { &mut self.servers } else { &mut self.clients };
        // A late copy of a request may have opened a transaction with the same key meanwhile: that one stays.
        index.remove(transaction.key.branch(), id.slot());
        self.timers.cancel(id.slot());
        self.pending -= usize::from(transaction.pending);
        self.free.push(id.slot());
        self.pool.release(std::mem::take(&mut transaction.kept));
        if let Some(mut extra) = transaction.extra {
            self.pool.release(std::mem::take(&mut extra.kept));
            if let Some(best) = extra.best.take() {
                self.pool.release(best.response);
            }
            if self.extras.len() < MOST_SPARE {
                *extra = Extra::default();
                self.extras.push(extra);
            }
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
        if self.context(server).is_some_and(|context| context.has_more && !context.decided)
            && let Some(extra) = self.extra_mut(server)
        {
            extra.gone.push(gone);
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

/// The hops that have been used last: all transactions with one peer share one of them.
#[derive(Debug)]
struct Hops(Box<[Option<Arc<Hop>>]>);

impl Default for Hops {
    fn default() -> Self {
        Self(vec![None; HOPS].into_boxed_slice())
    }
}

impl Hops {
    fn share(&mut self, hop: Hop) -> Arc<Hop> {
        let ip = match hop.to.ip() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits() as u64 ^ (ip.to_bits() >> 64) as u64,
        };
        let connection = hop.connection.map_or(0, |connection| connection.0);
        let hash = (ip ^ u64::from(hop.to.port()) << 32 ^ connection).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let Some(place) = self.0.get_mut((hash >> 32) as usize % HOPS) else { return Arc::new(hop) };
        match place {
            Some(known) if **known == hop => known.clone(),
            _ => place.insert(Arc::new(hop)).clone(),
        }
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

/// Transactions of a page: some 50 KiB.
const PAGE: usize = 512;
/// Places for peers. Two that fall on one place take turns, at the cost of an allocation.
const HOPS: usize = 1_024;
/// Extras that wait to be used again: enough for the INVITEs that wait for their first response.
const MOST_SPARE: usize = 1_024;
