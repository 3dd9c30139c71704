//! OPTIONS to destinations: when, what, and what the answers mean.

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::engine::{Arrival, Control, Engine, Port, Shared, shard_of};

/// An engine that probes, and destinations that answer as they are told.
struct Line {
    engine: Engine,
    now: Time,
    /// What a destination answers, by the last number of its address; the others are silent.
    answers: HashMap<u8, &'static str>,
    probes: Vec<Sent>,
    events: Vec<(u8, Health, String)>,
}

#[derive(Debug, Clone)]
struct Sent {
    at: Time,
    last: u8,
    text: String,
}

fn probe() -> Probe {
    Probe { interval_ms: 30_000, jitter_percent: 0, timeout_ms: 4_000, down_after: 2, up_after: 2, codes: vec![] }
}

fn probed(probe: Probe, targets: &[(&str, u16, u16)]) -> config::Trunk {
    config::Trunk { probe: Some(probe), ..trunk(Select::Weight, targets) }
}

const TWO: [(&str, u16, u16); 2] = [("sip:198.51.100.1", 1, 1), ("sip:198.51.100.2:5060;transport=udp", 1, 1)];

impl Line {
    fn new(trunk: config::Trunk) -> Self {
        Self::of_shards(trunk, 0, 1)
    }

    fn of_shards(trunk: config::Trunk, shard: usize, shards: usize) -> Self {
        let setup = Arc::new(setup(trunk));
        let shared = Arc::new(Shared::new(&setup));
        let mut engine = Engine::new(setup, shared, NOW);
        engine.probe_from(shard, shards);
        let (answers, probes, events) = (HashMap::new(), Vec::new(), Vec::new());
        let mut line = Self { engine, now: NOW, answers, probes, events };
        line.engine.handle_control(NOW, Control::Open);
        line
    }

    fn reload(&mut self, trunk: config::Trunk) {
        let setup = Arc::new(setup(trunk));
        let shared = Arc::new(Shared::new(&setup));
        self.engine.handle_setup(self.now, setup, shared);
        self.take();
    }

    /// Time passes, and destinations answer at once.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= until) {
            self.now = at;
            self.engine.handle_timeout(at);
            assert!(self.engine.poll_timeout().is_none_or(|next| next > at), "what was due is left");
            self.take();
        }
        self.now = until;
    }

    fn take(&mut self) {
        let mut responses = Vec::new();
        for transmit in self.engine.outbox().transmits() {
            let text = String::from_utf8(transmit.bytes.to_vec()).unwrap();
            assert!(text.starts_with("OPTIONS "), "{text}");
            let last = last_of(&Candidate { target: 0, server: bench::server(&transmit.hop.to.to_string()) });
            if let Some(status) = self.answers.get(&last) {
                responses.push((transmit.hop.to, response(&text, status)));
            }
            // The transaction sends it again while nothing comes back.
            if !self.probes.iter().any(|sent| sent.text == text) {
                self.probes.push(Sent { at: self.now, last, text });
            }
        }
        for event in self.engine.outbox().events() {
            if let Event::Destination { address, health, reason, .. } = event {
                let candidate = Candidate { target: 0, server: bench::server(&address.to_string()) };
                self.events.push((last_of(&candidate), *health, reason.clone()));
            }
        }
        self.engine.clear_outbox();
        for (from, response) in responses {
            self.engine.handle_message(self.now, &Arrival::datagram(Port::Egress, from), response.as_bytes());
            self.take();
        }
    }

    fn health(&self, last: u8) -> Health {
        let list = self.engine.destinations();
        list.iter().find(|one| one.address == server(last).address).unwrap().health
    }

    fn times(&self, last: u8) -> Vec<Time> {
        self.probes.iter().filter(|sent| sent.last == last).map(|sent| sent.at).collect()
    }
}

pub(super) fn response(request: &str, status: &str) -> String {
    let kept = request
        .lines()
        .filter(|line| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name)));
    let lines: String = kept.map(|line| format!("{line}\r\n")).collect();
    format!("SIP/2.0 {status}\r\n{lines}Content-Length: 0\r\n\r\n")
}

