//! The virtual world: two carriers, two instances behind a load balancer and a NAT gateway, faults, and one clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use sipedge_proxy::engine::{Control, Engine, Health, Port};
use sipedge_sip::Time;

use crate::agent::{Agent, Context, Datagram};
use crate::audit::{Audit, Cause, Seen, Sent, Step, is_stranger};
use crate::edge::Version;
use crate::instance::{Input, Instance, Wanted};
use crate::names::{NameEvent, Names};
use crate::network::StreamEvent;
use crate::plan::{MOST_BACKWARD, MOST_BACKWARD_CLEAN, MS, Plan, Record, SECOND};
use crate::profile::{Profile, edge};
use crate::rng::Rng;
use crate::schedule::KEYS;
use crate::stranger;
use crate::streams::{Peer, Streams};
use crate::wire::Msg;
use sipedge_proxy::engine::Transport;

pub struct World {
    pub profile: Profile,
    pub rng: Rng,
    pub now: u64,
    serial: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub agents: Vec<Agent>,
    pub modes: Vec<Mode>,
    /// Since when each agent is as it is.
    pub since: Vec<u64>,
    pub instances: Vec<Instance>,
    pub streams: Streams,
    pub ports: u16,
    names: Names,
    /// Flows of the load balancer: its key of the source, the instance, when it was used last.
    pub flows: BTreeMap<SocketAddr, (usize, u64)>,
    pub nat: BTreeMap<u16, (usize, Port, SocketAddr)>,
    pub plans: Vec<Plan>,
    pub records: Vec<Record>,
    pub audit: Audit,
    is_ending: bool,
    /// The call whose messages a failure shows, when not all.
    pub shown: Option<usize>,
    trace: VecDeque<Line>,
    /// Of everything that was sent: equal for equal runs.
    pub digest: u64,
    pub datagrams: u64,
    pub timeouts: u64,
    /// Datagrams that carriers sent, for strangers to forge.
    seen: Vec<Vec<u8>>,
}

/// How an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// Its host says that nobody is there.
    Dead,
    /// Nothing comes from there.
    Silent,
}

pub enum Event {
    Arrive(Datagram),
    /// For a shard of this life of an instance.
    Input(usize, u32, usize, Box<Input>),
    Stream(StreamEvent),
    Crash(usize),
    Start(usize),
    TakeOut(usize),
    PutBack(usize),
    Stall(usize, u64),
    Reload(usize, Version),
    Become(usize, Mode),
    Spoil(usize, bool),
    Name(NameEvent),
    Stranger,
    Look,
    Finish,
}

