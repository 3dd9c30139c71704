//! What the user agents intend with each call, and what became of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use sipedge_proxy::config::Select;
use sipedge_proxy::engine::Transport;

use crate::profile::Profile;
use crate::rng::Rng;

/// One millisecond; the simulation counts in microseconds.
pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000 * MS;
/// How far before the last moment an input's may lie; on a clean network so little that the edge's patience is not over before what is
/// expected.
pub const MOST_BACKWARD: u64 = 3 * SECOND;
pub const MOST_BACKWARD_CLEAN: u64 = 900 * MS;

/// The intentions of all user agents.
#[derive(Debug, Clone)]
pub struct Plan {
    pub start: u64,
    /// Index of the calling agent.
    pub caller: usize,
    /// How the caller reaches the edge.
    pub transport: Transport,
    /// What each callee does if the call comes to it.
    pub parts: Vec<Part>,
    /// The caller cancels this long after its INVITE.
    pub cancel: Option<u64>,
    /// How long an answered call lasts.
    pub talk: u64,
    pub caller_hangs_up: bool,
    /// Which side re-INVITEs half-way, and whether its Contact moves to another port then.
    pub reinvite: Option<(bool, bool)>,
    pub body: Vec<u8>,
    /// The caller asks for `rport`.
    pub rport: bool,
    /// Header names in their short form, Vias of earlier hops, folds, bytes that are not UTF-8.
    pub odd: bool,
    /// A proxy of the calling carrier, of the called carrier is in the route set too.
    pub caller_proxy: bool,
    pub callee_proxy: bool,
    /// Whether the caller's, the callee's Contact is a host name.
    pub named: (bool, bool),
}

/// What one callee does.
#[derive(Debug, Clone)]
pub struct Part {
    pub outcome: Outcome,
    /// It sends 100 at once.
    pub trying: bool,
    /// 180 after this long.
    pub ring: Option<u64>,
    /// Retry-After of a 503, in seconds.
    pub retry_after: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 200 after this long.
    Answer(u64),
    /// This status after that long.
    Refuse(u16, u64),
    /// No final response, until a CANCEL comes.
    Ring,
    /// No response at all.
    Silent,
}

/// What became of a call.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Final responses to the first INVITE that the caller saw.
    pub finals: Vec<u16>,
    /// When it saw the first of them.
    pub ended: u64,
    pub caller_timed_out: bool,
    pub answered: bool,
    pub acked: bool,
    /// Refusals that were sent to the end and never acknowledged.
    pub unacknowledged: u32,
    /// Final responses to the BYE of the call.
    pub byes: Vec<u16>,
    pub reinvites: Vec<u16>,
    /// Answers of further callees, which the caller has hung up at once, and what their BYEs got.
    pub further: u32,
    pub further_byes: Vec<u16>,
    /// Every address that a Contact or Record-Route of either side named.
    pub places: BTreeSet<SocketAddr>,
}

impl Plan {
    pub fn random(rng: &mut Rng, profile: &Profile) -> Self {
        let parts: Vec<Part> = profile.callees.iter().map(|_| Part::random(rng)).collect();
        let rings = parts.iter().any(|part| part.outcome == Outcome::Ring);
        let cancels = rng.chance(if rings { 70 } else { 10 });
        let body = if rng.chance(80) { (0..rng.range(0, 900)).map(|_| rng.next() as u8).collect() } else { Vec::new() };
        let transport = match profile.streams {
            true => *rng.pick(&[Transport::Udp, Transport::Tcp, Transport::Tls]),
            false => Transport::Udp,
        };
        Self {
            start: rng.range(0, 20_000) * MS,
            caller: rng.range(0, profile.callers.len() as u64) as usize,
            transport,
            parts,
            cancel: cancels.then(|| rng.range(0, 6_000) * MS),
            talk: rng.range(0, 20_000) * MS,
            caller_hangs_up: rng.chance(50),
            reinvite: rng.chance(30).then(|| (rng.chance(50), rng.chance(50))),
            body,
            rport: rng.chance(70),
            odd: rng.chance(40),
            caller_proxy: rng.chance(25),
            callee_proxy: rng.chance(25),
            named: (rng.chance(profile.named_contacts), rng.chance(profile.named_contacts)),
        }
    }

