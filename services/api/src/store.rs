//! All SQL of the api. Every question is one statement, and so sees one snapshot; lists are read by key, never by offset.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image, Name, Point, Rollout};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::digests::Span;
use crate::error::Error;
use crate::history::Change;
use crate::instant::{Instant, from_micros, to_micros};
use crate::paging::Page;
use crate::resolve::Found;
use crate::triggers::{Trigger, TriggerState};

/// Row id of a tag that has a history. One without is known to the ids only, and unknown to everyone else.
pub(crate) async fn tag(db: &mut PgConnection, image: &Image) -> Result<Option<i64>, Error> {
    let id = sqlx::query_scalar(
        "select t.id from repository r join tag t on t.repository_id = r.id
         where r.registry = $1 and r.name = $2 and t.name = $3 and t.head is not null",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .fetch_optional(db)
    .await?;
    Ok(id)
}

/// The revision in force.
pub(crate) async fn head(db: &mut PgConnection, image: &Image) -> Result<Option<Found>, Error> {
    sqlx::query(
        "select v.number, v.kind::text as kind, v.digest, v.effective_at, v.recorded_at
         from repository r
         join tag t on t.repository_id = r.id
         join revision v on v.tag_id = t.id and v.number = t.head
         where r.registry = $1 and r.name = $2 and t.name = $3",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .fetch_optional(db)
    .await?
    .map(|row| found(&row))
    .transpose()
}

/// The revision in force at `at`, by what was recorded by `known_at`: the last entry of the index that is not after it.
pub(crate) async fn as_of(
    db: &mut PgConnection,
    image: &Image,
    at: Option<OffsetDateTime>,
    known_at: Option<OffsetDateTime>,
) -> Result<Option<Found>, Error> {
    sqlx::query(
        "select v.number, v.kind::text as kind, v.digest, v.effective_at, v.recorded_at
         from repository r
         join tag t on t.repository_id = r.id
         cross join lateral (
             select * from revision v
             where v.tag_id = t.id
               and v.effective_at <= coalesce($4::timestamptz, 'infinity')
               and v.recorded_at <= coalesce($5::timestamptz, 'infinity')
             order by v.effective_at desc, v.number desc limit 1) v
         where r.registry = $1 and r.name = $2 and t.name = $3",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .bind(at)
    .bind(known_at)
    .fetch_optional(db)
    .await?
    .map(|row| found(&row))
    .transpose()
}

/// The revision of this number.
pub(crate) async fn numbered(
    db: &mut PgConnection,
    image: &Image,
    number: u64,
) -> Result<Option<Found>, Error> {
    sqlx::query(
        "select v.number, v.kind::text as kind, v.digest, v.effective_at, v.recorded_at
         from repository r
         join tag t on t.repository_id = r.id
         join revision v on v.tag_id = t.id and v.number = $4
         where r.registry = $1 and r.name = $2 and t.name = $3",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .bind(row::signed(number))
    .fetch_optional(db)
    .await?
    .map(|row| found(&row))
    .transpose()
}

fn found(row: &PgRow) -> Result<Found, Error> {
    Ok(Found {
        revision: row::unsigned(row.try_get("number")?),
        kind: row::parsed(row.try_get("kind")?)?,
        digest: row::digest(row.try_get("digest")?)?,
        occurred_at: row.try_get("effective_at")?,
        recorded_at: row.try_get("recorded_at")?,
    })
}

/// Revisions of a tag with what is known of the facts behind them, newest first. Place: effective time, number.
pub(crate) async fn history(
    db: &mut PgConnection,
    tag: i64,
    image: &Image,
    page: &Page<2>,
) -> Result<Vec<([i64; 2], Change)>, Error> {
    let after = page
        .after
        .map(|[at, number]| time_of(at).map(|at| (at, number)))
        .transpose()?;
    let rows = sqlx::query(
        "select v.number, v.kind::text as kind, v.digest, v.previous, before.digest as previous_digest, v.late, v.effective_at,
                v.recorded_at, p.origin::text as origin, p.source, p.actor, p.media_type, p.size_bytes
         from revision v
         join push p on p.id = v.push_id
         left join revision before on before.tag_id = v.tag_id and before.number = v.previous
         where v.tag_id = $1 and (v.effective_at, v.number) < (coalesce($2::timestamptz, 'infinity'), coalesce($3, 0))
         order by v.effective_at desc, v.number desc limit $4",
    )
    .bind(tag)
    .bind(after.map(|(at, _)| at))
    .bind(after.map(|(_, number)| number))
    .bind(page.fetch())
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| change(row, image)).collect()
}

fn change(row: &PgRow, image: &Image) -> Result<([i64; 2], Change), Error> {
    let (number, at): (i64, OffsetDateTime) =
        (row.try_get("number")?, row.try_get("effective_at")?);
    let digest = row::digest(row.try_get("digest")?)?;
    let previous = match row.try_get::<Option<i64>, _>("previous")? {
        Some(number) => Some(Point {
            revision: row::unsigned(number),
            digest: row::digest(row.try_get("previous_digest")?)?,
        }),
        None => None,
    };
    let change = Change {
        registry: image.registry.clone(),
        repository: image.repository.clone(),
        tag: image.tag.clone(),
        revision: row::unsigned(number),
        kind: row::parsed(row.try_get("kind")?)?,
        pinned: digest.as_ref().map(|digest| image.pinned(digest)),
        digest,
        previous,
        late: row.try_get("late")?,
        occurred_at: Instant(at),
        recorded_at: Instant(row.try_get("recorded_at")?),
        origin: row::parsed(row.try_get("origin")?)?,
        source: row.try_get("source")?,
        actor: row.try_get("actor")?,
        media_type: row.try_get("media_type")?,
        size: row
            .try_get::<Option<i64>, _>("size_bytes")?
            .map(row::unsigned),
    };
    Ok(([to_micros(at), number], change))
}

/// When which images had a digest. A revision replaced at its own instant was never in force, and is left out. Place: row id
/// of the tag, effective time, number.
pub(crate) async fn spans(
    db: &mut PgConnection,
    digest: &Digest,
    page: &Page<3>,
) -> Result<Vec<([i64; 3], Span)>, Error> {
    let after = page
        .after
        .map(|[tag, at, number]| time_of(at).map(|at| (tag, at, number)))
        .transpose()?;
    let rows = sqlx::query(
        "select r.registry, r.name as repository, t.name as tag, v.tag_id, v.number, v.effective_at, next.effective_at as until
         from revision v
         join tag t on t.id = v.tag_id
         join repository r on r.id = t.repository_id
         left join lateral (
             select n.effective_at from revision n
             where n.tag_id = v.tag_id and (n.effective_at, n.number) > (v.effective_at, v.number)
             order by n.effective_at, n.number limit 1) next on true
         where v.digest = $1
           and (v.tag_id, v.effective_at, v.number) > (coalesce($2, 0), coalesce($3::timestamptz, '-infinity'), coalesce($4, 0))
           and next.effective_at is distinct from v.effective_at
         order by v.tag_id, v.effective_at, v.number limit $5",
    )
    .bind(digest.as_bytes())
    .bind(after.map(|(tag, _, _)| tag))
    .bind(after.map(|(_, at, _)| at))
    .bind(after.map(|(_, _, number)| number))
    .bind(page.fetch())
    .fetch_all(db)
    .await?;
    rows.iter().map(span).collect()
}

fn span(row: &PgRow) -> Result<([i64; 3], Span), Error> {
    let (number, from): (i64, OffsetDateTime) =
        (row.try_get("number")?, row.try_get("effective_at")?);
    let image = Image {
        registry: row::parsed(row.try_get("registry")?)?,
        repository: row::parsed(row.try_get("repository")?)?,
        tag: row::parsed(row.try_get("tag")?)?,
    };
    let span = Span {
        image,
        revision: row::unsigned(number),
        from: Instant(from),
        until: row.try_get::<Option<_>, _>("until")?.map(Instant),
    };
    Ok(([row.try_get("tag_id")?, to_micros(from), number], span))
}

/// The configured triggers, or the one of this name, each with its last rollout that is running or has succeeded.
pub(crate) async fn triggers(
    db: &mut PgConnection,
    name: Option<&Name>,
) -> Result<Vec<Trigger>, Error> {
    let rows = sqlx::query(
        "select t.name as trigger, t.images as watched, t.target, t.state = 'paused' as paused,
                o.id, o.number, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error
         from trigger t
         left join lateral (
             select * from rollout o
             where o.trigger_id = t.id and o.state in ('running', 'succeeded')
             order by o.number desc limit 1) o on true
         where t.configured and t.name = coalesce($1, t.name)
         order by t.name",
    )
    .bind(name.map(AsRef::as_ref))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let current = match row.try_get::<Option<Uuid>, _>("id")? {
                Some(_) => Some(row::rollout(row)?),
                None => None,
            };
            let Json(images) = row.try_get("watched")?;
            Ok(Trigger {
                name: row.try_get("trigger")?,
                images,
                target: row.try_get("target")?,
                state: if row.try_get("paused")? {
                    TriggerState::Paused
                } else {
                    TriggerState::Active
                },
                current,
            })
        })
        .collect()
}

/// Pauses or resumes a configured trigger. Says whether that changed anything.
pub(crate) async fn set_paused(
    db: &mut PgConnection,
    name: &Name,
    paused: bool,
) -> Result<bool, Error> {
    let changed = sqlx::query(
        // Resuming: workers wait until the planner has looked at the present heads.
        "update trigger set state = case when $2 then 'paused'::trigger_state else 'resuming' end
         where name = $1 and configured and (state = 'paused') <> $2",
    )
    .bind(name.as_ref())
    .bind(paused)
    .execute(db)
    .await?;
    Ok(changed.rows_affected() > 0)
}

/// Row id of a trigger, configured or not.
pub(crate) async fn trigger(db: &mut PgConnection, name: &Name) -> Result<Option<i32>, Error> {
    let id = sqlx::query_scalar("select id from trigger where name = $1")
        .bind(name.as_ref())
        .fetch_optional(db)
        .await?;
    Ok(id)
}

/// All rollouts, newest first. Place: time of recording, row id of the trigger, number.
pub(crate) async fn rollouts(
    db: &mut PgConnection,
    page: &Page<3>,
) -> Result<Vec<([i64; 3], Rollout)>, Error> {
    let after = page
        .after
        .map(|[at, trigger, number]| time_of(at).map(|at| (at, trigger, number)))
        .transpose()?;
    let rows = sqlx::query(
        "select t.name as trigger, o.trigger_id::bigint as trigger_id,
                o.id, o.number, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error
         from rollout o join trigger t on t.id = o.trigger_id
         where (o.created_at, o.trigger_id, o.number) < (coalesce($1::timestamptz, 'infinity'), coalesce($2, 0), coalesce($3, 0))
         order by o.created_at desc, o.trigger_id desc, o.number desc limit $4",
    )
    .bind(after.map(|(at, _, _)| at))
    .bind(after.map(|(_, trigger, _)| trigger))
    .bind(after.map(|(_, _, number)| number))
    .bind(page.fetch())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let place = [
                to_micros(row.try_get("created_at")?),
                row.try_get("trigger_id")?,
                row.try_get("number")?,
            ];
            Ok((place, row::rollout(row)?))
        })
        .collect()
}

