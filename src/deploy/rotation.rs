//! Rotation of the token keys, so that no call is lost: the new key verifies on every instance before it signs on any, and the old one
//! verifies until no call can be up that bears it.
//!
//! ```text
//! one key, it signs → the new one is added, it verifies → every instance has it → the new one signs, the old one verifies
//!   → a token's life later the old one is withdrawn
//! ```
//!
//! What has been done stands in the document itself, with its moments: a rotation that was cut off is continued by the next one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::journal::now_unix_ms;
use super::secrets::{FileStore, SecretStore, StoreError, TokenKey, TokenKeys};
use super::state::State;
use crate::target::lab::{InstanceId, Lab, LabError};

/// The secret's name in its store.
pub const TOKEN_KEYS: &str = "token-keys";

/// Seconds for which a token is good: no call that is longer goes through the edge anyway (the proxy's `engine::token`).
pub const TOKEN_LIFE_S: u64 = 24 * 3_600;

/// Seconds beside that for instances that took the change up late, and for clocks that differ.
const MARGIN_S: u64 = 600;

/// How long the lab's instances may take: they look every second, and a boot takes as long.
const LAB_DEADLINE: Duration = Duration::from_secs(30);

/// How often they are asked meanwhile.
const LAB_PAUSE: Duration = Duration::from_millis(100);

/// Periods after which instances that cannot be asked have taken a change up.
const LOOKS: u32 = 3;

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum Phase {
    /// One key, which signs and verifies.
    Settled,
    /// A second key verifies, and signs on no instance yet.
    Added {
        /// When it was added, in seconds since the Unix epoch.
        since: u64,
    },
    /// The new key signs, the old one verifies.
    Signing {
        /// When the new key began to sign, in seconds since the Unix epoch.
        since: u64,
        /// When the old one may be withdrawn.
        withdrawable: u64,
    },
}

/// What a rotation does, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum RotationEvent {
    /// A new key verifies.
    Added {
        /// Its number.
        id: u8,
    },
    /// Waits until every instance has the keys.
    Waiting {
        /// For what, and how that is known.
        text: String,
    },
    /// Every instance has them.
    Reached {
        /// How that is known.
        text: String,
    },
    /// This key signs from now on; the other one verifies.
    Signs {
        /// Its number.
        id: u8,
    },
    /// This key is good for nothing any more.
    Withdrawn {
        /// Its number.
        id: u8,
    },
}

/// Why keys were not rotated. What was done before stands, and the next rotation continues it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// The document cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is none.
    #[error("there are no token keys: `sipedge deploy` makes them")]
    NoKeys,
    /// It is no document of token keys.
    #[error(
        "the document of the token keys cannot be read: line {line}, column {column}; what it contains is not shown"
    )]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// It has not one key or two.
    #[error("the document of the token keys has {0} keys; one or two are what an edge can use")]
    Keys(usize),
    /// No random numbers.
    #[error("no random numbers for a new key: {0}")]
    Random(#[from] io::Error),
    /// The old key of the last rotation may still be needed.
    #[error("the token key {id} signed until {} s ago, and calls that bear it may be up for {} s yet", now.saturating_sub(*signed_until), withdrawable.saturating_sub(*now))]
    StillNeeded {
        /// The old key.
        id: u8,
        /// Now, in seconds since the Unix epoch.
        now: u64,
        /// When it last signed.
        signed_until: u64,
        /// When it may be withdrawn.
        withdrawable: u64,
    },
    /// The lab did not answer.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Not all instances took the keys up.
    #[error("{} did not take the keys up within {} s: {}", if instances.len() == 1 { "an instance" } else { "some instances" }, LAB_DEADLINE.as_secs(), instances.join("; "))]
    NotReached {
        /// Each with what it has.
        instances: Vec<String>,
    },
}

/// Knows when every running instance has taken up the keys.
pub trait Reach {
    /// What is waited for, and how it is known.
    fn describe(&self) -> String;

    /// Waits until every running instance has `keys`, which were written at `since` (seconds since the Unix epoch). Returns how that is
    /// known.
    fn wait(&self, keys: &TokenKeys, since: u64) -> Result<String, RotationError>;
}

/// The keys that an instance has, by number, and whether each signs; or why that is not known.
pub type KeysOfInstance = Result<Vec<(u8, bool)>, String>;

