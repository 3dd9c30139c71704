//! From a host name to its servers (RFC 3263 §4, RFC 2782): NAPTR says by which transports, SRV says which hosts, A or AAAA says where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::rdata::{NAPTR, SRV};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::servers::{NameServers, Records, Unanswered};
use crate::engine::{Query, Server, Transport};

/// Time for a whole lookup, in seconds. The name that calls wait for is either known by then or they are refused; and a destination's
/// name is asked for again 5 s after a failure.
const DEADLINE: Duration = Duration::from_secs(5);

/// NAPTR records that are used, the first ones. SIP has three services that the edge speaks (RFC 3263 §4.1); twice that is generous.
const MOST_SERVICES: usize = 6;

/// SRV records that are used, those of the best priorities: as many servers as the engine keeps of one name.
const MOST_TARGETS: usize = 32;

/// Addresses of one host that are used. Carriers have two or three.
const MOST_ADDRESSES: usize = 8;

/// Questions of one lookup under way at a time. Each has a socket of its own.
const QUESTIONS_AT_ONCE: usize = 4;

/// What a lookup found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Sorted; empty when there is none or the name servers did not answer.
    pub(super) servers: Vec<Server>,
    /// The smallest TTL of the records that were used.
    pub(super) ttl: Duration,
    /// What is wrong with it.
    pub(super) flaw: Option<Flaw>,
}

/// Why an answer is not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The name servers have answered: there is nothing.
    Nothing(&'static str),
    /// Addresses of some servers are missing, since the name servers did not say them.
    Address(Unanswered),
    /// A question that decides which servers there are was not answered: others may be meant than those that were found.
    Way(Unanswered),
}

/// What lookups are made with.
#[derive(Debug)]
pub(super) struct Lookups {
    pub(super) servers: NameServers,
    /// Whether servers are reached over IPv4: the family of the sockets.
    pub(super) ipv4: bool,
    /// The transports that may be found. One that the URI itself names is always good.
    pub(super) transports: Vec<Transport>,
}

impl Lookups {
    /// The servers of `query`. Ends within [`DEADLINE`].
    pub(super) async fn lookup(self: Arc<Self>, query: &Query) -> Answer {
        let nothing = |why| Answer { servers: Vec::new(), ttl: Duration::ZERO, flaw: Some(Flaw::Nothing(why)) };
        let Some(host) = name("", &query.host) else { return nothing("it is no host name") };
        let mut search = Search { lookups: self, deadline: Instant::now() + DEADLINE, ttl: Duration::MAX, flaw: None };
        let found = search.servers(&host, query).await;
        match (found, search.flaw) {
            (Err(why), None) => nothing(why),
            (Err(_), flaw) => Answer { servers: Vec::new(), ttl: Duration::ZERO, flaw },
            (Ok(servers), flaw) => Answer { servers: dense(servers), ttl: search.ttl, flaw },
        }
    }
}

/// One lookup under way.
struct Search {
    lookups: Arc<Lookups>,
    deadline: Instant,
    ttl: Duration,
    flaw: Option<Flaw>,
}

/// A service of a domain: where its SRV records are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    /// NAPTR's order and preference; lower ones first.
    rank: (u16, u16),
    transport: Transport,
    name: Name,
}

/// An SRV record that can be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    rank: Rank,
    weight: u16,
    transport: Transport,
    host: Name,
    port: u16,
}

/// NAPTR's order and preference, and SRV's priority; lower ones first.
type Rank = (u16, u16, u16);

