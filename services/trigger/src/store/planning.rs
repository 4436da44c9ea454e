//! What the planner reads and records.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::types::{Json, Uuid};
use sqlx::{PgConnection, Row as _};
use tagtrail_bus::consume::Position;
use tagtrail_postgres::row;
use tagtrail_proto::{Cause, Image, Rollout, RolloutImage, TraceContext};
use time::OffsetDateTime;

use super::{columns, record};
use crate::wanted::Head;

const STREAM: &str = "REVISIONS";

/// A trigger as it is configured.
#[derive(Debug, Clone)]
pub(crate) struct Configured {
    pub(crate) name: String,
    pub(crate) images: BTreeMap<String, Image>,
    /// Kind of its target.
    pub(crate) target: String,
    pub(crate) settle: Duration,
}

/// Makes the table of triggers say what the configuration says. Those that are gone keep their rollouts.
pub(crate) async fn configure(
    db: &mut PgConnection,
    triggers: &[Configured],
) -> Result<(), sqlx::Error> {
    let names: Vec<&str> = triggers
        .iter()
        .map(|trigger| trigger.name.as_str())
        .collect();
    let images: Vec<_> = triggers
        .iter()
        .map(|trigger| Json(&trigger.images))
        .collect();
    let targets: Vec<&str> = triggers
        .iter()
        .map(|trigger| trigger.target.as_str())
        .collect();
    sqlx::query(
        "with gone as (update trigger set configured = false where configured and name <> all ($1))
         insert into trigger (name, images, target)
         select * from unnest($1::text[], $2::jsonb[], $3::text[])
         on conflict (name) do update set images = excluded.images, target = excluded.target, configured = true",
    )
    .bind(names)
    .bind(images)
    .bind(targets)
    .execute(db)
    .await
    .map(|_| ())
}

/// How far REVISIONS was read; `None` the first time.
pub(crate) async fn position(db: &mut PgConnection) -> Result<Option<Position>, sqlx::Error> {
    let row = sqlx::query(
        "select stream_created_ns, applied_seq, applied_time_ns from position where stream = $1 and partition = 0",
    )
    .bind(STREAM)
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(Position {
            stream_created_ns: row.try_get(0)?,
            sequence: row::unsigned(row.try_get(1)?),
            time_ns: row.try_get(2)?,
        })
    })
    .transpose()
}

/// Notes how far REVISIONS was read.
pub(crate) async fn set_position(
    db: &mut PgConnection,
    position: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into position (stream, partition, stream_created_ns, applied_seq, applied_time_ns) values ($1, 0, $2, $3, $4)
         on conflict (stream, partition) do update
         set stream_created_ns = excluded.stream_created_ns, applied_seq = excluded.applied_seq, applied_time_ns = excluded.applied_time_ns",
    )
    .bind(STREAM)
    .bind(position.stream_created_ns)
    .bind(row::signed(position.sequence))
    .bind(position.time_ns)
    .execute(db)
    .await
    .map(|_| ())
}

/// What the planner must know of a trigger besides its configuration.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) paused: bool,
    /// It was resumed, and nothing was planned since.
    pub(crate) resuming: bool,
    /// The images of its last rollout.
    pub(crate) last: Option<BTreeMap<String, RolloutImage>>,
    /// Its last rollout failed.
    pub(crate) failed: bool,
}

/// The triggers of these names, and the time by the database's clock: by which heads were recorded, so that what is quiet does not
/// depend on ours.
pub(crate) async fn known(
    db: &mut PgConnection,
    names: &[&str],
) -> Result<Vec<(Known, OffsetDateTime)>, sqlx::Error> {
    let rows = sqlx::query(
        "select t.id, t.name, t.state = 'paused', t.state = 'resuming', o.images, coalesce(o.state = 'failed', false), clock_timestamp()
         from trigger t
         left join lateral (select images, state from rollout o where o.trigger_id = t.id order by o.number desc limit 1) o on true
         where t.configured and t.name = any ($1)",
    )
    .bind(names)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let known = Known {
                id: row.try_get(0)?,
                name: row.try_get(1)?,
                paused: row.try_get(2)?,
                resuming: row.try_get(3)?,
                last: row
                    .try_get::<Option<Json<_>>, _>(4)?
                    .map(|Json(images)| images),
                failed: row.try_get(5)?,
            };
            Ok((known, row.try_get(6)?))
        })
        .collect()
}