    /// Whether a call became what both sides wanted; a CANCEL within `patience`.
    pub fn is_met(&self, record: &Record, profile: &Profile, patience: u64) -> Result<(), String> {
        let expect = |is_met: bool, what: &str| {
            if is_met { Ok(()) } else { Err(format!("expected {what}: {:?} became {record:?}", self.shown())) }
        };
        // A CANCEL that comes by another instance reaches those who ring then, not who is tried after them.
        if profile.faults > 0 && self.parts.len() > 1 && self.cancel.is_some() {
            return Ok(());
        }
        if record.caller_timed_out {
            return expect(false, "a final response");
        }
        expect(record.unacknowledged == 0, "an ACK for the refusal")?;
        let [code] = record.finals[..] else { return expect(false, "one final response") };
        expect(record.further_byes.iter().all(|code| *code == 200), "the end of further answers")?;
        match code {
            200 => {
                expect(record.answered && record.acked, "200 and ACK")?;
                expect(record.byes == [200], "one BYE, answered by 200")?;
                // An ACK to a name that an instance has to look up first comes with the next 2xx; the call may be over by then.
                let may_be_late = self.cancel.is_some() || self.named.0 || self.named.1;
                let reinvited = self.reinvite.is_none() || record.reinvites == [200] || may_be_late;
                expect(reinvited, "the re-INVITE answered by 200")?;
            }
            487 if self.cancel.is_some() => {}
            _ => expect(!record.answered || self.cancel.is_some(), "no refusal of an answered call")?,
        }
        match (&self.parts[..], self.cancel) {
            ([part], cancel) => self.is_met_by(part, cancel, code, record, patience),
            (parts, None) => {
                let possible = possible(parts, profile);
                expect(possible.contains(&code), &format!("one of {possible:?}"))
            }
            (_, Some(_)) => Ok(()),
        }
    }

    /// Without the noise of its body.
    pub fn shown(&self) -> Self {
        Self { body: Vec::new(), ..self.clone() }
    }

    /// The same, for a call that has one destination.
    fn is_met_by(
        &self,
        part: &Part,
        cancel: Option<u64>,
        code: u16,
        record: &Record,
        patience: u64,
    ) -> Result<(), String> {
        let expect = |is_met: bool, what: &str| {
            if is_met { Ok(()) } else { Err(format!("expected {what}: {:?} became {record:?}", self.shown())) }
        };
        // The called side answers or refuses at the same time as the CANCEL travels: either may win.
        let may_cancel = cancel.is_some_and(|cancel| match part.outcome {
            Outcome::Answer(after) | Outcome::Refuse(_, after) => cancel < after + 500 * MS,
            _ => true,
        });
        let must_cancel = cancel.is_some_and(|cancel| match part.outcome {
            Outcome::Answer(after) | Outcome::Refuse(_, after) => {
                // The CANCEL waits for a provisional response of the called side.
                let provisional = if part.trying { Some(0) } else { part.ring };
                provisional.is_some_and(|provisional| cancel.max(provisional) + 500 * MS < after)
            }
            Outcome::Ring => part.trying || part.ring.is_some(),
            Outcome::Silent => false,
        });
        if must_cancel {
            let provisional = if part.trying { 0 } else { part.ring.unwrap_or_default() };
            let sent = self.start + cancel.unwrap_or_default().max(provisional);
            return expect(code == 487 && record.ended < sent + patience, "487 after the CANCEL");
        }
        if may_cancel && code == 487 {
            return Ok(());
        }
        match part.outcome {
            Outcome::Answer(_) => expect(code == 200, "200"),
            Outcome::Refuse(503, _) => expect(code == 500, "500 for the 503 of the called side"),
            Outcome::Refuse(refusal, _) => expect(code == refusal, "the refusal of the called side"),
            Outcome::Ring if part.trying || part.ring.is_some() => expect(matches!(code, 408 | 487), "408 or 487"),
            Outcome::Ring | Outcome::Silent => expect(code == 408, "408"),
        }
    }
}

