//! A pass: all repositories of a registry once, and what differed looked at again.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::publish::PublishError;
use tagtrail_postgres::ping;
use tagtrail_proto::{Digest, Image, Origin, Registry, Repository, Subject, Tag};
use tagtrail_registry::{AskError, Found, NextPage, Page, RegistryClient};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::store::{self, Walked};
use crate::answer::{Occasion, fact, publish};
use crate::shared::Shared;

/// Tags of a registry that are asked about in a pass although nothing speaks for a change.
pub(super) const ASKED: u64 = 1000;
/// Differences that are kept until they are looked at again.
pub(super) const DOUBTS: usize = 1000;

/// The server ends a session that is silent for this long; others may walk the registry then.
pub(super) const SILENCE: Duration = Duration::from_secs(300);

/// Why walking a registry ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("a fact was not stored")]
    NotStored(#[from] PublishError),
}

/// The registry that a task walks, and its settings.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) name: Registry,
    pub(super) interval: Duration,
    pub(super) watch: Vec<Repository>,
    /// Images of triggers.
    pub(super) important: HashSet<(Repository, Tag)>,
}

/// A difference between what is known and what the registry has.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) repository: Repository,
    pub(super) tag: Tag,
    /// Whether history did not know the tag, and its repository was never walked before.
    pub(super) first_sight: bool,
}

/// A repository that is being walked, or whose doubts are not settled yet.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) repository: Repository,
    pub(super) walked: Walked,
    /// Whether everything could be asked so far.
    pub(super) whole: bool,
    /// Whether it is walked to the end.
    pub(super) done: bool,
}

