//! The invariants: what an instance may send, judged by what it has received.

mod branches;
mod choice;
mod forward;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use sipedge_proxy::config::Select;
use sipedge_proxy::engine::{Arrival, Port, Transport};

use crate::plan::Record;
use crate::profile::{Profile, edge};
use crate::wire::{Msg, parameter, sent_by, transport_of};
pub use branches::Settings;
use branches::{Branch, Invite};
pub use choice::{Choice, Seen};

/// Life of an instance: its index and how often it has been started.
pub type Life = (usize, u32);

/// What an engine has sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub transport: Transport,
    pub port: Port,
    pub to: SocketAddr,
    /// Whom a TLS peer has to prove to be.
    pub peer: Option<String>,
    pub bytes: Vec<u8>,
}

/// What has made an engine act.
#[derive(Debug, Clone, Copy)]
pub enum Cause<'a> {
    Message(&'a Arrival, &'a [u8]),
    /// Time, an answer of the name servers, the failure of a connection, an order.
    Other,
}

/// One step of an engine, as the audit sees it.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    pub now: u64,
    pub life: Life,
    pub shard: usize,
    pub cause: Cause<'a>,
    pub sent: &'a [Sent],
    pub records: &'a [Record],
}

pub struct Audit {
    edge: IpAddr,
    /// What the Request-URI says of each callee.
    pub hosts: BTreeMap<SocketAddr, String>,
    settings: Settings,
    pub choice: Choice,
    /// What each instance has received of INVITEs, by the transaction's name upstream.
    invites: BTreeMap<(Life, String), Invite>,
    /// What each instance has sent on of them.
    branches: BTreeMap<(Life, String), Branch>,
    /// Branches whose CANCEL it has sent.
    cancels: BTreeSet<(Life, String)>,
    /// Requests, by the transaction's name upstream and the method, with their sources.
    requests: BTreeMap<(Life, String, String), (SocketAddr, Transport, Msg)>,
    /// Responses, by the same.
    answers: BTreeMap<(Life, String, String), Vec<Msg>>,
    /// Who has sent something to an instance.
    sources: BTreeSet<(Life, SocketAddr)>,
    /// What each instance has sent to whom: a retransmission is nothing new.
    sent: BTreeSet<(Life, u64)>,
    /// Where the request with this branch went.
    destinations: BTreeMap<String, SocketAddr>,
}

impl Audit {
    pub fn new(profile: &Profile) -> Self {
        let host = |target: usize| profile.targets[target].host_port.clone();
        Self {
            edge: edge(Transport::Udp).ip(),
            hosts: profile.callees.iter().map(|callee| (callee.address, host(callee.target))).collect(),
            settings: Settings {
                failover: profile.failover.clone(),
                attempts: usize::from(profile.attempts),
                forks: profile.select == Select::All,
            },
            choice: Choice::default(),
            invites: BTreeMap::new(),
            branches: BTreeMap::new(),
            cancels: BTreeSet::new(),
            requests: BTreeMap::new(),
            answers: BTreeMap::new(),
            sources: BTreeSet::new(),
            sent: BTreeSet::new(),
            destinations: BTreeMap::new(),
        }
    }

    /// A stranger's datagram: at most one refusal, to the stranger alone.
    pub fn stranger(&self, source: SocketAddr, sent: &[Sent]) -> Result<(), String> {
        let refusal =
            |one: &Sent| one.to == source && Msg::parse(&one.bytes).is_ok_and(|msg| matches!(msg.code(), 403 | 404));
        if sent.len() <= 1 && sent.iter().all(refusal) {
            return Ok(());
        }
        Err(format!("a stranger's datagram made more than a refusal: {}", lossy(sent)))
    }

    /// An engine has done something.
    pub fn step(&mut self, step: &Step<'_>) -> Result<(), String> {
        let input = match step.cause {
            Cause::Message(arrival, bytes) => {
                self.sources.insert((step.life, arrival.source));
                let msg = Msg::parse(bytes)?;
                if msg.is_request() {
                    let key = (step.life, msg.transaction(), msg.method().to_owned());
                    // A copy may come by another connection: what it makes the edge send bears that one's address.
                    self.requests.insert(key, (arrival.source, arrival.transport, msg.clone()));
                } else if let Some(via) = msg.list("Via").get(1) {
                    let key = (step.life, name(via), msg.method().to_owned());
                    self.answers.entry(key).or_default().push(msg.clone());
                }
                Some(msg)
            }
            Cause::Other => None,
        };
        let mut outputs = Vec::new();
        for one in step.sent {
            let output =
                Msg::parse(&one.bytes).map_err(|reason| format!("an instance sent what is no SIP: {reason}"))?;
            let is_new = self.sent.insert((step.life, fingerprint(one)));
            outputs.push((one, output, is_new));
        }
        self.note_input(step, input.as_ref(), &outputs)?;
        let mut forks: BTreeMap<String, usize> = BTreeMap::new();
        for (_, msg, _) in outputs.iter().filter(|(_, msg, is_new)| *is_new && msg.start.starts_with("INVITE ")) {
            *forks.entry(msg.list("Via").get(1).map(|via| name(via)).unwrap_or_default()).or_default() += 1;
        }
        for (one, output, is_new) in &outputs {
            if output.is_request() {
                self.request(step, input.as_ref(), (one, output, *is_new), &forks)?;
            } else {
                self.response(step, input.as_ref(), (one, output, *is_new))?;
            }
        }
        self.note_outputs(step, input.as_ref(), &outputs)
    }

