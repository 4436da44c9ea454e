//! The observer looks at rollouts that their target took, until their result is known. Any process
//! makes the next look. A look is no attempt: it takes no slot, and does not count.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_config::OnTargetChange;
use tagtrail_daemon::Retry;
use tagtrail_postgres::within;

use super::attempt::END;
use super::dispatcher::{FINISH, RECORD};
use super::look;
use crate::error::Error;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::store::attempts::LOOK;
use crate::store::looks::{self as store, Elsewhere};

/// The interval of queries for due looks.
const POLL: Duration = Duration::from_secs(1);
/// The pause before the next query after one that found as many looks as may begin.
const AGAIN: Duration = Duration::from_millis(100);
/// Most looks of this process at the same time, and most of those that may run a command.
const AT_ONCE: usize = 250;
const COMMANDS: usize = 64;

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
    let (mut running, mut running_commands) = (0, 0);
    for ((_, number), watched) in shared.in_flight.locked().iter() {
        match watched.kind {
            _ if *number != LOOK => {}
            look::COMMAND => running_commands += 1,
            _ => running += 1,
        }
    }
    shared.metrics.looks_in_flight(running + running_commands);
    let settings = Arc::clone(&shared.settings.borrow());
    let (targets, verifies) = (&settings.targets, &settings.verifies);
    let own = settings.triggers.iter().filter_map(|(name, spec)| {
        Some(store::Own {
            trigger: name,
            hash: spec.hash,
            identity: targets.get(name)?.identity(),
            grace: verifies.get(name).and_then(|verify| verify.grace()),
        })
    });
    let (commands, plain): (Vec<_>, Vec<_>) = own.partition(|own| own.grace.is_some());
    let mut next = POLL;
    for (own, room) in [
        (plain, AT_ONCE.saturating_sub(running)),
        (commands, COMMANDS.saturating_sub(running_commands)),
    ] {
        if own.is_empty() {
            continue;
        }
        if room == 0 {
            next = AGAIN;
            continue;
        }
        let mut db = shared.connections.lend(shared.session_timeout).await?;
        let begun = store::begin(&mut db, &own, &shared.instance.owner, room);
        let begun = within(shared.session_timeout, begun).await?;
        if !begun.elsewhere.is_empty() {
            let ended = leave(&mut db, &settings, &begun.elsewhere);
            within(shared.session_timeout, ended).await?;
            shared.entries_recorded.notify_one();
        }
        db.keep();
        let found = begun.looks.len() + begun.elsewhere.len();
        if found >= room {
            next = AGAIN;
        } else if found > 0 {
            next = next.min(AGAIN.max(shared.look_pace.first));
        }
        for one in begun.looks {
            let Some(target) = targets.get(&one.of.rollout.trigger) else {
                continue;
            };
            let verify = verifies.get(&one.of.rollout.trigger).cloned();
            let grace = verify.as_ref().and_then(|verify| verify.grace());
            let end = grace.unwrap_or_default() + END + RECORD;
            shared.stop_time.at_least(FINISH + end);
            let task = look::make(shared.clone(), Arc::clone(target), verify, one);
            shared.attempts.spawn(task);
        }
    }
    Ok(next)
}

/// Ends the watch of rollouts that another target took than the present one.
async fn leave(
    db: &mut PgConnection,
    settings: &Settings,
    elsewhere: &[Elsewhere],
) -> Result<(), sqlx::Error> {
    let follows = |name: &String| {
        let spec = settings.triggers.get(name);
        spec.is_some_and(|spec| spec.on_target_change == OnTargetChange::Rollout)
    };
    let rollouts: Vec<(&str, bool)> = elsewhere
        .iter()
        .map(|one| (one.rollout.as_str(), follows(&one.trigger)))
        .collect();
    store::leave(db, &rollouts).await?;
    for Elsewhere { trigger, rollout } in elsewhere {
        tracing::info!(
            trigger,
            rollout.id = rollout,
            "the result of the last rollout of {trigger} is not known: the trigger has another target"
        );
    }
    Ok(())
}
