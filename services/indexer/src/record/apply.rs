//! Applies a batch of pushes in one transaction: either writes pushes, revisions, heads and the
//! position together, or nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::{Connection as _, PgConnection};
use tagtrail_bus::consume::Position;
use tagtrail_failpoint::FailPoint;
use tagtrail_history::recorded::Recorded;
use tagtrail_proto::{Digest, Image, Point, Revision, TraceContext};
use tagtrail_timeline::{Effect, Entry, Fact, NewRevision, TagState};
use time::OffsetDateTime;

use crate::error::Error;
use crate::received::{Meta, Owner, ReceivedPush};
use crate::record::partition::Partition;
use crate::store;
use crate::store::position::Progress;
use crate::store::tags::NewTagRow;

/// The push behind a revision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause {
    /// The time at which the stream received the push.
    pub(crate) received_at: OffsetDateTime,
    /// The trace of the push.
    pub(crate) trace: Option<TraceContext>,
}

/// Applies pushes in the order of the stream, and records the ordinal up to which revisions are
/// published. After an error `partition` must not be used any more: the transaction may or may not
/// be committed.
pub(crate) async fn apply(
    partition: &mut Partition,
    db: &mut PgConnection,
    batch: &[ReceivedPush],
    published: u64,
) -> Result<Vec<(Recorded, Cause)>, Error> {
    let Some(last) = batch.last() else {
        return Ok(Vec::new());
    };
    let to = Progress {
        position: Position {
            stream_created_ns: Some(partition.stream_created_ns),
            sequence: last.sequence,
            time_ns: Some(last.time_ns),
        },
        published,
        ..partition.progress
    };
    let mut tx = db.begin().await?;
    // Fails before anything is written, unless this session is the only holder.
    let mut to =
        store::position::advance_and_record(&mut tx, partition.number, &partition.progress, to)
            .await?;
    let recorded_at = to.recorded_at()?;
    let (mut revisions, mut repeats) = (Vec::new(), false);
    // A delete of a digest or repository is a segment by itself: only Postgres can name its tags.
    for segment in batch.chunk_by(|a, b| a.tag.is_some() && b.tag.is_some()) {
        let owners = owners(partition, &mut tx, segment).await?;
        let new = record(
            &mut tx,
            &owners,
            recorded_at,
            &mut to.recorded,
            partition.repeats,
        )
        .await?;
        repeats |= new.repeats;
        partition
            .unrecorded
            .check(new.revisions.iter().map(|(recorded, _)| recorded))?;
        let rows: Vec<&Recorded> = new.revisions.iter().map(|(recorded, _)| recorded).collect();
        store::revisions::insert(&mut tx, partition.number, &rows, &new.heads).await?;
        revisions.extend(new.revisions);
    }
    FailPoint::IndexerWritten.pass();
    tx.commit().await?;
    FailPoint::IndexerCommitted.pass();
    partition.progress = to;
    partition.repeats = repeats;
    Ok(revisions)
}

/// Returns each push with its owner, the tag or the repository.
async fn owners<'a>(
    partition: &mut Partition,
    db: &mut PgConnection,
    segment: &'a [ReceivedPush],
) -> Result<Vec<(Owner, &'a ReceivedPush)>, Error> {
    partition.tag_ids.bound(partition.partitions);
    let unknown: BTreeSet<Image> = segment
        .iter()
        .filter(|push| partition.tag_ids.of(push).is_none())
        .filter_map(ReceivedPush::image)
        .collect();
    if !unknown.is_empty() {
        partition
            .tag_ids
            .learn(store::tags::tag_ids(db, &unknown).await?);
    }
    let mut owners = Vec::with_capacity(segment.len());
    for push in segment {
        let owner = match &push.tag {
            Some(_) => Owner::Tag(
                partition
                    .tag_ids
                    .of(push)
                    .ok_or(Error::Inconsistent("a tag just made has no id"))?,
            ),
            None => {
                let key = (push.registry.clone(), push.repository.clone());
                let ids = store::tags::repository_ids(db, &BTreeSet::from([key.clone()])).await?;
                Owner::Repository(
                    *ids.get(&key)
                        .ok_or(Error::Inconsistent("a repository just made has no id"))?,
                )
            }
        };
        owners.push((owner, push));
    }
    Ok(owners)
}

/// The rows to write for a segment.
#[derive(Debug, Default)]
struct Changes {
    revisions: Vec<(Recorded, Cause)>,
    heads: Vec<NewTagRow>,
    /// Some of the pushes were recorded already.
    repeats: bool,
}

