//! Host names that requests go to, and when each has to be resolved again.

use std::collections::BTreeMap;
use std::time::Duration;

use sipedge_sip::Time;

use super::flow::{Query, Server};

/// Servers of host names, asked for ahead of the calls and refreshed before they are needed again. The last good answer stays when
/// the name servers are away.
#[derive(Debug, Default)]
pub(super) struct Names {
    entries: BTreeMap<Query, Name>,
    /// When the next name has to be asked for.
    next: Option<Time>,
}

#[derive(Debug)]
struct Name {
    servers: Vec<Server>,
    ask_at: Time,
    /// Whether the name servers have said anything yet.
    answered: bool,
    /// Destinations of the configuration stay; names that a dialog's remote target brought go when their answer is old.
    stays: bool,
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Servers(usize),
    Failed,
}

impl Names {
    /// A destination of the configuration: asked for at once.
    pub(super) fn add_destination(&mut self, query: &Query, now: Time) {
        match self.entries.get_mut(query) {
            Some(name) => name.stays = true,
            None => self.add(query.clone(), now, true),
        }
    }

    /// Destinations of a configuration that is not in force any more are forgotten like any other name.
    pub(super) fn release_destinations(&mut self) {
        for name in self.entries.values_mut() {
            name.stays = false;
        }
    }

    /// The servers that `query` leads to, sorted; empty when there is none. `None`: not known yet, and being asked for.
    pub(super) fn servers(&mut self, query: &Query, now: Time) -> Option<&[Server]> {
        if query.host.len() > LONGEST_NAME {
            return Some(&[]);
        }
        if !self.entries.contains_key(query) {
            // Those of the configuration do not count: neither keeps the other out.
            if self.entries.values().filter(|name| !name.stays).count() >= MOST_NAMES {
                return Some(&[]);
            }
            self.add(query.clone(), now, false);
        }
        self.entries.get(query).filter(|name| name.answered || name.stays).map(|name| name.servers.as_slice())
    }

    /// The servers as far as they are known, without asking for more.
    pub(super) fn known(&self, query: &Query) -> &[Server] {
        self.entries.get(query).map(|name| name.servers.as_slice()).unwrap_or_default()
    }

    /// The name servers have answered.
    pub(super) fn handle_resolved(&mut self, now: Time, query: &Query, servers: &[Server], ttl: Duration) -> Change {
        let Some(name) = self.entries.get_mut(query) else { return Change::None };
        name.answered = true;
        let mut sorted = servers.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.truncate(MOST_SERVERS);
        let change = if sorted.is_empty() {
            name.ask_at = now + RETRY;
            Change::Failed
        } else {
            let ttl = ttl.clamp(SHORTEST_TTL, LONGEST_TTL);
            name.ask_at = now + (ttl - ttl / AHEAD);
            if sorted == name.servers { Change::None } else { Change::Servers(sorted.len()) }
        };
        if let Change::Servers(_) = change {
            name.servers = sorted;
        }
        // What only a message named is not worth a line in the log.
        let change = if name.stays { change } else { Change::None };
        self.next = self.entries.values().map(|name| name.ask_at).min();
        change
    }

    /// Calls `ask` for each name that has to be asked for now. A name that no destination has is forgotten instead, once it was answered.
    pub(super) fn poll(&mut self, now: Time, mut ask: impl FnMut(&Query)) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        self.entries.retain(|_, name| name.stays || !name.answered || name.ask_at > now);
        for (query, name) in &mut self.entries {
            if name.ask_at <= now {
                ask(query);
                name.ask_at = now + RETRY;
            }
        }
        self.next = self.entries.values().map(|name| name.ask_at).min();
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.next
    }

    fn add(&mut self, query: Query, now: Time, stays: bool) {
        self.entries.insert(query, Name { servers: Vec::new(), ask_at: now, answered: false, stays });
        self.next = Some(now);
    }
}

