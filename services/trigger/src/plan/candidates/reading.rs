//! Reading whole repositories, to fill the candidates of policies.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;
use tagtrail_failpoint::FailPoint;
use tagtrail_policy::selection::{Key, Rule, Times};
use tokio::time::{Duration, Instant};

use super::{Candidates, Kept};
use crate::store::filling as store;
use crate::store::filling::Filled;

/// The most policies that are filled by one reading of their repository.
const TOGETHER: usize = 16;
/// Rows of a repository between two pauses for other tasks.
const ROWS: usize = 1000;
/// The share of time that repeated readings of repositories may take is one in so many.
const SHARE: u32 = 100;
/// A reading that a decision asks for comes after a rest of so many times the last reading.
const REST: u32 = 10;
/// The shortest pause between two repeated readings.
const ROTATION: Duration = Duration::from_secs(30);
/// The most candidates that are kept of a policy.
const MOST_ROOM: i32 = 10_000;

impl Candidates {
    /// Requests a reading of the whole repository of each policy.
    pub(in crate::plan) fn fill_all(&mut self) {
        let now = Instant::now();
        self.policies
            .values_mut()
            .for_each(|kept| kept.due = Some(now));
    }

    /// Requests a reading of the whole repository for a policy none of whose candidates can be
    /// selected. If it was just read, more candidates are kept. Nothing happens if there can be no
    /// other candidate.
    pub(in crate::plan) fn fill_again(&mut self, policy: i32) {
        let Some(kept) = self.policies.get_mut(&policy) else {
            return;
        };
        if kept.floor.as_ref().is_none_or(Vec::is_empty) || kept.due.is_some() {
            return;
        }
        if kept.fresh {
            if kept.room >= MOST_ROOM {
                return;
            }
            kept.room = (kept.room * 4).min(MOST_ROOM);
        }
        kept.due = Some(kept.rests_until);
    }

    /// Returns the time at which the repository of a policy must be read.
    pub(in crate::plan) fn fill_at(&self) -> Option<Instant> {
        self.policies.values().filter_map(|kept| kept.due).min()
    }

    /// Returns the time at which a policy is filled again in rotation.
    pub(in crate::plan) fn rotation(&self) -> Option<Instant> {
        let rotates = !self.policies.is_empty() && !FailPoint::TriggerRotation.skipped();
        self.rotation.filter(|_| rotates)
    }

    /// Requests a reading for the next policy in rotation.
    pub(in crate::plan) fn rotate(&mut self) {
        let next = self.policies.range(self.last + 1..).next();
        let next = next.or(self.policies.first_key_value()).map(|(id, _)| *id);
        if let Some(kept) = next.and_then(|id| self.policies.get_mut(&id)) {
            kept.due = Some(Instant::now());
        }
        self.rotation = None;
    }

    /// Reads the repository of one or several due policies and replaces their candidates. Returns
    /// the policies, each with the number of tags of which news was missed.
    pub(in crate::plan) async fn fill(
        &mut self,
        db: &mut PgConnection,
    ) -> Result<Vec<(i32, i64)>, sqlx::Error> {
        let begin = Instant::now();
        let due = |kept: &&Kept| kept.due.is_some_and(|due| due <= begin);
        let Some(first) = self.policies.values().find(due) else {
            return Ok(Vec::new());
        };
        let (registry, repository) = (first.registry.clone(), first.repository.clone());
        let mut bests: Vec<(i32, &Rule, Best)> = self
            .policies
            .iter()
            .filter(|(_, kept)| {
                due(kept) && kept.registry == registry && kept.repository == repository
            })
            .take(TOGETHER)
            .map(|(id, kept)| (*id, &kept.rule, Best::with_room(kept.room)))
            .collect();
        let built = bests.iter().any(|(_, rule, _)| rule.orders_by_build());
        let mut read = 0_usize;
        if !FailPoint::TriggerRefill.skipped() {
            let mut tags = std::pin::pin!(store::tags(db, &registry, &repository, built));
            while let Some(tag) = tags.try_next().await? {
                let times = Times {
                    pushed: tag.head_at,
                    created: tag.created,
                };
                for (_, rule, best) in &mut bests {
                    if let Ok(key) = rule.key(&tag.tag, times) {
                        best.add(key, tag.tag_id);
                    }
                }
                read += 1;
                if read.is_multiple_of(ROWS) {
                    tokio::task::yield_now().await;
                }
            }
        }
        let filled: Vec<Filled> = bests
            .into_iter()
            .map(|(id, _, best)| best.filled(id))
            .collect();
        FailPoint::TriggerFilled.pass();
        let missed = store::fill(db, &filled).await?;
        let now = Instant::now();
        for one in filled {
            if let Some(kept) = self.policies.get_mut(&one.policy) {
                (kept.count, kept.due, kept.fresh) = (one.best.len(), None, true);
                kept.rests_until = now + (now - begin) * REST;
                kept.floor = Some(one.floor);
            }
            self.last = one.policy;
        }
        tracing::debug!(%registry, %repository, tags = read, policies = missed.len(), "read the tags of {registry}/{repository} for {} policies", missed.len());
        self.rotation = Some(now + ((now - begin) * SHARE).max(ROTATION));
        Ok(missed)
    }
}

/// The tags with the greatest keys of those added.
struct Best {
    room: i32,
    /// The least key first.
    tags: BinaryHeap<Reverse<(Key, i64)>>,
    /// True if a tag was left out.
    more: bool,
}

impl Best {
    fn with_room(room: i32) -> Best {
        Best {
            room,
            tags: BinaryHeap::new(),
            more: false,
        }
    }

    fn add(&mut self, key: Key, tag: i64) {
        self.tags.push(Reverse((key, tag)));
        if self.tags.len() > usize::try_from(self.room).unwrap_or(0) {
            self.tags.pop();
            self.more = true;
        }
    }

    fn filled(self, policy: i32) -> Filled {
        let floor = self.tags.peek().filter(|_| self.more);
        Filled {
            policy,
            floor: floor.map_or_else(Vec::new, |Reverse((key, _))| key.as_bytes().to_vec()),
            room: self.room,
            best: self
                .tags
                .into_iter()
                .map(|Reverse((key, tag))| (tag, key))
                .collect(),
        }
    }
}