impl Part {
    fn random(rng: &mut Rng) -> Self {
        let outcome = match rng.range(0, 100) {
            0..=54 => Outcome::Answer(*rng.pick(&[rng.clone().range(0, 4_000), 2_000]) * MS),
            55..=79 => {
                let code = *rng.pick(&[486, 603, 503, 503, 404, 480, 500, 302, 488]);
                Outcome::Refuse(code, rng.range(0, 3_000) * MS)
            }
            80..=93 => Outcome::Ring,
            _ => Outcome::Silent,
        };
        Self {
            outcome,
            trying: rng.chance(50),
            ring: rng.chance(80).then(|| rng.range(0, 1_500) * MS),
            retry_after: rng.chance(40).then(|| rng.range(0, 30) as u32),
        }
    }

    /// What a caller gets from this callee alone, and whether the call may go on to another one after that.
    fn result(&self, profile: &Profile) -> (u16, bool) {
        match self.outcome {
            Outcome::Answer(_) => (200, false),
            Outcome::Refuse(code, _) => (code, profile.failover.contains(&code)),
            // Timer C: who has rung for so long has decided.
            Outcome::Ring if self.trying || self.ring.is_some() => (487, false),
            Outcome::Ring | Outcome::Silent => (408, true),
        }
    }
}

/// Every code that the caller may get when nobody cancels, over all orders in which the callees may be tried.
fn possible(parts: &[Part], profile: &Profile) -> BTreeSet<u16> {
    let results: Vec<(u16, bool)> = parts.iter().map(|part| part.result(profile)).collect();
    let mut codes = BTreeSet::new();
    if profile.select == Select::All {
        // Any subset may be the set of the best priority; what was not answered is tried after it.
        for set in 1..1_u32 << parts.len() {
            let in_set: Vec<u16> =
                results.iter().enumerate().filter(|(place, _)| set >> place & 1 == 1).map(|(_, it)| it.0).collect();
            if in_set.contains(&200) {
                codes.insert(200);
            }
            codes.extend(in_set.iter().filter(|code| **code >= 600));
            let answers: Vec<u16> = in_set.iter().copied().filter(|code| *code != 408).collect();
            codes.extend(best(&answers, 408).into_iter().filter(|code| *code >= 300));
        }
        codes.extend([408, 487]);
        return codes;
    }
    extend(&results, &mut Vec::new(), usize::from(profile.attempts), &mut codes);
    codes
}

fn extend(results: &[(u16, bool)], order: &mut Vec<usize>, attempts: usize, codes: &mut BTreeSet<u16>) {
    for place in 0..results.len() {
        if order.contains(&place) {
            continue;
        }
        order.push(place);
        let (code, goes_on) = results[place];
        if code == 200 {
            codes.insert(200);
        } else if goes_on && order.len() < attempts && order.len() < results.len() {
            extend(results, order, attempts, codes);
        } else {
            let answers: Vec<u16> = order.iter().map(|place| results[*place].0).filter(|code| *code != 408).collect();
            codes.extend(best(&answers, 408));
            // One that is given up by Timer C has answered the CANCEL too late, or not at all.
            codes.extend((code == 487).then_some(408));
        }
        order.pop();
    }
}

/// The codes that may go back when these final responses have come (RFC 3261 §16.7 step 6), or `own` when there was none.
pub fn best(codes: &[u16], own: u16) -> Vec<u16> {
    if codes.is_empty() {
        return vec![own];
    }
    let class = |code: u16| if code >= 600 { 0 } else { code / 100 };
    let least = codes.iter().map(|code| class(*code)).min().unwrap_or_default();
    let of_class: Vec<u16> = codes.iter().copied().filter(|code| class(*code) == least).collect();
    let preferred = |code: &u16| matches!(code, 401 | 407 | 415 | 420 | 484);
    let first: Vec<u16> = of_class.iter().copied().filter(preferred).collect();
    let rest: Vec<u16> = of_class.iter().copied().filter(|code| *code != 503).collect();
    if !first.is_empty() {
        first
    } else if !rest.is_empty() {
        rest
    } else {
        vec![500]
    }
}
