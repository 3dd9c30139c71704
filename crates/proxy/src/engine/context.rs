//! The response context: the branches of a forwarded request, and which of their responses goes back (RFC 3261 §16.7 to §16.9).

use std::net::SocketAddr;

use sipedge_sip::Time;
use sipedge_sip::message::{HeaderName, Message};

use super::admission::{REQUEST_TERMINATED, SERVER_ERROR, TIMEOUT};
use super::cancel::CancelReason;
use super::flow::Transport;
use super::pool::Kept;
use super::transactions::{Id, Machine, Transaction};
use super::write::Answer;
use super::{Engine, trust, write};
use crate::config::Trust;

/// What a server transaction knows of the request that it has sent on.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// The branch that was opened last; the others follow it.
    pub(super) newest: Option<Id>,
    /// Branches whose final response is still to come.
    pub(super) open: u16,
    /// Branches that have been opened.
    pub(super) tries: u8,
    /// Destinations of a forked request that there was no room for yet: each has its turn when a branch has ended (RFC 5393 §5.3.3).
    pub(super) waiting: u16,
    /// Whether it goes to the destinations of a trunk, and not to a remote target.
    pub(super) pool: bool,
    /// Fingerprint of the trunk at the other end.
    pub(super) toward: u16,
    /// Whether a further branch could be opened.
    pub(super) has_more: bool,
    /// No further branch is opened: somebody has answered, the callee has decided, or the caller has hung up.
    pub(super) decided: bool,
    /// Whether it is an INVITE from outside a dialog.
    pub(super) opens_call: bool,
}

/// What only some transactions have, or only for a while.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Of a server transaction the request as it came, while a further branch could be opened; of the client transaction of an INVITE
    /// what is kept instead of it once it has been answered.
    pub(super) kept: Kept,
    /// Where that request came from.
    pub(super) source: Option<SocketAddr>,
    /// Where branches went whose transactions are gone, while a further one may be opened: over a reliable transport a refused one ends
    /// at once.
    pub(super) gone: Vec<Gone>,
    /// The best final response so far, while branches are open.
    pub(super) best: Option<Best>,
    /// Why open branches are being cancelled.
    pub(super) cancelling: Option<CancelReason>,
    /// Key of the counted call that this INVITE has opened or this BYE ends, when a limit counts it.
    pub(super) counted: Option<u128>,
}

/// Where a branch went whose transaction is gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone {
    pub(super) transport: Transport,
    pub(super) to: SocketAddr,
    pub(super) for_size: bool,
}

/// A final response that waits for better ones.
#[derive(Debug)]
pub(super) struct Best {
    pub(super) code: u16,
    /// Without our Via.
    pub(super) response: Kept,
}

/// How a branch came to its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome<'m> {
    /// A final response.
    Response(&'m Message<'m>, u16),
    /// Nothing came in time (RFC 3261 §16.8).
    Silence,
    /// The transport could not deliver the request (RFC 3261 §16.9).
    Unreachable,
}

impl Extra {
    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        let Self { kept, source: _, gone, best, cancelling, counted } = self;
        kept.is_empty() && gone.is_empty() && best.is_none() && cancelling.is_none() && counted.is_none()
    }

    /// Whether the caller has hung up.
    fn is_cancelled(&self) -> bool {
        matches!(self.cancelling, Some(CancelReason::Caller(_)))
    }
}

