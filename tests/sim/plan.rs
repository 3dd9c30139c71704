//! What the user agents intend with each call, and what became of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::rng::Rng;

/// One millisecond; the simulation counts in microseconds.
pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000 * MS;

/// The intentions of both user agents.
#[derive(Debug, Clone)]
pub struct Plan {
    pub start: u64,
    /// Index of the calling agent.
    pub caller: usize,
    pub outcome: Outcome,
    /// The called side sends 100 at once.
    pub trying: bool,
    /// 180 after this long.
    pub ring: Option<u64>,
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
    /// Final responses to BYEs.
    pub byes: Vec<u16>,
    pub reinvites: Vec<u16>,
    /// Every address that a Contact or Record-Route of either side named.
    pub places: BTreeSet<SocketAddr>,
}

impl Plan {
    pub fn random(rng: &mut Rng, callers: u64) -> Self {
        let outcome = match rng.range(0, 100) {
            0..=54 => Outcome::Answer(rng.range(0, 4_000) * MS),
            55..=79 => {
                let code = *rng.pick(&[486, 603, 503, 404, 480, 500, 302, 488]);
                Outcome::Refuse(code, rng.range(0, 3_000) * MS)
            }
            80..=93 => Outcome::Ring,
            _ => Outcome::Silent,
        };
        let cancels = rng.chance(if outcome == Outcome::Ring { 70 } else { 8 });
        let body = if rng.chance(80) { (0..rng.range(0, 900)).map(|_| rng.next() as u8).collect() } else { Vec::new() };
        Self {
            start: rng.range(0, 20_000) * MS,
            caller: rng.range(0, callers) as usize,
            outcome,
            trying: rng.chance(50),
            ring: rng.chance(80).then(|| rng.range(0, 1_500) * MS),
            cancel: cancels.then(|| rng.range(0, 6_000) * MS),
            talk: rng.range(0, 20_000) * MS,
            caller_hangs_up: rng.chance(50),
            reinvite: rng.chance(30).then(|| (rng.chance(50), rng.chance(50))),
            body,
            rport: rng.chance(70),
            odd: rng.chance(40),
            caller_proxy: rng.chance(25),
            callee_proxy: rng.chance(25),
        }
    }

    /// Whether a call became what both sides wanted; a CANCEL within `patience`.
    pub fn is_met(&self, record: &Record, patience: u64) -> Result<(), String> {
        let expect = |is_met: bool, what: &str| {
            if is_met { Ok(()) } else { Err(format!("expected {what}: {self:?} became {record:?}")) }
        };
        if record.caller_timed_out {
            return expect(false, "a final response");
        }
        expect(record.unacknowledged == 0, "an ACK for the refusal")?;
        let [code] = record.finals[..] else { return expect(false, "one final response") };
        // The called side answers or refuses at the same time as the CANCEL travels: either may win.
        let may_cancel = self.cancel.is_some_and(|cancel| match self.outcome {
            Outcome::Answer(after) | Outcome::Refuse(_, after) => cancel < after + 500 * MS,
            _ => true,
        });
        let must_cancel = self.cancel.is_some_and(|cancel| match self.outcome {
            Outcome::Answer(after) | Outcome::Refuse(_, after) => {
                // The CANCEL waits for a provisional response of the called side.
                let provisional = if self.trying { Some(0) } else { self.ring };
                provisional.is_some_and(|provisional| cancel.max(provisional) + 500 * MS < after)
            }
            Outcome::Ring => self.trying || self.ring.is_some(),
            Outcome::Silent => false,
        });
        if must_cancel {
            let provisional = if self.trying { 0 } else { self.ring.unwrap_or_default() };
            let sent = self.start + self.cancel.unwrap_or_default().max(provisional);
            return expect(code == 487 && record.ended < sent + patience, "487 after the CANCEL");
        }
        if may_cancel && code == 487 {
            return Ok(());
        }
        match self.outcome {
            Outcome::Answer(_) => {
                expect(code == 200 && record.answered && record.acked, "200 and ACK")?;
                expect(record.byes == [200], "one BYE, answered by 200")?;
                let reinvited = self.reinvite.is_none() || record.reinvites == [200] || self.cancel.is_some();
                expect(reinvited, "the re-INVITE answered by 200")
            }
            Outcome::Refuse(503, _) => expect(code == 500, "500 for the 503 of the called side"),
            Outcome::Refuse(refusal, _) => expect(code == refusal, "the refusal of the called side"),
            Outcome::Ring if self.trying || self.ring.is_some() => expect(matches!(code, 408 | 487), "408 or 487"),
            Outcome::Ring | Outcome::Silent => expect(code == 408, "408"),
        }
    }
}
