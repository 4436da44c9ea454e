//! Changes of conditions of triggers, for ROLLOUTS.

use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_proto::{Condition, Reason};

/// The condition of a trigger, as judged now.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Standing {
    /// The trigger's row id.
    pub(crate) id: i32,
    pub(crate) condition: Condition,
    pub(crate) reasons: Vec<Reason>,
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
