//! The reconciler compares what is known with what a registry has, and so finds what no event told.
//!
//! Each registry is walked by a task of its own on a session of its own, so a wrong one holds up no other; its lock lets one of
//! all instances do it. A pass lists the tags of every repository that something was heard of, or that is to be watched:
//!
//! - tags that history does not have, and tags of history that are not listed, are asked about;
//! - of the others as many as [`ASKED`] allows, others each time, so that all are after some passes; those that a trigger watches,
//!   always.
//!
//! A difference is not believed at once: its event may be on its way. It is looked at again after [`Pace::grace`], by history
//! and by the registry, and what is still different becomes a fact of that moment, with origin `reconciled`; `imported`, if it is a
//! tag that was there before its repository was walked for the first time.
//!
//! Memory: one page of tags, a hash for each tag of one repository, and [`DOUBTS`] differences.

mod store;
mod walk;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::Bus;
use tagtrail_bus::publish::{Message, PublishError};
use tagtrail_config::File;
use tagtrail_daemon::{backoff, chain};
use tagtrail_postgres::{DbArgs, DbError, Lock, ping};
use tagtrail_proto::{
    Action, Digest, Image, Origin, Push, Registry as RegistryName, Repository, Scope, Subject, Tag,
    TimeSource,
};
use tagtrail_registry::{AskError, Descriptor, Found, Next, Page, Registry};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Pace;
use crate::metrics::Metrics;
use crate::settle::Registries;
use store::Walked;

/// Tags of a registry that are asked about in a pass although nothing speaks for a change.
const ASKED: u64 = 1000;
/// Differences that are kept until they are looked at again.
const DOUBTS: usize = 1000;
/// The server ends a session that is silent for this long; others may walk the registry then.
const SILENCE: Duration = Duration::from_secs(300);
/// How often an instance asks whether it may walk a registry.
const TURN: Duration = Duration::from_secs(5);

/// What walking a registry needs.
pub(crate) struct Reconciler {
    pub(crate) bus: Bus,
    pub(crate) db: DbArgs,
    pub(crate) registries: Arc<Registries>,
    pub(crate) name: RegistryName,
    pub(crate) pace: Pace,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    interval: Duration,
    watch: Vec<Repository>,
    /// Images of triggers.
    important: HashSet<(Repository, Tag)>,
}

