//! OPTIONS to each destination of a trunk that asks for it: when they are due, what they say, and what their answers mean.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sipedge_sip::Time;
use sipedge_sip::message::Method;
use sipedge_sip::transaction::NonInviteClient;

use super::super::flow::{Hop, TlsPeer};
use super::super::limits::with_reserve;
use super::super::outbox::Outbox;
use super::super::setup::{Setup, Target, Trunk};
use super::super::transactions::{Key, Machine};
use super::super::{Engine, branch, call_hash};
use super::signs::Reason;
use super::{Address, Destinations, State};
use crate::config::Probe;

/// The timetable of probes, of the one engine of an instance that sends them.
#[derive(Debug, Default)]
pub(super) struct Prober {
    /// This engine's shard and how many there are, when it is the one that probes.
    shard: Option<(usize, usize)>,
    /// Whether it is time for probes: the instance is open and does not leave.
    is_open: bool,
    /// When each destination is due: for a probe, or for the end of the wait for its answer.
    schedule: BTreeSet<(Time, Address)>,
    outstanding: HashMap<Key, Address>,
}

/// The probes of one destination.
#[derive(Debug)]
pub(super) struct Watch {
    /// Its entry in the schedule.
    at: Time,
    /// When its last probe went out.
    sent: Time,
    outstanding: Option<Key>,
    failures: u8,
    successes: u8,
}

/// What a probe has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Answered,
    Refused(u16),
    Unanswered,
}

impl Prober {
    pub(super) fn is_this(&self) -> bool {
        self.shard.is_some()
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.schedule.first().map(|(at, _)| *at)
    }

    fn put(&mut self, address: Address, watch: &mut Watch, at: Time) {
        self.schedule.remove(&(watch.at, address));
        self.schedule.insert((at, address));
        watch.at = at;
    }

    fn drop(&mut self, address: Address, watch: &Watch) {
        self.schedule.remove(&(watch.at, address));
        if let Some(key) = watch.outstanding {
            self.outstanding.remove(&key);
        }
    }
}

impl Watch {
    pub(super) fn failures(&self) -> u8 {
        self.failures
    }
}

impl Destinations {
    /// Whether this is the transaction of a probe that waits for its answer.
    pub(in crate::engine) fn is_probe(&self, key: Key) -> bool {
        self.prober.outstanding.contains_key(&key)
    }

    /// This engine is the one that probes.
    pub(in crate::engine) fn probe_from(&mut self, shard: usize, shards: usize) {
        self.prober.shard = Some((shard, shards));
    }

    /// It is time for probes.
    pub(in crate::engine) fn start_probes(&mut self, now: Time, setup: &Setup) {
        self.prober.is_open = true;
        self.watch(now, setup);
    }

    /// The time for probes is over. The transactions of those that wait for an answer.
    pub(in crate::engine) fn stop_probes(&mut self) -> Vec<Key> {
        self.prober.is_open = false;
        self.prober.outstanding.clear();
        // In the order of the schedule: a run of the same messages at the same times does the same.
        let schedule = std::mem::take(&mut self.prober.schedule);
        let watches = schedule.into_iter().filter_map(|(_, address)| self.states.get_mut(&address)?.watch.take());
        watches.filter_map(|watch| watch.outstanding).collect()
    }

    /// Brings the timetable up to date with the destinations.
    pub(super) fn watch(&mut self, now: Time, setup: &Setup) {
        if !self.prober.is_open || !self.prober.is_this() {
            return;
        }
        for (address, state) in &mut self.states {
            let probe = state.probed_by.filter(|_| state.is_listed).and_then(|(trunk, _)| probe_of(setup, trunk));
            match (probe, &mut state.watch) {
                (None, None) => {}
                (None, Some(watch)) => {
                    self.prober.drop(*address, watch);
                    state.watch = None;
                }
                (Some(probe), Some(watch)) => {
                    // The new interval may be much shorter than the one that was waited for.
                    let latest = now + interval(probe);
                    if watch.outstanding.is_none() && watch.at > latest {
                        self.prober.put(*address, watch, latest);
                    }
                }
                (Some(probe), None) => {
                    let within = interval(probe) / FIRST_WITHIN;
                    let at = now + within.mul_f64(chance(setup, *address, now));
                    self.prober.schedule.insert((at, *address));
                    state.watch = Some(Watch { at, sent: now, outstanding: None, failures: 0, successes: 0 });
                }
            }
        }
        let states = &self.states;
        self.prober.outstanding.retain(|_, address| states.contains_key(address));
        self.prober.schedule.retain(|(_, address)| states.contains_key(address));
    }

    /// A destination has shown that something may be wrong with it: its probe does not wait for its turn.
    pub(super) fn probe_at_once(&mut self, now: Time, address: Address) {
        let watch = self.states.get_mut(&address).and_then(|state| state.watch.as_mut());
        if let Some(watch) = watch
            && watch.outstanding.is_none()
            && now.since(watch.sent) >= SHORTEST_PAUSE
        {
            self.prober.put(address, watch, now);
        }
    }