/// One comparison of everything that is known of a registry.
pub(super) struct Pass<'a> {
    pub(super) shared: &'a Shared,
    pub(super) scope: &'a Scope,
    registry: &'a RegistryClient,
    pub(super) db: &'a mut PgConnection,
    pub(super) number: u64,
    /// Passes that it takes until all tags were asked about.
    pub(super) parts: u64,
    /// Between two questions.
    pause: Duration,
    /// When the session was used last.
    used: Instant,
    pub(super) doubts: Vec<Doubt>,
    pub(super) open: Vec<Open>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        scope: &'a Scope,
        registry: &'a RegistryClient,
        db: &'a mut PgConnection,
        number: u64,
    ) -> Pass<'a> {
        Pass {
            shared,
            scope,
            registry,
            db,
            number,
            parts: 1,
            pause: scope.interval / 4 / u32::try_from(ASKED).unwrap_or(u32::MAX),
            used: Instant::now(),
            doubts: Vec::new(),
            open: Vec::new(),
        }
    }

    pub(super) async fn run(&mut self) -> Result<(), Error> {
        let name = &self.scope.name;
        self.parts = store::live_tags(self.db, name)
            .await?
            .div_ceil(ASKED)
            .max(1);
        let mut after = 0;
        loop {
            let page = store::repositories(self.db, name, after).await?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (id, repository) in page {
                self.walk(Some(id), repository).await?;
            }
        }
        for repository in self.scope.watch.clone() {
            if store::repository(self.db, name, &repository)
                .await?
                .is_none()
            {
                self.walk(None, repository).await?;
            }
        }
        self.settle().await
    }

    /// Looks at what was different once more, and stores what still is.
    pub(super) async fn settle(&mut self) -> Result<(), Error> {
        if !self.doubts.is_empty() {
            self.shared
                .sleep(self.shared.pace.grace.min(self.scope.interval / 2))
                .await;
        }
        for doubt in std::mem::take(&mut self.doubts) {
            if self.shared.shutdown.is_cancelled() {
                return Ok(());
            }
            let settled = self.settle_one(&doubt).await?;
            let repository = self
                .open
                .iter_mut()
                .find(|open| open.repository == doubt.repository);
            if let Some(open) = repository {
                open.walked.asked += 1;
                match settled {
                    Some(found) => open.walked.found += u64::from(found),
                    None => open.whole = false,
                }
            }
        }
        for open in self.open.extract_if(.., |open| open.done) {
            if open.whole {
                store::walked(self.db, &self.scope.name, &open.repository, &open.walked).await?;
            }
        }
        Ok(())
    }

    /// Whether the difference was still there. `None`: the registry does not say.
    async fn settle_one(&mut self, doubt: &Doubt) -> Result<Option<bool>, Error> {
        let asked_at = OffsetDateTime::now_utc();
        let (repository, tag) = (&doubt.repository, &doubt.tag);
        let found = match self.look(repository, tag, None).await? {
            Some(Found::Other(found)) => Some(found),
            Some(Found::Same | Found::Absent) => None,
            None => return Ok(None),
        };
        let name = &self.scope.name;
        let known = match store::repository(self.db, name, repository).await? {
            Some(id) => store::heads(self.db, id, &[tag]).await?.remove(tag),
            None => None,
        };
        let digest = found.as_ref().map(|found| &found.digest);
        if known.as_ref().and_then(Option::as_ref) == digest {
            return Ok(Some(false)); // Its event came, or it never was.
        }
        let source = store::source(self.db, name, repository, tag).await?;
        let origin = match doubt.first_sight && known.is_none() {
            true => Origin::Imported,
            false => Origin::Reconciled,
        };
        let image = Image {
            registry: name.clone(),
            repository: repository.clone(),
            tag: tag.clone(),
        };
        tracing::info!(%image, ?origin, "{image} was not told of: it is {} now", digest.map_or("gone".to_owned(), Digest::to_string));
        self.shared.metrics.found(name.as_ref(), origin);
        let occasion = Occasion {
            origin,
            source: source.unwrap_or_else(|| "reconciler".to_owned()),
            actor: None,
            event_id: format!("{origin}:{}", asked_at.unix_timestamp_nanos()),
        };
        let push = fact(image, found, asked_at, occasion);
        let bus = &self.shared.bus;
        publish(bus, &Subject::of_push(&push, bus.partitions()), push, None).await?;
        Ok(Some(true))
    }

    /// A page of a repository's tags. `None`: there is no answer to be had now.
    pub(super) async fn list(
        &mut self,
        repository: &Repository,
        page: Option<&NextPage>,
    ) -> Result<Option<Option<Page>>, Error> {
        for attempt in 0..=PATIENCE {
            self.turn().await?;
            let answer = self.registry.tags(repository, page).await;
            match self.judge(answer, attempt) {
                Verdict::Answer(answer) => return Ok(answer),
                Verdict::Rest(rest) => self.shared.sleep(rest).await,
            }
        }
        Ok(None)
    }

    /// What a tag is, compared with what is known. `None`: there is no answer to be had now.
    pub(super) async fn look(
        &mut self,
        repository: &Repository,
        tag: &Tag,
        known: Option<&Digest>,
    ) -> Result<Option<Found>, Error> {
        for attempt in 0..=PATIENCE {
            self.turn().await?;
            let answer = self.registry.compare(repository, tag, known).await;
            match self.judge(answer, attempt) {
                Verdict::Answer(answer) => return Ok(answer),
                Verdict::Rest(rest) => self.shared.sleep(rest).await,
            }
        }
        Ok(None)
    }

    /// Waits until it is time for the next question, at the pace that spreads all of them over the interval.
    async fn turn(&mut self) -> Result<(), Error> {
        self.shared.sleep(self.pause).await;
        if self.used.elapsed() > SILENCE / 5 {
            ping(self.db).await?;
            self.used = Instant::now();
        }
        Ok(())
    }

    /// Whether to ask again, and after how long.
    fn judge<T>(&self, answer: Result<T, AskError>, attempt: u32) -> Verdict<T> {
        self.shared
            .metrics
            .compared(self.scope.name.as_ref(), &answer);
        let rest = match answer {
            Ok(answer) => return Verdict::Answer(Some(answer)),
            Err(AskError::Resting { rest }) => rest,
            Err(AskError::Busy { after }) => after.unwrap_or(Duration::from_secs(1)),
            Err(AskError::Failed(_)) if attempt < PATIENCE => self.shared.pace.first,
            Err(error) => {
                tracing::warn!(registry = %self.scope.name, "can't compare: {error}");
                return Verdict::Answer(None);
            }
        };
        Verdict::Rest(rest.min(SILENCE / 5))
    }
}

/// A registry that is left alone, or asks for it, is waited for so often.
const PATIENCE: u32 = 3;

/// What follows from an answer.
enum Verdict<T> {
    Answer(Option<T>),
    Rest(Duration),
}
