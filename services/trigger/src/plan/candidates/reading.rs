//! Reads whole repositories to fill the candidates of policies, a page at a time between plans.
//!
//! A repository may have a million tags, and several rules decide about each of them. So no trigger
//! waits for more than one page, and the session is never silent for longer. Tags with news since
//! the first page are read again before the candidates are replaced.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use tagtrail_daemon::Progress;
use tagtrail_failpoint::FailPoint;
use tagtrail_policy::selection::{Rule, Times};
use tagtrail_proto::{Image, Registry, Repository, Tag};
use tokio::time::{Duration, Instant};

use super::best::Best;
use super::{Candidates, Kept};
use crate::store::filling as store;
use crate::store::filling::{Part, Replaced};

/// The most policies that are filled by one reading of their repository.
const TOGETHER: usize = 16;
/// The bounds of the rows of a page, and the rows of the first one.
const FEWEST_ROWS: usize = 20;
const MOST_ROWS: usize = 1000;
const FIRST_ROWS: usize = 100;
/// The time that the rules may take for a page: the number of rows follows from the last page.
const PAGE: Duration = Duration::from_millis(20);
/// Tags are counted up to this number, for the log.
const MOST_COUNTED: i64 = 2_000_000;
/// The share of time that repeated readings of repositories may take is one in so many.
const SHARE: u32 = 100;
/// A reading that a decision asks for comes after a rest of so many times the last reading.
const REST: u32 = 10;
/// The shortest pause between two repeated readings.
const ROTATION: Duration = Duration::from_secs(30);
/// The most candidates that are kept of a policy.
const MOST_ROOM: i32 = 10_000;

/// A repository that is being read, for some of the policies over it.
#[derive(Debug)]
pub(super) struct Reading {
    policies: Vec<(i32, Rule, Best)>,
    begun: Instant,
    /// The time that the pages took.
    took: Duration,
    /// The last tag of the last page.
    after: Option<Tag>,
    /// True after the last page.
    ended: bool,
    /// Tags with news since the begin, to be read again.
    touched: BTreeSet<Tag>,
    /// Number of tags that were read.
    read: usize,
    /// Number of rows of the next page.
    rows: usize,
    total: Option<u64>,
    progress: Progress,
}

impl Reading {
    fn new((registry, repository): (&Registry, &Repository)) -> Reading {
        let work = format!("reading the tags of {registry}/{repository} for policies");
        Reading {
            policies: Vec::new(),
            begun: Instant::now(),
            took: Duration::ZERO,
            after: None,
            ended: false,
            touched: BTreeSet::new(),
            read: 0,
            rows: FIRST_ROWS,
            total: None,
            progress: Progress::of_service(work, "tags"),
        }
    }

    /// Notes a tag that may have changed.
    pub(super) fn touch(&mut self, tag: Tag) {
        self.touched.insert(tag);
    }

    /// Reads the next page. Returns whether all tags are read as they are now.
    async fn page(
        &mut self,
        db: &mut PgConnection,
        of: (&Registry, &Repository),
    ) -> Result<bool, sqlx::Error> {
        if FailPoint::TriggerRefill.skipped() {
            return Ok(true);
        }
        let begin = Instant::now();
        let built = (self.policies.iter()).any(|(_, rule, _)| rule.orders_by_build());
        if self.ended || self.touched.len() >= MOST_ROWS {
            let names: Vec<Tag> = self.touched.iter().take(self.rows).cloned().collect();
            let tags = match names.is_empty() {
                true => Vec::new(),
                false => store::tags(db, of, Part::Named(&names), built).await?,
            };
            self.decide(&tags);
            for name in &names {
                self.touched.remove(name);
            }
        } else {
            let page = Part::After(self.after.as_ref(), self.rows);
            let tags = store::tags(db, of, page, built).await?;
            self.ended = tags.len() < self.rows;
            self.decide(&tags);
            self.read += tags.len();
            self.after = tags
                .into_iter()
                .next_back()
                .map(|tag| tag.tag)
                .or(self.after.take());
            if self.total.is_none() && !self.ended {
                self.total = Some(store::count(db, of, MOST_COUNTED).await?);
            }
        }
        self.took += begin.elapsed();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.progress
            .set(number(self.read), self.total.unwrap_or_default());
        Ok(self.ended && self.touched.is_empty())
    }

    /// Lets all rules decide about these tags, and sets the number of rows of the next page.
    fn decide(&mut self, tags: &[store::RepositoryTag]) {
        let begin = Instant::now();
        for tag in tags {
            let times = tag.head_at.map(|pushed| Times {
                pushed,
                created: tag.created,
            });
            for (_, rule, best) in &mut self.policies {
                let key = times.and_then(|times| rule.key(&tag.tag, times).ok());
                best.set(tag.tag_id, key);
            }
        }
        let took = begin.elapsed().as_micros().max(1);
        let rows = tags.len() as u128 * PAGE.as_micros() / took;
        if !tags.is_empty() {
            let rows = usize::try_from(rows).unwrap_or(MOST_ROWS);
            self.rows = rows.clamp(FEWEST_ROWS, MOST_ROWS);
        }
    }
}

