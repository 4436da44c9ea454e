//! Taking partitions: one free one at a time, with a pause between, so that instances that start together share them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_daemon::{Health, Retry};
use tagtrail_postgres::{DbArgs, Lock, ping};
use tokio::task::{Id, JoinSet};

use crate::error::Error;
use crate::record::hold::hold;
use crate::restore::unrecorded::UnrecordedCache;
use crate::shared::Shared;

/// Takes and holds partitions until a stop is asked for, then waits for those held to be put down.
pub(crate) async fn partitions(
    db: DbArgs,
    shared: Shared,
    interval: Duration,
    health: Health,
) -> anyhow::Result<()> {
    let mut held: JoinSet<Result<(), Error>> = JoinSet::new();
    let mut numbers: BTreeMap<Id, u16> = BTreeMap::new();
    // The session that asks; it becomes the partition's own once it has got one.
    let mut spare: Option<PgConnection> = None;
    let mut every = tokio::time::interval(interval);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let cache = UnrecordedCache::default();
    let mut retry = Retry::new("acquiring partitions");
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => break,
            Some(ended) = held.join_next_with_id() => {
                let (id, outcome) = match ended {
                    Ok((id, outcome)) => (id, outcome.map_err(anyhow::Error::from)),
                    Err(panic) => (panic.id(), Err(panic.into())),
                };
                let Some(number) = numbers.remove(&id) else { continue };
                shared.metrics.held.dec();
                shared.metrics.gave_up(number);
                if let Err(error) = outcome {
                    tracing::warn!(partition = number, "gave the partition up: {error:#}");
                }
            }
            _ = every.tick() => {
                let free: BTreeSet<u16> = (0..shared.bus.partitions()).filter(|number| !numbers.values().any(|held| held == number)).collect();
                match take_one(&db, &shared, &mut spare, free).await {
                    Ok(taken) => {
                        retry.succeeded();
                        health.set("postgres", shared.readiness.state());
                        if let Some((number, session)) = taken {
                            tracing::info!(partition = number, "took the partition");
                            shared.metrics.held.inc();
                            numbers.insert(held.spawn(hold(shared.clone(), cache.clone(), number, session)).id(), number);
                        }
                    }
                    Err(error) => {
                        spare = None;
                        health.set("postgres", Err("can't take partitions: the database does not answer".to_owned()));
                        every.reset_after(interval.max(retry.failed(&error)));
                    }
                }
            }
        }
    }
    while held.join_next().await.is_some() {}
    Ok(())
}

/// Asks for each free partition until one is got.
async fn take_one(
    db: &DbArgs,
    shared: &Shared,
    spare: &mut Option<PgConnection>,
    free: BTreeSet<u16>,
) -> Result<Option<(u16, PgConnection)>, Error> {
    let asking = async {
        let mut session = match spare.take() {
            Some(session) => session,
            None => db.session("indexer", shared.silence).await?,
        };
        for number in free {
            if Lock::Partition(number).try_acquire(&mut session).await? {
                return Ok(Some((number, session)));
            }
            // Another instance has it.
            shared.readiness.recovered(number);
        }
        // Asked or not, it must not fall silent.
        ping(&mut session).await?;
        *spare = Some(session);
        Ok::<_, sqlx::Error>(None)
    };
    shared.within(Box::pin(asking)).await
}
