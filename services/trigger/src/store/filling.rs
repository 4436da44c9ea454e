//! The statements that read whole repositories for policies.

use futures_util::{Stream, TryStreamExt as _};
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
    pub(crate) head_at: OffsetDateTime,
    /// The time of the build, if it was asked for, the manifest is read and names one.
    pub(crate) created: Option<OffsetDateTime>,
}

/// Reads all tags of a repository that are not deleted, one after the other.
pub(crate) fn tags<'a>(
    db: &'a mut PgConnection,
    registry: &Registry,
    repository: &Repository,
    created: bool,
) -> impl Stream<Item = Result<RepositoryTag, sqlx::Error>> + 'a {
    sqlx::query(
        "select t.id, t.name, t.head_at, m.created
         from repository r join tag t on t.repository_id = r.id
         left join manifest m on $3 and m.digest = t.head_digest
         where r.registry = $1 and r.name = $2 and t.head_digest is not null",
    )
    .bind(registry.to_string())
    .bind(repository.to_string())
    .bind(created)
    .fetch(db)
    .and_then(async |row: PgRow| {
        Ok(RepositoryTag {
            tag_id: row.try_get("id")?,
            tag: row::parsed(row.try_get("name")?)?,
            head_at: row.try_get("head_at")?,
            created: row.try_get("created")?,
        })
    })
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

/// Replaces all candidates of these policies, in one statement each, in a transaction. Returns the
/// number of tags that were missing although news of them should have come: their heads were
/// recorded before `before`.
pub(crate) async fn fill(
    db: &mut PgConnection,
    filled: &[Filled],
) -> Result<Vec<(i32, i64)>, sqlx::Error> {
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
    // the head is older than any delay of news.
    let rows = sqlx::query(
        "with best as (
             select * from unnest($1::int[], $2::bigint[], $3::bytea[]) as w (policy_id, tag_id, key)
         ), filled as (
             select * from unnest($4::int[], $5::bytea[], $6::int[]) as f (id, floor, room)
         ), missed as (
             select b.policy_id, count(*) as missed
             from best b join policy p on p.id = b.policy_id
             left join candidate c on c.policy_id = b.policy_id and c.tag_id = b.tag_id
             join tag t on t.id = b.tag_id join revision v on v.tag_id = t.id and v.number = t.head
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
         where p.id = f.id returning p.id, coalesce((select missed from missed where policy_id = p.id), 0) as missed",
    )
    .bind(policies)
    .bind(tags)
    .bind(keys)
    .bind(filled.iter().map(|one| one.policy).collect::<Vec<_>>())
    .bind(filled.iter().map(|one| one.floor.as_slice()).collect::<Vec<_>>())
    .bind(filled.iter().map(|one| one.room).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("id")?, row.try_get("missed")?)))
        .collect()
}
