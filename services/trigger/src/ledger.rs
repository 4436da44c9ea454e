//! The ledger publishes each change of a rollout's state to ROLLOUTS, in order, and beside them the
//! changes of holds and conditions. One instance publishes; the others stand by.

mod changes;

use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::publish::{Message, Unacknowledged};
use tagtrail_bus::{Bus, Session};
use tagtrail_condition::changes::{self as rows, Changes, Which};
use tagtrail_daemon::Retry;
use tagtrail_failpoint::FailPoint;
use tagtrail_postgres::{Lock, within};
use tagtrail_proto::{Rollout, Subject};
use time::OffsetDateTime;

use crate::error::Error;
use crate::shared::Shared;
use crate::store::ledger as store;

/// The pause between a notification and the query. A rollout is often pending, running and
/// succeeded within milliseconds: after a pause all three entries go out together, and the worker,
/// which a target waits for, gets the processor first.
const GATHER: Duration = Duration::from_millis(10);

/// Publishes until shutdown.
pub(crate) async fn ledger(shared: Shared, bus: Bus) -> anyhow::Result<()> {
    let mut retry = Retry::new("publishing to ROLLOUTS");
    loop {
        let outcome = async {
            match shared.session_with(Lock::Ledger).await? {
                // Ends with the session, and so with the lock.
                Some(mut db) => tokio::select! {
                    outcome = publish(&shared, &bus, &mut db) => outcome,
                    never = changes::publish(&shared, &bus) => match never {},
                },
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

async fn publish(shared: &Shared, bus: &Bus, db: &mut PgConnection) -> Result<(), Error> {
    loop {
        let entries = within(
            shared.session_timeout,
            rows::rollouts(db, Which::Unpublished),
        )
        .await?;
        if entries.is_empty() {
            // A query at this interval finds the entries of other instances and keeps the session
            // alive.
            tokio::select! {
                () = shared.shutdown.cancelled() => return Ok(()),
                () = shared.entries_recorded.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(shared.ping_every().min(Duration::from_secs(1))) => {}
            }
            continue;
        }
        // One NATS session for the whole set: messages of a session that breaks can never arrive
        // after their second sending.
        let session = bus.session().await?;
        let mut acknowledgements = Vec::with_capacity(entries.len());
        let ordinals: Vec<i64> = entries.iter().map(|entry| entry.ordinal).collect();
        let mut rollouts = Vec::with_capacity(entries.len());
        for entry in entries {
            let rollout = entry.object?;
            rollouts.push(rollout.clone());
            let event = (rollout, entry.ordinal, entry.changed_at);
            acknowledgements.push(send(&session, event).await?);
        }
        FailPoint::LedgerSent.pass();
        // If a message fails, the whole set is sent again: the server drops messages whose ids it
        // has.
        for acknowledgement in acknowledgements {
            acknowledgement.acknowledged().await?;
        }
        FailPoint::LedgerPublished.pass();
        if !FailPoint::LedgerNote.skipped() {
            let marking = store::mark_published(db, Changes::Rollouts, &ordinals);
            within(shared.session_timeout, marking).await?;
        }
        FailPoint::LedgerNoted.pass();
        rollouts
            .iter()
            .for_each(|rollout| shared.metrics.state_changed(rollout));
    }
}

async fn send(
    session: &Session,
    (rollout, ordinal, changed_at): (Rollout, i64, OffsetDateTime),
) -> Result<Unacknowledged, Error> {
    let trigger = rollout
        .trigger
        .parse()
        .map_err(|_| Error::Inconsistent("the name of a trigger in the database does not parse"))?;
    let subject = Subject::Rollout {
        trigger,
        state: rollout.state,
    };
    let id = format!("{}/{ordinal}", rollout.id);
    let event = rollout.changed(ordinal, changed_at);
    let message = Message::of(&subject, &event)?.with_id(&id);
    Ok(session.send(message).await?)
}
