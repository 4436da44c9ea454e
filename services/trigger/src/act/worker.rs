//! Workers. Each makes one attempt at a time.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_daemon::{Retry, Span, SpanKind};
use tagtrail_failpoint::FailPoint;
use tagtrail_postgres::{Lock, ping, within};
use tagtrail_proto::{Rollout, RolloutState};
use time::OffsetDateTime;

use crate::error::Error;
use crate::shared::Shared;
use crate::store::working::{self as store, Attempt, Standing};
use crate::target::{Order, Targets};
use tagtrail_policy::retry::{self, Next, Outcome};

/// The interval of queries for rollouts of other instances and of workers that died.
const POLL: Duration = Duration::from_secs(1);
/// The time that an attempt in flight may take after a stop request. The next start repeats an
/// attempt that was cut off.
const GRACE: Duration = Duration::from_secs(8);
/// The time after the start of the service within which each rollout that had failed before is
/// attempted: a restart often follows a repair.
const START_OVER: Duration = Duration::from_secs(10);

/// Makes attempts until shutdown.
pub(crate) async fn worker(shared: Shared, targets: Arc<Targets>) -> anyhow::Result<()> {
    let mut retry = Retry::new("a worker");
    loop {
        let outcome = async {
            let mut db = shared.session().await?;
            work(&shared, &targets, &mut db).await
        };
        let Err(error) = outcome.await else {
            return Ok(());
        };
        if !retry.wait(&error, &shared.shutdown).await {
            return Ok(());
        }
    }
}

