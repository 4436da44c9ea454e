//! Holds: freezes, pins and faults.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_config::TriggerGlob;
use tagtrail_history::instant::Instant;
use tagtrail_postgres::row;
use time::OffsetDateTime;

use super::acts::{self, Effect, NewAct};

/// The SQL condition that the hold `h` is in force.
macro_rules! in_force {
    () => {
        "(h.released_at is null and (h.until is null or h.until > now()))"
    };
}

/// The SQL condition that the hold `h` is about the trigger with the name in this expression. Names
/// and patterns consist of a-z, 0-9, - and *.
macro_rules! is_about {
    ($name:literal) => {
        concat!(
            "(h.triggers = ",
            $name,
            " or position('*' in h.triggers) > 0 and ",
            $name,
            " ~ ('^' || replace(h.triggers, '*', '.*') || '$'))"
        )
    };
}

/// A recorded reason not to begin rollouts.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Hold {
    pub(crate) id: u64,
    pub(crate) kind: HoldKind,
    /// Name of a trigger; of a freeze, perhaps a pattern.
    pub(crate) triggers: String,
    pub(crate) reason: Option<String>,
    /// The freeze also holds sets that have succeeded before.
    pub(crate) hard: bool,
    /// Digest of each image of a pin, by its name in the trigger.
    pub(crate) images: Option<std::collections::BTreeMap<String, String>>,
    /// Name of the token, or `local` without tokens.
    pub(crate) actor: String,
    pub(crate) created_at: Instant,
    /// Time at which the hold ends by itself.
    pub(crate) until: Option<Instant>,
}

impl Hold {
    /// Returns whether the hold is about the trigger with this name.
    pub(crate) fn is_about(&self, name: &str) -> bool {
        let glob = TriggerGlob::try_from(self.triggers.clone());
        glob.is_ok_and(|glob| glob.matches(name))
    }
}

/// The kind of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HoldKind {
    /// No new set is rolled out.
    Freeze,
    /// One set stays.
    Pin,
    /// Something unexpected happened.
    Fault,
}

/// Returns the holds in force, newest first, or the one with this id.
pub(crate) async fn list(db: &mut PgConnection, id: Option<i64>) -> Result<Vec<Hold>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "select h.id, h.kind::text as kind, h.triggers, h.reason, h.hard, h.actor, h.created_at, h.until,
             (select jsonb_object_agg(i.key, i.value ->> 'digest') from jsonb_each(h.images) i) as images
         from hold h where ",
        in_force!(),
        " and h.id = coalesce($1, h.id) order by h.id desc limit 10000"
    ))
    .bind(id)
    .fetch_all(db)
    .await?;
    rows.iter().map(hold).collect()
}

fn hold(row: &PgRow) -> Result<Hold, sqlx::Error> {
    let images: Option<sqlx::types::Json<_>> = row.try_get("images")?;
    Ok(Hold {
        id: row::unsigned(row.try_get("id")?),
        kind: match row.try_get("kind")? {
            "pin" => HoldKind::Pin,
            "fault" => HoldKind::Fault,
            _ => HoldKind::Freeze,
        },
        triggers: row.try_get("triggers")?,
        reason: row.try_get("reason")?,
        hard: row.try_get("hard")?,
        images: images.map(|sqlx::types::Json(images)| images),
        actor: row.try_get("actor")?,
        created_at: Instant(row.try_get("created_at")?),
        until: row
            .try_get::<Option<OffsetDateTime>, _>("until")?
            .map(Instant),
    })
}

/// Records a freeze, and the act. Returns the id of the hold, also of a repeated order.
pub(crate) async fn freeze(
    db: &mut PgConnection,
    act: &NewAct<'_>,
    hard: bool,
    until: Option<OffsetDateTime>,
) -> Result<Result<i64, Effect>, sqlx::Error> {
    let mut tx = db.begin().await?;
    match acts::seen(&mut tx, act).await? {
        Some(Effect::Repeated) => {
            let before = acts::with_key(&mut tx, act.actor).await?;
            let hold = before.and_then(|(_, hold)| hold);
            return Ok(hold.ok_or(Effect::KeyReused));
        }
        Some(other) => return Ok(Err(other)),
        None => {}
    }
    let id: i64 = sqlx::query_scalar(
        "insert into hold (kind, triggers, reason, hard, actor, until)
         values ('freeze', $1, $2, $3, $4, $5) returning id",
    )
    .bind(act.trigger)
    .bind(act.reason)
    .bind(hard)
    .bind(act.actor.name())
    .bind(until)
    .fetch_one(&mut *tx)
    .await?;
    let act = NewAct {
        hold: Some(id),
        ..act.clone()
    };
    acts::record(&mut tx, &act).await?;
    touch(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Ok(id))
}

/// Ends a freeze, and records the act.
pub(crate) async fn thaw(
    db: &mut PgConnection,
    id: i64,
    act: &NewAct<'_>,
) -> Result<Effect, sqlx::Error> {
    let mut tx = db.begin().await?;
    if let Some(repeated) = acts::seen(&mut tx, act).await? {
        return Ok(repeated);
    }
    let released = sqlx::query(
        "update hold set released_at = now(), released_by = $2
         where id = $1 and kind = 'freeze' and released_at is null",
    )
    .bind(id)
    .bind(act.actor.name())
    .execute(&mut *tx)
    .await?;
    touch(&mut tx, id).await?;
    let effect = acts::record_effect(&mut tx, act, released.rows_affected() > 0).await?;
    tx.commit().await?;
    Ok(effect)
}

/// Lets the planner evaluate the gates of the triggers that a hold is about.
async fn touch(tx: &mut PgConnection, hold: i64) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "update trigger t set touched = true from hold h where h.id = $1 and ",
        is_about!("t.name")
    ))
    .bind(hold)
    .execute(tx)
    .await
    .map(|_| ())
}