/// Whether the old key is to be withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdraw {
    /// Once no call can be up that bears it.
    WhenDue,
    /// Now; calls that bear it can no longer be ended through the edge.
    Now,
}

/// How far the rotation of `keys` is. Two keys without a history, as somebody may have written them by hand, are taken for a new one that
/// signs since `now` and its predecessor.
pub fn phase(keys: &TokenKeys, now: u64) -> Result<Phase, RotationError> {
    match keys.tokens.as_slice() {
        [_] => Ok(Phase::Settled),
        [_, second] => Ok(match (second.made, second.signs_since, second.signed_until) {
            (Some(since), None, None) => Phase::Added { since },
            (_, _, until) => {
                let since = until.unwrap_or(now);
                Phase::Signing { since, withdrawable: since + TOKEN_LIFE_S + MARGIN_S }
            }
        }),
        others => Err(RotationError::Keys(others.len())),
    }
}

/// The document in `store`.
pub fn read(store: &dyn SecretStore) -> Result<TokenKeys, RotationError> {
    let text = store.read(TOKEN_KEYS)?.ok_or(RotationError::NoKeys)?;
    // The reader's own words may have a part of what it read.
    serde_json::from_str(&text).map_err(|error| RotationError::Malformed { line: error.line(), column: error.column() })
}

/// Rotates the keys in `store`, or continues a rotation that was cut off: at its end a new key signs and the one of before verifies.
///
/// The old key of the rotation before is withdrawn first, if that is due; if it is not yet, nothing is done.
pub fn rotate(
    store: &dyn SecretStore,
    reach: &dyn Reach,
    tell: &mut dyn FnMut(RotationEvent),
) -> Result<TokenKeys, RotationError> {
    let mut keys = read(store)?;
    if let Phase::Signing { .. } = phase(&keys, now_unix_s())? {
        keys = finish(store, Withdraw::WhenDue, tell)?;
    }
    match phase(&keys, now_unix_s())? {
        // Not all places may have it yet.
        Phase::Added { .. } => write(store, &keys)?,
        Phase::Settled | Phase::Signing { .. } => {
            let new = TokenKey::generate(next_id(&keys), now_unix_s())?;
            tell(RotationEvent::Added { id: new.id });
            keys.tokens.push(new);
            write(store, &keys)?;
        }
    }
    // An instance may have looked just before the write was done.
    await_instances(reach, &keys, now_unix_s(), tell)?;
    let now = now_unix_s();
    keys.tokens.reverse();
    if let [new, old] = keys.tokens.as_mut_slice() {
        (new.signs_since, old.signed_until) = (Some(now), Some(now));
        tell(RotationEvent::Signs { id: new.id });
    }
    write(store, &keys)?;
    await_instances(reach, &keys, now_unix_s(), tell)?;
    Ok(keys)
}

/// Withdraws the old key, if there is one: the rotation is over.
pub fn finish(
    store: &dyn SecretStore,
    withdraw: Withdraw,
    tell: &mut dyn FnMut(RotationEvent),
) -> Result<TokenKeys, RotationError> {
    let mut keys = read(store)?;
    let now = now_unix_s();
    if let (Phase::Signing { since, withdrawable }, [_, old]) = (phase(&keys, now)?, keys.tokens.as_slice()) {
        let id = old.id;
        if withdraw == Withdraw::WhenDue && now < withdrawable {
            return Err(RotationError::StillNeeded { id, now, signed_until: since, withdrawable });
        }
        keys.tokens.truncate(1);
        write(store, &keys)?;
        tell(RotationEvent::Withdrawn { id });
    }
    Ok(keys)
}

/// [`finish`], where that is due. Returns the number of the key that was withdrawn.
pub fn finish_if_due(store: &dyn SecretStore) -> Result<Option<u8>, RotationError> {
    let mut withdrawn = None;
    let finished = finish(store, Withdraw::WhenDue, &mut |event| {
        if let RotationEvent::Withdrawn { id } = event {
            withdrawn = Some(id);
        }
    });
    match finished {
        Ok(_) | Err(RotationError::StillNeeded { .. }) => Ok(withdrawn),
        Err(error) => Err(error),
    }
}

/// A lab's instances are asked.
impl Reach for Lab {
    fn describe(&self) -> String {
        "every instance is asked".to_owned()
    }

