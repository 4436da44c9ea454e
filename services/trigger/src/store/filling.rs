//! The statements that read whole repositories for policies.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_policy::selection::Key;
use tagtrail_postgres::row;
use tagtrail_proto::{Registry, Repository, Tag};
use time::OffsetDateTime;

/// A tag of a repository, for filling.
#[derive(Debug)]
pub(crate) struct RepositoryTag {
    pub(crate) tag_id: i64,
    pub(crate) tag: Tag,
    /// The time of the head, `None` for a deleted tag.
    pub(crate) head_at: Option<OffsetDateTime>,
    /// The time of the build, if it was asked for, the manifest is read and names one.
    pub(crate) created: Option<OffsetDateTime>,
}

/// The tags to read of a repository.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a> {
    /// At most so many tags after this one, or from the first one on, in the order of the database.
    After(Option<&'a Tag>, usize),
    /// These tags.
    Named(&'a [Tag]),
}

/// Reads tags of a repository, deleted ones too. `created`: with the times of their builds.
pub(crate) async fn tags(
    db: &mut PgConnection,
    (registry, repository): (&Registry, &Repository),
    part: Part<'_>,
    created: bool,
) -> Result<Vec<RepositoryTag>, sqlx::Error> {
    macro_rules! tags {
        ($part:literal) => {
            concat!(
                "select t.id, t.name, t.head_at, m.created
                 from (
                     select t.id, t.name, t.head_digest, case when t.head_digest is not null then t.head_at end as head_at
                     from tag t where t.repository_id = (select id from repository where registry = $1 and name = $2)
                     and ", $part, "
                 ) t
                 left join manifest m on $3 and m.digest = t.head_digest
                 order by t.name"
            )
        };
    }
    let query = match part {
        Part::After(after, most) => sqlx::query(tags!("t.name > $4 order by t.name limit $5"))
            .bind(registry.as_ref())
            .bind(repository.as_ref())
            .bind(created)
            .bind(after.map_or("", AsRef::as_ref))
            .bind(i64::try_from(most).unwrap_or(i64::MAX)),
        Part::Named(names) => sqlx::query(tags!("t.name = any ($4)"))
            .bind(registry.as_ref())
            .bind(repository.as_ref())
            .bind(created)
            .bind(names.iter().map(AsRef::as_ref).collect::<Vec<&str>>()),
    };
    let tag = |row: &PgRow| {
        Ok(RepositoryTag {
            tag_id: row.try_get("id")?,
            tag: row::parsed(row.try_get("name")?)?,
            head_at: row.try_get("head_at")?,
            created: row.try_get("created")?,
        })
    };
    query.fetch_all(db).await?.iter().map(tag).collect()
}

/// Returns the number of tags of a repository, deleted ones too, but at most `most`.
pub(crate) async fn count(
    db: &mut PgConnection,
    (registry, repository): (&Registry, &Repository),
    most: i64,
) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar(
        "select count(*) from (
             select from tag where repository_id = (select id from repository where registry = $1 and name = $2) limit $3) t",
    )
    .bind(registry.as_ref())
    .bind(repository.as_ref())
    .bind(most)
    .fetch_one(db)
    .await?;
    Ok(row::unsigned(count))
}

/// The candidates of a policy after reading its whole repository.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) policy: i32,
    /// The tags with their keys.
    pub(crate) best: Vec<(i64, Key)>,
    /// The lowest key, or empty if the rule accepts no other tag.
    pub(crate) floor: Vec<u8>,
    pub(crate) room: i32,
}

/// A policy whose candidates were replaced.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) policy: i32,
    /// The number of tags that were missing although news of them should have come.
    pub(crate) missed: i64,
    pub(crate) filled_at: OffsetDateTime,
}

/// Replaces all candidates of these policies, in one statement.
pub(crate) async fn fill(
    db: &mut PgConnection,
    filled: &[Filled],
) -> Result<Vec<Replaced>, sqlx::Error> {
    let mut policies = Vec::new();
    let (mut tags, mut keys) = (Vec::new(), Vec::new());
    for one in filled {
        for (tag, key) in &one.best {
            policies.push(one.policy);
            tags.push(*tag);
            keys.push(key.as_bytes());
        }
    }
    // A tag counts as missed if its policy was filled before, the key is not below the floor, and
    // the head is older than any delay of news. `lateral` and `limit`: as in `candidates::heads`.
    let rows = sqlx::query(
        "with best as (
             select * from unnest($1::int[], $2::bigint[], $3::bytea[]) as w (policy_id, tag_id, key)
         ), filled as (
             select * from unnest($4::int[], $5::bytea[], $6::int[]) as f (id, floor, room)
         ), missed as (
             select b.policy_id, count(*) as missed
             from best b join policy p on p.id = b.policy_id
             left join candidate c on c.policy_id = b.policy_id and c.tag_id = b.tag_id
             join tag t on t.id = b.tag_id
             cross join lateral (select v.recorded_at from revision v where v.tag_id = t.id and v.number = t.head limit 1) v
             where b.key >= p.floor and c.key is distinct from b.key and v.recorded_at < now() - interval '1 minute'
             group by b.policy_id
         ), other as (
             delete from candidate c using filled f where c.policy_id = f.id
             and not exists (select from best b where b.policy_id = c.policy_id and b.tag_id = c.tag_id)
         ), added as (
             insert into candidate (policy_id, tag_id, key) select * from best
             on conflict (policy_id, tag_id) do update set key = excluded.key where candidate.key <> excluded.key
         )
         update policy p set floor = f.floor, room = f.room, filled_at = now() from filled f
         where p.id = f.id returning p.id, p.filled_at, coalesce((select missed from missed where policy_id = p.id), 0) as missed",
    )
    .bind(policies)
    .bind(tags)
    .bind(keys)
    .bind(filled.iter().map(|one| one.policy).collect::<Vec<_>>())
    .bind(filled.iter().map(|one| one.floor.as_slice()).collect::<Vec<_>>())
    .bind(filled.iter().map(|one| one.room).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    let replaced = |row: &PgRow| {
        Ok(Replaced {
            policy: row.try_get("id")?,
            missed: row.try_get("missed")?,
            filled_at: row.try_get("filled_at")?,
        })
    };
    rows.iter().map(replaced).collect()
}
