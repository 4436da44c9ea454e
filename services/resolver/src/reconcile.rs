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

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tagtrail_config::{File, Watched};
use tagtrail_daemon::Retry;
use tagtrail_postgres::session::ping_interval;
use tagtrail_postgres::{DbArgs, DbError, Lock, ping};
use tagtrail_proto::{Registry, Repository, Tag};
use tagtrail_registry::RegistryClient;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;
use pass::{Images, Pass, ReconcileError, ReconcileSettings, SILENCE};
use watch::Watch;

/// Time between two attempts to acquire the lock of a registry.
const LOCK_INTERVAL: Duration = Duration::from_secs(5);

/// A task that compares a registry with history.
struct Reconciler {
    /// With a shutdown of its own.
    shared: Shared,
    db: DbArgs,
    settings: ReconcileSettings,
    registry: Arc<RegistryClient>,
    scope: Scope,
}

/// The tags that a task compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    /// All tags, each `reconcile`.
    All,
    /// The images of triggers, each `watch_triggers`.
    Triggers,
}

/// A reconciler that runs.
struct Running {
    settings: ReconcileSettings,
    registry: Arc<RegistryClient>,
    stop: CancellationToken,
}

/// Runs the reconcilers of each registry of the file until a stop is requested: one for all tags,
/// and one for the images of triggers, unless the setting is zero. A change of the file ends and
/// starts those that it concerns.
pub(crate) async fn all(
    mut changed: Receiver<Arc<File>>,
    db: DbArgs,
    shared: Arc<Shared>,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let mut running: HashMap<(Registry, Scope), Running> = HashMap::new();
    loop {
        let file = Arc::clone(&changed.borrow_and_update());
        let mut wanted = wanted(&file, &shared);
        running.retain(|key, running| {
            let stays = wanted.get(key).is_some_and(|(settings, registry)| {
                Arc::ptr_eq(registry, &running.registry)
                    && settings.interval == running.settings.interval
                    && settings.watch == running.settings.watch
                    // A pass over all tags goes on with the new images.
                    && (key.1 == Scope::All || settings.images() == running.settings.images())
            });
            match (stays, wanted.get(key)) {
                (true, Some((settings, _))) => running.settings.set_images(settings.images()),
                _ => running.stop.cancel(),
            }
            stays
        });
        wanted.retain(|key, _| !running.contains_key(key));
        for (key, (settings, registry)) in wanted {
            shared.metrics.expect_reconciling(key.0.as_ref());
            let stop = shared.shutdown.child_token();
            let reconciler = Reconciler {
                shared: Shared {
                    shutdown: stop.clone(),
                    ..shared.as_ref().clone()
                },
                db: db.clone(),
                settings: settings.clone(),
                registry: Arc::clone(&registry),
                scope: key.1,
            };
            tasks.spawn(reconciler.run());
            let one = Running {
                settings,
                registry,
                stop,
            };
            running.insert(key, one);
        }
        loop {
            tokio::select! {
                biased;
                () = shared.shutdown.cancelled() => {
                    while let Some(ended) = tasks.join_next().await {
                        ended??;
                    }
                    return Ok(());
                }
                Some(ended) = tasks.join_next() => ended??,
                Ok(()) = changed.changed() => break,
            }
        }
    }
}

type Wanted = HashMap<(Registry, Scope), (ReconcileSettings, Arc<RegistryClient>)>;

/// Returns the reconcilers that the file asks for.
fn wanted(file: &File, shared: &Shared) -> Wanted {
    let mut wanted = Wanted::new();
    for access in &file.registry {
        let name = access.name.get_ref();
        let Some(client) = shared.registries.get(name) else {
            continue;
        };
        let images = || {
            let images = file
                .trigger
                .iter()
                .flat_map(|trigger| trigger.images.values());
            images.filter(|image| image.registry() == name)
        };
        let tags = images().filter_map(named).collect();
        let policies = images()
            .filter(|image| named(image).is_none())
            .map(|image| image.repository().clone())
            .collect();
        let images = Arc::new(Images { tags, policies });
        let scopes = [
            (Scope::All, access.reconcile, true),
            (
                Scope::Triggers,
                access.watch_triggers,
                !images.tags.is_empty() || !images.policies.is_empty(),
            ),
        ];
        for (scope, interval, is_useful) in scopes {
            if interval.is_zero() || !is_useful {
                continue;
            }
            let settings = ReconcileSettings::new(
                name.clone(),
                interval,
                access.watch.clone(),
                Arc::clone(&images),
            );
            wanted.insert((name.clone(), scope), (settings, Arc::clone(&client)));
        }
    }
    wanted
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
    async fn run(self) -> anyhow::Result<()> {
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
        let registry = self.registry.as_ref();
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
