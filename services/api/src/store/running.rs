//! The triggers that run an image.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image};
use time::OffsetDateTime;

/// A trigger whose last successful rollout has an image.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    /// Name of the trigger.
    pub(crate) trigger: String,
    pub(crate) paused: bool,
    /// Number of the rollout.
    pub(crate) rollout: u64,
    /// The revision and the digest that it rolled out.
    pub(crate) revision: u64,
    pub(crate) digest: Option<Digest>,
    /// The time at which the rollout succeeded that brought the digest. Of a digest that a thousand
    /// rollouts have kept, the time of the first of these.
    pub(crate) since: Option<OffsetDateTime>,
}

/// The join of the time since which a trigger runs the digest of an image: the end of the first
/// successful rollout after the last one with another digest, among the last thousand.
macro_rules! since {
    ($name:literal, $digest:literal) => {
        concat!(
            "left join lateral (
                 select d.finished_at as at from rollout d
                 where d.trigger_id = t.id and d.state = 'succeeded' and d.number > coalesce((
                     select e.number from rollout e
                     where e.trigger_id = t.id and e.state = 'succeeded' and e.number < o.number and e.number > o.number - 1000
                       and e.images -> ",
            $name,
            " ->> 'digest' is distinct from ",
            $digest,
            "
                     order by e.number desc limit 1), o.number - 1000)
                 order by d.number limit 1) since on true"
        )
    };
}

/// Returns the configured triggers that run a tag, by name: those that watch the tag or its
/// repository, and whose last successful rollout has an image of the tag. At most `limit`.
pub(crate) async fn of_image(
    db: &mut PgConnection,
    image: &Image,
    limit: i64,
) -> Result<Vec<Running>, sqlx::Error> {
    let rows = sqlx::query(
        concat!("select t.name, t.state <> 'active' as paused, o.number, since.at as since, i.value ->> 'revision' as revision, i.value ->> 'digest' as digest
         from trigger t
         cross join lateral (
             select o.number, o.images from rollout o
             where o.trigger_id = t.id and o.state = 'succeeded' order by o.number desc limit 1) o
         cross join lateral (
             select i.key, i.value from jsonb_each(o.images) i where i.value ->> 'image' = $1 order by i.key limit 1) i ",
        since!("i.key", "i.value ->> 'digest'"),
        " where t.configured
           and exists (select from jsonb_each_text(t.images) w where w.value = $1 or w.value = $2)
         order by t.name limit $3"),
    )
    .bind(image.to_string())
    .bind(format!("{}/{}", image.registry, image.repository))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(running).collect()
}

/// Returns the configured triggers whose last successful rollout has one of these digests, by name,
/// one row for each digest. At most `limit`.
pub(crate) async fn of_digests(
    db: &mut PgConnection,
    digests: &[&Digest],
    limit: i64,
) -> Result<Vec<Running>, sqlx::Error> {
    let rows = sqlx::query(
        concat!("select t.name, t.state <> 'active' as paused, o.number, since.at as since, i.revision, i.digest
         from trigger t
         cross join lateral (
             select o.number, o.images from rollout o
             where o.trigger_id = t.id and o.state = 'succeeded' order by o.number desc limit 1) o
         cross join lateral (
             select i.value ->> 'digest' as digest, min(i.value ->> 'revision') as revision, min(i.key) as name from jsonb_each(o.images) i
             where i.value ->> 'digest' = any ($1) group by 1) i ",
        since!("i.name", "i.digest"),
        " where t.configured order by t.name, i.digest limit $2"),
    )
    .bind(digests.iter().map(ToString::to_string).collect::<Vec<_>>())
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(running).collect()
}

fn running(row: &PgRow) -> Result<Running, sqlx::Error> {
    let digest: Option<String> = row.try_get("digest")?;
    let revision: Option<String> = row.try_get("revision")?;
    Ok(Running {
        trigger: row.try_get("name")?,
        paused: row.try_get("paused")?,
        rollout: row::unsigned(row.try_get("number")?),
        revision: revision.and_then(|number| number.parse().ok()).unwrap_or(0),
        digest: digest.as_deref().map(row::parsed).transpose()?,
        since: row.try_get("since")?,
    })
}