impl Engine {
    /// A branch has ended without a 2xx, or a request that is no INVITE was answered: the next branch is opened, or the best response
    /// goes back once no branch is open.
    pub(super) fn close_branch(&mut self, now: Time, client: Id, outcome: Outcome<'_>) {
        let Some(branch) = self.transactions.branch_mut(client) else { return };
        if std::mem::replace(&mut branch.closed, true) {
            return;
        }
        let (Some(server), for_size) = (branch.server, branch.for_size) else { return };
        let may_go_on = self.goes_on(server, outcome);
        let Some(context) = self.transactions.context_mut(server) else { return };
        context.open = context.open.saturating_sub(1);
        // A sibling's refusal does not keep it from its second way; an answer, a 6xx or a CANCEL does.
        let falls_back = for_size
            && matches!(outcome, Outcome::Unreachable)
            && self.transactions.extra(server).is_none_or(|extra| extra.cancelling.is_none());
        if falls_back && self.fall_back(now, server, client) {
            return;
        }
        let Some(context) = self.transactions.context_mut(server) else { return };
        context.decided |= !may_go_on;
        let is_last = context.open == 0 && (context.decided || !context.has_more);
        let has_best = self.transactions.extra(server).is_some_and(|extra| extra.best.is_some());
        // A 2xx waits for nobody (RFC 3261 §16.7 step 5): a CANCEL that went to several destinations is answered by whoever knows it.
        if let Outcome::Response(message, code) = outcome
            && (code < 300 || (is_last && !has_best))
        {
            if self.respond(now, server, message, code) {
                self.end_call(server, code);
            }
            if is_last {
                self.let_original_go(server);
            }
            return;
        }
        if let Outcome::Response(message, code) = outcome {
            self.keep_best(server, message, code);
            if code >= 600 {
                self.cancel_branches(now, server, CancelReason::None);
            }
        }
        let is_open = self.transactions.context(server).is_none_or(|context| context.open > 0);
        if is_open || (!is_last && self.open_next(now, server)) {
            return;
        }
        let own = if matches!(outcome, Outcome::Unreachable) { SERVER_ERROR } else { TIMEOUT };
        self.conclude(now, server, own);
    }

    /// A branch that was given up for its silence has been refused after all: what has come is better than a 408 of our own, and what the
    /// callee has decided holds (RFC 3261 §16.7 steps 4 and 5).
    pub(super) fn refuse_late(&mut self, now: Time, client: Id, message: &Message<'_>, code: u16) {
        let Some(server) = self.transactions.server_of(client) else { return };
        let waits = |transaction: &Transaction| matches!(&transaction.machine, Machine::InviteServer(machine) if machine.is_proceeding());
        if !self.transactions.get(server).is_some_and(waits) {
            return;
        }
        let may_go_on = self.goes_on(server, Outcome::Response(message, code));
        if let Some(context) = self.transactions.context_mut(server) {
            context.decided |= !may_go_on;
        }
        self.keep_best(server, message, code);
        if code >= 600 {
            self.cancel_branches(now, server, CancelReason::None);
        }
    }

    /// An INVITE was answered by a 2xx, the first one or a further one (RFC 3261 §16.7 steps 5 and 10).
    pub(super) fn accept_branch(&mut self, now: Time, client: Id, message: &Message<'_>, code: u16) {
        let Some(server) = self.transactions.server_of(client) else { return };
        let was_open = self.transactions.branch_mut(client).is_some_and(|it| !std::mem::replace(&mut it.closed, true));
        // It may be one of a branch that was given up while others ring.
        let is_first = self.transactions.get(server).is_some_and(
            |transaction| matches!(&transaction.machine, Machine::InviteServer(machine) if machine.is_proceeding()),
        );
        if let Some(context) = self.transactions.context_mut(server) {
            context.open = context.open.saturating_sub(u16::from(was_open));
        }
        if is_first && let Some(context) = self.transactions.context_mut(server) {
            context.decided = true;
            self.counters.calls_answered += u64::from(context.opens_call);
            self.let_original_go(server);
            self.cancel_branches(now, server, CancelReason::Elsewhere);
            // It ends by its BYE from now on.
            if let Some(extra) = self.transactions.get_mut(server).and_then(|transaction| transaction.extra.as_mut()) {
                extra.counted = None;
                self.transactions.tidy(server);
            }
        }
        self.respond(now, server, message, code);
    }

    /// No branch is open any more: the best response goes back, or `own` when there was none (RFC 3261 §16.7 step 6).
    pub(super) fn conclude(&mut self, now: Time, server: Id, own: Answer) {
        let Some(context) = self.transactions.context_mut(server) else { return };
        context.decided = true;
        let is_cancelled = self.transactions.extra(server).is_some_and(Extra::is_cancelled);
        let mut passed = false;
        if let Some(Best { code, response }) = self.transactions.take_best(server) {
            passed = self.respond_kept(now, server, &response, code);
            self.transactions.release(response);
            if passed {
                self.end_call(server, code);
            }
        }
        let own = if is_cancelled { REQUEST_TERMINATED } else { own };
        // Once a final response has gone back the transaction lets no other pass.
        if !passed && self.answer_for(now, server, own) {
            self.end_call(server, own.code);
        }
        self.let_original_go(server);
    }

