//! What requests from outside every trunk may cost: answers to them, and requests within dialogs by those who hold a token.
//!
//! Sources of datagrams can be forged: whatever a stranger is answered may hit somebody else, so that there is a bound on all of it.

use std::net::IpAddr;
use std::time::Duration;

use sipedge_sip::Time;
use sipedge_sip::message::{HeaderName, Message};

/// What one shard remembers of strangers: tables of fixed size.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    answers: Bucket,
    challenges: Bucket,
    in_dialog: Bucket,
    /// Whoever has had requests refused. Its source may be forged.
    refused: Offenders,
    /// Whoever has sent wrong proofs to the answerer, which nobody can in another one's place.
    guessers: Offenders,
}

/// A table of sources, of fixed size.
#[derive(Debug)]
struct Offenders {
    sets: Box<[[Option<Offender>; WAYS]]>,
}

/// A source whose requests were refused not long ago.
#[derive(Debug, Clone, Copy)]
struct Offender {
    source: IpAddr,
    /// Refused requests since `since`.
    refused: u32,
    since: Time,
    /// Nothing is answered before this moment.
    silent_until: Option<Time>,
}

/// What a stranger gets for a request that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An answer.
    Answer,
    /// Nothing: it has had too many requests refused.
    Offender,
    /// Nothing: too many strangers have been answered in the last second.
    TooMany,
}

impl Strangers {
    /// A request of `source` is refused.
    pub(super) fn refuse(&mut self, now: Time, source: IpAddr) -> Verdict {
        if self.refused.is_silenced(now, source) {
            Verdict::Offender
        } else if self.answers.take(now, ANSWERS_PER_SECOND) {
            Verdict::Answer
        } else {
            Verdict::TooMany
        }
    }

    /// Whether the answerer may challenge one more request. What other strangers are answered takes nothing away from this, since few
    /// know the answerer's name; and no source is refused it for having asked often, since whoever forges it would silence its owner.
    pub(super) fn may_challenge(&mut self, now: Time) -> bool {
        self.challenges.take(now, CHALLENGES_PER_SECOND)
    }

    /// `source` has answered a challenge wrongly. Whether it has done so too often, and hears nothing for a while.
    pub(super) fn has_guessed(&mut self, now: Time, source: IpAddr) -> bool {
        self.guessers.is_silenced(now, source)
    }

    /// Whether `source` has answered the answerer's challenges wrongly too often, and is not heard by it for a while.
    pub(super) fn is_guesser(&self, now: Time, source: IpAddr) -> bool {
        self.guessers.is_silent(now, source)
    }

    /// `source` has proved who it is: what it has guessed before counts no more.
    pub(super) fn forgive(&mut self, source: IpAddr) {
        self.guessers.forgive(source);
    }

    /// Whether there is room for one more request within a dialog from a source that is nobody's.
    pub(super) fn admit_in_dialog(&mut self, now: Time) -> bool {
        self.in_dialog.take(now, IN_DIALOG_PER_SECOND)
    }
}

impl Offenders {
    fn forgive(&mut self, source: IpAddr) {
        let source = network(source);
        for entry in self.sets.get_mut(place(source)).into_iter().flatten() {
            entry.take_if(|offender| offender.source == source);
        }
    }

    /// Whether `source` has offended too often, and is heard no more for a while.
    fn is_silent(&self, now: Time, source: IpAddr) -> bool {
        let source = network(source);
        let offenders = self.sets.get(place(source)).into_iter().flatten().flatten();
        let its = |offender: &&Offender| offender.source == source;
        offenders.filter(its).any(|offender| offender.silent_until.is_some_and(|until| until > now))
    }

