//! One batch of facts, applied in one transaction: facts, revisions, heads and the position together, or none of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::{Connection as _, PgConnection};
use tagtrail_bus::consume::Position;
use tagtrail_failpoint::FailPoint;
use tagtrail_history::recorded::Recorded;
use tagtrail_proto::{Digest, Image, Point, Revision, TraceContext};
use time::OffsetDateTime;

use crate::error::Error;
use crate::received::{Meta, Owner, Received};
use crate::record::partition::Partition;
use crate::store;
use crate::store::position::Progress;
use crate::store::tags::{Head, NewHead};
use tagtrail_timeline::{Change, Decided, Fact, Known, Numbered};

/// The fact that made a revision necessary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause {
    /// When the stream received it.
    pub(crate) received_at: OffsetDateTime,
    /// The trace that it belongs to.
    pub(crate) trace: Option<TraceContext>,
}

/// Applies facts in the order of the stream, and notes up to where revisions are published. After an error nothing of `partition`
/// may be used any more: whether the commit happened is not known then.
pub(crate) async fn apply(
    partition: &mut Partition,
    db: &mut PgConnection,
    batch: &[Received],
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
    // Whoever is not the only holder fails here, before it has written anything.
    let mut to =
        store::position::advance(&mut tx, partition.number, &partition.progress, to, true).await?;
    let recorded_at = to.recorded_at()?;
    let (mut revisions, mut repeats) = (Vec::new(), false);
    // A delete of a digest or of everything concerns tags that only the store can name, so it gets a turn of its own.
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
            .ahead
            .check(new.revisions.iter().map(|(recorded, _)| recorded))?;
        let rows: Vec<&Recorded> = new.revisions.iter().map(|(recorded, _)| recorded).collect();
        store::revisions::add_revisions(&mut tx, partition.number, &rows, &new.heads).await?;
        revisions.extend(new.revisions);
    }
    FailPoint::IndexerWritten.pass();
    tx.commit().await?;
    FailPoint::IndexerCommitted.pass();
    partition.progress = to;
    partition.repeats = repeats;
    Ok(revisions)
}

/// Each fact with the row that it belongs to.
async fn owners<'a>(
    partition: &mut Partition,
    db: &mut PgConnection,
    segment: &'a [Received],
) -> Result<Vec<(Owner, &'a Received)>, Error> {
    partition.tag_ids.bound(partition.of);
    let unknown: BTreeSet<Image> = segment
        .iter()
        .filter(|fact| partition.tag_ids.of(fact).is_none())
        .filter_map(Received::image)
        .collect();
    if !unknown.is_empty() {
        partition
            .tag_ids
            .learn(store::tags::tag_ids(db, &unknown).await?);
    }
    let mut owners = Vec::with_capacity(segment.len());
    for fact in segment {
        let owner = match &fact.tag {
            Some(_) => Owner::Tag(
                partition
                    .tag_ids
                    .of(fact)
                    .ok_or(Error::Inconsistent("a tag just made has no id"))?,
            ),
            None => {
                let key = (fact.registry.clone(), fact.repository.clone());
                let ids = store::tags::repository_ids(db, &BTreeSet::from([key.clone()])).await?;
                Owner::Repository(
                    *ids.get(&key)
                        .ok_or(Error::Inconsistent("a repository just made has no id"))?,
                )
            }
        };
        owners.push((owner, fact));
    }
    Ok(owners)
}

/// What facts changed: to be written.
#[derive(Debug, Default)]
struct Changed {
    revisions: Vec<(Recorded, Cause)>,
    heads: Vec<NewHead>,
    /// Some of the facts were known already.
    repeats: bool,
}

