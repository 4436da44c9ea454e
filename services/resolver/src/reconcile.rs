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
//! A second task asks about the images of triggers alone, much more often (`watch.rs`).
//!
//! Memory: a page of tags, a hash for each tag of a repository, and at most
//! [`pass::MAX_DIFFERENCES`] differences.

mod list;
mod pass;
mod store;
mod watch;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tagtrail_config::{File, Watched};
use tagtrail_daemon::Retry;
use tagtrail_postgres::session::ping_interval;
use tagtrail_postgres::{DbArgs, DbError, Lock, ping};
use tagtrail_proto::{Repository, Tag};
use tokio::time::Instant;

use crate::shared::Shared;
use pass::{Pass, ReconcileError, ReconcileSettings, SILENCE};
use watch::Watch;

/// Time between two attempts to acquire the lock of a registry.
const LOCK_INTERVAL: Duration = Duration::from_secs(5);

/// A task that compares a registry with history.
pub(crate) struct Reconciler {
    shared: Arc<Shared>,
    db: DbArgs,
    settings: ReconcileSettings,
    scope: Scope,
}

/// The tags that a task compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All tags, each `reconcile`.
    All,
    /// The images of triggers, each `watch_triggers`.
    Triggers,
}

/// Builds the reconcilers of each registry of the file: one for all tags, and one for the images of
/// triggers, unless the setting is zero.
pub(crate) fn all(file: &File, db: &DbArgs, shared: &Arc<Shared>) -> Vec<Reconciler> {
    let mut reconcilers = Vec::new();
    for access in &file.registry {
        let name = access.name.get_ref();
        let images = || {
            let images = file
                .trigger
                .iter()
                .flat_map(|trigger| trigger.images.values());
            images.filter(|image| image.registry() == name)
        };
        let in_triggers: HashSet<(Repository, Tag)> = images().filter_map(named).collect();
        let policies: BTreeSet<Repository> = images()
            .filter(|image| named(image).is_none())
            .map(|image| image.repository().clone())
            .collect();
        let scopes = [
            (Scope::All, access.reconcile, true),
            (
                Scope::Triggers,
                access.watch_triggers,
                !in_triggers.is_empty() || !policies.is_empty(),
            ),
        ];
        for (scope, interval, is_useful) in scopes {
            if interval.is_zero() || !is_useful {
                continue;
            }
            shared.metrics.expect_reconciling(name.as_ref());
            reconcilers.push(Reconciler {
                shared: Arc::clone(shared),
                db: db.clone(),
                settings: ReconcileSettings {
                    name: name.clone(),
                    interval,
                    watch: access.watch.clone(),
                    in_triggers: in_triggers.clone(),
                    policies: policies.clone(),
                },
                scope,
            });
        }
    }
    reconcilers
}

/// Returns repository and tag of an image whose tag the trigger names, also as a policy.
fn named(image: &Watched) -> Option<(Repository, Tag)> {
    let tag = match image {
        Watched::Tag(image) => image.tag.clone(),
        Watched::Policy(policy) => policy.settings.tag.as_ref()?.parse().ok()?,
    };
    Some((image.repository().clone(), tag))
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
        let number = Lock::number_of(settings.name.as_ref());
        let lock = match self.scope {
            Scope::All => Lock::Reconcile(number),
            Scope::Triggers => Lock::WatchTriggers(number),
        };
        while !lock.try_acquire(&mut db).await? {
            shared.sleep(LOCK_INTERVAL).await;
            if shared.shutdown.is_cancelled() {
                return Ok(());
            }
        }
        let Some(registry) = shared.registries.get(&settings.name) else {
            return Ok(()); // Never: both are built from the same file.
        };
        if self.scope == Scope::Triggers {
            let pass = Pass::new(shared, settings, registry, &mut db, 0);
            return Watch::new(pass).run().await;
        }
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
