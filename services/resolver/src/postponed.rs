//! Tasks that wait for their registry: in Postgres, outside the consumers.
//!
//! A consumer delivers a bounded number of messages without an ack. The tasks of a registry that is
//! away, slow or refuses would fill a consumer, and so keep the tasks of all other registries from
//! delivery. So each registry has a number of places for tasks in hand. A task without a place, or
//! after a failed attempt, becomes a row, and its message is acked. A due row is claimed when its
//! registry has a place again, first those of the source that waits for fewest.
//!
//! A row is a lease: a claim moves `due_at` past the time that a task may take, and the row is
//! removed when the task is done. So a crash costs at most a second attempt.
//!
//! Without a database nothing is postponed: tasks stay in the consumer.

mod keeper;
mod store;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use tagtrail_bus::jobs::Job;
use tagtrail_proto::{Registry, TraceContext};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub(crate) use keeper::{Times, start};

/// Most rows of a registry. Further tasks stay in the consumer.
const MAX_ROWS: usize = 100_000;
/// Changes that wait for Postgres.
const CHANGES: usize = 1000;

/// The kind of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Ask for the digest of an image.
    Question,
    /// Read the manifest of a digest.
    Manifest,
}

impl Work {
    const ALL: [Work; 2] = [Work::Question, Work::Manifest];

    /// Returns the value of the column `work`, and of the label `work`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Work::Question => "question",
            Work::Manifest => "manifest",
        }
    }

    /// Returns the number of tasks of a registry in hand at the same time.
    const fn places(self) -> usize {
        match self {
            // Those that wait for a quiet tag included.
            Work::Question => 500,
            // A backlog must not burden a registry.
            Work::Manifest => 4,
        }
    }
}

/// The identity of a task: of two tasks with the same key, the later one stands for both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) work: Work,
    pub(crate) registry: Registry,
    /// The source of the event. No source waits for the tasks of another one.
    pub(crate) source: String,
    pub(crate) key: String,
}

/// A postponed task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// The message.
    pub(crate) body: Vec<u8>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) attempts: u32,
    pub(crate) due_at: OffsetDateTime,
}

/// A row that this process has claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) work: Work,
    pub(crate) key: String,
    /// The version of the row: a later message with the same key changes it.
    pub(crate) postponed_at: OffsetDateTime,
}

/// A change of the table.
#[derive(Debug)]
pub(crate) enum Change {
    /// Store the entry, then ack its message.
    Add(Entry, Box<Job>),
    /// The task of the row is due at this time.
    Due(Row, OffsetDateTime),
    /// The task of the row is done.
    Done(Row),
}

/// The access of tasks to the table. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Postponed(Option<Arc<Access>>);

#[derive(Debug)]
struct Access {
    changes: mpsc::Sender<Change>,
    shares: Shares,
}

/// The share of each registry that is configured, or was.
#[derive(Debug, Clone, Default)]
struct Shares(Arc<RwLock<ByRegistry>>);

type ByRegistry = HashMap<(Work, Registry), Arc<Share>>;

impl Shares {
    fn get(&self, work: Work, registry: &Registry) -> Option<Arc<Share>> {
        let shares = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shares.get(&(work, registry.clone())).cloned()
    }

    /// Makes the shares of new registries.
    fn expect<'a>(&self, registries: impl Iterator<Item = &'a Registry>) {
        let mut shares = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for registry in registries {
            for work in Work::ALL {
                let share = shares.entry((work, registry.clone()));
                share.or_insert_with(|| {
                    Arc::new(Share {
                        places: Arc::new(Semaphore::new(work.places())),
                        rows: AtomicUsize::new(0),
                    })
                });
            }
        }
    }
}

#[derive(Debug)]
struct Share {
    places: Arc<Semaphore>,
    rows: AtomicUsize,
}

/// The answer to the wish for a place.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Go on, with the place if places are counted.
    Go(Option<OwnedSemaphorePermit>),
    /// All places of the registry are taken.
    Full,
}

impl Postponed {
    /// Returns whether there is a table.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Takes a place of a configured registry.
    pub(crate) fn admit(&self, work: Work, registry: &Registry) -> Admission {
        match self.share(work, registry) {
            None => Admission::Go(None),
            Some(share) => match Arc::clone(&share.places).try_acquire_owned() {
                Ok(place) => Admission::Go(Some(place)),
                Err(_) => Admission::Full,
            },
        }
    }

    fn share(&self, work: Work, registry: &Registry) -> Option<Arc<Share>> {
        self.0.as_ref()?.shares.get(work, registry)
    }

    /// Makes places for the tasks of new registries.
    pub(crate) fn expect<'a>(&self, registries: impl Iterator<Item = &'a Registry>) {
        if let Some(access) = &self.0 {
            access.shares.expect(registries);
        }
    }

    /// Returns whether another task of this registry may become a row.
    pub(crate) fn has_room(&self, key: &Key) -> bool {
        self.share(key.work, &key.registry)
            .is_some_and(|share| share.rows.load(Ordering::Relaxed) < MAX_ROWS)
    }

    /// Queues a change of the table.
    pub(crate) async fn send(&self, change: Change) {
        let Some(access) = &self.0 else { return };
        // Fails only if the keeper has panicked, which ends the process. The task comes back.
        let _ = access.changes.send(change).await;
    }

    /// Returns the access while any other holder still has one.
    fn of(access: &Weak<Access>) -> Option<Postponed> {
        access.upgrade().map(|access| Postponed(Some(access)))
    }
}
