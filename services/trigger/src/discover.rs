//! Annotated objects of clusters as triggers. One process watches the clusters and records the
//! triggers; every process reads them from Postgres. So an API server that is away removes nothing,
//! and a restart knows all triggers.

mod count;
mod events;
mod follow;
mod outlive;
mod probe;
mod spec;
mod status;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use sqlx::PgConnection;
use tagtrail_config::File;
use tagtrail_kubernetes::{BuiltIn, Cluster, Scope};
use tagtrail_postgres::{Lock, ping, within};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::events::Events;
use self::follow::{Follower, Report};
use self::outlive::Outliving;
pub use self::probe::inspect_cluster;
use self::status::Statuses;
use self::write::Writer;
use crate::error::Error;
use crate::lead::Lead;
use crate::settings::{Discovering, Settings};
use crate::shared::Shared;
use crate::store::discovered::{self, Key, Row};

/// Reports that wait to be recorded. More of them slow the reads of objects down.
const QUEUE: usize = 100;
/// The interval of looks at holds, vanished annotations and mistakes.
const TICK: Duration = Duration::from_secs(2);
/// Kinds that some clusters have.
const FURTHER: [(&str, &str); 3] = [
    ("deploymentconfig", "apps.openshift.io"),
    ("rollout", "argoproj.io"),
    status::KIND,
];

/// The objects, as recorded.
pub(crate) struct Known {
    rows: Mutex<BTreeMap<Key, Row>>,
    /// The images of triggers that were removed: an object that is annotated again may run a digest
    /// that names no tag.
    former: Mutex<BTreeMap<Key, Map<String, Value>>>,
}

impl Known {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<Key, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn former(&self) -> MutexGuard<'_, BTreeMap<Key, Map<String, Value>>> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records the triggers of annotated objects until shutdown. One process does; the others stand by.
/// Without a cluster that discovers, there is no session and nothing to do.
pub(crate) async fn discovery(shared: Shared) -> anyhow::Result<()> {
    let mut lead = Lead::new(&shared, Lock::Discover, "reading annotated objects");
    while let Some(db) = lead.session(has_work).await {
        let ended = follow_all(&shared, db).await;
        shared.metrics.ended_discovering();
        lead.ended(ended).await;
    }
    Ok(())
}

/// Returns a line about each cluster whose annotated objects are triggers.
pub(crate) fn describe(file: &File) -> Vec<String> {
    let entries = file.cluster.iter().filter(|one| !one.discover.is_empty());
    let line = |one: &tagtrail_config::Cluster| {
        let systems: Vec<&str> = one.discover.iter().map(|one| one.as_str()).collect();
        let namespaces: Vec<&str> = one
            .namespaces
            .iter()
            .map(|name| name.get_ref().as_str())
            .collect();
        let place = match namespaces.contains(&"*") {
            true => "all namespaces".to_owned(),
            false => format!("namespace {}", namespaces.join(", ")),
        };
        format!(
            "cluster {}: objects in {place} are triggers by annotations of {}",
            one.name.get_ref(),
            systems.join(", ")
        )
    };
    entries.map(line).collect()
}

/// The triggers of a cluster that no longer discovers have to be removed.
fn has_work(settings: &Settings) -> bool {
    !settings.discovering.is_empty() || !settings.discovered.is_empty()
}

/// Follows the clusters, and records their annotated objects, until shutdown or until there is no
/// work.
async fn follow_all(shared: &Shared, mut db: PgConnection) -> Result<(), Error> {
    let rows = within(shared.session_timeout, discovered::all(&mut db)).await?;
    tracing::info!(
        objects = rows.len(),
        "following the annotated objects of clusters"
    );
    let former = within(shared.session_timeout, discovered::former(&mut db)).await?;
    let known = Arc::new(Known {
        rows: Mutex::new(rows),
        former: Mutex::new(former),
    });
    let (sender, mut reports) = mpsc::channel(QUEUE);
    let mut writer = Writer::new(shared.clone(), db, Arc::clone(&known));
    let (mut events, mut outliving) = (Events::default(), Outliving::default());
    let mut statuses = Statuses::default();
    let mut followers = Followers::default();
    let mut settings = shared.settings.clone();
    // An idle session would end.
    let mut tick = tokio::time::interval(TICK.min(shared.ping_every()));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let now = Arc::clone(&settings.borrow_and_update());
        if !has_work(&now) && known.locked().is_empty() {
            return Ok(());
        }
        followers.set(&now, &known, &sender);
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            changed = settings.changed() => match changed {
                Ok(()) => shared.metrics.ended_discovering(),
                Err(_) => return Ok(()),
            },
            Some(report) = reports.recv() => {
                let place = full(&report.key);
                let names_others = spec::is_image_trigger(&report.key);
                match writer.apply(report).await {
                    Ok(None) => {}
                    Ok(Some(refused)) => events.tell(&now.clusters, refused),
                    // One object never stops the others.
                    Err(error) if is_about_data(&error) => {
                        let why = tagtrail_daemon::chain(&error);
                        tracing::error!("{place} can't be recorded: {why}");
                    }
                    Err(error) => return Err(error),
                }
                if names_others {
                    writer.refuse().await?;
                }
            }
            Some(done) = outliving.done() => writer.written_back(done).await?,
            _ = tick.tick() => {
                within(shared.session_timeout, ping(writer.db())).await?;
                writer.leave(&now).await?;
                // An earlier process, or an earlier version, may have left some in force.
                writer.refuse().await?;
                let counts = count::count(&now.discovering, &known.locked(), writer.left_out());
                shared.metrics.discovered(&counts);
                for order in writer.outlived().await? {
                    outliving.write_back(&now.clusters, order, &mut events);
                }
                events.tell_all(&now, &known);
                statuses.write(shared, &now, &known, writer.db()).await?;
            }
        }
    }
}

