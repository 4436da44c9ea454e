//! The rule of history: the digest of a tag at each time, and the numbers of its changes. Pure: no
//! I/O, no clock.
//!
//! A **fact** is one report of a registry about a time. Facts have the order
//! `(at, received, digest)`; `at` is the effective time ([`effective`]). The **timeline** of a tag
//! is the fold of its own facts and its repository's in this order. **Revisions** number the
//! changes of the timeline: after each fact, every instant at which the timeline differs from the
//! revisions so far gets the next number. A revision never changes: a later fact about an earlier
//! time adds revisions and edits
//! none.
//!
//! # Why a few neighbours are enough
//! A fact changes the timeline only from its own instant up to the next fact that fixes the tag's
//! state, independent of the state before (a push or delete of the tag, a delete of the repository:
//! [`Effect::fixes_state`]). Only deletes of a digest depend on the state before them. So
//! [`TagState`] needs a small part of a tag's history, around the incoming facts: the revision in
//! force just before, and all facts and revisions from there to the instant of the next fact that
//! fixes the state.

use std::collections::HashMap;

use tagtrail_proto::{Digest, Kind, Origin, TimeSource};
use time::{Duration, OffsetDateTime};

mod doubt;

pub use doubt::{End, NEAR, Suspect, is_doubtful};

/// Largest lead of the sender's clock over the stream's. A later time does not count: the sender's
/// clock is wrong.
pub const MAX_AHEAD: Duration = Duration::seconds(60);

/// Returns the effective time of a fact: the moment from which it counts. `received` is the time of
/// the stream, the one clock that all facts share. All times have microseconds, the precision of
/// Postgres.
pub fn effective(
    occurred: OffsetDateTime,
    received: OffsetDateTime,
    source: TimeSource,
    origin: Origin,
) -> OffsetDateTime {
    match (origin, source) {
        (Origin::Event, TimeSource::Event) if occurred <= received + MAX_AHEAD => occurred,
        // No time of its own: the receipt, by the gateway's clock or by the stream's.
        (Origin::Event, _) => occurred.min(received),
        // An answer of a registry: the resolver put it after the head that the question was about,
        // which may be ahead of the stream.
        _ => occurred.min(received + MAX_AHEAD),
    }
}

/// The change of a tag that a fact reports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The tag had this digest.
    Push(Digest),
    /// The tag was deleted.
    Delete,
    /// The digest was deleted: with every tag that had it, as a fact of the repository, or from one
    /// tag, as a fact of the tag. Tags that have another digest keep it.
    DeleteDigest(Digest),
    /// The repository was deleted. A fact of the repository.
    DeleteRepository,
}

impl Effect {
    /// Returns whether the state after this effect is independent of the state before.
    fn fixes_state(&self) -> bool {
        !matches!(self, Effect::DeleteDigest(_))
    }

    fn digest(&self) -> Option<&Digest> {
        match self {
            Effect::Push(digest) | Effect::DeleteDigest(digest) => Some(digest),
            Effect::Delete | Effect::DeleteRepository => None,
        }
    }
}

/// One fact about a tag: its own, or one of its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The effective time.
    pub at: OffsetDateTime,
    /// The time of the first receipt.
    pub received: OffsetDateTime,
    /// The change that the fact reports.
    pub effect: Effect,
    /// Row id in the table `push`: for the caller, never compared.
    pub push_id: i64,
}

impl Fact {
    /// The order of facts. The last member makes the order total: two facts that differ only there
    /// may come in either order.
    fn order(&self) -> (OffsetDateTime, OffsetDateTime, Option<&Digest>, &Effect) {
        (self.at, self.received, self.effect.digest(), &self.effect)
    }
}

/// A revision, with the fields that the rule needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Effective time.
    pub at: OffsetDateTime,
    /// The number of the revision.
    pub number: u64,
    /// The digest from then on; `None`: deleted.
    pub digest: Option<Digest>,
}

impl Entry {
    fn order(&self) -> (OffsetDateTime, u64) {
        (self.at, self.number)
    }
}

/// A change with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRevision {
    /// The revision.
    pub revision: Entry,
    /// The difference from the revision before it in time.
    pub kind: Kind,
    /// The tag had this digest before, at some earlier time.
    pub returns: bool,
    /// The revision in force just before this one, as of its recording.
    pub previous: Option<Entry>,
    /// The head as of its recording: this revision, unless it is late.
    pub head: Entry,
    /// The fact that gave the tag this state.
    pub push_id: i64,
}

/// The history of one tag around the incoming facts.
#[derive(Debug, Clone, Default)]
pub struct TagState {
    /// Greatest number issued.
    pub issued: u64,
    /// The revision in force at the end of the timeline.
    pub head: Option<Entry>,
    /// Revisions, in the order of `(at, number)`.
    revisions: Vec<Entry>,
    /// Facts, in their order.
    facts: Vec<Fact>,
    /// The first effective time of each digest that may be pushed again.
    first_had: HashMap<Digest, OffsetDateTime>,
}

