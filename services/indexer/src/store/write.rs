//! Writes a segment of pushes, with everything that follows from it, in one statement: position,
//! pushes, revisions and heads together, or nothing.
//!
//! One statement is one round trip, and a transaction of its own. It writes nothing if the row of
//! the partition has another position than this holder left.

use sqlx::{PgConnection, Row as _};
use tagtrail_failpoint::FailPoint;
use tagtrail_history::recorded::Recorded;
use tagtrail_postgres::row;
use tagtrail_proto::Digest;
use time::OffsetDateTime;

use crate::error::Error;
use crate::received::{Owner, ReceivedPush};
use crate::store::position::Progress;
use crate::store::pushes::{each, owners};
use crate::store::tags::NewTagRow;

/// The rows of a segment.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    /// New pushes, in the order of arrival.
    pub(crate) pushes: &'a [(Owner, &'a ReceivedPush)],
    /// New revisions, each with its push.
    pub(crate) revisions: Vec<(&'a Recorded, Behind)>,
    pub(crate) heads: &'a [NewTagRow],
    /// Repositories with a push of their own, and its effective time.
    pub(crate) touched: Vec<(i64, OffsetDateTime)>,
}

/// The push behind a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// A new push, by its place in [`Rows::pushes`].
    New(usize),
    /// A push that was recorded before, by its row id.
    Recorded(i64),
}

impl Behind {
    /// Returns the place of a new push as Postgres counts, from 1.
    fn place(self) -> Option<i64> {
        match self {
            Behind::New(place) => i64::try_from(place + 1).ok(),
            Behind::Recorded(_) => None,
        }
    }

    fn id(self) -> Option<i64> {
        match self {
            Behind::New(_) => None,
            Behind::Recorded(id) => Some(id),
        }
    }
}

