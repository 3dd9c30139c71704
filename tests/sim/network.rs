//! The network: datagrams that may be lost, connections that may break, the load balancer and the NAT gateway.

use std::net::SocketAddr;

use sipedge_proxy::engine::{Arrival, Connection, Port, Transport, shard_of};

use crate::agent::{Came, Datagram, Parcel};
use crate::audit::is_stranger;
use crate::instance::{Input, Wanted};
use crate::plan::{MS, SECOND};
use crate::profile::{NAT, edge};
use crate::streams::{End, Peer, State, Stream, Ticket};
use crate::world::{Event, Mode, World};

/// What happens to a connection.
pub enum StreamEvent {
    Established(u64),
    Refused(u64),
    Deliver(u64, End, Vec<u8>),
    /// This end learns that it is over.
    Ended(u64, End),
}

impl World {
    pub fn arrive(&mut self, datagram: Datagram) -> Result<(), String> {
        let Datagram { from, to, bytes } = datagram;
        if to == edge(Transport::Udp) {
            let Some(index) = self.balance(from) else { return Ok(()) };
            return self.receive(index, Arrival::datagram(Port::Ingress, from), bytes);
        }
        if to.ip().to_string() == NAT {
            // The gateway lets back in only whom the instance has written to.
            return match self.nat.get(&to.port()).copied() {
                Some((index, port, peer)) if peer == from => self.receive(index, Arrival::datagram(port, from), bytes),
                _ => Ok(()),
            };
        }
        if is_stranger(to.ip()) {
            return Ok(());
        }
        let Some(agent) = self.agent_at(to) else { return Err(format!("a datagram for {to}, where nobody is")) };
        if self.modes[agent] != Mode::Up {
            return Ok(());
        }
        let came = Came { transport: Transport::Udp, from, to, stream: None };
        self.with_agent(agent, |agent, context| agent.handle(context, came, &bytes))
    }

    /// A message reaches an instance: by the shard that the kernel chose, to the shard that owns the call.
    fn receive(&mut self, index: usize, arrival: Arrival, bytes: Vec<u8>) -> Result<(), String> {
        let shards = self.instances[index].shards.len();
        if shards == 0 {
            return Ok(());
        }
        let received = arrival.source.port() as usize % shards;
        let owner = shard_of(&bytes, shards).unwrap_or(received);
        let is_stream = arrival.connection.is_some();
        if owner == received && !is_stream {
            return self.input(index, owner, Input::Message(arrival, bytes));
        }
        let life = self.instances[index].life;
        let at = self.now + self.profile.hand_over;
        self.at(at, Event::Input(index, life, owner, Box::new(Input::Message(arrival, bytes))));
        Ok(())
    }

    /// What a shard wants sent.
    pub fn send(&mut self, index: usize, shard: usize, wanted: Wanted) {
        let Wanted { transport, port, to, connection, receipt, bytes } = wanted;
        let who = if index == 0 { "edge 0" } else { "edge 1" };
        if transport == Transport::Udp {
            let flow = self.flows.get(&self.flow_key(to)).is_some_and(|(instance, _)| *instance == index);
            let from = if port == Port::Ingress && flow { edge(transport) } else { self.translate(index, port, to) };
            return self.transmit(who, Datagram { from, to, bytes });
        }
        let peer = Peer::Instance(index, self.instances[index].life);
        let of_request = connection.filter(|id| self.streams.usable(*id, peer).is_some());
        let id = of_request.or_else(|| self.streams.opened(peer, transport, to));
        let id = id.unwrap_or_else(|| self.open(peer, transport, to));
        let ticket = receipt.map(|receipt| Ticket { shard, receipt });
        self.write(who, id, peer, bytes, ticket);
    }

    /// What an agent sends.
    pub fn send_of(&mut self, agent: usize, parcel: Parcel) {
        if self.modes[agent] != Mode::Up {
            return;
        }
        let Parcel { transport, from, to, stream, bytes } = parcel;
        if transport == Transport::Udp {
            return self.transmit("agent", Datagram { from, to, bytes });
        }
        let peer = Peer::Agent(agent);
        let id = stream.filter(|id| self.streams.usable(*id, peer).is_some());
        // Nobody sends a new request by a connection to an instance that has been taken out: the load balancer has said so.
        let is_in_service = |id: &u64| match self.streams.all.get(id).map(|stream| stream.acceptor) {
            Some(Peer::Instance(index, _)) => self.instances[index].in_service,
            _ => true,
        };
        let id = id.or_else(|| self.streams.opened(peer, transport, to).filter(is_in_service));
        let id = id.unwrap_or_else(|| self.open(peer, transport, to));
        self.write("agent", id, peer, bytes, None);
    }

