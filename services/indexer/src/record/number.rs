//! Numbers the changes that follow from new pushes, and finds the doubts that they leave. No I/O.

use std::collections::{BTreeMap, HashMap};

use tagtrail_history::recorded::Recorded;
use tagtrail_proto::{Image, Point, Push, Revision};
use tagtrail_timeline::{End, Entry, Fact, NewRevision, Suspect, TagState, is_doubtful};
use time::OffsetDateTime;

use crate::error::Error;
use crate::received::{Meta, ReceivedPush};
use crate::recheck::AskedRegistries;
use crate::record::apply::Cause;
use crate::store::tags::NewTagRow;

/// The input of the rule: the state of each tag, and the fields of recorded pushes around late
/// ones, by row id of the push.
#[derive(Debug)]
pub(super) struct KnownTags {
    pub(super) tags: HashMap<i64, KnownTag>,
    pub(super) metas: HashMap<i64, Meta>,
}

/// A tag before the new pushes.
#[derive(Debug)]
pub(super) struct KnownTag {
    pub(super) image: Image,
    pub(super) state: TagState,
    /// The effective time of the newest push that concerns the tag; `None`: there was no push.
    pub(super) newest_at: Option<OffsetDateTime>,
}

/// The rows to write for a segment.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) revisions: Vec<(Recorded, Cause)>,
    pub(super) heads: Vec<NewTagRow>,
    pub(super) rechecks: Vec<Push>,
}

/// The batch that the changes belong to.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    pub(super) recorded_at: OffsetDateTime,
    /// The last ordinal of the partition; numbering counts it up.
    pub(super) ordinal: &'a mut u64,
    pub(super) asked: &'a AskedRegistries,
}

impl Batch<'_> {
    /// Numbers the changes that follow from new facts, tag by tag. `received` has the new pushes by
    /// row id.
    pub(super) fn number(
        self,
        by_tag: BTreeMap<i64, Vec<Fact>>,
        loaded: &mut KnownTags,
        received: &HashMap<i64, &ReceivedPush>,
    ) -> Result<Changes, Error> {
        let mut changed = Changes::default();
        for (tag_id, facts) in by_tag {
            let Some(known) = loaded.tags.get_mut(&tag_id) else {
                return Err(Error::Inconsistent("a tag has no row"));
            };
            let asked = self.asked.contains(&known.image.registry);
            let (mut latest_at, mut doubtful) = (None, None);
            for fact in facts {
                let new = *received
                    .get(&fact.push_id)
                    .ok_or(Error::Inconsistent("a new push has no cause"))?;
                if new.tag.is_some() {
                    latest_at = latest_at.max(Some(fact.at));
                }
                let end = known.end();
                let decided = known.state.record(fact.clone());
                if asked && is_doubtful(suspect(&fact, new, &decided), &end) {
                    doubtful = Some(new);
                }
                if new.tag.is_some() || !decided.is_empty() {
                    known.newest_at = known.newest_at.max(Some(fact.at));
                }
                for decided in decided {
                    *self.ordinal += 1;
                    let meta = received
                        .get(&decided.push_id)
                        .map(|new| &new.meta)
                        .or_else(|| loaded.metas.get(&decided.push_id))
                        .ok_or(Error::Inconsistent(
                            "a revision comes from a push that was not loaded",
                        ))?;
                    let recorded = Recorded {
                        tag_id,
                        ordinal: *self.ordinal,
                        push_id: decided.push_id,
                        event: event(&known.image, decided, meta, self.recorded_at),
                    };
                    let cause = Cause {
                        received_at: new.received_at,
                        trace: new.trace,
                    };
                    changed.revisions.push((recorded, cause));
                }
            }
            if let (Some(doubtful), Some(head)) = (doubtful, &known.state.head) {
                let source = &doubtful.meta.source;
                changed
                    .rechecks
                    .push(Push::recheck(&known.image, head.number, head.at, source));
            }
            changed.heads.push(NewTagRow {
                tag_id,
                issued: known.state.issued,
                head: known.state.head.clone(),
                latest_at,
            });
        }
        Ok(changed)
    }
}

impl KnownTag {
    /// Returns the end of the timeline.
    fn end(&self) -> End {
        End {
            digest: self
                .state
                .head
                .as_ref()
                .and_then(|head| head.digest.clone()),
            at: self.newest_at,
        }
    }
}

fn suspect<'a>(fact: &'a Fact, push: &ReceivedPush, decided: &[NewRevision]) -> Suspect<'a> {
    Suspect {
        at: fact.at,
        effect: &fact.effect,
        of_tag: push.tag.is_some(),
        origin: push.meta.origin,
        own_time: push.has_own_time(),
        returns: decided.iter().any(|new| {
            new.returns && new.push_id == fact.push_id && new.head.number == new.revision.number
        }),
    }
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