    /// No further branch will be opened.
    pub(super) fn let_original_go(&mut self, server: Id) {
        if let Some(context) = self.transactions.context_mut(server) {
            context.has_more = false;
        }
        let Some(transaction) = self.transactions.get_mut(server) else { return };
        if let Some(extra) = &mut transaction.extra {
            extra.gone = Vec::new();
            let original = std::mem::take(&mut extra.kept);
            self.transactions.release(original);
            self.transactions.tidy(server);
        }
    }

    /// Whether the call may go on to another destination after this.
    fn goes_on(&self, server: Id, outcome: Outcome<'_>) -> bool {
        let Some(context) = self.transactions.context(server).filter(|context| !context.decided) else { return false };
        let trunk = || self.setup.trunk_with(context.toward).and_then(|trunk| self.setup.trunks.get(trunk));
        let fails_over = |code: u16| match context.pool {
            true => trunk().is_some_and(|trunk| trunk.failover.binary_search(&code).is_ok()),
            // RFC 3263 §4.3.
            false => code == 503,
        };
        // What waits is part of the fork, whatever the others answer; after that one refusal by a callee is enough.
        let is_refused = || {
            let best = self.transactions.extra(server).and_then(|extra| extra.best.as_ref());
            best.is_some_and(|best| !fails_over(best.code))
        };
        match outcome {
            Outcome::Response(_, code) if context.waiting > 0 => (300..600).contains(&code),
            Outcome::Response(_, code) => fails_over(code) && !is_refused(),
            Outcome::Silence | Outcome::Unreachable => context.waiting > 0 || !is_refused(),
        }
    }

    /// Takes note of a final response that may go back once no branch is open (RFC 3261 §16.7 steps 4, 6 and 7).
    fn keep_best(&mut self, server: Id, message: &Message<'_>, code: u16) {
        if self.transactions.context(server).is_none() {
            return;
        }
        let before = self.transactions.take_best(server);
        let is_better = before.as_ref().is_none_or(|before| rank(code) < rank(before.code));
        let old = before.as_ref().map(|before| before.response.bytes()).unwrap_or_default();
        let merges = before.as_ref().is_some_and(|before| is_challenge(before.code)) && is_challenge(code);
        let trusted = self.trusted(server, message);
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        let edits = &mut self.edits;
        edits.clear();
        let mut layout = std::mem::take(&mut self.spare_layout);
        let kept = match (is_better, Message::read_without_body(old, &mut layout)) {
            (true, old) => {
                if let Some((_, via)) = message.top_via() {
                    edits.remove(via.removal());
                }
                trusted.inspect(|(from, to)| trust::note(message, *from, *to, edits));
                if let (true, Ok(old)) = (merges, old) {
                    let challenges = challenges(&old);
                    edits.insert(after_cseq(message), |out| challenges.for_each(|line| out.extend_from_slice(line)));
                }
                edits.write(message, &mut text);
                true
            }
            (false, Ok(old)) if merges => {
                // The one that came first stays, with the challenges of both.
                let challenges = challenges(message);
                edits.insert(after_cseq(&old), |out| challenges.for_each(|line| out.extend_from_slice(line)));
                edits.write(&old, &mut text);
                true
            }
            (false, _) => false,
        };
        self.spare_layout = layout;
        let best = if kept {
            let best_code = if is_better { code } else { before.as_ref().map_or(code, |before| before.code) };
            let response = self.transactions.copy(&text);
            if let Some(before) = before {
                self.transactions.release(before.response);
            }
            // Without memory for it, it is as if it had not come.
            (!response.is_empty()).then_some(Best { code: best_code, response })
        } else {
            before
        };
        self.scratch = text;
        if best.is_some()
            && let Some(extra) = self.transactions.extra_mut(server)
        {
            extra.best = best;
        }
    }

