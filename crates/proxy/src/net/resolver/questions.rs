//! Which names are asked for, which wait, and what an answer is worth.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::lookup::{Answer, Flaw};
use crate::engine::Query;

/// Lookups under way at a time of names that were answered before, and as many of others. What strangers make the edge look up (a
/// Contact with a name whose servers are silent) then never holds up the destinations. Each has up to four sockets.
const LOOKUPS_AT_ONCE: usize = 16;

/// Names that may wait for their turn: as many as an engine knows. Past them the answer is empty at once.
const MOST_WAITING: usize = 1_024;

/// Names of which it is remembered that they were answered: twice as many as an engine knows, since they come and go.
const MOST_KNOWN: usize = 2_048;

/// For so long after a whole answer one with a [`Flaw::Way`] is not used: it may name a host that only looks like the right server,
/// while the engine still has the right ones. After that it is better than nothing.
const WHOLE_ONES_STAY: Duration = Duration::from_secs(600);

/// How long an answer is good that is not whole.
const FLAWED_TTL: Duration = Duration::from_secs(30);

/// Questions of the shards: each name is looked up once at a time, and few at a time.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// How often each name was asked for while it waits or is being looked up.
    asked: HashMap<Query, usize>,
    /// Those that were answered before, and others.
    known: Line,
    unknown: Line,
    /// When each name was last answered whole.
    whole: HashMap<Query, Instant>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Query>,
    under_way: HashSet<Query>,
}

impl Questions {
    /// A shard wants to know. `false`: too many wait.
    pub(super) fn add(&mut self, query: Query) -> bool {
        if let Some(count) = self.asked.get_mut(&query) {
            *count += 1;
            return true;
        }
        let line = if self.whole.contains_key(&query) { &mut self.known } else { &mut self.unknown };
        if line.waiting.len() >= MOST_WAITING {
            return false;
        }
        line.waiting.push_back(query.clone());
        self.asked.insert(query, 1);
        true
    }

    /// The next name to look up, if one more may be under way.
    pub(super) fn start(&mut self) -> Option<Query> {
        self.known.start().or_else(|| self.unknown.start())
    }

    /// A lookup has ended: how often it was asked for. What is left of `answer` is what the engines get.
    pub(super) fn finish(&mut self, query: &Query, answer: &mut Answer, now: Instant) -> usize {
        self.known.under_way.remove(query);
        self.unknown.under_way.remove(query);
        match &answer.flaw {
            None => {
                if self.whole.len() >= MOST_KNOWN {
                    self.whole.clear();
                }
                self.whole.insert(query.clone(), now);
            }
            Some(flaw) => {
                let whole = self.whole.get(query);
                let is_recent = whole.is_some_and(|whole| now.saturating_duration_since(*whole) < WHOLE_ONES_STAY);
                if is_recent && matches!(flaw, Flaw::Way(_)) {
                    answer.servers.clear();
                }
                answer.ttl = answer.ttl.min(FLAWED_TTL);
            }
        }
        self.asked.remove(query).unwrap_or_default()
    }
}

impl Line {
    fn start(&mut self) -> Option<Query> {
        if self.under_way.len() >= LOOKUPS_AT_ONCE {
            return None;
        }
        let query = self.waiting.pop_front()?;
        self.under_way.insert(query.clone());
        Some(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Server, Transport};
    use crate::net::resolver::servers::Unanswered;

    fn query(host: &str) -> Query {
        Query { host: host.to_owned(), port: None, transport: None, secure: false }
    }

    fn answer(flaw: Option<Flaw>) -> Answer {
        let address = "192.0.2.1:5060".parse().unwrap();
        let server = Server { priority: 0, weight: 1, transport: Transport::Udp, address };
        Answer { servers: vec![server], ttl: Duration::from_secs(300), flaw }
    }

    #[test]
    fn a_name_is_looked_up_once_at_a_time_and_its_askers_are_counted() {
        let mut questions = Questions::default();
        assert!(questions.add(query("a")) && questions.add(query("a")));
        assert_eq!(questions.start(), Some(query("a")));
        assert!(questions.add(query("a")));
        assert_eq!(questions.start(), None);
        assert_eq!(questions.finish(&query("a"), &mut answer(None), Instant::now()), 3);
        assert!(questions.add(query("a")));
        assert_eq!(questions.start(), Some(query("a")));
    }

    #[test]
    fn names_that_hang_do_not_hold_up_a_name_that_was_answered_before() {
        let mut questions = Questions::default();
        questions.add(query("destination"));
        questions.start().unwrap();
        questions.finish(&query("destination"), &mut answer(None), Instant::now());
        for number in 0..100 {
            assert!(questions.add(query(&format!("stranger-{number}"))));
        }
        assert_eq!(std::iter::from_fn(|| questions.start()).count(), LOOKUPS_AT_ONCE);
        questions.add(query("destination"));
        assert_eq!(questions.start(), Some(query("destination")));
        assert_eq!(questions.start(), None);
    }

    #[test]
    fn past_the_bound_a_new_name_is_turned_away_and_one_that_waits_is_counted() {
        let mut questions = Questions::default();
        for number in 0..MOST_WAITING {
            assert!(questions.add(query(&number.to_string())));
        }
        assert!(!questions.add(query("one too many")));
        assert!(questions.add(query("7")));
    }

    #[test]
    fn after_a_whole_answer_one_whose_way_is_unsure_is_not_used_for_a_while() {
        let mut questions = Questions::default();
        let (mut now, way) = (Instant::now(), || answer(Some(Flaw::Way(Unanswered::internal()))));
        let mut first = way();
        questions.finish(&query("a"), &mut first, now);
        assert_eq!((first.servers.len(), first.ttl), (1, FLAWED_TTL), "better than nothing");
        questions.finish(&query("a"), &mut answer(None), now);
        let mut second = way();
        questions.finish(&query("a"), &mut second, now);
        assert!(second.servers.is_empty());
        let mut partial = answer(Some(Flaw::Address(Unanswered::internal())));
        questions.finish(&query("a"), &mut partial, now);
        assert_eq!(partial.servers.len(), 1, "the servers are the right ones, if not all");
        now += WHOLE_ONES_STAY;
        let mut third = way();
        questions.finish(&query("a"), &mut third, now);
        assert_eq!(third.servers.len(), 1);
    }
}