struct Line {
    at: u64,
    from: String,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let profile = Profile::random(seed, &mut rng);
        let callers = profile.callers.iter().map(|address| Agent::new(*address, None));
        let callees = profile.callees.iter().enumerate().map(|(place, it)| Agent::new(it.address, Some(place)));
        let agents: Vec<Agent> = callers.chain(callees).collect();
        let mut plans: Vec<Plan> = (0..profile.calls).map(|_| Plan::random(&mut rng, &profile)).collect();
        if profile.rotates {
            // One call when only the new key is left.
            plans[0].start = KEYS[2] + 5 * SECOND;
        }
        let mut world = Self {
            audit: Audit::new(&profile),
            modes: vec![Mode::Up; agents.len()],
            since: vec![0; agents.len()],
            agents,
            instances: (0..2).map(|index| Instance::new(&profile, index)).collect(),
            streams: Streams::default(),
            ports: 0,
            names: Names::new(&profile),
            records: vec![Record::default(); plans.len()],
            plans,
            now: 0,
            serial: 0,
            queue: BTreeMap::new(),
            flows: BTreeMap::new(),
            nat: BTreeMap::new(),
            is_ending: false,
            shown: None,
            trace: VecDeque::new(),
            digest: 0xcbf2_9ce4_8422_2325,
            datagrams: 0,
            timeouts: 0,
            seen: Vec::new(),
            profile,
            rng,
        };
        world.schedule();
        world
    }

    /// Runs until nothing is left to happen.
    pub fn run(&mut self) -> Result<(), String> {
        for index in 0..self.instances.len() {
            self.start(index)?;
        }
        loop {
            let queue = self.queue.keys().next().map(|(at, _)| *at);
            let engines =
                (0..self.instances.len()).filter_map(|index| Some((self.engine_timeout(index)?, index))).min();
            let agents =
                (0..self.agents.len()).filter_map(|index| Some((self.agents[index].poll_timeout()?, index))).min();
            let has_work = queue.is_some() || agents.is_some() || self.instances.iter().any(Instance::has_work);
            if !has_work {
                return self.end();
            }
            let next = [queue, engines.map(|(at, _)| at), agents.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next else { return Err("tables are not empty, and nothing will empty them".to_owned()) };
            self.now = self.now.max(next);
            if self.now > LONGEST {
                return Err(format!("no end: {:?}", self.instances.iter().map(Instance::gauges).collect::<Vec<_>>()));
            }
            if queue == Some(next) {
                let event = self.queue.pop_first().map(|(_, event)| event);
                event.map_or(Ok(()), |event| self.happen(event))?;
            } else if let Some((_, index)) = engines.filter(|(at, _)| *at == next) {
                self.engine_wakes(index)?;
            } else if let Some((_, index)) = agents {
                self.with_agent(index, |agent, context| {
                    agent.handle_timeout(context);
                    Ok(())
                })?;
            }
        }
    }

    /// The last steps, for whoever has to find out what happened.
    pub fn trace(&self) -> String {
        let line = |line: &Line| {
            let text = String::from_utf8_lossy(&line.bytes);
            let first = text.lines().next().unwrap_or_default().to_owned();
            let find = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            let (at, from, to) = (line.at as f64 / 1e3, &line.from, line.to);
            let call = Msg::parse(&line.bytes).ok().and_then(|msg| msg.call());
            let call = call.map_or("-".to_owned(), |call| call.to_string());
            format!("{at:>11.3} ms  {call}  {from} → {to}  {first} | {} | {}\n", find("CSeq"), find("Via"))
        };
        self.trace.iter().map(line).collect()
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Arrive(datagram) => return self.arrive(datagram),
            Event::Input(index, life, shard, input) => {
                if self.instances[index].life == life && self.instances[index].is_up() {
                    return self.input(index, shard, *input);
                }
            }
            Event::Stream(event) => return self.on_stream(event),
            Event::Crash(index) => {
                let life = self.instances[index].life;
                self.instances[index].shards.clear();
                for id in self.streams.of(Peer::Instance(index, life)) {
                    // The load balancer resets what belonged to it when it sees that it is gone.
                    self.spoil(id, self.profile.breaks > 0 && self.serial.is_multiple_of(2));
                }
            }
            Event::Start(index) if !self.instances[index].is_up() => self.start(index)?,
            Event::Start(_) => {}
            Event::TakeOut(index) => {
                // Never the last one.
                if self.instances[1 - index].in_service {
                    self.instances[index].in_service = false;
                    self.flows.retain(|_, (instance, _)| *instance != index);
                    if self.rng.chance(50) {
                        self.order(index, Control::Drain)?;
                    }
                }
            }
            Event::PutBack(index) => {
                self.instances[index].in_service = true;
                self.order(index, Control::Open)?;
            }
            // Two that overlap are a longer one: what waits for the end of the first must not come in after what came later.
            Event::Stall(index, length) => {
                let stalled = &mut self.instances[index].stalled;
                *stalled = (*stalled).max(self.now + length);
            }
            Event::Reload(index, version) => self.reload(index, &version),
            Event::Become(agent, mode) => self.become_(agent, mode),
            Event::Spoil(agent, is_silent) => {
                for id in self.streams.of(Peer::Agent(agent)) {
                    self.spoil(id, is_silent);
                }
            }
            Event::Name(event) => self.names.happen(&self.profile, &event),
            Event::Stranger => {
                if let Some(datagram) = stranger::datagram(&mut self.rng, &self.seen) {
                    self.transmit("stranger", datagram);
                }
            }
            Event::Look if self.is_ending => {}
            Event::Look => {
                self.look()?;
                self.at(self.now + 5 * SECOND, Event::Look);
            }
            Event::Finish => {
                let is_idle = self.agents.iter().all(|agent| agent.poll_timeout().is_none());
                if !is_idle {
                    self.at(self.now + 10 * SECOND, Event::Finish);
                    return Ok(());
                }
                self.is_ending = true;
                for index in 0..self.instances.len() {
                    self.order(index, Control::Drain)?;
                }
            }
        }
        Ok(())
    }

    fn become_(&mut self, agent: usize, mode: Mode) {
        if self.modes[agent] == mode {
            return;
        }
        // A process that comes back knows nothing of what was before it died.
        if mode == Mode::Up && self.modes[agent] == Mode::Dead {
            self.agents[agent].forget();
        }
        self.modes[agent] = mode;
        self.since[agent] = self.now;
        for id in self.streams.of(Peer::Agent(agent)) {
            self.spoil(id, mode == Mode::Silent);
        }
    }

    fn reload(&mut self, index: usize, version: &Version) {
        let setup = crate::edge::setup(&self.profile, version, index);
        let instance = &mut self.instances[index];
        let shared = Arc::new(instance.shared.renewed(&instance.setup, &setup));
        instance.version = version.clone();
        instance.setup = setup.clone();
        instance.shared = shared.clone();
        let (life, shards) = (instance.life, instance.shards.len());
        for shard in 0..shards {
            let at = self.now + self.rng.range(0, 20) * MS;
            let input = Input::Setup(setup.clone(), shared.clone(), version.clone());
            self.at(at, Event::Input(index, life, shard, Box::new(input)));
        }
    }

    fn start(&mut self, index: usize) -> Result<(), String> {
        let (now, shards) = (self.time(), self.profile.shards);
        self.instances[index].start(shards, now);
        for shard in 0..shards {
            self.learn_servers(index, shard, None);
            self.act(index, shard, Cause::Other, |engine, now| engine.handle_control(now, Control::Open))?;
            if self.now == 0 {
                // The edge is ready when its names are resolved.
                let asked = self.queue.iter().filter_map(|(key, event)| match event {
                    Event::Input(of, _, to, input) if (*of, *to) == (index, shard) => match &**input {
                        Input::Resolved(query) => Some((*key, query.clone())),
                        _ => None,
                    },
                    _ => None,
                });
                for (key, query) in asked.collect::<Vec<_>>() {
                    self.queue.remove(&key);
                    self.input(index, shard, Input::Resolved(query))?;
                }
            }
        }
        Ok(())
    }

    fn order(&mut self, index: usize, control: Control) -> Result<(), String> {
        for shard in 0..self.instances[index].shards.len() {
            self.act(index, shard, Cause::Other, |engine, now| engine.handle_control(now, control))?;
        }
        Ok(())
    }

    fn engine_timeout(&self, index: usize) -> Option<u64> {
        let (at, _) = self.instances[index].poll_timeout()?;
        Some(at.as_micros().saturating_sub(EPOCH).max(self.instances[index].stalled))
    }

    fn engine_wakes(&mut self, index: usize) -> Result<(), String> {
        let Some((_, shard)) = self.instances[index].poll_timeout() else { return Ok(()) };
        self.timeouts += 1;
        let now = self.time();
        // What is due with the first step may make something else due at once, but not for ever.
        for _ in 0..TURNS {
            self.act(index, shard, Cause::Other, |engine, _| engine.handle_timeout(now))?;
            if self.instances[index].shards[shard].poll_timeout().is_none_or(|next| next > now) {
                return Ok(());
            }
        }
        Err("poll_timeout asks for a moment that has been dealt with: the driver would spin".to_owned())
    }

    /// Something reaches a shard, at once or when its instance goes on.
    pub fn input(&mut self, index: usize, shard: usize, input: Input) -> Result<(), String> {
        let (life, stalled) = (self.instances[index].life, self.instances[index].stalled);
        if !self.instances[index].is_up() {
            return Ok(());
        }
        if self.now < stalled {
            self.at(stalled, Event::Input(index, life, shard, Box::new(input)));
            return Ok(());
        }
        let now = self.time();
        let was_late = stalled > 0 && self.now < stalled + SECOND;
        let is_late = |engine: &Engine| engine.poll_timeout().is_some_and(|next| next < now);
        if !was_late && is_late(&self.instances[index].shards[shard]) {
            return Err("poll_timeout went back".to_owned());
        }
        match input {
            Input::Message(arrival, bytes) => {
                let cause = Cause::Message(&arrival, &bytes);
                self.act(index, shard, cause, |engine, now| engine.handle_message(now, &arrival, &bytes))
            }
            Input::Bulletin(bulletin) => {
                let seen = self.audit.choice.seen((index, life), shard);
                // Who probes knows best who is down: another shard's word, that it was heard again, may have crossed the verdict.
                if shard == PROBER && bulletin.health == Health::Up {
                    seen.is_heard(bulletin.transport, bulletin.address);
                } else {
                    seen.learn(bulletin.transport, bulletin.address, bulletin.health, EPOCH);
                }
                self.act(index, shard, Cause::Other, |engine, now| engine.handle_bulletin(now, &bulletin))
            }
            Input::Resolved(query) => {
                let (servers, ttl) = self.names.answer(&query, &mut self.rng);
                self.act_with(
                    index,
                    shard,
                    Cause::Other,
                    |world| {
                        if !servers.is_empty() {
                            world.learn_servers(index, shard, Some((&query.host, &servers)));
                        }
                    },
                    |engine, now| engine.handle_resolved(now, &query, &servers, ttl),
                )
            }
            Input::Failed(receipt) => {
                self.act(index, shard, Cause::Other, |engine, now| engine.handle_failure(now, receipt))
            }
            Input::Setup(setup, shared, version) => self.act_with(
                index,
                shard,
                Cause::Other,
                |world| world.learn_version(index, shard, &version),
                |engine, now| engine.handle_setup(now, setup, shared),
            ),
        }
    }

    fn act(
        &mut self,
        index: usize,
        shard: usize,
        cause: Cause<'_>,
        act: impl FnOnce(&mut Engine, Time),
    ) -> Result<(), String> {
        self.act_with(index, shard, cause, |_| {}, act)
    }

    /// Lets an engine act, does what it wants done, and judges it. `learn`: what the audit has to know of it.
    fn act_with(
        &mut self,
        index: usize,
        shard: usize,
        cause: Cause<'_>,
        learn: impl FnOnce(&mut Self),
        act: impl FnOnce(&mut Engine, Time),
    ) -> Result<(), String> {
        let mut now = self.time();
        if self.rng.chance(self.profile.backward) {
            let most = if self.profile.is_clean() || self.profile.only_crashes() {
                MOST_BACKWARD_CLEAN
            } else {
                MOST_BACKWARD
            };
            now = now - std::time::Duration::from_micros(self.rng.range(0, most));
        }
        let life = (index, self.instances[index].life);
        self.audit.choice.begin(life, shard);
        learn(self);
        let Some(engine) = self.instances[index].shards.get_mut(shard) else { return Ok(()) };
        act(engine, now);
        let outbox = engine.outbox();
        let queries = outbox.resolves().to_vec();
        let bulletins = outbox.bulletins().to_vec();
        let mut wanted = Vec::new();
        let mut sent = Vec::new();
        for transmit in outbox.transmits() {
            let hop = transmit.hop;
            let (transport, port, to, bytes) = (hop.transport, hop.port, hop.to, transmit.bytes.to_vec());
            let peer = hop.peer.as_ref().map(|peer| peer.name.clone());
            sent.push(Sent { transport, port, to, peer, bytes: bytes.clone() });
            let connection = hop.connection.map(|connection| connection.0);
            wanted.push(Wanted { transport, port, to, connection, receipt: transmit.receipt, bytes });
        }
        engine.clear_outbox();
        for query in queries {
            let at = self.now + self.names.delay(&mut self.rng);
            self.at(at, Event::Input(index, life.1, shard, Box::new(Input::Resolved(query))));
        }
        for bulletin in bulletins {
            let seen = self.audit.choice.seen(life, shard);
            seen.learn(bulletin.transport, bulletin.address, bulletin.health, EPOCH);
            for other in (0..self.profile.shards).filter(|other| *other != shard) {
                let at = self.now + self.rng.range(0, 500) * MS;
                self.at(at, Event::Input(index, life.1, other, Box::new(Input::Bulletin(bulletin.clone()))));
            }
        }
        for one in wanted {
            self.send(index, shard, one);
        }
        if let Cause::Message(arrival, _) = cause
            && is_stranger(arrival.source.ip())
        {
            return self.audit.stranger(arrival.source, &sent);
        }
        let step = Step { now: self.now, life, shard, cause, sent: &sent, records: &self.records };
        self.audit.step(&step)
    }

    /// What a shard knows of a name from now on; or, at its start, what it knows at all.
    fn learn_servers(&mut self, index: usize, shard: usize, answer: Option<(&str, &[sipedge_proxy::engine::Server])>) {
        let version = self.instances[index].version.clone();
        let life = (index, self.instances[index].life);
        let profile = &self.profile;
        let seen: &mut Seen = self.audit.choice.seen(life, shard);
        for callee in &profile.callees {
            let target = &profile.targets[callee.target];
            let address = (callee.server.transport, callee.address);
            let place = (target.priority, target.weight > 0);
            match (&target.name, answer) {
                (None, None) if version.without != Some(callee.target) => {
                    seen.servers.insert(address, place);
                }
                (Some(name), Some((host, servers))) if name == host => {
                    if servers.iter().any(|server| (server.transport, server.address) == address) {
                        seen.servers.insert(address, place);
                    } else {
                        seen.servers.remove(&address);
                    }
                }
                _ => {}
            }
        }
    }

    fn learn_version(&mut self, index: usize, shard: usize, version: &Version) {
        let life = (index, self.instances[index].life);
        let profile = &self.profile;
        let seen = self.audit.choice.seen(life, shard);
        let mut servers = seen.servers.clone();
        let mut gone = BTreeSet::new();
        for callee in &profile.callees {
            let target = &profile.targets[callee.target];
            let address = (callee.server.transport, callee.address);
            if target.name.is_some() {
                continue;
            }
            if version.without == Some(callee.target) {
                servers.remove(&address);
                gone.insert(address);
            } else {
                servers.insert(address, (target.priority, target.weight > 0));
            }
        }
        seen.configure(servers, gone);
    }

    pub fn with_agent(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Agent, &mut Context<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut out = Vec::new();
        let mut context = Context {
            now: self.now,
            edge: edge(Transport::Udp).ip(),
            hosts: &self.audit.hosts,
            plans: &self.plans,
            records: &mut self.records,
            out: &mut out,
        };
        act(&mut self.agents[index], &mut context)?;
        for parcel in out {
            if self.seen.len() < 40 && parcel.transport == Transport::Udp {
                self.seen.push(parcel.bytes.clone());
            }
            self.send_of(index, parcel);
        }
        Ok(())
    }

    /// Takes note of something that is sent.
    pub fn note(&mut self, who: &str, way: &str, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.datagrams += 1;
        for byte in self.now.to_le_bytes().iter().chain(to.to_string().as_bytes()).chain(bytes) {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.shown.is_some_and(|call| Msg::parse(bytes).map_or(true, |msg| msg.call() != Some(call))) {
            return;
        }
        if self.trace.len() == if self.shown.is_some() { 10 * TRACE } else { TRACE } {
            self.trace.pop_front();
        }
        let from = format!("{who} {way} {from}");
        self.trace.push_back(Line { at: self.now, from, to, bytes: bytes.to_vec() });
    }

    pub fn at(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.queue.insert((at, self.serial), event);
    }

    pub fn time(&self) -> Time {
        Time::from_micros(EPOCH + self.now)
    }
}

/// A moment in 2027, in microseconds.
pub const EPOCH: u64 = 1_800_000_000 * SECOND;
/// All calls are over long before.
const LONGEST: u64 = 900 * SECOND;
/// The shard of an instance that probes.
const PROBER: usize = 0;
/// Turns of the driver's loop without time passing.
const TURNS: usize = 3;
/// Lines that a failure shows.
const TRACE: usize = 40;