    /// Counts a refused request. Whether its source has had too many of them.
    fn is_silenced(&mut self, now: Time, source: IpAddr) -> bool {
        let source = network(source);
        let Some(set) = self.sets.get_mut(place(source)) else { return false };
        let new = Offender { source, refused: 0, since: now, silent_until: None };
        let known = set.iter().position(|entry| entry.is_some_and(|offender| offender.source == source));
        // The one that has offended least makes room, so that no flood of new sources lets the worst one speak again.
        let worth = |entry: &Option<Offender>| entry.map(|offender| (offender.silent_until, offender.refused));
        let least = || (0..WAYS).min_by_key(|at| set.get(*at).and_then(worth));
        let Some(entry) = known.or_else(least).and_then(|at| set.get_mut(at)) else { return false };
        let offender = entry.get_or_insert(new);
        if offender.source != source
            || offender.silent_until.is_some_and(|until| until <= now)
            || (offender.silent_until.is_none() && now.since(offender.since) >= WINDOW)
        {
            *offender = new;
        }
        offender.refused = offender.refused.saturating_add(1);
        if offender.refused > REFUSED_PER_WINDOW && offender.silent_until.is_none() {
            offender.silent_until = Some(now + SILENCE);
        }
        offender.silent_until.is_some()
    }
}

impl Default for Offenders {
    fn default() -> Self {
        Self { sets: vec![[None; WAYS]; SETS].into_boxed_slice() }
    }
}

/// Whether a request says that a known scanner has sent it. Who changes its name gets what any stranger gets.
pub(super) fn is_scanner(message: &Message<'_>) -> bool {
    let Some(agent) = message.header(HeaderName::UserAgent) else { return false };
    let begins = |name: &str| agent.text.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name.as_bytes()));
    SCANNERS.iter().any(|name| begins(name))
}

/// So many per second, and as many at once (generic cell rate algorithm): when the next one is due if they came evenly.
#[derive(Debug, Default)]
struct Bucket {
    due: Option<Time>,
}

impl Bucket {
    fn take(&mut self, now: Time, per_second: u32) -> bool {
        let next = self.due.map_or(now, |due| due.max(now)) + SECOND / per_second;
        let fits = next <= now + SECOND;
        if fits {
            self.due = Some(next);
        }
        fits
    }
}

/// Who offends: an IPv4 address, or the /64 of an IPv6 one, which is the least that anybody has.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    }
}

/// Whoever chooses sources that share a place only makes the edge forget its own offences: the bound on all answers holds.
fn place(source: IpAddr) -> usize {
    let hash = match source {
        IpAddr::V4(ip) => super::call_hash(&ip.octets()),
        IpAddr::V6(ip) => super::call_hash(&ip.octets()),
    };
    hash as usize % SETS
}

/// User-Agents of the tools that search the Internet for open SIP servers, as they come out of the box: SIPVicious and what was made of
/// it, sipcli, the VaxSIP kit. Not sipsak, which engineers use.
const SCANNERS: [&str; 14] = [
    "friendly-scanner",
    "friendly-request",
    "sipvicious",
    "sipcli",
    "sundayddr",
    "VaxSIPUserAgent",
    "VaxIPUserAgent",
    "pplsip",
    "iWar",
    "sip-scan",
    "sipscan",
    "siparmyknife",
    "Gulp",
    "smap",
];

