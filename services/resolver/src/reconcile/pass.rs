//! A pass: compares all repositories of a registry with history, then confirms the differences.

use std::collections::{BTreeSet, HashSet};
use std::slice;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::publish::PublishError;
use tagtrail_daemon::Progress;
use tagtrail_postgres::ping;
use tagtrail_postgres::session::ping_interval;
use tagtrail_proto::{Digest, Image, Origin, Registry, Repository, Subject, Tag, clean_text};
use tagtrail_registry::{AskError, Found, NextPage, RegistryClient, TagList};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::store::{self, Counts};
use crate::answer::{Occasion, effective_from, publish, push_of};
use crate::shared::Shared;
use crate::store::heads;

/// Tags checked in a pass without a sign of a change.
pub(super) const MAX_CHECKS: u64 = 1000;
/// Differences kept for the second check.
pub(super) const MAX_DIFFERENCES: usize = 1000;

/// Most bytes kept of the reason for which a comparison failed.
const MAX_REASON: usize = 500;

/// Time of silence after which Postgres ends the session, so that another instance may reconcile
/// the registry.
pub(super) const SILENCE: Duration = Duration::from_secs(300);

/// The errors that end a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("a push could not be published")]
    NotPublished(#[from] PublishError),
}

/// The registry that a task reconciles, and its settings.
#[derive(Debug, Clone)]
pub(super) struct ReconcileSettings {
    pub(super) name: Registry,
    pub(super) interval: Duration,
    pub(super) watch: Vec<Repository>,
    /// The images of triggers. All clones share them, so that a pass goes on with changed ones.
    images: Arc<RwLock<Arc<Images>>>,
}

/// The images of triggers, which are checked in every pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Images {
    pub(super) tags: HashSet<(Repository, Tag)>,
    /// The repositories of policies.
    pub(super) policies: BTreeSet<Repository>,
}

impl ReconcileSettings {
    pub(super) fn new(
        name: Registry,
        interval: Duration,
        watch: Vec<Repository>,
        images: Arc<Images>,
    ) -> ReconcileSettings {
        ReconcileSettings {
            name,
            interval,
            watch,
            images: Arc::new(RwLock::new(images)),
        }
    }

