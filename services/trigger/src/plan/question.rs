//! Asks a registry again about an image whose gate waits for an answer.
//!
//! The indexer and the resolver ask first. Their question may have been lost: it may be older than
//! the `[[registry]]`, or than a restore. Without an answer the gate would stay closed.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::Bus;
use tagtrail_bus::publish::Message;
use tagtrail_postgres::within;
use tagtrail_proto::{Gate, Image, PARTITIONS, Subject, Waiting};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::error::Error;
use crate::store::planning as store;

/// The time that the first question has to be answered.
const FIRST: Duration = Duration::from_secs(60);
/// The interval of further questions about an image.
const EVERY: Duration = Duration::from_secs(10 * 60);

/// The questions asked so far, by image.
#[derive(Debug, Default)]
pub(super) struct Questions(BTreeMap<Image, Instant>);

impl Questions {
    /// Asks about each image whose gate has waited too long for an answer. If NATS does not answer,
    /// a later look tries again.
    pub(super) async fn ask(
        &mut self,
        bus: &Bus,
        db: &mut PgConnection,
        waiting: &[Waiting],
        timeout: Duration,
    ) -> Result<(), Error> {
        self.0.retain(|_, asked| asked.elapsed() < EVERY);
        // All questions together: the plan, and so every trigger, waits for them, and the database
        // session must not reach its idle time-out while NATS answers.
        let until = Instant::now() + timeout / 3;
        for one in waiting {
            let answerable = matches!(one.gate, Gate::Recheck | Gate::Manifest);
            let late = OffsetDateTime::now_utc() - one.since > FIRST;
            let due = answerable && one.opens_at.is_none() && late;
            if !due || self.0.contains_key(&one.image) {
                continue;
            }
            let reading = store::question(db, &one.image);
            let Some(question) = within(timeout, reading).await? else {
                continue;
            };
            let subject = Subject::of_push(&question, PARTITIONS);
            let asking = async { bus.publish(Message::of(&subject, &question.event())?).await };
            match tokio::time::timeout_at(until, asking).await {
                Ok(Ok(_)) => {
                    self.0.insert(one.image.clone(), Instant::now());
                    tracing::info!(image = %one.image, registry = %one.registry, "asking {} again about {}: {}", one.registry, one.image, one.why);
                }
                Ok(Err(error)) => {
                    tracing::debug!(image = %one.image, "could not ask again about {}: {error}", one.image);
                }
                Err(_) => {
                    tracing::debug!(image = %one.image, "NATS did not answer in time");
                    break;
                }
            }
        }
        Ok(())
    }
}