#[test]
fn a_probe_is_a_whole_request_to_the_target_by_its_name() {
    let mut line = Line::new(probed(probe(), &TWO));
    line.pass(secs(3));
    let mut probes = line.probes.clone();
    probes.sort_by_key(|sent| sent.last);
    assert_eq!(probes.len(), 2, "{probes:#?}");
    let lines: Vec<&str> = probes[1].text.split("\r\n").collect();
    assert_eq!(lines[0], "OPTIONS sip:198.51.100.2:5060;transport=udp SIP/2.0");
    assert!(lines[1].starts_with("Via: SIP/2.0/UDP 203.0.113.10:5060;rport;branch=z9hG4bK"), "{lines:#?}");
    assert_eq!(lines[2], "Max-Forwards: 70");
    assert!(lines[3].starts_with("From: <sip:probe@203.0.113.10:5060>;tag="), "{lines:#?}");
    assert_eq!(lines[4], "To: <sip:198.51.100.2:5060;transport=udp>");
    assert!(lines[5].starts_with("Call-ID: ") && lines[5].ends_with("@203.0.113.10"), "{lines:#?}");
    let rest = ["CSeq: 1 OPTIONS", "Accept: application/sdp", "User-Agent: sipedge", "Content-Length: 0", "", ""];
    assert_eq!(lines[6..], rest);
    assert_ne!(probes[0].text.lines().nth(1), probes[1].text.lines().nth(1), "each has a branch of its own");
}

#[test]
fn answers_come_back_to_the_shard_that_probes() {
    for (shard, shards) in [(0, 1), (0, 2), (1, 2), (6, 7), (63, 64)] {
        let mut line = Line::of_shards(probed(probe(), &TWO), shard, shards);
        line.pass(secs(600));
        assert!(line.probes.len() >= 38, "{}", line.probes.len());
        for sent in &line.probes {
            assert_eq!(shard_of(sent.text.as_bytes(), shards), Some(shard), "{}", sent.text);
        }
    }
}

#[test]
fn two_failures_in_a_row_are_down_and_two_answers_in_a_row_are_up() {
    let mut line = Line::new(probed(probe(), &TWO[..1]));
    line.pass(secs(3));
    let first = line.times(1)[0];
    line.pass(first.since(NOW) + secs(30) + Duration::from_millis(3_999) - secs(3));
    assert_eq!((line.times(1).len(), line.health(1), line.events.len()), (2, Health::Up, 0));
    line.pass(Duration::from_millis(1));
    assert_eq!(line.health(1), Health::Down);
    assert_eq!(line.events, [(1, Health::Down, "2 probes in a row without an answer".into())]);
    assert_eq!(line.engine.gauges().destinations_down, 1);
    line.answers.insert(1, "200 OK");
    line.pass(secs(30));
    assert_eq!((line.times(1).len(), line.health(1)), (3, Health::Down));
    line.answers.remove(&1);
    line.pass(secs(30));
    line.answers.insert(1, "200 OK");
    line.pass(secs(30));
    assert_eq!((line.times(1).len(), line.health(1)), (5, Health::Down), "a failure in between starts anew");
    line.pass(secs(30));
    assert_eq!(line.health(1), Health::Up);
    assert_eq!(line.events[1..], [(1, Health::Up, "2 probes in a row answered".into())]);
    let counters = line.engine.counters();
    assert_eq!((counters.probes_sent, counters.probes_failed), (6, 3));
    assert_eq!((line.engine.gauges().destinations_up, line.engine.gauges().destinations_down), (1, 0));
}