/// Inserts the new pushes of a segment, and numbers the changes of their tags.
async fn record(
    db: &mut PgConnection,
    pushes: &[(Owner, &ReceivedPush)],
    recorded_at: OffsetDateTime,
    ordinal: &mut u64,
    repeats: bool,
) -> Result<Changes, Error> {
    let new = insert(db, pushes, recorded_at, repeats).await?;
    let repeats = new.len() < pushes.len();
    let Some(first_id) = new.iter().map(|new| new.push_id).min() else {
        return Ok(Changes {
            repeats,
            ..Changes::default()
        });
    }; // All pushes were recorded already.
    let by_tag = group(db, &new).await?;
    let mut loaded = load(db, &by_tag, first_id).await?;
    let received = new.iter().map(|new| (new.push_id, new.received)).collect();
    let changed = number(by_tag, &mut loaded, &received, recorded_at, ordinal)?;
    if !FailPoint::IndexerTouch.skipped() {
        for (repository, at) in new.iter().filter_map(NewPush::touched) {
            store::tags::touch_repository(db, repository, at).await?;
        }
    }
    Ok(Changes { repeats, ..changed })
}

/// A push that was not recorded before.
#[derive(Debug, Clone, Copy)]
struct NewPush<'a> {
    push_id: i64,
    owner: Owner,
    received: &'a ReceivedPush,
}

impl NewPush<'_> {
    fn fact(&self) -> Fact {
        Fact {
            at: self.received.effective_at(),
            received: self.received.received_at,
            effect: self.received.effect(),
            push_id: self.push_id,
        }
    }

    /// Returns the repository and the effective time of a push about a whole repository.
    fn touched(&self) -> Option<(i64, OffsetDateTime)> {
        let repository = self.owner.repository()?;
        Some((repository, self.received.effective_at()))
    }
}

/// Inserts pushes. Returns the new ones, in the order of arrival.
async fn insert<'a>(
    db: &mut PgConnection,
    pushes: &[(Owner, &'a ReceivedPush)],
    recorded_at: OffsetDateTime,
    repeats: bool,
) -> Result<Vec<NewPush<'a>>, Error> {
    let ids = store::pushes::insert(db, pushes, recorded_at, repeats).await?;
    Ok(pushes
        .iter()
        .filter_map(|(owner, received)| {
            Some(NewPush {
                push_id: *ids.get(&received.sequence)?,
                owner: *owner,
                received,
            })
        })
        .collect())
}

