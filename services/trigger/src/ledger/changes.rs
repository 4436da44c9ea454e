//! Publishes the changes of holds to ROLLOUTS, beside the changes of rollouts: no rollout waits for
//! them, also where the account of the service has not yet the right to send them.

use std::convert::Infallible;
use std::time::Duration;

use tagtrail_bus::Bus;
use tagtrail_bus::publish::Message;
use tagtrail_postgres::within;
use tagtrail_proto::Subject;

use crate::error::Error;
use crate::shared::Shared;
use crate::store::hold_changes as store;

/// The interval of looks, and the longest pause after failures.
const EVERY: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Publishes for ever, with growing pauses after failures.
pub(super) async fn publish(shared: &Shared, bus: &Bus) -> Infallible {
    let mut pause = EVERY;
    loop {
        match holds(shared, bus).await {
            Ok(()) => pause = EVERY,
            Err(error) => {
                pause = (pause * 2).min(LONGEST);
                let why = tagtrail_daemon::chain(&error);
                let cure = match error {
                    Error::Publish(_) => {
                        "; the user trigger needs the rights of deploy/nats/nats.conf"
                    }
                    _ => "",
                };
                tracing::warn!(
                    "changes of holds can't be published; trying again in {pause:?}: {why}{cure}"
                );
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn holds(shared: &Shared, bus: &Bus) -> Result<(), Error> {
    loop {
        let mut db = shared.connections.lend(shared.session_timeout).await?;
        let entries = within(shared.session_timeout, store::unpublished(&mut db)).await?;
        db.keep();
        if entries.is_empty() {
            return Ok(());
        }
        let session = bus.session().await?;
        let ordinals: Vec<i64> = entries.iter().map(|entry| entry.ordinal).collect();
        let mut acknowledgements = Vec::with_capacity(entries.len());
        for entry in entries {
            let subject = Subject::of_hold(&entry.hold.triggers);
            let event = entry.hold.event(entry.changed_at);
            let message = Message::of(&subject, &event)?.with_id(&event.id);
            acknowledgements.push(session.send(message).await?);
        }
        // If a message fails, the whole set is sent again: the server drops messages whose ids it
        // has.
        for acknowledgement in acknowledgements {
            acknowledgement.acknowledged().await?;
        }
        let mut db = shared.connections.lend(shared.session_timeout).await?;
        let marking = store::mark_published(&mut db, &ordinals);
        within(shared.session_timeout, marking).await?;
        db.keep();
    }
}