    /// A request that an engine has sent.
    fn request(
        &mut self,
        step: &Step<'_>,
        input: Option<&Msg>,
        (one, output, is_new): (&Sent, &Msg, bool),
        forks: &BTreeMap<String, usize>,
    ) -> Result<(), String> {
        let via = output.top_via();
        let is_edges = sent_by(&via) == edge(one.transport).to_string() && transport_of(&via) == Some(one.transport);
        let leaves_right = one.transport != Transport::Udp || one.port == Port::Egress;
        if !is_edges || !leaves_right || parameter(&via, "rport") != Some("") {
            return Err(format!("a request leaves by {:?} with the topmost Via {via}", one.port));
        }
        let is_initial = output.tag("To").is_empty();
        let branch = output.branch();
        let leads = match (self.destinations.get(&branch), output.method()) {
            (Some(known), _) => *known == one.to,
            (None, "INVITE" | "CANCEL" | "OPTIONS") if is_initial => self.hosts.contains_key(&one.to),
            (None, _) if is_initial => false,
            _ => output.call().and_then(|call| step.records.get(call)).is_some_and(|it| it.places.contains(&one.to)),
        };
        if !leads {
            return Err(format!("no route leads to {}: {}", one.to, output.start));
        }
        if one.transport == Transport::Tls && one.peer.is_none() {
            return Err(format!("{} over TLS to nobody in particular", output.start));
        }
        let is_known = self.destinations.insert(branch.clone(), one.to).is_some();
        if output.method() == "OPTIONS" || !is_new {
            // A probe, which the agent that gets it judges; or a retransmission.
            return Ok(());
        }
        let is_of_refusal = output.method() == "ACK"
            && input.is_some_and(|input| !input.is_request() && input.branch() == branch && input.code() >= 300);
        // Of a branch that was opened: one whose INVITE has come anew, longer ago than a transaction lasts, is no longer in the books.
        let is_own_cancel = output.method() == "CANCEL" && is_known && output.list("Via").len() == 1;
        if is_of_refusal || is_own_cancel {
            return Ok(());
        }
        let upstream = output.list("Via").get(1).map(|via| name(via)).ok_or("a request with no Via but ours")?;
        let breadth = 60 / forks.get(&upstream).copied().unwrap_or(1);
        let key = (step.life, upstream, output.method().to_owned());
        let Some((source, arrival, request)) = self.requests.get(&key) else {
            return Err(format!("{} of the edge's own", output.start));
        };
        self.forwarded_request((*source, *arrival), request, (one, output), breadth)
    }

    /// A response that an engine has sent: by the way of a request, and its own or one that has come.
    fn response(
        &mut self,
        step: &Step<'_>,
        input: Option<&Msg>,
        (one, output, is_new): (&Sent, &Msg, bool),
    ) -> Result<(), String> {
        let via = output.top_via();
        let has_sent = match one.transport {
            Transport::Udp => self.sources.contains(&(step.life, one.to)),
            _ => self.sources.iter().any(|(life, source)| *life == step.life && source.ip() == one.to.ip()),
        };
        if !has_sent || sent_by(&via) != one.to.to_string() || transport_of(&via) != Some(one.transport) {
            return Err(format!("a response goes to {}, the request came from {via}", one.to));
        }
        if one.port != Port::Ingress {
            return Err("a response leaves by the egress port".to_owned());
        }
        let key = (step.life, output.transaction(), output.method().to_owned());
        let Some((source, _, request)) = self.requests.get(&key) else {
            return Err(format!("{} to a request that has not come", output.start));
        };
        if !is_new {
            return Ok(());
        }
        if output.get("X-Answer").is_empty() {
            let by_time = matches!(output.code(), 100 | 408 | 487 | 500 | 503);
            if !input.is_some_and(Msg::is_request) && !by_time {
                return Err(format!("{:?} made the edge send {}", input.map(|input| &input.start), output.start));
            }
            return forward::own_answer(*source, request, output);
        }
        match input {
            Some(input) if !input.is_request() && forward::forwarded_response(input, output).is_ok() => Ok(()),
            // It may have waited for better ones.
            _ => {
                let answers = self.answers.get(&key).map(Vec::as_slice).unwrap_or_default();
                if answers.iter().any(|answer| forward::forwarded_response(answer, output).is_ok()) {
                    return Ok(());
                }
                Err(format!("a response that has not come goes back: {output:#?}"))
            }
        }
    }

    /// Every INVITE that reached an instance that stayed up has had its final response.
    pub fn end(&self, is_up: impl Fn(Life) -> bool) -> Result<(), String> {
        for ((life, transaction), invite) in &self.invites {
            if invite.finals.is_empty() && is_up(*life) {
                return Err(format!("instance {life:?} never ended the INVITE {transaction}"));
            }
        }
        Ok(())
    }
}

/// What names a transaction upstream: branch and sent-by of a Via.
fn name(via: &str) -> String {
    format!("{} {}", parameter(via, "branch").unwrap_or_default(), sent_by(via))
}

/// An ACK may go to any address of the dialog again and again; all else is told apart by its bytes.
fn fingerprint(sent: &Sent) -> u64 {
    let mut hasher = DefaultHasher::new();
    (sent.to, &sent.bytes).hash(&mut hasher);
    hasher.finish()
}

fn lossy(sent: &[Sent]) -> String {
    sent.iter().map(|one| format!("{:?} → {}\n{}\n", one.port, one.to, lossy_bytes(&one.bytes))).collect()
}

fn lossy_bytes(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sources that no trunk has: 203.0.113.128/25.
pub fn is_stranger(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == [203, 0, 113] && ip.octets()[3] >= 128)
}
