//! When the triggers of a group were rolled out.

use sqlx::{PgConnection, Row as _};
use tagtrail_policy::replay::Busy;
use time::OffsetDateTime;

/// Most times that are read.
pub(crate) const MOST: usize = 20_000;

/// Returns the times between `from` and `until` in which rollouts of the other triggers of a group
/// were about to begin, or had begun and not ended: at most [`MOST`].
pub(crate) async fn busy(
    db: &mut PgConnection,
    group: &str,
    trigger: &str,
    (from, until): (OffsetDateTime, OffsetDateTime),
) -> Result<Vec<Busy>, sqlx::Error> {
    let rows = sqlx::query(
        "select s.name, s.changed_at, coalesce(s.next_at, now()) as next_at
         from (
             select t.name, c.state, c.changed_at, lead(c.changed_at) over (partition by c.rollout_id order by c.ordinal) as next_at
             from trigger t join rollout o on o.trigger_id = t.id join rollout_change c on c.rollout_id = o.id
             where t.group_name = $1 and t.name <> $2 and t.configured
               and o.created_at < $4 and coalesce(o.finished_at, 'infinity') > $3
         ) s
         where s.state in ('pending', 'running', 'watching') and s.changed_at < $4 and coalesce(s.next_at, 'infinity') > $3
         order by s.changed_at limit $5",
    )
    .bind(group)
    .bind(trigger)
    .bind(from)
    .bind(until)
    .bind(i64::try_from(MOST).unwrap_or(i64::MAX))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Busy {
                trigger: row.try_get("name")?,
                from: row.try_get("changed_at")?,
                until: row.try_get("next_at")?,
            })
        })
        .collect()
}
