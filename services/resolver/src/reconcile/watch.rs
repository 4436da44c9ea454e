//! Asks the registry about the images of triggers, so that a lost change of such an image is found
//! within the interval, by default a minute.
//!
//! Each round asks about every image once, one after the other, spread over five sixths of the
//! interval. A difference is checked again after a twelfth of the interval, or 5 s. So a loss lasts
//! no longer than the interval, if the registry answers. A question without an answer is left to
//! the next round.
//!
//! Of a policy, the list of the repository is read for tags that history does not have, and the
//! selected and the best tags are asked about. A repository that was never compared waits for its
//! first comparison. A list that is longer than the bound is left to the comparison of all tags.

use std::time::Duration;

use tagtrail_postgres::session::ping_interval;
use tagtrail_proto::{Image, Repository, Tag};
use tagtrail_registry::{Found, TagList};
use tokio::time::Instant;

use super::pass::{Difference, Pass, ReconcileError, SILENCE};
use super::store;
use crate::store::heads;

/// The most pages of a list that a round reads.
const PAGES: usize = 20;
/// The most unconfirmed differences. Further ones are found in the next round.
const MOST: usize = 1000;

/// A part of a round.
#[derive(Debug, Clone)]
enum Step {
    /// Asks about a tag.
    Tag(Repository, Tag),
    /// Reads the list of a repository, and asks about its best tags.
    Policy(Repository),
}

