//! The rules of forking and failover (RFC 3261 §16.6 to §16.10): which branches an INVITE may have, how each ends, and what goes back.

use std::net::SocketAddr;

use sipedge_proxy::engine::Transport;

use super::{Audit, Cause, Life, Sent, Step, lossy_bytes, name};
use crate::plan::{MOST_BACKWARD, SECOND, best};
use crate::wire::Msg;

/// What the configuration says of calls.
pub struct Settings {
    pub failover: Vec<u16>,
    pub attempts: usize,
    pub forks: bool,
}

/// An INVITE that an instance has received.
#[derive(Default)]
pub struct Invite {
    is_initial: bool,
    /// A copy has opened it, when the transaction of the INVITE was over.
    again: bool,
    /// Final responses that went back.
    pub finals: Vec<Vec<u8>>,
    /// When the last of them went back for the first time.
    ended: u64,
    answered_at: Option<u64>,
    /// The caller has hung up, and no final response had gone back.
    cancelled: bool,
    /// No further branch may be opened.
    decided: Option<String>,
    branches: Vec<String>,
    /// Refusals of its branches.
    refusals: Vec<Msg>,
}

impl Invite {
    fn has_refused(&self) -> bool {
        self.finals.iter().any(|bytes| Msg::parse(bytes).is_ok_and(|msg| msg.code() >= 300))
    }
}

/// A branch of it.
pub struct Branch {
    upstream: String,
    to: SocketAddr,
    transport: Transport,
    opened: u64,
    code: u16,
    /// When its final response came.
    ended: u64,
    cancelled: bool,
    /// Its connection broke before anything had come back, or nobody has heard its response.
    is_gone: bool,
}

impl Branch {
    /// Whether its transaction is there for certain: the moment from which the engine counts may lie before the one that it was given last.
    fn is_alive(&self, now: u64) -> bool {
        if self.is_gone {
            return false;
        }
        match self.code {
            0..=199 => now + MOST_BACKWARD < self.opened + LIFETIME,
            200..=299 => now + MOST_BACKWARD < self.ended + LIFETIME,
            _ => now + MOST_BACKWARD < self.ended + LIFETIME && self.transport == Transport::Udp,
        }
    }
}

type Output<'a> = (&'a Sent, Msg, bool);

