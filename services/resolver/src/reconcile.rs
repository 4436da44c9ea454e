//! Reconciles registries: compares each registry with history, to find changes without an event.
//!
//! Each registry has a task and a database session of its own, so a broken registry delays no
//! other. An advisory lock lets only one instance reconcile a registry. A pass lists the tags of
//! every repository that history knows or that `watch` names, and checks
//!
//! - the tags that only the registry has, or only history;
//! - of all other tags at most [`pass::MAX_CHECKS`], different ones in each pass, so that some
//!   passes cover all; images of triggers in every pass.
//!
//! The event of a difference may still be on the way. So each difference is checked again after
//! [`Pace::grace`](crate::config::Pace::grace), in history and at the registry. If the difference
//! remains, a push with the time of the second check is published. Its origin is `reconciled`, or
//! `imported` for a tag that existed before its repository was first reconciled.
//!
//! Memory: a page of tags, a hash for each tag of a repository, and at most
//! [`pass::MAX_DIFFERENCES`] differences.

mod list;
mod pass;
mod store;

use std::sync::Arc;
use std::time::Duration;

use tagtrail_config::File;
use tagtrail_daemon::Retry;
use tagtrail_postgres::session::ping_interval;
use tagtrail_postgres::{DbArgs, DbError, Lock, ping};
use tokio::time::Instant;

use crate::shared::Shared;
use pass::{Pass, ReconcileError, ReconcileSettings, SILENCE};

/// Time between two attempts to acquire the lock of a registry.
const LOCK_INTERVAL: Duration = Duration::from_secs(5);

/// The task that reconciles a registry.
pub(crate) struct Reconciler {
    shared: Arc<Shared>,
    db: DbArgs,
    settings: ReconcileSettings,
}

/// Builds a reconciler for each registry of the file whose `reconcile` is not zero.
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
                settings: ReconcileSettings {
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
    /// Reconciles the registry until a stop is requested.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let (shared, name) = (&self.shared, &self.settings.name);
        // Without the schema only reconciling waits; questions are answered.
        let waiting = self.db.wait_for_schema("resolver", None, &shared.shutdown);
        match waiting.await {
            Err(DbError::Stopped) => return Ok(()),
            there => there?,
        }
        let before_first = shared.pace.before_first.min(self.settings.interval);
        shared.sleep(before_first).await;
        let mut retry = Retry::new(format!("reconciling {name}"));
        while !shared.shutdown.is_cancelled() {
            if let Err(error) = self.session().await {
                let pause = retry.failed(&error);
                shared.sleep(pause).await;
            }
        }
        Ok(())
    }

    async fn session(&self) -> Result<(), ReconcileError> {
        let (shared, settings) = (&self.shared, &self.settings);
        let mut db = self.db.session("resolver", SILENCE).await?;
        let lock = Lock::Reconcile(Lock::number_of(settings.name.as_ref()));
        while !lock.try_acquire(&mut db).await? {
            shared.sleep(LOCK_INTERVAL).await;
            if shared.shutdown.is_cancelled() {
                return Ok(());
            }
        }
        let Some(registry) = shared.registries.get(&settings.name) else {
            return Ok(()); // Never: both are built from the same file.
        };
        for number in 0.. {
            let began = Instant::now();
            Pass::new(shared, settings, registry, &mut db, number)
                .run()
                .await?;
            if shared.shutdown.is_cancelled() {
                break; // The pass is unfinished.
            }
            shared
                .metrics
                .reconciled(settings.name.as_ref(), began.elapsed());
            while began.elapsed() < settings.interval && !shared.shutdown.is_cancelled() {
                ping(&mut db).await?;
                let rest = settings.interval.saturating_sub(began.elapsed());
                shared.sleep(rest.min(ping_interval(SILENCE))).await;
            }
            if shared.shutdown.is_cancelled() {
                break;
            }
        }
        Ok(())
    }
}
