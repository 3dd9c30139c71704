//! The virtual network: two carriers, two instances behind a load balancer and a NAT gateway, faults, and one clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sipedge_proxy::engine::{Arrival, Control, Engine, Gauges, Place, Port, Query, Server, Setup, Shared, Transport};
use sipedge_sip::Time;

use crate::agent::{Agent, Context, Datagram};
use crate::audit::{Audit, Sent, is_stranger};
use crate::plan::{MS, Plan, Record, SECOND};
use crate::profile::{EDGE, NAT, Profile, TARGET_NAME, config, keys};
use crate::rng::Rng;
use crate::stranger;

pub struct World {
    profile: Profile,
    rng: Rng,
    now: u64,
    serial: u64,
    queue: BTreeMap<(u64, u64), Event>,
    agents: Vec<Agent>,
    instances: Vec<Instance>,
    /// Flows of the load balancer: its key of the source, the instance, when it was used last.
    flows: BTreeMap<SocketAddr, (usize, u64)>,
    nat: BTreeMap<u16, (usize, Port, SocketAddr)>,
    plans: Vec<Plan>,
    records: Vec<Record>,
    audit: Audit,
    trace: VecDeque<Step>,
    /// Of everything that was sent: equal for equal runs.
    pub digest: u64,
    pub datagrams: u64,
    timeouts: u64,
    /// Datagrams that carriers sent, for strangers to forge.
    seen: Vec<Vec<u8>>,
}

struct Instance {
    setup: Arc<Setup>,
    engine: Option<Engine>,
    life: u32,
    in_service: bool,
}

enum Event {
    Arrive(Datagram),
    Resolved(usize, u32),
    Crash(usize),
    Start(usize),
    TakeOut(usize),
    PutBack(usize),
    Stranger,
}

