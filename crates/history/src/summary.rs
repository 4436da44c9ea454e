//! A tag in a few figures: its head, its pace, and the other names of its digest.

use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image, Tag};
use time::OffsetDateTime;

/// Most revisions that the pace is about: the newest ones.
pub const MOST: i64 = 2000;
/// Most other tags that are named.
const NAMED: i64 = 12;
/// Weeks of the pace.
pub const WEEKS: usize = 26;

/// A tag in a few figures.
#[derive(Debug)]
pub struct Summary {
    /// The row id of the tag.
    pub tag: i64,
    /// The number of the head.
    pub head: u64,
    /// The digest of the head; `None`: the tag was deleted.
    pub digest: Option<Digest>,
    /// The time from which on the head holds.
    pub head_at: OffsetDateTime,
    /// The time from which on the first revision holds.
    pub since: OffsetDateTime,
    /// Revisions of the tag.
    pub revisions: u64,
    /// Revisions that the figures below are about: the newest ones.
    pub counted: u64,
    /// The median time in force, in seconds, of revisions with a digest that are in force no
    /// longer.
    pub median_held: Option<f64>,
    /// Revisions that went back to an earlier digest.
    pub reverted: u64,
    /// The time of the last of them, and its actor.
    pub last_reverted: Option<(OffsetDateTime, Option<String>)>,
    /// Changes of each of the last weeks, the present one last. Weeks from before the revisions
    /// that count are left out.
    pub weeks: Vec<u64>,
    /// Other tags of the repository whose head has the digest, except tags that hold signatures.
    pub aliases: Vec<Tag>,
}

/// Returns the figures of a tag. `None`: the image has no history.
pub async fn summary(
    db: &mut PgConnection,
    image: &Image,
    now: OffsetDateTime,
) -> Result<Option<Summary>, sqlx::Error> {
    let row = sqlx::query(
        // Each key is a subquery and not a join, so that the newest revisions and the tags of a
        // digest are read in the order of an index, and no more of them than the limit.
        "with recursive t as materialized (
             select t.id, t.repository_id, t.name, t.issued, t.head, t.head_at, t.head_digest
             from repository r join tag t on t.repository_id = r.id
             where r.registry = $1 and r.name = $2 and t.name = $3 and t.head is not null
         ), newest as materialized (
             select v.kind, v.effective_at, v.push_id,
                    lag(v.effective_at) over (order by v.effective_at desc, v.number desc) - v.effective_at as held
             from (select v.* from revision v where v.tag_id = (select id from t)
                   order by v.effective_at desc, v.number desc limit $5) v
         ), holder (id) as (
             (select v.tag_id from revision v where v.digest = (select head_digest from t) order by v.tag_id limit 1)
             union all
             select (select v.tag_id from revision v where v.digest = (select head_digest from t) and v.tag_id > h.id
                     order by v.tag_id limit 1)
             from holder h where h.id is not null
         )
         select t.id, t.issued, t.head, t.head_at, t.head_digest,
                (select v.effective_at from revision v where v.tag_id = t.id order by v.effective_at, v.number limit 1) as since,
                (select count(*) from newest) as counted,
                (select min(effective_at) from newest) as counted_since,
                (select percentile_cont(0.5) within group (order by extract(epoch from held)::float8)
                 from newest where held is not null and kind <> 'deleted') as median_held,
                (select count(*) from newest where kind = 'reverted') as reverted,
                last.effective_at as reverted_at, last.actor as reverted_by,
                (select coalesce(jsonb_object_agg(week, changes), '{}') from (
                     select floor(extract(epoch from $4 - effective_at) / 604800)::int as week, count(*) as changes
                     from newest where effective_at > $4 - interval '182 days' and effective_at <= $4 group by 1) w) as weeks,
                array(select g.name from (select id from holder limit 200) h
                      cross join lateral (select * from tag g where g.id = h.id offset 0) g
                      where g.repository_id = t.repository_id and g.id <> t.id and g.head_digest = t.head_digest and g.name !~ $7
                      limit $6) as aliases
         from t
         left join lateral (
             select n.effective_at, p.actor from newest n join push p on p.id = n.push_id
             where n.kind = 'reverted' order by n.effective_at desc limit 1) last on true",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .bind(now)
    .bind(MOST)
    .bind(NAMED)
    .bind(Tag::SIGNATURE)
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let counted = row::unsigned(row.try_get("counted")?);
    let revisions = row::unsigned(row.try_get("issued")?);
    let counted_since: Option<OffsetDateTime> = row.try_get("counted_since")?;
    let Json(by_week): Json<std::collections::BTreeMap<String, u64>> = row.try_get("weeks")?;
    // Without all revisions, the oldest week that counts is not whole.
    let covered = match counted_since {
        Some(since) if counted < revisions => {
            usize::try_from((now - since).whole_weeks()).unwrap_or(0)
        }
        _ => WEEKS,
    };
    let weeks = (0..covered.min(WEEKS)).rev();
    let reverted_at: Option<OffsetDateTime> = row.try_get("reverted_at")?;
    let reverted_by: Option<String> = row.try_get("reverted_by")?;
    let aliases: Vec<String> = row.try_get("aliases")?;
    Ok(Some(Summary {
        tag: row.try_get("id")?,
        head: row::unsigned(row.try_get("head")?),
        digest: row::digest(row.try_get("head_digest")?)?,
        head_at: row.try_get("head_at")?,
        since: row.try_get("since")?,
        revisions,
        counted,
        median_held: row.try_get("median_held")?,
        reverted: row::unsigned(row.try_get("reverted")?),
        last_reverted: reverted_at.map(|at| (at, reverted_by)),
        weeks: weeks
            .map(|week| by_week.get(&week.to_string()).copied().unwrap_or(0))
            .collect(),
        aliases: aliases
            .iter()
            .map(|name| row::parsed(name))
            .collect::<Result<_, _>>()?,
    }))
}
