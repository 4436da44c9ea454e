//! All SQL of the indexer. Every function takes the connection that holds the partition, inside the batch's transaction
//! where it writes. Sets in, sets out: no statement is run once per fact.

use std::collections::{BTreeSet, HashMap};

use sqlx::{PgConnection, Row as _};
use tagtrail_bus::consume::Position;
use tagtrail_proto::{Digest, Image, Kind, Origin, Point, Registry, Repository, Revision};
use time::OffsetDateTime;

use crate::error::Error;
use crate::facts::{Meta, Owner, Received};
use crate::timeline::{Change, Fact, Numbered};

/// Class of the advisory locks of partitions; the trigger service has its own.
const LOCK_CLASS: i32 = 0x7461_6731; // "tag1"
const STREAM: &str = "PUSHES";

/// Takes the partition for this session, if no other session has it.
pub(crate) async fn try_lock(db: &mut PgConnection, partition: u16) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select pg_try_advisory_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(i32::from(partition))
        .fetch_one(db)
        .await
}

/// Shows the server that the session lives, and us that it still does.
pub(crate) async fn ping(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select 1").execute(db).await.map(|_| ())
}

/// Ends a transaction that may have been left open; harmless if there is none.
pub(crate) async fn rollback(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("rollback").execute(db).await.map(|_| ())
}

/// How far a partition is applied and published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) position: Position,
    /// Ordinal of the last revision that REVISIONS acknowledged.
    pub(crate) published: u64,
    /// Ordinal of the last revision recorded.
    pub(crate) recorded: u64,
    /// Time of the last batch.
    pub(crate) recorded_at: Option<OffsetDateTime>,
}

/// Reads the progress of a partition; the first time makes its row.
pub(crate) async fn progress(
    db: &mut PgConnection,
    partition: u16,
) -> Result<Progress, sqlx::Error> {
    sqlx::query("insert into position (stream, partition) values ($1, $2) on conflict do nothing")
        .bind(STREAM)
        .bind(small(partition))
        .execute(&mut *db)
        .await?;
    let row = sqlx::query(
        "select stream_created_ns, applied_seq, applied_time_ns, recorded_at, published,
                coalesce((select max(ordinal) from revision r where r.partition = p.partition), 0) as recorded
         from position p where stream = $1 and partition = $2",
    )
    .bind(STREAM)
    .bind(small(partition))
    .fetch_one(db)
    .await?;
    Ok(Progress {
        position: Position {
            stream_created_ns: row.try_get("stream_created_ns")?,
            sequence: unsigned(row.try_get("applied_seq")?),
            time_ns: row.try_get("applied_time_ns")?,
        },
        published: unsigned(row.try_get("published")?),
        recorded: unsigned(row.try_get("recorded")?),
        recorded_at: row.try_get("recorded_at")?,
    })
}

/// Moves the position on, in the transaction of what was read. Fails if it is not where this holder left it.
pub(crate) async fn advance(
    db: &mut PgConnection,
    partition: u16,
    from: Position,
    to: Position,
    published: u64,
    recorded_at: OffsetDateTime,
) -> Result<(), Error> {
    let moved = sqlx::query(
        "update position
         set stream_created_ns = $3, applied_seq = $4, applied_time_ns = $5, published = greatest(published, $6), recorded_at = $7
         where stream = $1 and partition = $2 and applied_seq = $8 and stream_created_ns is not distinct from $9",
    )
    .bind(STREAM)
    .bind(small(partition))
    .bind(to.stream_created_ns)
    .bind(signed(to.sequence))
    .bind(to.time_ns)
    .bind(signed(published))
    .bind(recorded_at)
    .bind(signed(from.sequence))
    .bind(from.stream_created_ns)
    .execute(db)
    .await?;
    if moved.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::PositionMoved {
            partition,
            sequence: from.sequence,
        })
    }
}

/// Starts the position over, where the stream is not the one it speaks of. What is read a second time changes nothing.
pub(crate) async fn restart_position(
    db: &mut PgConnection,
    partition: u16,
    stream_created_ns: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("update position set stream_created_ns = $3, applied_seq = 0, applied_time_ns = null where stream = $1 and partition = $2")
        .bind(STREAM)
        .bind(small(partition))
        .bind(stream_created_ns)
        .execute(db)
        .await
        .map(|_| ())
}

