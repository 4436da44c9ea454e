//! The statements about policies and their candidates.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_policy::choice::{PolicyImage, TagRow};
use tagtrail_policy::selection::{Key, Times};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Registry, Repository, Tag};
use time::OffsetDateTime;

/// A rule over the tags of a repository.
#[derive(Debug)]
pub(crate) struct NewPolicy<'a> {
    /// SHA-256 of registry, repository and rule.
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) registry: &'a Registry,
    pub(crate) repository: &'a Repository,
    /// The canonical rule, as JSON.
    pub(crate) rule: &'a str,
}

/// A recorded policy.
#[derive(Debug)]
pub(crate) struct PolicyRow {
    pub(crate) id: i32,
    pub(crate) fingerprint: Vec<u8>,
    /// Every accepted tag with at least this key is a candidate. `None`: not filled yet.
    pub(crate) floor: Option<Vec<u8>>,
    /// Number of candidates that are kept.
    pub(crate) room: i32,
    /// The time at which the repository was last read.
    pub(crate) filled_at: Option<OffsetDateTime>,
}

/// Records these policies, of different fingerprints, and removes all others with their candidates.
pub(crate) async fn register(
    db: &mut PgConnection,
    policies: &[NewPolicy<'_>],
) -> Result<Vec<PolicyRow>, sqlx::Error> {
    let each = |of: fn(&NewPolicy<'_>) -> String| policies.iter().map(of).collect::<Vec<_>>();
    let rows = sqlx::query(
        "with used as (
             select * from unnest($1::bytea[], $2::text[], $3::text[], $4::jsonb[]) as w (fingerprint, registry, repository, rule)
         ), unused as (
             delete from policy where fingerprint <> all ($1)
         )
         insert into policy (fingerprint, registry, repository, rule) select * from used
         on conflict (fingerprint) do update set registry = excluded.registry
         returning id, fingerprint, floor, room, filled_at",
    )
    .bind(
        policies
            .iter()
            .map(|policy| policy.fingerprint.as_slice())
            .collect::<Vec<_>>(),
    )
    .bind(each(|policy| policy.registry.to_string()))
    .bind(each(|policy| policy.repository.to_string()))
    .bind(each(|policy| policy.rule.to_owned()))
    .fetch_all(db)
    .await?;
    let policy = |row: &PgRow| {
        Ok(PolicyRow {
            id: row.try_get("id")?,
            fingerprint: row.try_get("fingerprint")?,
            floor: row.try_get("floor")?,
            room: row.try_get("room")?,
            filled_at: row.try_get("filled_at")?,
        })
    };
    rows.iter().map(policy).collect()
}

/// A tag that a rule accepts.
#[derive(Debug)]
pub(crate) struct NewCandidate<'a> {
    pub(crate) policy: i32,
    pub(crate) tag: Cow<'a, Tag>,
    pub(crate) key: Key,
}

/// The times of a tag for a policy.
#[derive(Debug)]
pub(crate) struct TagTimes<'t> {
    pub(crate) policy: i32,
    pub(crate) tag: &'t Tag,
    pub(crate) times: Times,
    /// True if the manifest is read.
    pub(crate) read: bool,
}

/// Returns the times of these tags, each of the repository of its policy, without deleted tags.
pub(crate) async fn times<'t>(
    db: &mut PgConnection,
    tags: &[(i32, &'t Tag)],
) -> Result<Vec<TagTimes<'t>>, sqlx::Error> {
    let rows = sqlx::query(
        "select w.place, t.head_at, m.created, m.digest is not null as read
         from unnest($1::int[], $2::text[]) with ordinality as w (policy_id, tag, place)
         join policy p on p.id = w.policy_id
         join repository r on r.registry = p.registry and r.name = p.repository
         join tag t on t.repository_id = r.id and t.name = w.tag
         left join manifest m on m.digest = t.head_digest
         where t.head_digest is not null",
    )
    .bind(tags.iter().map(|(policy, _)| *policy).collect::<Vec<_>>())
    .bind(
        tags.iter()
            .map(|(_, tag)| tag.as_ref())
            .collect::<Vec<&str>>(),
    )
    .fetch_all(db)
    .await?;
    let times = |row: &PgRow| {
        let place = usize::try_from(row.try_get::<i64, _>("place")? - 1).unwrap_or(usize::MAX);
        let (policy, tag) = *tags.get(place).ok_or(sqlx::Error::RowNotFound)?;
        let times = Times {
            pushed: row.try_get("head_at")?,
            created: row.try_get("created")?,
        };
        Ok(TagTimes {
            policy,
            tag,
            times,
            read: row.try_get("read")?,
        })
    };
    rows.iter().map(times).collect()
}

/// Adds candidates, each of the repository of its policy, or changes their keys.
pub(crate) async fn add(
    db: &mut PgConnection,
    candidates: &[NewCandidate<'_>],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into candidate (policy_id, tag_id, key)
         select w.policy_id, t.id, w.key
         from unnest($1::int[], $2::text[], $3::bytea[]) as w (policy_id, tag, key)
         join policy p on p.id = w.policy_id
         join repository r on r.registry = p.registry and r.name = p.repository
         join tag t on t.repository_id = r.id and t.name = w.tag
         on conflict (policy_id, tag_id) do update set key = excluded.key where candidate.key <> excluded.key",
    )
    .bind(candidates.iter().map(|one| one.policy).collect::<Vec<_>>())
    .bind(candidates.iter().map(|one| one.tag.as_ref().as_ref()).collect::<Vec<&str>>())
    .bind(candidates.iter().map(|one| one.key.as_bytes()).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(|_| ())
}

/// Removes the candidates of these policies beyond their room, and returns the policies with their
/// new floors.
pub(crate) async fn trim(
    db: &mut PgConnection,
    policies: &[i32],
) -> Result<Vec<(i32, Vec<u8>)>, sqlx::Error> {
    let rows = sqlx::query(
        "with floor as (
             select p.id, (select c.key from candidate c where c.policy_id = p.id order by c.key desc offset p.room - 1 limit 1) as key
             from policy p where p.id = any ($1)
         ), removed as (
             delete from candidate c using floor where c.policy_id = floor.id and c.key < floor.key
         )
         update policy p set floor = floor.key from floor
         where p.id = floor.id and floor.key > p.floor returning p.id, p.floor",
    )
    .bind(policies)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("id")?, row.try_get("floor")?)))
        .collect()
}

