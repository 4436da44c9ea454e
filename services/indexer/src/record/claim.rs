//! Acquires partitions: one free partition at a time, with a pause between, so that instances that
//! start together get equal shares.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_daemon::{Health, Retry, chain};
use tagtrail_postgres::{DbArgs, Lock, ping};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use crate::error::Error;
use crate::record::hold::hold;
use crate::restore::unrecorded::UnrecordedCache;
use crate::shared::Shared;

/// Time between two looks at who holds the partitions that this instance could not acquire.
const LOOK: Duration = Duration::from_secs(5);

/// Acquires and holds partitions until a stop is requested, then waits for the release of all
/// partitions held.
pub(crate) async fn partitions(
    db: DbArgs,
    shared: Shared,
    interval: Duration,
    health: Health,
) -> anyhow::Result<()> {
    let mut held: JoinSet<Result<(), Error>> = JoinSet::new();
    let mut numbers: BTreeMap<Id, u16> = BTreeMap::new();
    // The session that tries to acquire a partition. The acquired partition keeps this session.
    let mut spare: Option<PgConnection> = None;
    let mut every = tokio::time::interval(interval);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let cache = UnrecordedCache::default();
    let mut looked = Instant::now();
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
                every.reset_after(interval);
                if let Err(error) = outcome {
                    tracing::warn!(partition = number, "released the partition: {error:#}");
                }
            }
            _ = every.tick() => {
                let free: BTreeSet<u16> = (0..shared.bus.partitions()).filter(|number| !numbers.values().any(|held| held == number)).collect();
                if free.is_empty() {
                    // Each holder's session finds out by itself whether Postgres is there.
                    spare = None;
                    health.set("postgres", shared.readiness.state(Instant::now()));
                    every.reset_after(interval.max(shared.turn()));
                    continue;
                }
                match take_one(&db, &shared, &mut spare, free, &mut looked).await {
                    Ok(taken) => {
                        retry.succeeded();
                        health.set("postgres", shared.readiness.state(Instant::now()));
                        if let Some((number, session)) = taken {
                            tracing::info!(partition = number, "acquired the partition");
                            shared.metrics.held.inc();
                            numbers.insert(held.spawn(hold(shared.clone(), cache.clone(), number, session)).id(), number);
                        }
                    }
                    Err(error) => {
                        spare = None;
                        health.set("postgres", Err(format!("can't acquire partitions: {}", chain(&error))));
                        every.reset_after(interval.max(retry.failed(&error)));
                    }
                }
            }
        }
    }
    while held.join_next().await.is_some() {}
    Ok(())
}

/// Tries to acquire each free partition until one succeeds.
async fn take_one(
    db: &DbArgs,
    shared: &Shared,
    spare: &mut Option<PgConnection>,
    free: BTreeSet<u16>,
    looked: &mut Instant,
) -> Result<Option<(u16, PgConnection)>, Error> {
    let asking = async {
        let mut session = match spare.take() {
            Some(session) => session,
            None => db.session("indexer", shared.silence).await?,
        };
        for number in &free {
            if Lock::Partition(*number).try_acquire(&mut session).await? {
                return Ok(Some((*number, session)));
            }
            // Another instance holds the partition.
            shared.readiness.recovered(*number);
        }
        // Keeps the session alive.
        ping(&mut session).await?;
        if looked.elapsed() >= LOOK {
            *looked = Instant::now();
            let held = Lock::held_partitions(&mut session).await?;
            shared
                .readiness
                .unheld(&free.difference(&held).copied().collect(), *looked);
        }
        *spare = Some(session);
        Ok::<_, sqlx::Error>(None)
    };
    shared.within(Box::pin(asking)).await
}
