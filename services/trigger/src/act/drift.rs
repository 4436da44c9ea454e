//! Looks whether somebody else has changed the images of rollouts that have succeeded.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use sqlx::PgConnection;
use tagtrail_daemon::{Retry, Span, SpanKind};
use tagtrail_postgres::{Lock, within};
use tokio::time::Instant;

use crate::error::Error;
use crate::shared::Shared;
use crate::store::drift as store;
use crate::store::working::Attempt;
use crate::target::{OnForeignChange, Order, Targets};

/// Most looks at the same time, and the longest time of one.
const AT_ONCE: usize = 20;
const LOOK: Duration = Duration::from_secs(30);

/// Looks at all targets once in a minute until shutdown. One process looks; the others stand by.
pub(crate) async fn drift(shared: Shared) -> anyhow::Result<()> {
    let mut retry = Retry::new("looking for changes of targets by others");
    loop {
        let outcome = async {
            match shared.session_with(Lock::Drift).await? {
                Some(mut db) => passes(&shared, &mut db).await,
                None => Ok(()),
            }
        };
        let Err(error) = outcome.await else {
            return Ok(());
        };
        if !retry.wait(&error, &shared.shutdown).await {
            return Ok(());
        }
    }
}

async fn passes(shared: &Shared, db: &mut PgConnection) -> Result<(), Error> {
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            // The session is used at this interval, and stays open.
            () = tokio::time::sleep(shared.ping_every()) => {}
        }
        let targets = Arc::clone(&shared.settings.borrow().targets);
        let seen = |name: &&String| {
            let target = targets.get(*name);
            target.is_some_and(|one| one.on_foreign_change() != OnForeignChange::Ignore)
        };
        let due = Instant::now() >= next;
        let names: Vec<&str> = targets.keys().filter(seen).map(String::as_str).collect();
        let names = if due { names } else { Vec::new() };
        let rollouts = within(shared.session_timeout, store::succeeded(db, &names)).await?;
        if !due {
            continue;
        }
        next = Instant::now() + shared.look_pace.others;
        let mut looks = futures_util::stream::iter(rollouts)
            .map(|one| look(&targets, one))
            .buffer_unordered(AT_ONCE);
        loop {
            let found = tokio::select! {
                () = shared.shutdown.cancelled() => return Ok(()),
                found = looks.next() => found,
                () = tokio::time::sleep(shared.ping_every()) => {
                    within(shared.session_timeout, store::succeeded(db, &[])).await?;
                    continue;
                }
            };
            let Some(found) = found else {
                break;
            };
            if let Some((rollout, change, text)) = found {
                record(shared, db, &rollout, change, &text).await?;
            }
        }
    }
}

/// Looks at the target of one rollout. An answer that does not come says nothing: the next pass
/// looks again.
async fn look(targets: &Targets, of: Attempt) -> Option<(Attempt, OnForeignChange, String)> {
    let target = targets.get(&of.rollout.trigger)?;
    let span = Span::start(
        "look for changes by others",
        SpanKind::Client,
        of.trace.as_ref(),
    );
    let order = Order::new(&of.rollout, *span.context()).ok()?;
    let looking = tokio::time::timeout(LOOK, target.foreign(&order)).await;
    let text = looking.ok().flatten()?;
    Some((of, target.on_foreign_change(), text))
}

async fn record(
    shared: &Shared,
    db: &mut PgConnection,
    of: &Attempt,
    change: OnForeignChange,
    text: &str,
) -> Result<(), Error> {
    let repairs = change == OnForeignChange::Repair;
    let recording = store::record(db, &of.rollout.id, text, repairs);
    let trigger = &of.rollout.trigger;
    match within(shared.session_timeout, recording).await? {
        store::Effect::Nothing => {}
        store::Effect::Held => tracing::warn!(
            trigger,
            rollout.id = of.rollout.id,
            "trigger {trigger} is held, since somebody else has changed its target; `tagtrail release {trigger}` rolls the images out again: {text}"
        ),
        store::Effect::Repaired => tracing::warn!(
            trigger,
            rollout.id = of.rollout.id,
            "somebody else has changed the target of trigger {trigger}, which gets its images again: {text}"
        ),
    }
    Ok(())
}
