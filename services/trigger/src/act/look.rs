//! One look at a rollout that its target took, and the record of the finding.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection as _;
use tagtrail_config::OnFailure;
use tagtrail_daemon::{Retry, Span, SpanKind};
use tagtrail_failpoint::FailPoint;
use tagtrail_policy::watch::{AfterLook, Found, Progress, after_look, step_of};
use tagtrail_postgres::within;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::attempt::{END, Watched, background_of};
use crate::error::Error;
use crate::shared::Shared;
use crate::store::attempts::LOOK;
use crate::store::faults;
use crate::store::looks::{self as store, Again, Failure, Look};
use crate::target::{OnForeignChange, Order, Seen, Target, Verify};

/// The kind of a look that may run a command.
pub(super) const COMMAND: &str = "command";
/// Most time that a target may take to report the effect of an order.
const OBSERVE: Duration = Duration::from_secs(30);

/// Makes a look that was recorded as begun, and records its finding.
pub(super) async fn make(
    shared: Shared,
    target: Arc<dyn Target>,
    verify: Option<Arc<Verify>>,
    look: Look,
) {
    let verify = verify.as_deref();
    let rollout = &look.of.rollout;
    let mut span = Span::start("look", SpanKind::Client, look.of.trace.as_ref());
    span.set("tagtrail.rollout", rollout.id.clone());
    span.set("tagtrail.trigger", rollout.trigger.clone());
    let found = match Order::new(rollout, *span.context()) {
        Ok(mut order) => {
            order.supervisor = shared.supervisor.clone();
            order.report.clone_from(&look.report);
            let background = background_of(&shared, target.as_ref(), &order).await;
            let unread = background.map(|read| order.background = read).err();
            let seeing = async {
                match unread {
                    Some(why) => Finding::of(Found::Progressing(why)),
                    None => find(target.as_ref(), verify, &look.progress, &order).await,
                }
            };
            let grace = verify.and_then(Verify::grace);
            watched(&shared, grace, &order, seeing).await
        }
        Err(error) => Some(Finding::of(Found::Failed(format!(
            "the rollout can't be written as JSON: {error}"
        )))),
    };
    drop(span);
    FailPoint::TriggerLooked.pass();
    record(&shared, &look, verify, found).await;
    FailPoint::TriggerFound.pass();
    shared.entries_recorded.notify_one();
}

/// The finding of a look, and whether it is a change of the images by somebody else that holds the
/// trigger.
#[derive(Debug, Clone)]
struct Finding {
    found: Found,
    holds: bool,
}

impl Finding {
    const fn of(found: Found) -> Finding {
        Finding {
            found,
            holds: false,
        }
    }
}

/// Looks, while the keeper looks after the look. `None`: it was cut off.
async fn watched(
    shared: &Shared,
    grace: Option<Duration>,
    order: &Order,
    seeing: impl Future<Output = Finding>,
) -> Option<Finding> {
    let key = (order.rollout.id.clone(), LOOK);
    let watched = Watched {
        kind: if grace.is_some() { COMMAND } else { "look" },
        begun: Instant::now(),
        said: order.said.clone(),
        stop: order.stop.clone(),
        why: None,
    };
    shared.in_flight.locked().insert(key.clone(), watched);
    let mut seeing = std::pin::pin!(seeing);
    let found = tokio::select! {
        biased;
        found = &mut seeing => Some(found),
        () = order.stop.cancelled() => match grace {
            None => None,
            // The command ends with all its processes.
            Some(grace) => tokio::time::timeout(grace + END, seeing).await.ok(),
        }
    };
    shared.in_flight.locked().remove(&key);
    // A look that was told to end has found nothing.
    found.filter(|_| !order.stop.is_cancelled())
}

/// Asks the target, and tries the step of `verify` whose turn it is if the target is healthy.
async fn find(
    target: &dyn Target,
    verify: Option<&Verify>,
    progress: &Progress,
    order: &Order,
) -> Finding {
    let observing = tokio::time::timeout(OBSERVE, target.observe(order));
    let observed = match FailPoint::TriggerObserve.skipped() {
        false => observing.await,
        true => Ok(Seen::Healthy),
    };
    match observed {
        Ok(Seen::Healthy) => {}
        Ok(Seen::Progressing(text)) => return Finding::of(Found::Progressing(text)),
        Ok(Seen::Failed(text)) => return Finding::of(Found::Failed(text)),
        Ok(Seen::Foreign(text)) => {
            return Finding {
                found: Found::Failed(text),
                holds: target.on_foreign_change() == OnForeignChange::Hold,
            };
        }
        Err(_) => {
            let text = format!("no answer within {} s", OBSERVE.as_secs());
            return Finding::of(Found::Progressing(text));
        }
    }
    Finding::of(verified(verify, progress, order).await)
}