/// Notes up to where REVISIONS has acknowledged. May be lower than before, where that stream lost its end.
pub(crate) async fn set_published(
    db: &mut PgConnection,
    partition: u16,
    published: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query("update position set published = $3 where stream = $1 and partition = $2")
        .bind(STREAM)
        .bind(small(partition))
        .bind(signed(published))
        .execute(db)
        .await
        .map(|_| ())
}

/// Row ids of repositories and their tags, made where they are missing. A tag that has no facts yet does not show outside.
pub(crate) async fn tag_ids(
    db: &mut PgConnection,
    images: &BTreeSet<Image>,
) -> Result<HashMap<Image, i64>, Error> {
    let repositories = repository_ids(
        db,
        &images
            .iter()
            .map(|image| (image.registry.clone(), image.repository.clone()))
            .collect(),
    )
    .await?;
    let mut wanted: Vec<(i64, &Image)> = Vec::with_capacity(images.len());
    for image in images {
        let key = (image.registry.clone(), image.repository.clone());
        wanted.push((
            *repositories
                .get(&key)
                .ok_or(Error::Inconsistent("a repository just made is not there"))?,
            image,
        ));
    }
    let ids: Vec<i64> = wanted.iter().map(|(id, _)| *id).collect();
    let names: Vec<&str> = wanted.iter().map(|(_, image)| image.tag.as_ref()).collect();
    // Looked up first: an insert that finds a conflict still uses up an id.
    let rows = sqlx::query(
        "with wanted as (
             select * from unnest($1::bigint[], $2::text[]) as w (repository_id, name)
         ), present as (
             select t.repository_id, t.name, t.id from wanted w join tag t using (repository_id, name)
         ), made as (
             insert into tag (repository_id, name)
             select w.repository_id, w.name from wanted w where not exists (select from present p where (p.repository_id, p.name) = (w.repository_id, w.name))
             returning repository_id, name, id
         )
         select * from present union all select * from made",
    )
    .bind(&ids)
    .bind(&names)
    .fetch_all(db)
    .await?;
    let mut by_name: HashMap<(i64, String), i64> = HashMap::with_capacity(rows.len());
    for row in rows {
        by_name.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    wanted
        .into_iter()
        .map(|(repository, image)| {
            let id = by_name
                .get(&(repository, image.tag.to_string()))
                .ok_or(Error::Inconsistent("a tag just made is not there"))?;
            Ok((image.clone(), *id))
        })
        .collect()
}

/// Row ids of repositories, made where they are missing.
pub(crate) async fn repository_ids(
    db: &mut PgConnection,
    wanted: &BTreeSet<(Registry, Repository)>,
) -> Result<HashMap<(Registry, Repository), i64>, Error> {
    let registries: Vec<&str> = wanted
        .iter()
        .map(|(registry, _)| registry.as_ref())
        .collect();
    let names: Vec<&str> = wanted.iter().map(|(_, name)| name.as_ref()).collect();
    let rows = sqlx::query(
        "with wanted as (
             select * from unnest($1::text[], $2::text[]) as w (registry, name)
         ), present as (
             select r.registry, r.name, r.id from wanted w join repository r using (registry, name)
         ), made as (
             insert into repository (registry, name)
             select w.registry, w.name from wanted w where not exists (select from present p where (p.registry, p.name) = (w.registry, w.name))
             returning registry, name, id
         )
         select * from present union all select * from made",
    )
    .bind(&registries)
    .bind(&names)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok((
                (parsed(row.try_get(0)?)?, parsed(row.try_get(1)?)?),
                row.try_get(2)?,
            ))
        })
        .collect()
}

