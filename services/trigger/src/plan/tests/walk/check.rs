//! The rules, written once more: the changes that a step may make.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::types::Uuid;
use sqlx::{PgConnection, Row as _};
use time::OffsetDateTime;

/// A rollout, as recorded.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rollout {
    pub(super) id: Uuid,
    pub(super) number: i64,
    pub(super) state: String,
    images: Value,
    /// The identity of the set.
    pub(super) set: String,
    actor: Option<String>,
    attempts: i32,
    pub(super) ended: bool,
    finished_at: Option<OffsetDateTime>,
}

/// All rows about a trigger.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rows {
    /// By number.
    pub(super) rollouts: Vec<Rollout>,
    /// By rollout and number: the outcome, if the attempt has ended.
    pub(super) attempts: BTreeMap<(Uuid, i32), Option<String>>,
    /// For each freeze in force, whether it is hard.
    pub(super) freezes: Vec<bool>,
    /// The pinned set.
    pub(super) pin: Option<String>,
    pub(super) paused: bool,
    /// An order to retry waits.
    pub(super) retry: bool,
}

impl Rollout {
    /// Returns true if the rollout has ended for good, and for failed ones until an order.
    pub(super) fn has_ended(&self) -> bool {
        match self.state.as_str() {
            "succeeded" | "superseded" | "rejected" | "cancelled" => true,
            "failed" => self.ended,
            _ => false,
        }
    }

    /// Returns true if the rollout was withdrawn: an older one counts as the newest again.
    fn is_withdrawn(&self) -> bool {
        matches!(self.state.as_str(), "superseded" | "rejected" | "cancelled")
    }

    /// A rollout that waits at a gate does not stop the attempts of an older one that has begun.
    fn waits_at_a_gate(&self) -> bool {
        matches!(self.state.as_str(), "held" | "awaiting_approval")
    }
}

impl Rows {
    pub(super) async fn read(sql: &mut PgConnection, trigger: i32, name: &str) -> Rows {
        let rollouts = sqlx::query(
            "select id, number, state::text as state, images, image_set(images) as set, actor, attempts, ended, finished_at
             from rollout where trigger_id = $1 order by number",
        )
        .bind(trigger)
        .fetch_all(&mut *sql)
        .await
        .unwrap();
        let rollout = |row: &sqlx::postgres::PgRow| Rollout {
            id: row.get("id"),
            number: row.get("number"),
            state: row.get("state"),
            images: row.get("images"),
            set: row.get("set"),
            actor: row.get("actor"),
            attempts: row.get("attempts"),
            ended: row.get("ended"),
            finished_at: row.get("finished_at"),
        };
        let attempts = sqlx::query(
            "select rollout_id, number, outcome::text as outcome from rollout_attempt where trigger_id = $1",
        )
        .bind(trigger)
        .fetch_all(&mut *sql)
        .await
        .unwrap();
        let attempt = |row: &sqlx::postgres::PgRow| {
            (
                (row.get("rollout_id"), row.get("number")),
                row.get("outcome"),
            )
        };
        let holds = sqlx::query(
            "select kind::text as kind, hard, image_set(images) as set from hold where released_at is null and triggers = $1",
        )
        .bind(name)
        .fetch_all(&mut *sql)
        .await
        .unwrap();
        let of_kind = |kind: &'static str| {
            let holds = holds.iter();
            holds.filter(move |row| row.get::<&str, _>("kind") == kind)
        };
        let (state, retry): (String, bool) =
            sqlx::query_as("select state::text, retry from trigger where id = $1")
                .bind(trigger)
                .fetch_one(sql)
                .await
                .unwrap();
        Rows {
            rollouts: rollouts.iter().map(rollout).collect(),
            attempts: attempts.iter().map(attempt).collect(),
            freezes: of_kind("freeze").map(|row| row.get("hard")).collect(),
            pin: of_kind("pin").map(|row| row.get("set")).last(),
            paused: state == "paused",
            retry,
        }
    }

    fn knows(&self, set: &str) -> bool {
        let mut rollouts = self.rollouts.iter();
        rollouts.any(|one| one.state == "succeeded" && one.set == set)
    }

    /// Checks the step from these rows to the next ones.
    pub(super) fn check(&self, next: &Rows) -> Result<(), String> {
        let running = next.attempts.values().filter(|end| end.is_none()).count();
        if running > 1 {
            return Err(format!("{running} attempts run"));
        }
        for (key, end) in &self.attempts {
            if end.is_some() && next.attempts.get(key) != Some(end) {
                return Err(format!("the ended attempt {key:?} was changed"));
            }
        }
        let mut numbers = next.rollouts.windows(2);
        if numbers.any(|two| two[0].number >= two[1].number) {
            return Err("a number was given twice".to_owned());
        }
        for before in &self.rollouts {
            let now = next.rollouts.iter().find(|one| one.id == before.id);
            let now = now.ok_or_else(|| format!("rollout {} is gone", before.number))?;
            if now.images != before.images || now.number != before.number {
                return Err(format!("the images of rollout {} were changed", now.number));
            }
            let revived = before.state == "failed" && self.retry;
            if before.has_ended() && now != before && !revived {
                return Err(format!("the end of {before:?} was changed to {now:?}"));
            }
        }
        let started = next
            .attempts
            .iter()
            .filter(|(key, _)| !self.attempts.contains_key(key));
        for ((id, _), _) in started {
            let started = next.rollouts.iter().find(|one| one.id == *id);
            self.check_start(next, started.ok_or("an attempt without a rollout")?)?;
        }
        Ok(())
    }

    fn check_start(&self, next: &Rows, started: &Rollout) -> Result<(), String> {
        let number = started.number;
        if self.paused {
            return Err(format!("{number} began in a paused trigger"));
        }
        let mut newer = next.rollouts.iter().filter(|one| one.number > number);
        if let Some(newer) = newer.find(|one| !one.is_withdrawn() && !one.waits_at_a_gate()) {
            return Err(format!("{number} began although {} is newer", newer.number));
        }
        let mut older = next.rollouts.iter().filter(|one| one.number < number);
        if let Some(older) = older.find(|one| !one.has_ended()) {
            return Err(format!("{number} began and {} goes on", older.number));
        }
        let known_order = started.actor.is_some() && self.knows(&started.set);
        if self.freezes.iter().any(|hard| *hard || !known_order) {
            return Err(format!("{number} began in a frozen trigger"));
        }
        match &self.pin {
            Some(pin) if *pin != started.set => Err(format!("{number} began past a pin")),
            _ => Ok(()),
        }
    }
}
