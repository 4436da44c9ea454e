//! The tags of a repository: how many there are of each class, and lists of them.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Digest, Image, Kind, Pinned, Registry, Repository, Tag};
use time::OffsetDateTime;

use crate::instant::{Instant, of_key, to_micros};
use crate::lanes::Sample;

/// Names of tags that look like a version: `1.2.3`, or `v1.2.3`. Such a tag is expected to keep its
/// digest.
pub const RELEASE: &str = r"^v?[0-9]+[.][0-9]+[.][0-9]+$";

/// A class of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Tags with two revisions or more.
    Moving,
    /// Tags that look like a version.
    Release,
    /// Tags with one revision.
    Once,
    /// Tags that were deleted.
    Deleted,
    /// All tags.
    All,
}

impl Class {
    /// All classes.
    pub const EVERY: [Class; 5] = [
        Class::Moving,
        Class::Release,
        Class::Once,
        Class::Deleted,
        Class::All,
    ];

    /// Returns the name in addresses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Moving => "moving",
            Class::Release => "release",
            Class::Once => "once",
            Class::Deleted => "deleted",
            Class::All => "all",
        }
    }
}

/// The order of a list of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// By name.
    Name,
    /// The tag with the newest revision in force first.
    Newest,
    /// The tag with the most revisions first.
    Changes,
}

impl Sort {
    /// All orders.
    pub const EVERY: [Sort; 3] = [Sort::Name, Sort::Newest, Sort::Changes];

    /// Returns the name in addresses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::Newest => "newest",
            Sort::Changes => "changes",
        }
    }
}

/// A tag, with its revision in force.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Tag")]
pub struct KnownTag {
    /// The image.
    pub image: Image,
    /// True if the tag is no image, but holds signatures or other content about a digest.
    pub signature: bool,
    /// The number of the revision in force.
    pub revision: u64,
    /// The difference from the previous revision.
    pub kind: Kind,
    /// The digest; none if the tag was deleted.
    pub digest: Option<Digest>,
    /// The image, pinned to this digest.
    pub pinned: Option<Pinned>,
    /// The time from which on the revision holds, by the registry's clock.
    pub occurred_at: Instant,
    /// The number of revisions of the tag, all of its history.
    pub revisions: u64,
    /// The user or account that pushed the revision in force.
    pub actor: Option<String>,
    /// The commit that the image states, if its manifest was read.
    pub commit: Option<String>,
    /// The address of the source code that the image states, if its manifest was read.
    pub source_code: Option<String>,
    /// True if the tag looks like a version and had more than one digest.
    pub moved_after_release: bool,
    /// The tag over a time, at the moments at which its revision differs from that of the moment
    /// before. Only answers with `window` have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<Vec<Sample>>,
    #[serde(skip)]
    pub(crate) id: i64,
}

impl KnownTag {
    /// Returns the row id of the tag.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }
}

/// The numbers of tags of a repository.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Row id of the repository.
    pub repository: i64,
    /// Numbers by [`Class::EVERY`].
    pub classes: [u64; 5],
    /// Tags that look like a version and had more than one digest.
    pub releases_moved: u64,
    /// Tags that hold signatures. They are in no class.
    pub signatures: u64,
    /// Effective time of the first revision of the tag that was seen first.
    pub first_at: Option<OffsetDateTime>,
}

impl Counts {
    /// Returns the number of tags of a class.
    #[must_use]
    pub fn of(&self, class: Class) -> u64 {
        self.classes[class as usize]
    }
}