impl Search {
    /// `Err`: the reason why there are none, unless a flaw is the reason.
    async fn servers(&mut self, host: &Name, query: &Query) -> Result<Vec<(Rank, Server)>, &'static str> {
        let default = if query.secure { Transport::Tls } else { Transport::Udp };
        if query.port.is_some() {
            return self.host(host, query.transport.unwrap_or(default), query.port).await;
        }
        let mut services = Vec::new();
        if query.transport.is_none() {
            let records = self.ask(vec![(host.clone(), RecordType::NAPTR)], Flaw::Way).await;
            services = self.lookups.services(records.iter().flatten(), query.secure);
            if !services.is_empty() {
                self.used(records.iter().flatten());
            }
        }
        // The transport for the host itself, when it has no SRV records: the one that was selected before (RFC 3263 §4.2).
        let chosen = query.transport.or(services.first().map(|service| service.transport)).unwrap_or(default);
        if services.is_empty() {
            services = self.lookups.usual_services(query);
        }
        let questions = services.iter().map(|service| (service.name.clone(), RecordType::SRV)).collect();
        let records = self.ask(questions, Flaw::Way).await;
        if records.iter().flatten().all(|records| records.data.is_empty()) {
            return self.host(host, chosen, None).await;
        }
        self.used(records.iter().flatten());
        let found = services.iter().zip(&records);
        self.targets(found.flat_map(|(service, records)| targets(service, records.as_ref())).collect()).await
    }

    /// The servers behind SRV records.
    async fn targets(&mut self, mut targets: Vec<Target>) -> Result<Vec<(Rank, Server)>, &'static str> {
        if targets.is_empty() {
            return Err("its SRV records say that it does not offer SIP");
        }
        targets.sort_unstable();
        targets.dedup();
        targets.truncate(MOST_TARGETS);
        let hosts: BTreeSet<&Name> = targets.iter().map(|target| &target.host).collect();
        let questions = hosts.iter().map(|host| ((*host).clone(), self.lookups.address_type())).collect();
        let records = self.ask(questions, Flaw::Address).await;
        self.used(records.iter().flatten());
        let addresses: BTreeMap<&Name, Vec<IpAddr>> = hosts.into_iter().zip(records.iter().map(addresses)).collect();
        let share = shares(&targets, &addresses);
        let servers: Vec<(Rank, Server)> = targets
            .iter()
            .filter_map(|target| Some((target, addresses.get(&target.host)?)))
            .flat_map(|(target, ips)| {
                let weight = share(target.weight, ips.len());
                ips.iter().map(move |ip| {
                    let address = SocketAddr::new(*ip, target.port);
                    (target.rank, Server { priority: 0, weight, transport: target.transport, address })
                })
            })
            .collect();
        if servers.is_empty() { Err("none of its SRV records leads to an address") } else { Ok(servers) }
    }

    /// The addresses of the host itself.
    async fn host(
        &mut self,
        host: &Name,
        transport: Transport,
        port: Option<u16>,
    ) -> Result<Vec<(Rank, Server)>, &'static str> {
        let records = self.ask(vec![(host.clone(), self.lookups.address_type())], Flaw::Address).await;
        self.used(records.iter().flatten());
        let port = port.unwrap_or(transport.default_port());
        let server = |ip| Server { priority: 0, weight: 1, transport, address: SocketAddr::new(ip, port) };
        let servers: Vec<_> = records.iter().flat_map(addresses).map(|ip| (Rank::default(), server(ip))).collect();
        if servers.is_empty() { Err("it does not exist, or has no address of the edge's family") } else { Ok(servers) }
    }

    /// Asks a few at a time; the answers are in the order of the questions. `None`: not answered, which is a flaw of the kind `flaw`.
    async fn ask(
        &mut self,
        questions: Vec<(Name, RecordType)>,
        flaw: impl Fn(Unanswered) -> Flaw,
    ) -> Vec<Option<Records>> {
        let mut answers = vec![None; questions.len()];
        let mut questions = questions.into_iter().enumerate();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < QUESTIONS_AT_ONCE
                && let Some((index, (name, record_type))) = questions.next()
            {
                let (lookups, deadline) = (Arc::clone(&self.lookups), self.deadline);
                asked.spawn(async move { (index, lookups.servers.ask(&name, record_type, deadline).await) });
            }
            match asked.join_next().await {
                None => return answers,
                Some(Ok((index, Ok(records)))) => {
                    if let Some(place) = answers.get_mut(index) {
                        *place = Some(records);
                    }
                }
                Some(Ok((_, Err(unanswered)))) => self.flawed(flaw(unanswered)),
                // A question is never aborted; if one panics, it was not answered.
                Some(Err(_)) => self.flawed(flaw(Unanswered::internal())),
            }
        }
    }

    /// Of several flaws the first of the gravest kind is told.
    fn flawed(&mut self, flaw: Flaw) {
        match (&self.flaw, &flaw) {
            (None, _) | (Some(Flaw::Address(_)), Flaw::Way(_)) => self.flaw = Some(flaw),
            _ => {}
        }
    }

    /// The answer is no longer good than the records that it was made from.
    fn used<'a>(&mut self, records: impl Iterator<Item = &'a Records>) {
        let ttls = records.filter(|records| !records.data.is_empty()).map(|records| records.ttl);
        self.ttl = ttls.min().unwrap_or(self.ttl).min(self.ttl);
    }
}

impl Lookups {
    /// The services that NAPTR records name (RFC 3263 §4.1), the preferred ones first.
    fn services<'a>(&self, records: impl Iterator<Item = &'a Records>, secure: bool) -> Vec<Service> {
        let naptrs = records.flat_map(|records| &records.data).filter_map(|data| match data {
            RData::NAPTR(naptr) => Some(naptr),
            _ => None,
        });
        let mut services: Vec<Service> = naptrs
            .filter_map(|naptr| {
                let transport = transport_of(naptr)?;
                // A SIPS URI never goes by a service without S; a SIP URI may go by TLS if the edge speaks it.
                let is_wanted = if secure { transport == Transport::Tls } else { self.speaks(transport) };
                let rank = (naptr.order, naptr.preference);
                is_wanted.then(|| Service { rank, transport, name: naptr.replacement.clone() })
            })
            .collect();
        services.sort_unstable_by(|a, b| (a.rank, a.transport, &a.name).cmp(&(b.rank, b.transport, &b.name)));
        services.dedup();
        services.truncate(MOST_SERVICES);
        services
    }

    /// The services to ask for when no NAPTR record names one: those of the URI's transport, else of each that the edge speaks.
    fn usual_services(&self, query: &Query) -> Vec<Service> {
        let transports: &[Transport] = match query.transport {
            _ if query.secure => &[Transport::Tls],
            Some(Transport::Udp) => &[Transport::Udp],
            Some(Transport::Tcp) => &[Transport::Tcp],
            Some(Transport::Tls) => &[Transport::Tls],
            None => &[Transport::Udp, Transport::Tcp],
        };
        let wanted =
            transports.iter().filter(|transport| query.transport.is_some() || query.secure || self.speaks(**transport));
        (0..)
            .zip(wanted)
            .filter_map(|(place, transport)| {
                let prefix = match transport {
                    Transport::Udp => "_sip._udp.",
                    Transport::Tcp => "_sip._tcp.",
                    Transport::Tls => "_sips._tcp.",
                };
                // A name that is too long with the prefix has no such records.
                Some(Service { rank: (place, 0), transport: *transport, name: name(prefix, &query.host)? })
            })
            .collect()
    }

    fn speaks(&self, transport: Transport) -> bool {
        self.transports.contains(&transport)
    }

    fn address_type(&self) -> RecordType {
        if self.ipv4 { RecordType::A } else { RecordType::AAAA }
    }
}

