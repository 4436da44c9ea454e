//! Applies a batch of pushes in one transaction: either writes pushes, revisions, heads and the
//! position together, or nothing.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Connection as _, PgConnection};
use tagtrail_bus::consume::Position;
use tagtrail_failpoint::FailPoint;
use tagtrail_history::recorded::Recorded;
use tagtrail_proto::{Digest, Image, Push, TraceContext};
use tagtrail_timeline::{Effect, Fact, TagState};
use time::OffsetDateTime;

use crate::error::Error;
use crate::received::{Owner, ReceivedPush};
use crate::record::number::{Batch, Changes, KnownTag, KnownTags};
use crate::record::partition::Partition;
use crate::store;
use crate::store::position::Progress;
use crate::store::pushes::Late;

/// The push behind a revision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause {
    /// The time at which the stream received the push.
    pub(crate) received_at: OffsetDateTime,
    /// The trace of the push.
    pub(crate) trace: Option<TraceContext>,
}

/// The outcome of a batch.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The new revisions, in the order of their ordinals.
    pub(crate) revisions: Vec<(Recorded, Cause)>,
    /// Questions to registries about tags whose end is doubtful, at most one for each tag.
    pub(crate) rechecks: Vec<Push>,
}

/// Applies pushes in the order of the stream, and records the ordinal up to which revisions are
/// published. After an error `partition` must not be used any more: the transaction may or may not
/// be committed.
pub(crate) async fn apply(
    partition: &mut Partition,
    db: &mut PgConnection,
    batch: &[ReceivedPush],
    published: u64,
) -> Result<Applied, Error> {
    let Some(last) = batch.last() else {
        return Ok(Applied::default());
    };
    let to = Progress {
        position: Position {
            stream_created_ns: Some(partition.stream_created_ns),
            sequence: last.sequence,
            time_ns: Some(last.time_ns),
        },
        published,
        known: partition.known(),
        ..partition.progress
    };
    let mut tx = db.begin().await?;
    // Fails before anything is written, unless this session is the only holder.
    let mut to =
        store::position::advance_and_record(&mut tx, partition.number, &partition.progress, to)
            .await?;
    let recorded_at = to.recorded_at()?;
    let (mut applied, mut repeats) = (Applied::default(), false);
    // A delete of a digest or repository is a segment by itself: only Postgres can name its tags.
    for segment in batch.chunk_by(|a, b| a.tag.is_some() && b.tag.is_some()) {
        let owners = owners(partition, &mut tx, segment).await?;
        let into = Batch {
            recorded_at,
            ordinal: &mut to.recorded,
            asked: &partition.asked,
        };
        let new = record(&mut tx, &owners, into, partition.repeats).await?;
        repeats |= new.repeats;
        partition
            .unrecorded
            .check(new.revisions.iter().map(|(recorded, _)| recorded))?;
        let rows: Vec<&Recorded> = new.revisions.iter().map(|(recorded, _)| recorded).collect();
        store::revisions::insert(&mut tx, partition.number, &rows, &new.heads).await?;
        applied.revisions.extend(new.revisions);
        applied.rechecks.extend(new.rechecks);
    }
    FailPoint::IndexerWritten.pass();
    tx.commit().await?;
    FailPoint::IndexerCommitted.pass();
    partition.progress = to;
    partition.repeats = repeats;
    Ok(applied)
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

/// Inserts the new pushes of a segment, and numbers the changes of their tags.
async fn record(
    db: &mut PgConnection,
    pushes: &[(Owner, &ReceivedPush)],
    into: Batch<'_>,
    repeats: bool,
) -> Result<Changes, Error> {
    let new = insert(db, pushes, into.recorded_at, repeats).await?;
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
    let changed = into.number(by_tag, &mut loaded, &received)?;
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

/// Loads the state of each tag. Most pushes are on time, and need no more than the head.
async fn load(
    db: &mut PgConnection,
    by_tag: &BTreeMap<i64, Vec<Fact>>,
    first_id: i64,
) -> Result<KnownTags, Error> {
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
                .map(|fact| Late {
                    tag_id: *tag_id,
                    repository_id: head.repository_id,
                    at: fact.at,
                    own_latest_at: head.own_latest_at,
                }),
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
            let known = KnownTag {
                newest_at: head
                    .own_latest_at
                    .max(head.head.as_ref().map(|head| head.at)),
                state: TagState::new(head.issued, head.head, revisions, facts, head.first_had),
                image: head.image,
            };
            (tag_id, known)
        })
        .collect();
    Ok(KnownTags {
        tags,
        metas: near.metas,
    })
}