/// Returns whether Postgres refuses a value, in a session that goes on.
fn is_about_data(error: &Error) -> bool {
    let Error::Database(sqlx::Error::Database(error)) = error else {
        return false;
    };
    // The classes of data exceptions and of violated constraints.
    let classes = ["22", "23"];
    error
        .code()
        .is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
}

/// The tasks that follow clusters, by the names of the clusters.
#[derive(Default)]
struct Followers(BTreeMap<String, (Discovering, Arc<Cluster>, JoinSet<()>)>);

impl Followers {
    /// Begins and ends tasks, as the settings say. A cluster whose entry is the same goes on.
    fn set(&mut self, settings: &Settings, known: &Arc<Known>, reports: &mpsc::Sender<Report>) {
        let discovering = &settings.discovering;
        self.0.retain(|name, (entry, cluster, _)| {
            let same = settings.clusters.named(name);
            discovering.get(name) == Some(&*entry)
                && same.is_ok_and(|same| Arc::ptr_eq(&same, cluster))
        });
        for (name, entry) in discovering {
            if self.0.contains_key(name) {
                continue;
            }
            let Ok(cluster) = settings.clusters.named(name) else {
                continue;
            };
            let mut tasks = JoinSet::new();
            for (scope, further) in scopes(entry) {
                let follower = Follower {
                    cluster: Arc::clone(&cluster),
                    scope,
                    further,
                    entry: entry.clone(),
                    known: Arc::clone(known),
                    reports: reports.clone(),
                };
                tasks.spawn(follower.run());
            }
            self.0.insert(name.clone(), (entry.clone(), cluster, tasks));
        }
    }
}

/// Returns the objects that a cluster is watched for, and whether some clusters lack their kind.
pub(crate) fn scopes(entry: &Discovering) -> Vec<(Scope, bool)> {
    let namespaces: Vec<Option<String>> = match &entry.namespaces {
        None => vec![None],
        Some(names) => names.iter().cloned().map(Some).collect(),
    };
    let mut scopes = Vec::new();
    for namespace in namespaces {
        for (kind, group) in kinds() {
            let scope = Scope {
                kind: kind.to_owned(),
                group: group.map(str::to_owned),
                namespace: namespace.clone(),
            };
            scopes.push((scope, group.is_some()));
        }
    }
    scopes
}

/// Returns the kinds of objects that are followed, with the groups of those that some clusters
/// lack.
fn kinds() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    let built_in = BuiltIn::ALL.into_iter().map(|kind| (kind.singular, None));
    built_in.chain(FURTHER.map(|(kind, group)| (kind, Some(group))))
}

/// Returns an object as people name it.
fn full(key: &Key) -> String {
    let Key {
        cluster,
        namespace,
        object,
    } = key;
    format!("{object} in namespace {namespace} of cluster {cluster}")
}