impl Candidates {
    /// Requests a reading of the whole repository of each policy.
    pub(in crate::plan) fn fill_all(&mut self) {
        let now = Instant::now();
        // A reading that has just begun begins again. Others end first, and are then repeated: so
        // they end also if such requests come often.
        self.readings.retain(|_, reading| reading.read > MOST_ROWS);
        for kept in self.policies.values_mut() {
            kept.due = Some(now);
        }
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
        kept.wanted = true;
    }

    /// Returns the time at which a page of a repository must be read.
    pub(in crate::plan) fn read_at(&self) -> Option<Instant> {
        match self.readings.is_empty() {
            true => self.policies.values().filter_map(|kept| kept.due).min(),
            false => Some(Instant::now()),
        }
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
        if let Some(id) = next {
            self.last = id;
            if let Some(kept) = self.policies.get_mut(&id) {
                kept.due = Some(Instant::now());
            }
        }
        self.rotation = None;
    }

    /// Notes news of these images for the repositories that are being read.
    pub(in crate::plan) fn touch<'i>(&mut self, images: impl Iterator<Item = &'i Image>) {
        if self.readings.is_empty() {
            return;
        }
        for image in images {
            let of = (image.registry.clone(), image.repository.clone());
            if let Some(reading) = self.readings.get_mut(&of) {
                reading.touch(image.tag.clone());
            }
        }
    }

    /// Reads a page of the repository that was read for the shortest time: a small one does not
    /// wait for a large one. After its last page the candidates of its policies are replaced, and
    /// these policies are returned.
    pub(in crate::plan) async fn read_on(
        &mut self,
        db: &mut PgConnection,
    ) -> Result<Vec<Replaced>, sqlx::Error> {
        self.begin_readings();
        let shortest = self.readings.iter_mut().min_by_key(|(_, one)| one.took);
        let Some((of, reading)) = shortest else {
            return Ok(Vec::new());
        };
        let of = of.clone();
        match reading.page(db, (&of.0, &of.1)).await? {
            true => self.replace(db, &of).await,
            false => Ok(Vec::new()),
        }
    }

    /// Begins to read each repository with due policies that is not being read. The policies that
    /// a trigger waits for come first, then those that were not read for the longest time: so work
    /// that was interrupted goes on where it stopped.
    fn begin_readings(&mut self) {
        let now = Instant::now();
        let mut due: BTreeMap<(&Registry, &Repository), Vec<(i32, &Kept)>> = BTreeMap::new();
        for (id, kept) in &self.policies {
            if kept.due.is_some_and(|due| due <= now) {
                let of = (&kept.registry, &kept.repository);
                due.entry(of).or_default().push((*id, kept));
            }
        }
        let mut new = Vec::new();
        for ((registry, repository), mut policies) in due {
            let of = (registry.clone(), repository.clone());
            if self.readings.contains_key(&of) {
                continue;
            }
            policies.sort_by_key(|(_, kept)| (kept.floor.is_some(), !kept.wanted, kept.filled_at));
            let mut reading = Reading::new((registry, repository));
            let policies = policies.into_iter().take(TOGETHER);
            reading.policies = policies
                .map(|(id, kept)| (id, kept.rule.clone(), Best::with_room(kept.room)))
                .collect();
            new.push((of, reading));
        }
        self.readings.extend(new);
    }

    /// Replaces the candidates of the policies for which a repository was read.
    async fn replace(
        &mut self,
        db: &mut PgConnection,
        of: &(Registry, Repository),
    ) -> Result<Vec<Replaced>, sqlx::Error> {
        let Some(reading) = self.readings.remove(of) else {
            return Ok(Vec::new());
        };
        // A policy may have gone out of use.
        let policies = reading.policies.into_iter();
        let filled: Vec<_> = policies
            .filter(|(id, ..)| self.policies.contains_key(id))
            .map(|(id, _, best)| best.filled(id))
            .collect();
        FailPoint::TriggerFilled.pass();
        let replaced = store::fill(db, &filled).await?;
        let now = Instant::now();
        for one in filled {
            if let Some(kept) = self.policies.get_mut(&one.policy) {
                (kept.count, kept.fresh, kept.wanted) = (one.best.len(), true, false);
                kept.due = kept.due.filter(|due| *due > reading.begun);
                kept.rests_until = now + reading.took * REST;
                kept.floor = Some(one.floor);
            }
        }
        for one in &replaced {
            if let Some(kept) = self.policies.get_mut(&one.policy) {
                kept.filled_at = Some(one.filled_at);
            }
        }
        let (registry, repository) = of;
        let text = format!(
            "read {} tags of {registry}/{repository} for {} policies",
            reading.read,
            replaced.len()
        );
        match reading.progress.is_visible() {
            true => tracing::info!(%registry, %repository, tags = reading.read, "{text}"),
            false => tracing::debug!(%registry, %repository, tags = reading.read, "{text}"),
        }
        self.rotation = Some(now + (reading.took * SHARE).max(ROTATION));
        Ok(replaced)
    }
}
