//! The moments of rollouts, from the push that caused each.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::{rollout_is_live, row};
use tagtrail_proto::Push;
use time::OffsetDateTime;
use uuid::Uuid;

/// The moments of a rollout, and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    pub(crate) started_at: Option<OffsetDateTime>,
    /// Time at which the target took the images and their result was to be observed.
    pub(crate) applied_at: Option<OffsetDateTime>,
    /// Time of the next attempt, if one follows.
    pub(crate) next_attempt_at: Option<OffsetDateTime>,
    /// Whether the rollout has not ended: another attempt may follow.
    pub(crate) live: bool,
    /// Whether the trigger has no newer rollout.
    pub(crate) newest: bool,
    pub(crate) traceparent: Option<String>,
    /// The person who ordered the rollout, and the reason.
    pub(crate) actor: Option<String>,
    pub(crate) reason: Option<String>,
    /// The last push among those of the images that differ.
    pub(crate) push: Option<Pushed>,
}

/// The push behind a rollout.
#[derive(Debug, Clone)]
pub(crate) struct Pushed {
    pub(crate) image: String,
    pub(crate) revision: u64,
    /// As sent. Of a change that no event reported, the time at which it was found: the push was
    /// earlier.
    pub(crate) occurred_at: OffsetDateTime,
    /// `observed` if only a pull showed the change, `reconciled` if only a comparison did.
    pub(crate) found: Option<String>,
    /// Where that time comes from.
    pub(crate) clock: String,
    /// By the clock of the stream.
    pub(crate) received_at: OffsetDateTime,
    pub(crate) recorded_at: OffsetDateTime,
}

/// Returns the moments of these rollouts by id.
pub(crate) async fn of(
    db: &mut PgConnection,
    ids: impl Iterator<Item = &str>,
) -> Result<BTreeMap<String, Times>, sqlx::Error> {
    let ids: Vec<Uuid> = ids.filter_map(|id| id.parse().ok()).collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query(concat!(
        "select o.id, o.started_at, o.applied_at, o.traceparent, o.actor, o.reason,
             ", rollout_is_live!("o"), " as live,
             case when ", rollout_is_live!("o"), " and o.state <> 'watching' then o.next_attempt_at end as next_attempt_at,
             not exists (select from rollout n where n.trigger_id = o.trigger_id and n.number > o.number) as newest,
             p.image, p.number, p.occurred_at, p.found, p.clock, p.received_at, p.recorded_at
         from rollout o
         left join lateral (
             select o.images -> i.name ->> 'image' as image, v.number, p.occurred_at, p.occurred_at_source::text as clock,
                 case when p.origin = 'reconciled' then 'reconciled' when p.origin = 'resolved' and starts_with(p.event_id, $2) then 'observed' end as found,
                 p.received_at, v.recorded_at
             from rollout_image i
             join revision v on v.tag_id = i.tag_id and v.number = i.number
             join push p on p.id = v.push_id
             where i.rollout_id = o.id and o.cause ->> 'reason' = 'revision' and o.cause -> 'changed' ? i.name
             order by v.recorded_at desc limit 1) p on true
         where o.id = any ($1)"
    ))
    .bind(ids)
    .bind(Push::OBSERVED)
    .fetch_all(db)
    .await?;
    rows.iter().map(times).collect()
}

fn times(row: &PgRow) -> Result<(String, Times), sqlx::Error> {
    let push = match row.try_get::<Option<String>, _>("image")? {
        None => None,
        Some(image) => Some(Pushed {
            image,
            revision: row::unsigned(row.try_get("number")?),
            occurred_at: row.try_get("occurred_at")?,
            found: row.try_get("found")?,
            clock: row.try_get("clock")?,
            received_at: row.try_get("received_at")?,
            recorded_at: row.try_get("recorded_at")?,
        }),
    };
    let times = Times {
        started_at: row.try_get("started_at")?,
        applied_at: row.try_get("applied_at")?,
        next_attempt_at: row.try_get("next_attempt_at")?,
        live: row.try_get("live")?,
        newest: row.try_get("newest")?,
        traceparent: row.try_get("traceparent")?,
        actor: row.try_get("actor")?,
        reason: row.try_get("reason")?,
        push,
    };
    Ok((row.try_get::<Uuid, _>("id")?.to_string(), times))
}