impl Audit {
    /// What has come, and what has to go out at once because of it.
    pub(super) fn note_input(
        &mut self,
        step: &Step<'_>,
        input: Option<&Msg>,
        out: &[Output<'_>],
    ) -> Result<(), String> {
        let Some(input) = input else { return Ok(()) };
        let is_cancel = |branch: &str| {
            out.iter().any(|(_, msg, _)| msg.is_request() && msg.method() == "CANCEL" && msg.branch() == branch)
        };
        match (input.is_request(), input.method()) {
            (true, "INVITE") => {
                let key = (step.life, input.transaction());
                // A copy that arrives when the transaction is over is a new request to whoever gets it.
                let is_over = |invite: &Invite| {
                    let wait = if invite.has_refused() { CONFIRMED } else { LIFETIME };
                    !invite.finals.is_empty() && step.now >= invite.ended + wait
                };
                let opens = out.iter().any(|(_, msg, is_new)| {
                    msg.transaction() == key.1 && (msg.code() == 100 || (*is_new && msg.code() >= 200))
                });
                match self.invites.remove(&key) {
                    Some(invite) if !(opens && is_over(&invite)) => drop(self.invites.insert(key.clone(), invite)),
                    before => {
                        self.branches.retain(|(life, _), it| *life != step.life || it.upstream != key.1);
                        let invite = Invite { again: before.is_some(), ..Invite::default() };
                        self.invites.insert(key.clone(), invite);
                    }
                }
                let invite = self.invites.entry(key).or_default();
                invite.is_initial = input.tag("To").is_empty();
            }
            (true, "CANCEL") => {
                let Some(invite) = self.invites.get_mut(&(step.life, input.transaction())) else { return Ok(()) };
                if invite.finals.is_empty() && !invite.cancelled {
                    invite.cancelled = true;
                    invite.decided.get_or_insert_with(|| "CANCEL".to_owned());
                    for branch in &invite.branches {
                        let Some(it) = self.branches.get(&(step.life, branch.clone())) else { continue };
                        let rings = (100..200).contains(&it.code) && !it.cancelled && it.is_alive(step.now);
                        // The CANCEL of the transaction before it has the same branch, and may be on its way still.
                        if rings && !invite.again && !is_cancel(branch) {
                            return Err(format!("the caller hangs up, and the branch to {} is not cancelled", it.to));
                        }
                    }
                }
            }
            (false, "INVITE") => return self.note_response(step, input, out, &is_cancel),
            _ => {}
        }
        Ok(())
    }

    /// A connection of an instance to this address is over.
    pub fn broken(&mut self, life: Life, transport: Transport, to: SocketAddr) {
        let of_it = self.branches.iter_mut().filter(|((of, _), it)| *of == life && it.to == to && it.code < 100);
        of_it.filter(|(_, it)| it.transport == transport).for_each(|(_, it)| it.is_gone = true);
    }

    fn note_response(
        &mut self,
        step: &Step<'_>,
        input: &Msg,
        out: &[Output<'_>],
        is_cancel: &dyn Fn(&str) -> bool,
    ) -> Result<(), String> {
        let (name, code) = (input.branch(), input.code());
        let Some(branch) = self.branches.get_mut(&(step.life, name.clone())) else { return Ok(()) };
        let upstream = branch.upstream.clone();
        let Some(invite) = self.invites.get_mut(&(step.life, upstream)) else { return Ok(()) };
        let (was_alive, before) = (branch.is_alive(step.now), branch.code);
        let to = branch.to;
        if !was_alive && out.is_empty() {
            // Its transaction has ended, with its time or with its connection (RFC 3261 §17.1.1.2): nothing waits for this.
            branch.is_gone = true;
            return Ok(());
        }
        if code < 200 {
            if before < 200 {
                branch.code = code;
            }
            let is_over = invite.decided.as_deref().is_some_and(|why| why != REFUSED) || !invite.finals.is_empty();
            if was_alive && before < 200 && is_over && !branch.cancelled && !is_cancel(&name) {
                return Err(format!("{to} rings for a call that is over ({:?}), and is not cancelled", invite.decided));
            }
            return Ok(());
        }
        if before < 200 {
            branch.code = code;
            branch.ended = step.now;
        }
        if code < 300 {
            let passes = |(_, msg, _): &Output<'_>| msg.code() == code && msg.tag("To") == input.tag("To");
            let is_time = invite.answered_at.is_none_or(|at| step.now + MOST_BACKWARD < at + LIFETIME);
            // After a refusal it passes as long as the refusal's transaction is there, which is no longer than the ACK takes.
            if was_alive && before < 300 && is_time && !invite.has_refused() && !out.iter().any(passes) {
                return Err(format!("the {code} of {to} did not go back"));
            }
            invite.answered_at.get_or_insert(step.now);
            invite.decided.get_or_insert_with(|| "2xx".to_owned());
        } else {
            let acknowledges =
                |(sent, msg, _): &Output<'_>| msg.method() == "ACK" && msg.branch() == name && sent.to == to;
            if was_alive && !(200..300).contains(&before) && !out.iter().any(acknowledges) {
                return Err(format!("no ACK for the {code} of {to}"));
            }
            if before >= 200 {
                return Ok(());
            }
            invite.refusals.push(input.clone());
            let goes_on = if invite.is_initial { self.settings.failover.contains(&code) } else { code == 503 };
            if !goes_on {
                let why = if code >= 600 { "6xx" } else { REFUSED };
                invite.decided.get_or_insert_with(|| why.to_owned());
            }
        }
        if was_alive && ((200..300).contains(&code) || code >= 600) {
            let others: Vec<String> = invite.branches.iter().filter(|other| **other != name).cloned().collect();
            for other in others {
                let Some(it) = self.branches.get(&(step.life, other.clone())) else { continue };
                let rings = (100..200).contains(&it.code) && !it.cancelled && it.is_alive(step.now);
                if rings && !invite.has_refused() && !is_cancel(&other) {
                    return Err(format!("after the {code} of {to} the branch to {} is not cancelled", it.to));
                }
            }
        }
        Ok(())
    }

    /// What went out: new branches, CANCELs, final responses.
    pub(super) fn note_outputs(
        &mut self,
        step: &Step<'_>,
        input: Option<&Msg>,
        out: &[Output<'_>],
    ) -> Result<(), String> {
        for (sent, msg, is_new) in out {
            if msg.method() == "CANCEL" && msg.is_request() {
                let key = (step.life, msg.branch());
                if let Some(branch) = self.branches.get_mut(&key) {
                    branch.cancelled = true;
                }
                self.cancels.insert(key);
                continue;
            }
            if msg.method() != "INVITE" {
                continue;
            }
            if msg.is_request() {
                self.note_branch(step, sent, msg, *is_new)?;
            } else {
                self.note_final(step, input, sent, msg)?;
            }
        }
        Ok(())
    }

    fn note_branch(&mut self, step: &Step<'_>, sent: &Sent, msg: &Msg, is_new: bool) -> Result<(), String> {
        let key = (step.life, msg.branch());
        if let Some(before) = self.branches.get(&key) {
            let is_same = !is_new && before.to == sent.to;
            return if is_same { Ok(()) } else { Err(format!("the branch to {} was opened again", before.to)) };
        }
        let upstream = msg.list("Via").get(1).map(|via| name(via)).unwrap_or_default();
        let invite = self.invites.get_mut(&(step.life, upstream.clone())).ok_or("a branch without an INVITE")?;
        let is_answer_to_it =
            matches!(step.cause, Cause::Message(_, bytes) if Msg::parse(bytes).is_ok_and(|msg| msg.is_request()));
        if let Some(why) = &invite.decided {
            return Err(format!("a branch to {} was opened after {why}", sent.to));
        }
        if !invite.finals.is_empty() {
            return Err(format!("a branch to {} was opened after the final response", sent.to));
        }
        let most = match (self.settings.forks, invite.is_initial) {
            (true, true) if is_answer_to_it => 8,
            (_, true) => self.settings.attempts.max(if self.settings.forks { 8 } else { 0 }),
            _ => 8,
        };
        if invite.branches.len() >= most {
            return Err(format!("a branch more than {most} was opened, to {}", sent.to));
        }
        let tried: Vec<SocketAddr> = invite
            .branches
            .iter()
            .filter_map(|branch| Some(self.branches.get(&(step.life, branch.clone()))?.to))
            .collect();
        if tried.contains(&sent.to) {
            return Err(format!("{} was tried twice", sent.to));
        }
        if invite.is_initial {
            let call = msg.call().unwrap_or_default();
            self.choice.opened(step, (sent.transport, sent.to), &tried, self.settings.forks, call)?;
        }
        invite.branches.push(msg.branch());
        let branch = Branch {
            upstream,
            to: sent.to,
            transport: sent.transport,
            opened: step.now,
            code: 0,
            ended: 0,
            // A CANCEL of this branch, which has come before its INVITE or is of the time before a copy of it, may be on its way still.
            cancelled: self.cancels.contains(&(step.life, msg.branch())),
            is_gone: false,
        };
        self.branches.insert(key, branch);
        Ok(())
    }

    fn note_final(&mut self, step: &Step<'_>, input: Option<&Msg>, sent: &Sent, msg: &Msg) -> Result<(), String> {
        let key = (step.life, msg.transaction());
        let invite = self.invites.get_mut(&key).ok_or("a response to an INVITE that was not received")?;
        let code = msg.code();
        if code < 200 {
            let is_late = !invite.finals.is_empty() && code != 100;
            return if is_late { Err(format!("{} after the final response", msg.start)) } else { Ok(()) };
        }
        if code >= 300 {
            // One refusal, always the same; and none after an answer.
            if invite.finals.iter().any(|before| *before != sent.bytes) {
                let before: Vec<String> = invite.finals.iter().map(|before| lossy_bytes(before)).collect();
                return Err(format!("a second final response, {}, after {}", msg.start, before.join("\n")));
            }
            let own = msg.get("X-Answer").is_empty();
            let refusals: Vec<u16> = invite.refusals.iter().map(Msg::code).collect();
            let is_best = match own {
                false => best(&refusals, 0).contains(&code),
                true => {
                    let is_first = input.is_some_and(|input| input.is_request() && input.method() == "INVITE");
                    refusals.is_empty() && (is_first || matches!(code, 408 | 487 | 500 | 503))
                }
            };
            if invite.finals.is_empty() && !is_best {
                return Err(format!("{} went back, of {refusals:?}", msg.start));
            }
            if invite.finals.is_empty() && invite.answered_at.is_some() {
                return Err(format!("{} after an answer", msg.start));
            }
            if own && invite.cancelled && invite.finals.is_empty() && code != 487 {
                return Err(format!("{} instead of 487 for a call that was cancelled", msg.start));
            }
            let waits = invite.branches.iter().filter_map(|branch| self.branches.get(&(step.life, branch.clone())));
            let rings =
                waits.into_iter().find(|it| (100..200).contains(&it.code) && !it.cancelled && it.is_alive(step.now));
            if let Some(rings) = rings.filter(|_| invite.finals.is_empty()) {
                return Err(format!("{} while {} rings", msg.start, rings.to));
            }
        }
        if !invite.finals.contains(&sent.bytes) {
            invite.finals.push(sent.bytes.clone());
            invite.ended = step.now;
        }
        Ok(())
    }
}

/// A refusal after which no other destination is tried, but branches that are open go on.
const REFUSED: &str = "a refusal of the callee";
/// Timer I, less a second.
const CONFIRMED: u64 = 4 * SECOND;
/// 64 × T1, less a second for what is under way.
const LIFETIME: u64 = 31 * SECOND;
