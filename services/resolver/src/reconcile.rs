//! The reconciler compares what is known with what a registry has, and so finds what no event told.
//!
//! Each registry is walked by a task of its own on a session of its own, so a wrong one holds up no other; its lock lets one of
//! all instances do it. A pass lists the tags of every repository that something was heard of, or that is to be watched:
//!
//! - tags that history does not have, and tags of history that are not listed, are asked about;
//! - of the others as many as [`pass::ASKED`] allows, others each time, so that all are after some passes; those that a trigger watches,
//!   always.
//!
//! A difference is not believed at once: its event may be on its way. It is looked at again after [`Pace::grace`](crate::config::Pace::grace), by history
//! and by the registry, and what is still different becomes a fact of that moment, with origin `reconciled`; `imported`, if it is a
//! tag that was there before its repository was walked for the first time.
//!
//! Memory: one page of tags, a hash for each tag of one repository, and [`pass::DOUBTS`] differences.

mod list;
mod pass;
mod store;

use std::sync::Arc;
use std::time::Duration;

use tagtrail_config::File;
use tagtrail_daemon::{backoff, chain};
use tagtrail_postgres::{DbArgs, DbError, Lock, ping};
use tokio::time::Instant;

use crate::shared::Shared;
use pass::{Error, Pass, SILENCE, Scope};

/// How often an instance asks whether it may walk a registry.
const TURN: Duration = Duration::from_secs(5);

/// Walks one registry.
pub(crate) struct Reconciler {
    shared: Arc<Shared>,
    db: DbArgs,
    scope: Scope,
}

/// The registries of the file that are to be walked.
pub(crate) fn all(file: &File, db: &DbArgs, shared: &Arc<Shared>) -> Vec<Reconciler> {
    let reconciled = file
        .registry
        .iter()
        .filter(|access| !access.reconcile.is_zero());
    reconciled
        .map(|access| {
            let name = access.name.get_ref().clone();
            shared.metrics.expect_reconciling(name.as_ref());
            let images = file
                .trigger
                .iter()
                .flat_map(|trigger| trigger.images.values());
            let in_triggers = images
                .filter(|image| image.registry == name)
                .map(|image| (image.repository.clone(), image.tag.clone()));
            Reconciler {
                shared: Arc::clone(shared),
                db: db.clone(),
                scope: Scope {
                    in_triggers: in_triggers.collect(),
                    name,
                    interval: access.reconcile,
                    watch: access.watch.clone(),
                },
            }
        })
        .collect()
}

impl Reconciler {
    /// Walks its registry until a stop is asked for.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let (shared, name) = (&self.shared, &self.scope.name);
        // Questions are answered meanwhile.
        match self.db.wait_for_schema("resolver", &shared.shutdown).await {
            Err(DbError::Stopped) => return Ok(()),
            there => there?,
        }
        let mut failures = 0;
        let before_first = shared.pace.before_first.min(self.scope.interval);
        shared.sleep(before_first).await;
        while !shared.shutdown.is_cancelled() {
            if let Err(error) = self.session().await {
                failures += 1;
                let pause = backoff(failures);
                tracing::warn!(registry = %name, "walking {name} starts over in {pause:.1?}: {}", chain(&error));
                shared.sleep(pause).await;
            }
        }
        Ok(())
    }

    async fn session(&self) -> Result<(), Error> {
        let (shared, scope) = (&self.shared, &self.scope);
        let mut db = self.db.session("resolver", SILENCE).await?;
        let lock = Lock::Reconcile(Lock::number_of(scope.name.as_ref()));
        while !lock.try_acquire(&mut db).await? {
            shared.sleep(TURN).await;
            if shared.shutdown.is_cancelled() {
                return Ok(());
            }
        }
        let Some(registry) = shared.registries.get(&scope.name) else {
            return Ok(()); // Made of the same file.
        };
        for number in 0.. {
            let began = Instant::now();
            Pass::new(shared, scope, registry, &mut db, number)
                .run()
                .await?;
            shared
                .metrics
                .reconciled(scope.name.as_ref(), began.elapsed());
            while began.elapsed() < scope.interval && !shared.shutdown.is_cancelled() {
                ping(&mut db).await?;
                let rest = scope.interval.saturating_sub(began.elapsed());
                shared.sleep(rest.min(SILENCE / 5)).await;
            }
            if shared.shutdown.is_cancelled() {
                break;
            }
        }
        Ok(())
    }
}
