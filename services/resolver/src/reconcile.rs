//! The reconciler compares what is known with what a registry has, and so finds what no event told.
//!
//! Each registry is walked by a task of its own on a session of its own, so a wrong one holds up no other; its lock lets one of
//! all instances do it. A pass lists the tags of every repository that something was heard of, or that is to be watched:
//!
//! - tags that history does not have, and tags of history that are not listed, are asked about;
//! - of the others as many as [`pass::ASKED`] allows, others each time, so that all are after some passes; those that a trigger watches,
//!   always.
//!
//! A difference is not believed at once: its event may be on its way. It is looked at again after [`Pace::grace`], by history
//! and by the registry, and what is still different becomes a fact of that moment, with origin `reconciled`; `imported`, if it is a
//! tag that was there before its repository was walked for the first time.
//!
//! Memory: one page of tags, a hash for each tag of one repository, and [`pass::DOUBTS`] differences.

mod list;
mod pass;
mod store;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tagtrail_bus::Bus;
use tagtrail_bus::publish::PublishError;
use tagtrail_config::File;
use tagtrail_daemon::{backoff, chain};
use tagtrail_postgres::{DbArgs, DbError, Lock, ping};
use tagtrail_proto::{Registry as RegistryName, Repository, Tag};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ask::asker::Registries;
use crate::config::Pace;
use crate::metrics::Metrics;
use pass::Pass;

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
        while !lock.try_acquire(&mut db).await? {
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
            Pass::new(self, registry, &mut db, number).run().await?;
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