/// Adds facts; those that are known already are left out. Gives the row id of each new one by its sequence in the stream.
pub(crate) async fn add_facts(
    db: &mut PgConnection,
    facts: &[(Owner, &Received)],
    recorded_at: OffsetDateTime,
) -> Result<HashMap<u64, i64>, sqlx::Error> {
    let column = |owner: fn(&Owner) -> Option<i64>| -> Vec<Option<i64>> {
        facts.iter().map(|(of, _)| owner(of)).collect()
    };
    let text = |of: fn(&Received) -> &str| -> Vec<&str> {
        facts.iter().map(|(_, fact)| of(fact)).collect()
    };
    let optional = |of: fn(&Meta) -> Option<&str>| -> Vec<Option<&str>> {
        facts.iter().map(|(_, fact)| of(&fact.meta)).collect()
    };
    let times = |of: fn(&Received) -> OffsetDateTime| -> Vec<OffsetDateTime> {
        facts.iter().map(|(_, fact)| of(fact)).collect()
    };
    let rows = sqlx::query(
        "insert into push (tag_id, repository_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at,
                           recorded_at, origin, source, event_id, actor, media_type, size_bytes, stream_seq)
         select tag_id, repository_id, action::push_action, digest, occurred_at, effective_at, time_source::time_source, received_at,
                $15, origin::push_origin, source, event_id, actor, media_type, size_bytes, stream_seq
         from unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::timestamptz[], $6::timestamptz[], $7::text[],
                     $8::timestamptz[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $16::bigint[])
              as f (tag_id, repository_id, action, digest, occurred_at, effective_at, time_source,
                    received_at, origin, source, event_id, actor, media_type, size_bytes, stream_seq)
         on conflict do nothing
         returning stream_seq, id",
    )
    .bind(column(|owner| match owner {
        Owner::Tag(id) => Some(*id),
        Owner::Repository(_) => None,
    }))
    .bind(column(|owner| match owner {
        Owner::Tag(_) => None,
        Owner::Repository(id) => Some(*id),
    }))
    .bind(text(|fact| fact.action.as_str()))
    .bind(facts.iter().map(|(_, fact)| fact.digest.as_ref().map(Digest::as_bytes)).collect::<Vec<_>>())
    .bind(times(|fact| fact.occurred_at))
    .bind(times(Received::effective_at))
    .bind(text(|fact| fact.occurred_at_source.as_str()))
    .bind(times(|fact| fact.received_at))
    .bind(text(|fact| fact.meta.origin.as_str()))
    .bind(text(|fact| &fact.meta.source))
    .bind(text(|fact| &fact.event_id))
    .bind(optional(|meta| meta.actor.as_deref()))
    .bind(optional(|meta| meta.media_type.as_deref()))
    .bind(facts.iter().map(|(_, fact)| fact.meta.size.map(signed)).collect::<Vec<_>>())
    .bind(recorded_at)
    .bind(facts.iter().map(|(_, fact)| signed(fact.sequence)).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((unsigned(row.try_get(0)?), row.try_get(1)?)))
        .collect()
}

/// A tag as its row tells it.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) image: Image,
    pub(crate) repository_id: i64,
    pub(crate) issued: u64,
    pub(crate) head: Option<Numbered>,
    /// Greatest effective time of its own facts and its repository's: a fact after it is on time.
    pub(crate) latest_at: Option<OffsetDateTime>,
}

/// Locks the rows of tags, in the order of their ids, and reads them.
pub(crate) async fn lock_tags(
    db: &mut PgConnection,
    ids: &[i64],
) -> Result<HashMap<i64, Head>, Error> {
    let rows = sqlx::query(
        "select t.id, r.registry, r.name, t.name, t.repository_id, t.issued, t.head, t.head_digest, t.head_at, greatest(t.latest_at, r.latest_at)
         from tag t join repository r on r.id = t.repository_id
         where t.id = any($1) order by t.id for update of t",
    )
    .bind(ids)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let head = match (row.try_get::<Option<i64>, _>(6)?, row.try_get(8)?) {
                (Some(number), Some(at)) => Some(Numbered {
                    at,
                    number: unsigned(number),
                    digest: digest(row.try_get(7)?)?,
                }),
                _ => None,
            };
            let image = Image {
                registry: parsed(row.try_get(1)?)?,
                repository: parsed(row.try_get(2)?)?,
                tag: parsed(row.try_get(3)?)?,
            };
            let tag = Head {
                image,
                repository_id: row.try_get(4)?,
                issued: unsigned(row.try_get(5)?),
                head,
                latest_at: row.try_get(9)?,
            };
            Ok((row.try_get(0)?, tag))
        })
        .collect()
}

/// Tags that a delete of a digest (or, with `None`, of everything) at `at` may change: those that had the digest by then.
pub(crate) async fn tags_touched(
    db: &mut PgConnection,
    repository: i64,
    deleted: Option<&Digest>,
    at: OffsetDateTime,
) -> Result<Vec<i64>, sqlx::Error> {
    match deleted {
        Some(digest) => {
            sqlx::query_scalar(
                "select distinct t.id from revision r join tag t on t.id = r.tag_id
                 where r.digest = $1 and t.repository_id = $2 and r.effective_at <= $3",
            )
            .bind(digest.as_bytes())
            .bind(repository)
            .bind(at)
            .fetch_all(db)
            .await
        }
        None => {
            sqlx::query_scalar("select id from tag where repository_id = $1 and issued > 0")
                .bind(repository)
                .fetch_all(db)
                .await
        }
    }
}