async fn work(shared: &Shared, targets: &Targets, db: &mut PgConnection) -> Result<(), Error> {
    let names: Vec<&str> = targets.keys().map(String::as_str).collect();
    let starting_over = async || {
        within(
            shared.session_timeout,
            store::start_over(db, &names, START_OVER),
        )
        .await
    };
    shared.started_over.get_or_try_init(starting_over).await?;
    while !shared.shutdown.is_cancelled() {
        if let Some(trigger) = shared.next_queued() {
            attempt_next(shared, targets, db, trigger).await?;
            continue;
        }
        let backlog = within(shared.session_timeout, store::backlog(db, &names)).await?;
        let mut worked = false;
        for trigger in backlog.due {
            worked |= attempt_next(shared, targets, db, trigger).await?;
            if worked {
                break; // The attempt took time: read the backlog again.
            }
        }
        if !worked {
            let pause = POLL
                .min(shared.ping_every())
                .min(backlog.next.unwrap_or(POLL));
            tokio::select! {
                () = shared.shutdown.cancelled() => {}
                () = shared.work_recorded.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
    Ok(())
}

/// Makes one attempt for a trigger, unless another worker holds its lock. Returns whether an
/// attempt began.
async fn attempt_next(
    shared: &Shared,
    targets: &Targets,
    db: &mut PgConnection,
    trigger: i32,
) -> Result<bool, Error> {
    let lock = Lock::Target(trigger);
    if !within(shared.session_timeout, lock.try_acquire(db)).await? {
        return Ok(false);
    }
    FailPoint::TriggerLocked.pass();
    let attempt = within(shared.session_timeout, store::begin(db, trigger)).await?;
    let attempted = attempt.is_some();
    if let Some(attempt) = attempt {
        FailPoint::TriggerBegun.pass();
        // Other triggers may be due as well: wake another worker.
        shared.work_recorded.notify_one();
        shared.entries_recorded.notify_one();
        if let Some(outcome) = call(shared, targets, db, &attempt).await? {
            FailPoint::TriggerTold.pass();
            within(
                shared.session_timeout,
                record(shared, db, trigger, &attempt, outcome),
            )
            .await?;
            FailPoint::TriggerDone.pass();
            shared.entries_recorded.notify_one();
        }
    }
    within(shared.session_timeout, lock.release(db)).await?;
    // A newer rollout of this trigger may have waited for the lock.
    shared.work_recorded.notify_one();
    Ok(attempted)
}

/// Calls the target outside any transaction. If the session is lost, the attempt ends at once,
/// since another worker may begin the attempt again. Returns the outcome and the time that the
/// target took; `None`: the target did not answer within `GRACE` after a stop request.
async fn call(
    shared: &Shared,
    targets: &Targets,
    db: &mut PgConnection,
    attempt: &Attempt,
) -> Result<Option<(Outcome, Duration)>, Error> {
    let rollout = &attempt.rollout;
    // `backlog` and the planner name configured triggers only.
    let target = targets
        .get(&rollout.trigger)
        .ok_or(Error::Inconsistent("a trigger has no target"))?;
    let mut span = Span::start("attempt", SpanKind::Client, attempt.trace.as_ref());
    span.set("tagtrail.rollout", rollout.id.clone());
    span.set("tagtrail.trigger", rollout.trigger.clone());
    let order = Order::new(rollout, *span.context())?;
    tracing::info!(
        trigger = rollout.trigger,
        rollout.id,
        rollout.number,
        delivery.attempt = rollout.attempts,
        "attempting rollout {1} of {0}",
        rollout.trigger,
        rollout.number
    );
    let started = tokio::time::Instant::now();
    let stay_alive = async {
        loop {
            tokio::time::sleep(shared.ping_every()).await;
            if let Err(error) = within(shared.session_timeout, ping(db)).await {
                return error;
            }
        }
    };
    let too_late = async {
        shared.shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        biased;
        outcome = target.apply(&order) => {
            if let Outcome::Failed { error, .. } | Outcome::Refused(error) | Outcome::Gone(error) = &outcome {
                span.fail(error);
            }
            let took = started.elapsed();
            shared.metrics.attempted(&rollout.trigger, &outcome, took.as_secs_f64());
            Ok(Some((outcome, took)))
        }
        error = stay_alive => Err(error.into()),
        () = too_late => Ok(None),
    }
}

/// Records the outcome of an attempt that took the time `took`.
async fn record(
    shared: &Shared,
    db: &mut PgConnection,
    trigger: i32,
    attempt: &Attempt,
    (outcome, took): (Outcome, Duration),
) -> Result<(), Error> {
    let (rollout, id) = (&attempt.rollout, attempt.rollout.id.as_str());
    let mut tx = db.begin().await?;
    let Standing { newer, phase } = store::standing(&mut tx, trigger, rollout.number).await?;
    let mut next = retry::next(shared.pace, outcome, phase, took, rand::random());
    if newer {
        next = next.below_a_newer_one();
    }
    match &next {
        Next::Succeeded => store::finish(&mut tx, id, RolloutState::Succeeded, None).await?,
        Next::Ended(error) => {
            store::finish(&mut tx, id, RolloutState::Failed, Some(error)).await?;
        }
        Next::Superseded(error) => {
            store::finish(&mut tx, id, RolloutState::Superseded, Some(error)).await?;
        }
        Next::Failed { pause, error } => store::fail(&mut tx, id, *pause, error).await?,
        Next::Retry {
            pause,
            counted,
            error,
        } => store::retry(&mut tx, id, (*pause, *counted), error).await?,
    }
    FailPoint::TriggerWritten.pass();
    tx.commit().await?;
    report(shared, attempt, &next);
    Ok(())
}

/// Logs the next step of a rollout, and measures the time of one that has ended.
fn report(shared: &Shared, attempt: &Attempt, next: &Next) {
    let Rollout {
        trigger,
        id,
        number,
        attempts,
        ..
    } = &attempt.rollout;
    let age = OffsetDateTime::now_utc() - attempt.rollout.created_at;
    let age = age.as_seconds_f64().max(0.0);
    match next {
        Next::Succeeded => {
            shared.metrics.rollout.observe(age);
            let duration_ms = age * 1000.0;
            tracing::info!(
                trigger,
                rollout.id = id,
                rollout.number = number,
                duration_ms,
                "rollout {number} of {trigger} succeeded"
            );
        }
        Next::Ended(error) => {
            shared.metrics.rollout.observe(age);
            tracing::error!(
                trigger,
                rollout.id = id,
                rollout.number = number,
                "rollout {number} of {trigger} failed, and is attempted again only by `tagtrail retry {trigger}`: {error}"
            );
        }
        Next::Superseded(error) => tracing::info!(
            trigger,
            rollout.id = id,
            rollout.number = number,
            "rollout {number} of {trigger} was superseded by a newer rollout; its last attempt failed: {error}"
        ),
        Next::Failed { pause, error } => tracing::error!(
            trigger,
            rollout.id = id,
            rollout.number = number,
            delivery.attempt = attempts,
            "rollout {number} of {trigger} failed; the next attempt is in {} min, or at once by `tagtrail retry {trigger}`: {error}",
            pause.as_secs() / 60
        ),
        Next::Retry { pause, error, .. } => tracing::warn!(
            trigger,
            rollout.id = id,
            rollout.number = number,
            delivery.attempt = attempts,
            "attempt {attempts} of rollout {number} of {trigger} failed; retrying in {:.1}s: {error}",
            pause.as_secs_f64()
        ),
    }
}
