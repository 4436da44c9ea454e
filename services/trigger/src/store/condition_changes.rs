//! Changes of conditions of triggers, for ROLLOUTS.

use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_proto::{Condition, ConditionChange, Reason};
use time::OffsetDateTime;

/// The condition of a trigger, as judged now.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Standing {
    /// The trigger's row id.
    pub(crate) id: i32,
    pub(crate) condition: Condition,
    pub(crate) reasons: Vec<Reason>,
}

/// A change of a condition that ROLLOUTS may lack.
#[derive(Debug)]
pub(crate) struct ConditionChanged {
    pub(crate) ordinal: i64,
    pub(crate) change: ConditionChange,
    pub(crate) changed_at: OffsetDateTime,
}

/// Records the conditions that differ from the last recorded ones, and those of removed triggers.
/// The same change of a trigger is recorded three times an hour at once, and then at most every ten
/// minutes. Returns the triggers, by id, whose last recorded condition is the present one.
pub(crate) async fn record(
    db: &mut PgConnection,
    standings: &[Standing],
) -> Result<Vec<(i32, Condition)>, sqlx::Error> {
    let rows = sqlx::query(
        "with seen as (
             select s.id, s.condition, s.reasons from jsonb_to_recordset($1) as s (id integer, condition text, reasons jsonb)
             union all
             select t.id, 'removed', '[]' from trigger t where not t.configured
         ), present as (
             select s.id, s.condition, s.reasons, l.ordinal as previous, l.condition as before
             from seen s join trigger t on t.id = s.id
             left join lateral (
                 select c.ordinal, c.condition from condition_change c where c.trigger_id = s.id
                 order by c.ordinal desc limit 1) l on true
             where l.ordinal is not null or s.condition <> 'removed'
         ), recorded as (
             insert into condition_change (trigger_id, condition, before, reasons, previous)
             select p.id, p.condition, p.before, p.reasons, p.previous from present p
             where p.before is distinct from p.condition
                 and (select count(*) < 3 or max(e.changed_at) < now() - interval '10 minutes'
                      from condition_change e
                      where e.trigger_id = p.id and e.condition = p.condition and e.before is not distinct from p.before
                          and e.changed_at > now() - interval '1 hour')
             on conflict do nothing
             returning trigger_id, condition
         )
         select p.id, p.condition from present p where p.before = p.condition
         union all select r.trigger_id, r.condition from recorded r",
    )
    .bind(Json(standings))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("id")?, condition(row.try_get("condition")?)?)))
        .collect()
}

/// Returns the oldest unpublished changes of conditions, at most 256.
pub(crate) async fn unpublished(
    db: &mut PgConnection,
) -> Result<Vec<ConditionChanged>, sqlx::Error> {
    let rows = sqlx::query(
        "select c.ordinal, t.name, c.condition, c.before, c.reasons, c.changed_at
         from condition_change c join trigger t on t.id = c.trigger_id
         where not c.published order by c.ordinal limit 256",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let before: Option<&str> = row.try_get("before")?;
            let Json(reasons): Json<Vec<Value>> = row.try_get("reasons")?;
            // A process of a later version may know other reasons, which are left out.
            let known = |reason| serde_json::from_value(reason).ok();
            Ok(ConditionChanged {
                ordinal: row.try_get("ordinal")?,
                change: ConditionChange {
                    trigger: row.try_get("name")?,
                    condition: condition(row.try_get("condition")?)?,
                    before: before.map(condition).transpose()?,
                    reasons: reasons.into_iter().filter_map(known).collect(),
                },
                changed_at: row.try_get("changed_at")?,
            })
        })
        .collect()
}

/// Deletes old changes, except the last one of each trigger.
pub(crate) async fn forget_old(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "delete from condition_change where ordinal in (
             select c.ordinal from condition_change c
             where c.published and c.changed_at < now() - interval '30 days'
                 and exists (select from condition_change n where n.trigger_id = c.trigger_id and n.ordinal > c.ordinal)
             order by c.ordinal limit 10000)",
    )
    .execute(db)
    .await
    .map(|_| ())
}

fn condition(word: &str) -> Result<Condition, sqlx::Error> {
    let parsed = word.parse();
    parsed.map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

#[cfg(test)]
mod tests;
