//! Looks whether somebody else has changed the images of rollouts that have succeeded: once in a
//! minute, and at once where a watched target has news. Such news also makes the next look at a
//! rollout due whose result is not known yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use sqlx::PgConnection;
use tagtrail_daemon::{Span, SpanKind};
use tagtrail_postgres::{Lock, ping, within};
use tokio::time::Instant;

use crate::error::Error;
use crate::lead::Lead;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::store::drift as store;
use crate::store::working::Attempt;
use crate::target::{OnForeignChange, Order, Target, Targets};

/// Most looks at the same time, and the longest time of one.
const AT_ONCE: usize = 20;
const LOOK: Duration = Duration::from_secs(30);
/// The shortest pause between passes over targets with news.
const NEWS: Duration = Duration::from_secs(1);

/// Looks at all targets once in a minute until shutdown, and at those with news in between. One
/// process looks; the others stand by. Without a target that sees changes by others, there is no
/// session and nothing to do.
pub(crate) async fn drift(shared: Shared) -> anyhow::Result<()> {
    let sees = |settings: &Settings| watched(&settings.targets).next().is_some();
    let mut lead = Lead::new(
        &shared,
        Lock::Drift,
        "looking for changes of targets by others",
    );
    while let Some(mut db) = lead.session(sees).await {
        let ended = passes(&shared, &mut db).await;
        lead.ended(ended).await;
    }
    Ok(())
}

/// Returns the triggers whose targets see changes by others.
fn watched(targets: &Targets) -> impl Iterator<Item = &str> {
    let sees = |target: &dyn Target| target.on_foreign_change() != OnForeignChange::Ignore;
    let watched = targets.iter().filter(move |(_, one)| sees(one.as_ref()));
    watched.map(|(name, _)| name.as_str())
}

/// Looks again and again, until shutdown or until no target sees changes by others.
async fn passes(shared: &Shared, db: &mut PgConnection) -> Result<(), Error> {
    loop {
        let targets = Arc::clone(&shared.settings.borrow().targets);
        let names: Vec<&str> = watched(&targets).collect();
        if names.is_empty() {
            return Ok(());
        }
        let next = Instant::now() + shared.look_pace.others;
        pass(shared, db, &targets, &names).await?;
        // The targets of an earlier file end now.
        drop(targets);
        loop {
            let Some(news) = kept(shared, db, news(shared, next)).await? else {
                return Ok(());
            };
            let Some(news) = news else { break };
            let targets = Arc::clone(&shared.settings.borrow().targets);
            let named = |name: &&str| news.contains(*name);
            let names: Vec<&str> = watched(&targets).filter(named).collect();
            let due = store::look_now(db, &names);
            if within(shared.session_timeout, due).await? {
                shared.watching_recorded.notify_one();
            }
            pass(shared, db, &targets, &names).await?;
            drop(targets);
            if kept(shared, db, tokio::time::sleep(NEWS)).await?.is_none() {
                return Ok(());
            }
        }
    }
}

/// Waits for news of targets. `None`: all targets are due.
async fn news(shared: &Shared, due: Instant) -> Option<BTreeSet<String>> {
    tokio::time::timeout_at(due, shared.news.wait()).await.ok()
}

/// Looks at the targets of these triggers.
async fn pass(
    shared: &Shared,
    db: &mut PgConnection,
    targets: &Targets,
    names: &[&str],
) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let places: Vec<(&str, String)> = names
        .iter()
        .filter_map(|name| Some((*name, targets.get(*name)?.identity())))
        .collect();
    let rollouts = within(shared.session_timeout, store::succeeded(db, &places)).await?;
    let mut looks = futures_util::stream::iter(rollouts)
        .map(|one| look(shared, targets, one))
        .buffer_unordered(AT_ONCE);
    while let Some(found) = kept(shared, db, looks.next()).await? {
        match found {
            None => break,
            Some(None) => {}
            Some(Some((rollout, change, text))) => {
                record(shared, db, &rollout, change, &text).await?;
            }
        }
    }
    Ok(())
}

/// Waits, and uses the session meanwhile, so that it stays open. `None` on shutdown.
async fn kept<T>(
    shared: &Shared,
    db: &mut PgConnection,
    wait: impl Future<Output = T>,
) -> Result<Option<T>, Error> {
    let mut wait = std::pin::pin!(wait);
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(None),
            done = &mut wait => return Ok(Some(done)),
            () = tokio::time::sleep(shared.ping_every()) => {
                within(shared.session_timeout, ping(db)).await?;
            }
        }
    }
}

/// Looks at the target of one rollout. An answer that does not come says nothing: the next pass
/// looks again.
async fn look(
    shared: &Shared,
    targets: &Targets,
    of: Attempt,
) -> Option<(Attempt, OnForeignChange, String)> {
    let target = targets.get(&of.rollout.trigger)?;
    let span = Span::start(
        "look for changes by others",
        SpanKind::Client,
        of.trace.as_ref(),
    );
    let mut order = Order::new(&of.rollout, *span.context()).ok()?;
    order.clones = Some(Arc::clone(&shared.clones));
    order.had.clone_from(&of.places);
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
