//! Follows the conditions of all triggers: for the metric, and for the log.
//!
//! The instance that plans follows them, beside the planner and over another connection.

use std::collections::BTreeMap;
use std::time::Duration;

use tagtrail_condition::{Facts, Judged, judge};
use tagtrail_postgres::within;
use tagtrail_proto::{Condition, Reason, ReasonCode};
use tokio::time::Instant;

use crate::error::Error;
use crate::shared::Shared;

/// The interval of looks at all triggers.
const EVERY: Duration = Duration::from_secs(2);
/// The interval of log lines about a reason that lasts.
const REMIND: Duration = Duration::from_secs(3600);

/// A trigger whose condition is another one than at the look before.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) trigger: String,
    /// `None`: this process looks at the trigger for the first time.
    pub(crate) before: Option<Condition>,
    pub(crate) now: Condition,
    pub(crate) reasons: Vec<Reason>,
}

/// Follows the conditions for ever. A failed look is harmless: the next one follows.
pub(super) async fn follow(shared: &Shared) -> std::convert::Infallible {
    let mut known = Known::default();
    loop {
        match look(shared).await {
            Ok(facts) => {
                let changes = known.update(facts, Instant::now());
                for change in &changes {
                    shared.metrics.condition(change);
                    let Change {
                        trigger,
                        before,
                        now,
                        reasons,
                    } = change;
                    let why: Vec<&str> = reasons.iter().map(|one| one.why.as_str()).collect();
                    tracing::debug!(
                        trigger,
                        ?before,
                        ?why,
                        "the condition of {trigger} is {now}"
                    );
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
    /// Takes the facts of a look, logs reasons that a person must cure, and returns the changes.
    fn update(&mut self, facts: Vec<Facts>, now: Instant) -> Vec<Change> {
        let (mut changes, mut conditions) = (Vec::new(), BTreeMap::new());
        let mut logged = BTreeMap::new();
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
            let before = self.conditions.get(&facts.name).copied();
            conditions.insert(facts.name.clone(), condition);
            if before != Some(condition) {
                changes.push(Change {
                    trigger: facts.name,
                    before,
                    now: condition,
                    reasons,
                });
            }
        }
        self.conditions = conditions;
        self.logged = logged;
        changes
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