    fn wait(&self, keys: &TokenKeys, _since: u64) -> Result<String, RotationError> {
        let wanted: Vec<(u8, bool)> = keys.tokens.iter().enumerate().map(|(place, key)| (key.id, place == 0)).collect();
        let deadline = Instant::now() + LAB_DEADLINE;
        loop {
            let have = keys_of_instances(self)?;
            let without: Vec<_> = have.iter().filter(|(_, keys)| keys.as_ref() != Ok(&wanted)).collect();
            if without.is_empty() {
                let names: Vec<String> = have.keys().map(|id| id.0.clone()).collect();
                return Ok(match names.as_slice() {
                    [] => "no instance runs".to_owned(),
                    names => names.join(", "),
                });
            }
            if Instant::now() >= deadline {
                let each = |(id, keys): &(&InstanceId, &KeysOfInstance)| match keys {
                    Ok(keys) => format!("{} has {}", id.0, shown(keys)),
                    Err(reason) => format!("{}: {reason}", id.0),
                };
                return Err(RotationError::NotReached { instances: without.iter().map(each).collect() });
            }
            std::thread::sleep(LAB_PAUSE);
        }
    }
}

/// Instances that cannot be asked from where an operator is: they look by themselves. A look may come a whole period after the write, be
/// refused, and be repeated a period later; the third period is for what a look itself takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwoLooks {
    /// Time between two looks, as the configuration has it (`secrets.poll_s`).
    pub poll: Duration,
}

impl Reach for TwoLooks {
    fn describe(&self) -> String {
        format!(
            "each instance looks at its secrets every {} s, and their metrics are not to be reached from here: after three times that all \
             have looked, even if a look failed",
            self.poll.as_secs()
        )
    }

    fn wait(&self, _keys: &TokenKeys, since: u64) -> Result<String, RotationError> {
        let passed = Duration::from_secs(now_unix_s().saturating_sub(since));
        std::thread::sleep((self.poll * LOOKS).saturating_sub(passed));
        Ok(format!("three times {} s have passed", self.poll.as_secs()))
    }
}

/// The keys that each running instance of a lab has, by its metrics: number, and whether it signs.
pub fn keys_of_instances(lab: &Lab) -> Result<BTreeMap<InstanceId, KeysOfInstance>, LabError> {
    let running = lab.status()?.instances.into_iter().filter(|instance| instance.pid.is_some());
    let asked = running.map(|instance| {
        let keys = match lab.http_get(&instance.id, "/metrics") {
            Ok((200, page)) => Ok(page.lines().filter_map(token_key).collect()),
            Ok((status, _)) => Err(format!("its metrics answer {status}")),
            Err(error) => Err(error.to_string()),
        };
        (instance.id, keys)
    });
    Ok(asked.collect())
}