/// The heads that selections depend on.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// By policy, its best candidates, the best first: no deleted tags, tombstones or misfits.
    pub(crate) candidates: BTreeMap<i32, Vec<TagRow>>,
    /// Further tags, by their ids.
    pub(crate) tags: BTreeMap<i64, TagRow>,
}

impl Heads {
    /// Returns the tag that an image selected last, as it is now.
    pub(crate) fn selected(&self, image: &PolicyImage) -> Option<&TagRow> {
        self.tags.get(&image.selection.as_ref()?.tag_id)
    }
}

/// Returns the best candidates of each policy, at most as many as its number, and the tags with
/// these ids. One statement reads them all from one snapshot.
///
/// `lateral` and `limit` make Postgres look up the head of a tag by its number. It expects few
/// revisions of a tag, and would read them all and drop those before the head.
pub(crate) async fn heads(
    db: &mut PgConnection,
    policies: &BTreeMap<i32, i64>,
    tags: &[i64],
) -> Result<Heads, sqlx::Error> {
    let rows = sqlx::query(
        "select c.policy_id, c.fit, t.id, t.name, t.head_digest, t.head_at, v.number, v.recorded_at,
             m.digest is not null as read, coalesce(m.tombstone, false) as tombstone, m.created, m.revision as commit
         from (
             select w.policy_id, c.*
             from unnest($1::int[], $2::bigint[]) as w (policy_id, depth)
             cross join lateral (
                 select c.tag_id, c.key, case when c.digest = t.head_digest then c.fit end as fit
                 from candidate c join tag t on t.id = c.tag_id
                 where c.policy_id = w.policy_id and t.head_digest is not null
                   and not (c.fit is false and c.digest = t.head_digest)
                   and not exists (select from manifest m where m.digest = t.head_digest and m.tombstone)
                 order by c.key desc limit w.depth) c
             union all
             select null, s.tag_id, null, null from unnest($3::bigint[]) as s (tag_id)
         ) c
         join tag t on t.id = c.tag_id
         cross join lateral (
             select v.number, v.recorded_at from revision v where v.tag_id = t.id and v.number = t.head limit 1) v
         left join manifest m on m.digest = t.head_digest
         order by c.policy_id, c.key desc",
    )
    .bind(policies.keys().copied().collect::<Vec<_>>())
    .bind(policies.values().copied().collect::<Vec<_>>())
    .bind(tags)
    .fetch_all(db)
    .await?;
    let mut heads = Heads::default();
    for row in &rows {
        let tag = TagRow {
            tag_id: row.try_get("id")?,
            tag: row::parsed(row.try_get("name")?)?,
            digest: row::digest(row.try_get("head_digest")?)?,
            head_at: row.try_get("head_at")?,
            revision: row::unsigned(row.try_get("number")?),
            recorded_at: row.try_get("recorded_at")?,
            tombstone: row.try_get("tombstone")?,
            created: row.try_get("created")?,
            read: row.try_get("read")?,
            commit: row.try_get("commit")?,
            fit: row.try_get("fit")?,
        };
        match row.try_get("policy_id")? {
            Some(policy) => heads.candidates.entry(policy).or_default().push(tag),
            None => drop(heads.tags.insert(tag.tag_id, tag)),
        }
    }
    Ok(heads)
}

/// Returns those of these repositories in which a tag was ever recorded.
pub(crate) async fn known(
    db: &mut PgConnection,
    repositories: &BTreeSet<(String, String)>,
) -> Result<BTreeSet<(String, String)>, sqlx::Error> {
    let (registries, names): (Vec<&str>, Vec<&str>) = repositories
        .iter()
        .map(|(registry, name)| (registry.as_str(), name.as_str()))
        .unzip();
    let known: Vec<(String, String)> = sqlx::query_as(
        "select r.registry, r.name from unnest($1::text[], $2::text[]) as w (registry, name)
         join repository r on r.registry = w.registry and r.name = w.name
         where exists (select from tag t where t.repository_id = r.id)",
    )
    .bind(registries)
    .bind(names)
    .fetch_all(db)
    .await?;
    Ok(known.into_iter().collect())
}

/// The answer of a policy about the manifest of a candidate.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) policy: i32,
    pub(crate) tag_id: i64,
    pub(crate) digest: Digest,
    pub(crate) fit: bool,
}

/// Stores the answers of policies about manifests.
pub(crate) async fn judge(db: &mut PgConnection, judged: &[Judged]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update candidate c set digest = w.digest, fit = w.fit
         from unnest($1::int[], $2::bigint[], $3::bytea[], $4::boolean[]) as w (policy_id, tag_id, digest, fit)
         where c.policy_id = w.policy_id and c.tag_id = w.tag_id",
    )
    .bind(judged.iter().map(|one| one.policy).collect::<Vec<_>>())
    .bind(judged.iter().map(|one| one.tag_id).collect::<Vec<_>>())
    .bind(judged.iter().map(|one| one.digest.as_bytes()).collect::<Vec<_>>())
    .bind(judged.iter().map(|one| one.fit).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(|_| ())
}
