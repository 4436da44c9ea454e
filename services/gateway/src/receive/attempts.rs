//! Bodies that the gateway began to publish and did not accept, so that a retry is a duplicate.
//!
//! An event with neither an identifier nor a time of its own gets an identifier from its body and
//! a random number for each body. Without the number, equal bodies that arrive within the
//! duplicate window would count as one, and a tag that moves from A to B and back to A would stay
//! at B. Only the retry of a body that was not accepted reuses the number.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tagtrail_proto::Name;
use time::OffsetDateTime;

/// The time for which a body is remembered: the duplicate window of the streams.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// Most remembered bodies, of about 150 bytes each. The oldest is forgotten first.
const MOST: usize = 20_000;

/// The hash of a source and a body.
pub(crate) type Key = [u8; 32];

/// Returns the key of a body.
pub(crate) fn key(source: &Name, body: &[u8]) -> Key {
    // No name holds a zero byte.
    let hash = Sha256::new()
        .chain_update(source.as_ref())
        .chain_update([0]);
    hash.chain_update(body).finalize().into()
}

/// The bodies that were not accepted.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    attempts: HashMap<Key, (Identity, Instant)>,
    /// The order in which the bodies were remembered.
    order: VecDeque<(Key, Instant)>,
}

/// The values that make a retry equal to the first attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The random number of the body.
    pub(crate) number: u64,
    /// The time at which the body was first received.
    pub(crate) received_at: OffsetDateTime,
}

/// An attempt to store a body. Dropping an attempt that began to publish, also because the sender
/// closed the connection, remembers the body.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    attempts: &'a Attempts,
    key: Key,
    identity: Identity,
    remember: bool,
}

impl Attempts {
    /// Begins to store the body with this key. Until the end of the attempt, an equal body is no
    /// retry.
    pub(crate) fn begin(&self, key: Key, received_at: OffsetDateTime) -> Attempt<'_> {
        let known = self.with(|memory| memory.take(&key, Instant::now()));
        Attempt {
            attempts: self,
            key,
            identity: known.unwrap_or_else(|| Identity {
                number: rand::random(),
                received_at,
            }),
            remember: known.is_some(),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Memory {
    fn take(&mut self, key: &Key, now: Instant) -> Option<Identity> {
        let (identity, since) = self.attempts.remove(key)?;
        (now.duration_since(since) < KEPT).then_some(identity)
    }

    fn remember(&mut self, key: Key, identity: Identity, now: Instant) {
        while let Some((oldest, since)) = self.order.front().copied() {
            if self.order.len() < MOST && now.duration_since(since) < KEPT {
                break;
            }
            self.order.pop_front();
            // A body that was remembered again has a later entry in `order`.
            if self
                .attempts
                .get(&oldest)
                .is_some_and(|(_, at)| *at == since)
            {
                self.attempts.remove(&oldest);
            }
        }
        self.attempts.insert(key, (identity, now));
        self.order.push_back((key, now));
    }
}

impl Attempt<'_> {
    /// Returns the number of the body, and the time at which the body was first received.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// From now on some messages of the body may be stored.
    pub(crate) fn publishing(&mut self) {
        self.remember = true;
    }

    /// All messages of the body are stored: an equal body is a new one.
    pub(crate) fn stored(mut self) {
        self.remember = false;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.remember {
            let (key, identity) = (self.key, self.identity);
            self.attempts
                .with(|memory| memory.remember(key, identity, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin<'a>(attempts: &'a Attempts, source: &str, body: &str) -> Attempt<'a> {
        let now = OffsetDateTime::now_utc();
        attempts.begin(key(&source.parse().unwrap(), body.as_bytes()), now)
    }

    #[test]
    fn only_the_retry_of_a_body_that_was_not_accepted_has_its_identity() {
        let attempts = Attempts::default();
        let mut first = begin(&attempts, "ci", "body");
        let identity = first.identity();
        first.publishing();
        let meanwhile = begin(&attempts, "ci", "body");
        assert_ne!(meanwhile.identity(), identity, "the first has not failed");
        meanwhile.stored();
        drop(first);

        for (source, body) in [("ci", "body2"), ("cib", "ody")] {
            assert_ne!(begin(&attempts, source, body).identity(), identity);
        }
        // Nothing was sent, because NATS was away; the messages of the first attempt remain.
        assert_eq!(begin(&attempts, "ci", "body").identity(), identity);
        let mut retry = begin(&attempts, "ci", "body");
        assert_eq!(retry.identity(), identity);
        retry.publishing();
        retry.stored();
        assert_ne!(begin(&attempts, "ci", "body").identity(), identity);
        assert!(attempts.with(|memory| memory.attempts.is_empty()));
    }

    #[test]
    fn an_attempt_that_sent_nothing_is_not_remembered() {
        let attempts = Attempts::default();
        drop(begin(&attempts, "ci", "body"));
        assert!(attempts.with(|memory| memory.attempts.is_empty()));
    }

    #[test]
    fn the_memory_is_bounded_in_number_and_time() {
        let identity = Identity {
            number: 1,
            received_at: OffsetDateTime::UNIX_EPOCH,
        };
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        let (mut memory, start) = (Memory::default(), Instant::now());
        for number in 0..MOST * 3 {
            memory.remember(key(number % (MOST + 10)), identity, start);
        }
        assert!(memory.attempts.len() <= MOST && memory.order.len() <= MOST);
        let last = key((MOST * 3 - 1) % (MOST + 10));
        assert_eq!(memory.take(&last, start + KEPT), None);
        memory.remember(key(0), identity, start + KEPT);
        assert_eq!((memory.attempts.len(), memory.order.len()), (1, 1));
        assert_eq!(memory.take(&key(0), start + KEPT), Some(identity));
    }
}