/// The rounds of a registry.
pub(super) struct Watch<'a> {
    pass: Pass<'a>,
    steps: Vec<Step>,
    /// The unconfirmed differences, at most one of each image, with the time of the second check.
    unconfirmed: Vec<(Instant, Difference)>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(mut pass: Pass<'a>) -> Watch<'a> {
        // The rounds have their own pauses.
        pass.pause = Duration::ZERO;
        let of_triggers = pass.settings.images();
        let mut images: Vec<_> = of_triggers.tags.iter().cloned().collect();
        images.sort();
        let tags = images
            .into_iter()
            .map(|(repository, tag)| Step::Tag(repository, tag));
        let policies = of_triggers.policies.iter().cloned().map(Step::Policy);
        let steps = tags.chain(policies).collect();
        Watch {
            pass,
            steps,
            unconfirmed: Vec::new(),
        }
    }

    /// Asks until a stop is requested.
    pub(super) async fn run(mut self) -> Result<(), ReconcileError> {
        let count = u32::try_from(self.steps.len()).unwrap_or(u32::MAX).max(1);
        let step = self.pass.settings.interval * 5 / 6 / count;
        let mut due = Instant::now();
        for place in (0..self.steps.len()).cycle() {
            self.confirm_until(due).await?;
            if self.pass.shared.shutdown.is_cancelled() {
                return Ok(());
            }
            match self.steps.get(place).cloned() {
                Some(Step::Tag(repository, tag)) => self.check(&repository, &tag).await?,
                Some(Step::Policy(repository)) => self.check_policy(&repository).await?,
                None => {}
            }
            // A registry that is slower than the steps is not asked in a burst.
            due = (due + step).max(Instant::now());
        }
        Ok(())
    }

    /// Looks for tags that history does not have, and checks the best tags of the repository.
    async fn check_policy(&mut self, repository: &Repository) -> Result<(), ReconcileError> {
        let pass = &mut self.pass;
        pass.wait_turn().await?;
        let name = pass.settings.name.clone();
        if !store::was_reconciled(pass.db, &name, repository).await? {
            return Ok(());
        }
        let Some(id) = store::repository(pass.db, &name, repository).await? else {
            return Ok(());
        };
        let (mut next, mut new) = (None, Vec::new());
        for _ in 0..PAGES {
            let listed = self.pass.list(repository, next.as_ref()).await?;
            let Some(TagList::Page(page)) = listed else {
                break;
            };
            let size = usize::try_from(store::PAGE).unwrap_or(usize::MAX);
            for tags in page.tags.chunks(size) {
                let names: Vec<&Tag> = tags.iter().collect();
                let known = store::heads(self.pass.db, id, &names).await?;
                let is_new = |tag: &&Tag| !matches!(known.get(*tag), Some(Some(_)));
                new.extend(tags.iter().filter(is_new).cloned());
            }
            match page.next {
                Some(page) if new.len() < MOST => next = Some(page),
                _ => break,
            }
        }
        for tag in &new {
            self.note(repository, tag, false);
        }
        let best = store::best_tags(self.pass.db, &name, repository).await?;
        for tag in best.iter().filter(|tag| !new.contains(*tag)) {
            if self.pass.shared.shutdown.is_cancelled() {
                return Ok(());
            }
            self.check(repository, tag).await?;
        }
        Ok(())
    }

    /// Checks an image, and notes a difference.
    async fn check(&mut self, repository: &Repository, tag: &Tag) -> Result<(), ReconcileError> {
        let pass = &mut self.pass;
        pass.wait_turn().await?;
        let image = Image {
            registry: pass.settings.name.clone(),
            repository: repository.clone(),
            tag: tag.clone(),
        };
        let head = heads(pass.db, std::slice::from_ref(&image))
            .await?
            .remove(&image);
        let known = head.as_ref().and_then(|head| head.digest.as_ref());
        let question = pass.registry.compare(repository, tag, known);
        let Some(answer) = pass.unless_stopped(question).await else {
            return Ok(());
        };
        let metrics = &pass.shared.metrics;
        metrics.reconcile_request(pass.settings.name.as_ref(), &answer);
        let differs = match answer {
            Ok(Found::Same) => false,
            Ok(Found::Other(_)) => true,
            Ok(Found::Absent) => known.is_some(),
            Err(error) => {
                tracing::debug!(%image, "no answer about {image}, which a trigger names: {error}");
                false
            }
        };
        if !differs {
            return Ok(());
        }
        let first_sight = head.is_none()
            && !store::was_reconciled(pass.db, &pass.settings.name, repository).await?;
        self.note(repository, tag, first_sight);
        Ok(())
    }

    /// Notes a difference, to be checked again.
    fn note(&mut self, repository: &Repository, tag: &Tag, first_sight: bool) {
        let mut noted = self.unconfirmed.iter();
        let is_noted = noted.any(|(_, noted)| noted.repository == *repository && noted.tag == *tag);
        if is_noted || self.unconfirmed.len() >= MOST {
            return;
        }
        let pass = &self.pass;
        // A tag found at first sight counts as imported, and starts no rollout. Its event gets
        // more time.
        let interval = pass.settings.interval;
        let grace = match first_sight {
            true => pass.shared.pace.grace.min(interval / 2),
            false => pass.shared.pace.watch_grace.min(interval / 12),
        };
        let at = Instant::now() + grace;
        let difference = Difference {
            repository: repository.clone(),
            tag: tag.clone(),
            first_sight,
        };
        self.unconfirmed.push((at, difference));
    }

    /// Checks differences again as they become due, until a time or a stop request.
    async fn confirm_until(&mut self, end: Instant) -> Result<(), ReconcileError> {
        loop {
            let due = self.unconfirmed.iter().map(|(at, _)| *at).min();
            let at = due.filter(|at| *at <= end).unwrap_or(end);
            let rest = at.saturating_duration_since(Instant::now());
            if !rest.is_zero() {
                let rest = rest.min(ping_interval(SILENCE));
                self.pass.shared.sleep(rest).await;
                self.pass.wait_turn().await?;
            }
            if self.pass.shared.shutdown.is_cancelled() {
                return Ok(());
            }
            let now = Instant::now();
            let confirmed = self.unconfirmed.iter().position(|(at, _)| *at <= now);
            if let Some(place) = confirmed {
                let (_, difference) = self.unconfirmed.swap_remove(place);
                self.pass.confirm_one(&difference).await?;
            } else if now >= end {
                return Ok(());
            }
        }
    }
}
