//! Reads history for a test, in parts, and replays it.

use std::collections::VecDeque;

use tagtrail_history::recorded;
use tagtrail_history::replayed::{self, Part, STEP, Scope};
use tagtrail_policy::replay::{Busy, Change, Replay, Report};
use tagtrail_proto::instant;
use time::OffsetDateTime;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::{TAGS, WORK};
use crate::database::Database;
use crate::http::error::Error;
use crate::store::groups::MOST;

/// Most revisions that one statement reads, of all partitions and repositories.
const TOGETHER: u64 = 20_000;

/// A replay with its place among the tests, which it holds until its work on the processor ends,
/// also if the client is gone.
pub(super) struct Work {
    replay: Replay,
    _place: SemaphorePermit<'static>,
    deadline: Instant,
    /// The time up to which history is replayed.
    reached: OffsetDateTime,
    changes: u64,
    stopped: Option<String>,
}

/// The result of a test.
pub(super) struct Done {
    pub(super) report: Report,
    /// The time up to which history is replayed.
    pub(super) reached: OffsetDateTime,
    /// The number of replayed changes.
    pub(super) changes: u64,
    /// The limit that ended the test early.
    pub(super) stopped: Option<String>,
}

/// The revisions of one partition.
#[derive(Debug)]
struct Cursor {
    partition: u16,
    /// The ordinal up to which the partition is read.
    read: u64,
    /// The last ordinal of the test.
    end: u64,
    /// The changes that are read and not replayed yet.
    changes: VecDeque<Change>,
}

impl Work {
    pub(super) fn new(
        replay: Replay,
        place: SemaphorePermit<'static>,
        begin: OffsetDateTime,
    ) -> Work {
        Work {
            replay,
            _place: place,
            deadline: Instant::now() + WORK,
            reached: begin,
            changes: 0,
            stopped: None,
        }
    }

    /// Sets the times in which other triggers of the group were rolled out.
    pub(super) fn set_busy(&mut self, busy: Vec<Busy>) {
        if busy.len() >= MOST {
            self.end_early(&format!("the group has {MOST} rollouts or more"));
        }
        self.replay.set_busy(busy);
    }

    fn end_early(&mut self, limit: &str) {
        let reached = instant::format(self.reached).unwrap_or_default();
        self.stopped = Some(format!(
            "{limit}, so it ended at {reached}; test a shorter time, or one image"
        ));
    }

    /// Reads history up to a time, and replays it.
    pub(super) async fn test(
        self,
        database: &Database,
        until: OffsetDateTime,
    ) -> Result<Done, Error> {
        let from = self.reached;
        let (mut work, scope) = self.heads(database).await?;
        let mut cursors = cursors(database, (from, until)).await?;
        while !work.is_over() {
            let parts = parts(&mut cursors);
            if parts.is_empty() && cursors.iter().all(|one| one.changes.is_empty()) {
                break;
            }
            let found = match parts.is_empty() {
                true => Vec::new(),
                false => {
                    database
                        .ask_large(async |db| replayed::changes(db, &scope, &parts).await)
                        .await?
                }
            };
            for (partition, change) in found {
                let cursor = cursors.iter_mut().find(|one| one.partition == partition);
                if let Some(cursor) = cursor {
                    cursor.changes.push_back(change);
                }
            }
            let changes = take(&mut cursors);
            work = work.run(move |work| work.replay(&changes)).await?;
        }
        let work = work.run(move |work| work.tick(until)).await?;
        let reached = match work.stopped {
            Some(_) => work.reached,
            None => until,
        };
        Ok(Done {
            report: work.replay.end(reached),
            reached,
            changes: work.changes,
            stopped: work.stopped,
        })
    }

    /// Applies the heads of the tags at the begin.
    async fn heads(self, database: &Database) -> Result<(Work, Scope), Error> {
        let mut work = self;
        let (begin, places) = (work.reached, work.replay.places());
        let tags = (0..places.len()).map(|place| work.replay.tags_of(place));
        let (tags, manifests) = (tags.collect(), work.replay.needs_manifests());
        let scope = database
            .ask(async |db| Scope::find(db, places, tags, manifests).await)
            .await?;
        let mut after = None;
        while !work.is_over() {
            let (heads, last) = database
                .ask_large(async |db| replayed::heads(db, &scope, begin, after.as_ref()).await)
                .await?;
            let apply = move |work: &mut Work| {
                heads.iter().for_each(|head| work.replay.apply(head));
            };
            work = work.run(apply).await?;
            after = last;
            if after.is_none() {
                break;
            }
        }
        let work = work.run(|work| work.replay.adopt()).await?;
        Ok((work, scope))
    }