impl TagState {
    /// Makes the state of a tag from the revisions and facts around the incoming ones, in any
    /// order, repeats allowed. `first_had` has the first effective time of each digest that may be
    /// pushed again, if the tag ever had the digest.
    pub fn new(
        issued: u64,
        head: Option<Entry>,
        revisions: Vec<Entry>,
        facts: Vec<Fact>,
        first_had: HashMap<Digest, OffsetDateTime>,
    ) -> TagState {
        let mut known = TagState {
            issued,
            head,
            revisions,
            facts,
            first_had,
        };
        known.revisions.extend(known.head.clone());
        known.revisions.sort_by_key(Entry::order);
        known.revisions.dedup();
        known.facts.sort_by(|a, b| a.order().cmp(&b.order()));
        known.facts.dedup();
        known
    }

    /// Adds a new fact, and numbers the changes that follow from it, in the order of their time.
    pub fn record(&mut self, fact: Fact) -> Vec<NewRevision> {
        let instant = fact.at;
        let place = self
            .facts
            .partition_point(|known| known.order() <= fact.order());
        self.facts.insert(place, fact);
        let mut decided = Vec::new();
        // Fold from the state just before the instant to the end of the first later instant at
        // which a fact fixes the state.
        let mut state = self
            .in_force_before(instant)
            .and_then(|revision| revision.digest.clone());
        let mut given_by = None;
        let mut next = self.facts.partition_point(|known| known.at < instant);
        while let Some(now) = self.facts.get(next).map(|fact| fact.at) {
            let mut settled = false;
            while let Some(fact) = self.facts.get(next).filter(|fact| fact.at == now) {
                settled |= fact.effect.fixes_state();
                let after = fold(state.as_ref(), &fact.effect);
                if after != state || given_by.is_none() {
                    given_by = Some(fact.push_id);
                }
                state = after;
                next += 1;
            }
            if let Some(push_id) = given_by {
                decided.extend(self.number(now, state.as_ref(), push_id));
            }
            if settled && now > instant {
                break;
            }
        }
        // The head is certain only after all changes have their numbers.
        let head = self.head.clone();
        for new in &mut decided {
            if let Some(head) = &head {
                new.head = head.clone();
            }
        }
        decided
    }

    /// Gives the next number to this instant, if the revisions so far have another state there than
    /// `state`.
    fn number(
        &mut self,
        at: OffsetDateTime,
        state: Option<&Digest>,
        push_id: i64,
    ) -> Option<NewRevision> {
        let place = self.revisions.partition_point(|revision| revision.at <= at);
        let previous = place
            .checked_sub(1)
            .map(|before| self.revisions[before].clone());
        let said = previous
            .as_ref()
            .and_then(|revision| revision.digest.as_ref());
        if said == state {
            return None;
        }
        self.issued += 1;
        let revision = Entry {
            at,
            number: self.issued,
            digest: state.cloned(),
        };
        let returns = state
            .and_then(|digest| self.first_had.get(digest))
            .is_some_and(|first| *first <= at);
        let kind = match (&previous, state) {
            (None, _) => Kind::Created,
            (Some(_), None) => Kind::Deleted,
            (Some(Entry { digest: None, .. }), Some(_)) => Kind::Recreated,
            (Some(_), Some(_)) if returns => Kind::Reverted,
            (Some(_), Some(_)) => Kind::Moved,
        };
        if let Some(digest) = state {
            let first = self.first_had.entry(digest.clone()).or_insert(at);
            *first = at.min(*first);
        }
        self.revisions.insert(place, revision.clone());
        if self
            .head
            .as_ref()
            .is_none_or(|head| head.order() < revision.order())
        {
            self.head = Some(revision.clone());
        }
        Some(NewRevision {
            head: revision.clone(),
            revision,
            kind,
            returns,
            previous,
            push_id,
        })
    }

    fn in_force_before(&self, instant: OffsetDateTime) -> Option<&Entry> {
        let place = self
            .revisions
            .partition_point(|revision| revision.at < instant);
        place
            .checked_sub(1)
            .and_then(|before| self.revisions.get(before))
    }
}

/// Returns the state after an effect.
fn fold(state: Option<&Digest>, effect: &Effect) -> Option<Digest> {
    match effect {
        Effect::Push(digest) => Some(digest.clone()),
        Effect::Delete | Effect::DeleteRepository => None,
        Effect::DeleteDigest(digest) => state.filter(|had| *had != digest).cloned(),
    }
}

#[cfg(test)]
mod tests;
