//! Rollouts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::{rollout_is_live, row};
use tagtrail_proto::{Digest, Rollout, RolloutImage, RolloutState};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::attempts::Attempt;

use tagtrail_history::instant::{of_key, to_micros};

/// The rollouts that a question is about. `None` is no bound.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) state: Option<RolloutState>,
    /// An image, or a repository with its registry: then any tag of the repository counts.
    pub(crate) image: Option<String>,
    /// A part of the name of an image, in any case.
    pub(crate) part: Option<String>,
    /// The first time of recording.
    pub(crate) since: Option<OffsetDateTime>,
    /// The first time of recording that is too late.
    pub(crate) until: Option<OffsetDateTime>,
}

/// A rollout, with its last attempt.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RolloutWithAttempt {
    #[serde(flatten)]
    pub(crate) rollout: Rollout,
    /// The last attempt, with the last 512 characters of the target's answer or output. Null before
    /// the first attempt, and for attempts of versions that recorded none.
    pub(crate) attempt: Option<Attempt>,
    /// The observation of the result. Null unless the target took the images and their result was
    /// to be observed.
    pub(crate) watch: Option<Watch>,
}

/// The observation of a rollout that its target took.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Watch {
    /// Time at which the target took the images.
    #[serde(with = "tagtrail_proto::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(crate) since: OffsetDateTime,
    /// End of the time for the present stage: until the target is healthy, or a step of `verify`
    /// has passed.
    #[serde(with = "tagtrail_proto::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(crate) until: Option<OffsetDateTime>,
    /// Time of the last look.
    #[serde(with = "tagtrail_proto::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(crate) looked_at: Option<OffsetDateTime>,
    /// 0: the target is not known to be healthy. 1, 2, …: the step of `verify` whose turn it is.
    pub(crate) stage: u32,
    /// Finding of the last look, for people. Null before the first look and after the success.
    pub(crate) seen: Option<String>,
}

fn read(row: &PgRow) -> Result<RolloutWithAttempt, sqlx::Error> {
    let attempt: Option<Json<Attempt>> = row.try_get("attempt")?;
    let watch: Option<Json<Watch>> = row.try_get("watch")?;
    Ok(RolloutWithAttempt {
        rollout: row::rollout(row)?,
        attempt: attempt.map(|Json(attempt)| attempt),
        watch: watch.map(|Json(watch)| watch),
    })
}

/// The SQL of the [`Watch`] of a rollout.
macro_rules! watch {
    ($o:literal) => {
        concat!(
            "case when ",
            $o,
            ".applied_at is not null then jsonb_build_object('since', ",
            $o,
            ".applied_at, 'until', ",
            $o,
            ".observe_until,
                 'looked_at', ",
            $o,
            ".looked_at, 'stage', ",
            $o,
            ".stage, 'seen', ",
            $o,
            ".seen) end"
        )
    };
}

/// Returns how far those of these rollouts are observed that have not ended, by id.
pub(crate) async fn watches(
    db: &mut PgConnection,
    ids: impl Iterator<Item = &str>,
) -> Result<BTreeMap<String, Watch>, sqlx::Error> {
    let ids: Vec<Uuid> = ids.filter_map(|id| id.parse().ok()).collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query(concat!(
        "select o.id, ",
        watch!("o"),
        " as watch from rollout o
         where o.id = any ($1) and o.applied_at is not null and ",
        rollout_is_live!("o"),
    ))
    .bind(ids)
    .fetch_all(db)
    .await?;
    let watch = |row: &PgRow| {
        let Json(watch) = row.try_get("watch")?;
        Ok((row.try_get::<Uuid, _>("id")?.to_string(), watch))
    };
    rows.iter().map(watch).collect()
}

