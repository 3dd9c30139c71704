//! How many connections there may be, and whose.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::config::Streams;

/// Connections of unknown sources, all together, and as many to unknown peers, where a Contact leads. One is enough to be told 403; more
/// would be a way to take the places of peers.
const MAX_STRANGERS: u32 = 64;

/// Connections that one unknown source may have.
const MAX_PER_STRANGER: u32 = 2;

/// Part of all connections that unknown sources may have at most: a fourth of a small limit.
const STRANGERS_SHARE: u32 = 4;

/// The places that are taken.
#[derive(Debug, Default)]
pub(super) struct Places {
    all: u32,
    strangers: u32,
    opened_to_strangers: u32,
    /// Accepted connections by source; only sources that have one.
    by_source: HashMap<IpAddr, u32>,
}

/// A taken place. It has to be given back by [`Places::give`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// Of a connection that a peer opened.
    Accepted { source: IpAddr, is_known: bool },
    /// Of a connection of the edge; `is_known`: to a peer of the configuration.
    Opened { is_known: bool },
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Too many connections in all.
    All,
    /// This source, or strangers together, have their share.
    Source,
}

impl Places {
    /// Takes a place for a connection, if there is one.
    pub(super) fn take(&mut self, place: Place, limits: &Streams) -> Result<Place, Full> {
        if self.all >= limits.connections {
            return Err(Full::All);
        }
        let strangers = MAX_STRANGERS.min(limits.connections / STRANGERS_SHARE);
        if let Place::Opened { is_known: false } = place {
            if self.opened_to_strangers >= strangers {
                return Err(Full::Source);
            }
            self.opened_to_strangers += 1;
        }
        if let Place::Accepted { source, is_known } = place {
            let most = if is_known { u32::MAX } else { MAX_PER_STRANGER }.min(limits.connections_per_source);
            let taken = self.by_source.get(&source).copied().unwrap_or_default();
            if taken >= most || (!is_known && self.strangers >= strangers) {
                return Err(Full::Source);
            }
            self.by_source.insert(source, taken + 1);
            self.strangers += u32::from(!is_known);
        }
        self.all += 1;
        Ok(place)
    }

    /// Gives a place back.
    pub(super) fn give(&mut self, place: Place) {
        self.all = self.all.saturating_sub(1);
        if let Place::Opened { is_known: false } = place {
            self.opened_to_strangers = self.opened_to_strangers.saturating_sub(1);
        }
        if let Place::Accepted { source, is_known } = place {
            self.strangers = self.strangers.saturating_sub(u32::from(!is_known));
            if let Some(taken) = self.by_source.get_mut(&source) {
                *taken -= 1;
                if *taken == 0 {
                    self.by_source.remove(&source);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(last: u8, is_known: bool) -> Place {
        Place::Accepted { source: IpAddr::from([192, 0, 2, last]), is_known }
    }

    #[test]
    fn each_limit_refuses_what_is_past_it_and_a_place_given_back_is_free() {
        let limits = Streams { connections: 10, connections_per_source: 4, ..Streams::default() };
        let mut places = Places::default();
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(places.take(accepted(1, true), &limits).unwrap());
        }
        assert_eq!(places.take(accepted(1, true), &limits).unwrap_err(), Full::Source);
        held.push(places.take(accepted(2, false), &limits).unwrap());
        held.push(places.take(accepted(3, false), &limits).unwrap());
        assert_eq!(
            places.take(accepted(4, false), &limits).unwrap_err(),
            Full::Source,
            "a fourth of ten for strangers"
        );
        let (known, unknown) = (Place::Opened { is_known: true }, Place::Opened { is_known: false });
        for _ in 0..2 {
            held.push(places.take(unknown, &limits).unwrap());
        }
        assert_eq!(places.take(unknown, &limits).unwrap_err(), Full::Source, "a fourth of ten to strangers");
        while held.len() < 10 {
            held.push(places.take(known, &limits).unwrap());
        }
        assert_eq!(places.take(known, &limits).unwrap_err(), Full::All);
        for place in held {
            places.give(place);
        }
        assert!(
            places.by_source.is_empty() && (places.all, places.strangers, places.opened_to_strangers) == (0, 0, 0),
            "{places:?}"
        );
    }
}
