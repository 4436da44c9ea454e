//! Changes of holds, for ROLLOUTS.

use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::Held;
use time::OffsetDateTime;

/// A change of a hold that ROLLOUTS may lack.
#[derive(Debug)]
pub(crate) struct HoldChanged {
    pub(crate) ordinal: i64,
    pub(crate) hold: Held,
    pub(crate) changed_at: OffsetDateTime,
}

/// Records the holds that have ended by themselves since the last call, and returns the oldest
/// unpublished changes of holds, at most 256.
pub(crate) async fn unpublished(db: &mut PgConnection) -> Result<Vec<HoldChanged>, sqlx::Error> {
    sqlx::query(
        "insert into hold_change (hold_id, change, changed_at)
         select h.id, 'expired', h.until from hold h
         where h.released_at is null and h.until <= now()
           and exists (select from hold_change c where c.hold_id = h.id and c.change = 'set')
           and not exists (select from hold_change c where c.hold_id = h.id and c.change = 'expired')
         on conflict do nothing",
    )
    .execute(&mut *db)
    .await?;
    let rows = sqlx::query(
        "select c.ordinal, c.change, c.changed_at, h.id, h.kind::text as kind, h.triggers, h.reason, h.hard, h.actor,
                case c.change when 'released' then h.released_by end as released_by, h.created_at, h.until
         from hold_change c join hold h on h.id = c.hold_id
         where not c.published order by c.ordinal limit 256",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| {
            let change: &str = found.try_get("change")?;
            let change = change
                .parse()
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            Ok(HoldChanged {
                ordinal: found.try_get("ordinal")?,
                hold: Held {
                    id: row::unsigned(found.try_get("id")?),
                    change,
                    kind: found.try_get("kind")?,
                    triggers: found.try_get("triggers")?,
                    reason: found.try_get("reason")?,
                    hard: found.try_get("hard")?,
                    actor: found.try_get("actor")?,
                    released_by: found.try_get("released_by")?,
                    created_at: found.try_get("created_at")?,
                    until: found.try_get("until")?,
                },
                changed_at: found.try_get("changed_at")?,
            })
        })
        .collect()
}