/// The SQL of the rollouts `o` that a subquery selects, in an order. Each image also has the
/// account that pushed its revision, and the image that ran before: of the newest older rollout
/// that succeeded.
macro_rules! rollouts {
    ($which:expr, $order:literal) => {
        concat!(
            "select t.name as trigger, o.trigger_id::bigint as trigger_id,
                    last.attempt, ", watch!("o"), " as watch, o.id, o.number, coalesce(o.epoch, t.epoch) as epoch, o.state::text as state, o.cause, o.attempts, o.created_at, o.finished_at, o.error,
                    case when o.finished_at is null then o.gates else '[]' end as gates,
                    case when o.finished_at is null then o.opens_at end as opens_at,
                    (select jsonb_object_agg(i.key, i.value || jsonb_build_object(
                         'actor', p.actor,
                         'previous', case when b.images ? i.key then jsonb_build_object(
                             'image', b.images -> i.key -> 'image', 'revision', b.images -> i.key -> 'revision',
                             'digest', b.images -> i.key -> 'digest') end))
                     from jsonb_each(o.images) i
                     left join rollout_image n on n.rollout_id = o.id and n.name = i.key
                     left join revision v on v.tag_id = n.tag_id and v.number = n.number
                     left join push p on p.id = v.push_id) as images
             from (select * from rollout o where ", $which, ") o
             join trigger t on t.id = o.trigger_id
             left join lateral (
                 select images from rollout before
                 where before.trigger_id = o.trigger_id and before.number < o.number and before.state = 'succeeded'
                 order by before.number desc limit 1) b on true
             left join lateral (
                 select jsonb_build_object('number', a.number, 'started_at', a.started_at, 'finished_at', a.finished_at,
                     'outcome', a.outcome, 'status', a.status, 'error', a.error, 'next_at', a.next_at,
                     'said', right(a.said, 512)) as attempt
                 from rollout_attempt a where a.rollout_id = o.id order by a.number desc limit 1) last on true
             order by ", $order
        )
    };
}

/// The SQL condition of a [`Filter`], in the parameters $1 to $5.
macro_rules! passes {
    () => {
        "($1::text is null or o.state::text = $1)
         and ($2::text is null or exists (
             select from jsonb_each(o.images) i where i.value ->> 'image' = $2 or starts_with(i.value ->> 'image', $2 || ':')))
         and ($3::text is null or exists (
             select from jsonb_each(o.images) i where strpos(lower(i.value ->> 'image'), lower($3)) > 0))
         and o.created_at >= coalesce($4::timestamptz, '-infinity') and o.created_at < coalesce($5::timestamptz, 'infinity')"
    };
}

/// Returns all rollouts that pass the filter, newest first. Key: time of recording, row id of the
/// trigger, number.
pub(crate) async fn all(
    db: &mut PgConnection,
    filter: &Filter,
    after: Option<[i64; 3]>,
    limit: i64,
) -> Result<Vec<([i64; 3], RolloutWithAttempt)>, sqlx::Error> {
    let (at, trigger, number) = place(after)?;
    let rows = sqlx::query(rollouts!(
        concat!(
            passes!(),
            " and (o.created_at, o.trigger_id, o.number) < (coalesce($6::timestamptz, 'infinity'), coalesce($7, 0), coalesce($8, 0))
             order by o.created_at desc, o.trigger_id desc, o.number desc limit $9"
        ),
        "o.created_at desc, o.trigger_id desc, o.number desc"
    ))
    .bind(filter.state.map(RolloutState::as_str))
    .bind(&filter.image)
    .bind(&filter.part)
    .bind(filter.since)
    .bind(filter.until)
    .bind(at)
    .bind(trigger)
    .bind(number)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(of_all).collect()
}

/// The place of a page in the list of all: none of the parts without a key.
type Place = (Option<OffsetDateTime>, Option<i64>, Option<i64>);

/// Returns the place after the rollout with this key.
fn place(after: Option<[i64; 3]>) -> Result<Place, sqlx::Error> {
    let Some([at, trigger, number]) = after else {
        return Ok((None, None, None));
    };
    Ok((Some(of_key(at)?), Some(trigger), Some(number)))
}

/// Reads a rollout with its key in the list of all.
fn of_all(row: &PgRow) -> Result<([i64; 3], RolloutWithAttempt), sqlx::Error> {
    let key = [
        to_micros(row.try_get("created_at")?),
        row.try_get("trigger_id")?,
        row.try_get("number")?,
    ];
    Ok((key, read(row)?))
}

