//! The rollouts of the revisions of a tag.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row as _};
use tagtrail_history::changes::HistoryItem;
use tagtrail_postgres::row;
use tagtrail_proto::Rollout;

/// Rollouts by the number of the revision.
pub(crate) type RolledOut = BTreeMap<u64, Vec<Rollout>>;

/// Returns the rollouts that brought these revisions of a tag, for each revision the newest first
/// and at most `limit`. Of a revision that was rolled out more than a hundred times, by rollbacks,
/// any hundred are looked at.
///
/// # Errors
/// Those of Postgres.
pub(crate) async fn of_revisions(
    db: &mut PgConnection,
    tag: i64,
    items: &[HistoryItem],
    limit: i64,
) -> Result<RolledOut, sqlx::Error> {
    let (numbers, digests): (Vec<i64>, Vec<&[u8]>) = items
        .iter()
        .filter_map(|item| {
            let digest = item.digest.as_ref()?;
            Some((i64::try_from(item.revision).ok()?, digest.as_bytes()))
        })
        .unzip();
    let mut found = RolledOut::new();
    if numbers.is_empty() {
        return Ok(found);
    }
    let rows = sqlx::query(
        "select w.revision, o.*
         from unnest($1::bigint[], $2::bytea[]) as w (revision, digest)
         cross join lateral (
             select o.id, t.name as trigger, o.number, coalesce(o.epoch, t.epoch) as epoch, o.state::text as state, o.images, o.cause,
                 o.attempts, o.created_at, o.finished_at, o.error, o.gates, o.opens_at
             from (select distinct i.rollout_id from rollout_image i
                   where i.digest = w.digest and i.tag_id = $3 and i.number = w.revision and i.changed limit 100) i
             join rollout o on o.id = i.rollout_id
             join trigger t on t.id = o.trigger_id
             order by o.created_at desc, t.name limit $4) o",
    )
    .bind(numbers)
    .bind(digests)
    .bind(tag)
    .bind(limit)
    .fetch_all(db)
    .await?;
    for row in &rows {
        let revision = row::unsigned(row.try_get("revision")?);
        found.entry(revision).or_default().push(row::rollout(row)?);
    }
    Ok(found)
}