const SECOND: Duration = Duration::from_secs(1);
/// Refusals that strangers get per second and shard. Whoever tries a call from the wrong address sees why it fails; 20 datagrams of
/// about 500 bytes are no weapon.
const ANSWERS_PER_SECOND: u32 = 20;
/// Challenges of the answerer per second and shard: a smoke call needs a handful.
const CHALLENGES_PER_SECOND: u32 = 20;
/// Refused requests of one source in [`WINDOW`] that are answered: more than a person at a telephone makes, far fewer than a scanner.
const REFUSED_PER_WINDOW: u32 = 30;
/// What [`REFUSED_PER_WINDOW`] counts in.
const WINDOW: Duration = Duration::from_secs(60);
/// How long a source that has had more refused hears nothing. A scanner is gone by then; a peer whose address is added to a trunk
/// meanwhile is no stranger any more.
const SILENCE: Duration = Duration::from_secs(300);
/// Requests within dialogs per second and shard from sources that are nobody's: calls of this many callees that hang up at once. One
/// who holds a single call's token sends no more with it through the edge.
const IN_DIALOG_PER_SECOND: u32 = 100;
/// Bytes of a request within a dialog from a source that is nobody's: with [`IN_DIALOG_PER_SECOND`] and the 32 s that a transaction may
/// take it bounds what holders of tokens can have kept, some 26 MB. A re-INVITE with SDP has 2,000.
pub(super) const MOST_BYTES_IN_DIALOG: usize = 8_192;
/// Together 2,048 sources, some 100 KiB for each table.
const SETS: usize = 256;
/// Sources that share a place.
const WAYS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_micros(1_800_000_000_000_000);

    #[test]
    fn a_source_that_goes_on_is_silenced_and_heard_again_later() {
        let mut strangers = Strangers::default();
        let ip: IpAddr = "203.0.113.9".parse().unwrap();
        let mut now = NOW;
        let mut verdicts = |count: u32, step: Duration| {
            (0..count)
                .map(|_| {
                    now = now + step;
                    strangers.refuse(now, ip)
                })
                .filter(|verdict| *verdict == Verdict::Answer)
                .count() as u32
        };
        assert_eq!(verdicts(100, Duration::from_secs(1)), REFUSED_PER_WINDOW);
        assert_eq!(verdicts(1, SILENCE), 1);
        assert_eq!(verdicts(100, WINDOW / REFUSED_PER_WINDOW), 100, "so many are what a person may make");
    }

    #[test]
    fn all_strangers_together_get_no_more_answers_than_the_bound() {
        let mut strangers = Strangers::default();
        let mut answers = |now: Time| {
            let sources = (0..10_000_u32).map(|number| IpAddr::from((0xcb00_0000 + number).to_be_bytes()));
            sources.filter(|source| strangers.refuse(now, *source) == Verdict::Answer).count() as u32
        };
        assert_eq!(answers(NOW), ANSWERS_PER_SECOND);
        assert_eq!(answers(NOW + SECOND / 2), ANSWERS_PER_SECOND / 2);
    }

    #[test]
    fn a_flood_of_new_sources_does_not_free_an_offender() {
        let mut strangers = Strangers::default();
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        for _ in 0..=REFUSED_PER_WINDOW {
            strangers.refuse(NOW, ip);
        }
        for number in 0..100_000_u32 {
            strangers.refuse(NOW, IpAddr::from(number.to_be_bytes()));
        }
        assert_eq!(strangers.refuse(NOW, "2001:db8::2".parse().unwrap()), Verdict::Offender, "one /64 is one source");
    }

    #[test]
    fn what_strangers_are_refused_silences_nobody_before_the_answerer_and_guesses_do() {
        let mut strangers = Strangers::default();
        let ip: IpAddr = "203.0.113.9".parse().unwrap();
        for _ in 0..=REFUSED_PER_WINDOW {
            strangers.refuse(NOW, ip);
        }
        assert_eq!(strangers.refuse(NOW, ip), Verdict::Offender);
        assert!(!strangers.is_guesser(NOW, ip) && strangers.may_challenge(NOW));
        let heard = (0..100).filter(|_| !strangers.has_guessed(NOW, ip)).count() as u32;
        assert_eq!((heard, strangers.is_guesser(NOW, ip)), (REFUSED_PER_WINDOW, true));
        strangers.forgive(ip);
        assert!(!strangers.is_guesser(NOW, ip));
        assert_eq!(strangers.refuse(NOW, ip), Verdict::Offender, "a proof to the answerer makes no trunk of anybody");
    }

    #[test]
    fn requests_within_dialogs_have_a_rate_of_their_own() {
        let mut strangers = Strangers::default();
        let mut admitted = |now: Time| (0..1_000).filter(|_| strangers.admit_in_dialog(now)).count() as u32;
        assert_eq!(admitted(NOW), IN_DIALOG_PER_SECOND);
        assert_eq!(admitted(NOW + SECOND), IN_DIALOG_PER_SECOND);
    }
}
