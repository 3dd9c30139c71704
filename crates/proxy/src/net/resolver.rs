use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::inbox::{Inbox, Order};
use crate::engine::{Event, Query, Server, Transport};

/// Time for one name server to answer once. The VPC's resolver answers within milliseconds; a lost packet should cost no more than this.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// Times that all name servers are asked before a name counts as unanswered.
const ATTEMPTS: usize = 3;

/// What a shard tells the control thread.
#[derive(Debug)]
pub(super) enum Report {
    /// The servers of this are wanted.
    Resolve(Query),
    /// Something for the log.
    Event(Event),
    /// From now on these are asked.
    NameServers(Vec<SocketAddr>),
}

/// The control thread's work: answers the shards' questions, each name asked for once at a time, and writes the log. Ends when the
/// last shard has ended.
#[derive(Debug)]
pub(super) struct Desk {
    /// Name servers, in order.
    pub(super) servers: Vec<SocketAddr>,
    /// Whether destinations are reached over IPv4: the family of the sockets.
    pub(super) ipv4: bool,
    /// The shards.
    pub(super) inboxes: Arc<[Inbox]>,
    /// Their questions and reports.
    pub(super) reports: UnboundedReceiver<Report>,
    /// Questions not answered yet.
    pub(super) unanswered: Arc<AtomicUsize>,
}

impl Desk {
    pub(super) async fn run(mut self) {
        let mut asking = resolver(&self.servers, self.ipv4);
        // How often each name was asked for while its query is under way.
        let mut asked: HashMap<Query, usize> = HashMap::new();
        let mut queries = JoinSet::new();
        let mut log = Log::default();
        loop {
            tokio::select! {
                report = self.reports.recv() => match report {
                    None => return,
                    Some(Report::Event(event)) => log.write(event),
                    Some(Report::NameServers(servers)) => asking = resolver(&servers, self.ipv4),
                    Some(Report::Resolve(query)) => {
                        let count = asked.entry(query.clone()).or_default();
                        *count += 1;
                        if *count == 1 {
                            queries.spawn(lookup(asking.clone(), query));
                        }
                    }
                },
                Some(answer) = queries.join_next() => {
                    // Queries are never aborted and do not panic; if one did, its name stays unanswered and the rest goes on.
                    let Ok((query, servers, ttl)) = answer else { continue };
                    let count = asked.remove(&query).unwrap_or_default();
                    for inbox in self.inboxes.iter() {
                        inbox.order(Order::Resolved { query: query.clone(), servers: servers.clone(), ttl });
                    }
                    self.unanswered.fetch_sub(count, Ordering::Relaxed);
                }
            }
        }
    }
}

fn resolver(servers: &[SocketAddr], ipv4: bool) -> Option<TokioResolver> {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = QUERY_TIMEOUT;
    options.attempts = ATTEMPTS;
    options.ip_strategy = if ipv4 { LookupIpStrategy::Ipv4Only } else { LookupIpStrategy::Ipv6Only };
    // The engine keeps the answers; a second cache would only add its age.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    builder.build().inspect_err(|error| tracing::error!("no resolver: {error}")).ok()
}

/// The servers of `query` and how long they are good; none when the name servers gave none. The engine decides when to ask again.
/// A and AAAA only: NAPTR and SRV (RFC 3263) go here, before the addresses.
async fn lookup(resolver: Option<TokioResolver>, query: Query) -> (Query, Vec<Server>, Duration) {
    let Some(resolver) = resolver else { return (query, Vec::new(), Duration::ZERO) };
    // The final dot keeps search domains out.
    match resolver.lookup_ip(format!("{}.", query.host.trim_end_matches('.'))).await {
        Ok(answer) => {
            let ttl = answer.valid_until().saturating_duration_since(Instant::now());
            let transport = query.transport.unwrap_or(Transport::Udp);
            let port = query.port.unwrap_or(transport.default_port());
            let server = |ip| Server { priority: 0, weight: 1, transport, address: SocketAddr::new(ip, port) };
            let servers = answer.iter().map(server).collect();
            (query, servers, ttl)
        }
        Err(error) => {
            tracing::debug!(host = query.host, "name not resolved: {error}");
            (query, Vec::new(), Duration::ZERO)
        }
    }
}

/// What was last logged of each name: the shards all report the same, and a name server that is away says nothing new.
#[derive(Debug, Default)]
struct Log(HashMap<String, Event>);

impl Log {
    fn write(&mut self, event: Event) {
        let subject = match &event {
            Event::Resolved { host, .. } | Event::Unresolved { host } => host.clone(),
            Event::Destination { transport, address, .. } => format!("{transport}:{address}"),
        };
        if self.0.get(&subject) == Some(&event) {
            return;
        }
        match &event {
            Event::Destination { trunk, transport, address, health, reason } => {
                tracing::warn!(trunk, %transport, %address, ?health, reason, "destination's health changed");
            }
            Event::Resolved { host, servers } => tracing::info!(host, servers, "destination resolved"),
            Event::Unresolved { host } => {
                tracing::warn!(host, "destination has no address: name servers gave none or did not answer");
            }
        }
        if self.0.len() >= MOST_LOGGED {
            self.0.clear();
        }
        self.0.insert(subject, event);
    }
}

/// Names whose last log line is remembered; past them some lines come twice.
const MOST_LOGGED: usize = 1_024;