    /// What limits and counters learn from the final response that went back.
    fn end_call(&mut self, server: Id, code: u16) {
        let Some(transaction) = self.transactions.get(server) else { return };
        let is_invite = matches!(transaction.machine, Machine::InviteServer(_));
        let opens_call = transaction.context().is_some_and(|context| context.opens_call);
        if is_invite && code >= 300 && opens_call {
            self.counters.calls_failed += 1;
            self.end_counted_call(server);
        }
        // A BYE that was refused has ended nothing.
        if !is_invite && code < 300 {
            self.end_counted_call(server);
        }
    }

    fn end_counted_call(&mut self, server: Id) {
        let Some(transaction) = self.transactions.get_mut(server) else { return };
        let counted = transaction.extra.as_mut().and_then(|extra| extra.counted.take());
        self.transactions.tidy(server);
        if let Some(leg) = counted.and_then(|key| self.calls.end_leg(key)) {
            self.give_call(leg);
        }
    }

    /// Answers a forwarded request ourselves, from the request as it came or as one of its branches keeps it, or from what it was answered
    /// last. Whether the transaction lets the answer pass.
    pub(super) fn answer_for(&mut self, now: Time, server: Id, answer: Answer) -> bool {
        let timers = &self.setup.timers;
        let Some(tag) = self.transactions.key(server).map(super::transactions::Key::branch) else { return false };
        let Some(transaction) = self.transactions.get_mut(server) else { return false };
        let passes = match &mut transaction.machine {
            Machine::InviteServer(machine) => machine.handle_response(now, answer.code, timers),
            // Its machine has asked for the 100 itself; there is no 408 (RFC 4320 §4.2).
            Machine::NonInviteServer(machine) => {
                answer.code == 100 || (answer.code != 408 && machine.handle_response(now, answer.code, timers))
            }
            Machine::InviteClient(_) | Machine::NonInviteClient(_) => false,
        };
        if !passes {
            return false;
        }
        let (hop, receipt) = (transaction.hop.clone(), transaction.receipt());
        let original = self.transactions.extra(server).is_some_and(|extra| !extra.kept.is_empty());
        let written = if original {
            self.with_original(server, |engine, request| {
                engine.outbox.transmit(&hop, receipt, |out| {
                    write::answer(&request.message, &request.head, &request.stamp, answer, tag, out);
                });
            })
            .is_some()
        } else {
            let kept = |client: &Id| {
                let kept = self.transactions.get(*client).map(|transaction| transaction.kept.bytes());
                kept.is_some_and(|kept| !kept.is_empty() && !kept.starts_with(b"ACK "))
            };
            // Where there was no memory for the request, the 100 or 18x that went back has all that an answer needs.
            let (from, own_vias) = match self.transactions.branches(server).find(kept) {
                Some(client) => (client, 1),
                None => (server, 0),
            };
            let mut layout = std::mem::take(&mut self.spare_layout);
            let source = self.transactions.take_kept(from);
            let read = Message::read_without_body(source.bytes(), &mut layout);
            let written = read.is_ok();
            if let Ok(read) = read {
                self.outbox.transmit(&hop, receipt, |out| write::answer_kept(&read, own_vias, answer, tag, out));
            }
            self.transactions.put_kept(from, source);
            self.spare_layout = layout;
            written
        };
        if written {
            self.keep_last_transmit(server);
        }
        self.transactions.settle(server);
        true
    }

    /// A response of the other side goes back as it was kept. Whether it does.
    fn respond_kept(&mut self, now: Time, server: Id, response: &Kept, code: u16) -> bool {
        let mut layout = std::mem::take(&mut self.spare_layout);
        let read = Message::read(response.bytes(), &mut layout).ok();
        let passed = read.is_some_and(|message| {
            self.edits.clear();
            self.transmit_response(now, server, &message, code)
        });
        self.spare_layout = layout;
        passed
    }

    /// Sends a response on to the request's sender: without our Via, by the way that the request came. Whether it goes.
    pub(super) fn respond(&mut self, now: Time, server: Id, message: &Message<'_>, code: u16) -> bool {
        self.edits.clear();
        if let Some(via) = message.top_via_element() {
            self.edits.remove(via.removal());
        }
        self.note_trust(server, message);
        self.transmit_response(now, server, message, code)
    }

    /// Notes what the other side may not say, or this one not hear.
    fn note_trust(&mut self, server: Id, message: &Message<'_>) {
        if let Some((from, to)) = self.trusted(server, message) {
            trust::note(message, from, to, &mut self.edits);
        }
    }

