//! Messages about rollouts to chats and other receivers, by the entries `[[notify]]`.
//!
//! Each entry reads ROLLOUTS with a consumer of its own, and keeps its place in Postgres. So a
//! receiver that fails or hangs delays no rollout and no other entry, and no other client of NATS
//! can move the place.

mod deliver;
mod entry;
mod format;
mod metrics;
mod notice;
mod sample;
mod test;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::Bus;
use tagtrail_postgres::{Lock, ping, within};
use tokio::task::{AbortHandle, JoinSet};

use crate::error::Error;
use crate::lead::Lead;
use crate::settings::Settings;
use crate::shared::Shared;

pub(crate) use entry::{Entries, Entry, describe, entries, warnings};
pub(crate) use metrics::Metrics;
pub use test::{NotifyReport, inspect_notify, test_notify};

/// Time for the requests under way after a stop request.
const STOP: Duration = Duration::from_secs(5);

/// Delivers the messages of all entries until shutdown. One instance does; the others stand by.
pub(crate) async fn notifier(shared: Shared, bus: Bus) -> anyhow::Result<()> {
    let has_entries = |settings: &Settings| !settings.notify.is_empty();
    let mut lead = Lead::new(&shared, Lock::Notify, "delivering messages about rollouts");
    while let Some(mut db) = lead.session(has_entries).await {
        let ended = run(&shared, &bus, &mut db).await;
        lead.ended(ended).await;
    }
    Ok(())
}

/// Runs a task for each entry. Returns after a stop request, and when no entry is left.
async fn run(shared: &Shared, bus: &Bus, db: &mut PgConnection) -> Result<(), Error> {
    let mut settings = shared.settings.clone();
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<String, (Arc<Entry>, AbortHandle)> = BTreeMap::new();
    loop {
        let wanted = Arc::clone(&settings.borrow_and_update().notify);
        running.retain(|name, (entry, task)| {
            let same = wanted.get(name).is_some_and(|one| Arc::ptr_eq(one, entry));
            let keep = same && !task.is_finished();
            if !keep {
                task.abort();
            }
            keep
        });
        for (name, entry) in wanted.iter() {
            if !running.contains_key(name) {
                let entry = Arc::clone(entry);
                let delivering = deliver::deliver(shared.clone(), bus.clone(), Arc::clone(&entry));
                running.insert(name.clone(), (entry, tasks.spawn(delivering)));
            }
        }
        if running.is_empty() {
            return Ok(());
        }
        tokio::select! {
            () = shared.shutdown.cancelled() => break,
            changed = settings.changed() => if changed.is_err() { break },
            // A task ends by an abort, or by a panic, after which it is started again.
            Some(_) = tasks.join_next() => tokio::time::sleep(Duration::from_millis(100)).await,
            // Keeps the session alive, and so the lock.
            () = tokio::time::sleep(shared.ping_every()) => {
                within(shared.session_timeout, ping(db)).await?;
            }
        }
    }
    let _ = tokio::time::timeout(STOP, async { while tasks.join_next().await.is_some() {} }).await;
    Ok(())
}