/// Why walking a registry ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("a fact was not stored")]
    NotStored(#[from] PublishError),
    #[error("a fact can't be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// A difference between what is known and what the registry has.
#[derive(Debug)]
struct Doubt {
    repository: Repository,
    tag: Tag,
    /// Whether history did not know the tag, and its repository was never walked before.
    first_sight: bool,
}

/// A repository that is being walked, or whose doubts are not settled yet.
#[derive(Debug)]
struct Open {
    repository: Repository,
    walked: Walked,
    /// Whether everything could be asked so far.
    whole: bool,
    /// Whether it is walked to the end.
    done: bool,
}

/// The registries of the file that are to be walked.
pub(crate) fn all(
    file: &File,
    bus: &Bus,
    db: &DbArgs,
    registries: &Arc<Registries>,
    pace: Pace,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Vec<Reconciler> {
    let walked = file
        .registry
        .iter()
        .filter(|access| !access.reconcile.is_zero());
    walked
        .map(|access| {
            let name = access.name.get_ref().clone();
            metrics.compares(name.as_ref());
            let images = file
                .trigger
                .iter()
                .flat_map(|trigger| trigger.images.values());
            let important = images
                .filter(|image| image.registry == name)
                .map(|image| (image.repository.clone(), image.tag.clone()));
            Reconciler {
                bus: bus.clone(),
                db: db.clone(),
                registries: Arc::clone(registries),
                important: important.collect(),
                name,
                pace,
                metrics: metrics.clone(),
                shutdown: shutdown.clone(),
                interval: access.reconcile,
                watch: access.watch.clone(),
            }
        })
        .collect()
}

impl Reconciler {
    /// Walks its registry until a stop is asked for.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        // Questions are answered meanwhile.
        match self.db.wait_for_schema("resolver", &self.shutdown).await {
            Err(DbError::Stopped) => return Ok(()),
            there => there?,
        }
        let mut failures = 0;
        self.sleep(self.pace.before_first.min(self.interval)).await;
        while !self.shutdown.is_cancelled() {
            if let Err(error) = self.session().await {
                failures += 1;
                let pause = backoff(failures);
                tracing::warn!(registry = %self.name, "walking {} starts over in {pause:.1?}: {}", self.name, chain(&error));
                self.sleep(pause).await;
            }
        }
        Ok(())
    }

    async fn session(&self) -> Result<(), Error> {
        let mut db = self.db.session("resolver", SILENCE).await?;
        let lock = Lock::Reconcile(Lock::number_of(self.name.as_ref()));
        while !lock.try_take(&mut db).await? {
            self.sleep(TURN).await;
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
        }
        let Some(registry) = self.registries.get(&self.name) else {
            return Ok(()); // Made of the same file.
        };
        for number in 0.. {
            let began = Instant::now();
            let mut pass = Pass {
                of: self,
                registry,
                db: &mut db,
                number,
                parts: 1,
                pause: self.interval / 4 / u32::try_from(ASKED).unwrap_or(u32::MAX),
                used: Instant::now(),
                doubts: Vec::new(),
                open: Vec::new(),
            };
            pass.run().await?;
            self.metrics.walked(self.name.as_ref(), began.elapsed());
            while began.elapsed() < self.interval && !self.shutdown.is_cancelled() {
                ping(&mut db).await?;
                let rest = self.interval.saturating_sub(began.elapsed());
                self.sleep(rest.min(SILENCE / 5)).await;
            }
            if self.shutdown.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    async fn sleep(&self, time: Duration) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }
}

/// One comparison of everything that is known of a registry.
struct Pass<'a> {
    of: &'a Reconciler,
    registry: &'a Registry,
    db: &'a mut PgConnection,
    number: u64,
    /// Passes that it takes until all tags were asked about.
    parts: u64,
    /// Between two questions.
    pause: Duration,
    /// When the session was used last.
    used: Instant,
    doubts: Vec<Doubt>,
    open: Vec<Open>,
}

impl Pass<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let name = &self.of.name;
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
        for repository in self.of.watch.clone() {
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
    async fn settle(&mut self) -> Result<(), Error> {
        if !self.doubts.is_empty() {
            self.of
                .sleep(self.of.pace.grace.min(self.of.interval / 2))
                .await;
        }
        for doubt in std::mem::take(&mut self.doubts) {
            if self.of.shutdown.is_cancelled() {
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
                store::walked(self.db, &self.of.name, &open.repository, &open.walked).await?;
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
        let name = &self.of.name;
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
        self.of.metrics.found(name.as_ref(), origin);
        self.of
            .store(image, found, asked_at, origin, source)
            .await?;
        Ok(Some(true))
    }

    /// A page of a repository's tags. `None`: there is no answer to be had now.
    async fn list(
        &mut self,
        repository: &Repository,
        page: Option<&Next>,
    ) -> Result<Option<Option<Page>>, Error> {
        for attempt in 0..=PATIENCE {
            self.turn().await?;
            let answer = self.registry.tags(repository, page).await;
            match self.judge(answer, attempt) {
                Verdict::Answer(answer) => return Ok(answer),
                Verdict::Rest(rest) => self.of.sleep(rest).await,
            }
        }
        Ok(None)
    }

    /// What a tag is, compared with what is known. `None`: there is no answer to be had now.
    async fn look(
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
                Verdict::Rest(rest) => self.of.sleep(rest).await,
            }
        }
        Ok(None)
    }

    /// Waits until it is time for the next question, at the pace that spreads all of them over the interval.
    async fn turn(&mut self) -> Result<(), Error> {
        self.of.sleep(self.pause).await;
        if self.used.elapsed() > SILENCE / 5 {
            ping(self.db).await?;
            self.used = Instant::now();
        }
        Ok(())
    }

    /// Whether to ask again, and after how long.
    fn judge<T>(&self, answer: Result<T, AskError>, attempt: u32) -> Verdict<T> {
        self.of.metrics.compared(self.of.name.as_ref(), &answer);
        let rest = match answer {
            Ok(answer) => return Verdict::Answer(Some(answer)),
            Err(AskError::Resting { rest }) => rest,
            Err(AskError::Busy { after }) => after.unwrap_or(Duration::from_secs(1)),
            Err(AskError::Failed(_)) if attempt < PATIENCE => self.of.pace.first,
            Err(error) => {
                tracing::warn!(registry = %self.of.name, "can't compare: {error}");
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

impl Reconciler {
    /// Puts a fact on PUSHES. Sent twice it is one fact.
    async fn store(
        &self,
        image: Image,
        found: Option<Descriptor>,
        asked_at: OffsetDateTime,
        origin: Origin,
        source: Option<String>,
    ) -> Result<(), Error> {
        let (media_type, size) = match &found {
            Some(found) => (found.media_type.clone(), found.size),
            None => (None, None),
        };
        let push = Push {
            action: match found {
                Some(_) => Action::Push,
                None => Action::Delete,
            },
            scope: Scope::Tag,
            registry: image.registry,
            repository: image.repository,
            tag: Some(image.tag),
            digest: found.map(|found| found.digest),
            media_type,
            size: size.filter(|size| i64::try_from(*size).is_ok()),
            actor: None,
            occurred_at: asked_at,
            occurred_at_source: TimeSource::Received,
            source: source.unwrap_or_else(|| "reconciler".to_owned()),
            origin,
            event_id: format!("{origin}:{}", asked_at.unix_timestamp_nanos()),
        };
        let subject = Subject::of_push(&push, self.bus.partitions());
        let message = Message {
            subject: &subject,
            id: None,
            payload: serde_json::to_vec(&push.event())?.into(),
            trace: None,
        };
        self.bus.publish(message).await?;
        Ok(())
    }
}
