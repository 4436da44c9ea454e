//! Readiness of the partitions: an instance that acquires a partition again and again, and fails
//! each time, must not look healthy, nor one that waits for a partition that no indexer holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tagtrail_bus::consume::ReadError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;

/// The time for which no indexer may hold a partition. Another indexer takes over that of a dead
/// one within `TAGTRAIL_SESSION_SECONDS`.
const UNHELD: Duration = Duration::from_secs(60);

/// The last failure of each partition, until this or another instance works on the partition again.
#[derive(Debug, Clone)]
pub(crate) struct Readiness(Arc<watch::Sender<Troubles>>);

#[derive(Debug, Default)]
struct Troubles {
    failures: BTreeMap<u16, String>,
    /// The partitions that neither this nor another indexer holds, and since when.
    unheld: BTreeMap<u16, Instant>,
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness(Arc::new(watch::Sender::default()))
    }
}

impl Readiness {
    /// Records a failure of the database, or of the stream PUSHES, in the work on a partition.
    pub(crate) fn failed(&self, partition: u16, error: &Error) {
        // A lost connection to NATS appears in the part `nats`; the other errors end when the
        // partition is acquired again.
        if let Error::Database(_) | Error::Read(ReadError::Failed(..)) = error {
            let text = tagtrail_daemon::chain(error);
            self.0.send_modify(|all| {
                all.failures.insert(partition, text);
            });
        }
    }

    /// Records that some instance works on the partition.
    pub(crate) fn recovered(&self, partition: u16) {
        self.0
            .send_if_modified(|all| all.failures.remove(&partition).is_some());
    }

    /// Records the partitions that this instance could not acquire although no indexer holds them.
    /// Anything else must hold their locks.
    pub(crate) fn unheld(&self, partitions: &BTreeSet<u16>, now: Instant) {
        self.0.send_modify(|all| {
            all.unheld.retain(|number, _| partitions.contains(number));
            for number in partitions {
                all.unheld.entry(*number).or_insert(now);
            }
        });
    }

    /// Returns the state for readiness: an error if any partition fails, or is held by no indexer.
    pub(crate) fn state(&self, now: Instant) -> Result<(), String> {
        let all = self.0.borrow();
        if let Some((partition, text)) = all.failures.first_key_value() {
            return Err(format!(
                "{} of the partitions can't be recorded, such as {partition}: {text}",
                all.failures.len()
            ));
        }
        let mut unheld = all
            .unheld
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= UNHELD);
        match unheld.next() {
            None => Ok(()),
            Some((partition, _)) => Err(format!(
                "no indexer holds {} of the partitions, such as {partition}, but another session has the lock: find the session in pg_locks (locktype advisory), and end it",
                unheld.count() + 1
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_no_indexer_holds_for_a_minute_is_named() {
        let (readiness, start) = (Readiness::default(), Instant::now());
        readiness.unheld(&BTreeSet::from([3, 5]), start);
        let before = start + UNHELD - Duration::from_secs(1);
        readiness.unheld(&BTreeSet::from([5]), before);
        assert_eq!(readiness.state(before), Ok(()));
        let error = readiness.state(start + UNHELD).unwrap_err();
        assert!(
            error.starts_with("no indexer holds 1 of the partitions, such as 5,"),
            "{error}"
        );
        readiness.unheld(&BTreeSet::new(), start + UNHELD);
        assert_eq!(readiness.state(start + UNHELD), Ok(()));
    }
}
