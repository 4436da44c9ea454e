//! Revisions: inserts new revisions, and reads older ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::{PgConnection, Row as _};
use tagtrail_history::recorded::Recorded;
use tagtrail_postgres::row;
use tagtrail_proto::Digest;
use time::OffsetDateTime;

use crate::error::Error;
use crate::store::tags::NewTagRow;

/// Inserts revisions, and updates the rows of their tags.
pub(crate) async fn insert(
    db: &mut PgConnection,
    partition: u16,
    revisions: &[&Recorded],
    tags: &[NewTagRow],
) -> Result<(), sqlx::Error> {
    fn each<'a, T>(revisions: &[&'a Recorded], of: impl Fn(&'a Recorded) -> T) -> Vec<T> {
        revisions.iter().copied().map(of).collect()
    }
    fn every<'a, T>(tags: &'a [NewTagRow], of: impl Fn(&'a NewTagRow) -> T) -> Vec<T> {
        tags.iter().map(of).collect()
    }
    // One statement for both: this saves a round trip for each push that comes alone.
    sqlx::query(
        "with moved as (
             update tag t
             set issued = n.issued, head = n.head, head_digest = n.head_digest, head_at = n.head_at,
                 latest_at = greatest(t.latest_at, n.latest_at)
             from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[], $5::timestamptz[], $6::timestamptz[])
                  as n (id, issued, head, head_digest, head_at, latest_at)
             where t.id = n.id
         ), moving as (
             insert into moving (repository_id, tag_id)
             select t.repository_id, t.id
             from unnest($7::bigint[], $8::bigint[]) as n (tag_id, number) join tag t on t.id = n.tag_id
             where n.number = 2
             on conflict do nothing
         )
         insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, ordinal, partition)
         select tag_id, number, kind::revision_kind, digest, effective_at, recorded_at, previous, head, push_id, ordinal, $17
         from unnest($7::bigint[], $8::bigint[], $9::text[], $10::bytea[], $11::timestamptz[], $12::timestamptz[], $13::bigint[],
                     $14::bigint[], $15::bigint[], $16::bigint[])
              as r (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, ordinal)",
    )
    .bind(every(tags, |tag| tag.tag_id))
    .bind(every(tags, |tag| row::signed(tag.issued)))
    .bind(every(tags, |tag| tag.head.as_ref().map(|head| row::signed(head.number))))
    .bind(every(tags, |tag| tag.head.as_ref().and_then(|head| head.digest.as_ref()).map(Digest::as_bytes)))
    .bind(every(tags, |tag| tag.head.as_ref().map(|head| head.at)))
    .bind(every(tags, |tag| tag.latest_at))
    .bind(each(revisions, |new| new.tag_id))
    .bind(each(revisions, |new| row::signed(new.event.revision)))
    .bind(each(revisions, |new| new.event.kind.as_str()))
    .bind(each(revisions, |new| new.event.digest.as_ref().map(Digest::as_bytes)))
    .bind(each(revisions, |new| new.event.occurred_at))
    .bind(each(revisions, |new| new.event.recorded_at))
    .bind(each(revisions, |new| new.event.previous.as_ref().map(|point| row::signed(point.revision))))
    .bind(each(revisions, |new| row::signed(new.event.head.revision)))
    .bind(each(revisions, |new| new.push_id))
    .bind(each(revisions, |new| row::signed(new.ordinal)))
    .bind(row::small(partition))
    .execute(db)
    .await
    .map(|_| ())
}

/// Returns the first effective time of each digest for its tag, if the tag ever had the digest.
pub(crate) async fn first_had(
    db: &mut PgConnection,
    pairs: &BTreeSet<(i64, &Digest)>,
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
        if let Some(digest) = row::digest(row.try_get("digest")?)? {
            first
                .entry(row.try_get("tag_id")?)
                .or_default()
                .insert(digest, row.try_get("effective_at")?);
        }
    }
    Ok(first)
}

/// Returns the tags with revisions recorded at `time` or later, each with the number before the
/// first such revision.
pub(crate) async fn tags_since(
    db: &mut PgConnection,
    time: OffsetDateTime,
) -> Result<BTreeMap<i64, u64>, sqlx::Error> {
    let rows = sqlx::query(
        "select tag_id, min(number) - 1 as before from revision where recorded_at >= $1 group by tag_id",
    )
    .bind(time)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| {
            let before = row::unsigned(found.try_get("before")?);
            Ok((found.try_get("tag_id")?, before))
        })
        .collect()
}