    /// What the other side's word and this one's are taken for, when a response has something that it matters for.
    fn trusted(&self, server: Id, message: &Message<'_>) -> Option<(Trust, Trust)> {
        let context = self.transactions.context(server).filter(|_| trust::concerns(message))?;
        let from = if context.pool {
            self.setup.trunk_with(context.toward)
        } else {
            // Within a dialog it is who is there that counts, and not whose call it is.
            let at = context.newest.and_then(|client| self.transactions.get(client)).map(|branch| branch.hop.to.ip());
            at.and_then(|ip| self.setup.trunk_of(ip).or_else(|| self.destination_at(ip)))
        };
        let from = self.setup.trust_of(from);
        // Responses go to the address that the request came from, whatever its port.
        let to = self.transactions.get(server)?.hop.to.ip();
        Some((from, self.setup.trust_of(self.setup.trunk_of(to))))
    }

    /// Sends a response with the edits that are noted, if the server transaction lets it pass. Whether it does.
    fn transmit_response(&mut self, now: Time, server: Id, message: &Message<'_>, code: u16) -> bool {
        let timers = &self.setup.timers;
        let Some(transaction) = self.transactions.get_mut(server) else { return false };
        // 100 is hop by hop (§16.7 step 5).
        let passes = code != 100
            && match &mut transaction.machine {
                Machine::InviteServer(machine) => machine.handle_response(now, code, timers),
                // RFC 4320 §4.2: no 408 to a non-INVITE request.
                Machine::NonInviteServer(machine) => code != 408 && machine.handle_response(now, code, timers),
                Machine::InviteClient(_) | Machine::NonInviteClient(_) => false,
            };
        if !passes {
            return false;
        }
        let keeps = match &transaction.machine {
            Machine::InviteServer(machine) => machine.may_repeat() && !(200..300).contains(&code),
            _ => true,
        };
        let (hop, receipt) = (transaction.hop.clone(), transaction.receipt());
        let edits = &mut self.edits;
        if code == 503
            && let Some(status) = message.status_span()
        {
            // §16.7 step 6: our upstream must not take the edge for overloaded.
            edits.replace(status, |out| out.extend_from_slice(b"500 Server Internal Error"));
        }
        write::note_length(edits, message, hop.transport);
        let edits = &self.edits;
        self.counters.responses_forwarded += 1;
        self.outbox.transmit(&hop, receipt, |out| edits.write(message, out));
        if keeps {
            self.keep_last_transmit(server);
        } else {
            self.transactions.forget(server);
        }
        self.transactions.settle(server);
        true
    }

    /// Cancels every open branch (RFC 3261 §16.10), each as soon as it has answered provisionally.
    pub(super) fn cancel_branches(&mut self, now: Time, server: Id, reason: CancelReason) {
        let Some(context) = self.transactions.context_mut(server) else { return };
        if context.open == 0 {
            return;
        }
        if let Some(extra) = self.transactions.extra_mut(server) {
            extra.cancelling.get_or_insert(reason);
        }
        let mut at = self.transactions.context(server).and_then(|context| context.newest);
        while let Some(client) = at {
            at = self.transactions.next_branch(client);
            self.cancel_branch(now, client);
        }
    }
}

/// Which of two final responses goes back: the lower one; the first that came when they are equal (RFC 3261 §16.7 step 6).
fn rank(code: u16) -> (u16, u16) {
    let class = if code >= 600 { 0 } else { code / 100 };
    let within = match code {
        // What a caller can do something about.
        401 | 407 | 415 | 420 | 484 => 0,
        503 => 2,
        _ => 1,
    };
    (class, within)
}

fn is_challenge(code: u16) -> bool {
    matches!(code, 401 | 407)
}

/// The lines of a challenge.
fn challenges<'a>(message: &Message<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let bytes = message.bytes();
    let www = message.headers(HeaderName::WwwAuthenticate);
    www.chain(message.headers(HeaderName::ProxyAuthenticate)).map(move |header| header.line.of(bytes))
}

/// A place for header lines, which every response has.
fn after_cseq(message: &Message<'_>) -> u32 {
    message.header(HeaderName::CSeq).map_or(message.first_header(), |cseq| cseq.line.end)
}