/// Returns the numbers of tags of a repository. `None`: no tag of it has a history.
pub async fn counts(
    db: &mut PgConnection,
    registry: &Registry,
    repository: &Repository,
) -> Result<Option<Counts>, sqlx::Error> {
    let found = sqlx::query(
        "select r.id, c.*, f.effective_at as first_at
         from repository r
         cross join lateral (
             select count(*) filter (where i.image and i.issued > 1) as moving, count(*) filter (where i.image and i.release) as release,
                    count(*) filter (where i.image and i.issued = 1) as once,
                    count(*) filter (where i.image and i.head_digest is null) as deleted, count(*) filter (where i.image) as all,
                    count(*) filter (where case when i.image and i.release and i.issued > 1
                        then (select count(distinct v.digest) > 1 from revision v where v.tag_id = i.id) end) as moved,
                    count(*) filter (where not i.image) as signatures, count(*) as known, min(i.id) as first
             -- A plain comparison first: most names then need no regular expression.
             from (select t.id, t.issued, t.head_digest, not (t.name like 'sha___-%' and t.name ~ $3) as image,
                          t.name like '%.%.%' and t.name ~ $4 as release
                   from tag t where t.repository_id = r.id and t.head is not null offset 0) i) c
         left join revision f on f.tag_id = c.first and f.number = 1
         where r.registry = $1 and r.name = $2 and c.known > 0",
    )
    .bind(registry.as_ref())
    .bind(repository.as_ref())
    .bind(Tag::SIGNATURE)
    .bind(RELEASE)
    .fetch_optional(db)
    .await?;
    let Some(found) = found else {
        return Ok(None);
    };
    let number = |name: &str| found.try_get(name).map(row::unsigned);
    Ok(Some(Counts {
        repository: found.try_get("id")?,
        classes: [
            number("moving")?,
            number("release")?,
            number("once")?,
            number("deleted")?,
            number("all")?,
        ],
        releases_moved: number("moved")?,
        signatures: number("signatures")?,
        first_at: found.try_get("first_at")?,
    }))
}

/// Which tags of a repository are returned, and in which order.
#[derive(Debug, Clone, Copy)]
pub struct TagsQuery<'a> {
    /// Time at which the revisions are in force. `None`: now.
    pub at: Option<OffsetDateTime>,
    /// The class.
    pub class: Class,
    /// Part of the name, in any case.
    pub part: Option<&'a str>,
    /// Set to include tags that were deleted.
    pub deleted: bool,
    /// Set to include tags that hold signatures.
    pub signatures: bool,
    /// The order.
    pub sort: Sort,
}

impl TagsQuery<'_> {
    /// Writes the statement. Its parts are constants; all values are parameters.
    fn statement(&self) -> String {
        let tags = match self.class {
            // Few of the tags of a repository move: only those are read.
            Class::Moving => "moving m join tag t on t.id = m.tag_id where m.repository_id =",
            _ => "tag t where t.repository_id =",
        };
        let class = match self.class {
            Class::Moving | Class::All => "true",
            Class::Release => "t.name ~ $11",
            Class::Once => "t.issued = 1",
            Class::Deleted => "s.digest is null",
        };
        // The only revision of a tag is its head also in the past, once it is there.
        let state = match (self.at, self.class) {
            (None, _) => "select t.head as number, t.head_digest as digest, t.head_at as at",
            (Some(_), Class::Once) => {
                "select t.head as number, t.head_digest as digest, t.head_at as at where t.head_at <= $3"
            }
            (Some(_), _) => {
                "select v.number, v.digest, v.effective_at as at from revision v
                 where v.tag_id = t.id and v.effective_at <= $3 order by v.effective_at desc, v.number desc limit 1"
            }
        };
        let (after, order) = match self.sort {
            Sort::Name => (
                "($9::bigint is null or o.name > (select a.name from tag a where a.id = $9))",
                "o.name",
            ),
            Sort::Newest => (
                "($9::bigint is null or (o.at, o.id) < ($7::timestamptz, $9))",
                "o.at desc, o.id desc",
            ),
            Sort::Changes => (
                "($9::bigint is null or (o.issued, o.id) < ($8::bigint, $9))",
                "o.issued desc, o.id desc",
            ),
        };
        format!(
            "with page as (
                 select * from (
                     select t.id, t.name, t.issued, s.number, s.digest, s.at
                     from (
                         select t.id, t.name, t.issued, t.head, t.head_digest, t.head_at
                         from {tags} (select id from repository where registry = $1 and name = $2) and t.head is not null) t
                     cross join lateral ({state}) s
                     where ($4 or s.digest is not null) and ($5 or not (t.name like 'sha___-%' and t.name ~ $12))
                       and ($6::text is null or strpos(lower(t.name), lower($6)) > 0) and {class}) o
                 where {after} order by {order} limit $10
             )
             select o.*, v.kind::text as kind, p.actor, m.revision as commit, m.labels ->> 'org.opencontainers.image.source' as source_code,
                    case when o.issued > 1 and o.name ~ $11
                        then (select count(distinct d.digest) > 1 from revision d where d.tag_id = o.id) else false end as moved
             from page o
             join revision v on v.tag_id = o.id and v.number = o.number
             join push p on p.id = v.push_id
             left join manifest m on m.digest = o.digest
             order by {order}"
        )
    }
}