/// Keys of an instance, as one says them.
pub fn shown(keys: &[(u8, bool)]) -> String {
    let each = |(id, signs): &(u8, bool)| format!("{id} ({})", if *signs { "signs" } else { "verifies" });
    keys.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// Where the secrets of a topology are that a lab is built from.
pub fn state_secrets(state: &State) -> FileStore {
    FileStore::new([secrets_of(state)])
}

/// Where the secrets of a topology in the lab are: those of the state, and those that the instances read.
pub fn lab_secrets(state: &State) -> FileStore {
    FileStore::new([secrets_of(state), state.lab_folder().join("secrets")])
}

fn secrets_of(state: &State) -> PathBuf {
    state.token_keys_file().parent().map(Path::to_owned).unwrap_or_default()
}

fn token_key(line: &str) -> Option<(u8, bool)> {
    let labels = line.strip_prefix("sipedge_token_key_info{id=\"")?;
    let (id, rest) = labels.split_once("\",signs=\"")?;
    Some((id.parse().ok()?, rest.starts_with('1')))
}

fn await_instances(
    reach: &dyn Reach,
    keys: &TokenKeys,
    since: u64,
    tell: &mut dyn FnMut(RotationEvent),
) -> Result<(), RotationError> {
    tell(RotationEvent::Waiting { text: reach.describe() });
    let text = reach.wait(keys, since)?;
    tell(RotationEvent::Reached { text });
    Ok(())
}

fn write(store: &dyn SecretStore, keys: &TokenKeys) -> Result<(), RotationError> {
    let text = serde_json::to_string_pretty(keys).map_err(|error| RotationError::Random(io::Error::other(error)))?;
    Ok(store.write(TOKEN_KEYS, &text)?)
}

/// The number after that of the key that signs, round at 255, and none that is in use.
fn next_id(keys: &TokenKeys) -> u8 {
    let used: Vec<u8> = keys.tokens.iter().map(|key| key.id).collect();
    let mut id = used.first().map_or(1, |id| id.wrapping_add(1));
    while used.contains(&id) {
        id = id.wrapping_add(1);
    }
    id
}

fn now_unix_s() -> u64 {
    now_unix_ms() / 1_000
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A store that stops working after so many writes, as a process that is killed does.
    struct Memory {
        value: RefCell<Option<String>>,
        writes: Cell<usize>,
    }

    impl Memory {
        fn new(keys: &TokenKeys) -> Self {
            Self { value: RefCell::new(serde_json::to_string(keys).ok()), writes: Cell::new(usize::MAX) }
        }
    }

    impl SecretStore for Memory {
        fn read(&self, _: &str) -> Result<Option<String>, StoreError> {
            Ok(self.value.borrow().clone())
        }

        fn write(&self, name: &str, value: &str) -> Result<(), StoreError> {
            let Some(left) = self.writes.get().checked_sub(1) else {
                let (name, place, reason) = (name.to_owned(), "memory".to_owned(), "killed".to_owned());
                return Err(StoreError { verb: "write", name, place, reason });
            };
            self.writes.set(left);
            self.value.replace(Some(value.to_owned()));
            Ok(())
        }

        fn remove(&self, _: &str) -> Result<(), StoreError> {
            self.value.replace(None);
            Ok(())
        }
    }

    /// Instances that have the keys at once; it notes which, and fails from the given wait on.
    #[derive(Default)]
    struct Instances {
        seen: RefCell<Vec<Vec<u8>>>,
        since: RefCell<Vec<u64>>,
        fails: Cell<bool>,
    }

    impl Reach for Instances {
        fn describe(&self) -> String {
            "they are asked".to_owned()
        }

        fn wait(&self, keys: &TokenKeys, since: u64) -> Result<String, RotationError> {
            if self.fails.get() {
                return Err(RotationError::NotReached { instances: vec!["i-1 has 1 (signs)".to_owned()] });
            }
            self.seen.borrow_mut().push(ids(keys));
            self.since.borrow_mut().push(since);
            Ok("all".to_owned())
        }
    }

    fn ids(keys: &TokenKeys) -> Vec<u8> {
        keys.tokens.iter().map(|key| key.id).collect()
    }

    /// One key of this number.
    fn one(id: u8) -> TokenKeys {
        let mut keys = TokenKeys::generate().expect("random numbers");
        keys.tokens[0].id = id;
        keys
    }

    fn silent(_: RotationEvent) {}

    /// As if the last change of the signing key were so long ago.
    fn age(store: &Memory, seconds: u64) {
        let mut keys = read(store).expect("keys");
        for key in &mut keys.tokens {
            key.signed_until = key.signed_until.map(|until| until - seconds);
        }
        write(store, &keys).expect("write");
    }

    #[test]
    fn the_new_key_verifies_everywhere_before_it_signs() {
        let (store, instances) = (Memory::new(&one(7)), Instances::default());
        let mut told = Vec::new();
        let keys = rotate(&store, &instances, &mut |event| told.push(event)).expect("rotated");
        assert_eq!(*instances.seen.borrow(), [vec![7, 8], vec![8, 7]]);
        assert_eq!((ids(&keys), ids(&read(&store).expect("keys"))), (vec![8, 7], vec![8, 7]));
        assert!(keys.tokens[0].signs_since.is_some() && keys.tokens[1].signed_until.is_some());
        assert_eq!((&told[0], &told[3]), (&RotationEvent::Added { id: 8 }, &RotationEvent::Signs { id: 8 }));

        // The old key may be needed, so that there is no place for a third one.
        let error = rotate(&store, &instances, &mut silent).expect_err("too early").to_string();
        assert!(error.contains("the token key 7 signed until"), "{error}");
        age(&store, TOKEN_LIFE_S + MARGIN_S);
        let mut told = Vec::new();
        let keys = rotate(&store, &instances, &mut |event| told.push(event)).expect("rotated");
        assert_eq!((ids(&keys), &told[0]), (vec![9, 8], &RotationEvent::Withdrawn { id: 7 }));
    }

    #[test]
    fn numbers_go_round_and_none_is_used_twice() {
        let (store, instances) = (Memory::new(&one(254)), Instances::default());
        for expected in [[255, 254], [0, 255], [1, 0]] {
            assert_eq!(ids(&rotate(&store, &instances, &mut silent).expect("rotated")), expected);
            age(&store, TOKEN_LIFE_S + MARGIN_S);
        }
        let mut keys = one(255);
        keys.tokens.push(TokenKey { id: 0, ..keys.tokens[0].clone() });
        assert_eq!(next_id(&keys), 1);
    }

    #[test]
    fn a_rotation_that_is_cut_off_anywhere_is_continued() {
        // Killed before the first write, before the second one, and while it waits after each.
        for (writes, fails, left) in [(0, false, vec![1]), (1, false, vec![1, 2]), (9, true, vec![1, 2])] {
            let (store, instances) = (Memory::new(&one(1)), Instances::default());
            store.writes.set(writes);
            instances.fails.set(fails);
            rotate(&store, &instances, &mut silent).expect_err("cut off");
            assert_eq!(ids(&read(&store).expect("keys")), left, "{writes}");
            store.writes.set(9);
            instances.fails.set(false);
            assert_eq!(ids(&rotate(&store, &instances, &mut silent).expect("continued")), [2, 1], "{writes}");
            assert_eq!(*instances.seen.borrow().last().expect("waited"), [2, 1]);
            assert!(instances.seen.borrow().contains(&vec![1, 2]), "the new key has verified first");
        }
    }

    #[test]
    fn a_wait_counts_from_its_own_write() {
        let (store, instances) = (Memory::new(&one(1)), Instances::default());
        instances.fails.set(true);
        rotate(&store, &instances, &mut silent).expect_err("cut off");
        let mut keys = read(&store).expect("keys");
        if let Some(added) = keys.tokens.last_mut() {
            added.made = Some(now_unix_s() - 3_600);
        }
        write(&store, &keys).expect("written");
        instances.fails.set(false);
        let begun = now_unix_s();
        rotate(&store, &instances, &mut silent).expect("continued");
        assert!(instances.since.borrow().iter().all(|since| *since >= begun), "{:?}", instances.since.borrow());
    }

    #[test]
    fn a_clock_that_was_set_back_is_no_fault() {
        let error = RotationError::StillNeeded { id: 1, now: 5, signed_until: 9, withdrawable: 3 };
        assert!(error.to_string().contains("until 0 s ago"), "{error}");
    }

    #[test]
    fn the_old_key_is_withdrawn_when_it_is_due_or_at_a_word() {
        let (store, instances) = (Memory::new(&one(1)), Instances::default());
        assert_eq!(ids(&finish(&store, Withdraw::Now, &mut silent).expect("nothing to do")), [1]);
        rotate(&store, &instances, &mut silent).expect("rotated");
        assert_eq!(finish_if_due(&store).expect("not due"), None);
        age(&store, TOKEN_LIFE_S + MARGIN_S);
        assert_eq!(finish_if_due(&store).expect("due"), Some(1));
        rotate(&store, &instances, &mut silent).expect("rotated");
        assert!(matches!(
            finish(&store, Withdraw::WhenDue, &mut silent),
            Err(RotationError::StillNeeded { id: 2, .. })
        ));
        assert_eq!(ids(&finish(&store, Withdraw::Now, &mut silent).expect("withdrawn")), [3]);
    }

    #[test]
    fn keys_without_a_history_are_taken_for_a_rotation_that_has_just_been() {
        let mut keys = one(1);
        keys.tokens[0].made = None;
        keys.tokens.push(TokenKey { id: 2, ..keys.tokens[0].clone() });
        let expected = Phase::Signing { since: 5, withdrawable: 5 + TOKEN_LIFE_S + MARGIN_S };
        assert_eq!(phase(&keys, 5).expect("two keys"), expected);
        keys.tokens.clear();
        assert!(matches!(phase(&keys, 5), Err(RotationError::Keys(0))));
    }

    #[test]
    fn metrics_tell_the_keys() {
        assert_eq!(token_key("sipedge_token_key_info{id=\"12\",signs=\"1\"} 1"), Some((12, true)));
        assert_eq!(token_key("sipedge_token_key_info{id=\"2\",signs=\"0\"} 1"), Some((2, false)));
        assert_eq!(token_key("sipedge_ready 1"), None);
    }
}
