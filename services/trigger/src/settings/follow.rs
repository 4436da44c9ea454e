//! Reads the recorded settings at a start, and follows the files and the triggers of other doors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tagtrail_config::{File, Follower};
use tagtrail_daemon::{Context, Retry, chain};
use tagtrail_failpoint::FailPoint;
use tagtrail_postgres::{DbArgs, within};
use tokio::sync::watch;

use super::Settings;
use crate::error::Error;
use crate::shared::Shared;
use crate::store::generations::{self, Discovered, Generation, Place};

/// The bound of reading and noting settings in Postgres.
const READ: Duration = Duration::from_secs(5);
/// The interval at which a process notes that it runs.
const SEEN_EVERY: Duration = Duration::from_secs(10);
/// The interval of looks at the triggers of the API and of annotated objects.
const API_EVERY: Duration = Duration::from_secs(1);

/// The settings that the database keeps.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// The last good generations of the triggers of the files.
    pub(super) good: BTreeMap<String, Generation>,
    /// The triggers of the API.
    pub(super) api: BTreeMap<String, Generation>,
    /// The triggers of annotated objects.
    pub(super) discovered: BTreeMap<String, Discovered>,
    /// The place of the last change by the API or an object that was read.
    last: Place,
}

fn by_name(generations: Vec<Generation>) -> BTreeMap<String, Generation> {
    let named = generations.into_iter().map(|one| (one.name.clone(), one));
    named.collect()
}

/// Reads the settings that the database keeps. `None`: a stop was requested.
pub(crate) async fn recorded(db: &DbArgs, ctx: &Context) -> Option<Recorded> {
    let mut retry = Retry::new("reading the recorded settings of triggers");
    loop {
        let read = async || {
            let mut db = db.session("trigger", READ).await?;
            let good = generations::of_files(&mut db).await?;
            let last = generations::last_of_doors(&mut db).await?;
            let api = generations::of_api(&mut db).await?;
            let discovered = generations::of_clusters(&mut db).await?;
            Ok::<_, sqlx::Error>(Recorded {
                good: by_name(good),
                api: by_name(api),
                discovered,
                last,
            })
        };
        match within(READ, read()).await {
            Ok(recorded) => return Some(recorded),
            Err(error) => {
                ctx.health.set("postgres", Err(chain(&error)));
                if !retry.wait(&error, &ctx.shutdown).await {
                    return None;
                }
            }
        }
    }
}

/// Follows the files until shutdown, hands new settings to all tasks, and notes that this process
/// runs.
pub(crate) async fn follow(
    mut files: Follower,
    settings: watch::Sender<Arc<Settings>>,
    mut recorded: Recorded,
    shared: Shared,
) -> anyhow::Result<()> {
    // Without another door there are no triggers to look for.
    let has_doors = |file: &File, recorded: &Recorded| {
        let discovers = file.cluster.iter().any(|one| !one.discover.is_empty());
        file.api_triggers.is_some() || discovers || !recorded.discovered.is_empty()
    };
    let mut api = tokio::time::interval(API_EVERY);
    api.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = tokio::time::interval(SEEN_EVERY);
    seen.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let file = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            _ = seen.tick() => {
                note_seen(&shared).await;
                continue;
            }
            // Its settings are the recorded ones from now on.
            () = shared.configured.notified() => {
                note_seen(&shared).await;
                continue;
            }
            _ = api.tick(), if has_doors(&files.file(), &recorded) => match read_doors(&shared, &mut recorded).await {
                true => files.file(),
                false => continue,
            },
            file = files.changed() => {
                if has_doors(&file, &recorded) {
                    read_doors(&shared, &mut recorded).await;
                }
                file
            }
        };
        FailPoint::TriggerReloaded.pass();
        if FailPoint::TriggerReload.skipped() {
            continue;
        }
        let before = Arc::clone(&settings.borrow());
        let now = Settings::read(&file, &recorded, Some(&before));
        now.report(Some(&before));
        shared.metrics.triggers(&now);
        let (triggers, changed) = (now.triggers.len(), now.changed.len());
        tracing::info!(
            triggers,
            changed,
            "read the changed files again: {triggers} triggers, of which {changed} have changed"
        );
        settings.send_replace(Arc::new(now));
    }
    if let Ok(mut db) = shared.connections.lend(READ).await
        && within(READ, generations::ended(&mut db, &shared.instance.owner))
            .await
            .is_ok()
    {
        db.keep();
    }
    Ok(())
}

/// Reads the triggers of the API and of annotated objects if they have changed. Returns whether
/// they have. Others show a failure, and the next look comes soon.
async fn read_doors(shared: &Shared, recorded: &mut Recorded) -> bool {
    let known = recorded.last;
    let reading = async {
        let mut db = shared.connections.lend(READ).await?;
        let last = within(READ, generations::last_of_doors(&mut db)).await?;
        let read = match last == known {
            true => None,
            false => {
                let api = within(READ, generations::of_api(&mut db)).await?;
                let discovered = within(READ, generations::of_clusters(&mut db)).await?;
                Some((last, api, discovered))
            }
        };
        db.keep();
        Ok::<_, Error>(read)
    };
    match reading.await {
        Ok(Some((last, api, discovered))) => {
            recorded.last = last;
            recorded.api = by_name(api);
            recorded.discovered = discovered;
            true
        }
        Ok(None) => false,
        Err(error) => {
            tracing::debug!("the triggers of other doors could not be read: {error}");
            false
        }
    }
}

/// Notes that this process runs. A failure is shown by others.
async fn note_seen(shared: &Shared) {
    let settings = Arc::clone(&shared.settings.borrow());
    let noting = async {
        let mut db = shared.connections.lend(READ).await?;
        within(
            READ,
            generations::seen(&mut db, &shared.instance.owner, &settings),
        )
        .await?;
        db.keep();
        Ok::<_, Error>(())
    };
    if let Err(error) = noting.await {
        tracing::debug!("this process could not be noted: {error}");
    }
}