/// What is stored around late facts: facts and revisions of their tags, as [`crate::timeline::Known`] asks for.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    pub(crate) facts: HashMap<i64, Vec<Fact>>,
    pub(crate) revisions: HashMap<i64, Vec<Numbered>>,
    pub(crate) metas: HashMap<i64, Meta>,
}

/// Loads the neighbours of facts of `(tag, repository, effective time)`, leaving out rows of this very batch (`push.id >= before`).
pub(crate) async fn neighbours(
    db: &mut PgConnection,
    late: &[(i64, i64, OffsetDateTime)],
    before: i64,
) -> Result<Neighbours, Error> {
    let tags: Vec<i64> = late.iter().map(|(tag, _, _)| *tag).collect();
    let repositories: Vec<i64> = late.iter().map(|(_, repository, _)| *repository).collect();
    let times: Vec<OffsetDateTime> = late.iter().map(|(_, _, at)| *at).collect();
    let mut found = Neighbours::default();
    // From each fact on to the next one that settles the tag's state: any of its own, or a delete of the repository.
    let rows = sqlx::query(
        "with late as (
             select l.tag_id, l.repository_id, l.at,
                    coalesce(least(
                        (select p.effective_at from push p where p.tag_id = l.tag_id and p.effective_at > l.at and p.id < $4
                         order by p.effective_at limit 1),
                        (select p.effective_at from push p where p.repository_id = l.repository_id and p.digest is null and p.effective_at > l.at and p.id < $4
                         order by p.effective_at limit 1)), 'infinity') as settled
             from unnest($1::bigint[], $2::bigint[], $3::timestamptz[]) as l (tag_id, repository_id, at)
         )
         select l.tag_id, p.id, p.tag_id is null, p.action = 'delete', p.digest, p.effective_at, p.received_at,
                p.origin::text, p.source, p.actor, p.media_type, p.size_bytes
         from late l join push p on p.tag_id = l.tag_id and p.effective_at between l.at and l.settled and p.id < $4
         union
         select l.tag_id, p.id, p.tag_id is null, p.action = 'delete', p.digest, p.effective_at, p.received_at,
                p.origin::text, p.source, p.actor, p.media_type, p.size_bytes
         from late l join push p on p.repository_id = l.repository_id and p.effective_at between l.at and l.settled and p.id < $4",
    )
    .bind(&tags)
    .bind(&repositories)
    .bind(&times)
    .bind(before)
    .fetch_all(&mut *db)
    .await?;
    for row in &rows {
        let push_id: i64 = row.try_get(1)?;
        let change = match (row.try_get(2)?, row.try_get(3)?, digest(row.try_get(4)?)?) {
            (false, false, Some(digest)) => Change::Push(digest),
            (false, _, _) => Change::Delete,
            (true, _, Some(digest)) => Change::DeleteDigest(digest),
            (true, _, None) => Change::DeleteRepository,
        };
        found.facts.entry(row.try_get(0)?).or_default().push(Fact {
            at: row.try_get(5)?,
            received: row.try_get(6)?,
            change,
            push_id,
        });
        found.metas.insert(push_id, meta(row, 7)?);
    }
    // The revisions over the same span, and the one in force before it.
    let rows = sqlx::query(
        "with late as (
             select l.tag_id, l.at,
                    coalesce(least(
                        (select p.effective_at from push p where p.tag_id = l.tag_id and p.effective_at > l.at and p.id < $4
                         order by p.effective_at limit 1),
                        (select p.effective_at from push p where p.repository_id = l.repository_id and p.digest is null and p.effective_at > l.at and p.id < $4
                         order by p.effective_at limit 1)), 'infinity') as settled
             from unnest($1::bigint[], $2::bigint[], $3::timestamptz[]) as l (tag_id, repository_id, at)
         )
         select r.tag_id, r.number, r.digest, r.effective_at
         from late l join revision r on r.tag_id = l.tag_id and r.effective_at between l.at and l.settled
         union
         select b.tag_id, b.number, b.digest, b.effective_at
         from late l cross join lateral (
             select * from revision r where r.tag_id = l.tag_id and r.effective_at < l.at order by r.effective_at desc, r.number desc limit 1) b",
    )
    .bind(&tags)
    .bind(&repositories)
    .bind(&times)
    .bind(before)
    .fetch_all(db)
    .await?;
    for row in &rows {
        let revision = Numbered {
            number: unsigned(row.try_get(1)?),
            digest: digest(row.try_get(2)?)?,
            at: row.try_get(3)?,
        };
        found
            .revisions
            .entry(row.try_get(0)?)
            .or_default()
            .push(revision);
    }
    Ok(found)
}