/// Rollouts of a trigger, newest first. Place: number.
pub(crate) async fn rollouts_of(
    db: &mut PgConnection,
    trigger: i32,
    page: &Page<1>,
) -> Result<Vec<([i64; 1], Rollout)>, Error> {
    let rows = sqlx::query(
        "select t.name as trigger,
                o.id, o.number, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error
         from rollout o join trigger t on t.id = o.trigger_id
         where o.trigger_id = $1 and o.number < coalesce($2, 9223372036854775807)
         order by o.number desc limit $3",
    )
    .bind(trigger)
    .bind(page.after.map(|[number]| number))
    .bind(page.fetch())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok(([row.try_get("number")?], row::rollout(row)?)))
        .collect()
}

/// One rollout.
pub(crate) async fn rollout(db: &mut PgConnection, id: Uuid) -> Result<Option<Rollout>, Error> {
    let found = sqlx::query(
        "select t.name as trigger,
                o.id, o.number, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error
         from rollout o join trigger t on t.id = o.trigger_id
         where o.id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(found.as_ref().map(row::rollout).transpose()?)
}

/// The time in a cursor: one that never was is not of ours.
fn time_of(micros: i64) -> Result<OffsetDateTime, Error> {
    from_micros(micros).ok_or(Error::Cursor)
}