/// Tries the step of `verify` whose turn it is.
async fn verified(verify: Option<&Verify>, progress: &Progress, order: &Order) -> Found {
    let stage = verify.and_then(|verify| step_of(progress, verify.times().len()));
    match (verify, stage) {
        (Some(_), Some(_)) if FailPoint::TriggerVerify.skipped() => Found::Healthy,
        (Some(verify), Some(stage)) => match verify.attempt(stage, order).await {
            Ok(()) => Found::Passed,
            Err(text) => Found::Missed(text),
        },
        _ => Found::Healthy,
    }
}

/// Records the finding, however long Postgres is away. After a stop request one try must do: the
/// next process then looks again.
async fn record(shared: &Shared, look: &Look, verify: Option<&Verify>, found: Option<Finding>) {
    if FailPoint::TriggerFinding.skipped() {
        return;
    }
    let mut retry = Retry::new("recording a look at a rollout");
    loop {
        let recorded = try_record(shared, look, verify, found.clone());
        let Err(error) = within(shared.session_timeout, recorded).await else {
            return;
        };
        shared.connections.forget_idle();
        if shared.shutdown.is_cancelled() || !retry.wait(&error, &shared.attempts_ended).await {
            return;
        }
    }
}

async fn try_record(
    shared: &Shared,
    look: &Look,
    verify: Option<&Verify>,
    found: Option<Finding>,
) -> Result<(), Error> {
    let owner = &shared.instance.owner;
    let mut db = shared.connections.lend(shared.session_timeout).await?;
    let Some(Finding { found, holds }) = found else {
        store::cut_off(&mut db, look, owner).await?;
        db.keep();
        // A newer rollout may have waited for the end of this look.
        shared.work_recorded.notify_one();
        return Ok(());
    };
    let timeout = shared.timeout(&look.of.rollout.trigger);
    let progress = progress(look, timeout);
    let steps = verify.map_or(&[][..], Verify::times);
    let after = after_look(shared.look_pace, timeout, steps, &progress, found);
    match &after {
        AfterLook::Succeeded => {
            if store::succeed(&mut db, look, owner).await? {
                report_success(shared, look);
            }
        }
        AfterLook::Again {
            pause,
            stage,
            passes,
            within,
            seen,
        } => {
            let again = Again {
                pause: *pause,
                stage: *stage,
                passes: *passes,
                within: *within,
                seen,
            };
            store::again(&mut db, look, owner, again).await?;
        }
        AfterLook::Failed { pause, error } => {
            let trigger = &look.of.rollout.trigger;
            let (jitter, pace): (f64, _) = (rand::random(), shared.pace(trigger));
            let on_failure = match holds {
                true => OnFailure::Hold,
                false => shared.on_failure(trigger),
            };
            let failure = Failure {
                look: *pause,
                // The hold that follows ends by a person, who wants the attempt then.
                attempt: match holds {
                    true => pace.first,
                    false => pace.slow.mul_f64(0.9 + jitter / 10.0),
                },
                ends: pace.ends,
                holds: on_failure == OnFailure::Hold,
            };
            let mut tx = db.begin().await?;
            let state = store::fail(&mut tx, look, owner, failure, error).await?;
            if state.as_deref() == Some("failed") {
                let id = &look.of.rollout.id;
                faults::after_failure(&mut tx, id, on_failure, error).await?;
            }
            tx.commit().await?;
            report_failure(look, state.as_deref(), error);
        }
    }
    db.keep();
    shared.metrics.looked(&after);
    // A newer rollout may have waited for the end of this look.
    shared.work_recorded.notify_one();
    Ok(())
}

/// Returns the progress before the look. A report of progress gives the receiver its whole time
/// again.
fn progress(look: &Look, timeout: Duration) -> Progress {
    let since_report = look.report.as_ref().map(|report| report.age);
    let left = since_report.map_or(Duration::ZERO, |age| timeout.saturating_sub(age));
    let left = match look.progress.stage {
        0 => look.progress.left.max(left),
        _ => look.progress.left,
    };
    Progress {
        left,
        ..look.progress
    }
}

fn report_success(shared: &Shared, look: &Look) {
    let rollout = &look.of.rollout;
    let (trigger, id, number) = (&rollout.trigger, &rollout.id, rollout.number);
    let age = OffsetDateTime::now_utc() - rollout.created_at;
    let age = age.as_seconds_f64().max(0.0);
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

fn report_failure(look: &Look, state: Option<&str>, error: &str) {
    let rollout = &look.of.rollout;
    let (trigger, id, number) = (&rollout.trigger, &rollout.id, rollout.number);
    match state {
        None => {}
        Some("superseded") => tracing::info!(
            trigger,
            rollout.id = id,
            rollout.number = number,
            "rollout {number} of {trigger} was superseded by a newer rollout; it had not become healthy: {error}"
        ),
        Some(_) => tracing::error!(
            trigger,
            rollout.id = id,
            rollout.number = number,
            "rollout {number} of {trigger} failed, and is still observed; `tagtrail retry {trigger}` attempts it at once: {error}"
        ),
    }
}
