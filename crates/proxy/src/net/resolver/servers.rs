//! The name servers: one question at a time, asked of each until one answers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use tokio::time::Instant;

/// Time for one name server to answer, in which the question is sent again over UDP. The VPC's resolver answers within milliseconds
/// what it knows, and within a few hundred what it has to ask for.
const SERVER_TIMEOUT: Duration = Duration::from_secs(1);

/// Times that each name server is asked before a question counts as unanswered.
const ROUNDS: usize = 2;

/// The name servers of the configuration.
pub(super) struct NameServers {
    /// One resolver each, so that one that is in error does not keep the next from being asked.
    servers: Vec<(SocketAddr, TokioResolver)>,
    /// The one that answered last: it is asked first.
    latest: AtomicUsize,
}

/// The answer to one question; without data when there are no such records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) data: Vec<RData>,
    /// The smallest TTL of the records, and of the aliases that led to them.
    pub(super) ttl: Duration,
}

/// No name server has answered a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unanswered(String);

impl NameServers {
    /// The servers are asked in this order, beginning with the one that answered last.
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        let built = servers.iter().map(|server| (*server, resolver(*server)));
        let built = built.filter_map(|(server, resolver)| match resolver {
            Ok(resolver) => Some((server, resolver)),
            Err(error) => {
                tracing::error!(%server, "name server cannot be used: {error}");
                None
            }
        });
        Self { servers: built.collect(), latest: AtomicUsize::new(0) }
    }

    /// The records of this type that `name` has, aliases followed. Ends by `deadline`.
    pub(super) async fn ask(
        &self,
        name: &Name,
        record_type: RecordType,
        deadline: Instant,
    ) -> Result<Records, Unanswered> {
        let mut reason = "no name server is configured".to_owned();
        let first = self.latest.load(Ordering::Relaxed);
        let order = self.servers.iter().enumerate().cycle().skip(first).take(self.servers.len() * ROUNDS);
        for (index, (server, resolver)) in order {
            // Bounded here as well: a resolver that follows aliases has its time for each of them.
            let time = deadline.min(Instant::now() + SERVER_TIMEOUT);
            let result = tokio::time::timeout_at(time, resolver.lookup(name.clone(), record_type)).await;
            let records = match result {
                Ok(Ok(lookup)) => {
                    let data = lookup.answers().iter().map(|record| record.data.clone());
                    let ttl = lookup.valid_until().saturating_duration_since(Instant::now().into_std());
                    Ok(Records { data: data.filter(|data| data.record_type() == record_type).collect(), ttl })
                }
                Ok(Err(error)) => nothing(error),
                Err(_) => Err("no answer".to_owned()),
            };
            match records {
                Ok(records) => {
                    self.latest.store(index, Ordering::Relaxed);
                    return Ok(records);
                }
                Err(error) => reason = format!("{server}: {error}"),
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(Unanswered(format!("{record_type} of {name}: {reason}")))
    }
}

impl Unanswered {
    /// For a question that ended without a result.
    pub(super) fn internal() -> Self {
        Self("a question ended unexpectedly".to_owned())
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NameServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|(server, _)| server)).finish()
    }
}

/// `Ok`: the name server says that there are no such records, or does not know the type. `Err`: it says nothing of use.
fn nothing(error: NetError) -> Result<Records, String> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
        {
            Ok(Records { data: Vec::new(), ttl: Duration::MAX })
        }
        NetError::Dns(DnsError::ResponseCode(ResponseCode::NotImp)) => {
            Ok(Records { data: Vec::new(), ttl: Duration::MAX })
        }
        NetError::Timeout => Err("no answer".to_owned()),
        error => Err(error.to_string()),
    }
}

fn resolver(server: SocketAddr) -> Result<TokioResolver, NetError> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let config = NameServerConfig::new(server.ip(), true, connections.into());
    let config = ResolverConfig::from_name_servers(vec![config]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = SERVER_TIMEOUT;
    // The rounds over all servers are the attempts.
    options.attempts = 0;
    // The engine keeps the answers; a second cache would only add its age.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}
