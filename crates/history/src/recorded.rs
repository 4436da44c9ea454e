//! Revisions in the order in which a partition recorded them: the indexer publishes them, and the
//! live feed shows them.
//!
//! Ordinals have no gap, and one session commits a partition's ordinals in order. So a reader that
//! has ordinal n of a partition has every earlier revision of the partition, and sees by the next
//! ordinal whether it missed one.

use sqlx::postgres::PgRow;
use sqlx::{Error, PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::{Image, Kind, Origin, Point, Revision};
use time::OffsetDateTime;

/// A revision with its place in its partition.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Row id of the tag.
    pub tag_id: i64,
    /// Ordinal among the revisions of the partition: 1, 2, 3 …
    pub ordinal: u64,
    /// Row id of the push behind the revision.
    pub push_id: i64,
    /// The event that was or will be published.
    pub event: Revision,
}

/// A range of ordinals of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrdinalRange {
    /// The partition.
    pub partition: u16,
    /// The last ordinal before the range.
    pub after: u64,
    /// The last ordinal of the range.
    pub until: u64,
}

/// Most revisions of one partition that one statement reads.
pub const PAGE: u64 = 1000;

/// A statement whose rows [`of_row`] can read. The literals select the revisions `v`.
macro_rules! select_recorded {
    ($($rest:literal),*) => {
        concat!(
            "select v.partition, v.tag_id, v.ordinal, v.push_id, v.number, v.kind::text as kind, v.digest, v.late, v.effective_at, v.recorded_at,
                    v.previous, before.digest as previous_digest,
                    v.head, head.digest as head_digest,
                    r.registry, r.name as repository, t.name as tag,
                    p.origin::text as origin, p.source, p.actor, p.media_type, p.size_bytes
             from ", $($rest,)* "
             join push p on p.id = v.push_id
             join tag t on t.id = v.tag_id
             join repository r on r.id = t.repository_id
             join revision head on head.tag_id = v.tag_id and head.number = v.head
             left join revision before on before.tag_id = v.tag_id and before.number = v.previous "
        )
    };
}

mod newest;

pub use newest::{Between, Key, Newest, newest};

/// Returns the revisions of these ranges, by partition and ordinal, each with its partition; at
/// most [`PAGE`] of each range.
pub async fn revisions(
    db: &mut PgConnection,
    ranges: &[OrdinalRange],
) -> Result<Vec<(u16, Recorded)>, Error> {
    let column = |of: fn(&OrdinalRange) -> u64| -> Vec<i64> {
        ranges.iter().map(|range| row::signed(of(range))).collect()
    };
    let rows = sqlx::query(concat!(
        // The limit is a literal, not a parameter, so that the planner knows how few rows to
        // expect.
        select_recorded!(
            "unnest($1::smallint[], $2::bigint[], $3::bigint[]) as s (partition, after, until)
             cross join lateral (
                 select * from revision r where r.partition = s.partition and r.ordinal > s.after and r.ordinal <= s.until
                 order by r.ordinal limit 1000) v"
        ),
        "order by v.partition, v.ordinal"
    ))
    .bind(ranges.iter().map(|range| row::small(range.partition)).collect::<Vec<_>>())
    .bind(column(|range| range.after))
    .bind(column(|range| range.until))
    .fetch_all(db)
    .await?;
    rows.iter().map(of_row).collect()
}

/// Returns the revisions of a tag above a number, in order; at most [`PAGE`].
pub async fn revisions_of(
    db: &mut PgConnection,
    tag_id: i64,
    after: u64,
) -> Result<Vec<Recorded>, Error> {
    let rows = sqlx::query(concat!(
        select_recorded!("(select * from revision r where r.tag_id = $1 and r.number > $2 order by r.number limit 1000) v"),
        "order by v.number"
    ))
    .bind(tag_id)
    .bind(row::signed(after))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok(of_row(row)?.1)).collect()
}

