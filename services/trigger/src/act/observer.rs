//! The observer looks at rollouts that their target took, until their result is known. Any process
//! makes the next look. A look is no attempt: it takes no slot, and does not count.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tagtrail_daemon::Retry;
use tagtrail_postgres::within;

use super::attempt::END;
use super::dispatcher::{FINISH, RECORD};
use super::look;
use crate::error::Error;
use crate::shared::Shared;
use crate::store::attempts::LOOK;
use crate::store::looks as store;

/// The interval of queries for due looks.
const POLL: Duration = Duration::from_secs(1);
/// The pause before the next query after one that found as many looks as may begin.
const AGAIN: Duration = Duration::from_millis(100);
/// Most looks of this process at the same time.
const AT_ONCE: usize = 250;

/// Begins looks until shutdown. The dispatcher waits for those that run.
pub(crate) async fn observer(shared: Shared) -> anyhow::Result<()> {
    let mut retry = Retry::new("observing rollouts");
    while !shared.shutdown.is_cancelled() {
        let Err(error) = observe(&shared).await else {
            break;
        };
        shared.connections.forget_idle();
        if !retry.wait(&error, &shared.shutdown).await {
            break;
        }
    }
    Ok(())
}

/// Begins looks until shutdown or the first error.
async fn observe(shared: &Shared) -> Result<(), Error> {
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            () = shared.watching_recorded.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = match shared.instance.is_held() {
            true => begin(shared).await?,
            false => POLL,
        };
    }
}

/// Begins the due looks, as far as this process may make more of them. Returns the pause before the
/// next query.
async fn begin(shared: &Shared) -> Result<Duration, Error> {
    let running = {
        let in_flight = shared.in_flight.locked();
        in_flight
            .keys()
            .filter(|(_, number)| *number == LOOK)
            .count()
    };
    shared.metrics.looks_in_flight(running);
    let room = AT_ONCE.saturating_sub(running);
    if room == 0 {
        return Ok(AGAIN);
    }
    let targets = shared.targets();
    let names: BTreeMap<&str, Option<Duration>> =
        targets.keys().map(|name| (name.as_str(), None)).collect();
    let mut db = shared.connections.lend(shared.session_timeout).await?;
    let owner = &shared.instance.owner;
    let begun = store::begin(&mut db, &names, owner, room);
    let begun = within(shared.session_timeout, begun).await?;
    db.keep();
    let count = begun.len();
    let mut next = POLL;
    for one in begun {
        let Some(target) = targets.get(&one.of.rollout.trigger) else {
            continue;
        };
        shared.stop_time.at_least(FINISH + END + RECORD);
        let task = look::make(shared.clone(), Arc::clone(target), one);
        shared.attempts.spawn(task);
        next = AGAIN.max(shared.look_pace.first).min(POLL);
    }
    Ok(if count >= room { AGAIN } else { next })
}