struct Step {
    at: u64,
    from: String,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let profile = Profile::random(seed, &mut rng);
        let edge: SocketAddr = EDGE.parse().expect("an address");
        let config = config(&profile);
        let setup = |index: usize| {
            let ip = format!("10.0.{index}.10");
            let place = Place {
                ingress: format!("{ip}:5060").parse().expect("an address"),
                egress: format!("{ip}:5080").parse().expect("an address"),
                advertised: edge.ip().to_string(),
                shards: 1,
            };
            Arc::new(Setup::new(config.clone(), &place, &keys()).expect("a good configuration"))
        };
        let instance = |index: usize| Instance { setup: setup(index), engine: None, life: 0, in_service: true };
        let addresses = profile.callers.iter().chain(&profile.callees).copied();
        let targets: BTreeSet<SocketAddr> = profile.callees.iter().copied().collect();
        let plans: Vec<Plan> =
            (0..profile.calls).map(|_| Plan::random(&mut rng, profile.callers.len() as u64)).collect();
        let mut world = Self {
            audit: Audit::new(edge, profile.target_host(), targets),
            agents: addresses.map(Agent::new).collect(),
            instances: (0..2).map(instance).collect(),
            records: vec![Record::default(); plans.len()],
            plans,
            now: 0,
            serial: 0,
            queue: BTreeMap::new(),
            flows: BTreeMap::new(),
            nat: BTreeMap::new(),
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

    /// Of the calls on a network that loses, doubles and reorders, and does nothing worse: how many there were, and how many became
    /// what both sides wanted nevertheless.
    pub fn met_in_spite_of_loss(&self) -> (u64, u64) {
        if self.profile.is_clean() || self.profile.crashes || self.profile.limits.cps.is_some() {
            return (0, 0);
        }
        let met = self
            .plans
            .iter()
            .zip(&self.records)
            .filter(|(plan, record)| plan.is_met(record, PATIENCE.1).is_ok())
            .count();
        (self.plans.len() as u64, met as u64)
    }

    /// The last steps, for whoever has to find out what happened.
    pub fn trace(&self) -> String {
        let line = |step: &Step| {
            let text = String::from_utf8_lossy(&step.bytes);
            let first = text.lines().next().unwrap_or_default().to_owned();
            let find = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            format!(
                "{:>11.3} ms  {} → {}  {first} | {} | {}\n",
                step.at as f64 / 1e3,
                step.from,
                step.to,
                find("CSeq"),
                find("Via")
            )
        };
        self.trace.iter().map(line).collect()
    }

    fn schedule(&mut self) {
        for (call, plan) in self.plans.iter().enumerate() {
            self.agents[plan.caller].will_call(call, plan.start);
        }
        for _ in 0..self.profile.faults {
            let index = self.rng.range(0, 2) as usize;
            let at = self.rng.range(0, 30_000) * MS;
            let back = at + self.rng.range(3_000, 20_000) * MS;
            if self.profile.crashes && self.rng.chance(60) {
                let noticed = at + self.rng.range(0, 3_000) * MS;
                self.at(at, Event::Crash(index));
                self.at(noticed, Event::TakeOut(index));
                self.at(back, Event::Start(index));
            } else {
                self.at(at, Event::TakeOut(index));
            }
            self.at(back + 500 * MS, Event::PutBack(index));
        }
        for _ in 0..self.profile.strangers {
            let at = self.rng.range(0, 45_000) * MS;
            self.at(at, Event::Stranger);
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Arrive(datagram) => self.arrive(datagram)?,
            Event::Resolved(index, life) => {
                let now = self.time();
                let server = |address: &SocketAddr| Server {
                    priority: 0,
                    weight: 1,
                    transport: Transport::Udp,
                    address: SocketAddr::new(address.ip(), 5060),
                };
                let servers: Vec<_> = self.profile.callees.iter().map(server).collect();
                let query = Query { host: TARGET_NAME.to_owned(), port: None, transport: None, secure: false };
                let instance = &mut self.instances[index];
                if let Some(engine) = instance.engine.as_mut().filter(|_| instance.life == life) {
                    engine.handle_resolved(now, &query, &servers, Duration::from_secs(60));
                }
                self.collect(index);
            }
            Event::Crash(index) => self.instances[index].engine = None,
            Event::Start(index) if self.instances[index].engine.is_none() => self.start(index)?,
            Event::Start(_) => {}
            Event::TakeOut(index) => {
                // Never the last one.
                if self.instances[1 - index].in_service {
                    self.instances[index].in_service = false;
                    self.flows.retain(|_, (instance, _)| *instance != index);
                    if self.rng.chance(50) {
                        self.order(index, Control::Drain);
                    }
                }
            }
            Event::PutBack(index) => {
                self.instances[index].in_service = true;
                self.order(index, Control::Open);
            }
            Event::Stranger => {
                if let Some(datagram) = stranger::datagram(&mut self.rng, &self.seen) {
                    self.transmit("stranger", datagram);
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, index: usize) -> Result<(), String> {
        let now = self.time();
        let instance = &mut self.instances[index];
        let shared = Arc::new(Shared::new(&instance.setup));
        let mut engine = Engine::new(instance.setup.clone(), shared, now);
        engine.handle_control(now, Control::Open);
        instance.engine = Some(engine);
        instance.life += 1;
        if self.now == 0 && self.profile.by_name {
            self.collect(index);
            let life = self.instances[index].life;
            self.queue.retain(|_, event| !matches!(event, Event::Resolved(of, _) if *of == index));
            return self.happen(Event::Resolved(index, life));
        }
        self.collect(index);
        Ok(())
    }

    fn order(&mut self, index: usize, control: Control) {
        let now = self.time();
        if let Some(engine) = self.instances[index].engine.as_mut() {
            engine.handle_control(now, control);
        }
    }

    fn engine_timeout(&self, index: usize) -> Option<u64> {
        let engine = self.instances[index].engine.as_ref()?;
        Some(engine.poll_timeout()?.as_micros().saturating_sub(EPOCH))
    }

    fn engine_wakes(&mut self, index: usize) -> Result<(), String> {
        let now = self.time();
        let Some(engine) = self.instances[index].engine.as_mut() else { return Ok(()) };
        engine.handle_timeout(now);
        self.timeouts += 1;
        if engine.poll_timeout().is_some_and(|next| next <= now) {
            return Err("poll_timeout asks for a moment that has been dealt with: the driver would spin".to_owned());
        }
        let life = (index, self.instances[index].life);
        let sent = self.collect(index);
        self.audit.timeout(life, &sent, &self.records)
    }

    fn arrive(&mut self, datagram: Datagram) -> Result<(), String> {
        let Datagram { from, to, bytes } = datagram;
        if to.to_string() == EDGE {
            let Some(index) = self.balance(from) else { return Ok(()) };
            return self.reach(index, Port::Ingress, from, &bytes);
        }
        if to.ip().to_string() == NAT {
            // The gateway lets back in only whom the instance has written to.
            return match self.nat.get(&to.port()).copied() {
                Some((index, port, peer)) if peer == from => self.reach(index, port, from, &bytes),
                _ => Ok(()),
            };
        }
        if is_stranger(to.ip()) {
            return Ok(());
        }
        let Some(index) = self.agents.iter().position(|agent| agent.address.ip() == to.ip()) else {
            return Err(format!("a datagram for {to}, where nobody is"));
        };
        self.with_agent(index, |agent, context| agent.handle(context, from, to, &bytes))
    }

    fn reach(&mut self, index: usize, port: Port, source: SocketAddr, bytes: &[u8]) -> Result<(), String> {
        let now = self.time();
        let life = (index, self.instances[index].life);
        let Some(engine) = self.instances[index].engine.as_mut() else { return Ok(()) };
        if engine.poll_timeout().is_some_and(|next| next < now) {
            return Err("poll_timeout went back".to_owned());
        }
        engine.handle_message(now, &Arrival::datagram(port, source), bytes);
        let sent = self.collect(index);
        if is_stranger(source.ip()) {
            return self.audit.stranger(source, &sent);
        }
        self.audit.datagram(life, source, bytes, &sent, &self.records)
    }

    /// Takes what an engine wants done and does it.
    fn collect(&mut self, index: usize) -> Vec<Sent> {
        let Some(engine) = self.instances[index].engine.as_mut() else { return Vec::new() };
        let outbox = engine.outbox();
        let asks = outbox.resolves().len();
        let sent: Vec<Sent> =
            outbox.transmits().map(|transmit| (transmit.hop.port, transmit.hop.to, transmit.bytes.to_vec())).collect();
        engine.clear_outbox();
        for _ in 0..asks {
            let at = self.now + self.rng.range(1, 80) * MS;
            self.at(at, Event::Resolved(index, self.instances[index].life));
        }
        for (port, to, bytes) in sent.clone() {
            let flow = self.flows.get(&self.flow_key(to)).is_some_and(|(instance, _)| *instance == index);
            let from = if port == Port::Ingress && flow {
                EDGE.parse().expect("an address")
            } else {
                self.translate(index, port, to)
            };
            self.transmit(if index == 0 { "edge 0" } else { "edge 1" }, Datagram { from, to, bytes });
        }
        sent
    }

    fn with_agent(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Agent, &mut Context<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut out = Vec::new();
        let target_host = self.profile.target_host();
        let mut context = Context {
            now: self.now,
            edge: EDGE.parse().expect("an address"),
            target_host: &target_host,
            plans: &self.plans,
            records: &mut self.records,
            out: &mut out,
        };
        act(&mut self.agents[index], &mut context)?;
        for datagram in out {
            if self.seen.len() < 40 {
                self.seen.push(datagram.bytes.clone());
            }
            self.transmit("agent", datagram);
        }
        Ok(())
    }

    /// Hands a datagram to the network, which may lose, double or delay it.
    fn transmit(&mut self, who: &str, datagram: Datagram) {
        self.datagrams += 1;
        for byte in self.now.to_le_bytes().iter().chain(datagram.to.to_string().as_bytes()).chain(&datagram.bytes) {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        let from = format!("{who} {}", datagram.from);
        self.trace.push_back(Step { at: self.now, from, to: datagram.to, bytes: datagram.bytes.clone() });
        let copies = 1 + u64::from(self.rng.chance(self.profile.doubles));
        for _ in 0..copies {
            let is_lost = self.rng.chance(self.profile.loses);
            let delay = self.rng.range(self.profile.delay.0, self.profile.delay.1);
            if !is_lost {
                self.at(self.now + delay, Event::Arrive(datagram.clone()));
            }
        }
    }

    /// The instance that the load balancer sends a source to.
    fn balance(&mut self, from: SocketAddr) -> Option<usize> {
        let key = self.flow_key(from);
        if let Some((instance, used)) = self.flows.get_mut(&key)
            && self.now < *used + FLOW_IDLE
        {
            *used = self.now;
            return Some(*instance);
        }
        let in_service: Vec<usize> = (0..2).filter(|index| self.instances[*index].in_service).collect();
        let hash = key.to_string().bytes().fold(17_u64, |hash, byte| hash.wrapping_mul(131) + u64::from(byte));
        let instance = *in_service.get((hash % in_service.len().max(1) as u64) as usize)?;
        self.flows.insert(key, (instance, self.now));
        Some(instance)
    }

    fn flow_key(&self, source: SocketAddr) -> SocketAddr {
        if self.profile.by_address { SocketAddr::new(source.ip(), 0) } else { source }
    }

    fn translate(&mut self, index: usize, port: Port, to: SocketAddr) -> SocketAddr {
        let known = self.nat.iter().find(|(_, mapping)| **mapping == (index, port, to)).map(|(port, _)| *port);
        let nat_port = known.unwrap_or(20_000 + self.nat.len() as u16);
        self.nat.insert(nat_port, (index, port, to));
        SocketAddr::new(NAT.parse().expect("an address"), nat_port)
    }

    fn end(&mut self) -> Result<(), String> {
        self.audit.end(|(index, life)| self.instances[index].engine.is_some() && self.instances[index].life == life)?;
        for index in 0..self.instances.len() {
            let Some(engine) = self.instances[index].engine.as_mut() else { continue };
            let Some(next) = engine.poll_timeout() else { continue };
            if !self.profile.by_name {
                return Err(format!("a timer is left at {next:?} with nothing in the tables"));
            }
            engine.handle_timeout(next);
            let outbox = engine.outbox();
            if outbox.transmits().len() != 0 || outbox.resolves().len() != 1 {
                return Err("the only timer left is not the refresh of the name".to_owned());
            }
        }
        if self.timeouts > 60 * (self.datagrams + 100) {
            return Err(format!("{} timeouts for {} datagrams", self.timeouts, self.datagrams));
        }
        if self.profile.only_crashes() {
            // A call that is up needs no instance in particular: its BYE passes by whichever there is.
            let is_cut = |record: &&Record| {
                record.acked && (record.byes.is_empty() || record.byes.iter().any(|code| *code != 200))
            };
            if let Some(record) = self.records.iter().find(is_cut) {
                return Err(format!("a call that was up did not survive the loss of an instance: {record:?}"));
            }
        }
        if self.profile.is_clean() {
            for (plan, record) in self.plans.iter().zip(&self.records) {
                plan.is_met(record, PATIENCE.0)?;
            }
        }
        Ok(())
    }

    fn at(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.queue.insert((at, self.serial), event);
    }

    fn time(&self) -> Time {
        Time::from_micros(EPOCH + self.now)
    }
}

impl Instance {
    fn gauges(&self) -> Gauges {
        self.engine.as_ref().map(Engine::gauges).unwrap_or_default()
    }

    fn has_work(&self) -> bool {
        self.gauges() != Gauges::default()
    }
}

/// How long a CANCEL may take to end its call, on a clean network and on one that loses: always less than the edge's own Timer C, which
/// would end it too.
const PATIENCE: (u64, u64) = (SECOND, 25 * SECOND);
/// A moment in 2027, in microseconds.
const EPOCH: u64 = 1_800_000_000 * SECOND;
/// All calls are over long before.
const LONGEST: u64 = 600 * SECOND;
/// AWS: a UDP flow of the load balancer ends after 120 s without a packet.
const FLOW_IDLE: u64 = 120 * SECOND;
/// Lines that a failure shows.
const TRACE: usize = 40;