/// Returns the last recorded ordinal of each partition.
pub async fn ends(db: &mut PgConnection) -> Result<Vec<(u16, u64)>, Error> {
    let rows = sqlx::query(
        "select p.partition, coalesce((select max(r.ordinal) from revision r where r.partition = p.partition), 0) as ordinal
         from position p where p.stream = 'PUSHES' order by p.partition",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| {
            Ok((
                row::partition(found, "partition")?,
                row::unsigned(found.try_get("ordinal")?),
            ))
        })
        .collect()
}

/// Returns the last ordinal of each partition that was recorded before a time. Recording times of a
/// partition never decrease, so a binary search finds it, for all partitions at once.
pub async fn before(db: &mut PgConnection, time: OffsetDateTime) -> Result<Vec<(u16, u64)>, Error> {
    /// Ordinals up to `earlier` were recorded before the time, ordinals from `later` on were not.
    struct Search {
        partition: u16,
        earlier: u64,
        later: u64,
    }
    impl Search {
        fn middle(&self) -> u64 {
            self.earlier + (self.later - self.earlier) / 2
        }
    }
    let mut all: Vec<Search> = ends(&mut *db)
        .await?
        .into_iter()
        .map(|(partition, end)| Search {
            partition,
            earlier: 0,
            later: end + 1,
        })
        .collect();
    loop {
        let mut open: Vec<&mut Search> = all
            .iter_mut()
            .filter(|search| search.earlier + 1 < search.later)
            .collect();
        if open.is_empty() {
            return Ok(all
                .into_iter()
                .map(|search| (search.partition, search.earlier))
                .collect());
        }
        let column = |search: &&mut Search| row::signed(search.middle());
        let found: Vec<bool> = sqlx::query_scalar(
            "select r.recorded_at < $3
             from unnest($1::smallint[], $2::bigint[]) with ordinality as s (partition, ordinal, place)
             join revision r on r.partition = s.partition and r.ordinal = s.ordinal
             order by s.place",
        )
        .bind(open.iter().map(|search| row::small(search.partition)).collect::<Vec<_>>())
        .bind(open.iter().map(column).collect::<Vec<_>>())
        .bind(time)
        .fetch_all(&mut *db)
        .await?;
        if found.len() != open.len() {
            return Err(Error::Decode("ordinals have a gap".into()));
        }
        for (search, is_earlier) in open.iter_mut().zip(found) {
            let middle = search.middle();
            if is_earlier {
                search.earlier = middle;
            } else {
                search.later = middle;
            }
        }
    }
}

fn of_row(found: &PgRow) -> Result<(u16, Recorded), Error> {
    let image = Image {
        registry: row::parsed(found.try_get("registry")?)?,
        repository: row::parsed(found.try_get("repository")?)?,
        tag: row::parsed(found.try_get("tag")?)?,
    };
    let digest = row::digest(found.try_get("digest")?)?;
    let previous = match found.try_get::<Option<i64>, _>("previous")? {
        Some(number) => Some(Point {
            revision: row::unsigned(number),
            digest: row::digest(found.try_get("previous_digest")?)?,
        }),
        None => None,
    };
    let event = Revision {
        revision: row::unsigned(found.try_get("number")?),
        kind: row::parsed::<Kind>(found.try_get("kind")?)?,
        pinned: digest.as_ref().map(|digest| image.pinned(digest)),
        digest,
        previous,
        late: found.try_get("late")?,
        head: Point {
            revision: row::unsigned(found.try_get("head")?),
            digest: row::digest(found.try_get("head_digest")?)?,
        },
        occurred_at: found.try_get("effective_at")?,
        recorded_at: found.try_get("recorded_at")?,
        origin: row::parsed::<Origin>(found.try_get("origin")?)?,
        source: found.try_get("source")?,
        actor: found.try_get("actor")?,
        media_type: found.try_get("media_type")?,
        size: found
            .try_get::<Option<i64>, _>("size_bytes")?
            .map(row::unsigned),
        registry: image.registry,
        repository: image.repository,
        tag: image.tag,
    };
    let recorded = Recorded {
        tag_id: found.try_get("tag_id")?,
        ordinal: row::unsigned(found.try_get("ordinal")?),
        push_id: found.try_get("push_id")?,
        event,
    };
    Ok((row::partition(found, "partition")?, recorded))
}