    /// Hands a datagram to the network, which may lose, double or delay it.
    pub fn transmit(&mut self, who: &str, datagram: Datagram) {
        self.note(who, "", datagram.from, datagram.to, &datagram.bytes);
        let copies = 1 + u64::from(self.rng.chance(self.profile.doubles));
        for _ in 0..copies {
            let is_lost = self.rng.chance(self.profile.loses);
            let delay = self.delay();
            if !is_lost {
                self.at(self.now + delay, Event::Arrive(datagram.clone()));
            }
        }
    }

    fn delay(&mut self) -> u64 {
        self.rng.range(self.profile.delay.0, self.profile.delay.1)
    }

    // Connections.

    fn open(&mut self, opener: Peer, transport: Transport, to: SocketAddr) -> u64 {
        let (from, acceptor) = match opener {
            Peer::Agent(agent) => {
                self.ports += 1;
                let from = SocketAddr::new(self.agents[agent].address.ip(), 30_000 + self.ports % 30_000);
                let instance = self.balance(from);
                let up = instance.filter(|index| self.instances[*index].is_up());
                (from, up.map(|index| Peer::Instance(index, self.instances[index].life)))
            }
            Peer::Instance(..) => {
                self.ports += 1;
                let from = SocketAddr::new(NAT.parse().expect("an address"), 30_000 + self.ports % 30_000);
                (from, self.agent_at(to).map(Peer::Agent))
            }
        };
        let mode = match acceptor {
            Some(Peer::Agent(agent)) => self.modes[agent],
            Some(_) => Mode::Up,
            None => Mode::Dead,
        };
        let stream = Stream {
            transport,
            opener,
            acceptor: acceptor.unwrap_or(opener),
            from,
            to,
            state: State::Connecting,
            ended: [false, mode != Mode::Up],
            queue: Vec::new(),
            tickets: Vec::new(),
            last: [0; 2],
            has_noticed: [false; 2],
        };
        let id = self.streams.add(stream);
        let round_trip = 2 * self.delay();
        let event = match mode {
            Mode::Up => (self.now + round_trip, StreamEvent::Established(id)),
            Mode::Dead => (self.now + round_trip, StreamEvent::Refused(id)),
            Mode::Silent => (self.now + CONNECT, StreamEvent::Refused(id)),
        };
        self.at(event.0, Event::Stream(event.1));
        id
    }

    fn write(&mut self, who: &str, id: u64, peer: Peer, bytes: Vec<u8>, ticket: Option<Ticket>) {
        let Some(end) = self.streams.usable(id, peer) else { return };
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        let (transport, from, to) = (stream.transport, stream.from, stream.to);
        stream.tickets.extend(ticket.filter(|ticket| ticket.receipt.is_request()));
        let state = stream.state;
        if state == State::Connecting {
            stream.queue.push(bytes.clone());
        }
        let (from, to) = if end == End::Opener { (from, to) } else { (to, from) };
        self.note(who, transport.parameter(), from, to, &bytes);
        match state {
            State::Up => self.post(id, end.other(), bytes),
            State::Silent => self.notice(id, end),
            State::Connecting | State::Gone => {}
        }
    }

    /// A message arrives after those that were written before it.
    fn post(&mut self, id: u64, to: End, bytes: Vec<u8>) {
        // What is lost is sent again by TCP itself.
        let lost = if self.rng.chance(self.profile.loses) { self.rng.range(200, 1_000) * MS } else { 0 };
        let delay = self.delay() + lost;
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        let last = &mut stream.last[to as usize];
        *last = (self.now + delay).max(*last);
        let at = *last;
        self.at(at, Event::Stream(StreamEvent::Deliver(id, to, bytes)));
    }

    /// An end has written into the silence: after a while its host gives up.
    fn notice(&mut self, id: u64, end: End) {
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        if !std::mem::replace(&mut stream.has_noticed[end as usize], true) {
            self.at(self.now + UNACKNOWLEDGED, Event::Stream(StreamEvent::Ended(id, end)));
        }
    }

