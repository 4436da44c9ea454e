//! The dispatcher begins due attempts as far as slots are free, many in one statement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tagtrail_daemon::Retry;
use tagtrail_postgres::within;

use super::attempt::{self, Stop};
use super::slots::Slot;
use crate::error::Error;
use crate::shared::Shared;
use crate::store::working::{self as store, Attempt};
use crate::target::Target;

/// The interval of queries for rollouts of other instances and for attempts that were taken over.
const POLL: Duration = Duration::from_secs(1);
/// The pause before the next look at a due rollout that could not be begun.
const AGAIN: Duration = Duration::from_millis(200);
/// Most attempts that one statement begins.
const SET: usize = 256;
/// The time that attempts have to end by themselves after a stop request.
pub(super) const FINISH: Duration = Duration::from_secs(5);
/// The time to record the end of an attempt after a stop request.
pub(super) const RECORD: Duration = Duration::from_secs(3);
/// The time after the start of the service within which each rollout that had failed before is
/// attempted: a restart often follows a repair.
const START_OVER: Duration = Duration::from_secs(10);

/// Begins attempts until shutdown, and then waits for the end of those that run.
pub(crate) async fn dispatcher(shared: Shared) -> anyhow::Result<()> {
    let mut retry = Retry::new("beginning attempts");
    while !shared.shutdown.is_cancelled() {
        let Err(error) = dispatch(&shared).await else {
            break;
        };
        shared.connections.forget_idle();
        if !retry.wait(&error, &shared.shutdown).await {
            break;
        }
    }
    finish(&shared).await;
    shared.attempts_ended.cancel();
    Ok(())
}

/// Waits for the attempts that run. Those that take too long are told to end.
async fn finish(shared: &Shared) {
    shared.attempts.close();
    if tokio::time::timeout(FINISH, shared.attempts.wait())
        .await
        .is_ok()
    {
        return;
    }
    for watched in shared.in_flight.locked().values_mut() {
        watched.end(Stop::Process);
    }
    // Each attempt bounds its own end: the grace time of the target, and the record.
    shared.attempts.wait().await;
}

/// Begins attempts until shutdown or the first error.
async fn dispatch(shared: &Shared) -> Result<(), Error> {
    let names: Vec<String> = shared.targets().keys().cloned().collect();
    let starting_over = async || {
        let mut db = shared.connections.lend(shared.session_timeout).await?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let starting = store::start_over(&mut db, &names, START_OVER);
        within(shared.session_timeout, starting).await?;
        db.keep();
        Ok::<_, Error>(())
    };
    shared.started_over.get_or_try_init(starting_over).await?;
    let mut pause = Duration::ZERO;
    let mut full = false;
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            () = shared.work_recorded.notified() => {}
            () = shared.slots.freed(), if full => {}
            () = tokio::time::sleep(pause) => {}
        }
        if !shared.instance.is_held() {
            // The holder of the lock notifies once it has the lock again.
            pause = POLL;
            continue;
        }
        let queued = shared.take_queued();
        if !queued.is_empty() {
            begin_queued(shared, queued).await?;
        }
        (pause, full) = begin_due(shared).await?;
    }
}

/// Begins the attempts of triggers with a rollout that this process recorded. They need no query:
/// those that could not be begun are in the backlog.
async fn begin_queued(shared: &Shared, queued: BTreeMap<i32, String>) -> Result<(), Error> {
    let mut wanted = queued.into_iter().peekable();
    while wanted.peek().is_some() {
        let set: Vec<_> = wanted.by_ref().take(SET).collect();
        begin(shared, &set).await?;
    }
    Ok(())
}

/// Begins the due attempts for which a slot is free. Returns the pause before the next look, and
/// whether a place has no free slot.
async fn begin_due(shared: &Shared) -> Result<(Duration, bool), Error> {
    let settings = Arc::clone(&shared.settings.borrow());
    let targets = &settings.targets;
    // A place without a free slot must not fill the backlog with its rollouts.
    let (mut full, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    let mut names = Vec::with_capacity(targets.len());
    for (name, target) in targets.iter() {
        let place = target.place();
        kinds.insert(place.kind);
        match full.contains(&place) || !shared.slots.has_free(&place) {
            true => drop(full.insert(place)),
            false => names.extend(
                settings
                    .triggers
                    .get(name)
                    .map(|own| (name.as_str(), own.hash)),
            ),
        }
    }
    let mut db = shared.connections.lend(shared.session_timeout).await?;
    let backlog = within(shared.session_timeout, store::backlog(&mut db, &names)).await?;
    db.keep();
    let oldest = backlog.due.iter().map(|due| due.since).max();
    shared.metrics.due(
        (backlog.due.len(), oldest.unwrap_or_default()),
        &shared.slots,
        &kinds,
    );
    let due: Vec<_> = backlog
        .due
        .into_iter()
        .map(|due| (due.trigger, due.name))
        .collect();
    let Begun { begun, waiting } = begin(shared, &due).await?;
    let pause = match begun + waiting < due.len() {
        true => AGAIN,
        false => POLL.min(backlog.next.unwrap_or(POLL)),
    };
    Ok((pause, waiting > 0 || !full.is_empty()))
}

/// The numbers of attempts that began, and that wait for a slot.
struct Begun {
    begun: usize,
    waiting: usize,
}

/// Begins attempts of these triggers, as far as slots are free.
async fn begin(shared: &Shared, wanted: &[(i32, String)]) -> Result<Begun, Error> {
    let settings = Arc::clone(&shared.settings.borrow());
    let mut own = Vec::with_capacity(wanted.len());
    let mut taken: BTreeMap<i32, (Arc<dyn Target>, Slot)> = BTreeMap::new();
    let mut waiting = 0;
    for (trigger, name) in wanted {
        let (Some(target), Some(spec)) = (settings.targets.get(name), settings.triggers.get(name))
        else {
            continue;
        };
        match shared.slots.take(target.place()) {
            Some(slot) => {
                taken.insert(*trigger, (Arc::clone(target), slot));
                own.push(store::Own {
                    trigger: *trigger,
                    hash: spec.hash,
                    identity: target.identity(),
                    partial: spec.partial,
                });
            }
            None => waiting += 1,
        }
    }
    if taken.is_empty() {
        return Ok(Begun { begun: 0, waiting });
    }
    let mut db = shared.connections.lend(shared.session_timeout).await?;
    let owner = &shared.instance.owner;
    let attempts = within(shared.session_timeout, store::begin(&mut db, &own, owner)).await?;
    db.keep();
    let begun = attempts.len();
    for attempt in attempts {
        if let Some((target, slot)) = taken.remove(&attempt.trigger) {
            start(shared, target, attempt, slot);
        }
    }
    shared.entries_recorded.notify_one();
    Ok(Begun { begun, waiting })
}

/// Starts an attempt that was recorded as begun.
pub(crate) fn start(shared: &Shared, target: Arc<dyn Target>, attempt: Attempt, slot: Slot) {
    let end = target.grace() + attempt::END + RECORD;
    shared.stop_time.at_least(FINISH + end);
    let task = attempt::make(shared.clone(), target, attempt, slot);
    shared.attempts.spawn(task);
}