/// Groups new pushes by tag, as facts in the order of arrival. A delete of a digest or repository
/// belongs to each tag that the delete may change.
async fn group(
    db: &mut PgConnection,
    new: &[NewPush<'_>],
) -> Result<BTreeMap<i64, Vec<Fact>>, Error> {
    let mut by_tag: BTreeMap<i64, Vec<Fact>> = BTreeMap::new();
    for new in new {
        let fact = new.fact();
        match new.owner {
            Owner::Tag(tag) => by_tag.entry(tag).or_default().push(fact),
            Owner::Repository(repository) => {
                let digest = new.received.digest.as_ref();
                for tag in store::pushes::tags_touched(db, repository, digest, fact.at).await? {
                    by_tag.entry(tag).or_default().push(fact.clone());
                }
            }
        }
    }
    Ok(by_tag)
}

/// Returns the digests that facts set for a tag.
fn pushed(tag: i64, facts: &[Fact]) -> impl Iterator<Item = (i64, &Digest)> {
    facts.iter().filter_map(move |fact| match &fact.effect {
        Effect::Push(digest) => Some((tag, digest)),
        _ => None,
    })
}

/// The input of the rule: the state of each tag, and the fields of recorded pushes around late
/// ones, by row id of the push.
#[derive(Debug)]
struct TagStates {
    tags: HashMap<i64, (Image, TagState)>,
    metas: HashMap<i64, Meta>,
}

/// Loads the state of each tag. Most pushes are on time, and need no more than the head.
async fn load(
    db: &mut PgConnection,
    by_tag: &BTreeMap<i64, Vec<Fact>>,
    first_id: i64,
) -> Result<TagStates, Error> {
    let tags: Vec<i64> = by_tag.keys().copied().collect();
    let pushed_now = by_tag.iter().flat_map(|(tag, facts)| pushed(*tag, facts));
    let mut heads = store::tags::lock_tags(db, &tags, &pushed_now.collect()).await?;
    let mut late = Vec::new();
    for (tag_id, facts) in by_tag {
        let Some(head) = heads.get(tag_id) else {
            continue;
        };
        late.extend(
            facts
                .iter()
                .filter(|fact| head.latest_at.is_some_and(|latest| fact.at <= latest))
                .map(|fact| (*tag_id, head.repository_id, fact.at)),
        );
    }
    let mut near = if late.is_empty() || FailPoint::IndexerLate.skipped() {
        store::pushes::Neighbours::default()
    } else {
        store::pushes::neighbours(db, &late, first_id).await?
    };

    // A late fact may bring back the state of a fact around it, and so a digest that the tag had
    // before.
    let uncovered: BTreeSet<(i64, &Digest)> = near
        .facts
        .iter()
        .filter(|(tag, _)| heads.get(*tag).is_some_and(|head| head.issued > 0))
        .flat_map(|(tag, facts)| pushed(*tag, facts))
        .collect();
    if !uncovered.is_empty() {
        for (tag, first_had) in store::revisions::first_had(db, &uncovered).await? {
            if let Some(head) = heads.get_mut(&tag) {
                head.first_had.extend(first_had);
            }
        }
    }

    let tags = heads
        .into_iter()
        .map(|(tag_id, head)| {
            let revisions = near.revisions.remove(&tag_id).unwrap_or_default();
            let facts = near.facts.remove(&tag_id).unwrap_or_default();
            let known = TagState::new(head.issued, head.head, revisions, facts, head.first_had);
            (tag_id, (head.image, known))
        })
        .collect();
    Ok(TagStates {
        tags,
        metas: near.metas,
    })
}

/// Numbers the changes that follow from new facts, tag by tag. `received` has the new pushes by row
/// id.
fn number(
    by_tag: BTreeMap<i64, Vec<Fact>>,
    loaded: &mut TagStates,
    received: &HashMap<i64, &ReceivedPush>,
    recorded_at: OffsetDateTime,
    ordinal: &mut u64,
) -> Result<Changes, Error> {
    let mut changed = Changes::default();
    for (tag_id, facts) in by_tag {
        let Some((image, known)) = loaded.tags.get_mut(&tag_id) else {
            return Err(Error::Inconsistent("a tag has no row"));
        };
        let latest_at = facts
            .iter()
            .filter(|fact| matches!(fact.effect, Effect::Push(_) | Effect::Delete))
            .map(|fact| fact.at)
            .max();
        for fact in facts {
            let new = received
                .get(&fact.push_id)
                .ok_or(Error::Inconsistent("a new push has no cause"))?;
            let cause = Cause {
                received_at: new.received_at,
                trace: new.trace,
            };
            for decided in known.record(fact) {
                *ordinal += 1;
                let meta = received
                    .get(&decided.push_id)
                    .map(|new| &new.meta)
                    .or_else(|| loaded.metas.get(&decided.push_id))
                    .ok_or(Error::Inconsistent(
                        "a revision comes from a push that was not loaded",
                    ))?;
                let recorded = Recorded {
                    tag_id,
                    ordinal: *ordinal,
                    push_id: decided.push_id,
                    previous_at: decided.previous.as_ref().map(|previous| previous.at),
                    head_at: decided.head.at,
                    time_source: meta.time_source,
                    event: event(image, decided, meta, recorded_at),
                };
                changed.revisions.push((recorded, cause));
            }
        }
        changed.heads.push(NewTagRow {
            tag_id,
            issued: known.issued,
            head: known.head.clone(),
            latest_at,
        });
    }
    Ok(changed)
}

fn event(
    image: &Image,
    decided: NewRevision,
    meta: &Meta,
    recorded_at: OffsetDateTime,
) -> Revision {
    let point = |revision: Entry| Point {
        revision: revision.number,
        digest: revision.digest,
    };
    Revision {
        registry: image.registry.clone(),
        repository: image.repository.clone(),
        tag: image.tag.clone(),
        revision: decided.revision.number,
        kind: decided.kind,
        pinned: decided
            .revision
            .digest
            .as_ref()
            .map(|digest| image.pinned(digest)),
        late: decided.head.number != decided.revision.number,
        previous: decided.previous.map(point),
        head: point(decided.head),
        occurred_at: decided.revision.at,
        recorded_at,
        origin: meta.origin,
        source: meta.source.clone(),
        actor: meta.actor.clone(),
        media_type: meta.media_type.clone(),
        size: meta.size,
        digest: decided.revision.digest,
    }
}
