//! The changes of repositories in the order in which they were recorded, with the manifests of
//! their images: for replays. One answer has a bounded part of history.

use std::collections::BTreeSet;

use sqlx::postgres::PgRow;
use sqlx::{Error, PgConnection, Row as _};
use tagtrail_policy::replay::Change;
use tagtrail_postgres::row;
use tagtrail_proto::{Registry, Repository, Tag};
use time::OffsetDateTime;

/// Most tags that one statement reads.
pub const TAGS: i64 = 2000;
/// Most revisions of a partition that one statement reads, of all repositories together.
pub const STEP: u64 = 5000;

/// The tags to read.
#[derive(Debug, Default)]
pub struct Scope {
    /// The row ids of the repositories, as [`Change::place`] counts them; `None`: not known yet.
    repositories: Vec<Option<i64>>,
    /// The names of the tags to read of a repository; `None`: all.
    tags: Vec<Option<Vec<String>>>,
    /// Whether manifests are read with labels and annotations.
    manifests: bool,
}

/// A part of the revisions of a partition.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The partition.
    pub partition: u16,
    /// The last ordinal before the part.
    pub after: u64,
    /// The last ordinal of the part; at most [`STEP`] later.
    pub until: u64,
}

/// The columns of a change: of the tag `t`, the revision `v`, its push `p` and its manifest `m`.
macro_rules! columns {
    () => {
        "t.id as tag_id, t.repository_id, t.name as tag, v.number, v.digest as head_digest, v.effective_at, v.recorded_at,
         p.origin::text as origin, m.digest, m.registry, m.repository, m.media_type, m.size_bytes, m.artifact_type,
         case when $1 then m.platforms else '[]' end as platforms, m.created,
         case when $1 then m.labels else '{}' end as labels, case when $1 then m.annotations else '{}' end as annotations,
         m.revision, m.source, m.version, coalesce(m.tombstone, false) as tombstone, m.read_at"
    };
}

impl Scope {
    /// Finds the repositories with the tags to read of each; `None`: all. `manifests`: labels and
    /// annotations are read too.
    ///
    /// # Errors
    /// [`Error`] of the statement.
    pub async fn find(
        db: &mut PgConnection,
        places: &[(Registry, Repository)],
        tags: Vec<Option<Vec<&Tag>>>,
        manifests: bool,
    ) -> Result<Scope, Error> {
        let registries: Vec<&str> = places
            .iter()
            .map(|(registry, _)| registry.as_ref())
            .collect();
        let names: Vec<&str> = places.iter().map(|(_, name)| name.as_ref()).collect();
        let repositories = sqlx::query_scalar(
            "select r.id from unnest($1::text[], $2::text[]) with ordinality as w (registry, name, place)
             left join repository r on r.registry = w.registry and r.name = w.name order by w.place",
        )
        .bind(registries)
        .bind(names)
        .fetch_all(db)
        .await?;
        let text = |tags: Vec<&Tag>| {
            let tags: BTreeSet<&Tag> = tags.into_iter().collect();
            tags.into_iter().map(ToString::to_string).collect()
        };
        Ok(Scope {
            repositories,
            tags: tags.into_iter().map(|tags| tags.map(text)).collect(),
            manifests,
        })
    }

    /// Returns the rows of the wanted tags: repository and tag, or none for all of its tags.
    fn wanted(&self) -> (Vec<i64>, Vec<Option<&str>>) {
        let places = self.repositories.iter().zip(&self.tags);
        let known = places.filter_map(|(id, tags)| Some(((*id)?, tags)));
        known
            .flat_map(|(id, tags)| match tags {
                None => vec![(id, None)],
                Some(tags) => tags.iter().map(|tag| (id, Some(tag.as_str()))).collect(),
            })
            .unzip()
    }

    fn change(&self, row: &PgRow) -> Result<Change, Error> {
        let repository: i64 = row.try_get("repository_id")?;
        let place = self
            .repositories
            .iter()
            .position(|id| *id == Some(repository));
        let manifest = match row.try_get::<Option<&[u8]>, _>("digest")? {
            Some(_) => Some(row::manifest(row)?),
            None => None,
        };
        Ok(Change {
            place: place.unwrap_or(usize::MAX),
            tag_id: row.try_get("tag_id")?,
            tag: row::parsed(row.try_get("tag")?)?,
            revision: row::unsigned(row.try_get("number")?),
            digest: row::digest(row.try_get("head_digest")?)?,
            head_at: row.try_get("effective_at")?,
            recorded_at: row.try_get("recorded_at")?,
            origin: row::parsed(row.try_get("origin")?)?,
            tombstone: row.try_get("tombstone")?,
            created: row.try_get("created")?,
            commit: manifest
                .as_ref()
                .and_then(|manifest| manifest.revision.clone()),
            manifest: manifest.filter(|_| self.manifests),
        })
    }
}