    /// The next destination whose time has come, and the transaction of its probe if that has not been answered.
    fn next_due(&self, now: Time) -> Option<(Address, Option<Key>)> {
        let (_, address) = *self.prober.schedule.first().filter(|(at, _)| *at <= now)?;
        let watch = self.states.get(&address).and_then(|state| state.watch.as_ref());
        Some((address, watch.and_then(|watch| watch.outstanding)))
    }

    /// Takes note of a probe that is being sent; `false`: it is not to be sent.
    fn probe_sent(&mut self, now: Time, address: Address, key: Key, setup: &Setup) -> bool {
        let state = self.states.get_mut(&address);
        let found = state.and_then(|state| Some((probe_of(setup, state.probed_by?.0)?, state.watch.as_mut()?)));
        let Some((probe, watch)) = found else {
            self.prober.schedule.retain(|(_, other)| *other != address);
            return false;
        };
        watch.sent = now;
        watch.outstanding = Some(key);
        self.prober.put(address, watch, now + Duration::from_millis(probe.timeout_ms.into()));
        self.prober.outstanding.insert(key, address);
        true
    }

    /// Takes note of what a probe has come to. Whether it failed; `None`: nobody waits for it any more.
    fn judge(
        &mut self,
        now: Time,
        setup: &Setup,
        key: Key,
        answer: Option<u16>,
        outbox: &mut Outbox,
    ) -> Option<(Address, bool)> {
        let address = self.prober.outstanding.remove(&key)?;
        let state = self.states.get_mut(&address)?;
        let probe = probe_of(setup, state.probed_by?.0)?;
        let verdict = match answer {
            None => Verdict::Unanswered,
            Some(code) if is_success(probe, code) => Verdict::Answered,
            Some(code) => Verdict::Refused(code),
        };
        let reason = state.take_verdict(verdict, probe);
        if let Some(reason) = reason {
            state.change(now, reason);
            state.announce(address, Some(reason), outbox);
        }
        if let Some(watch) = &mut state.watch {
            watch.outstanding = None;
            let jitter = f64::from(probe.jitter_percent) / 100.0 * (2.0 * chance(setup, address, now) - 1.0);
            let next = watch.sent + interval(probe).mul_f64((1.0 + jitter).max(0.0));
            self.prober.put(address, watch, next.max(now));
        }
        if reason.is_some() {
            self.recount();
        }
        Some((address, verdict != Verdict::Answered))
    }
}

impl State {
    /// Whether it is up or down from now on, and why.
    fn take_verdict(&mut self, verdict: Verdict, probe: &Probe) -> Option<Reason> {
        let watch = self.watch.as_mut()?;
        if verdict == Verdict::Answered {
            watch.failures = 0;
            watch.successes = watch.successes.saturating_add(1);
            let is_back = self.is_down && watch.successes >= probe.up_after;
            return is_back.then(|| {
                self.is_down = false;
                self.avoided = None;
                self.silences = 0;
                Reason::ProbesAnswered(watch.successes)
            });
        }
        watch.successes = 0;
        watch.failures = watch.failures.saturating_add(1);
        let is_lost = !self.is_down && watch.failures >= probe.down_after;
        is_lost.then(|| {
            self.is_down = true;
            self.avoided = None;
            match verdict {
                Verdict::Refused(code) => Reason::ProbesRefused(watch.failures, code),
                Verdict::Unanswered | Verdict::Answered => Reason::ProbesUnanswered(watch.failures),
            }
        })
    }
}

impl Engine {
    /// Sends the probes that are due, and gives up those that have not been answered in time.
    pub(in crate::engine) fn poll_destinations(&mut self, now: Time) {
        self.destinations.expire(now);
        while let Some((address, outstanding)) = self.destinations.next_due(now) {
            match outstanding {
                Some(key) => self.probe_timed_out(now, key),
                None => self.send_probe(now, address),
            }
        }
    }

    /// A response has come to a probe. Its transaction takes it like any other.
    pub(in crate::engine) fn probe_answered(&mut self, now: Time, key: Key, code: u16, retry_after: Option<u32>) {
        if code < 200 {
            return;
        }
        let setup = self.setup.clone();
        let judged = self.destinations.judge(now, &setup, key, Some(code), &mut self.outbox);
        let Some((address, has_failed)) = judged else { return };
        self.counters.probes_failed += u64::from(has_failed);
        if let (503, Some(seconds)) = (code, retry_after) {
            self.destinations.heed(now, address, seconds, &mut self.outbox);
        }
    }

    /// A probe was not answered in time, or could not be delivered.
    pub(in crate::engine) fn probe_timed_out(&mut self, now: Time, key: Key) {
        let setup = self.setup.clone();
        if self.destinations.judge(now, &setup, key, None, &mut self.outbox).is_some() {
            self.counters.probes_failed += 1;
        }
        if let Some(client) = self.transactions.client(key) {
            self.transactions.remove(client);
        }
    }

