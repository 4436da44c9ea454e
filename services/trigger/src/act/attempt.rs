//! One attempt: the call of the target, and the record of the outcome.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Connection as _;
use tagtrail_config::OnFailure;
use tagtrail_daemon::{Retry, Span, SpanKind};
use tagtrail_failpoint::FailPoint;
use tagtrail_policy::retry::{self, Next, Outcome, Phase};
use tagtrail_postgres::within;
use tagtrail_proto::{Rollout, RolloutState};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::act::Slot;
use crate::error::Error;
use crate::shared::Shared;
use crate::store::attempts::Key;
use crate::store::background::{Background, background, record_places};
use crate::store::working::{self as store, Attempt, Ended, Standing};
use crate::store::{faults, looks};
use crate::target::{Order, Places, Said, Target};

/// The time beyond the grace time of a target after which an attempt that was told to end is left.
pub(super) const END: Duration = Duration::from_secs(2);

/// Why an attempt was told to end before the target had answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The process stops.
    Process,
    /// The process lost its lock, or another process took the attempt over.
    Lost,
    /// The rollout was cancelled.
    Cancelled,
}

impl Stop {
    const fn outcome(self) -> &'static str {
        match self {
            Stop::Process | Stop::Lost => "interrupted",
            Stop::Cancelled => "cancelled",
        }
    }

    const fn error(self) -> &'static str {
        match self {
            Stop::Process => "cut off: the trigger service stopped",
            Stop::Lost => "cut off: the trigger service lost its lock in Postgres",
            Stop::Cancelled => "cut off: the rollout was cancelled",
        }
    }
}

/// The attempts and looks of this process that run.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<BTreeMap<Key, Watched>>);

/// An attempt that runs.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) kind: &'static str,
    pub(crate) begun: Instant,
    pub(crate) said: Said,
    pub(super) stop: CancellationToken,
    pub(super) why: Option<Stop>,
}

impl Watched {
    /// Tells the attempt to end. The first reason counts.
    pub(crate) fn end(&mut self, why: Stop) {
        self.why.get_or_insert(why);
        self.stop.cancel();
    }
}