/// When each of these tags first had the digest, for those that ever had it.
pub(crate) async fn first_had(
    db: &mut PgConnection,
    pairs: &BTreeSet<(i64, Digest)>,
) -> Result<HashMap<i64, HashMap<Digest, OffsetDateTime>>, Error> {
    let tags: Vec<i64> = pairs.iter().map(|(tag, _)| *tag).collect();
    let digests: Vec<&[u8]> = pairs.iter().map(|(_, digest)| digest.as_bytes()).collect();
    let rows = sqlx::query(
        "select w.tag_id, w.digest, f.effective_at
         from unnest($1::bigint[], $2::bytea[]) as w (tag_id, digest)
         cross join lateral (
             select r.effective_at from revision r where r.digest = w.digest and r.tag_id = w.tag_id order by r.effective_at limit 1) f",
    )
    .bind(&tags)
    .bind(&digests)
    .fetch_all(db)
    .await?;
    let mut first: HashMap<i64, HashMap<Digest, OffsetDateTime>> = HashMap::new();
    for row in &rows {
        if let Some(digest) = digest(row.try_get(1)?)? {
            first
                .entry(row.try_get(0)?)
                .or_default()
                .insert(digest, row.try_get(2)?);
        }
    }
    Ok(first)
}

/// A revision ready to be written.
#[derive(Debug)]
pub(crate) struct NewRevision {
    pub(crate) tag_id: i64,
    pub(crate) ordinal: u64,
    pub(crate) push_id: i64,
    pub(crate) event: Revision,
}

/// Writes revisions.
pub(crate) async fn add_revisions(
    db: &mut PgConnection,
    partition: u16,
    revisions: &[NewRevision],
) -> Result<(), sqlx::Error> {
    fn each<'a, T>(revisions: &'a [NewRevision], of: impl Fn(&'a NewRevision) -> T) -> Vec<T> {
        revisions.iter().map(of).collect()
    }
    sqlx::query(
        "insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal)
         select tag_id, number, kind::revision_kind, digest, effective_at, recorded_at, previous, head, push_id, $10, ordinal
         from unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::timestamptz[], $6::timestamptz[], $7::bigint[], $8::bigint[], $9::bigint[], $11::bigint[])
              as r (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, ordinal)",
    )
    .bind(each(revisions, |new| new.tag_id))
    .bind(each(revisions, |new| signed(new.event.revision)))
    .bind(each(revisions, |new| new.event.kind.as_str()))
    .bind(each(revisions, |new| new.event.digest.as_ref().map(Digest::as_bytes)))
    .bind(each(revisions, |new| new.event.occurred_at))
    .bind(each(revisions, |new| new.event.recorded_at))
    .bind(each(revisions, |new| new.event.previous.as_ref().map(|point| signed(point.revision))))
    .bind(each(revisions, |new| signed(new.event.head.revision)))
    .bind(each(revisions, |new| new.push_id))
    .bind(small(partition))
    .bind(each(revisions, |new| signed(new.ordinal)))
    .execute(db)
    .await
    .map(|_| ())
}

/// The new state of a tag's row.
#[derive(Debug)]
pub(crate) struct NewHead {
    pub(crate) tag_id: i64,
    pub(crate) issued: u64,
    pub(crate) head: Option<Numbered>,
    /// Greatest effective time among its own facts of this batch.
    pub(crate) latest_at: Option<OffsetDateTime>,
}

/// Brings the rows of tags up to date.
pub(crate) async fn update_tags(
    db: &mut PgConnection,
    tags: &[NewHead],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update tag t
         set issued = n.issued, head = n.head, head_digest = n.head_digest, head_at = n.head_at, latest_at = greatest(t.latest_at, n.latest_at)
         from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[], $5::timestamptz[], $6::timestamptz[])
              as n (id, issued, head, head_digest, head_at, latest_at)
         where t.id = n.id",
    )
    .bind(tags.iter().map(|tag| tag.tag_id).collect::<Vec<_>>())
    .bind(tags.iter().map(|tag| signed(tag.issued)).collect::<Vec<_>>())
    .bind(tags.iter().map(|tag| tag.head.as_ref().map(|head| signed(head.number))).collect::<Vec<_>>())
    .bind(tags.iter().map(|tag| tag.head.as_ref().and_then(|head| head.digest.as_ref()).map(Digest::as_bytes)).collect::<Vec<_>>())
    .bind(tags.iter().map(|tag| tag.head.as_ref().map(|head| head.at)).collect::<Vec<_>>())
    .bind(tags.iter().map(|tag| tag.latest_at).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(|_| ())
}