#[test]
fn codes_that_count_as_success() {
    let cases: [(&[u16], &'static str, bool); 12] = [
        (&[], "200 OK", true),
        (&[], "404 Not Found", true),
        (&[], "405 Method Not Allowed", true),
        (&[], "603 Decline", true),
        (&[], "408 Request Timeout", false),
        (&[], "500 Server Internal Error", false),
        (&[], "503 Service Unavailable", false),
        (&[], "100 Trying", false),
        (&[200, 503], "503 Service Unavailable", true),
        (&[200, 503], "200 OK", true),
        (&[200], "404 Not Found", false),
        (&[200], "180 Ringing", false),
    ];
    for (codes, status, is_success) in cases {
        let mut line = Line::new(probed(Probe { codes: codes.to_vec(), ..probe() }, &TWO[..1]));
        line.answers.insert(1, status);
        line.pass(secs(120));
        let health = if is_success { Health::Up } else { Health::Down };
        assert_eq!(line.health(1), health, "{codes:?} {status}");
        if !is_success && !status.starts_with('1') {
            let code = status.split(' ').next().unwrap();
            let reason = format!("2 probes in a row failed, the last with {code}");
            assert_eq!(line.events[0], (1, Health::Down, reason));
        }
    }
}

#[test]
fn intervals_vary_within_the_jitter_and_not_in_step() {
    let mut line = Line::new(probed(Probe { jitter_percent: 20, ..probe() }, &TWO));
    line.answers.insert(1, "200 OK");
    line.pass(secs(30_000));
    let gaps =
        |last| -> Vec<u128> { line.times(last).windows(2).map(|pair| pair[1].since(pair[0]).as_millis()).collect() };
    for last in [1, 2] {
        let gaps = gaps(last);
        assert!(gaps.iter().all(|gap| (24_000..=36_000).contains(gap)), "{gaps:?}");
        let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*least < 25_000 && *most > 35_000, "{least} to {most} of {} gaps", gaps.len());
        let mean = gaps.iter().sum::<u128>() / gaps.len() as u128;
        assert!((29_500..=30_500).contains(&mean), "{mean}");
    }
    assert_ne!(gaps(1)[..10], gaps(2)[..10]);
}

#[test]
fn the_first_probes_are_spread_over_a_tenth_of_the_interval() {
    let targets: Vec<String> = (1..=100).map(|last| format!("sip:198.51.100.{last}")).collect();
    let targets: Vec<(&str, u16, u16)> = targets.iter().map(|uri| (uri.as_str(), 1, 1)).collect();
    let mut line = Line::new(probed(probe(), &targets));
    line.pass(secs(1));
    assert!((10..=60).contains(&line.probes.len()), "{} of 100 in the first of 3 s", line.probes.len());
    line.pass(secs(2));
    assert_eq!(line.probes.len(), 100);
}

#[test]
fn only_the_engine_that_was_told_to_probes_and_only_while_it_is_open() {
    let setup = Arc::new(setup(probed(probe(), &TWO)));
    let shared = Arc::new(Shared::new(&setup));
    let mut idle = Engine::new(setup.clone(), shared.clone(), NOW);
    idle.handle_control(NOW, Control::Open);
    assert_eq!((idle.poll_timeout(), idle.gauges().destinations_up), (None, 0));
    let mut closed = Engine::new(setup, shared, NOW);
    closed.probe_from(0, 1);
    assert_eq!((closed.poll_timeout(), closed.gauges().destinations_up), (None, 2));

    let mut line = Line::new(probed(probe(), &TWO));
    line.pass(secs(3));
    assert!(line.engine.gauges().pending_transactions > 0);
    line.engine.handle_control(line.now, Control::Drain);
    assert_eq!(line.engine.gauges().pending_transactions, 0, "what waits for probes would delay the end");
    let sent = line.probes.len();
    line.pass(secs(600));
    assert_eq!(line.probes.len(), sent);
}

#[test]
fn a_destination_that_calls_find_silent_is_probed_at_once() {
    let mut line = Line::new(probed(Probe { down_after: 1, ..probe() }, &TWO[..1]));
    line.answers.insert(1, "200 OK");
    line.pass(secs(10));
    line.answers.clear();
    let (before, address) = (line.times(1).len(), server(1).address);
    let health = Health::AvoidUntil(line.now + secs(30));
    line.engine.handle_bulletin(line.now, &Bulletin { transport: Transport::Udp, address, health });
    line.pass(Duration::ZERO);
    assert_eq!(line.times(1).len(), before + 1);
    line.pass(secs(4));
    assert_eq!(line.health(1), Health::Down);
}

