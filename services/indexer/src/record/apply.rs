//! Applies pushes, a segment at a time: either writes pushes, revisions, heads and the position
//! together, or nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sqlx::PgConnection;
use tagtrail_bus::consume::Position;
use tagtrail_failpoint::FailPoint;
use tagtrail_history::recorded::Recorded;
use tagtrail_proto::{Digest, Image, Push, TraceContext};
use tagtrail_timeline::{Effect, Fact, TagState};
use time::OffsetDateTime;

use crate::error::Error;
use crate::received::{Owner, ReceivedPush};
use crate::recheck::AskedRegistries;
use crate::record::number::{Batch, Changes, KnownTag, KnownTags};
use crate::record::partition::Partition;
use crate::store;
use crate::store::position::Progress;
use crate::store::pushes::Late;
use crate::store::write::{Behind, Rows};

/// The push behind a revision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause {
    /// The time at which the stream received the push.
    pub(crate) received_at: OffsetDateTime,
    /// The trace of the push.
    pub(crate) trace: Option<TraceContext>,
}

/// The outcome of a segment.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The new revisions, in the order of their ordinals.
    pub(crate) revisions: Vec<(Recorded, Cause)>,
    /// Questions to registries about tags whose end is doubtful, at most one for each tag.
    pub(crate) rechecks: Vec<Push>,
}

/// Splits pushes into segments, in the order of the stream. A delete of a digest or repository is a
/// segment by itself: only Postgres can name its tags.
pub(crate) fn segments(batch: &[ReceivedPush]) -> impl Iterator<Item = &[ReceivedPush]> {
    batch.chunk_by(|a, b| a.tag.is_some() && b.tag.is_some())
}

/// Applies a segment, and records the ordinal up to which revisions are published: reads the input
/// of the rule, and writes everything in one statement. Nothing can change in between, because this
/// session alone writes the partition; the statement checks this.
///
/// After an error other than [`Error::Forgotten`] and [`Error::Repeated`], `partition` must not be
/// used any more: the statement may or may not be committed.
pub(crate) async fn apply(
    partition: &mut Partition,
    db: &mut PgConnection,
    segment: &[ReceivedPush],
    published: u64,
) -> Result<Applied, Error> {
    let Some(last) = segment.last() else {
        return Ok(Applied::default());
    };
    let mut to = Progress {
        position: Position {
            stream_created_ns: Some(partition.stream_created_ns),
            sequence: last.sequence,
            time_ns: Some(last.time_ns),
        },
        published,
        known: partition.known(),
        ..partition.progress
    };
    let owners = owners(partition, db, segment).await?;
    let new = if partition.repeats {
        without_repeats(db, &owners).await?
    } else {
        owners.clone()
    };
    let mut changes = decide(db, &new, &partition.asked, &mut to.recorded).await?;
    let recorded = changes.revisions.iter().map(|(recorded, _)| recorded);
    partition.unrecorded.check(recorded)?;
    let rows = Rows {
        pushes: &new,
        revisions: changes
            .revisions
            .iter()
            .map(|(recorded, _)| (recorded, behind(recorded.push_id, new.len())))
            .collect(),
        heads: &changes.heads,
        touched: touched(&new),
    };
    FailPoint::IndexerWritten.pass();
    let from = &partition.progress;
    let to = store::write::write(db, partition.number, from, to, &rows).await?;
    FailPoint::IndexerCommitted.pass();
    let recorded_at = to.recorded_at()?;
    for (recorded, _) in &mut changes.revisions {
        recorded.event.recorded_at = recorded_at;
    }
    partition.repeats = new.len() < owners.len();
    partition.progress = to;
    Ok(Applied {
        revisions: changes.revisions,
        rechecks: changes.rechecks,
    })
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

/// Returns the pushes that are neither recorded already nor twice in the segment.
async fn without_repeats<'a>(
    db: &mut PgConnection,
    pushes: &[(Owner, &'a ReceivedPush)],
) -> Result<Vec<(Owner, &'a ReceivedPush)>, Error> {
    let recorded = store::pushes::recorded(db, pushes).await?;
    let mut seen = HashSet::new();
    Ok(pushes
        .iter()
        .filter(|(owner, push)| {
            !recorded.contains(&push.sequence)
                && seen.insert((*owner, push.occurred_at, &push.digest, push.action))
        })
        .copied()
        .collect())
}

/// Numbers the changes that follow from new pushes. Row ids are drawn at the write, so new pushes
/// have provisional ids here, greater than all others; see [`behind`].
async fn decide(
    db: &mut PgConnection,
    pushes: &[(Owner, &ReceivedPush)],
    asked: &AskedRegistries,
    ordinal: &mut u64,
) -> Result<Changes, Error> {
    let by_tag = group(db, pushes).await?;
    let mut loaded = load(db, &by_tag).await?;
    let provisional = (0..).map(|place| provisional_id(place, pushes.len()));
    let received = provisional
        .zip(pushes)
        .map(|(id, (_, push))| (id, *push))
        .collect();
    let deciding = Batch {
        // Set when the database has given the time.
        recorded_at: OffsetDateTime::UNIX_EPOCH,
        ordinal,
        asked,
    };
    deciding.number(by_tag, &mut loaded, &received)
}

/// Returns the provisional row id of a new push, by its place among all new pushes.
fn provisional_id(place: usize, all: usize) -> i64 {
    i64::try_from(all - place).map_or(i64::MIN, |before_last| i64::MAX - before_last)
}

/// Returns the push with this id, which may be provisional.
fn behind(id: i64, all: usize) -> Behind {
    usize::try_from(i64::MAX - id)
        .ok()
        .filter(|before_last| *before_last <= all)
        .map_or(Behind::Recorded(id), |before_last| {
            Behind::New(all - before_last)
        })
}

/// Returns the repositories with a push of their own, with its effective time.
fn touched(pushes: &[(Owner, &ReceivedPush)]) -> Vec<(i64, OffsetDateTime)> {
    if FailPoint::IndexerTouch.skipped() {
        return Vec::new();
    }
    pushes
        .iter()
        .filter_map(|(owner, push)| Some((owner.repository()?, push.effective_at())))
        .collect()
}

/// Groups new pushes by tag, as facts in the order of arrival. A delete of a digest or repository
/// belongs to each tag that the delete may change.
async fn group(
    db: &mut PgConnection,
    pushes: &[(Owner, &ReceivedPush)],
) -> Result<BTreeMap<i64, Vec<Fact>>, Error> {
    let mut by_tag: BTreeMap<i64, Vec<Fact>> = BTreeMap::new();
    for (place, (owner, push)) in pushes.iter().enumerate() {
        let fact = Fact {
            at: push.effective_at(),
            received: push.received_at,
            effect: push.effect(),
            push_id: provisional_id(place, pushes.len()),
        };
        match owner {
            Owner::Tag(tag) => by_tag.entry(*tag).or_default().push(fact),
            Owner::Repository(repository) => {
                let digest = push.digest.as_ref();
                for tag in store::pushes::tags_touched(db, *repository, digest, fact.at).await? {
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
) -> Result<KnownTags, Error> {
    let tags: Vec<i64> = by_tag.keys().copied().collect();
    let pushed_now = by_tag.iter().flat_map(|(tag, facts)| pushed(*tag, facts));
    let mut heads = store::tags::heads(db, &tags, &pushed_now.collect()).await?;
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
        store::pushes::neighbours(db, &late).await?
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