/// Adds the facts that are new and numbers the changes they make.
async fn record(
    db: &mut PgConnection,
    facts: &[(Owner, &Received)],
    recorded_at: OffsetDateTime,
    ordinal: &mut u64,
    repeats: bool,
) -> Result<Changed, Error> {
    let ids = store::pushes::add_facts(db, facts, recorded_at, repeats).await?;
    let repeats = ids.len() < facts.len();
    let Some(first_id) = ids.values().min().copied() else {
        return Ok(Changed {
            repeats,
            ..Changed::default()
        });
    }; // All were known.
    let mut metas: HashMap<i64, Cow<'_, Meta>> = HashMap::with_capacity(ids.len());
    let mut causes: HashMap<i64, Cause> = HashMap::with_capacity(ids.len());
    // Per tag, in the order of arrival.
    let mut by_tag: BTreeMap<i64, Vec<Fact>> = BTreeMap::new();
    let mut arrivals: Vec<(i64, Fact)> = Vec::with_capacity(ids.len());
    let mut touched = None;
    for (owner, received) in facts {
        let Some(push_id) = ids.get(&received.sequence).copied() else {
            continue;
        };
        metas.insert(push_id, Cow::Borrowed(&received.meta));
        let cause = Cause {
            received_at: received.received_at,
            trace: received.trace,
        };
        causes.insert(push_id, cause);
        let fact = Fact {
            at: received.effective_at(),
            received: received.received_at,
            change: received.change(),
            push_id,
        };
        match owner {
            Owner::Tag(tag) => arrivals.push((*tag, fact)),
            Owner::Repository(repository) => {
                for tag in
                    store::pushes::tags_touched(db, *repository, received.digest.as_ref(), fact.at)
                        .await?
                {
                    arrivals.push((tag, fact.clone()));
                }
                touched = Some((*repository, fact.at));
            }
        }
    }
    for (tag, fact) in arrivals {
        by_tag.entry(tag).or_default().push(fact);
    }
    let tags: Vec<i64> = by_tag.keys().copied().collect();
    let pushed = by_tag.iter().flat_map(|(tag, facts)| pushed(*tag, facts));
    let mut heads = store::tags::lock_tags(db, &tags, &pushed.collect()).await?;
    let mut known = load(db, &by_tag, &mut heads, first_id, &mut metas).await?;

    let (mut revisions, mut new_heads) = (Vec::new(), Vec::with_capacity(by_tag.len()));
    for (tag_id, facts) in by_tag {
        let (Some(head), Some(known)) = (heads.get(&tag_id), known.get_mut(&tag_id)) else {
            return Err(Error::Inconsistent("a tag has no row"));
        };
        let latest_at = facts
            .iter()
            .filter(|fact| matches!(fact.change, Change::Push(_) | Change::Delete))
            .map(|fact| fact.at)
            .max();
        for fact in facts {
            let cause = causes
                .get(&fact.push_id)
                .copied()
                .ok_or(Error::Inconsistent("a new fact has no cause"))?;
            for decided in known.record(fact) {
                *ordinal += 1;
                let meta = metas.get(&decided.push_id).ok_or(Error::Inconsistent(
                    "a revision comes from a fact that was not loaded",
                ))?;
                let recorded = Recorded {
                    tag_id,
                    ordinal: *ordinal,
                    push_id: decided.push_id,
                    previous_at: decided.previous.as_ref().map(|previous| previous.at),
                    head_at: decided.head.at,
                    time_source: meta.time_source,
                    event: event(&head.image, decided, meta, recorded_at),
                };
                revisions.push((recorded, cause));
            }
        }
        new_heads.push(NewHead {
            tag_id,
            issued: known.issued,
            head: known.head.clone(),
            latest_at,
        });
    }
    if let Some((repository, at)) = touched
        && !FailPoint::IndexerTouch.skipped()
    {
        store::tags::touch_repository(db, repository, at).await?;
    }
    Ok(Changed {
        revisions,
        heads: new_heads,
        repeats,
    })
}

/// The digests that these facts move a tag to.
fn pushed(tag: i64, facts: &[Fact]) -> impl Iterator<Item = (i64, &Digest)> {
    facts.iter().filter_map(move |fact| match &fact.change {
        Change::Push(digest) => Some((tag, digest)),
        _ => None,
    })
}

/// What the rule needs to know of each tag. Most facts are on time, and then the head is all of it.
async fn load(
    db: &mut PgConnection,
    by_tag: &BTreeMap<i64, Vec<Fact>>,
    heads: &mut HashMap<i64, Head>,
    first_id: i64,
    metas: &mut HashMap<i64, Cow<'_, Meta>>,
) -> Result<HashMap<i64, Known>, Error> {
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
    let found = std::mem::take(&mut near.metas).into_iter();
    metas.extend(found.map(|(push_id, meta)| (push_id, Cow::Owned(meta))));

    // What a late fact uncovers may be pushed again too.
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

    Ok(by_tag
        .keys()
        .filter_map(|tag_id| {
            let head = heads.get_mut(tag_id)?;
            let revisions = near.revisions.remove(tag_id).unwrap_or_default();
            let facts = near.facts.remove(tag_id).unwrap_or_default();
            let first_had = std::mem::take(&mut head.first_had);
            Some((
                *tag_id,
                Known::new(head.issued, head.head.clone(), revisions, facts, first_had),
            ))
        })
        .collect())
}

fn event(image: &Image, decided: Decided, meta: &Meta, recorded_at: OffsetDateTime) -> Revision {
    let point = |revision: Numbered| Point {
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