#[test]
fn a_probe_s_503_with_retry_after_is_heeded() {
    let mut line = Line::new(probed(probe(), &TWO[..1]));
    line.answers.insert(1, "503 Service Unavailable\r\nRetry-After: 20");
    line.pass(secs(3));
    let until = line.times(1)[0] + secs(20);
    assert_eq!(line.health(1), Health::AvoidUntil(until));
}

#[test]
fn transactions_of_probes_do_not_pile_up() {
    let mut line = Line::new(probed(Probe { interval_ms: 1_000, timeout_ms: 1_000, ..probe() }, &TWO));
    for _ in 0..600 {
        line.pass(secs(1));
        assert!(line.engine.gauges().transactions <= 2, "{}", line.engine.gauges().transactions);
    }
    assert!(line.engine.counters().probes_sent >= 1_190, "{}", line.engine.counters().probes_sent);
}

#[test]
fn a_stream_that_cannot_be_opened_is_a_failed_probe() {
    let mut line = Line::new(probed(Probe { down_after: 1, ..probe() }, &[("sip:198.51.100.1;transport=tcp", 1, 1)]));
    let at = line.engine.poll_timeout().unwrap();
    line.engine.handle_timeout(at);
    let receipt = line.engine.outbox().transmits().next().unwrap().receipt.unwrap();
    line.engine.clear_outbox();
    line.engine.handle_failure(at, receipt);
    assert_eq!(line.engine.destinations()[0].health, Health::Down);
    assert_eq!(line.engine.gauges().transactions, 0);
}

#[test]
fn a_new_configuration_changes_probes_and_keeps_what_they_have_found() {
    let mut line = Line::new(probed(probe(), &TWO));
    line.answers.insert(2, "200 OK");
    line.pass(secs(40));
    assert_eq!((line.health(1), line.health(2)), (Health::Down, Health::Up));
    line.reload(probed(Probe { interval_ms: 2_000, timeout_ms: 1_000, ..probe() }, &TWO));
    assert_eq!(line.health(1), Health::Down);
    let before = line.times(2).len();
    line.pass(secs(20));
    assert!((9..=11).contains(&(line.times(2).len() - before)), "the new interval holds at once");
    line.reload(trunk(Select::Weight, &TWO));
    assert_eq!(line.health(1), Health::Up, "nobody would find out that it is back");
    let before = line.probes.len();
    line.pass(secs(60));
    assert_eq!((line.probes.len(), line.engine.gauges().transactions), (before, 0));
    line.reload(probed(probe(), &TWO[..1]));
    line.pass(secs(60));
    assert!(line.probes[before..].iter().all(|sent| sent.last == 1) && line.probes.len() > before);
}

#[test]
fn a_thousand_reloads_do_not_disturb_the_timetable() {
    let mut line = Line::new(probed(probe(), &TWO));
    line.answers.extend([(1, "200 OK"), (2, "200 OK")]);
    for _ in 0..1_000 {
        line.reload(probed(probe(), &TWO));
        line.pass(Duration::from_millis(300));
    }
    for last in [1, 2] {
        let times = line.times(last);
        assert_eq!(times.len(), 10, "one each 30 s in 300 s");
        assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) == secs(30)), "{times:?}");
    }
}

#[test]
fn what_is_down_is_down_and_not_avoided_as_well() {
    let mut line = Line::new(probed(probe(), &TWO[..1]));
    line.pass(secs(40));
    line.events.clear();
    assert_eq!(line.health(1), Health::Down);
    let (transport, address) = (Transport::Udp, server(1).address);
    line.engine
        .handle_bulletin(line.now, &Bulletin { transport, address, health: Health::AvoidUntil(line.now + secs(9)) });
    let Engine { destinations, outbox, .. } = &mut line.engine;
    destinations.note_failure(line.now, transport, address, outbox);
    destinations.note_answer(line.now, transport, address, 200, None, outbox);
    line.take();
    assert_eq!((line.health(1), line.events.len()), (Health::Down, 0));
}
