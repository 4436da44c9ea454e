//! The numbers of rollouts after a restore from a backup.

use std::collections::BTreeMap;

use tagtrail_bus::topology::Stream;
use tagtrail_postgres::within;
use tagtrail_proto::{Event, Name, Rollout, RolloutState, Subject};
use time::OffsetDateTime;

use crate::error::Error;
use crate::store::planning as store;

use super::Planner;

impl Planner<'_> {
    /// Raises the issued numbers to those in ROLLOUTS. After a restore from a backup the database
    /// would issue numbers again that targets have already received, and targets drop rollouts with
    /// old numbers. If NATS does not answer, planning goes on and the next full check tries again.
    pub(super) async fn compare_numbers(&mut self) -> Result<(), Error> {
        if self.numbers_compared {
            return Ok(());
        }
        // The first entry of each rollout has one of these states, so the newest rollout is the
        // last one of a state.
        const FIRST: [RolloutState; 3] = [
            RolloutState::Pending,
            RolloutState::Held,
            RolloutState::AwaitingApproval,
        ];
        let subject = |trigger: Name| {
            FIRST.map(|state| Subject::Rollout {
                trigger: trigger.clone(),
                state,
            })
        };
        let names = self.triggers.keys().filter_map(|name| name.parse().ok());
        let subjects = names.flat_map(subject).collect();
        let asking = self.bus.last_messages(Stream::Rollouts, subjects);
        // The database session must not reach its idle time-out while NATS answers.
        let Ok(Ok(told)) = tokio::time::timeout(self.shared.session_timeout / 3, asking).await
        else {
            return Ok(());
        };
        let mut highest: BTreeMap<String, (u64, OffsetDateTime)> = BTreeMap::new();
        for (_, payload) in told {
            // Other messages carry no number that a target has received.
            let Ok(event) = serde_json::from_slice::<Event<Rollout>>(&payload) else {
                continue;
            };
            let Rollout {
                trigger,
                number,
                epoch,
                ..
            } = event.data;
            let of = highest.entry(trigger).or_insert((number, epoch));
            *of = (of.0.max(number), of.1.max(epoch));
        }
        let raising = store::raise_issued(&mut self.db, &highest);
        for trigger in within(self.shared.session_timeout, raising).await? {
            let number = highest.get(&trigger).map_or(0, |(number, _)| *number);
            tracing::warn!(
                trigger,
                number,
                "ROLLOUTS has rollouts of this trigger up to number {number} that the database lacks, as after a restore from a backup; numbers continue above {number}"
            );
        }
        self.numbers_compared = true;
        Ok(())
    }
}
