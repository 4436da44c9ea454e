//! The positions of the sweeper, and its comparisons.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::{PgConnection, Row as _};
use tagtrail_bus::consume::Position;
use tagtrail_bus::topology::Stream;
use tagtrail_postgres::{position, row};
use tagtrail_proto::{Digest, Image};

use crate::error::Error;
use crate::received::ReceivedPush;
use crate::store::doubts::PushRange;
use crate::store::position::source_of_row;
use crate::store::tags::image_of;

/// Returns the position up to which a stream was compared; before the first sweep, its beginning.
pub(crate) async fn compared(
    db: &mut PgConnection,
    stream: Stream,
) -> Result<Position, sqlx::Error> {
    let row = sqlx::query(
        "select stream_created_ns, applied_seq, applied_time_ns from sweep where stream = $1",
    )
    .bind(stream.name())
    .fetch_optional(db)
    .await?;
    row.map_or(Ok(Position::default()), |row| position::of_row(&row))
}

/// Records the position up to which a stream was compared.
pub(crate) async fn advance(
    db: &mut PgConnection,
    stream: Stream,
    to: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into sweep (stream, stream_created_ns, applied_seq, applied_time_ns) values ($1, $2, $3, $4)
         on conflict (stream) do update
         set stream_created_ns = excluded.stream_created_ns, applied_seq = excluded.applied_seq, applied_time_ns = excluded.applied_time_ns",
    )
    .bind(stream.name())
    .bind(to.stream_created_ns)
    .bind(row::signed(to.sequence))
    .bind(to.time_ns)
    .execute(db)
    .await
    .map(|_| ())
}

/// Returns whether a sweep is due: the last one ended at least `every` ago.
pub(crate) async fn is_due(db: &mut PgConnection, every: Duration) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select coalesce(
             (select done_at + make_interval(secs => $1) <= now() from sweep where stream = 'PUSHES'), true)",
    )
    .bind(every.as_secs_f64())
    .fetch_one(db)
    .await
}

/// Returns the pushes whose doubts no sweep has looked at yet: recorded at least a minute ago, so
/// that the first question has had time; before the first sweep, at most an hour ago. `None`: there
/// is none.
pub(crate) async fn undoubted(db: &mut PgConnection) -> Result<Option<PushRange>, sqlx::Error> {
    // `offset 0`: as in `doubts::shortly_before`. The greatest id is near the last push.
    let row = sqlx::query(
        "select coalesce(
                    (select doubts_until from sweep where stream = 'PUSHES'),
                    (select min(id) - 1 from (select id from push where recorded_at > now() - interval '1 hour' offset 0) p)) as after,
                (select max(id) from push where recorded_at between now() - interval '2 hours' and now() - interval '1 minute') as last",
    )
    .fetch_one(db)
    .await?;
    let (after, last) = (row.try_get("after")?, row.try_get("last")?);
    Ok(match (after, last) {
        (Some(after), Some(last)) if after < last => Some(PushRange { after, last }),
        _ => None,
    })
}

/// Records the last push whose doubts were looked at.
pub(crate) async fn set_undoubted(db: &mut PgConnection, until: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into sweep (stream, doubts_until) values ('PUSHES', $1)
         on conflict (stream) do update set doubts_until = excluded.doubts_until",
    )
    .bind(until)
    .execute(db)
    .await
    .map(|_| ())
}

/// Records the end of a sweep.
pub(crate) async fn finish(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into sweep (stream, done_at) values ('PUSHES', now())
         on conflict (stream) do update set done_at = excluded.done_at",
    )
    .execute(db)
    .await
    .map(|_| ())
}

/// Returns the stream that each partition reads, and the position up to which it is applied.
pub(crate) async fn applied(
    db: &mut PgConnection,
) -> Result<BTreeMap<u16, (Stream, Position)>, sqlx::Error> {
    let rows = sqlx::query(
        "select partition, source, stream_created_ns, applied_seq, applied_time_ns from position where stream = 'PUSHES'",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| {
            Ok((
                row::partition(found, "partition")?,
                (source_of_row(found)?, position::of_row(found)?),
            ))
        })
        .collect()
}