/// Returns the tags of a repository, each with its revision in force. Key: effective time or number
/// of revisions, by the order, or nothing; and the row id of the tag.
pub async fn tags(
    db: &mut PgConnection,
    registry: &Registry,
    repository: &Repository,
    query: TagsQuery<'_>,
    after: Option<[i64; 2]>,
    limit: i64,
) -> Result<Vec<([i64; 2], KnownTag)>, sqlx::Error> {
    let at = match (query.sort, after) {
        (Sort::Newest, Some([at, _])) => Some(of_key(at)?),
        _ => None,
    };
    let rows = sqlx::query(AssertSqlSafe(query.statement()))
        .bind(registry.as_ref())
        .bind(repository.as_ref())
        .bind(query.at)
        .bind(query.deleted || query.class == Class::Deleted)
        .bind(query.signatures)
        .bind(query.part)
        .bind(at)
        .bind(after.map(|[changes, _]| changes))
        .bind(after.map(|[_, id]| id))
        .bind(limit)
        .bind(RELEASE)
        .bind(Tag::SIGNATURE)
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| known(row, registry, repository, query.sort))
        .collect()
}

fn known(
    row: &PgRow,
    registry: &Registry,
    repository: &Repository,
    sort: Sort,
) -> Result<([i64; 2], KnownTag), sqlx::Error> {
    let image = Image {
        registry: registry.clone(),
        repository: repository.clone(),
        tag: row::parsed(row.try_get("name")?)?,
    };
    let digest = row::digest(row.try_get("digest")?)?;
    let (id, at, issued): (i64, OffsetDateTime, i64) = (
        row.try_get("id")?,
        row.try_get("at")?,
        row.try_get("issued")?,
    );
    let tag = KnownTag {
        signature: image.tag.is_signature(),
        revision: row::unsigned(row.try_get("number")?),
        kind: row::parsed(row.try_get("kind")?)?,
        pinned: digest.as_ref().map(|digest| image.pinned(digest)),
        digest,
        occurred_at: Instant(at),
        revisions: row::unsigned(issued),
        actor: row.try_get("actor")?,
        commit: row.try_get("commit")?,
        source_code: row.try_get("source_code")?,
        moved_after_release: row.try_get("moved")?,
        lane: None,
        image,
        id,
    };
    let first = match sort {
        Sort::Name => 0,
        Sort::Newest => to_micros(at),
        Sort::Changes => issued,
    };
    Ok(([first, id], tag))
}

/// The tags of a repository that have a digest now: the first few by name, and how many there are.
#[derive(Debug)]
pub struct Sharing {
    /// The digest.
    pub digest: Digest,
    /// At most five, by name.
    pub tags: Vec<Tag>,
    /// All of them.
    pub count: u64,
}

/// Returns for each of these digests the tags of a repository that have it now, if there are two or
/// more.
pub async fn sharing(
    db: &mut PgConnection,
    repository: i64,
    digests: &[&Digest],
) -> Result<Vec<Sharing>, sqlx::Error> {
    let rows = sqlx::query(
        "select head_digest as digest, (array_agg(name order by name))[1:5] as names, count(*) as count
         from tag
         where repository_id = $1 and head_digest = any($2) and not (name like 'sha___-%' and name ~ $3)
         group by head_digest having count(*) > 1",
    )
    .bind(repository)
    .bind(digests.iter().map(|digest| digest.as_bytes()).collect::<Vec<_>>())
    .bind(Tag::SIGNATURE)
    .fetch_all(db)
    .await?;
    let mut sharing = Vec::with_capacity(rows.len());
    for row in &rows {
        let names: Vec<String> = row.try_get("names")?;
        if let Some(digest) = row::digest(row.try_get("digest")?)? {
            sharing.push(Sharing {
                digest,
                tags: names
                    .iter()
                    .map(|name| row::parsed(name))
                    .collect::<Result<_, _>>()?,
                count: row::unsigned(row.try_get("count")?),
            });
        }
    }
    Ok(sharing)
}
