//! Pushes: finds recorded ones, and the neighbours of late pushes.

use std::collections::{HashMap, HashSet};

use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Revision};
use tagtrail_timeline::{Effect, Entry, Fact};
use time::OffsetDateTime;

use crate::error::Error;
use crate::received::{Meta, Owner, ReceivedPush};

/// Returns a column of pushes.
pub(crate) fn each<'a, T>(
    pushes: &[(Owner, &'a ReceivedPush)],
    of: impl Fn(&'a ReceivedPush) -> T,
) -> Vec<T> {
    pushes.iter().map(|(_, push)| of(push)).collect()
}

/// Returns the column of the row ids of the owners of one kind.
pub(crate) fn owners(
    pushes: &[(Owner, &ReceivedPush)],
    id: fn(Owner) -> Option<i64>,
) -> Vec<Option<i64>> {
    pushes.iter().map(|(owner, _)| id(*owner)).collect()
}

/// Returns the sequences of the pushes that are recorded already.
///
/// A lookup before each write would cost a quarter more time, and repeats are rare: the bus drops
/// duplicates within 10 minutes. So this is asked only after a write has found a repeat.
pub(crate) async fn recorded(
    db: &mut PgConnection,
    pushes: &[(Owner, &ReceivedPush)],
) -> Result<HashSet<u64>, sqlx::Error> {
    let sequences: Vec<i64> = sqlx::query_scalar(
        "select n.stream_seq
         from unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::timestamptz[], $6::bigint[])
              as n (tag_id, repository_id, action, digest, occurred_at, stream_seq)
         where case when n.tag_id is not null
             then exists (select from push p where p.tag_id = n.tag_id and p.occurred_at = n.occurred_at
                              and p.digest is not distinct from n.digest and p.action = n.action::push_action)
             else exists (select from push p where p.repository_id = n.repository_id and p.occurred_at = n.occurred_at
                              and p.digest is not distinct from n.digest)
         end",
    )
    .bind(owners(pushes, Owner::tag))
    .bind(owners(pushes, Owner::repository))
    .bind(each(pushes, |push| push.action.as_str()))
    .bind(each(pushes, |push| push.digest.as_ref().map(Digest::as_bytes)))
    .bind(each(pushes, |push| push.occurred_at))
    .bind(each(pushes, |push| row::signed(push.sequence)))
    .fetch_all(db)
    .await?;
    Ok(sequences.into_iter().map(row::unsigned).collect())
}

/// Inserts the pushes that published revisions of a tag imply: the tag had, or lost, a digest at
/// that time. A push that is recorded already stays. Returns the row ids of all in the same order.
/// Of two revisions about the same time, the higher number counts as received later.
pub(crate) async fn insert_implied(
    db: &mut PgConnection,
    tag_id: i64,
    revisions: &[&Revision],
    recorded_at: OffsetDateTime,
) -> Result<Vec<i64>, sqlx::Error> {
    fn each<'a, T>(revisions: &[&'a Revision], of: impl Fn(&'a Revision) -> T) -> Vec<T> {
        revisions.iter().copied().map(of).collect()
    }
    sqlx::query(
        "insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin,
                           source, event_id, actor, media_type, size_bytes, stream_seq)
         select $1, (case when digest is null then 'delete' else 'push' end)::push_action, digest, occurred_at, occurred_at, 'event',
                told_at + number * interval '1 microsecond', $2, origin::push_origin, source, event_id, actor, media_type, size_bytes, 0
         from unnest($3::bytea[], $4::timestamptz[], $5::timestamptz[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[],
                     $11::text[], $12::bigint[])
              as f (digest, occurred_at, told_at, number, origin, source, event_id, actor, media_type, size_bytes)
         on conflict do nothing",
    )
    .bind(tag_id)
    .bind(recorded_at)
    .bind(each(revisions, |told| told.digest.as_ref().map(Digest::as_bytes)))
    .bind(each(revisions, |told| told.occurred_at))
    .bind(each(revisions, |told| told.recorded_at))
    .bind(each(revisions, |told| row::signed(told.revision)))
    .bind(each(revisions, |told| told.origin.as_str()))
    .bind(each(revisions, |told| told.source.as_str()))
    .bind(each(revisions, |told| told.id()))
    .bind(each(revisions, |told| told.actor.as_deref()))
    .bind(each(revisions, |told| told.media_type.as_deref()))
    .bind(each(revisions, |told| told.size.map(row::signed)))
    .execute(&mut *db)
    .await?;
    sqlx::query_scalar(
        "select p.id
         from unnest($2::bytea[], $3::timestamptz[]) with ordinality as f (digest, occurred_at, place)
         join push p on p.tag_id = $1 and p.occurred_at = f.occurred_at and p.digest is not distinct from f.digest
              and (p.action = 'delete') = (f.digest is null)
         order by f.place",
    )
    .bind(tag_id)
    .bind(each(revisions, |told| told.digest.as_ref().map(Digest::as_bytes)))
    .bind(each(revisions, |told| told.occurred_at))
    .fetch_all(db)
    .await
}

