//! Revisions: writing new ones, and reading them as the events that were or will be published.

use std::collections::{BTreeSet, HashMap};

use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image, Kind, Point, Revision};
use time::OffsetDateTime;

use super::{meta, small};
use crate::error::Error;

/// A revision ready to be written.
#[derive(Debug)]
pub(crate) struct NewRevision {
    pub(crate) tag_id: i64,
    pub(crate) ordinal: u64,
    pub(crate) push_id: i64,
    pub(crate) event: Revision,
}

/// Writes revisions.
pub(crate) async fn add_revisions(
    db: &mut PgConnection,
    partition: u16,
    revisions: &[NewRevision],
) -> Result<(), sqlx::Error> {
    fn each<'a, T>(revisions: &'a [NewRevision], of: impl Fn(&'a NewRevision) -> T) -> Vec<T> {
        revisions.iter().map(of).collect()
    }
    sqlx::query(
        "insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal)
         select tag_id, number, kind::revision_kind, digest, effective_at, recorded_at, previous, head, push_id, $10, ordinal
         from unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::timestamptz[], $6::timestamptz[], $7::bigint[], $8::bigint[], $9::bigint[], $11::bigint[])
              as r (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, ordinal)",
    )
    .bind(each(revisions, |new| new.tag_id))
    .bind(each(revisions, |new| row::signed(new.event.revision)))
    .bind(each(revisions, |new| new.event.kind.as_str()))
    .bind(each(revisions, |new| new.event.digest.as_ref().map(Digest::as_bytes)))
    .bind(each(revisions, |new| new.event.occurred_at))
    .bind(each(revisions, |new| new.event.recorded_at))
    .bind(each(revisions, |new| new.event.previous.as_ref().map(|point| row::signed(point.revision))))
    .bind(each(revisions, |new| row::signed(new.event.head.revision)))
    .bind(each(revisions, |new| new.push_id))
    .bind(small(partition))
    .bind(each(revisions, |new| row::signed(new.ordinal)))
    .execute(db)
    .await
    .map(|_| ())
}

/// Revisions of a partition from ordinal `from` to `to` (both included), at most `limit`, as the events that were or will be published.
pub(crate) async fn revisions(
    db: &mut PgConnection,
    partition: u16,
    from: u64,
    to: u64,
    limit: u32,
) -> Result<Vec<NewRevision>, Error> {
    let rows = sqlx::query(
        "select v.tag_id, v.ordinal, v.push_id, p.origin::text, p.source, p.actor, p.media_type, p.size_bytes,
                r.registry, r.name, t.name, v.number, v.kind::text, v.digest, v.late, v.effective_at, v.recorded_at,
                v.previous, before.digest, v.head, head.digest
         from revision v
         join push p on p.id = v.push_id
         join tag t on t.id = v.tag_id
         join repository r on r.id = t.repository_id
         join revision head on head.tag_id = v.tag_id and head.number = v.head
         left join revision before on before.tag_id = v.tag_id and before.number = v.previous
         where v.partition = $1 and v.ordinal between $2 and $3
         order by v.ordinal limit $4",
    )
    .bind(small(partition))
    .bind(row::signed(from))
    .bind(row::signed(to))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let meta = meta(row, 3)?;
            let image = Image {
                registry: row::parsed(row.try_get(8)?)?,
                repository: row::parsed(row.try_get(9)?)?,
                tag: row::parsed(row.try_get(10)?)?,
            };
            let found = row::digest(row.try_get(13)?)?;
            let previous = match row.try_get::<Option<i64>, _>(17)? {
                Some(number) => Some(Point {
                    revision: row::unsigned(number),
                    digest: row::digest(row.try_get(18)?)?,
                }),
                None => None,
            };
            let event = Revision {
                revision: row::unsigned(row.try_get(11)?),
                kind: row::parsed::<Kind>(row.try_get(12)?)?,
                pinned: found.as_ref().map(|digest| image.pinned(digest)),
                digest: found,
                previous,
                late: row.try_get(14)?,
                head: Point {
                    revision: row::unsigned(row.try_get(19)?),
                    digest: row::digest(row.try_get(20)?)?,
                },
                occurred_at: row.try_get(15)?,
                recorded_at: row.try_get(16)?,
                origin: meta.origin,
                source: meta.source,
                actor: meta.actor,
                media_type: meta.media_type,
                size: meta.size,
                registry: image.registry,
                repository: image.repository,
                tag: image.tag,
            };
            Ok(NewRevision {
                tag_id: row.try_get(0)?,
                ordinal: row::unsigned(row.try_get(1)?),
                push_id: row.try_get(2)?,
                event,
            })
        })
        .collect()
}

/// When each of these tags first had the digest, for those that ever had it.
pub(crate) async fn first_had(
    db: &mut PgConnection,
    pairs: &BTreeSet<(i64, Digest)>,
) -> Result<HashMap<i64, HashMap<Digest, OffsetDateTime>>, Error> {
    let tags: Vec<i64> = pairs.iter().map(|(tag, _)| *tag).collect();
    let digests: Vec<&[u8]> = pairs.iter().map(|(_, digest)| digest.as_bytes()).collect();
    let rows = sqlx::query(
        "select w.tag_id, w.digest, f.effective_at
         from unnest($1::bigint[], $2::bytea[]) as w (tag_id, digest)
         cross join lateral (
             select r.effective_at from revision r where r.digest = w.digest and r.tag_id = w.tag_id order by r.effective_at limit 1) f",
    )
    .bind(&tags)
    .bind(&digests)
    .fetch_all(db)
    .await?;
    let mut first: HashMap<i64, HashMap<Digest, OffsetDateTime>> = HashMap::new();
    for row in &rows {
        if let Some(digest) = row::digest(row.try_get(1)?)? {
            first
                .entry(row.try_get(0)?)
                .or_default()
                .insert(digest, row.try_get(2)?);
        }
    }
    Ok(first)
}