/// The transport of a NAPTR record that leads to SRV records of SIP; `None` for others, and for those in error (RFC 3403 §4.1: both
/// regular expression and replacement).
fn transport_of(naptr: &NAPTR) -> Option<Transport> {
    let leads_to_srv =
        naptr.flags.eq_ignore_ascii_case(b"s") && naptr.regexp.is_empty() && !naptr.replacement.is_root();
    let services = [("SIP+D2U", Transport::Udp), ("SIP+D2T", Transport::Tcp), ("SIPS+D2T", Transport::Tls)];
    let service = services.into_iter().find(|(service, _)| naptr.services.eq_ignore_ascii_case(service.as_bytes()));
    service.filter(|_| leads_to_srv).map(|(_, transport)| transport)
}

/// What the SRV records of a service lead to. One whose target is the root says that the service is not offered (RFC 2782).
fn targets(service: &Service, records: Option<&Records>) -> impl Iterator<Item = Target> {
    let srvs = records.into_iter().flat_map(|records| &records.data).filter_map(|data| match data {
        RData::SRV(srv) => Some(srv),
        _ => None,
    });
    srvs.filter(|srv| !srv.target.is_root() && srv.port != 0).map(|srv| {
        let SRV { priority, weight, port, target, .. } = srv;
        let rank = (service.rank.0, service.rank.1, *priority);
        let transport = service.transport;
        Target { rank, weight: *weight, transport, host: target.to_lowercase(), port: *port }
    })
}

/// The addresses in an answer, sorted; none that cannot be one server's.
fn addresses(records: &Option<Records>) -> Vec<IpAddr> {
    let data = records.iter().flat_map(|records| &records.data);
    let mut ips: Vec<IpAddr> = data
        .filter_map(|data| match data {
            RData::A(a) if !a.0.is_broadcast() => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        })
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
        .collect();
    ips.sort_unstable();
    ips.dedup();
    ips.truncate(MOST_ADDRESSES);
    ips
}

/// What one of several addresses gets of its target's weight. Weights are as in the records while each target has one address; else
/// all are larger by the same factor, so that the parts of small ones do not come out as 0.
fn shares(targets: &[Target], addresses: &BTreeMap<&Name, Vec<IpAddr>>) -> impl Fn(u16, usize) -> u16 + Copy + use<> {
    let one_each = addresses.values().all(|ips| ips.len() <= 1);
    let heaviest = targets.iter().map(|target| target.weight).max().unwrap_or_default();
    let factor = if one_each { 1 } else { PARTS.min(u32::from(u16::MAX) / u32::from(heaviest.max(1))) };
    move |weight, parts| {
        let share = u32::from(weight) * factor / u32::try_from(parts).unwrap_or(u32::MAX).max(1);
        // Only a weight of 0 says that a server is to be chosen rarely.
        u16::try_from(share).unwrap_or(u16::MAX).max(weight.min(1))
    }
}

/// Can be divided by any number of addresses up to [`MOST_ADDRESSES`].
const PARTS: u32 = 840;

/// Ranks as small numbers: 0 for the best, 1 for the next.
fn dense(mut servers: Vec<(Rank, Server)>) -> Vec<Server> {
    let mut ranks: Vec<Rank> = servers.iter().map(|(rank, _)| *rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    for (rank, server) in &mut servers {
        server.priority = u32::try_from(ranks.partition_point(|other| other < rank)).unwrap_or(u32::MAX);
    }
    let mut servers: Vec<Server> = servers.into_iter().map(|(_, server)| server).collect();
    servers.sort_unstable();
    servers.dedup();
    servers
}

/// `host` after `prefix` as a complete name, which keeps search domains out. `None`: not a name, or too long.
fn name(prefix: &str, host: &str) -> Option<Name> {
    let host = host.trim_end_matches('.');
    if host.is_empty() {
        return None;
    }
    Name::from_ascii(format!("{prefix}{host}.")).ok()
}

#[cfg(test)]
mod tests;