/// Returns the tags that a delete at `at` may change: the tags that had the digest `deleted` by
/// then, or with `None` all tags of the repository.
pub(crate) async fn tags_touched(
    db: &mut PgConnection,
    repository: i64,
    deleted: Option<&Digest>,
    at: OffsetDateTime,
) -> Result<Vec<i64>, sqlx::Error> {
    match deleted {
        Some(digest) => {
            sqlx::query_scalar(
                "select distinct t.id from revision r join tag t on t.id = r.tag_id
                 where r.digest = $1 and t.repository_id = $2 and r.effective_at <= $3",
            )
            .bind(digest.as_bytes())
            .bind(repository)
            .bind(at)
            .fetch_all(db)
            .await
        }
        None => {
            sqlx::query_scalar("select id from tag where repository_id = $1 and issued > 0")
                .bind(repository)
                .fetch_all(db)
                .await
        }
    }
}

/// The recorded facts and revisions around late facts, by tag: the input of
/// [`tagtrail_timeline::TagState`].
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    pub(crate) facts: HashMap<i64, Vec<Fact>>,
    pub(crate) revisions: HashMap<i64, Vec<Entry>>,
    pub(crate) metas: HashMap<i64, Meta>,
}

/// A late fact of a tag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Late {
    pub(crate) tag_id: i64,
    pub(crate) repository_id: i64,
    /// Its effective time.
    pub(crate) at: OffsetDateTime,
    /// The greatest effective time of the tag's own facts.
    pub(crate) own_latest_at: Option<OffsetDateTime>,
}

fn of_late<T>(late: &[Late], of: impl Fn(&Late) -> T) -> Vec<T> {
    late.iter().map(of).collect()
}

/// Returns for each late fact the effective time of the next fact that fixes the state of the tag:
/// a push of the tag, or a delete of the tag or its repository that names no digest. `None`: there
/// is no such fact.
///
/// Facts of a tag that count from the time that they name are found by the index
/// `push_is_one_fact`, and the others, which count from their receipt, by `push_from_receipt`. The
/// latter are sought first, so that the search in the former has an end where all facts are of the
/// latter kind.
async fn settled(
    db: &mut PgConnection,
    late: &[Late],
) -> Result<Vec<Option<OffsetDateTime>>, sqlx::Error> {
    sqlx::query_scalar(
        "select least(
                    receipt.at,
                    (select p.occurred_at from push p
                     where p.tag_id = l.tag_id and p.effective_at = p.occurred_at and (p.action = 'push' or p.digest is null)
                       and p.occurred_at > l.at and p.occurred_at < coalesce(receipt.at, 'infinity') and p.occurred_at <= l.latest_at
                     order by p.occurred_at limit 1),
                    (select p.effective_at from push p
                     where p.repository_id = l.repository_id and p.digest is null and p.effective_at > l.at
                     order by p.effective_at limit 1))
         from unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::timestamptz[])
              with ordinality as l (tag_id, repository_id, at, latest_at, place)
         left join lateral (
             select p.effective_at as at from push p
             where p.tag_id = l.tag_id and p.effective_at <> p.occurred_at and (p.action = 'push' or p.digest is null)
               and p.effective_at > l.at
             order by p.effective_at limit 1) receipt on true
         order by l.place",
    )
    .bind(of_late(late, |late| late.tag_id))
    .bind(of_late(late, |late| late.repository_id))
    .bind(of_late(late, |late| late.at))
    .bind(of_late(late, |late| late.own_latest_at))
    .fetch_all(db)
    .await
}

/// Selects the facts between late facts and the next ones that fix the state, by a condition. With
/// `offset 0`, Postgres asks an index for each late fact: it takes the facts of a tag that meet the
/// conditions for very few, and would rather read the whole table once.
macro_rules! near {
    ($condition:literal) => {
        concat!(
            "select l.tag_id, p.* from late l cross join lateral (
                 select p.id, p.tag_id is null as of_repository, p.action = 'delete' as deleted, p.digest, p.effective_at, p.received_at,
                        p.origin::text as origin, p.occurred_at_source::text as time_source, p.source, p.actor, p.media_type, p.size_bytes
                 from push p where ",
            $condition,
            " offset 0) p"
        )
    };
}