    /// Returns the images of triggers, as they are now.
    pub(super) fn images(&self) -> Arc<Images> {
        let images = self.images.read();
        Arc::clone(&images.unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_images(&self, images: Arc<Images>) {
        let mut now = self.images.write().unwrap_or_else(PoisonError::into_inner);
        *now = images;
    }
}

/// An unconfirmed difference between the registry and history.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) repository: Repository,
    pub(super) tag: Tag,
    /// True if history has no such tag, and the repository was never reconciled before.
    pub(super) first_sight: bool,
}

/// The progress of a repository whose comparison or differences are unfinished.
#[derive(Debug)]
pub(super) struct RepositoryPass {
    pub(super) repository: Repository,
    pub(super) counts: Counts,
    /// True if no request has failed so far.
    pub(super) complete: bool,
    /// True after the comparison of all tags.
    pub(super) listed: bool,
    /// The last answer that ended the comparison early.
    pub(super) failure: Option<String>,
}

/// A pass over a registry.
pub(super) struct Pass<'a> {
    pub(super) shared: &'a Shared,
    pub(super) settings: &'a ReconcileSettings,
    pub(super) registry: &'a RegistryClient,
    pub(super) db: &'a mut PgConnection,
    pub(super) number: u64,
    /// Passes after which every tag was checked once.
    pub(super) parts: u64,
    /// The pause between two requests.
    pub(super) pause: Duration,
    /// The time of the last statement on the session.
    used: Instant,
    pub(super) differences: Vec<Difference>,
    pub(super) progress: Vec<RepositoryPass>,
    /// The last answer that was no answer to the question.
    pub(super) failure: Option<String>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        settings: &'a ReconcileSettings,
        registry: &'a RegistryClient,
        db: &'a mut PgConnection,
        number: u64,
    ) -> Pass<'a> {
        Pass {
            shared,
            settings,
            registry,
            db,
            number,
            parts: 1,
            pause: settings.interval / 4 / u32::try_from(MAX_CHECKS).unwrap_or(u32::MAX),
            used: Instant::now(),
            differences: Vec::new(),
            progress: Vec::new(),
            failure: None,
        }
    }

    pub(super) async fn run(&mut self) -> Result<(), ReconcileError> {
        let name = &self.settings.name;
        self.parts = store::live_tags(self.db, name)
            .await?
            .div_ceil(MAX_CHECKS)
            .max(1);
        let total = store::count_repositories(self.db, name).await?;
        let mut report = Report {
            // Later passes are spread over a quarter of the interval on purpose.
            progress: (self.number == 0)
                .then(|| Progress::of_service(format!("comparing {name}"), "repositories")),
            done: 0,
            total: total + self.settings.watch.len() as u64,
        };
        let mut after = 0;
        loop {
            let page = store::repositories(self.db, name, after).await?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            if self.shared.shutdown.is_cancelled() {
                return Ok(());
            }
            for (id, repository) in page {
                let comparing = Box::pin(self.reconcile_repository(Some(id), repository));
                report.during(comparing).await?;
            }
        }
        for repository in self.settings.watch.clone() {
            if store::repository(self.db, name, &repository)
                .await?
                .is_none()
            {
                let comparing = Box::pin(self.reconcile_repository(None, repository));
                report.during(comparing).await?;
            }
        }
        self.confirm().await
    }

    /// Checks the differences again, and publishes those that remain.
    pub(super) async fn confirm(&mut self) -> Result<(), ReconcileError> {
        if !self.differences.is_empty() {
            self.shared
                .sleep(self.shared.pace.grace.min(self.settings.interval / 2))
                .await;
        }
        // After a stop request nothing counts as reconciled, because differences may be
        // unconfirmed.
        if self.shared.shutdown.is_cancelled() {
            return Ok(());
        }
        for difference in std::mem::take(&mut self.differences) {
            if self.shared.shutdown.is_cancelled() {
                return Ok(());
            }
            let confirmed = self.confirm_one(&difference).await?;
            let repository = self
                .progress
                .iter_mut()
                .find(|entry| entry.repository == difference.repository);
            if let Some(entry) = repository {
                entry.counts.asked += 1;
                match confirmed {
                    Some(found) => entry.counts.found += u64::from(found),
                    None => {
                        entry.complete = false;
                        entry.failure = self.failure.take();
                    }
                }
            }
        }
        let name = &self.settings.name;
        for entry in self.progress.extract_if(.., |entry| entry.listed) {
            if entry.complete {
                store::record_counts(self.db, name, &entry.repository, &entry.counts).await?;
            } else if let Some(reason) = entry.failure {
                let reason = clean_text(&reason, MAX_REASON);
                store::record_failure(self.db, name, &entry.repository, &reason).await?;
            }
        }
        Ok(())
    }

    /// Returns true if the difference remains. `None`: the registry gave no answer.
    pub(super) async fn confirm_one(
        &mut self,
        difference: &Difference,
    ) -> Result<Option<bool>, ReconcileError> {
        let (repository, tag) = (&difference.repository, &difference.tag);
        let image = Image {
            registry: self.settings.name.clone(),
            repository: repository.clone(),
            tag: tag.clone(),
        };
        // Before the request: a push that arrives meanwhile is newer than the answer.
        let before = heads(self.db, slice::from_ref(&image))
            .await?
            .remove(&image);
        let asked_at = OffsetDateTime::now_utc();
        let found = match self.check_again(repository, tag, None).await? {
            Some(Found::Other(found)) => Some(found),
            Some(Found::Same | Found::Absent) => None,
            None => return Ok(None),
        };
        let name = &self.settings.name;
        let known = heads(self.db, slice::from_ref(&image))
            .await?
            .remove(&image);
        let digest = found.as_ref().map(|found| &found.digest);
        if known.as_ref().and_then(|head| head.digest.as_ref()) == digest {
            // The event arrived, or the registry's first answer was outdated.
            return Ok(Some(false));
        }
        let source = store::source(self.db, name, repository, tag).await?;
        let origin = match difference.first_sight && known.is_none() {
            true => Origin::Imported,
            false => Origin::Reconciled,
        };
        // At first sight nothing is known of the time before.
        let at = match origin {
            Origin::Imported => asked_at,
            _ => effective_from(asked_at, before.map(|head| head.at)),
        };
        tracing::info!(%image, ?origin, "found a change of {image} without an event: it is {} now", digest.map_or("gone".to_owned(), Digest::to_string));
        self.shared.metrics.reconcile_change(name.as_ref(), origin);
        let occasion = Occasion {
            origin,
            source: source.unwrap_or_else(|| "reconciler".to_owned()),
            actor: None,
            event_id: format!("{origin}:{}", asked_at.unix_timestamp_nanos()),
        };
        let push = push_of(image, found, at, occasion);
        let bus = &self.shared.bus;
        publish(bus, &Subject::of_push(&push, bus.partitions()), push, None).await?;
        Ok(Some(true))
    }

    /// Returns a page of a repository's tags. `None`: the registry gave no answer, or a stop was
    /// requested.
    pub(super) async fn list(
        &mut self,
        repository: &Repository,
        page: Option<&NextPage>,
    ) -> Result<Option<TagList>, ReconcileError> {
        for attempt in 0..=RETRIES {
            self.wait_turn().await?;
            let Some(answer) = self
                .unless_stopped(self.registry.tags(repository, page))
                .await
            else {
                return Ok(None);
            };
            match self.next_step(answer, attempt) {
                NextStep::Answer(answer) => return Ok(answer),
                NextStep::Retry(rest) => self.shared.sleep(rest).await,
            }
        }
        Ok(None)
    }

    /// Compares a tag with the digest in history. `None`: the registry gave no answer, or a stop
    /// was requested.
    pub(super) async fn check_again(
        &mut self,
        repository: &Repository,
        tag: &Tag,
        known: Option<&Digest>,
    ) -> Result<Option<Found>, ReconcileError> {
        for attempt in 0..=RETRIES {
            self.wait_turn().await?;
            let question = self.registry.compare(repository, tag, known);
            let Some(answer) = self.unless_stopped(question).await else {
                return Ok(None);
            };
            match self.next_step(answer, attempt) {
                NextStep::Answer(answer) => return Ok(answer),
                NextStep::Retry(rest) => self.shared.sleep(rest).await,
            }
        }
        Ok(None)
    }

    /// Asks the registry, unless a stop is requested before the answer arrives.
    pub(super) async fn unless_stopped<T>(&self, question: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.shared.shutdown.cancelled() => None,
            answer = question => Some(answer),
        }
    }

    /// Waits before the next request: the pauses spread all requests over the interval.
    pub(super) async fn wait_turn(&mut self) -> Result<(), ReconcileError> {
        self.shared.sleep(self.pause).await;
        if self.used.elapsed() > ping_interval(SILENCE) {
            ping(self.db).await?;
            self.used = Instant::now();
        }
        Ok(())
    }

    /// Decides whether to retry a request, and after which pause.
    fn next_step<T>(&mut self, answer: Result<T, AskError>, attempt: u32) -> NextStep<T> {
        self.shared
            .metrics
            .reconcile_request(self.settings.name.as_ref(), &answer);
        if let Err(error) = &answer {
            self.failure = Some(error.to_string());
        }
        let rest = match answer {
            Ok(answer) => return NextStep::Answer(Some(answer)),
            Err(AskError::Resting { rest }) => rest,
            Err(AskError::Busy { after }) => after.unwrap_or(Duration::from_secs(1)),
            Err(AskError::Failed(_)) if attempt < RETRIES => self.shared.pace.first,
            Err(error) => {
                tracing::warn!(registry = %self.settings.name, "no answer of {} while reconciling: {error}", self.settings.name);
                return NextStep::Answer(None);
            }
        };
        NextStep::Retry(rest.min(ping_interval(SILENCE)))
    }
}

/// The report about a pass, if the pass has one.
struct Report {
    progress: Option<Progress>,
    done: u64,
    total: u64,
}

impl Report {
    /// Compares a repository, and reports in between.
    async fn during<T>(&mut self, comparing: impl Future<Output = T>) -> T {
        let Some(progress) = &mut self.progress else {
            return comparing.await;
        };
        progress.set(self.done, self.total);
        self.done += 1;
        progress.during(comparing).await
    }
}

/// Retries of a request that failed or met a pause.
const RETRIES: u32 = 3;

/// The decision after a request.
enum NextStep<T> {
    Answer(Option<T>),
    Retry(Duration),
}