    /// Sends OPTIONS to a destination (RFC 3261 §11.1), in a transaction of its own.
    fn send_probe(&mut self, now: Time, address: Address) {
        let setup = self.setup.clone();
        let (transport, to) = address;
        let time = now.as_micros().to_be_bytes();
        let place = format!("{transport}:{to}");
        let branch = setup.branch_key.hash([b"probe".as_slice(), place.as_bytes(), &time, setup.advertised.as_bytes()]);
        let key = Key::new(branch, Method::Options);
        let target = self.destinations.states.get(&address).and_then(|state| target_of(&setup, state));
        if !self.destinations.probe_sent(now, address, key, &setup) {
            return;
        }
        let Some(target) = target else { return };
        let peer: Option<Arc<TlsPeer>> = Some(target.peer.clone());
        let hop = Hop { transport, port: self.egress(), to, connection: None, peer, to_stranger: false };
        let shard = self.destinations.prober.shard.unwrap_or((0, 1));
        self.counters.probes_sent += 1;
        // Without room for a transaction it is sent once.
        let has_room = (self.transactions.len() as u64) < with_reserve(setup.transactions as u64);
        let client = has_room.then(|| {
            let machine = NonInviteClient::new(now, &setup.timers, transport.delivery());
            self.transactions.insert_client(key, Machine::NonInviteClient(machine), hop.clone(), None)
        });
        let receipt = client.and_then(|client| self.transactions.get(client)?.receipt());
        self.outbox.transmit(&hop, receipt, |out| write_options(&setup, target, &hop, branch, shard, out));
        if let Some(client) = client {
            self.keep_last_transmit(client);
        }
    }
}

fn write_options(setup: &Setup, target: &Target, hop: &Hop, branch: u128, shard: (usize, usize), out: &mut Vec<u8>) {
    let text = |out: &mut Vec<u8>, text: &str| out.extend_from_slice(text.as_bytes());
    let sent_by = setup.sent_by(hop.transport);
    text(out, "OPTIONS sip:");
    text(out, &target.host_port);
    text(out, " SIP/2.0\r\nVia: SIP/2.0/");
    text(out, hop.transport.via());
    text(out, " ");
    text(out, sent_by);
    text(out, ";rport;branch=");
    // It has not been routed: there is nothing that a loop could be told by.
    branch::write(branch, 0, out);
    text(out, "\r\nMax-Forwards: 70\r\nFrom: <sip:probe@");
    text(out, sent_by);
    text(out, ">;tag=");
    branch::write_hex(&(branch as u64).to_be_bytes(), out);
    text(out, "\r\nTo: <sip:");
    text(out, &target.host_port);
    text(out, ">\r\nCall-ID: ");
    text(out, &call_id(setup, branch, shard));
    text(out, "\r\nCSeq: 1 OPTIONS\r\nAccept: application/sdp\r\nUser-Agent: sipedge\r\nContent-Length: 0\r\n\r\n");
}

/// A Call-ID whose messages belong to this shard: the answer comes to where it is waited for.
fn call_id(setup: &Setup, branch: u128, (shard, shards): (usize, usize)) -> String {
    let shards = shards.max(1) as u64;
    let id = |number: u32| format!("{branch:032x}-{number}@{}", setup.advertised);
    let belongs = |id: &String| call_hash(id.as_bytes()) % shards == shard as u64;
    (0..MOST_NUMBERS).map(id).find(belongs).unwrap_or_else(|| id(MOST_NUMBERS))
}

fn probe_of(setup: &Setup, trunk: usize) -> Option<&Probe> {
    setup.trunks.get(trunk).and_then(|trunk: &Trunk| trunk.probe.as_ref())
}

fn target_of<'a>(setup: &'a Setup, state: &State) -> Option<&'a Target> {
    let (trunk, target) = state.probed_by?;
    setup.trunks.get(trunk)?.targets.get(target)
}

fn is_success(probe: &Probe, code: u16) -> bool {
    // 408 and 5xx come from what stands before the destination; any other says that somebody is there who reads.
    if probe.codes.is_empty() { code != 408 && !(500..600).contains(&code) } else { probe.codes.contains(&code) }
}

fn interval(probe: &Probe) -> Duration {
    Duration::from_millis(probe.interval_ms.into())
}

/// A number from 0 to 1 that differs with destination, moment and instance: the engine has no other randomness.
fn chance(setup: &Setup, (transport, address): Address, now: Time) -> f64 {
    let place = format!("{transport}:{address} {}", setup.ingress);
    let hash = setup.branch_key.hash([b"jitter".as_slice(), place.as_bytes(), &now.as_micros().to_be_bytes()]);
    (hash >> 96) as f64 / f64::from(u32::MAX)
}

/// The first probe goes out within this part of the interval: a start must not send all of them at once, nor know nothing for long.
const FIRST_WITHIN: u32 = 10;
/// Between two probes of one destination, whatever happens.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// Call-IDs that are tried for one of this shard: of 128 shards, one in 10^13 searches finds none, and then one probe goes unanswered.
const MOST_NUMBERS: u32 = 4_096;