/// The spans of late facts overlap, hence `union`.
const NEAR: &str = concat!(
    "with late as (
         select l.tag_id, l.repository_id, l.at, l.latest_at, coalesce(l.settled, 'infinity') as settled
         from unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[])
              as l (tag_id, repository_id, at, latest_at, settled)
     ) ",
    near!(
        "p.tag_id = l.tag_id and p.effective_at = p.occurred_at and p.occurred_at between l.at and least(l.settled, l.latest_at)"
    ),
    " union ",
    near!(
        "p.tag_id = l.tag_id and p.effective_at <> p.occurred_at and p.effective_at between l.at and l.settled"
    ),
    " union ",
    near!("p.repository_id = l.repository_id and p.effective_at between l.at and l.settled")
);

/// Makes Postgres follow indexes to the end of the transaction. The next fact of a tag is one row
/// of an index, but Postgres knows little of how the times of a fact relate, and would rather read
/// and sort all later facts of the tag.
async fn follow_indexes(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "select set_config(name, 'off', true)
         from unnest(array['enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin']) as s (name)",
    )
    .execute(db)
    .await
    .map(|_| ())
}

/// Loads the neighbours of late facts.
pub(crate) async fn neighbours(db: &mut PgConnection, late: &[Late]) -> Result<Neighbours, Error> {
    let mut tx = db.begin().await?;
    follow_indexes(&mut tx).await?;
    let until = settled(&mut tx, late).await?;
    let mut found = Neighbours::default();
    let rows = sqlx::query(NEAR)
        .bind(of_late(late, |late| late.tag_id))
        .bind(of_late(late, |late| late.repository_id))
        .bind(of_late(late, |late| late.at))
        .bind(of_late(late, |late| late.own_latest_at))
        .bind(&until)
        .fetch_all(&mut *tx)
        .await?;
    for row in &rows {
        let push_id: i64 = row.try_get("id")?;
        let effect = effect(row)?;
        found
            .facts
            .entry(row.try_get("tag_id")?)
            .or_default()
            .push(Fact {
                at: row.try_get("effective_at")?,
                received: row.try_get("received_at")?,
                effect,
                push_id,
            });
        found.metas.insert(push_id, meta(row)?);
    }
    // The revisions in the same span, and the revision in force before the span.
    let rows = sqlx::query(
        "with late as (
             select l.tag_id, l.at, coalesce(l.settled, 'infinity') as settled
             from unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[]) as l (tag_id, at, settled)
         )
         select s.tag_id, s.number, s.digest, s.effective_at
         from late l cross join lateral (
             select * from revision r where r.tag_id = l.tag_id and r.effective_at between l.at and l.settled offset 0) s
         union
         select b.tag_id, b.number, b.digest, b.effective_at
         from late l cross join lateral (
             select * from revision r where r.tag_id = l.tag_id and r.effective_at < l.at order by r.effective_at desc, r.number desc limit 1) b",
    )
    .bind(of_late(late, |late| late.tag_id))
    .bind(of_late(late, |late| late.at))
    .bind(&until)
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    for row in &rows {
        let revision = Entry {
            number: row::unsigned(row.try_get("number")?),
            digest: row::digest(row.try_get("digest")?)?,
            at: row.try_get("effective_at")?,
        };
        found
            .revisions
            .entry(row.try_get("tag_id")?)
            .or_default()
            .push(revision);
    }
    Ok(found)
}

/// Reads the columns `of_repository, deleted, digest`.
pub(crate) fn effect(row: &PgRow) -> Result<Effect, sqlx::Error> {
    let (of_repository, deleted) = (row.try_get("of_repository")?, row.try_get("deleted")?);
    Ok(
        match (of_repository, deleted, row::digest(row.try_get("digest")?)?) {
            (_, false, Some(digest)) => Effect::Push(digest),
            (_, true, Some(digest)) => Effect::DeleteDigest(digest),
            (false, _, None) => Effect::Delete,
            (true, _, None) => Effect::DeleteRepository,
        },
    )
}

/// Reads the columns `origin, time_source, source, actor, media_type, size_bytes`.
fn meta(row: &PgRow) -> Result<Meta, sqlx::Error> {
    let size: Option<i64> = row.try_get("size_bytes")?;
    Ok(Meta {
        origin: row::parsed(row.try_get("origin")?)?,
        time_source: row::parsed(row.try_get("time_source")?)?,
        source: row.try_get("source")?,
        actor: row.try_get("actor")?,
        media_type: row.try_get("media_type")?,
        size: size.map(row::unsigned),
    })
}
