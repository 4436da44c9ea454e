//! How far each receiver of messages about rollouts has been told.

use sqlx::PgConnection;
use tagtrail_postgres::{position, row};
use tagtrail_proto::{Position, Rollout};

use super::columns::columns;

/// Returns the place of an entry in ROLLOUTS; `None` for a new entry.
pub(crate) async fn position(
    db: &mut PgConnection,
    name: &str,
) -> Result<Option<Position>, sqlx::Error> {
    let row = sqlx::query(
        "select stream_created_ns, applied_seq, applied_time_ns from notify_position where name = $1",
    )
    .bind(name)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(position::of_row).transpose()
}

/// Records the first place of an entry, unless another process has done so.
pub(crate) async fn begin(
    db: &mut PgConnection,
    name: &str,
    at: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into notify_position (name, stream_created_ns, applied_seq, applied_time_ns)
         values ($1, $2, $3, $4) on conflict do nothing",
    )
    .bind(name)
    .bind(at.stream_created_ns)
    .bind(row::signed(at.sequence))
    .bind(at.time_ns)
    .execute(db)
    .await
    .map(|_| ())
}

/// Moves the place of an entry from `before` to `after`, and notes the failed rollout that its
/// receiver was told of. Returns false if the place had been moved for this process: another one
/// delivers the messages of the entry.
pub(crate) async fn advance(
    db: &mut PgConnection,
    name: &str,
    (before, after): (Position, Position),
    failure: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query(
        "with moved as (
             update notify_position set stream_created_ns = $2, applied_seq = $3, applied_time_ns = $4
             where name = $1 and applied_seq = $5 and stream_created_ns is not distinct from $6
             returning name
         ), told as (
             insert into notify_failure (name, rollout_id)
             select m.name, o.id from moved m join rollout o on o.id = $7::uuid
             on conflict (name, rollout_id) do update set told_at = now()
         )
         select from moved",
    )
    .bind(name)
    .bind(after.stream_created_ns)
    .bind(row::signed(after.sequence))
    .bind(after.time_ns)
    .bind(row::signed(before.sequence))
    .bind(before.stream_created_ns)
    .bind(failure)
    .fetch_optional(db)
    .await?;
    Ok(moved.is_some())
}

/// Returns whether the receiver was told within a day that this rollout fails.
pub(crate) async fn knows(
    db: &mut PgConnection,
    name: &str,
    rollout: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from notify_failure
         where name = $1 and rollout_id = $2::uuid and told_at > now() - interval '1 day')",
    )
    .bind(name)
    .bind(rollout)
    .fetch_one(db)
    .await
}

/// Returns a failed rollout that the receiver was told of a day ago, and that still fails. Forgets
/// the rollouts that fail no longer.
pub(crate) async fn failing_still(
    db: &mut PgConnection,
    name: &str,
) -> Result<Option<Rollout>, sqlx::Error> {
    let row = sqlx::query(concat!(
        "with over as (
             delete from notify_failure f using rollout o
             where f.name = $1 and f.told_at < now() - interval '1 day' and o.id = f.rollout_id
                 and (o.state <> 'failed' or o.ended)
         )
         select ", columns!(), "
         from notify_failure f join rollout o on o.id = f.rollout_id join trigger t on t.id = o.trigger_id
         where f.name = $1 and f.told_at < now() - interval '1 day' and o.state = 'failed' and not o.ended and t.configured
         order by f.told_at limit 1"
    ))
    .bind(name)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(row::rollout).transpose()
}

/// Notes that the receiver was told again that this rollout fails.
pub(crate) async fn told_again(
    db: &mut PgConnection,
    name: &str,
    rollout: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update notify_failure set told_at = now() where name = $1 and rollout_id = $2::uuid",
    )
    .bind(name)
    .bind(rollout)
    .execute(db)
    .await
    .map(|_| ())
}