impl InFlight {
    pub(crate) fn locked(&self) -> MutexGuard<'_, BTreeMap<Key, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes an attempt that was recorded as begun, and records its outcome.
pub(super) async fn make(shared: Shared, target: Arc<dyn Target>, attempt: Attempt, slot: Slot) {
    FailPoint::TriggerBegun.pass();
    let rollout = &attempt.rollout;
    let mut span = Span::start("attempt", SpanKind::Client, attempt.trace.as_ref());
    span.set("tagtrail.rollout", rollout.id.clone());
    span.set("tagtrail.trigger", rollout.trigger.clone());
    let (done, told) = match Order::new(rollout, *span.context()) {
        Ok(mut order) => {
            order.supervisor = shared.supervisor.clone();
            order.clones = Some(Arc::clone(&shared.clones));
            order.unfinished.clone_from(&attempt.unfinished);
            let done = with_background(&shared, target.as_ref(), &mut order).await;
            (done, (order.said, order.places))
        }
        Err(error) => {
            let error = format!("the rollout can't be written as JSON: {error}");
            let done = Done::Answered(Outcome::Refused(error), Duration::ZERO);
            (done, Told::default())
        }
    };
    if let Done::Answered(outcome, _) = &done
        && let Some(error) = outcome.error()
    {
        span.fail(&error);
    }
    drop(span);
    FailPoint::TriggerTold.pass();
    // The next attempt may begin while the outcome is recorded.
    drop(slot);
    record(&shared, &attempt, &done, &told).await;
    FailPoint::TriggerDone.pass();
    shared.entries_recorded.notify_one();
}

/// The end of an attempt.
enum Done {
    /// The target answered, after this time.
    Answered(Outcome, Duration),
    /// The attempt was cut off.
    Stopped(Stop),
}

/// The answer or output of a target, and the places that it reported.
type Told = (Said, Places);

/// Reads the background of the attempt, if the target asks for it, and calls the target.
async fn with_background(shared: &Shared, target: &dyn Target, order: &mut Order) -> Done {
    match background_of(shared, target, order).await {
        Ok(background) => order.background = background,
        Err(error) => {
            return Done::Answered(Outcome::Failed { error, after: None }, Duration::ZERO);
        }
    }
    watched(shared, target, order).await
}

/// Reads the background of an order, if the target asks for it. The error is for people.
pub(super) async fn background_of(
    shared: &Shared,
    target: &dyn Target,
    order: &Order,
) -> Result<Background, String> {
    if !target.asks_for_background() {
        return Ok(Background::default());
    }
    let reading = async {
        let mut db = shared.connections.lend(shared.session_timeout).await?;
        let background = background(&mut db, &order.rollout.id).await?;
        db.keep();
        Ok::<Background, Error>(background)
    };
    let read = within(shared.session_timeout, reading).await;
    read.map_err(|error| {
        let why = tagtrail_daemon::chain(&error);
        format!("the rollouts before this one can't be read: {why}")
    })
}

/// Calls the target, while the keeper looks after the attempt.
async fn watched(shared: &Shared, target: &dyn Target, order: &Order) -> Done {
    let rollout = &order.rollout;
    tracing::info!(
        trigger = rollout.trigger,
        rollout.id,
        rollout.number,
        delivery.attempt = rollout.attempts,
        "attempting rollout {1} of {0}",
        rollout.trigger,
        rollout.number
    );
    let key = (rollout.id.clone(), rollout.attempts);
    let started = Instant::now();
    let watched = Watched {
        kind: target.place().kind,
        begun: started,
        said: order.said.clone(),
        stop: order.stop.clone(),
        why: None,
    };
    shared.in_flight.locked().insert(key.clone(), watched);
    let mut outcome = call(target, order).await;
    if let Some(Outcome::Foreign { since, .. }) = &outcome
        && released(shared, &rollout.trigger, *since).await
    {
        let decided = Order {
            decided: true,
            ..order.clone()
        };
        outcome = call(target, &decided).await;
    }
    let ended = shared.in_flight.locked().remove(&key);
    let Some(outcome) = outcome else {
        let why = ended.and_then(|one| one.why);
        return Done::Stopped(why.unwrap_or(Stop::Process));
    };
    let took = started.elapsed();
    shared
        .metrics
        .attempted(&rollout.trigger, &outcome, took.as_secs_f64());
    Done::Answered(outcome, took)
}

/// Returns whether a person has released the trigger since a change by somebody else. Without an
/// answer of Postgres the next attempt asks again.
async fn released(shared: &Shared, trigger: &str, since: Option<OffsetDateTime>) -> bool {
    let asking = async {
        let mut db = shared.connections.lend(shared.session_timeout).await?;
        let released = faults::released_since(&mut db, trigger, since).await?;
        db.keep();
        Ok::<bool, Error>(released)
    };
    matches!(within(shared.session_timeout, asking).await, Ok(true))
}

/// Calls the target. `None`: the attempt was told to end, and the target did not succeed meanwhile.
async fn call(target: &dyn Target, order: &Order) -> Option<Outcome> {
    let mut answer = target.apply(order);
    let outcome = tokio::select! {
        biased;
        outcome = &mut answer => Some(outcome),
        () = order.stop.cancelled() => {
            let grace = target.grace();
            match grace.is_zero() {
                true => None,
                false => tokio::time::timeout(grace + END, answer).await.ok(),
            }
        }
    };
    // A target that was told to end fails for that reason alone.
    let took = |outcome: &Outcome| matches!(outcome, Outcome::Done | Outcome::Applied);
    outcome.filter(|outcome| took(outcome) || !order.stop.is_cancelled())
}

/// Records the end of an attempt, however long Postgres is away. After a stop request one try must
/// do: the next process then repeats the attempt under the same id.
async fn record(shared: &Shared, attempt: &Attempt, done: &Done, told: &Told) {
    if FailPoint::TriggerOutcome.skipped() {
        return;
    }
    let mut retry = Retry::new("recording the outcome of an attempt");
    loop {
        let recorded = try_record(shared, attempt, done, told);
        let Err(error) = within(shared.session_timeout, recorded).await else {
            return;
        };
        shared.connections.forget_idle();
        if shared.shutdown.is_cancelled() || !retry.wait(&error, &shared.attempts_ended).await {
            tracing::warn!(
                trigger = attempt.rollout.trigger,
                rollout.id = attempt.rollout.id,
                "the outcome of an attempt could not be recorded, so the attempt will be repeated"
            );
            return;
        }
    }
}

async fn try_record(
    shared: &Shared,
    attempt: &Attempt,
    done: &Done,
    (said, places): &Told,
) -> Result<(), Error> {
    let owner = &shared.instance.owner;
    let mut db = shared.connections.lend(shared.session_timeout).await?;
    let text = said.text();
    let mut ended = Ended {
        outcome: "done",
        status: said.status(),
        error: None,
        said: &text,
    };
    let (outcome, took) = match done {
        Done::Answered(outcome @ (Outcome::Done | Outcome::Applied), took) => {
            ended.outcome = outcome.as_str();
            // Before the success: a newer rollout, which begins after it, must see the places.
            if let Some(places) = places.get() {
                record_places(&mut db, &attempt.rollout.id, &places).await?;
            }
            let taken = match shared.verify(&attempt.rollout.trigger) {
                Some(_) => Outcome::Applied,
                None => outcome.clone(),
            };
            let pace = shared.pace(&attempt.rollout.trigger);
            let next = retry::next(pace, taken, Phase::default(), *took, 0.0);
            let newer = match next {
                Next::Watching => {
                    let times = (
                        shared.look_pace.first,
                        shared.timeout(&attempt.rollout.trigger),
                    );
                    looks::watch(&mut db, attempt, owner, ended, times).await?
                }
                _ => store::succeed(&mut db, attempt, owner, ended).await?,
            };
            db.keep();
            match newer {
                None => report_taken_over(attempt),
                Some(newer) => {
                    report(shared, attempt, &next);
                    shared.watching_recorded.notify_one();
                    if newer {
                        shared.queue(queued(attempt));
                    }
                }
            }
            return Ok(());
        }
        Done::Stopped(stop) => {
            ended.outcome = stop.outcome();
            ended.error = Some(stop.error());
            let mine = store::end(&mut db, attempt, owner, ended, None).await?;
            db.keep();
            if !mine {
                report_taken_over(attempt);
            }
            if *stop != Stop::Process {
                shared.queue(queued(attempt));
            }
            return Ok(());
        }
        Done::Answered(outcome, took) => (outcome.clone(), *took),
    };
    ended.outcome = outcome.as_str();
    let foreign = matches!(outcome, Outcome::Foreign { .. });
    let mut tx = db.begin().await?;
    let Standing { newer, live, phase } = store::standing(&mut tx, attempt).await?;
    let trigger = attempt.rollout.trigger.as_str();
    let mut next = retry::next(shared.pace(trigger), outcome, phase, took, rand::random());
    if let (true, Next::Failed { pause, .. }) = (foreign, &mut next) {
        // The hold that follows ends by a person, who wants the attempt then.
        *pause = shared.pace(trigger).first;
    }
    if newer {
        next = next.below_a_newer_one();
    }
    ended.error = next.error();
    if !store::end(&mut tx, attempt, owner, ended, next.pause()).await? {
        tx.rollback().await?;
        db.keep();
        report_taken_over(attempt);
        return Ok(());
    }
    let id = attempt.rollout.id.as_str();
    match &next {
        // A person or the configuration has ended the rollout: an end never changes.
        _ if !live => {}
        Next::Succeeded | Next::Watching => {}
        Next::Ended(error) => store::finish(&mut tx, id, RolloutState::Failed, error).await?,
        Next::Superseded(error) => {
            store::finish(&mut tx, id, RolloutState::Superseded, error).await?;
        }
        Next::Failed { pause, error } => store::fail(&mut tx, id, *pause, error).await?,
        Next::Retry {
            pause,
            counted,
            error,
        } => store::retry(&mut tx, id, (*pause, *counted), error).await?,
    }
    if let Next::Ended(error) | Next::Failed { error, .. } = &next
        && live
        && (foreign || !phase.slow)
    {
        let on_failure = match foreign {
            true => OnFailure::Hold,
            false => shared.on_failure(trigger),
        };
        faults::after_failure(&mut tx, id, on_failure, error).await?;
    }
    tx.commit().await?;
    db.keep();
    report(shared, attempt, &next);
    match newer {
        true => shared.queue(queued(attempt)),
        // The time of the next attempt has changed.
        false => shared.work_recorded.notify_one(),
    }
    Ok(())
}

/// The trigger of an attempt, for the dispatcher.
fn queued(attempt: &Attempt) -> std::iter::Once<(i32, String)> {
    std::iter::once((attempt.trigger, attempt.rollout.trigger.clone()))
}

fn report_taken_over(attempt: &Attempt) {
    tracing::warn!(
        trigger = attempt.rollout.trigger,
        rollout.id = attempt.rollout.id,
        delivery.attempt = attempt.rollout.attempts,
        "another process has taken over the rollout, so the outcome of this attempt does not count"
    );
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
        Next::Watching => tracing::info!(
            trigger,
            rollout.id = id,
            rollout.number = number,
            "the target took rollout {number} of {trigger}; its result is observed"
        ),
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