/// Moves the position of a partition on from `from`, and writes the rows. The time of recording is
/// the clock of the database, one for all instances, and never earlier than the previous one.
///
/// The ids of pushes are drawn within the statement, so that a later id is never visible long
/// before an earlier one (see `coverage.rs`).
///
/// # Errors
/// [`Error::PositionMoved`] if another holder or the sweeper has changed the row of the partition;
/// [`Error::Repeated`] if a push is recorded already.
pub(crate) async fn write(
    db: &mut PgConnection,
    partition: u16,
    from: &Progress,
    to: Progress,
    rows: &Rows<'_>,
) -> Result<Progress, Error> {
    if FailPoint::IndexerPushKey.skipped() {
        let sql = "drop index if exists push_is_one_fact, push_of_repository_is_one_fact";
        sqlx::query(sql).execute(&mut *db).await?;
    }
    let to = if FailPoint::IndexerPosition.skipped() {
        Progress {
            position: from.position,
            ..to
        }
    } else {
        to
    };
    let pushes = rows.pushes;
    fn every<'a, T>(
        revisions: &[(&'a Recorded, Behind)],
        of: impl Fn(&'a Recorded) -> T,
    ) -> Vec<T> {
        revisions.iter().map(|(new, _)| of(new)).collect()
    }
    let revisions = &rows.revisions;
    let behind = |of: fn(Behind) -> Option<i64>| -> Vec<Option<i64>> {
        revisions.iter().map(|(_, behind)| of(*behind)).collect()
    };
    fn all<'a, T>(heads: &'a [NewTagRow], of: impl Fn(&'a NewTagRow) -> T) -> Vec<T> {
        heads.iter().map(of).collect()
    }
    let heads = rows.heads;
    let recorded_at: Option<OffsetDateTime> = sqlx::query(WRITE)
        .bind(row::small(partition))
        .bind(row::signed(from.position.sequence))
        .bind(from.position.stream_created_ns)
        .bind(row::signed(from.published))
        .bind(to.position.stream_created_ns)
        .bind(row::signed(to.position.sequence))
        .bind(to.position.time_ns)
        .bind(row::signed(to.published))
        .bind(to.known.map(|known| known.stream_created_ns))
        .bind(to.known.map(|known| row::signed(known.sequence)))
        .bind(to.known.map(|known| row::signed(known.fence_sequence)))
        .bind(to.known.map(|known| known.fence_id))
        .bind(owners(pushes, Owner::tag))
        .bind(owners(pushes, Owner::repository))
        .bind(each(pushes, |push| push.action.as_str()))
        .bind(each(pushes, |push| {
            push.digest.as_ref().map(Digest::as_bytes)
        }))
        .bind(each(pushes, |push| push.occurred_at))
        .bind(each(pushes, ReceivedPush::effective_at))
        .bind(each(pushes, |push| push.meta.time_source.as_str()))
        .bind(each(pushes, |push| push.received_at))
        .bind(each(pushes, |push| push.meta.origin.as_str()))
        .bind(each(pushes, |push| push.meta.source.as_str()))
        .bind(each(pushes, |push| push.event_id.as_str()))
        .bind(each(pushes, |push| push.meta.actor.as_deref()))
        .bind(each(pushes, |push| push.meta.media_type.as_deref()))
        .bind(each(pushes, |push| push.meta.size.map(row::signed)))
        .bind(each(pushes, |push| row::signed(push.sequence)))
        .bind(rows.touched.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(rows.touched.iter().map(|(_, at)| *at).collect::<Vec<_>>())
        .bind(all(heads, |tag| tag.tag_id))
        .bind(all(heads, |tag| row::signed(tag.issued)))
        .bind(all(heads, |tag| {
            tag.head.as_ref().map(|head| row::signed(head.number))
        }))
        .bind(all(heads, |tag| {
            tag.head
                .as_ref()
                .and_then(|head| head.digest.as_ref())
                .map(Digest::as_bytes)
        }))
        .bind(all(heads, |tag| tag.head.as_ref().map(|head| head.at)))
        .bind(all(heads, |tag| tag.latest_at))
        .bind(every(revisions, |new| new.tag_id))
        .bind(every(revisions, |new| row::signed(new.event.revision)))
        .bind(every(revisions, |new| new.event.kind.as_str()))
        .bind(every(revisions, |new| {
            new.event.digest.as_ref().map(Digest::as_bytes)
        }))
        .bind(every(revisions, |new| new.event.occurred_at))
        .bind(every(revisions, |new| {
            new.event
                .previous
                .as_ref()
                .map(|point| row::signed(point.revision))
        }))
        .bind(every(revisions, |new| row::signed(new.event.head.revision)))
        .bind(behind(Behind::place))
        .bind(behind(Behind::id))
        .bind(every(revisions, |new| row::signed(new.ordinal)))
        .fetch_optional(db)
        .await
        .map_err(|error| match error.as_database_error() {
            Some(refusal) if refusal.is_unique_violation() => Error::Repeated,
            _ => error.into(),
        })?
        .map(|row| row.try_get("recorded_at"))
        .transpose()?;
    let recorded_at = recorded_at.ok_or(Error::PositionMoved(partition))?;
    Ok(Progress {
        recorded_at: Some(recorded_at),
        ..to
    })
}

/// `ids` has the row ids of the new pushes by place, for their revisions: the ids are drawn in the
/// order of the rows. A join of the two would be planned for a few rows, and take long for a
/// thousand.
const WRITE: &str = "
    with moved as (
        update position
        set stream_created_ns = $5, applied_seq = $6, applied_time_ns = $7, published = $8,
            recorded_at = greatest(recorded_at, now()),
            known_created_ns = $9, known_seq = $10, known_fence_seq = $11, known_fence_id = $12
        where stream = 'PUSHES' and partition = $1
          and applied_seq = $2 and stream_created_ns is not distinct from $3 and published = $4
        returning recorded_at
    ), pushes as (
        insert into push (tag_id, repository_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at,
                          origin, source, event_id, actor, media_type, size_bytes, stream_seq, recorded_at)
        select n.tag_id, n.repository_id, n.action::push_action, n.digest, n.occurred_at, n.effective_at,
               n.time_source::time_source, n.received_at, n.origin::push_origin, n.source, n.event_id, n.actor, n.media_type,
               n.size_bytes, n.stream_seq, moved.recorded_at
        from moved,
             unnest($13::bigint[], $14::bigint[], $15::text[], $16::bytea[], $17::timestamptz[], $18::timestamptz[], $19::text[],
                    $20::timestamptz[], $21::text[], $22::text[], $23::text[], $24::text[], $25::text[], $26::bigint[], $27::bigint[])
                 with ordinality
                 as n (tag_id, repository_id, action, digest, occurred_at, effective_at, time_source,
                       received_at, origin, source, event_id, actor, media_type, size_bytes, stream_seq, place)
        order by n.place
        returning id
    ), ids as materialized (
        select array_agg(id order by id) as of_place from pushes
    ), repositories as (
        update repository r set latest_at = greatest(r.latest_at, n.at)
        from moved, unnest($28::bigint[], $29::timestamptz[]) as n (id, at)
        where r.id = n.id
    ), tags as (
        update tag t
        set issued = n.issued, head = n.head, head_digest = n.head_digest, head_at = n.head_at,
            latest_at = greatest(t.latest_at, n.latest_at)
        from moved, unnest($30::bigint[], $31::bigint[], $32::bigint[], $33::bytea[], $34::timestamptz[], $35::timestamptz[])
                 as n (id, issued, head, head_digest, head_at, latest_at)
        where t.id = n.id
    ), revisions as (
        insert into revision (tag_id, number, kind, digest, effective_at, previous, head, push_id, ordinal, partition, recorded_at)
        select n.tag_id, n.number, n.kind::revision_kind, n.digest, n.effective_at, n.previous, n.head,
               coalesce(n.push_id, ids.of_place[n.push_place]), n.ordinal, $1, moved.recorded_at
        from moved, ids,
             unnest($36::bigint[], $37::bigint[], $38::text[], $39::bytea[], $40::timestamptz[], $41::bigint[], $42::bigint[],
                    $43::bigint[], $44::bigint[], $45::bigint[])
                 as n (tag_id, number, kind, digest, effective_at, previous, head, push_place, push_id, ordinal)
    ), moving as (
        insert into moving (repository_id, tag_id)
        select t.repository_id, t.id
        from moved, unnest($36::bigint[], $37::bigint[]) as n (tag_id, number) join tag t on t.id = n.tag_id
        where n.number = 2
        on conflict do nothing
    )
    select recorded_at from moved";