    pub fn on_stream(&mut self, event: StreamEvent) -> Result<(), String> {
        match event {
            StreamEvent::Established(id) => {
                let Some(stream) = self.streams.all.get_mut(&id) else { return Ok(()) };
                if stream.state != State::Connecting {
                    return Ok(());
                }
                stream.state = State::Up;
                for bytes in std::mem::take(&mut stream.queue) {
                    self.post(id, End::Acceptor, bytes);
                }
                Ok(())
            }
            StreamEvent::Refused(id) => {
                if let Some(stream) = self.streams.all.get_mut(&id) {
                    stream.state = State::Gone;
                }
                self.on_stream(StreamEvent::Ended(id, End::Opener))
            }
            StreamEvent::Deliver(id, end, bytes) => {
                let Some(stream) = self.streams.all.get(&id).filter(|it| it.state == State::Up) else { return Ok(()) };
                let (transport, from, to) = (stream.transport, stream.from, stream.to);
                let (source, own) = if end == End::Acceptor { (from, to) } else { (to, from) };
                match stream.at(end) {
                    Peer::Agent(agent) if self.modes[agent] == Mode::Up => {
                        // An agent calls from one address, whatever port its connection has.
                        let own = if end == End::Opener { self.agents[agent].address } else { own };
                        let came = Came { transport, from: source, to: own, stream: Some(id) };
                        self.with_agent(agent, |agent, context| agent.handle(context, came, &bytes))
                    }
                    Peer::Agent(_) => Ok(()),
                    Peer::Instance(index, life) => {
                        if self.instances[index].life != life {
                            return Ok(());
                        }
                        let port = if end == End::Acceptor { Port::Ingress } else { Port::Egress };
                        let connection = Some(Connection(id));
                        self.receive(index, Arrival { transport, port, source, connection }, bytes)
                    }
                }
            }
            StreamEvent::Ended(id, end) => {
                let Some(stream) = self.streams.all.get_mut(&id) else { return Ok(()) };
                if std::mem::replace(&mut stream.ended[end as usize], true) {
                    return Ok(());
                }
                let (peer, transport, to) = (stream.at(end), stream.transport, stream.to);
                let tickets = std::mem::take(&mut stream.tickets);
                match peer {
                    Peer::Agent(agent) if end == End::Opener => {
                        self.with_agent(agent, |agent, context| {
                            agent.broken(context, transport);
                            Ok(())
                        })?;
                    }
                    Peer::Agent(_) => {}
                    Peer::Instance(index, life) => {
                        self.audit.broken((index, life), transport, to);
                        for Ticket { shard, receipt } in tickets {
                            self.at(self.now, Event::Input(index, life, shard, Box::new(Input::Failed(receipt))));
                        }
                    }
                }
                if self.streams.all.get(&id).is_some_and(|stream| stream.ended == [true, true]) {
                    self.streams.all.remove(&id);
                }
                Ok(())
            }
        }
    }

    /// Breaks a connection: both ends learn it, each in its time; or silences it.
    pub fn spoil(&mut self, id: u64, is_silent: bool) {
        let delays = [self.delay(), self.delay()];
        let Some(stream) = self.streams.all.get_mut(&id).filter(|stream| stream.state != State::Gone) else { return };
        stream.state = if is_silent { State::Silent } else { State::Gone };
        for (end, delay) in [End::Opener, End::Acceptor].into_iter().zip(delays) {
            // Keep-alives find a silent one in the end.
            let after = if is_silent { KEEP_ALIVE } else { delay };
            self.at(self.now + after, Event::Stream(StreamEvent::Ended(id, end)));
        }
    }

    pub fn agent_at(&self, address: SocketAddr) -> Option<usize> {
        self.agents.iter().position(|agent| agent.address.ip() == address.ip())
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
}

/// `streams.connect_ms` of the edge.
const CONNECT: u64 = 4 * SECOND;
/// TCP_USER_TIMEOUT of the edge's connections; the agents' hosts have the same.
const UNACKNOWLEDGED: u64 = 5 * SECOND;
const KEEP_ALIVE: u64 = 65 * SECOND;
/// AWS: a UDP flow of the load balancer ends after 120 s without a packet.
const FLOW_IDLE: u64 = 120 * SECOND;
