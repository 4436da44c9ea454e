//! Takes over the attempts of processes that have died: such an attempt is ended, so that the
//! rollout is attempted again under the same id.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_failpoint::FailPoint;
use tokio::time::Instant;

use crate::error::Error;
use crate::shared::Shared;
use crate::store::attempts::{self as store, Foreign, Key, LOOK};

/// The time for which the lock of a process must have been free before its attempts at targets that
/// take a repeated attempt without harm are taken over.
const FREE: Duration = Duration::from_secs(10);

/// The processes whose lock is free, and since when.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    free_since: BTreeMap<i32, Instant>,
}

impl Takeover {
    /// Ends the attempts of processes that have died.
    pub(super) async fn look(
        &mut self,
        shared: &Shared,
        db: &mut PgConnection,
    ) -> Result<(), Error> {
        if FailPoint::TriggerTakeOver.skipped() {
            return Ok(());
        }
        let foreign = store::foreign(db, &shared.instance.owner).await?;
        let now = Instant::now();
        self.free_since.retain(|instance, _| {
            (foreign.iter()).any(|one| one.owner.instance == *instance && !one.held)
        });
        let mut ended: BTreeMap<i32, Vec<Key>> = BTreeMap::new();
        for one in foreign.iter().filter(|one| !one.held) {
            let since = *self.free_since.entry(one.owner.instance).or_insert(now);
            if may_end(shared, one, since) {
                let keys = ended.entry(one.owner.instance).or_default();
                keys.push(one.key.clone());
            }
        }
        for (instance, keys) in ended {
            let error = "cut off: the trigger service that made this attempt ended";
            let count = store::interrupt(db, instance, &keys, error).await?;
            if count > 0 {
                FailPoint::TriggerTakenOver.pass();
                tracing::warn!(
                    attempts = count,
                    "taking over {count} attempts and looks of a trigger service that ended"
                );
                shared.work_recorded.notify_one();
            }
        }
        Ok(())
    }
}

/// Returns whether this process may end an attempt whose owner has not held its lock since `since`.
fn may_end(shared: &Shared, one: &Foreign, since: Instant) -> bool {
    let target = shared.targets().get(&one.name).cloned();
    let is_look = one.key.1 == LOOK;
    let is_command = match is_look {
        true => one.grace.is_some(),
        false => (target.as_ref()).is_none_or(|target| target.place().kind == "command"),
    };
    // A command of the dead process may still be being ended by its supervisor. The next attempt
    // waits for that: both are on this machine.
    if one.owner.is_gone() {
        return true;
    }
    let grace = match is_look {
        true => one.grace.unwrap_or_default(),
        false => target.map_or(FREE, |target| target.grace()),
    };
    let limit = match is_command {
        true => shared.takeover + grace,
        false => FREE,
    };
    since.elapsed() > limit
}