/// Names of remote targets that are not addresses are rare; more than these are not resolved.
const MOST_NAMES: usize = 1_024;
/// Servers of one name that are used: more than any carrier has.
const MOST_SERVERS: usize = 32;
/// RFC 1035 §2.3.4.
const LONGEST_NAME: usize = 253;
/// This part of the TTL before its end the name is asked for again: the answer is there before the old one is over.
const AHEAD: u32 = 10;
/// After a failure, and when no answer has come.
const RETRY: Duration = Duration::from_secs(5);
/// A TTL of 0 must not make a query per call.
const SHORTEST_TTL: Duration = Duration::from_secs(5);
/// Carriers move with notice, but not with that much.
const LONGEST_TTL: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::super::flow::Transport;
    use super::*;

    const NOW: Time = Time::from_micros(1_800_000_000_000_000);

    fn query(host: &str) -> Query {
        Query { host: host.into(), port: None, transport: None, secure: false }
    }

    fn server(address: &str) -> Server {
        Server { priority: 0, weight: 1, transport: Transport::Udp, address: address.parse().unwrap() }
    }

    /// What is asked for at this moment, and what `poll_timeout` says then.
    fn asked(names: &mut Names, now: Time) -> Vec<String> {
        let mut asked = Vec::new();
        names.poll(now, |query| asked.push(query.host.clone()));
        assert!(names.poll_timeout().is_none_or(|next| next > now), "nothing that is due is left");
        asked
    }

    #[test]
    fn a_name_is_asked_for_again_before_its_answer_is_over() {
        let mut names = Names::default();
        names.add_destination(&query("a"), NOW);
        assert_eq!(asked(&mut names, NOW), ["a"]);
        let ttl = Duration::from_secs(300);
        assert_eq!(names.handle_resolved(NOW, &query("a"), &[server("192.0.2.1:5060")], ttl), Change::Servers(1));
        let next = names.poll_timeout().unwrap();
        assert_eq!(next.since(NOW), Duration::from_secs(270));
        assert!(asked(&mut names, next - Duration::from_micros(1)).is_empty());
        assert_eq!(asked(&mut names, next), ["a"]);
        assert_eq!(names.known(&query("a")), [server("192.0.2.1:5060")], "the old answer serves meanwhile");
        assert_eq!(names.handle_resolved(next, &query("a"), &[server("192.0.2.1:5060")], ttl), Change::None);
    }

    #[test]
    fn the_last_good_answer_stays_while_the_name_servers_are_away() {
        let mut names = Names::default();
        names.add_destination(&query("a"), NOW);
        asked(&mut names, NOW);
        names.handle_resolved(NOW, &query("a"), &[server("192.0.2.1:5060")], Duration::from_secs(60));
        let mut now = NOW;
        let mut questions = 0;
        while now.since(NOW) < Duration::from_secs(86_400) {
            now = names.poll_timeout().unwrap();
            questions += asked(&mut names, now).len();
            assert_eq!(names.handle_resolved(now, &query("a"), &[], Duration::ZERO), Change::Failed);
            assert_eq!(names.known(&query("a")), [server("192.0.2.1:5060")]);
        }
        assert_eq!(
            questions as u64,
            (86_400 - 54_u64).div_ceil(RETRY.as_secs()) + 1,
            "every 5 s once the answer is old"
        );
    }

    #[test]
    fn extreme_times_to_live_are_bounded() {
        let mut names = Names::default();
        names.add_destination(&query("a"), NOW);
        asked(&mut names, NOW);
        for (ttl, wait) in [(Duration::ZERO, 4_500), (Duration::MAX, 3_240_000)] {
            names.handle_resolved(NOW, &query("a"), &[server("192.0.2.1:5060")], ttl);
            assert_eq!(names.poll_timeout().unwrap().since(NOW), Duration::from_millis(wait));
        }
        let many: Vec<Server> = (0..100).map(|last| server(&format!("192.0.2.{last}:5060"))).collect();
        let change = names.handle_resolved(NOW, &query("a"), &many, Duration::ZERO);
        assert_eq!(change, Change::Servers(MOST_SERVERS));
        assert_eq!(names.known(&query("a")).len(), MOST_SERVERS);
    }

    #[test]
    fn names_of_strangers_are_bounded_and_go_and_those_of_the_configuration_stay() {
        let mut names = Names::default();
        for number in 0..2 * MOST_NAMES {
            assert_eq!(
                names.servers(&query(&format!("stranger-{number}")), NOW),
                (number >= MOST_NAMES).then_some(&[][..])
            );
        }
        for number in 0..2 * MOST_NAMES {
            names.add_destination(&query(&format!("ours-{number}")), NOW);
        }
        assert_eq!(asked(&mut names, NOW).len(), 3 * MOST_NAMES);
        let answer = [server("192.0.2.1:5060")];
        let every: Vec<Query> = names.entries.keys().cloned().collect();
        for query in &every {
            names.handle_resolved(NOW, query, &answer, Duration::from_secs(60));
        }
        assert_eq!(names.servers(&query("stranger-0"), NOW), Some(&answer[..]));
        assert_eq!(names.servers(&query("one more"), NOW), Some(&[][..]), "there is room for no more of them");
        let later = NOW + Duration::from_secs(60);
        assert_eq!(asked(&mut names, later).len(), 2 * MOST_NAMES, "nobody asks for a stranger's name a second time");
        assert_eq!(names.entries.len(), 2 * MOST_NAMES);
        assert_eq!(names.servers(&query("one more"), later), None, "there is room again");
    }

    #[test]
    fn a_name_that_a_new_configuration_keeps_keeps_its_answer_and_one_that_it_drops_goes() {
        let mut names = Names::default();
        for host in ["a", "b"] {
            names.add_destination(&query(host), NOW);
        }
        asked(&mut names, NOW);
        for host in ["a", "b"] {
            names.handle_resolved(NOW, &query(host), &[server("192.0.2.1:5060")], Duration::from_secs(60));
        }
        names.release_destinations();
        names.add_destination(&query("a"), NOW);
        assert_eq!(names.known(&query("a")).len(), 1);
        let later = NOW + Duration::from_secs(60);
        assert_eq!(asked(&mut names, later), ["a"]);
        assert!(names.known(&query("b")).is_empty());
        assert_eq!(
            names.handle_resolved(later, &query("b"), &[server("192.0.2.1:5060")], Duration::ZERO),
            Change::None
        );
    }
}
