//! Follows the conditions of all triggers: for the metric, for the log, and for events.
//!
//! The instance that plans follows them, beside the planner and over another connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tagtrail_condition::{Facts, Judged, judge};
use tagtrail_postgres::within;
use tagtrail_proto::{Condition, Reason, ReasonCode};
use tokio::time::Instant;

use crate::error::Error;
use crate::shared::Shared;
use crate::store::condition_changes::{self as store, Standing};

/// The interval of looks at all triggers.
const EVERY: Duration = Duration::from_secs(2);
/// The interval of log lines about a reason that lasts.
const REMIND: Duration = Duration::from_secs(3600);
/// The interval at which old records of changes are deleted.
const FORGET: Duration = Duration::from_secs(3600);
/// Most reasons in the event of a change.
const REASONS: usize = 32;

/// A trigger whose condition is another one than at the look before.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) trigger: String,
    /// `None`: this process looks at the trigger for the first time.
    pub(crate) before: Option<Condition>,
    pub(crate) now: Condition,
}

/// Follows the conditions for ever. A failed look is harmless: the next one follows.
pub(super) async fn follow(shared: &Shared) -> std::convert::Infallible {
    let (mut known, mut recorded) = (Known::default(), Recorded::default());
    loop {
        match look(shared).await {
            Ok(facts) => {
                let (standings, changes) = known.update(facts, Instant::now());
                for change in &changes {
                    shared.metrics.condition(change);
                    let Change {
                        trigger,
                        before,
                        now,
                    } = change;
                    tracing::debug!(trigger, ?before, "the condition of {trigger} is {now}");
                }
                if let Err(error) = recorded.update(shared, standings).await {
                    let why = tagtrail_daemon::chain(&error);
                    tracing::warn!("changes of conditions can't be recorded: {why}");
                }
            }
            Err(error) => tracing::debug!("the conditions of triggers can't be read: {error}"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn look(shared: &Shared) -> Result<Vec<Facts>, Error> {
    let mut db = shared.connections.lend(shared.session_timeout).await?;
    let reading = tagtrail_condition::read(&mut db, None);
    let facts = within(shared.session_timeout, reading).await?;
    db.keep();
    Ok(facts)
}

/// The conditions as of the last look.
#[derive(Debug, Default)]
struct Known {
    conditions: BTreeMap<String, Condition>,
    /// The time of the last line in the log about a reason, by trigger, code and image.
    logged: BTreeMap<(String, ReasonCode, Option<String>), Instant>,
}

impl Known {
    /// Takes the facts of a look, logs reasons that a person must cure, and returns the conditions
    /// and their changes.
    fn update(&mut self, facts: Vec<Facts>, now: Instant) -> (Vec<Standing>, Vec<Change>) {
        let (mut changes, mut conditions) = (Vec::new(), BTreeMap::new());
        let (mut standings, mut logged) = (Vec::new(), BTreeMap::new());
        for facts in facts {
            let Judged {
                condition, reasons, ..
            } = judge(&facts);
            for reason in &reasons {
                let key = (facts.name.clone(), reason.code, reason.image.clone());
                let at = match (reason.code, self.logged.get(&key)) {
                    (ReasonCode::UnknownImage | ReasonCode::Broken, Some(at))
                        if now < *at + REMIND =>
                    {
                        *at
                    }
                    // The reader of the files has logged it at once.
                    (ReasonCode::Broken, None) => now,
                    (ReasonCode::UnknownImage | ReasonCode::Broken, _) => {
                        warn(&facts.name, reason);
                        now
                    }
                    _ => continue,
                };
                logged.insert(key, at);
            }
            let before = self.conditions.remove(&facts.name);
            conditions.insert(facts.name.clone(), condition);
            if before != Some(condition) {
                changes.push(Change {
                    trigger: facts.name,
                    before,
                    now: condition,
                });
            }
            standings.push(Standing {
                id: facts.id,
                condition,
                reasons,
            });
        }
        // Those that are left have been removed.
        for (trigger, before) in std::mem::replace(&mut self.conditions, conditions) {
            changes.push(Change {
                trigger,
                before: Some(before),
                now: Condition::Removed,
            });
        }
        self.logged = logged;
        (standings, changes)
    }
}

/// The conditions as they were last recorded for the ledger, by the ids of the triggers.
#[derive(Debug, Default)]
struct Recorded {
    conditions: BTreeMap<i32, Condition>,
    forgotten_at: Option<Instant>,
}

impl Recorded {
    /// Records the conditions that have changed. Most looks find none, and make no statement.
    async fn update(&mut self, shared: &Shared, mut standings: Vec<Standing>) -> Result<(), Error> {
        let seen: BTreeSet<i32> = standings.iter().map(|one| one.id).collect();
        let known = &self.conditions;
        let removed = known
            .iter()
            .any(|(id, condition)| *condition != Condition::Removed && !seen.contains(id));
        // The first look also finds the triggers that were removed before it.
        let first = self.forgotten_at.is_none();
        standings.retain(|one| known.get(&one.id) != Some(&one.condition));
        if standings.is_empty() && !removed && !first {
            return Ok(());
        }
        for one in &mut standings {
            one.reasons.truncate(REASONS);
        }
        let mut db = shared.connections.lend(shared.session_timeout).await?;
        let recording = store::record(&mut db, &standings);
        let recorded = within(shared.session_timeout, recording).await?;
        self.conditions.extend(recorded);
        let now = Instant::now();
        if self.forgotten_at.is_none_or(|at| at + FORGET < now) {
            within(shared.session_timeout, store::forget_old(&mut db)).await?;
            self.forgotten_at = Some(now);
        }
        db.keep();
        Ok(())
    }
}

fn warn(trigger: &str, reason: &Reason) {
    let Reason {
        code,
        image,
        why,
        cure,
        ..
    } = reason;
    let about = image.as_deref().unwrap_or(trigger);
    let cure = cure.as_deref().unwrap_or_default();
    tracing::warn!(trigger, %code, image, "{trigger}: {about}: {why}; {cure}");
}

#[cfg(test)]
mod tests;
