//! The control thread: answers the shards' questions for names, and writes the log.

mod log;
mod lookup;
mod questions;
mod servers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::inbox::{Inbox, Order};
use crate::engine::{Event, Query, Server, Transport};
use log::Log;
use lookup::{Answer, Flaw, Lookups};
use questions::Questions;
use servers::{NameServers, Unanswered};

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

/// The control thread's work: answers the shards' questions, each name looked up once at a time and for all shards, and writes the
/// log. Ends when the last shard has ended.
#[derive(Debug)]
pub(super) struct Desk {
    /// Name servers, in order.
    pub(super) servers: Vec<SocketAddr>,
    /// Whether destinations are reached over IPv4: the family of the sockets.
    pub(super) ipv4: bool,
    /// The transports that a name may turn out to have.
    pub(super) transports: Vec<Transport>,
    /// The shards.
    pub(super) inboxes: Arc<[Inbox]>,
    /// Their questions and reports.
    pub(super) reports: UnboundedReceiver<Report>,
    /// Questions not answered yet.
    pub(super) unanswered: Arc<AtomicUsize>,
}

impl Desk {
    pub(super) async fn run(mut self) {
        let transports = std::mem::take(&mut self.transports);
        let ipv4 = self.ipv4;
        let asking = |servers: &[SocketAddr]| {
            let servers = NameServers::new(servers);
            Arc::new(Lookups { servers, ipv4, transports: transports.clone() })
        };
        let mut lookups = asking(&self.servers);
        let mut questions = Questions::default();
        let mut under_way = JoinSet::new();
        let mut log = Log::default();
        loop {
            while let Some(query) = questions.start() {
                under_way.spawn(look_up(Arc::clone(&lookups), query));
            }
            tokio::select! {
                report = self.reports.recv() => match report {
                    None => return,
                    Some(Report::Event(event)) => log.write(event),
                    Some(Report::NameServers(servers)) => lookups = asking(&servers),
                    Some(Report::Resolve(query)) => {
                        if !questions.add(query.clone()) {
                            self.answer(query, &[], Duration::ZERO, 1);
                        }
                    }
                },
                // The tasks are never aborted and do not panic: what may panic in them is caught.
                Some(Ok((query, mut answer))) = under_way.join_next() => {
                    let count = questions.finish(&query, &mut answer, Instant::now());
                    tracing::debug!(?query, ?answer, "looked up");
                    log.note(&query.host, &answer);
                    self.answer(query, &answer.servers, answer.ttl, count);
                }
            }
        }
    }

    fn answer(&self, query: Query, servers: &[Server], ttl: Duration, count: usize) {
        for inbox in self.inboxes.iter() {
            inbox.order(Order::Resolved { query: query.clone(), servers: servers.to_vec(), ttl });
        }
        self.unanswered.fetch_sub(count, Ordering::Relaxed);
    }
}

/// In a task of its own, so that a panic over what a name server sent costs one answer and not the name for ever.
async fn look_up(lookups: Arc<Lookups>, query: Query) -> (Query, Answer) {
    let asked = query.clone();
    let task = tokio::spawn(async move { lookups.lookup(&asked).await });
    let answer = task.await.unwrap_or_else(|_| Answer {
        servers: Vec::new(),
        ttl: Duration::ZERO,
        flaw: Some(Flaw::Way(Unanswered::internal())),
    });
    (query, answer)
}