/// Returns the rollouts that had a digest, newest first. Key as that of [`all`].
pub(crate) async fn with_digest(
    db: &mut PgConnection,
    digest: &Digest,
    after: Option<[i64; 3]>,
    limit: i64,
) -> Result<Vec<([i64; 3], RolloutWithAttempt)>, sqlx::Error> {
    let (at, trigger, number) = place(after)?;
    let rows = sqlx::query(rollouts!(
        "o.id in (select i.rollout_id from rollout_image i where i.digest = $1)
         and (o.created_at, o.trigger_id, o.number) < (coalesce($2::timestamptz, 'infinity'), coalesce($3, 0), coalesce($4, 0))
         order by o.created_at desc, o.trigger_id desc, o.number desc limit $5",
        "o.created_at desc, o.trigger_id desc, o.number desc"
    ))
    .bind(digest.as_bytes())
    .bind(at)
    .bind(trigger)
    .bind(number)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(of_all).collect()
}

/// Images that a trigger ran from a time on.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) from: OffsetDateTime,
    pub(crate) images: BTreeMap<String, RolloutImage>,
}

/// Returns the last sets that a trigger ran, newest first.
pub(crate) async fn ran(
    db: &mut PgConnection,
    trigger: i32,
    limit: i64,
) -> Result<Vec<Ran>, sqlx::Error> {
    let rows = sqlx::query(
        "select finished_at, images from rollout
         where trigger_id = $1 and state = 'succeeded' and finished_at is not null order by number desc limit $2",
    )
    .bind(trigger)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let ran = |row: &PgRow| {
        let Json(images) = row.try_get("images")?;
        Ok(Ran {
            from: row.try_get("finished_at")?,
            images,
        })
    };
    rows.iter().map(ran).collect()
}

/// Returns the rollouts of a trigger that pass the filter, newest first. Key: number.
pub(crate) async fn of(
    db: &mut PgConnection,
    trigger: i32,
    filter: &Filter,
    after: Option<[i64; 1]>,
    limit: i64,
) -> Result<Vec<([i64; 1], RolloutWithAttempt)>, sqlx::Error> {
    let rows = sqlx::query(rollouts!(
        concat!(
            passes!(),
            " and o.trigger_id = $6 and o.number < coalesce($7, 9223372036854775807)
             order by o.number desc limit $8"
        ),
        "o.number desc"
    ))
    .bind(filter.state.map(RolloutState::as_str))
    .bind(&filter.image)
    .bind(&filter.part)
    .bind(filter.since)
    .bind(filter.until)
    .bind(trigger)
    .bind(after.map(|[number]| number))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok(([row.try_get("number")?], read(row)?)))
        .collect()
}

/// Returns a rollout.
pub(crate) async fn one(
    db: &mut PgConnection,
    id: Uuid,
) -> Result<Option<RolloutWithAttempt>, sqlx::Error> {
    let found = sqlx::query(rollouts!("o.id = $1", "o.number"))
        .bind(id)
        .fetch_optional(db)
        .await?;
    found.as_ref().map(read).transpose()
}

/// The rollouts of a time, in numbers.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "RolloutNumbers")]
pub(crate) struct Numbers {
    /// Recorded today (UTC).
    pub(crate) today: u64,
    /// Of those recorded today, failed, also if another attempt follows.
    pub(crate) failed_today: u64,
    /// Not ended, whenever they were recorded.
    pub(crate) live: u64,
}

/// Returns the numbers of rollouts since a time, and of those that have not ended.
pub(crate) async fn numbers(
    db: &mut PgConnection,
    since: OffsetDateTime,
) -> Result<Numbers, sqlx::Error> {
    let row = sqlx::query(concat!(
        "select count(*) filter (where o.created_at >= $1) as today,
                count(*) filter (where o.created_at >= $1 and o.state = 'failed') as failed_today,
                count(*) filter (where ",
        rollout_is_live!("o"),
        ") as live
         from rollout o where o.created_at >= $1 or ",
        rollout_is_live!("o"),
    ))
    .bind(since)
    .fetch_one(db)
    .await?;
    let count = |name: &str| Ok::<_, sqlx::Error>(row::unsigned(row.try_get(name)?));
    Ok(Numbers {
        today: count("today")?,
        failed_today: count("failed_today")?,
        live: count("live")?,
    })
}