/// Names of the triggers that were resumed and not planned since.
pub(crate) async fn resuming(db: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("select name from trigger where configured and state = 'resuming'")
        .fetch_all(db)
        .await
}

/// The planner has looked at a resumed trigger: workers may go on.
pub(crate) async fn resumed(db: &mut PgConnection, trigger: i32) -> Result<(), sqlx::Error> {
    sqlx::query("update trigger set state = 'active' where id = $1 and state = 'resuming'")
        .bind(trigger)
        .execute(db)
        .await
        .map(|_| ())
}

/// The heads of those of these images that have one: one statement, so one snapshot for all.
pub(crate) async fn heads(
    db: &mut PgConnection,
    images: &[&Image],
) -> Result<BTreeMap<Image, Head>, sqlx::Error> {
    let rows = sqlx::query(
        "select r.registry, r.name, t.name, v.number, v.digest, p.origin::text, v.recorded_at
         from unnest($1::text[], $2::text[], $3::text[]) as w (registry, repository, tag)
         join repository r on r.registry = w.registry and r.name = w.repository
         join tag t on t.repository_id = r.id and t.name = w.tag
         join revision v on v.tag_id = t.id and v.number = t.head
         join push p on p.id = v.push_id",
    )
    .bind(
        images
            .iter()
            .map(|image| image.registry.as_ref())
            .collect::<Vec<_>>(),
    )
    .bind(
        images
            .iter()
            .map(|image| image.repository.as_ref())
            .collect::<Vec<_>>(),
    )
    .bind(
        images
            .iter()
            .map(|image| image.tag.as_ref())
            .collect::<Vec<_>>(),
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let image = Image {
                registry: row::parsed(row.try_get(0)?)?,
                repository: row::parsed(row.try_get(1)?)?,
                tag: row::parsed(row.try_get(2)?)?,
            };
            let digest = row::digest(row.try_get(4)?)?;
            let head = Head {
                revision: row::unsigned(row.try_get(3)?),
                digest,
                origin: row::parsed(row.try_get(5)?)?,
                recorded_at: row.try_get(6)?,
            };
            Ok((image, head))
        })
        .collect()
}

/// Sees to it that the trigger's next rollout gets a number above this one. Gives whether it would have got a lower one.
pub(crate) async fn raise_issued(
    db: &mut PgConnection,
    trigger: &str,
    number: u64,
) -> Result<bool, sqlx::Error> {
    let raised = sqlx::query("update trigger set issued = $2 where name = $1 and issued < $2")
        .bind(trigger)
        .bind(row::signed(number))
        .execute(db)
        .await?;
    Ok(raised.rows_affected() > 0)
}

/// Records a new rollout, which takes the place of those that have not begun. `None` if the trigger was paused meanwhile.
pub(crate) async fn start(
    db: &mut PgConnection,
    trigger: i32,
    images: &BTreeMap<String, RolloutImage>,
    cause: &Cause,
    trace: &TraceContext,
) -> Result<Option<Rollout>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "with numbered as (
             update trigger set issued = issued + 1, state = 'active' where id = $2 and state <> 'paused' returning id, issued
         ), new as (
             insert into rollout (id, trigger_id, number, images, cause, traceparent)
             select $1, n.id, n.issued, $3, $4, $5 from numbered n returning *
         ), old as (
             update rollout o set state = 'superseded', finished_at = now()
             from numbered n where o.trigger_id = n.id and o.state = 'pending' and o.number < n.issued returning o.*
         ), o as (
             select * from old union all select * from new
         )
         select ", columns!(), " from o join trigger t on t.id = o.trigger_id order by o.number"
    ))
    .bind(Uuid::now_v7())
    .bind(trigger)
    .bind(Json(images))
    .bind(Json(cause))
    .bind(trace.to_string())
    .fetch_all(&mut *db)
    .await?;
    let changed = rows
        .iter()
        .map(row::rollout)
        .collect::<Result<Vec<_>, _>>()?;
    record(db, &changed).await?;
    // Its number is the greatest.
    Ok(changed.into_iter().last())
}