/// The place of a tag among those of several repositories.
pub type Place = (i64, String);

/// Returns the heads before a time of at most [`TAGS`] tags after a place, and the place of the
/// last tag that was looked at, if there may be more.
///
/// # Errors
/// [`Error`] of the statement.
pub async fn heads(
    db: &mut PgConnection,
    scope: &Scope,
    before: OffsetDateTime,
    after: Option<&Place>,
) -> Result<(Vec<Change>, Option<Place>), Error> {
    let (repositories, tags) = scope.wanted();
    let (repository, name) = after.map_or((0, ""), |(id, name)| (*id, name.as_str()));
    let rows = sqlx::query(concat!(
        "with t as materialized (
             select t.* from unnest($2::bigint[], $3::text[]) as w (repository_id, tag)
             cross join lateral (
                 select t.id, t.repository_id, t.name from tag t
                 where t.repository_id = w.repository_id and (w.tag is null or t.name = w.tag)
                   and (t.repository_id, t.name) > ($4, $5)
                 order by t.repository_id, t.name limit $6) t
             order by t.repository_id, t.name limit $6
         )
         select ", columns!(), "
         from t
         left join lateral (
             select * from revision v where v.tag_id = t.id and v.recorded_at < $7 and not v.late
               -- Without this, all revisions of a tag that was recorded later would be read.
               and exists (select from revision f where f.tag_id = t.id and f.number = 1 and f.recorded_at < $7)
             order by v.number desc limit 1) v on true
         left join push p on p.id = v.push_id
         left join manifest m on m.digest = v.digest
         order by t.repository_id, t.name"
    ))
    .bind(scope.manifests)
    .bind(repositories)
    .bind(tags)
    .bind(repository)
    .bind(name)
    .bind(TAGS)
    .bind(before)
    .fetch_all(db)
    .await?;
    let full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= TAGS);
    let place = |row: &PgRow| Ok::<_, Error>((row.try_get("repository_id")?, row.try_get("tag")?));
    let last = rows.last().filter(|_| full).map(place).transpose()?;
    let mut heads = Vec::with_capacity(rows.len());
    for row in &rows {
        // A tag that was recorded later has no head.
        if row.try_get::<Option<i64>, _>("number")?.is_some() {
            heads.push(scope.change(row)?);
        }
    }
    Ok((heads, last))
}

/// Returns the changes of heads in these parts of partitions, each with its partition, in the order
/// of recording within a partition.
///
/// # Errors
/// [`Error`] of the statement.
pub async fn changes(
    db: &mut PgConnection,
    scope: &Scope,
    parts: &[Part],
) -> Result<Vec<(u16, Change)>, Error> {
    let (repositories, tags) = scope.wanted();
    let column = |of: fn(&Part) -> u64| -> Vec<i64> {
        parts.iter().map(|part| row::signed(of(part))).collect()
    };
    let rows = sqlx::query(concat!(
        "with v as materialized (
             select v.* from unnest($4::smallint[], $5::bigint[], $6::bigint[]) as s (partition, after, until)
             cross join lateral (
                 select * from revision r where r.partition = s.partition and r.ordinal > s.after and r.ordinal <= s.until and not r.late) v
         )
         select v.partition, ", columns!(), "
         from v join tag t on t.id = v.tag_id
         join push p on p.id = v.push_id
         left join manifest m on m.digest = v.digest
         where exists (
             select from unnest($2::bigint[], $3::text[]) as w (repository_id, tag)
             where w.repository_id = t.repository_id and (w.tag is null or w.tag = t.name))
         order by v.partition, v.ordinal"
    ))
    .bind(scope.manifests)
    .bind(repositories)
    .bind(tags)
    .bind(parts.iter().map(|part| row::small(part.partition)).collect::<Vec<_>>())
    .bind(column(|part| part.after))
    .bind(column(|part| part.until))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| Ok((row::partition(found, "partition")?, scope.change(found)?)))
        .collect()
}