/// Returns the sequences of the pushes that Postgres is missing.
pub(crate) async fn missing(
    db: &mut PgConnection,
    pushes: &[ReceivedPush],
) -> Result<BTreeSet<u64>, sqlx::Error> {
    fn each<'a, T>(pushes: &'a [ReceivedPush], of: impl Fn(&'a ReceivedPush) -> T) -> Vec<T> {
        pushes.iter().map(of).collect()
    }
    let sequences: Vec<i64> = sqlx::query_scalar(
        "select w.sequence
         from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bytea[], $7::text[])
              as w (sequence, registry, repository, tag, occurred_at, digest, action)
         left join repository r on r.registry = w.registry and r.name = w.repository
         left join tag t on t.repository_id = r.id and t.name = w.tag
         where not case when w.tag is not null
             then exists (select from push p where p.tag_id = t.id and p.occurred_at = w.occurred_at
                              and p.digest is not distinct from w.digest and p.action = w.action::push_action)
             else exists (select from push p where p.repository_id = r.id and p.occurred_at = w.occurred_at
                              and p.digest is not distinct from w.digest)
         end",
    )
    .bind(each(pushes, |push| row::signed(push.sequence)))
    .bind(each(pushes, |push| push.registry.as_ref()))
    .bind(each(pushes, |push| push.repository.as_ref()))
    .bind(each(pushes, |push| push.tag.as_ref().map(AsRef::<str>::as_ref)))
    .bind(each(pushes, |push| push.occurred_at))
    .bind(each(pushes, |push| push.digest.as_ref().map(Digest::as_bytes)))
    .bind(each(pushes, |push| push.action.as_str()))
    .fetch_all(db)
    .await?;
    Ok(sequences.into_iter().map(row::unsigned).collect())
}

/// Sets the position of a partition back, also to a stream that the partition has left, so that
/// later pushes are read again. The holder detects the change, and starts over from this position.
pub(crate) async fn set_back(
    db: &mut PgConnection,
    partition: u16,
    (stream, stream_created_ns): (Stream, i64),
    sequence: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update position set source = nullif($4, 'PUSHES'), stream_created_ns = $2, applied_seq = $3, applied_time_ns = null
         where stream = 'PUSHES' and partition = $1
             and (coalesce(source, 'PUSHES') <> $4 or stream_created_ns = $2 and applied_seq > $3)",
    )
    .bind(row::small(partition))
    .bind(stream_created_ns)
    .bind(row::signed(sequence))
    .bind(stream.name())
    .execute(db)
    .await
    .map(|_| ())
}

/// Sets back the published ordinal of partitions, so that the revisions of each tag above the given
/// number are published again.
pub(crate) async fn publish_again(
    db: &mut PgConnection,
    tags: &BTreeMap<i64, u64>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update position p set published = m.first - 1
         from (select v.partition, min(v.ordinal) as first
               from unnest($1::bigint[], $2::bigint[]) as w (tag_id, number)
               join revision v on v.tag_id = w.tag_id and v.number > w.number
               group by v.partition) m
         where p.stream = 'PUSHES' and p.partition = m.partition and p.published >= m.first",
    )
    .bind(tags.keys().copied().collect::<Vec<_>>())
    .bind(tags.values().copied().map(row::signed).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(|_| ())
}

/// A tag whose revisions are all published.
#[derive(Debug)]
pub(crate) struct PublishedTag {
    pub(crate) tag_id: i64,
    pub(crate) image: Image,
    /// The greatest number issued.
    pub(crate) issued: u64,
}

/// Returns the next tags, by their ids, without a revision on its way to REVISIONS.
///
/// The highest ordinal of a partition is a bound without effect, but for the plan: between two
/// bounds Postgres expects few rows, and looks them up by the index. Above one bound it expects a
/// third of all revisions, and reads the whole table for each page of tags. With `lateral` and
/// `offset 0` it reads each partition by itself.
pub(crate) async fn published_tags(
    db: &mut PgConnection,
    after: i64,
    limit: i64,
) -> Result<Vec<PublishedTag>, Error> {
    let rows = sqlx::query(
        "with on_its_way as materialized (
             select v.tag_id from position p
             cross join lateral (
                 select v.tag_id from revision v
                 where v.partition = p.partition and v.ordinal > p.published
                   and v.ordinal <= (select max(e.ordinal) from revision e where e.partition = p.partition)
                 offset 0) v
             where p.stream = 'PUSHES'
         )
         select t.id, r.registry, r.name as repository, t.name as tag, t.issued
         from tag t join repository r on r.id = t.repository_id
         where t.id > $1 and t.issued > 0 and t.id not in (select tag_id from on_its_way)
         order by t.id limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| {
            Ok(PublishedTag {
                tag_id: found.try_get("id")?,
                image: image_of(found)?,
                issued: row::unsigned(found.try_get("issued")?),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
