//! Publishes the changes of holds and of conditions to ROLLOUTS, beside the changes of rollouts: no
//! rollout waits for them, also where the account of the service has not yet the right to send
//! them.

use std::convert::Infallible;
use std::time::Duration;

use tagtrail_bus::Bus;
use tagtrail_bus::publish::Message;
use tagtrail_condition::changes::{self, Changes, Which};
use tagtrail_postgres::within;
use tagtrail_proto::Subject;

use crate::error::Error;
use crate::shared::Shared;
use crate::store::hold_changes;
use crate::store::ledger::mark_published;

/// The interval of looks, and the longest pause after failures.
const EVERY: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Publishes for ever, with growing pauses after failures.
pub(super) async fn publish(shared: &Shared, bus: &Bus) -> Infallible {
    let mut pause = EVERY;
    loop {
        match turn(shared, bus).await {
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
                    "changes of holds and conditions can't be published; trying again in {pause:?}: {why}{cure}"
                );
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Publishes all changes that are not published yet.
async fn turn(shared: &Shared, bus: &Bus) -> Result<(), Error> {
    loop {
        let mut db = shared.connections.lend(shared.session_timeout).await?;
        let holds = within(shared.session_timeout, hold_changes::unpublished(&mut db)).await?;
        let reading = changes::conditions(&mut db, Which::Unpublished);
        let conditions = within(shared.session_timeout, reading).await?;
        db.keep();
        if holds.is_empty() && conditions.is_empty() {
            return Ok(());
        }
        let session = bus.session().await?;
        let mut acknowledgements = Vec::with_capacity(holds.len() + conditions.len());
        let hold_ordinals: Vec<i64> = holds.iter().map(|one| one.ordinal).collect();
        let condition_ordinals: Vec<i64> = conditions.iter().map(|one| one.ordinal).collect();
        for one in holds {
            let hold = one.object?;
            let subject = Subject::of_hold(&hold.triggers);
            let event = hold.event(one.changed_at);
            let message = Message::of(&subject, &event)?.with_id(&event.id);
            acknowledgements.push(session.send(message).await?);
        }
        for one in conditions {
            let change = one.object?;
            let trigger = change.trigger.parse().map_err(|_| {
                Error::Inconsistent("the name of a trigger in the database does not parse")
            })?;
            let condition = change.condition;
            let event = change.event(one.changed_at);
            let subject = Subject::Trigger { trigger, condition };
            let message = Message::of(&subject, &event)?.with_id(&event.id);
            acknowledgements.push(session.send(message).await?);
        }
        // If a message fails, the whole set is sent again: the server drops messages whose ids it
        // has.
        for acknowledgement in acknowledgements {
            acknowledgement.acknowledged().await?;
        }
        let mut db = shared.connections.lend(shared.session_timeout).await?;
        let marking = mark_published(&mut db, Changes::Holds, &hold_ordinals);
        within(shared.session_timeout, marking).await?;
        let marking = mark_published(&mut db, Changes::Conditions, &condition_ordinals);
        within(shared.session_timeout, marking).await?;
        db.keep();
    }
}
