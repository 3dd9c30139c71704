//! The name servers: one question at a time, asked of each until one answers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequestOptions, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use tokio::time::Instant;

/// Time for one name server to answer, in which the question is sent again over UDP. The VPC's resolver answers within milliseconds
/// what it knows, and within a few hundred what it has to ask for.
const SERVER_TIMEOUT: Duration = Duration::from_secs(1);

/// Times that each name server is asked before a question counts as unanswered.
const ROUNDS: usize = 2;

/// Aliases (CNAME) that lead from a name to its records. A chain is rarely longer than two; a longer one than this is a circle.
const MOST_ALIASES: usize = 8;

/// The name servers of the configuration.
pub(super) struct NameServers {
    /// Each with its connections.
    servers: Vec<(SocketAddr, Exchange)>,
    /// The one that answered last: it is asked first.
    latest: AtomicUsize,
}

/// Questions and answers with one name server, over UDP, and over TCP when an answer was truncated.
///
/// Aliases are followed here and not by `Resolver`, which does not find SRV records behind one.
type Exchange = NameServerPool<TokioRuntimeProvider>;

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
        let exchange = |server: &SocketAddr| match exchange(*server) {
            Ok(exchange) => Some((*server, exchange)),
            Err(error) => {
                tracing::error!(%server, "name server cannot be used: {error}");
                None
            }
        };
        Self { servers: servers.iter().filter_map(exchange).collect(), latest: AtomicUsize::new(0) }
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
        for (index, (server, exchange)) in order {
            let time = deadline.min(Instant::now() + SERVER_TIMEOUT);
            let records = tokio::time::timeout_at(time, records(exchange, name, record_type)).await;
            match records.unwrap_or_else(|_| Err("no answer".to_owned())) {
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

impl Records {
    const NONE: Self = Self { data: Vec::new(), ttl: Duration::MAX };
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

/// `Err`: the name server says nothing of use.
async fn records(exchange: &Exchange, name: &Name, record_type: RecordType) -> Result<Records, String> {
    let (mut at, mut ttl, mut aliases) = (name.clone(), u32::MAX, 0);
    loop {
        let asked = at.clone();
        let query = Query::query(asked.clone(), record_type);
        let response = match exchange.lookup(query, DnsRequestOptions::default()).first_answer().await {
            Ok(response) => response,
            Err(error) => return nothing(error),
        };
        if !matches!(response.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return Err(response.response_code.to_string());
        }
        // As far as this answer leads. Records of other names in it are no answer to the question.
        loop {
            let own = response.answers.iter().filter(|record| record.name == at);
            let (mut data, mut alias) = (Vec::new(), None);
            for record in own {
                match &record.data {
                    RData::CNAME(target) => {
                        ttl = ttl.min(record.ttl);
                        alias = Some(target.0.clone());
                    }
                    found if found.record_type() == record_type => {
                        ttl = ttl.min(record.ttl);
                        data.push(found.clone());
                    }
                    _ => {}
                }
            }
            if !data.is_empty() {
                return Ok(Records { data, ttl: Duration::from_secs(ttl.into()) });
            }
            match alias {
                Some(_) if aliases == MOST_ALIASES => return Ok(Records::NONE),
                Some(target) => at = target,
                None => break,
            }
            aliases += 1;
        }
        // The answer ends at a name of which it says nothing: that name is asked for, unless this was it or it does not exist.
        if at == asked || response.response_code == ResponseCode::NXDomain {
            return Ok(Records::NONE);
        }
    }
}

/// `Ok`: the name server says that there are no such records, or does not know the type.
fn nothing(error: NetError) -> Result<Records, String> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(_) | DnsError::ResponseCode(ResponseCode::NotImp)) => Ok(Records::NONE),
        NetError::Timeout => Err("no answer".to_owned()),
        error => Err(error.to_string()),
    }
}

fn exchange(server: SocketAddr) -> Result<Exchange, NetError> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let mut options = ResolverOpts::default();
    options.timeout = SERVER_TIMEOUT;
    let context = PoolContext::new(options, TlsConfig::new()?);
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    Ok(Exchange::from_config([server], Arc::new(context), TokioRuntimeProvider::default()))
}