    /// Works on a thread for such work.
    async fn run(mut self, work: impl FnOnce(&mut Work) + Send + 'static) -> Result<Work, Error> {
        let working = tokio::task::spawn_blocking(move || {
            work(&mut self);
            self
        });
        working.await.map_err(|_| Error::Panicked)
    }

    /// Returns whether a limit has ended the test.
    fn is_over(&mut self) -> bool {
        if self.stopped.is_some() {
            return true;
        }
        let limit = if self.replay.size() > TAGS {
            format!("the rules take more than {TAGS} tags")
        } else if Instant::now() >= self.deadline {
            format!("the test has taken {} s", WORK.as_secs())
        } else {
            return false;
        };
        self.end_early(&limit);
        true
    }

    /// Replays changes in the order of their recording. All changes of one time are there.
    fn replay(&mut self, changes: &[Change]) {
        for together in changes.chunk_by(|a, b| a.recorded_at == b.recorded_at) {
            let Some(at) = together.first().map(|change| change.recorded_at) else {
                continue;
            };
            self.tick(at);
            if self.is_over() {
                return;
            }
            together.iter().for_each(|change| self.replay.apply(change));
            self.replay.at(at);
            self.changes += together.len() as u64;
            self.reached = at;
        }
    }

    fn tick(&mut self, until: OffsetDateTime) {
        while !self.is_over() && self.replay.tick(until) {}
    }
}

async fn cursors(
    database: &Database,
    (from, until): (OffsetDateTime, OffsetDateTime),
) -> Result<Vec<Cursor>, Error> {
    let (begins, ends) = database
        .ask_large(async |db| {
            let begins = recorded::before(db, from).await?;
            Ok((begins, recorded::before(db, until).await?))
        })
        .await?;
    let cursor = |(partition, end): (u16, u64)| Cursor {
        partition,
        end,
        read: begins
            .iter()
            .find(|one| one.0 == partition)
            .map_or(0, |one| one.1),
        changes: VecDeque::new(),
    };
    Ok(ends.into_iter().map(cursor).collect())
}

/// Returns the time up to which all changes are read, without its own; `None`: all are.
fn horizon(cursors: &[Cursor]) -> Option<OffsetDateTime> {
    let unfinished = cursors.iter().filter(|one| one.read < one.end);
    let times = unfinished.map(|one| one.changes.back().map(|change| change.recorded_at));
    times
        .min()
        .map(|time| time.unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

/// Returns the next parts to read: of partitions behind which all others wait.
fn parts(cursors: &mut [Cursor]) -> Vec<Part> {
    let horizon = horizon(cursors);
    let waited_for = |one: &&mut Cursor| {
        let last = one.changes.back().map(|change| change.recorded_at);
        one.read < one.end && (last.is_none() || last == horizon)
    };
    let mut waited: Vec<&mut Cursor> = cursors.iter_mut().filter(waited_for).collect();
    let step = (TOGETHER / (waited.len() as u64).max(1)).clamp(1, STEP);
    let parts = waited.iter_mut().map(|one| {
        let after = one.read;
        one.read = one.end.min(after + step);
        Part {
            partition: one.partition,
            after,
            until: one.read,
        }
    });
    parts.collect()
}

/// Takes the changes that no other change can come before, in the order of their recording.
fn take(cursors: &mut [Cursor]) -> Vec<Change> {
    let horizon = horizon(cursors);
    let mut taken = Vec::new();
    for cursor in cursors {
        let place = cursor
            .changes
            .partition_point(|one| horizon.is_none_or(|horizon| one.recorded_at < horizon));
        taken.extend(cursor.changes.drain(..place));
    }
    taken.sort_by_key(|change| change.recorded_at);
    taken
}