/// Notes that the repository has a fact of its own at this time.
pub(crate) async fn touch_repository(
    db: &mut PgConnection,
    repository: i64,
    at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query("update repository set latest_at = greatest(latest_at, $2) where id = $1")
        .bind(repository)
        .bind(at)
        .execute(db)
        .await
        .map(|_| ())
}

/// Revisions of a partition from ordinal `from` to `to` (both included), at most `limit`, as the events that were or will be published.
pub(crate) async fn revisions(
    db: &mut PgConnection,
    partition: u16,
    from: u64,
    to: u64,
    limit: u32,
) -> Result<Vec<NewRevision>, Error> {
    let rows = sqlx::query(
        "select v.tag_id, v.ordinal, v.push_id, p.origin::text, p.source, p.actor, p.media_type, p.size_bytes,
                r.registry, r.name, t.name, v.number, v.kind::text, v.digest, v.late, v.effective_at, v.recorded_at,
                v.previous, before.digest, v.head, head.digest
         from revision v
         join push p on p.id = v.push_id
         join tag t on t.id = v.tag_id
         join repository r on r.id = t.repository_id
         join revision head on head.tag_id = v.tag_id and head.number = v.head
         left join revision before on before.tag_id = v.tag_id and before.number = v.previous
         where v.partition = $1 and v.ordinal between $2 and $3
         order by v.ordinal limit $4",
    )
    .bind(small(partition))
    .bind(signed(from))
    .bind(signed(to))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let meta = meta(row, 3)?;
            let image = Image {
                registry: parsed(row.try_get(8)?)?,
                repository: parsed(row.try_get(9)?)?,
                tag: parsed(row.try_get(10)?)?,
            };
            let found = digest(row.try_get(13)?)?;
            let previous = match row.try_get::<Option<i64>, _>(17)? {
                Some(number) => Some(Point {
                    revision: unsigned(number),
                    digest: digest(row.try_get(18)?)?,
                }),
                None => None,
            };
            let event = Revision {
                revision: unsigned(row.try_get(11)?),
                kind: parsed::<Kind>(row.try_get(12)?)?,
                pinned: found.as_ref().map(|digest| image.pinned(digest)),
                digest: found,
                previous,
                late: row.try_get(14)?,
                head: Point {
                    revision: unsigned(row.try_get(19)?),
                    digest: digest(row.try_get(20)?)?,
                },
                occurred_at: row.try_get(15)?,
                recorded_at: row.try_get(16)?,
                origin: meta.origin,
                source: meta.source,
                actor: meta.actor,
                media_type: meta.media_type,
                size: meta.size,
                registry: image.registry,
                repository: image.repository,
                tag: image.tag,
            };
            Ok(NewRevision {
                tag_id: row.try_get(0)?,
                ordinal: unsigned(row.try_get(1)?),
                push_id: row.try_get(2)?,
                event,
            })
        })
        .collect()
}

/// Origin, source, actor, media type and size, from five columns in a row.
fn meta(row: &sqlx::postgres::PgRow, first: usize) -> Result<Meta, Error> {
    Ok(Meta {
        origin: parsed::<Origin>(row.try_get(first)?)?,
        source: row.try_get(first + 1)?,
        actor: row.try_get(first + 2)?,
        media_type: row.try_get(first + 3)?,
        size: row.try_get::<Option<i64>, _>(first + 4)?.map(unsigned),
    })
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, Error> {
    text.parse()
        .map_err(|_| Error::Inconsistent("a name in the database does not parse"))
}

fn digest(bytes: Option<Vec<u8>>) -> Result<Option<Digest>, Error> {
    bytes
        .map(|bytes| {
            Digest::from_bytes(&bytes).ok_or(Error::Inconsistent(
                "a digest in the database has a wrong length",
            ))
        })
        .transpose()
}

/// Postgres has no unsigned numbers. Ours (sequences, numbers, sizes) stay far below the limit.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn small(partition: u16) -> i16 {
    i16::try_from(partition).unwrap_or(i16::MAX)
}
